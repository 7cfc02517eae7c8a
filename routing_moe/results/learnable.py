"""Which tasks can be learned: those that a stated model solves better than any baseline, on dev rows."""

import math
from collections.abc import Collection

import pandas as pd

from dataloader.errors import InputError
from dataloader.ontology import Ontology
from routing_moe.results.measures import NAMES
from routing_moe.results.scores import in_categories

LEARNABLE = "learnable"  # the category that has the learnable tasks
RULE = "NAME:MARGIN"  # of --learnable


def parsed_rule(rule: str) -> tuple[str, float]:
    """Returns the name and the margin of a rule such as "multitask:0.05". Raises InputError."""
    name, _, margin = rule.rpartition(":")
    try:
        number = float(margin)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise InputError(f"--learnable {rule}: expected {RULE}, such as multitask:0.05")
    return name, number


def learnable_tasks(scores: pd.Series, baselines: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Returns a row per task: task, dev_score, constant, chance, copy, best_baseline, learnable.

    A task is learnable if its dev score exceeds the best of its baselines by more than the margin; one
    without any baseline is not. scores: mean dev score of the stated model, by task. baselines: scores of
    these tasks on their dev files, with the columns task_prefix, constant, chance and copy.
    """
    best = baselines.groupby("task_prefix")[[*NAMES]].mean().reindex(scores.index)
    table = best.assign(best_baseline=best.max(axis=1))
    table.insert(0, "dev_score", scores)
    table["learnable"] = table["dev_score"] > table["best_baseline"] + margin
    return table.rename_axis("task").reset_index()


def baseline_problems(scores: pd.DataFrame, where: object) -> list[str]:
    """Returns a problem if scores lack the baselines; chance may be unknown, for tasks without options."""
    if "copy" in scores and scores["copy"].notna().any():
        return []
    return [f"--learnable: the dev scores of {where} lack chance and copy; score its dev files again"]


def explain_learnable(table: pd.DataFrame, name: str, margin: float) -> str:
    """Returns what counts as learnable, and the names of these tasks."""
    names = list(table.loc[table["learnable"], "task"])
    return "\n".join([
        f"Learnable tasks ({len(names)} of {len(table)}): the mean dev score of {name} exceeds the best of",
        f"{', '.join(NAMES.values())} on the dev rows by more than {margin:g}. Test rows have no influence.",
        "Their p-values are a family of their own.",
        f"They are {', '.join(names) or 'none'}.",
    ])  # fmt: skip


def in_groups(
    table: pd.DataFrame, ontology: Ontology, learnable: Collection[str] | None = None
) -> pd.DataFrame:
    """Returns the rows of `scores.in_categories`, then those of the tasks of `learnable` as a category."""
    rows = in_categories(table, ontology)
    if learnable is None:
        return rows
    more = table[table["task"].isin(learnable)].assign(category=LEARNABLE)
    order = [*rows["category"].cat.categories, LEARNABLE]
    both = pd.concat([rows.astype({"category": str}), more], ignore_index=True)
    return both.assign(category=pd.Categorical(both["category"], categories=order))
