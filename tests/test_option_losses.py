"""Losses among the options: by numbers, and of `transfer --loss options`."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from mistakes import assert_problem
from test_task_routes import FIXED
from test_transfer import refusal, together
from tiny_runs import World, write_ranked_gym

from dataloader.gym import Example, Gym, evenly_spread
from dataloader.options import option_source
from routing_moe import Routed
from routing_moe.answering.queries import Query, RoutedTask
from routing_moe.cli.transfer import main
from routing_moe.evaluation.option_losses import among_options, pairs_of
from routing_moe.task_choice.transfer import gains, grouped

pytestmark = pytest.mark.usefixtures("empty_pictures")

TASKS = ["given", "label", "listed"]
LORA = FIXED | dict(task_routes="tasks", expert_kind="lora", lora_rank=2, init_eps=None, shared_base=True)


def test_losses_among_options_are_nats_of_the_accepted_ones_per_token():
    rows = [
        Example("t", "t", "a", ("yes",), ("no", "yes")),
        Example("t", "t", "b", ("red", "blue"), ("blue", "green", "red")),
    ]
    pairs, rows_P, is_accepted_P = pairs_of(rows)
    assert [pair.outputs for pair in pairs] == [("no",), ("yes",), ("blue",), ("green",), ("red",)]
    losses_P, tokens_P = np.array([3.0, 4.0, 1.0, 2.0, 6.0]), np.array([3, 2, 1, 1, 2])
    found = among_options(losses_P, tokens_P, rows_P, is_accepted_P)
    no, yes, blue, green, red = (math.exp(-score) for score in (1, 2, 1, 2, 3))
    expected = [-math.log(yes / (no + yes)), -math.log((blue + red) / (blue + green + red))]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_experts_that_know_labels_hide_contradictions_unless_among_the_options(seed):
    """Tasks 0 to 3 have other labels than tasks 4 to 7; of each four, the second two have reversed ones."""
    sides_NN = np.kron(np.eye(4), np.ones((2, 2)))  # where tasks agree
    is_known_NN = np.kron(np.eye(2), np.ones((4, 4)))  # where experts know the labels, more or less
    unknown_NN = np.where(is_known_NN, np.random.default_rng(seed).uniform(0, 9, (8, 8)), 20.0)
    right_NN = unknown_NN + np.where(is_known_NN * (1 - sides_NN), 1.5, 0.1)
    wrong_NN = unknown_NN + np.where(is_known_NN * sides_NN, 1.5, 0.1)
    losses_P = np.stack([right_NN, wrong_NN], axis=-1).ravel()
    rows_P, is_accepted_P = np.repeat(np.arange(64), 2), np.array([True, False] * 64)
    among_NN = among_options(losses_P, np.ones(128), rows_P, is_accepted_P).reshape(8, 8)
    assert together(groups_of(among_NN)).tolist() == sides_NN.tolist()
    assert together(groups_of(right_NN)).tolist() != sides_NN.tolist()


def groups_of(losses_NN: np.ndarray) -> np.ndarray:
    return grouped(gains(losses_NN, np.arange(8), 8, np.arange(8)), np.arange(8)).labels_N


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with an expert for each of three tasks, one for each source of options."""
    world = World(tmp_path_factory.mktemp("options"))
    world.ranked = write_ranked_gym(world / "ranked")
    split = {"train": TASKS, "dev": [], "test": []}
    (world.ranked / "split.json").write_text(json.dumps(split))
    learning = dict(total_steps=40, eval_period=40, train_batch_size=8, learning_rate=0.04, num_beams=1)
    world.run("deltas", **LORA | learning, train_dir=world.ranked)
    return world


def test_the_command_compares_experts_by_scores_of_options(place, tmp_path):
    words = ["--loss", "options", "--rows", "6", "--output_dir", str(tmp_path / "found")]
    assert main([str(place / "deltas"), *words]) == 0
    routed, gym = Routed.load(place / "deltas"), Gym(place.ranked)
    table = pd.read_csv(tmp_path / "found/transfer.csv", index_col=0)
    for task in TASKS:
        rows = gym.pool([task], "train")
        source = option_source(rows, "ACC")
        rows = evenly_spread(rows, 6)
        for m, owner in enumerate(routed.model.config.task_names):
            along = RoutedTask(task, routed.model.routes_for([owner])[0], "", "", 0, str(routed.place))
            answers = routed.answers(along, [Query(row.input, source.options(row)) for row in rows])
            expected = [loss_of(a.option_scores, row) for a, row in zip(answers, rows, strict=True)]
            assert table.loc[task, owner] == pytest.approx(np.mean(expected), abs=1e-3), (m, task)
    found = json.loads((tmp_path / "found/transfer.json").read_text())
    assert (found["loss"], found["rows"]) == ("options", 18)


def loss_of(scores: dict[str, float], row: Example) -> float:
    accepted = [math.exp(score) for option, score in scores.items() if option in row.outputs]
    return -math.log(sum(accepted) / sum(map(math.exp, scores.values())))


def test_a_task_without_options_is_refused(place, tmp_path, capsys):
    table = tmp_path / "open.csv"
    table.write_text("input,output\n" + "".join(f"what {i},answer {i}\n" for i in range(6)))
    tables = [f"{task}={table}" for task in TASKS]
    lines = refusal(tmp_path, capsys, place / "deltas", "--loss", "options", "--tables", *tables)
    assert_problem(lines, "--loss options: no answer of given is one of its options", "give --loss answer")
