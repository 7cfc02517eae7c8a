"""Agreement of nearest neighbours with labels: hand-computed numbers, and undefined cases."""

import numpy as np
import pytest

from task.task_emb.agreement import (
    agreement,
    all_equidistant,
    cosine_distances,
    majority,
    mean_centred,
    nearest,
    neighbour_test,
    silhouette,
)


def on_a_line(*positions):
    """Distances of tasks whose vectors are single numbers."""
    return np.abs(np.subtract.outer(positions, positions)).astype(float)


def planted(n_labels, n_each, noise, seed=0, width=16):
    """Vectors and labels: one direction per label, plus noise."""
    draw = np.random.default_rng(seed)
    labels = [f"label {i}" for i in range(n_labels) for _ in range(n_each)]
    directions = np.repeat(draw.normal(size=(n_labels, width)), n_each, axis=0)
    return directions + noise * draw.normal(size=directions.shape), labels


def accuracy(labels, distance_NN, k=1):
    return neighbour_test(labels, nearest(distance_NN, k), 1)[0]


# ---------------------------------------------------------------------------- distances


def test_cosine_distances_computed_by_hand():
    distance_NN = cosine_distances([[2.0, 0.0], [0.0, 0.5], [-3.0, 0.0], [1.0, 1.0]])
    half = 1 - 0.5**0.5
    assert distance_NN == pytest.approx(
        np.array([[0, 1, 2, half], [1, 0, 1, half], [2, 1, 0, 1 + 0.5**0.5], [half, half, 1 + 0.5**0.5, 0]])
    )


def test_the_cosine_of_a_zero_vector_is_zero():
    vectors_ND = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    assert cosine_distances(vectors_ND).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_centring_subtracts_the_mean():
    vectors_ND, _ = planted(3, 4, 0.5)
    shifted_ND = vectors_ND + 100.0
    assert cosine_distances(mean_centred(shifted_ND)) == pytest.approx(
        cosine_distances(mean_centred(vectors_ND))
    )
    assert cosine_distances(shifted_ND).max() < 0.01
    assert mean_centred([[1.0, 5.0], [3.0, 1.0]]).tolist() == [[-1, 2], [1, -2]]


def test_a_vector_that_equals_the_mean_becomes_zero():
    vectors_ND = np.array([[0.1, 0.7], [0.3, 0.2], [0.2, 0.45]], dtype=np.float32)
    exact_ND = vectors_ND.astype(np.float64)
    assert (exact_ND - exact_ND.mean(axis=0))[2].any()  # float32 cannot represent these numbers exactly
    assert mean_centred(vectors_ND)[2].tolist() == [0, 0]


# ---------------------------------------------------------------------------- neighbours


