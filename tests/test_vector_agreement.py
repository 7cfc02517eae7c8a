"""Whether neighbours share labels: hand-computed numbers, and what cannot be said."""

import numpy as np
import pytest

from task.task_emb import agreement as module
from task.task_emb.agreement import (
    agreement,
    all_alike,
    centred,
    cosine_distances,
    euclidean_distances,
    majority,
    nearest,
    neighbour_accuracy,
    permutation_test,
    silhouette,
    similarity,
)


def on_a_line(*places):
    """Distances of tasks whose vectors are single numbers."""
    return euclidean_distances(np.array(places)[:, None])


def planted(n_labels, n_each, noise, seed=0, width=16):
    """Vectors and labels: a direction of its own for each label, and noise."""
    draw = np.random.default_rng(seed)
    labels = [f"label {i}" for i in range(n_labels) for _ in range(n_each)]
    directions = np.repeat(draw.normal(size=(n_labels, width)), n_each, axis=0)
    return directions + noise * draw.normal(size=directions.shape), labels


# ---------------------------------------------------------------------------- distances


def test_cosine_distances_by_hand():
    distance_NN = cosine_distances([[2.0, 0.0], [0.0, 0.5], [-3.0, 0.0], [1.0, 1.0]])
    half = 1 - 0.5**0.5
    assert distance_NN == pytest.approx(
        np.array([[0, 1, 2, half], [1, 0, 1, half], [2, 1, 0, 1 + 0.5**0.5], [half, half, 1 + 0.5**0.5, 0]])
    )
    assert similarity(distance_NN, "cosine")[0] == pytest.approx([1, 0, -1, 0.5**0.5])


def test_the_cosine_of_a_zero_vector_is_zero():
    vectors_ND = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    assert cosine_distances(vectors_ND).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_euclidean_similarity_is_minus_the_distance():
    distance_NN = euclidean_distances([[0.0, 0.0], [3.0, 4.0]])
    assert similarity(distance_NN, "euclidean").tolist() == [[0, -5], [-5, 0]]


def test_centring_takes_off_what_all_vectors_share():
    vectors_ND, _ = planted(3, 4, 0.5)
    shifted_ND = vectors_ND + 100.0
    assert cosine_distances(centred(shifted_ND)) == pytest.approx(cosine_distances(centred(vectors_ND)))
    assert cosine_distances(shifted_ND).max() < 0.01
    assert centred([[1.0, 5.0], [3.0, 1.0]]).tolist() == [[-1, 2], [1, -2]]


def test_a_vector_that_is_the_mean_has_no_direction():
    vectors_ND = np.array([[0.1, 0.7], [0.3, 0.2], [0.2, 0.45]], dtype=np.float32)
    exact_ND = vectors_ND.astype(np.float64)
    assert (exact_ND - exact_ND.mean(axis=0))[2].any()  # float32 does not hold these numbers exactly
    assert centred(vectors_ND)[2].tolist() == [0, 0]


# ---------------------------------------------------------------------------- neighbours


