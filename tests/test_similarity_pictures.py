"""Heat maps of similarities and dots of agreement: what is drawn where, and bad input."""

import numpy as np
import pytest
from sample_pictures import LONG, ONTOLOGY, agreement, panels

from routing_moe.plots.agreement import plot_agreement
from routing_moe.plots.similarity import Panel, plot_similarities
from routing_moe.plots.style import HeatScale


@pytest.mark.parametrize(("names", "rows"), [([LONG], 1), (["a", LONG, "c", "d"], 2)])
def test_heat_maps_are_squares_and_at_most_three_are_side_by_side(figures, names, rows):
    plot_similarities(panels(5, names), ONTOLOGY.tasks[-5:], ONTOLOGY, "map.png")
    heats = [axes.get_window_extent() for axes in figures[0].axes[: 3 * len(names) : 3]]
    assert all(box.width == pytest.approx(box.height) for box in heats)
    assert len({round(box.y0) for box in heats}) == rows


def test_maps_are_in_the_given_order_and_named_left_of_each_row_of_maps(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values_NN = np.arange(9.0).reshape(3, 3) / 9
    four = [Panel(name, f"note of {name}", values_NN) for name in "abcd"]
    plot_similarities(four, tasks, ONTOLOGY, "map.png")
    heat, beside, above, heat_b, beside_b = figures[0].axes[:5]
    assert np.array_equal(heat.images[0].get_array(), values_NN)
    assert heat.images[0].get_clim() == (-1.0, 1.0)
    assert [label.get_text() for label in beside.get_yticklabels()] == tasks
    assert beside_b.get_yticklabels() == []
    assert len(figures[0].axes[7].get_yticklabels()) == 3
    strips = beside.images[0].get_array()
    assert np.array_equal(above.images[0].get_array(), strips.swapaxes(0, 1))
    assert [text.get_text() for text in above.texts] == ["a"]
    assert above.get_title() == "note of a"
    assert heat_b.get_position().y0 == heat.get_position().y0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no panel"),
        (panels(2, "a"), "shape \\(2, 2\\) for 3 tasks"),
        ([Panel("a", "", np.full((3, 3), np.nan))], "not finite"),
    ],
)
def test_panels_that_do_not_fit_are_an_error(given, message):
    with pytest.raises(ValueError, match=message):
        plot_similarities(given, ["boolq", "imdb", "anli"], ONTOLOGY, "x.png", HeatScale())


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
    assert [[text.get_text() for text in axes.texts] for axes in (first, second)] == [["-"], []]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
