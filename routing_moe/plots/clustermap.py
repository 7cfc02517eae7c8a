"""Which tasks cluster: a heat map of similarities in the order of a clustering, with its tree on the right.

    plot_clustered(overlap(routes.values_NLE), routes.tasks, Ontology.load(), "clusters.pdf",
                   HeatScale("overlap of routes", "Blues", 0.0, 1.0))

Average linkage on 1 - similarity; leaves turned so that neighbours are as alike as the tree allows. A branch
has a category's colour where all of its tasks are of that category. N tasks.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from dataloader.ontology import Ontology
from routing_moe.analysis.clustering import average_linkage
from routing_moe.plots.similarity import BETWEEN, GAP, NARROWEST, UNIT
from routing_moe.plots.style import (
    BAR_ROOM,
    BAR_WIDTH,
    MARGIN,
    HeatScale,
    axes_at,
    check_picture_name,
    draw_scale,
    draw_title,
    row_font,
    shown_name,
    text_width,
    write_figure,
)
from routing_moe.plots.task_categories import (
    STRIP_WIDTH,
    draw_legend,
    draw_strips,
    kind_colours,
    legend_size,
    name_rows,
)

# Inches, of a heat map of up to UNIT; around a larger one, all is larger in proportion.
TREE_WIDTH = 1.1
TREE_AXIS = 0.52  # its numbers and their name, below
MIXED = "0.35"  # a branch over several categories
ROUNDING = 1e-6  # by which similarities may be off symmetric, or above 1


def plot_clustered(
    similarity_NN: np.ndarray,
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    scale: HeatScale,
    title: str | None = None,
) -> None:
    """Writes the heat map and its tree: PDF if `path` ends in .pdf, PNG if in .png.

    Hangs neither on the order in which tasks are given nor on chance: the same values give the same bytes.
    Raises ValueError as `average_linkage`, and if values do not fit the tasks, a task is listed twice or the
    file name ends differently.
    """
    path = Path(path)
    similarity_NN = np.asarray(similarity_NN, dtype=np.float64)
    _check(similarity_NN, tasks, path)
    row_of = {task: row for row, task in enumerate(tasks)}
    by_kind = ontology.order(tasks)  # ties are broken by the order of rows
    rows = [row_of[task] for task in by_kind]
    similarity_NN = similarity_NN[np.ix_(rows, rows)]
    kinds, colour_of = [ontology.category(task) for task in by_kind], kind_colours(ontology)
    linkage = average_linkage(similarity_NN)
    colours = _branch_colours(linkage, kinds, colour_of)
    tree = hierarchy.dendrogram(linkage, no_plot=True, link_color_func=colours.__getitem__)
    leaves = tree["leaves"]
    place = _Layout.measure(by_kind, kinds, scale, title)
    figure = Figure(figsize=(place.width, place.height))
    FigureCanvasAgg(figure)
    values_NN, leaf_kinds = similarity_NN[np.ix_(leaves, leaves)], [kinds[leaf] for leaf in leaves]
    strips = _draw_heat(figure, place, values_NN, scale, leaf_kinds, colour_of)
    name_rows(strips, [by_kind[leaf] for leaf in leaves], place.font)
    _draw_tree(figure, place, tree, len(leaves))
    draw_scale(figure, place.legend_left, place.top, scale, place.legend_zoom)
    top = place.top + BAR_ROOM * place.legend_zoom
    draw_legend(figure, place.legend_left, top, kinds, colour_of, place.legend_zoom)
    if title:
        draw_title(figure, place.title, place.zoom)
    write_figure(figure, path)


def _check(similarity_NN: np.ndarray, tasks: Sequence[str], path: Path) -> None:
    if similarity_NN.shape != (len(tasks), len(tasks)):
        raise ValueError(f"similarities have shape {similarity_NN.shape} for {len(tasks)} tasks")
    if len(set(tasks)) != len(tasks):
        raise ValueError("a task is listed twice")
    check_picture_name(path)


# ---------------------------------------------------------------------------- where things go


@dataclass(frozen=True)
class _Layout:
    """Inches. From the left: names, strips, heat map and strips above, tree, then colour bar above legend."""

    side: float  # of the heat map
    zoom: float  # of all but names
    font: float  # of names
    left: float  # of the heat map
    top: float  # of the strips above it
    legend_zoom: float
    width: float
    height: float
    title: str

    @classmethod
    def measure(cls, tasks: list[str], kinds: list, scale: HeatScale, title: str | None):
        n = len(tasks)
        row = max(NARROWEST / n, 0.16 if n <= 30 else 0.125 if n <= 60 else 0.11 if n <= 120 else 0.1)
        side, font = row * n, row_font(row)
        zoom = max(1.0, side / UNIT)
        strips = (2 * STRIP_WIDTH + GAP) * zoom
        left = MARGIN * zoom + max(text_width(shown_name(task), font) for task in tasks) + 0.08 + strips
        down = strips + side + TREE_AXIS * zoom
        legend_width, legend_height = legend_size(kinds)
        legend_width = max(legend_width, BAR_WIDTH + 0.2, text_width(scale.name, 8))
        # As large as all else where there is room for it, but never smaller than in other pictures.
        legend_zoom = max(1.0, min(zoom, down / (legend_height + BAR_ROOM)))
        tree = (GAP + TREE_WIDTH + BETWEEN) * zoom
        width = left + side + tree + legend_width * legend_zoom + MARGIN * zoom
        wrapped = textwrap.fill(title, max(20, int((width / zoom - 2 * MARGIN) * 10.5))) if title else ""
        top = zoom * (MARGIN + (0.2 * (wrapped.count("\n") + 1) + 0.1 if wrapped else 0.0))
        height = top + max(down, legend_zoom * (legend_height + BAR_ROOM)) + MARGIN * zoom
        return cls(side, zoom, font, left, top, legend_zoom, width, height, wrapped)

    @property
    def strips(self) -> float:
        """Width of two strips and the gap to the map."""
        return (2 * STRIP_WIDTH + GAP) * self.zoom

    @property
    def heat_top(self) -> float:
        return self.top + self.strips

    @property
    def tree_left(self) -> float:
        return self.left + self.side + GAP * self.zoom

    @property
    def legend_left(self) -> float:
        return self.tree_left + (TREE_WIDTH + BETWEEN) * self.zoom


# ---------------------------------------------------------------------------- the parts


def _draw_heat(figure: Figure, place: _Layout, values_NN: np.ndarray, scale: HeatScale, kinds, colour_of):
    """The heat map, and strips on its left and above; returns the axes of those on its left."""
    n = len(values_NN)
    axes = axes_at(figure, place.left, place.heat_top, place.side, place.side)
    axes.imshow(
        values_NN, cmap=scale.colours, vmin=scale.low, vmax=scale.high,
        aspect="auto", interpolation="nearest", extent=(0, n, n, 0),
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    width = place.strips - GAP * place.zoom
    beside = axes_at(figure, place.left - place.strips, place.heat_top, width, place.side)
    draw_strips(beside, kinds, colour_of)
    draw_strips(axes_at(figure, place.left, place.top, place.side, width), kinds, colour_of, across=True)
    return beside


def _draw_tree(figure: Figure, place: _Layout, tree: dict, n: int) -> None:
    """scipy has leaf n at 10 n + 5, and gives the four corners of every branch, from child to child."""
    heights_B4, distances_B4 = np.array(tree["icoord"]) / 10, np.array(tree["dcoord"])
    axes = axes_at(figure, place.tree_left, place.heat_top, TREE_WIDTH * place.zoom, place.side)
    corners_B42 = np.stack([distances_B4, heights_B4], axis=-1)
    width = 0.9 * place.zoom**0.5
    axes.add_collection(LineCollection(corners_B42, colors=tree["color_list"], linewidths=width))
    end = max(distances_B4.max(), ROUNDING)
    axes.set(xlim=(-0.02 * end, 1.03 * end), ylim=(n, 0))  # joints of equal tasks, at 0, are seen
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=3, min_n_ticks=2)
    axes.xaxis.set_major_formatter("{x:g}")
    small = dict(labelsize=7 * place.zoom, length=2 * place.zoom, pad=1.5 * place.zoom)
    axes.tick_params(axis="x", width=0.5 * place.zoom, **small)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5 * place.zoom)
    axes.set_xlabel(
        "1 − mean similarity\n(coloured: one category)", fontsize=7 * place.zoom, labelpad=1.5 * place.zoom
    )


def _branch_colours(linkage: np.ndarray, kinds: Sequence[tuple[str, str]], colour_of: dict) -> list[str]:
    """Of each leaf, then of each row of the linkage: a category's where it covers no other, else MIXED."""
    covered = [{category} for category, _ in kinds]
    for left, right in linkage[:, :2].astype(int):
        covered.append(covered[left] | covered[right])
    return [to_hex(colour_of[next(iter(own)), ""] if len(own) == 1 else MIXED) for own in covered]
