"""One table of compared runs: a row per variant with size, cost, scores and route recovery.

table = overview(runs, costs, recovery)
print(overview_markdown(table))
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems
from routing_moe.model.task_vectors import NOTHING
from routing_moe.results.compared_costs import RunCost, means_of_variants
from routing_moe.results.compared_runs import Run, comparison_problems, find_runs
from routing_moe.results.markdown import markdown_table, mean_and_std, whole
from routing_moe.results.scores import ScoresFile
from routing_moe.results.summaries import read_summary

GIVEN_ROUTE = "given route"
# {column: the scores in it}: train tasks, and unseen tasks without training on them
SCORED = {"dev": ScoresFile("dev"), "test": ScoresFile("test"), "unseen": ScoresFile("test", section="test")}
COSTS = {
    "total_parameters": "parameters",
    "active_parameters": "active",
    "steps": "steps",
    "gflops": "GFLOPs",
}


def overview(
    runs: Mapping[str, Sequence[Run]],
    costs: Sequence[RunCost],
    recovery: pd.DataFrame | None = None,
    few_shot: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Returns a row per variant, in order: variant, n, the means of COSTS, mean and sample std of scores.

    runs: {column of SCORED: all runs, with these scores or None}. A score is the mean over tasks. few_shot:
    `few_shot_scores`, the column of this name. recovery: `recovery_of_runs`, whose AMI with a kind is in
    the columns KIND_ami, KIND_ami_std. NaN where a run of the variant has no value; a column that no run has
    is left out. steps and gflops include earlier runs. unseen_read: `read_of_unseen`, beside unseen.
    """
    table = pd.DataFrame([_costs(cost) for cost in costs])
    for name, scored in runs.items():
        table[name] = [_mean_score(run) for run in scored]
    if few_shot is not None:
        table["few_shot"] = [few_shot.get(str(cost.run), math.nan) for cost in costs]
    if recovery is not None:
        for kind, rows in recovery.groupby("kind", sort=False):
            table[f"{kind}_ami"] = rows["ami"].to_numpy()
    means, grouped = means_of_variants(table), table.groupby("variant", sort=False)
    for name in table.columns.drop(["variant", *COSTS]):
        if table[name].isna().all():
            del means[name]
        else:
            stds = grouped[name].agg(lambda values: values.std(skipna=False))
            means.insert(means.columns.get_loc(name) + 1, f"{name}_std", stds)
    if "unseen" in means:
        read = {run.variant: read_of_unseen(run) for run in runs["unseen"] if run.scores is not None}
        place = means.columns.get_loc("unseen_std") + 1
        means.insert(place, "unseen_read", [read.get(variant, "") for variant in means.index])
    return means.reset_index()


def table_of_runs(folders: Sequence[Path], checkpoint_name: str = "best", prefix: str = "") -> pd.DataFrame:
    """Returns the mean test scores of runs, below those of always the most frequent training answer.

    A column for the train tasks and, if a run has their scores, one for unseen tasks; their names have the
    number of tasks. Raises InputError if no run has scores, or if runs were scored on different tasks.
    """
    columns, problems = {}, []
    for words, section in (("train tasks", "train"), ("unseen tasks", "test")):
        file = ScoresFile("test", section, checkpoint_name, prefix)
        runs = find_runs(folders, file)
        problems += comparison_problems(runs)
        if scored := [run.scores for run in runs if run.scores is not None]:
            constant = scored[0].groupby("task_prefix")["constant"].mean()
            means = {"always the commonest answer": constant.mean()} | {
                str(run): _mean_score(run) for run in runs
            }
            columns[f"{words} ({len(constant)})"] = means
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


def _costs(cost: RunCost) -> dict:
    known = cost.cost or {}
    sizes = {name: known.get(name, math.nan) for name in ("total_parameters", "active_parameters")}
    spent = {"steps": cost.spent("steps"), "gflops": cost.spent("total_flops") / 1e9}
    return {"variant": cost.run.variant} | sizes | spent


def _mean_score(run: Run) -> float:
    if run.scores is None:
        return math.nan
    return run.scores.groupby("task_prefix")["performance"].mean().mean()


def few_shot_scores(folder: Path, runs: Sequence[Run]) -> dict[str, float]:
    """Returns {run: mean test score after few-shot fine-tuning} of the runs with <variant>/<run>/summary.csv.

    Raises InputError if there is no such file, one of collect_results.py cannot be read, or they are of
    different tasks or numbers of samples.
    """
    files = {str(run): folder / run.variant / run.name / "summary.csv" for run in runs}
    files = {run: file for run, file in files.items() if file.is_file()}
    if not files:
        raise InputError(f"--few_shot {folder} holds no <variant>/<run>/summary.csv of the compared runs")
    problems = Problems()
    summaries = {run: problems.of(read_summary, file) for run, file in files.items()}
    if not problems:
        (first, expected), *others = summaries.items()
        problems += (
            f"{files[run]} has other tasks or samples than {files[first]}"
            for run, summary in others
            if summary["n"].to_dict() != expected["n"].to_dict()
        )
    if problems:
        raise InputError(problems)
    return {run: summary["mean"].mean(skipna=False) for run, summary in summaries.items()}


def overview_markdown(table: pd.DataFrame) -> str:
    """Returns `overview`, or some of its columns, as Markdown."""
    scores = [name for name in table.columns if f"{name}_std" in table]
    rows = {}
    for row in table.to_dict("records"):
        cells = {"n": str(row["n"])}
        cells |= {shown: whole(row[name]) for name, shown in COSTS.items() if name in row}
        for name in scores:
            shown = f"AMI {name.removesuffix('_ami')}" if name.endswith("_ami") else name.replace("_", "-")
            cells[shown] = mean_and_std(row[name], row[f"{name}_std"])
            if name == "unseen" and "unseen_read" in row:
                cells["read of unseen"] = row["unseen_read"] or "-"
        rows[row["variant"]] = cells
    return markdown_table(rows, "variant")


def explain_overview(table: pd.DataFrame) -> str:
    """Returns an explanation of the columns of `overview_markdown`."""
    lines = ["Means over n runs, with the sample std if n > 1."]
    if "steps" in table:
        lines[0] += " active: parameters that process one example."
        earlier = "including earlier runs that a run, or the vectors of its tasks, used."
        lines += [f"steps, GFLOPs: of training, {earlier}"]
    if "dev" in table or "test" in table:
        lines += ["dev, test: mean score of the train tasks; the checkpoint was chosen by dev."]
    if "unseen" in table:
        lines += [
            "unseen: mean test score of tasks that were not trained on. read of unseen: what the choice of",
            "their routes has read of them, besides the inputs to answer.",
        ]
    if "few_shot" in table:
        lines += [
            "few-shot: mean test score of the tasks of --few_shot after fine-tuning on their train rows."
        ]
    if any(name.endswith("_ami") for name in table.columns):
        lines += [
            "AMI: adjusted mutual information of the routes' clusters and the true kinds of the train tasks:",
            "0 by chance, 1 if they agree; - if all tasks have the same route.",
        ]
    return "\n".join(lines)
