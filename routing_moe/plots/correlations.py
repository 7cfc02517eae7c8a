"""The map of correlations: a row per feature, a column per expert of every layer, a dot where q is small.

plot_correlations(table, routes, features, "correlations.pdf")
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.plots.heat_map import draw_borders, draw_colour_bar, draw_heat, heat_map, name_rows
from routing_moe.plots.route_map import column_width, name_columns
from routing_moe.plots.style import HeatScale, row_font

SIGNIFICANT = 0.05
ROW = 0.155  # inches


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
    names = [name for name in features.names if name in set(table["feature"])]
    r_FC, stars_FC = _grids(table, routes, names)
    column = column_width(len(routes.layers), routes.experts)
    height = ROW * len(r_FC)
    scale = HeatScale(f"correlation r; dots: q < {SIGNIFICANT}, large: q (BY), too")
    with heat_map(path, title) as figure:
        axes = draw_heat(figure, (0.0, 0.0, column * r_FC.shape[1], height), r_FC, scale)
        axes.set_facecolor("0.85")
        _draw_dots(axes, r_FC, stars_FC)
        draw_borders(axes.axhline, [(name.partition(":")[0], "") for name in names])
        name_rows(axes, names, row_font(ROW))
        name_columns(axes, routes.layers, encoder_part(routes.layers), routes.experts, column)
        draw_colour_bar(figure, 0, height + 0.15, scale)


def _grids(table: pd.DataFrame, routes: Routes, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (r; 1 where q is small, 2 where q_by is), each (features, columns): an empty row for none."""
    shape = (max(1, len(names)), len(routes.layers) * routes.experts)
    r_FC, stars_FC = np.full(shape, np.nan), np.zeros(shape, dtype=int)
    row_of, layer_of = {n: i for i, n in enumerate(names)}, {n: i for i, n in enumerate(routes.layers)}
    for row in table.itertuples():
        cell = row_of[row.feature], layer_of[row.layer] * routes.experts + row.expert
        r_FC[cell] = row.r
        stars_FC[cell] = (row.q < SIGNIFICANT) + (row.q_by < SIGNIFICANT)
    return r_FC, stars_FC


def _draw_dots(axes: Axes, r_FC: np.ndarray, stars_FC: np.ndarray) -> None:
    for shade in ("black", "white"):  # visible on any colour
        is_dark = np.abs(r_FC) > 0.6
        for stars, size in ((1, 2.5), (2, 5.0)):
            cells = np.argwhere((stars_FC == stars) & (is_dark if shade == "white" else ~is_dark))
            axes.plot(cells[:, 1] + 0.5, cells[:, 0] + 0.5, ".", color=shade, markersize=size)
    axes.set(xlim=(0, r_FC.shape[1]), ylim=(len(r_FC), 0))
