"""Errors of `--task_routes` in training and prediction; nothing is written then."""

import json
import shutil

import numpy as np
import pytest
from mistakes import Place, assert_fault, complaint
from test_task_routes import FIXED, FORMS, ONLY, SIDES
from tiny_runs import TRAIN_TASKS, run

from routing_moe.model.task_vectors import save_task_vectors

pytestmark = pytest.mark.usefixtures("quick_pictures")

ALL = dict.fromkeys(FORMS, 0)


def routes(content):
    return lambda place: place.write(place.folder / "routes.json", content)


def vectors(names=tuple(FORMS), D=4, **meta):
    def write(place):
        (place.folder / "vectors").mkdir()
        save_task_vectors(place.folder / "vectors", list(names), np.eye(len(names), D))
        place.write(place.folder / "vectors/meta.json", meta)

    return write


def without_categories(place):
    place.write(place.gym / "ontology.json", {"words": {"meaning": ["colour"]}})


FILE = FIXED | dict(task_routes="<here>/routes.json")
CLUSTERS = FIXED | dict(task_routes="clusters:2", taskvecs="<here>/vectors")
TRAINING = {
    "a misspelt source": (
        None,
        FIXED | dict(task_routes="ontolgy"),
        "--task_routes is 'ontolgy'; give a file (.json or .npy), ontology, ontology:fine, clusters:K or",
        "did you mean 'ontology'?",
    ),
    "a missing file": (None, FILE, "--task_routes <here>/routes.json: no such file"),
    "a broken route": (
        routes(ALL | {"colour": -1}),
        FILE,
        "--task_routes <here>/routes.json: the route of col",
    ),
    "a train task without a route": (
        routes({"color": 0, "count": 1, "opposite": 0}),
        FILE,
        "--task_routes <here>/routes.json has no route for the train tasks colour; did you mean 'color'?",
    ),
    "routes of a deeper model": (
        routes(ALL | {"count": [0, 1, 0, 1]}),
        FILE,
        "--task_routes <here>/routes.json: the route of count has 4 layers; the model has 2+1",
    ),
    "fewer experts than the routes name": (
        routes(ALL | {"count": 3}),
        FILE | dict(num_experts=2),
        "--task_routes <here>/routes.json routes 4 experts, but --num_experts 2 has only 2",
    ),
    "one expert": (
        routes(ALL),
        FILE | dict(init_eps=None),
        "--task_routes has no effect with one expert: there is nothing to select or mix",
    ),
    "two sources of routes": (
        routes(FORMS),
        FILE | dict(avg_routing=True),
        "--avg_routing and --task_routes each set the source of routes; give one of them",
    ),
    "a router for fixed routes": (
        routes(FORMS),
        FILE | dict(router_lr=0.1),
        "--router_lr has no effect with fixed routes: they use no router",
    ),
    "a use of routes that are not given": (
        None,
        dict(task_routes_as="start"),
        "--task_routes_as has no effect without --task_routes",
    ),
    "a misspelt use": (None, FILE | dict(task_routes_as="strat"), "--task_routes_as is 'strat'; choose from"),
    "clusters of nothing": (
        None,
        FIXED | dict(task_routes="clusters:2"),
        "--task_routes is clusters:2, clusters of the vectors of --taskvecs; give them",
    ),
    "clusters of a missing folder": (None, CLUSTERS, "--taskvecs <here>/vectors is not a task-vector folder"),
    "more clusters than tasks": (
        vectors(),
        CLUSTERS | dict(task_routes="clusters:4"),
        "--task_routes is clusters:4; K must be auto, or from 2 to the 3 train tasks",
    ),
    "a number of clusters in words": (
        vectors(),
        CLUSTERS | dict(task_routes="clusters:many"),
        "--task_routes is clusters:many; K must be auto, or from 2",
    ),
    "more clusters than routes": (
        vectors(),
        CLUSTERS | dict(task_routes="clusters:3", num_experts=2, encoder_vanilla_layers="0,1"),
        "--task_routes clusters:3 of <here>/vectors: all layers: 3 clusters are too many for 2 experts",
        "per layer (--num_experts): there are only 2^1 = 2 routes",
    ),
    "a train task without a vector": (
        vectors(("colour", "count", "plural")),
        CLUSTERS,
        "--task_routes clusters:2 of <here>/vectors: no vector for the train tasks opposite",
    ),
    "a routed task without a vector": (
        lambda place: (routes(FORMS)(place), vectors(TRAIN_TASKS)(place)),
        FILE | dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors has no vector for plural",
    ),
    "parts that are damaged": (
        vectors(parts={"encoder": [2, 1]}),
        CLUSTERS,
        '--taskvecs <here>/vectors/meta.json: "parts" must',
    ),
    "parts beyond the vectors": (
        vectors(parts={"encoder": [0, 2], "decoder": [2, 9]}),
        CLUSTERS,
        "--taskvecs <here>/vectors/meta.json: part decoder ends after the 4 dimensions of the vectors",
    ),
    "parts of some layers": (
        vectors(parts={"encoder": [0, 2]}),
        CLUSTERS,
        "--task_routes clusters:2 of <here>/vectors: there is no part for decoder.0 among encoder",
    ),
    "parts of a deeper model": (
        vectors(parts={"encoder": [0, 1], "decoder": [1, 2], "decoder.5": [2, 4]}),
        CLUSTERS,
        "--task_routes clusters:2 of <here>/vectors: part decoder.5 is of no layer of a model of 2+1 layers",
    ),
    "tasks without a category": (
        without_categories,
        FIXED | dict(task_routes="ontology"),
        "--task_routes ontology: ",
        "has no category for count, opposite",
    ),
}


