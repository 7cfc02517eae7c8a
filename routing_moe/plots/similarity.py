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
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from dataloader.ontology import Ontology
from routing_moe.plots.style import (
    STYLE,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_heat,
    fit_figure,
    map_figure,
    row_font,
    shown_name,
    text_width,
    write_figure,
)
from routing_moe.plots.task_categories import (
    GAP,
    STRIPS,
    draw_borders,
    draw_key,
    frame_with_strips,
    kind_colours,
    name_rows,
)

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


@rc_context(STYLE)
def plot_similarities(
    panels: Sequence[Panel],
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    scale: HeatScale | None = None,
    title: str | None = None,
) -> None:
    """Writes a heat map for each panel, at most three side by side: PDF if `path` ends in .pdf, PNG if .png.

    scale: of all panels; None: of cosines. The same values give the same bytes. Raises ValueError if there
    is no panel, one does not fit the tasks or holds a value that is not finite, a task is listed twice or
    the file name ends differently.
    """
    path, scale = Path(path), scale or HeatScale()
    _check(panels, tasks, path)
    kinds, colour_of = [ontology.category(task) for task in tasks], kind_colours(ontology)
    side, font, zoom = map_size(len(tasks))
    columns = math.ceil(len(panels) / math.ceil(len(panels) / MOST_COLUMNS))  # even: 2 and 2, not 3 and 1
    letter = 1.12 * text_width("n" * 20, HEADING_FONT * zoom) / 20  # bold letters are wider
    names = [textwrap.wrap(shown_name(panel.name), int(side / letter)) for panel in panels]
    over = (
        LINE * (max(map(len, names)) + 1) + STRIPS + GAP
    ) * zoom  # from a heat map's edge to its heading's
    figure = map_figure()
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        row, column = divmod(number, columns)
        place = (
            column * (side + (STRIPS + GAP + BETWEEN) * zoom),
            row * (side + over + BETWEEN * zoom),
            side,
        )
        heat = axes_at(figure, *place, side)
        draw_heat(heat, panel.values_NN, scale)
        for line in (heat.axhline, heat.axvline):
            draw_borders(line, kinds, zoom**0.5)
        beside, above = frame_with_strips(figure, place, kinds, colour_of, zoom)
        if column == 0:
            name_rows(beside, tasks, font)
        _draw_heading(above, "\n".join(name), panel.note, zoom)
    left = columns * (side + (STRIPS + GAP + BETWEEN) * zoom) - (STRIPS + GAP) * zoom
    draw_key(figure, left, -over, scale, kinds, colour_of, zoom, room=over + side)
    fit_figure(figure, title, zoom)
    write_figure(figure, path)


def map_size(n_tasks: int) -> tuple[float, float, float]:
    """Returns (side in inches, font of rows' names in points, zoom of all else) of a square heat map."""
    row = 0.16 if n_tasks <= 30 else 0.125 if n_tasks <= 60 else 0.11 if n_tasks <= 120 else 0.1
    row = max(NARROWEST / n_tasks, row)
    return row * n_tasks, row_font(row), max(1.0, row * n_tasks / UNIT)


def _check(panels: Sequence[Panel], tasks: Sequence[str], path: Path) -> None:
    if not panels:
        raise ValueError("no panel to draw")
    if len(set(tasks)) != len(tasks):
        raise ValueError("a task is listed twice")
    for panel in panels:
        if panel.values_NN.shape != (len(tasks), len(tasks)):
            raise ValueError(f"{panel.name}: shape {panel.values_NN.shape} for {len(tasks)} tasks")
        if not np.isfinite(panel.values_NN).all():
            raise ValueError(f"{panel.name} holds values that are not finite")
    check_picture_name(path)


def _draw_heading(above: Axes, name: str, note: str, zoom: float) -> None:
    """The panel's name in bold, its note below, over the strips above a heat map."""
    above.set_title(note, fontsize=(HEADING_FONT - 1) * zoom, pad=4 * zoom)
    above.annotate(
        name, (0.5, 1), xycoords="axes fraction", xytext=(0, (4 + 72 * LINE) * zoom), ha="center",
        va="bottom", textcoords="offset points", fontsize=HEADING_FONT * zoom, fontweight="bold",
    )  # fmt: skip
