"""Which tasks' vectors are alike: heat maps side by side; how well neighbours agree with labels: dots.

    plot_similarities([Panel("text", "accuracy 0.83", cosines_NN)], tasks, Ontology.load(), "map.png")
    plot_agreement(table, "agreement.pdf")

Tasks stand in the ontology's order, so that a kind of task shows as a block on the diagonal. A map is as
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
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dataloader.ontology import Ontology
from routing_moe.plots.style import (
    BAR_ROOM,
    BAR_WIDTH,
    CATEGORY_COLOURS,
    DARK,
    EDGE,
    FONT,
    MARGIN,
    SMALL,
    WIDTH,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_scale,
    draw_title,
    row_font,
    shown_name,
    text_width,
    write_figure,
)
from routing_moe.plots.task_categories import (
    STRIP_WIDTH,
    draw_borders,
    draw_legend,
    draw_strips,
    kind_colours,
    legend_size,
    name_rows,
)

# Inches, of a heat map of up to UNIT; a larger one has all of it but its rows larger in proportion.
UNIT = 4.0
NARROWEST = 2.0
GAP = 0.06  # between strips and map
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
    row_of = {task: row for row, task in enumerate(tasks)}
    ordered = ontology.order(tasks)
    rows = [row_of[task] for task in ordered]
    kinds = [ontology.category(task) for task in ordered]
    colour_of = kind_colours(ontology)
    place = _Layout.measure(panels, ordered, kinds, title)
    figure = Figure(figsize=(place.width, place.height))
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels):
        strips = _draw_panel(
            figure, place, number, panel.values_NN[np.ix_(rows, rows)], scale, kinds, colour_of
        )
        _draw_heading(figure, place, number, panel)
        if number % place.columns == 0:
            name_rows(strips, ordered, place.font)
    draw_scale(figure, place.legend_left, place.top, scale, place.legend_zoom)
    top = place.top + BAR_ROOM * place.legend_zoom
    draw_legend(figure, place.legend_left, top, kinds, colour_of, place.legend_zoom)
    if title:
        draw_title(figure, place.title, place.zoom)
    write_figure(figure, path)


def _check(panels: Sequence[Panel], tasks: Sequence[str], path: Path) -> None:
    if not panels:
        raise ValueError("no panel to draw")
    if len(set(tasks)) != len(tasks):
        raise ValueError("a task is listed twice")
    for panel in panels:
        if panel.values_NN.shape != (len(tasks), len(tasks)):
            raise ValueError(f"{panel.name}: shape {panel.values_NN.shape} for {len(tasks)} tasks")
        if not np.isfinite(panel.values_NN).all():
            raise ValueError(f"{panel.name}: holds values that are not finite")
    check_picture_name(path)


# ---------------------------------------------------------------------------- heat maps: where things go


@dataclass(frozen=True)
class _Layout:
    """Inches: names of tasks on the left, panels in rows of `columns`, colour bar and legend on the right."""

    columns: int
    side: float  # of a heat map
    zoom: float  # of all but names
    font: float  # of names
    left: float  # of the first heat map
    top: float  # of the first row of panels, headings included
    over: float  # from there to the heat maps
    headings: tuple[tuple[str, ...], ...]
    legend_zoom: float
    width: float
    height: float
    title: str

    @classmethod
    def measure(cls, panels: Sequence[Panel], tasks: list[str], kinds: list, title: str | None):
        n = len(tasks)
        row = max(NARROWEST / n, 0.16 if n <= 30 else 0.125 if n <= 60 else 0.11 if n <= 120 else 0.1)
        side, font = row * n, row_font(row)
        zoom = max(1.0, side / UNIT)
        rows = math.ceil(len(panels) / MOST_COLUMNS)
        columns = math.ceil(len(panels) / rows)  # as even as can be: 2 and 2, not 3 and 1
        headings = tuple(_broken(panel.name, side, zoom) for panel in panels)
        names = max(text_width(shown_name(task), font) for task in tasks)
        left = MARGIN * zoom + names + 0.08 + cls._strips(zoom)
        across = columns * side + (columns - 1) * (BETWEEN * zoom + cls._strips(zoom))
        over = LINE * zoom * (max(map(len, headings)) + 1) + cls._strips(zoom)
        down = rows * (over + side) + (rows - 1) * BETWEEN * zoom
        legend_width, legend_height = legend_size(kinds)
        # As large as all else where there is room for it, but never smaller than in other pictures.
        legend_zoom = max(1.0, min(zoom, down / (legend_height + BAR_ROOM)))
        legend_width = legend_zoom * max(legend_width, BAR_WIDTH + 0.2)
        width = left + across + BETWEEN * zoom + legend_width + MARGIN * zoom
        wrapped = textwrap.fill(title, max(20, int((width / zoom - 2 * MARGIN) * 10.5))) if title else ""
        top = zoom * (MARGIN + (0.2 * (wrapped.count("\n") + 1) + 0.1 if wrapped else 0.0))
        height = top + max(down, legend_zoom * (legend_height + BAR_ROOM)) + MARGIN * zoom
        return cls(
            columns, side, zoom, font, left, top, over, headings, legend_zoom, width, height, wrapped
        )  # fmt: skip

    @staticmethod
    def _strips(zoom: float) -> float:
        return (2 * STRIP_WIDTH + GAP) * zoom

    @property
    def strips(self) -> float:
        """Width of two strips and the gap to the map."""
        return self._strips(self.zoom)

    @property
    def legend_left(self) -> float:
        return self.corner(self.columns - 1)[0] + self.side + BETWEEN * self.zoom

    def corner(self, number: int) -> tuple[float, float]:
        """From left and from above, of a heat map."""
        row, column = divmod(number, self.columns)
        left = self.left + column * (self.side + BETWEEN * self.zoom + self.strips)
        return left, self.top + self.over + row * (self.over + self.side + BETWEEN * self.zoom)


def _broken(name: str, side: float, zoom: float) -> tuple[str, ...]:
    """The lines of a panel's name."""
    letter = 1.12 * text_width("n" * 20, HEADING_FONT * zoom) / 20  # bold ones are wider
    return tuple(textwrap.wrap(shown_name(name), int(side / letter)))


