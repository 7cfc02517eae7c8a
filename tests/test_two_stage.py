"""Stage 2 of training: learned routes stay constant and new experts are trained."""

import csv
import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import draw_nothing
from safetensors.torch import save_file
from tiny_runs import assert_equal, flags, weights

from routing_moe.analysis.saved_routes import best_step
from routing_moe.cli.merge import main as merge
from routing_moe.cli.train import main as train

OF_A_NEW_MODEL = ("initialize_from_vanilla", "model", "init_eps")
OF_ITS_SIZE = ("num_experts", "taskvecs_dim", "router_hidden_dim")
STAGE_2 = dict.fromkeys(OF_A_NEW_MODEL + OF_ITS_SIZE) | dict(checkpoint_name="init", router_mode="softmax")
STAGE_2 |= dict(router_lr=0, task_model_lr=0, initial_tau=300, minimum_tau=1)


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
        draw_nothing(patch)
        chosen = STAGE_2 | dict(total_steps=20, anneal_rate=6 / 20, eval_period=20)
        assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    return folder


def test_stage_2_keeps_the_routes_bit_for_bit_and_trains_the_experts(two_stages):
    learned, start, end = (weights(two_stages / place) for place in ("stage1/best", "run/init", "run/last"))
    for state in (start, end):
        kept = {name: t for name, t in state.items() if name.startswith(("router.", "task_vectors."))}
        assert_equal(kept, {name: learned[name] for name in kept})
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    experts = {name for name in start if ".experts." in name}
    assert experts
    # Biases of keys do not affect the output: attention is the same for all of them.
    assert {name for name in experts if "k_proj.bias" not in name} <= moved


@pytest.mark.parametrize(("select_best", "step"), [(None, 3), ("all", 1)])
def test_stage_2_selects_at_its_last_temperature(
    two_stages, originals, monkeypatch, tmp_path, select_best, step
):
    """Three steps, each evaluated; scores fall, the last one is at temperature 1."""
    scores = iter([0.9, 0.8, 0.7])
    monkeypatch.setattr(
        "routing_moe.training.trainer.mean_score",
        lambda _, name: next(scores) if name == "performance" else 0,
    )
    draw_nothing(monkeypatch)
    out = tmp_path / "run"
    shutil.copytree(two_stages / "run/init", out / "init")
    chosen = STAGE_2 | dict(total_steps=3, anneal_rate=2, eval_period=1, select_best=select_best)
    assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    selected = json.loads((out / "best/checkpoint.json").read_text())
    assert selected["step"] == step
    assert selected["temperature"] == 1 or select_best
    assert best_step(out, [1, 2, 3]) == step


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
    log = (two_stages / "run/log.txt").read_text()
    assert f"temperature: 0% 300, 25% {temperatures[4]:.4g}, 50% {temperatures[9]:.4g}, " in log
