"""The route map: one row per task, one column per expert of every layer.

    plot_routes(model.routes_for(tasks), tasks, Ontology.load(), "routes.png", encoder_layers=6)

Tasks stand in the ontology's order, so that a skill shared by a kind of task shows as a block.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from dataloader.ontology import Ontology
from routing_moe.analysis.saved_routes import layer_names
from routing_moe.plots.style import (
    MARGIN,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_scale,
    draw_title,
    mappable_of,
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

HEAT_COLOURS = "Blues"
WEIGHTS = HeatScale("weight of the expert", HEAT_COLOURS, 0.0, 1.0)

# Inches.
GAP = 0.12
COLOUR_BAR_HEIGHT = 0.48
EXPERT_LABELS_FROM = 0.085  # narrower columns get no expert numbers, they would run into each other


def plot_routes(
    routes_NLE,
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    encoder_layers: int,
    title: str | None = None,
    layers: Sequence[str] | None = None,
) -> None:
    """Draws routes as a heat map and writes it to `path`: PDF if it ends in .pdf, PNG if in .png.

    `routes_NLE`: array or tensor, row n for `tasks[n]`, encoder layers first; 0 is white and 1 dark blue.
    `ontology`: a `dataloader.ontology.Ontology`; tasks it does not know are drawn last, in grey. `layers`:
    short names of the layers, where routes leave some of a model's out ("enc 1", "dec 0"); None: all are
    there. The picture grows with the data, and the file appears at once (written beside, then renamed).

    Raises ValueError if the shape does not fit the tasks or layers, a task is listed twice, a value is not
    finite, `encoder_layers` is out of range or the file name ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    write_figure(draw_routes(routes_NLE, tasks, ontology, encoder_layers, title, layers).figure, path)


@dataclass(frozen=True, eq=False)
class RouteMap:
    """A picture that is drawn but not written; `show` puts other values into it."""

    figure: Figure
    heat: Axes
    image: AxesImage
    title: Text | None
    order: list[int]  # row n of the picture is row order[n] of the routes

    def show(self, routes_NLE, title: str) -> None:
        """Other routes of the same tasks, and another title of no more lines. All else stays."""
        self.image.set_data(_as_array(routes_NLE)[self.order].reshape(len(self.order), -1))
        if self.title:
            self.title.set_text(_broken(title, self.figure.get_figwidth()))


def draw_routes(
    routes_NLE,
    tasks: Sequence[str],
    ontology: Ontology,
    encoder_layers: int,
    title: str | None = None,
    layers: Sequence[str] | None = None,
    scale: HeatScale = WEIGHTS,
) -> RouteMap:
    """The picture of `plot_routes`, which see; of other numbers than weights with another scale."""
    routes_NLE = _as_array(routes_NLE)
    _check(routes_NLE, tasks, encoder_layers, layers)
    row_of = {task: row for row, task in enumerate(tasks)}
    ordered = ontology.order(tasks)
    order = [row_of[task] for task in ordered]
    kinds = [ontology.category(task) for task in ordered]
    colour_of = kind_colours(ontology)
    place = _Layout.measure(ordered, kinds, routes_NLE.shape[1:], title)

    figure = Figure(figsize=(place.width, place.height))
    FigureCanvasAgg(figure)
    layers = layers or layer_names(encoder_layers, range(routes_NLE.shape[1]))
    heat = _draw_heat(figure, place, routes_NLE[order], layers, encoder_layers, kinds, mappable_of(scale))
    left = place.heat_left - GAP / 2 - 2 * STRIP_WIDTH
    strips = axes_at(figure, left, place.heat_top, 2 * STRIP_WIDTH, place.heat_height)
    draw_strips(strips, kinds, colour_of)
    name_rows(strips, ordered, place.font)
    draw_scale(figure, place.legend_left, place.heat_top - 0.2, scale)
    draw_legend(figure, place.legend_left, place.heat_top + COLOUR_BAR_HEIGHT, kinds, colour_of)
    written = draw_title(figure, place.title) if title else None
    return RouteMap(figure, heat, heat.images[0], written, order)


def _as_array(routes) -> np.ndarray:
    if hasattr(routes, "detach"):  # a torch tensor, perhaps with a gradient, on a GPU, or in bfloat16
        routes = routes.detach().float().cpu().numpy()
    return np.asarray(routes, dtype=np.float64)


