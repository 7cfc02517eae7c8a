"""Costs of the runs of a comparison, their dev scores during training, and scores at an equal budget.

Steps and FLOPs of a run include the runs that it started from (`cost.json`, see `run_cost.py`). Dev scores
are those of the evaluations during training, `<step>-steps/dev_results.csv`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, in_short
from routing_moe.checkpoints.folder import load_progress
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.results.compared_runs import Run
from routing_moe.results.run_cost import COST_FILE, EXAMPLE_COST, HOW_TO_GET_IT, read_cost, shown_cost
from routing_moe.results.scores import markdown_table

BUDGETS = {"steps": "training steps", "flops": "training FLOPs"}
TOLERANCE = 0.01  # FLOPs of runs with different seeds differ slightly, because their batches do
DEV_FILE = "dev_results.csv"
DEV_COLUMNS = ("task_prefix", "sample", "metric", "performance", "n")
NAMED = 4  # runs named in a note


@dataclass(frozen=True)
class RunCost:
    """A run with its `cost.json` (None if missing) and its evaluation files {step: path}.

    progress: `load_progress` of the scored checkpoint, with the expert_distance of the last checkpoint.
    """

    run: Run
    cost: dict | None
    evaluations: dict[int, Path]
    progress: dict = field(default_factory=dict)

    @property
    def unknown(self) -> str | None:
        """Why the run's totals are unknown, or None."""
        if self.cost is None:
            return f"no {COST_FILE}; {HOW_TO_GET_IT}"
        return self.cost["start_unknown"]

    @property
    def is_complete(self) -> bool:
        """Whether the run was trained to its end; True if unknown."""
        return self.cost is None or self.cost["planned_steps"] in self.evaluations

    def total(self, budget: str) -> float:
        """Returns steps or FLOPs of the whole run, earlier runs included; NaN if unknown."""
        name = {"steps": "steps", "flops": "total_flops"}[budget]
        return math.nan if self.unknown else self.cost[f"{name}_with_start"]

    def by(self, step: int, budget: str) -> float:
        """Returns steps or FLOPs up to a step of the run, earlier runs included; NaN if unknown."""
        if self.unknown:
            return math.nan
        own = self.cost["steps" if budget == "steps" else "total_flops"]
        return self.total(budget) - own + own * step / self.cost["steps"]


@dataclass(frozen=True)
class Compared:
    """Runs with the scores that are compared (None: not finished).

    budget: one of BUDGETS, or None. limit: its size. steps: {finished run: its last step within the budget}.
    """

    costs: list[RunCost]
    budget: str | None = None
    limit: float = math.nan
    steps: dict[str, int] | None = None

    @property
    def finished(self) -> list[RunCost]:
        """The finished runs."""
        return [each for each in self.costs if each.run.scores is not None]


def find_costs(folder: str | Path, runs: list[Run], checkpoint_name: str = "best") -> list[RunCost]:
    """Returns the costs of runs in a comparison's folder, with the progress of checkpoint `checkpoint_name`.

    Raises InputError with all damaged files.
    """
    found, faults = [], []
    for run in runs:
        place = Path(folder) / run.variant / run.name
        try:
            progress = load_progress(place / checkpoint_name)
            progress |= {"expert_distance": load_progress(place / "last").get("expert_distance", math.nan)}
            found.append(RunCost(run, read_cost(place), _evaluations(place), progress))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return found


def _evaluations(place: Path) -> dict[int, Path]:
    named = (
        (re.fullmatch(r"(\d+)-steps", path.parent.name), path) for path in place.glob(f"*-steps/{DEV_FILE}")
    )
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def read_dev_results(path: Path) -> pd.DataFrame:
    """Returns the scores of an evaluation during training. Raises InputError if the file is broken."""
    scores = read_table(path, index_col=0, dtype={"task_prefix": str, "sample": str, "metric": str})
    if lacking := [name for name in DEV_COLUMNS if name not in scores]:
        raise InputError(f"{path}: cannot be read as dev scores (no column {', '.join(lacking)})")
    check_numbers(scores, ["performance"], path)
    return scores.astype({"performance": float}).assign(constant=math.nan)


# ---- the table


def cost_table(compared: Compared) -> pd.DataFrame:
    """Returns means over the finished runs of each variant, in order; NaN if a run's value is unknown.

    Columns variant, n, TRAINING_COST; steps and total_flops include earlier runs, the others do not. At an
    equal budget also compared_at_step and compared_at_flops; else selected_step, the step of the scored
    checkpoint in its own run, and its expert_distance (the model's `relative_expert_distance`).
    """
    rows = []
    for each in compared.finished:
        row = {name: (each.cost or {}).get(name, math.nan) for name in EXAMPLE_COST}
        row |= {"steps": each.total("steps"), "total_flops": each.total("flops")}
        if compared.budget:
            step = compared.steps[str(each.run)]
            row |= {"compared_at_step": each.by(step, "steps"), "compared_at_flops": each.by(step, "flops")}
        else:
            row["selected_step"] = each.progress.get("step", math.nan)
            row["expert_distance"] = each.progress.get("expert_distance", math.nan)
        rows.append({"variant": each.run.variant} | row)
    grouped = pd.DataFrame(rows).groupby("variant", sort=False)
    means = grouped.agg(lambda values: values.mean(skipna=False))
    means.insert(0, "n", grouped.size())
    return means.reset_index()


