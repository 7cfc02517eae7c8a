"""Clusters of tasks: average linkage of their similarities, and their leaf order.

    order = cluster_order(overlap(routes.values_NLE), routes.tasks, ontology)
    [routes.tasks[row] for row in order]

In this order, similar tasks are adjacent; the clustermap and the report page use it. N tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from dataloader.ontology import Ontology

ROUNDING = 1e-6  # tolerance for asymmetry and for similarities above 1


def cluster_order(similarity_NN: np.ndarray, tasks: Sequence[str], ontology: Ontology) -> list[int]:
    """Returns rows in the leaf order of `cluster_tasks`; [0] for one task."""
    if len(tasks) < 2:
        return list(range(len(tasks)))
    return leaves_list(cluster_tasks(similarity_NN, tasks, ontology)).tolist()


def cluster_tasks(similarity_NN: np.ndarray, tasks: Sequence[str], ontology: Ontology) -> np.ndarray:
    """Returns `average_linkage` of the tasks, which does not depend on the order in which they are given.

    Ties are broken by the ontology's order. Leaf n is row n of `similarity_NN`. Raises ValueError as
    `average_linkage`, and if the shape does not fit the tasks or a task is listed twice.
    """
    similarity_NN = np.asarray(similarity_NN)
    if similarity_NN.shape != (len(tasks), len(tasks)):
        raise ValueError(f"similarities have shape {similarity_NN.shape} for {len(tasks)} tasks")
    row_of = {task: row for row, task in enumerate(tasks)}
    if len(row_of) != len(tasks):
        raise ValueError("a task is listed twice")
    rows = np.array([row_of[task] for task in ontology.order(tasks)])
    tree = average_linkage(similarity_NN[np.ix_(rows, rows)])
    is_leaf = tree[:, :2] < len(rows)
    tree[:, :2][is_leaf] = rows[tree[:, :2][is_leaf].astype(int)]
    return tree


def average_linkage(similarity_NN: np.ndarray) -> np.ndarray:
    """The tree of average linkage on 1 - similarity, as scipy's (N - 1, 4) array with optimal leaf order.

    That order minimises the sum of distances between neighbours (Bar-Joseph et al., 2001). Raises ValueError
    for fewer than two tasks, and for values that are not finite, not symmetric or above 1.
    """
    similarity_NN = np.asarray(similarity_NN, dtype=np.float64)
    shape = similarity_NN.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(f"similarities have shape {shape}, expected (tasks, tasks) of two tasks or more")
    if not np.isfinite(similarity_NN).all():
        raise ValueError("similarities hold values that are not finite")
    if not np.allclose(similarity_NN, similarity_NN.T, rtol=0, atol=ROUNDING):
        raise ValueError("similarities are not symmetric")
    if similarity_NN.max() > 1 + ROUNDING:
        raise ValueError(f"a similarity is {similarity_NN.max():g}, above 1")
    distance_NN = np.maximum(0.0, 1 - (similarity_NN + similarity_NN.T) / 2)
    np.fill_diagonal(distance_NN, 0.0)
    return linkage(squareform(distance_NN), method="average", optimal_ordering=True)
