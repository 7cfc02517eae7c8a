"""run_gradient_routing.sh: its commands, and a whole run."""

import json
import shlex

import pandas as pd
import pytest
from recording_scripts import Scripts
from tiny_vectors import meta

from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings
from task.task_emb.gradient import GradientSettings

SCRIPT = "run_gradient_routing.sh"
STEPS = dict(DENSE_STEPS="20", TOTAL_STEPS="6", OUTPUT_DIR="models/mine")
EMBEDDED = dict(MODEL="", DATA_DIR="")
CHECKPOINTS = ["10-steps", "12-steps", "14-steps", "16-steps", "18-steps", "20-steps"]
KINDS = {
    "routing_moe.cli.train": TrainSettings,
    "task.task_emb.gradient": GradientSettings,
}


def parsed(call: str):
    """Returns (module, settings given) of a recorded command, whose flags must exist."""
    _, module, *flags = shlex.split(call)
    return module, parse(KINDS[module], flags)


def stages(calls: list[str]) -> list[dict]:
    """Returns the flags of the dense run, the vectors, the mixture and the prediction of unseen tasks."""
    found = [parsed(call) for call in calls if call.split()[1] in KINDS]
    names = [module.split(".")[-1] for module, _ in found]
    assert names == ["train", "gradient", "train", "train"]
    return [given for _, given in found]


def write_split(scripts: Scripts) -> None:
    """Writes the conflict gym's split, as its generator, which is only recorded, would."""
    gym = scripts.folder / "data/conflict_gym"
    gym.mkdir(parents=True)
    (gym / "split.json").write_text(json.dumps({"train": ["t000"], "dev": [], "test": ["t001"]}))


def test_the_stages_follow_from_each_other(scripts: Scripts):
    code, calls, output = scripts.run(SCRIPT, "--seed", "3", CLUSTERS="7", DENSE_FLAGS="--seed 2", **STEPS)
    assert code == 0, output
    dense, vectors, mixture, unseen = stages(calls)
    assert (dense["num_experts"], dense["hide_task_names"], dense["seed"]) == (1, True, 2)
    assert (dense["total_steps"], dense["save_period"]) == (20, 2)
    assert dense["output_dir"] == "models/mine/dense"
    assert (vectors["model"], list(vectors["checkpoint_names"])) == ("models/mine/dense", CHECKPOINTS)
    assert vectors["hide_task_names"]
    assert str(vectors["output_dir"]) == mixture["taskvecs"] == "models/mine/vectors"
    assert (mixture["task_routes"], mixture["total_steps"], mixture["seed"]) == ("clusters:7", 6, 3)
    assert "router_lr" not in mixture
    assert mixture["output_dir"] == unseen["output_dir"] == "models/mine"
    assert unseen["predict_split"] == "test"
    assert {each["train_dir"] for each in (dense, vectors, mixture)} == {str(scripts.gym)}
    assert {each["model"] for each in (dense, mixture)} == {str(scripts.bart)}


def test_experts_can_start_from_the_weights_of_the_dense_run(scripts: Scripts):
    assert "vanilla_checkpoint" not in stages(scripts.run(SCRIPT, **STEPS)[1])[2]
    code, calls, output = scripts.run(SCRIPT, UPCYCLE="yes", **STEPS)
    assert code == 0, output
    dense, _, mixture, _ = stages(calls)
    assert mixture["vanilla_checkpoint"] == dense["output_dir"] == "models/mine/dense"
    assert "vanilla_checkpoint" not in dense


def test_by_default_it_runs_on_the_conflict_gym(scripts: Scripts):
    write_split(scripts)
    code, calls, output = scripts.run(SCRIPT, OUTPUT_DIR="models/mine", WEIGHTS="layers", **EMBEDDED)
    assert code == 0, output
    written = [call.split()[1] for call in calls if "conflict_gym." in call.split()[1]]
    assert written[:3] == ["task.conflict_gym.generate", *["task.conflict_gym.bart"] * 2]
    dense, vectors, mixture, _ = stages(calls)
    assert (dense["total_steps"], mixture["total_steps"]) == (1000, 1000)
    assert vectors["weights"] == "layers"
    assert mixture["task_routes"] == "clusters:auto"
    for each in (dense, vectors, mixture):
        assert str(each["train_dir"]) == "data/conflict_gym"
        assert each["max_input_length"] == 32
    for each in (dense, mixture):
        assert each["model"] == "data/conflict_gym_bart/width16"
        assert (each["train_batch_size"], each["learning_rate"]) == (128, 3e-3)


