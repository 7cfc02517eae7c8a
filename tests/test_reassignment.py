"""Re-assignment of tasks: a slow reference, planted errors that are repaired, resuming, several processes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_hot_routes
from forks import in_two_processes
from mistakes import assert_problem, complaint
from PIL import Image
from test_route_losses import slow_losses
from tiny_runs import TRAIN_TASKS, assert_equal, assert_same_run, run, write_bart, write_gym
from tiny_steps import encoded, settings_with
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError
from dataloader.gym import Gym
from routing_moe.analysis.saved_routes import load_history
from routing_moe.cli import compare, create_gif, push
from routing_moe.config.train import TrainSettings
from routing_moe.io.accelerator import make_accelerator
from routing_moe.report.curves import reassignment_curves
from routing_moe.training.reassignment import Reassignment, best_routes, held_out
from task.skill_gym import TINY_BART

EVERY_TWO = dict(reassign_every=2, reassign_from=2, reassign_held_out=0.25)


def settings(**changed) -> TrainSettings:
    defaults = dict(reassign_every=1, reassign_from=1, reassign_held_out=0.5)
    return settings_with(**(defaults | dict(reassign_until=10) | changed))


@pytest.fixture
def rows():
    """Twenty-four examples of tasks a, b, c, six or so of each, in mixed order."""
    draw = np.random.default_rng(4)
    texts = [[0, *draw.integers(4, 60, draw.integers(1, 9)), 2] for _ in range(48)]
    return encoded(texts[:24], texts[24:], [i % 3 for i in range(24)])


@pytest.fixture
def routed(make_model):
    """A model of three experts whose tasks a, b, c have experts 0, 1 and 2; d has a route, but no rows."""
    model = make_model(route_source="fixed")
    model.task_routes.copy_(one_hot_routes([[n % 3] * 4 for n in range(4)], 3))
    return model


def test_tasks_move_as_by_a_loop_over_tasks_routes_and_rows(routed, rows):
    reassignment = Reassignment(routed, rows, settings(), make_accelerator("no"), 20)
    before = routed.task_routes.clone()
    held = [i for n in range(3) for i in np.flatnonzero(rows.task_ids_N == n)[1::2]]
    losses = slow_losses(routed, rows.subset(held), before[:3])
    means = [losses[rows.task_ids_N[held] == n].mean(axis=0) for n in range(3)]
    row = reassignment.move(1)
    expected = [int(np.argmin(mean)) for mean in means]
    assert routed.task_routes[:3].argmax(-1)[:, 0].tolist() == expected
    assert expected[0] != 0
    assert torch.equal(routed.task_routes[3], routed.task_routes[0])  # d had the route of a
    assert row["moved"] == sum(expected[n] != n for n in range(3)) > 0
    assert row["routes"] == len(set(expected))
    assert row["loss_before"] == pytest.approx(np.mean([means[n][n] for n in range(3)]))
    assert row["loss"] == row["loss_best"] == pytest.approx(np.mean([mean.min() for mean in means]))


def rows_of(tasks, inputs=None):
    """Returns rows of these tasks. inputs: a number for each row, as its text; None: all differ."""
    inputs = range(len(tasks)) if inputs is None else inputs
    return encoded([[0, int(i), 2] for i in inputs], [[0, 2]] * len(tasks), tasks)


def test_held_out_rows_are_spread_evenly_and_trained_on_only_once_tasks_stay(routed, rows):
    assert (
        held_out(rows_of([0] * 8 + [1] * 3), 0.25).tolist()
        == [False] * 3 + [True] + [False] * 3 + [True] + [False] * 3
    )
    reassignment = Reassignment(routed, rows, settings(reassign_held_out=0.25), make_accelerator("no"), 20)
    assert len(reassignment.held_examples) == 6
    assert reassignment.examples_at(9) is reassignment.trained_examples
    assert len(reassignment.trained_examples) == 18
    assert reassignment.examples_at(10) is rows


@pytest.mark.parametrize("share", [0.125, 0.25, 1 / 3, 0.5, 0.9])
def test_without_equal_inputs_rows_are_held_out_one_by_one(share):
    tasks = np.random.default_rng(0).integers(0, 4, 150)
    expected = np.zeros(150, dtype=bool)
    for task in range(4):
        own = np.flatnonzero(tasks == task)
        expected[own] = np.diff(np.floor(np.arange(len(own) + 1) * share + 1e-9)) > 0
    assert held_out(rows_of(tasks), share).tolist() == expected.tolist()


def test_rows_of_equal_input_are_held_out_together_and_keep_the_share():
    draw = np.random.default_rng(0)
    for share in (0.1, 0.25, 0.5, 0.9):
        tasks, inputs = draw.integers(0, 3, 200), draw.integers(0, 40, 200)
        is_held_R = held_out(rows_of(tasks, inputs), share)
        for task in range(3):
            held, trained = (inputs[(tasks == task) & chosen] for chosen in (is_held_R, ~is_held_R))
            assert len(trained) > 0
            assert not set(held) & set(trained)
            rows, largest = sum(tasks == task), np.bincount(inputs[tasks == task]).max()
            assert share * rows - largest < len(held) <= share * rows


def test_samples_that_overlap_share_no_input_between_trained_and_held_out_rows(tmp_path):
    pool = Gym(write_gym(tmp_path / "gym")).pool(TRAIN_TASKS, "train")  # each input is in four rows
    for i, row in enumerate(pool):  # for the model, these are equal: in lower case, and cut
        text = f"{row.input} {'and ' * 20}{i}"
        pool[i] = replace(row, input=text.upper() if i % 2 else text)
    short = TextFormat(max_input_length=16, do_lowercase=True)
    ids = {task: n for n, task in enumerate(TRAIN_TASKS)}
    rows = encode(pool, AutoTokenizer.from_pretrained(TINY_BART), short, ids)
    is_held_R = held_out(rows, 0.25)
    assert is_held_R.sum() == 3 * 4
    read = [(row.task, *rows.sources[i]) for i, row in enumerate(pool)]
    assert not {read[i] for i in np.flatnonzero(is_held_R)} & {read[i] for i in np.flatnonzero(~is_held_R)}


def test_a_task_moves_only_to_a_route_of_lower_loss():
    means_NK = np.array([[1.0, 0.6, 0.8], [1.0, 1.0, 1.0], [0.5, 0.9, 0.5]])
    assert best_routes(means_NK, np.array([0, 1, 2])).tolist() == [1, 1, 2]


def test_the_written_routes_have_no_gaps_and_no_unused_experts(routed, rows, tmp_path):
    reassignment = Reassignment(routed, rows, settings(), make_accelerator("no"), 20)
    routed.task_routes.copy_(one_hot_routes([[2, 2, 2, 0], [2, 2, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1]], 3))
    reassignment.write(tmp_path, [])
    written = json.loads((tmp_path / "reassigned_routes.json").read_text())
    assert written == {"a": [1, 1, 1, 0], "b": [1, 1, 1, 0], "c": 0}


def test_too_few_held_out_rows_are_refused(routed, rows):
    with pytest.raises(InputError, match="--reassign_held_out"):
        Reassignment(routed, rows, settings(reassign_held_out=0.1), make_accelerator("no"), 20)


def test_tasks_of_a_single_input_are_refused(routed):
    with pytest.raises(InputError, match="of equal input together"):
        Reassignment(routed, rows_of([0, 1, 2] * 8, [4] * 24), settings(), make_accelerator("no"), 20)


def test_routes_that_mix_experts_are_refused(routed, rows):
    routed.task_routes[1] = 1 / 3
    with pytest.raises(InputError, match="one-hot"):
        Reassignment(routed, rows, settings(), make_accelerator("no"), 20)


@pytest.fixture
def three_answers(make_stepper):
    """A stepper of six tasks, two for each of three answers, and right routes; expert 3 is idle."""
    draw = np.random.default_rng(2)
    tasks = [i % 6 for i in range(96)]
    sources = [[0, *draw.integers(4, 60, 5), 2] for _ in tasks]
    examples = encoded(sources, [[0, 7 + 10 * (task // 2), 2] for task in tasks], tasks)
    names = list("abcdef")
    fields = dict(num_experts=4, route_source="fixed", task_names=names)
    stepper = make_stepper(dict(train_batch_size=24), examples, **fields)
    return stepper, one_hot_routes([[n // 2] * 4 for n in range(6)], 4)


def trained(stepper, routes) -> None:
    stepper.model.task_routes.copy_(routes)
    for step in range(20):
        stepper.step(step)


def test_planted_errors_are_repaired(three_answers):
    stepper, right = three_answers
    trained(stepper, right)
    stepper.model.task_routes[[0, 5]] = right[[5, 0]]
    row = Reassignment(stepper.model, stepper.examples, settings(), stepper.accelerator, 20).move(2)
    assert row["moved"] == 2
    assert row["loss"] < row["loss_before"]
    assert torch.equal(stepper.model.task_routes, right)


def test_an_idle_expert_takes_the_tasks_of_one_answer_from_an_expert_of_two(three_answers):
    stepper, right = three_answers
    right[2:4] = right[0]  # tasks of two answers share expert 0; experts 1 and 3 are idle
    trained(stepper, right)
    model, changed = stepper.model, settings(reassign_splits=2)
    row = Reassignment(model, stepper.examples, changed, stepper.accelerator, 20).move(2)
    experts = model.task_routes.argmax(-1)[:, 0].tolist()
    assert experts in ([0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 2, 2])
    assert (row["splits"], row["routes_before"], row["routes"]) == (1, 2, 3)
    of_losses = Reassignment(model, stepper.examples, changed, stepper.accelerator, 20).flops(2)
    assert row["flops"] > of_losses
    for layer in model.routed_layers():
        assert_equal(layer.experts[1].state_dict(), layer.experts[0].state_dict())


# ---- whole runs


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A routes file of three tasks with an expert each."""
    path = tmp_path_factory.mktemp("routes") / "routes.json"
    path.write_text(json.dumps({"colour": 0, "count": 1, "opposite": 2, "plural": 2}))
    return dict(task_routes=path, num_experts=3, init_eps=0.5, **EVERY_TWO)


