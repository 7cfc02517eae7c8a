"""Dev scores during training against steps and FLOPs: a thin line per run, a bold one per variant's mean.

plot_curves(compared_costs.curves(costs), "comparison_curves.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from routing_moe.plots.style import (
    EDGE_COLOUR,
    MARKERS,
    PAPER_STYLE,
    SERIES_COLOURS,
    check_picture_name,
    legend_columns,
    paper_figure,
    shown_name,
    write_figure,
)

PANEL, LEGEND_ROW = 2.6, 0.16  # inches, a panel with its labels
AXES = {"step": "training steps", "flops": "training FLOPs"}


@rc_context(PAPER_STYLE)
def plot_curves(curves: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the picture (PNG or PDF). curves: `compared_costs.curves`, a row per evaluation.

    The second panel lacks runs of unknown FLOPs. A mean is over the runs that were evaluated at that step.
    """
    path = Path(path)
    check_picture_name(path)
    variants = list(curves["variant"].unique())
    names = [shown_name(variant) for variant in variants]
    columns = legend_columns(names)
    figure = paper_figure(PANEL + LEGEND_ROW * -(-len(names) // columns))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (column, label) in zip((left, right), AXES.items(), strict=True):
        handles = [
            _draw_variant(axes, curves[curves["variant"] == v], column, i) for i, v in enumerate(variants)
        ]
        axes.set_xlabel(label)
    left.set_ylabel("mean dev score")
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
    write_figure(figure, path)


def _draw_variant(axes: Axes, rows: pd.DataFrame, column: str, number: int):
    colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
    for _, run in rows.groupby("run", sort=True):
        axes.plot(run[column], run["dev_score"], color=colour, linewidth=0.4, alpha=0.6, zorder=1)
    means = rows.groupby("step", as_index=False)[["flops", "dev_score"]].mean()
    (line,) = axes.plot(
        means[column], means["dev_score"], color=colour, linewidth=1.2, marker=MARKERS[number % len(MARKERS)],
        markersize=3, markeredgecolor=EDGE_COLOUR, markeredgewidth=0.3, zorder=2,
    )  # fmt: skip
    return line
