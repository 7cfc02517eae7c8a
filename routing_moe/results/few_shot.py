"""Results of few-shot fine-tuning: reads one folder per task, writes and reads a summary table.

    <logs_dir>/singletask-<task>/results.csv    or <logs_dir>/<task>/results.csv; published runs: result.csv
    <logs_dir>/singletask-<task>/run.json       optional: its settings list the expected samples

A results file has a row per configuration (columns prefix, dev_performance, test_performance, and others).
For each sample whose configurations have all finished it also has the row "<sample>_best", the configuration
with the best dev score. A summary has for each task a row per sample, then "mean" and "std" (columns task,
entry, scores, n).
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, did_you_mean, in_short
from routing_moe.io.csv_files import read_table
from routing_moe.io.files import folder_fault
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.few_shot_costs import sample_costs, with_costs
from routing_moe.results.scores import markdown_table, mean_and_std

RESULT_FILES = ("results.csv", "result.csv")  # the first that exists is used
FOLDER_PREFIX = "singletask-"
BEST = "_best"  # suffix of the row, predictions and model of a sample's best configuration
SCORES = ("dev_performance", "test_performance")
PARTS = dict(zip(("dev", "test"), SCORES, strict=True))
SUMMARY_COLUMNS = ("task", "entry", *SCORES, "n")
MOST_NAMES = 8  # samples listed in one message


@dataclass(frozen=True)
class TaskResults:
    """Results of one task.

    best: SCORES of each finished sample, NaN if missing. samples: all known samples. never_scored: samples
    with rows but without any dev score. costs: `few_shot_costs.sample_costs` of `best`.
    """

    task: str
    path: Path
    best: pd.DataFrame
    samples: tuple[str, ...]
    never_scored: frozenset[str] = frozenset()
    costs: pd.DataFrame | None = None


# ---------------------------------------------------------------------------- folders


def find_results(logs_dir: str | Path, expected: list[str] | None = None) -> dict[str, Path | None]:
    """Returns {task: its results file, or None if it has none}, sorted; only `expected` tasks if given.

    A folder belongs to a task if it is named singletask-<task>, has a results file, or has an expected name;
    other files and folders are ignored. Raises InputError if the folder does not exist, if it has no task
    folder although no tasks are expected, or if two folders have results of one task.
    """
    logs_dir = Path(logs_dir)
    if fault := folder_fault(logs_dir):
        raise InputError(f"{fault}, expected one with a folder per task")
    found: dict[str, Path | None] = {}
    faults = []
    for folder in sorted(place for place in logs_dir.iterdir() if place.is_dir()):
        path = next((folder / name for name in RESULT_FILES if (folder / name).exists()), None)
        task = folder.name.removeprefix(FOLDER_PREFIX)
        if not task or (path is None and task == folder.name):
            continue
        if path is not None and found.get(task) is not None:
            faults.append(f"{found[task]} and {path} both hold results of {task}; keep only one of them")
        found[task] = path or found.get(task)
    if faults:
        raise InputError(faults)
    if not found and expected is None:
        raise InputError(
            f"{logs_dir} holds no task folder (expected {FOLDER_PREFIX}<task>/{RESULT_FILES[0]}"
            f" or <task>/{RESULT_FILES[0]})"
        )
    return {task: found.get(task) for task in sorted(found if expected is None else set(expected))}


def missing_tasks(logs_dir: str | Path, found: dict[str, Path | None]) -> list[str]:
    """Returns a line for each task of `find_results` that has no results file."""
    there = [place.name.removeprefix(FOLDER_PREFIX) for place in Path(logs_dir).iterdir() if place.is_dir()]
    lines = []
    for task in (task for task, path in found.items() if path is None):
        folders = [Path(logs_dir) / f"{FOLDER_PREFIX}{task}", Path(logs_dir) / task]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is not None:
            lines.append(f"missing: {task}: no {' or '.join(RESULT_FILES)} in {folder}")
        else:
            hint = did_you_mean(task, there)
            lines.append(f"missing: {task}: no folder {folders[0].name} or {task} in {logs_dir}{hint}")
    return lines


def read_all(found: dict[str, Path | None], postfix: str = BEST) -> list[TaskResults]:
    """Returns `read_results` of every task that has a file.

    Raises InputError with the faults of all files.
    """
    read, faults = [], []
    for task, path in found.items():
        try:
            read += [] if path is None else [read_results(task, path, postfix)]
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return read


def read_results(task: str, path: Path, postfix: str = BEST) -> TaskResults:
    """Returns the results of one task.

    postfix: ending of the prefix of the rows of best configurations. Raises InputError for a file that cannot
    be read, lacks a column, has a value that is not a number, or has two best rows for one sample; also for a
    damaged run.json.
    """
    rows = _read_table(path, ("prefix", *SCORES), "results of fine-tuning")
    rows = rows[(rows[["prefix", *SCORES]] != "").any(axis=1)]
    unnamed = [str(row + 1) for row in rows.index[rows["prefix"] == ""]]
    if unnamed:
        raise InputError(f"{path}: row {in_short(unnamed)} has no prefix")
    scores = _numbers(rows, SCORES, rows["prefix"], path)
    counts = rows["prefix"].str.endswith(postfix)
    best = scores[counts].set_index(rows.loc[counts, "prefix"].str.removesuffix(postfix))
    twice = list(best.index[best.index.duplicated()].unique())
    if twice:
        names = in_short([f"{sample}{postfix}" for sample in twice])
        raise InputError(f"{path}: more than one row of {names}; keep only one of them")
    others = rows["prefix"].str.removesuffix(postfix).str.removesuffix(BEST)
    settings = load_run_settings(path.parent) or {}
    named = settings.get("samples")
    expected = [sample for sample in named if isinstance(sample, str)] if isinstance(named, list) else []
    scored = scores[SCORES[0]].notna().groupby(others).any()
    never_scored = frozenset(scored.index[~scored])
    costs = sample_costs(rows[counts]).set_index(best.index)
    return TaskResults(task, path, best, tuple(dict.fromkeys([*others, *expected])), never_scored, costs)


def partial_tasks(read: list[TaskResults]) -> list[str]:
    """Returns a line for each task with missing samples or scores."""
    counts = Counter(len(results.samples) for results in read)
    usual = max(counts, key=lambda size: (counts[size], size), default=0)
    lines = []
    for results in read:
        without = [sample for sample in results.samples if sample not in results.best.index]
        unfinished = [sample for sample in without if sample not in results.never_scored]
        faults = [f"not finished: {in_short(unfinished, MOST_NAMES)}"] if unfinished else []
        if never_scored := [sample for sample in without if sample in results.never_scored]:
            faults.append(f"no configuration has a dev score: {in_short(never_scored, MOST_NAMES)}")
        for part, column in PARTS.items():
            unscored = list(results.best.index[results.best[column].isna()])
            faults += [f"no {part} score: {in_short(unscored, MOST_NAMES)}"] if unscored else []
        if len(results.samples) < usual:
            faults.append(f"number of samples is {len(results.samples)}, of other tasks {usual}")
        lines += [f"partial: {results.task}: {'; '.join(faults)}"] if faults else []
    return lines


# ---------------------------------------------------------------------------- the summary


def counted(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows used for means: those with both scores or, if there are none, those with one.

    So both means have the same n.
    """
    both = scores.dropna()
    return scores.dropna(how="all") if both.empty else both


