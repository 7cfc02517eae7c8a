"""What all pictures share: fonts, colours, figures, legends of dots, files.

There are two kinds of figures. `paper_figure` is as wide as the text of a paper, and matplotlib's constrained
layout makes room for its labels. A heat map grows with its rows and columns instead: see `heat_map`.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from dataloader.atomic_files import write_bytes

# Seaborn's "colorblind" palette: distinct under the common kinds of colour blindness.
CATEGORY_COLOURS = (
    "#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00", "#56b4e9", "#ece133", "#ca9161", "#fbafe4",
)  # fmt: skip
UNKNOWN_COLOUR = "#949494"
SERIES_COLOURS = (*CATEGORY_COLOURS, UNKNOWN_COLOUR)  # of runs and variants, with
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 7 and 10 share no factor: the first 70 pairs differ
DARK, EDGE_COLOUR, BAND = "0.15", "0.35", "0.955"  # lines; edges of markers; every second row
DASHES = (0, (3, 2))
FONT, SMALL = 7.5, 6.5  # points
LONGEST_NAME = 60  # characters of a task name shown
DOTS_PER_INCH = 150
WIDEST_FIGURE_DOTS = 30_000  # Agg draws at most 65 536 a side
# Inches.
WIDTH = 6.75  # of the text of a paper
MARGIN = 0.15

# Letters of a PDF stay letters, as journals require; a $ in a task's name starts no formula.
STYLE = {"pdf.fonttype": 42, "text.parse_math": False}
PAPER_STYLE = STYLE | {
    "font.size": FONT, "axes.titlesize": FONT, "axes.titlepad": 3, "axes.labelsize": FONT, "axes.labelpad": 2,
    "axes.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.labelsize": SMALL, "xtick.major.size": 2, "xtick.major.pad": 1.5, "xtick.major.width": 0.5,
    "ytick.labelsize": SMALL, "ytick.major.size": 2, "ytick.major.pad": 1.5, "ytick.major.width": 0.5,
    "legend.fontsize": SMALL, "legend.title_fontsize": FONT, "legend.frameon": False,
    "legend.borderaxespad": 0.2, "legend.handletextpad": 0.4, "legend.columnspacing": 1.6,
    "figure.constrained_layout.h_pad": 0.05, "figure.constrained_layout.w_pad": 0.05,
}  # fmt: skip


# ---------------------------------------------------------------------------- text


def row_font(row_height: float) -> float:
    """Returns the font size in points of names in rows of this height in inches."""
    return min(8.0, row_height * 72 * 0.68)


def text_width(text: str, font: float) -> float:
    """Returns the width of a line of text in inches; font in points."""
    if not text.strip():
        return 0.0
    outline = TextPath((0, 0), text.replace("$", "S"), size=font).get_extents()
    return 1.06 * outline.width / 72  # rendered letters are spaced a little wider than their outlines


def shown_name(task: str) -> str:
    """Returns the name on one line, or the beginning and end of one that is longer than LONGEST_NAME."""
    task = " ".join(task.split())
    half = LONGEST_NAME // 2
    return task if len(task) <= LONGEST_NAME else f"{task[: half - 1]}…{task[-half:]}"


def wrapped(title: str, width: float, font: float) -> str:
    """Returns the title in lines of at most `width` inches, its own line breaks kept."""
    characters = max(16, int(width / (text_width("n" * 20, font) / 20)))
    return "\n".join(textwrap.fill(line, characters) for line in title.splitlines())


def legend_columns(names: Sequence[str]) -> int:
    """Returns how many names of a legend fit side by side into the text width of a paper."""
    return max(1, min(len(names), int(WIDTH / (max(text_width(name, SMALL) for name in names) + 0.5))))


# ---------------------------------------------------------------------------- figures


def paper_figure(height: float, title: str | None = None, width: float = WIDTH) -> Figure:
    """Returns a figure in constrained layout, for PAPER_STYLE; height in inches, without the title."""
    lines = wrapped(title, width - 2 * MARGIN, 9) if title else ""
    height += 0.165 * (lines.count("\n") + 1) if lines else 0.0
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    if lines:
        figure.suptitle(lines, x=0.01, ha="left", fontsize=9)
    return figure


@dataclass(frozen=True)
class HeatScale:
    """What the values of a heat map are, their colour map, and the ends of the scale."""

    name: str
    colours: str = "RdBu_r"  # distinct for the colour-blind, white at 0
    low: float = -1.0
    high: float = 1.0


# ---------------------------------------------------------------------------- dots

TICK = dict(linestyle="", marker="|", markersize=7, markeredgewidth=0.9, color=DARK, zorder=3)


def dot(filled: bool = True, marker: str = "o", size: float = 4.2) -> dict:
    """Returns the style of a blue dot, or of a hollow one."""
    blue = CATEGORY_COLOURS[0]
    return dict(
        linestyle="", marker=marker, markersize=size, color=blue if filled else "white",
        markeredgecolor=blue, markeredgewidth=0.9, zorder=4,
    )  # fmt: skip


def dot_legend(figure: Figure, styles: Mapping[str, dict], columns: int, **options) -> None:
    """Writes the legend {name: style of its line or marker} below the panels of a `paper_figure`."""
    lines = [Line2D([], [], **style) for style in styles.values()]
    figure.legend(lines, list(styles), loc="outside lower center", ncols=columns, **options)


# ---------------------------------------------------------------------------- files


def check_picture_name(path: Path) -> None:
    """Raises ValueError unless `path` ends in .png or .pdf."""
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"{path}: a picture's name must end in .png or .pdf")


def write_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the whole figure or nothing, in the format of the file's name. Raises ValueError for another."""
    path = Path(path)
    check_picture_name(path)
    kind = path.suffix.lower().removeprefix(".")
    # The same figure gives the same bytes: PDF would note the time of writing.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    dots = min(DOTS_PER_INCH, WIDEST_FIGURE_DOTS / max(figure.get_size_inches()))
    drawn = io.BytesIO()  # on a full disk the PDF writer raises errors other than OSError
    with rc_context(STYLE):
        figure.savefig(drawn, format=kind, dpi=dots, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, drawn.getbuffer())


# ---- panels side by side with a named row per variant, folder, feature or task, as wide as a paper's text


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
