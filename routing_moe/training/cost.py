"""The cost of a training run, computed at its end (`cost.json`), and steps that cost as much as another run.

Batches are a pure function of (seed, step). The lengths of their examples give the FLOPs by `counted_flops`;
in a run of more than SAMPLED_STEPS steps, those of as many evenly spaced steps.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.train import TrainSettings
from routing_moe.model.counted_flops import active_parameters, example_flops, router_flops, training_routes
from routing_moe.optim.step import Stepper, frozen_parts
from routing_moe.results.run_cost import COST_FILE, in_units, reference_cost, with_start

SAMPLED_STEPS = 1000
SAMPLED_EXAMPLES = 1024  # whose routes are sampled, if they differ in the number of experts
COUNTED = "forward and backward of training: matrix products, 2 per multiplication and addition"


def training_cost(stepper: Stepper, steps: int, scoring_flops: int = 0, most: int = SAMPLED_STEPS) -> dict:
    """Returns the fields of `cost.json` about the training itself, of this many steps.

    scoring_flops: of the losses by which train rows were chosen, a part of the total. most: steps that are
    sampled.
    """
    model, examples, lengths, labels, tasks, routes = stepper.model, stepper.examples, [], [], [], 0
    sampled = np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(int))
    for step in sampled:
        indices, choices, groups = stepper.split(step)
        bare = np.stack(examples.lengths(indices, choices))
        padded = bare.copy()
        for group in groups:
            padded[:, group] = stepper.limits.width(bare[:, group].max(axis=1, keepdims=True))
        lengths.append(np.stack([padded, bare], axis=1))
        labels.append(examples.target_lengths(indices, choices))
        tasks.append(examples.task_ids_N[indices])
        # If parameters are mixed, examples of a task share a route.
        routes += len(indices if model.config.expert_mixing == "outputs" else np.unique(tasks[-1]))
    (padded_S, S), (padded_T, T) = np.concatenate(lengths, axis=2)
    K = np.tile(np.concatenate(labels), 2)
    lengths_3N = np.stack([np.append(padded_S, S), np.append(padded_T, T), K])
    task_ids_B = torch.from_numpy(np.concatenate(tasks)[:SAMPLED_EXAMPLES])

    kinds = defaultdict(list)  # of steps, of alternating updates
    for step in range(steps):
        kinds[frozenset(frozen_parts(step, stepper.settings.alternate_every))].append(step)
    of_step = np.zeros(2)  # with and without padding
    for same in kinds.values():
        stepper.freeze_parts(same[0])
        routes_BLE = training_routes(model, task_ids_B)
        of_examples = example_flops(model, lengths_3N, routes_BLE).reshape(2, -1).sum(axis=1)
        of_step += (of_examples + routes * router_flops(model)) / len(sampled) * len(same) / steps
    size, known = stepper.settings.step_size, not np.isnan(of_step).any()
    return {
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "active_parameters": active_parameters(model, routes_BLE),
        "trained_parameters": sum(p.numel() for p in stepper.parameters),
        "flops_per_example": round(of_step[0] / size) if known else None,
        "flops_per_example_unpadded": round(of_step[1] / size) if known else None,
        "examples_per_step": size,
        "steps": steps,
        "total_flops": round(of_step[0] * steps) + scoring_flops if known else None,
        "scoring_flops": scoring_flops,
        "sampled_steps": len(sampled),
        "counted": COUNTED if known else None,
    }


def write_cost(stepper: Stepper, steps: int, settings: TrainSettings, scoring_flops: int = 0) -> dict:
    """Writes the `cost.json` of a run, with the run that it started from. Returns its content."""
    folder = Path(settings.output_dir)
    cost = with_start(training_cost(stepper, steps, scoring_flops), settings.start, folder)
    write_text(folder / COST_FILE, json.dumps(cost, indent=1))
    return cost


def equal_steps(stepper: Stepper, settings: TrainSettings, scoring_flops: int = 0) -> int:
    """Returns the steps of a training that costs --flops_factor times the FLOPs of the run --equal_flops.

    Raises InputError if they do not suffice for a step.
    """
    steps = settings.total_steps
    budget = settings.flops_factor * reference_cost(settings.equal_flops)["total_flops"]
    for _ in range(2):  # the mean cost of a step depends a little on the number of steps
        if (flops := training_cost(stepper, steps)["total_flops"]) is None:
            raise InputError("--equal_flops: the FLOPs of this router cannot be counted; give --total_steps")
        of_step = flops / steps
        if (steps := round((budget - scoring_flops) / of_step)) < 1:
            raise InputError(
                f"--equal_flops {settings.equal_flops}: {in_units(budget)}FLOPs do not suffice for one step"
            )
    return steps
