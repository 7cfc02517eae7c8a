"""Scores of data sets over their templates, which are tasks named `<data set>__<template>`.

A template's score is the mean over its samples. A task without templates is a data set with one template.
"""

import math

import pandas as pd

from dataloader.errors import InputError
from dataloader.templates import dataset_of
from routing_moe.results.gains import gains_per_task
from routing_moe.results.markdown import markdown_table
from routing_moe.results.scores import BASELINES, with_values

ALL = "mean of the data sets"


def dataset_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per data set, in the order of `scores`, with statistics over its templates.

    scores: columns task_prefix, metric, performance. Columns dataset, metric (several, if templates differ in
    it), templates (their number), mean, median, min, max, and the means of the BASELINES that scores have.
    """
    baselines = with_values(scores, BASELINES)
    means = {"score": ("performance", "mean")} | {name: (name, "mean") for name in baselines}
    tasks = scores.groupby("task_prefix", sort=False).agg(metric=("metric", "first"), **means)
    grouped = tasks.groupby(dataset_of, sort=False)
    over = grouped["score"].agg(["mean", "median", "min", "max"])
    metrics = grouped["metric"].agg(lambda names: ", ".join(names.unique()))
    parts = [metrics, grouped.size().rename("templates"), over, grouped[baselines].mean()]
    table = pd.concat(parts, axis=1)
    return table.rename_axis("dataset").reset_index()


def datasets_markdown(scores: dict[str, pd.DataFrame]) -> str:
    """Returns the `dataset_scores` of dev and test as Markdown with an explanation.

    scores: {"dev": ..., "test": ...}. The last row has the means over data sets.
    """
    tables = {part: dataset_scores(table).set_index("dataset") for part, table in scores.items()}
    shown = pd.DataFrame({"templates": next(iter(tables.values()))["templates"]})
    for part, table in tables.items():
        for name in ("mean", "median", *with_values(table, BASELINES)):
            shown[f"{part}, {name}"] = table[name]
    means = shown.drop(columns="templates").mean()
    shown = shown.astype({"templates": str})
    shown.loc[ALL] = {"templates": "", **means}
    lines = [
        "Mean and median over the templates of each data set. In the last row, each data set counts once;",
        "in the table above, each template counts as a task.",
    ]
    return "\n".join([*lines, "", markdown_table(shown.rename_axis("data set"))])


def gains_per_dataset(
    summaries: dict[str, pd.DataFrame], tasks: list[str], statistic: str, min_baseline: float
) -> pd.DataFrame:
    """Returns `gains_per_task` with a row per data set of `tasks`, and the column templates (their number).

    summaries: {name: `summaries.read_summary`}. statistic: "mean" or "median", over the templates' means. n
    is the smallest of the templates; the std is NaN for several templates. Raises InputError if templates of
    a data set have different metrics.
    """
    grouped, problems = {}, []
    for name, summary in summaries.items():
        datasets = summary.loc[tasks].groupby(dataset_of, sort=False)
        metrics = datasets["metric"].agg(lambda names: ", ".join(names.dropna().unique()))
        problems += [
            f"--group_templates {statistic}: {name}: templates of {dataset} have several metrics ({several})"
            for dataset, several in metrics.items()
            if "," in several
        ]
        stds = datasets["std"].agg(lambda values: values.iloc[0] if len(values) == 1 else math.nan)
        n = datasets["n"].agg(lambda values: values.min(skipna=False))
        grouped[name] = pd.DataFrame({"mean": datasets["mean"].agg(statistic), "std": stds, "n": n})
    if problems:
        raise InputError(problems)
    templates = datasets.size()
    table = gains_per_task(grouped, list(templates.index), min_baseline)
    return table.assign(templates=table["task"].map(templates))


def with_number_of_templates(per_dataset: pd.DataFrame) -> pd.DataFrame:
    """Returns `gains_per_dataset` with the number of templates, if there are several, in the names."""
    counts = [f" ({n} templates)" if n > 1 else "" for n in per_dataset["templates"]]
    return per_dataset.assign(task=per_dataset["task"] + counts)
