"""One table of compared runs: a row per variant with size, cost, scores and route recovery.

table = overview(runs, costs, recovery)
print(overview_markdown(table))
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dataloader.errors import Faults, InputError
from routing_moe.results.compared_costs import RunCost
from routing_moe.results.compared_runs import Run
from routing_moe.results.few_shot import read_summary
from routing_moe.results.scores import ScoresFile, markdown_table, mean_and_std

# {column: the scores in it}: train tasks, and unseen tasks without training on them
SCORED = {"dev": ScoresFile("dev"), "test": ScoresFile("test"), "unseen": ScoresFile("test", section="test")}
COSTS = ("total_parameters", "active_parameters", "steps", "gflops")


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
    is left out. steps and gflops include earlier runs.
    """
    table = pd.DataFrame([_costs(each) for each in costs])
    for name, scored in runs.items():
        table[name] = [_mean_score(run) for run in scored]
    if few_shot is not None:
        table["few_shot"] = [few_shot.get(str(each.run), math.nan) for each in costs]
    if recovery is not None:
        for kind, own in recovery.groupby("kind", sort=False):
            table[f"{kind}_ami"] = own["ami"].to_numpy()
    grouped = table.groupby("variant", sort=False)
    means = grouped.agg(lambda values: values.mean(skipna=False))
    found = {"n": grouped.size()} | {name: means[name] for name in COSTS}
    for name in table.columns.drop(["variant", *COSTS]):
        if table[name].notna().any():
            spread = grouped[name].agg(lambda values: values.std(skipna=False))
            found |= {name: means[name], f"{name}_std": spread}
    return pd.DataFrame(found).reset_index()


def _costs(each: RunCost) -> dict:
    cost = each.cost or {}
    sizes = {name: cost.get(name, math.nan) for name in COSTS[:2]}
    spent = {"steps": each.total("steps"), "gflops": each.total("flops") / 1e9}
    return {"variant": each.run.variant} | sizes | spent


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
    faults = Faults()
    read = {run: faults.of(read_summary, file) for run, file in files.items()}
    if faults:
        raise InputError(list(faults))
    (first, expected), *others = read.items()
    for run, table in others:
        if table["n"].to_dict() != expected["n"].to_dict():
            faults.append(f"{files[run]} has other tasks or samples than {files[first]}")
    if faults:
        raise InputError(list(faults))
    return {run: table["mean"].mean(skipna=False) for run, table in read.items()}


def overview_markdown(table: pd.DataFrame) -> str:
    """Returns `overview` as Markdown."""
    names = dict(zip(COSTS, ("parameters", "active", "steps", "GFLOPs"), strict=True))
    scores = [name for name in table.columns if f"{name}_std" in table]
    rows = {}
    for row in table.to_dict("records"):
        cells = {"n": str(row["n"])} | {shown: _whole(row[name]) for name, shown in names.items()}
        for name in scores:
            shown = f"AMI {name.removesuffix('_ami')}" if name.endswith("_ami") else name.replace("_", "-")
            cells[shown] = mean_and_std(row[name], row[f"{name}_std"])
        rows[row["variant"]] = cells
    return markdown_table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant"))


def _whole(number: float) -> str:
    return "-" if pd.isna(number) else f"{number:.0f}"


def explain_overview(table: pd.DataFrame) -> str:
    """Returns an explanation of the columns of `overview_markdown`."""
    lines = [
        "Means over n runs, with the sample std if n > 1. active: parameters that process one example.",
        "steps, GFLOPs: of training, including earlier runs that a run, or the vectors of its tasks, used.",
        "dev, test: mean score of the train tasks; the checkpoint was chosen by dev.",
    ]
    if "unseen" in table:
        lines += ["unseen: mean test score of tasks that were not trained on."]
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
