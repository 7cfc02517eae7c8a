"""Correlations of tasks' expert weights with human features of the tasks.

    table = correlate(routes, features)                # a row per layer, expert and feature
    top_experts(table, 3)

r: Pearson's correlation of an expert's weight with a feature (point-biserial).
p_holm: one p for each feature, that of its largest r: how often some expert correlates as strongly if the
tasks are permuted; corrected for all features of the table. N tasks, C columns (the experts, layer by layer),
P permutations.
"""

import numpy as np
import pandas as pd

from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import SavedRoutes
from routing_moe.results.statistics import PERMUTATIONS, holm, permutation_test

FEWEST = 3  # tasks that must have a feature, and that must lack it
ROUNDING = 1e-9  # a column that varies less, relative to its values, is constant
COLUMNS = ["layer", "expert", "feature", "r", "p_holm", "tasks", "with_feature"]


def correlate(routes: SavedRoutes, features: Features, permutations: int = PERMUTATIONS) -> pd.DataFrame:
    """Returns a row for each (layer, expert) and feature, sorted by |r|.

    tasks: number of tasks with a known value; with_feature: how many of them have the feature.
    permutations: 0 computes r alone; p_holm is then NaN. Left out: features that fewer than FEWEST tasks have
    or lack, and experts with the same weight for all tasks.
    """
    if routes.tasks != features.tasks:
        raise ValueError("routes and features are of different tasks")
    values_NC = routes.values_NLE.reshape(len(routes.tasks), -1)
    layers = pd.CategoricalIndex(routes.layers, list(routes.layers), ordered=True)  # sorts as in the model
    experts = pd.MultiIndex.from_product([layers, range(routes.experts)], names=["layer", "expert"])
    tables, p_of = [], {}
    for name in features.names:
        if worth_testing(features, name):
            feature_N = features.column(name)
            known_N = np.isfinite(feature_N)
            weights_NC, known = standardised(values_NC[known_N]), standardised(feature_N[known_N])
            numbers = dict(r=known @ weights_NC, tasks=known_N.sum(), with_feature=np.nansum(feature_N))
            tables.append(experts.to_frame(index=False).assign(feature=name, **numbers))
            p_of[name] = p_of_largest(weights_NC, known, permutations)
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(tables).dropna(subset=["r"])
    p_holm = dict(zip(p_of, holm(list(p_of.values())), strict=True))
    table = table.assign(p_holm=table["feature"].map(p_holm), order=-table["r"].abs().round(9))
    table = table.sort_values(["order", "feature", "layer", "expert"])
    return table[COLUMNS].reset_index(drop=True)


def worth_testing(features: Features, name: str) -> bool:
    """Returns whether enough tasks have, and lack, a feature."""
    column = features.column(name)
    return min((column == 1).sum(), (column == 0).sum()) >= FEWEST


def top_experts(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the `count` experts with the largest r > 0 of each feature; ties are in the model's order."""
    ranked = table.assign(order=-table["r"].round(9))[table["r"] > 0]
    ranked = ranked.sort_values(["feature", "order", "layer", "expert"]).drop(columns="order")
    return ranked.groupby("feature").head(count).reset_index(drop=True)


def p_of_largest(weights_NC: np.ndarray, feature_N: np.ndarray, permutations: int) -> float:
    """Returns p of the largest r of a feature with any expert, both `standardised`; NaN without experts."""
    weights_NC = weights_NC[:, np.isfinite(weights_NC[0])]
    if not permutations or not weights_NC.size:
        return np.nan

    def largest(features_PN: np.ndarray) -> np.ndarray:
        return (features_PN @ weights_NC).max(axis=-1)

    return float(permutation_test(largest, feature_N, permutations).pvalue)


def standardised(values_NX: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; NaN for a column that is constant up to rounding."""
    centred_NX = values_NX - values_NX.mean(axis=0)
    length_X = np.linalg.norm(centred_NX, axis=0)
    scale_X = np.abs(values_NX).max(axis=0) * np.sqrt(len(values_NX))
    varies_X = length_X > ROUNDING * np.maximum(scale_X, np.finfo(float).tiny)
    return np.divide(centred_NX, length_X, out=np.full_like(centred_NX, np.nan), where=varies_X)
