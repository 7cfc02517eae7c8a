"""Whole runs with routes from outside: training, resuming, both stages, prediction."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_unseen_tasks import SCORES
from tiny_runs import NO_LEARNING, TRAIN_TASKS, assert_equal, assert_same_run, run, typed, weights

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.merge import main as merge
from routing_moe.model.task_vectors import load_task_vectors, save_task_vectors

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
PAIRS = [[1, 0], [0, 1], [1, 0.1], [0.1, 1]]  # vectors of TASKS: colour is like opposite, count like plural
SEEN = "labelled rows of one sample"
CLUSTERS = FIXED | dict(task_routes="clusters:2")


@pytest.fixture
def vectors(tmp_path):
    """vectors(vectors_ND, names, name, **meta): a folder of task vectors."""

    def write(vectors_ND=PAIRS, names=TASKS, name="vectors", **meta):
        folder = tmp_path / name
        folder.mkdir()
        save_task_vectors(folder, list(names), np.array(vectors_ND) + 3.0)
        if meta:
            (folder / "meta.json").write_text(json.dumps(meta))
        return folder

    return write


@pytest.fixture
def routes_file(tmp_path):
    """routes_file(content, name): a JSON file of routes."""

    def write(content=FORMS, name="routes.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


def model_of(folder, name="best"):
    return RoutingBartForConditionalGeneration.from_pretrained(folder / name).eval()


def experts(folder, name="best") -> dict[str, list[int]]:
    """{task: expert of each layer} of one-hot routes."""
    model = model_of(folder, name)
    routes_NLE = model.task_routes
    assert set(routes_NLE.unique().tolist()) <= {0, 1}
    return dict(zip(model.config.task_names, routes_NLE.argmax(-1).tolist(), strict=True))


def scores_of(folder, prefix=""):
    table = pd.read_csv(folder / f"best/{prefix}eval-test_tasks-test-performance.csv", index_col=0)
    return table.set_index("task_prefix")


# ---- training


def test_routes_of_a_file_are_trained_along_and_kept_bit_for_bit(world, routes_file):
    asked = FIXED | dict(task_routes=routes_file(), do_predict=True)
    folder = world.run("outside/file", **asked)
    model = model_of(folder)
    assert model.config.task_names == list(TASKS)
    eye = torch.eye(3)
    expected = [eye[[0, 0, 0]], eye[[1, 1, 2]], eye[[2, 1, 0]], torch.tensor(FORMS["plural"])]
    assert torch.equal(model.task_routes, torch.stack(expected))
    assert torch.equal(weights(folder / "last")["task_routes"], model.task_routes)
    assert not [n for n in weights(folder / "best") if n.startswith(("router.", "task_vectors.", "route_v"))]
    losses = pd.read_csv(folder / "losses.csv")
    assert losses["train_loss"].iloc[1] < losses["train_loss"].iloc[0]
    assert f"routes: given ({asked['task_routes']}); 3 experts a layer" in (folder / "log.txt").read_text()
    cost = json.loads((folder / "cost.json").read_text())
    dense = world.run("outside/file_dense", **FIXED | dict(num_experts=1, init_eps=None, total_steps=1))
    one = json.loads((dense / "cost.json").read_text())["active_parameters"]
    assert cost["active_parameters"] == one  # plural, which has two experts in a layer, is not trained on
    assert_same_run(world.resumed("outside/file_resumed", **asked), folder)


def test_clusters_of_vectors_are_experts_and_unseen_tasks_get_the_nearest(world, vectors):
    folder = world.run("outside/clusters", **CLUSTERS, taskvecs=vectors(), total_steps=1)
    assert experts(folder) == {"colour": [0] * 3, "count": [1] * 3, "opposite": [0] * 3, "plural": [1] * 3}
    assert "2 clusters of 2, 1 tasks; mean silhouette " in (folder / "log.txt").read_text()
    names, kept_ND = load_task_vectors(folder / "best")
    assert names == list(TASKS)
    assert np.allclose(kept_ND, np.array(PAIRS) + 3)
    assert np.array_equal(weights(folder / "best")["route_vectors"].numpy(), kept_ND)
    table = pd.read_csv(folder / "clusters.csv")
    assert table[["clusters", "sizes"]].values.tolist() == [[2, "2 1"]]


BY_SIDE = {"encoder": [0, 1], "decoder": [1, 2]}


@pytest.mark.parametrize(("parts", "code"), [({"all": [0, 2]}, 0), (BY_SIDE, 2)])
def test_checkpoints_of_earlier_commits_name_the_parts_of_vectors(parts, code, world, vectors, capsys):
    folder = world.run(f"outside/parts_{code}", **CLUSTERS, taskvecs=vectors(), total_steps=1)
    path = folder / "best/config.json"
    values = json.loads(path.read_text())
    del values["has_route_vectors"]
    path.write_text(json.dumps(values | {"route_parts": parts}))
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=vectors(name="given")) == code
    error = capsys.readouterr().err
    assert ("its route_parts need the commit 19f1e55" in error) == (code == 2)


# ---- permuted routes


def test_random_groups_start_with_the_weights_of_their_file_and_are_recorded(world, routes_file):
    path = routes_file()
    asked = FIXED | NO_LEARNING
    own = world.run("outside/unpermuted", **asked, task_routes=path)
    default = world.run("outside/permuted", **asked, task_routes=f"random:{path}")
    named = world.run("outside/permuted_named", **asked, task_routes=f"random:{path}:42")
    other = world.run("outside/permuted_5", **asked, task_routes=f"random:{path}:5")
    of_runs = [weights(folder / "best") for folder in (own, default, named, other)]
    routes = [kept.pop("task_routes") for kept in of_runs]
    for kept in of_runs[1:]:
        assert_equal(kept, of_runs[0])
    assert torch.equal(routes[1], routes[2])
    for one, two in ((0, 1), (0, 3), (1, 3)):
        assert not torch.equal(routes[one], routes[two])
    for permuted_NLE in routes[1:]:  # of three train tasks, then plural
        rows = {tuple(row.flatten().tolist()) for row in permuted_NLE[:3]}
        assert rows == {tuple(row.flatten().tolist()) for row in routes[0][:3]}
        assert torch.equal(permuted_NLE[3], routes[0][3])
    assert model_of(default).config.given_routes == f"random:{path}:42"
    assert "routes permuted among 3 train tasks (seed 42): " in (default / "log.txt").read_text()


# ---- both stages


def test_a_merge_keeps_given_routes_and_stage_2_trains_along_them(world, vectors, capsys):
    stage1 = world.run("outside/stage1", **CLUSTERS, taskvecs=vectors(seen=SEEN), total_steps=1)
    flags = dict(routes_from=stage1, model=world.bart, output_dir=world / "outside/merged")
    assert merge(typed(flags)) == 0
    output = capsys.readouterr().out
    assert "fixed routes (clusters:2 of " in output
    changed = FIXED | dict(initialize_from_vanilla=None, model=None, init_eps=None, total_steps=2)
    stage2 = world.run("outside/stage2", **changed, checkpoint=world / "outside/merged/init")
    kept = [{n: t for n, t in weights(f).items() if "route" in n} for f in (stage1 / "best", stage2 / "last")]
    assert sorted(kept[0]) == ["route_vectors", "task_routes"]
    assert_equal(*kept)
    assert (stage1 / "best/task_vecs.npy").read_bytes() == (stage2 / "last/task_vecs.npy").read_bytes()
    fields = ("given_routes", "has_route_vectors", "trained_tasks", "vectors_seen")
    assert [getattr(model_of(stage1).config, f) for f in fields] == [
        getattr(model_of(stage2).config, f) for f in fields
    ]


# ---- prediction


def test_an_unseen_task_is_scored_along_its_nearest_cluster(world, vectors, capsys):
    taskvecs = vectors(seen=SEEN)
    folder = world.run(
        "outside/nearest", **CLUSTERS, taskvecs=taskvecs, do_predict=True, predict_split="test"
    )
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("cluster 1 (cosine 1.00)", SEEN)
    before = (folder / SCORES).read_bytes()
    assert run(world.gym, world.bart, folder, **ONLY, task_routes="clusters:2", taskvecs=taskvecs) == 0
    assert (folder / SCORES).read_bytes() == before
    new = vectors([[1, 0]], ["plural"], "new")
    capsys.readouterr()
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 2
    assert "/best has another vector of plural" in capsys.readouterr().err
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new, prefix="new-") == 0
    assert scores_of(folder, "new-").loc["plural"]["route"] == "cluster 0 (cosine 1.00)"


def test_a_task_that_training_did_not_know_gets_the_route_of_its_vector(world, vectors):
    known = vectors([[1, 0], [0, 1], [1, 0.1]], TRAIN_TASKS)
    folder = world.run("outside/later", **CLUSTERS, taskvecs=known, total_steps=1)
    assert "plural" not in model_of(folder).config.task_names
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("average: no vector", "nothing")
    log = (folder / "eval_log.txt").read_text()
    assert "note: no route and no vector of plural: all experts have equal weights" in log
    new = vectors([[0, 1]], ["plural"], "new")
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 0
    row = scores_of(folder).loc["plural"]
    assert (row["route"], row["vector_seen"]) == ("cluster 1 (cosine 1.00)", "unknown")
    # The scores are those of the cluster's route, given by hand.
    by_hand = world.copy(folder, "outside/later_by_hand")
    (new / "routes.json").write_text('{"plural": 1}')
    assert run(world.gym, world.bart, by_hand, **ONLY, task_routes=new / "routes.json") == 0
    columns = ["route", "vector_seen"]
    assert scores_of(by_hand).loc["plural", "route"] == "given route"
    pd.testing.assert_frame_equal(
        scores_of(by_hand).drop(columns=columns), scores_of(folder).drop(columns=columns)
    )
    for part in ("dev", "test"):
        name = f"best/predictions/plural_12_100_{part}.jsonl"
        assert (folder / name).read_bytes() == (by_hand / name).read_bytes()


def test_other_routes_need_a_prefix(finished, world, routes_file, capsys):
    path = routes_file({"plural": 1, "colour": 0})
    own = dict(task_routes=routes_file(FORMS, "own.json"), total_steps=1)
    starts = {
        "has another source of routes": finished,
        "has another route of plural": world.run("outside/own_route", **FIXED, **own),
    }
    for number, (problem, start) in enumerate(starts.items()):
        folder = world.copy(start, f"outside/prefix_{number}")
        assert run(world.gym, world.bart, folder, **ONLY, task_routes=path) == 2
        assert problem in capsys.readouterr().err
        assert run(world.gym, world.bart, folder, **ONLY, task_routes=path, prefix="other-") == 0
        assert scores_of(folder, "other-").loc["plural", "route"] == "given route"
        assert_equal(weights(folder / "best"), weights(start / "best"))
