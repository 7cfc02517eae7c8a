"""Named rows of dots or bars in panels: comparisons, gains, drops of features."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from routing_moe.pictures.style import (
    BAND,
    BLUE,
    DARK,
    RED,
    WIDTH,
    add_legend,
    series,
    short,
    styled,
    wrapped,
)
from routing_moe.results.gains import MARK, MIN_BASELINE, shown_arg, shown_task_gain

NARROWEST_SCALE = 0.02  # of scores and gains: smaller differences do not fill a panel


def dot_panels(
    names: Sequence[str], headings: Sequence[str], row: float, narrowest: float
) -> tuple[Figure, list[Axes]]:
    """Returns (figure, a panel for each heading); row n of a panel is at y = n. row, narrowest: inches."""
    names = [short(name) for name in names]
    room = WIDTH - 0.06 * max(map(len, names)) - 0.2
    rows = -(-len(headings) // max(1, int(room / narrowest)))
    columns = -(-len(headings) // rows)  # even: 4 and 3, not 5 and 2
    headings = [wrapped(heading, room / columns, 8) for heading in headings]
    height = row * (len(names) + 0.2) + 0.4 + 0.125 * max(heading.count("\n") for heading in headings)
    figure = Figure(figsize=(WIDTH, rows * height + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, heading in zip_longest(grid, headings):
        if heading is None:
            axes.remove()
            continue
        axes.set_title(heading, loc="center")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        for number in range(1, len(names), 2):
            axes.axhspan(number - 0.5, number + 0.5, color=BAND, linewidth=0, zorder=0)
    grid[0].set_yticks(range(len(names)), names, fontsize=min(7.5, 49 * row))
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    return figure, list(grid[: len(headings)])


def set_scale(axes: Axes, values: np.ndarray) -> None:
    margin = max(0.07 * np.ptp(values), (NARROWEST_SCALE - np.ptp(values)) / 2)
    axes.set_xlim(values.min() - margin, values.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))


@styled
def plot_comparison(per_run: pd.DataFrame, table: pd.DataFrame, measure: str = "mean score") -> Figure:
    """Draws a panel for each category, a row for each variant, a dot for each run; baselines are dashed.

    Takes `comparison.means_per_run` and `comparison_table`, where baselines have no n. Scales fit the runs.
    """
    n_runs = table.groupby("variant", sort=False)["n"].first()
    same_n = n_runs.nunique() == 1
    n = f"n = {n_runs.max():g} of each variant" if same_n else "n beside each variant"
    names = [
        name if same_n or pd.isna(runs) else f"{short(name)}, n={runs:g}" for name, runs in n_runs.items()
    ]
    tasks = table.groupby("category", sort=False)["tasks"].first()
    categories = ["all", *tasks.index.drop("all")]
    figure, panels = dot_panels(names, [f"{short(name)} ({tasks[name]})" for name in categories], 0.155, 1.2)
    for axes, category in zip(panels, categories, strict=True):
        rows = table[table["category"] == category].set_index("variant")
        dots = per_run[per_run["category"] == category].sort_values("seed").groupby("variant")["mean"]
        bars = rows.loc[n_runs.notna(), ["mean", "std"]].fillna(0.0)
        means = per_run.loc[per_run["category"] == category, "mean"]
        styles = dict(zip(rows.index, series(rows.index), strict=True))
        set_scale(axes, np.concatenate([means, bars["mean"] - bars["std"], bars["mean"] + bars["std"]]))
        for place, (variant, mean, std) in enumerate(rows[["mean", "std"]].itertuples()):
            if pd.isna(n_runs[variant]):
                draw_baseline(axes, place, mean)
                continue
            bar = dict(color=DARK, linewidth=0.8, marker="|", markersize=6, zorder=2)
            axes.errorbar([mean], [place], xerr=[std], label="mean ± sample std", **bar)
            values = dots.get_group(variant)
            # Equal values stay visible.
            heights = place + (np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1))
            dot = dict(linestyle="", markersize=3, clip_on=False, zorder=3) | styles[variant]
            axes.plot(values, heights, label=f"one run ({n})", **dot)
    add_legend(figure, f"{measure} (number of tasks in brackets)")
    return figure


def draw_baseline(axes: Axes, place: int, score: float) -> None:
    """Draws a line through the panel and, in a row of its own, the score."""
    if np.isnan(score):
        return
    low, high = axes.get_xlim()
    is_left = score < (low + high) / 2
    line = dict(color=DARK, linewidth=0.8, linestyle="--", zorder=1)
    axes.axvline(score, label="baseline (arrow: off the scale)", **line)
    axes.set_xlim(low, high)
    text = f"{score:.2f}" if low <= score <= high else f"◂ {score:.2f}" if is_left else f"{score:.2f} ▸"
    side = "left" if is_left else "right"
    axes.annotate(f" {text} ", (np.clip(score, low, high), place), ha=side, va="center", fontsize=6.5)


@styled
def plot_gains(
    per_task: pd.DataFrame,
    per_system: pd.DataFrame,
    baseline: str,
    min_baseline: float = MIN_BASELINE,
    lower_is_better: bool = False,
) -> Figure:
    """Draws bars of tasks' gains, sorted by those over the first system, below their mean (ARG).

    Tasks without a relative gain come last, with the difference of their scores as a number.
    """
    order = ["in_arg", "relative_gain", "difference"]
    first = per_task[per_task["system"] == per_task["system"].iloc[0]]
    tasks = first.sort_values(order, ascending=False, kind="stable").set_index("task")["in_arg"]
    names = [short(task) if in_arg else f"{short(task)} {MARK}" for task, in_arg in tasks.items()]
    shown = [f"{short(system.system)}\nARG {shown_arg(system)}" for system in per_system.itertuples()]
    headings = [heading.replace(" [", "\n[") for heading in shown]
    figure, panels = dot_panels(["ARG", *names], headings, 0.155 if len(tasks) <= 40 else 0.125, 1.5)
    gains = per_task["relative_gain"].dropna()
    values = np.concatenate([[0.0], gains, per_system[["arg", "low", "high"]].stack().dropna()])
    for axes, system in zip(panels, per_system.itertuples(), strict=True):
        rows = per_task[per_task["system"] == system.system].set_index("task").loc[tasks.index]
        draw_gains(axes, rows, system, lower_is_better)
        set_gain_scale(axes, values, gains[gains != 0].abs())
    below = f"relative gain over {short(baseline)}; ARG: its mean over {tasks.sum()} of {len(tasks)} tasks"
    if not tasks.all():
        below += f"\n{MARK} baseline at or below {min_baseline:g}: difference of the scores, no relative gain"
    add_legend(figure, below)
    return figure


def draw_gains(axes: Axes, rows: pd.DataFrame, system, lower_is_better: bool) -> None:
    """Draws the tasks' bars, in rows from 1 on, and the mean of the system in row 0."""
    for place, task in enumerate(rows.itertuples(), start=1):
        if task.in_arg:
            is_better = (task.relative_gain < 0) == lower_is_better
            bar = dict(color=BLUE, label="better") if is_better else dict(color=RED, label="worse")
            axes.barh(place, task.relative_gain, height=0.76, zorder=1.5, **bar)
        else:
            aside = dict(xytext=(2.5, 0), textcoords="offset points", va="center", fontsize=6)
            axes.annotate(shown_task_gain(task), (0, place), **aside)
    mean = dict(color=DARK, marker="D", markersize=3.5, linewidth=1.0, label="ARG, 95% t interval", zorder=4)
    axes.errorbar([system.arg], [0], xerr=[[system.arg - system.low], [system.high - system.arg]], **mean)
    axes.plot([system.arg] * 2, [0, len(rows) + 0.5], color=DARK, linewidth=0.6, linestyle="--", zorder=1)
    axes.axvline(0, color=DARK, linewidth=0.6)
    axes.axhline(0.5, color="0.6", linewidth=0.5)


def set_gain_scale(axes: Axes, values: np.ndarray, sizes: pd.Series) -> None:
    """Sets a scale for the values, logarithmic beyond most of the sizes if the largest is far above."""
    linear = max(4 * sizes.median(), sizes.quantile(0.9), NARROWEST_SCALE) if len(sizes) else 1.0
    linear = float(f"{linear:.0e}")
    if np.abs(values).max() > 1.5 * linear:
        axes.set_xscale("symlog", linthresh=linear, linscale=1.5)
        axes.set_xlabel(f"logarithmic beyond {linear:.0%}")
        axes.set_xticks(linear * np.array([-100, -10, -1, 0, 1, 10, 100]))
        axes.set_xlim(1.3 * min(values.min(), -linear / 4), 1.3 * max(values.max(), linear / 4))
        axes.minorticks_off()
    else:
        set_scale(axes, values)
    axes.xaxis.set_major_formatter(lambda tick, _: f"{100 * tick:.6g}%")
