"""Statistics of routes as Markdown: features and their experts, recovery over runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from routing_moe.analysis.runs import ExplainedRun
from routing_moe.results.markdown import markdown_table, mean_and_std, whole

SIGNIFICANT = 0.05  # false discovery rate
MOST_FEATURES = 30


def features_markdown(run: ExplainedRun, table: pd.DataFrame, top: pd.DataFrame) -> str:
    """Returns the number of significant correlations, and the top experts of the features of smallest p."""
    if table.empty:
        return f"{run.name}: no feature has enough tasks with and without it, or all routes are the same."
    significant, strictly = table[table["q"] < SIGNIFICANT], int((table["q_by"] < SIGNIFICANT).sum())
    text = (
        f"{run.routes.titled}: {len(significant)} of {len(table)} correlations of {len(run.routes.layers)} "
        f"layers x {run.routes.experts} experts with {table['feature'].nunique()} features have "
        f"q < {SIGNIFICANT} ({significant['feature'].nunique()} features), {strictly} of them also q (BY) < "
        f"{SIGNIFICANT}, which is valid under any dependence. Listed: at most {MOST_FEATURES} features, by p."
    )
    rows = {}
    # By their smallest p, then their largest |r|.
    for feature in table["feature"].unique()[:MOST_FEATURES]:
        experts = top[top["feature"] == feature]
        if len(experts):
            counts = experts["with_feature"]
            rows[feature] = {
                "tasks": int(counts.iloc[0]) if counts.notna().all() else "-",
                "top experts: r (q), * q, ** q (BY) < 0.05": ", ".join(map(_expert, experts.itertuples())),
            }
    return f"{text}\n\n{markdown_table(rows, 'feature')}"


def _expert(row) -> str:
    star = "**" if row.q_by < SIGNIFICANT else "*" if row.q < SIGNIFICANT else ""
    return f"{row.layer.replace(' ', '')}.{row.expert} {row.r:.2f} ({row.q:.2g}){star}"


def recovery_markdown(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Returns a row per kind of features; of several runs also mean ± sample std over them."""
    joint = pd.concat([t.assign(run=n) for n, t in zip(names, tables, strict=True)], ignore_index=True)
    if joint.empty:
        return "No kind of features is known for enough tasks to compare it with routes."
    rows = {}
    for kind, of_kind in joint.groupby("kind", sort=False):
        first = of_kind.iloc[0]
        rows[kind] = {"tasks": int(first["tasks"]), "labels": whole(first["labels"])}
        for title, column, test in (("AMI", "ami", "ami"), ("Mantel r", "mantel_r", "mantel")):
            if len(names) > 1:
                rows[kind][f"{title}, mean"] = mean_and_std(of_kind[column].mean(), of_kind[column].std())
            tested = zip(of_kind[column], of_kind[f"{test}_p"], of_kind[f"{test}_q_by"], strict=True)
            rows[kind][f"{title} (p; q)"] = ", ".join(
                "-" if np.isnan(value) else f"{value:.3f} ({p:.2g}; {q:.2g})" for value, p, q in tested
            )
    text = (
        "Do tasks with similar routes have similar features? AMI: adjusted mutual information of clusters of "
        "routes and labels (0 by chance, 1 best); Mantel: correlation of distances by routes and features. "
        "q: by Benjamini and Yekutieli over all p of a run, valid under any dependence."
    )
    if len(names) > 1:
        text += f" Mean ± sample std over {len(names)} runs, then each: {', '.join(names)}."
    return f"{text}\n\n{markdown_table(rows, 'kind')}"