def summary_table(read: list[TaskResults]) -> pd.DataFrame:
    """Returns SUMMARY_COLUMNS: each task's samples (n = 1), then their mean and sample std (NaN for n = 1).

    Tasks without scores are omitted. `few_shot_costs.with_costs` adds known costs.
    """
    rows = []
    for results in read:
        scores = counted(results.best)
        if scores.empty:
            continue
        rows += [(results.task, sample, *values, 1) for sample, *values in results.best.itertuples()]
        rows.append((results.task, "mean", *scores.mean(), len(scores)))
        rows.append((results.task, "std", *scores.std(ddof=1), len(scores)))
    table = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    return with_costs(table, {results.task: results.costs for results in read})


def summary_markdown(table: pd.DataFrame) -> str:
    """Returns `summary_table` as Markdown with an explanation: a row per task, then the mean over tasks."""
    means, stds = (table[table["entry"] == entry].set_index("task") for entry in ("mean", "std"))
    rows = {}
    for task, row in means.iterrows():
        cells = {part: mean_and_std(row[c], stds.loc[task, c]) for part, c in PARTS.items()}
        rows[task] = {**cells, "n": int(row["n"])}
    overall = counted(means[list(SCORES)])
    cells = {part: mean_and_std(overall[c].mean(), math.nan) for part, c in PARTS.items()}
    rows["mean of the tasks"] = {**cells, "n": len(overall)}
    shown = pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")
    explained = "Mean ± sample std over n samples; in the last row, mean of the means of n tasks."
    return f"{explained}\n\n{markdown_table(shown)}"


