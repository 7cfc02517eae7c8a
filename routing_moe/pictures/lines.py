"""Curves of training, and marks of layers: the load of experts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing_moe.analysis.route_metrics import layer_table
from routing_moe.analysis.saved_routes import SavedRoutes, encoder_part, layer_place
from routing_moe.pictures.style import BAND, DARK, WIDTH, add_legend, series, short, styled

LOADS = {
    "entropy": "entropy of a task's route / log E (mean)",
    "load_entropy": "entropy of the load / log E",
    "information": "mutual information of task and expert / log E",
    "loads": "load of each expert (dashed: 1/E)",
}


@styled
def plot_curves(curves: pd.DataFrame) -> Figure:
    """Draws `overview.curves` against steps and FLOPs: thin lines of runs, bold ones of means.

    A mean is over the runs that were evaluated at that step. Runs of unknown FLOPs are on the left only.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    measure = next(name for name in curves if name.startswith("dev_"))
    variants = curves["variant"].unique()
    for axes, x in zip(panels, ("step", "flops"), strict=True):
        axes.set_xlabel({"step": "training steps", "flops": "training FLOPs"}[x])
        for variant, style in zip(variants, series(variants), strict=True):
            rows = curves[curves["variant"] == variant]
            for _, run in rows.groupby("run"):
                axes.plot(run[x], run[measure], color=style["color"], linewidth=0.4, alpha=0.6, zorder=1)
            means = rows.groupby("step", as_index=False)[["flops", measure]].mean()
            axes.plot(
                means[x], means[measure], linewidth=1.2, markersize=3, zorder=2, label=short(variant), **style
            )
    panels[0].set_ylabel(f"mean {measure.replace('_', ' ')}")
    add_legend(figure)
    return figure


@styled
def plot_load(runs: Sequence[SavedRoutes]) -> Figure:
    """Draws measures of layers, a mark for each run; loads have a mark for each expert, in their order.

    Runs may have other tasks, layers and numbers of experts.
    """
    layers = sorted({name for routes in runs for name in routes.layers}, key=layer_place)
    columns = 2 if len(layers) <= 12 and len(layers) * len(runs) <= 50 else 1
    figure = Figure(figsize=(WIDTH, 6 / columns + 0.15 * len(runs)), layout="constrained")
    panels = figure.subplots(4 // columns, columns, sharex=True).ravel()
    for axes, heading in zip(panels, LOADS.values(), strict=True):
        axes.set(title=heading, xlim=(-0.5, len(layers) - 0.5))
        axes.set_xticks(range(len(layers)), layers, rotation=0 if len(layers) <= 12 else 90)
        axes.axvline(encoder_part(layers) - 0.5, color=DARK, linewidth=1, zorder=1)
        for number in range(1, len(layers), 2):
            axes.axvspan(number - 0.5, number + 0.5, color=BAND, linewidth=0, zorder=0)
    styles = series([routes.titled for routes in runs])
    for number, (routes, style) in enumerate(zip(runs, styles, strict=True)):
        table = layer_table(routes)
        aside = (number - (len(runs) - 1) / 2) * min(0.2, 0.7 / len(runs))
        x = np.array([layers.index(name) for name in routes.layers]) + aside
        marks = dict(linestyle="", markersize=3.2, clip_on=False, zorder=3) | style
        for axes, measure in zip(panels[:3], LOADS, strict=False):
            axes.plot(x, table[measure], label=f"{short(routes.titled)} ({len(routes.tasks)} tasks)", **marks)
            axes.set_ylim(-0.04, 1.04)
        loads_LE = table[[f"load_{expert}" for expert in range(routes.experts)]].to_numpy()
        side_by_side = len(runs) == 1 and routes.experts > 1
        for expert, load_L in enumerate(loads_LE.T):
            places = x + 0.6 * (expert / (routes.experts - 1) - 0.5) if side_by_side else x
            lowest_L = 0 if side_by_side else loads_LE.min(axis=1)
            panels[3].vlines(places, lowest_L, load_L, color=style["color"], linewidth=0.4, zorder=2)
            panels[3].plot(places, load_L, **marks)
        panels[3].axhline(1 / routes.experts, color="0.4", linewidth=0.7, linestyle="--", zorder=1)
    panels[3].set_ylim(bottom=0)
    add_legend(figure)
    return figure
