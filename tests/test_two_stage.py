"""Stage 2 of training: learned routes stay constant and new experts are trained; its scripts."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import ROOT, assert_equal, flags, weights

from routing_moe.analysis.saved_routes import best_step
from routing_moe.cli.merge import main as merge
from routing_moe.cli.train import main as train

STAGE_2 = dict(
    initialize_from_vanilla=None,
    model=None,
    init_eps=None,
    num_experts=None,
    taskvecs_dim=None,
    router_hidden_dim=None,
    checkpoint_name="init",
    router_mode="softmax",
    router_lr=0,
    task_model_lr=0,
    initial_tau=300,
    minimum_tau=1,
)


# ---- training


@pytest.fixture(scope="module")
def two_stages(originals, tmp_path_factory):
    """A folder with stage 1 (routes changed to nearly one-hot, as after long training), merge and stage 2."""
    folder = tmp_path_factory.mktemp("stages")
    stage_1 = Path(shutil.copytree(originals.out, folder / "stage1"))
    state = weights(stage_1 / "best")
    for name in state:
        if name.startswith("router."):
            state[name] = state[name] + torch.randn(state[name].shape, generator=torch.manual_seed(1))
    save_file(state, stage_1 / "best/model.safetensors", {"format": "pt"})
    out = folder / "run"
    assert merge([f"--routes_from={stage_1}", f"--model={originals.bart}", f"--output_dir={out}"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routing_moe.training.trainer.LOG_EVERY", 1)
        patch.setattr(
            "routing_moe.plots.route_map.plot_routes", lambda *args, **kwargs: Path(args[3]).touch()
        )
        chosen = STAGE_2 | dict(total_steps=20, anneal_rate=6 / 20, eval_period=20)
        assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    return folder


def test_stage_2_keeps_the_routes_bit_for_bit_and_trains_the_experts(two_stages):
    learned, start, end = (weights(two_stages / place) for place in ("stage1/best", "run/init", "run/last"))
    for state in (start, end):
        kept = {
            name: tensor for name, tensor in state.items() if name.startswith(("router.", "task_vectors."))
        }
        assert_equal(kept, {name: learned[name] for name in kept})
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    experts = {name for name in start if ".experts." in name}
    assert experts
    # Biases of keys do not affect the output: attention is the same for all of them.
    assert {name for name in experts if "k_proj.bias" not in name} <= moved


def scripted_stage_2(two_stages, originals, name: str, monkeypatch, **changed) -> Path:
    """Runs stage 2 for four steps, each evaluated; scores fall, the last two are at temperature 1."""
    scores = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr("routing_moe.training.trainer.mean_score", lambda _: next(scores))
    monkeypatch.setattr(
        "routing_moe.plots.route_map.plot_routes", lambda *args, **kwargs: Path(args[3]).touch()
    )
    out = two_stages / name
    shutil.copytree(two_stages / "run/init", out / "init")
    chosen = STAGE_2 | dict(total_steps=4, anneal_rate=2, eval_period=1) | changed
    assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    return out


def test_stage_2_selects_its_checkpoint_at_the_final_temperature(two_stages, originals, monkeypatch):
    out = scripted_stage_2(two_stages, originals, "selected", monkeypatch)
    selected = json.loads((out / "best/checkpoint.json").read_text())
    assert selected.pop("expert_distance") > 0
    assert selected == {"step": 3, "temperature": 1, "dev_performance": 0.7}
    assert best_step(out, [1, 2, 3, 4]) == 3
    log = (out / "log.txt").read_text()
    assert "step 1: " in log
    assert log.count("(not at the final temperature)") == 2
    assert "best mean dev score 0.7000" in log


def test_all_evaluations_of_stage_2_count_with_the_flag(two_stages, originals, monkeypatch):
    out = scripted_stage_2(two_stages, originals, "all", monkeypatch, select_best="all")
    assert json.loads((out / "best/checkpoint.json").read_text())["step"] == 1


def test_scores_name_step_and_temperature_of_their_checkpoint(two_stages, originals):
    chosen = STAGE_2 | dict(do_train=None, do_predict=True, checkpoint_name="best")
    assert train(flags(originals.gym, originals.bart, two_stages / "run", **chosen)) == 0
    for part in ("dev", "test"):
        scores = pd.read_csv(two_stages / f"run/best/eval-{part}-performance.csv")
        assert scores["step"].unique().tolist() == [20]
        assert scores["temperature"].unique().tolist() == [1.0]


def test_stage_2_anneals_from_average_to_learned_routes(two_stages):
    with (two_stages / "run/curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    temperatures = [float(row["temperature"]) for row in rows]
    assert temperatures[0] == pytest.approx(300 * math.exp(-0.3))
    assert temperatures[-1] == 1.0
    entropies = [float(row["route_entropy"]) for row in rows]
    assert entropies[0] == pytest.approx(math.log(2), abs=1e-3)
    assert entropies[-1] < 0.9 * math.log(2)
    assert entropies[0] > entropies[14] > entropies[-1]
    # The schedule printed at the start agrees with the steps, for the mix of tasks of these steps.
    log = (two_stages / "run/log.txt").read_text()
    messages = re.findall(r"(\d+)% ([\d.]+) / ([\d.]+)", log)
    assert [int(percent) for percent, *_ in messages] == [0, 25, 50, 75, 100]
    for percent, temperature, entropy in messages[1:]:
        step = int(percent) * 20 // 100
        assert float(temperature) == pytest.approx(temperatures[step - 1], rel=1e-3)
        nearby = [entropies[i] for i in (step - 2, step - 1, min(step, 19))]
        assert min(nearby) - 0.03 < float(entropy) < max(nearby) + 0.03


# ---- scripts, with a fake Python that records its arguments and writes the files of a finished run

STAND_IN = """#!/usr/bin/env bash
echo "$@" >>calls
while [ $# -gt 0 ]; do
    case "$1" in *.merge) made=init/config.json ;; *.train) made=best/eval-test-performance.csv ;; esac
    if [ "$1" = --output_dir ]; then folder=$2; fi
    shift
