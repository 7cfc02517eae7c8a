"""Whole runs of `routing_moe.cli.train`: files, effects of flags, their end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forks import in_two_processes
from mistakes import assert_problem
from tiny_grids import ONE_EXPERT
from tiny_runs import (
    METRICS,
    NO_LEARNING,
    ROWS,
    TRAIN_TASKS,
    assert_close,
    assert_equal,
    contents,
    run,
    weights,
    write_bart,
)

from dataloader.batching import step_examples
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.train import main
from routing_moe.config.shared import StepSettings, last_step
from routing_moe.config.train import TrainSettings
from routing_moe.model.task_vectors import load_task_vectors

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_a_run_folder_has_the_documented_files(finished):
    steps = {f"{step}-steps" for step in (2, 3, 4, 6)}
    files = {"run.json", "cost.json", "log.txt", "losses.csv", "curves.csv", "lock"}
    assert {path.name for path in finished.iterdir()} == files | steps | {"best", "last"}
    description = json.loads((finished / "run.json").read_text())
    assert description["settings"]["num_experts"] == 2
    assert description["settings"]["max_grad_norm"] == 0.1
    assert description["command"].startswith("routing-moe train --do_train --initialize")
    assert {"torch", "transformers", "accelerate", "numpy", "python"} <= description["versions"].keys()
    assert description["git"] is None or len(description["git"]) == 40
    log = (finished / "log.txt").read_text()
    for piece in ("72 train examples of 3 tasks", "step 3: train loss", "trained 6 steps"):
        assert piece in log
    assert "test files: mean score" in log
    run = finished
    assert log.endswith(f"next: routing-moe show-scores {run}; bash example_scripts/understand.sh {run}\n")
    assert f"picture of the routes: {run}/6-steps/route.png\n" in log


def test_every_evaluation_writes_scores_and_routes(finished):
    for step in (3, 6):
        folder = finished / f"{step}-steps"
        scores = pd.read_csv(folder / "dev_results.csv", index_col=0)
        assert scores["task_prefix"].tolist() == TRAIN_TASKS
        assert scores["sample"].tolist() == [f"{task}_12_100" for task in TRAIN_TASKS]
        assert scores["metric"].tolist() == [METRICS[task] for task in TRAIN_TASKS]
        assert scores["n"].tolist() == [3, 3, 3]
        assert (folder / "route_tasks.txt").read_text().split() == ["colour", "opposite", "count"]
        for name in ("route", "route_t1"):
            routes_NLE = np.load(folder / f"{name}.npy")
            assert routes_NLE.shape == (3, 3, 2)
            np.testing.assert_allclose(routes_NLE.sum(-1), 1, rtol=1e-6)
            assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (np.load(folder / "route.npy") != np.load(folder / "route_t1.npy")).any()


def test_checkpoints_are_complete_and_have_the_task_vectors(finished):
    for name in ("best", "last", "2-steps"):
        model = RoutingBartForConditionalGeneration.from_pretrained(finished / name)
        names, vectors_ND = load_task_vectors(finished / name)
        assert names == model.config.task_names == sorted(ROWS)
        assert np.array_equal(vectors_ND, model.task_vectors.weight.detach().numpy())
        assert (finished / name / "training_state.pt").exists() == (name == "last")
    taus = StepSettings(initial_tau=2.0, minimum_tau=0.1, anneal_rate=3e-4)
    assert model.config.router_temperature == taus.temperature(2)


def test_experts_router_and_vectors_of_mixed_tasks_learn_with_one_hot_routes(finished):
    first_step = step_examples(72, 8, seed=42, step=1) // 24  # examples are sorted by task, 24 of each
    assert len(set(first_step)) > 1
    before, after = weights(finished / "2-steps"), weights(finished / "last")
    for part in (".experts.0.fc1", ".experts.1.fc1", "router.", "task_vectors"):
        names = [name for name in before if part in name]
        assert names
        assert not any(torch.equal(before[name], after[name]) for name in names), part
    unseen = load_task_vectors(finished / "2-steps")[0].index("plural")
    changed = (before["task_vectors.weight"] != after["task_vectors.weight"]).any(-1)
    assert changed[:unseen].all()


def test_the_best_checkpoint_is_that_of_the_best_score_and_the_first_of_equals(world, monkeypatch):
    scores = iter([0.2, 0.5, 0.5])
    monkeypatch.setattr(
        "routing_moe.training.trainer.mean_score",
        lambda _, name: next(scores) if name == "performance" else 0,
    )
    folder = world.run("best", eval_period=1, total_steps=3, save_period=2)
    assert_equal(weights(folder / "best"), weights(folder / "2-steps"))
    assert torch.load(folder / "last/training_state.pt")["best_score"] == 0.5


@pytest.mark.parametrize("kind", ["headless.pt", "run"])
def test_a_vanilla_checkpoint_replaces_the_models_weights(world, kind, tmp_path):
    other = write_bart(tmp_path / "other", seed=6)
    plain = weights(other)
    if kind == "run":
        path = world.run("dense", bart=other, **ONE_EXPERT)
    else:
        path = tmp_path / "weights.headless.pt"
        torch.save({name.removeprefix("model."): tensor for name, tensor in plain.items()}, path)
    folder = world.run(f"vanilla_{kind}", vanilla_checkpoint=path, init_eps=0, **NO_LEARNING)
    trained = weights(folder / "last")
    assert torch.equal(trained["model.shared.weight"], plain["model.shared.weight"])
    for side, name in (("encoder.layers.1", "self_attn.k_proj.weight"), ("decoder.layers.0", "fc2.weight")):
        for expert in (0, 1):
            ours = trained[f"model.{side}.experts.{expert}.{name}"]
            assert torch.equal(ours, plain[f"model.{side}.{name}"])


def predict(world, folder: Path, **changed) -> None:
    world.run(folder.name, **(dict(do_train=None, initialize_from_vanilla=None, do_predict=True) | changed))


def test_prediction_after_training_and_alone_write_the_same_files(world, finished):
    folder = world.copy(finished, "predicted")
    shutil.rmtree(folder / "best/predictions")
    for path in (folder / "best").glob("eval-*"):
        path.unlink()
    predict(world, folder)
    ours, theirs = contents(folder / "best"), contents(finished / "best")
    assert json.loads(ours.pop("eval-settings.json"))["settings"]["output_dir"] == str(folder)
    theirs.pop("eval-settings.json")
    assert ours == theirs
    assert contents(folder).keys() - contents(finished).keys() == {"eval_log.txt"}
    written = {path.name for path in (folder / "best/predictions").iterdir()}
    assert written == {f"{task}_12_100_{part}.jsonl" for task in TRAIN_TASKS for part in ("dev", "test")}
    lines = (folder / "best/predictions/colour_12_100_dev.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["grass", "sky", "snow"]
    assert json.loads(lines[1])["answers"] == ["blue", "Blue"]
    assert any(json.loads(line)["prediction"] for line in lines)


def test_prediction_inherits_text_and_decoding_settings_unless_given(world, finished):
    folder = world.copy(finished, "as_trained")
    bare = ["--do_predict", "--output_dir", str(folder)]
    assert main(bare) == 0
    for name in ("eval-dev-performance.csv", "predictions/colour_12_100_dev.jsonl"):
        assert (folder / "best" / name).read_bytes() == (finished / "best" / name).read_bytes()
    settings = json.loads((folder / "best/eval-settings.json").read_text())["settings"]
    assert (settings["max_input_length"], settings["num_beams"]) == (24, 1)
    changed = ["--num_beams", "2", "--prefix", "two-", "--learning_rate", "3"]  # of training, without effect
    assert main([*bare, *changed]) == 0
    settings = json.loads((folder / "best/two-eval-settings.json").read_text())["settings"]
    assert settings["num_beams"] == 2


def test_unseen_tasks_are_scored_on_the_chosen_samples(world, finished):
    folder = world.copy(finished, "unseen")
    predict(world, folder, predict_split="test", predict_samples="13", prefix="mine-")
    for part in ("dev", "test"):
        scores = pd.read_csv(folder / f"best/mine-eval-test_tasks-{part}-performance.csv", index_col=0)
        assert scores["sample"].tolist() == ["plural_12_13"]
        assert scores["task_prefix"].tolist() == ["plural"]
        assert (folder / f"best/predictions/mine-plural_12_13_{part}.jsonl").is_file()


def test_bfloat16_changes_the_products_and_keeps_weights_in_float32(world, finished):
    folder = world.run("bf16", mixed_precision="bf16")
    ours, exact = (pd.read_csv(f / "losses.csv")["train_loss"][0] for f in (folder, finished))
    assert ours != exact
    assert ours == pytest.approx(exact, rel=0.01)
    assert {tensor.dtype for tensor in weights(folder / "last").values()} == {torch.float32}


def test_two_processes_take_the_same_steps_as_one(world, tmp_path):
    bart = write_bart(world / "no_dropout", dropout=0.0)
    # The step's sensitivity to rounding is bounded by epsilon: some gradients are zero except for rounding.
    changed = dict(bart=bart, adam_epsilon=1e-3, total_steps=2, eval_period=2, do_predict=True)
    changed |= dict(expert_regularization=0.01, load_balance=0.1)
    one = world.run("one_process", **changed)
    two = world / "two_processes"
    codes, _ = in_two_processes(tmp_path, lambda: run(world.gym, output_dir=two, **changed))
    assert codes == [0, 0]
    assert_close(weights(two / "last"), weights(one / "last"))
    scores = (f"best/eval-{part}-performance.csv" for part in ("dev", "test"))
    for name in ("losses.csv", "2-steps/dev_results.csv", *scores):
        pd.testing.assert_frame_equal(*(pd.read_csv(f / name) for f in (two, one)), rtol=1e-5)
    assert "2 process(es)" in (two / "log.txt").read_text()


def test_a_run_ends_after_its_epochs_if_that_is_sooner(world):
    folder = world.run("epochs", num_train_epochs=0.2)  # 14.4 of 72 examples: two steps of 8
    assert pd.read_csv(folder / "losses.csv")["steps"].tolist() == [2]


def test_a_small_gym_is_trained_for_the_steps_that_were_asked_for():
    settings = TrainSettings(output_dir="run")
    most = replace(settings, total_steps=30_000)  # 10,000 passes
    assert last_step(most, 96, most.step_size) == 30_000


def test_epochs_do_not_end_a_run_in_its_warm_up(world, capsys):
    changed = dict(num_train_epochs=0.1, warmup_ratio=0.5)  # 7.2 of 72 examples: one step of 8
    assert run(world.gym, world.bart, world / "in_warm_up", **changed) == 2
    assert_problem(
        capsys.readouterr().err.splitlines(),
        "--num_train_epochs 0.1 ends the run of 72 examples at step 1",
        "the learning rate rises until step 3 of --total_steps 6",
        "leave the flag out, or give --total_steps 1",
    )
    assert not (world / "in_warm_up/run.json").exists()