@pytest.mark.parametrize("name", TRAINING)
def test_wrong_routes_in_training_are_an_error(name, fresh, capsys):
    make, changed, *fragments = TRAINING[name]
    if make:
        make(fresh)
    assert_fault(complaint(fresh, capsys, **changed), *map(fresh.filled_in, fragments))


def test_fewer_than_three_tasks_have_no_number_of_clusters(fresh, capsys):
    fresh.split(train=["colour", "count"])
    vectors()(fresh)
    output = complaint(fresh, capsys, **CLUSTERS | dict(task_routes="clusters:auto"))
    assert_fault(output, "--task_routes is clusters:auto, which needs at least 3 train tasks; there are 2")


# ---- with a checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A place with runs of one step: "out" with clusters of vectors by side, "plain" without vectors."""
    from tiny_runs import write_bart, write_gym

    folder = tmp_path_factory.mktemp("trained")
    place = Place(folder, write_gym(folder / "gym"), write_bart(folder / "bart"))
    vectors(parts=SIDES)(place)
    routes(FORMS)(place)
    flags = {name: place.filled_in(value) for name, value in CLUSTERS.items()}
    assert run(place.gym, place.bart, place.out, **flags, total_steps=1) == 0
    file = FIXED | dict(task_routes=folder / "routes.json")
    assert run(place.gym, place.bart, folder / "plain", **file, total_steps=1) == 0
    shutil.rmtree(folder / "vectors")
    (folder / "routes.json").unlink()
    return place


FURTHER = FIXED | dict(
    checkpoint="<here>/out/best",
    output_dir="<here>/new",
    initialize_from_vanilla=None,
    init_eps=None,
    model=None,
)
CHECKPOINT = {
    "a source that needs training": (
        None,
        ONLY | dict(task_routes="ontology"),
        "--task_routes is ontology, which a model is trained with; without --do_train give a file",
    ),
    "other clusters": (
        vectors(parts=SIDES),
        ONLY | dict(task_routes="clusters:3", taskvecs="<here>/vectors"),
        "--task_routes is clusters:3, which a model is trained with; without --do_train give a file",
    ),
    "a file without the scored tasks": (
        routes({"plurals": 1}),
        ONLY | dict(task_routes="<here>/routes.json"),
        "--task_routes <here>/routes.json has no route for plural; did you mean 'plurals'?",
    ),
    "more experts than the checkpoint has": (
        routes({"plural": 7}),
        ONLY | dict(task_routes="<here>/routes.json"),
        "--task_routes <here>/routes.json routes 8 experts, but <here>/out/best has only 2",
    ),
    "routes of another depth": (
        routes({"plural": [0, 1]}),
        ONLY | dict(task_routes="<here>/routes.json"),
        "--task_routes <here>/routes.json: the route of plural has 2 layers; the model has 2+1",
    ),
    "vectors of another width": (
        vectors(D=3),
        ONLY | dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors has vectors of 3 dimensions, but those of <here>/out/best have 4",
    ),
    "vectors with other parts": (
        vectors(),
        ONLY | dict(taskvecs="<here>/vectors", prefix="x-"),
        "--taskvecs <here>/vectors has vectors with the parts all 0-4, but those of <here>/out/best have",
    ),
    "vectors of other tasks": (
        vectors(("colour", "plurals"), parts=SIDES),
        ONLY | dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors has no vector for plural",
    ),
    "vectors without those of the trained tasks": (
        vectors(),
        ONLY | dict(output_dir="<here>/plain", taskvecs="<here>/vectors"),
        "--taskvecs has no effect with given routes without vectors: train with --taskvecs to route other",
    ),
    "a start for a router that was trained": (
        routes(FORMS),
        FURTHER | dict(task_routes="<here>/routes.json", task_routes_as="start"),
        "--task_routes_as is start, which needs a new router: give --initialize_from_vanilla",
    ),
    "more experts in further training": (
        routes(ALL | {"plural": 4}),
        FURTHER | dict(task_routes="<here>/routes.json"),
        "--task_routes <here>/routes.json routes 5 experts, but <here>/out/best has only 2",
    ),
    "random routes for a run with given ones": (
        None,
        ONLY | dict(task_level_random_routing=True),
        "<here>/out/best was trained with given routes (clusters:2 of <here>/vectors); to score it",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINT)
def test_wrong_routes_for_a_checkpoint_are_an_error(name, trained, capsys):
    make, changed, *fragments = CHECKPOINT[name]
    try:
        if make:
            make(trained)
        assert_fault(complaint(trained, capsys, **changed), *map(trained.filled_in, fragments))
    finally:
        shutil.rmtree(trained.folder / "vectors", ignore_errors=True)
        (trained.folder / "routes.json").unlink(missing_ok=True)


def test_a_checkpoint_with_damaged_parts_is_an_error(trained, capsys, tmp_path):
    place = Place(tmp_path, trained.gym, trained.bart)
    shutil.copytree(trained.out, place.out)
    path = place.out / "best/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"route_parts": {"encoder": [0, 9]}}))
    output = complaint(place, capsys, **ONLY)
    assert_fault(output, f"{path}: not a valid configuration (route_parts has encoder at [0, 9]")
