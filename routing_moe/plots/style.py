"""What pictures are made of: places in inches, letters, colours, scales, files.

Pictures are laid out in inches before anything is drawn, so that names fit and nothing overlaps.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from routing_moe.io.files import write_bytes

# Seaborn's "colorblind" palette: told apart under the common kinds of colour blindness.
CATEGORY_COLOURS = (
    "#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00", "#56b4e9", "#ece133", "#ca9161", "#fbafe4",
)  # fmt: skip
UNKNOWN_COLOUR = "#949494"
DARK = "0.15"
LETTERS = {"pdf.fonttype": 42}  # letters stay letters: journals ask for it
FONT, SMALL = 7.5, 6.5  # points
LONGEST_NAME = 60  # characters of a task name shown
DOTS_PER_INCH = 150
WIDEST_FIGURE_DOTS = 30_000  # Agg draws at most 65 536 a side

# Inches.
WIDTH = 6.75  # of the text of a paper
MARGIN = 0.15
EDGE = 0.06  # a narrower margin
BAR_WIDTH, BAR_HEIGHT, BAR_ROOM = 1.5, 0.12, 0.55  # of a scale


# ---------------------------------------------------------------------------- places and letters


def axes_at(figure: Figure, left: float, top: float, width: float, height: float):
    """New axes at a place given in inches from the figure's left and upper edges."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    )


def row_font(row_height: float) -> float:
    """The font size, in points, of names in rows so many inches high."""
    return min(8.0, row_height * 72 * 0.68)


def text_width(text: str, font: float) -> float:
    """How many inches wide a line of text is, rather too many than too few."""
    if not text.strip():
        return 0.0
    outline = TextPath((0, 0), text.replace("$", "S"), size=font).get_extents()
    return 1.06 * outline.width / 72  # letters drawn as dots are spaced a little wider than their outlines


def shown_name(task: str) -> str:
    """The name on one line, or the beginning and end of one that is longer than LONGEST_NAME."""
    task = " ".join(task.split())
    half = LONGEST_NAME // 2
    return task if len(task) <= LONGEST_NAME else f"{task[: half - 1]}…{task[-half:]}"


def draw_title(figure: Figure, title: str, scale: float = 1.0) -> Text:
    """Writes a title, broken into lines already, into the upper left corner; scale: of letters and margin."""
    width, height = figure.get_size_inches()
    left, top = MARGIN * scale / width, (height - MARGIN * scale) / height
    text = figure.text(left, top, title, va="top", fontsize=11 * scale)
    text.set_parse_math(False)
    return text


# ---------------------------------------------------------------------------- scales


@dataclass(frozen=True)
class HeatScale:
    """What values mean, which colours they have, and the ends of the scale."""

    name: str = "cosine similarity"
    colours: str = "RdBu_r"  # told apart by the colour-blind, white at 0
    low: float = -1.0
    high: float = 1.0


def mappable_of(scale: HeatScale) -> ScalarMappable:
    return ScalarMappable(Normalize(scale.low, scale.high), scale.colours)


def draw_scale(figure: Figure, left: float, top: float, scale: HeatScale, zoom: float = 1.0) -> None:
    """The colour bar of a scale, BAR_ROOM * zoom inches high with its name; zoom: of letters and bar."""
    axes = axes_at(figure, left, top + 0.2 * zoom, BAR_WIDTH * zoom, BAR_HEIGHT * zoom)
    ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    bar = Colorbar(axes, mappable_of(scale), orientation="horizontal", ticks=ticks, format="%g")
    bar.ax.tick_params(labelsize=7 * zoom, length=2 * zoom, pad=1.5 * zoom)
    bar.ax.set_title(scale.name, fontsize=8 * zoom, loc="left", pad=3 * zoom)


# ---------------------------------------------------------------------------- the file


def check_picture_name(path: Path) -> None:
    """Raises ValueError unless `path` ends in .png or .pdf."""
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"{path}: a picture's name must end in .png or .pdf")


def write_figure(figure: Figure, path: Path) -> None:
    """Writes the figure at once or not at all, as the file's name ends: .png or .pdf."""
    kind = path.suffix.lower().removeprefix(".")
    # The same routes give the same bytes: PDF would note the time of writing.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    dots = min(DOTS_PER_INCH, WIDEST_FIGURE_DOTS / max(figure.get_size_inches()))
    drawn = io.BytesIO()  # on a full disk the PDF writer raises errors other than OSError
    with rc_context(LETTERS):
        figure.savefig(drawn, format=kind, dpi=dots, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, drawn.getbuffer())
