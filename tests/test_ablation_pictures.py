"""Pictures of drops by ablation and of correlations: every value is at its row and column."""

import pytest
from sample_pictures import ONTOLOGY, category_drops, correlated, feature_drops, task_drops

from routing_moe.plots.ablation import plot_category_drops, plot_feature_drops, plot_task_drops
from routing_moe.plots.correlations import plot_correlations


def test_category_drops_are_in_hundredths_at_their_expert_and_category(figures):
    table = category_drops(["enc 0", "dec 0"], 3, ["sentiment", "qa"])
    plot_category_drops(table, "drops.png")
    heat = figures[0].axes[0]
    drops = table.set_index(["layer", "expert", "category"])["drop"]
    columns = [label.get_text() for label in heat.get_xticklabels()]
    assert columns == ["all", "sentiment", "qa"]
    written = iter(heat.texts)
    for row, (layer, expert) in enumerate((la, e) for la in ("enc 0", "dec 0") for e in range(3)):
        for column, category in enumerate(columns):
            expected = 100 * drops[layer, expert, category]
            assert heat.images[0].get_array()[row, column] == pytest.approx(expected)
            assert float(next(written).get_text()) == pytest.approx(expected, abs=0.051)
    assert [text.get_text() for text in written] == ["enc 0", "dec 0"]


def test_feature_drops_are_dots_beside_the_random_experts_mean_and_std(figures):
    table = feature_drops(["skill:a", "skill:b"])
    table.loc[table["group"] == "without feature", "drop"] = -0.2
    plot_feature_drops(table, "features.png", 3)
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["skill:a", "skill:b"]
    found = {
        marker: [(float(line.get_xdata()[0]), int(line.get_ydata()[0])) for line in axes.lines
                 if line.get_marker() == marker]
        for marker in "oD|"
    }  # fmt: skip
    assert found == {
        "o": [(0.0, 0), (0.1, 1)],
        "D": [(-0.2, 0), (-0.2, 1)],
        "|": [(0.05, 0), (0.05, 1)],
    }
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 4]
    assert [list(bar) for bar in bars] == [pytest.approx([0.03, 0.07])] * 2
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[0] == "top 3 experts ablated: tasks with the feature"
    assert texts[-1] == "± std over 19 to 20 draws"


def test_task_drops_are_at_their_task_and_expert(figures):
    table = task_drops(5, ["enc 0", "dec 0"], 3)
    plot_task_drops(table, ONTOLOGY, "tasks.png")
    shown = figures[0].axes[0].images[0].get_array()
    own = table[table["task"] == ONTOLOGY.order(ONTOLOGY.tasks[:5])[1]]["drop"]
    assert list(shown[1]) == pytest.approx(own.tolist())


def test_correlations_are_at_their_feature_and_expert_with_dots_where_q_is_small(figures):
    table, routes, features = correlated(4, 3, 12)
    table["q"], table["q_by"] = 0.5, 0.9
    table.loc[7, "q"] = 0.01
    table.loc[9, ["q", "q_by"]] = 0.01
    plot_correlations(table, routes, features, "correlations.png")
    heat = figures[0].axes[0]
    places = [
        (features.names.index(row.feature), routes.layers.index(row.layer) * 3 + row.expert)
        for row in table.itertuples()
    ]
    drawn = heat.images[0].get_array()
    assert [drawn[place] for place in places] == pytest.approx(table["r"].tolist())
    dots = {
        (float(y), float(x)): line.get_markersize()
        for line in heat.lines if line.get_marker() == "."
        for x, y in line.get_xydata()
    }  # fmt: skip
    (small, large) = ((places[n][0] + 0.5, places[n][1] + 0.5) for n in (7, 9))
    assert set(dots) == {small, large}
    assert dots[large] > dots[small]
