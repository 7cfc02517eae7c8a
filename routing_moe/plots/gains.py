"""Relative gains as a bar chart: a row per task, a panel per system, its average (ARG) in the first row.

    plot_gains(per_task, per_system, "gains.pdf", "BART")

Takes `gains.gains_per_task` and `gains.gains_per_system`. All panels have one scale, fitted to most of the
bars: a longer one ends where the scale does, with its value in it. Tasks without a relative gain come
last and are no bars, but differences in figures.
"""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from routing_moe.plots.style import CATEGORY_COLOURS, shown_name, text_width, write_figure
from routing_moe.results.gains import MARK, MIN_BASELINE, shown_gain, shown_task_gain

GAIN_COLOUR, LOSS_COLOUR = CATEGORY_COLOURS[0], CATEGORY_COLOURS[4]  # blue, vermilion
DARK = "0.15"
DASHES = (0, (3, 2))

# Inches. A chart is at least as wide as the text of a paper, and grows with its systems and tasks.
WIDTH = 6.75
MARGIN = 0.06
ROW, TIGHT_ROW, MANY_ROWS = 0.155, 0.125, 40
LINE = 0.125  # of the heading and of the text below
AXIS = 0.2  # the numbers below a panel
LEGEND = 0.2
GAP = 0.28  # between panels
EDGE = 0.05  # between the ends of the scale and the panel's
NARROWEST_BARS = 1.1
FONT = 7.5
SMALL = 6.5
IN_BAR = 5.5
HEADING_CHARACTERS = 24  # in a line of a system's name

# The scale: as far as the longest bar, unless that is FAR times as far as these ask for.
TYPICAL = 4.0  # times the median gain
SHARE = 0.9  # of the bars at least are to scale
FAR = 1.5
NARROWEST_SCALE = 0.02  # relative gain: less than that is not blown up to fill a panel


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
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"{path}: a picture's name must end in .png or .pdf")
    tasks = _sorted_tasks(per_task)
    systems = list(per_system.itertuples())
    scale = _Scale.fitted(per_task, per_system)
    place = _Layout.measure(tasks, systems, scale)
    below = _text_below(per_task, scale, baseline, min_baseline, place.width)
    place = place.with_lines_below(len(below))
    figure = Figure(figsize=(place.width, place.height))
    FigureCanvasAgg(figure)
    for number, system in enumerate(systems):
        rows = per_task[per_task["system"] == system.system].set_index("task").loc[list(tasks)]
        axes = place.panel(figure, number)
        _set_axes(axes, place, scale, tasks, named=number == 0)
        _draw_average(axes, system, scale, last_row=sum(tasks.values()))
        _draw_bars(axes, rows, scale, place)
        axes.set_title(_heading(system), fontsize=FONT, pad=4, linespacing=1.15).set_parse_math(False)
    _draw_legend(figure, place, below)
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
    """Relative gains: the ends of the longest bars that are drawn. Texts in bars that go on beyond them."""

    low: float
    high: float
    texts_left: tuple[str, ...]
    texts_right: tuple[str, ...]
    differences: tuple[str, ...]  # texts of tasks without a relative gain
    clips: bool  # whether anything goes on beyond an end

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
        """Inches from low to high at which every text has the room it needs on its side of zero."""
        needs = [(text, IN_BAR, -self.low) for text in set(self.texts_left)]
        needs += [(text, IN_BAR, self.high) for text in set(self.texts_right)]
        needs += [(text, FONT, max(-self.low, self.high)) for text in set(self.differences)]
        span = self.high - self.low
        return max([NARROWEST_BARS, *((text_width(t, font) + 0.08) * span / room for t, font, room in needs)])


def _text_in_bar(gain: float) -> str:
    return f"+{100 * gain:.0f}% ▸" if gain > 0 else f"◂ {100 * gain:.0f}%"


def _reach(gains: np.ndarray, averages: np.ndarray) -> float:
    """How far from zero the scale goes at most: a few huge gains must not squash all others."""
    sizes = np.abs(gains[gains != 0])
    if not len(sizes):
        return NARROWEST_SCALE
    # Of two sizes the lower: the larger one may be what squashes the other.
    median, share = np.quantile(sizes, [0.5, SHARE], method="lower")
    enough = max(TYPICAL * median, share)
    enough = max(enough, min(FAR * enough, np.abs(averages).max()))
    return float(sizes.max() if sizes.max() <= FAR * enough else enough)


# ---------------------------------------------------------------------------- where things go


@dataclass(frozen=True)
class _Layout:
    """Inches: names of tasks on the left, panels side by side, legend and text below."""

    left: float
    row: float
    n_rows: int
    panel_width: float
    heading: float
    width: float
    lines_below: int = 0

    @classmethod
    def measure(cls, tasks: dict[str, bool], systems: list, scale: _Scale):
        row = ROW if len(tasks) <= MANY_ROWS else TIGHT_ROW
        font = _row_font(row)
        left = MARGIN + max(text_width(name, font) for name in ("ARG", *_row_names(tasks))) + 0.1
        headings = [_heading(system).split("\n") for system in systems]
        widest = max(text_width(line, FONT) for lines in headings for line in lines)
        panel = max(widest - GAP / 2, scale.narrowest + 2 * EDGE)
        n = len(systems)
        width = max(WIDTH, left + n * (panel + GAP) + MARGIN)
        panel = (width - left - MARGIN) / n - GAP
        heading = LINE * max(len(lines) for lines in headings) + 0.08
        return cls(left, row, len(tasks) + 1, panel, heading, width)

    def with_lines_below(self, count: int):
        return _Layout(**{**vars(self), "lines_below": count})

    @property
    def panel_height(self) -> float:
        return self.row * (self.n_rows + 0.5)

    @property
    def height(self) -> float:
        return 2 * MARGIN + self.heading + self.panel_height + AXIS + LEGEND + LINE * self.lines_below

    def panel(self, figure: Figure, number: int):
        left = self.left + number * (self.panel_width + GAP)
        bottom = self.height - MARGIN - self.heading - self.panel_height
        return figure.add_axes(
            (left / self.width, bottom / self.height,
             self.panel_width / self.width, self.panel_height / self.height)
        )  # fmt: skip

    def limits(self, scale: _Scale) -> tuple[float, float]:
        """From, to in relative gain at the edges of a panel."""
        margin = EDGE * (scale.high - scale.low) / (self.panel_width - 2 * EDGE)
        return scale.low - margin, scale.high + margin


