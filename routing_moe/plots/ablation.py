"""What switching experts off costs: a map of experts and categories, and dots of features against chance.

plot_category_drops(categories, "categories.png")
plot_feature_drops(features, "features.pdf", top=3)
"""

from __future__ import annotations

import math
import os
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.tables import drawn
from routing_moe.analysis.saved_routes import encoder_part
from routing_moe.plots.route_map import draw_routes
from routing_moe.plots.style import (
    BAR_ROOM,
    BAR_WIDTH,
    CATEGORY_COLOURS,
    DARK,
    EDGE,
    FONT,
    MARGIN,
    SMALL,
    WIDTH,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_scale,
    draw_title,
    mappable_of,
    shown_name,
    text_width,
    write_figure,
)

COLOURS = "RdBu_r"  # red: it cost something; told apart by the colour-blind, and every cell has its number
ROW, COLUMN = 0.165, 0.52
DOT_ROW = 0.2
TITLE = 0.7  # of the size in other pictures


def plot_category_drops(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """A map with a row per expert, a column per category, and 100 times the mean drop in each cell.

    table: `ablation_tables.category_drops`. PDF or PNG as `path` ends; the same table gives the same bytes.
    """
    path = Path(path)
    check_picture_name(path)
    wide = table.pivot_table(
        index=["layer", "expert"], columns="category", values="drop", sort=False, observed=True
    )
    wide = 100 * wide[["all", *(name for name in wide if name != "all")]]
    layers = list(dict.fromkeys(wide.index.get_level_values("layer")))
    left = EDGE + text_width("enc 00", FONT) + 0.25
    right = 0.71 * text_width(wide.columns[-1], FONT)
    width = left + max(COLUMN * wide.shape[1] + right, BAR_WIDTH + 0.3) + EDGE
    wrapped, over = _heading(title, width)
    top = over + BAR_ROOM + 0.1 + 0.71 * max(text_width(name, FONT) for name in wide)
    figure = Figure(figsize=(width, top + ROW * len(wide) + EDGE))
    FigureCanvasAgg(figure)
    end = max(1.0, math.ceil(np.nanmax(np.abs(wide.to_numpy()))))
    scale = HeatScale("mean drop of the score x 100", COLOURS, -end, end)
    axes = axes_at(figure, left, top, COLUMN * wide.shape[1], ROW * len(wide))
    _draw_cells(axes, wide, mappable_of(scale))
    _name_experts(axes, wide, layers)
    draw_scale(figure, left, over, scale)
    if wrapped:
        draw_title(figure, wrapped, TITLE)
    write_figure(figure, path)


def _heading(title: str | None, width: float) -> tuple[str, float]:
    """(the title in lines that fit so many inches, inches from the upper edge to what is below it)."""
    if not title:
        return "", EDGE
    letter = text_width("n" * 20, 11 * TITLE) / 20
    wrapped = textwrap.fill(title, max(20, int((width - 2 * MARGIN * TITLE) / letter)))
    return wrapped, MARGIN * TITLE + 0.14 * (wrapped.count("\n") + 1) + 0.08


def _draw_cells(axes, wide: pd.DataFrame, scale: ScalarMappable) -> None:
    rows, columns = wide.shape
    axes.imshow(
        wide.to_numpy(), cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest",
        extent=(0, columns, rows, 0),
    )  # fmt: skip
    for (row, column), drop in np.ndenumerate(wide.to_numpy()):
        dark = abs(drop) > 0.6 * scale.norm.vmax
        text = f"{drop:.1f}" if round(drop, 1) else "0"
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL,
            color="white" if dark else DARK,
        )  # fmt: skip
    axes.axvline(1, color=DARK, linewidth=1.0)  # "all" stands apart


