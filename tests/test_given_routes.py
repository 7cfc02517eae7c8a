"""Routes from outside: each form in a file, permuted ones, and clusters of task vectors."""

import json

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list

from dataloader.errors import InputError
from dataloader.ontology import Ontology
from routing_moe.analysis.route_metrics import cluster_tasks
from routing_moe.analysis.saved_routes import encoder_part, layer_place
from routing_moe.model.given_routes import GivenRoutes, layer_names, read_routes
from routing_moe.model.route_clusters import (
    average_linkage,
    best_clusters,
    centred_cosine,
    nearest_cluster,
)
from routing_moe.task_choice.given_routes import permuted


@pytest.fixture
def written(tmp_path):
    """written(content): a JSON file of routes with this content."""

    def write(content):
        path = tmp_path / "routes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def matrices(path, *size):
    return GivenRoutes("x", read_routes(path)).matrices(*size)


def test_each_form_of_a_route_is_its_matrix(written):
    soft = [[0.5, 0.5], [1, 0], [0.25, 0.75]]
    forms = {"d": 2, "a": {"encoder": 0, "decoder": 3}, "c": [1, 0, 2], "b": soft}
    given = GivenRoutes("x", read_routes(written(forms)))
    assert given.tasks == ["a", "b", "c", "d"]
    assert given.num_experts == 4
    routes_NLE = given.matrices(2, 1, 5)
    assert (routes_NLE.shape, routes_NLE.dtype) == ((4, 3, 5), np.float32)
    eye = np.eye(5)
    assert np.array_equal(routes_NLE[0], eye[[0, 0, 3]])
    assert np.array_equal(routes_NLE[1], np.pad(soft, ((0, 0), (0, 3))))
    assert np.array_equal(routes_NLE[2], eye[[1, 0, 2]])
    assert np.array_equal(routes_NLE[3], eye[[2, 2, 2]])


def test_the_routes_that_a_run_writes_are_read(tmp_path):
    routes_NLE = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 4)).astype(np.float32)
    np.save(tmp_path / "route.npy", routes_NLE)
    (tmp_path / "route_tasks.txt").write_text("sort\ncopy\n")
    assert matrices(tmp_path / "route.npy", 2, 2, 3) == pytest.approx(routes_NLE[::-1])  # copy, sort


