"""Sizes, costs and mean scores of compared runs, a row per variant; their dev scores along training.

Steps and FLOPs of a run include those of its start.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems, in_short
from routing_moe.config.measures import MEASURES, PERFORMANCE
from routing_moe.model.task_vectors import NOTHING
from routing_moe.results.few_shot import read_summary
from routing_moe.results.markdown import markdown_table, mean_and_std, whole
from routing_moe.results.run_cost import COST_FILE, HOW_TO_GET_IT, read_cost
from routing_moe.results.runs import Run
from routing_moe.results.scores import DEV_COLUMNS, ScoresFile, mean_score, read_scores

GIVEN_ROUTE = "given route"
EVALUATIONS = "*-steps/dev_results.csv"
# {column: the scores in it}: train tasks, and unseen tasks without training on them
SCORED = {"dev": ScoresFile("dev"), "test": ScoresFile("test"), "unseen": ScoresFile("test", section="test")}
# {column: its name in Markdown}
COSTS = dict(total_parameters="parameters", active_parameters="active", steps="steps", gflops="GFLOPs")
EXPLAINED = {  # {column: its explanation}
    "steps": "active: parameters that process one example. steps, GFLOPs: of training, with the start.",
    **dict.fromkeys(("dev", "test"), "dev, test: mean score of the train tasks; dev chose the checkpoint."),
    "unseen": "unseen: mean test score of tasks that were not trained on. read of unseen: what the choice\n"
    "of their routes has read of them, besides the inputs to answer.",
    "few_shot": "few-shot: mean test score of the tasks of --few_shot after fine-tuning on their train rows.",
    "ami": "AMI: adjusted mutual information of the routes' clusters and the true kinds of the train tasks:\n"
    "0 by chance, 1 if they agree; - if all tasks have the same route.",
}


# ---- costs


def costs_of_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run, by its name: variant, parameters, steps, FLOPs and unknown.

    steps and total_flops include the start, own_steps and own_flops do not; NaN if it is unknown, and unknown
    says why. Raises InputError for damaged files.
    """
    problems, rows = Problems(), {}
    for run in runs:
        cost = problems.of(read_cost, run.folder) or {}
        unknown = cost["start_unknown"] if cost else f"no {COST_FILE}; {HOW_TO_GET_IT}"
        rows[str(run)] = {
            "total_parameters": cost.get("total_parameters"),
            "active_parameters": cost.get("active_parameters"),
            "steps": None if unknown else cost["steps_with_start"],
            "total_flops": None if unknown else cost["total_flops_with_start"],
            "own_steps": cost.get("steps"),
            "own_flops": cost.get("total_flops"),
            "variant": run.variant,
            "unknown": unknown,
        }
    if problems:
        raise InputError(problems)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.astype({name: float for name in table if name not in ("variant", "unknown")})


def unknown_costs(costs: pd.DataFrame) -> str:
    """Returns a line for each reason why costs of runs are unknown, as Markdown."""
    grouped = costs.groupby("unknown", sort=False)  # without those that are known
    return "".join(f"- cost of {in_short(list(runs.index))} is unknown: {why}\n" for why, runs in grouped)


def means_of_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Returns n, the number of rows, and the mean of every column, by variant; NaN if a value is."""
    grouped = table.groupby("variant", sort=False)
    means = grouped.agg(lambda values: values.mean(skipna=False))
    means.insert(0, "n", grouped.size())
    return means


def curves(runs: Sequence[Run], costs: pd.DataFrame, measures: Sequence[str] = ()) -> pd.DataFrame:
    """Returns a row per evaluation: variant, run, seed, step and flops (with the start if known), dev mean.

    The last is dev_score or dev_<measure>, of the first of the measures, else of all, that evaluations have.
    """
    evaluations = []
    for run in runs:
        files = {path.parent.name.removesuffix("-steps"): path for path in run.folder.glob(EVALUATIONS)}
        steps = sorted(int(step) for step in files if step.isdecimal())
        evaluations += [(run, step, read_scores(files[str(step)], DEV_COLUMNS)) for step in steps]
    known, rows = {name for *_, scores in evaluations for name in scores}, []
    measure = next((name for name in (*measures, *MEASURES) if name in known), PERFORMANCE)
    for run, step, scores in evaluations:
        if measure not in scores:
            continue
        cost = costs.loc[str(run)]
        before = cost["steps"] - cost["own_steps"]  # NaN if unknown
        flops = cost["total_flops"] - cost["own_flops"] + cost["own_flops"] * step / cost["own_steps"]
        steps = step if math.isnan(before) else round(before + step)
        rows.append((run.variant, run.name, run.seed, steps, flops, mean_score(scores, measure)))
    column = "dev_score" if measure == PERFORMANCE else f"dev_{measure}"
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "step", "flops", column])


# ---- the table of means


def overview(runs: Mapping[str, Sequence[Run]], costs: pd.DataFrame, recovery=None, few_shot=None):
    """Returns a row per variant: n, the means of COSTS, mean and sample std of scores, without empty columns.

    runs: {column of SCORED: all runs}. costs: `costs_of_runs`. recovery: `recovery_of_runs`. few_shot:
    `few_shot_scores`.
    """
    table = costs.assign(gflops=costs["total_flops"] / 1e9)[["variant", *COSTS]]
    for name, scored in runs.items():
        table[name] = [mean_score(run.scores) for run in scored]
    if few_shot is not None:
        table["few_shot"] = [few_shot.get(run, math.nan) for run in costs.index]
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


def read_of_unseen(run: Run) -> str:
    """Returns what the routes of unseen tasks have read of them, such as "labelled rows of one sample"."""
    if "vector_seen" not in run.scores:
        return NOTHING  # routes do not depend on the task; its inputs may have its name
    if (run.scores["route"] == GIVEN_ROUTE).all():
        return GIVEN_ROUTE
    return ", ".join(sorted({str(seen).partition(":")[0] for seen in run.scores["vector_seen"]}))


def few_shot_scores(folder: Path, runs: Sequence[Run]) -> dict[str, float]:
    """Returns {run: mean test score after fine-tuning} of the runs with <variant>/<run>/summary.csv."""
    files = {str(run): folder / run.variant / run.name / "summary.csv" for run in runs}
    summaries = {run: read_summary(file) for run, file in files.items() if file.is_file()}
    if not summaries:
        raise InputError(f"--few_shot {folder} holds no <variant>/<run>/summary.csv of the compared runs")
    first = next(iter(summaries))
    for run, summary in summaries.items():
        if summary["n"].to_dict() != summaries[first]["n"].to_dict():
            raise InputError(f"{files[run]} has other tasks or samples than {files[first]}")
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
