"""Measures of routes over training: six panels, a curve per layer, the mean over layers in bold.

plot_dynamics(dynamics_table(load_history("models/moe")), "dynamics.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from routing_moe.analysis.dynamics import ALL
from routing_moe.analysis.saved_routes import layer_place
from routing_moe.plots.style import DARK, FONT, PAPER_STYLE, check_picture_name, paper_figure, write_figure

PANELS = {
    "entropy": "route entropy / log E",
    "load_entropy": "load entropy / log E",
    "information": "information / log E",
    "largest_load": "largest load",
    "distance_to_final": "distance to last step",
    "distance_to_previous": "distance to previous step",
}
STACKS = (("encoder layer", "Blues"), ("decoder layer", "Oranges"))  # safe for the colour-blind
PALEST, DARKEST = 0.35, 0.95  # of a colour map; later layers are darker
NARROWEST_SCALE = 0.05  # smaller differences do not fill a panel
DOTS_UP_TO = 12  # evaluations: each is a dot on its curve
TICKS_UP_TO = 4  # and has a tick of its own
HEIGHT, KEY = 3.35, 0.06  # inches without title; of a panel's height


@rc_context(PAPER_STYLE)
def plot_dynamics(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes six panels, a curve per layer, the mean bold: PDF if `path` ends in .pdf, PNG if in .png.

    table: that of `dynamics_table`. The same table gives the same bytes. Raises ValueError if the file name
    ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    layers = [name for name in table["layer"].unique() if name != ALL]
    colour_of = _layer_colours(layers)
    figure = paper_figure(HEIGHT, title)
    grid = figure.subplots(3, 3, height_ratios=[1, 1, KEY])
    for axes, (column, heading) in zip(grid[:2].flat, PANELS.items(), strict=True):
        _draw_curves(axes, table.pivot(index="step", columns="layer", values=column), layers, colour_of)
        axes.set_title(heading, loc="left")
    for axes in grid[1]:
        axes.set_xlabel("step")
    for stack, (heading, _) in enumerate(STACKS):
        own = {name: colour for name, colour in colour_of.items() if layer_place(name)[0] == stack}
        _draw_key(grid[2, stack], heading, own)
    grid[2, 2].set_axis_off()
    mean = Line2D([], [], color=DARK, linewidth=1.8)
    grid[2, 2].legend([mean], ["mean over layers"], loc="center", fontsize=FONT)
    write_figure(figure, path)


def _layer_colours(layers: list[str]) -> dict[str, tuple]:
    colours = {}
    for stack, (_, hue) in enumerate(STACKS):
        own = [name for name in layers if layer_place(name)[0] == stack]
        shades = np.linspace(PALEST, DARKEST, len(own)) if len(own) > 1 else [0.7] * len(own)
        colours |= dict(zip(own, colormaps[hue](shades), strict=True))
    return colours


def _draw_curves(axes: Axes, curves: pd.DataFrame, layers: list[str], colour_of: dict) -> None:
    """`curves`: a row per step, a column per layer."""
    dots = dict(marker="o", markersize=2.2) if len(curves) <= DOTS_UP_TO else {}
    for name in layers:
        axes.plot(curves.index, curves[name], color=colour_of[name], linewidth=0.8, clip_on=False, **dots)
    if dots:
        dots["markersize"] = 3.2
    axes.plot(curves.index, curves[ALL], color=DARK, linewidth=1.8, clip_on=False, zorder=3, **dots)
    known = curves.to_numpy()[np.isfinite(curves.to_numpy())]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    lacking = max(0.0, NARROWEST_SCALE - (high - low)) / 2
    low, high = max(0.0, low - lacking), high + lacking
    first, last = curves.index.min(), curves.index.max()
    margin = 0.03 * (last - first) or 1
    axes.set_xlim(first - margin, last + margin)  # the same where the first step has no value
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=2))
    few = len(curves) <= TICKS_UP_TO
    axes.xaxis.set_major_locator(
        FixedLocator(curves.index) if few else MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=True)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_in_thousands))


def _in_thousands(step: float, position: int | None = None) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 1000 else f"{step:g}"


def _draw_key(axes: Axes, heading: str, colour_of: dict) -> None:
    """A colour bar of the layers of a stack, named by their numbers."""
    if not colour_of:
        axes.set_axis_off()
        return
    count, colours = len(colour_of), ListedColormap(list(colour_of.values()))
    layers = ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), colours)
    bar = axes.figure.colorbar(layers, axes, orientation="horizontal", ticks=range(count))
    bar.ax.set_xticklabels([name.split()[-1] for name in colour_of])
    bar.ax.set_title(heading, loc="left")
    bar.ax.tick_params(length=0)
    bar.minorticks_off()
