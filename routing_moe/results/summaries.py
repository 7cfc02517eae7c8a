"""The summaries that gains are computed from: tables of collect_results.py, or scores of `--do_predict`.

A table of collect_results.py has for each task a row per sample, then "mean" and "std" (columns task, entry,
SCORES, n, and TRAINING_COST if known). Those of the published code have empty rows between tasks, no n, and
the population std.
"""

import math
import re
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, in_short
from dataloader.metrics import METRICS
from dataloader.templates import dataset_of
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.results.scores import read_scores

SCORES = ("dev_performance", "test_performance")
PARTS = dict(zip(("dev", "test"), SCORES, strict=True))


def read_summary(path: str | Path, column: str = "test_performance") -> pd.DataFrame:
    """Returns a row per task, in the file's order: mean, sample std (NaN for one sample), n and metric.

    In a table without n, that is the number of sample rows, and the std is computed from them. Metrics of
    tables are those of dataloader/metrics.json. Tasks without options have no rank accuracy.
    """
    path = Path(path)
    is_table = "task_prefix" not in read_table(path, nrows=0)
    summary = _of_table(path, column) if is_table else _of_predictions(path, column)
    return summary.dropna(subset="mean") if column.endswith("rank_accuracy") else summary


def _of_table(path: Path, column: str) -> pd.DataFrame:
    rows = _rows(path, column)
    means = rows.loc[rows["entry"] == "mean", "task"]
    if twice := sorted(means[means.duplicated()].unique()):
        raise InputError(f"{path} has more than one mean of {in_short(twice)}; keep only one of them")
    if rows.empty:
        raise InputError(f"{path} holds no task")
    summary = rows.groupby("task", sort=False).apply(_of_task, column, include_groups=False)
    return summary.assign(metric=[METRICS.get(task, METRICS.get(dataset_of(task))) for task in summary.index])


def _rows(path: Path, *columns: str) -> pd.DataFrame:
    """Returns the rows of a table of collect_results.py that have a task. columns: of numbers."""
    numbers = {name: ["", "nan"] for name in (*columns, "n", *TRAINING_COST)}  # a task may be called "nan"
    texts = {"task": str, "entry": str}
    rows = read_table(path, dtype=texts, keep_default_na=False, na_values=numbers)
    if lacking := [name for name in ("task", "entry", *columns) if name not in rows]:
        names = ", ".join(lacking)
        raise InputError(f"{path} holds no summary as collect_results.py writes it: no column {names}")
    check_numbers(rows, [name for name in numbers if name in rows], path)
    return rows[rows["task"] != ""]


def _of_task(rows: pd.DataFrame, column: str) -> pd.Series:
    """Returns mean, sample std and n of one task's rows of a summary."""
    entries = rows.drop_duplicates("entry").set_index("entry")
    mean, std = (entries[column].get(name, math.nan) for name in ("mean", "std"))
    if "n" in entries:
        n = entries["n"].get("mean", math.nan)
    else:
        samples = entries[column].drop(["mean", "std"], errors="ignore")
        std, n = samples.std(ddof=1, skipna=False), len(samples) or math.nan
    return pd.Series({"mean": mean, "std": std, "n": n}, dtype=float)


def _of_predictions(path: Path, column: str) -> pd.DataFrame:
    part, _, measure = column.partition("_")
    in_file = re.search(r"(dev|test)-performance$", path.stem)
    if in_file and in_file[1] != part:
        raise InputError(f"{path} holds {in_file[1]} scores, but --metric is {column}")
    scores = read_scores(path)
    if measure not in scores:
        raise InputError(f"{path} has no {measure}; score it with --measures {measure}")
    twice = scores.loc[scores.duplicated(["task_prefix", "sample"]), "sample"]
    if not twice.empty:
        raise InputError(f"{path} has more than one score of {in_short(list(twice))}; keep only one of them")
    grouped = scores.groupby("task_prefix", sort=False)
    table = grouped[measure].agg(mean="mean", std="std", n="size").astype(float)
    metrics = grouped["metric"].agg(lambda names: ", ".join(names.unique()))
    return table.assign(metric=metrics).rename_axis("task")


def mixed_metrics(summaries: dict[str, pd.DataFrame], tasks: list[str]) -> str | None:
    """Returns an error naming the tasks whose scores are in different metrics, if any."""
    metrics = pd.DataFrame({name: summary["metric"].reindex(tasks) for name, summary in summaries.items()})
    mixed = metrics[metrics.nunique(axis=1) > 1]
    where = [
        f"{task} ({', '.join(f'{n} {m}' for n, m in row.dropna().items())})" for task, row in mixed.iterrows()
    ]
    hint = "a summary of collect_results.py has those of dataloader/metrics.json"
    return where and f"scores in different metrics cannot be compared: {in_short(where)}; {hint}"
