"""Do tasks with similar vectors have the same label? Nearest neighbours, silhouette, a permutation test.

    distance_NN = cosine_distances(centred(vectors_ND))
    found = agreement(distance_NN, ["nli", "nli", "qa", None, ...], k=3)
    found.accuracy, found.chance, found.p, found.silhouette

N tasks, D width of a vector, K neighbours, P shufflings of the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import silhouette_score

ROUNDING = 1e-9  # share of the largest distance below which a difference is one of rounding
FLOAT32 = 1e-6  # share of the longest vector that the files, which hold float32, cannot tell from nothing
AT_ONCE = 4_000_000  # pairs of neighbours whose labels are compared at once; bounds the memory

# ---------------------------------------------------------------------------- how far apart tasks are


def centred(vectors_ND: np.ndarray) -> np.ndarray:
    """The vectors (N, D) as float64 without what they have in common: their mean is taken off.

    One that is as good as the mean becomes exactly 0, not a direction made of rounding errors.
    """
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    without_ND = vectors_ND - vectors_ND.mean(axis=0)
    longest = np.linalg.norm(vectors_ND, axis=1).max()
    without_ND[np.linalg.norm(without_ND, axis=1) <= FLOAT32 * longest] = 0.0
    return without_ND


def cosine_distances(vectors_ND: np.ndarray) -> np.ndarray:
    """1 - cosine of each two vectors (N, N): 0 to 2, and 1 to all others for a vector that is zero."""
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    units_ND = np.divide(vectors_ND, lengths_N1, out=np.zeros_like(vectors_ND), where=lengths_N1 > 0)
    distance_NN = 1.0 - np.clip(units_ND @ units_ND.T, -1.0, 1.0)
    np.fill_diagonal(distance_NN, 0.0)
    return distance_NN


def euclidean_distances(vectors_ND: np.ndarray) -> np.ndarray:
    """Length of the difference of each two vectors (N, N)."""
    return squareform(pdist(np.asarray(vectors_ND, dtype=np.float64)))


DISTANCES = {"cosine": cosine_distances, "euclidean": euclidean_distances}


def similarity(distance_NN: np.ndarray, measure: str) -> np.ndarray:
    """The cosine itself, or minus the Euclidean distance: the larger, the nearer."""
    return 1.0 - distance_NN if measure == "cosine" else -distance_NN


# ---------------------------------------------------------------------------- nearest neighbours


def nearest(distance_NN: np.ndarray, k: int) -> np.ndarray:
    """Rows (N, K) of the k tasks nearest to each, itself left out; of equally near ones the first rows.

    Raises ValueError unless k is from 1 to N - 1.
    """
    if not 1 <= k < len(distance_NN):
        raise ValueError(f"k is {k}; {len(distance_NN)} tasks have 1 to {len(distance_NN) - 1} neighbours")
    ranked_NN = _without_rounding(distance_NN)
    np.fill_diagonal(ranked_NN, np.inf)
    return np.argsort(ranked_NN, axis=1, kind="stable")[:, :k]


def all_alike(distance_NN: np.ndarray) -> bool:
    """Whether every two tasks are equally far apart, so that none has a nearest neighbour."""
    apart = _without_rounding(distance_NN)[~np.eye(len(distance_NN), dtype=bool)]
    return bool((apart == apart[0]).all())


def _without_rounding(distance_NN: np.ndarray) -> np.ndarray:
    """A copy in which distances that differ by rounding only, as those to identical vectors, are equal."""
    step = ROUNDING * distance_NN.max()
    return np.round(distance_NN / step) if step > 0 else distance_NN.copy()


def majority(labels_XK: np.ndarray) -> np.ndarray:
    """The most frequent of k labels, nearest first, for any number X of such rows: (..., K) to (...).

    Of several equally frequent ones that of the nearest neighbour.
    """
    votes_XK = (labels_XK[..., :, None] == labels_XK[..., None, :]).sum(axis=-1, dtype=np.int32)
    winner_X1 = votes_XK.argmax(axis=-1)[..., None]  # the first of the largest, hence the nearest
    return np.take_along_axis(labels_XK, winner_X1, axis=-1)[..., 0]


def _count_right(codes_PN: np.ndarray, nearest_NK: np.ndarray) -> np.ndarray:
    """How many tasks have the majority label of their neighbours, under P labellings (P, N) at once: (P,).

    Only tasks count whose label occurs twice: no neighbour of another could have its label.
    """
    size = np.bincount(codes_PN[0])  # the same in every shuffling
    is_right_PN = majority(codes_PN[:, nearest_NK]) == codes_PN
    return (is_right_PN & (size[codes_PN] > 1)).sum(axis=1)


def shufflings(codes_N: np.ndarray, permutations: int, at_once: int, seed: int) -> Iterator[np.ndarray]:
    """The labels shuffled among the tasks, `permutations` times, in pieces (at most `at_once`, N)."""
    generator = np.random.default_rng(seed)
    for start in range(0, permutations, at_once):
        count = min(at_once, permutations - start)
        yield generator.permuted(np.tile(codes_N, (count, 1)), axis=1)


def neighbour_accuracy(labels: Sequence[str], nearest_NK: np.ndarray) -> float:
    """Leave-one-out accuracy of the nearest neighbours' majority label, 0 to 1.

    Over the tasks whose label occurs twice; the others are neighbours only. NaN if there are none.
    """
    codes_N = _codes(labels)
    scored = _scored(codes_N)
    return float(_count_right(codes_N[None], nearest_NK)[0] / scored) if scored else np.nan


def permutation_test(
    labels: Sequence[str], nearest_NK: np.ndarray, permutations: int, seed: int = 0
) -> tuple[float, float]:
    """(chance, p) of `neighbour_accuracy`, by shuffling the labels among the tasks.

    chance: the mean accuracy of the shuffled labels. p: (1 + number of shufflings that do as well or better)
    / (1 + permutations), as in Phipson & Smyth (2010); it is never 0. Raises ValueError if no label occurs
    twice or `permutations` is less than 1.
    """
    codes_N = _codes(labels)
    scored = _scored(codes_N)
    if not scored or permutations < 1:
        raise ValueError(f"{scored} tasks whose label occurs twice, {permutations} permutations")
    observed = _count_right(codes_N[None], nearest_NK)[0]
    at_once = max(1, AT_ONCE // (nearest_NK.size * nearest_NK.shape[1]))
    counts = [_count_right(codes, nearest_NK) for codes in shufflings(codes_N, permutations, at_once, seed)]
    counts_P = np.concatenate(counts)
    p = (1 + np.count_nonzero(counts_P >= observed)) / (1 + permutations)
    return float(counts_P.mean() / scored), float(p)


def _codes(labels: Sequence[str]) -> np.ndarray:
    """Numbers in place of labels (N,); small ones, for speed."""
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int16)


def _scored(codes_N: np.ndarray) -> int:
    size = np.bincount(codes_N)
    return int(size[size > 1].sum())


# ---------------------------------------------------------------------------- silhouette, and all of it


def silhouette(distance_NN: np.ndarray, labels: Sequence[str]) -> float:
    """Mean over tasks of (b - a) / max(a, b), -1 to 1: a is the mean distance to tasks of the same label, b
    the least mean distance to those of another (Rousseeuw 1987).

    Over tasks whose label occurs twice, without the others. NaN with fewer than two such labels.
    """
    codes_N = _codes(labels)
    kept = np.bincount(codes_N)[codes_N] > 1
    if len(np.unique(codes_N[kept])) < 2:
        return np.nan
    return float(silhouette_score(distance_NN[np.ix_(kept, kept)], codes_N[kept], metric="precomputed"))


@dataclass(frozen=True)
class Agreement:
    """How far neighbours share labels. NaN where that cannot be said: see `agreement`."""

    tasks: int  # that have a label
    labels: int  # different ones
    scored: int  # tasks whose label another one has, too
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
    """Silhouette and k-nearest-neighbour accuracy of the tasks that have a label, among themselves.

    NaN, all of it, if they have a single label or none that occurs twice, if they are k or fewer, or if all
    are equally far apart. The order of the tasks does not matter, but for those that are equally near and
    for which shufflings are drawn.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    labels, distance_NN = [labels[row] for row in rows], distance_NN[np.ix_(rows, rows)]
    codes_N = _codes(labels)
    counts = dict(tasks=len(rows), labels=len(set(labels)), scored=_scored(codes_N))
    if counts["labels"] < 2 or not counts["scored"] or len(rows) <= k or all_alike(distance_NN):
        return Agreement(**counts)
    nearest_NK = nearest(distance_NN, k)
    chance, p = permutation_test(labels, nearest_NK, permutations, seed)
    return Agreement(
        **counts,
        silhouette=silhouette(distance_NN, labels),
        accuracy=neighbour_accuracy(labels, nearest_NK),
        chance=chance,
        p=p,
    )
