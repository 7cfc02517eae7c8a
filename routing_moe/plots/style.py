"""What all pictures share: fonts, colours, figures, colour scales, files.

There are two kinds of figures. `paper_figure` is as wide as the text of a paper, and matplotlib's constrained
layout makes room for its labels. A heat map has rows of a fixed height instead, so that task names neither
overlap nor become unreadable; constrained layout cannot do that. Its axes are placed in inches (`axes_at`),
inside or outside the figure, and `fit_figure` resizes the figure to hold everything drawn.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
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
BAR_WIDTH, BAR_HEIGHT, BAR_ROOM = 1.5, 0.12, 0.55  # of a colour bar; BAR_ROOM with its labels

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


def map_figure() -> Figure:
    """Returns a figure for `axes_at` and `fit_figure`."""
    figure = Figure(figsize=(1, 1), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Returns new axes in inches, `top` downwards; negative numbers are left of or above the figure."""
    return figure.add_axes((left, 1 - top - height, width, height))


def fit_figure(figure: Figure, title: str | None = None, zoom: float = 1.0) -> Text | None:
    """Grows a `map_figure` around its axes and adds the title on top, which is returned.

    zoom: of the title's font and the margin.
    """
    box, margin, font = figure.get_tightbbox(), MARGIN * zoom, 11 * zoom
    width = max(box.width, 3.0 * zoom if title else 0.0) + 2 * margin
    lines = wrapped(title, width - 2 * margin, font) if title else ""
    height = box.height + 2 * margin + (zoom * (0.2 * lines.count("\n") + 0.3) if lines else 0.0)
    for axes in figure.axes:
        left, bottom, axes_width, axes_height = axes.get_position().bounds
        left, bottom = left - box.x0 + margin, bottom - box.y0 + margin
        axes.set_position((left / width, bottom / height, axes_width / width, axes_height / height))
    figure.set_size_inches(width, height)
    if lines:
        return figure.text(margin / width, 1 - margin / height, lines, va="top", fontsize=font)
    return None


# ---------------------------------------------------------------------------- heat maps


@dataclass(frozen=True)
class HeatScale:
    """What the values of a heat map are, their colour map, and the ends of the scale."""

    name: str = "cosine similarity"
    colours: str = "RdBu_r"  # distinct for the colour-blind, white at 0
    low: float = -1.0
    high: float = 1.0


def draw_heat(axes: Axes, values_RC: np.ndarray, scale: HeatScale) -> AxesImage:
    """Draws a cell per value: row r from r to r + 1 downwards, column c from c to c + 1. Without ticks."""
    rows, columns = values_RC.shape
    axes.set(xticks=[], yticks=[])
    return axes.imshow(
        values_RC, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="auto",
        interpolation="nearest", extent=(0, columns, rows, 0),
    )  # fmt: skip


def draw_colour_bar(figure: Figure, left: float, top: float, scale: HeatScale, zoom: float = 1.0) -> Axes:
    """Draws a scale's colour bar, BAR_ROOM * zoom inches high with its name; zoom: of letters and bar."""
    axes = axes_at(figure, left, top + 0.2 * zoom, BAR_WIDTH * zoom, BAR_HEIGHT * zoom)
    values = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
    ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    figure.colorbar(values, axes, orientation="horizontal", ticks=ticks, format="%.3g")
    axes.tick_params(labelsize=7 * zoom, length=2 * zoom, pad=1.5 * zoom)
    axes.set_title(scale.name, fontsize=8 * zoom, loc="left", pad=3 * zoom)
    return axes


# ---------------------------------------------------------------------------- files


def check_picture_name(path: Path) -> None:
    """Raises ValueError unless `path` ends in .png or .pdf."""
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"{path}: a picture's name must end in .png or .pdf")


def write_figure(figure: Figure, path: Path) -> None:
    """Writes the whole figure or nothing, in the format of the file's name: .png or .pdf."""
    kind = path.suffix.lower().removeprefix(".")
    # The same figure gives the same bytes: PDF would note the time of writing.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    dots = min(DOTS_PER_INCH, WIDEST_FIGURE_DOTS / max(figure.get_size_inches()))
    drawn = io.BytesIO()  # on a full disk the PDF writer raises errors other than OSError
    with rc_context(STYLE):
        figure.savefig(drawn, format=kind, dpi=dots, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, drawn.getbuffer())
