"""Clusters of tasks: average linkage of their similarities, and their leaf order.

    order = cluster_order(overlap(routes.values_NLE), routes.tasks, ontology)
    [routes.tasks[row] for row in order]

In this order, similar tasks are adjacent; the clustermap and the report page use it. N tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import leaves_list

from dataloader.ontology import Ontology
from routing_moe.model.route_clusters import average_linkage


def cluster_order(similarity_NN: np.ndarray, tasks: Sequence[str], ontology: Ontology) -> list[int]:
    """Returns rows in the leaf order of `cluster_tasks`; [0] for one task."""
    if len(tasks) < 2:
        return list(range(len(tasks)))
    return leaves_list(cluster_tasks(similarity_NN, tasks, ontology)).tolist()


def cluster_tasks(similarity_NN: np.ndarray, tasks: Sequence[str], ontology: Ontology) -> np.ndarray:
    """Returns `average_linkage` of the tasks, which does not depend on the order in which they are given.

    The order of the leaves is optimal; ties are broken by the ontology's order. Leaf n is row n of
    `similarity_NN`. Raises ValueError for fewer than two tasks and for values that are not finite.
    """
    row_of = {task: row for row, task in enumerate(tasks)}
    rows = np.array([row_of[task] for task in ontology.order(tasks)])
    tree = average_linkage(similarity_NN[np.ix_(rows, rows)], optimal_ordering=True)
    is_leaf = tree[:, :2] < len(rows)
    tree[:, :2][is_leaf] = rows[tree[:, :2][is_leaf].astype(int)]
    return tree
