"""Cost of a training run: parameters, FLOPs per example, steps, total FLOPs; `cost.json` in its folder.

The batches of a run are a pure function of (seed, step), so its cost can be computed from the lengths of the
examples before it starts. `flops.py` defines what is counted. For a run of more than SAMPLED_STEPS steps, the
mean over that many evenly spaced steps is multiplied by the number of steps.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.settings import Settings
from routing_moe.io.files import write_text
from routing_moe.model import flops
from routing_moe.model.flops import Work
from routing_moe.optim.step import Stepper, frozen_parts

COST_FILE = "cost.json"
SAMPLED_STEPS = 1000
EXAMPLE_COST = ("active_parameters", "total_parameters", "flops_per_example")  # shown in tables
TRAINING_COST = (*EXAMPLE_COST, "steps", "total_flops")
NUMBERS = (
    "total_parameters", "active_parameters", "flops_per_example", "examples_per_step", "steps", "total_flops"
)  # fmt: skip
WITH_START = (*NUMBERS, "steps_with_start", "total_flops_with_start")
HOW_TO_GET_IT = f"the command that trained a run, given again with --resume, writes its {COST_FILE}"
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
            padded[:, group] = bare[:, group].max(axis=1, keepdims=True)
        lengths.append(np.concatenate([bare, padded]))
        tasks_b = examples.task_ids_N[indices]
        routings += len(indices) if config.expert_mixing == "outputs" else len(np.unique(tasks_b))
        # Average routes are the same for all tasks and merged once; other routes are merged per task.
        merged += sum(1 if config.route_source == "average" else len(np.unique(tasks_b[g])) for g in groups)
    S, T, padded_S, padded_T = np.concatenate(lengths, axis=1).astype(float)
    rest = routings * flops.router_flops(config, work) + merged * flops.merging_flops(config, work)
    sizes = ((padded_S, padded_T), (S, T))
    return tuple(float(flops.example_flops(config, work, *size, T).sum()) + rest for size in sizes)


def training_cost(stepper: Stepper, total_steps: int, most_sampled: int = SAMPLED_STEPS) -> dict:
    """Returns the fields of `cost.json` about the training itself, for a run of `total_steps` steps."""
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
        "total_flops": round(padded * total_steps),
        "sampled_steps": len(sampled),
        "counted": COUNTED,
    }


def write_cost(stepper: Stepper, total_steps: int, settings: Settings) -> dict:
    """Writes a run's `cost.json`, which includes the runs that it started from. Returns its content."""
    path = Path(settings.output_dir) / COST_FILE
    own = training_cost(stepper, total_steps)
    cost = own | with_start(own, earlier_runs(settings))
    # The run that it started from may have been deleted since the file was first written.
    if cost["start_unknown"] and (before := _known_before(path)):
        cost = own | with_start(own, before)
    write_text(path, json.dumps(cost, indent=1))
    return cost


def _known_before(path: Path) -> list[dict] | None:
    """Returns the earlier runs in a `cost.json` if it has their costs, else None."""
    with contextlib.suppress(InputError):
        runs = load_json_object(path, "the cost of a run").get("earlier_runs") if path.is_file() else None
        if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
            counts = [run.get(name) for run in runs for name in ("steps", "total_flops")]
            if all(map(_is_count, counts)) and all(run.get("unknown") is None for run in runs):
                return [{"unknown": None} | run for run in runs]
    return None


