"""Scores of tasks as files; mean scores by category and data set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from dataloader.ontology import ALL, UNCATEGORISED, Ontology
from dataloader.templates import dataset_of
from routing_moe.config.measures import BASELINES, MEASURES, PERFORMANCE, further
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.results.markdown import markdown_table

DEV_COLUMNS = ("task_prefix", "sample", "metric", "n")  # of an evaluation during training
SCORE_COLUMNS = (*DEV_COLUMNS, PERFORMANCE, "constant")


@dataclass(frozen=True)
class ScoresFile:
    """Identifies a scores file of a run: checkpoint, part (dev or test files) and section of the split."""

    part: str = "test"
    section: str = "train"
    checkpoint_name: str = "best"
    prefix: str = ""

    @property
    def path(self) -> str:
        """Path relative to the run folder."""
        return self._path(f"{self.part}-performance.csv")

    @property
    def datasets_path(self) -> str:
        """Path of the scores per data set, if tasks are templates of data sets."""
        return self._path(f"{self.part}-datasets.csv")

    @property
    def settings_path(self) -> str:
        """Path of the settings of the command that wrote the scores."""
        return self._path("settings.json")

    def _path(self, end: str) -> str:
        section = "" if self.section == "train" else f"{self.section}_tasks-"
        return f"{self.checkpoint_name}/{self.prefix}eval-{section}{end}"


def read_scores(path: Path, columns: Sequence[str] = SCORE_COLUMNS) -> pd.DataFrame:
    """Returns the scores that `--do_predict`, or an evaluation during training, wrote: a row per sample.

    Raises InputError that names the file if it is missing, broken, or lacks a column or a score.
    """
    types = dict.fromkeys(("task_prefix", "sample", "metric"), str)  # a task may be called "NA" or "nan"
    scores = read_table(path, index_col=0, dtype=types, keep_default_na=False, na_values=[""])
    if lacking := ", ".join(name for name in columns if name not in scores):
        raise InputError(f"{path}: was not written by --do_predict or during training (no column {lacking})")
    numbers = [name for name in ("n", *BASELINES, *MEASURES) if name in scores]
    check_numbers(scores, numbers, path)
    scores = scores.assign(**{name: math.nan for name in BASELINES if name not in scores})
    finite = [name for name in (PERFORMANCE, "n") if name in scores]
    if scores.empty or not np.isfinite(scores[finite]).all(axis=None):
        raise InputError(f"{path} holds " + ("no scores" if scores.empty else "a task without a score"))
    return scores


def category_table(scores: dict[str, pd.DataFrame], ontology: Ontology) -> pd.DataFrame:
    """Returns mean dev and test scores per category, with baselines and measures, then "all".

    scores: {"dev": ..., "test": ...}. All tasks have equal weight; the mean of chance is over tasks with
    options.
    """
    parts = {}
    for part, table in scores.items():
        others = with_values(table, (*BASELINES, *further(table)))
        tasks = table.groupby("task_prefix")[["performance", *others]].mean().reset_index(names="task")
        grouped = in_categories(tasks, ontology).groupby("category", observed=True)
        parts["tasks"] = grouped.size()
        parts[part] = grouped["performance"].mean()
        parts |= {f"{part}, {name.replace('_', ' ')}": grouped[name].mean() for name in others}
    return pd.DataFrame(parts).rename(index=str).rename_axis("category")


def dataset_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per data set with statistics over its templates, the tasks `<data set>__<template>`."""
    baselines = with_values(scores, BASELINES)
    means = {"score": (PERFORMANCE, "mean")} | {name: (name, "mean") for name in baselines}
    tasks = scores.groupby("task_prefix", sort=False).agg(metric=("metric", "first"), **means)
    grouped = tasks.groupby(dataset_of, sort=False)
    metrics = grouped["metric"].agg(lambda names: ", ".join(names.unique()))
    over = grouped["score"].agg(templates="size", mean="mean", median="median", min="min", max="max")
    table = pd.concat([metrics, over, grouped[baselines].mean()], axis=1)
    return table.rename_axis("dataset").reset_index()


def datasets_markdown(scores: dict[str, pd.DataFrame]) -> str:
    """Returns the `dataset_scores` of {"dev": scores, "test": scores} as Markdown, and their means."""
    tables = {part: dataset_scores(table).set_index("dataset") for part, table in scores.items()}
    shown = {"templates": tables["test"]["templates"].astype(str)}
    for part, table in tables.items():
        names = ("mean", "median", *with_values(table, BASELINES))
        shown |= {f"{part}, {name}": table[name] for name in names}
    shown = pd.DataFrame(shown)
    shown.loc["mean of the data sets"] = {"templates": "", **shown.drop(columns="templates").mean()}
    text = "Mean and median over the templates of each data set; in the last row, each data set counts once."
    return f"{text}\n\n{markdown_table(shown.rename_axis('data set'))}"


def mean_score(scores: pd.DataFrame | None, measure: str = PERFORMANCE) -> float:
    """Returns the mean over tasks of the mean over a task's samples; NaN without scores."""
    return math.nan if scores is None else float(scores.groupby("task_prefix")[measure].mean().mean())


def with_values(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Returns the names of columns that the table has with some value."""
    return [name for name in names if name in table and table[name].notna().any()]


def in_categories(table: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the rows (with a column task) by category in the ontology's order, and all again as "all"."""
    kinds = [ontology.category(task)[0] for task in table["task"]]
    order = list(dict.fromkeys([*ontology.categories, UNCATEGORISED[0], ALL]))
    both = pd.concat([table.assign(category=kinds), table.assign(category=ALL)], ignore_index=True)
    return both.assign(category=pd.Categorical(both["category"], categories=order))
