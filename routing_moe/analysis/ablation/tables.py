"""Score drops of ablated experts, by task and category, and of the experts of features.

    scores_ST = job.scores(sets)    # a row per set of experts (its name, "base" for none), a column per task
    drops_ST = scores_ST.loc["base"] - scores_ST

A drop is the score before minus the score after: positive where the expert was useful. All tables derive from
these, so that the scores are read once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.expert_sets import ExpertSet
from routing_moe.analysis.features import Features
from routing_moe.results.scores import in_categories

if TYPE_CHECKING:  # it imports torch; readers of the tables do not need it
    from routing_moe.analysis.ablation.job import AblationJob

USED = 0.05  # weight from which a task is called a user of an expert


def task_table(
    job: AblationJob, singles: Sequence[ExpertSet], scores_ST: pd.DataFrame, ontology: Ontology
) -> pd.DataFrame:
    """A row per expert and task: layer, expert, task, category, weight (of the expert in the task's route),
    before, after, drop, others (mean drop of the task without each of the other experts, one at a time: what
    a random one would cost)."""
    before_T, weights, tables = scores_ST.loc["base"], job.evaluator.weights, []
    for ((row, expert),) in singles:
        table = by_task(job.name(((row, expert),)), scores_ST, ontology).rename(columns={"value": "after"})
        table.insert(2, "weight", [weights[task][row, expert] for task in table["task"]])
        table.insert(3, "before", before_T.array)
        table.insert(0, "layer", job.layer(row))
        table.insert(1, "expert", expert)
        tables.append(table.assign(drop=table["before"] - table["after"]))
    return with_others(pd.concat(tables, ignore_index=True), "task")


def by_task(name: str, values_ST: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the row of a set as a table of task, category and value."""
    categories = [ontology.category(task)[0] for task in values_ST]
    return pd.DataFrame(dict(task=values_ST.columns, category=categories, value=values_ST.loc[name].array))


def with_others(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Returns the table with a column others: the mean drop of all other rows of the group, NaN if none."""
    drops = table.groupby(group, observed=True, sort=False)["drop"]
    total, count = drops.transform("sum"), drops.transform("size")
    return table.assign(others=(total - table["drop"]) / (count - 1).where(count > 1))


def category_drops(tasks: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns a row per expert and category (then "all"): tasks, users (tasks that give the expert USED or
    more), drop (mean over the tasks), others (mean drop of the other experts: what a random one costs)."""
    grouped = in_categories(tasks, ontology).groupby(
        ["layer", "expert", "category"], sort=False, observed=True
    )
    table = grouped.agg(
        tasks=("drop", "size"), users=("weight", lambda w: int((w >= USED).sum())), drop=("drop", "mean")
    ).reset_index()
    table = with_others(table, "category")
    return table.assign(category=table["category"].astype(str))


def sets_table(
    heading: str, names: Mapping[str, str], drops_ST: pd.DataFrame, ontology: Ontology
) -> pd.DataFrame:
    """A row per set of experts and task: label (under the heading), task, category, drop. names: {label: name
    of the set}."""
    tables = {label: by_task(name, drops_ST, ontology) for label, name in names.items()}
    table = pd.concat(tables, names=[heading]).reset_index(level=0)
    return table.rename(columns={"value": "drop"})


def feature_table(
    job: AblationJob,
    chosen: Mapping[str, ExpertSet],
    drops_ST: pd.DataFrame,
    features: Features,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and group of tasks: experts (of the feature), group, tasks (their number), drop (mean
    without these experts), weight (mean of these experts in the routes of the tasks).

    Groups: "with feature", "without feature" (tasks that have and lack it), categories, "all".
    """
    rows, weights = [], job.evaluator.weights
    for feature, experts in chosen.items():
        name = job.name(experts)
        for group, tasks in groups_of(job.evaluator.tasks, feature, features, ontology).items():
            weight = np.mean([weights[task][expert] for task in tasks for expert in experts])
            rows.append((feature, name, group, len(tasks), drops_ST.loc[name, tasks].mean(), weight))
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
