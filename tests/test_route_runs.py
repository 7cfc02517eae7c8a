"""Whole runs with every route source: training, files, resuming, prediction."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_nothing
from mistakes import assert_problem
from tiny_runs import TRAIN_TASKS, assert_equal, assert_same_run, run, weights

from dataloader.metrics import evaluate
from routing_moe import RoutingBartForConditionalGeneration

pytestmark = pytest.mark.usefixtures("quick_pictures")

NO_ROUTER = dict(router_hidden_dim=None, taskvecs_dim=None, router_lr=None, task_model_lr=None)
RUNS = {
    "average": NO_ROUTER | dict(avg_routing=True),
    "random": NO_ROUTER | dict(random_routing=True, random_eval_draws=3),
    "task_random": NO_ROUTER | dict(task_level_random_routing=True, seed=3),
    "one_expert": NO_ROUTER | dict(num_experts=1, init_eps=None),
    "top_k": dict(router_mode="top_k", router_top_k=2, num_experts=3),
    "merged": dict(router_mode="softmax", expert_mixing="parameters"),
    "frozen": dict(router_lr=0, freeze_task_model=True),
    "mhr": dict(
        expert_kind="lora",
        lora_rank=2,
        lora_mixing="factors",
        lora_splits=2,
        base_lr=0.01,
        router_nn_type="table",
        router_mode="bernoulli",
        taskvecs_dim=None,
    ),
}


@pytest.fixture(scope="module")
def trained(world, quick):
    """trained(name) returns the folder of a finished run of RUNS, trained once."""
    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = world.run(f"source_{name}", do_predict=True, **RUNS[name])
        return folders[name]

    return folder_of


@pytest.fixture(scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


def config_of(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


def files_of(folder) -> set[str]:
    """Returns all files except those of periodic checkpoints, which only some of these runs have."""
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    own = {"dev_results.csv", "route.npy", "route.png", "route_t1.npy", "route_t1.png", "route_tasks.txt"}
    kept = {path for path in paths if path.parts[0].endswith("-steps") and path.name not in own}
    return {str(path) for path in paths - kept}


@pytest.mark.parametrize("name", RUNS)
def test_every_source_trains_and_writes_the_same_files(name, trained, finished):
    folder = trained(name)
    expected = files_of(finished)
    if RUNS[name].get("router_lr", 0.01) is None:
        of_a_router = ("task_vecs.npy", "route_t1.npy", "route_t1.png")
        expected = {path for path in expected if not path.endswith(of_a_router)}
    if name in ("average", "random", "one_expert"):
        expected.remove("best/text_vectors.npz")  # tasks have no routes of their own
    assert files_of(folder) == expected
    losses = pd.read_csv(folder / "losses.csv")
    assert losses["train_loss"].iloc[1] < losses["train_loss"].iloc[0]
    scores = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0)
    assert sorted(scores["task_prefix"]) == TRAIN_TASKS
    named = [n for n in weights(folder / "best") if n.startswith(("router.", "task_vectors."))]
    assert bool(named) == (RUNS[name].get("router_lr", 1) is not None)


@pytest.mark.parametrize("name", RUNS)
def test_every_source_resumes_bit_for_bit(name, trained, world):
    folder = world.resumed(f"resumed_{name}", do_predict=True, **RUNS[name])
    assert_same_run(folder, trained(name))


def test_task_level_random_routes_are_stored_and_constant(trained, world):
    folder = trained("task_random")
    routes = [weights(folder / name)["task_routes"] for name in ("best", "last")]
    assert torch.equal(*routes)
    assert (routes[0].sum(-1) == 1).all()
    assert routes[0].shape == (4, 3, 2)  # unseen tasks included
    drawn = np.load(folder / "6-steps/route.npy")
    tasks = (folder / "6-steps/route_tasks.txt").read_text().split()
    names = config_of(folder / "best")["task_names"]
    assert np.array_equal(drawn, routes[0][[names.index(task) for task in tasks]].numpy())
    other = world.run("other_seed", **RUNS["task_random"] | dict(seed=4, total_steps=1))
    assert not torch.equal(weights(other / "last")["task_routes"], routes[0])


def test_scores_of_random_routes_are_means_and_stds_over_draws(trained):
    folder = trained("random")
    scores = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0).set_index("task_prefix")
    assert (scores["draws"] == 3).all()
    spread = 0
    for task, row in scores.iterrows():
        lines = (folder / f"best/predictions/{row['sample']}_test.jsonl").read_text().splitlines()
        objects = [json.loads(line) for line in lines]
        draws = [[x["prediction"] for x in objects]]
        draws += [[x["other_draws"][d] for x in objects] for d in range(2)]
        values = [evaluate(texts, [x["answers"] for x in objects], row["metric"]) for texts in draws]
        assert row["performance"] == pytest.approx(np.mean(values)), task
        assert row["performance_std"] == pytest.approx(np.std(values, ddof=1)), task
        assert row[["draw_1", "draw_2", "draw_3"]].tolist() == pytest.approx(values), task
        spread += len({tuple(texts) for texts in draws}) > 1
    assert spread  # draws differ
    means = [scores[f"draw_{d}"].mean() for d in (1, 2, 3)]
    log = (folder / "log.txt").read_text()
    assert f"(mean of 3 draws of all routes, std {np.std(means, ddof=1):.4f})" in log
    assert "scores are means of 3 draws" in (folder / "log.txt").read_text()


# ---- changing the route source


def test_scoring_with_other_routes_does_not_overwrite_the_run_s_scores(finished, world, capsys):
    folder = world.copy(finished, "rerouted")
    before = {p.name: p.read_bytes() for p in (folder / "best").glob("eval-*.csv")}
    only = NO_ROUTER | dict(do_train=None, initialize_from_vanilla=None, init_eps=None, num_experts=None)
    asked = only | dict(do_predict=True, avg_routing=True)
    assert run(world.gym, world.bart, folder, **asked) == 2
    output = capsys.readouterr().err.splitlines()
    assert_problem(output, f"{folder}/best has another source of routes")
    assert run(world.gym, world.bart, folder, **asked, prefix="average-") == 0
    assert {p.name: p.read_bytes() for p in (folder / "best").glob("eval-*.csv")} == before
    assert (folder / "best/average-eval-test-performance.csv").is_file()
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    assert model.config.route_source == "learned"  # the checkpoint has not changed
    assert_equal(weights(folder / "best"), weights(finished / "best"))
