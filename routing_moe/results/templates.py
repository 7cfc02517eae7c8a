"""Scores of data sets over their templates, which are tasks named `<data set>__<template>`.

A template's score is the mean over its samples. A task without templates is a data set with one template.
"""

import pandas as pd

from dataloader.templates import dataset_of
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