def cost_markdown(compared: Compared, table: pd.DataFrame) -> str:
    """Returns `cost_table` as Markdown, with an explanation and notes on unknown costs."""
    lines = [
        "Cost of training: means over the n runs. Active parameters: those that process one example (see",
        "routing_moe/model/flops.py). FLOPs: forward and backward, matrix products. Total steps and FLOPs",
        "include the runs that a run started from.",
    ]
    if not compared.budget:
        lines += [
            "Selected: the step of the scored checkpoint in its own run. Distance of experts at the end of",
            "the run: 0 if all experts of a layer are equal, about 1.4 for independent weights.",
        ]
    rows = {}
    for row in table.to_dict("records"):
        cells = {
            "n": str(row["n"]),
            "active parameters": shown_cost(row["active_parameters"]),
            "total parameters": shown_cost(row["total_parameters"]),
            "FLOPs per example": shown_cost(row["flops_per_example"]),
            "total steps": _whole(row["steps"]),
            "total FLOPs": shown_cost(row["total_flops"]),
        }
        if "compared_at_step" in row:
            cells["compared at step"] = _whole(row["compared_at_step"])
            cells["FLOPs by then"] = shown_cost(row["compared_at_flops"])
        else:
            cells["selected"] = _whole(row["selected_step"])
            distance = row["expert_distance"]
            cells["distance of experts"] = "-" if math.isnan(distance) else f"{distance:.2g}"
        rows[row["variant"]] = cells
    shown = markdown_table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant"))
    return "\n".join([*lines, "", shown, *(f"\n- {note}" for note in _unknown_notes(compared.finished))])


def _unknown_notes(costs: list[RunCost]) -> list[str]:
    """Returns a line per reason for unknown costs, with the runs concerned."""
    runs_of: dict[str, list[str]] = {}
    for each in costs:
        if each.unknown:
            runs_of.setdefault(each.unknown, []).append(str(each.run))
    return [f"cost of {in_short(names, NAMED)} is unknown: {reason}" for reason, names in runs_of.items()]


def _whole(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.0f}"


# ---- during training


def curves(costs: list[RunCost]) -> pd.DataFrame:
    """Returns a row per evaluation: variant, run, seed, step, flops, dev_score (mean over tasks).

    step includes the steps of earlier runs if they are known; flops are empty if they are not.
    """
    rows = []
    for each in costs:
        for step, path in each.evaluations.items():
            tasks = read_dev_results(path).groupby("task_prefix")["performance"].mean()
            steps = step if each.unknown else round(each.by(step, "steps"))
            rows.append(
                (each.run.variant, each.run.name, each.run.seed, steps, each.by(step, "flops"), tasks.mean())
            )
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "step", "flops", "dev_score"])


# ---- at an equal budget


def at_budget(costs: list[RunCost], budget: str) -> Compared:
    """Returns the runs with dev scores of their last evaluation within a budget (None: unfinished runs).

    budget: one of BUDGETS. Its limit is the smallest of the variants' mean totals; runs may exceed one of
    FLOPs by TOLERANCE. Raises InputError with all runs of unknown cost or without an evaluation within the
    limit.
    """
    complete = [each for each in costs if each.is_complete]
    if faults := [f"--match {budget}: {each.run}: {each.unknown}" for each in complete if each.unknown]:
        raise InputError(faults)
    totals = pd.Series(
        [each.total(budget) for each in complete], [each.run.variant for each in complete], dtype=float
    )
    means = totals.groupby(level=0).mean()
    limit, steps, faults = float(means.min()), {}, []
    most = limit * (1 + TOLERANCE) if budget == "flops" else limit
    for each in complete:
        within = [step for step in each.evaluations if each.by(step, budget) <= most]
        steps[str(each.run)] = max(within, default=None)
        faults += [] if within else [_nothing_within(each, budget, limit, means.idxmin())]
    if faults:
        raise InputError(faults)
    return Compared([_scored_at(each, steps.get(str(each.run))) for each in costs], budget, limit, steps)


def _scored_at(each: RunCost, step: int | None) -> RunCost:
    scores = None if step is None else read_dev_results(each.evaluations[step])
    return replace(each, run=replace(each.run, scores=scores, scored_with=each.run.settings))


def _nothing_within(each: RunCost, budget: str, limit: float, smallest: str) -> str:
    show = _whole if budget == "steps" else shown_cost
    first = show(each.by(min(each.evaluations), budget)) if each.evaluations else "none"
    return (
        f"--match {budget}: {each.run} has no evaluation within {show(limit)} {BUDGETS[budget]}, the "
        f"total of {smallest} (its first: {first}); train it with a smaller --eval_period, or compare with "
        f"--leave_out {each.run.variant}"
    )


def explain_budget(compared: Compared) -> str:
    """Returns an explanation of a comparison at an equal budget and its limits."""
    budget, limit = compared.budget, compared.limit
    show = _whole(limit) if budget == "steps" else f"{shown_cost(limit)} (within {TOLERANCE:.0%})"
    return "\n".join(
        [
            f"Compared at equal {BUDGETS[budget]}: {show}, the smallest total of these variants,",
            "earlier runs included. Scores are dev scores of intermediate checkpoints: for each run, of the",
            "last evaluation within the budget, usually before the end of its learning-rate decay. Training",
            "every variant to the budget is fairer (MATCH=flops of compare_routings.sh).",
        ]
    )
