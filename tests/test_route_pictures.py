"""Route maps, changes of routes, clustermaps and expert load: places of values, and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sample_pictures import ONTOLOGY, OVERLAP, routes

from routing_moe.analysis.clustering import cluster_order
from routing_moe.analysis.route_metrics import entropy, overlap
from routing_moe.analysis.saved_routes import Routes
from routing_moe.plots.clustermap import MIXED, plot_clustered
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes

# ---------------------------------------------------------------------------- route map


def draw_map(shape, tasks=None, encoder_layers=1, **options):
    given = routes(*shape, tasks=tasks)
    plot_routes(given.values_NLE, given.tasks, ONTOLOGY, "map.png", encoder_layers, **options)
    return given.values_NLE


def legend_of(figure) -> list[str]:
    (legend,) = (axes.get_legend() for axes in figure.axes if axes.get_legend())
    return [text.get_text().strip() for text in legend.get_texts()]


def test_rows_are_the_routes_in_the_given_order(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values = draw_map((3, 2, 3), tasks)
    heat, strips = figures[0].axes[:2]
    assert [label.get_text() for label in strips.get_yticklabels()] == tasks
    drawn = heat.images[0].get_array()
    assert np.allclose(drawn, values.reshape(3, 6))
    assert heat.images[0].get_clim() == (0.0, 1.0)
    assert strips.get_ylim() == heat.get_ylim() == (3, 0)
    assert strips.get_window_extent().y0 == pytest.approx(heat.get_window_extent().y0)


def test_layers_and_experts_are_named_and_a_thick_line_separates_encoder_and_decoder(figures):
    draw_map((4, 5, 2), encoder_layers=3)
    heat = figures[0].axes[0]
    assert [text.get_text() for text in heat.texts] == ["enc 0", "enc 1", "enc 2", "dec 0", "dec 1"]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["0", "1"] * 5
    (thick,) = [line for line in heat.lines if line.get_linewidth() > 2]
    assert list(thick.get_xdata()) == [6, 6]


def test_other_layers_keep_their_names_if_some_are_missing(figures):
    draw_map((3, 2, 2), layers=("enc 1", "dec 0"))
    heat = figures[0].axes[0]
    assert [text.get_text() for text in heat.texts] == ["enc 1", "dec 0"]
    (thick,) = [line for line in heat.lines if line.get_linewidth() > 2]
    assert list(thick.get_xdata()) == [2, 2]
    with pytest.raises(ValueError, match="3 layer names for routes of 2 layers"):
        draw_map((3, 2, 2), layers=("enc 1", "dec 0", "dec 1"))


def test_a_long_map_names_its_layers_below_as_well(figures):
    draw_map((41, 2, 2))
    names = [(text.get_text(), text.get_va()) for text in figures[0].axes[0].texts]
    assert sorted(names) == [("dec 0", "bottom"), ("dec 0", "top"), ("enc 0", "bottom"), ("enc 0", "top")]


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


def test_a_tensor_with_a_gradient_is_drawn_like_the_array(figures):
    tensor = torch.tensor(routes(2, 2, 2).values_NLE, dtype=torch.bfloat16, requires_grad=True)
    plot_routes(tensor, ["boolq", "imdb"], ONTOLOGY, "map.png", 1)
    drawn = figures[0].axes[0].images[0].get_array()
    assert np.array_equal(drawn, tensor.detach().float().numpy().reshape(2, 4))


@pytest.mark.parametrize(
    ("shape", "tasks", "encoder_layers", "message"),
    [
        ((2, 3), ["a", "b"], 1, "expected \\(tasks, layers, experts\\)"),
        ((2, 3, 2), ["a"], 1, "1 task names for routes of 2"),
        ((2, 3, 2), ["a", "a"], 1, "listed twice: a"),
        ((2, 3, 2), ["a", "b"], 4, "encoder_layers is 4"),
    ],
)
def test_routes_that_do_not_fit_are_an_error(shape, tasks, encoder_layers, message):
    with pytest.raises(ValueError, match=message):
        plot_routes(np.zeros(shape), tasks, ONTOLOGY, "x.png", encoder_layers)


def test_values_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="not finite"):
        plot_routes(np.full((1, 1, 2), np.nan), ["a"], ONTOLOGY, "x.png", 1)


# ---------------------------------------------------------------------------- change


def test_a_change_is_after_minus_before_for_any_order_of_tasks(figures):
    before, after = routes(seed=1), routes(seed=2)
    permuted = after.of([after.tasks[row] for row in (2, 0, 3, 1)])
    plot_change(before, permuted, ONTOLOGY, "change.png")
    heat = figures[0].axes[0]
    expected = (after.values_NLE - before.values_NLE).reshape(4, 12)
    assert np.allclose(heat.images[0].get_array(), expected)
    assert [text.get_text() for text in heat.texts] == ["enc 0", "enc 1", "dec 0", "dec 1"]


@pytest.mark.parametrize(
    ("largest", "end", "name"),
    [(1.0, 1.0, "change of weight"), (0.51, 1.0, "change of weight"), (0.13, 0.2, "change, scale ±0.2"),
     (1e-9, 0.01, "change, scale ±0.01"), (0.0, 0.01, "change, scale ±0.01")],
)  # fmt: skip
def test_the_scale_is_symmetric_holds_the_largest_change_and_is_named(figures, largest, end, name):
    before = replace(routes(2, 2, 2), values_NLE=np.full((2, 2, 2), [1.0, 0.0]))
    after = replace(before, values_NLE=before.values_NLE.copy())
    after.values_NLE[1, 1] += [-largest, largest]
    plot_change(before, after, ONTOLOGY, "change.png")
    heat, _, bar = figures[0].axes
    assert heat.images[0].get_clim() == (-end, end)
    assert bar.get_title(loc="left") == name
    colours = heat.images[0].cmap(heat.images[0].norm([end, -end, 0.0]))
    assert colours[0, 0] > 0.3 > colours[0, 2]  # red
    assert colours[1, 2] > 0.3 > colours[1, 0]  # blue
    assert min(colours[2]) > 0.95  # white


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            routes(tasks=(*ONTOLOGY.tasks[-3:], "new")),
            "run and run are of different tasks; only one has .*new",
        ),
        (replace(routes(), layers=("enc 0", "enc 1", "dec 0", "dec 2")), "experts in different layers"),
        (routes(n_experts=2), "run has 3 experts a layer, run has 2"),
    ],
)
def test_a_change_between_routes_of_different_shape_is_an_error(after, message):
    with pytest.raises(ValueError, match=message):
        plot_change(routes(), after, ONTOLOGY, "change.png")


# ---------------------------------------------------------------------------- clustermap


def test_rows_are_in_cluster_order_and_branches_of_one_category_have_its_colour(figures):
    tasks = ["boolq", "glue-rte", "unheard-of", "anli"]  # similar: anli and glue-rte; boolq and unheard-of
    similarity_NN = np.full((4, 4), 0.2)
    similarity_NN[1, 3] = similarity_NN[3, 1] = 0.9
    similarity_NN[0, 2] = similarity_NN[2, 0] = 0.8
    np.fill_diagonal(similarity_NN, 1.0)
    plot_clustered(similarity_NN, tasks, ONTOLOGY, "map.png", OVERLAP)
    heat, tree, beside, above = figures[0].axes[:4]
    names = [label.get_text() for label in beside.get_yticklabels()]
    rows = [tasks.index(name) for name in names]
    assert rows == cluster_order(similarity_NN, tasks, ONTOLOGY)
    assert {frozenset(names[:2]), frozenset(names[2:])} == {
        frozenset(["anli", "glue-rte"]), frozenset(["boolq", "unheard-of"])
    }  # fmt: skip
    assert np.allclose(heat.images[0].get_array(), similarity_NN[np.ix_(rows, rows)])
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    branches = [
        (to_hex(own.get_color()[0]), path.vertices) for own in tree.collections for path in own.get_paths()
    ]
    category = to_hex(strips[names.index("anli"), 0])
    assert sorted(colour for colour, _ in branches) == sorted([category, to_hex(MIXED), to_hex(MIXED)])
    # The branch of anli and glue-rte is at 1 - 0.9 and joins the middles of their rows.
    (corners,) = [corners for colour, corners in branches if colour == category]
    middles = sorted(names.index(name) + 0.5 for name in ("anli", "glue-rte"))
    assert sorted(set(corners[:, 1] / 10)) == pytest.approx(middles)
    assert corners[:, 0].max() == pytest.approx(0.1)
    assert heat.get_ylim() == (4, 0)
    assert tree.get_ylim() == (40, 0)
    boxes = [axes.get_window_extent() for axes in (heat, tree)]
    assert boxes[0].width == pytest.approx(boxes[0].height)
    assert (boxes[0].y0, boxes[0].y1) == pytest.approx((boxes[1].y0, boxes[1].y1))


def test_the_given_order_of_tasks_changes_no_byte(tmp_path):
    given = routes(9, 2, 2)
    given = replace(given, values_NLE=np.round(given.values_NLE))  # one-hot: many similarities are equal
    permuted = given.of([given.tasks[row] for row in np.random.default_rng(0).permutation(9)])
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, one in zip(paths, (given, permuted), strict=True):
        plot_clustered(overlap(one.values_NLE), one.tasks, ONTOLOGY, path, OVERLAP)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [(["boolq"], "shape \\(2, 2\\) for 1 tasks"), (["boolq", "boolq"], "a task is listed twice")],
)
def test_tasks_that_do_not_fit_the_similarities_are_an_error(tasks, message):
    with pytest.raises(ValueError, match=message):
        plot_clustered(np.ones((2, 2)), tasks, ONTOLOGY, "x.png", OVERLAP)


# ---------------------------------------------------------------------------- expert load


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s")]


@pytest.mark.parametrize(("n_runs", "n_layers", "columns"), [(1, 2, 2), (3, 12, 2), (6, 24, 1)])
def test_panels_are_side_by_side_if_their_layers_fit(figures, n_runs, n_layers, columns):
    plot_load([routes(4, n_layers, 3, seed) for seed in range(n_runs)], "load.png")
    assert len({round(axes.get_position().x0, 6) for axes in figures[0].axes}) == columns


def test_marks_are_the_measures_of_each_layer(figures):
    one_hot = np.eye(2)[[[0, 1], [0, 1], [0, 0], [0, 0]]]  # layer 0: all to expert 0; layer 1: half and half
    given = Routes("run", ("a", "b", "c", "d"), ("enc 0", "dec 0"), one_hot, 7)
    plot_load([given], "load.png")
    entropies, load_entropies, information, loads = figures[0].axes
    assert list(marks(entropies)[0].get_ydata()) == pytest.approx([0, 0])
    assert list(marks(load_entropies)[0].get_ydata()) == pytest.approx([0, 1])
    assert list(marks(information)[0].get_ydata()) == pytest.approx([0, 1])
    assert [list(line.get_ydata()) for line in marks(loads)] == [
        pytest.approx([1, 0.5]),
        pytest.approx([0, 0.5]),
    ]
    even = [line for line in loads.lines if line not in marks(loads) and list(line.get_ydata()) == [0.5, 0.5]]
    assert len(even) == 1  # 1/E


def test_experts_of_a_single_run_are_side_by_side(figures):
    plot_load([routes(5, 2, 3)], "load.png")
    loads = figures[0].axes[3]
    assert loads.get_title(loc="left") == "load of experts 0 to 2, from the left (dashed: 1/E)"
    first, second, third = (line.get_xdata() for line in marks(loads))
    assert (first < second).all()
    assert (second < third).all()
    assert second == pytest.approx([0, 1])


def test_quartiles_are_those_of_the_tasks(figures):
    given = routes(9, 2, 3)
    plot_load([given], "load.png")
    (bars,) = figures[0].axes[0].collections
    drawn = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert np.allclose(drawn.T, np.quantile(entropy(given.values_NLE), [0.25, 0.75], axis=0))


def test_runs_with_different_layers_are_drawn_at_their_layers(figures):
    few = replace(routes(3, 2, 2), layers=("enc 2", "dec 10"), name="few")
    plot_load([few, routes(5, 4, 3)], "load.png")
    axes = figures[0].axes[1]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["0", "1", "2", "0", "1", "10"]
    assert [text.get_text() for text in axes.texts] == ["encoder", "decoder"]
    first, second = marks(axes)
    assert np.round(first.get_xdata()).tolist() == [2, 5]
    assert np.round(second.get_xdata()).tolist() == [0, 1, 3, 4]
    assert first.get_marker() != second.get_marker()
    assert first.get_color() != second.get_color()


def test_the_legend_names_runs_steps_and_numbers_of_tasks(figures):
    plot_load([routes(), replace(routes(), step=900), routes(name="other")], "load.png")
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["run, step 500 (4 tasks)", "run, step 900 (4 tasks)", "other, step 500 (4 tasks)"]


def test_no_run_is_an_error():
    with pytest.raises(ValueError, match="no run to draw"):
        plot_load([], "load.png")
