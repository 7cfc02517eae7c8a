"""Results of few-shot fine-tuning: a folder per task, the summary table, and summaries read back for gains.

    <logs_dir>/singletask-<task>/results.csv    or <logs_dir>/<task>/results.csv; published runs: result.csv
    <logs_dir>/singletask-<task>/run.json       optional: its settings list the expected samples

A results file has a row per configuration and, for each sample whose configurations have all finished, the
row "<sample>_best" of the one with the best dev score. Columns prefix, SCORES and others, in files of this
project also those of further measures, TRAINING_COST and select_by.

A summary has for each task a row per sample, then "mean" and "std" (columns task, entry, SCORES, n, and
TRAINING_COST if known). Those of the published code have empty rows between tasks, no n, and the population
std.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, in_short
from dataloader.metrics import METRICS
from dataloader.templates import dataset_of
from routing_moe.config.measures import PERFORMANCE, needed
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.io.files import folder_problem
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.markdown import markdown_table, mean_and_std
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.results.scores import read_scores

SCORES = ("dev_performance", "test_performance")
PARTS = dict(zip(("dev", "test"), SCORES, strict=True))
RESULT_FILES = ("results.csv", "result.csv")  # the first that exists is used
FOLDER_PREFIX = "singletask-"
BEST = "_best"  # suffix of the row, predictions and model of a sample's best configuration
SELECT_BY = "select_by"  # the column with the measure by whose dev values the best are chosen
MOST_NAMES = 8  # samples listed in one message


@dataclass(frozen=True)
class TaskResults:
    """best: scores and TRAINING_COST of each finished sample, NaN if missing. samples: all known."""

    task: str
    best: pd.DataFrame
    samples: tuple[str, ...]
    select_by: str = PERFORMANCE


def further_columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns with dev and test values of further measures, also of a plug-in."""
    return [name for name in table if name.partition("_")[0] in PARTS and name not in SCORES]


def find_results(logs_dir: str | Path, expected: Iterable[str] | None = None) -> dict[str, Path | None]:
    """Returns {task: its results file, or None if it has none}, sorted; only `expected` tasks if given."""
    logs_dir = Path(logs_dir)
    if problem := folder_problem(logs_dir):
        raise InputError(f"{problem}, expected one with a folder per task")
    files: dict[str, Path | None] = {}
    for folder in sorted(path for path in logs_dir.iterdir() if path.is_dir()):
        path = next((folder / name for name in RESULT_FILES if (folder / name).exists()), None)
        task = folder.name.removeprefix(FOLDER_PREFIX)
        if not task or (path is None and task == folder.name):
            continue
        if path is not None and files.get(task) is not None:
            raise InputError(f"{files[task]} and {path} both hold results of {task}; keep only one of them")
        files[task] = path or files.get(task)
    if not files and expected is None:
        places = f"{FOLDER_PREFIX}<task>/{RESULT_FILES[0]} or <task>/{RESULT_FILES[0]}"
        raise InputError(f"{logs_dir} holds no task folder (expected {places})")
    return {task: files.get(task) for task in sorted(files if expected is None else set(expected))}


def read_results(task: str, path: Path, postfix: str = BEST) -> TaskResults:
    """Returns the results of one task. postfix: ending of the prefix of rows of best configurations."""
    rows = read_table(path, dtype={"prefix": str})
    if lacking := [name for name in ("prefix", *SCORES) if name not in rows]:
        raise InputError(f"{path} holds no results of fine-tuning: no column {', '.join(lacking)}")
    if rows["prefix"].isna().any():
        raise InputError(f"{path}: a row has no prefix")
    numbers = [*SCORES, *further_columns(rows), *TRAINING_COST]
    check_numbers(rows, [name for name in numbers if name in rows], path)
    samples = rows["prefix"].str.removesuffix(postfix)
    is_best = samples != rows["prefix"]
    best = rows[is_best].set_index(samples[is_best]).reindex(columns=numbers).astype(float)
    if twice := list(best.index[best.index.duplicated()].unique()):
        names = in_short([f"{sample}{postfix}" for sample in twice])
        raise InputError(f"{path}: more than one row of {names}; keep only one of them")
    expected = (load_run_settings(path.parent) or {}).get("samples")
    expected = expected if isinstance(expected, list) else []
    selected = ", ".join(rows[SELECT_BY].astype(str).unique()) if SELECT_BY in rows else PERFORMANCE
    known = tuple(dict.fromkeys([*samples.str.removesuffix(BEST), *expected]))
    return TaskResults(task, best, known, selected)


