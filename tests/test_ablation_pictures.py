"""Pictures of drops and of correlations: nothing overlaps, names of any length fit, letters stay letters."""

import numpy as np
import pandas as pd
import pytest
from conftest import assert_apart_and_inside
from planted_routes import features_of_columns, random_routes

from dataloader.ontology import Ontology
from routing_moe.analysis.correlation import correlate
from routing_moe.plots import ablation as ablation_pictures
from routing_moe.plots import correlations as correlation_pictures
from routing_moe.plots.ablation import plot_category_drops, plot_feature_drops, plot_task_drops
from routing_moe.plots.correlations import plot_correlations

LONG = "compare_task_vectors_of_a_rather_long_name/seed42: drop of the score, dev files"
ONTOLOGY = Ontology.load()


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, kept instead of written."""
    kept = []
    for module in (ablation_pictures, correlation_pictures):
        monkeypatch.setattr(module, "write_figure", lambda figure, path: kept.append(figure))
    return kept


def category_table(layers, experts, categories):
    draw = np.random.default_rng(0)
    rows = [
        (layer, expert, category, draw.normal(0, 0.1))
        for layer in layers
        for expert in range(experts)
        for category in (*categories, "all")
    ]
    return pd.DataFrame(rows, columns=["layer", "expert", "category", "drop"])


def task_table(n_tasks, layers, experts):
    draw = np.random.default_rng(0)
    rows = [
        (layer, expert, task, draw.normal(0, 0.1))
        for layer in layers
        for expert in range(experts)
        for task in ONTOLOGY.tasks[:n_tasks]
    ]
    return pd.DataFrame(rows, columns=["layer", "expert", "task", "drop"])


def feature_table(names):
    rows = [
        (name, group, 0.1 * number, 0.05, 0.02, 20 - number % 2)
        for number, name in enumerate(names)
        for group in ("with feature", "without feature", "all")
    ]
    return pd.DataFrame(rows, columns=["feature", "group", "drop", "random_mean", "random_std", "draws"])


LAYERS = [*(f"enc {n}" for n in range(6)), *(f"dec {n}" for n in range(6))]


@pytest.mark.parametrize("title", [None, "short", LONG])
@pytest.mark.parametrize(
    ("layers", "experts", "categories"),
    [(["enc 0"], 2, ["qa"]), (["enc 0", "dec 0"], 3, ["sentiment", "a category of many words"]),
     (LAYERS, 16, [f"category {n}" for n in range(9)])],
)  # fmt: skip
def test_categories_fit(figures, layers, experts, categories, title):
    table = category_table(layers, experts, categories)
    plot_category_drops(table, "drops.png", title)
    (figure,) = figures
    heat, bar = figure.axes
    boxes = [heat.get_tightbbox(), bar.get_tightbbox(), *(text.get_window_extent() for text in figure.texts)]
    assert_apart_and_inside(figure, boxes)
    shown = heat.images[0].get_array()
    first = table[(table["layer"] == layers[0]) & (table["expert"] == 0)].set_index("category")["drop"]
    assert shown[0, 0] == pytest.approx(100 * first["all"])
    assert shown[0, 1] == pytest.approx(100 * first[categories[0]])


@pytest.mark.parametrize("title", [None, 3 * LONG])
@pytest.mark.parametrize("names", [["skill:a"], [f"subcategory:words/of a feature {n}" for n in range(40)]])
def test_features_fit(figures, names, title):
    plot_feature_drops(feature_table(names), "features.png", 3, title)
    (figure,) = figures
    boxes = [figure.axes[0].get_tightbbox(), figure.legends[0].get_window_extent()]
    assert_apart_and_inside(figure, [*boxes, *(text.get_window_extent() for text in figure.texts)])


def test_task_drops_stand_at_their_task_and_expert(figures):
    table = task_table(5, LAYERS[:2], 3)
    plot_task_drops(table, ONTOLOGY, "tasks.png", LONG)
    shown = figures[0].axes[0].images[0].get_array()
    own = table[table["task"] == ONTOLOGY.order(ONTOLOGY.tasks[:5])[1]]["drop"]
    assert list(shown[1]) == pytest.approx(own.tolist())


@pytest.mark.parametrize(("layers", "experts", "count"), [(1, 2, 1), (4, 3, 12), (24, 16, 60)])
def test_correlations_fit(figures, layers, experts, count):
    routes = random_routes(0, tasks=20, layers=layers, experts=experts)
    draw = np.random.default_rng(0)
    features = features_of_columns({f"kind:feature {n}": draw.permutation(20) < 8 for n in range(count)})
    table = correlate(routes, features, permutations=20)
    plot_correlations(table, routes, features, "correlations.png", LONG)
    (figure,) = figures
    heat, bar = figure.axes
    boxes = [heat.get_tightbbox(), bar.get_tightbbox(), *(text.get_window_extent() for text in figure.texts)]
    assert_apart_and_inside(figure, boxes)
    row = table.iloc[0]
    column = routes.layers.index(row.layer) * experts + row.expert
    assert heat.images[0].get_array()[features.names.index(row.feature), column] == pytest.approx(row.r)


def test_letters_of_a_pdf_stay_letters_and_the_same_table_gives_the_same_bytes(tmp_path):
    for name in ("one.pdf", "two.pdf"):
        plot_category_drops(category_table(["enc 0"], 3, ["qa"]), tmp_path / name, LONG)
    written = (tmp_path / "one.pdf").read_bytes()
    assert b"/Type3" not in written
    assert b"/CIDFontType2" in written
    assert written == (tmp_path / "two.pdf").read_bytes()