def _row_font(row: float) -> float:
    return min(FONT, row * 72 * 0.68)


def _row_names(tasks: dict[str, bool]) -> list[str]:
    return [shown_name(task) if in_arg else f"{shown_name(task)} {MARK}" for task, in_arg in tasks.items()]


# ---------------------------------------------------------------------------- one panel
#
# Row 0 is ARG, task number i is row i + 1.


def _set_axes(axes, place: _Layout, scale: _Scale, tasks: dict[str, bool], named: bool) -> None:
    axes.set(xlim=place.limits(scale), ylim=(len(tasks) + 0.75, -0.75))
    for row in range(2, len(tasks) + 1, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.axhline(0.5, color="0.6", linewidth=0.5)
    if 0 < sum(tasks.values()) < len(tasks):
        axes.axhline(sum(tasks.values()) + 0.5, color="0.6", linewidth=0.5)
    axes.axvline(0, color=DARK, linewidth=0.6, zorder=2)
    axes.set_yticks(range(len(tasks) + 1) if named else [], ["ARG", *_row_names(tasks)] if named else [])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    bins = max(2, min(8, int(place.panel_width / 0.5)))
    ticks = MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    slack = 1e-9 * (scale.high - scale.low)
    ticks = [tick for tick in ticks if scale.low - slack <= tick <= scale.high + slack]
    axes.set_xticks(ticks, [f"{100 * tick:.4g}%" for tick in ticks])
    axes.tick_params(axis="x", labelsize=SMALL, length=2, pad=1.5, width=0.5)
    axes.tick_params(axis="y", labelsize=_row_font(place.row), length=0, pad=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)


def _draw_average(axes, system, scale: _Scale, last_row: int) -> None:
    """ARG as a diamond and a line down to the last task that is part of it.

    It, or an end of its interval, is an arrow at the edge where it is out of scale.
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


def _draw_bars(axes, rows: pd.DataFrame, scale: _Scale, place: _Layout) -> None:
    """Bars of the tasks that have a relative gain; in the others' rows their difference."""
    to_right = scale.high >= -scale.low
    for row, task in enumerate(rows.itertuples(), start=1):
        gain = task.relative_gain
        if not task.in_arg:
            _write(axes, shown_task_gain(task), 0, row, to_right, _row_font(place.row), DARK)
        elif gain == 0:
            axes.plot([0], [row], color=DARK, marker="o", markersize=2.2, zorder=3)
        else:
            drawn = min(max(gain, scale.low), scale.high)
            colour = GAIN_COLOUR if gain > 0 else LOSS_COLOUR
            axes.barh(row, drawn, height=0.76, color=colour, linewidth=0, zorder=1.5)
            if gain != drawn:
                _write(axes, _text_in_bar(gain), drawn, row, gain < 0, IN_BAR, "white")


def _write(axes, text: str, start: float, row: int, to_right: bool, font: float, colour: str) -> None:
    """Text from the place `start` of a row to the right or left."""
    axes.annotate(
        text, (start, row), xytext=(2.5 if to_right else -2.5, 0), textcoords="offset points",
        ha="left" if to_right else "right", va="center_baseline", fontsize=font, color=colour,
    )  # fmt: skip


# ---------------------------------------------------------------------------- below the panels


def _text_below(
    per_task: pd.DataFrame, scale: _Scale, baseline: str, min_baseline: float, width: float
) -> list[str]:
    n, kept = per_task["task"].nunique(), per_task.loc[per_task["in_arg"], "task"].nunique()
    counted = f"{kept} of {n} tasks" if kept < n else f"{n} task" + "s" * (n > 1)
    lines = [f"relative gain over {shown_name(baseline)}; ARG: its mean over {counted}"]
    if scale.clips:
        lines.append("▸ ◂ goes on beyond the scale: value in the bar, that of ARG above")
    if kept < n:
        lines.append(
            f"{MARK} baseline at or below {min_baseline:g}: difference of the scores, no relative gain"
        )
    characters = int((width - 2 * MARGIN) / (text_width("n" * 40, SMALL) / 40))
    return [part for line in lines for part in textwrap.wrap(line, characters)]


def _draw_legend(figure: Figure, place: _Layout, below: list[str]) -> None:
    handles = [
        Patch(color=GAIN_COLOUR, linewidth=0),
        Patch(color=LOSS_COLOUR, linewidth=0),
        Line2D([], [], color=DARK, marker="D", markersize=3.5, linewidth=1.0),
    ]
    names = ["gain", "loss", "ARG, 95% t interval over tasks"]
    bottom = (MARGIN + LINE * len(below)) / place.height
    figure.legend(
        handles, names, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=3, fontsize=SMALL,
        frameon=False, borderaxespad=0.0, borderpad=0.2, handlelength=1.6, columnspacing=1.8,
    )  # fmt: skip
    for number, line in enumerate(reversed(below)):
        height = (MARGIN + LINE * (number + 0.5)) / place.height
        figure.text(0.5, height, line, ha="center", va="center", fontsize=SMALL).set_parse_math(False)
