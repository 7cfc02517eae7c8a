"""Predictions and scores of tasks as files and tables, and comparisons of variants over runs.

Scores are averaged by category and compared with a constant baseline. Comparisons have means, sample standard
deviations, and paired differences with intervals.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.baselines import constant_baseline
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.results.statistics import FEWEST_TASKS, TASKS_ALONE, holm, mean_interval

if TYPE_CHECKING:
    from routing_moe.evaluation.scored_files import TaskFile

SCORE_COLUMNS = ("task_prefix", "sample", "metric", "performance", "n", "constant")
CONSTANT = "constant answer"  # the baseline's name among the variants of a comparison
ALL = "all"  # the category that has all tasks


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
        return f"{self.checkpoint_name}/{self._start}{self.part}-performance.csv"

    @property
    def datasets_path(self) -> str:
        """Path of the scores per data set, if tasks are templates of data sets."""
        return f"{self.checkpoint_name}/{self._start}{self.part}-datasets.csv"

    @property
    def settings_path(self) -> str:
        """Path of the settings of the command that wrote the scores."""
        return f"{self.checkpoint_name}/{self._start}settings.json"

    @property
    def _start(self) -> str:
        return f"{self.prefix}eval-" + ("" if self.section == "train" else f"{self.section}_tasks-")


def write_predictions(
    folder: Path, prefix: str, files: list["TaskFile"], predictions: list, option_scores: list | None = None
) -> None:
    """Writes `<prefix><sample>_<part>.jsonl` for each file; see `prediction_lines` for its format.

    predictions: for each file a list of draws (usually one). option_scores: for each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, draws, scores in zip(files, predictions, option_scores or [None] * len(files), strict=True):
        lines = prediction_lines(file, draws, scores)
        write_text(folder / f"{prefix}{file.sample}_{file.part}.jsonl", lines)


def prediction_lines(file: "TaskFile", draws: list, option_scores: list[dict | None] | None = None) -> str:
    """Returns JSON lines with input, prediction and answers, and predictions of further draws in other_draws.

    option_scores: for each example the scores of its options in the first draw, written as scores, or None if
    the answer was generated.
    """
    first, *others = draws
    lines = []
    for i, example in enumerate(file.examples):
        line = {"input": example.input, "prediction": first[i], "answers": list(example.outputs)}
        if others:
            line["other_draws"] = [texts[i] for texts in others]
        if option_scores and option_scores[i]:
            line["scores"] = option_scores[i]
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def constant_scores(files: list["TaskFile"], *gyms: Gym) -> list[float | None]:
    """Returns for each file the metric of always predicting the task's most frequent training answer.

    The training examples come from the first gym that has the task; None if no gym has it.
    """
    return [_constant_score(file, gyms) for file in files]


def _constant_score(file: "TaskFile", gyms: tuple[Gym, ...]) -> float | None:
    for gym in gyms:
        with contextlib.suppress(InputError):
            return constant_baseline(gym.examples(file.task, "train", "all"), file.examples, file.metric)
    return None


def read_scores(path: Path) -> pd.DataFrame:
    """Returns the scores that `--do_predict` wrote: task_prefix, sample, metric, performance, n, constant.

    Raises InputError that names the file if it is missing, broken or lacks scores.
    """
    scores = read_table(path, index_col=0, dtype={"task_prefix": str, "sample": str, "metric": str})
    lacking = [name for name in SCORE_COLUMNS if name not in scores]
    if lacking:
        raise InputError(f"{path}: was not written by --do_predict (no column {', '.join(lacking)})")
    check_numbers(scores, ("performance", "n", "constant"), path)
    if scores.empty or not np.isfinite(scores[["performance", "n"]]).all(axis=None):
        raise InputError(f"{path} holds " + ("no scores" if scores.empty else "a task without a score"))
    return scores


def category_table(scores: dict[str, pd.DataFrame], ontology: Ontology) -> pd.DataFrame:
    """Returns mean dev and test scores per category, with the constant baseline. All tasks have equal weight.

    scores: {"dev": ..., "test": ...}, tables with columns task_prefix, performance and constant. One row
    per category in the ontology's order, then "all"; columns tasks, then score and constant of each part.
    """
    parts = {}
    for part, table in scores.items():
        tasks = table.groupby("task_prefix")[["performance", "constant"]].mean().reset_index(names="task")
        grouped = in_categories(tasks, ontology).groupby("category", observed=True)
        parts["tasks"] = grouped.size()
        parts[part] = grouped["performance"].mean()
        parts[f"{part}, constant"] = grouped["constant"].mean()
    return pd.DataFrame(parts).rename(index=str).rename_axis("category")


