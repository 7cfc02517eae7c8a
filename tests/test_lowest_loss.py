"""Routes of lowest loss on labelled rows of a task: in a model, in prediction, in fine-tuning."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_task_routes import FIXED, ONLY
from tiny_grids import QUICK, by_sample, finetune
from tiny_runs import METRICS, TRAIN_TASKS, World, run, write_new_tasks
from tiny_steps import slow_losses

from routing_moe.io.accelerator import make_accelerator
from routing_moe.task_choice.learned import LowestLoss

pytestmark = pytest.mark.usefixtures("quick_pictures")

HUE, BOTH = "hue", "both"  # tasks with the rows of colour; of colour in one sample and of count in the other
ROUTES = {"colour": 2, "count": 0, "opposite": 1}
LOWEST = dict(task_routes="lowest_loss", num_beams=1)
LONG = dict(total_steps=12, eval_period=12)  # experts know their tasks
OF_ONE, OF_ALL = "labelled rows of one sample", "labelled rows of all samples"


def test_the_choice_equals_that_of_one_row_and_one_route_at_a_time(make_model, task_examples):
    model = make_model(random_vectors=["d"], router_mode="softmax")
    with torch.no_grad():
        model.task_vectors.weight.mul_(20)  # so that routes differ
    tasks = ["b", "c"]
    source = LowestLoss(model, tasks, make_accelerator("no"))
    routes_KLE = model.routes_for(tasks).detach()
    losses_K = slow_losses(model, task_examples, routes_KLE).mean(axis=0)
    best, other = losses_K.argsort()
    few = task_examples.subset(np.arange(3))
    both = source.choose({"few": (few, "few_3_13"), "new": (task_examples, "new_7_13")})
    assert both["few"].description == source.choose({"few": (few, "few_3_13")})["few"].description
    choice = both["new"]
    assert choice.description == (
        f"route of {tasks[best]} (lowest loss, {losses_K[best]:.2f}; next {losses_K[other]:.2f})"
    )
    np.testing.assert_allclose(choice.route_LE, routes_KLE[best])
    assert (choice.source, choice.seen) == ("lowest_loss", f"{OF_ONE}: new_7_13")


def test_tasks_with_the_same_experts_share_a_route(make_model, task_examples):
    model = make_model(route_source="fixed", encoder_vanilla_layers=[0])
    experts_NL = [[0, 1, 1, 1], [2, 1, 1, 1], [0, 2, 2, 2], [1, 0, 0, 0]]  # the first layer has one expert
    model.task_routes.copy_(torch.nn.functional.one_hot(torch.tensor(experts_NL), 3))
    source = LowestLoss(model, ["a", "b", "c"], make_accelerator("no"))
    assert source.names == ["expert 1", "expert 2"]
    assert source.choose({"new": (task_examples, "s")})["new"].description.startswith("route of expert ")
    source = LowestLoss(model, ["a"], make_accelerator("no"))
    words = source.choose({"new": (task_examples, "s")})["new"].description
    assert words.startswith("route of expert 1 (lowest loss, ")
    assert "next" not in words


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs whose experts have learned the rows of train tasks, in a gym with further tasks of the same rows.

    "experts": an expert a task. "router": a soft router.
    """
    world = World(tmp_path_factory.mktemp("lowest"))
    for task in (HUE, BOTH):
        (world.gym / task).mkdir()
        for seed, rows in (("100", "colour"), ("13", "colour" if task == HUE else "count")):
            for part in ("train", "dev", "test"):
                source = world.gym / rows / f"{rows}_12_{seed}_{part}.tsv"
                shutil.copy(source, world.gym / task / f"{task}_12_{seed}_{part}.tsv")
    (world.gym / "metrics.json").write_text(json.dumps(METRICS | {HUE: "ACC", BOTH: "EM"}))
    sections = dict(train=TRAIN_TASKS, dev=[HUE], test=[BOTH])
    (world.gym / "split.json").write_text(json.dumps(sections))
    learning = dict(hide_task_names=True, init_eps=0.1, num_beams=1, learning_rate=0.02)
    (world / "experts.json").write_text(json.dumps(ROUTES))
    world.run("experts", **FIXED | learning | LONG, task_routes=world / "experts.json")
    world.run("router", **learning | dict(router_mode="softmax", total_steps=1))
    return world


def predict(place, start, code=0, section="dev", **changed) -> pd.DataFrame | None:
    """Returns the scores of a section with a copy of a run, along routes of lowest loss; None if refused."""
    folder = place / f"{start}_{len(list(place.folder.iterdir()))}"
    shutil.copytree(place / start, folder)
    asked = ONLY | LOWEST | dict(predict_split=section) | changed
    assert run(place.gym, place.bart, folder, **asked) == code
    name = f"best/{changed.get('prefix', '')}eval-{section}_tasks-test-performance.csv"
    return None if code else pd.read_csv(folder / name, index_col=0).set_index("task_prefix")


def test_an_unseen_task_has_the_expert_that_knows_its_rows_and_others_keep_their_routes(place, tmp_path):
    other = tmp_path / "split.json"
    other.write_text(json.dumps({"train": ["count"], "dev": [], "test": ["colour", HUE]}))
    scores = predict(place, "experts", section="test", custom_tasks_splits=other)
    assert scores.loc["colour", ["route", "vector_seen"]].tolist() == ["own route", OF_ALL]
    assert scores.loc[HUE, "route"].startswith("route of expert 2 (lowest loss, ")
    assert scores.loc[HUE, "vector_seen"] == f"{OF_ONE}: hue_12_100"


def test_routes_of_a_router_are_chosen_among(place, capsys):
    predict(place, "router", code=2)
    assert "has another source of routes than this prediction; give --prefix" in capsys.readouterr().err
    route = predict(place, "router", prefix="loss-").loc[HUE, "route"]
    assert route.split(" (lowest loss, ")[0] in [f"route of {task}" for task in TRAIN_TASKS]


def test_a_task_without_rows_is_refused(place, tmp_path, capsys):
    write_new_tasks(tmp_path / "new", "verb", train=TRAIN_TASKS, dev=["verb"], test=[])
    changed = dict(predict_dir=tmp_path / "new", custom_tasks_splits=tmp_path / "new/split.json")
    predict(place, "experts", code=2, **changed)
    message = f"{tmp_path}/new: no train file of verb, whose rows are needed to choose a route"
    assert message in capsys.readouterr().err


def tune(place, name, start, code=0, **changed) -> Path:
    asked = QUICK | LOWEST | dict(samples="all", learning_rate_list=[0.01], total_steps=1, moe_init=True)
    flags = asked | dict(task_dir=place.gym / BOTH, init_dir=place / start, hide_task_names=True) | changed
    assert finetune(place.gym, place.bart, place / name, **flags) == code
    return place / name


def test_each_sample_starts_from_the_route_of_its_own_rows(place, capsys):
    folder = tune(place, "tuned", "experts")
    found = by_sample(folder)
    assert found["both_12_100"].startswith("route of expert 2 (lowest loss, ")
    assert found["both_12_13"].startswith("route of expert 0 (lowest loss, ")
    assert found["both_12_100"].endswith("); plain model")
    for sample, seen in by_sample(folder, "vector_seen").items():
        assert seen == f"{OF_ONE}: {sample.removesuffix('_best')}"
    tune(place, "tuned", "experts", code=2, task_routes=None, learning_rate_list=[0.02])
    problem = f"--task_routes is not given, but in the grid in {folder} it was lowest_loss"
    assert problem in capsys.readouterr().err
