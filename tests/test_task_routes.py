"""Whole runs with routes from outside: training, resuming, both stages, prediction."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_unseen_tasks import SCORES
from tiny_runs import NO_LEARNING, TRAIN_TASKS, assert_equal, assert_same_run, run, typed, weights

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.saved_routes import load_routes
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
SIDES = {"encoder": [0, 2], "decoder": [2, 4]}
# Encoder part: colour and opposite are alike, as are count and plural; decoder part: colour and count.
BY_SIDE = [[1, 0, 0, 1], [0, 1, 0.1, 1], [1, 0.1, 1, 0], [0.1, 1, 1, 0.1]]
CLUSTERS = FIXED | dict(task_routes="clusters:2")


@pytest.fixture
def vectors(tmp_path):
    """vectors(vectors_ND, names, name, **meta): a folder of task vectors."""

    def write(vectors_ND=BY_SIDE, names=TASKS, name="vectors", **meta):
        folder = tmp_path / name
        folder.mkdir()
        save_task_vectors(folder, list(names), np.array(vectors_ND) + 3.0)
        if meta:
            (folder / "meta.json").write_text(json.dumps({"seen": "labelled rows of one sample"} | meta))
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
    # Of twelve layers of tasks one has two experts (plural's second), the others one.
    expected = one + (cost["total_parameters"] - one) / 2 / 12
    assert cost["active_parameters"] == pytest.approx(expected, rel=1e-3)
    assert_same_run(world.resumed("outside/file_resumed", **asked), folder)


def test_a_resumed_run_needs_the_file_no_more_but_the_same_flag(world, routes_file, capsys):
    path = routes_file()
    folder = world.run("outside/file_gone", **FIXED, task_routes=path, total_steps=2)
    path.unlink()
    assert run(world.gym, world.bart, folder, **FIXED, task_routes=path, total_steps=2, resume=True) == 0
    assert run(world.gym, world.bart, folder, **FIXED, task_routes="tasks", total_steps=2, resume=True) == 2
    assert f"--task_routes is tasks, but in the run to resume it was {path}" in capsys.readouterr().err


def test_the_routes_of_a_run_can_be_given_to_another(world, routes_file):
    first = world.run("outside/of_first", **FIXED, task_routes=routes_file(), total_steps=1)
    second = world.run("outside/of_second", **FIXED, task_routes=first / "1-steps/route.npy", total_steps=1)
    names = model_of(second).config.task_names
    assert names == TRAIN_TASKS  # a run writes the routes of its train tasks
    expected = weights(first / "best")["task_routes"][:3]
    assert torch.equal(weights(second / "best")["task_routes"], expected)
    assert np.array_equal(load_routes(second).of(names).values_NLE, expected.numpy())


def test_clusters_of_vectors_are_experts_and_unseen_tasks_get_the_nearest(world, vectors):
    alike = [[1, 0], [0, 1], [1, 0.1], [0.1, 1]]
    folder = world.run("outside/clusters", **CLUSTERS, taskvecs=vectors(alike), total_steps=1)
    assert experts(folder) == {"colour": [0] * 3, "count": [1] * 3, "opposite": [0] * 3, "plural": [1] * 3}
    assert "all layers: 2 clusters of 2, 1 tasks" in (folder / "log.txt").read_text()
    names, kept_ND = load_task_vectors(folder / "best")
    assert names == list(TASKS)
    assert np.allclose(kept_ND, np.array(alike) + 3)
    assert np.array_equal(weights(folder / "best")["route_vectors"].numpy(), kept_ND)
    assert model_of(folder).config.route_parts == {"all": [0, 2]}


def test_parts_of_vectors_are_clustered_by_themselves_and_compose(world, vectors):
    folder = world.run("outside/sides", **CLUSTERS, taskvecs=vectors(parts=SIDES), total_steps=1)
    assert experts(folder) == {
        "colour": [0, 0, 0],
        "count": [1, 1, 0],
        "opposite": [0, 0, 1],
        "plural": [1, 1, 1],
    }
    assert model_of(folder).config.num_experts == 2
    layers = {"encoder.0": [0, 1], "encoder.1": [1, 2], "decoder.0": [2, 4]}
    by_layer = [[0, 1, 0, 1], [0, 0, 0.1, 1], [1, 0, 1, 0], [0.9, 1, 1, 0.1]]
    folder = world.run(
        "outside/layers", **CLUSTERS, taskvecs=vectors(by_layer, name="l", parts=layers), total_steps=1
    )
    assert experts(folder) == {
        "colour": [0, 0, 0],
        "count": [0, 1, 0],
        "opposite": [1, 1, 1],
        "plural": [1, 0, 1],
    }


def test_the_number_of_clusters_is_found_and_logged(world, vectors, tmp_path):
    tasks = {f"copy{i}": i % 3 for i in range(9)}
    gym = tmp_path / "gym"
    for task in tasks:
        (gym / task).mkdir(parents=True)
        for part in ("train", "dev"):
            (gym / task / f"{task}_2_13_{part}.tsv").write_text("hot\tcold\nbig\tsmall\n")
    (gym / "metrics.json").write_text(json.dumps(dict.fromkeys(tasks, "EM")))
    (gym / "split.json").write_text(json.dumps({"train": list(tasks)}))
    draw = np.random.default_rng(0)
    vectors_ND = np.eye(3)[list(tasks.values())] + 0.05 * draw.normal(size=(9, 3))
    folder = world / "outside/auto"
    asked = FIXED | dict(task_routes="clusters:auto", taskvecs=vectors(vectors_ND, tasks), total_steps=1)
    assert run(gym, world.bart, folder, **asked) == 0
    assert experts(folder) == {task: [cluster] * 3 for task, cluster in tasks.items()}
    log = (folder / "log.txt").read_text()
    assert "all layers: 3 clusters of 3, 3, 3 tasks; mean silhouette 0." in log
    (row,) = pd.read_csv(folder / "clusters.csv").to_dict("records")
    assert (row["source"], row["part"]) == (f"clusters:auto of {asked['taskvecs']}", "all")
    assert (row["clusters"], row["sizes"]) == (3, "3 3 3")
    assert row["silhouette"] > 0.9


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


def test_clusters_are_permuted_and_scored_again(world, vectors):
    asked = FIXED | NO_LEARNING | dict(task_routes="random:clusters:2", taskvecs=vectors(np.eye(4)))
    folder = world.run("outside/permuted_clusters", **asked)
    assert sorted(experts(folder)[task][0] for task in TRAIN_TASKS) in ([0, 0, 1], [0, 1, 1])
    (row,) = pd.read_csv(folder / "clusters.csv").to_dict("records")
    assert row["source"] == f"random:clusters:2:42 of {asked['taskvecs']}"
    again = dict(task_routes=asked["task_routes"], taskvecs=asked["taskvecs"])
    assert run(world.gym, world.bart, folder, **ONLY, **again) == 0


# ---- both stages


def test_a_merge_keeps_given_routes_and_stage_2_trains_along_them(world, vectors, capsys):
    stage1 = world.run("outside/stage1", **CLUSTERS, taskvecs=vectors(parts=SIDES), total_steps=1)
    flags = dict(routes_from=stage1, model=world.bart, output_dir=world / "outside/merged")
    assert merge(typed(flags)) == 0
    output = capsys.readouterr().out
    assert "fixed routes of 4 tasks (clusters:2 of " in output
    assert "and 4 task vectors of width 4: from" in output
    changed = FIXED | dict(initialize_from_vanilla=None, model=None, init_eps=None, total_steps=2)
    stage2 = world.run("outside/stage2", **changed, checkpoint=world / "outside/merged/init")
    kept = [{n: t for n, t in weights(f).items() if "route" in n} for f in (stage1 / "best", stage2 / "last")]
    assert sorted(kept[0]) == ["route_vectors", "task_routes"]
    assert_equal(*kept)
    assert (stage1 / "best/task_vecs.npy").read_bytes() == (stage2 / "last/task_vecs.npy").read_bytes()
    fields = ("given_routes", "route_parts", "trained_tasks", "vectors_seen")
    assert [getattr(model_of(stage1).config, f) for f in fields] == [
        getattr(model_of(stage2).config, f) for f in fields
    ]


def test_routes_drawn_for_each_task_can_be_merged(world, capsys):
    stage1 = world.run(
        "outside/drawn", **FIXED | dict(num_experts=2), task_level_random_routing=True, total_steps=1
    )
    assert (
        merge(typed(dict(routes_from=stage1, model=world.bart, output_dir=world / "outside/merged_drawn")))
        == 0
    )
    assert "fixed routes of 4 tasks (drawn at random): from" in capsys.readouterr().out
    kept = (weights(f)["task_routes"] for f in (stage1 / "best", world / "outside/merged_drawn/init"))
    assert torch.equal(*kept)


def test_a_mixture_is_trained_further_along_given_routes(finished, world, routes_file):
    changed = FIXED | dict(initialize_from_vanilla=None, model=None, init_eps=None, total_steps=1)
    two = {**FORMS, "count": 1, "opposite": [1, 0, 0], "plural": 0}
    folder = world.run(
        "outside/further", **changed, checkpoint=finished / "best", task_routes=routes_file(two)
    )
    assert experts(folder)["opposite"] == [1, 0, 0]
    assert not [name for name in weights(folder / "best") if name.startswith("router.")]


# ---- prediction


def test_an_unseen_task_is_scored_along_its_nearest_cluster(world, vectors, capsys):
    taskvecs = vectors(parts=SIDES)
    folder = world.run(
        "outside/nearest", **CLUSTERS, taskvecs=taskvecs, do_predict=True, predict_split="test"
    )
    row = scores_of(folder).loc["plural"]
    assert row["route"].startswith("clusters encoder 1 (cosine 1.00), decoder 1 (cosine ")
    assert row["vector_seen"] == "labelled rows of one sample"
    before = (folder / SCORES).read_bytes()
    assert run(world.gym, world.bart, folder, **ONLY, task_routes="clusters:2", taskvecs=taskvecs) == 0
    assert (folder / SCORES).read_bytes() == before
    new = vectors([[1, 0, 0, 1]], ["plural"], "new", parts=SIDES)
    capsys.readouterr()
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 2
    assert "/best has other task vectors of plural" in capsys.readouterr().err
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new, prefix="new-") == 0
    row = scores_of(folder, "new-").loc["plural"]
    assert row["route"] == "clusters encoder 0 (cosine 1.00), decoder 0 (cosine 1.00)"


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


def test_vectors_beside_routes_of_a_file_route_other_tasks(world, vectors, routes_file):
    three = {task: FORMS[task] for task in TRAIN_TASKS}
    known = vectors([[1, 0], [0, 1], [-1, 0.1]], TRAIN_TASKS)
    folder = world.run(
        "outside/oracle", **FIXED, task_routes=routes_file(three), taskvecs=known, total_steps=1
    )
    new = vectors([[0, 1]], ["plural"], "new")
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new) == 0
    assert scores_of(folder).loc["plural", "route"] == "cluster 1 (cosine 1.00)"
    folder = world.run(
        "outside/oracle_all", **FIXED, task_routes=routes_file(), taskvecs=vectors(name="v"), total_steps=1
    )
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    assert scores_of(folder).loc["plural", "route"] == "given route"  # not that of a cluster


def test_other_routes_need_a_prefix(finished, world, routes_file, capsys):
    path = routes_file({"plural": 1, "colour": 0})
    own = dict(task_routes=routes_file(FORMS, "own.json"), total_steps=1)
    starts = {
        "was trained with learned routes; to score it with other routes give --prefix": finished,
        "has other routes of plural than the checkpoint; to score it with them give --prefix": world.run(
            "outside/own_route", **FIXED, **own
        ),
    }
    for number, (problem, start) in enumerate(starts.items()):
        folder = world.copy(start, f"outside/prefix_{number}")
        assert run(world.gym, world.bart, folder, **ONLY, task_routes=path) == 2
        assert problem in capsys.readouterr().err
        assert run(world.gym, world.bart, folder, **ONLY, task_routes=path, prefix="other-") == 0
        assert scores_of(folder, "other-").loc["plural", "route"] == "given route"
        assert_equal(weights(folder / "best"), weights(start / "best"))


def test_train_tasks_keep_their_routes_and_have_no_column(world, vectors):
    folder = world.run("outside/trained", **CLUSTERS, taskvecs=vectors(), do_predict=True, total_steps=1)
    assert "route" not in pd.read_csv(folder / "best/eval-test-performance.csv")