def check_distinct(files: dict[str, Path | None], results: Sequence[TaskResults]) -> None:
    """Raises InputError for two folders with samples of one task, which would count twice in the mean."""
    folder_of: dict[str, str] = {}
    for folder in results:
        for task in (re.sub(r"_\d+_\d+$", "", sample) for sample in folder.samples):
            if (first := folder_of.setdefault(task, folder.task)) != folder.task:
                both = f"{files[first]} and {files[folder.task]} both hold results of {task}"
                raise InputError(f"{both}; keep only one of them there, or choose with --tasks")


def missing_results(files: dict[str, Path | None], results: Sequence[TaskResults]) -> list[str]:
    """Returns a line for each task without a file, or with missing samples or scores."""
    lines = [
        f"missing: {task}: no {FOLDER_PREFIX}{task}/{RESULT_FILES[0]} or {task}/{RESULT_FILES[0]}"
        for task, path in files.items()
        if path is None
    ]
    counts = Counter(len(task.samples) for task in results)
    usual = max(counts, key=lambda size: (counts[size], size), default=0)
    for task in results:
        lacking = {"best configuration": [name for name in task.samples if name not in task.best.index]}
        lacking |= {f"{part} score": list(task.best.index[task.best[c].isna()]) for part, c in PARTS.items()}
        reasons = [f"no {what}: {in_short(names, MOST_NAMES)}" for what, names in lacking.items() if names]
        if len(task.samples) < usual:
            reasons.append(f"number of samples is {len(task.samples)}, of other tasks {usual}")
        lines += [f"partial: {task.task}: {'; '.join(reasons)}"] if reasons else []
    return lines


