"""Computes the cost of a training run before it starts, and writes `cost.json`.

The batches of a run are a pure function of (seed, step), so its cost can be computed from the lengths of the
examples before it starts. `flops.py` defines what is counted. For a run of more than SAMPLED_STEPS steps, the
mean over that many evenly spaced steps is multiplied by the number of steps.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.config.shared import Start
from routing_moe.model import flops
from routing_moe.model.flops import Work
from routing_moe.optim.step import Stepper, frozen_parts
from routing_moe.results.run_cost import (
    COST_FILE,
    earlier_runs,
    in_units,
    is_count,
    reference_cost,
    with_start,
)

SAMPLED_STEPS = 1000
COUNTED = "forward and backward of training: matrix products, 2 per multiplication and addition; see flops.py"


def flops_of_steps(stepper: Stepper, steps: Iterable[int], work: Work) -> tuple[float, float]:
    """Returns (FLOPs with padding, FLOPs without padding) of these steps.

    Both include the micro-batches of all processes, routing and merging.
    """
    config, examples = stepper.model.config, stepper.examples
    lengths, routings, merged = [], 0, 0  # rows: source, target, both as padded
    for step in steps:
        indices, choices, groups = stepper.split(step)
        bare = np.stack([examples.source_lengths_N[indices], examples.target_lengths(indices, choices)])
        padded = bare.copy()
        for group in groups:
            padded[:, group] = stepper.cut.width(bare[:, group].max(axis=1, keepdims=True))
        lengths.append(np.concatenate([bare, padded]))
        tasks_b = examples.task_ids_N[indices]
        routings += len(indices) if config.expert_mixing == "outputs" else len(np.unique(tasks_b))
        # Average routes are the same for all tasks and merged once; other routes are merged per task.
        merged += sum(1 if config.route_source == "average" else len(np.unique(tasks_b[g])) for g in groups)
    S, T, padded_S, padded_T = np.concatenate(lengths, axis=1).astype(float)
    rest = routings * flops.router_flops(config, work) + merged * flops.merging_flops(config, work)
    sizes = ((padded_S, padded_T), (S, T))
    return tuple(float(flops.example_flops(config, work, *size, T).sum()) + rest for size in sizes)


def training_cost(
    stepper: Stepper, total_steps: int, most_sampled: int = SAMPLED_STEPS, scoring: int = 0
) -> dict:
    """Returns the fields of `cost.json` about the training itself, for a run of `total_steps` steps.

    scoring: the FLOPs of the losses by which train rows were chosen, which are part of the total.
    """
    config, alternate_every = stepper.model.config, stepper.settings.alternate_every
    work = Work.of(stepper.model)
    sampled = np.unique(np.linspace(0, total_steps - 1, min(total_steps, most_sampled)).round().astype(int))
    kinds = Counter(frozenset(frozen_parts(step, alternate_every)) for step in range(total_steps))
    # Every sampled step is computed as every kind of step, so that sampling cannot miss a kind.
    padded, bare = sum(
        np.array(flops_of_steps(stepper, sampled, work.without(frozen))) * count / total_steps / len(sampled)
        for frozen, count in kinds.items()
    )
    size = stepper.settings.step_size
    return {
        "total_parameters": flops.total_parameters(config),
        "active_parameters": flops.active_parameters(config, work.used),
        "trained_parameters": sum(p.numel() for p in stepper.model.parameters() if p.requires_grad),
        "flops_per_example": round(padded / size),
        "flops_per_example_unpadded": round(bare / size),
        "examples_per_step": size,
        "steps": total_steps,
        "total_flops": round(padded * total_steps) + scoring,
        "scoring_flops": scoring,
        "sampled_steps": len(sampled),
        "counted": COUNTED,
    }


def write_cost(stepper: Stepper, total_steps: int, start: Start, run: Path, scoring: int = 0) -> dict:
    """Writes the `cost.json` of a run, which includes the runs that it started from. Returns its content.

    scoring: as for `training_cost`.
    """
    path = run / COST_FILE
    own = training_cost(stepper, total_steps, scoring=scoring)
    cost = own | with_start(own, earlier_runs(start, run))
    # The run that it started from may have been deleted since the file was first written.
    if cost["start_unknown"] and (before := known_before(path)):
        cost = own | with_start(own, before)
    write_text(path, json.dumps(cost, indent=1))
    return cost


def known_before(path: Path) -> list[dict] | None:
    """Returns the earlier runs in a `cost.json` if it has their costs, else None."""
    with contextlib.suppress(InputError):
        runs = load_json_object(path, "the cost of a run").get("earlier_runs") if path.is_file() else None
        if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
            known = [is_count(run.get("total_flops")) and run.get("unknown") is None for run in runs]
            if all(known) and all(run.get("steps") == 0 or is_count(run.get("steps")) for run in runs):
                return [{"unknown": None} | run for run in runs]
    return None


def equal_steps(stepper: Stepper, total_steps: int, other: str, earlier: list[dict], scoring: int = 0) -> int:
    """Returns the largest number of steps that cost at most the FLOPs of the run `other`, of --equal_flops.

    Both include earlier runs; those of this training are `earlier`. The cost of a step is the mean over
    total_steps. scoring: as for `training_cost`. Raises InputError if there is no such
    number.
    """
    flag = f"--equal_flops {other}"
    reference, own = reference_cost(other), training_cost(stepper, total_steps, scoring=scoring)
    total = with_start(own, earlier)
    if unknown := total["start_unknown"]:
        raise InputError(f"{flag}: total FLOPs are unknown: {unknown}")
    before = total["total_flops_with_start"] - own["total_flops"]
    budget = reference["total_flops_with_start"] - before
    of_steps = own["total_flops"] - scoring
    if (steps := int((budget - scoring) * total_steps // of_steps)) < 1:
        spent = f" after the {in_units(before)}FLOPs of earlier runs" if before else ""
        raise InputError(
            f"{flag}: its {in_units(budget + before)}FLOPs leave no step of this training{spent}"
        )
    return steps
