"""Plots how routes developed over training: six panels, a curve per layer, the mean over layers in bold.

plot_dynamics(dynamics_table(load_history("models/moe")), "dynamics.pdf")
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from routing_moe.analysis.dynamics import ALL
from routing_moe.plots.style import (
    DARK,
    EDGE,
    FONT,
    SMALL,
    WIDTH,
    axes_at,
    check_picture_name,
    draw_title,
    write_figure,
)

PANELS = {
    "entropy": "route entropy / log E",
    "load_entropy": "load entropy / log E",
    "information": "information / log E",
    "largest_load": "largest load",
    "distance_to_final": "distance to last step",
    "distance_to_previous": "distance to step before",
}
HUES = {"enc": "Blues", "dec": "Oranges"}  # told apart by the colour-blind
PALEST, DARKEST = 0.35, 0.95  # of a hue; later layers are darker
NARROWEST_SCALE = 0.05  # less than that is not blown up to fill a panel
DOTS_UP_TO = 12  # evaluations: each is a dot on its curve
TICKS_UP_TO = 4  # and has a tick of its own
# Inches.
COLUMNS = 3
LEFT, GAP = 0.36, 0.06
HEADING, PANEL, AXIS = 0.22, 1.05, 0.2
STEP = 0.14  # the word below the last row
KEY = 0.42
PATCH, PATCHES = 0.15, 3.1  # of a layer's colour in the key; of all


def plot_dynamics(table: pd.DataFrame, path: str | os.PathLike, title: str | None = None) -> None:
    """Writes six panels, a curve per layer, the mean bold: PDF if `path` ends in .pdf, PNG if in .png.

    table: that of `dynamics_table`. The same table gives the same bytes. Raises ValueError if the file name
    ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    layers = [name for name in table["layer"].unique() if name != ALL]
    colour_of = _layer_colours(layers)
    wrapped = textwrap.fill(title, 80) if title else ""
    top = 0.12 + 0.165 * (wrapped.count("\n") + 1) if wrapped else EDGE
    row_height, rows = HEADING + PANEL + AXIS, -(-len(PANELS) // COLUMNS)
    key_top = top + rows * row_height + STEP
    width = (WIDTH - 2 * EDGE - (COLUMNS - 1) * GAP) / COLUMNS - LEFT
    figure = Figure(figsize=(WIDTH, key_top + KEY))
    FigureCanvasAgg(figure)
    for number, (column, heading) in enumerate(PANELS.items()):
        row, place = divmod(number, COLUMNS)
        left = EDGE + LEFT + place * (width + LEFT + GAP)
        axes = axes_at(figure, left, top + HEADING + row * row_height, width, PANEL)
        _draw_curves(axes, table.pivot(index="step", columns="layer", values=column), layers, colour_of)
        axes.set_title(heading, fontsize=FONT, pad=3, loc="left")
        if row == rows - 1:
            axes.set_xlabel("step", fontsize=SMALL, labelpad=1.5)
    _draw_key(figure, key_top, layers, colour_of)
    if wrapped:
        draw_title(figure, wrapped, 0.8)
    write_figure(figure, path)


def _layer_colours(layers: list[str]) -> dict[str, tuple]:
    colours = {}
    for stack, hue in HUES.items():
        own = [name for name in layers if name.startswith(stack)]
        shades = np.linspace(PALEST, DARKEST, len(own)) if len(own) > 1 else [0.7]
        colours |= dict(zip(own, colormaps[hue](shades), strict=True))
    return colours


def _draw_curves(axes, curves: pd.DataFrame, layers: list[str], colour_of: dict) -> None:
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
    axes.tick_params(labelsize=SMALL, length=2, pad=1.5, width=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.5)


def _in_thousands(step: float, position: int | None = None) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 1000 else f"{step:g}"


def _draw_key(figure: Figure, top: float, layers: list[str], colour_of: dict) -> None:
    """A row of patches per stack with the layers' numbers below, and the mean's line."""
    axes = axes_at(figure, 0, top, WIDTH, KEY)
    axes.set(xlim=(0, WIDTH), ylim=(KEY, 0))
    axes.set_axis_off()
    patch = min(PATCH, PATCHES / len(layers))
    middle, left = 0.16, EDGE + LEFT
    for stack, name in (("enc", "encoder layer"), ("dec", "decoder layer")):
        own = [layer for layer in layers if layer.startswith(stack)]
        if own:
            axes.text(left, middle, name, fontsize=SMALL, va="center")
            left += 0.72
        for layer in own:
            place = (left, middle - PATCH / 2)
            axes.add_patch(Rectangle(place, patch, PATCH, facecolor=colour_of[layer], linewidth=0))
            below = dict(fontsize=min(SMALL, 44 * patch), ha="center", va="top")
            axes.text(left + patch / 2, middle + PATCH / 2 + 0.03, layer.split()[-1], **below)
            left += patch
        left += 0.25 if own else 0.0
    axes.plot([left, left + 0.2], [middle, middle], color=DARK, linewidth=1.8)
    axes.text(left + 0.26, middle, "mean over layers", fontsize=SMALL, va="center")