# ---------------------------------------------------------------------------- heat maps: the parts


def _draw_panel(figure: Figure, place: _Layout, number: int, values_NN, scale: HeatScale, kinds, colour_of):
    """The heat map, and strips on its left and above; returns the axes of those on its left."""
    n, (left, top) = len(values_NN), place.corner(number)
    axes = axes_at(figure, left, top, place.side, place.side)
    axes.imshow(
        values_NN, cmap=scale.colours, vmin=scale.low, vmax=scale.high,
        aspect="auto", interpolation="nearest", extent=(0, n, n, 0),
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for line in (axes.axhline, axes.axvline):
        draw_borders(line, kinds, place.zoom**0.5)
    width = place.strips - GAP * place.zoom
    beside = axes_at(figure, left - place.strips, top, width, place.side)
    draw_strips(beside, kinds, colour_of)
    draw_strips(axes_at(figure, left, top - place.strips, place.side, width), kinds, colour_of, across=True)
    return beside


def _draw_heading(figure: Figure, place: _Layout, number: int, panel: Panel) -> None:
    left, top = place.corner(number)
    lines = [(panel.note, "normal"), *((line, "bold") for line in reversed(place.headings[number]))]
    for row, (line, weight) in enumerate(lines):
        bottom = place.height - top + place.strips + LINE * place.zoom * (row + 0.3)
        figure.text(
            (left + place.side / 2) / place.width, bottom / place.height, line, ha="center", va="baseline",
            fontsize=(HEADING_FONT - (weight == "normal")) * place.zoom, fontweight=weight,
        ).set_parse_math(False)  # fmt: skip


# ---------------------------------------------------------------------------- agreement with labels
#
# Inches; the width is that of the text of a paper.

DOT_ROW = 0.17
HEADING, AXIS, KEY, SPACE = 0.2, 0.22, 0.4, 0.22
NARROWEST_PANEL = 0.95
SIGNIFICANT = 0.05


def plot_agreement(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes a panel per labelling with a row per folder: accuracy as a dot, what chance gives as a tick.

    table: the columns vectors, labelling, scored, k, accuracy, chance, p; NaN is drawn as "-". PDF or PNG as
    `path` ends; the same table gives the same bytes. Raises ValueError if it ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    names = list(table["vectors"].unique())
    scored = table.groupby("labelling", sort=False)["scored"].first()
    headings = {kind: f"{shown_name(kind)} ({n})" for kind, n in scored.items()}
    wrapped = textwrap.fill(title, 80) if title else ""
    place = _DotLayout.measure(names, list(headings.values()), wrapped)
    figure = Figure(figsize=(WIDTH, place.height))
    FigureCanvasAgg(figure)
    for number, (kind, heading) in enumerate(headings.items()):
        axes = axes_at(figure, *place.corner(number), place.panel_width, place.panel_height)
        rows = table[table["labelling"] == kind].set_index("vectors").loc[names]
        _draw_dots(axes, rows)
        _name_dots(axes, heading, names if number % place.columns == 0 else [""] * len(names))
    _draw_key(figure, int(table["k"].iloc[0]))
    if wrapped:
        draw_title(figure, wrapped, 0.8)
    write_figure(figure, path)


@dataclass(frozen=True)
class _DotLayout:
    """Inches: names of folders on the left, then panels in rows of `columns`, the key below."""

    left: float
    top: float
    columns: int
    panel_width: float
    panel_height: float
    height: float

    @classmethod
    def measure(cls, names: list[str], headings: list[str], title: str):
        left = EDGE + max(text_width(shown_name(name), FONT) for name in names) + 0.1
        narrowest = max(NARROWEST_PANEL, *(text_width(heading, FONT) for heading in headings))
        fit = max(1, int((WIDTH - left - EDGE + SPACE) / (narrowest + SPACE)))
        rows = math.ceil(len(headings) / fit)
        columns = math.ceil(len(headings) / rows)
        panel_width = (WIDTH - left - EDGE - 0.1 + SPACE) / columns - SPACE
        panel_height = DOT_ROW * (len(names) + 0.2)
        top = 0.12 + 0.165 * (title.count("\n") + 1) if title else EDGE
        height = top + rows * (HEADING + panel_height + AXIS) + KEY
        return cls(left, top, columns, panel_width, panel_height, height)

    def corner(self, number: int) -> tuple[float, float]:
        row, column = divmod(number, self.columns)
        left = self.left + column * (self.panel_width + SPACE)
        return left, self.top + HEADING + row * (HEADING + self.panel_height + AXIS)


def _draw_dots(axes, rows: pd.DataFrame) -> None:
    """A line from chance to accuracy in each row; the dot is hollow where chance may have done as well."""
    axes.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.4, -0.6))
    for number, row in enumerate(rows.itertuples()):
        if number % 2:
            axes.axhspan(number - 0.5, number + 0.5, color="0.955", linewidth=0, zorder=0)
        if np.isnan(row.accuracy):
            axes.text(0.0, number, "-", fontsize=FONT, ha="center", va="center", color=DARK)
            continue
        axes.plot([row.chance, row.accuracy], [number] * 2, color="0.6", linewidth=0.8, zorder=1)
        axes.plot([row.chance] * 2, [number - 0.3, number + 0.3], color=DARK, linewidth=0.9, zorder=2)
        axes.plot([row.accuracy], [number], zorder=3, **_dot(row.p < SIGNIFICANT))


