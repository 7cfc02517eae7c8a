"""The clustermap: similarities of tasks as a heat map in the order of a clustering, beside its tree.

    plot_clustered(overlap(routes.values_NLE), routes.tasks, Ontology.load(), "clusters.pdf",
                   HeatScale("overlap of routes", "Blues", 0.0, 1.0))

`analysis.clustering` gives order and tree, scipy draws the tree. A branch has a category's colour if all of
its tasks are of that category. seaborn's clustermap has neither such branches nor a legend of categories, and
sizes rows by the figure instead of by their names. N tasks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from scipy.cluster.hierarchy import dendrogram

from dataloader.ontology import Ontology
from routing_moe.analysis.clustering import cluster_tasks
from routing_moe.plots.heat_map import GAP, axes_at, draw_heat, draw_key, draw_strips, heat_map, name_rows
from routing_moe.plots.similarity import BETWEEN, map_size
from routing_moe.plots.style import HeatScale
from routing_moe.plots.task_categories import kind_colours

TREE_WIDTH = 1.1  # inches
MIXED = "0.35"  # a branch over several categories


def plot_clustered(
    similarity_NN: np.ndarray,
    tasks: Sequence[str],
    ontology: Ontology,
    path: str | os.PathLike,
    scale: HeatScale,
    title: str | None = None,
    values_NN: np.ndarray | None = None,
) -> None:
    """Writes the heat map and its tree, the same for any order of the tasks; PDF or PNG as `path` ends.

    values_NN: drawn instead of the similarities, in their order; NaN stays white.
    """
    linkage = cluster_tasks(similarity_NN, tasks, ontology)
    kinds, colour_of = [ontology.category(task) for task in tasks], kind_colours(ontology)
    side, font, zoom = map_size(len(tasks))
    box = (0.0, 0.0, side, side)
    with heat_map(path, title, zoom) as figure:
        tree = axes_at(figure, (side + 1.5 * GAP * zoom, 0.0, TREE_WIDTH * zoom, side))
        leaves = _draw_tree(tree, linkage, _branch_colours(linkage, kinds, colour_of), zoom)
        drawn_NN = similarity_NN if values_NN is None else values_NN
        draw_heat(figure, box, np.asarray(drawn_NN)[np.ix_(leaves, leaves)], scale)
        kinds_of_rows = [kinds[leaf] for leaf in leaves]
        strips = draw_strips(figure, box, kinds_of_rows, colour_of, zoom)
        name_rows(strips, [tasks[leaf] for leaf in leaves], font)
        draw_strips(figure, box, kinds_of_rows, colour_of, zoom, above=True)
        left = side + (GAP + TREE_WIDTH + BETWEEN) * zoom
        in_order = [ontology.category(task) for task in ontology.order(tasks)]
        draw_key(figure, left, -0.34 * zoom, scale, in_order, colour_of, zoom, room=side)


def _draw_tree(axes: Axes, linkage: np.ndarray, colours: Sequence[str], zoom: float) -> list[int]:
    """Draws the tree to the right of rows of height 10, as scipy has it, and returns its leaves downwards."""
    leaves = dendrogram(
        linkage, orientation="right", no_labels=True, link_color_func=colours.__getitem__, ax=axes
    )["leaves"]
    end = max(linkage[:, 2].max(), 1e-6)
    # Joints of identical tasks, at 0, stay visible; the first row is on top.
    axes.set(xlim=(-0.02 * end, 1.03 * end), ylim=(10 * len(leaves), 0), yticks=[])
    for branches in axes.collections:
        branches.set_linewidth(0.9 * zoom**0.5)
    axes.locator_params(axis="x", nbins=3, min_n_ticks=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="x", width=0.5 * zoom, labelsize=7 * zoom, length=2 * zoom, pad=1.5 * zoom)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5 * zoom)
    label = "1 − mean similarity\n(branch coloured: all\ntasks of one category)"
    axes.set_xlabel(label, fontsize=7 * zoom, labelpad=1.5 * zoom)
    return leaves


def _branch_colours(linkage: np.ndarray, kinds: Sequence[tuple[str, str]], colour_of: dict) -> list[str]:
    """Returns the colours of leaves, then of rows of the linkage: of their only category, else MIXED."""
    covered = [{category} for category, _ in kinds]
    for left, right in linkage[:, :2].astype(int):
        covered.append(covered[left] | covered[right])
    return [to_hex(colour_of[*categories, ""] if len(categories) == 1 else MIXED) for categories in covered]
