"""Statistics of routes as Markdown: features and their experts, recovery over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from routing_moe.analysis.correlation import PERMUTATIONS
from routing_moe.analysis.features import Features
from routing_moe.analysis.runs import ExplainedRun
from routing_moe.results.markdown import markdown_table, mean_and_std, whole

SIGNIFICANT = 0.05  # false discovery rate
MOST_FEATURES = 30


def features_markdown(
    run: ExplainedRun, table: pd.DataFrame, top: pd.DataFrame, permutations: int = PERMUTATIONS
) -> str:
    """Returns the number of significant correlations, and the top experts of the most correlated features."""
    if table.empty:
        return f"{run.name}: no feature has enough tasks with and without it, or all routes are the same."
    significant, strictly = table[table["q"] < SIGNIFICANT], int((table["q_by"] < SIGNIFICANT).sum())
    text = (
        f"{run.routes.titled}: {len(significant)} of {len(table)} correlations of {len(run.routes.layers)} "
        f"layers x {run.routes.experts} experts with {table['feature'].nunique()} features have "
        f"q < {SIGNIFICANT} ({significant['feature'].nunique()} features), {strictly} of them also q (BY) < "
        f"{SIGNIFICANT}, which is valid under any dependence."
        f"{cautions(table, run.features, permutations)}"
    )
    ranked = list(dict.fromkeys(table["feature"]))  # by their smallest p, then their largest |r|
    order = ranked[:MOST_FEATURES]
    if len(ranked) > MOST_FEATURES:
        text += f" Shown are the {MOST_FEATURES} features of smallest p; correlations.csv has all."
    rows = {
        feature: {
            "tasks": int(own["with_feature"].iloc[0]) if own["with_feature"].notna().all() else "-",
            "top experts: r (q), * q, ** q (BY) < 0.05": ", ".join(map(_expert, own.itertuples())),
        }
        for feature in order
        if len(own := top[top["feature"] == feature])
    }
    listed = markdown_table(rows, "feature")
    return f"{text}\n\n{listed}"


def _expert(row) -> str:
    star = "**" if row.q_by < SIGNIFICANT else "*" if row.q < SIGNIFICANT else ""
    return f"{row.layer.replace(' ', '')}.{row.expert} {row.r:.2f} ({row.q:.2g}){star}"


def cautions(table: pd.DataFrame, features: Features, permutations: int) -> str:
    """Limits of q: too few permutations for a single true correlation, features that repeat others."""
    text, names = "", list(dict.fromkeys(table["feature"]))
    tests = len(table)
    yekutieli = tests * sum(1 / number for number in range(1, tests + 1))
    for q, least in (("q", tests), ("q (BY)", yekutieli)):  # of one true correlation, times 1 + permutations
        if least / (1 + permutations) >= SIGNIFICANT:
            text += (
                f" With {permutations} permutations a single true correlation among {tests} tests cannot "
                f"have {q} < {SIGNIFICANT}: that takes --permutations {math.ceil(least / SIGNIFICANT)}."
            )
    if repeated := len(names) - len({_but_for_sign(features.column(name)) for name in names}):
        text += f" For these tasks {repeated} of the {len(names)} features repeat or negate another."
    return text


def _but_for_sign(column: np.ndarray) -> bytes:
    known = column[np.isfinite(column)]
    turned = known.min() + known.max() - column  # of 0 and 1: 1 - column
    return min((column + 0.0).tobytes(), (turned + 0.0).tobytes())


def recovery_markdown(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Returns a row per kind of features; of several runs also mean ± sample std over them."""
    joint = pd.concat([t.assign(run=n) for n, t in zip(names, tables, strict=True)], ignore_index=True)
    if joint.empty:
        return "No kind of features is known for enough tasks to compare it with routes."
    rows = {}
    for kind, own in joint.groupby("kind", sort=False):
        first = own.iloc[0]
        cells = {"tasks": int(first["tasks"]), "labels": whole(first["labels"])}
        for what, value in (("AMI", "ami"), ("Mantel r", "mantel_r")):
            test = value.removesuffix("_r")
            tested = zip(own[value], own[f"{test}_p"], own[f"{test}_q_by"], strict=True)
            if len(names) > 1:
                cells[f"{what}, mean"] = mean_and_std(own[value].mean(), own[value].std())
            cells[f"{what} (p; q)"] = ", ".join(_with_p(*found) for found in tested)
        rows[kind] = cells
    what = (
        "Do tasks with similar routes have similar features? AMI: adjusted mutual information of clusters of "
        "routes and labels (0 by chance, 1 best); Mantel: correlation of distances by routes and features. "
        "q: by Benjamini and Yekutieli over all p of a run, valid under any dependence."
    )
    if len(names) > 1:
        what += f" Mean ± sample std over {len(names)} runs, then each: {', '.join(names)}."
    return f"{what}\n\n{markdown_table(rows, 'kind')}"


def _with_p(value: float, p: float, q: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f} ({p:.2g}; {q:.2g})"