def test_a_route_is_that_of_every_split_of_a_layer(written):
    soft = [[0.5, 0.5], [1, 0], [0.25, 0.75]] * 2
    forms = {"a": {"encoder": 0, "decoder": 3}, "b": [1, 0, 2], "c": soft}
    routes_NLE = GivenRoutes("x", read_routes(written(forms))).matrices(2, 1, 4, splits=2)
    assert routes_NLE[:2].argmax(-1).tolist() == [[0, 0, 0, 0, 3, 3], [1, 1, 0, 0, 2, 2]]
    assert np.array_equal(routes_NLE[2, :, :2], soft)  # a row for each split
    names = layer_names(2, range(6), 2)
    assert names == ("enc 0s0", "enc 0s1", "enc 1s0", "enc 1s1", "dec 0s0", "dec 0s1")
    assert sorted(names, key=layer_place) == list(names)
    assert encoder_part(names) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": "first"}, "routes.json: the route of a is 'first'; it must be an expert number, {\"enc"),
        ({"a": True}, "the route of a is 'True'; it must be"),
        ({"a": {"encoder": 1}}, "the route of a is \"{'encoder': 1}\"; it must be"),
        ({"a": [[0.5, 0.6]]}, "the route of a has weights of a layer's experts that do not sum to 1"),
        ({"a": [[1.5, -0.5]]}, "the route of a has rows of different lengths or with some"),
        ({"a": [[1, 0], [1]]}, "the route of a has rows of different lengths or with something"),
        ({}, "routes.json: has no route"),
        ([1], "routes.json holds a list, expected routes like {"),
        ("{", "routes.json is not valid JSON"),
    ],
)
def test_a_wrong_route_is_an_error_with_its_task(content, message, written):
    with pytest.raises(InputError) as error:
        read_routes(written(content))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((1, 2, 1)), r"shape \(1, 2, 1\); expected \(2 tasks"),
        (np.array([[[1.5, -0.5]]] * 2), "has a weight below 0"),
    ],
)
def test_a_wrong_array_of_routes_is_an_error(array, message, tmp_path):
    np.save(tmp_path / "route.npy", array)
    (tmp_path / "route_tasks.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=message):
        read_routes(tmp_path / "route.npy")
    (tmp_path / "route_tasks.txt").unlink()
    with pytest.raises(InputError, match=r"route_tasks.txt: cannot be read as a list of tasks"):
        read_routes(tmp_path / "route.npy")


def test_routes_of_another_model_are_errors(written):
    with pytest.raises(InputError, match=r"the route of a has 2 layers; the model has 2\+2"):
        matrices(written({"a": [0, 1]}), 2, 2, 2)
    with pytest.raises(InputError, match="the routes name 4 experts; there are 3"):
        matrices(written({"a": 3}), 2, 2, 3)


# ---- values of --task_routes


def test_permuted_routes_have_the_same_sizes_and_other_tasks():
    tasks = [f"t{number:02}" for number in range(20)]
    routes = {task: {"all": int(number >= 12)} for number, task in enumerate(tasks)}
    routes["t03"], routes["unseen"] = np.array([1, 0, 1]), {"all": 0}
    new, note = permuted(routes, tasks, seed=5)
    assert new["unseen"] == {"all": 0}
    assert sorted(map(str, new.values())) == sorted(map(str, routes.values()))
    kept = sum(str(new[task]) == str(routes[task]) for task in tasks)
    assert 0 < kept < 20
    assert note == f"routes permuted among 20 train tasks (seed 5): {kept} have the same as before"
    again, _ = permuted(routes, tasks[::-1], seed=5)
    assert list(map(str, again.values())) == list(map(str, new.values()))
    assert list(map(str, permuted(routes, tasks, 6)[0].values())) != list(map(str, new.values()))


# ---- clusters of task vectors: planted ones are found, new vectors get the nearest one


@pytest.fixture
def planted():
    """Vectors (20, 30) of five clusters of four tasks around random centres, far from 0; and the labels."""
    draw = np.random.default_rng(0)
    labels_N = np.tile(np.arange(5), 4)
    centres_KD = draw.normal(size=(5, 30))
    return 100 + centres_KD[labels_N] + 0.3 * draw.normal(size=(20, 30)), labels_N


def test_cosines_are_those_of_vectors_minus_their_mean():
    vectors_ND = np.array([[3.0, 1.0], [5.0, 1.0], [4.0, 2.0], [4.0, 0.0]])
    expected = [[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]]
    assert centred_cosine(vectors_ND) == pytest.approx(np.array(expected))
    with_the_mean = np.concatenate([vectors_ND, [[4.0, 1.0]]])
    assert centred_cosine(with_the_mean)[4].tolist() == [0] * 5  # a vector of length 0


def test_planted_clusters_are_found_and_numbered_by_their_first_task(planted):
    vectors_ND, labels_N = planted
    assert np.array_equal(best_clusters(centred_cosine(vectors_ND), [5]).labels_N, labels_N)
    reversed_N = best_clusters(centred_cosine(vectors_ND[::-1]), [5]).labels_N
    assert np.array_equal(reversed_N, 4 - labels_N[::-1])


@pytest.mark.parametrize("count", [2, 20])
def test_there_are_as_many_clusters_as_wanted_even_of_equal_vectors(count, planted):
    for vectors_ND in (planted[0], np.ones((20, 3))):
        labels_N = best_clusters(centred_cosine(vectors_ND), [count]).labels_N
        assert sorted(set(labels_N.tolist())) == list(range(count))


def test_the_silhouette_finds_the_number_of_clusters(planted):
    cosine_NN = centred_cosine(planted[0])
    labels_N, score = best_clusters(cosine_NN, range(2, 20))
    assert np.array_equal(labels_N, planted[1])
    assert 0.5 < score < 1
    assert best_clusters(cosine_NN, [2, 3]).labels_N.max() < 3
    # By hand: two pairs at distance 0 inside and 2 outside have a silhouette of 1.
    pairs = best_clusters(centred_cosine(np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])), [2, 3])
    assert (pairs.labels_N.tolist(), pairs.silhouette) == ([0, 0, 1, 1], 1.0)


