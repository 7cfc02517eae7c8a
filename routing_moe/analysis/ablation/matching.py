"""Matched sets: random sets of other experts that a feature's tasks use as much as the feature's own experts.

The top experts of a feature are selected by how much its tasks use them. Sets drawn from all experts would be
used less, so their smaller drop would show that the top experts are used, not that they are specific.
L layers, E experts per layer, C columns (experts of all routed layers), M sets of K experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb

import numpy as np

from routing_moe.analysis.ablation.expert_sets import Expert, ExpertSet
from routing_moe.analysis.features import Features

TOLERANCE = 0.1  # largest relative difference between the mean weights of a matched set and of the feature's
MOST_CANDIDATES = 100_000  # if there are more sets, this many are drawn at random


def matched_sets(
    weights: Mapping[str, np.ndarray],
    singles: Sequence[Expert],
    chosen: Mapping[str, ExpertSet],
    features: Features,
    draws: int,
    seed: int,
) -> dict[str, list[ExpertSet]]:
    """Returns up to `draws` random sets per feature, of equal size and disjoint from its top experts.

    weights: the scored routes {task: (L, E)}. singles: all experts of each layer, layer by layer. Drawn
    without replacement from the sets that leave an expert in every layer and whose mean weight in the routes
    of the feature's tasks is within TOLERANCE of that of its own set. All features take the first matches in
    the same random order, so that similar features share sets. Few or none may match.
    """
    if not draws:
        return {feature: [] for feature in chosen}
    column, (row, _) = {expert: number for number, expert in enumerate(singles)}, singles[0]
    per_layer = sum(own_row == row for own_row, _ in singles)
    sizes = {len(experts) for experts in chosen.values()}
    candidates = {size: candidate_sets(singles, size, per_layer, seed) for size in sizes}
    matched = {}
    for feature, experts in chosen.items():
        weights_LE = mean_weights(weights, tasks_of(feature, features, list(weights)))
        weights_C = np.array([weights_LE[expert] for expert in singles])
        candidates_MK = candidates[len(experts)]
        matches_M = is_matched(weights_C, [column[expert] for expert in experts], candidates_MK)
        matched[feature] = [tuple(singles[c] for c in row) for row in candidates_MK[matches_M][:draws]]
    return matched


def is_matched(weights_C: np.ndarray, own_K: Sequence[int], candidates_MK: np.ndarray) -> np.ndarray:
    """Returns whether each set (M,) has none of the feature's experts and a mean weight within TOLERANCE."""
    target = weights_C[list(own_K)].mean()
    near_M = np.abs(weights_C[candidates_MK].mean(axis=1) - target) <= TOLERANCE * target + 1e-9
    return near_M & ~np.isin(candidates_MK, own_K).any(axis=1)


def candidate_sets(singles: Sequence[Expert], size: int, per_layer: int, seed: int) -> np.ndarray:
    """Distinct sets that leave an expert in every layer, in random order, as ascending indices (M, K) of
    `singles`. singles: all experts of each layer, layer by layer."""
    generator = np.random.default_rng(seed)
    if comb(len(singles), size) <= MOST_CANDIDATES:
        sets_MK = np.array(list(combinations(range(len(singles)), size)))
    else:
        at_once = max(1, 4_000_000 // len(singles))  # bounds the memory of a draw
        parts = [
            generator.random((min(at_once, MOST_CANDIDATES - start), len(singles))).argpartition(size)
            for start in range(0, MOST_CANDIDATES, at_once)
        ]
        sets_MK = np.unique(np.sort(np.concatenate([part[:, :size] for part in parts]), axis=1), axis=0)
    rows_C = np.array([row for row, _ in singles])
    if size >= per_layer:  # a layer is empty if two of its experts are per_layer - 1 positions apart
        rows_MK = rows_C[sets_MK]
        empties_M = (rows_MK[:, per_layer - 1 :] == rows_MK[:, : size - per_layer + 1]).any(axis=1)
        sets_MK = sets_MK[~empties_M]
    return generator.permutation(sets_MK, axis=0)


def tasks_of(feature: str, features: Features, tasks: Sequence[str]) -> list[str]:
    """Returns the tasks that have a 0/1 feature; for a numeric feature, the tasks with a known value."""
    value = dict(zip(features.tasks, features.column(feature), strict=True))
    if features.is_binary(feature):
        return [task for task in tasks if value.get(task) == 1]
    return [task for task in tasks if np.isfinite(value.get(task, np.nan))]


def mean_weights(weights: Mapping[str, np.ndarray], tasks: Sequence[str]) -> np.ndarray:
    """Returns the mean weight (L, E) of each expert in the routes {task: (L, E)} of some tasks.

    For one-hot routes this is the share of the tasks that use the expert. Experts outside the top k of a
    top-k route have weight 0.
    """
    return np.mean([weights[task] for task in tasks], axis=0)
