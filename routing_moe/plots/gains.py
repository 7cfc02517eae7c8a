"""Relative gains as a bar chart: a row per task, a panel per system, its average (ARG) in the first row.

    plot_gains(per_task, per_system, "gains.pdf", "BART")

Takes `gains.gains_per_task` and `gains.gains_per_system`. All panels have one scale, fitted to most of the
bars: a longer one ends where the scale does, with its value in it. Tasks without a relative gain come
last and show the difference of the scores as a number instead of a bar.
"""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from routing_moe.plots.dot_panels import LINE, dot_panels
from routing_moe.plots.style import (
    CATEGORY_COLOURS,
    DARK,
    DASHES,
    FONT,
    PAPER_STYLE,
    SMALL,
    check_picture_name,
    row_font,
    shown_name,
    text_width,
    wrapped,
    write_figure,
)
from routing_moe.results.gains import MARK, MIN_BASELINE, shown_gain, shown_task_gain

GAIN_COLOUR, LOSS_COLOUR = CATEGORY_COLOURS[0], CATEGORY_COLOURS[4]  # blue, vermilion
ROW, TIGHT_ROW, MANY_ROWS = 0.155, 0.125, 40  # inches, inches, tasks
NARROWEST_BARS = 1.1  # inches
IN_BAR = 5.5  # points
HEADING_CHARACTERS = 24  # in a line of a system's name

# The scale ends at the longest bar, unless that is FAR times longer than TYPICAL and SHARE require.
TYPICAL = 4.0  # times the median gain
SHARE = 0.9  # of the bars at least are to scale
FAR = 1.5
NARROWEST_SCALE = 0.02  # relative gain: smaller ones do not fill a panel
END = 0.035  # of the scale's length: between its ends and the panel's


@rc_context(PAPER_STYLE)
def plot_gains(
    per_task: pd.DataFrame,
    per_system: pd.DataFrame,
    path: str | os.PathLike,
    baseline: str,
    min_baseline: float = MIN_BASELINE,
) -> None:
    """Writes the chart: PDF if `path` ends in .pdf, PNG if in .png. The same tables give the same bytes.

    Tasks are sorted by the gain of the first system. Raises ValueError if the file name ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    tasks = _sorted_tasks(per_task)
    systems = list(per_system.itertuples())
    scale = _Scale.fitted(per_task, per_system)
    names = [shown_name(task) if in_arg else f"{shown_name(task)} {MARK}" for task, in_arg in tasks.items()]
    row = ROW if len(tasks) <= MANY_ROWS else TIGHT_ROW
    below = _explained(per_task, scale, baseline, min_baseline)
    figure, panels = dot_panels(
        ["ARG", *names], [_heading(system) for system in systems], row, scale.narrowest,
        legend=0.35 + LINE * (below.count("\n") + 1), side_by_side=True,
    )  # fmt: skip
    left = max(text_width(name, row_font(row)) for name in names)
    _set_scale(panels, scale, (figure.get_figwidth() - left) / len(panels) - 0.3)
    for axes, system in zip(panels, systems, strict=True):
        _draw_borders(axes, len(tasks), sum(tasks.values()))
        _draw_average(axes, system, scale, last_row=sum(tasks.values()))
        rows = per_task[per_task["system"] == system.system].set_index("task").loc[list(tasks)]
        _draw_bars(axes, rows, scale, min(FONT, row_font(row)))
    _draw_legend(figure, below)
    write_figure(figure, path)


def _sorted_tasks(per_task: pd.DataFrame) -> dict[str, bool]:
    """{task: whether it has a relative gain}: those by the first system's gain, then the others."""
    first = per_task[per_task["system"] == per_task["system"].iloc[0]]
    order = ["in_arg", "relative_gain", "difference"]
    ordered = first.sort_values(order, ascending=False, kind="stable")
    return dict(zip(ordered["task"], ordered["in_arg"], strict=True))


def _heading(system) -> str:
    lines = _broken(shown_name(system.system))
    lines.append(f"ARG {shown_gain(system.arg)}")
    if not np.isnan(system.low):
        lines.append(f"[{shown_gain(system.low)}, {shown_gain(system.high)}]")
    elif not np.isnan(system.arg):
        lines.append(system.interval)
    return "\n".join(lines)


