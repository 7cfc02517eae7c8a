"""Relative gains as a bar chart: a row per task, a panel per system, its average (ARG) in the first row.

    plot_gains(per_task, per_system, "gains.pdf", "BART")

Takes `gains.gains_per_task` and `gains.gains_per_system`. All panels have one scale; where a few gains are
much larger than the others, it is logarithmic beyond the others. Tasks without a relative gain come last and
show the difference of the scores as a number instead of a bar.
"""

from __future__ import annotations

import os
import textwrap

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from routing_moe.plots.style import (
    CATEGORY_COLOURS,
    DARK,
    DASHES,
    FONT,
    LINE,
    PAPER_STYLE,
    SMALL,
    dot_panels,
    row_font,
    shown_name,
    wrapped,
    write_figure,
)
from routing_moe.results.gains import MARK, MIN_BASELINE, shown_gain, shown_task_gain

GAIN_COLOUR, LOSS_COLOUR = CATEGORY_COLOURS[0], CATEGORY_COLOURS[4]  # blue, vermilion
ROW, TIGHT_ROW, MANY_ROWS = 0.155, 0.125, 40  # inches, inches, tasks
NARROWEST_PANEL = 1.4  # inches
HEADING_CHARACTERS = 24  # in a line of a system's name

# The scale is linear up to the larger of TYPICAL medians and the SHARE quantile of the gains' sizes; it is
# logarithmic beyond if the largest is more than FAR times larger.
TYPICAL, SHARE, FAR = 4.0, 0.9, 1.5
NARROWEST_SCALE = 0.02  # relative gain: smaller ones do not fill a panel


@rc_context(PAPER_STYLE)
def plot_gains(
    per_task: pd.DataFrame,
    per_system: pd.DataFrame,
    path: str | os.PathLike,
    baseline: str,
    min_baseline: float = MIN_BASELINE,
    lower_is_better: bool = False,
) -> None:
    """Writes the chart, PDF or PNG as `path` ends; tasks are sorted by the gain of the first system."""
    better, worse = (-1, 1) if lower_is_better else (1, -1)
    colours = {better: GAIN_COLOUR, worse: LOSS_COLOUR}  # by the sign of the gain
    tasks = _sorted_tasks(per_task)
    names = [shown_name(task) if in_arg else f"{shown_name(task)} {MARK}" for task, in_arg in tasks.items()]
    systems = list(per_system.itertuples())
    row = ROW if len(tasks) <= MANY_ROWS else TIGHT_ROW
    below = _explained(per_task, baseline, min_baseline)
    figure, panels = dot_panels(
        ["ARG", *names], [_heading(system) for system in systems], row, NARROWEST_PANEL,
        legend=0.35 + LINE * (below.count("\n") + 1), side_by_side=True,
    )  # fmt: skip
    averages = per_system[["arg", "low", "high"]].to_numpy().ravel()
    n_in_arg = sum(tasks.values())
    for axes, system in zip(panels, systems, strict=True):
        _set_scale(axes, per_task["relative_gain"].dropna().to_numpy(), averages[~np.isnan(averages)])
        axes.axvline(0, color=DARK, linewidth=0.6, zorder=2)
        axes.axhline(0.5, color="0.6", linewidth=0.5)
        if 0 < n_in_arg < len(tasks):
            axes.axhline(n_in_arg + 0.5, color="0.6", linewidth=0.5)
        _draw_average(axes, system, n_in_arg)
        rows = per_task[per_task["system"] == system.system].set_index("task").loc[list(tasks)]
        _draw_bars(axes, rows, colours, min(FONT, row_font(row)))
    _draw_legend(figure, below)
    write_figure(figure, path)


def _sorted_tasks(per_task: pd.DataFrame) -> dict[str, bool]:
    """{task: whether it has a relative gain}: those by the first system's gain, then the others."""
    first = per_task[per_task["system"] == per_task["system"].iloc[0]]
    order = ["in_arg", "relative_gain", "difference"]
    ordered = first.sort_values(order, ascending=False, kind="stable")
    return dict(zip(ordered["task"], ordered["in_arg"], strict=True))


def _heading(system) -> str:
    lines = textwrap.wrap(shown_name(system.system), HEADING_CHARACTERS)
    lines.append(f"ARG {shown_gain(system.arg)}")
    if not np.isnan(system.low):
        lines.append(f"[{shown_gain(system.low)}, {shown_gain(system.high)}]")
    elif not np.isnan(system.arg):
        lines.append(system.interval)
    return "\n".join(lines)


