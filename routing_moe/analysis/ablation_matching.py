"""What a feature's experts are compared with: sets of other experts that its tasks use as much.

A feature's top experts are picked by use among its tasks, so sets drawn from all experts would be used less:
their drop would say that the top ones are used, not that they are specific. L layers, E experts a layer, C
columns (experts of all routed layers), M sets of K experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb

import numpy as np
from torch import Tensor

from routing_moe.analysis.ablation import Expert
from routing_moe.analysis.ablation_job import AblationJob, ExpertSet
from routing_moe.analysis.features import Features

TOLERANCE = 0.1  # share of the mean weight of a feature's experts by which a matched set's may differ
MOST_CANDIDATES = 100_000  # more sets than that are not all looked at, but so many drawn


def matched_sets(
    job: AblationJob, chosen: dict[str, ExpertSet], features: Features, draws: int, seed: int
) -> dict[str, list[ExpertSet]]:
    """{feature: at most `draws` sets of as many experts as its own, with none of those among them}.

    Drawn without replacement from the sets that leave every layer an expert and whose mean weight among the
    feature's tasks, along the routes that are scored, is that of its own within TOLERANCE. All features take
    the first that match in one random order, so that like ones share their sets. Few or none may match.
    """
    singles = [experts[0] for experts in job.all_experts()]
    column = {expert: number for number, expert in enumerate(singles)}
    sizes = {len(own) for own in chosen.values()}
    candidates = {size: candidate_sets(singles, size, job.size[1], seed) for size in sizes if draws}
    found: dict[str, list[ExpertSet]] = {feature: [] for feature in chosen}
    routes = job.bench.routes()
    for feature, own in chosen.items() if draws else ():
        weights_LE = mean_weights(routes, tasks_of(feature, features, job.bench.tasks))
        weights_C = np.array([weights_LE[expert] for expert in singles])
        own_K = [column[expert] for expert in own]
        candidates_MK = candidates[len(own)]
        matches_M = is_matched(weights_C, own_K, candidates_MK)
        found[feature] = [tuple(singles[c] for c in row) for row in candidates_MK[matches_M][:draws]]
    return found


def is_matched(weights_C: np.ndarray, own_K: Sequence[int], candidates_MK: np.ndarray) -> np.ndarray:
    """Which sets (M,) have none of the own experts, and their mean weight within TOLERANCE."""
    target = weights_C[list(own_K)].mean()
    near_M = np.abs(weights_C[candidates_MK].mean(axis=1) - target) <= TOLERANCE * target + 1e-9
    return near_M & ~np.isin(candidates_MK, own_K).any(axis=1)


def candidate_sets(singles: Sequence[Expert], size: int, per_layer: int, seed: int) -> np.ndarray:
    """Places in `singles` (M, K), ascending, of different sets that leave every layer an expert; in random
    order. singles: layer by layer, all experts of each."""
    generator = np.random.default_rng(seed)
    if comb(len(singles), size) <= MOST_CANDIDATES:
        sets_MK = np.array(list(combinations(range(len(singles)), size)))
    else:
        at_once = max(1, 4_000_000 // len(singles))  # numbers in memory
        parts = [
            generator.random((min(at_once, MOST_CANDIDATES - start), len(singles))).argpartition(size)
            for start in range(0, MOST_CANDIDATES, at_once)
        ]
        sets_MK = np.unique(np.sort(np.concatenate([part[:, :size] for part in parts]), axis=1), axis=0)
    rows_C = np.array([row for row, _ in singles])
    if size >= per_layer:  # a layer is empty if its first and last expert are per_layer - 1 places apart
        rows_MK = rows_C[sets_MK]
        empties_M = (rows_MK[:, per_layer - 1 :] == rows_MK[:, : size - per_layer + 1]).any(axis=1)
        sets_MK = sets_MK[~empties_M]
    return generator.permutation(sets_MK, axis=0)


def tasks_of(feature: str, features: Features, tasks: Sequence[str]) -> list[str]:
    """The tasks that have a 0/1 feature; all that a number is known of."""
    value = dict(zip(features.tasks, features.column(feature), strict=True))
    if features.is_binary(feature):
        return [task for task in tasks if value.get(task) == 1]
    return [task for task in tasks if np.isfinite(value.get(task, np.nan))]


def mean_weights(routes: Mapping[str, Tensor], tasks: Sequence[str]) -> np.ndarray:
    """Mean weight (L, E) of each expert in the routes {task: (L, E)} of some tasks.

    Of one-hot routes it is the share of the tasks that use the expert; in a top-k route an expert that is not
    among the k has weight 0.
    """
    return np.mean([routes[task].double().cpu().numpy() for task in tasks], axis=0)
