"""How well the nearest neighbours of tasks' vectors agree with labels: dots against a permutation baseline.

plot_agreement(table, "agreement.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from routing_moe.plots.dot_panels import dot_panels
from routing_moe.plots.style import (
    CATEGORY_COLOURS,
    DARK,
    PAPER_STYLE,
    check_picture_name,
    shown_name,
    write_figure,
)

ROW, NARROWEST_PANEL = 0.17, 0.95  # inches
SIGNIFICANT = 0.05


@rc_context(PAPER_STYLE)
def plot_agreement(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes a panel per labelling with a row per folder: accuracy as a dot, the chance level as a tick.

    table: the columns vectors, labelling, scored, k, accuracy, chance, p; NaN is drawn as "-". PDF or PNG as
    `path` ends; the same table gives the same bytes. Raises ValueError if it ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    names = list(table["vectors"].unique())
    scored = table.groupby("labelling", sort=False)["scored"].first()
    headings = [f"{shown_name(kind)} ({n})" for kind, n in scored.items()]
    figure, panels = dot_panels(names, headings, ROW, NARROWEST_PANEL, title)
    for axes, kind in zip(panels, scored.index, strict=True):
        _draw_dots(axes, table[table["labelling"] == kind].set_index("vectors").loc[names])
    k = int(table["k"].iloc[0])
    whose = "the nearest task's" if k == 1 else f"that of the {k} nearest tasks' majority"
    figure.legend(
        [Line2D([], [], **style) for style in (_dot(True), _dot(False), _TICK)],
        [f"accuracy, p < {SIGNIFICANT}", f"p ≥ {SIGNIFICANT}", "chance: permuted labels"],
        loc="outside lower center", ncols=3,
        title=f"share of tasks whose label is {whose} (number of tasks in brackets)",
    )  # fmt: skip
    write_figure(figure, path)


def _draw_dots(axes: Axes, rows: pd.DataFrame) -> None:
    """A line from chance to accuracy in each row; the dot is hollow if they may be equal."""
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xticks([0.25, 0.75], minor=True)
    axes.tick_params(axis="x", which="minor", length=1.5, width=0.5)
    for number, row in enumerate(rows.itertuples()):
        if np.isnan(row.accuracy):
            axes.text(0.0, number, "-", ha="center", va="center", color=DARK)
            continue
        axes.plot([row.chance, row.accuracy], [number] * 2, color="0.6", linewidth=0.8, zorder=1)
        axes.plot([row.chance], [number], **_TICK)
        axes.plot([row.accuracy], [number], **_dot(row.p < SIGNIFICANT))


_TICK = dict(linestyle="", marker="|", markersize=7, markeredgewidth=0.9, color=DARK, zorder=2)


def _dot(filled: bool) -> dict:
    blue = CATEGORY_COLOURS[0]
    return dict(
        linestyle="", marker="o", markersize=4.2, color=blue if filled else "white", markeredgecolor=blue,
        markeredgewidth=0.9, zorder=3,
    )  # fmt: skip
