"""cost.json: the cost of training a run, with the runs that it started from."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from tiny_steps import settings_with

from dataloader.errors import InputError
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.model.flops import Work, active_parameters, total_parameters
from routing_moe.optim.step import frozen_parts
from routing_moe.results import run_cost
from routing_moe.results.run_cost import described_cost, earlier_runs, read_cost
from routing_moe.training.cost import equal_steps, flops_of_steps, training_cost, write_cost

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_a_run_costs_the_sum_of_its_steps(make_stepper):
    stepper = make_stepper({"max_tokens_per_micro_batch": 60})
    steps = [flops_of_steps(stepper, [step], Work.of(stepper.model)) for step in range(7)]
    cost = training_cost(stepper, 7)
    assert cost["total_flops"] == sum(padded for padded, _ in steps)
    assert cost["flops_per_example"] == round(sum(padded for padded, _ in steps) / (7 * 6))
    assert cost["flops_per_example_unpadded"] == round(sum(bare for _, bare in steps) / (7 * 6))
    assert cost["flops_per_example_unpadded"] < cost["flops_per_example"]
    assert (cost["steps"], cost["examples_per_step"], cost["sampled_steps"]) == (7, 6, 7)
    config = stepper.model.config
    assert cost["total_parameters"] == total_parameters(config) == cost["trained_parameters"]
    assert cost["active_parameters"] == active_parameters(config, 1) < cost["total_parameters"]


def test_a_long_run_is_estimated_from_sampled_steps(make_stepper):
    stepper = make_stepper()
    whole, sample = training_cost(stepper, 200), training_cost(stepper, 200, most_sampled=40)
    assert (whole["sampled_steps"], sample["sampled_steps"]) == (200, 40)
    assert sample["total_flops"] == pytest.approx(whole["total_flops"], rel=0.03)


def test_steps_with_frozen_parts_cost_less_and_sampling_misses_none(make_stepper):
    stepper = make_stepper({"alternate_every": 2, "train_batch_size": 14})  # all examples in each step
    work = Work.of(stepper.model)
    cost = training_cost(stepper, 10, most_sampled=10)
    exact = sum(flops_of_steps(stepper, [step], work.without(frozen_parts(step, 2)))[0] for step in range(10))
    assert cost["total_flops"] == pytest.approx(exact, rel=0.05)
    assert (
        cost["total_flops"] < 0.95 * training_cost(make_stepper({"train_batch_size": 14}), 10)["total_flops"]
    )
    assert training_cost(stepper, 10, most_sampled=1)["total_flops"] == pytest.approx(exact, rel=0.1)


def test_a_finished_run_has_its_cost_and_resuming_adds_a_missing_one(world, finished):
    expected = (finished / "cost.json").read_bytes()
    cost = json.loads(expected)
    assert cost["total_flops_with_start"] == cost["total_flops"] > 0
    assert cost["earlier_runs"] == []
    assert f"{described_cost(cost)}\n" in (finished / "log.txt").read_text()
    copy = world.copy(finished, "without_cost")
    (copy / "cost.json").unlink()
    world.run("without_cost", save_period=2, resume=True)
    assert (copy / "cost.json").read_bytes() == expected


# ---- --equal_flops


def test_equal_flops_gives_as_many_steps_as_another_run_cost(world, finished, tmp_path, capsys):
    plain = dict(num_experts=1, router_lr=None, task_model_lr=None, taskvecs_dim=None, router_hidden_dim=None)
    plain |= dict(init_eps=None)
    total = 3 * read_cost(finished)["total_flops"]
    (tmp_path / "cost.json").write_text(json.dumps(read_cost(finished) | {"total_flops_with_start": total}))
    capsys.readouterr()
    asked = world.run("asked", equal_flops=tmp_path, **plain)
    steps = int(capsys.readouterr().out)
    assert not asked.exists()
    cost = read_cost(world.run("as_many", total_steps=steps, eval_period=100, **plain))["total_flops"]
    assert 0.93 * total < cost < 1.02 * total  # a step is 5%


def test_equal_flops_subtracts_the_flops_of_earlier_runs(stages, make_stepper):
    stage_1, run = stages
    before, stepper = read_cost(stage_1)["total_flops"], make_stepper()
    own = training_cost(stepper, 20)["total_flops"] / 20
    reference = run.parent / "reference"
    reference.mkdir()
    cost = read_cost(stage_1) | {"total_flops_with_start": before + round(3.5 * own)}
    (reference / "cost.json").write_text(json.dumps(cost))
    runs = earlier(stage_2(run))
    assert equal_steps(stepper, 20, str(reference), runs) == 3
    for path, message in ((stage_1, "leave no step of this training after the"), (run, "has no cost.json")):
        with pytest.raises(InputError, match=message):
            equal_steps(stepper, 20, str(path), runs)
    (stage_1 / "cost.json").unlink()
    with pytest.raises(InputError, match="total FLOPs are unknown"):
        equal_steps(stepper, 20, str(reference), earlier(stage_2(run)))


# ---- earlier runs


@pytest.fixture
def stages(tmp_path, finished):
    """Stage 1, its merge, and the folder of stage 2, which starts from it."""
    stage_1, run = tmp_path / "stage1", tmp_path / "run"
    (stage_1 / "best").mkdir(parents=True)
    shutil.copy(finished / "cost.json", stage_1)
    (run / "init").mkdir(parents=True)
    merged = {"settings": {"routes_from": str(stage_1), "vanilla_checkpoint": None}}
    (run / "init" / MERGE_FILE).write_text(json.dumps(merged))
    return stage_1, run


def stage_2(run: Path, **changed):
    settings = settings_with(**(dict(output_dir=run, checkpoint_name="init") | changed))
    return dataclasses.replace(settings, do_train=True)


def start_of(settings):
    return settings.start, Path(settings.output_dir)


def earlier(settings):
    return earlier_runs(*start_of(settings))


def test_stage_2_counts_stage_1(stages, make_stepper):
    stage_1, run = stages
    before = read_cost(stage_1)
    cost = write_cost(make_stepper(), 5, *start_of(stage_2(run)))
    assert cost == json.loads((run / "cost.json").read_text())
    assert cost["steps_with_start"] == 5 + before["steps"]
    assert cost["total_flops_with_start"] == cost["total_flops"] + before["total_flops"]
    assert "FLOPs including earlier runs" in described_cost(cost)
    (next_stage := run.parent / "next").mkdir()  # a third run, from stage 2's best
    third = write_cost(make_stepper(), 5, *start_of(stage_2(next_stage, checkpoint=run / "init")))
    assert third["steps_with_start"] == cost["steps_with_start"]
    (run / "best").mkdir()
    third = write_cost(make_stepper(), 5, *start_of(stage_2(next_stage, checkpoint=run / "best")))
    assert third["steps_with_start"] == 5 + cost["steps_with_start"]


def test_the_runs_of_an_assembled_mixture_count(stages):
    stage_1, run = stages
    other = Path(shutil.copytree(stage_1, run.parent / "other"))
    base = Path(shutil.copytree(stage_1, run.parent / "base"))
    (assembled := run.parent / "assembled").mkdir()

    def earlier_of(**made_of):
        (assembled / ASSEMBLED_FILE).write_text(json.dumps({"settings": made_of}))
        return earlier(stage_2(run, checkpoint=assembled))

    experts = [f"a={stage_1}", f"b={other / 'best'}"]
    places = [str(stage_1), str(other / "best")]
    for place in ("facebook/bart-base", str(base / "best")):
        assert [one["folder"] for one in earlier_of(experts=experts, base=place)] == places
    (base / "run.json").write_text("{}")
    found = earlier_of(experts=experts, base=str(base / "best"))
    assert [one["folder"] for one in found] == [*places, str(base / "best")]
    assert [one["steps"] for one in found] == [6, 6, 6]
    (adapter := run.parent / "adapter").mkdir()
    unknown = earlier_of(experts=[f"a={adapter}", *experts], base="facebook/bart-base")[0]["unknown"]
    assert unknown.startswith(f"no cost.json with {adapter}; only train writes cost.json")


def test_an_earlier_run_without_cost_is_null_with_the_reason(stages, make_stepper):
    stage_1, run = stages
    (stage_1 / "cost.json").unlink()
    cost = write_cost(make_stepper(), 5, *start_of(stage_2(run)))
    assert cost["total_flops_with_start"] is None
    assert cost["steps_with_start"] is None
    assert f"no cost.json with {stage_1}" in cost["start_unknown"]
    assert "unknown: no cost.json" in described_cost(cost)
    (run / "best").mkdir()
    (later,) = earlier(stage_2(run.parent / "next", checkpoint=run / "best"))
    assert later["unknown"] == cost["start_unknown"]


def test_the_known_cost_of_a_deleted_earlier_run_is_kept(stages, make_stepper):
    stage_1, run = stages
    cost = write_cost(make_stepper(), 5, *start_of(stage_2(run)))
    shutil.rmtree(stage_1)
    assert write_cost(make_stepper(), 5, *start_of(stage_2(run))) == cost
    (run / "cost.json").write_text('{"earlier_runs": [3]}')
    assert (
        write_cost(make_stepper(), 5, *start_of(stage_2(run)))["start_unknown"]
        == f"{stage_1} no longer exists"
    )


def test_a_plain_bart_counts_if_a_run_trained_it_but_not_from_the_hub(stages):
    stage_1, run = stages
    settings = dataclasses.replace(stage_2(run), initialize_from_vanilla=True)
    assert earlier(settings) == []
    trained = dataclasses.replace(settings, vanilla_checkpoint=str(stage_1 / "best"))
    assert [before["steps"] for before in earlier(trained)] == [6]


def test_the_run_that_task_vectors_were_computed_with_counts_once(stages, make_stepper):
    stage_1, run = stages
    (vectors := run.parent / "vectors").mkdir()
    settings = dataclasses.replace(stage_2(run), initialize_from_vanilla=True, taskvecs=str(vectors))
    assert earlier(settings) == []
    for model in (stage_1, stage_1 / "best"):
        (vectors / "meta.json").write_text(json.dumps({"model": str(model)}))
        (stage_1 / "run.json").unlink(missing_ok=True)
        assert earlier(settings) == []  # a BART that no run of ours trained
        (stage_1 / "run.json").write_text("{}")
        (before,) = earlier(settings)
        assert (before["folder"], before["steps"]) == (str(model), 6)
        both = dataclasses.replace(settings, vanilla_checkpoint=str(stage_1 / "best"))
        assert [before["steps"] for before in earlier(both)] == [6]
    own = read_cost(stage_1)
    assert write_cost(make_stepper(), 5, *start_of(settings))["total_flops_with_start"] > own["total_flops"]
    (stage_1 / "cost.json").unlink()
    (before,) = earlier(settings)
    assert "no cost.json with" in before["unknown"]


def test_a_run_that_is_reached_in_several_ways_counts_once(stages, make_stepper):
    """The dense run gives weights, gradients, and the routes of a run in whose folder the used routes are."""
    dense, run = stages
    vectors, clustered = run.parent / "vectors", run.parent / "clustered"
    for folder in (vectors, clustered):
        folder.mkdir()
    for folder in (dense, clustered):
        (folder / "run.json").write_text("{}")
    (vectors / "meta.json").write_text(json.dumps({"model": str(dense)}))

    def cost(folder, steps, **changed):
        settings = dataclasses.replace(stage_2(folder), initialize_from_vanilla=True, **changed)
        return write_cost(make_stepper(), steps, *start_of(settings))

    given = dict(vanilla_checkpoint=str(dense), taskvecs=str(vectors))
    first = cost(clustered, 4, task_routes="clusters:2", **given)
    of_dense = read_cost(dense)["total_flops"]
    assert first["total_flops_with_start"] == first["total_flops"] + of_dense
    (routes := clustered / "groups.json").write_text("{}")
    (clustered / "transfer.json").write_text(json.dumps({"total_flops": 1000}))
    for others, permuted in (({}, ""), (given, "random:"), (given, "")):
        last = cost(run, 5, task_routes=f"{permuted}{routes}", **others)
        assert last["steps_with_start"] == 5 + 4 + 6
        assert last["total_flops_with_start"] == last["total_flops"] + first["total_flops_with_start"] + 1000
    (elsewhere := run.parent / "elsewhere").mkdir()
    (elsewhere / "groups.json").write_text("{}")
    summary = {"total_flops": 1000, "run": str(clustered)}
    (elsewhere / "transfer.json").write_text(json.dumps(summary))
    moved = cost(run, 5, task_routes=str(elsewhere / "groups.json"))
    assert moved["total_flops_with_start"] == last["total_flops_with_start"]
    last = cost(run, 5, task_routes=str(routes), **given)
    shutil.rmtree(dense)
    assert cost(run, 5, task_routes=str(routes), **given) == last
    assert cost(run, 5, task_routes="gym/oracle_routes.json")["earlier_runs"] == []


@pytest.mark.parametrize("damage", ['{"steps": 1}', "{", "[]", '{"start_unknown": null}'])
def test_a_damaged_file_is_named_with_the_way_to_repair_it(tmp_path, damage):
    (tmp_path / "cost.json").write_text(damage)
    with pytest.raises(InputError, match=r"cost\.json"):
        read_cost(tmp_path)
    assert read_cost(tmp_path / "elsewhere") is None


def test_numbers_are_shown_with_three_digits():
    shown = {number: run_cost.in_units(number) for number in (7, 1234, 1.1e6, 999.9e9, 3.21e18, 5e21)}
    assert list(shown.values()) == ["7 ", "1.23 k", "1.1 M", "1 T", "3.21 E", "5e+03 E"]
