"""The map of correlations: a row per feature, a column per expert of every layer, a dot where q is small.

plot_correlations(table, routes, features, "correlations.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.plots.route_map import column_width, name_columns
from routing_moe.plots.style import (
    STYLE,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_colour_bar,
    draw_heat,
    fit_figure,
    map_figure,
    row_font,
    write_figure,
)
from routing_moe.plots.task_categories import name_rows

SIGNIFICANT = 0.05
ROW = 0.155  # inches


@rc_context(STYLE)
def plot_correlations(
    table: pd.DataFrame,
    routes: Routes,
    features: Features,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Writes the map of `correlation.correlate`'s table: PDF if `path` ends in .pdf, PNG if in .png.

    Features keep their order, without those that were not tested; a cell without r is grey. A dot is larger
    where q_by is small, too.
    """
    path = Path(path)
    check_picture_name(path)
    names = [name for name in features.names if name in set(table["feature"])]
    r_FC, found_FC = _grids(table, routes, names)
    column = column_width(len(routes.layers), routes.experts)
    height = ROW * max(1, len(names))
    scale = HeatScale(f"correlation r; dots: q < {SIGNIFICANT}, large: q (BY), too")
    figure = map_figure()
    axes = axes_at(figure, 0, 0, column * r_FC.shape[1], height)
    _draw_map(axes, r_FC, found_FC, scale)
    kinds = [name.partition(":")[0] for name in names]
    for row in range(1, len(names)):
        if kinds[row] != kinds[row - 1]:
            axes.axhline(row, color="0.45", linewidth=0.9)
    name_rows(axes, names, row_font(ROW))
    name_columns(axes, routes.layers, encoder_part(routes.layers), routes.experts, column)
    draw_colour_bar(figure, 0, height + 0.15, scale)
    fit_figure(figure, title)
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


def _draw_map(axes: Axes, r_FC: np.ndarray, found_FC: np.ndarray, scale: HeatScale) -> None:
    rows, columns = r_FC.shape
    axes.set_facecolor("0.85")
    if rows:
        draw_heat(axes, r_FC, scale)
    for shade in ("black", "white"):  # visible on any colour
        is_dark = np.abs(r_FC) > 0.6
        for found, size in ((1, 2.5), (2, 5.0)):
            places = np.argwhere((found_FC == found) & (is_dark if shade == "white" else ~is_dark))
            axes.plot(places[:, 1] + 0.5, places[:, 0] + 0.5, ".", color=shade, markersize=size)
    axes.set(xlim=(0, columns), ylim=(max(1, rows), 0), xticks=[])
