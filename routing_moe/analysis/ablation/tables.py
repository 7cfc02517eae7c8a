"""Score drops of ablated experts, by task and category, and of a feature's experts next to matched ones.

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
from routing_moe.analysis.ablation.matching import mean_weights
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


def sets_table(names: Sequence[str], drops_ST: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """A row per set of experts and task: experts, task, category, drop."""
    tables = {name: by_task(name, drops_ST, ontology).rename(columns={"value": "drop"}) for name in names}
    return pd.concat(tables, names=["experts"]).reset_index(level=0)


# ---------------------------------------------------------------------------- features


def feature_table(
    job: AblationJob,
    chosen: Mapping[str, ExpertSet],
    random_sets: Mapping[str, Sequence[ExpertSet]],
    drops_ST: pd.DataFrame,
    features: Features,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and group of tasks: drops without the feature's experts and without matched sets.

    Groups: "with feature", "without feature" (tasks that have and lack it), categories, "all". random_sets:
    those of `matched_sets`. random_mean, random_std (sample std over the sets), draws (their number); p: (1 +
    sets that drop as much or more) / (1 + draws), NaN where there is no set. weight, random_weight: mean
    weight of the feature's experts, and of the sets', in the routes of the group's tasks.
    """
    rows = []
    for feature, experts in chosen.items():
        sets, name = random_sets[feature], job.name(experts)
        random_RT = drops_ST.loc[[job.name(matched) for matched in sets]]
        for group, tasks in groups_of(job.evaluator.tasks, feature, features, ontology).items():
            drop, random_R = drops_ST.loc[name, tasks].mean(), random_RT[tasks].mean(axis=1)
            p = (1 + (random_R >= drop - 1e-9).sum()) / (1 + len(sets)) if sets else np.nan
            weights_LE = mean_weights(job.evaluator.weights, tasks)
            weight, *weights = (np.mean([weights_LE[e] for e in each_set]) for each_set in (experts, *sets))
            random = (random_R.mean(), random_R.std(), len(sets), p)
            random_weight = np.mean(weights) if sets else np.nan
            rows.append((feature, name, group, len(tasks), drop, *random, weight, random_weight))
    columns = ["tasks", "drop", "random_mean", "random_std", "draws", "p", "weight", "random_weight"]
    return pd.DataFrame(rows, columns=["feature", "experts", "group", *columns])


def feature_task_table(
    job: AblationJob,
    chosen: Mapping[str, ExpertSet],
    random_sets: Mapping[str, Sequence[ExpertSet]],
    drops_ST: pd.DataFrame,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and task: drop without the feature's experts, random_mean and random_std without the
    sets that are matched to them."""
    tables = {}
    for feature, experts in chosen.items():
        random_RT = drops_ST.loc[[job.name(matched) for matched in random_sets[feature]]]
        table = by_task(job.name(experts), drops_ST, ontology).rename(columns={"value": "drop"})
        tables[feature] = table.assign(random_mean=random_RT.mean().array, random_std=random_RT.std().array)
    return pd.concat(tables, names=["feature"]).reset_index(level=0)


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


def number_drawn(features: pd.DataFrame) -> str:
    """Returns how many sets the features of `feature_table` are compared with: "20" or "7 to 20"."""
    least, most = int(features["draws"].min()), int(features["draws"].max())
    return str(most) if least == most else f"{least} to {most}"
