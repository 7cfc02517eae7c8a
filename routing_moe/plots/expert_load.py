"""Expert load and related measures per layer: entropies of routes and loads, information, load per expert.

    plot_load([load_routes("models/learned"), load_routes("models/random")], "load.pdf")

Entropies and information are shares of log E, so that runs of different numbers of experts can be compared.
As wide as the text of a paper. E experts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import Routes, encoder_part, layer_place
from routing_moe.plots.style import (
    BAND,
    DARK,
    DASHES,
    EDGE_COLOUR,
    MARKERS,
    PAPER_STYLE,
    SERIES_COLOURS,
    SMALL,
    WIDTH,
    legend_columns,
    paper_figure,
    shown_name,
    write_figure,
)

SPREAD = 0.6  # of a layer that is 1 wide: one run's experts
# Inches.
PANEL, KEY_ROW = 1.55, 0.15  # a panel with its labels; a row of the key
NARROWEST_GROUP = 0.16  # of a layer, in a panel of half the width
NARROWEST_DOT = 0.05  # of a run in it


@rc_context(PAPER_STYLE)
def plot_load(routes_list: Sequence[Routes], path: str | os.PathLike, title: str | None = None) -> None:
    """Writes four panels over layers, a mark per run and layer: PDF if `path` ends in .pdf, PNG if in .png.

    Loads have a mark per expert; those of a single run stand side by side, in the order of the experts. Runs
    may have other tasks, layers and numbers of experts.
    """
    layers = _all_layers(routes_list)
    labels = _labels(routes_list)
    fits = 0.44 * WIDTH / len(layers) >= max(NARROWEST_GROUP, NARROWEST_DOT * len(labels))
    columns, key_columns = 2 if fits else 1, legend_columns(labels)
    height = PANEL * 4 / columns + KEY_ROW * (-(-len(labels) // key_columns) + 0.5)
    figure = paper_figure(height, title)
    panels = figure.subplots(4 // columns, columns, squeeze=False).ravel()
    loads = _loads_of_one(routes_list[0]) if len(routes_list) == 1 else LOADS
    for axes, (heading, draw) in zip(panels, [*SHARES, loads], strict=True):
        _set_axes(axes, heading, layers)
        for run, routes in enumerate(routes_list):
            x = np.array([layers.index(name) for name in routes.layers]) + _offset(run, len(routes_list))
            draw(axes, x, routes, _style(run))
        _set_limits(axes, routes_list if axes is panels[-1] else [])
    handles = [Line2D([], [], linestyle="", markersize=4, **_style(run)) for run in range(len(labels))]
    figure.legend(handles, labels, loc="outside lower center", ncols=key_columns, labelspacing=0.35)
    write_figure(figure, path)


def _all_layers(routes_list: Sequence[Routes]) -> list[str]:
    """The layers of all runs, in the order of the model."""
    return sorted({name for routes in routes_list for name in routes.layers}, key=layer_place)


def _labels(routes_list: Sequence[Routes]) -> list[str]:
    """The runs' names, steps and numbers of tasks."""
    at = ["" if routes.step is None else f", step {routes.step}" for routes in routes_list]
    return [
        f"{shown_name(routes.name)}{step} ({len(routes.tasks)} tasks)"
        for routes, step in zip(routes_list, at, strict=True)
    ]


def _offset(run: int, n_runs: int) -> float:
    """Distance of a run's mark from the middle of its layer, which is 1 wide."""
    return (run - (n_runs - 1) / 2) * min(0.2, 0.7 / n_runs)


def _style(run: int) -> dict:
    return dict(color=SERIES_COLOURS[run % len(SERIES_COLOURS)], marker=MARKERS[run % len(MARKERS)])


# ---------------------------------------------------------------------------- one panel


def _draw_entropy(axes: Axes, x: np.ndarray, routes: Routes, style: dict) -> None:
    of_tasks_NL = route_metrics.entropy(routes.values_NLE)
    low, high = np.quantile(of_tasks_NL, [0.25, 0.75], axis=0)
    axes.vlines(x, low, high, color=style["color"], linewidth=0.9, zorder=2)
    _draw_marks(axes, x, of_tasks_NL.mean(axis=0), style)


