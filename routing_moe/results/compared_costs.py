"""Costs of the runs of a comparison, and their dev scores (or losses) in training.

Steps and FLOPs of a run include the runs that it started from (`cost.json`, see `run_cost.py`). Dev scores
are those of the evaluations during training, `<step>-steps/dev_results.csv`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems, in_short
from routing_moe.checkpoints.folder import load_progress
from routing_moe.results.compared_runs import Run
from routing_moe.results.markdown import markdown_table, whole
from routing_moe.results.run_cost import COST_FILE, EXAMPLE_COST, HOW_TO_GET_IT, read_cost, shown_cost
from routing_moe.results.scores import DEV_COLUMNS, LOSS_COLUMNS, has_only_losses, read_scores

DEV_FILE = "dev_results.csv"
NAMED = 4  # runs named in a note


@dataclass(frozen=True)
class RunCost:
    """A run with its `cost.json` (None if missing) and its evaluation files {step: path}.

    progress: `load_progress` of the scored checkpoint, with the expert_distance of the last checkpoint.
    """

    run: Run
    cost: dict | None
    evaluations: dict[int, Path]
    progress: dict

    @property
    def unknown(self) -> str | None:
        """Why the run's totals are unknown, or None."""
        if self.cost is None:
            return f"no {COST_FILE}; {HOW_TO_GET_IT}"
        return self.cost["start_unknown"]

    def spent(self, field: str, step: int | None = None) -> float:
        """Returns steps or total_flops up to a step (None: the end), with earlier runs; NaN if unknown."""
        if self.unknown:
            return math.nan
        own, total = self.cost[field], self.cost[f"{field}_with_start"]
        return total if step is None else total - own + own * step / self.cost["steps"]


def find_costs(runs: Sequence[Run], checkpoint_name: str = "best") -> list[RunCost]:
    """Returns the costs of runs, with the progress of checkpoint `checkpoint_name`.

    Raises InputError with all damaged files.
    """
    problems = Problems()
    costs = [problems.of(_run_cost, run, checkpoint_name) for run in runs]
    if problems:
        raise InputError(problems)
    return costs


def _run_cost(run: Run, checkpoint_name: str) -> RunCost:
    progress = load_progress(run.folder / checkpoint_name)
    distance = load_progress(run.folder / "last").get("expert_distance", math.nan)
    files = run.folder.glob(f"*-steps/{DEV_FILE}")
    steps = ((re.fullmatch(r"(\d+)-steps", path.parent.name), path) for path in files)
    evaluations = dict(sorted((int(match[1]), path) for match, path in steps if match))
    return RunCost(run, read_cost(run.folder), evaluations, progress | {"expert_distance": distance})


# ---- the table


def cost_table(costs: Sequence[RunCost]) -> pd.DataFrame:
    """Returns means over the finished runs of each variant, in order; NaN if a run's value is unknown.

    Columns variant, n, TRAINING_COST; steps and total_flops include earlier runs, the others do not. Then
    selected_step, the step of the scored checkpoint in its own run, and its expert_distance (the model's
    `relative_expert_distance`).
    """
    rows = []
    for cost in costs:
        if cost.run.scores is None:
            continue
        row = {"variant": cost.run.variant}
        row |= {name: (cost.cost or {}).get(name, math.nan) for name in EXAMPLE_COST}
        row |= {"steps": cost.spent("steps"), "total_flops": cost.spent("total_flops")}
        row["selected_step"] = cost.progress.get("step", math.nan)
        row["expert_distance"] = cost.progress["expert_distance"]
        rows.append(row)
    return means_of_variants(pd.DataFrame(rows)).reset_index()


def means_of_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Returns n, the number of rows, and the mean of every column, by variant; NaN if a value is."""
    grouped = table.groupby("variant", sort=False)
    means = grouped.agg(lambda values: values.mean(skipna=False))
    means.insert(0, "n", grouped.size())
    return means


def cost_markdown(table: pd.DataFrame, costs: Sequence[RunCost] = ()) -> str:
    """Returns `cost_table` as Markdown, with an explanation and notes on unknown costs."""
    lines = [
        "Cost of training: means over the n runs. Active parameters: those that process one example (see",
        "routing_moe/model/flops.py). FLOPs: forward and backward, matrix products. Total steps and FLOPs",
        "include the runs that a run started from. Selected: the step of the scored checkpoint in its own",
        "run. Distance of experts at the end of the run: 0 if all experts of a layer are equal, about 1.4",
        "for independent weights.",
    ]
    columns = {
        "n": ("n", str),
        "active parameters": ("active_parameters", shown_cost),
        "total parameters": ("total_parameters", shown_cost),
        "FLOPs per example": ("flops_per_example", shown_cost),
        "total steps": ("steps", whole),
        "total FLOPs": ("total_flops", shown_cost),
        "selected": ("selected_step", whole),
        "distance of experts": ("expert_distance", lambda x: "-" if math.isnan(x) else f"{x:.2g}"),
    }
    rows = {
        row["variant"]: {shown: show(row[name]) for shown, (name, show) in columns.items()}
        for row in table.to_dict("records")
    }
    notes = (f"\n- {note}" for note in _unknown_notes(costs))
    return "\n".join([*lines, "", markdown_table(rows, "variant"), *notes])


def _unknown_notes(costs: Sequence[RunCost]) -> list[str]:
    """Returns a line per reason for unknown costs of finished runs, with the runs concerned."""
    runs_of = defaultdict(list)
    for cost in costs:
        if cost.unknown and cost.run.scores is not None:
            runs_of[cost.unknown].append(str(cost.run))
    return [f"cost of {in_short(names, NAMED)} is unknown: {reason}" for reason, names in runs_of.items()]


# ---- during training


def curves(costs: Sequence[RunCost]) -> pd.DataFrame:
    """Returns a row per evaluation: variant, run, seed, step, flops, and a mean over dev tasks.

    The last is dev_score, without the runs with --select_by answer_loss, or, if all runs have it,
    dev_answer_loss (nats per token). step includes the steps of earlier runs if they are known; flops are
    empty if they are not.
    """
    evaluations = [(cost, step, path) for cost in costs for step, path in cost.evaluations.items()]
    scored = [one for one in evaluations if not has_only_losses(one[2])]
    if scored or not evaluations:
        columns, measure, name = DEV_COLUMNS, "performance", "dev_score"
    else:
        columns, measure, name = LOSS_COLUMNS, "answer_loss", "dev_answer_loss"
    rows = []
    for cost, step, path in scored or evaluations:
        run = cost.run
        tasks = read_scores(path, columns).groupby("task_prefix")[measure].mean()
        steps = step if cost.unknown else round(cost.spent("steps", step))
        rows.append((run.variant, run.name, run.seed, steps, cost.spent("total_flops", step), tasks.mean()))
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "step", "flops", name])