def _check(
    routes_NLE: np.ndarray, tasks: Sequence[str], encoder_layers: int, layers: Sequence[str] | None
) -> None:
    shape = routes_NLE.shape
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"routes have shape {shape}, expected (tasks, layers, experts)")
    if len(tasks) != shape[0]:
        raise ValueError(f"{len(tasks)} task names for routes of {shape[0]} tasks")
    if len(set(tasks)) != len(tasks):
        raise ValueError(
            f"a task is listed twice: {next(task for task in tasks if list(tasks).count(task) > 1)}"
        )
    if not np.isfinite(routes_NLE).all():
        raise ValueError("routes hold values that are not finite")
    if not 0 <= encoder_layers <= shape[1]:
        raise ValueError(f"encoder_layers is {encoder_layers}, the routes have {shape[1]} layers in all")
    if layers is not None and len(layers) != shape[1]:
        raise ValueError(f"{len(layers)} layer names for routes of {shape[1]} layers")


# ---------------------------------------------------------------------------- where things go


@dataclass(frozen=True)
class _Layout:
    """Sizes in inches. From the left: task names, two strips, heat map, then colour bar above legend."""

    width: float
    height: float
    row_height: float
    column_width: float
    heat_left: float
    heat_top: float  # from the upper edge
    heat_width: float
    heat_height: float
    font: float
    title: str

    @classmethod
    def measure(
        cls, tasks: list[str], kinds: list[tuple[str, str]], shape: tuple[int, int], title: str | None
    ):
        n_layers, n_experts = shape
        row_height = 0.2 if len(tasks) <= 30 else 0.155 if len(tasks) <= 120 else 0.135
        font = row_font(row_height)
        # A layer is never narrower than its label, "enc 11", nor a column than can be seen.
        column_width = max(0.42 / n_experts, 0.2 if n_layers * n_experts <= 60 else 0.09)
        heat_width, heat_height = column_width * n_layers * n_experts, row_height * len(tasks)
        names = max(text_width(shown_name(task), font) for task in tasks)
        heat_left = MARGIN + names + GAP + 2 * STRIP_WIDTH + GAP / 2
        legend_width, legend_height = legend_size(kinds)
        width = heat_left + heat_width + 2 * GAP + max(legend_width, 1.9) + MARGIN
        wrapped = _broken(title, width) if title else ""
        title_height = 0.2 * (wrapped.count("\n") + 1) + GAP if wrapped else 0.0
        heat_top = MARGIN + title_height + 0.34
        below = 0.3 if _labels_below(len(tasks)) else 0.0
        height = heat_top + max(heat_height + below, COLOUR_BAR_HEIGHT + legend_height) + MARGIN
        return cls(
            width, height, row_height, column_width, heat_left, heat_top,
            heat_width, heat_height, font, wrapped,
        )  # fmt: skip

    @property
    def legend_left(self) -> float:
        return self.heat_left + self.heat_width + 2 * GAP


def _broken(title: str, width: float) -> str:
    """The title in lines that fit a figure of this width."""
    characters = max(30, int((width - 2 * MARGIN) * 11))
    return "\n".join(textwrap.fill(line, characters) for line in title.splitlines())


def _labels_below(n_tasks: int) -> bool:
    return n_tasks > 40


# ---------------------------------------------------------------------------- the heat map


def _draw_heat(
    figure: Figure, place: _Layout, routes_NLE, layers: Sequence[str], encoder_layers: int, kinds, scale
) -> Axes:
    n_tasks, n_layers, n_experts = routes_NLE.shape
    axes = axes_at(figure, place.heat_left, place.heat_top, place.heat_width, place.heat_height)
    columns = n_layers * n_experts
    axes.imshow(
        routes_NLE.reshape(n_tasks, columns), cmap=scale.cmap, norm=scale.norm,
        aspect="auto", interpolation="nearest", extent=(0, columns, n_tasks, 0),
    )  # fmt: skip
    for layer in range(1, n_layers):
        if layer != encoder_layers:
            axes.axvline(layer * n_experts, color="0.45", linewidth=0.6)
    draw_borders(axes.axhline, kinds)
    if 0 < encoder_layers < n_layers:
        axes.axvline(encoder_layers * n_experts, color="black", linewidth=2.5)

    axes.set_xticks([])
    axes.set_yticks([])
    for layer, name in enumerate(layers):
        middle = (layer + 0.5) * n_experts
        label = dict(xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=8)
        axes.annotate(name, (middle, 1), xytext=(0, 12), va="bottom", **label)
        if _labels_below(n_tasks):
            axes.annotate(name, (middle, 0), xytext=(0, -4), va="top", **label)
    if place.column_width >= EXPERT_LABELS_FROM:
        axes.set_xticks(np.arange(columns) + 0.5, [str(column % n_experts) for column in range(columns)])
        size = min(6.5, place.column_width * 72 * (0.75 if n_experts <= 10 else 0.6))
        axes.tick_params(
            axis="x", top=False, bottom=False, labeltop=True, labelbottom=False, labelsize=size, pad=1.5
        )
    return axes
