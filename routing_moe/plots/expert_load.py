"""How runs use their experts, layer by layer: how decided routes are, how even the load, what they tell.

    plot_load([load_routes("models/learned"), load_routes("models/random")], "load.pdf")

Entropies and information are shares of log E, so that runs of different numbers of experts can be compared.
As wide as the text of a paper. E experts.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import Routes
from routing_moe.plots.style import (
    DARK,
    EDGE,
    FONT,
    SMALL,
    WIDTH,
    axes_at,
    check_picture_name,
    draw_title,
    shown_name,
    text_width,
    write_figure,
)
from routing_moe.plots.variants import COLOURS, DASHES, MARKERS
from routing_moe.plots.variants import EDGE as EDGE_COLOUR

SPREAD = 0.6  # of a layer that is 1 wide: one run's experts

# Inches.
LEFT = 0.3  # the numbers of a panel
GAP = 0.12
HEADING, PANEL, AXIS = 0.22, 1.05, 0.33
KEY_ROW = 0.15
NARROWEST_GROUP = 0.16  # of a layer, in a panel of half the width
NARROWEST_DOT = 0.05  # of a run in it


def plot_load(routes_list: Sequence[Routes], path: str | os.PathLike, title: str | None = None) -> None:
    """Writes four panels over layers, a mark per run and layer: PDF if `path` ends in .pdf, PNG if in .png.

    Loads have a mark per expert; those of a single run stand side by side, in the order of the experts. Runs
    may have other tasks, layers and numbers of experts. The same routes give the same bytes. Raises
    ValueError if there is no run or the file name ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    if not routes_list:
        raise ValueError("no run to draw")
    layers = _all_layers(routes_list)
    labels = _labels(routes_list)
    wrapped = textwrap.fill(title, 80) if title else ""
    place = _Layout.measure(len(layers), labels, wrapped)
    figure = Figure(figsize=(WIDTH, place.height))
    FigureCanvasAgg(figure)
    alone = len(routes_list) == 1
    for number, (heading, draw) in enumerate([*SHARES, _loads_of_one(routes_list[0]) if alone else LOADS]):
        axes = axes_at(figure, *place.corner(number), place.panel_width, PANEL)
        _set_axes(axes, heading, layers)
        for run, routes in enumerate(routes_list):
            columns = np.array([layers.index(name) for name in routes.layers])
            draw(axes, columns + _offset(run, len(routes_list)), routes, _style(run))
        _fit(axes, routes_list if number == len(SHARES) else [])
    _draw_key(figure, place, labels)
    if wrapped:
        draw_title(figure, wrapped, 0.8)
    write_figure(figure, path)


def _all_layers(routes_list: Sequence[Routes]) -> list[str]:
    """Those of any run: the encoder's, then the decoder's, each by number."""
    names = {name for routes in routes_list for name in routes.layers}
    return sorted(names, key=lambda name: (not name.startswith("enc"), int(name.split()[-1])))


def _labels(routes_list: Sequence[Routes]) -> list[str]:
    """The runs' names, steps and numbers of tasks."""
    at = ["" if routes.step is None else f", step {routes.step}" for routes in routes_list]
    return [
        f"{shown_name(routes.name)}{step} ({len(routes.tasks)} tasks)"
        for routes, step in zip(routes_list, at, strict=True)
    ]


def _offset(run: int, n_runs: int) -> float:
    """Where a run's mark is beside the middle of a layer that is 1 wide."""
    return (run - (n_runs - 1) / 2) * min(0.2, 0.7 / n_runs)


def _style(run: int) -> dict:
    return dict(color=COLOURS[run % len(COLOURS)], marker=MARKERS[run % len(MARKERS)])


# ---------------------------------------------------------------------------- where things go