def _dot(filled: bool) -> dict:
    blue = CATEGORY_COLOURS[0]
    face = blue if filled else "white"
    return dict(
        linestyle="", marker="o", markersize=4.2, color=face, markeredgecolor=blue, markeredgewidth=0.9
    )


def _name_dots(axes, heading: str, names: list[str]) -> None:
    axes.set_title(heading, fontsize=FONT, pad=3).set_parse_math(False)
    axes.set_yticks(range(len(names)), [shown_name(name) for name in names])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xticks([0.25, 0.75], minor=True)
    axes.tick_params(axis="x", labelsize=SMALL, length=2.5, pad=1.5, width=0.5)
    axes.tick_params(axis="x", which="minor", length=1.5, width=0.5)
    axes.tick_params(axis="y", labelsize=FONT, length=0, pad=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)


def _draw_key(figure: Figure, k: int) -> None:
    tick = dict(linestyle="", marker="|", markersize=7, markeredgewidth=0.9, color=DARK)
    handles = [Line2D([], [], **style) for style in (_dot(True), _dot(False), tick)]
    names = [f"accuracy, p < {SIGNIFICANT}", f"p ≥ {SIGNIFICANT}", "chance: labels shuffled"]
    whose = "the nearest task's" if k == 1 else f"that of the {k} nearest tasks' majority"
    figure.legend(
        handles, names, loc="lower center", ncols=3, fontsize=SMALL, frameon=False, borderaxespad=0.2,
        handletextpad=0.4, columnspacing=1.8, title_fontsize=FONT,
        title=f"share of tasks whose label is {whose} (number of tasks in brackets)",
    )  # fmt: skip
