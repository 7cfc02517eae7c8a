"""Correlations of tasks' expert weights with human features of the tasks, with p- and q-values.

    table = correlate(routes, features)                # a row per layer, expert and feature
    top_experts(table, 3)

r: Pearson's correlation of an expert's weight with a feature (point-biserial for a 0/1 feature).
p: two-sided, by permuting the tasks. q_by: Benjamini and Yekutieli (2001) over all rows, which is valid under
any dependence, such as that of weights which sum to 1 in a layer. N tasks, C columns (the experts, layer by
layer), P permutations.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from routing_moe.analysis.features import Features
from routing_moe.analysis.permutations import ROUNDING, permutation_test
from routing_moe.analysis.runs import ExplainedRun
from routing_moe.analysis.saved_routes import SavedRoutes, expert_name
from routing_moe.results.markdown import markdown_table, whole
from routing_moe.results.statistics import benjamini_yekutieli

PERMUTATIONS = 100_000  # so that the smallest p passes among thousands of tests
FEWEST = 3  # tasks that must have a 0/1 feature, and that must lack it
AT_ONCE = 250_000  # numbers of permuted features in memory
SIGNIFICANT = 0.05  # false discovery rate
MOST_FEATURES = 30
COLUMNS = ["layer", "expert", "feature", "r", "p", "q_by", "tasks", "with_feature"]


def correlate(
    routes: SavedRoutes, features: Features, permutations: int = PERMUTATIONS, seed: int = 0
) -> pd.DataFrame:
    """Returns a row for each (layer, expert) and feature, sorted by p.

    tasks: number of tasks with a known value; with_feature: how many of them have a 1 (NaN for numbers).
    permutations: 0 computes r alone; p and q_by are then NaN. Left out: features that fewer than FEWEST tasks
    have or lack, constant numbers, and experts with the same weight for all tasks.
    """
    if routes.tasks != features.tasks:
        raise ValueError("routes and features are of different tasks")
    values_NC = routes.values_NLE.reshape(len(routes.tasks), -1)
    layers = pd.CategoricalIndex(routes.layers, list(routes.layers), ordered=True)  # sorts as in the model
    experts = pd.MultiIndex.from_product([layers, range(routes.experts)], names=["layer", "expert"])
    tables = []
    for name in features.names:
        if worth_testing(features, name):
            feature_N = features.column(name)
            known_N = np.isfinite(feature_N)
            r_C, p_C = correlation_test(values_NC[known_N], feature_N[known_N], permutations, seed)
            with_feature = feature_N[known_N].sum() if features.is_binary(name) else np.nan
            numbers = dict(r=r_C, p=p_C, tasks=known_N.sum(), with_feature=with_feature)
            tables.append(experts.to_frame(index=False).assign(feature=name, **numbers))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(tables).dropna(subset=["r"])
    table = table.assign(q_by=benjamini_yekutieli(table["p"]), order=-table["r"].abs())
    table = table.sort_values(["p", "order", "feature", "layer", "expert"])
    return table[COLUMNS].reset_index(drop=True)


def worth_testing(features: Features, name: str) -> bool:
    """Returns whether enough tasks have, and lack, a 0/1 feature; whether a number varies."""
    column = features.column(name)
    known = column[np.isfinite(column)]
    if features.is_binary(name):
        return min((known == 1).sum(), (known == 0).sum()) >= FEWEST
    return len(known) >= 2 * FEWEST and len(np.unique(known)) > 1


def top_experts(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the `count` experts with the largest r > 0 of each feature; ties are in the model's order."""
    ranked = table.assign(order=-table["r"].round(9))[table["r"] > 0]
    ranked = ranked.sort_values(["feature", "order", "layer", "expert"]).drop(columns="order")
    return ranked.groupby("feature").head(count).reset_index(drop=True)


def correlation_test(
    values_NC: np.ndarray, feature_N: np.ndarray, permutations: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (r, two-sided p) of each column with a feature, which is permuted; NaN if one is constant."""
    values_NC, feature_N = standardised(values_NC), standardised(feature_N)

    def strength(orders_PN: np.ndarray) -> np.ndarray:
        return np.abs(feature_N[orders_PN] @ values_NC)

    at_once = max(1, AT_ONCE // max(values_NC.shape))
    _, p_C, _ = permutation_test(strength, len(feature_N), permutations, seed, at_once)
    return feature_N @ values_NC, p_C


def standardised(values_NX: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; NaN for a column that is constant up to rounding."""
    centred_NX = values_NX - values_NX.mean(axis=0)
    length_X = np.linalg.norm(centred_NX, axis=0)
    scale_X = np.abs(values_NX).max(axis=0) * np.sqrt(len(values_NX))
    varies_X = length_X > ROUNDING * np.maximum(scale_X, np.finfo(float).tiny)
    return np.divide(centred_NX, length_X, out=np.full_like(centred_NX, np.nan), where=varies_X)


def features_markdown(run: ExplainedRun, table: pd.DataFrame, top: pd.DataFrame) -> str:
    """Returns the number of significant correlations, and the top experts of the features of smallest p."""
    if table.empty:
        return f"{run.name}: no feature has enough tasks with and without it, or all routes are the same."
    significant = table[table["q_by"] < SIGNIFICANT]
    text = (
        f"{run.routes.titled}: {len(significant)} of {len(table)} correlations of {len(run.routes.layers)} "
        f"layers x {run.routes.experts} experts with {table['feature'].nunique()} features have q (Benjamini "
        f"and Yekutieli) < {SIGNIFICANT} ({significant['feature'].nunique()} features). Listed: at most "
        f"{MOST_FEATURES} features, by p."
    )
    rows = {}
    for feature in table["feature"].unique()[:MOST_FEATURES]:  # by their smallest p, then their largest |r|
        experts = top[top["feature"] == feature]
        if len(experts):
            shown = [
                f"{expert_name(e.layer, e.expert)} {e.r:.2f} ({e.q_by:.2g})" for e in experts.itertuples()
            ]
            tasks = whole(experts["with_feature"].iloc[0])
            rows[feature] = {"tasks": tasks, "top experts: r (q)": ", ".join(shown)}
    return f"{text}\n\n{markdown_table(rows, 'feature')}"
