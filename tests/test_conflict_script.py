"""compare_conflict.sh: the flags and steps of its variants, tuned rates, second calls, faults."""

import shlex
from pathlib import Path

import pytest
from recording_scripts import Scripts
from tiny_runs import ROOT

from routing_moe.config.flags import parse
from routing_moe.config.merge import MergeSettings
from routing_moe.config.tables import CompareSettings, OverviewSettings
from routing_moe.config.train import TrainSettings
from task.conflict_gym.settings import BartSettings, GymSettings
from task.task_emb.fisher import FisherSettings
from task.task_emb.gradient import GradientSettings
from task.task_emb.text import TextSettings

SCRIPT = "compare_conflict.sh"
PLACE = "conflict1_16skills"
ONE = dict(OUTPUT_DIR="out", SEEDS="11", CONFLICTS="1", RATES="0.01", TOTAL_STEPS="33", DENSE_STEPS="20")
KINDS = {
    "routing_moe.cli.compare_runs": CompareSettings,
    "routing_moe.cli.merge": MergeSettings,
    "routing_moe.cli.overview": OverviewSettings,
    "routing_moe.cli.train": TrainSettings,
    "task.conflict_gym.bart": BartSettings,
    "task.conflict_gym.generate": GymSettings,
    "task.task_emb.fisher": FisherSettings,
    "task.task_emb.gradient": GradientSettings,
    "task.task_emb.text": TextSettings,
}
WITH_VECTORS = {"gradient_inputs", "text_clusters", "fisher_clusters", "clusters", "composed"}


def commands(calls: list[str], module: str) -> list[dict]:
    """Returns the flags given to a module by recorded commands; the flags of all commands must exist."""
    words = [shlex.split(call) for call in calls if call.startswith("-m ")]
    given = [(name, parse(KINDS[name], flags)) for _, name, *flags in words]
    return [flags for name, flags in given if name.endswith(module)]


def trainings(calls: list[str]) -> dict[str, dict]:
    """Returns {folder below the output folder: flags} of all trainings, without --equal_flops."""
    found = [flags for flags in commands(calls, "cli.train") if "do_train" in flags]
    return {flags["output_dir"].removeprefix("out/"): flags for flags in found if "equal_flops" not in flags}


def all_variants() -> set[str]:
    text = (ROOT / "example_scripts" / SCRIPT).read_text()
    return {name for part in text.split("\nALL")[1:3] for name in part.split('"')[1].split()}


def write_tuning_run(scripts: Scripts, folder: str, score: float, finished: bool = True) -> None:
    run = scripts.folder / "out/tuning" / folder
    run.mkdir(parents=True)
    text = ",steps,train_loss,dev_loss,dev_performance\n0,5,3.7,3.1,0.05\n1,10,2.5,2.4,{}\n"
    (run / "losses.csv").write_text(text.format(score))
    if finished:
        (run / "finished").touch()


def test_all_variants_have_existing_flags_and_the_same_total_steps(scripts: Scripts):
    code, calls, output = scripts.run(SCRIPT, finishes=True, **ONE)
    assert code == 0, output
    trained = trainings(calls)
    dense = trained.pop(f"dense_runs/{PLACE}_seed11")
    assert (dense["total_steps"], dense["save_period"], dense["hide_task_names"]) == (20, 2, True)
    steps = dict.fromkeys(all_variants(), 0)
    for folder, given in trained.items():
        steps[folder.split("/")[1]] += given["total_steps"]
        assert given["learning_rate"] == 0.01
    assert len(steps) == 17
    assert steps.pop("dense_total_flops") == 7
    assert {steps.pop(name) for name in WITH_VECTORS} == {13}
    assert set(steps.values()) == {33}
    # No two trainings are the same.
    ways = {str({k: v for k, v in given.items() if k != "output_dir"}) for given in trained.values()}
    assert len(ways) == len(trained)
    (gradient,) = commands(calls, "gradient")
    assert [int(name.split("-")[0]) for name in gradient["checkpoint_names"]] == [10, 12, 14, 16, 18, 20]
    scored = {Path(given["output_dir"]).parent.name for given in commands(calls, "cli.train")
              if given.get("predict_split") == "test"}  # fmt: skip
    assert scored == {"dense", "softmax", "clusters", "composed", "oracle"}
    (compared,) = commands(calls, "compare_runs")
    assert (compared["baseline"], set(compared["order"])) == ("dense", all_variants())


def test_a_single_rate_is_used_without_tuning(scripts: Scripts):
    write_tuning_run(scripts, f"{PLACE}/dense/lr0.5", 1.0)
    _, calls, output = scripts.run(SCRIPT, finishes=True, VARIANTS="dense", **ONE)
    assert trainings(calls)[f"{PLACE}/dense/seed11"]["learning_rate"] == 0.01
    assert "learning rate of dense: 0.01\n" in output