done
mkdir -p "$(dirname "${folder:?}/${made:-x}")"
touch "$folder/${made:-x}"
"""


@pytest.fixture
def scripts(tmp_path):
    """scripts(name, *flags, VARIABLE=value) returns (exit code, commands given to Python, output)."""
    shutil.copytree(ROOT / "example_scripts", tmp_path / "example_scripts")
    (tmp_path / "task/skill_gym/tiny_bart").mkdir(parents=True)
    (tmp_path / "task/skill_gym/generate.py").touch()
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def run(name: str, *arguments: str, **variables: str):
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            ["bash", str(tmp_path / "example_scripts" / name), *arguments],
            env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python"), "MIXED_PRECISION": "no"}
            | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        calls = [line for line in (tmp_path / "calls").read_text().splitlines() if "generate" not in line]
        return done.returncode, calls, done.stdout + done.stderr

    return run


REAL = dict(MODEL="facebook/bart-base", DATA_DIR="gym", SPLIT="split.json", OUTPUT_DIR="models/moe")
PUBLISHED = {
    "learning_rate": "1e-5",
    "router_lr": "0",
    "task_model_lr": "0",
    "router_mode": "softmax",
    "initial_tau": "300",
    "minimum_tau": "1",
    "anneal_rate": "0.0001",
    "total_steps": "60000",
    "no_eval_until": "15000",
    "eval_period": "3000",
    "checkpoint_name": "init",
    "train_dir": "gym",
    "custom_tasks_splits": "split.json",
}


def values(command: str) -> dict[str, str]:
    """Returns the --flag value pairs of a command; of several the last counts."""
    words = command.split()
    return {word: value for word, value in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


def test_the_two_stages_of_a_real_bart_have_the_published_settings(scripts):
    code, (stage_1, merged, stage_2), _ = scripts(
        "run_two_stage.sh", "--mixed_precision", "bf16", **REAL, STAGE1_FLAGS="--num_experts 4 --seed 7"
    )
    assert code == 0
    first, between, second = values(stage_1), values(merged), values(stage_2)
    assert (first["--output_dir"], first["--num_experts"], first["--seed"]) == ("models/moe/stage1", "4", "7")
    assert "--initialize_from_vanilla" in first
    assert "--resume" in first
    assert "--mixed_precision" not in first
    assert between["--routes_from"] == "models/moe/stage1"
    assert (between["--model"], between["--init_eps"]) == ("facebook/bart-base", "1e-8")
    assert between["--output_dir"] == second["--output_dir"] == "models/moe"
    assert {name: second[f"--{name}"] for name in PUBLISHED} == PUBLISHED
    assert second["--mixed_precision"] == "bf16"
    assert "--resume" in second
    assert not {"--model", "--num_experts", "--taskvecs_dim", "--initialize_from_vanilla"} & set(second)


def test_finished_stages_are_not_repeated(scripts):
    assert scripts("run_two_stage.sh", **REAL)[0] == 0
    code, calls, messages = scripts("run_two_stage.sh", **REAL)
    assert (code, calls) == (0, [])
    assert messages == "models/moe is finished: scores in models/moe/best/eval-test-performance.csv\n"
    other = REAL | dict(OUTPUT_DIR="models/other", STAGE1="models/moe/stage1")
    code, (merged, stage_2), _ = scripts("run_two_stage.sh", **other)
    assert code == 0
    assert values(merged)["--routes_from"] == "models/moe/stage1"
    assert "--keep_existing" in values(merged)
    assert values(stage_2)["--output_dir"] == "models/other"


def test_a_given_stage_1_run_is_never_changed(scripts):
    for variables in (REAL, {}):
        code, calls, _ = scripts("run_two_stage.sh", **variables, STAGE1="models/of_the_published_code")
        assert code == 0
        assert len(calls) == 2
        assert values(calls[0])["--routes_from"] == "models/of_the_published_code"


@pytest.mark.parametrize(
    ("flags", "variables", "messages"),
    [
        (["--total_steps", "4"], {}, "error: --total_steps: the annealing is computed from the number"),
        (
            [],
            {"STAGE2_STEPS": "abc"},
            "error: STAGE2_STEPS is 'abc'; it must be a whole number of at least 1",
        ),
        ([], {"TOTAL_STEPS": "1e3"}, "error: TOTAL_STEPS is '1e3'; it must be a whole number of at least 1"),
        ([], {"STAGE2_STEPS": "0"}, "error: STAGE2_STEPS is '0'; it must be a whole number of at least 1"),
    ],
)
def test_steps_that_are_not_numbers_are_reported_with_their_variable(scripts, flags, variables, messages):
    assert scripts("build_a_checkpoint2.sh", **REAL, STAGE1="run")[0] == 0
    code, calls, output = scripts("run_merged_fisher128freeze_1e-5.sh", *flags, **REAL | variables)
    assert (code, calls) == (2, [])
    assert messages in output


def test_stage_2_alone_requires_its_start(scripts):
    code, calls, output = scripts("run_merged_fisher128freeze_1e-5.sh", **REAL)
    assert (code, calls) == (2, [])
    assert output == ("error: models/moe/init: no such checkpoint; write it with build_a_checkpoint2.sh\n")
    assert scripts("build_a_checkpoint2.sh", **REAL, STAGE1="published", STAGE1_CHECKPOINT="last")[0] == 0
    code, (stage_2,), _ = scripts(
        "run_merged_fisher128freeze_1e-5.sh",
        "--seed",
        "1",
        **REAL,
        STAGE2_STEPS="600",
        STAGE2_EVAL_PERIOD="50",
    )
    given = values(stage_2)
    assert (given["--total_steps"], given["--anneal_rate"], given["--seed"]) == ("600", "0.01", "1")
    assert (given["--eval_period"], given["--no_eval_until"]) == ("50", "150")
    assert "--resume" not in given


@pytest.mark.parametrize("model", [{}, {"MODEL": ""}])
def test_stage_2_by_default_creates_its_start(scripts, model):
    code, (stage_1, merged, stage_2), _ = scripts("run_merged_fisher128freeze_1e-5.sh", **model)
    assert code == 0
    first, second = values(stage_1), values(stage_2)
    assert first["--output_dir"] == values(merged)["--routes_from"] == "models/two_stage/stage1"
    assert first["--model"] == values(merged)["--model"] == "task/skill_gym/tiny_bart"
    assert first["--total_steps"] == second["--total_steps"] == "1000"
    assert (first["--learning_rate"], second["--learning_rate"]) == ("1e-3", "1e-3")
    assert (second["--anneal_rate"], second["--eval_period"], second["--no_eval_until"]) == (
        "0.006",
        "500",
        "250",
    )


def test_routes_of_a_given_run_are_not_trained(scripts):
    code, (merged,), _ = scripts(
        "build_a_checkpoint2.sh", "--seed", "3", STAGE1="models/typo", INIT_EPS="0.1"
    )
    given = values(merged)
    assert (code, given["--routes_from"], given["--init_eps"]) == (0, "models/typo", "0.1")
    assert given["--seed"] == "3"
    assert "--routes_checkpoint_name" not in given
