"""Features of tasks as numbers, and correlations of routes with them: by hand, planted, and random."""

from types import SimpleNamespace

import numpy as np
import pytest
from planted_routes import features_of_columns, one_hot, random_routes, routes_of

from dataloader.errors import InputError
from dataloader.labels import read_labels
from dataloader.ontology import Ontology
from routing_moe.analysis.correlation import (
    correlate,
    correlation_test,
    features_markdown,
    top_experts,
    worth_testing,
)
from routing_moe.analysis.features import SHIPPED_FEATURES, features_of

TREE = {"words": {"meaning": ["hot", "big"], "form": ["cats"]}, "numbers": {"all": ["one"]}}
TASKS = ("hot", "big", "cats", "one", "unheard")


# ---- features: from the ontology, from a file, for the 160 tasks


def written(tmp_path, text):
    (tmp_path / "skills.csv").write_text(text)
    return tmp_path / "skills.csv"


def test_columns_become_numbers(tmp_path):
    path = written(tmp_path, "task,skill:spell,length,shape\nhot,1,3,round\nbig,0,,7\none,1,2.5,round\n")
    features = features_of(TASKS, Ontology(TREE), file=path)
    known = {name: features.column(name).tolist() for name in features.names}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert known["category:words"] == [1, 1, 1, 0, nan]
    assert known["subcategory:words/form"] == [0, 0, 1, 0, nan]
    assert known["skill:spell"] == [1, 0, nan, 1, nan]
    assert known["length"] == [3, nan, nan, 2.5, nan]
    assert known["shape:round"] == [1, 0, nan, 1, nan]  # a column with texts: one feature for each
    assert known["shape:7"] == [0, 1, nan, 0, nan]
    assert features.is_binary("skill:spell")
    assert not features.is_binary("length")
    assert list(features.kinds) == ["category", "subcategory", "skill", "length", "shape"]


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
        ("tusk,skill:a\nhot,1\n", "no column task; did you mean 'tusk'"),
        ("task,length\nhot,1\nbig,2\ncats,inf\n", "column length: 'inf' (task cats) among numbers"),
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
        assert features.is_binary(name)
        assert 1 <= features.column(name).sum() < 160, name
    labels = read_labels(SHIPPED_FEATURES)
    assert labels["format"]["boolq"] == "classification"
    assert labels["format"]["squad-with_context"] == "extractive"
    assert labels["format"]["freebase_qa"] == "closed_book"
    assert labels["skill"]["glue-wnli"] == "commonsense+coreference+inference"


# ---- correlations


def test_r_and_p_computed_by_hand():
    weights_NC = np.array([[1.0, 0.2], [0.5, 0.2], [0.5, 0.2], [0.0, 0.2]])
    # Deviations: weights (.5, 0, 0, -.5); the feature (.5, .5, -.5, -.5); lengths sqrt(.5) and 1.
    r_C, p_C = correlation_test(weights_NC, np.array([1.0, 1.0, 0.0, 0.0]), 20_000)
    assert r_C[0] == pytest.approx(0.5 / np.sqrt(0.5))
    # In 8 of the 12 permutations .5 and -.5 are in different groups, so that |r| is as large.
    assert p_C[0] == pytest.approx(8 / 12, abs=0.012)
    assert np.isnan([r_C[1], p_C[1]]).all()
    # Numbers: deviations (-1.75, -.75, .25, 2.25), length sqrt(8.75).
    r_C, _ = correlation_test(weights_NC, np.array([1.0, 2.0, 3.0, 5.0]), 0)
    assert r_C[0] == pytest.approx((-0.875 - 1.125) / np.sqrt(0.5 * 8.75))


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
    table = correlate(routes, features, permutations=20_000)
    best = table.iloc[0]
    assert (best.layer, best.expert, best.feature) == ("enc 1", 2, "skill:a")
    assert best.q_by < 0.05
    assert best.r > 0.8
    top = top_experts(table, 1).set_index("feature").loc["skill:a"]
    assert (top.layer, top.expert) == ("enc 1", 2)
    # The tasks with the feature use the other experts of the layer less.
    assert table[table["q_by"] < 0.05].query("feature == 'skill:a' and expert != 2")["r"].lt(0).all()


def test_random_features_are_rarely_significant():
    """In permuted features no correlation is true: at most 5% of tables may have a discovery.

    The bound is that of 50 draws with probability 0.05, passed with probability 0.001.
    """
    from scipy.stats import binom

    routes, features = planted(0)
    draw = np.random.default_rng(1)
    times = 0
    for seed in range(50):
        permuted = features.values_NF[draw.permutation(30)]
        mixed = features_of_columns(dict(zip(features.names, permuted.T, strict=True)))
        table = correlate(routes, mixed, permutations=1000, seed=seed)
        times += (table["q_by"] < 0.05).any()
    assert times <= binom.ppf(0.999, 50, 0.05)


def test_without_permutations_only_r_is_computed():
    routes, features = planted(1)
    table = correlate(routes, features, permutations=0)
    assert table[["p", "q_by"]].isna().all(axis=None)
    with_p = correlate(routes, features, permutations=20)
    key = ["layer", "expert", "feature"]
    assert table.merge(with_p, on=key).eval("r_x - r_y").abs().max() < 1e-12
    assert top_experts(table, 2).equals(top_experts(with_p, 2).assign(p=np.nan, q_by=np.nan))


def test_tasks_with_unknown_values_are_left_out():
    routes = random_routes(3, tasks=12)
    column = np.array([1, 0] * 6, dtype=float)
    lacking = column.copy()
    lacking[:4] = np.nan
    table = correlate(routes, features_of_columns({"f:all": column, "f:some": lacking}), permutations=99)
    some = table[table["feature"] == "f:some"]
    assert (some["tasks"] == 8).all()
    assert (some["with_feature"] == 4).all()
    alone = correlate(
        routes.of(routes.tasks[4:]), features_of_columns({"f:some": column[4:]}, routes.tasks[4:]), 99
    )
    for row in alone.itertuples():
        same = some[(some["layer"] == row.layer) & (some["expert"] == row.expert)].iloc[0]
        assert same.r == pytest.approx(row.r)
        assert same.p == row.p


def test_rare_features_and_constant_experts_are_left_out():
    routes = random_routes(4, tasks=10, layers=2)
    routes.values_NLE[:, 1] = [0.5, 0.3, 0.2]
    few, numbers, same = np.arange(10) < 2, np.arange(10.0), np.full(10, 3.0)
    features = features_of_columns({"f:few": few, "length": numbers, "same": same, "f:some": numbers < 5})
    assert [name for name in features.names if worth_testing(features, name)] == ["length", "f:some"]
    table = correlate(routes, features, permutations=99)
    assert set(table["layer"]) == {"enc 0"}
    assert set(table["feature"]) == {"length", "f:some"}
    assert table[table["feature"] == "length"]["with_feature"].isna().all()
    run = SimpleNamespace(name="run", routes=routes)
    rows = features_markdown(run, table, top_experts(table, 1)).splitlines()[-2:]
    assert {row.split("|")[1].strip(): row.split("|")[2].strip() for row in rows} == {
        "length": "-",
        "f:some": "5",
    }


def test_without_testable_features_the_table_is_empty():
    routes = random_routes(5, tasks=5)
    table = correlate(routes, features_of_columns({"f:few": [1, 0, 0, 0, 0]}))
    assert table.empty
    assert top_experts(table, 3).empty
    average = routes_of(np.full((8, 2, 3), 1 / 3))
    assert correlate(average, features_of_columns({"f:a": np.arange(8) < 4})).empty
