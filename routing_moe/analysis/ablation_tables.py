"""Score drops of ablated experts, by task and category, and of the experts of features.

    scores_ST = ablation.table(sets)    # a row per set of experts ("base" for none), a column per task

A drop is the score before minus the score after: positive where the expert was useful.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.analysis.features import Features
from routing_moe.results.scores import in_categories

if TYPE_CHECKING:  # it imports torch; readers of the tables do not need it
    from routing_moe.analysis.ablation import Ablation, ExpertSet

USED = 0.05  # weight from which a task is called a user of an expert


def task_table(
    ablation: Ablation, singles: Sequence[ExpertSet], scores_ST: pd.DataFrame, ontology: Ontology
) -> pd.DataFrame:
    """A row per expert and task: layer, expert, task, category, weight (of the expert in the task's route),
    before, after, drop, others (mean drop of the task without each of the other experts, one at a time: what
    a random one would cost)."""
    rows = []
    for ((row, expert),) in singles:
        after_T = scores_ST.loc[ablation.name(((row, expert),))]
        for task, before in scores_ST.loc["base"].items():
            category, weight = ontology.category(task)[0], ablation.weights[task][row, expert]
            rows.append((ablation.layer(row), expert, task, category, weight, before, after_T[task]))
    columns = ["layer", "expert", "task", "category", "weight", "before", "after"]
    table = pd.DataFrame(rows, columns=columns)
    return with_others(table.assign(drop=table["before"] - table["after"]), "task")


def with_others(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Returns the table with a column others: the mean drop of all other rows of the group, NaN if none."""
    drops = table.groupby(group, observed=True, sort=False)["drop"]
    total, count = drops.transform("sum"), drops.transform("size")
    return table.assign(others=(total - table["drop"]) / (count - 1).where(count > 1))


def category_drops(tasks: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns a row per expert and category (then "all"): tasks, users (tasks that give the expert USED or
    more), drop (mean over the tasks), others (mean drop of the other experts: what a random one costs)."""
    kinds = ["layer", "expert", "category"]
    grouped = in_categories(tasks, ontology).groupby(kinds, sort=False, observed=True)
    users = ("weight", lambda weights: int((weights >= USED).sum()))
    table = grouped.agg(tasks=("drop", "size"), users=users, drop=("drop", "mean")).reset_index()
    table = with_others(table, "category")
    return table.assign(category=table["category"].astype(str))


def feature_table(
    ablation: Ablation,
    by_feature: Mapping[str, ExpertSet],
    scores_ST: pd.DataFrame,
    features: Features,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and group of tasks: experts (of the feature), group, tasks (their number), drop (mean
    without these experts), weight (mean of these experts in the routes of the tasks).

    Groups: "with feature", "without feature" (tasks that have and lack it), categories, "all".
    """
    rows, weights = [], ablation.weights
    for feature, experts in by_feature.items():
        name = ablation.name(experts)
        drops_T = scores_ST.loc["base"] - scores_ST.loc[name]
        for group, tasks in groups_of(ablation.tasks, feature, features, ontology).items():
            weight = np.mean([weights[task][expert] for task in tasks for expert in experts])
            rows.append((feature, name, group, len(tasks), drops_T[tasks].mean(), weight))
    return pd.DataFrame(rows, columns=["feature", "experts", "group", "tasks", "drop", "weight"])


def groups_of(tasks: Sequence[str], feature: str, features: Features, ontology: Ontology) -> dict[str, list]:
    """Returns {group: its tasks}, without empty groups. A numeric feature has only "all" and categories."""
    value = dict(zip(features.tasks, features.column(feature), strict=True))
    groups = {}
    if features.is_binary(feature):
        groups["with feature"] = [task for task in tasks if value.get(task) == 1]
        groups["without feature"] = [task for task in tasks if value.get(task) == 0]
    for task in ontology.order(tasks):
        groups.setdefault(ontology.category(task)[0], []).append(task)
    groups["all"] = list(tasks)
    return {group: members for group, members in groups.items() if members}
