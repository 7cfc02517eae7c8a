"""cost.json: the cost of training a run, with the run that it started from; --equal_flops."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from tiny_runs import write_bart
from torch.utils.flop_counter import FlopCounterMode

from dataloader.errors import InputError
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.train import train_settings
from routing_moe.results.run_cost import read_cost, with_start
from routing_moe.training.cost import described_cost, equal_steps, training_cost

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_a_run_costs_the_sum_of_its_steps(make_stepper):
    stepper = make_stepper({"max_tokens_per_micro_batch": 60})
    cost = training_cost(stepper, 7)
    stepper.model.set_attn_implementation("eager")  # the counter omits fused kernels
    with FlopCounterMode(display=False) as counter:
        for step in range(7):
            stepper.step(step)
    assert cost["total_flops"] == counter.get_total_flops()
    assert cost["flops_per_example"] == round(cost["total_flops"] / (7 * 6))
    assert (cost["steps"], cost["examples_per_step"]) == (7, 6)
    size = sum(p.numel() for p in stepper.model.parameters())
    assert cost["total_parameters"] == cost["trained_parameters"] == size
    whole, sample = training_cost(stepper, 200), training_cost(stepper, 200, most=40)
    assert sample["total_flops"] == pytest.approx(whole["total_flops"], rel=0.05)


def test_steps_with_frozen_parts_cost_less_and_sampling_misses_none(make_stepper):
    flags = [dict(alternate_every=n, train_batch_size=14) for n in (0, 2)]  # all examples are in each step
    every, alternating = (make_stepper(own) for own in flags)
    of_kinds = []
    for step in (0, 2):
        alternating.freeze_parts(step)
        alternating.settings = dataclasses.replace(alternating.settings, alternate_every=0)
        of_kinds.append(training_cost(alternating, 1)["total_flops"])
        alternating.settings = dataclasses.replace(alternating.settings, alternate_every=2)
    cost = training_cost(alternating, 8)
    # of 8 steps BART is frozen in the first, and in two pairs; see frozen_parts
    assert cost["total_flops"] == pytest.approx(4 * sum(of_kinds), rel=0.05)
    assert cost["total_flops"] < 0.95 * training_cost(every, 8)["total_flops"]
    assert training_cost(alternating, 8, most=1)["total_flops"] == pytest.approx(cost["total_flops"], rel=0.1)


def test_a_finished_run_has_its_cost(finished):
    cost = json.loads((finished / "cost.json").read_text())
    assert cost["total_flops_with_start"] == cost["total_flops"] > 0
    assert f"{described_cost(cost)}\n" in (finished / "log.txt").read_text()


# ---- --equal_flops


def test_equal_flops_trains_as_many_steps_as_another_run_costs(world, finished):
    plain = dict(num_experts=1, router_lr=None, task_model_lr=None, taskvecs_dim=None, router_hidden_dim=None)
    plain |= dict(init_eps=None, eval_period=100, equal_flops=finished, flops_factor=1.5)
    run, budget = world.run("equal", **plain), 1.5 * read_cost(finished)["total_flops"]
    cost = read_cost(run)
    assert abs(cost["total_flops"] - budget) <= cost["total_flops"] / cost["steps"]
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["total_steps"] == cost["steps"] != read_cost(finished)["steps"]
    before = (run / "last/model.safetensors").read_bytes()
    for flags in (dict(total_steps=None), {}):  # {}: the same command again
        (run / "cost.json").unlink()
        world.run("equal", **plain | flags, resume=True)  # keeps the steps of run.json
        assert (run / "last/model.safetensors").read_bytes() == before
        assert read_cost(run) == cost


def test_equal_flops_without_a_step_or_a_cost_is_an_error(make_stepper, finished, tmp_path):
    flags = dict(output_dir="unused", total_steps=20, equal_flops=str(finished), flops_factor=1e-6)
    settings = train_settings(flags)
    with pytest.raises(InputError, match="do not suffice for one step"):
        equal_steps(make_stepper(), settings)
    with pytest.raises(InputError, match=r"has no cost\.json"):
        equal_steps(make_stepper(), dataclasses.replace(settings, equal_flops=str(tmp_path)))


# ---- the start

OWN = dict(steps=5, total_flops=100)


@pytest.fixture
def stages(tmp_path):
    """The folders of stage 1, with its cost, and of stage 2, which starts from its merge."""
    stage_1, run = tmp_path / "stage1", tmp_path / "run"
    (run / "init").mkdir(parents=True)
    write_cost(stage_1, steps=6, total_flops=1000)
    merged = {"settings": {"routes_from": str(stage_1), "vanilla_checkpoint": None}}
    (run / "init" / MERGE_FILE).write_text(json.dumps(merged))
    return stage_1, run


def write_cost(run: Path, **changed) -> None:
    numbers = ("total_parameters", "active_parameters", "flops_per_example", "examples_per_step")
    cost = dict.fromkeys(numbers, 1) | {"runs_before": {}} | changed
    cost = {f"{name}_with_start": cost[name] for name in ("steps", "total_flops")} | cost
    (run / "best").mkdir(parents=True, exist_ok=True)
    (run / "cost.json").write_text(json.dumps(cost))


def cost_of(run: Path, **flags) -> dict:
    settings = dataclasses.replace(train_settings(dict(output_dir=str(run), do_train=True)), **flags)
    return with_start(OWN, settings.start, run)


def test_stage_2_counts_stage_1_with_its_start(stages):
    stage_1, run = stages
    merged = dict(checkpoint_name="init", initialize_from_vanilla=False)
    cost = cost_of(run, **merged)
    assert cost == OWN | dict(
        steps_with_start=11,
        total_flops_with_start=1100,
        start_unknown=None,
        runs_before={str(stage_1): [6, 1000]},
    )
    write_cost(stage_1, steps=6, total_flops=1000, runs_before={"earlier": [3, 500]})
    for place in (stage_1, stage_1 / "best"):
        cost = cost_of(run, vanilla_checkpoint=str(place), initialize_from_vanilla=True)
        assert (cost["steps_with_start"], cost["total_flops_with_start"]) == (14, 1600)
    (stage_1 / "cost.json").unlink()
    cost = cost_of(run, **merged)
    assert cost["total_flops_with_start"] is cost["steps_with_start"] is None
    assert f"no cost.json with {stage_1}" in cost["start_unknown"]
    plain = cost_of(run, initialize_from_vanilla=True)
    assert (plain["total_flops_with_start"], plain["start_unknown"]) == (100, None)


@pytest.mark.parametrize("shares_start", [False, True])
def test_stage_2_counts_a_trained_plain_model_once(stages, shares_start):
    stage_1, run = stages
    write_cost(dense := run.parent / "dense", steps=2, total_flops=200)
    before = {str(dense): [2, 200]} if shares_start else {}
    write_cost(stage_1, steps=6, total_flops=1000, runs_before=before)
    merged = {"settings": {"routes_from": str(stage_1), "vanilla_checkpoint": str(dense / "best")}}
    (run / "init" / MERGE_FILE).write_text(json.dumps(merged))
    cost = cost_of(run, checkpoint_name="init", initialize_from_vanilla=False)
    assert (cost["steps_with_start"], cost["total_flops_with_start"]) == (13, 1300)


def test_a_plain_model_that_no_run_has_trained_costs_nothing(stages):
    stage_1, run = stages
    plain = write_bart(run.parent / "plain")
    merged = {"settings": {"routes_from": str(stage_1), "vanilla_checkpoint": str(plain)}}
    (run / "init" / MERGE_FILE).write_text(json.dumps(merged))
    flags = dict(checkpoint_name="init", initialize_from_vanilla=False)
    assert cost_of(run, **flags)["total_flops_with_start"] == 1100
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"weights_seen": {"a": "labelled rows"}}))
    assert f"no cost.json with {plain}" in cost_of(run, **flags)["start_unknown"]


def test_groups_count_the_run_that_they_were_found_with_and_the_matrix(stages):
    stage_1, run = stages
    found = Path(shutil.copytree(stage_1, run.parent / "deltas")) / "transfer"
    found.mkdir()
    (found / "groups.json").write_text("{}")
    summary = dict(run=str(found.parent), total_flops=50)
    (found / "transfer.json").write_text(json.dumps(summary))
    given = dict(task_routes=str(found / "groups.json"), initialize_from_vanilla=True)
    deltas = found.parent
    before = {str(stage_1): [6, 1000]}  # both trainings start from the same weights
    write_cost(deltas, steps=6, total_flops=1000, runs_before=before)
    given |= dict(vanilla_checkpoint=str(stage_1))
    assert cost_of(run, **given)["total_flops_with_start"] == 100 + 1000 + 1000 + 50
    (deltas / "cost.json").unlink()  # nothing was trained on few contested rows
    assert cost_of(run, **given)["total_flops_with_start"] == 100 + 1000 + 50


@pytest.mark.parametrize("damage", ['{"steps": 1}', "{"])
def test_a_damaged_file_is_named_with_the_way_to_repair_it(tmp_path, damage):
    (tmp_path / "cost.json").write_text(damage)
    with pytest.raises(InputError, match=r"cost\.json"):
        read_cost(tmp_path)
    assert read_cost(tmp_path / "elsewhere") is None
