"""Clusters of task vectors: average linkage on cosines, numbers of clusters, the nearest cluster.

Vectors are centred by the mean of the clustered tasks' vectors, because what all tasks have in common hides
their differences. No torch, no files. N clustered tasks, D dimensions, K clusters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Clusters(NamedTuple):
    """labels_N: a cluster 0 to K-1 of each task. silhouette: the mean over the tasks, -1 to 1."""

    labels_N: np.ndarray
    silhouette: float


class NearestCluster(NamedTuple):
    """label: of the cluster. cosine: of the task's centred vector with the cluster's centroid, -1 to 1."""

    label: int
    cosine: float


def centred_directions(vectors_ND: np.ndarray, mean_D: np.ndarray) -> np.ndarray:
    """Returns the vectors minus the mean, scaled to length 1 (N, D) float64; a zero vector stays zero."""
    centred_ND = vectors_ND.astype(np.float64) - mean_D
    lengths_N1 = np.linalg.norm(centred_ND, axis=1, keepdims=True)
    return np.divide(centred_ND, lengths_N1, out=np.zeros_like(centred_ND), where=lengths_N1 > 0)


def centred_cosine(vectors_ND: np.ndarray) -> np.ndarray:
    """Returns the cosines (N, N) of the vectors minus their mean; 0 for a vector of length 0."""
    directions_ND = centred_directions(vectors_ND, vectors_ND.mean(axis=0, dtype=np.float64))
    return np.clip(directions_ND @ directions_ND.T, -1.0, 1.0)


def best_clusters(cosine_NN: np.ndarray, counts: Sequence[int]) -> Clusters:
    """Returns the clusters (average linkage) of the largest mean silhouette over the numbers in `counts`.

    They are numbered by their first task. Raises ValueError without a number from 2 to N.
    """
    from scipy.cluster.hierarchy import cut_tree
    from sklearn.metrics import silhouette_score  # these take a second

    if not counts or not 2 <= min(counts) <= max(counts) <= len(cosine_NN):
        raise ValueError(f"{list(counts)} clusters of {len(cosine_NN)} tasks")
    best, distance_NN = None, distances(cosine_NN)
    for labels_N in map(_renumbered, cut_tree(average_linkage(cosine_NN), n_clusters=list(counts)).T):
        silhouette = 0.0  # of N clusters, which sklearn refuses
        if labels_N.max() + 1 < len(labels_N):
            silhouette = float(silhouette_score(distance_NN, labels_N, metric="precomputed"))
        if best is None or silhouette > best.silhouette:
            best = Clusters(labels_N, silhouette)
    return best


def nearest_cluster(vector_D: np.ndarray, vectors_ND: np.ndarray, labels_N: np.ndarray) -> NearestCluster:
    """Returns the cluster whose centroid has the largest cosine with the vector of a new task.

    A centroid is the mean of the centred, normalised vectors of its tasks; all are centred by the same mean.
    """
    mean_D = vectors_ND.mean(axis=0, dtype=np.float64)
    directions_ND = centred_directions(vectors_ND, mean_D)
    labels_K = np.unique(labels_N)
    centroids_KD = np.stack([directions_ND[labels_N == label].mean(axis=0) for label in labels_K])
    cosines_K = centred_directions(centroids_KD, 0.0) @ centred_directions(vector_D[None], mean_D)[0]
    best = int(cosines_K.argmax())
    return NearestCluster(int(labels_K[best]), float(cosines_K[best]))


def groups_of_equal_rows(rows_NX: np.ndarray) -> np.ndarray:
    """Returns a group 0, 1, ... of each row (N,), equal for equal rows, numbered by the first row of each."""
    return _renumbered(np.unique(rows_NX, axis=0, return_inverse=True)[1].reshape(-1))


def distances(similarity_NN: np.ndarray) -> np.ndarray:
    """Returns 1 - similarity (N, N): symmetric, 0 on the diagonal, and never negative by rounding."""
    distance_NN = np.maximum(0.0, 1 - (similarity_NN + similarity_NN.T) / 2)
    np.fill_diagonal(distance_NN, 0.0)
    return distance_NN


def average_linkage(similarity_NN: np.ndarray, optimal_ordering: bool = False) -> np.ndarray:
    """Returns the tree of average linkage on 1 - similarity, as scipy's (N - 1, 4) array."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return linkage(squareform(distances(similarity_NN)), "average", optimal_ordering=optimal_ordering)


def _renumbered(labels_N: np.ndarray) -> np.ndarray:
    """Returns the labels numbered 0, 1, ... in the order in which they appear."""
    number = {label: i for i, label in enumerate(dict.fromkeys(labels_N.tolist()))}
    return np.array([number[label] for label in labels_N.tolist()], dtype=np.int64)


def single_experts(routes_NLE: np.ndarray) -> np.ndarray | None:
    """Returns the experts (N,) of routes that each have the same expert in all layers, else None."""
    experts_NL = routes_NLE.argmax(axis=2)
    are_single = (routes_NLE.max(axis=2) == 1).all() and (experts_NL == experts_NL[:, :1]).all()
    return experts_NL[:, 0] if are_single else None
