"""The comparison of variants as a picture: a panel per category, a row per variant, a dot per run.

    plot_comparison(per_run, table, "comparison.pdf", "mean score on the test files")

Takes `results.means_per_run` and `results.comparison_table`. Panels have their own scales, fitted to the
runs; the constant answer is a dashed line where it lies near, else an arrow at the edge, with its value.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from routing_moe.plots.style import (
    CATEGORY_COLOURS,
    UNKNOWN_COLOUR,
    shown_name,
    text_width,
    write_figure,
)
from routing_moe.results.scores import CONSTANT

COLOURS = (*CATEGORY_COLOURS, UNKNOWN_COLOUR)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 7 and 10 share no factor: the first 70 pairs differ
DARK = "0.15"
EDGE = "0.35"
DASHES = (0, (3, 2))

# Inches; the width is that of the text of a paper.
WIDTH = 6.75
MARGIN = 0.06
ROW = 0.155
HEADING = 0.22  # a panel's name above it
AXIS = 0.24  # its numbers below
GAP = 0.24  # between panels side by side
LEGEND = 0.42
NARROWEST_PANEL = 1.0
FONT = 7.5
SMALL = 6.5

NARROWEST_SCALE = 0.02  # scores: less than that is not blown up to fill a panel
NEAR = 0.5  # the constant answer is drawn to scale if that widens a panel's scale by no more than this share


def plot_comparison(
    per_run: pd.DataFrame, table: pd.DataFrame, path: str | os.PathLike, what: str = "mean score"
) -> None:
    """Writes the picture: PDF if `path` ends in .pdf, PNG if in .png. The same tables give the same bytes.

    `per_run`: variant, seed, category, mean. `table`: variant, category, tasks, mean, std, n; the variants in
    the order of the rows from above, the constant answer last. `what`: the name of the numbers.

    Raises ValueError if the file name ends differently.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"{path}: a picture's name must end in .png or .pdf")
    runs = table[table["variant"] != CONSTANT].groupby("variant", sort=False)["n"].first()
    labels = [*_labels(runs), CONSTANT]
    tasks = table.groupby("category", sort=False)["tasks"].first()
    categories = ["all", *(name for name in tasks.index if name != "all")]
    headings = [f"{shown_name(name)} ({tasks[name]})" for name in categories]
    place = _Layout.measure(labels, headings)
    figure = Figure(figsize=(WIDTH, place.height))
    FigureCanvasAgg(figure)
    for number, (category, heading) in enumerate(zip(categories, headings, strict=True)):
        axes = place.panel(figure, number)
        rows = table[table["category"] == category].set_index("variant")
        _draw_panel(axes, list(runs.index), rows, per_run[per_run["category"] == category])
        _name_panel(axes, heading, labels if number % place.columns == 0 else None)
    _draw_legend(figure, runs, what)
    write_figure(figure, path)


def _labels(runs: pd.Series) -> list[str]:
    """The variants' names, with their number of runs where that is not the same for all."""
    alike = runs.nunique() == 1
    return [shown_name(name) if alike else f"{shown_name(name)}, n={n}" for name, n in runs.items()]


# ---------------------------------------------------------------------------- where things go


