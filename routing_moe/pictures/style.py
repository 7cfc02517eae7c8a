"""What all pictures share: colours, fonts, names, the colours of categories, files.

    save(plot_curves(table), "models/curves", "A title")     # curves.png and curves.pdf

A function that draws returns a figure; `save` also writes what lies outside of it.
"""

import io
import textwrap
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from dataloader.atomic_files import write_bytes
from dataloader.ontology import UNCATEGORISED, Ontology

# Seaborn's "colorblind" palette.
COLOURS = (
    "#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00",
    "#56b4e9", "#ece133", "#ca9161", "#fbafe4", "#949494",
)  # fmt: skip
MARKERS = "os^DvPX"
BLUE, RED, GREY = COLOURS[0], COLOURS[4], COLOURS[-1]
DARK, BAND = "0.15", "0.955"  # of lines; of every second row
# A variant has one colour in all pictures: {beginning of its name: colour}. Others share what is left.
VARIANTS = {
    **dict.fromkeys(("dense", "multitask", "one_bart", "one_expert", "one_wide"), RED),
    "random": GREY, "task_random": GREY, "cross_loss": BLUE,
    "learned": COLOURS[3], "straight_through": COLOURS[3], "oracle": DARK, "true_groups": DARK,
}  # fmt: skip
WIDTH = 6.75  # inches: the text of a paper
MARGIN = 0.1  # inches
LONGEST_NAME = 60  # characters
DOTS, MOST_DOTS = 150, 30_000  # of an inch; of a side of a PNG, where Agg draws 65,536
# Letters of a PDF stay letters, as journals require; a $ in the name of a task starts no formula.
STYLE = {
    "pdf.fonttype": 42, "text.parse_math": False, "figure.dpi": DOTS, "font.size": 7.5,
    "axes.titlesize": 7.5, "axes.titlepad": 3, "axes.titlelocation": "left",
    "axes.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.labelsize": 6.5, "xtick.major.size": 2, "xtick.major.pad": 1.5, "xtick.major.width": 0.5,
    "ytick.labelsize": 6.5, "ytick.major.size": 2, "ytick.major.width": 0.5,
    "legend.fontsize": 6.5, "legend.title_fontsize": 7.5, "legend.frameon": False,
}  # fmt: skip
styled = rc_context(STYLE)  # a decorator


def series(names: Sequence[str]) -> list[dict]:
    """Returns colour and marker of each run or variant."""
    free = cycle(colour for colour in COLOURS if colour not in VARIANTS.values())
    edge = dict(markeredgecolor="0.35", markeredgewidth=0.3)
    own = [next((VARIANTS[start] for start in VARIANTS if name.startswith(start)), None) for name in names]
    return [
        dict(color=colour or next(free), marker=marker, **edge)
        for colour, marker in zip(own, cycle(MARKERS), strict=False)
    ]


def short(name: str) -> str:
    """Returns the name on one line; of a long one, its beginning and end."""
    name, half = " ".join(name.split()), LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def wrapped(text: str, inches: float, font: float) -> str:
    """Returns the text in lines that fit into a width; its own line breaks stay. font: points."""
    characters = max(16, int(inches * 72 / (0.58 * font)))
    return "\n".join(textwrap.fill(line, characters) for line in text.splitlines())


def kind_colours(ontology: Ontology) -> dict[tuple[str, str], tuple]:
    """Returns a hue under each (category, ""), and a shade of it under each (category, subcategory)."""
    colours = dict.fromkeys((UNCATEGORISED, (UNCATEGORISED[0], "")), to_rgb(GREY))
    for number, (category, subcategories) in enumerate(ontology.categories.items()):
        hue = np.array(to_rgb(COLOURS[number % 9]))
        colours[category, ""] = tuple(hue)
        shades = np.linspace(-0.7, 0.6, len(subcategories)) if len(subcategories) > 1 else np.zeros(1)
        halves = np.array_split(shades, 2)  # pale and dark ones take turns: neighbours must differ
        for place, sub in enumerate(subcategories):
            shade = halves[place % 2][place // 2]
            end = np.ones(3) if shade < 0 else np.zeros(3)
            colours[category, sub] = tuple(hue + (end - hue) * abs(shade))
    return colours


def finished(figure: Figure, title: str | None = None) -> Bbox:
    """Writes the title above all that is drawn; returns the box of the whole picture in inches."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    if title:
        width, height = figure.get_size_inches()
        place = box.x0 / width, (box.y1 + MARGIN) / height
        figure.text(*place, wrapped(title, max(4.0, box.width), 10), fontsize=10, va="bottom")
        box = figure.get_tightbbox()
    return box.padded(MARGIN)


def add_legend(figure: Figure, title: str | None = None) -> None:
    """Names everything with a label below the panels."""
    pairs = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {name: handle for handle, name in pairs}
    columns = max(1, min(len(handles), int(WIDTH / (0.048 * max(map(len, handles), default=0) + 0.45))))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, title=title)


def save(figure: Figure, path: str | Path, title: str | None = None) -> None:
    """Writes the picture as PNG or PDF if its name ends so, else as both; equal figures give equal bytes."""
    path, kinds = Path(path), (".png", ".pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path] if path.suffix in kinds else [path.with_name(path.name + kind) for kind in kinds]
    with rc_context(STYLE):
        box = finished(figure, title)
        dots = min(figure.dpi, MOST_DOTS / max(box.size))
        for path in paths:
            drawn = io.BytesIO()  # on a full disk, the PDF writer raises errors other than OSError
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(drawn, format=path.suffix[1:], dpi=dots, bbox_inches=box, metadata=metadata)
            write_bytes(path, drawn.getbuffer())
