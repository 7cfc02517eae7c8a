"""Heat maps of similarities and dots of agreement: in order, complete, nothing cut off or overlapping."""

import numpy as np
import pandas as pd
import pytest
from conftest import assert_apart_and_inside

from dataloader.ontology import Ontology
from routing_moe.plots import similarity
from routing_moe.plots.similarity import Panel, plot_agreement, plot_similarities
from routing_moe.plots.style import HeatScale

ONTOLOGY = Ontology.load()


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, kept instead of written."""
    kept = []
    monkeypatch.setattr(similarity, "write_figure", lambda figure, path: kept.append(figure))
    return kept


def panels(n_tasks, names):
    draw = np.random.default_rng(0)
    return [
        Panel(name, "category: accuracy 0.12, chance 0.34", draw.uniform(-1, 1, (n_tasks, n_tasks)))
        for name in names
    ]


LONG = "models/a-rather-long-name-of-a-run_with_all_its-settings/best"


@pytest.mark.parametrize("names", [[LONG], ["a", LONG, "c", "d"]])
@pytest.mark.parametrize("n_tasks", [5, 160])
def test_nothing_overlaps_and_nothing_is_cut_off(figures, n_tasks, names):
    tasks = ONTOLOGY.tasks[-n_tasks:]
    plot_similarities(panels(n_tasks, names), tasks, ONTOLOGY, "map.png", title="Similarity " * 12)
    figure = figures[0]
    *texts, title = figure.texts
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [text.get_window_extent() for text in texts]
    assert len(figure.axes) == 3 * len(names) + 2
    assert_apart_and_inside(figure, [*boxes, title.get_window_extent()])
    heats = [axes.get_window_extent() for axes in figure.axes[: 3 * len(names) : 3]]
    assert all(box.width == pytest.approx(box.height) for box in heats)
    assert len({round(box.y0) for box in heats}) == (1 if len(names) == 1 else 2)


def test_maps_are_in_the_ontology_s_order_and_names_stand_left_of_each_row(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values_NN = np.arange(9.0).reshape(3, 3) / 9
    four = [Panel(name, "", values_NN) for name in "abcd"]
    plot_similarities(four, tasks, ONTOLOGY, "map.png")
    heat, beside, above, heat_b, beside_b = figures[0].axes[:5]
    assert np.allclose(heat.images[0].get_array(), values_NN[np.ix_([2, 0, 1], [2, 0, 1])])
    assert heat.images[0].get_clim() == (-1.0, 1.0)
    assert [label.get_text() for label in beside.get_yticklabels()] == ["glue-rte", "boolq", "unheard-of"]
    assert beside_b.get_yticklabels() == []
    third = figures[0].axes[7]
    assert len(third.get_yticklabels()) == 3
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    assert heat_b.get_position().y0 == heat.get_position().y0


def agreement_rows(names, kinds):
    draw = np.random.default_rng(0)
    rows = [(name, kind, 36, 3, *draw.uniform(size=3)) for name in names for kind in kinds]
    return pd.DataFrame(rows, columns=["vectors", "labelling", "scored", "k", "accuracy", "chance", "p"])


@pytest.mark.parametrize("names", [["a"], ["text", "fisher", LONG, "d"]])
@pytest.mark.parametrize("kinds", [["category", "subcategory"], [f"a kind, number {i}" for i in range(9)]])
def test_dots_lie_apart_and_inside(figures, names, kinds):
    table = agreement_rows(names, kinds)
    table.loc[0, ["accuracy", "chance", "p"]] = np.nan
    plot_agreement(table, "dots.png", "Agreement " * 12)
    figure = figures[0]
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [figure.legends[0].get_window_extent(), figure.texts[0].get_window_extent()]
    assert_apart_and_inside(figure, boxes)
    assert [text.get_text() for text in figure.axes[0].texts] == ["-"]
    assert figure.axes[0].get_title() == f"{kinds[0]} (36)"


def test_a_dot_is_hollow_where_chance_may_have_done_as_well(figures):
    table = agreement_rows(["a", "b"], ["category"]).assign(p=[0.2, 0.01], accuracy=[0.4, 0.6])
    plot_agreement(table, "dots.png")
    dots = [line for line in figures[0].axes[0].lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.4, 0.6]
    assert [dot.get_color() == "white" for dot in dots] == [True, False]


def test_the_same_values_give_the_same_bytes(tmp_path):
    for kind in ("png", "pdf"):
        paths = [tmp_path / f"{i}.{kind}" for i in range(2)]
        for path in paths:
            plot_similarities(panels(3, ["$x_{", "b"]), ["boolq", "$y_{", "imdb"], ONTOLOGY, path, title="$")
        assert paths[0].read_bytes() == paths[1].read_bytes()
        for path in paths:
            plot_agreement(agreement_rows(["$x_{"], ["category"]), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("drawn", "name", "message"),
    [
        ([], "x.png", "no panel"),
        (panels(2, "a"), "x.png", "shape \\(2, 2\\) for 3 tasks"),
        ([Panel("a", "", np.full((3, 3), np.nan))], "x.png", "not finite"),
        (panels(3, "a"), "x.svg", "must end in .png or .pdf"),
    ],
)
def test_what_does_not_fit_is_refused(drawn, name, message):
    with pytest.raises(ValueError, match=message):
        plot_similarities(drawn, ["boolq", "imdb", "anli"], ONTOLOGY, name, HeatScale())
