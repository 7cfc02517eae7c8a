"""The example scripts, run as whole commands."""

import json
import os
import subprocess

import fork_server
import pandas as pd
import pytest
from tiny_runs import ROOT, TRAIN_TASKS, typed

from routing_moe.cli import show_scores
from routing_moe.io.run_folder import load_run_settings

pytestmark = pytest.mark.slow  # a whole script


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """The run folder of run_two_stage.sh on the embedded gym with two steps per stage; it has stage1/."""
    short = "--debug --max_output_length 8 --num_beams 1"
    own = ["--total_steps", "2", "--eval_period", "2", "--stage1_flags", short, *short.split()]
    done = subprocess.run(
        [*fork_server.client(), "-m", "routing_moe.studies.two_stages", *own],
        cwd=(folder := tmp_path_factory.mktemp("scripts")),
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return folder / "models/two_stage"


@pytest.fixture
def run_folder(two_stages):
    """The run folder of stage 1, trained by train_routing_bart.sh."""
    return two_stages / "stage1"


def test_the_training_script_runs_with_its_defaults(run_folder):
    settings = json.loads((run_folder / "run.json").read_text())["settings"]
    assert settings["model"].endswith("task/skill_gym/tiny_bart")
    scores = pd.read_csv(run_folder / "best/eval-test-performance.csv", index_col=0)
    assert scores["task_prefix"].nunique() == 24
    assert (scores["n"] == 8).all()
    assert (run_folder / "2-steps/route_t1.png").is_file()


def test_the_two_stages_run_with_their_defaults(two_stages):
    assert load_run_settings(two_stages)["router_mode"] == "softmax"
    scores = pd.read_csv(two_stages / "best/eval-test-performance.csv", index_col=0)
    assert scores["task_prefix"].nunique() == 24
    assert json.loads((two_stages / "init/merge.json").read_text())["settings"]["init_eps"] == 1e-8


def test_scores_are_shown_by_category_with_baselines(run_folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(run_folder.parents[2])  # run.json has the data folder as a relative path
    assert show_scores.main([str(run_folder), "--output", str(tmp_path / "table.csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in printed[0].split("|")[2:-1]] == [
        "tasks", "dev", "dev, constant", "dev, chance", "dev, copy",
        "test", "test, constant", "test, chance", "test, copy",
    ]  # fmt: skip
    assert printed[-1].startswith("| all")
    table = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert table.loc["all", "tasks"] == 24
    assert table.drop(index="all")["tasks"].sum() == 24


def test_missing_scores_are_an_error_with_the_command_that_writes_them(run_folder, capsys, monkeypatch):
    monkeypatch.chdir(run_folder.parents[2])
    assert show_scores.main([str(run_folder), "--predict_split", "test"]) == 2
    assert "write it with --do_predict --predict_split test" in capsys.readouterr().err
    assert show_scores.main([str(run_folder / "best")]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["layer", "lora"])
def test_assembled_models_answer_as_each_answered_alone(world, tmp_path, kind):
    flags = dict(train_dir=world.gym, model=world.bart, output_dir=tmp_path / "library", num_beams=1)
    flags |= dict(max_input_length=24, max_output_length=6, total_steps=4, eval_period=2)
    if kind == "layer":
        flags |= dict(learning_rate_list=[0.1], bsz_list=[6], warmup_steps=1, max_grad_norm=16)
        file = "experts/singletask-{task}/predictions/{task}_12_100_best_test.jsonl"
    else:
        flags |= dict(learning_rate=0.3, lora_rank=2)
        file = "experts/{task}/run/best/predictions/{task}_12_100_test.jsonl"
    words = [*fork_server.client(), "-m", "routing_moe.studies.assembling", kind, *typed(flags)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "\nequal: 3 of 3 test scores\n" in done.stdout
    assert ("each task's route is its own model" in done.stdout) == (kind == "layer")
    library, answers = tmp_path / "library", set()
    mixed_file = "scores/assembled/predictions/{task}_12_100_test.jsonl"
    assert list(pd.read_csv(library / "compared.csv", index_col=0).index) == TRAIN_TASKS
    for task in TRAIN_TASKS:
        alone, mixed = (
            [json.loads(line)["prediction"] for line in path.read_text().splitlines()]
            for path in map(library.joinpath, (file.format(task=task), mixed_file.format(task=task)))
        )
        assert alone == mixed
        answers.add(tuple(alone))
    assert len(answers) == 3
    unseen = pd.read_csv(library / "unseen.csv")
    assert len(unseen) > 0
    assert unseen["route"].str.contains("nearest by text").all()
