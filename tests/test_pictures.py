"""What pictures show: every value at its row and column with the right name; legible, whole, repeatable."""

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import sample_pictures as sample
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from sample_pictures import ONTOLOGY, PICTURES, TITLE, routes
from scipy.cluster.hierarchy import leaves_list

from routing_moe.analysis.route_metrics import cluster_tasks
from routing_moe.analysis.saved_routes import SavedRoutes
from routing_moe.pictures import dots, heat_maps, lines
from routing_moe.pictures.style import STYLE, finished, save, series


def texts_of(labels) -> list[str]:
    return [label.get_text() for label in labels]


def overlap(one, other) -> float:
    """By how many inches two boxes in pixels overlap."""
    pixels = min(one.x1 - other.x0, other.x1 - one.x0, one.y1 - other.y0, other.y1 - one.y0)
    return pixels / 150


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_overlaps_or_is_read_as_a_formula(name):
    figure = PICTURES[name]()
    with rc_context(STYLE):
        whole = finished(figure, TITLE)
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [part.get_window_extent() for part in (*figure.legends, *figure.texts)]
    assert all(overlap(*pair) <= 0.01 for pair in combinations(boxes, 2))
    for box in boxes:
        assert (box.p0 / figure.dpi >= whole.p0).all()
        assert (box.p1 / figure.dpi <= whole.p1).all()
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label for label in labels if label.get_visible() and label.get_text()]
            if not any(label.get_rotation() for label in shown):
                extents = [label.get_window_extent() for label in shown]
                assert all(overlap(*pair) <= 0.02 for pair in pairwise(extents))
    texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert texts
    assert not any(text.get_parse_math() for text in texts)


def test_files_are_whole_have_letters_and_equal_bytes_and_stay_if_drawing_fails(tmp_path, monkeypatch):
    for name in ("x.5", "y"):
        save(sample.route_map(2, 2, 2), tmp_path / "new" / name, TITLE)
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert sorted(written) == ["x.5.pdf", "x.5.png", "y.pdf", "y.png"]
    assert imread(tmp_path / "new/x.5.png").std() > 0
    assert b"/CIDFontType2" in written["x.5.pdf"]
    assert b"/Type3" not in written["x.5.pdf"]  # drawings of letters
    assert written["x.5.png"] == written["y.png"]
    assert written["x.5.pdf"] == written["y.pdf"]

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(sample.route_map(2, 2, 2), tmp_path / "new/y")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == written


def test_rows_are_tasks_and_columns_are_experts_of_layers():
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values_NLE = routes(3, 4, 3, tasks=tasks).values_NLE
    heat, strips, bar = sample.route_map(3, 4, 3, tasks=tasks).axes
    assert texts_of(strips.get_yticklabels()) == tasks
    assert np.allclose(heat.images[0].get_array(), values_NLE.reshape(3, 12))
    assert heat.images[0].get_clim() == (0, 1)
    assert strips.get_ylim() == heat.get_ylim() == (3, 0)
    assert texts_of(heat.texts) == ["enc 0", "enc 1", "dec 0", "dec 1"]
    assert texts_of(heat.get_xticklabels()) == ["0", "1", "2"] * 4
    assert bar.get_title(loc="left") == "weight of the expert"
    long = sample.route_map(41, 2, 2).axes[0]  # has the names below as well
    assert texts_of(long.texts) == ["enc 0", "enc 0", "dec 0", "dec 0"]


def test_task_drops_are_at_their_task_and_expert():
    table = sample.task_drops(5, ["enc 0", "dec 0"], 3)
    drops = table[table["task"] == ONTOLOGY.tasks[1]].set_index(["layer", "expert"])["drop"]
    drawn = heat_maps.plot_task_drops(table, ONTOLOGY).axes[0].images[0].get_array()
    expected = [drops[layer, expert] for layer in ("enc 0", "dec 0") for expert in range(3)]
    assert drawn[1].tolist() == pytest.approx(expected)


def test_rows_are_in_cluster_order_and_branches_of_one_category_have_its_colour():
    tasks = ["boolq", "glue-rte", "unheard-of", "anli"]  # similar: anli and glue-rte; boolq and unheard-of
    similarity_NN = np.full((4, 4), 0.2)
    similarity_NN[1, 3] = similarity_NN[3, 1] = 0.9
    similarity_NN[0, 2] = similarity_NN[2, 0] = 0.8
    np.fill_diagonal(similarity_NN, 1.0)
    figure = heat_maps.plot_clustered(similarity_NN, tasks, ONTOLOGY, heat_maps.OVERLAP)
    tree, heat, beside, above = figure.axes[:4]
    names = texts_of(beside.get_yticklabels())
    rows = [tasks.index(name) for name in names]
    assert rows == leaves_list(cluster_tasks(similarity_NN, tasks, ONTOLOGY)).tolist()
    assert np.allclose(heat.images[0].get_array(), similarity_NN[np.ix_(rows, rows)])
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    branches = [
        (to_hex(branch.get_color()[0]), path.vertices)
        for branch in tree.collections
        for path in branch.get_paths()
    ]
    category = to_hex(strips[names.index("anli"), 0])
    mixed = to_hex(heat_maps.MIXED)
    assert sorted(colour for colour, _ in branches) == sorted([category, mixed, mixed])
    # The branch of anli and glue-rte is at 1 - 0.9 and joins the middles of their rows.
    (corners,) = [corners for colour, corners in branches if colour == category]
    middles = sorted(names.index(name) + 0.5 for name in ("anli", "glue-rte"))
    assert sorted(set(corners[:, 1] / 10)) == pytest.approx(middles)
    assert corners[:, 0].max() == pytest.approx(0.1)
    assert tree.get_position().intervaly.tolist() == heat.get_position().intervaly.tolist()


