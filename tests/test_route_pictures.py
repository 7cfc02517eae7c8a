"""Pictures of change, clusters and load: in order, complete, nothing cut off or overlapping, reproducible."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import assert_apart_and_inside
from matplotlib.colors import to_hex

from dataloader.ontology import Ontology
from routing_moe.analysis.route_metrics import entropy, overlap
from routing_moe.analysis.saved_routes import Routes, layer_names
from routing_moe.plots import clustermap as dendrogram
from routing_moe.plots import expert_load as load_pictures
from routing_moe.plots import route_change as change
from routing_moe.plots import route_map as pictures
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale

ONTOLOGY = Ontology.load()
SCALE = HeatScale("overlap of routes", "Blues", 0.0, 1.0)
LONG = "models/a-rather-long-name-of-a-run_with_all-its-settings/best"


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, kept instead of written."""
    kept = []
    for module in (pictures, change, dendrogram, load_pictures):
        monkeypatch.setattr(module, "write_figure", lambda figure, path: kept.append(figure))
    return kept


def routes(n_tasks=4, n_layers=4, n_experts=3, seed=0, name="run", tasks=None) -> Routes:
    values_NLE = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    return Routes(name, tuple(tasks or ONTOLOGY.tasks[-n_tasks:]), layers, values_NLE, 500)


def boxes_of(figure):
    return [axes.get_tightbbox() for axes in figure.axes]


# ---------------------------------------------------------------------------- change


def test_a_change_is_after_less_before_whatever_the_order_of_tasks(figures):
    before, after = routes(seed=1), routes(seed=2)
    shuffled = after.of([after.tasks[row] for row in (2, 0, 3, 1)])
    plot_change(before, shuffled, ONTOLOGY, "change.png")
    heat = figures[0].axes[0]
    order = [before.tasks.index(task) for task in ONTOLOGY.order(before.tasks)]
    expected = (after.values_NLE - before.values_NLE)[order].reshape(4, 12)
    assert np.allclose(heat.images[0].get_array(), expected)
    assert [text.get_text() for text in heat.texts] == ["enc 0", "enc 1", "dec 0", "dec 1"]


@pytest.mark.parametrize(
    ("largest", "end", "output"),
    [(1.0, 1.0, "change of weight"), (0.51, 1.0, "change of weight"), (0.13, 0.2, "change, scale ±0.2"),
     (1e-9, 0.01, "change, scale ±0.01"), (0.0, 0.01, "change, scale ±0.01")],
)  # fmt: skip
def test_the_scale_is_symmetric_fits_the_largest_change_and_is_reported(figures, largest, end, output):
    before = replace(routes(2, 2, 2), values_NLE=np.full((2, 2, 2), [1.0, 0.0]))
    after = replace(before, values_NLE=before.values_NLE.copy())
    after.values_NLE[1, 1] += [-largest, largest]
    plot_change(before, after, ONTOLOGY, "change.png")
    heat, _, bar, _ = figures[0].axes
    assert heat.images[0].get_clim() == (-end, end)
    assert bar.get_title(loc="left") == output
    red, _, blue, _ = heat.images[0].cmap(heat.images[0].norm(end))
    assert red > 0.3 > blue
    red, _, blue, _ = heat.images[0].cmap(heat.images[0].norm(-end))
    assert blue > 0.3 > red
    assert min(heat.images[0].cmap(heat.images[0].norm(0.0))) > 0.95  # white


@pytest.mark.parametrize(("n_tasks", "n_layers", "n_experts"), [(2, 2, 2), (160, 12, 16)])
def test_a_change_overlaps_nothing_and_is_not_cut_off(figures, n_tasks, n_layers, n_experts):
    shape = (n_tasks, n_layers, n_experts)
    plot_change(routes(*shape), routes(*shape, seed=1), ONTOLOGY, "change.png", "Change " * 30)
    assert_apart_and_inside(figures[0], [*boxes_of(figures[0]), figures[0].texts[0].get_window_extent()])


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
def test_a_change_between_unlike_routes_is_refused(after, message):
    with pytest.raises(ValueError, match=message):
        plot_change(routes(), after, ONTOLOGY, "change.png")


def test_layers_that_are_left_out_of_a_model_keep_their_names(figures):
    values_NLE = routes(3, 2, 2).values_NLE
    plot_routes(values_NLE, ONTOLOGY.tasks[:3], ONTOLOGY, "map.png", 1, layers=("enc 1", "dec 0"))
    heat = figures[0].axes[0]
    assert [text.get_text() for text in heat.texts] == ["enc 1", "dec 0"]
    (thick,) = [line for line in heat.lines if line.get_linewidth() > 2]
    assert list(thick.get_xdata()) == [2, 2]
    with pytest.raises(ValueError, match="3 layer names for routes of 2 layers"):
        plot_routes(
            values_NLE, ONTOLOGY.tasks[:3], ONTOLOGY, "map.png", 1, layers=("enc 1", "dec 0", "dec 1")
        )


# ---------------------------------------------------------------------------- clusters


