"""Costs of the runs of a comparison (`cost.json`), and their dev scores (or losses) in training.

Steps and FLOPs of a run include those of its start.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems, in_short
from routing_moe.checkpoints.folder import load_progress
from routing_moe.results.markdown import markdown_table, whole
from routing_moe.results.run_cost import COST_FILE, EXAMPLE_COST, HOW_TO_GET_IT, read_cost, shown_cost
from routing_moe.results.runs import Run
from routing_moe.results.scores import DEV_COLUMNS, LOSS_COLUMNS, has_only_losses, read_scores

NAMED = 4  # runs named in a note
EXPLAINED = """Cost of training: means over the n runs. Active parameters process one example. FLOPs: matrix
products, forward and backward. Total steps and FLOPs include the start of a run. Selected: the step of the
scored checkpoint. Distance of experts at the end: 0 if those of a layer are equal, about 1.4 for
independent weights."""


@dataclass(frozen=True)
class RunCost:
    """A run, its `cost.json`, its evaluations {step: file}, and the progress of its checkpoints."""

    run: Run
    cost: dict | None
    evaluations: dict[int, Path]
    progress: dict

    @property
    def unknown(self) -> str | None:
        """Why the run's totals are unknown, or None."""
        return self.cost["start_unknown"] if self.cost else f"no {COST_FILE}; {HOW_TO_GET_IT}"

    def spent(self, field: str, step: int | None = None) -> float:
        """Returns steps or total_flops up to a step (None: the end), with the start; NaN if unknown."""
        if self.unknown:
            return math.nan
        own, total = self.cost[field], self.cost[f"{field}_with_start"]
        return total if step is None else total - own + own * step / self.cost["steps"]


def find_costs(runs: Sequence[Run], checkpoint_name: str = "best") -> list[RunCost]:
    """Returns the costs of runs, with the progress of a checkpoint. Raises InputError for damaged files."""
    problems, costs = Problems(), []
    for run in runs:
        progress = load_progress(run.folder / checkpoint_name)
        distance = load_progress(run.folder / "last").get("expert_distance", math.nan)
        files = {path.parent.name: path for path in run.folder.glob("*-steps/dev_results.csv")}
        steps = {int(name[:-6]): path for name, path in files.items() if re.fullmatch(r"\d+-steps", name)}
        cost = problems.of(read_cost, run.folder)
        costs.append(
            RunCost(run, cost, dict(sorted(steps.items())), progress | {"expert_distance": distance})
        )
    if problems:
        raise InputError(problems)
    return costs


def cost_table(costs: Sequence[RunCost]) -> pd.DataFrame:
    """Returns means over the finished runs of each variant, in order; NaN if a run's value is unknown.

    TRAINING_COST, of which steps and total_flops include the start; step of the scored checkpoint.
    """
    rows = []
    for cost in costs:
        if cost.run.scores is not None:
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
    shown = pd.DataFrame({name: table[column].map(show) for name, (column, show) in columns.items()})
    unknown = defaultdict(list)
    for cost in costs:
        if cost.unknown and cost.run.scores is not None:
            unknown[cost.unknown].append(str(cost.run))
    notes = [f"\n- cost of {in_short(names, NAMED)} is unknown: {why}" for why, names in unknown.items()]
    return f"{EXPLAINED}\n\n{markdown_table(shown.set_index(table['variant']))}{''.join(notes)}"


def curves(costs: Sequence[RunCost]) -> pd.DataFrame:
    """Returns a row per evaluation: variant, run, seed, step and flops (with the start if known), dev_score.

    Runs with --select_by answer_loss are left out; if all have it, the last is dev_answer_loss.
    """
    evaluations = [(cost, step, path) for cost in costs for step, path in cost.evaluations.items()]
    scored = [(cost, step, path) for cost, step, path in evaluations if not has_only_losses(path)]
    columns, measure, name = DEV_COLUMNS, "performance", "dev_score"
    if evaluations and not scored:
        columns, measure, name = LOSS_COLUMNS, "answer_loss", "dev_answer_loss"
    rows = []
    for cost, step, path in scored or evaluations:
        run = cost.run
        tasks = read_scores(path, columns).groupby("task_prefix")[measure].mean()
        steps = step if cost.unknown else round(cost.spent("steps", step))
        rows.append((run.variant, run.name, run.seed, steps, cost.spent("total_flops", step), tasks.mean()))
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "step", "flops", name])