def _broken(name: str) -> list[str]:
    """Lines of at most HEADING_CHARACTERS, broken after spaces and signs where there are any."""
    lines = [""]
    for part in re.findall(r"[^\s_./-]+[\s_./-]?|[\s_./-]", name):
        for piece in textwrap.wrap(part, HEADING_CHARACTERS, drop_whitespace=False):
            if len(lines[-1]) + len(piece) <= HEADING_CHARACTERS:
                lines[-1] += piece
            else:
                lines.append(piece)
    return [line.strip() for line in lines]


# ---------------------------------------------------------------------------- scale


@dataclass(frozen=True)
class _Scale:
    """The ends of the longest bars drawn, as relative gains, and the texts the panels have to fit."""

    low: float
    high: float
    texts_left: tuple[str, ...]  # in bars that are cut at the end
    texts_right: tuple[str, ...]
    differences: tuple[str, ...]  # texts of tasks without a relative gain
    clips: bool  # whether anything is cut at an end

    @classmethod
    def fitted(cls, per_task: pd.DataFrame, per_system: pd.DataFrame):
        gains = per_task["relative_gain"].dropna().to_numpy()
        averages = per_system[["arg", "low", "high"]].to_numpy().ravel()
        reach = _reach(gains, per_system["arg"].dropna().to_numpy())
        shown = np.concatenate([gains, averages[~np.isnan(averages)], [0.0]])
        low, high = max(-reach, shown.min()), min(reach, shown.max())
        high += max(0.0, NARROWEST_SCALE - (high - low))
        left, right = (
            tuple(map(_text_in_bar, beyond)) for beyond in (gains[gains < low], gains[gains > high])
        )
        differences = tuple(map(shown_task_gain, per_task[~per_task["in_arg"]].itertuples()))
        clips = bool(shown.min() < low or shown.max() > high)
        return cls(float(low), float(high), left, right, differences, clips)

    @property
    def narrowest(self) -> float:
        """Inches of a panel in which every text has the room it needs on its side of zero."""
        needs = [(text, IN_BAR, -self.low) for text in set(self.texts_left)]
        needs += [(text, IN_BAR, self.high) for text in set(self.texts_right)]
        needs += [(text, FONT, max(-self.low, self.high)) for text in set(self.differences)]
        span = (self.high - self.low) * (1 + 2 * END)
        return max([NARROWEST_BARS, *((text_width(t, font) + 0.08) * span / room for t, font, room in needs)])


def _text_in_bar(gain: float) -> str:
    return f"+{100 * gain:.0f}% ▸" if gain > 0 else f"◂ {100 * gain:.0f}%"


def _reach(gains: np.ndarray, averages: np.ndarray) -> float:
    """The largest distance from zero that is to scale: a few huge gains must not compress all others."""
    sizes = np.abs(gains[gains != 0])
    if not len(sizes):
        return NARROWEST_SCALE
    # Of two sizes the lower: the larger one may be the outlier.
    median, share = np.quantile(sizes, [0.5, SHARE], method="lower")
    enough = max(TYPICAL * median, share)
    enough = max(enough, min(FAR * enough, np.abs(averages).max()))
    return float(sizes.max() if sizes.max() <= FAR * enough else enough)


def _set_scale(panels: list[Axes], scale: _Scale, width: float) -> None:
    """Limits and ticks of panels about `width` inches wide; no tick lies beyond the ends of the scale."""
    span = scale.high - scale.low
    bins = max(2, min(8, int(width / 0.5)))
    ticks = MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    ticks = [tick for tick in ticks if scale.low - 1e-9 * span <= tick <= scale.high + 1e-9 * span]
    for axes in panels:
        axes.set_xlim(scale.low - END * span, scale.high + END * span)
        axes.set_xticks(ticks, [f"{100 * tick:.4g}%" for tick in ticks])


# ---------------------------------------------------------------------------- one panel
#
# Row 0 is ARG, task number i is row i + 1.


