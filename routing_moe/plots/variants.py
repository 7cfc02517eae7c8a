"""The comparison of variants as a picture: a panel per category, a row per variant, a dot per run.

    plot_comparison(per_run, table, "comparison.pdf", "mean score on the test files")

Takes `comparison.means_per_run` and `comparison_table`. Each panel has its own scale, fitted to the
runs; a baseline, such as the constant answer, is a dashed line if it is among the values, else an arrow at
the edge.

    plot_curves(compared_costs.curves(costs), "comparison_curves.pdf")

Dev scores, or answer losses, during training against steps and FLOPs: a thin line per run, a bold one per
variant's mean.
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from routing_moe.plots.style import (
    DARK,
    DASHES,
    EDGE_COLOUR,
    MARKERS,
    PAPER_STYLE,
    SERIES_COLOURS,
    SMALL,
    dot_panels,
    legend_columns,
    paper_figure,
    shown_name,
    write_figure,
)

ROW, NARROWEST_PANEL = 0.155, 1.0  # inches
NARROWEST_SCALE = 0.02  # of scores: smaller differences do not fill a panel


@rc_context(PAPER_STYLE)
def plot_comparison(
    per_run: pd.DataFrame, table: pd.DataFrame, path: str | os.PathLike, title: str = "mean score"
) -> None:
    """Writes the picture: PDF if `path` ends in .pdf, PNG if in .png. The same tables give the same bytes.

    `per_run`: variant, seed, category, mean. `table`: variant, category, tasks, mean, std, n; the variants in
    the order of the rows from the top, the baselines (without n) last. `title`: the name of the numbers.

    Raises ValueError if the file name ends differently.
    """
    runs = table.groupby("variant", sort=False)["n"].first()
    baselines, runs = list(runs.index[runs.isna()]), runs.dropna()
    tasks = table.groupby("category", sort=False)["tasks"].first()
    categories = ["all", *(name for name in tasks.index if name != "all")]
    headings = [f"{shown_name(name)} ({tasks[name]})" for name in categories]
    figure, panels = dot_panels([*_labels(runs), *baselines], headings, ROW, NARROWEST_PANEL)
    for axes, category in zip(panels, categories, strict=True):
        rows = table[table["category"] == category].set_index("variant")
        _draw_panel(axes, list(runs.index), baselines, rows, per_run[per_run["category"] == category])
    _draw_legend(figure, runs, baselines, title)
    write_figure(figure, path)


def _labels(runs: pd.Series) -> list[str]:
    """The variants' names, with their number of runs where these differ."""
    equal = runs.nunique() == 1
    return [shown_name(name) if equal else f"{shown_name(name)}, n={n}" for name, n in runs.items()]


def _draw_panel(
    axes: Axes, variants: list[str], baselines: list[str], rows: pd.DataFrame, dots: pd.DataFrame
) -> None:
    bars = rows.loc[variants, ["mean", "std"]].fillna(0.0)
    reach = np.concatenate([dots["mean"], bars["mean"] - bars["std"], bars["mean"] + bars["std"]])
    low, high = reach.min(), reach.max()
    margin = max(0.07 * (high - low), (NARROWEST_SCALE - (high - low)) / 2)
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=2))
    for row, variant in enumerate(variants):
        values = dots.loc[dots["variant"] == variant].sort_values("seed")["mean"].to_numpy()
        _draw_variant(axes, row, values, rows.loc[variant, "mean"], rows.loc[variant, "std"])
    for row, baseline in enumerate(baselines, start=len(variants)):
        _draw_baseline(axes, row, float(rows.loc[baseline, "mean"]))


