"""The result files of an ablation: tables as CSV, a summary in Markdown, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.checks import AblationInputs
from routing_moe.analysis.ablation.expert_sets import ExpertSet
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.matching import TOLERANCE
from routing_moe.analysis.ablation.plan import Plan
from routing_moe.analysis.ablation.result_files import CATEGORIES, FEATURES, SETS, TASKS, drawn
from routing_moe.analysis.ablation.tables import (
    USED,
    category_drops,
    drops_of,
    feature_table,
    feature_task_table,
    task_table,
)
from routing_moe.analysis.saved_routes import run_name
from routing_moe.config.ablate import AblationSettings
from routing_moe.plots.ablation import plot_category_drops, plot_feature_drops, plot_task_drops
from routing_moe.results.markdown import markdown_table

MOST_ROWS = 12  # of a table in Markdown
DIGITS = "%.6g"


def write_results(job: AblationJob, plan: Plan, settings: AblationSettings, inputs: AblationInputs) -> str:
    """Writes all result files into the job's folder; returns the text of ablation.md."""
    folder, ontology = job.folder, inputs.run.ontology
    base = job.mean_score()
    singles = [experts for experts in job.all_experts() if job.finished(experts)]
    examples = f", {settings.max_examples} examples of each" if settings.max_examples else ""
    sections = [
        f"Drop of the score (before - after) on the {settings.part} files of {len(job.evaluator.tasks)} tasks"
        f"{examples}, when experts are ablated. Mean score with all experts: {base:.4f}."
    ]
    if singles:  # also those of earlier commands
        tasks = task_table(job, singles, ontology)
        categories = category_drops(tasks, ontology)
        write_text(folder / TASKS, tasks.to_csv(index=False, float_format=DIGITS))
        write_text(folder / CATEGORIES, categories.to_csv(index=False, float_format=DIGITS))
        sections.append(_singles_markdown(categories, tasks))
        for kind in ("png", "pdf"):
            plot_category_drops(categories, folder / f"categories.{kind}", _title(settings))
            if singles == job.all_experts():
                plot_task_drops(tasks, ontology, folder / f"tasks.{kind}", _title(settings))
    if several := [experts for experts in plan.named if len(experts) > 1]:
        table = _sets_table(job, several, ontology)
        write_text(folder / SETS, table.to_csv(index=False, float_format=DIGITS))
        sections.append(_sets_markdown(table))
    if plan.by_feature:
        features = feature_table(job, plan.by_feature, plan.random, inputs.features, ontology)
        write_text(folder / FEATURES, features.to_csv(index=False, float_format=DIGITS))
        by_task = feature_task_table(job, plan.by_feature, plan.random, ontology)
        write_text(folder / "feature_tasks.csv", by_task.to_csv(index=False, float_format=DIGITS))
        write_text(folder / "top_experts.csv", plan.top_experts.to_csv(index=False, float_format=DIGITS))
        sections.append(_features_markdown(features, settings.top))
        for kind in ("png", "pdf"):
            plot_feature_drops(features, folder / f"features.{kind}", settings.top, _title(settings))
    text = "\n\n".join(sections) + "\n"
    write_text(folder / "ablation.md", text)
    return f"{text}\nwritten to {folder}"


def _title(settings: AblationSettings) -> str:
    return f"{run_name(Path(settings.prediction.output_dir))}: drop of the score, {settings.part} files"


def _sets_table(job: AblationJob, sets: Sequence[ExpertSet], ontology: Ontology) -> pd.DataFrame:
    rows = []
    for experts in sets:
        drops = drops_of(job, experts)
        for task in ontology.order(job.evaluator.tasks):
            rows.append((job.name(experts), task, ontology.category(task)[0], drops[task]))
    return pd.DataFrame(rows, columns=["experts", "task", "category", "drop"])


# ---------------------------------------------------------------------------- Markdown


def _singles_markdown(categories: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Returns the experts with the largest drops: by category, and on the task with the largest drop."""
    wide = categories.pivot_table(
        index=["layer", "expert"], columns="category", values="drop", sort=False, observed=True
    )
    users = categories[categories["category"] == "all"].set_index(["layer", "expert"])["users"]
    wide.insert(0, "users", users.astype(int))
    worst = tasks.loc[tasks.groupby(["layer", "expert"], sort=False)["drop"].idxmax()]
    worst = worst.set_index(["layer", "expert"])
    all_others = categories[categories["category"] == "all"].set_index(["layer", "expert"])["others"]
    wide["all, others"] = [f"{drop:.3f}" if np.isfinite(drop) else "-" for drop in all_others]
    wide["worst"] = [
        f"{task} {drop:.3f}" if drop > 0 else "-"
        for task, drop in zip(worst["task"], worst["drop"], strict=True)
    ]
    shown = wide.sort_values("all", ascending=False, kind="stable").head(MOST_ROWS)
    shown.index = [f"{layer} / {expert}" for layer, expert in shown.index]
    shown.index.name = "layer / expert"
    what = (
        f"Each expert alone ({len(wide)}; the {len(shown)} with the largest drop; users: tasks that give it "
        f"{USED} or more; all, others: mean drop over the other experts)"
    )
    return f"{what}:\n\n{markdown_table(shown)}"


def _sets_markdown(table: pd.DataFrame) -> str:
    by_set = table.groupby("experts", sort=False)["drop"].agg(["mean", "max"])
    by_set["worst"] = table.loc[table.groupby("experts", sort=False)["drop"].idxmax(), "task"].to_numpy()
    return f"Sets of experts:\n\n{markdown_table(by_set.rename_axis('experts'))}"


def _features_markdown(table: pd.DataFrame, top: int) -> str:
    shown = table[table["group"].isin(["with feature", "without feature", "all"])]
    rows, compared = {}, bool(table["draws"].any())
    for (feature, experts), own in shown.groupby(["feature", "experts"], sort=False):
        matched = own.iloc[0]
        cells = {"experts": experts, "weight": f"{matched.weight:.3f}"}
        if np.isfinite(matched.random_weight):
            cells["weight"] += f" ({matched.random_weight:.3f})"
        elif compared:
            cells["weight"] += " (none matches)"
        for row in own.itertuples():
            random = "" if np.isnan(row.random_mean) else f" ({row.random_mean:.3f}, p {row.p:.2g})"
            cells[row.group] = f"{row.drop:.3f}{random}"
        rows[feature] = cells
    wide = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis("feature")
    what = f"The top {top} experts of a feature together"
    if compared:
        what += (
            f" (in brackets: the mean of {drawn(table)} random sets of {top} other experts whose weight in "
            f"the feature's tasks is equal within {TOLERANCE:.0%}, and p: the share of these sets, its own "
            "included, whose drop is at least as large; p is not corrected for the number of features, and "
            "weights match only in the tasks with the feature)"
        )
    weight = "Weight: mean weight of the experts in the feature's tasks (of a numeric feature: in all tasks)."
    return f"{what}:\n\n{markdown_table(wide)}\n\n{weight}"
