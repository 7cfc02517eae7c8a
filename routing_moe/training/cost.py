"""The cost of a training run, computed at its end (`cost.json`), and steps that cost as much as another run.

Batches are a pure function of (seed, step). The lengths of their examples give the FLOPs by `counted_flops`;
in a run of more than SAMPLED_STEPS steps, those of as many evenly spaced steps.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.train import TrainSettings
from routing_moe.model.counted_flops import active_parameters, example_flops
from routing_moe.optim.step import Stepper, frozen_parts
from routing_moe.results.run_cost import COST_FILE, in_units, reference_cost, with_start

SAMPLED_STEPS = 1000
DRAWN_STEPS = 32  # whose routes are drawn: how many experts run may differ among examples


def training_cost(stepper: Stepper, steps: int, scoring_flops: int = 0, most: int = SAMPLED_STEPS) -> dict:
    """Returns the fields of `cost.json` about the training itself, of this many steps.

    scoring_flops: of the losses by which train rows were chosen, a part of the total. most: steps that are
    sampled.
    """
    model, every = stepper.model.train(), stepper.settings.alternate_every
    sampled = np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(int))
    splits = [stepper.split(step) for step in sampled]
    lengths_3N = np.concatenate([padded_lengths(stepper, *split) for split in splits], axis=1)
    kinds, of_step = {}, 0  # {frozen parts: steps}
    for step in range(steps):
        kinds.setdefault(frozenset(frozen_parts(step, every)), []).append(step)
    for same in kinds.values():
        stepper.freeze_parts(same[0])
        routes_BLE, of_routes = drawn_routes(stepper, [indices for indices, *_ in splits[:DRAWN_STEPS]])
        of_examples = example_flops(model, lengths_3N, routes_BLE).sum() / len(sampled)
        of_step += (of_examples + of_routes) * len(same) / steps
    size = stepper.settings.step_size
    return {
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "active_parameters": active_parameters(model, routes_BLE),
        "trained_parameters": sum(p.numel() for p in stepper.parameters),
        "flops_per_example": round(of_step / size),
        "examples_per_step": size,
        "steps": steps,
        "total_flops": round(of_step * steps) + scoring_flops,
        "scoring_flops": scoring_flops,
    }


def drawn_routes(stepper: Stepper, steps: list[np.ndarray]) -> tuple[Tensor, float]:
    """Returns routes (B, L, E) of training, on the CPU, and the FLOPs of drawing those of a step.

    steps: their examples. One route stands for all that have equally many weights above 0.
    """
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        routes_BLE = torch.cat([stepper.draw_routes(indices) for indices in steps])
        if has_gradient := routes_BLE.requires_grad:
            torch.autograd.grad(routes_BLE.sum(), stepper.active, allow_unused=True)
    used_BL = (routes_BLE != 0).sum(dim=-1)
    if stepper.model.config.expert_mixing == "parameters" or bool((used_BL == used_BL[0]).all()):
        routes_BLE = routes_BLE[:1]
    routes_BLE = routes_BLE.detach().float().cpu().requires_grad_(has_gradient)
    return routes_BLE, counter.get_total_flops() / len(steps)


def padded_lengths(stepper: Stepper, indices, choices, groups) -> np.ndarray:
    """Returns (3, B): source and target length with padding, and predicted tokens of a step's examples."""
    S, T = stepper.examples.lengths(indices, choices)
    padded = np.stack([S, T, stepper.examples.target_lengths(indices, choices)])
    for group in groups:
        padded[:2, group] = stepper.limits.width(padded[:2, group].max(axis=1, keepdims=True))
    return padded


def write_cost(stepper: Stepper, steps: int, settings: TrainSettings, scoring_flops: int = 0) -> dict:
    """Writes the `cost.json` of a run, with the runs that it came from. Returns its content."""
    folder = Path(settings.output_dir)
    cost = with_start(training_cost(stepper, steps, scoring_flops), settings.start, folder)
    write_text(folder / COST_FILE, json.dumps(cost, indent=1))
    return cost


def described_cost(cost: dict) -> str:
    """Returns the cost as a line for the log."""
    names = ("active_parameters", "total_parameters", "flops_per_example", "total_flops")
    active, parameters, of_example, flops = (in_units(cost[name]) for name in names)
    total = cost["total_flops_with_start"]
    with_start = f"{in_units(total)}FLOPs with the start" if total else cost["start_unknown"]
    flops = f"{of_example}FLOPs per example; {flops}FLOPs; {with_start}"
    return f"parameters: {active} active of {parameters}; {flops}"


def equal_steps(stepper: Stepper, settings: TrainSettings, scoring_flops: int = 0) -> int:
    """Returns the steps of a training that costs --flops_factor times the FLOPs of the run --equal_flops.

    Raises InputError if they do not suffice for a step.
    """
    steps = settings.total_steps
    budget = settings.flops_factor * reference_cost(settings.equal_flops)["total_flops"]
    for _ in range(2):  # the mean cost of a step depends a little on the number of steps
        of_step = training_cost(stepper, steps)["total_flops"] / steps
        if (steps := round((budget - scoring_flops) / of_step)) < 1:
            raise InputError(
                f"--equal_flops {settings.equal_flops}: {in_units(budget)}FLOPs do not suffice for one step"
            )
    return steps
