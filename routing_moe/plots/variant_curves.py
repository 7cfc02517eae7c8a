"""Plots dev scores during training against steps and FLOPs: a thin line per run, a bold one per mean.

plot_curves(comparable_costs.curves(costs), "comparison_curves.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from routing_moe.plots.style import shown_name, text_width, write_figure
from routing_moe.plots.variants import COLOURS, FONT, MARKERS, SMALL, WIDTH

PANEL_HEIGHT = 2.2  # inches
BELOW = 0.4
LEGEND_ROW = 0.16
AXES = {"step": "training steps", "flops": "training FLOPs"}


def plot_curves(curves: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the picture (PNG or PDF). curves: `comparable_costs.curves`, a row per evaluation.

    The second panel lacks runs of unknown FLOPs. A mean is over the runs that were evaluated at that step.
    """
    variants = list(curves["variant"].unique())
    names = [shown_name(variant) for variant in variants]
    columns = max(1, min(len(names), int(WIDTH / (max(text_width(name, SMALL) for name in names) + 0.5))))
    rows = -(-len(names) // columns)
    height = 0.15 + PANEL_HEIGHT + BELOW + LEGEND_ROW * (rows + 0.5)
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    bottom, top = (BELOW + LEGEND_ROW * (rows + 0.5)) / height, 1 - 0.15 / height
    left, right = figure.subplots(
        1, 2, sharey=True, gridspec_kw=dict(left=0.08, right=0.98, bottom=bottom, top=top, wspace=0.08)
    )
    for axes, (column, label) in zip((left, right), AXES.items(), strict=True):
        handles = [
            _draw_variant(axes, curves[curves["variant"] == v], column, i) for i, v in enumerate(variants)
        ]
        axes.set_xlabel(label, fontsize=FONT)
        axes.tick_params(labelsize=SMALL, length=2, width=0.5)
        axes.xaxis.get_offset_text().set_fontsize(SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("mean dev score", fontsize=FONT)
    legend = figure.legend(handles, names, loc="lower center", ncols=columns, fontsize=SMALL, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    write_figure(figure, Path(path))


def _draw_variant(axes, rows: pd.DataFrame, column: str, number: int):
    colour = COLOURS[number % len(COLOURS)]
    for _, run in rows.groupby("run", sort=True):
        axes.plot(run[column], run["dev_score"], color=colour, linewidth=0.4, alpha=0.6, zorder=1)
    means = rows.groupby("step", as_index=False)[["flops", "dev_score"]].mean()
    (line,) = axes.plot(
        means[column], means["dev_score"], color=colour, linewidth=1.2, marker=MARKERS[number % len(MARKERS)],
        markersize=3, markeredgecolor="0.35", markeredgewidth=0.3, zorder=2,
    )  # fmt: skip
    return line