def _name_experts(axes, wide: pd.DataFrame, layers: list[str]) -> None:
    rows, columns = wide.shape
    axes.set_yticks(np.arange(rows) + 0.5, [str(expert) for _, expert in wide.index], fontsize=SMALL)
    axes.tick_params(axis="both", length=0, pad=2)
    per_layer = wide.index.get_level_values("layer")
    for layer in layers:
        own = np.flatnonzero(per_layer == layer)
        axes.annotate(
            layer, (0, own.mean() + 0.5), xytext=(-14, 0), textcoords="offset points", ha="right",
            va="center", fontsize=FONT,
        )  # fmt: skip
        if own[-1] + 1 < rows:
            axes.axhline(own[-1] + 1, color="0.45", linewidth=0.6)
    axes.set_xticks(np.arange(columns) + 0.5, wide.columns, rotation=45, ha="left", fontsize=FONT)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=1)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
        label.set_rotation_mode("anchor")


# ---------------------------------------------------------------------------- features


def plot_feature_drops(
    table: pd.DataFrame, path: str | os.PathLike, top: int, title: str | None = None
) -> None:
    """A row per feature: the drop without its top experts on tasks with it and without it, and, as a bar of
    mean ± sample std, the drop of the tasks with it without as many others that they use as much, if any.

    table: `ablation_tables.feature_table`. PDF or PNG as `path` ends.
    """
    path = Path(path)
    check_picture_name(path)
    table = table[table["group"].isin(["with feature", "without feature"])]
    names = list(dict.fromkeys(table["feature"]))
    left = EDGE + max([text_width(shown_name(name), FONT) for name in names], default=0.0) + 0.1
    (wrapped, over), under = _heading(title, WIDTH), 0.75
    height = over + DOT_ROW * (len(names) + 0.4) + under
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    axes = axes_at(figure, left, over, WIDTH - left - 3 * EDGE, DOT_ROW * (len(names) + 0.4))
    for number, name in enumerate(names):
        own = table[table["feature"] == name].set_index("group")
        _draw_feature(axes, number, own)
    axes.set(ylim=(len(names) - 0.3, -0.7))
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    axes.set_yticks(range(len(names)), [shown_name(name) for name in names], fontsize=FONT)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.tick_params(axis="x", labelsize=SMALL, length=2.5, width=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("mean drop of the score", fontsize=FONT, labelpad=2)
    figure.legend(
        handles=_key(top, drawn(table)), loc="lower left", ncols=2, fontsize=SMALL, frameon=False,
        bbox_to_anchor=(0.0, 0.0), handletextpad=0.3, columnspacing=1.2, borderaxespad=0.3,
    )  # fmt: skip
    if wrapped:
        draw_title(figure, wrapped, TITLE)
    write_figure(figure, path)


def _draw_feature(axes, number: int, own: pd.DataFrame) -> None:
    if number % 2:
        axes.axhspan(number - 0.5, number + 0.5, color="0.955", linewidth=0, zorder=0)
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


def _key(top: int, draws: str) -> list[Line2D]:
    return [
        Line2D([], [], label=f"its top {top} experts off: tasks with the feature", **_dot(True)),
        Line2D([], [], label="tasks without it", **_dot(False)),
        Line2D([], [], label=f"{top} others of like weight off: tasks with it", **_TICK),
        Line2D([], [], label=f"± std over {draws} sets", **(_BAR | {"linewidth": 3})),
    ]


# ---------------------------------------------------------------------------- tasks


def plot_task_drops(
    table: pd.DataFrame, ontology: Ontology, path: str | os.PathLike, title: str | None = None
) -> None:
    """The map of routes with, in place of weights, what each task's score loses without the expert.

    table: `ablation_tables.task_table` of every expert of the layers in it. PDF or PNG as `path` ends.
    """
    path = Path(path)
    check_picture_name(path)
    tasks, layers = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["layer"]))
    experts = table["expert"].nunique()
    grid = table.set_index(["task", "layer", "expert"])["drop"]
    drops_NLE = np.array([[[grid[t, la, e] for e in range(experts)] for la in layers] for t in tasks])
    end = max(0.01, float(np.nanmax(np.abs(drops_NLE))))
    picture = draw_routes(
        drops_NLE, tasks, ontology, encoder_part(layers), title, layers,
        HeatScale("drop of the score", COLOURS, -end, end),
    )  # fmt: skip
    write_figure(picture.figure, path)