def test_transfer_shows_help_and_harm_on_a_scale_around_0_in_the_order_of_the_affinity():
    losses_NN = np.array([[0.1, 1.0, 3.0], [2.0, 0.1, 4.0], [5.0, 6.0, 0.1]])
    affinity_NN, tasks = np.eye(3), ["boolq", "glue-rte", "anli"]
    _, heat, beside = heat_maps.plot_transfer(losses_NN, affinity_NN, tasks, ONTOLOGY).axes[:3]
    rows = [tasks.index(name) for name in texts_of(beside.get_yticklabels())]
    drawn = heat.images[0].get_array().filled(np.nan)
    saved_NN = np.array([[np.nan, 0, -2], [0, np.nan, -2], [0, -1, np.nan]])  # of the median of the row
    assert np.array_equal(drawn, saved_NN[np.ix_(rows, rows)], equal_nan=True)
    low, high = heat.images[0].get_clim()
    assert low == -high
    lost, none = heat.images[0].cmap((-2 - low) / (high - low)), heat.images[0].cmap(0.5)
    assert lost[0] > lost[2]  # red
    assert min(none[:3]) > 0.95  # white


def test_correlations_are_at_their_feature_and_expert():
    table, drawn_routes, features = sample.correlated(4, 3, 12)
    heat = heat_maps.plot_correlations(table, drawn_routes, features).axes[0]
    cells = [
        (features.names.index(row.feature), drawn_routes.layers.index(row.layer) * 3 + row.expert)
        for row in table.itertuples()
    ]
    drawn = heat.images[0].get_array()
    assert [drawn[cell] for cell in cells] == pytest.approx(table["r"].tolist())
    empty = heat_maps.plot_correlations(table.iloc[:0], drawn_routes, features).axes[0]
    assert np.isnan(empty.images[0].get_array().filled(np.nan)).all()


def test_a_comparison_has_a_dot_for_each_run_and_shows_n():
    per_run, table = sample.compared(["a", "b"], 2, 3)
    panel = dots.plot_comparison(per_run, table).axes[0]
    drawn = [line.get_xdata().tolist() for line in panel.lines if "one run" in line.get_label()]
    everything = per_run[per_run["category"] == "all"]
    assert drawn == [everything.loc[everything["variant"] == v, "mean"].tolist() for v in ("a", "b")]
    names = ["a, n=3", "b, n=2", "constant answer", "random option", "copied input"]
    assert texts_of(panel.get_yticklabels()) == names
    assert [text.strip() for text in texts_of(panel.texts)] == ["◂ 0.05", "0.50", "0.90 ▸"]


def bars_of(axes) -> dict:
    """{row: length of the bar}, without the shading of every second row."""
    bars = [bar for bar in axes.patches if bar.get_height() < 1]
    return {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in bars}


def test_bars_are_sorted_gains_and_tasks_without_gain_have_numbers():
    per_task, per_system = sample.gain_tables(6, 2)
    figure = dots.plot_gains(per_task, per_system, "base")
    first, second = figure.axes
    gains = per_task[per_task["system"] == "system_0"].set_index("task")["relative_gain"]
    gains = gains.sort_values(ascending=False)
    names = [task if gain == gain else f"{task} †" for task, gain in gains.items()]
    assert texts_of(first.get_yticklabels())[:5] == ["ARG", *names[:4]]
    assert sorted(texts_of(first.get_yticklabels())[5:]) == sorted(names[4:])
    assert bars_of(first) == pytest.approx(dict(enumerate(gains.dropna(), start=1)))
    assert all(text.endswith(" †") for text in texts_of(first.texts))
    assert len(first.texts) == gains.isna().sum()
    assert first.get_title().startswith("system_0\nARG ")
    assert first.get_xlim() == second.get_xlim()
    below = figure.legends[0].get_title().get_text().splitlines()
    assert below[0] == "relative gain over base; ARG: its mean over 4 of 6 tasks"
    assert below[1].startswith("† baseline at or below 0.01")


def test_a_variant_has_one_colour_in_all_pictures_and_others_share_none_of_these():
    names = ["dense", "dense_flops", "learned", "cross_loss", "oracle", "mine", "one_shot"]
    colours = [style["color"] for style in series(names)]
    assert colours[0] == colours[1]
    assert len(set(colours)) == 6
    for start in range(1, len(names)):
        assert [style["color"] for style in series(names[start:5])] == colours[start:5]
    table = pd.DataFrame({"variant": ["mine", "oracle"] * 2, "run": list("abcd"), "step": 1, "flops": 1.0})
    steps, _ = lines.plot_curves(table.assign(dev_score=0.5)).axes
    drawn = {line.get_label(): line.get_color() for line in steps.lines}
    assert drawn["oracle"] == colours[4]


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s")]


def test_loads_are_the_measures_of_each_layer():
    one_hot = np.eye(2)[[[0, 1], [0, 1], [0, 0], [0, 0]]]  # layer 0: all to expert 0; layer 1: half and half
    run = SavedRoutes("run", ("a", "b", "c", "d"), ("enc 0", "dec 0"), one_hot, 7)
    *measures, loads = lines.plot_load([run]).axes
    measured = [marks(axes)[0].get_ydata().tolist() for axes in measures]
    assert measured == [pytest.approx(values) for values in ([0, 0], [0, 1], [0, 1])]
    first, second = marks(loads)  # of each expert, side by side
    assert first.get_ydata().tolist() == pytest.approx([1, 0.5])
    assert second.get_ydata().tolist() == pytest.approx([0, 0.5])
    assert (first.get_xdata() < second.get_xdata()).all()