@dataclass(frozen=True)
class _Layout:
    """Inches: panels in rows of `columns`, 2 or 1, then the key."""

    columns: int
    panel_width: float
    top: float
    key_columns: int
    key_top: float
    height: float

    @classmethod
    def measure(cls, n_layers: int, labels: list[str], title: str):
        half = (WIDTH - 2 * EDGE - GAP) / 2 - LEFT
        fits = half / n_layers >= max(NARROWEST_GROUP, NARROWEST_DOT * len(labels))
        columns = 2 if fits else 1
        panel_width = half if fits else WIDTH - 2 * EDGE - LEFT
        top = 0.12 + 0.165 * (title.count("\n") + 1) if title else EDGE
        key_top = top + (len(SHARES) + 1) // columns * (HEADING + PANEL + AXIS) + EDGE
        widest = max(text_width(label, SMALL) for label in labels) + 0.3
        key_columns = max(1, min(len(labels), int((WIDTH - 2 * EDGE) / widest)))
        rows = -(-len(labels) // key_columns)
        return cls(columns, panel_width, top, key_columns, key_top, key_top + KEY_ROW * rows + EDGE)

    def corner(self, number: int) -> tuple[float, float]:
        row, column = divmod(number, self.columns)
        left = EDGE + LEFT + column * (self.panel_width + LEFT + GAP)
        return left, self.top + HEADING + row * (HEADING + PANEL + AXIS)


# ---------------------------------------------------------------------------- one panel


def _draw_entropy(axes, places: np.ndarray, routes: Routes, style: dict) -> None:
    of_tasks_NL = route_metrics.entropy(routes.values_NLE)
    low, high = np.quantile(of_tasks_NL, [0.25, 0.75], axis=0)
    axes.vlines(places, low, high, color=style["color"], linewidth=0.9, zorder=2)
    _draw_marks(axes, places, of_tasks_NL.mean(axis=0), style)


def _draw_load_entropy(axes, places: np.ndarray, routes: Routes, style: dict) -> None:
    _draw_marks(axes, places, route_metrics.load_entropy(routes.values_NLE), style)


def _draw_information(axes, places: np.ndarray, routes: Routes, style: dict) -> None:
    _draw_marks(axes, places, route_metrics.information(routes.values_NLE), style)


def _draw_loads(axes, places: np.ndarray, routes: Routes, style: dict, spread: float = 0.0) -> None:
    """spread: how far apart the marks of the first and the last expert stand; 0: on a line."""
    load_LE = route_metrics.load(routes.values_NLE)
    aside_E = np.linspace(-spread / 2, spread / 2, routes.experts) if routes.experts > 1 else np.zeros(1)
    if spread:
        axes.vlines(places + aside_E[:, None], 0, load_LE.T, color=style["color"], linewidth=0.6, zorder=1)
    else:
        low, high = load_LE.min(axis=1), load_LE.max(axis=1)
        axes.vlines(places, low, high, color=style["color"], linewidth=0.4, zorder=1)
    for aside, load_L in zip(aside_E, load_LE.T, strict=True):
        _draw_marks(axes, places + aside, load_L, style, 2.8 if routes.experts <= 4 else 2.0)


# What is a share of log E, and loads: a panel's heading, and what draws a run into it.
SHARES = (
    ("entropy of a task's route / log E (mean, quartiles)", _draw_entropy),
    ("entropy of the load / log E", _draw_load_entropy),
    ("mutual information of task and expert / log E", _draw_information),
)
LOADS = ("load of each expert (dashed: 1/E)", _draw_loads)


def _loads_of_one(routes: Routes) -> tuple[str, Callable]:
    heading = f"load of experts 0 to {routes.experts - 1}, from the left (dashed: 1/E)"
    return heading, partial(_draw_loads, spread=SPREAD)


def _draw_marks(axes, places: np.ndarray, values_L: np.ndarray, style: dict, size: float = 3.4) -> None:
    axes.plot(
        places, values_L, linestyle="", markersize=size, markeredgecolor=EDGE_COLOUR,
        markeredgewidth=0.06 * size, clip_on=False, zorder=3, **style,
    )  # fmt: skip


def _fit(axes, loads_of: Sequence[Routes]) -> None:
    """0 to 1, of which loads need less: up to the largest, and twice that of the evenest at least."""
    top = 1.0
    if loads_of:
        top = max(max(route_metrics.load(r.values_NLE).max(), min(1.0, 2 / r.experts)) for r in loads_of)
        for experts in sorted({routes.experts for routes in loads_of}):
            axes.axhline(1 / experts, color="0.4", linewidth=0.7, linestyle=DASHES, zorder=1)
    axes.set_ylim(-0.04 * top, 1.04 * top)
    axes.locator_params(axis="y", nbins=4, min_n_ticks=3)


def _set_axes(axes, heading: str, layers: Sequence[str]) -> None:
    """Heading, numbers of layers, the stacks' names below them, and the border between the two stacks."""
    axes.set_title(heading, fontsize=FONT, pad=3, loc="left")
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_xticks(range(len(layers)), [name.split()[-1] for name in layers])
    axes.tick_params(axis="x", labelsize=SMALL, length=0, pad=2)
    axes.tick_params(axis="y", labelsize=SMALL, length=2, pad=1.5, width=0.5)
    for number in range(1, len(layers), 2):
        axes.axvspan(number - 0.5, number + 0.5, color="0.955", linewidth=0, zorder=0)
    encoder = sum(name.startswith("enc") for name in layers)
    for name, first, end in (("encoder", 0, encoder), ("decoder", encoder, len(layers))):
        if end > first:
            axes.annotate(
                name, ((first + end - 1) / 2, 0), xycoords=("data", "axes fraction"), xytext=(0, -11),
                textcoords="offset points", ha="center", va="top", fontsize=SMALL,
            )  # fmt: skip
    if 0 < encoder < len(layers):
        axes.axvline(encoder - 0.5, color=DARK, linewidth=1.0, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.5)


def _draw_key(figure: Figure, place: _Layout, labels: list[str]) -> None:
    handles = [Line2D([], [], linestyle="", markersize=4, **_style(run)) for run in range(len(labels))]
    legend = figure.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1 - place.key_top / place.height),
        ncols=place.key_columns, fontsize=SMALL, frameon=False, borderaxespad=0, borderpad=0,
        handletextpad=0.2, handlelength=1.2, columnspacing=1.0, labelspacing=0.35,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
