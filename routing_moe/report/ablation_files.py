"""The result files of an ablation: tables as CSV, a summary in Markdown, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from routing_moe.analysis.ablation.checks import AblationInputs
from routing_moe.analysis.ablation.expert_sets import TASKS
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.plan import Plan
from routing_moe.analysis.ablation.tables import (
    USED,
    category_drops,
    feature_table,
    sets_table,
    task_table,
)
from routing_moe.analysis.saved_routes import run_name
from routing_moe.config.ablate import AblationSettings
from routing_moe.pictures.dots import plot_feature_drops
from routing_moe.pictures.heat_maps import plot_category_drops, plot_task_drops
from routing_moe.pictures.style import save
from routing_moe.results.markdown import markdown_table

MOST_ROWS = 12  # of a table in Markdown
DIGITS = "%.6g"


def write_results(job: AblationJob, plan: Plan, settings: AblationSettings, inputs: AblationInputs) -> str:
    """Writes all result files into the job's folder; returns the text of ablation.md."""
    folder, ontology = job.folder, inputs.run.ontology
    singles = [experts for experts in job.all_experts() if job.sets.path(experts).is_file()]
    scores_ST = job.scores([*singles, *plan.sets])[ontology.order(job.evaluator.tasks)]
    drops_ST = scores_ST.loc["base"] - scores_ST
    examples = f", {settings.max_examples} examples of each" if settings.max_examples else ""
    base = scores_ST.loc["base"].mean()
    sections = [
        f"Drop of the score (before - after) on the {settings.part} files of {len(job.evaluator.tasks)} tasks"
        f"{examples}, when experts are ablated. Mean score with all experts: {base:.4f}."
    ]

    def write(name: str, table: pd.DataFrame) -> None:
        write_text(folder / name, table.to_csv(index=False, float_format=DIGITS))

    if singles:  # also those of earlier commands
        tasks = task_table(job, singles, scores_ST, ontology)
        categories = category_drops(tasks, ontology)
        write(TASKS, tasks)
        write("categories.csv", categories)
        sections.append(_singles_markdown(categories, tasks))
        save(plot_category_drops(categories), folder / "categories", _title(settings))
        if singles == job.all_experts():
            save(plot_task_drops(tasks, ontology), folder / "tasks", _title(settings))
    if several := [job.name(experts) for experts in plan.named if len(experts) > 1]:
        table = sets_table("experts", dict(zip(several, several, strict=True)), drops_ST, ontology)
        write("sets.csv", table)
        sections.append(_sets_markdown(table))
    if plan.by_feature:
        features = feature_table(job, plan.by_feature, drops_ST, inputs.features, ontology)
        names = {feature: job.name(experts) for feature, experts in plan.by_feature.items()}
        write("features.csv", features)
        write("feature_tasks.csv", sets_table("feature", names, drops_ST, ontology))
        write("top_experts.csv", plan.top_experts)
        sections.append(_features_markdown(features, settings.top))
        save(plot_feature_drops(features, settings.top), folder / "features", _title(settings))
    text = "\n\n".join(sections) + "\n"
    write_text(folder / "ablation.md", text)
    return f"{text}\nwritten to {folder}"


def _title(settings: AblationSettings) -> str:
    return f"{run_name(Path(settings.prediction.output_dir))}: drop of the score, {settings.part} files"


# ---------------------------------------------------------------------------- Markdown


def _singles_markdown(categories: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Returns the experts with the largest drops: by category, and on the task with the largest drop."""
    expert = ["layer", "expert"]
    wide = categories.pivot_table(index=expert, columns="category", values="drop", sort=False, observed=True)
    over_all = categories[categories["category"] == "all"].set_index(expert)
    wide.insert(0, "users", over_all["users"].astype(int))
    wide["all, others"] = [f"{drop:.3f}" if np.isfinite(drop) else "-" for drop in over_all["others"]]
    worst = tasks.loc[tasks.groupby(expert, sort=False)["drop"].idxmax()]
    wide["worst"] = [f"{row.task} {row.drop:.3f}" if row.drop > 0 else "-" for row in worst.itertuples()]
    largest = wide.sort_values("all", ascending=False, kind="stable").head(MOST_ROWS)
    largest.index = [f"{layer} / {number}" for layer, number in largest.index]
    heading = (
        f"Each expert alone ({len(wide)}; the {len(largest)} with the largest drop; users: tasks that give "
        f"it {USED} or more; all, others: mean drop over the other experts)"
    )
    return f"{heading}:\n\n{markdown_table(largest.rename_axis('layer / expert'))}"


def _sets_markdown(table: pd.DataFrame) -> str:
    by_set = table.groupby("experts", sort=False)["drop"].agg(["mean", "max"])
    by_set["worst"] = table.loc[table.groupby("experts", sort=False)["drop"].idxmax(), "task"].to_numpy()
    return f"Sets of experts:\n\n{markdown_table(by_set.rename_axis('experts'))}"


def _features_markdown(table: pd.DataFrame, top: int) -> str:
    in_text = table[table["group"].isin(["with feature", "without feature", "all"])]
    rows = {}
    for (feature, experts), groups in in_text.groupby(["feature", "experts"], sort=False):
        drops = {row.group: f"{row.drop:.3f}" for row in groups.itertuples()}
        rows[feature] = {"experts": experts, "weight": f"{groups['weight'].iloc[0]:.3f}", **drops}
    wide = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis("feature")
    heading = f"The top {top} experts of a feature together"
    weight = "Weight: mean weight of the experts in the feature's tasks (of a numeric feature: in all tasks)."
    return f"{heading}:\n\n{markdown_table(wide)}\n\n{weight}"
