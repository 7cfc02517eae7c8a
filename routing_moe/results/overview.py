"""One table of compared runs: a row per variant with size, cost, mean scores and recovery of routes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems
from routing_moe.model.task_vectors import NOTHING
from routing_moe.results.compared_costs import RunCost, means_of_variants
from routing_moe.results.few_shot import read_summary
from routing_moe.results.markdown import markdown_table, mean_and_std, whole
from routing_moe.results.runs import Run, comparison_problems, find_runs
from routing_moe.results.scores import ScoresFile

GIVEN_ROUTE = "given route"
# {column: the scores in it}: train tasks, and unseen tasks without training on them
SCORED = {"dev": ScoresFile("dev"), "test": ScoresFile("test"), "unseen": ScoresFile("test", section="test")}
SIZES = {"total_parameters": "parameters", "active_parameters": "active"}
COSTS = SIZES | {"steps": "steps", "gflops": "GFLOPs"}
EXPLAINED = {  # {column: its explanation}
    "steps": "active: parameters that process one example. steps, GFLOPs: of training, with the start.",
    **dict.fromkeys(("dev", "test"), "dev, test: mean score of the train tasks; dev chose the checkpoint."),
    "unseen": "unseen: mean test score of tasks that were not trained on. read of unseen: what the choice\n"
    "of their routes has read of them, besides the inputs to answer.",
    "few_shot": "few-shot: mean test score of the tasks of --few_shot after fine-tuning on their train rows.",
    "ami": "AMI: adjusted mutual information of the routes' clusters and the true kinds of the train tasks:\n"
    "0 by chance, 1 if they agree; - if all tasks have the same route.",
}


def overview(
    runs: Mapping[str, Sequence[Run]], costs: Sequence[RunCost], recovery=None, few_shot=None
) -> pd.DataFrame:
    """Returns a row per variant: n, the means of COSTS, mean and sample std of scores, without empty columns.

    runs: {column of SCORED: all runs}. recovery: `recovery_of_runs`. few_shot: `few_shot_scores`.
    """
    table = pd.DataFrame({
        "variant": [cost.run.variant for cost in costs],
        **{name: [(cost.cost or {}).get(name, math.nan) for cost in costs] for name in SIZES},
        "steps": [cost.spent("steps") for cost in costs],
        "gflops": [cost.spent("total_flops") / 1e9 for cost in costs],
        **{name: [_mean_score(run) for run in scored] for name, scored in runs.items()},
    })  # fmt: skip
    if few_shot is not None:
        table["few_shot"] = [few_shot.get(str(cost.run), math.nan) for cost in costs]
    if recovery is not None:
        for kind, rows in recovery.groupby("kind", sort=False):
            table[f"{kind}_ami"] = rows["ami"].to_numpy()
    scores = [name for name in table if name not in ("variant", *COSTS) and table[name].notna().any()]
    means = means_of_variants(table[["variant", *COSTS, *scores]])
    stds = table.groupby("variant", sort=False)[scores].agg(lambda values: values.std(skipna=False))
    for name in scores:
        means.insert(means.columns.get_loc(name) + 1, f"{name}_std", stds[name])
    if "unseen" in means:
        read = {run.variant: read_of_unseen(run) for run in runs["unseen"] if run.scores is not None}
        place = means.columns.get_loc("unseen_std") + 1
        means.insert(place, "unseen_read", [read.get(variant, "") for variant in means.index])
    return means.reset_index()


def table_of_runs(folders: Sequence[Path], checkpoint_name: str = "best", prefix: str = "") -> pd.DataFrame:
    """Returns the mean test scores of runs on train and unseen tasks, below those of the constant answer."""
    columns, problems = {}, []
    for words, section in (("train tasks", "train"), ("unseen tasks", "test")):
        file = ScoresFile("test", section, checkpoint_name, prefix)
        runs = find_runs(folders, file)
        problems += comparison_problems(runs)
        if scored := [run.scores for run in runs if run.scores is not None]:
            constant = scored[0].groupby("task_prefix")["constant"].mean()
            means = {str(run): _mean_score(run) for run in runs}
            columns[f"{words} ({len(constant)})"] = {"always the commonest answer": constant.mean()} | means
    if problems or not columns:
        raise InputError(dict.fromkeys(problems) or f"no run has {file.path}; write it with --do_predict")
    return pd.DataFrame(columns).rename_axis("mean test score")


def read_of_unseen(run: Run) -> str:
    """Returns what the routes of unseen tasks have read of them, such as "labelled rows of one sample"."""
    if "vector_seen" not in run.scores:
        return NOTHING  # routes do not depend on the task; its inputs may have its name
    if (run.scores["route"] == GIVEN_ROUTE).all():
        return GIVEN_ROUTE
    return ", ".join(sorted({str(seen).partition(":")[0] for seen in run.scores["vector_seen"]}))


def _mean_score(run: Run) -> float:
    if run.scores is None:
        return math.nan
    return run.scores.groupby("task_prefix")["performance"].mean().mean()


def few_shot_scores(folder: Path, runs: Sequence[Run]) -> dict[str, float]:
    """Returns {run: mean test score after fine-tuning} of the runs with <variant>/<run>/summary.csv."""
    files = {str(run): folder / run.variant / run.name / "summary.csv" for run in runs}
    files = {run: file for run, file in files.items() if file.is_file()}
    if not files:
        raise InputError(f"--few_shot {folder} holds no <variant>/<run>/summary.csv of the compared runs")
    problems = Problems()
    summaries = {run: problems.of(read_summary, file) for run, file in files.items()}
    if not problems:
        first, *others = summaries
        samples = {run: summary["n"].to_dict() for run, summary in summaries.items()}
        different = [run for run in others if samples[run] != samples[first]]
        problems += [f"{files[run]} has other tasks or samples than {files[first]}" for run in different]
    if problems:
        raise InputError(problems)
    return {run: summary["mean"].mean(skipna=False) for run, summary in summaries.items()}


def overview_markdown(table: pd.DataFrame) -> str:
    """Returns `overview`, or some of its columns, as Markdown."""
    rows = {}
    for row in table.to_dict("records"):
        cells = rows[row["variant"]] = {"n": str(row["n"])}
        cells |= {shown: whole(row[name]) for name, shown in COSTS.items() if name in row}
        for name in (name for name in table if f"{name}_std" in table):
            shown = f"AMI {name.removesuffix('_ami')}" if name.endswith("_ami") else name.replace("_", "-")
            cells[shown] = mean_and_std(row[name], row[f"{name}_std"])
            if name == "unseen" and "unseen_read" in row:
                cells["read of unseen"] = row["unseen_read"] or "-"
    return markdown_table(rows, "variant")


def explain_overview(table: pd.DataFrame) -> str:
    """Returns an explanation of the columns of `overview_markdown`."""
    columns = [*table, "ami"] if any(name.endswith("_ami") for name in table) else [*table]
    lines = dict.fromkeys(text for name, text in EXPLAINED.items() if name in columns)
    return "\n".join(["Means over n runs, with the sample std if n > 1.", *lines])