def counted(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows used for means, so that both have the same n: with both SCORES, if none, with one."""
    both = scores.dropna(subset=list(SCORES))
    return scores.dropna(subset=list(SCORES), how="all") if both.empty else both


def summary_table(results: Sequence[TaskResults]) -> pd.DataFrame:
    """Returns a row per sample of each task (n = 1), then mean and sample std (NaN for n = 1) of its scores.

    Columns task, entry, SCORES, n; further measures, TRAINING_COST and select_by if they say anything.
    """
    further = list(dict.fromkeys(name for task in results for name in further_columns(task.best)))
    rows, scores, costs = [], [*SCORES, *further], list(TRAINING_COST)
    for task in results:
        scored = counted(task.best).reindex(columns=scores)
        if scored.empty:
            continue
        of_task = {"task": task.task, SELECT_BY: task.select_by}
        rows += [of_task | {"entry": name, **best, "n": 1} for name, best in task.best.iterrows()]
        rows.append(of_task | {"entry": "mean", "n": len(scored), **scored.mean()})
        rows[-1] |= task.best[costs].mean(skipna=False)
        rows.append(of_task | {"entry": "std", "n": len(scored), **scored.std(ddof=1)})
    table = pd.DataFrame(rows, columns=["task", "entry", *SCORES, "n", *further, *costs, SELECT_BY])
    unknown = [name for name in further if table[name].isna().all()]
    unknown += costs if table[costs].isna().all(axis=None) else []
    unknown += [SELECT_BY] if (table[SELECT_BY] == PERFORMANCE).all() else []
    return table.drop(columns=unknown)


def summary_markdown(table: pd.DataFrame) -> str:
    """Returns `summary_table` as Markdown with an explanation: a row per task, then the mean over tasks."""
    means, stds = (table[table["entry"] == entry].set_index("task") for entry in ("mean", "std"))
    shown = PARTS | {column.replace("_", " "): column for column in further_columns(table)}
    rows = {}
    for task, row in means.iterrows():
        cells = {name: mean_and_std(row[c], stds.loc[task, c]) for name, c in shown.items()}
        rows[task] = {**cells, "n": int(row["n"])}
    overall = counted(means)
    cells = {name: mean_and_std(overall[c].mean(), math.nan) for name, c in shown.items()}
    rows["mean of the tasks"] = {**cells, "n": len(overall)}
    explained = "Mean ± sample std over n samples; in the last row, mean of the means of n tasks."
    return f"{explained}\n\n{markdown_table(rows, 'task')}"


# ---- summaries read back


def read_summary(path: str | Path, column: str = "test_performance") -> pd.DataFrame:
    """Returns a row per task, in the file's order: mean, sample std (NaN for one sample), n and metric.

    In a table without n, that is the number of sample rows, and the std is computed from them. Metrics of
    tables are those of dataloader/metrics.json. Tasks without options have no value of a measure of options.
    """
    path = Path(path)
    is_table = "task_prefix" not in read_table(path, nrows=0)
    summary = _summary_of_table(path, column) if is_table else _summary_of_predictions(path, column)
    for name, values in ((column, summary[["mean", "std"]]), ("n", summary["n"])):
        if np.isinf(values.astype(float)).any(axis=None):
            raise InputError(f"{path}: column {name} holds an infinite number; correct or remove its row")
    if len(wrong := summary["n"][summary["n"] % 1 > 0]):
        raise InputError(f"{path}: column n holds {wrong.iloc[0]:g}; expected whole numbers of samples")
    of_options = "options" in needed([column.partition("_")[2]])
    return summary.dropna(subset="mean") if of_options else summary


def _summary_of_table(path: Path, column: str) -> pd.DataFrame:
    numbers = {name: ["", "nan"] for name in (column, "n")}  # a task may be called "nan"
    texts = {"task": str, "entry": str}
    rows = read_table(path, dtype=texts, keep_default_na=False, na_values=numbers)
    if lacking := ", ".join(name for name in ("task", "entry", column) if name not in rows):
        raise InputError(f"{path} holds no summary as collect_results.py writes it: no column {lacking}")
    check_numbers(rows, [name for name in numbers if name in rows], path)
    rows = rows[rows["task"] != ""]
    if rows.empty:
        raise InputError(f"{path} holds no task")
    means, stds = (rows[rows["entry"] == entry].set_index("task") for entry in ("mean", "std"))
    if twice := sorted(means.index[means.index.duplicated()].unique()):
        raise InputError(f"{path} has more than one mean of {in_short(twice)}; keep only one of them")
    summary = pd.DataFrame(index=pd.Index(rows["task"].unique(), name="task"))
    summary["mean"] = means[column]
    if "n" in rows:
        summary["std"], summary["n"] = stds[column], means["n"].astype(float)
    else:
        samples = rows[~rows["entry"].isin(["mean", "std"])].groupby("task")[column]
        summary["std"] = samples.agg(lambda scores: scores.std(ddof=1, skipna=False))
        summary["n"] = samples.size().astype(float)
    return summary.assign(metric=[METRICS.get(task, METRICS.get(dataset_of(task))) for task in summary.index])


def _summary_of_predictions(path: Path, column: str) -> pd.DataFrame:
    part, _, measure = column.partition("_")
    in_file = re.search(r"(dev|test)-performance$", path.stem)
    if in_file and in_file[1] != part:
        raise InputError(f"{path} holds {in_file[1]} scores, but --metric is {column}")
    scores = read_scores(path)
    if measure not in scores:
        raise InputError(f"{path} has no {measure}; score it with --measures {measure}")
    grouped = scores.groupby("task_prefix", sort=False)
    table = grouped[measure].agg(mean="mean", std="std", n="size").astype(float)
    metrics = grouped["metric"].agg(lambda names: ", ".join(names.unique()))
    return table.assign(metric=metrics).rename_axis("task")


def check_metrics(summaries: dict[str, pd.DataFrame], tasks: list[str]) -> None:
    """Raises InputError if scores of a task are in different metrics."""
    metrics = pd.DataFrame({name: summary["metric"].reindex(tasks) for name, summary in summaries.items()})
    if mixed := list(metrics.index[metrics.nunique(axis=1) > 1]):
        raise InputError(f"scores in different metrics cannot be compared: {in_short(mixed)}")