def test_the_nearest_come_first_and_a_task_is_none_of_its_own():
    assert nearest(on_a_line(0, 1, 3, 7), 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_of_equally_near_tasks_the_first_is_taken_although_sums_are_rounded():
    assert nearest(on_a_line(0, -1, 1), 1)[0, 0] == 1
    # 0.1 + 0.2 is a little more than 0.3
    assert nearest(on_a_line(0, 0.1 + 0.2, -0.3), 1)[0, 0] == 1


@pytest.mark.parametrize("k", [0, 3])
def test_a_number_of_neighbours_that_there_is_not_is_refused(k):
    with pytest.raises(ValueError, match="1 to 2 neighbours"):
        nearest(on_a_line(0, 1, 2), k)


def test_the_majority_wins_and_of_equals_that_of_the_nearer():
    votes = [[1, 0, 0], [2, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert majority(np.array(votes)).tolist() == [0, 2, 1, 1]
    assert majority(np.array([[3, 1, 1, 3], [0, 1, 1, 2]])).tolist() == [3, 1]


def test_accuracy_by_hand():
    distance_NN, labels = on_a_line(0, 1, 2.5, 6, 7.1, 9), list("aabbbc")
    # 0 and 1 have each other, 2.5 has 1 (wrong), 6 and 7.1 each other; c, which is alone, does not count
    assert neighbour_accuracy(labels, nearest(distance_NN, 1)) == 4 / 5
    # of three: 0: a b b wrong; 1: a b b wrong; 2.5: a a b wrong; 6: b c b; 7.1: b c b; each of the last right
    assert nearest(distance_NN, 3)[3].tolist() == [4, 5, 2]
    assert neighbour_accuracy(labels, nearest(distance_NN, 3)) == 2 / 5


def test_a_single_label_s_task_is_a_neighbour_all_the_same():
    # c stands between the two a: their nearest
    assert neighbour_accuracy(list("aca"), nearest(on_a_line(0, 1, 2.1), 1)) == 0.0
    assert neighbour_accuracy(list("aac"), nearest(on_a_line(0, 1, 2.1), 1)) == 1.0
    assert np.isnan(neighbour_accuracy(list("abc"), nearest(on_a_line(0, 1, 2.1), 1)))


# ---------------------------------------------------------------------------- shuffled labels


def test_chance_and_p_of_two_pairs_are_a_third():
    # both pairs alike: 8 of 24 orders of aabb; otherwise no task is right
    chance, p = permutation_test(list("aabb"), nearest(on_a_line(0, 1, 10, 11), 1), 10_000)
    assert chance == pytest.approx(1 / 3, abs=0.02)
    assert p == pytest.approx(1 / 3, abs=0.02)


def test_chance_of_one_neighbour_is_the_share_of_pairs_with_the_same_label():
    # 2 * 1 + 3 * 2 ordered pairs alike, of 5 others each, over the 5 tasks that count
    chance, _ = permutation_test(list("aabbbc"), nearest(on_a_line(0, 1, 2.5, 6, 7.1, 9), 1), 10_000)
    assert chance == pytest.approx(8 / 5 / 5, abs=0.01)


def test_a_planted_structure_has_the_least_p_there_is_at_any_number_of_neighbours():
    vectors_ND, labels = planted(5, 6, 0.2)
    for k in (1, 3, 5):
        found = agreement(cosine_distances(centred(vectors_ND)), labels, k, permutations=199)
        assert found.accuracy == 1.0
        assert found.p == 1 / 200
        assert found.silhouette > 0.7


def test_p_of_labels_that_say_nothing_is_spread_evenly():
    vectors_ND, labels = planted(4, 8, noise=50.0, width=64)
    distance_NN = cosine_distances(vectors_ND)
    draw = np.random.default_rng(1)
    p = np.array([agreement(distance_NN, draw.permutation(labels), 3, 99, seed).p for seed in range(300)])
    for level in (0.1, 0.25, 0.5, 0.75):
        assert (p <= level).mean() == pytest.approx(level, abs=0.1)
    assert (p <= 0.05).mean() < 0.08


def test_shufflings_hang_on_the_seed_alone_not_on_how_many_are_made_at_once(monkeypatch):
    vectors_ND, labels = planted(4, 5, 3.0)
    nearest_NK = nearest(cosine_distances(vectors_ND), 3)
    at_once = permutation_test(labels, nearest_NK, 50, seed=3)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert permutation_test(labels, nearest_NK, 50, seed=3) == at_once
    assert permutation_test(labels, nearest_NK, 50, seed=4) != at_once


@pytest.mark.parametrize(("labels", "permutations"), [("abc", 10), ("aab", 0)])
def test_there_is_no_test_without_two_of_a_label_or_without_shufflings(labels, permutations):
    with pytest.raises(ValueError, match="permutations"):
        permutation_test(list(labels), nearest(on_a_line(0, 1, 3), 1), permutations)


# ---------------------------------------------------------------------------- silhouette


def test_silhouette_by_hand_without_the_label_that_occurs_once():
    # (5 - 1) / 5, (4 - 1) / 4, (3.5 - 2) / 3.5, (5.5 - 2) / 5.5
    expected = np.mean([4 / 5, 3 / 4, 3 / 7, 7 / 11])
    assert silhouette(on_a_line(0, 1, 4, 6), list("aabb")) == pytest.approx(expected)
    assert silhouette(on_a_line(0, 1, 100, 4, 6), list("aacbb")) == pytest.approx(expected)


@pytest.mark.parametrize("labels", ["aaaa", "abcd", "aabc"])
def test_there_is_no_silhouette_without_two_labels_that_occur_twice(labels):
    assert np.isnan(silhouette(on_a_line(0, 1, 4, 6), list(labels)))


# ---------------------------------------------------------------------------- all of it


def test_tasks_without_a_label_are_left_out_as_neighbours_too():
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
def test_what_cannot_be_said_is_not_a_number(labels, counts):
    found = agreement(on_a_line(0, 1, 3, 7), labels, 3, 10)
    assert (found.tasks, found.labels, found.scored) == counts
    assert np.isnan([found.accuracy, found.silhouette, found.chance, found.p]).all()


@pytest.mark.parametrize("vectors_ND", [np.zeros((4, 3)), np.ones((4, 3)), np.eye(4)])
def test_tasks_that_are_all_equally_far_apart_have_no_nearest(vectors_ND):
    for distance_NN in (cosine_distances(centred(vectors_ND)), euclidean_distances(vectors_ND)):
        assert all_alike(distance_NN)
        assert np.isnan(agreement(distance_NN, list("aabb"), 1, 10).accuracy)


def test_two_identical_vectors_are_each_other_s_nearest():
    vectors_ND = np.array([[1.0, 2.0, 0.3], [0.1, 0.7, 5.0], [1.0, 2.0, 0.3], [4.0, 0.2, 0.1]])
    for distance_NN in (cosine_distances(centred(vectors_ND)), euclidean_distances(vectors_ND)):
        assert nearest(distance_NN, 1)[[0, 2], 0].tolist() == [2, 0]
        assert agreement(distance_NN, list("abac"), 1, 10).accuracy == 1.0


def test_the_order_of_the_tasks_does_not_matter():
    vectors_ND, labels = planted(4, 6, noise=1.5)
    order = np.random.default_rng(2).permutation(len(labels))
    one = agreement(cosine_distances(centred(vectors_ND)), labels, 3, 5000)
    other = agreement(cosine_distances(centred(vectors_ND[order])), [labels[i] for i in order], 3, 5000)
    assert 0.3 < one.accuracy < 1.0
    assert other.accuracy == one.accuracy
    assert other.silhouette == pytest.approx(one.silhouette)
    assert other.chance == pytest.approx(one.chance, abs=0.01)
    assert other.p == pytest.approx(one.p, abs=0.01)


def test_ten_thousand_shufflings_of_160_tasks_take_little_memory_at_a_time():
    vectors_ND, labels = planted(40, 4, noise=2.0)
    pieces = list(module.shufflings(module._codes(labels), 10_000, 2777, seed=0))
    assert [len(piece) for piece in pieces] == [2777, 2777, 2777, 1669]
    assert (np.sort(pieces[-1], axis=1) == np.repeat(np.arange(40), 4)).all()
    assert agreement(cosine_distances(vectors_ND), labels).p < 0.01