@dataclass(frozen=True)
class _Layout:
    """Inches: names of variants on the left, then panels in rows of `columns`, the legend below."""

    left: float
    columns: int
    panel_width: float
    panel_height: float
    height: float

    @classmethod
    def measure(cls, labels: list[str], headings: list[str]):
        left = MARGIN + max(text_width(label, FONT) for label in labels) + 0.1
        narrowest = max(NARROWEST_PANEL, *(text_width(heading, FONT) for heading in headings))
        fit = max(1, int((WIDTH - left - MARGIN + GAP) / (narrowest + GAP)))
        rows = -(-len(headings) // fit)
        columns = -(-len(headings) // rows)  # as even as can be: 4 and 3, not 5 and 2
        panel_width = (WIDTH - left - MARGIN - 0.08 + GAP) / columns - GAP
        panel_height = ROW * (len(labels) + 0.2)
        height = rows * (HEADING + panel_height + AXIS) + LEGEND + MARGIN
        return cls(left, columns, panel_width, panel_height, height)

    def panel(self, figure: Figure, number: int):
        row, column = divmod(number, self.columns)
        left = self.left + column * (self.panel_width + GAP)
        top = row * (HEADING + self.panel_height + AXIS) + HEADING
        bottom = self.height - top - self.panel_height
        return figure.add_axes(
            (left / WIDTH, bottom / self.height, self.panel_width / WIDTH, self.panel_height / self.height)
        )


def _scale(values: np.ndarray, constant: float) -> tuple[float, float]:
    """From, to: the values with a margin, and the constant too where it lies near."""
    low, high = values.min(), values.max()
    lacking = max(0.0, NARROWEST_SCALE - (high - low)) / 2
    low, high = low - lacking, high + lacking
    if not np.isnan(constant) and max(low - constant, constant - high) <= NEAR * (high - low):
        low, high = min(low, constant), max(high, constant)
    margin = 0.07 * (high - low)
    return low - margin, high + margin


# ---------------------------------------------------------------------------- one panel


def _draw_panel(axes, variants: list[str], rows: pd.DataFrame, dots: pd.DataFrame) -> None:
    constant = float(rows.loc[CONSTANT, "mean"])
    bars = rows.loc[variants, ["mean", "std"]].fillna(0.0)
    reach = [dots["mean"], bars["mean"] - bars["std"], bars["mean"] + bars["std"]]
    axes.set(xlim=_scale(np.concatenate(reach), constant), ylim=(len(variants) + 0.6, -0.6))
    for row in range(1, len(variants) + 1, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.955", linewidth=0, zorder=0)
    for row, variant in enumerate(variants):
        values = dots.loc[dots["variant"] == variant].sort_values("seed")["mean"].to_numpy()
        _draw_variant(axes, row, values, rows.loc[variant, "mean"], rows.loc[variant, "std"])
    _draw_constant(axes, len(variants), constant)


def _draw_variant(axes, row: int, values: np.ndarray, mean: float, std: float) -> None:
    """Dots of the runs, one a little below the other so that equal ones show; mean and std across them."""
    if not np.isnan(std):
        axes.plot([mean - std, mean + std], [row, row], color=DARK, linewidth=0.8, zorder=2)
    axes.plot([mean, mean], [row - 0.36, row + 0.36], color=DARK, linewidth=1.1, zorder=2)
    heights = row + np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [row]
    axes.scatter(
        values, heights, s=9, color=COLOURS[row % len(COLOURS)], marker=MARKERS[row % len(MARKERS)],
        edgecolors=EDGE, linewidths=0.3, alpha=0.9, zorder=3, clip_on=False,
    )  # fmt: skip


def _draw_constant(axes, row: int, constant: float) -> None:
    """A line through the panel and, in a row of its own, the value."""
    if np.isnan(constant):
        return
    low, high = axes.get_xlim()
    shown = f"{constant:.2f}"
    if low <= constant <= high:
        axes.axvline(constant, color=DARK, linewidth=0.8, linestyle=DASHES, zorder=1)
        left_half = constant < (low + high) / 2
        text, place, side = shown, constant, "left" if left_half else "right"
    else:
        text, place, side = (f"◂ {shown}", low, "left") if constant < low else (f"{shown} ▸", high, "right")
    offset = (3, 0) if side == "left" else (-3, 0)
    axes.annotate(
        text, (place, row), xytext=offset, textcoords="offset points", ha=side, va="center",
        fontsize=SMALL, color=DARK,
    )  # fmt: skip


def _name_panel(axes, heading: str, labels: list[str] | None) -> None:
    """Heading and axes; the rows' names only where `labels` are given."""
    axes.set_title(heading, fontsize=FONT, pad=3).set_parse_math(False)
    axes.set_yticks(range(len(labels)) if labels else [], labels)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=2))
    axes.tick_params(axis="x", labelsize=SMALL, length=2, pad=1.5, width=0.5)
    axes.tick_params(axis="y", labelsize=FONT, length=0, pad=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)


def _draw_legend(figure: Figure, runs: pd.Series, what: str) -> None:
    n = f"n = {runs.iloc[0]} of each variant" if runs.nunique() == 1 else "n beside each variant"
    grey = dict(color="0.6", markeredgecolor=EDGE, markeredgewidth=0.3)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=3, **grey),
        Line2D([], [], color=DARK, linewidth=0.8, marker="|", markersize=6, markeredgewidth=1.1),
        Line2D([], [], color=DARK, linewidth=0.8, linestyle=DASHES),
    ]
    names = [f"one run ({n})", "mean ± sample std", f"{CONSTANT} (arrow: out of scale)"]
    figure.legend(
        handles, names, loc="lower center", ncols=3, fontsize=SMALL, frameon=False, borderaxespad=0.2,
        handletextpad=0.5, columnspacing=1.8,
        title=f"{what} (number of tasks in brackets)", title_fontsize=FONT,
    )  # fmt: skip