def in_categories(table: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the rows of `table` (which has a column task) by category, and all of them again as "all".

    The new column category is categorical, in the ontology's order, so that groups have that order.
    """
    kinds = [ontology.category(task)[0] for task in table["task"]]
    order = list(dict.fromkeys([*ontology.categories, UNCATEGORISED[0], ALL]))
    both = pd.concat([table.assign(category=kinds), table.assign(category=ALL)], ignore_index=True)
    return both.assign(category=pd.Categorical(both["category"], categories=order))


def markdown_table(table: pd.DataFrame, digits: int = 3) -> str:
    """Returns a data frame as a Markdown table whose columns are also aligned in a terminal."""
    header = [table.index.name or "", *map(str, table.columns)]
    rows = [[str(name), *(_cell(value, digits) for value in row)] for name, *row in table.itertuples()]
    widths = [max(2, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Iterable[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(line(cells) for cells in [header, rule, *rows])


def _cell(value, digits: int) -> str:
    return str(value) if isinstance(value, int | str) else f"{value:.{digits}f}"


# ---------------------------------------------------------------------------- variants over runs
#
# Below, `scores` has one row per run and task: variant, run, seed, task, performance, constant.


def means_per_run(scores: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the mean over the tasks of each category and of all tasks, with equal weights, for each run.

    Columns variant, run, seed, category, tasks (their number), mean; variants in the order of `scores`.
    """
    keys = ["variant", "run", "seed", "category"]
    grouped = in_categories(scores, ontology).groupby(keys, sort=False, observed=True)
    table = grouped["performance"].agg(tasks="size", mean="mean").reset_index()
    rank = {variant: rank for rank, variant in enumerate(scores["variant"].unique())}
    order = table.assign(variant=table["variant"].map(rank)).sort_values(["variant", "seed", "category"])
    return table.loc[order.index].reset_index(drop=True)


def means_over_runs(per_run: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean and sample std (NaN for one run) of `means_per_run` over the n runs of a variant."""
    grouped = per_run.groupby(["variant", "category"], sort=False, observed=True)
    columns = dict(tasks=("tasks", "first"), mean=("mean", "mean"), std=("mean", "std"), n=("mean", "size"))
    return grouped.agg(**columns).reset_index()


def constant_means(scores: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the mean constant score of each category and of all tasks; NaN if a task has none.

    Has no n, because the baseline has no runs.
    """
    tasks = in_categories(scores.drop_duplicates("task"), ontology)
    grouped = tasks["constant"].astype(float).groupby(tasks["category"], observed=True)
    table = grouped.agg(tasks="size", mean=lambda values: values.mean(skipna=False)).reset_index()
    return table.assign(variant=CONSTANT)


def paired_by_seed(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Returns score minus baseline score of the same seed: a row per variant and task, a column per seed.

    NaN if one of the two has no run with that seed.
    """
    table = scores.pivot(index=["variant", "task"], columns="seed", values="performance")
    others = table.drop(index=baseline, level="variant")
    return others - table.loc[baseline].reindex(others.index.get_level_values("task")).to_numpy()


def paired_differences(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Returns the mean of `paired_by_seed` over common seeds. Columns variant, task, difference, pairs."""
    differences = paired_by_seed(scores, baseline)
    columns = {"difference": differences.mean(axis=1), "pairs": differences.count(axis=1)}
    return pd.DataFrame(columns).reset_index()


def mean_differences(scores: pd.DataFrame, ontology: Ontology, baseline: str) -> pd.DataFrame:
    """Returns the mean of `paired_differences` per category, with its interval and p-value.

    Columns variant, category, difference, low, high (`statistics.mean_interval` over seeds and tasks), pairs,
    p (two-sided, of the corresponding t test), p_holm (over the variants of a category), interval (what it
    covers, or why there is none).
    """
    rows = []
    by_seed = paired_by_seed(scores, baseline)
    tasks = in_categories(paired_differences(scores, baseline), ontology)
    for (variant, category), group in tasks.groupby(["variant", "category"], sort=False, observed=True):
        # Finished runs have the same tasks, so a seed has scores of all tasks or of none.
        values_TS = by_seed.loc[[(variant, task) for task in group["task"]]].dropna(axis="columns")
        found = mean_interval(values_TS.to_numpy().T)
        numbers = (group["difference"].mean(), found.low, found.high, int(group["pairs"].min()), found.p)
        rows.append((variant, category, *numbers, found.over))
    columns = ["variant", "category", "difference", "low", "high", "pairs", "p", "interval"]
    table = pd.DataFrame(rows, columns=columns)
    corrected = table.groupby("category", observed=True)["p"].transform(holm)
    table.insert(columns.index("interval"), "p_holm", corrected)
    return table


def comparison_table(scores: pd.DataFrame, ontology: Ontology, baseline: str | None = None) -> pd.DataFrame:
    """Returns one row per variant and category, then those of the constant answer.

    Columns variant, category, tasks, mean, std, n; with a baseline also the columns of `mean_differences`,
    which are empty for the baseline.
    """
    table = means_over_runs(means_per_run(scores, ontology))
    table = pd.concat([table, constant_means(scores, ontology)], ignore_index=True)
    table["category"] = table["category"].astype(str)
    if baseline is not None:
        differences = mean_differences(scores, ontology, baseline).astype({"category": str})
        table = table.merge(differences, how="left", on=["variant", "category"])
    return table.astype({name: "Int64" for name in ("n", "pairs") if name in table})


def explain_comparison(what: str, checkpoint: str, baseline: str | None, draws: dict[str, int]) -> str:
    """Returns an explanation of `comparison_markdown`.

    draws: {variant: number of draws of routes that its scores are means of}.
    """
    lines = [
        f"{what.capitalize()}, checkpoint {checkpoint}: mean ± sample std over n runs with",
        "different seeds. All tasks have equal weight; the number of tasks is in brackets.",
        f"{CONSTANT.capitalize()}: each task's most frequent training answer.",
    ]
    if baseline is not None:
        lines += [
            f"Minus {baseline}: differences between runs with the same seed, mean over seeds and tasks; in",
            "brackets the 95% two-way t interval over seeds and tasks (with one seed, over tasks only, not",
            f"covering other seeds), none below {FEWEST_TASKS} tasks. p: the corresponding t test; p (Holm):",
            "corrected for the number of variants. If few tasks account for the effect, intervals are too",
            "narrow.",
        ]
    lines += [f"Scores of {variant} are means over {n} draws of its routes." for variant, n in draws.items()]
    return "\n".join(lines)


def comparison_markdown(table: pd.DataFrame, baseline: str | None = None) -> str:
    """Returns `comparison_table` as Markdown: a row per variant, a column per category."""
    rows = {}
    for variant, group in table.groupby("variant", sort=False):
        n = group["n"].iloc[0]
        row = {"n": "" if pd.isna(n) else str(n)}
        row |= {f"{x.category} ({x.tasks})": mean_and_std(x.mean, x.std) for x in group.itertuples()}
        if baseline is not None:
            last = group.iloc[-1]
            row[f"all, minus {baseline}"] = _difference(last)
            row |= {"p": shown_p(last["p"]), "p (Holm)": shown_p(last["p_holm"])}
        rows[variant] = row
    return markdown_table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant"))


def mean_and_std(mean: float, std: float) -> str:
    """Returns "0.123 ± 0.045", "0.123" if the std is NaN, "-" if the mean is NaN."""
    if np.isnan(mean):
        return "-"
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def shown_p(p: float) -> str:
    """Returns a p-value such as "0.012", "<0.001", or "" for NaN."""
    return "" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _difference(row: pd.Series) -> str:
    """Returns "+0.027 [+0.002, +0.057]", marked if it covers tasks only, or the reason for no interval."""
    if np.isnan(row["difference"]):
        return row["interval"] if isinstance(row["interval"], str) else ""
    if np.isnan(row["low"]):
        return f"{row['difference']:+.3f}, {row['interval']}"
    over = f" ({TASKS_ALONE} alone)" if row["interval"] == TASKS_ALONE else ""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{over}"
