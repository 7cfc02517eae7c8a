"""Clusters of task vectors as pure functions: planted clusters are found, new vectors get the nearest one."""

import numpy as np
import pytest

from routing_moe.model.route_clusters import (
    best_clusters,
    centred_cosine,
    groups_of_equal_rows,
    nearest_cluster,
    possible_counts,
)


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


@pytest.mark.parametrize("count", [2, 7, 20])
def test_there_are_as_many_clusters_as_wanted_even_of_equal_vectors(count, planted):
    for vectors_ND in (planted[0], np.ones((20, 3))):
        labels_N = best_clusters(centred_cosine(vectors_ND), [count]).labels_N
        assert sorted(set(labels_N.tolist())) == list(range(count))


def test_the_silhouette_finds_the_number_of_clusters(planted):
    cosine_NN = centred_cosine(planted[0])
    labels_N, score = best_clusters(cosine_NN, possible_counts(20))
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


def test_a_new_vector_is_centred_by_the_mean_of_the_clustered_tasks(planted):
    vectors_ND, labels_N = planted
    moved = nearest_cluster(vectors_ND[3] - 50, vectors_ND - 50, labels_N)
    assert moved == pytest.approx(nearest_cluster(vectors_ND[3], vectors_ND, labels_N))


def test_equal_rows_are_a_group():
    rows_NX = np.array([[0.5, 0.5], [1, 0], [0.5, 0.5], [0, 1]])
    assert groups_of_equal_rows(rows_NX).tolist() == [0, 1, 0, 2]


def test_impossible_numbers_of_clusters_are_errors(planted):
    cosine_NN = centred_cosine(planted[0])
    for counts in ([], [0], [1], [2, 21]):
        with pytest.raises(ValueError, match="clusters of 20 tasks"):
            best_clusters(cosine_NN, counts)
