"""Similarities of tasks' vectors as heat maps side by side, one per folder of vectors.

    plot_similarities([Panel("text", "accuracy 0.83", cosines_NN)], tasks, Ontology.load(), "map.png")

Give tasks in the ontology's order, so that a category of tasks shows as a block on the diagonal. A map is as
large as its tasks' names need; all else grows with it, and stays legible where a paper shrinks the picture.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from dataloader.ontology import Ontology
from routing_moe.plots.heat_map import (
    GAP,
    STRIPS,
    draw_borders,
    draw_heat,
    draw_key,
    draw_strips,
    heat_map,
    name_rows,
)
from routing_moe.plots.style import HeatScale, row_font, shown_name, text_width
from routing_moe.plots.task_categories import kind_colours

# Inches, of a heat map of up to UNIT; a larger one has all but its rows enlarged in proportion.
UNIT = 4.0
NARROWEST = 2.0
BETWEEN = 0.3  # panels
LINE = 0.165  # of a heading
HEADING_FONT = 9.5
MOST_COLUMNS = 3


@dataclass(frozen=True, eq=False)
class Panel:
    """One heat map: row and column n of `values_NN` are the n-th task's."""

    name: str
    note: str  # a few words below the name
    values_NN: np.ndarray


def plot_similarities(
    panels: Sequence[Panel],
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Writes a heat map for each panel, at most three side by side. path: ends in .pdf or .png."""
    scale = HeatScale("cosine similarity, centred")
    kinds, colour_of = [ontology.category(task) for task in tasks], kind_colours(ontology)
    side, font, zoom = map_size(len(tasks))
    columns = math.ceil(len(panels) / math.ceil(len(panels) / MOST_COLUMNS))  # even: 2 and 2, not 3 and 1
    letter = 1.12 * text_width("n" * 20, HEADING_FONT * zoom) / 20  # bold letters are wider
    names = [textwrap.wrap(shown_name(panel.name), int(side / letter)) for panel in panels]
    heading = (LINE * (max(map(len, names)) + 1) + STRIPS + GAP) * zoom  # height above a heat map
    step = side + (STRIPS + GAP + BETWEEN) * zoom
    with heat_map(path, title, zoom) as figure:
        for number, (panel, lines) in enumerate(zip(panels, names, strict=True)):
            row, column = divmod(number, columns)
            box = (column * step, row * (side + heading + BETWEEN * zoom), side, side)
            heat = draw_heat(figure, box, panel.values_NN, scale)
            for line in (heat.axhline, heat.axvline):
                draw_borders(line, kinds, zoom**0.5)
            strips = draw_strips(figure, box, kinds, colour_of, zoom)
            if column == 0:
                name_rows(strips, tasks, font)
            strips_above = draw_strips(figure, box, kinds, colour_of, zoom, above=True)
            _draw_heading(strips_above, "\n".join(lines), panel.note, zoom)
        left = columns * step - (STRIPS + GAP) * zoom
        draw_key(figure, left, -heading, scale, kinds, colour_of, zoom, room=heading + side)


def map_size(n_tasks: int) -> tuple[float, float, float]:
    """Returns (side in inches, font of rows' names in points, zoom of all else) of a square heat map."""
    row = 0.16 if n_tasks <= 30 else 0.125 if n_tasks <= 60 else 0.11 if n_tasks <= 120 else 0.1
    row = max(NARROWEST / n_tasks, row)
    return row * n_tasks, row_font(row), max(1.0, row * n_tasks / UNIT)


def _draw_heading(strips: Axes, name: str, note: str, zoom: float) -> None:
    """The panel's name in bold, its note below, over the strips above a heat map."""
    strips.set_title(note, fontsize=(HEADING_FONT - 1) * zoom, pad=4 * zoom)
    strips.annotate(
        name, (0.5, 1), xycoords="axes fraction", xytext=(0, (4 + 72 * LINE) * zoom), ha="center",
        va="bottom", textcoords="offset points", fontsize=HEADING_FONT * zoom, fontweight="bold",
    )  # fmt: skip