def _draw_borders(axes: Axes, n_tasks: int, n_in_arg: int) -> None:
    """Lines at zero, below ARG, and between tasks with and without a relative gain."""
    axes.axhline(0.5, color="0.6", linewidth=0.5)
    if 0 < n_in_arg < n_tasks:
        axes.axhline(n_in_arg + 0.5, color="0.6", linewidth=0.5)
    axes.axvline(0, color=DARK, linewidth=0.6, zorder=2)


def _draw_average(axes: Axes, system, scale: _Scale, last_row: int) -> None:
    """ARG as a diamond and a line down to the last task that is part of it.

    Where it, or an end of its interval, is outside the scale, there is an arrow at the edge.
    """
    if np.isnan(system.arg):
        return
    low, arg, high = np.clip([system.low, system.arg, system.high], scale.low, scale.high)
    ends = [] if np.isnan(system.low) else [(low, system.low), (high, system.high)]
    axes.plot([end for end, _ in ends], [0] * len(ends), color=DARK, linewidth=1.0, zorder=3)
    for end, value in [*ends, (arg, system.arg)]:
        arrow = "<" if value < scale.low else ">" if value > scale.high else None
        mark = dict(marker=arrow, markersize=4) if arrow else dict(marker="|", markersize=4)
        if value == system.arg and not arrow:
            mark = dict(marker="D", markersize=3.5)
            down = [0, last_row + 0.5]
            axes.plot([arg, arg], down, color=DARK, linewidth=0.6, linestyle=DASHES, zorder=1)
        axes.plot([end], [0], color=DARK, zorder=4, **mark)


def _draw_bars(axes: Axes, rows: pd.DataFrame, scale: _Scale, font: float) -> None:
    """Bars of the tasks that have a relative gain; in the others' rows their difference."""
    to_right = scale.high >= -scale.low
    for row, task in enumerate(rows.itertuples(), start=1):
        gain = task.relative_gain
        if not task.in_arg:
            _write(axes, shown_task_gain(task), 0, row, to_right, font, DARK)
        elif gain == 0:
            axes.plot([0], [row], color=DARK, marker="o", markersize=2.2, zorder=3)
        else:
            drawn = min(max(gain, scale.low), scale.high)
            colour = GAIN_COLOUR if gain > 0 else LOSS_COLOUR
            axes.barh(row, drawn, height=0.76, color=colour, linewidth=0, zorder=1.5)
            if gain != drawn:
                _write(axes, _text_in_bar(gain), drawn, row, gain < 0, IN_BAR, "white")


def _write(axes: Axes, text: str, start: float, row: int, to_right: bool, font: float, colour: str) -> None:
    """Text from the place `start` of a row to the right or left."""
    axes.annotate(
        text, (start, row), xytext=(2.5 if to_right else -2.5, 0), textcoords="offset points",
        ha="left" if to_right else "right", va="center_baseline", fontsize=font, color=colour,
    )  # fmt: skip


# ---------------------------------------------------------------------------- below the panels


def _explained(per_task: pd.DataFrame, scale: _Scale, baseline: str, min_baseline: float) -> str:
    """What the bars and marks mean, in lines for the legend."""
    n, kept = per_task["task"].nunique(), per_task.loc[per_task["in_arg"], "task"].nunique()
    counted = f"{kept} of {n} tasks" if kept < n else f"{n} task" + "s" * (n > 1)
    lines = [f"relative gain over {shown_name(baseline)}; ARG: its mean over {counted}"]
    if scale.clips:
        lines.append("▸ ◂ extends beyond the scale: value in the bar, that of ARG above")
    if kept < n:
        lines.append(
            f"{MARK} baseline at or below {min_baseline:g}: difference of the scores, no relative gain"
        )
    return wrapped("\n".join(lines), 7.2, SMALL)  # the average letter is narrower than an n


def _draw_legend(figure: Figure, below: str) -> None:
    handles = {
        "gain": Patch(color=GAIN_COLOUR, linewidth=0),
        "loss": Patch(color=LOSS_COLOUR, linewidth=0),
        "ARG, 95% t interval": Line2D([], [], color=DARK, marker="D", markersize=3.5, linewidth=1),
    }
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, title=below,
        title_fontsize=SMALL, handlelength=1.6,
    )  # fmt: skip
    legend.get_title().set_horizontalalignment("center")
