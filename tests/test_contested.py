"""Training on contested rows only: which rows these are, the run on them, runs without enough of them."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_task_routes import FIXED
from tiny_runs import TRAIN_TASKS, assert_equal, assert_same_run, contents, fail_in_step, reopen, run, weights
from tiny_steps import slow_loss
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat, encode
from dataloader.gym import Gym
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.counted_flops import rows_flops
from routing_moe.results.run_cost import read_cost
from routing_moe.task_choice.contested import Contested

pytestmark = pytest.mark.usefixtures("quick_pictures")

LORA = FIXED | dict(task_routes="tasks", expert_kind="lora", lora_rank=2, init_eps=None, base_lr=0.01)


@pytest.fixture(scope="module")
def encoded(world):
    """The train rows of the world, tasks in the order of their names."""
    tasks = {name: n for n, name in enumerate(sorted(TRAIN_TASKS))}
    texts = TextFormat(max_input_length=24, max_output_length=6)
    return encode(
        Gym(world.gym).pool(tasks, "train"), AutoTokenizer.from_pretrained(world.bart), texts, tasks
    )


@pytest.fixture(scope="module")
def slow(world, encoded) -> tuple[float, dict[str, list[int]]]:
    """The median of the BART's losses, one row at a time, and the rows of each task above it."""
    bart = RoutingBartForConditionalGeneration.from_bart(str(world.bart), 1, 0.0).eval()
    losses_R = np.array([slow_loss(bart, encoded, i, torch.ones(3, 1)) for i in range(len(encoded))])
    above = float(np.median(losses_R))
    rows = {
        task: np.flatnonzero(losses_R[encoded.task_ids_N == n] > above + 1e-3).tolist()
        for n, task in enumerate(sorted(TRAIN_TASKS))
    }
    return above + 1e-3, rows


@pytest.fixture(scope="module")
def contested(world, finished, slow):
    """A run on the contested rows. Must not be changed."""
    return world.run("contested", **LORA, contested_above=slow[0])


def test_contested_rows_are_those_that_the_plain_bart_loses_more_on(contested, slow, encoded):
    above, rows = slow
    assert all(0 < len(own) < 24 for own in rows.values())
    saved = json.loads((contested / "contested.json").read_text())
    count = sum(map(len, rows.values()))
    expected = {"above": above, "share": round(count / 72, 4), "train_rows": 72, "rows": rows}
    assert saved == saved | expected
    line = f"{count / 72:.1%} of 72 train rows lose more than {above:g} nats"
    assert line in (contested / "log.txt").read_text()


def test_a_run_sees_its_contested_rows_only(world, contested, slow, encoded):
    gym = shutil.copytree(world.gym, world / "contested_gym")
    for task, rows in slow[1].items():
        first = 0
        for sample in Gym(gym).samples(task):
            file = gym / task / f"{sample}_train.tsv"
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join(line for i, line in enumerate(lines, first) if i in rows))
            first += len(lines)
    alone = world.run("contested_alone", **LORA, train_dir=gym)
    assert_equal(weights(alone / "last"), weights(contested / "last"))
    cost, other = read_cost(contested), read_cost(alone)
    bart = RoutingBartForConditionalGeneration.from_bart(str(world.bart), 1, 0.0)
    assert cost["scoring_flops"] == rows_flops(bart, encoded) > other["scoring_flops"] == 0
    assert cost["total_flops"] == other["total_flops"] + cost["scoring_flops"]


def test_a_resumed_run_takes_the_rows_of_its_file(world, contested, slow, monkeypatch):
    changed = LORA | dict(contested_above=slow[0])
    fail_in_step(5, lambda: world.run("contested_stopped", **changed))
    monkeypatch.setattr("routing_moe.training.run.losses_of_tasks", None)
    assert_same_run(world.run("contested_stopped", **changed, resume=True), contested)


def test_rows_of_other_data_are_an_error(world, contested, slow, tmp_path, capsys):
    copy = shutil.copytree(contested, tmp_path / "run")
    reopen(copy)
    saved = json.loads((copy / "contested.json").read_text())
    (copy / "contested.json").write_text(json.dumps(saved | {"data": 1}))
    assert run(world.gym, world.bart, copy, **LORA, contested_above=slow[0], resume=True) == 2
    assert "contested.json numbers other train rows" in capsys.readouterr().err


def test_nothing_is_trained_on_few_contested_rows(world, finished, capsys):
    changed = LORA | dict(contested_above=1000)
    folder = world.run("few_contested", **changed, do_predict=True)
    files = contents(folder)
    assert files.keys() == {"run.json", "contested.json"}
    assert Contested.load(folder).rows == {task: [] for task in TRAIN_TASKS}
    assert "fewer than 5%: one model serves all tasks; nothing is trained" in capsys.readouterr().err
    world.run("few_contested", **changed, do_predict=True, resume=True)
    assert contents(folder).keys() == files.keys()
    assert contents(folder)["contested.json"] == files["contested.json"]


def test_equal_flops_counts_the_losses_by_which_rows_were_chosen(world, contested, slow, finished):
    other = world.run("equal_contested", **LORA, contested_above=slow[0], equal_flops=finished)
    cost, budget = read_cost(other), read_cost(finished)["total_flops"]
    of_step = (cost["total_flops"] - cost["scoring_flops"]) / cost["steps"]
    assert cost["scoring_flops"] == read_cost(contested)["scoring_flops"]
    assert abs(cost["total_flops"] - budget) <= of_step
