"""How well the nearest neighbours of tasks' vectors agree with labels: dots against a permutation baseline.

plot_agreement(table, "agreement.pdf")
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from routing_moe.plots.style import (
    DARK,
    PAPER_STYLE,
    TICK,
    dot,
    dot_legend,
    dot_panels,
    shown_name,
    write_figure,
)

ROW, NARROWEST_PANEL = 0.17, 0.95  # inches
SIGNIFICANT = 0.05


@rc_context(PAPER_STYLE)
def plot_agreement(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes a panel per labelling with a row per folder: accuracy as a dot, the chance level as a tick.

    table: the columns vectors, labelling, scored, k, accuracy, chance, p; NaN is drawn as "-". PDF or PNG as
    `path` ends.
    """
    names = list(table["vectors"].unique())
    scored = table.groupby("labelling", sort=False)["scored"].first()
    headings = [f"{shown_name(kind)} ({n})" for kind, n in scored.items()]
    figure, panels = dot_panels(names, headings, ROW, NARROWEST_PANEL, title)
    for axes, kind in zip(panels, scored.index, strict=True):
        _draw_dots(axes, table[table["labelling"] == kind].set_index("vectors").loc[names])
    k = int(table["k"].iloc[0])
    whose = "the nearest task's" if k == 1 else f"that of the {k} nearest tasks' majority"
    styles = {f"accuracy, p < {SIGNIFICANT}": dot(), f"p ≥ {SIGNIFICANT}": dot(filled=False)}
    styles["chance: permuted labels"] = TICK
    explained = f"share of tasks whose label is {whose} (number of tasks in brackets)"
    dot_legend(figure, styles, columns=3, title=explained)
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
        axes.plot([row.chance], [number], **TICK)
        axes.plot([row.accuracy], [number], **dot(filled=row.p < SIGNIFICANT))
