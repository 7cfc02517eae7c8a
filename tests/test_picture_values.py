"""What pictures show: every value at its row and column, with the right name, colour and mark."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from sample_pictures import (
    ONTOLOGY,
    OVERLAP,
    agreement,
    category_drops,
    correlated,
    feature_drops,
    routes,
    task_drops,
)

from routing_moe.analysis.clustering import cluster_order
from routing_moe.analysis.saved_routes import Routes
from routing_moe.plots.ablation import plot_category_drops, plot_feature_drops, plot_task_drops
from routing_moe.plots.agreement import plot_agreement
from routing_moe.plots.clustermap import MIXED, plot_clustered
from routing_moe.plots.correlations import plot_correlations
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.similarity import Panel, plot_similarities


def texts_of(labels) -> list[str]:
    return [label.get_text() for label in labels]


def legend_of(figure) -> list[str]:
    (legend,) = (axes.get_legend() for axes in figure.axes if axes.get_legend())
    return [text.strip() for text in texts_of(legend.get_texts())]


# ---------------------------------------------------------------------------- maps of routes


def draw_map(shape, tasks=None, encoder_layers=1, **options):
    drawn = routes(*shape, tasks=tasks)
    plot_routes(drawn.values_NLE, drawn.tasks, ONTOLOGY, "map.png", encoder_layers, **options)
    return drawn.values_NLE


def test_rows_are_the_routes_in_the_given_order(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values_NLE = draw_map((3, 2, 3), tasks)
    heat, strips = figures[0].axes[:2]
    assert texts_of(strips.get_yticklabels()) == tasks
    assert np.allclose(heat.images[0].get_array(), values_NLE.reshape(3, 6))
    assert heat.images[0].get_clim() == (0.0, 1.0)
    assert strips.get_ylim() == heat.get_ylim() == (3, 0)
    assert strips.get_window_extent().y0 == pytest.approx(heat.get_window_extent().y0)


@pytest.mark.parametrize(
    ("shape", "options", "names", "border"),
    [
        ((4, 5, 2), dict(encoder_layers=3), ["enc 0", "enc 1", "enc 2", "dec 0", "dec 1"], 6),
        ((3, 2, 2), dict(layers=("enc 1", "dec 0")), ["enc 1", "dec 0"], 2),
        ((41, 2, 2), {}, ["enc 0", "enc 0", "dec 0", "dec 0"], 2),  # a long map names them below as well
    ],
)
def test_layers_and_experts_are_named_and_a_thick_line_is_before_the_decoder(
    figures, shape, options, names, border
):
    draw_map(shape, **options)
    heat = figures[0].axes[0]
    assert texts_of(heat.texts) == names
    assert texts_of(heat.get_xticklabels()) == ["0", "1"] * shape[1]
    (thick,) = [line for line in heat.lines if line.get_linewidth() > 2]
    assert list(thick.get_xdata()) == [border, border]


def test_the_legend_names_every_category_drawn_and_each_keeps_its_colour(figures):
    draw_map((2, 2, 2), ["boolq", "unheard-of"])
    draw_map((3, 2, 2), ["glue-rte", "imdb", "boolq"])
    assert [legend_of(figure) for figure in figures] == [
        ["qa", "binary", "uncategorised"],
        ["classification", "nli", "sentiment analysis", "qa", "binary"],
    ]
    small, large = (figure.axes[1].images[0].get_array() for figure in figures)
    assert np.array_equal(small[0], large[2])
    patches = figures[0].axes[2].get_legend().get_patches()
    assert [patch.get_facecolor()[:3] for patch in patches[:2]] == [tuple(colour) for colour in small[0]]


def test_a_change_is_after_minus_before_for_any_order_of_tasks(figures):
    before, after = routes(seed=1), routes(seed=2)
    permuted = after.of([after.tasks[row] for row in (2, 0, 3, 1)])
    plot_change(before, permuted, ONTOLOGY, "change.png")
    expected = (after.values_NLE - before.values_NLE).reshape(4, 12)
    assert np.allclose(figures[0].axes[0].images[0].get_array(), expected)


@pytest.mark.parametrize(
    ("largest", "end", "name"),
    [(0.51, 1.0, "change of weight"), (0.13, 0.2, "change, scale ±0.2"), (0.0, 0.01, "change, scale ±0.01")],
)
def test_the_scale_of_a_change_is_symmetric_holds_the_largest_and_is_named(figures, largest, end, name):
    before = replace(routes(2, 2, 2), values_NLE=np.full((2, 2, 2), [1.0, 0.0]))
    after = replace(before, values_NLE=before.values_NLE.copy())
    after.values_NLE[1, 1] += [-largest, largest]
    plot_change(before, after, ONTOLOGY, "change.png")
    heat, _, bar = figures[0].axes
    assert heat.images[0].get_clim() == (-end, end)
    assert bar.get_title(loc="left") == name
    red, blue, white = heat.images[0].cmap(heat.images[0].norm([end, -end, 0.0]))
    assert red[0] > 0.3 > red[2]
    assert blue[2] > 0.3 > blue[0]
    assert min(white) > 0.95


# ---------------------------------------------------------------------------- maps of similarities


def test_rows_are_in_cluster_order_and_branches_of_one_category_have_its_colour(figures):
    tasks = ["boolq", "glue-rte", "unheard-of", "anli"]  # similar: anli and glue-rte; boolq and unheard-of
    similarity_NN = np.full((4, 4), 0.2)
    similarity_NN[1, 3] = similarity_NN[3, 1] = 0.9
    similarity_NN[0, 2] = similarity_NN[2, 0] = 0.8
    np.fill_diagonal(similarity_NN, 1.0)
    plot_clustered(similarity_NN, tasks, ONTOLOGY, "map.png", OVERLAP)
    tree, heat, beside, above = figures[0].axes[:4]
    names = texts_of(beside.get_yticklabels())
    rows = [tasks.index(name) for name in names]
    assert rows == cluster_order(similarity_NN, tasks, ONTOLOGY)
    assert np.allclose(heat.images[0].get_array(), similarity_NN[np.ix_(rows, rows)])
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    branches = [
        (to_hex(lines.get_color()[0]), path.vertices)
        for lines in tree.collections
        for path in lines.get_paths()
    ]
    category = to_hex(strips[names.index("anli"), 0])
    assert sorted(colour for colour, _ in branches) == sorted([category, to_hex(MIXED), to_hex(MIXED)])
    # The branch of anli and glue-rte is at 1 - 0.9 and joins the middles of their rows.
    (corners,) = [corners for colour, corners in branches if colour == category]
    middles = sorted(names.index(name) + 0.5 for name in ("anli", "glue-rte"))
    assert sorted(set(corners[:, 1] / 10)) == pytest.approx(middles)
    assert corners[:, 0].max() == pytest.approx(0.1)
    boxes = [axes.get_window_extent() for axes in (heat, tree)]
    assert (boxes[0].y0, boxes[0].y1) == pytest.approx((boxes[1].y0, boxes[1].y1))


def test_similarities_are_in_the_given_order_and_named_left_of_each_row_of_maps(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values_NN = np.arange(9.0).reshape(3, 3) / 9
    plot_similarities(
        [Panel(name, f"note of {name}", values_NN) for name in "abcd"], tasks, ONTOLOGY, "map.png"
    )
    heat, beside, above, heat_b, beside_b = figures[0].axes[:5]
    assert np.array_equal(heat.images[0].get_array(), values_NN)
    assert heat.images[0].get_clim() == (-1.0, 1.0)
    assert texts_of(beside.get_yticklabels()) == texts_of(figures[0].axes[7].get_yticklabels()) == tasks
    assert beside_b.get_yticklabels() == []
    assert texts_of(above.texts) == ["a"]
    assert above.get_title() == "note of a"
    assert heat_b.get_position().y0 == heat.get_position().y0


# ---------------------------------------------------------------------------- expert load


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s")]


def test_marks_are_the_measures_of_each_layer(figures):
    one_hot = np.eye(2)[[[0, 1], [0, 1], [0, 0], [0, 0]]]  # layer 0: all to expert 0; layer 1: half and half
    plot_load([Routes("run", ("a", "b", "c", "d"), ("enc 0", "dec 0"), one_hot, 7)], "load.png")
    entropies, load_entropies, information, loads = figures[0].axes
    for axes, values in ((entropies, [0, 0]), (load_entropies, [0, 1]), (information, [0, 1])):
        assert list(marks(axes)[0].get_ydata()) == pytest.approx(values)
    first, second = marks(loads)  # of each expert, side by side
    assert list(first.get_ydata()) == pytest.approx([1, 0.5])
    assert list(second.get_ydata()) == pytest.approx([0, 0.5])
    assert (first.get_xdata() < second.get_xdata()).all()
    even = [line for line in loads.lines if line not in marks(loads) and list(line.get_ydata()) == [0.5, 0.5]]
    assert len(even) == 1  # 1/E


def test_runs_with_different_layers_are_drawn_at_their_layers(figures):
    few = replace(routes(3, 2, 2), layers=("enc 2", "dec 10"), name="few")
    plot_load([few, routes(5, 4, 3)], "load.png")
    axes = figures[0].axes[1]
    assert texts_of(axes.get_xticklabels()) == ["0", "1", "2", "0", "1", "10"]
    assert texts_of(axes.texts) == ["encoder", "decoder"]
    first, second = marks(axes)
    assert np.round(first.get_xdata()).tolist() == [2, 5]
    assert np.round(second.get_xdata()).tolist() == [0, 1, 3, 4]
    assert (first.get_marker(), first.get_color()) != (second.get_marker(), second.get_color())
    labels = texts_of(figures[0].legends[0].get_texts())
    assert labels == ["few, step 500 (3 tasks)", "run, step 500 (5 tasks)"]


# ---------------------------------------------------------------------------- ablation, correlations


def test_category_drops_are_in_hundredths_at_their_expert_and_category(figures):
    table = category_drops(["enc 0", "dec 0"], 3, ["sentiment", "qa"])
    plot_category_drops(table, "drops.png")
    heat = figures[0].axes[0]
    drops = table.set_index(["layer", "expert", "category"])["drop"]
    columns = texts_of(heat.get_xticklabels())
    assert columns == ["all", "sentiment", "qa"]
    written = iter(heat.texts)
    for row, (layer, expert) in enumerate((la, e) for la in ("enc 0", "dec 0") for e in range(3)):
        for column, category in enumerate(columns):
            expected = 100 * drops[layer, expert, category]
            assert heat.images[0].get_array()[row, column] == pytest.approx(expected)
            assert float(next(written).get_text()) == pytest.approx(expected, abs=0.051)
    assert texts_of(written) == ["enc 0", "dec 0"]


def test_feature_drops_are_dots_of_the_tasks_with_and_without_the_feature(figures):
    table = feature_drops(["skill:a", "skill:b"])
    table.loc[table["group"] == "without feature", "drop"] = -0.2
    plot_feature_drops(table, "features.png", 3)
    axes = figures[0].axes[0]
    assert texts_of(axes.get_yticklabels()) == ["skill:a", "skill:b"]
    places = {marker: [] for marker in "oD"}
    for line in axes.lines:
        if line.get_marker() in places:
            places[line.get_marker()].append((float(line.get_xdata()[0]), int(line.get_ydata()[0])))
    assert places == {"o": [(0.0, 0), (0.1, 1)], "D": [(-0.2, 0), (-0.2, 1)]}
    names = texts_of(figures[0].legends[0].get_texts())
    assert names == ["top 3 experts ablated: tasks with the feature", "tasks without it"]


def test_task_drops_are_at_their_task_and_expert(figures):
    table = task_drops(5, ["enc 0", "dec 0"], 3)
    plot_task_drops(table, ONTOLOGY, "tasks.png")
    drops = table[table["task"] == ONTOLOGY.order(ONTOLOGY.tasks[:5])[1]]["drop"]
    assert list(figures[0].axes[0].images[0].get_array()[1]) == pytest.approx(drops.tolist())


def test_correlations_are_at_their_feature_and_expert_with_dots_where_q_is_small(figures):
    table, routes, features = correlated(4, 3, 12)
    table["q"], table["q_by"] = 0.5, 0.9
    table.loc[7, "q"] = 0.01
    table.loc[9, ["q", "q_by"]] = 0.01
    plot_correlations(table, routes, features, "correlations.png")
    heat = figures[0].axes[0]
    cells = [
        (features.names.index(row.feature), routes.layers.index(row.layer) * 3 + row.expert)
        for row in table.itertuples()
    ]
    drawn = heat.images[0].get_array()
    assert [drawn[cell] for cell in cells] == pytest.approx(table["r"].tolist())
    dots = {
        (float(y), float(x)): line.get_markersize()
        for line in heat.lines if line.get_marker() == "."
        for x, y in line.get_xydata()
    }  # fmt: skip
    (small, large) = ((cells[n][0] + 0.5, cells[n][1] + 0.5) for n in (7, 9))
    assert set(dots) == {small, large}
    assert dots[large] > dots[small]


def test_a_map_of_no_correlation_is_an_empty_row(figures):
    table, routes, features = correlated(2, 2, 1)
    plot_correlations(table.iloc[:0], routes, features, "correlations.png")
    assert np.isnan(figures[0].axes[0].images[0].get_array().filled(np.nan)).all()


# ---------------------------------------------------------------------------- agreement with labels


def test_a_dot_is_accuracy_a_tick_chance_and_hollow_dots_are_not_significant(figures):
    table = agreement(["a", "b"], ["category"]).assign(p=[0.2, 0.01], accuracy=[0.4, 0.6], chance=[0.3, 0.2])
    plot_agreement(table, "dots.png")
    lines = figures[0].axes[0].lines
    dots = [line for line in lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.4, 0.6]
    assert [dot.get_color() == "white" for dot in dots] == [True, False]
    assert [float(line.get_xdata()[0]) for line in lines if line.get_marker() == "|"] == [0.3, 0.2]


def test_panels_are_named_with_their_numbers_of_tasks_and_missing_values_are_a_dash(figures):
    table = agreement(["a", "b"], ["category", "subcategory"])
    table.loc[0, ["accuracy", "chance", "p"]] = np.nan
    plot_agreement(table, "dots.png")
    first, second = figures[0].axes
    assert [axes.get_title() for axes in (first, second)] == ["category (36)", "subcategory (36)"]
    assert [texts_of(axes.texts) for axes in (first, second)] == [["-"], []]
    assert texts_of(first.get_yticklabels()) == ["a", "b"]