def read_summary(path: str | Path, metric: str = "test_performance") -> pd.DataFrame:
    """Returns the tasks of a summary, in the file's order, with mean, std and n of the metric (NaN if none).

    Also reads published summaries, which have empty rows between tasks, no n, and the population std. For
    these, n is the number of sample rows, and the sample std is computed from them.

    Raises InputError for another kind of file, a value that is not a number, a task with two means, or no
    task.
    """
    path = Path(path)
    rows = _read_table(path, ("task", "entry", metric), "summary as collect_results.py writes it")
    rows = rows[(rows["task"] != "") | (rows["entry"] != "")]
    names = rows["task"] + ", " + rows["entry"]
    rows[metric] = _numbers(rows, (metric,), names, path)[metric]
    if "n" in rows:
        rows["n"] = _numbers(rows, ("n",), names, path)["n"]
    means = rows[rows["entry"] == "mean"]
    twice = sorted(means.loc[means["task"].duplicated(), "task"].unique())
    if twice:
        raise InputError(f"{path} has more than one mean of {in_short(twice)}; keep only one of them")
    if rows.empty:
        raise InputError(f"{path} holds no task")
    tasks = {task: _task_summary(group, metric) for task, group in rows.groupby("task", sort=False)}
    return pd.DataFrame.from_dict(tasks, orient="index", columns=["mean", "std", "n"]).rename_axis("task")


def _task_summary(rows: pd.DataFrame, metric: str) -> tuple[float, float, float]:
    """Returns mean, sample std and n of one task's rows of a summary."""
    of = rows.drop_duplicates("entry").set_index("entry")
    mean = of[metric].get("mean", math.nan)
    if "n" in of:
        return mean, of[metric].get("std", math.nan), of["n"].get("mean", math.nan)
    samples = of[metric].drop(["mean", "std"], errors="ignore")
    return mean, samples.std(ddof=1, skipna=False), len(samples) or math.nan


# ---------------------------------------------------------------------------- one CSV file


def _read_table(path: Path, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    """Returns the file's cells as text (a task may be called "nan"). what: the kind of file, for errors."""
    table = read_table(path, dtype=str, keep_default_na=False, encoding="utf-8-sig").fillna("")
    lacking = [name for name in columns if name not in table]
    if lacking:
        there = in_short([str(name) for name in table if not str(name).startswith("Unnamed")], MOST_NAMES)
        lacks = f"no column {', '.join(lacking)} (it has {there or 'none'})"
        raise InputError(f"{path} holds no {what}: {lacks}")
    if not isinstance(table.index, pd.RangeIndex):  # pandas uses surplus fields as row names
        raise InputError(f"{path}: its rows have more fields than its header")
    return table.apply(lambda column: column.str.strip())


def _numbers(table: pd.DataFrame, columns: tuple[str, ...], names: pd.Series, path: Path) -> pd.DataFrame:
    """Returns the columns as numbers, NaN for empty cells.

    Raises InputError for other cells, with row and name.
    """
    faults, numbers = [], {}
    for column in columns:
        numbers[column] = [_number(text) for text in table[column]]
        for row, value in zip(table.index, numbers[column], strict=True):
            if value is None:
                where = f"row {row + 1} ({names[row]})"
                faults.append(f"{path}: {where}: {column} is {table.loc[row, column]!r}, expected a number")
    if faults:
        raise InputError(faults)
    return pd.DataFrame(numbers, index=table.index, dtype=float)


def _number(text: str) -> float | None:
    """Returns the number, NaN for an empty cell, None for anything else."""
    if text.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