@pytest.fixture(scope="module")
def crowded(start):
    """All tasks on one of three experts, which is split in the second re-assignment."""
    path = start["task_routes"].with_name("crowded.json")
    path.write_text(json.dumps(dict.fromkeys(("colour", "count", "opposite", "plural"), 0)))
    return start | dict(task_routes=path, reassign_splits=1, total_steps=9, reassign_until=6)


@pytest.mark.usefixtures("quick_pictures")
def test_a_run_that_stops_between_moves_resumes_bit_for_bit(world, crowded):
    whole = world.run("split", **crowded, eval_period=2)
    table = pd.read_csv(whole / "reassignments.csv")
    assert table["step"].tolist() == [2, 4, 6]
    assert table["splits"].tolist() == [0, 1, 0]
    assert (whole / "4-steps/route.npy").is_file()
    cost = json.loads((whole / "cost.json").read_text())
    assert cost["reassignment_flops"] == table["flops"].sum()
    assert_same_run(world.resumed("stopped_after_split", **crowded, eval_period=2), whole)
    # Tasks without vectors move with those of their route.
    routes = json.loads((whole / "reassigned_routes.json").read_text())
    assert routes["plural"] in {routes[task] for task in ("colour", "count", "opposite")}


@pytest.mark.usefixtures("quick_pictures")
def test_a_run_that_stops_after_the_last_move_resumes_with_all_rows(world, start):
    changed = start | dict(total_steps=9, eval_period=2, reassign_until=4)
    whole = world.run("moved", **changed)
    assert pd.read_csv(whole / "reassignments.csv")["moved"].sum() > 0
    assert_same_run(world.resumed("stopped_after_moves", **changed), whole)
    # Evaluations before the last move are of other routes and fewer rows.
    best = json.loads((whole / "best/checkpoint.json").read_text())
    assert best["step"] >= 4


