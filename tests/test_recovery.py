"""Mantel's test, clusters of routes against labels: by hand, planted, random."""

import itertools

import numpy as np
import pytest
from planted_routes import features_of_columns, one_hot
from sklearn.metrics import adjusted_mutual_info_score

from routing_moe.analysis import route_metrics
from routing_moe.analysis.recovery import clusters, mantel_test, recovery_table


def test_route_metrics_computed_by_hand():
    values_NLE = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])
    assert route_metrics.overlap(values_NLE) == pytest.approx(np.array([[1.0, 0.5], [0.5, 1.0]]))
    assert route_metrics.entropy(values_NLE) == pytest.approx(np.array([[0.0], [1.0]]))
    assert route_metrics.load(values_NLE) == pytest.approx(np.array([[0.75, 0.25]]))
    load_entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert route_metrics.load_entropy(values_NLE) == pytest.approx([load_entropy])
    assert route_metrics.information(values_NLE) == pytest.approx([load_entropy - 0.5])
    assert route_metrics.shift(values_NLE[:1], values_NLE[1:]) == pytest.approx(np.array([[0.5]]))
    assert route_metrics.entropy(np.ones((2, 3, 1))).tolist() == [[0.0] * 3] * 2
    one_hot_NLE = one_hot([[0, 1, 2, 0], [0, 1, 1, 1]])  # the same expert in half of the layers
    assert route_metrics.overlap(one_hot_NLE)[0, 1] == 0.5


def test_mantel_by_hand_and_by_all_permutations():
    places, others = np.array([0.0, 1.0, 3.0, 7.0]), np.array([0.0, 2.0, 5.0, 4.0])
    one_NN, other_NN = (np.abs(x[:, None] - x[None]) for x in (places, others))
    upper = np.triu_indices(4, 1)
    r, p = mantel_test(one_NN, other_NN)
    assert r == pytest.approx(np.corrcoef(one_NN[upper], other_NN[upper])[0, 1])
    exact = [
        np.corrcoef(one_NN[np.ix_(order, order)][upper], other_NN[upper])[0, 1] >= r - 1e-9
        for order in map(list, itertools.permutations(range(4)))
    ]
    assert p == np.mean(exact)
    assert np.isnan(mantel_test(np.ones((4, 4)) - np.eye(4), other_NN, 10)).all()


def test_ties_give_more_clusters_and_equal_routes_are_never_divided():
    apart_NN = 1 - route_metrics.overlap(one_hot([[e] for e in (0, 0, 1, 1, 2, 2, 3, 3)], experts=4))
    pairs = [0, 0, 1, 1, 2, 2, 3, 3]
    for count in (2, 4, 6):  # of four routes that are all different
        assert adjusted_mutual_info_score(pairs, clusters(apart_NN, count)) == 1.0
    assert len(set(clusters(apart_NN, 1))) == 1
    assert len(set(clusters(np.zeros((5, 5)), 3))) == 1
    places = np.array([0.0, 1.0, 10.0, 12.0, 30.0])
    assert len(set(clusters(np.abs(places[:, None] - places) / 30, 3))) == 3


def kinds_apart(seed=0):
    """Twelve tasks of three kinds; each kind mostly uses its own expert in each layer."""
    draw = np.random.default_rng(seed)
    kind_N = np.repeat(range(3), 4)
    noise_NLE = draw.dirichlet(np.ones(3), (12, 4))
    own_NLE = one_hot(np.stack([(kind_N + layer) % 3 for layer in range(4)], axis=1))
    values_NLE = 0.8 * own_NLE + 0.2 * noise_NLE
    return 1 - route_metrics.overlap(values_NLE), {f"kind:{k}": kind_N == k for k in range(3)}


def test_planted_kinds_are_recovered_and_others_are_not():
    apart_NN, kinds = kinds_apart()
    draw = np.random.default_rng(5)
    other = np.arange(12) % 2  # half of each kind
    columns = {**kinds, "other:a": other == 0, "other:b": other == 1, "third:a": draw.permutation(12) < 5}
    table = recovery_table(apart_NN, features_of_columns(columns), permutations=999).set_index("kind")
    kind = table.loc["kind"]
    assert (kind.ami, kind.labels, kind.clusters, kind.tasks) == (pytest.approx(1.0), 3, 3, 12)
    assert kind.mantel_r > 0.9
    assert kind.mantel_p == 0.001
    assert kind.mantel_p_holm == pytest.approx(0.003)  # of three tests
    assert table.loc["other", "ami"] < 0.05
    assert table.loc[["other", "third"], "mantel_p"].gt(0.05).all()


def test_tasks_with_unknown_kinds_are_left_out_and_uninformative_kinds_are_nan():
    apart_NN, kinds = kinds_apart()
    lacking = {name: np.where(np.arange(12) == 0, np.nan, column) for name, column in kinds.items()}
    own = {f"own:{n}": np.arange(12) == n for n in range(12)}
    few = {"few:a": np.where(np.arange(12) < 9, np.nan, 1.0)}
    columns = {**lacking, **own, **few, "same:a": np.ones(12)}
    table = recovery_table(apart_NN, features_of_columns(columns), permutations=99).set_index("kind")
    assert table.loc["kind", "tasks"] == 11
    assert table.loc["own", ["ami", "mantel_r"]].isna().all()
    assert table.loc["same", ["ami", "mantel_r"]].isna().all()
    assert "few" not in table.index
