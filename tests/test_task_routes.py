"""Whole runs with every route source, among them routes from outside: training, resuming, prediction."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from mistakes import assert_problem
from test_unseen_tasks import SCORES
from tiny_runs import NO_LEARNING, TRAIN_TASKS, assert_equal, assert_same_run, contents, run, typed, weights
from tiny_vectors import write_vectors

from dataloader.metrics import evaluate
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.merge import main as merge
from routing_moe.model.task_vectors import load_task_vectors

pytestmark = pytest.mark.usefixtures("quick_pictures")

FIXED = dict.fromkeys(("num_experts", "router_hidden_dim", "taskvecs_dim", "router_lr", "task_model_lr"))
ONLY = FIXED | dict(
    do_train=None, initialize_from_vanilla=None, init_eps=None, do_predict=True, predict_split="test"
)
FORMS = {
    "colour": 0,
    "count": {"encoder": 1, "decoder": 2},
    "opposite": [2, 1, 0],
    "plural": [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]],
}
TASKS = (*TRAIN_TASKS, "plural")
# Vectors of TASKS: colour is like opposite, count like plural.
PAIRS = dict(zip(TASKS, [[4, 3], [3, 4], [4, 3.1], [3.1, 4]], strict=True))
SEEN = "labelled rows of one sample"
CLUSTERS = FIXED | dict(task_routes="clusters:2")
NO_ROUTER = dict(router_hidden_dim=None, taskvecs_dim=None, router_lr=None, task_model_lr=None)
RUNS = {
    "average": NO_ROUTER | dict(avg_routing=True),
    "random": NO_ROUTER | dict(random_routing=True, random_eval_draws=3),
    "task_random": NO_ROUTER | dict(task_level_random_routing=True, seed=3),
    "one_expert": NO_ROUTER | dict(num_experts=1, init_eps=None),
    "merged and frozen": dict(
        **dict(router_mode="top_k", router_top_k=2, num_experts=3),
        **dict(expert_mixing="parameters", router_lr=0, freeze_task_model=True),
    ),
    "mhr": dict(
        **dict(expert_kind="lora", lora_rank=2, lora_mixing="factors", lora_splits=2, base_lr=0.01),
        **dict(router_nn_type="table", router_mode="bernoulli", taskvecs_dim=None),
    ),
    "given": FIXED,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder with PAIRS, the vectors of TASKS. Must not be changed."""
    return write_vectors(tmp_path_factory.mktemp("pairs"), PAIRS, seen=SEEN)


@pytest.fixture(scope="module")
def clusters(world, pairs):
    """A run along the clusters of PAIRS, with scores of the unseen task. Must not be changed: copy it."""
    asked = dict(taskvecs=pairs, total_steps=1, do_predict=True, predict_split="test")
    return world.run("outside/clusters", **CLUSTERS, **asked)


def model_of(folder):
    return RoutingBartForConditionalGeneration.from_pretrained(folder / "best").eval()


def scores_of(folder, prefix=""):
    table = pd.read_csv(folder / f"best/{prefix}eval-test_tasks-test-performance.csv", index_col=0)
    return table.set_index("task_prefix")


# ---- every source


@pytest.fixture(scope="module")
def trained(world):
    """trained(name) returns the folder of a finished run of RUNS, trained once."""
    (world / "routes.json").write_text(json.dumps(FORMS))
    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = world.run(f"source_{name}", **flags_of(name, world))
        return folders[name]

    return folder_of


def flags_of(name, world) -> dict:
    routes = dict(task_routes=world / "routes.json") if name == "given" else {}
    return dict(do_predict=True) | RUNS[name] | routes


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


@pytest.mark.parametrize("name", ["random", "mhr"])
def test_a_source_resumes_bit_for_bit(name, trained, world):
    folder = world.resumed(f"resumed_{name}", **flags_of(name, world))
    assert_same_run(folder, trained(name))


