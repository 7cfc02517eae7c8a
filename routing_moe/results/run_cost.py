"""The cost of a training run in its `cost.json`: parameters, FLOPs per example, steps, total FLOPs.

`routing_moe.training.cost` computes and writes it at the end of the run.
"""

import math
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import saved_fields
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.choices import MIXTURES
from routing_moe.config.shared import Start, without_permutation
from routing_moe.io.hub import known_folder
from routing_moe.io.run_folder import GROUPS_FILE, TRANSFER_FILE

COST_FILE = "cost.json"
EXAMPLE_COST = ("active_parameters", "total_parameters", "flops_per_example")  # shown in tables
TRAINING_COST = (*EXAMPLE_COST, "steps", "total_flops")
UNCOUNTED = "the FLOPs of its router cannot be counted"
HOW_TO_GET_IT = "`train` writes it at the end; for a finished run, give its command again with --resume"


def described_cost(cost: dict) -> str:
    """Returns the cost as a line for the log."""
    parameters = f"{in_units(cost['active_parameters'])} active of {in_units(cost['total_parameters'])}"
    if cost["total_flops"] is None:
        return f"parameters: {parameters}; {UNCOUNTED}"
    start, total = "", cost["total_flops_with_start"]
    if cost["start_unknown"]:
        start = f", and the start (unknown: {cost['start_unknown']})"
    elif total is None:
        start = ", and the start (not counted)"
    elif total != cost["total_flops"]:
        start = f", {in_units(total)}FLOPs with the start"
    return (
        f"parameters: {parameters}; "
        f"{in_units(cost['flops_per_example'])}FLOPs per example; {in_units(cost['total_flops'])}FLOPs{start}"
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


def read_cost(run: str | Path) -> dict | None:
    """Returns a run's `cost.json`, or None if it has none. Raises InputError if it is damaged."""
    path = Path(run) / COST_FILE
    if not path.is_file():
        return None
    cost = {"start_unknown": None} | load_json_object(path, "the cost of a run")
    names = [*TRAINING_COST, "examples_per_step"]
    if not cost["start_unknown"]:
        names += ["steps_with_start"]
        if cost.get("total_flops_with_start", math.nan) is not None:  # of a start that is not counted
            names += ["total_flops_with_start"]
    if cost.get("counted", True) is None:  # UNCOUNTED
        names = [name for name in names if "flops" not in name]
    for name in names:
        if not (isinstance(cost.get(name), int | float) and 0 < cost[name] < math.inf):
            raise InputError(f"{path}: {name} is {cost.get(name)!r}, expected a number; {HOW_TO_GET_IT}")
    return cost


def reference_cost(run: str | Path) -> dict:
    """Returns the cost of the run of --equal_flops. Raises InputError if it has none."""
    if (cost := read_cost(run)) is None:
        raise InputError(f"--equal_flops {run} has no {COST_FILE}; {HOW_TO_GET_IT}")
    if cost["total_flops"] is None:
        raise InputError(f"--equal_flops {run}: {UNCOUNTED}; give --total_steps")
    return cost


# ---- the run that a training starts from


def with_start(cost: dict, start: Start, run: str | Path) -> dict:
    """Returns the cost of a training in the folder `run` with that of the run which it started from.

    Totals include the start of that run, and the transfer matrix of given groups; null if unknown.
    """
    routes, transfer = Path(without_permutation(start.routes or "")[0]), {}
    if routes.name == GROUPS_FILE and (routes.parent / TRANSFER_FILE).is_file():
        transfer = load_json_object(routes.parent / TRANSFER_FILE, "how tasks were grouped")
    places = [transfer.get("run")]
    if _run_folder(places[0], run) is None:
        places = _places_of_weights(start, run)
    unknown, steps, flops = None, cost["steps"], cost["total_flops"]  # None: not counted
    flops = flops and flops + transfer.get("total_flops", 0)
    for place in places:
        folder, lacking = _run_folder(place, run), f"no {COST_FILE} with {place}; {HOW_TO_GET_IT}"
        saved = {} if folder else saved_fields(known_folder(place))
        if saved and saved.get("model_type") not in MIXTURES and not saved.get("weights_seen"):
            continue  # a plain model that no run has trained
        earlier = read_cost(folder) if folder else {"start_unknown": lacking}
        unknown = unknown or earlier["start_unknown"]
        if not unknown:
            steps += earlier["steps_with_start"]
            before = earlier["total_flops_with_start"]
            flops = flops and before and flops + before
    if unknown:
        steps = flops = None
    totals = {"steps_with_start": steps, "total_flops_with_start": flops, "start_unknown": unknown}
    return cost | {"start": next(iter(places), None), "starts": places} | totals


def _places_of_weights(start: Start, run: str | Path) -> list[str]:
    """Returns the checkpoint of a start; of a merged one, that of its routes, and --vanilla_checkpoint."""
    place = start.described if start.checkpoint else start.vanilla
    merged = known_folder(place or "") / MERGE_FILE
    if place is None or not merged.is_file():
        return [place] if place else []
    settings = load_json_object(merged, "what a checkpoint was made of").get("settings", {})
    routes, vanilla = settings.get("routes_from", place), settings.get("vanilla_checkpoint")
    # The run of the routes may have started from the same weights, which count once.
    counted = vanilla is None or _run_folder(vanilla, run) in _runs_to(routes, run)
    return [routes] if counted else [routes, vanilla]


def _runs_to(place: str | None, run: str | Path) -> list[Path]:
    """Returns the run of a place, and all runs before it from which it started."""
    if (folder := _run_folder(place, run)) is None:
        return []
    cost = read_cost(folder)
    before = cost.get("starts", [cost.get("start")])  # earlier files have the first only
    return [folder, *(run for place in before for run in _runs_to(place, folder))]


def _run_folder(place: str | None, run: str | Path) -> Path | None:
    """Returns the other run with a cost that a place is, or whose checkpoint or file it is."""
    path = known_folder(place or "")
    folders = (path, *path.parents[:2]) if place else ()
    runs = [folder.resolve() for folder in folders if (folder / COST_FILE).is_file()]
    return next((folder for folder in runs if folder != Path(run).resolve()), None)