def test_the_rate_is_the_best_of_rates_among_finished_tuning_runs(scripts: Scripts):
    write_tuning_run(scripts, f"{PLACE}/dense/lr0.004", 0.4)
    write_tuning_run(scripts, f"{PLACE}/dense/lr0.01", 0.4)  # equal: the lower rate
    write_tuning_run(scripts, f"{PLACE}/dense/lr0.02", 0.9, finished=False)  # and fails again
    write_tuning_run(scripts, f"{PLACE}/dense/lr0.5", 1.0)
    write_tuning_run(scripts, "conflict1_36skills/dense/lr0.01", 0.8)
    own = ONE | dict(RATES="0.004 0.01 0.02", VARIANTS="dense dense_no_names")
    code, calls, output = scripts.run(SCRIPT, finishes=True, failing="routing_moe.cli.train", **own)
    assert code == 1
    assert f"not finished: {PLACE}/dense/lr0.02" in output
    assert "learning rate of dense: 0.004\nlearning rate of dense_no_names: 0.004\n" in output
    tuned = [folder for folder in trainings(calls) if folder.startswith("tuning/")]
    assert tuned == [f"tuning/{PLACE}/dense/lr0.02"]
    assert trainings(calls)[f"{PLACE}/dense/seed11"]["learning_rate"] == 0.004


def test_without_a_finished_tuning_run_a_variant_is_not_trained(scripts: Scripts):
    own = ONE | dict(RATES="0.004 0.01", VARIANTS="oracle")
    code, calls, output = scripts.run(SCRIPT, finishes=True, failing="routing_moe.cli.train", **own)
    assert code == 1
    assert f"{PLACE}/oracle/seed11" not in trainings(calls)
    assert "learning rate of oracle: error: no tuning run of oracle is finished\n" in output


def test_a_second_call_trains_only_what_is_not_finished(scripts: Scripts):
    own = ONE | dict(VARIANTS="dense_total_flops clusters")
    _, calls, _ = scripts.run(SCRIPT, finishes=True, **own)
    assert f"{PLACE}/dense/seed11" in trainings(calls)  # the reference is added
    _, calls, _ = scripts.run(SCRIPT, finishes=True, **own)
    assert [shlex.split(call)[1].split(".")[-1] for call in calls] == ["overview", "compare_runs"]
    run = f"{PLACE}/dense_total_flops/seed11"
    (scripts.folder / "out" / run / "finished").unlink()
    _, calls, _ = scripts.run(SCRIPT, finishes=True, **own)
    assert {folder: given["total_steps"] for folder, given in trainings(calls).items()} == {run: 7}
    assert not any("--equal_flops" in call for call in calls)  # the number is kept: the run may have started


@pytest.mark.parametrize(
    ("failing", "variant", "trained"),
    [
        ("routing_moe.cli.merge", "two_stage", f"{PLACE}/two_stage/seed11/stage1"),
        ("task.task_emb.gradient", "clusters", None),
    ],
)
def test_a_failed_command_ends_its_run_which_is_reported(scripts: Scripts, failing, variant, trained):
    code, calls, output = scripts.run(SCRIPT, finishes=True, failing=failing, VARIANTS=variant, **ONE)
    assert code == 1
    assert f"not finished: {PLACE}/{variant}/seed11; the end of its log:" in output
    assert not (scripts.folder / f"out/{PLACE}/{variant}/seed11/finished").exists()
    assert trainings(calls).keys() == {f"dense_runs/{PLACE}_seed11", *filter(None, [trained])}


def test_a_number_of_steps_that_cannot_be_computed_is_reported(scripts: Scripts):
    code, calls, output = scripts.run(SCRIPT, VARIANTS="dense_total_flops", **ONE)  # prints no number
    assert code == 1
    assert "    error: the number of steps with the FLOPs of dense could not be computed\n" in output
    assert f"{PLACE}/dense_total_flops/seed11" not in trainings(calls)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(VARIANTS="dens"), "VARIANTS, UNSEEN: unknown variant dens "),
        (dict(SEEDS="101"), "SEEDS: 101 is not a whole number other than TUNE_SEED (101)"),
        (dict(SEEDS="11 11"), "SEEDS: 11 is given more than once"),
        (dict(SKILLS="5"), "SKILLS: 5 is not one of "),
        (dict(CONFLICTS="1.5"), "CONFLICTS: 1.5 is not a number from 0 to 1"),
        (dict(CONFLICTS="0.50"), "CONFLICTS: 0.50 is not a number from 0 to 1"),
        (dict(RATES="high"), "RATES: high is not a number"),
        (dict(DENSE_STEPS="25"), "DENSE_STEPS: 25 is not a multiple of 10 below TOTAL_STEPS (33)"),
        (dict(JOBS="0"), "JOBS is '0'; it must be a whole number of at least 1"),
    ],
)
def test_wrong_variables_are_errors(scripts: Scripts, changed, message):
    code, calls, output = scripts.run(SCRIPT, **(ONE | changed))
    assert (code, calls) == (2, [])
    assert f"error: {message}" in output
    assert not (scripts.folder / "out").exists()


def test_other_settings_need_another_folder(scripts: Scripts):
    own = ONE | dict(VARIANTS="oracle", finishes=True)
    assert scripts.run(SCRIPT, **own)[0] == 0
    other = dict(TOTAL_STEPS="34", DENSE_STEPS="10", DENSE_RATE="0.1", RATES="0.02", TUNE_SEED="102")
    other |= dict(ROUTER_LR="0.2", TASKS_PER_SKILL="5", GYM_FLAGS="--label_noise 0.1")
    code, calls, output = scripts.run(SCRIPT, **(own | other))
    assert (code, calls) == (2, [])
    for name, value in other.items():
        assert f"error: {name} is '{value}', but the runs in out have '" in output
    assert scripts.run(SCRIPT, **(own | other | dict(OUTPUT_DIR="out2")))[0] == 0
    assert scripts.run(SCRIPT, **(own | dict(SEEDS="12", CONFLICTS="0.5", JOBS="2")))[0] == 0
