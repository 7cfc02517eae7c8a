"""Selects the examples of each optimizer step and splits them into micro-batches.

All functions are pure: the batch of step 1000 can be computed without steps 0 to 999. So a resumed run sees
the same batches, and every rank can compute them independently.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

# Fixed cost of a micro-batch (launches, accumulated gradients) in padded tokens. Of a step of 32 examples of
# 105 few-shot tasks the values 64, 256, 1024 and 8192 make 7, 4, 2 and 1.5 micro-batches.
OVERHEAD_TOKENS, CUDA_OVERHEAD_TOKENS = 256, 8192


def overhead_on(device_type: str) -> int:
    """Returns the fixed cost of a micro-batch on this type of device, in padded tokens."""
    return CUDA_OVERHEAD_TOKENS if device_type == "cuda" else OVERHEAD_TOKENS


# Makes the draws of answers independent of the permutations. Not 0, because numpy treats [seed, step] and
# [seed, step, 0] as the same seed.
_ANSWER_STREAM = 1

_ROWS_AT_ONCE = 512  # bounds the memory of the cost table for steps of many thousand examples


# ---------------------------------------------------------------------------- examples of a step


def step_examples(
    n_examples: int,
    batch_size: int,
    seed: int,
    step: int,
    epoch_order: Callable[[int, int], np.ndarray] | None = None,
) -> np.ndarray:
    """Returns the example indices of a step (counted from 0), an int64 array (batch_size,).

    The concatenated epochs are divided into steps, so a batch may contain the end of one epoch and the start
    of the next. epoch_order: returns the n_examples indices of an epoch from (seed, epoch), as that of a
    `TaskMixture`; None: `permuted_epoch`.
    """
    position, wanted = step * batch_size, batch_size
    pieces = []
    while wanted:
        epoch, start = divmod(position, n_examples)
        order = epoch_order(seed, epoch) if epoch_order else permuted_epoch(n_examples, seed, epoch)
        piece = order[start : start + wanted]
        pieces.append(piece)
        position, wanted = position + len(piece), wanted - len(piece)
    return np.concatenate(pieces)


@lru_cache(maxsize=4)
def permuted_epoch(n_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns an epoch in which every example occurs once: a permutation drawn from [seed, epoch]."""
    order = np.random.default_rng([seed, epoch]).permutation(n_examples).astype(np.int64)
    order.setflags(write=False)
    return order


def answer_choices(n_outputs_b: Sequence[int], seed: int, step: int) -> np.ndarray:
    """Returns the index of each example's target among its n_outputs_b, int64 (b,), drawn uniformly."""
    return np.random.default_rng([seed, step, _ANSWER_STREAM]).integers(0, np.asarray(n_outputs_b))


# ---------------------------------------------------------------------------- micro-batches


def micro_batches(
    source_lengths: Sequence[int],
    target_lengths: Sequence[int],
    max_tokens: int | None = None,
    max_examples: int | None = None,
    overhead_tokens: int = OVERHEAD_TOKENS,
) -> list[np.ndarray]:
    """Splits a step into micro-batches of examples of similar length, at minimum cost.

    Examples are sorted by source + target length, and that order is split into contiguous groups. A group of
    b examples padded to S and T costs b*S + b*T + overhead_tokens; dynamic programming finds the split with
    the minimum total cost. The loss is a sum over tokens, so the gradients of the groups add up to the
    gradient of the step: the split changes speed and memory, but not the result.

    source_lengths, target_lengths: tokens of each example. max_tokens: upper limit of b*S + b*T in a
    group. max_examples: upper limit of b. None: no limit. An example longer than max_tokens is its own group.
    Returns one array of example indices per group.
    """
    sources = np.asarray(source_lengths, dtype=np.int64)
    targets = np.asarray(target_lengths, dtype=np.int64)
    order = np.lexsort((sources, sources + targets))
    sources, targets = sources[order], targets[order]
    n = len(order)
    widest = max(1, min(n, max_examples or n))
    if max_tokens is not None and n:
        widest = min(widest, max(1, max_tokens // max(1, int((sources + targets).min()))))
    # least_cost[widest + j] is the minimum cost of the first j examples; the entries before are never chosen.
    least_cost = np.full(widest + n + 1, np.inf)
    least_cost[widest] = 0.0
    sizes = np.zeros(n, dtype=np.int64)
    for first in range(0, n, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, n)
        costs = _group_costs(sources, targets, first, last, widest, max_tokens) + overhead_tokens
        for end, cost_by_size in enumerate(costs, start=first):
            # Reversed, so that entry s - 1 is the cost before a group of s examples that ends at `end`.
            total = cost_by_size + least_cost[end + 1 : end + widest + 1][::-1]
            best = total.argmin()
            sizes[end], least_cost[widest + end + 1] = best + 1, total[best]
    groups: list[np.ndarray] = []
    end = n
    while end:
        groups.append(order[end - sizes[end - 1] : end])
        end -= sizes[end - 1]
    return groups[::-1]


def _group_costs(
    sources: np.ndarray, targets: np.ndarray, first: int, last: int, widest: int, max_tokens: int | None
) -> np.ndarray:
    """Returns the padded tokens of each group, (last - first, widest): by last example and by size - 1.

    Groups end at examples first..last-1 and have sizes 1..widest; inf where they exceed max_tokens.
    """
    sizes = np.arange(1, widest + 1)
    padded_lengths = np.zeros((last - first, widest), dtype=np.int64)
    for lengths in (sources, targets):
        before = np.concatenate([np.zeros(widest - 1, dtype=np.int64), lengths[:last]])
        windows = np.lib.stride_tricks.sliding_window_view(before[first:], widest)
        padded_lengths += np.maximum.accumulate(windows[:, ::-1], axis=1)
    costs = (padded_lengths * sizes).astype(np.float64)
    if max_tokens is not None:
        costs[:, 1:][costs[:, 1:] > max_tokens] = np.inf
    return costs


def assign_to_ranks(groups_costs: Sequence[float], world_size: int) -> list[list[int]]:
    """Returns the group indices of each rank, ascending, with the costs balanced between ranks.

    The most expensive group comes first; each goes to the rank with the lowest load so far (of equal loads,
    the lowest rank). If there are fewer groups than ranks, some ranks get none.
    """
    loads = [0.0] * world_size
    ranks: list[list[int]] = [[] for _ in range(world_size)]
    for group in sorted(range(len(groups_costs)), key=lambda index: (-groups_costs[index], index)):
        rank = loads.index(min(loads))
        ranks[rank].append(group)
        loads[rank] += float(groups_costs[group])
    return [sorted(groups) for groups in ranks]
