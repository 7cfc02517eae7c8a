"""Clusters of task vectors: average linkage on cosines, the number of clusters, the nearest cluster.

    labels_N = cluster_labels(centred_cosine(vectors_ND), best_count(centred_cosine(vectors_ND)))
    label, cosine = nearest_cluster(vector_D, vectors_ND, labels_N)      # of a task that was not clustered

Vectors are centred by the mean of the clustered tasks' vectors, because what all tasks have in common (for
example the gradient of a model that still learns the language) hides their differences. Pure functions
without torch or files. N clustered tasks, D dimensions, K clusters.
"""

from typing import NamedTuple

import numpy as np

MOST_CLUSTERS = 64  # the largest K that `best_count` tries


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
    directions_ND = centred_directions(vectors_ND, _mean(vectors_ND))
    return np.clip(directions_ND @ directions_ND.T, -1.0, 1.0)


def cluster_labels(cosine_NN: np.ndarray, count: int) -> np.ndarray:
    """Returns a cluster 0 to K-1 of each task (N,): average linkage on 1 - cosine, cut into K = `count`.

    Clusters are numbered by their first task. Raises ValueError unless 1 <= count <= N.
    """
    if not 1 <= count <= len(cosine_NN):
        raise ValueError(f"{count} clusters of {len(cosine_NN)} tasks")
    return _cut(cosine_NN, [count])[0]


def balanced_groups(similarity_NN: np.ndarray, count: int, starts: int = 50) -> np.ndarray:
    """Returns a group 0 to `count` - 1 of each row (N,), in groups of equal size (different by at most 1).

    Their total similarity is the largest found by swaps of two rows, each the best one, from random starts.
    Deterministic. Raises ValueError unless 1 <= count <= N.
    """
    N = len(similarity_NN)
    if not 1 <= count <= N:
        raise ValueError(f"{count} groups of {N} rows")
    similarity_NN = (similarity_NN + similarity_NN.T) / 2
    np.fill_diagonal(similarity_NN, 0)
    draw, best, most = np.random.default_rng(0), None, -np.inf
    for _ in range(starts):
        group_N = _swapped(similarity_NN, draw.permutation(np.arange(N) % count))
        total = similarity_NN[group_N[:, None] == group_N].sum()
        if total > most + 1e-9:
            best, most = group_N, total
    return best


def _swapped(similarity_NN: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Returns the groups after swaps of two rows, until none increases the similarity within groups."""
    while True:
        to_group_NG = similarity_NN @ np.eye(group_N.max() + 1)[group_N]
        gain_NN = to_group_NG[:, group_N] - to_group_NG[np.arange(len(group_N)), group_N][:, None]
        gain_NN = np.where(group_N[:, None] == group_N, 0, gain_NN + gain_NN.T - 2 * similarity_NN)
        one, other = np.unravel_index(gain_NN.argmax(), gain_NN.shape)
        if gain_NN[one, other] <= 1e-9:
            return group_N
        group_N[[one, other]] = group_N[[other, one]]


def best_count(cosine_NN: np.ndarray, most: int = MOST_CLUSTERS) -> tuple[int, float]:
    """Returns (K, silhouette) of the K from 2 to min(N - 1, most) with the largest mean silhouette.

    Of several, the smallest K. Silhouette: Rousseeuw 1987, with the distance 1 - cosine. Raises ValueError
    for fewer than 3 tasks.
    """
    from sklearn.metrics import silhouette_score

    N = len(cosine_NN)
    if N < 3:
        raise ValueError(f"the silhouette needs at least 3 tasks, not {N}")
    counts, distance_NN = list(range(2, min(N - 1, most) + 1)), distances(cosine_NN)
    scores = [
        silhouette_score(distance_NN, labels_N, metric="precomputed") for labels_N in _cut(cosine_NN, counts)
    ]
    best = int(np.argmax(scores))
    return counts[best], float(scores[best])


def nearest_cluster(vector_D: np.ndarray, vectors_ND: np.ndarray, labels_N: np.ndarray) -> NearestCluster:
    """Returns the cluster whose centroid has the largest cosine with the vector of a new task.

    A centroid is the mean of the centred, normalised vectors of the cluster's tasks; the new vector is
    centred by the same mean (of vectors_ND). Of several, the smallest label.
    """
    mean_D = _mean(vectors_ND)
    directions_ND = centred_directions(vectors_ND, mean_D)
    labels_K = np.unique(labels_N)
    centroids_KD = np.stack([directions_ND[labels_N == label].mean(axis=0) for label in labels_K])
    cosines_K = centred_directions(centroids_KD, 0.0) @ centred_directions(vector_D[None], mean_D)[0]
    best = int(cosines_K.argmax())
    return NearestCluster(int(labels_K[best]), float(cosines_K[best]))


def groups_of_equal_rows(rows_NX: np.ndarray) -> np.ndarray:
    """Returns a group 0, 1, ... of each row (N,), equal for equal rows, numbered by the first row of each."""
    return _renumbered(np.unique(rows_NX, axis=0, return_inverse=True)[1].reshape(-1))


def _mean(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND.astype(np.float64).mean(axis=0)


def distances(similarity_NN: np.ndarray) -> np.ndarray:
    """Returns 1 - similarity (N, N): symmetric, 0 on the diagonal, and never negative by rounding."""
    distance_NN = np.maximum(0.0, 1 - (similarity_NN + similarity_NN.T) / 2)
    np.fill_diagonal(distance_NN, 0.0)
    return distance_NN


def average_linkage(similarity_NN: np.ndarray, optimal_ordering: bool = False) -> np.ndarray:
    """Returns the tree of average linkage on 1 - similarity, as scipy's (N - 1, 4) array.

    optimal_ordering: order the leaves so that the sum of distances between neighbours is smallest (Bar-Joseph
    et al., 2001). Raises ValueError for fewer than two tasks and for values that are not finite.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return linkage(squareform(distances(similarity_NN)), "average", optimal_ordering=optimal_ordering)


def _cut(cosine_NN: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    from scipy.cluster.hierarchy import cut_tree

    if len(cosine_NN) == 1:
        return [np.zeros(1, dtype=np.int64) for _ in counts]
    return [_renumbered(column) for column in cut_tree(average_linkage(cosine_NN), n_clusters=counts).T]


def _renumbered(labels_N: np.ndarray) -> np.ndarray:
    """Returns the labels numbered 0, 1, ... in the order in which they appear."""
    number = {label: i for i, label in enumerate(dict.fromkeys(labels_N.tolist()))}
    return np.array([number[label] for label in labels_N.tolist()], dtype=np.int64)