def equal_steps(stepper: Stepper, total_steps: int, settings: Settings) -> int:
    """Returns the largest number of steps that cost at most the FLOPs of the run `--equal_flops`.

    Both include earlier runs. The cost of a step is the mean over total_steps. Raises InputError if there is
    no such number.
    """
    flag = f"--equal_flops {settings.equal_flops}"
    reference, own = read_cost(settings.equal_flops), training_cost(stepper, total_steps)
    if reference is None:
        raise InputError(f"{flag}: has no {COST_FILE}; {HOW_TO_GET_IT}")
    start = with_start(own, earlier_runs(settings))
    if unknown := reference["start_unknown"] or start["start_unknown"]:
        raise InputError(f"{flag}: total FLOPs are unknown: {unknown}")
    before = start["total_flops_with_start"] - own["total_flops"]
    budget = reference["total_flops_with_start"] - before
    if (steps := int(budget * total_steps // own["total_flops"])) < 1:
        spent = f" after the {in_units(before)}FLOPs of earlier runs" if before else ""
        raise InputError(
            f"{flag}: its {in_units(budget + before)}FLOPs leave no step of this training{spent}"
        )
    return steps


def described_cost(cost: dict) -> str:
    """Returns the cost as a line for the log."""
    total, start = cost["total_flops"], ""
    if cost["start_unknown"]:
        start = f", and earlier runs (unknown: {cost['start_unknown']})"
    elif cost["total_flops_with_start"] != total:
        start = f", {in_units(cost['total_flops_with_start'])}FLOPs including earlier runs"
    return (
        f"parameters: {in_units(cost['active_parameters'])} active of {in_units(cost['total_parameters'])}; "
        f"{in_units(cost['flops_per_example'])}FLOPs per example; {in_units(total)}FLOPs in total{start}"
    )


def in_units(number: float) -> str:
    """Returns a number such as "12.3 M", with three digits and k, M, G, T, P or E."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} E"


def shown_cost(number: float) -> str:
    """Returns a number such as "12.3 M", or "-" for NaN."""
    return "-" if math.isnan(number) else in_units(number).strip()


# ---- earlier runs


def with_start(own: dict, earlier: list[dict]) -> dict:
    """Returns the fields of `cost.json` about earlier runs; if one is unknown, null totals and the reason."""
    unknown = next((run["unknown"] for run in earlier if run["unknown"]), None)
    totals = {
        f"{name}_with_start": None if unknown else own[name] + sum(run[name] for run in earlier)
        for name in ("steps", "total_flops")
    }
    return {"earlier_runs": earlier, **totals, "start_unknown": unknown}


def earlier_runs(settings: Settings) -> list[dict]:
    """Returns folder, steps, total_flops (null if unknown) and the reason if unknown, of each earlier run.

    Earlier runs are the run that the training started from, or the runs that a merge took routes and weights
    from. Their numbers include their own earlier runs.
    """
    return [_earlier_run(place, settings) for place in _start_places(settings)]


def _start_places(settings: Settings) -> list[str]:
    if settings.initialize_from_vanilla:
        return [settings.vanilla_checkpoint] if settings.vanilla_checkpoint else []
    checkpoint = Path(settings.checkpoint or Path(settings.output_dir) / settings.checkpoint_name)
    if not (checkpoint / MERGE_FILE).is_file():
        return [str(checkpoint)]
    merge = load_json_object(checkpoint / MERGE_FILE, "what a merge was made of").get("settings")
    merge = merge if isinstance(merge, dict) else {}
    named = [merge.get(name) for name in ("routes_from", "vanilla_checkpoint")]
    return [place for place in named if isinstance(place, str)] or [str(checkpoint)]


def _earlier_run(place: str, settings: Settings) -> dict:
    """Returns the entry of `earlier_runs` for a run, or for a checkpoint or file of weights in a run."""
    path, own = Path(place), Path(settings.output_dir).resolve()
    folders = [f for f in (path, *list(path.parents)[:2]) if (f / COST_FILE).is_file() and f.resolve() != own]
    known = {"folder": place, "steps": None, "total_flops": None, "unknown": None}
    if not path.exists():
        return known | {"unknown": f"{place} is not there any more"}
    if not folders:
        return known | {"unknown": f"no {COST_FILE} with {place}; {HOW_TO_GET_IT}"}
    cost = read_cost(folders[0])
    if cost["start_unknown"]:
        return known | {"unknown": cost["start_unknown"]}
    return known | {"steps": cost["steps_with_start"], "total_flops": cost["total_flops_with_start"]}


# ---- reading


def read_cost(run: str | Path) -> dict | None:
    """Returns a run's `cost.json`, or None if it has none. Raises InputError if it is damaged."""
    path = Path(run) / COST_FILE
    if not path.is_file():
        return None
    cost = load_json_object(path, "the cost of a run")
    unknown = cost.get("start_unknown")
    if unknown is not None and not (isinstance(unknown, str) and unknown):
        raise InputError(f"{path}: start_unknown is {unknown!r}, expected a text or null; {HOW_TO_GET_IT}")
    wanted = WITH_START if unknown is None else NUMBERS
    if bad := [name for name in wanted if not _is_count(cost.get(name))]:
        raise InputError(f"{path}: {bad[0]} is {cost.get(bad[0])!r}, expected a number; {HOW_TO_GET_IT}")
    return _as_far_as_trained(cost | {"start_unknown": unknown, "planned_steps": cost["steps"]}, Path(run))


def _as_far_as_trained(cost: dict, run: Path) -> dict:
    """Returns the cost of the steps taken, which are fewer than planned if the run stopped early."""
    done = load_progress(run / "last").get("step", cost["steps"])
    for name in ("steps", "total_flops") if done < cost["steps"] else ():
        spent = done if name == "steps" else round(cost[name] * done / cost["planned_steps"])
        if cost["start_unknown"] is None:
            cost[f"{name}_with_start"] -= cost[name] - spent
        cost[name] = spent
    return cost


def _is_count(value) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
