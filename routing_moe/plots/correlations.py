"""The map of correlations: a row per feature, a column per expert of every layer, a dot where q is small.

The dot is larger where q_by is small too.

plot_correlations(table, routes, features, "correlations.pdf")
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.plots.route_map import EXPERT_LABELS_FROM
from routing_moe.plots.style import (
    BAR_WIDTH,
    MARGIN,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_scale,
    draw_title,
    mappable_of,
    row_font,
    shown_name,
    text_width,
    write_figure,
)

SIGNIFICANT = 0.05
ROW = 0.155
GAP = 0.15
OVER = 0.34  # for the layers' names and the experts' numbers


def plot_correlations(
    table: pd.DataFrame,
    routes: Routes,
    features: Features,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Writes the map of `correlation.correlate`'s table: PDF if `path` ends in .pdf, PNG if in .png.

    Features stand in their own order, those that were not tested are left out; grey where there is no r.
    """
    path = Path(path)
    check_picture_name(path)
    names = [name for name in features.names if name in set(table["feature"])]
    r_FC, found_FC = _grids(table, routes, names)
    columns = r_FC.shape[1]
    column = max(0.42 / routes.experts, 0.2 if columns <= 60 else 0.09)
    font = row_font(ROW)
    left = MARGIN + max([text_width(shown_name(name), font) for name in names], default=0.0) + 0.08
    width = max(left + column * columns, left + BAR_WIDTH, 4.0) + MARGIN
    wrapped = textwrap.fill(title, max(30, int((width - 2 * MARGIN) * 11))) if title else ""
    top = MARGIN + (0.2 * (wrapped.count("\n") + 1) + 0.1 if wrapped else 0.0) + OVER
    under = top + ROW * max(1, len(names)) + GAP
    figure = Figure(figsize=(width, under + 0.55))
    FigureCanvasAgg(figure)
    axes = axes_at(figure, left, top, column * columns, ROW * max(1, len(names)))
    scale = HeatScale(f"correlation r; dots: q < {SIGNIFICANT}, large: q (BY), too")
    _draw_map(axes, r_FC, found_FC, mappable_of(scale))
    _name(axes, names, routes, column, font)
    draw_scale(figure, left, under, scale)
    if wrapped:
        draw_title(figure, wrapped)
    write_figure(figure, path)


def _grids(table: pd.DataFrame, routes: Routes, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(r; 1 where q is small, 2 where q_by is), each (features, columns)."""
    shape = (len(names), len(routes.layers) * routes.experts)
    r_FC, found_FC = np.full(shape, np.nan), np.zeros(shape, dtype=int)
    row_of, layer_of = {n: i for i, n in enumerate(names)}, {n: i for i, n in enumerate(routes.layers)}
    for row in table.itertuples():
        place = row_of[row.feature], layer_of[row.layer] * routes.experts + row.expert
        r_FC[place] = row.r
        found_FC[place] = (row.q < SIGNIFICANT) + (row.q_by < SIGNIFICANT)
    return r_FC, found_FC


def _draw_map(axes, r_FC: np.ndarray, found_FC: np.ndarray, scale: ScalarMappable) -> None:
    rows, columns = r_FC.shape
    axes.set_facecolor("0.85")
    if rows:
        axes.imshow(
            r_FC, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest",
            extent=(0, columns, rows, 0),
        )  # fmt: skip
    for shade in ("black", "white"):  # a dot that is seen on any colour
        is_dark = np.abs(r_FC) > 0.6
        for found, size in ((1, 2.5), (2, 5.0)):
            places = np.argwhere((found_FC == found) & (is_dark if shade == "white" else ~is_dark))
            axes.plot(places[:, 1] + 0.5, places[:, 0] + 0.5, ".", color=shade, markersize=size)
    axes.set(xlim=(0, columns), ylim=(max(1, rows), 0))


def _name(axes, names: list[str], routes: Routes, column: float, font: float) -> None:
    experts, layers = routes.experts, routes.layers
    axes.set_yticks(np.arange(len(names)) + 0.5, [shown_name(name) for name in names], fontsize=font)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="both", length=0, pad=2)
    kinds = [name.partition(":")[0] for name in names]
    for row in range(1, len(names)):
        if kinds[row] != kinds[row - 1]:
            axes.axhline(row, color="0.45", linewidth=0.9)
    axes.set_xticks([])
    for number, layer in enumerate(layers):
        if number:
            wide = number == encoder_part(layers)
            axes.axvline(number * experts, color="black" if wide else "0.45", linewidth=2.0 if wide else 0.6)
        axes.annotate(
            layer, ((number + 0.5) * experts, 1), xycoords=("data", "axes fraction"), xytext=(0, 12),
            textcoords="offset points", ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    if column >= EXPERT_LABELS_FROM:
        places = np.arange(experts * len(layers))
        axes.set_xticks(places + 0.5, [str(place % experts) for place in places])
        size = min(6.5, column * 72 * (0.75 if experts <= 10 else 0.6))
        axes.tick_params(axis="x", labeltop=True, labelbottom=False, labelsize=size, pad=1.5)
