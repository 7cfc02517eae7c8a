"""Codewords as routes: more clusters of tasks than experts in a layer, any two sharing few experts.

    words_KL = codewords(count=16, length=4, symbols=4)      # minimum_distance(words_KL) == 3

Each of K clusters of tasks gets a word of L symbols, its expert in each of L layers. Words of a large
minimum Hamming distance differ in many layers, as in error-correcting output codes (Dietterich and Bakiri
1995, arXiv cs/9501101), where each class gets a codeword. So a few experts per layer compose into the routes
of many clusters (compositional routing). Codes are built greedily, as the lexicodes of Conway and Sloane
1986. Deterministic, pure functions on numpy arrays.
"""

from functools import lru_cache

import numpy as np

MOST_WORDS = 2**18  # of longer codes, words are chosen from a random sample of about this size


@lru_cache(maxsize=8)
def codewords(count: int, length: int, symbols: int) -> np.ndarray:
    """Returns K = `count` different words (K, L) int64 of symbols 0 to `symbols` - 1, read-only.

    The minimum Hamming distance is the largest that a greedy choice reaches. For each distance, the word
    whose symbols were used least in their layers comes next; if that finds too few words, they come in
    lexicographic order, unless that leaves a symbol unused in a layer. (Over 2, 4 or 16 symbols, all words
    in lexicographic order make a linear code.) Raises ValueError if there are fewer than `count` words or 2
    symbols.
    """
    if symbols < 2:
        raise ValueError(f"words need at least 2 symbols, not {symbols}")
    if symbols**length < count:
        raise ValueError(f"there are only {symbols}^{length} = {symbols**length} routes")
    candidates_WL = _candidates(count, length, symbols)
    most = length
    if count > symbols:  # the bound of Plotkin 1960 on the mean distance of two words
        most = length * count * (symbols - 1) // (symbols * (count - 1))
    for distance in range(most, 0, -1):
        for is_balanced in (True, False):
            chosen_K = _greedy(candidates_WL, count, distance, symbols, is_balanced)
            words_KL = candidates_WL[chosen_K].astype(np.int64)
            used = min(len(set(column)) for column in words_KL.T.tolist())
            if len(words_KL) == count and used == min(count, symbols):
                words_KL.flags.writeable = False
                return words_KL
    raise AssertionError("distance 1 allows all words, and the least used symbols include all symbols")


def minimum_distance(words_KL: np.ndarray) -> int:
    """Returns the smallest number of positions in which two words differ; L for a single word."""
    K, L = words_KL.shape
    distances_KK = (words_KL[:, None] != words_KL[None]).sum(axis=-1)
    return int(distances_KK[np.triu_indices(K, 1)].min(initial=L))


def _candidates(count: int, length: int, symbols: int) -> np.ndarray:
    """Returns all words, or a random sample of them, in lexicographic order (W, L).

    A sample has the words of one repeated symbol: with them, words of the least used symbols use all symbols.
    """
    most, kind = max(MOST_WORDS, 4 * count), np.min_scalar_type(symbols)
    if symbols**length <= most:
        return np.indices((symbols,) * length, dtype=kind).reshape(length, -1).T
    drawn_WL = np.random.default_rng(0).integers(symbols, size=(most, length), dtype=kind)
    repeated_EL = np.repeat(np.arange(symbols, dtype=kind)[:, None], length, axis=1)
    return np.unique(np.concatenate([drawn_WL, repeated_EL]), axis=0)


def _greedy(words_WL: np.ndarray, count: int, distance: int, symbols: int, is_balanced: bool) -> list[int]:
    """Returns the rows of at most `count` words, each at least `distance` from those chosen before.

    is_balanced: of the words allowed, that with the least used symbols comes next, otherwise the first.
    """
    layers = np.arange(words_WL.shape[1])
    uses_LE = np.zeros((len(layers), symbols), dtype=np.int64)
    chosen, rows, allowed_WL = [], np.arange(len(words_WL)), words_WL
    while len(rows) and len(chosen) < count:
        best = 0
        if is_balanced:
            best = sum(uses_LE[layer][allowed_WL[:, layer]] for layer in layers).argmin()
        chosen.append(int(rows[best]))
        word_L = allowed_WL[best]
        uses_LE[layers, word_L] += 1
        is_far = sum(allowed_WL[:, layer] != word_L[layer] for layer in layers) >= distance
        rows, allowed_WL = rows[is_far], allowed_WL[is_far]
    return chosen