@pytest.mark.usefixtures("quick_pictures")
def test_a_training_that_epochs_end_moves_no_task_after_its_last_step(world, start):
    changed = start | dict(total_steps=60, warmup_ratio=0.05, num_train_epochs=1, reassign_until=60)
    folder = world.run("epochs_and_moves", **changed)
    assert pd.read_csv(folder / "losses.csv")["steps"].max() == 9
    assert pd.read_csv(folder / "reassignments.csv")["step"].tolist() == [2, 4, 6, 8]


@pytest.mark.usefixtures("quick_pictures")
def test_two_processes_move_and_split_as_one(world, crowded, tmp_path):
    bart = write_bart(world / "no_dropout_to_move", dropout=0.0)
    changed = crowded | dict(bart=bart, adam_epsilon=1e-3, learning_rate=0.01)
    one, two = world.run("one_process_moves", **changed), world / "two_processes_move"
    codes, _ = in_two_processes(tmp_path, lambda: run(world.gym, output_dir=two, **changed))
    assert codes == [0, 0]
    tables = [pd.read_csv(folder / "reassignments.csv") for folder in (two, one)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    assert (two / "reassigned_routes.json").read_bytes() == (one / "reassigned_routes.json").read_bytes()


@pytest.mark.usefixtures("quick_pictures")
def test_moves_are_in_what_commands_make_of_a_run_and_only_evaluations_have_scores(world, start, tmp_path):
    changed = start | dict(total_steps=5, reassign_until=4, eval_period=3)
    folder = world.run("commands/moving/seed1", **changed, do_predict=True)
    history, table = load_history(folder), pd.read_csv(folder / "reassignments.csv")
    assert history.steps == (0, 2, 3, 4, 5)
    scored = {path.parent.name for path in folder.glob("*-steps/dev_results.csv")}
    assert scored == {"3-steps", "5-steps"}
    given = json.loads(start["task_routes"].read_text())
    values_SNLE = history.values_SNLE
    assert values_SNLE[0, :, 0].argmax(-1).tolist() == [given[task] for task in history.tasks]
    moved_S = (values_SNLE[1:] != values_SNLE[:-1]).any(axis=(2, 3)).sum(axis=1)
    assert moved_S.tolist() == [table["moved"][0], 0, table["moved"][1], 0]
    assert moved_S.sum() > 0
    curves = {curve["curve"]: curve for curve in reassignment_curves(folder)}
    assert curves["moved tasks"]["values"] == table["moved"].tolist()
    assert curves["held-out loss: after tasks moved"]["steps"] == [2, 4]
    assert create_gif.main(["--run", str(folder), "--output_dir", str(tmp_path)]) == 0
    with Image.open(tmp_path / "routes.gif") as image:
        assert image.n_frames == 5
    columns = ["--columns", "cost", "dev", "--recovery", "category"]
    assert compare.main([str(world / "commands"), *columns, "--output_dir", str(tmp_path)]) == 0
    assert push.main([str(folder), "owner/name", "--dry_run", str(tmp_path / "shared")]) == 0
    assert (tmp_path / "shared/reassignments.csv").read_bytes() == (folder / "reassignments.csv").read_bytes()
    assert "tasks could move to the route" in (tmp_path / "shared/README.md").read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (EVERY_TWO, "--task_routes"),
        (EVERY_TWO | dict(num_experts=1), "--task_routes"),
        (dict(reassign_every=2, task_level_random_routing=True), "--reassign_from is 100"),
        (dict(reassign_held_out=1), "--reassign_held_out is 1"),
    ],
)
def test_contradictions_are_refused(fresh, capsys, changed, words):
    assert_problem(complaint(fresh, capsys, **changed), words)
