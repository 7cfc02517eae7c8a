"""Agreement of task vectors with labels of tasks: nearest-neighbour accuracy, silhouette, permutation test.

    distance_NN = cosine_distances(mean_centred(vectors_ND))
    result = agreement(distance_NN, ["nli", "nli", "qa", None, ...], k=3)
    result.accuracy, result.chance, result.p, result.silhouette

N tasks, D dimensions of a vector, K neighbours, P permutations of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routing_moe.analysis.permutations import permutation_test

ROUNDING = 1e-9  # relative to the largest distance: smaller differences are rounding errors
FLOAT32 = 1e-6  # relative to the longest vector: shorter ones are zero up to the float32 precision of files
AT_ONCE = 4_000_000  # pairs of neighbours whose labels are compared at once; bounds the memory

# ---------------------------------------------------------------------------- distances


def mean_centred(vectors_ND: np.ndarray) -> np.ndarray:
    """Returns the vectors (N, D) minus their mean, in float64.

    A vector that equals the mean up to float32 precision becomes exactly 0, because its direction would
    consist of rounding errors.
    """
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    longest = np.linalg.norm(vectors_ND, axis=1).max()
    centred_ND[np.linalg.norm(centred_ND, axis=1) <= FLOAT32 * longest] = 0.0
    return centred_ND


def cosine_distances(vectors_ND: np.ndarray) -> np.ndarray:
    """Returns pairwise 1 - cosine (N, N), from 0 to 2; a zero vector has distance 1 to all others."""
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    units_ND = np.divide(vectors_ND, lengths_N1, out=np.zeros_like(vectors_ND), where=lengths_N1 > 0)
    distance_NN = 1.0 - np.clip(units_ND @ units_ND.T, -1.0, 1.0)
    np.fill_diagonal(distance_NN, 0.0)
    return distance_NN


# ---------------------------------------------------------------------------- nearest neighbours


def nearest(distance_NN: np.ndarray, k: int) -> np.ndarray:
    """Indices (N, K) of the k < N nearest other tasks of each task, nearest first; ties: the lower index."""
    ranked_NN = _without_rounding_errors(distance_NN)
    np.fill_diagonal(ranked_NN, np.inf)
    return np.argsort(ranked_NN, axis=1, kind="stable")[:, :k]


def all_equidistant(distance_NN: np.ndarray) -> bool:
    """Returns whether all pairs of tasks have the same distance, so that no task has a nearest neighbour."""
    distances = _without_rounding_errors(distance_NN)[~np.eye(len(distance_NN), dtype=bool)]
    return bool((distances == distances[0]).all())


def _without_rounding_errors(distance_NN: np.ndarray) -> np.ndarray:
    """Returns a copy in which distances that differ only by rounding errors are equal."""
    step = ROUNDING * distance_NN.max()
    return np.round(distance_NN / step) if step > 0 else distance_NN.copy()


def majority(labels_XK: np.ndarray) -> np.ndarray:
    """Returns the most frequent of k labels that are ordered by distance: (..., K) to (...).

    Ties go to the label of the nearest neighbour.
    """
    votes_XK = (labels_XK[..., :, None] == labels_XK[..., None, :]).sum(axis=-1, dtype=np.int32)
    winner_X1 = votes_XK.argmax(axis=-1)[..., None]  # argmax returns the first maximum: the nearest
    return np.take_along_axis(labels_XK, winner_X1, axis=-1)[..., 0]


def neighbour_test(
    labels: Sequence[str], nearest_NK: np.ndarray, permutations: int, seed: int = 0
) -> tuple[float, float, float]:
    """Returns (accuracy, chance, p) of the nearest neighbours' majority label, by permuting the labels.

    accuracy: leave-one-out, 0 to 1. Tasks whose label occurs only once are neighbours, but are not scored:
    none of their neighbours can have it. chance: the mean accuracy of permuted labels. All are NaN if no task
    is scored.
    """
    label_ids_N = _label_ids(labels)
    is_scored = np.bincount(label_ids_N) > 1  # of each label
    scored = _number_scored(label_ids_N)
    if not scored:
        return np.nan, np.nan, np.nan

    def accuracies(orders_PN: np.ndarray) -> np.ndarray:
        label_ids_PN = label_ids_N[orders_PN]
        is_correct_PN = majority(label_ids_PN[:, nearest_NK]) == label_ids_PN
        return (is_correct_PN & is_scored[label_ids_PN]).sum(axis=1) / scored

    at_once = max(1, AT_ONCE // (nearest_NK.size * nearest_NK.shape[1]))
    test = permutation_test(accuracies, len(labels), permutations, seed, at_once)
    return float(test.observed), float(test.chance), float(test.p)


def _label_ids(labels: Sequence[str]) -> np.ndarray:
    """Labels as integers (N,), in int16 for speed."""
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int16)


def _number_scored(label_ids_N: np.ndarray) -> int:
    """Number of tasks whose label occurs at least twice."""
    frequency = np.bincount(label_ids_N)
    return int(frequency[frequency > 1].sum())


# ---------------------------------------------------------------------------- silhouette, and all results


def silhouette(distance_NN: np.ndarray, labels: Sequence[str]) -> float:
    """Returns the mean silhouette of the tasks, -1 to 1 (Rousseeuw 1987).

    A task's silhouette is (b - a) / max(a, b), where a is its mean distance to tasks with the same label, and
    b its smallest mean distance to the tasks of another label. Tasks whose label occurs only once are left
    out. NaN with fewer than two labels.
    """
    label_ids_N = _label_ids(labels)
    rows = np.flatnonzero(np.bincount(label_ids_N)[label_ids_N] > 1)
    if len(np.unique(label_ids_N[rows])) < 2:
        return np.nan
    from sklearn.metrics import silhouette_score  # imported late: it takes a second

    return float(silhouette_score(distance_NN[np.ix_(rows, rows)], label_ids_N[rows], metric="precomputed"))


@dataclass(frozen=True)
class Agreement:
    """Agreement of vectors with labels. NaN where it is not defined: see `agreement`."""

    tasks: int  # tasks with a label
    labels: int  # different labels
    scored: int  # tasks whose label occurs at least twice
    silhouette: float = np.nan
    accuracy: float = np.nan
    chance: float = np.nan
    p: float = np.nan


def agreement(
    distance_NN: np.ndarray,
    labels: Sequence[str | None],
    k: int = 3,
    permutations: int = 10_000,
    seed: int = 0,
) -> Agreement:
    """Silhouette, k-nearest-neighbour accuracy and permutation test; tasks without a label are left out.

    All are NaN if there is only one label, if no label occurs twice, if there are at most k tasks, or if all
    distances are equal. The order of the tasks only matters for ties, and for the random permutations.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    labels, distance_NN = [labels[row] for row in rows], distance_NN[np.ix_(rows, rows)]
    counts = dict(tasks=len(rows), labels=len(set(labels)), scored=_number_scored(_label_ids(labels)))
    if counts["labels"] < 2 or not counts["scored"] or len(rows) <= k or all_equidistant(distance_NN):
        return Agreement(**counts)
    accuracy, chance, p = neighbour_test(labels, nearest(distance_NN, k), permutations, seed)
    return Agreement(
        **counts, silhouette=silhouette(distance_NN, labels), accuracy=accuracy, chance=chance, p=p
    )
