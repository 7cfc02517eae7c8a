"""BART's noise (Lewis et al. 2020, section 2.2): text infilling and sentence permutation, on token ids.

Pure functions of (rng, ids); infilling also takes words. The training target is always the unchanged
document.
"""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Token = TypeVar("Token")


def poisson(rng: random.Random, mean: float) -> int:
    """One draw from a Poisson distribution (Knuth's algorithm: a product of uniform draws)."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def infill(
    rng: random.Random, ids: Sequence[Token], mask_id: Token, ratio: float = 0.3, mean_span: float = 2.0
) -> list[Token]:
    """`ids` with about `ratio` of the tokens masked; each masked span is replaced by a single mask token.

    Span lengths are drawn from a Poisson distribution, at least 1. The number of masked tokens is
    `ratio * len(ids)`, rounded. Spans are never adjacent, so every mask token stands for one span.
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
        mask_id if is_hidden else token
        for i, (token, is_hidden) in enumerate(zip(ids, hidden, strict=True))
        if not is_hidden or i == 0 or not hidden[i - 1]
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
    """A noisy version of a document: unchanged with probability `copy_rate`, otherwise with masked spans.

    With probability `permute_rate`, the sentences are permuted before spans are masked.
    """
    if rng.random() < copy_rate:
        return list(ids)
    if rng.random() < permute_rate:
        ids = permute_sentences(rng, ids, stop_id)
    return infill(rng, ids, mask_id)
