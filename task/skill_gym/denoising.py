"""BART's noise (Lewis et al. 2020, section 2.2): span infilling and sentence permutation, on token ids.

Pure functions of (rng, ids): the target is always the document as it was.
"""

import math
import random
from collections.abc import Sequence


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson draw (Knuth's product of uniforms)."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def infill(
    rng: random.Random, ids: Sequence[int], mask_id: int, ratio: float = 0.3, mean_span: float = 2.0
) -> list[int]:
    """`ids` with about `ratio` of the tokens gone, in spans that each leave one mask behind.

    Span lengths are Poisson draws, at least 1. The number of tokens hidden is `ratio * len(ids)`,
    rounded, and spans never touch each other, so that every mask stands for one span.
    """
    to_hide = round(ratio * len(ids))
    hidden = [False] * len(ids)
    for _ in range(4 * len(ids)):
        if to_hide <= 0:
            break
        length = min(max(1, poisson(rng, mean_span)), to_hide)
        start = rng.randrange(len(ids) - length + 1)
        if not any(hidden[max(0, start - 1) : start + length + 1]):
            hidden[start : start + length] = [True] * length
            to_hide -= length
    return [
        mask_id if gone else token
        for i, (token, gone) in enumerate(zip(ids, hidden, strict=True))
        if not gone or i == 0 or not hidden[i - 1]
    ]


def permute_sentences(rng: random.Random, ids: Sequence[int], stop_id: int) -> list[int]:
    """The sentences of `ids`, each ending with `stop_id`, in random order."""
    sentences: list[list[int]] = [[]]
    for token in ids:
        sentences[-1].append(token)
        if token == stop_id:
            sentences.append([])
    rng.shuffle(sentences)
    return [token for sentence in sentences for token in sentence]


def add_noise(
    rng: random.Random,
    ids: Sequence[int],
    mask_id: int,
    stop_id: int,
    copy_rate: float = 0.1,
    permute_rate: float = 0.2,
) -> list[int]:
    """One noisy view of a document: sometimes (`copy_rate`) as it is, else infilled, sometimes permuted
    first.
    """
    if rng.random() < copy_rate:
        return list(ids)
    if rng.random() < permute_rate:
        ids = permute_sentences(rng, ids, stop_id)
    return infill(rng, ids, mask_id)
