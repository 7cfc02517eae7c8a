"""Score drops of ablated experts, by task and category, and of a feature's experts next to matched ones.

A drop is the score before minus the score after: positive where the expert was useful.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.expert_sets import BASE, ExpertSet
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.matching import mean_weights
from routing_moe.analysis.features import Features
from routing_moe.results.scores import in_categories

USED = 0.05  # weight from which a task is called a user of an expert
Drops = dict[str, float]  # {task: mean drop over its files}


def drops_of(job: AblationJob, experts: ExpertSet) -> Drops:
    """Returns {task: drop without the experts}, 0 for tasks whose route is the same."""
    base, without = job.finished(BASE).scores, job.finished(experts).scores
    drops: dict[str, list[float]] = {}
    for file in job.evaluator.files:
        before = base[file.sample]
        drops.setdefault(file.task, []).append(before - without.get(file.sample, before))
    return {task: float(np.mean(values)) for task, values in drops.items()}


def task_table(job: AblationJob, singles: Sequence[ExpertSet], ontology: Ontology) -> pd.DataFrame:
    """A row per expert and task: layer, expert, task, category, weight (of the expert in the task's route),
    before, after, drop, others (mean drop of the task without each of the other experts, one at a time: what
    a random one would cost). Tasks in the ontology's order."""
    base, own = job.finished(BASE).scores, job.evaluator.routes()
    before: dict[str, list[float]] = {}
    for file in job.evaluator.files:
        before.setdefault(file.task, []).append(base[file.sample])
    rows = []
    for ((row, expert),) in singles:
        drops = drops_of(job, ((row, expert),))
        for task in ontology.order(job.evaluator.tasks):
            score = float(np.mean(before[task]))
            weight = float(own[task][row, expert])
            place = (job.layer(row), expert, task, ontology.category(task)[0])
            rows.append((*place, weight, score, score - drops[task], drops[task]))
    columns = ["layer", "expert", "task", "category", "weight", "before", "after", "drop"]
    return with_others(pd.DataFrame(rows, columns=columns), "task")


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


def feature_table(
    job: AblationJob,
    chosen: dict[str, ExpertSet],
    random_sets: Mapping[str, Sequence[ExpertSet]],
    features: Features,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and group of tasks: drops without the feature's experts and without matched sets.

    Groups: "with feature", "without feature" (tasks that have and lack it), categories, "all". random_sets:
    those of `matched_sets`. random_mean, random_std (sample std over the sets), draws (their number); p: (1 +
    sets that drop as much or more) / (1 + draws), NaN where there is no set. weight, random_weight: mean
    weight of the feature's experts, and of the sets', in the routes of the group's tasks.
    """
    rows, routes = [], job.evaluator.routes()
    dropped = cache(lambda experts: drops_of(job, experts))  # features share sets
    for feature, experts in chosen.items():
        drops = dropped(experts)
        sets = random_sets[feature]
        others = [dropped(own) for own in sets]
        for group, tasks in groups_of(job.evaluator.tasks, feature, features, ontology).items():
            drop = float(np.mean([drops[task] for task in tasks]))
            drawn = np.array([np.mean([own[task] for task in tasks]) for own in others])
            spread = float(drawn.std(ddof=1)) if len(drawn) > 1 else np.nan
            p = (1 + int((drawn >= drop - 1e-9).sum())) / (1 + len(drawn)) if len(drawn) else np.nan
            mean = float(drawn.mean()) if len(drawn) else np.nan
            weights_LE = mean_weights(routes, tasks)
            weight, *weights = (_weight(weights_LE, own) for own in (experts, *sets))
            random_weight = float(np.mean(weights)) if weights else np.nan
            numbers = (len(tasks), drop, mean, spread, len(drawn), p, weight, random_weight)
            rows.append((feature, job.name(experts), group, *numbers))
    columns = ["tasks", "drop", "random_mean", "random_std", "draws", "p", "weight", "random_weight"]
    return pd.DataFrame(rows, columns=["feature", "experts", "group", *columns])


def _weight(weights_LE: np.ndarray, experts: ExpertSet) -> float:
    return float(np.mean([weights_LE[expert] for expert in experts]))


def feature_task_table(
    job: AblationJob,
    chosen: dict[str, ExpertSet],
    random_sets: Mapping[str, Sequence[ExpertSet]],
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and task: drop without the feature's experts, random_mean and random_std without the
    sets that are matched to them."""
    rows = []
    dropped = cache(lambda experts: drops_of(job, experts))
    for feature, experts in chosen.items():
        drops = dropped(experts)
        others = [dropped(own) for own in random_sets[feature]]
        for task in ontology.order(job.evaluator.tasks):
            drawn = pd.Series([own[task] for own in others], dtype=float)
            category = ontology.category(task)[0]
            rows.append((feature, task, category, drops[task], drawn.mean(), drawn.std()))
    columns = ["feature", "task", "category", "drop", "random_mean", "random_std"]
    return pd.DataFrame(rows, columns=columns)


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
    return {group: own for group, own in groups.items() if own}