def test_finished_stages_are_kept(scripts: Scripts):
    assert scripts.run(SCRIPT, finishes=True, **STEPS)[0] == 0
    code, calls, output = scripts.run(SCRIPT, **STEPS)
    assert (code, [call for call in calls if "list_tasks" not in call]) == (0, [])
    scores = "best/eval-test-performance.csv and best/eval-test_tasks-test-performance.csv"
    assert output == f"models/mine is finished: scores in models/mine/{scores}\n"
    (scripts.folder / "models/mine/best/eval-test-performance.csv").unlink()
    _, calls, _ = scripts.run(SCRIPT, **STEPS)
    assert [call.split()[1] for call in calls] == ["task.task_emb.gradient", "routing_moe.cli.train"]


@pytest.mark.parametrize(("score", "noted"), [(0.2, False), (0.14, True)])
def test_a_dense_run_that_has_hardly_learned_is_noted(scripts: Scripts, score, noted):
    assert scripts.run(SCRIPT, finishes=True, **STEPS)[0] == 0
    (scripts.folder / "models/mine/best/eval-test-performance.csv").unlink()
    row = {"task_prefix": "count", "sample": "count_8_1", "metric": "EM", "performance": score, "n": 5}
    scores = scripts.folder / "models/mine/dense/best/eval-dev-performance.csv"
    pd.DataFrame([row | {"constant": 0.1}] * 2).to_csv(scores)
    _, _, output = scripts.run(SCRIPT, **STEPS)
    note = f"its mean dev score is {score}, that of constant answers 0.1"
    assert (note in output) == noted


def test_other_data_has_a_third_of_the_steps_for_the_dense_run(scripts: Scripts):
    _, calls, _ = scripts.run(SCRIPT, TOTAL_STEPS="7")
    assert stages(calls)[0]["total_steps"] == 3
    assert stages(calls)[1]["checkpoint_names"] == ("2-steps", "3-steps")
    split = scripts.folder / "no_test.json"
    split.write_text(json.dumps({"train": ["count"], "dev": [], "test": []}))
    _, calls, output = scripts.run(SCRIPT, SPLIT=str(split))
    assert "--predict_split test" not in calls[-1]
    assert output.endswith("/eval-test-performance.csv\n")


@pytest.mark.parametrize(
    "wrong", [dict(CLUSTERS="some"), dict(DENSE_STEPS="0"), dict(EMBEDDED_GYM="skil"), dict(UPCYCLE="Yes")]
)
def test_wrong_variables_are_errors(scripts: Scripts, wrong):
    code, calls, output = scripts.run(SCRIPT, **wrong)
    ((name, value),) = wrong.items()
    assert (code, calls) == (2, [])
    assert f"error: {name} is '{value}'; it must be " in output


@pytest.mark.slow
def test_a_whole_run_clusters_tasks_and_scores_unseen_ones(scripts: Scripts):
    own = dict(DENSE_STEPS="4", TOTAL_STEPS="2", EVAL_PERIOD="2", CLUSTERS="2", OUTPUT_DIR="models/mine")
    short = "--max_input_length 24 --max_output_length 8"
    greedy = f"{short} --num_beams 1"
    own |= dict(DENSE_FLAGS=greedy, VECTOR_FLAGS=f"{short} --parts sides", WEIGHTS="layers")
    code, _, output = scripts.run(SCRIPT, *greedy.split(), really=True, UPCYCLE="yes", **own)
    assert code == 0, output
    run = scripts.folder / "models/mine"
    assert meta(run / "vectors")["settings"]["checkpoint_names"] == ["2-steps", "3-steps", "4-steps"]
    assert json.loads((run / "best/config.json").read_text())["num_experts"] == 2
    cost = json.loads((run / "cost.json").read_text())
    assert (cost["steps"], cost["steps_with_start"]) == (2, 6)
    unseen = pd.read_csv(run / "best/eval-test_tasks-test-performance.csv")
    assert unseen["task_prefix"].tolist() == ["plural"]
    assert unseen["route"][0].startswith("clusters encoder ")