def test_a_new_vector_gets_the_cluster_of_the_largest_cosine_with_its_centroid(planted):
    vectors_ND, labels_N = planted
    for n in (0, 7, 19):  # left out, then assigned
        others = np.arange(20) != n
        found = nearest_cluster(vectors_ND[n], vectors_ND[others], labels_N[others])
        assert found.label == labels_N[n]
        assert found.cosine > 0.7
    # By hand: the mean is (0, 0); the centroids of clusters 4 and 9 are along (1, 1) and (-1, -1).
    vectors_ND, labels_N = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -2]]), np.array([4, 4, 9, 9])
    label, cosine = nearest_cluster(np.array([5.0, 0]), vectors_ND, labels_N)
    assert (label, cosine) == (4, pytest.approx(np.sqrt(0.5)))
    assert nearest_cluster(np.array([-1.0, -1]), vectors_ND, labels_N) == (9, pytest.approx(1))


def test_impossible_numbers_of_clusters_are_errors(planted):
    cosine_NN = centred_cosine(planted[0])
    for counts in ([], [0], [1], [2, 21]):
        with pytest.raises(ValueError, match="clusters of 20 tasks"):
            best_clusters(cosine_NN, counts)


# ---- trees of tasks: average linkage by hand, optimal leaf order


ONTOLOGY = Ontology.load()
# Pairs (0, 2) at 0.1 and (1, 3) at 0.2; between the pairs 0.5, 0.6, 0.7, 0.8: on average 0.65.
DISTANCE_NN = np.array([[0, 0.5, 0.1, 0.6], [0.5, 0, 0.7, 0.2], [0.1, 0.7, 0, 0.8], [0.6, 0.2, 0.8, 0]])


def order_of(similarity_NN, tasks, ontology) -> list[int]:
    return leaves_list(cluster_tasks(similarity_NN, tasks, ontology)).tolist()


def test_average_linkage_equals_the_one_computed_by_hand():
    linkage = average_linkage(1 - DISTANCE_NN)
    assert linkage[:, 2:] == pytest.approx(np.array([[0.1, 2], [0.2, 2], [0.65, 4]]))


def test_the_order_puts_the_nearest_ends_of_two_clusters_side_by_side():
    tasks = ONTOLOGY.tasks[:4]
    assert order_of(1 - DISTANCE_NN, tasks, ONTOLOGY) in ([2, 0, 1, 3], [3, 1, 0, 2])


def test_the_order_of_the_given_tasks_does_not_matter_even_with_ties():
    tasks = [*ONTOLOGY.tasks[:11], "unknown"]
    groups = np.arange(12) % 3
    similarity_NN = np.where(groups[:, None] == groups, 1.0, 0.25)  # nearly everything ties
    expected = [tasks[row] for row in order_of(similarity_NN, tasks, ONTOLOGY)]
    draw = np.random.default_rng(0)
    for _ in range(5):
        rows = draw.permutation(12)
        shuffled = [tasks[row] for row in rows]
        given_NN = similarity_NN[np.ix_(rows, rows)]
        order = order_of(given_NN, shuffled, ONTOLOGY)
        assert [shuffled[row] for row in order] == expected
