"""Batches: --task_sampling with shares, passes, runs and cost; the examples of a step and its split."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import assert_same_run, fail_in_step, run, write_gym
from tiny_steps import OneOfSeveral, encoded

from dataloader import TaskMixture, answer_choices, assign_to_ranks, micro_batches
from routing_moe.config.train import TrainSettings
from routing_moe.model.counted_flops import example_flops
from routing_moe.training.cost import training_cost

SIZES = {9: 3, 2: 40, 5: 7, 4: 1}  # rows of each task id
TASKS_N = np.random.default_rng(0).permutation([task for task, size in SIZES.items() for _ in range(size)])
SHARES = {  # of the tasks 2, 4, 5, 9, by hand
    "examples": [40 / 51, 1 / 51, 7 / 51, 3 / 51],
    "tasks": [1 / 4, 1 / 4, 1 / 4, 1 / 4],
    "temperature:2": np.sqrt([40, 1, 7, 3]) / np.sqrt([40, 1, 7, 3]).sum(),
    "temperature:1": [40 / 51, 1 / 51, 7 / 51, 3 / 51],
    "cap:5": [5 / 14, 1 / 14, 5 / 14, 3 / 14],
    "cap:1": [1 / 4, 1 / 4, 1 / 4, 1 / 4],
}


@pytest.mark.parametrize("sampling", SHARES)
def test_shares_of_tasks_equal_hand_computed_ones(sampling):
    mixture = TaskMixture(TASKS_N, sampling)
    assert mixture.task_ids.tolist() == [2, 4, 5, 9]
    assert mixture.shares == pytest.approx(SHARES[sampling])


@pytest.mark.parametrize("sampling", list(SHARES)[1:])  # examples: the next test
def test_every_task_and_row_is_drawn_its_expected_number_of_times_rounded(sampling):
    mixture = TaskMixture(TASKS_N, sampling)
    share_of = dict(zip(mixture.task_ids.tolist(), SHARES[sampling], strict=True))
    epochs = [mixture.epoch_order(3, epoch) for epoch in range(20)]
    for order in epochs:
        rows, tasks = Counter(order.tolist()), Counter(TASKS_N[order].tolist())
        for task, share in share_of.items():
            assert abs(tasks[task] - 51 * share) < 1
            expected = 51 * share / SIZES[task]
            assert all(abs(rows[n] - expected) < 1 for n in np.flatnonzero(task == TASKS_N))
    assert len({order.tobytes() for order in epochs}) == 20
    again = TaskMixture(TASKS_N, sampling)  # an epoch is a pure function of the seed and its number
    assert again.epoch_order(3, 7).tolist() == epochs[7].tolist() != again.epoch_order(4, 7).tolist()


def test_by_default_epochs_are_permutations_of_all_examples(make_stepper):
    assert TrainSettings.__dataclass_fields__["task_sampling"].default == "examples"
    stepper = make_stepper()  # 14 examples, steps of 6
    epochs = np.concatenate([np.random.default_rng([1, epoch]).permutation(14) for epoch in range(4)])
    for step in range(8):
        assert stepper.split(step)[0].tolist() == epochs[6 * step : 6 * step + 6].tolist()


# ---- steps and cost


@pytest.fixture
def unequal():
    """Two short examples of task 0, six long ones of task 1."""
    lengths = [2, 2, 9, 9, 9, 9, 9, 9]
    outputs = [[0, *[6] * (n // 2), 2] for n in lengths]
    return encoded([[0, *[5] * n, 2] for n in lengths], outputs, [0] * 2 + [1] * 6)


@pytest.mark.parametrize(("sampling", "share"), [("examples", 1 / 4), ("cap:3", 2 / 5), ("tasks", 1 / 2)])
def test_the_cost_is_that_of_the_mixture(make_stepper, unequal, sampling, share):
    alone = {"max_tokens_per_micro_batch": 1}  # without padding
    stepper = make_stepper(alone | dict(task_sampling=sampling, train_batch_size=10), unequal, num_experts=1)
    short, long = example_flops(stepper.model, [[4, 11], [3, 6], [3, 6]], torch.ones(1, 2, 1))
    # Forty steps are 50 epochs of 8 draws.
    found = training_cost(stepper, 40)["flops_per_example"]
    assert found == pytest.approx(share * short + (1 - share) * long, rel=0.02)


def test_all_processes_share_the_same_step(make_stepper, unequal):
    stepper = make_stepper({"task_sampling": "tasks", "max_tokens_per_micro_batch": 30}, unequal)
    alone = stepper.split(3)
    parts = []
    for rank in range(3):
        stepper.accelerator = OneOfSeveral(rank, 3)
        split = stepper.split(3)
        assert split[0].tolist() == alone[0].tolist()
        assert split[1].tolist() == alone[1].tolist()
        parts += [split[2][group] for group in stepper.own_groups(*split)]
    assert sorted(np.concatenate(parts)) == list(range(6))


# ---- runs


@pytest.fixture(scope="module")
def unequal_gym(tmp_path_factory) -> Path:
    """The gym of other tests with 24, 6 and 24 train rows of colour, count and opposite."""
    gym = write_gym(tmp_path_factory.mktemp("unequal") / "gym")
    for path in (gym / "count").glob("*_train.tsv"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    return gym


@pytest.mark.usefixtures("empty_pictures")
def test_a_failed_and_resumed_run_equals_an_uninterrupted_one(world, unequal_gym, tmp_path, capsys):
    changed = dict(task_sampling="temperature:2", total_steps=4, eval_period=2, num_beams=1)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(unequal_gym, world.bart, whole, **changed) == 0
    fail_in_step(4, lambda: run(unequal_gym, world.bart, stopped, **changed))
    capsys.readouterr()
    assert run(unequal_gym, world.bart, stopped, **(changed | dict(task_sampling="tasks", resume=True))) == 2
    words = "--task_sampling is tasks, but in the run to resume it was temperature:2"
    assert words in capsys.readouterr().err
    assert run(unequal_gym, world.bart, stopped, **changed, resume=True) == 0
    assert_same_run(stopped, whole)
    # The shares of 24, 6 and 24 rows are in proportion to 2, 1 and 2.
    shares = "task sampling: temperature:2; shares of tasks: colour 40%, opposite 40%, count 20%"
    assert shares in (whole / "log.txt").read_text()


@pytest.mark.parametrize("wrong", ["Tasks", "temperature", "temperature:nan", "tasks:2", ""])
def test_a_wrong_sampling_is_one_clear_error(fresh, capsys, wrong):
    assert run(fresh.gym, fresh.bart, fresh.out, task_sampling=wrong) == 2
    assert f"--task_sampling is {wrong}; it must be examples, tasks, temp" in capsys.readouterr().err
    assert not fresh.out.exists()


# ---- steps are a pure function of (seed, step), and split at minimum cost


def test_answers_are_drawn_uniformly_and_reproducibly():
    n_outputs = np.array([1, 2, 4] * 2000)
    choices = answer_choices(n_outputs, 3, 9)
    assert (choices == answer_choices(n_outputs, 3, 9)).all()
    assert not (choices == answer_choices(n_outputs, 3, 10)).all()
    for column, count in ((0, 1), (1, 2), (2, 4)):
        shares = np.bincount(choices[column::3], minlength=count) / 2000
        assert shares == pytest.approx(np.full(count, 1 / count), abs=0.05)


def cost(sources, targets, group, overhead):
    return len(group) * (sources[group].max() + targets[group].max()) + overhead


def cheapest_of_all_splits(sources, targets, max_tokens, max_examples, overhead):
    """Brute force: tries every split of the sorted order into contiguous groups."""
    order = np.lexsort((sources, sources + targets))
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        groups = np.split(order, np.flatnonzero(cuts) + 1)
        too_many = max_examples is not None and max(map(len, groups)) > max_examples
        too_long = max_tokens is not None and any(
            len(group) > 1 and cost(sources, targets, group, 0) > max_tokens for group in groups
        )
        if not too_many and not too_long:
            best = min(best, sum(cost(sources, targets, group, overhead) for group in groups))
    return best


@pytest.mark.parametrize(
    ("max_tokens", "max_examples", "overhead"),
    [(None, None, 0), (None, 3, 20), (60, None, 20), (60, 1, 0), (200, 3, 300), (200, None, 0)],
)
def test_the_split_is_the_cheapest_of_all_splits(max_tokens, max_examples, overhead):
    generator = np.random.default_rng(1)
    for n in (1, 2, 5, 8, 8):
        sources, targets = generator.integers(1, 80, n), generator.integers(1, 30, n)
        groups = micro_batches(sources, targets, max_tokens, max_examples, overhead)
        assert sorted(np.concatenate(groups)) == list(range(n))
        found = sum(cost(sources, targets, group, overhead) for group in groups)
        assert found == cheapest_of_all_splits(sources, targets, max_tokens, max_examples, overhead)
        for group in groups:
            assert max_examples is None or len(group) <= max_examples
            assert max_tokens is None or len(group) == 1 or cost(sources, targets, group, 0) <= max_tokens


def test_no_examples_give_no_groups():
    assert micro_batches([], []) == []


def test_groups_go_to_the_rank_with_the_lowest_load():
    # 7 -> rank 0, 6 -> 1, 5 -> 1 would make 11, but 2 is empty: 5 -> 2, 4 -> 2 (9), 3 -> 1 (9), 2 -> 0 (9).
    assert assign_to_ranks([4, 7, 2, 6, 3, 5], 3) == [[1, 2], [3, 4], [0, 5]]
    assert assign_to_ranks([1, 1], 4) == [[0], [1], [], []]
    assert assign_to_ranks([2, 1], 1) == [[0, 1]]