def _set_scale(axes: Axes, gains: np.ndarray, averages: np.ndarray) -> None:
    """Sets limits and ticks for gains and averages; a few huge ones must not compress all others."""
    values = np.concatenate([[0.0], gains, averages])
    low, high = values.min(), values.max()
    linear = _linear_part(np.abs(gains[gains != 0]))
    if max(-low, high) <= FAR * linear:
        margin = max(0.05 * (high - low), (NARROWEST_SCALE - (high - low)) / 2)
        low, high = low - margin, high + margin
        ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    else:
        axes.set_xscale("symlog", linthresh=linear, linscale=1.5)
        axes.set_xlabel(f"logarithmic beyond {100 * linear:.6g}%")
        powers = 10.0 ** np.arange(np.ceil(np.log10(4 * linear)), np.log10(max(-low, high)) + 1)
        ticks = [0.0, *(sign * tick for tick in (linear, *powers) for sign in (-1, 1))]
        low, high = 1.3 * min(low, -linear / 4), 1.3 * max(high, linear / 4)
    axes.set_xlim(low, high)
    ticks = sorted(tick for tick in ticks if low <= tick <= high)
    axes.set_xticks(ticks, [f"{100 * tick:.6g}%" for tick in ticks])
    axes.minorticks_off()


def _linear_part(sizes: np.ndarray) -> float:
    """Returns the end of the linear part of the scale, one digit and zeros; sizes: of the gains, not 0."""
    if not len(sizes):
        return NARROWEST_SCALE
    # Of two sizes the lower: the larger one may be the outlier.
    median, share = np.quantile(sizes, [0.5, SHARE], method="lower")
    end = max(TYPICAL * median, share, NARROWEST_SCALE)
    digit = 10.0 ** np.floor(np.log10(end))
    return float(digit * np.ceil(end / digit - 1e-9))


# ---- one panel: row 0 is ARG, task number i is row i + 1


def _draw_average(axes: Axes, system, last_row: int) -> None:
    """ARG as a diamond with its interval, and a line down to the last task that is part of it."""
    if np.isnan(system.arg):
        return
    axes.plot(
        [system.low, system.high], [0, 0], color=DARK, linewidth=1.0, marker="|", markersize=4, zorder=3
    )
    axes.plot([system.arg], [0], color=DARK, marker="D", markersize=3.5, zorder=4)
    down = [0, last_row + 0.5]
    axes.plot([system.arg] * 2, down, color=DARK, linewidth=0.6, linestyle=DASHES, zorder=1)


def _draw_bars(axes: Axes, rows: pd.DataFrame, colours: dict[int, str], font: float) -> None:
    """Bars of the tasks that have a relative gain; in the others' rows their difference."""
    low, high = axes.get_xlim()
    side = 1 if high >= -low else -1  # of zero, where there is more room
    for row, task in enumerate(rows.itertuples(), start=1):
        gain = task.relative_gain
        if not task.in_arg:
            axes.annotate(
                shown_task_gain(task), (0, row), xytext=(2.5 * side, 0), textcoords="offset points",
                ha="left" if side > 0 else "right", va="center_baseline", fontsize=font, color=DARK,
            )  # fmt: skip
        elif gain == 0:
            axes.plot([0], [row], color=DARK, marker="o", markersize=2.2, zorder=3)
        else:
            axes.barh(row, gain, height=0.76, color=colours[int(np.sign(gain))], linewidth=0, zorder=1.5)


# ---- below the panels


def _explained(per_task: pd.DataFrame, baseline: str, min_baseline: float) -> str:
    """What the bars and marks mean, in lines for the legend."""
    n, n_in_arg = per_task["task"].nunique(), per_task.loc[per_task["in_arg"], "task"].nunique()
    tasks = f"{n_in_arg} of {n} tasks" if n_in_arg < n else f"{n} task" + "s" * (n > 1)
    text = f"relative gain over {shown_name(baseline)}; ARG: its mean over {tasks}"
    if n_in_arg < n:
        text += f"\n{MARK} baseline at or below {min_baseline:g}: difference of the scores, no relative gain"
    return wrapped(text, 7.2, SMALL)  # the average letter is narrower than an n


def _draw_legend(figure: Figure, below: str) -> None:
    handles = {
        "better": Patch(color=GAIN_COLOUR, linewidth=0),
        "worse": Patch(color=LOSS_COLOUR, linewidth=0),
        "ARG, 95% t interval": Line2D([], [], color=DARK, marker="D", markersize=3.5, linewidth=1),
    }
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, title=below,
        title_fontsize=SMALL, handlelength=1.6,
    )  # fmt: skip
    legend.get_title().set_horizontalalignment("center")
