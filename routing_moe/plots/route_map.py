"""The route map: one row per task, one column per expert of every layer.

    plot_routes(model.routes_for(tasks), tasks, Ontology.load(), "routes.png", encoder_layers=6)

Give tasks in the order of `Ontology.order`, so that tasks of one category form a block.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from dataloader.ontology import Ontology
from routing_moe.model.given_routes import layer_names
from routing_moe.plots.heat_map import (
    draw_borders,
    draw_heat,
    draw_key,
    draw_strips,
    fit_figure,
    map_figure,
    name_rows,
)
from routing_moe.plots.style import MARGIN, STYLE, HeatScale, row_font, wrapped, write_figure
from routing_moe.plots.task_categories import kind_colours

WEIGHTS = HeatScale("weight of the expert", "Blues", 0.0, 1.0)
LABELLED_BELOW = 40  # tasks: a longer map names its layers below as well
NARROWEST_NUMBERED = 0.085  # inches: numbers of experts would overlap in narrower columns


def plot_routes(
    routes_NLE,
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    encoder_layers: int,
    title: str | None = None,
    layers: Sequence[str] | None = None,
    scale: HeatScale = WEIGHTS,
) -> None:
    """Draws routes as a heat map and writes it to `path`: PDF if it ends in .pdf, PNG if in .png.

    `routes_NLE`: array or tensor, row n for `tasks[n]`, encoder layers first; 0 is white and 1 dark blue.
    `ontology`: gives the tasks' categories; tasks that it does not list are grey. `layers`:
    short names of the layers ("enc 1", "dec 0") where the routes lack some of the model's; None: all of them
    are there. `scale`: of values that are not weights. The picture grows with the data.
    """
    write_figure(route_map(routes_NLE, tasks, ontology, encoder_layers, title, layers, scale).figure, path)


@dataclass(frozen=True, eq=False)
class RouteMap:
    """A route map that is not written yet; `show` replaces its values."""

    figure: Figure
    heat: Axes
    title: Text | None

    @property
    def image(self) -> AxesImage:
        return self.heat.images[0]

    def show(self, routes_NLE, title: str) -> None:
        """Shows other routes of the same tasks, under a title of no more lines."""
        self.image.set_data(_as_array(routes_NLE).reshape(len(routes_NLE), -1))
        if self.title:
            self.title.set_text(wrapped(title, self.figure.get_figwidth() - 2 * MARGIN, 11))


@rc_context(STYLE)
def route_map(
    routes_NLE,
    tasks: Sequence[str],
    ontology: Ontology,
    encoder_layers: int,
    title: str | None = None,
    layers: Sequence[str] | None = None,
    scale: HeatScale = WEIGHTS,
) -> RouteMap:
    """Returns the picture that `plot_routes` writes."""
    routes_NLE = _as_array(routes_NLE)
    n_tasks, n_layers, n_experts = routes_NLE.shape
    kinds, colour_of = [ontology.category(task) for task in tasks], kind_colours(ontology)
    row = 0.2 if n_tasks <= 30 else 0.155 if n_tasks <= 120 else 0.135
    column = column_width(n_layers, n_experts)
    box = (0.0, 0.0, column * n_layers * n_experts, row * n_tasks)

    figure = map_figure()
    heat = draw_heat(figure, box, routes_NLE.reshape(n_tasks, -1), scale)
    draw_borders(heat.axhline, kinds)
    layers = layers or layer_names(encoder_layers, range(n_layers))
    name_columns(heat, layers, encoder_layers, n_experts, column, below=n_tasks > LABELLED_BELOW)
    strips = draw_strips(figure, box, kinds, colour_of)
    name_rows(strips, tasks, row_font(row))
    draw_key(figure, box[2] + 0.24, -0.2, scale, kinds, colour_of)
    return RouteMap(figure, heat, fit_figure(figure, title))


def _as_array(routes) -> np.ndarray:
    if hasattr(routes, "detach"):  # a torch tensor, perhaps with a gradient, on a GPU, or in bfloat16
        routes = routes.detach().float().cpu().numpy()
    return np.asarray(routes, dtype=np.float64)


# ---------------------------------------------------------------------------- columns


def column_width(n_layers: int, n_experts: int) -> float:
    """Returns inches: a layer is at least as wide as its label, "enc 11", and a column is visible."""
    return max(0.42 / n_experts, 0.2 if n_layers * n_experts <= 60 else 0.09)


def name_columns(
    axes: Axes, layers: Sequence[str], encoder_layers: int, n_experts: int, column: float, below: bool = False
) -> None:
    """Names layers and experts above a heat map, and separates layers, encoder and decoder by lines.

    column: width in inches. below: repeat the names of the layers below the map.
    """
    for layer, name in enumerate(layers):
        if layer:
            first_of_decoder = layer == encoder_layers
            colour, width = ("black", 2.5) if first_of_decoder else ("0.45", 0.6)
            axes.axvline(layer * n_experts, color=colour, linewidth=width)
        middle = (layer + 0.5) * n_experts
        label = dict(xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=8)
        axes.annotate(name, (middle, 1), xytext=(0, 12), va="bottom", **label)
        if below:
            axes.annotate(name, (middle, 0), xytext=(0, -4), va="top", **label)
    if column >= NARROWEST_NUMBERED:
        columns = np.arange(len(layers) * n_experts)
        axes.set_xticks(columns + 0.5, [str(number % n_experts) for number in columns])
        size = min(6.5, column * 72 * (0.75 if n_experts <= 10 else 0.6))
        axes.tick_params(axis="x", length=0, labeltop=True, labelbottom=False, labelsize=size, pad=1.5)