def test_neighbours_are_ordered_by_distance_and_exclude_the_task_itself():
    assert nearest(on_a_line(0, 1, 3, 7), 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_ties_go_to_the_first_task_despite_rounding_errors():
    assert nearest(on_a_line(0, -1, 1), 1)[0, 0] == 1
    # 0.1 + 0.2 is slightly more than 0.3
    assert nearest(on_a_line(0, 0.1 + 0.2, -0.3), 1)[0, 0] == 1


def test_the_most_frequent_label_wins_and_ties_go_to_the_nearest():
    votes = [[1, 0, 0], [2, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert majority(np.array(votes)).tolist() == [0, 2, 1, 1]
    assert majority(np.array([[3, 1, 1, 3], [0, 1, 1, 2]])).tolist() == [3, 1]


def test_accuracy_computed_by_hand():
    distance_NN, labels = on_a_line(0, 1, 2.5, 6, 7.1, 9), list("aabbbc")
    # The nearest of 0 is 1, of 1 is 0, of 2.5 is 1 (wrong), of 6 is 7.1, of 7.1 is 6; c is not scored.
    assert accuracy(labels, distance_NN, 1) == 4 / 5
    # The nearest 3: of 0 and 1 a b b (wrong), of 2.5 a a b (wrong), of 6 and 7.1 b c b (correct).
    assert nearest(distance_NN, 3)[3].tolist() == [4, 5, 2]
    assert accuracy(labels, distance_NN, 3) == 2 / 5


# ---------------------------------------------------------------------------- permuted labels


def test_chance_and_p_of_two_pairs_are_a_third():
    # both pairs have equal labels in 8 of 24 orders of aabb; in the others no task is correct
    _, chance, p = neighbour_test(list("aabb"), nearest(on_a_line(0, 1, 10, 11), 1), 10_000)
    assert chance == pytest.approx(1 / 3, abs=0.02)
    assert p == pytest.approx(1 / 3, abs=0.02)


def test_chance_of_one_neighbour_is_the_share_of_pairs_with_the_same_label():
    # 2 * 1 + 3 * 2 ordered pairs with equal labels, each with probability 1 / 5, over 5 scored tasks
    _, chance, _ = neighbour_test(list("aabbbc"), nearest(on_a_line(0, 1, 2.5, 6, 7.1, 9), 1), 10_000)
    assert chance == pytest.approx(8 / 5 / 5, abs=0.01)


def test_planted_clusters_have_the_smallest_possible_p_for_any_number_of_neighbours():
    vectors_ND, labels = planted(5, 6, 0.2)
    for k in (1, 3, 5):
        found = agreement(cosine_distances(mean_centred(vectors_ND)), labels, k, permutations=199)
        assert found.accuracy == 1.0
        assert found.p == 1 / 200
        assert found.silhouette > 0.7


# ---------------------------------------------------------------------------- silhouette


def test_silhouette_computed_by_hand_ignores_unique_labels():
    # (5 - 1) / 5, (4 - 1) / 4, (3.5 - 2) / 3.5, (5.5 - 2) / 5.5
    expected = np.mean([4 / 5, 3 / 4, 3 / 7, 7 / 11])
    assert silhouette(on_a_line(0, 1, 4, 6), list("aabb")) == pytest.approx(expected)
    assert silhouette(on_a_line(0, 1, 100, 4, 6), list("aacbb")) == pytest.approx(expected)


# ---------------------------------------------------------------------------- all results


def test_tasks_without_a_label_are_not_neighbours():
    found = agreement(on_a_line(0, 1, 1.5, 4, 6), ["a", "a", None, "b", "b"], 1, 10)
    assert (found.tasks, found.labels, found.scored) == (4, 2, 4)
    assert found.accuracy == 1.0
    assert found.silhouette == silhouette(on_a_line(0, 1, 4, 6), list("aabb"))


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ([None] * 4, (0, 0, 0)),
        (list("aaaa"), (4, 1, 4)),
        (list("abcd"), (4, 4, 0)),
        (["a", "a", "b", None], (3, 2, 2)),  # 3 neighbours of 3 tasks
    ],
)
def test_undefined_results_are_nan(labels, counts):
    found = agreement(on_a_line(0, 1, 3, 7), labels, 3, 10)
    assert (found.tasks, found.labels, found.scored) == counts
    assert np.isnan([found.accuracy, found.silhouette, found.chance, found.p]).all()


@pytest.mark.parametrize("vectors_ND", [np.zeros((4, 3)), np.ones((4, 3)), np.eye(4)])
def test_results_are_nan_if_all_distances_are_equal(vectors_ND):
    distance_NN = cosine_distances(mean_centred(vectors_ND))
    assert all_equidistant(distance_NN)
    assert np.isnan(agreement(distance_NN, list("aabb"), 1, 10).accuracy)


def test_the_order_of_the_tasks_does_not_matter():
    vectors_ND, labels = planted(4, 6, noise=1.5)
    order = np.random.default_rng(2).permutation(len(labels))
    one = agreement(cosine_distances(mean_centred(vectors_ND)), labels, 3, 5000)
    other = agreement(cosine_distances(mean_centred(vectors_ND[order])), [labels[i] for i in order], 3, 5000)
    assert 0.3 < one.accuracy < 1.0
    assert other.accuracy == one.accuracy
    assert other.silhouette == pytest.approx(one.silhouette)
    assert other.chance == pytest.approx(one.chance, abs=0.01)
    assert other.p == pytest.approx(one.p, abs=0.01)
