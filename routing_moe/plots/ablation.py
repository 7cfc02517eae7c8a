"""Drops of scores by ablation: a heat map of experts and categories, dots of features and random experts.

plot_category_drops(categories, "categories.png")
plot_feature_drops(features, "features.pdf", top=3)
plot_task_drops(tasks, Ontology.load(), "tasks.png")
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.result_files import drawn
from routing_moe.analysis.saved_routes import encoder_part
from routing_moe.plots.dot_panels import dot_panels
from routing_moe.plots.route_map import route_map
from routing_moe.plots.style import (
    CATEGORY_COLOURS,
    DARK,
    FONT,
    PAPER_STYLE,
    SMALL,
    STYLE,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_colour_bar,
    draw_heat,
    fit_figure,
    map_figure,
    write_figure,
)
from routing_moe.plots.task_categories import name_rows

COLOURS = "RdBu_r"  # red: a loss; distinct for the colour-blind, and every cell has its number
ROW, COLUMN, FEATURE_ROW = 0.165, 0.52, 0.2  # inches
ZOOM = 0.7  # of title and margin, compared with other heat maps


@rc_context(STYLE)
def plot_category_drops(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes a heat map, a row per expert and a column per category; cells show 100 times the mean drop.

    table: `ablation.tables.category_drops`. PDF or PNG as `path` ends; the same table gives the same bytes.
    """
    path = Path(path)
    check_picture_name(path)
    wide = table.pivot_table(
        index=["layer", "expert"], columns="category", values="drop", sort=False, observed=True
    )
    wide = 100 * wide[["all", *(name for name in wide if name != "all")]]
    end = max(1.0, math.ceil(np.nanmax(np.abs(wide.to_numpy()))))
    scale = HeatScale("mean drop of the score x 100", COLOURS, -end, end)
    height, width = ROW * wide.shape[0], COLUMN * wide.shape[1]
    figure = map_figure()
    axes = axes_at(figure, 0, 0, width, height)
    draw_heat(axes, wide.to_numpy(), scale)
    _write_cells(axes, wide, end)
    _name_experts(axes, wide)
    draw_colour_bar(figure, 0, height + 0.1, scale)
    fit_figure(figure, title, ZOOM)
    write_figure(figure, path)


def _write_cells(axes: Axes, wide: pd.DataFrame, end: float) -> None:
    for (row, column), drop in np.ndenumerate(wide.to_numpy()):
        text = f"{drop:.1f}" if round(drop, 1) else "0"
        colour = "white" if abs(drop) > 0.6 * end else DARK
        place = dict(ha="center", va="center", fontsize=SMALL)
        axes.text(column + 0.5, row + 0.5, text, color=colour, **place)
    axes.axvline(1, color=DARK, linewidth=1.0)  # separates "all"


def _name_experts(axes: Axes, wide: pd.DataFrame) -> None:
    """Experts and layers on the left, categories above."""
    name_rows(axes, [str(expert) for _, expert in wide.index], SMALL)
    layer_of_row = wide.index.get_level_values("layer")
    for layer in dict.fromkeys(layer_of_row):
        own = np.flatnonzero(layer_of_row == layer)
        axes.annotate(
            layer, (0, own.mean() + 0.5), xytext=(-14, 0), textcoords="offset points", ha="right",
            va="center", fontsize=FONT,
        )  # fmt: skip
        if own[-1] + 1 < len(wide):
            axes.axhline(own[-1] + 1, color="0.45", linewidth=0.6)
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

    A bar, mean ± sample std, shows the drop of tasks with the feature by ablation of random experts, if any.
    table: `ablation.tables.feature_table`. PDF or PNG as `path` ends.
    """
    path = Path(path)
    check_picture_name(path)
    table = table[table["group"].isin(["with feature", "without feature"])]
    names = list(dict.fromkeys(table["feature"]))
    figure, (axes,) = dot_panels(names, [""], FEATURE_ROW, 1.0, title)
    for number, name in enumerate(names):
        _draw_feature(axes, number, table[table["feature"] == name].set_index("group"))
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    axes.set_xlabel("mean drop of the score")
    handles = {
        f"top {top} experts ablated: tasks with the feature": _dot(True),
        "tasks without it": _dot(False),
        f"{top} random experts of similar weight ablated: tasks with it": _TICK,
        f"± std over {drawn(table)} draws": _BAR | {"linewidth": 3},
    }
    lines = [Line2D([], [], **style) for style in handles.values()]
    figure.legend(lines, list(handles), loc="outside lower center", ncols=2)
    write_figure(figure, path)


def _draw_feature(axes: Axes, number: int, own: pd.DataFrame) -> None:
    if "with feature" in own.index:
        row = own.loc["with feature"]
        if np.isfinite(row.random_mean):
            spread = 0.0 if np.isnan(row.random_std) else row.random_std
            axes.plot([row.random_mean - spread, row.random_mean + spread], [number] * 2, **_BAR)
            axes.plot([row.random_mean], [number], **_TICK)
        axes.plot([row["drop"]], [number], **_dot(True))
    if "without feature" in own.index:
        axes.plot([own.loc["without feature", "drop"]], [number], **_dot(False))


_BAR = dict(color="0.62", linewidth=4.0, solid_capstyle="butt", zorder=2)
_TICK = dict(color=DARK, marker="|", markersize=7, markeredgewidth=1.0, linestyle="", zorder=3)


def _dot(filled: bool) -> dict:
    blue = CATEGORY_COLOURS[0]
    return dict(
        linestyle="", marker="o" if filled else "D", markersize=4.4 if filled else 3.6, zorder=4,
        color=blue if filled else "white", markeredgecolor=blue, markeredgewidth=0.9,
    )  # fmt: skip


# ---------------------------------------------------------------------------- tasks


def plot_task_drops(
    table: pd.DataFrame, ontology: Ontology, path: str | os.PathLike, title: str | None = None
) -> None:
    """Writes a route map that shows the drop of each task's score by ablation of the expert, not its weight.

    table: `ablation.tables.task_table` of every expert of the layers in it. PDF or PNG as `path` ends.
    """
    path = Path(path)
    check_picture_name(path)
    tasks, layers = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["layer"]))
    experts = table["expert"].nunique()
    grid = table.set_index(["task", "layer", "expert"])["drop"]
    drops_NLE = np.array([[[grid[t, la, e] for e in range(experts)] for la in layers] for t in tasks])
    end = max(0.01, float(np.nanmax(np.abs(drops_NLE))))
    scale = HeatScale("drop of the score", COLOURS, -end, end)
    picture = route_map(drops_NLE, tasks, ontology, encoder_part(layers), title, layers, scale)
    write_figure(picture.figure, path)
