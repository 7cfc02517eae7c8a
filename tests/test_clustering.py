"""Clusters of tasks: average linkage by hand, optimal leaf order, no dependence on the order of tasks."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list

from dataloader.ontology import Ontology
from routing_moe.analysis.route_metrics import cluster_tasks
from routing_moe.model.route_clusters import average_linkage

ONTOLOGY = Ontology.load()
# Pairs (0, 2) at 0.1 and (1, 3) at 0.2; between the pairs 0.5, 0.6, 0.7, 0.8: on average 0.65.
DISTANCE_NN = np.array([[0, 0.5, 0.1, 0.6], [0.5, 0, 0.7, 0.2], [0.1, 0.7, 0, 0.8], [0.6, 0.2, 0.8, 0]])


def order_of(similarity_NN, tasks, ontology) -> list[int]:
    return leaves_list(cluster_tasks(similarity_NN, tasks, ontology)).tolist()


def test_average_linkage_equals_the_one_computed_by_hand():
    linkage = average_linkage(1 - DISTANCE_NN)
    assert linkage[:, 2:] == pytest.approx(np.array([[0.1, 2], [0.2, 2], [0.65, 4]]))


def test_the_order_puts_the_nearest_ends_of_two_clusters_side_by_side():
    tasks = ONTOLOGY.tasks[:4]
    assert order_of(1 - DISTANCE_NN, tasks, ONTOLOGY) in ([2, 0, 1, 3], [3, 1, 0, 2])


def test_the_order_of_the_given_tasks_does_not_matter_even_with_ties():
    tasks = [*ONTOLOGY.tasks[:11], "unknown"]
    groups = np.arange(12) % 3
    similarity_NN = np.where(groups[:, None] == groups, 1.0, 0.25)  # nearly everything ties
    expected = [tasks[row] for row in order_of(similarity_NN, tasks, ONTOLOGY)]
    draw = np.random.default_rng(0)
    for _ in range(5):
        rows = draw.permutation(12)
        shuffled = [tasks[row] for row in rows]
        given_NN = similarity_NN[np.ix_(rows, rows)]
        order = order_of(given_NN, shuffled, ONTOLOGY)
        assert [shuffled[row] for row in order] == expected