def _draw_measure(measure: Callable, axes: Axes, x: np.ndarray, routes: Routes, style: dict) -> None:
    _draw_marks(axes, x, measure(routes.values_NLE), style)


def _draw_loads(axes: Axes, x: np.ndarray, routes: Routes, style: dict, spread: float = 0.0) -> None:
    """spread: distance between the marks of the first and the last expert; 0: all on one line."""
    load_LE = route_metrics.load(routes.values_NLE)
    aside_E = np.linspace(-spread / 2, spread / 2, routes.experts) if routes.experts > 1 else np.zeros(1)
    if spread:
        axes.vlines(x + aside_E[:, None], 0, load_LE.T, color=style["color"], linewidth=0.6, zorder=1)
    else:
        low, high = load_LE.min(axis=1), load_LE.max(axis=1)
        axes.vlines(x, low, high, color=style["color"], linewidth=0.4, zorder=1)
    for aside, load_L in zip(aside_E, load_LE.T, strict=True):
        _draw_marks(axes, x + aside, load_L, style, 2.8 if routes.experts <= 4 else 2.0)


# Of each panel: its heading, and the function that draws a run into it.
SHARES = (
    ("entropy of a task's route / log E (mean, quartiles)", _draw_entropy),
    ("entropy of the load / log E", partial(_draw_measure, route_metrics.load_entropy)),
    ("mutual information of task and expert / log E", partial(_draw_measure, route_metrics.information)),
)
LOADS = ("load of each expert (dashed: 1/E)", _draw_loads)


def _loads_of_one(routes: Routes) -> tuple[str, Callable]:
    heading = f"load of experts 0 to {routes.experts - 1}, from the left (dashed: 1/E)"
    return heading, partial(_draw_loads, spread=SPREAD)


def _draw_marks(axes: Axes, x: np.ndarray, values_L: np.ndarray, style: dict, size: float = 3.4) -> None:
    axes.plot(
        x, values_L, linestyle="", markersize=size, markeredgecolor=EDGE_COLOUR,
        markeredgewidth=0.06 * size, clip_on=False, zorder=3, **style,
    )  # fmt: skip


def _set_limits(axes: Axes, loads_of: Sequence[Routes]) -> None:
    """0 to 1; in the panel of loads up to the largest load, but at least to twice the even one, 1/E."""
    top = 1.0
    if loads_of:
        top = max(max(route_metrics.load(r.values_NLE).max(), min(1.0, 2 / r.experts)) for r in loads_of)
        for experts in sorted({routes.experts for routes in loads_of}):
            axes.axhline(1 / experts, color="0.4", linewidth=0.7, linestyle=DASHES, zorder=1)
    axes.set_ylim(-0.04 * top, 1.04 * top)
    axes.locator_params(axis="y", nbins=4, min_n_ticks=3)


def _set_axes(axes: Axes, heading: str, layers: Sequence[str]) -> None:
    """Heading, numbers of layers, the stacks' names below them, and the border between the two stacks."""
    axes.set_title(heading, loc="left")
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_xticks(range(len(layers)), [name.split()[-1] for name in layers])
    axes.tick_params(axis="x", length=0)
    for number in range(1, len(layers), 2):
        axes.axvspan(number - 0.5, number + 0.5, color=BAND, linewidth=0, zorder=0)
    encoder = encoder_part(layers)
    for name, first, end in (("encoder", 0, encoder), ("decoder", encoder, len(layers))):
        if end > first:
            axes.annotate(
                name, ((first + end - 1) / 2, 0), xycoords=("data", "axes fraction"), xytext=(0, -11),
                textcoords="offset points", ha="center", va="top", fontsize=SMALL,
            )  # fmt: skip
    if 0 < encoder < len(layers):
        axes.axvline(encoder - 0.5, color=DARK, linewidth=1.0, zorder=1)
