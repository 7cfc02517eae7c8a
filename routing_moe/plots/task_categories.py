"""Categories of tasks in heat maps: colour strips beside rows, borders between categories, and the legend.

`kinds` holds the category and subcategory of each task, in the order of the picture's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.plots.style import (
    BAR_HEIGHT,
    BAR_ROOM,
    CATEGORY_COLOURS,
    UNKNOWN_COLOUR,
    HeatScale,
    axes_at,
    draw_colour_bar,
    shown_name,
)

# Inches.
STRIPS = 0.28  # width of the two strips of a heat map
GAP = 0.06  # from there to the heat map
LEGEND_ROW = 0.17


def draw_borders(line: Callable, kinds: Sequence[tuple[str, str]], scale: float = 1.0) -> None:
    """Draws a line where the kind changes, thinner between subcategories; `line`: axes.axhline or axvline."""
    for row in range(1, len(kinds)):
        if kinds[row] != kinds[row - 1]:
            new_category = kinds[row][0] != kinds[row - 1][0]
            line(row, color="0.45", linewidth=scale * (0.9 if new_category else 0.35))


def draw_strips(axes: Axes, kinds: Sequence[tuple[str, str]], colour_of: dict, across: bool = False) -> None:
    """Fills axes with two strips of colour, category left of subcategory; across: category above it."""
    strips = np.array([[colour_of[category, ""], colour_of[category, sub]] for category, sub in kinds])
    extent = (0, len(kinds), 2, 0) if across else (0, 2, len(kinds), 0)
    axes.imshow(
        strips.swapaxes(0, 1) if across else strips, aspect="auto", interpolation="nearest", extent=extent
    )
    (axes.axhline if across else axes.axvline)(1, color="white", linewidth=1.5)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])


def frame_with_strips(
    figure: Figure, place: tuple, kinds: Sequence[tuple[str, str]], colour_of: dict, zoom: float
) -> tuple[Axes, Axes]:
    """Draws strips left of and above a square heat map at `place` (left, top, side; inches); returns both."""
    left, top, side = place
    away, width = (STRIPS + GAP) * zoom, STRIPS * zoom
    beside = axes_at(figure, left - away, top, width, side)
    above = axes_at(figure, left, top - away, side, width)
    draw_strips(beside, kinds, colour_of)
    draw_strips(above, kinds, colour_of, across=True)
    return beside, above


def name_rows(axes: Axes, names: Sequence[str], font: float) -> None:
    """Writes names of tasks or features on the left of axes whose row n goes from n to n + 1."""
    axes.set_yticks(np.arange(len(names)) + 0.5, [shown_name(name) for name in names], fontsize=font)
    axes.tick_params(axis="y", length=0, pad=3)


def kind_colours(ontology: Ontology) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Returns a hue per category, under (category, ""), and a shade of it per (category, subcategory).

    They depend only on the ontology, so that a kind of task has the same colour in every picture.
    """
    colours = dict.fromkeys((UNCATEGORISED, (UNCATEGORISED[0], "")), to_rgb(UNKNOWN_COLOUR))
    for number, (category, subcategories) in enumerate(ontology.categories.items()):
        hue = np.array(to_rgb(CATEGORY_COLOURS[number % len(CATEGORY_COLOURS)]))
        colours[category, ""] = tuple(hue)
        for sub, darkness in zip(subcategories, _shades(len(subcategories)), strict=True):
            end = np.ones(3) if darkness < 0 else np.zeros(3)
            colours[category, sub] = tuple(hue + (end - hue) * abs(darkness))
    return colours


def _shades(count: int) -> list[float]:
    """Numbers from -0.7 (pale) to 0.6 (dark), every second one far from the last: neighbours must differ."""
    if count == 1:
        return [0.0]
    pale, dark = np.array_split(np.linspace(-0.7, 0.6, count), 2)
    return [float(half[index // 2]) for index in range(count) for half in [(pale, dark)[index % 2]]]


def draw_key(
    figure: Figure,
    left: float,
    top: float,
    scale: HeatScale,
    kinds: Sequence[tuple[str, str]],
    colour_of: dict,
    zoom: float = 1.0,
    room: float = 0.0,
) -> None:
    """Draws the colour bar and, below it, the legend of the strips; places in inches.

    zoom: of fonts and patches; smaller if the key would be taller than `room` inches, but at least 1.
    """
    rows = _legend_rows(kinds)
    zoom = max(1.0, min(zoom, room / (LEGEND_ROW * len(rows) + BAR_ROOM)))
    bar = draw_colour_bar(figure, left, top, scale, zoom)
    patches = [Patch(facecolor=colour_of[row], edgecolor="0.5", linewidth=0.4 * zoom) for row in rows]
    names = [f"   {sub}" if sub else category for category, sub in rows]
    legend = bar.legend(
        patches, names, loc="upper left", bbox_to_anchor=(0, 1 - (BAR_ROOM - 0.2) / BAR_HEIGHT),
        fontsize=8 * zoom, frameon=False, borderpad=0, borderaxespad=0, handlelength=1, handleheight=1,
        handletextpad=0.6, labelspacing=0.45,
    )  # fmt: skip
    for (_, sub), text in zip(rows, legend.get_texts(), strict=True):
        text.set_fontweight("normal" if sub else "bold")


def _legend_rows(kinds: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """[(category, "") or (category, subcategory), ...] in the order of the picture's rows."""
    rows = []
    for category, sub in dict.fromkeys(kinds):
        rows += [(category, "")] if (category, sub) == UNCATEGORISED else [(category, ""), (category, sub)]
    return list(dict.fromkeys(rows))