def _draw_variant(axes: Axes, row: int, values: np.ndarray, mean: float, std: float) -> None:
    """A dot per run, offset vertically so that equal values stay visible; mean and std over the runs."""
    if not np.isnan(std):
        axes.plot([mean - std, mean + std], [row, row], color=DARK, linewidth=0.8, zorder=2)
    axes.plot([mean, mean], [row - 0.36, row + 0.36], color=DARK, linewidth=1.1, zorder=2)
    heights = row + np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [row]
    axes.scatter(
        values, heights, s=9, color=SERIES_COLOURS[row % len(SERIES_COLOURS)],
        marker=MARKERS[row % len(MARKERS)], edgecolors=EDGE_COLOUR, linewidths=0.3, alpha=0.9, zorder=3,
        clip_on=False,
    )  # fmt: skip


def _draw_baseline(axes: Axes, row: int, score: float) -> None:
    """A line through the panel and, in a separate row, the value."""
    if np.isnan(score):
        return
    low, high = axes.get_xlim()
    text, side = f"{score:.2f}", "left" if score < (low + high) / 2 else "right"
    if low <= score <= high:
        axes.axvline(score, color=DARK, linewidth=0.8, linestyle=DASHES, zorder=1)
    else:
        text = f"◂ {text}" if side == "left" else f"{text} ▸"
    axes.annotate(
        text, (np.clip(score, low, high), row), xytext=(3 if side == "left" else -3, 0),
        textcoords="offset points", ha=side, va="center", fontsize=SMALL, color=DARK,
    )  # fmt: skip


def _draw_legend(figure: Figure, runs: pd.Series, baselines: list[str], title: str) -> None:
    n = f"n = {runs.iloc[0]} of each variant" if runs.nunique() == 1 else "n beside each variant"
    dot = dict(linestyle="", marker="o", markersize=3, color="0.6", markeredgecolor=EDGE_COLOUR)
    handles = [
        Line2D([], [], markeredgewidth=0.3, **dot),
        Line2D([], [], color=DARK, linewidth=0.8, marker="|", markersize=6, markeredgewidth=1.1),
        Line2D([], [], color=DARK, linewidth=0.8, linestyle=DASHES),
    ]
    named = baselines[0] if len(baselines) == 1 else "baseline"
    names = [f"one run ({n})", "mean ± sample std", f"{named} (arrow: outside the scale)"]
    shown = len(names) if baselines else 2
    title = f"{title} (number of tasks in brackets)"
    figure.legend(handles[:shown], names[:shown], loc="outside lower center", ncols=3, title=title)


# ---- curves of training


PANEL, LEGEND_ROW = 2.6, 0.16  # inches, a panel with its labels
AXES = {"step": "training steps", "flops": "training FLOPs"}
MEANS = {"dev_score": "mean dev score", "dev_answer_loss": "mean dev answer loss (nats per token)"}


@rc_context(PAPER_STYLE)
def plot_curves(curves: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the picture (PNG or PDF). curves: `compared_costs.curves`, a row per evaluation.

    The second panel lacks runs of unknown FLOPs. A mean is over the runs that were evaluated at that step.
    """
    variants = list(curves["variant"].unique())
    measure = next(name for name in MEANS if name in curves)
    names = [shown_name(variant) for variant in variants]
    columns = legend_columns(names)
    figure = paper_figure(PANEL + LEGEND_ROW * -(-len(names) // columns))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (column, label) in zip((left, right), AXES.items(), strict=True):
        handles = [
            _draw_curve(axes, curves[curves["variant"] == variant], column, measure, i)
            for i, variant in enumerate(variants)
        ]
        axes.set_xlabel(label)
    left.set_ylabel(MEANS[measure])
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
    write_figure(figure, path)


def _draw_curve(axes: Axes, rows: pd.DataFrame, column: str, measure: str, number: int):
    colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
    for _, run in rows.groupby("run", sort=True):
        axes.plot(run[column], run[measure], color=colour, linewidth=0.4, alpha=0.6, zorder=1)
    means = rows.groupby("step", as_index=False)[["flops", measure]].mean()
    (line,) = axes.plot(
        means[column], means[measure], color=colour, linewidth=1.2, marker=MARKERS[number % len(MARKERS)],
        markersize=3, markeredgecolor=EDGE_COLOUR, markeredgewidth=0.3, zorder=2,
    )  # fmt: skip
    return line
