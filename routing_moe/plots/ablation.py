"""Drops of scores by ablation: a heat map of experts and categories, dots of features.

plot_category_drops(categories, "categories.png")
plot_feature_drops(features, "features.pdf", top=3)
plot_task_drops(tasks, Ontology.load(), "tasks.png")
"""

from __future__ import annotations

import math
import os

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from dataloader.ontology import Ontology
from routing_moe.analysis.saved_routes import encoder_part
from routing_moe.plots.heat_map import draw_colour_bar, draw_heat, heat_map, name_rows
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import (
    DARK,
    FONT,
    PAPER_STYLE,
    SMALL,
    HeatScale,
    dot,
    dot_legend,
    dot_panels,
    write_figure,
)

COLOURS = "RdBu_r"  # red: a loss; distinct for the colour-blind, and every cell has its number
ROW, COLUMN, FEATURE_ROW = 0.165, 0.52, 0.2  # inches
ZOOM = 0.7  # of title and margin, compared with other heat maps
DOTS = {
    "with feature": dot(size=4.4),
    "without feature": dot(filled=False, marker="D", size=3.6),
}


def plot_category_drops(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes a heat map, a row per expert and a column per category; cells show 100 times the mean drop.

    table: `ablation.tables.category_drops`. PDF or PNG as `path` ends.
    """
    wide = table.pivot_table(
        index=["layer", "expert"], columns="category", values="drop", sort=False, observed=True
    )
    wide = 100 * wide[["all", *(name for name in wide if name != "all")]]
    end = max(1.0, math.ceil(np.nanmax(np.abs(wide.to_numpy()))))
    scale = HeatScale("mean drop of the score x 100", COLOURS, -end, end)
    height = ROW * len(wide)
    with heat_map(path, title, ZOOM) as figure:
        axes = draw_heat(figure, (0.0, 0.0, COLUMN * wide.shape[1], height), wide.to_numpy(), scale)
        _write_cells(axes, wide, end)
        _name_experts(axes, wide)
        draw_colour_bar(figure, 0, height + 0.1, scale)


def _write_cells(axes: Axes, wide: pd.DataFrame, end: float) -> None:
    for (row, column), drop in np.ndenumerate(wide.to_numpy()):
        text = f"{drop:.1f}" if round(drop, 1) else "0"
        colour = "white" if abs(drop) > 0.6 * end else DARK
        axes.text(column + 0.5, row + 0.5, text, color=colour, ha="center", va="center", fontsize=SMALL)
    axes.axvline(1, color=DARK, linewidth=1.0)  # separates "all"


def _name_experts(axes: Axes, wide: pd.DataFrame) -> None:
    """Experts and layers on the left, categories above."""
    name_rows(axes, [str(expert) for _, expert in wide.index], SMALL)
    layer_of_row = wide.index.get_level_values("layer")
    for layer in dict.fromkeys(layer_of_row):
        rows = np.flatnonzero(layer_of_row == layer)
        axes.annotate(
            layer, (0, rows.mean() + 0.5), xytext=(-14, 0), textcoords="offset points", ha="right",
            va="center", fontsize=FONT,
        )  # fmt: skip
        if rows[-1] + 1 < len(wide):
            axes.axhline(rows[-1] + 1, color="0.45", linewidth=0.6)
    axes.set_xticks(
        np.arange(wide.shape[1]) + 0.5, wide.columns, rotation=45, ha="left", fontsize=FONT,
        rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(axis="x", length=0, pad=1, labeltop=True, labelbottom=False)


# ---------------------------------------------------------------------------- features


@rc_context(PAPER_STYLE)
def plot_feature_drops(
    table: pd.DataFrame, path: str | os.PathLike, top: int, title: str | None = None
) -> None:
    """Writes dots in a row per feature: drops by ablation of its top experts, on tasks with and without it.

    table: `ablation.tables.feature_table`. PDF or PNG as `path` ends.
    """
    table = table[table["group"].isin(DOTS)]
    names = list(dict.fromkeys(table["feature"]))
    figure, (axes,) = dot_panels(names, [""], FEATURE_ROW, 1.0, title)
    for row in table.itertuples():
        axes.plot([row.drop], [names.index(row.feature)], **DOTS[row.group])
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    axes.set_xlabel("mean drop of the score")
    labels = (f"top {top} experts ablated: tasks with the feature", "tasks without it")
    dot_legend(figure, dict(zip(labels, DOTS.values(), strict=True)), columns=2)
    write_figure(figure, path)


# ---------------------------------------------------------------------------- tasks


def plot_task_drops(
    table: pd.DataFrame, ontology: Ontology, path: str | os.PathLike, title: str | None = None
) -> None:
    """Writes a route map that shows the drop of each task's score by ablation of the expert, not its weight.

    table: `ablation.tables.task_table` of every expert of the layers in it. PDF or PNG as `path` ends.
    """
    tasks, layers = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["layer"]))
    experts = table["expert"].nunique()
    grid = table.set_index(["task", "layer", "expert"])["drop"]
    drops_NLE = np.array([[[grid[t, la, e] for e in range(experts)] for la in layers] for t in tasks])
    end = max(0.01, float(np.nanmax(np.abs(drops_NLE))))
    scale = HeatScale("drop of the score", COLOURS, -end, end)
    plot_routes(drops_NLE, tasks, ontology, path, encoder_part(layers), title, layers, scale)
