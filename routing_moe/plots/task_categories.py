"""Kinds of tasks in pictures: strips of colour beside rows, lines between kinds, and their legend.

`kinds` holds the category and subcategory of each task, in the order of the picture's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.plots.style import CATEGORY_COLOURS, UNKNOWN_COLOUR, axes_at, shown_name, text_width

# Inches.
STRIP_WIDTH = 0.14
LEGEND_ROW = 0.17
LEGEND_PATCH = 0.11


def draw_borders(line: Callable, kinds: Sequence[tuple[str, str]], scale: float = 1.0) -> None:
    """A line wherever the kind changes, thinner between subcategories; `line`: axes.axhline or axvline."""
    for row in range(1, len(kinds)):
        if kinds[row] != kinds[row - 1]:
            new_category = kinds[row][0] != kinds[row - 1][0]
            line(row, color="0.45", linewidth=scale * (0.9 if new_category else 0.35))


def draw_strips(axes, kinds: Sequence[tuple[str, str]], colour_of: dict, across: bool = False) -> None:
    """Fills axes with two strips of colour, category left of subcategory; across: category above it."""
    strips = np.array([[colour_of[category, ""], colour_of[category, sub]] for category, sub in kinds])
    extent = (0, len(kinds), 2, 0) if across else (0, 2, len(kinds), 0)
    axes.imshow(
        strips.swapaxes(0, 1) if across else strips, aspect="auto", interpolation="nearest", extent=extent
    )
    (axes.axhline if across else axes.axvline)(1, color="white", linewidth=1.5)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])


def name_rows(axes, tasks: Sequence[str], font: float) -> None:
    """Writes the tasks' names on the left of axes whose row n goes from n to n + 1."""
    axes.set_yticks(np.arange(len(tasks)) + 0.5, [shown_name(task) for task in tasks], fontsize=font)
    axes.tick_params(axis="y", length=0, pad=3)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)


def kind_colours(ontology: Ontology) -> dict[tuple[str, str], tuple[float, float, float]]:
    """A hue per category, under (category, ""), and a shade of it per (category, subcategory).

    They hang on the ontology alone, so that a kind of task has the same colour in every picture.
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


def legend_size(kinds: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Width and height, in inches, of the legend that `draw_legend` draws with scale 1."""
    rows = _legend_rows(kinds)
    # A third more for the categories, which are in bold.
    width = max(text_width(sub or category, 8 if sub else 10.5) + 0.45 for category, sub in rows)
    return width, LEGEND_ROW * len(rows)


def draw_legend(
    figure: Figure,
    left: float,
    top: float,
    kinds: Sequence[tuple[str, str]],
    colour_of: dict,
    scale: float = 1.0,
) -> None:
    """The names of the strips' colours, at a place given in inches; scale: of letters and patches."""
    rows = _legend_rows(kinds)
    width, height = figure.get_figwidth() - left, LEGEND_ROW * scale * len(rows)
    axes = axes_at(figure, left, top, width, height)
    axes.set(xlim=(0, width / scale), ylim=(height / scale, 0))
    axes.set_axis_off()
    for number, (category, sub) in enumerate(rows):
        middle = (number + 0.5) * LEGEND_ROW
        indent = 0.15 if sub else 0.0
        axes.add_patch(
            Rectangle(
                (indent, middle - LEGEND_PATCH / 2), LEGEND_PATCH, LEGEND_PATCH,
                facecolor=colour_of[category, sub], edgecolor="0.5", linewidth=0.4,
            )
        )  # fmt: skip
        weight = "normal" if sub else "bold"
        name = axes.text(
            indent + 0.18, middle, sub or category, va="center", fontsize=8 * scale, fontweight=weight
        )
        name.set_parse_math(False)


def _legend_rows(kinds: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """[(category, "") or (category, subcategory), ...] in the order of the picture's rows."""
    rows = []
    for category, sub in dict.fromkeys(kinds):
        rows += [(category, "")] if (category, sub) == UNCATEGORISED else [(category, ""), (category, sub)]
    return list(dict.fromkeys(rows))
