"""Panels side by side with a named row per variant, folder, feature or task, as wide as a paper's text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routing_moe.plots.style import BAND, FONT, WIDTH, paper_figure, row_font, shown_name, text_width

# Inches.
HEADING_AND_AXIS, LINE = 0.5, 0.125  # of a panel with a heading of one line; of each further line
LEGEND = 0.42
GAP = 0.2


def dot_panels(
    names: Sequence[str],
    headings: Sequence[str],
    row: float,
    narrowest: float,
    title: str | None = None,
    legend: float = LEGEND,
    side_by_side: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Returns (figure, a panel per heading), for a caller in PAPER_STYLE; row n of a panel is at y = n.

    row, narrowest, legend: height of a row, minimum width of a panel, height of the legend, in inches. As
    many panels are side by side as fit into a paper's text width; side_by_side: all, and the figure grows.
    """
    names, font = [shown_name(name) for name in names], min(FONT, row_font(row))
    left = 0.15 + max((text_width(name, font) for name in names), default=0.0)
    lines = [heading.split("\n") for heading in headings]
    narrowest = max(narrowest, *(text_width(line, FONT) for own in lines for line in own))
    fit = max(1, int((WIDTH - left + GAP) / (narrowest + GAP)))
    rows = 1 if side_by_side else math.ceil(len(headings) / fit)
    columns = math.ceil(len(headings) / rows)  # even: 4 and 3, not 5 and 2
    panel = row * (len(names) + 0.2) + HEADING_AND_AXIS + LINE * (max(map(len, lines)) - 1)
    width = max(WIDTH, left + columns * (narrowest + GAP)) if side_by_side else WIDTH
    figure = paper_figure(rows * panel + legend, title, width)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, heading in zip(grid, headings, strict=False):
        axes.set_title(heading)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelsize=font, length=0, pad=3)
        for number in range(1, len(names), 2):
            axes.axhspan(number - 0.5, number + 0.5, color=BAND, linewidth=0, zorder=0)
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    for axes in grid[len(headings) :]:
        axes.remove()
    return figure, list(grid[: len(headings)])