def test_task_level_random_routes_are_stored_and_constant(trained):
    folder = trained("task_random")
    routes = [weights(folder / name)["task_routes"] for name in ("best", "last")]
    assert torch.equal(*routes)
    assert (routes[0].sum(-1) == 1).all()
    assert routes[0].shape == (4, 3, 2)  # unseen tasks included
    drawn = np.load(folder / "6-steps/route.npy")
    tasks = (folder / "6-steps/route_tasks.txt").read_text().split()
    names = model_of(folder).config.task_names
    assert np.array_equal(drawn, routes[0][[names.index(task) for task in tasks]].numpy())


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


# ---- routes from outside


def test_routes_of_a_file_are_kept_bit_for_bit(trained, world):
    folder = trained("given")
    model = model_of(folder)
    assert model.config.task_names == list(TASKS)
    eye = torch.eye(3)
    expected = [eye[[0, 0, 0]], eye[[1, 1, 2]], eye[[2, 1, 0]], torch.tensor(FORMS["plural"])]
    assert torch.equal(model.task_routes, torch.stack(expected))
    assert torch.equal(weights(folder / "last")["task_routes"], model.task_routes)
    assert f"routes: given ({world / 'routes.json'}); 3 experts a layer" in (folder / "log.txt").read_text()


def test_clusters_of_vectors_are_experts_and_unseen_tasks_get_the_nearest(clusters):
    model = model_of(clusters)
    assert model.config.task_names == list(TASKS)
    assert torch.equal(model.task_routes, torch.eye(2)[[0, 1, 0, 1]][:, None].expand(-1, 3, -1))
    assert "2 clusters of 2, 1 tasks; mean silhouette " in (clusters / "log.txt").read_text()
    names, kept_ND = load_task_vectors(clusters / "best")
    assert names == list(TASKS)
    assert np.allclose(kept_ND, list(PAIRS.values()))
    assert np.array_equal(weights(clusters / "best")["route_vectors"].numpy(), kept_ND)
    table = pd.read_csv(clusters / "clusters.csv")
    assert table[["clusters", "sizes"]].values.tolist() == [[2, "2 1"]]


# ---- permuted routes


def test_random_groups_start_with_the_weights_of_their_file_and_are_recorded(world, tmp_path):
    (path := tmp_path / "routes.json").write_text(json.dumps(FORMS))
    asked = FIXED | NO_LEARNING
    own = world.run("outside/unpermuted", **asked, task_routes=path)
    default = world.run("outside/permuted", **asked, task_routes=f"random:{path}")
    before, after = (weights(folder / "best") for folder in (own, default))
    own_NLE, permuted_NLE = before.pop("task_routes"), after.pop("task_routes")
    assert_equal(after, before)
    assert not torch.equal(own_NLE, permuted_NLE)
    rows, permuted = ([row.flatten().tolist() for row in routes] for routes in (own_NLE, permuted_NLE))
    assert sorted(permuted[:3]) == sorted(rows[:3])  # of the train tasks
    assert permuted[3] == rows[3]  # of plural
    assert model_of(default).config.given_routes == f"random:{path}:42"
    assert "routes permuted among 3 train tasks (seed 42): " in (default / "log.txt").read_text()


# ---- both stages


def test_a_merge_keeps_given_routes_and_stage_2_trains_along_them(clusters, world, capsys):
    flags = dict(routes_from=clusters, model=world.bart, output_dir=world / "outside/merged")
    assert merge(typed(flags)) == 0
    output = capsys.readouterr().out
    assert "fixed routes (clusters:2 of " in output
    changed = FIXED | dict(initialize_from_vanilla=None, model=None, init_eps=None, total_steps=1)
    stage2 = world.run("outside/stage2", **changed, checkpoint=world / "outside/merged/init")
    folders = clusters / "best", stage2 / "last"
    kept = [{n: t for n, t in weights(folder).items() if "route" in n} for folder in folders]
    assert sorted(kept[0]) == ["route_vectors", "task_routes"]
    assert_equal(*kept)
    assert (clusters / "best/task_vecs.npy").read_bytes() == (stage2 / "last/task_vecs.npy").read_bytes()
    fields = ("given_routes", "has_route_vectors", "trained_tasks", "vectors_seen")
    one, other = (model_of(place).config for place in (clusters, stage2))
    assert all(getattr(one, field) == getattr(other, field) for field in fields)


