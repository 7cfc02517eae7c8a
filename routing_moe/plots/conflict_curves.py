"""Curves of agreement with true skills and of scores, against what makes a conflict gym harder."""

import os

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from routing_moe.plots.style import (
    EDGE_COLOUR,
    MARKERS,
    PAPER_STYLE,
    SERIES_COLOURS,
    legend_columns,
    paper_figure,
    write_figure,
)

PANEL, LEGEND_ROW = 1.9, 0.16  # inches: a row of panels
ROWS = {"ami": "AMI of routes and skills", "score": "mean test score"}
LABELS = {
    "rows": "train rows of a task",
    "label_noise": "share of wrong labels",
    "overlap": "share of a second skill",
}


@rc_context(PAPER_STYLE)
def plot_conflict_curves(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the picture (PNG or PDF): a column of panels for each `what`, marks of runs, a line of means.

    table: what, value, variant, seed, score, ami; a row per run. Variants without routes have no ami.
    """
    whats, variants = list(table["what"].unique()), list(table["variant"].unique())
    columns = legend_columns(variants)
    figure = paper_figure(2 * PANEL + LEGEND_ROW * -(-len(variants) // columns))
    grid, lines = figure.subplots(2, len(whats), sharey="row", sharex="col", squeeze=False), {}
    for axes_of_row, (column, label) in zip(grid, ROWS.items(), strict=True):
        axes_of_row[0].set_ylabel(label)
        for axes, what in zip(axes_of_row, whats, strict=True):
            of_panel = table[table["what"] == what].dropna(subset=column)
            for variant, rows in of_panel.groupby("variant", sort=False):
                lines[variant] = _draw(axes, rows, column, variants.index(variant))
            if what == "rows":
                axes.set_xscale("log", base=2)
            values = sorted(table.loc[table["what"] == what, "value"].unique())
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
    for axes, what in zip(grid[-1], whats, strict=True):
        axes.set_xlabel(LABELS[what])
    shown = [variant for variant in variants if variant in lines]
    figure.legend([lines[v] for v in shown], shown, loc="outside lower center", ncols=columns)
    write_figure(figure, path)


def _draw(axes: Axes, rows: pd.DataFrame, column: str, number: int):
    style = dict(color=SERIES_COLOURS[number % len(SERIES_COLOURS)], marker=MARKERS[number % len(MARKERS)])
    axes.plot(rows["value"], rows[column], linestyle="", markersize=2, alpha=0.5, **style)
    means = rows.groupby("value")[column].mean()
    (line,) = axes.plot(
        means.index,
        means,
        linewidth=1.2,
        markersize=3.5,
        markeredgecolor=EDGE_COLOUR,
        markeredgewidth=0.3,
        **style,
    )
    return line
