"""The summaries that gains are computed from: tables of collect_results.py, or scores of `--do_predict`.

Both give a table with a row per task: mean and sample std (NaN for one sample) over its n samples, and the
metric, NaN if it is not known.
"""

import re
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, in_short
from dataloader.metrics import METRICS
from dataloader.templates import dataset_of
from routing_moe.io.csv_files import read_table
from routing_moe.results import few_shot
from routing_moe.results.scores import read_scores


def read_summary(path: str | Path, column: str = "test_performance") -> pd.DataFrame:
    """Returns the tasks of either kind of file, in its order, with mean, std, n and metric.

    A table of collect_results.py does not name its metrics: they are those of dataloader/metrics.json. Raises
    InputError like `few_shot.read_summary` and `scores.read_scores`, and for scores of the wrong part.
    """
    if "task_prefix" in read_table(path, nrows=0, encoding="utf-8-sig"):
        return _of_predictions(Path(path), column)
    summary = few_shot.read_summary(path, column)
    return summary.assign(metric=[METRICS.get(task, METRICS.get(dataset_of(task))) for task in summary.index])


def _of_predictions(path: Path, column: str) -> pd.DataFrame:
    part = re.search(r"(dev|test)-performance$", path.stem)
    if part and few_shot.PARTS[part[1]] != column:
        raise InputError(f"{path} holds {part[1]} scores, but --metric is {column}")
    scores = read_scores(path)
    keys = ["task_prefix", "sample"]
    if scores[[*keys, "metric"]].isna().any(axis=None):
        raise InputError(f"{path}: a row has no task_prefix, sample or metric")
    twice = scores.loc[scores.duplicated(keys), "sample"]
    if not twice.empty:
        raise InputError(f"{path} has more than one score of {in_short(list(twice))}; keep only one of them")
    grouped = scores.groupby("task_prefix", sort=False)
    table = grouped["performance"].agg(["mean", "std", "size"]).rename(columns={"size": "n"})
    metrics = grouped["metric"].agg(lambda names: ", ".join(names.unique()))
    return table.astype(float).assign(metric=metrics).rename_axis("task")


def mixed_metrics(summaries: dict[str, pd.DataFrame], tasks: list[str]) -> list[str]:
    """Returns an error naming the tasks whose scores are in different metrics, if any."""
    metrics = pd.DataFrame({name: summary["metric"].reindex(tasks) for name, summary in summaries.items()})
    mixed = metrics[metrics.nunique(axis=1) > 1]
    where = [
        f"{task} ({', '.join(f'{n} {m}' for n, m in row.dropna().items())})" for task, row in mixed.iterrows()
    ]
    if not where:
        return []
    of_tables = "a summary of collect_results.py has those of dataloader/metrics.json"
    return [f"scores in different metrics cannot be compared: {in_short(where)}; {of_tables}"]