# ---- prediction


def test_an_unseen_task_is_scored_along_its_nearest_cluster(clusters, pairs, world, tmp_path, capsys):
    folder = world.copy(clusters, "outside/nearest")
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("cluster 1 (cosine 1.00)", SEEN)
    before = (folder / SCORES).read_bytes()
    assert run(world.gym, world.bart, folder, **ONLY, task_routes="clusters:2", taskvecs=pairs) == 0
    assert (folder / SCORES).read_bytes() == before
    new = write_vectors(tmp_path / "new", {"plural": [4, 3]})
    capsys.readouterr()
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 2
    assert "/best has another vector of plural" in capsys.readouterr().err
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new, prefix="new-") == 0
    assert scores_of(folder, "new-").loc["plural"]["route"] == "cluster 0 (cosine 1.00)"


def test_a_task_that_training_did_not_know_gets_the_route_of_its_vector(world, tmp_path):
    known = write_vectors(tmp_path / "known", {task: PAIRS[task] for task in TRAIN_TASKS})
    folder = world.run("outside/later", **CLUSTERS, taskvecs=known, total_steps=1)
    assert "plural" not in model_of(folder).config.task_names
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("average: no vector", "nothing")
    log = (folder / "eval_log.txt").read_text()
    assert "note: no route and no vector of plural: all experts have equal weights" in log
    new = write_vectors(tmp_path / "new", {"plural": [3, 4]})
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 0
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("cluster 1 (cosine 1.00)", "unknown")
    # The scores are those of the cluster's route, given by hand.
    by_hand = world.copy(folder, "outside/later_by_hand")
    (new / "routes.json").write_text('{"plural": 1}')
    assert run(world.gym, world.bart, by_hand, **ONLY, task_routes=new / "routes.json") == 0
    columns = ["route", "vector_seen"]
    assert scores_of(by_hand).loc["plural", "route"] == "given route"
    tables = (scores_of(place).drop(columns=columns) for place in (by_hand, folder))
    pd.testing.assert_frame_equal(*tables)
    for part in ("dev", "test"):
        name = f"best/predictions/plural_12_100_{part}.jsonl"
        assert (folder / name).read_bytes() == (by_hand / name).read_bytes()


def test_scoring_with_other_routes_does_not_overwrite_the_run_s_scores(finished, world, capsys):
    folder = world.copy(finished, "rerouted")
    before = {p.name: p.read_bytes() for p in (folder / "best").glob("eval-*.csv")}
    asked = ONLY | dict(predict_split="train", avg_routing=True)
    assert run(world.gym, world.bart, folder, **asked) == 2
    output = capsys.readouterr().err.splitlines()
    assert_problem(output, f"{folder}/best has another source of routes")
    assert run(world.gym, world.bart, folder, **asked, prefix="average-") == 0
    assert {p.name: p.read_bytes() for p in (folder / "best").glob("eval-*.csv")} == before
    assert (folder / "best/average-eval-test-performance.csv").is_file()
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    assert model.config.route_source == "learned"  # the checkpoint has not changed
    assert_equal(weights(folder / "best"), weights(finished / "best"))


def test_scores_of_another_checkpoint_replace_none(finished, clusters, world, tmp_path, capsys):
    inner = world.copy(clusters, "scored")
    shutil.copytree(clusters / "best", inner / "stage1/best")
    for folder, other in ((inner, "the run "), (tmp_path, str(finished / "best"))):
        if folder == tmp_path:
            assert run(world.gym, world.bart, folder, **ONLY, checkpoint=finished / "best") == 0
        before = contents(folder)
        assert run(world.gym, world.bart, folder, **ONLY, checkpoint=inner / "stage1/best") == 2
        assert f"--output_dir {folder} is for scores of {other}" in capsys.readouterr().err
        assert contents(folder) == before
