"""Routes against features of tasks: correlations, Mantel's test, clusters; by hand, planted, and random."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from planted_routes import features_of_columns, one_hot, random_routes, routes_of
from sklearn.metrics import adjusted_mutual_info_score

from dataloader.errors import InputError
from dataloader.ontology import Ontology
from routing_moe.analysis import route_metrics
from routing_moe.analysis.correlation import correlate, top_experts
from routing_moe.analysis.features import features_of
from routing_moe.analysis.recovery import clusters, mantel_test, recovery_table
from routing_moe.report.files import features_markdown

TREE = {"words": {"meaning": ["hot", "big"], "form": ["cats"]}, "numbers": {"all": ["one"]}}
TASKS = ("hot", "big", "cats", "one", "unheard")


# ---- features: from the ontology, from a file, for the 160 tasks


def written(tmp_path, text):
    (tmp_path / "skills.csv").write_text(text)
    return tmp_path / "skills.csv"


def test_columns_become_numbers(tmp_path):
    path = written(tmp_path, "task,skill:spell,shape\nhot,1,round\nbig,0,7\none,1,round\n")
    features = features_of(TASKS, Ontology(TREE), file=path)
    known = {name: features.column(name).tolist() for name in features.names}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert known["category:words"] == [1, 1, 1, 0, nan]
    assert known["subcategory:words/form"] == [0, 0, 1, 0, nan]
    assert known["skill:spell"] == [1, 0, nan, 1, nan]
    assert known["shape:round"] == [1, 0, nan, 1, nan]  # a column with texts: one feature for each
    assert known["shape:7"] == [0, 1, nan, 0, nan]
    assert list(features.kinds) == ["category", "subcategory", "skill", "shape"]


def test_the_features_of_a_gym_take_precedence_over_the_shipped_ones(tmp_path):
    written(tmp_path, "task,skill:own\nboolq,1\nrace-high,0\n")
    ontology = Ontology.load()
    assert "skill:own" in features_of(["boolq", "race-high"], ontology, tmp_path).names
    assert "format:classification" in features_of(["boolq", "race-high"], ontology, tmp_path / "no").names
    assert not [n for n in features_of(TASKS, Ontology(TREE)).names if not n.startswith(("cat", "subcat"))]


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("task,skill:a\nhat,1\n", "none of the tasks, such as hot; did you mean 'hat'"),
        ("task,skill:a\nhot,2\n", "line 2, column skill:a: '2' is neither 0 nor 1"),
        ('task,kind\nhot,a\n\nwet,"a\ncold,b\n', "line 4: unexpected end of data; a quotation mark"),
        ("tusk,skill:a\nhot,1\n", "no column task; did you mean 'tusk'"),
        ("task,category\nhot,1\n", "column category: this name is used by the ontology"),
    ],
)
def test_an_error_in_a_file_names_its_line_or_column(tmp_path, text, output):
    with pytest.raises(InputError) as caught:
        features_of(TASKS, Ontology(TREE), file=written(tmp_path, text))
    assert output in str(caught.value)
    assert str(tmp_path / "skills.csv") in str(caught.value)


def test_all_crossfit_tasks_have_features():
    ontology = Ontology.load()
    features = features_of(ontology.tasks, ontology)
    assert np.isfinite(features.values_NF).all()
    own = [name for name in features.names if name.startswith(("format:", "input:", "domain:", "skill:"))]
    assert len(own) == 32
    for kind in ("format", "input"):
        assert (features.values_NF[:, features.kinds[kind]].sum(axis=1) == 1).all()
    for name in own:
        assert 1 <= features.column(name).sum() < 160, name
    for name, task in dict(
        classification="boolq", extractive="squad-with_context", closed_book="freebase_qa"
    ).items():
        assert features.column(f"format:{name}")[ontology.tasks.index(task)] == 1


# ---- correlations


def test_r_and_p_computed_by_hand():
    weights_NLE = np.array([[[weight, 0.2]] for weight in (1.0, 0.5, 0.5, 0.5, 0.5, 0.0)])
    table = correlate(routes_of(weights_NLE), features_of_columns({"f:a": [1, 1, 1, 0, 0, 0]}), 10_000)
    # Deviations: weights (.5, 0, 0, 0, 0, -.5); the feature ±.5. The other expert is constant.
    assert table["r"].tolist() == pytest.approx([0.5 / np.sqrt(0.5 * 1.5)])
    # r is as large where the first task has the feature and the last one has not: 3/6 x 3/5 of all orders.
    assert table["p_holm"].tolist() == pytest.approx([0.3])
    two = features_of_columns({"f:a": [1, 1, 1, 0, 0, 0], "f:none": [0, 1, 0, 1, 1, 0]})
    p_holm = correlate(routes_of(weights_NLE), two, 10_000).set_index("feature")["p_holm"]
    assert p_holm["f:a"] == pytest.approx(0.6)  # the smaller p of two features


def planted(seed: int, noise: float = 0.3):
    """Routes whose layer 1 sends exactly the tasks with `skill:a` to expert 2; other features are random."""
    draw = np.random.default_rng(seed)
    routes = random_routes(seed)
    has_a = draw.permutation(np.arange(30) < 12)
    values_NLE = routes.values_NLE.copy()
    choice_NE = one_hot(np.where(has_a, 2, draw.integers(0, 2, 30)))
    values_NLE[:, 1] = (1 - noise) * choice_NE + noise * values_NLE[:, 1]
    others = {f"other:{n}": draw.permutation(np.arange(30) < 10) for n in range(8)}
    return routes_of(values_NLE), features_of_columns({"skill:a": has_a, **others})


@pytest.mark.parametrize("seed", range(2))
def test_a_planted_feature_is_found_at_its_expert(seed):
    routes, features = planted(seed)
    table = correlate(routes, features)
    best = table.iloc[0]
    assert (best.layer, best.expert, best.feature) == ("enc 1", 2, "skill:a")
    assert best.p_holm == pytest.approx(9 / 10_001)
    assert best.r > 0.8
    top = top_experts(table, 1).set_index("feature")
    assert (top.loc["skill:a", "layer"], top.loc["skill:a", "expert"]) == ("enc 1", 2)
    assert (top["p_holm"].drop("skill:a") > 0.05).all()
    assert top_experts(correlate(routes, features, 0), 1)["p_holm"].isna().all()


def test_tasks_with_unknown_values_are_left_out():
    routes = random_routes(3, tasks=12)
    column = np.array([1, 0] * 6, dtype=float)
    lacking = column.copy()
    lacking[:4] = np.nan
    table = correlate(routes, features_of_columns({"f:all": column, "f:some": lacking}), 0)
    some = table[table["feature"] == "f:some"].drop(columns="feature").reset_index(drop=True)
    assert (some["tasks"] == 8).all()
    assert (some["with_feature"] == 4).all()
    alone = features_of_columns({"f:some": column[4:]}, routes.tasks[4:])
    alone = correlate(routes.of(routes.tasks[4:]), alone, 0).drop(columns="feature")
    pd.testing.assert_frame_equal(some, alone)


def test_rare_features_and_constant_experts_are_left_out():
    routes = random_routes(4, tasks=10, layers=2)
    routes.values_NLE[:, 1] = [0.5, 0.3, 0.2]
    few, some = np.arange(10) < 2, np.arange(10) < 5
    table = correlate(routes, features_of_columns({"f:few": few, "f:all": few >= 0, "f:some": some}), 99)
    assert set(table["layer"]) == {"enc 0"}
    assert set(table["feature"]) == {"f:some"}
    row = features_markdown(SimpleNamespace(routes=routes), top_experts(table, 1)).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:3]] == ["f:some", "5"]


def test_without_testable_features_or_with_equal_routes_the_table_is_empty():
    routes, few = random_routes(5, tasks=5), features_of_columns({"f:few": [1, 0, 0, 0, 0]})
    average, half = routes_of(np.full((8, 2, 3), 1 / 3)), features_of_columns({"f:a": np.arange(8) < 4})
    for table in (correlate(routes, few), correlate(average, half)):
        assert table.empty
        assert top_experts(table, 3).empty


# ---- Mantel's test, clusters of routes against labels


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
