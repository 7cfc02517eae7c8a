"""Heat maps: a figure that grows with its cells, the strips and names of its rows, the key.

    with heat_map("map.png", title) as figure:
        axes = draw_heat(figure, (0, 0, 3, 2), values_RC, HeatScale("correlation"))
        name_rows(axes, names, font)

Rows have a fixed height, so that names neither overlap nor become unreadable; constrained layout cannot do
that. Boxes are in inches: (left, top, width, height) of a map, `top` downwards, negative numbers left of or
above the first one; the figure is resized at the end to hold everything drawn. `kinds` holds the category and
subcategory of each task, in the order of the rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from dataloader.ontology import UNCATEGORISED
from routing_moe.plots.style import DOTS_PER_INCH, MARGIN, STYLE, HeatScale, shown_name, wrapped, write_figure

# Inches.
STRIPS = 0.28  # width of the two strips of a heat map
GAP = 0.06  # from there to the heat map
LEGEND_ROW = 0.17
BAR_WIDTH, BAR_HEIGHT, BAR_ROOM = 1.5, 0.12, 0.55  # of a colour bar; BAR_ROOM with its labels

Box = tuple[float, float, float, float]
Kinds = Sequence[tuple[str, str]]


@contextmanager
def heat_map(path: str | os.PathLike, title: str | None = None, zoom: float = 1.0) -> Iterator[Figure]:
    """Yields a figure to draw on; then fits it around that, adds the title, and writes it as `path` ends.

    zoom: of the title's font and the margin.
    """
    with rc_context(STYLE):
        figure = map_figure()
        yield figure
        fit_figure(figure, title, zoom)
        write_figure(figure, path)


def map_figure() -> Figure:
    """Returns a figure for `axes_at` and `fit_figure`."""
    figure = Figure(figsize=(1, 1), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def fit_figure(figure: Figure, title: str | None = None, zoom: float = 1.0) -> Text | None:
    """Grows a `map_figure` around its axes and adds the title on top, which is returned."""
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


def axes_at(figure: Figure, box: Box) -> Axes:
    """Returns new axes."""
    left, top, width, height = box
    return figure.add_axes((left, 1 - top - height, width, height))


# ---------------------------------------------------------------------------- cells


def draw_heat(figure: Figure, box: Box, values_RC: np.ndarray, scale: HeatScale) -> Axes:
    """Draws a cell per value: row r from r to r + 1 downwards, column c from c to c + 1."""
    axes, (rows, columns) = axes_at(figure, box), values_RC.shape
    axes.set(xticks=[], yticks=[])
    axes.imshow(
        values_RC, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="auto",
        interpolation="nearest", extent=(0, columns, rows, 0),
    )  # fmt: skip
    return axes


def draw_borders(line: Callable, kinds: Kinds, scale: float = 1.0) -> None:
    """Draws a line where the kind changes, thinner between subcategories; `line`: axes.axhline or axvline."""
    for row in range(1, len(kinds)):
        if kinds[row] != kinds[row - 1]:
            new_category = kinds[row][0] != kinds[row - 1][0]
            line(row, color="0.45", linewidth=scale * (0.9 if new_category else 0.35))


def name_rows(axes: Axes, names: Sequence[str], font: float) -> None:
    """Writes names of tasks or features on the left of axes whose row n goes from n to n + 1."""
    axes.set_yticks(np.arange(len(names)) + 0.5, [shown_name(name) for name in names], fontsize=font)
    axes.tick_params(axis="y", length=0, pad=3)


def draw_strips(
    figure: Figure, box: Box, kinds: Kinds, colour_of: dict, zoom: float = 1.0, above: bool = False
) -> Axes:
    """Draws the colours of the tasks' categories and subcategories left of or above the map at `box`."""
    left, top, width, height = box
    away, strips = (STRIPS + GAP) * zoom, STRIPS * zoom
    colours = np.array([[colour_of[category, ""], colour_of[category, sub]] for category, sub in kinds])
    image = dict(aspect="auto", interpolation="nearest")
    if above:
        axes = axes_at(figure, (left, top - away, width, strips))
        axes.imshow(colours.swapaxes(0, 1), extent=(0, len(kinds), 2, 0), **image)
        axes.axhline(1, color="white", linewidth=1.5)
    else:
        axes = axes_at(figure, (left - away, top, strips, height))
        axes.imshow(colours, extent=(0, 2, len(kinds), 0), **image)
        axes.axvline(1, color="white", linewidth=1.5)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    return axes


# ---------------------------------------------------------------------------- key


def draw_colour_bar(figure: Figure, left: float, top: float, scale: HeatScale, zoom: float = 1.0) -> Axes:
    """Draws a scale's colour bar, BAR_ROOM * zoom inches high with its name; zoom: of letters and bar."""
    axes = axes_at(figure, (left, top + 0.2 * zoom, BAR_WIDTH * zoom, BAR_HEIGHT * zoom))
    values = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
    ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    figure.colorbar(values, axes, orientation="horizontal", ticks=ticks, format="%.3g")
    axes.tick_params(labelsize=7 * zoom, length=2 * zoom, pad=1.5 * zoom)
    axes.set_title(scale.name, fontsize=8 * zoom, loc="left", pad=3 * zoom)
    return axes


def draw_key(
    figure: Figure,
    left: float,
    top: float,
    scale: HeatScale,
    kinds: Kinds,
    colour_of: dict,
    zoom: float = 1.0,
    room: float = 0.0,
) -> None:
    """Draws the colour bar and, below it, the legend of the strips.

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


def _legend_rows(kinds: Kinds) -> list[tuple[str, str]]:
    """[(category, "") or (category, subcategory), ...] in the order of the picture's rows."""
    rows = []
    for category, sub in dict.fromkeys(kinds):
        rows += [(category, "")] if (category, sub) == UNCATEGORISED else [(category, ""), (category, sub)]
    return list(dict.fromkeys(rows))
