"""The result files of an ablation: tables as CSV, a summary in Markdown, pictures."""

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.ontology import Ontology
from routing_moe.analysis.ablation import USED, Ablation, category_drops, feature_table, set_of, task_table
from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import run_name
from routing_moe.config.ablate import AblationSettings
from routing_moe.pictures.heat_maps import plot_task_drops
from routing_moe.pictures.style import save
from routing_moe.report.files import write_table
from routing_moe.results.markdown import markdown_table

MOST_ROWS = 12  # of a table in Markdown


def write_ablation_files(
    settings: AblationSettings,
    ablation: Ablation,
    top_of_features: dict[str, pd.DataFrame],
    features: Features,
    ontology: Ontology,
) -> str:
    """Writes all result files into the folder of the ablation; returns the text of ablation.md."""
    folder, title = ablation.folder, f"{run_name(settings.run)}: drop of the score, {settings.part} files"
    singles = [experts for experts in ablation.all_experts() if ablation.sets.path(experts).is_file()]
    by_feature = {feature: set_of(experts, ablation) for feature, experts in top_of_features.items()}
    scores_ST = ablation.table([*singles, *by_feature.values()])[ontology.order(ablation.tasks)]
    examples = f", {settings.max_examples} examples of each" if settings.max_examples else ""
    text = (
        f"Drop of the score (before - after) on the {settings.part} files of {len(ablation.tasks)} tasks"
        f"{examples}, when experts are ablated. Mean score with all experts: "
        f"{scores_ST.loc['base'].mean():.4f}."
    )

    if singles:
        tasks = task_table(ablation, singles, scores_ST, ontology)
        categories = category_drops(tasks, ontology)
        write_table(tasks, folder / "tasks.csv")
        write_table(categories, folder / "categories.csv")
        text += f"\n\n{_singles_markdown(categories, tasks)}"
        if singles == ablation.all_experts():
            save(plot_task_drops(tasks, ontology), folder / "tasks", title)
    if by_feature:
        drops = feature_table(ablation, by_feature, scores_ST, features, ontology)
        write_table(drops, folder / "features.csv")
        write_table(pd.concat(top_of_features.values()), folder / "top_experts.csv")
        text += f"\n\n{_features_markdown(drops, settings.top)}"
    write_text(folder / "ablation.md", f"{text}\n")
    return f"{text}\n\nwritten to {folder}"


def _singles_markdown(categories: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Returns the experts with the largest drops: by category, and on the task with the largest drop."""
    expert = ["layer", "expert"]
    wide = categories.pivot_table(index=expert, columns="category", values="drop", sort=False, observed=True)
    over_all = categories[categories["category"] == "all"].set_index(expert)
    wide.insert(0, "users", over_all["users"].astype(int))
    wide["all, others"] = over_all["others"].map(lambda drop: f"{drop:.3f}" if np.isfinite(drop) else "-")
    worst = tasks.loc[tasks.groupby(expert)["drop"].idxmax()].set_index(expert)
    text = worst["task"] + worst["drop"].map(" {:.3f}".format)
    wide["worst"] = text.where(worst["drop"] > 0, "-")
    largest = wide.sort_values("all", ascending=False, kind="stable").head(MOST_ROWS)
    largest.index = [f"{layer} / {number}" for layer, number in largest.index]
    heading = (
        f"Each expert alone ({len(wide)}; the {len(largest)} with the largest drop; users: tasks that give "
        f"it {USED} or more; all, others: mean drop over the other experts)"
    )
    return f"{heading}:\n\n{markdown_table(largest.rename_axis('layer / expert'))}"


def _features_markdown(table: pd.DataFrame, top: int) -> str:
    in_text = table[table["group"].isin(["with feature", "without feature", "all"])]
    rows = {}
    for (feature, experts), groups in in_text.groupby(["feature", "experts"], sort=False):
        drops = {row.group: f"{row.drop:.3f}" for row in groups.itertuples()}
        rows[feature] = {"experts": experts, "weight": f"{groups['weight'].iloc[0]:.3f}", **drops}
    wide = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis("feature")
    weight = "weight: mean weight of the experts in the feature's tasks, of a number in all tasks"
    return f"The top {top} experts of a feature together ({weight}):\n\n{markdown_table(wide)}"