def test_rows_stand_in_the_tree_s_order_and_branches_of_one_category_have_its_colour(figures):
    tasks = ["boolq", "glue-rte", "unheard-of", "anli"]  # anli and glue-rte alike, boolq and unheard-of too
    similarity_NN = np.full((4, 4), 0.2)
    similarity_NN[1, 3] = similarity_NN[3, 1] = 0.9
    similarity_NN[0, 2] = similarity_NN[2, 0] = 0.8
    np.fill_diagonal(similarity_NN, 1.0)
    plot_clustered(similarity_NN, tasks, ONTOLOGY, "map.png", SCALE)
    heat, beside, above, tree = figures[0].axes[:4]
    names = [label.get_text() for label in beside.get_yticklabels()]
    rows = [tasks.index(name) for name in names]
    assert {frozenset(names[:2]), frozenset(names[2:])} == {
        frozenset(["anli", "glue-rte"]), frozenset(["boolq", "unheard-of"])
    }  # fmt: skip
    assert np.allclose(heat.images[0].get_array(), similarity_NN[np.ix_(rows, rows)])
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    colours = [to_hex(colour) for colour in tree.collections[0].get_colors()]
    category = to_hex(strips[names.index("anli"), 0])
    assert sorted(colours) == sorted([category, to_hex(dendrogram.MIXED), to_hex(dendrogram.MIXED)])
    # A branch joins the middles of its rows, where the heat map has them.
    joined = [path.vertices for path in tree.collections[0].get_paths()]
    assert any(np.allclose(corners[:, 1], [0.5, 0.5, 1.5, 1.5]) for corners in joined)
    assert tree.get_ylim() == heat.get_ylim() == (4, 0)


def test_the_order_in_which_tasks_are_given_changes_no_byte(tmp_path):
    given = routes(9, 2, 2)
    given = replace(given, values_NLE=np.round(given.values_NLE))  # one-hot: many tasks are equally alike
    shuffled = given.of([given.tasks[row] for row in np.random.default_rng(0).permutation(9)])
    for kind in ("png", "pdf"):
        paths = [tmp_path / f"{number}.{kind}" for number in range(2)]
        for path, one in zip(paths, (given, shuffled), strict=True):
            plot_clustered(overlap(one.values_NLE), one.tasks, ONTOLOGY, path, SCALE, "$")
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("n_tasks", [2, 24, 160])
def test_clusters_overlap_nothing_and_are_not_cut_off(figures, n_tasks):
    given = routes(n_tasks)
    plot_clustered(overlap(given.values_NLE), given.tasks, ONTOLOGY, "map.png", SCALE, "Clusters " * 20)
    figure = figures[0]
    assert len(figure.axes) == 6
    assert_apart_and_inside(figure, [*boxes_of(figure), figure.texts[0].get_window_extent()])
    heat, tree = figure.axes[0].get_window_extent(), figure.axes[3].get_window_extent()
    assert heat.width == pytest.approx(heat.height)
    assert (heat.y0, heat.y1) == pytest.approx((tree.y0, tree.y1))


@pytest.mark.parametrize(
    ("tasks", "name", "message"),
    [
        (["boolq"], "x.png", "shape \\(2, 2\\) for 1 tasks"),
        (["boolq", "boolq"], "x.png", "listed twice"),
        (["boolq", "anli"], "x.svg", "must end in .png or .pdf"),
    ],
)
def test_clusters_of_other_tasks_and_names_are_refused(tasks, name, message):
    with pytest.raises(ValueError, match=message):
        plot_clustered(np.ones((2, 2)), tasks, ONTOLOGY, name, SCALE)


# ---------------------------------------------------------------------------- load


@pytest.mark.parametrize(
    ("n_runs", "n_layers", "name", "columns"), [(1, 2, "a", 2), (3, 12, LONG, 2), (6, 24, LONG, 1)]
)
def test_loads_overlap_nothing_are_as_wide_as_a_paper_s_text_and_not_cut_off(
    figures, n_runs, n_layers, name, columns
):
    runs = [routes(20, n_layers, 3, seed, f"{name}{seed}") for seed in range(n_runs)]
    plot_load(runs, "load.png", "Load " * 30)
    figure = figures[0]
    assert figure.get_figwidth() == 6.75
    key = figure.legends[0].get_window_extent()
    assert_apart_and_inside(figure, [*boxes_of(figure), key, figure.texts[0].get_window_extent()])
    assert len({round(axes.get_position().x0, 6) for axes in figure.axes}) == columns


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


def test_experts_of_one_run_stand_in_their_order(figures):
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


def test_a_run_is_drawn_at_its_own_layers_beside_others(figures):
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


def test_the_key_tells_runs_steps_and_tasks(figures):
    plot_load([routes(), replace(routes(), step=900), routes(name="other")], "load.png")
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["run, step 500 (4 tasks)", "run, step 900 (4 tasks)", "other, step 500 (4 tasks)"]


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s")]


def test_no_run_and_another_ending_are_refused():
    with pytest.raises(ValueError, match="no run to draw"):
        plot_load([], "load.png")
    for draw in (
        lambda path: plot_load([routes()], path),
        lambda path: plot_change(routes(), routes(), ONTOLOGY, path),
    ):
        with pytest.raises(ValueError, match=r"must end in .png or .pdf"):
            draw("x.svg")


def test_the_same_routes_give_the_same_bytes(tmp_path):
    given = [replace(routes(seed=seed), name=f"$x_{{{seed}") for seed in range(2)]
    for kind in ("png", "pdf"):
        paths = [tmp_path / f"{number}.{kind}" for number in range(2)]
        for path in paths:
            plot_load(given, path, "a $ and _")
        assert paths[0].read_bytes() == paths[1].read_bytes()
        for path in paths:
            plot_change(*given, ONTOLOGY, path, "a $ and _")
        assert paths[0].read_bytes() == paths[1].read_bytes()
