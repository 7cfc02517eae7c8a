"""The cost of a training run in its `cost.json`: parameters, FLOPs per example, steps, total FLOPs.

`routing_moe.training.cost` computes and writes it at the end of the run.
"""

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
TRAINING_COST = ("active_parameters", "total_parameters", "flops_per_example", "steps", "total_flops")
HOW_TO_GET_IT = "`train` writes it at the end; for a finished run, give its command again with --resume"


def in_units(number: float) -> str:
    """Returns a number such as "12.3 M", with three digits and k, M, G, T, P or E."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} E"


def read_cost(run: str | Path) -> dict | None:
    """Returns a run's `cost.json`, or None if it has none. Raises InputError if it is damaged."""
    path = Path(run) / COST_FILE
    if not path.is_file():
        return None
    cost = {"start_unknown": None} | load_json_object(path, "the cost of a run")
    with_start = () if cost["start_unknown"] else ("steps_with_start", "total_flops_with_start")
    for name in (*TRAINING_COST, *with_start):
        if not isinstance(cost.get(name), int | float):
            raise InputError(f"{path}: {name} is {cost.get(name)!r}, expected a number; {HOW_TO_GET_IT}")
    return cost


def reference_cost(run: str | Path) -> dict:
    """Returns the cost of the run of --equal_flops. Raises InputError if it has none."""
    if (cost := read_cost(run)) is None:
        raise InputError(f"--equal_flops {run} has no {COST_FILE}; {HOW_TO_GET_IT}")
    return cost


# ---- the runs that a training came from


def with_start(cost: dict, start: Start, run: str | Path) -> dict:
    """Returns the cost of a training in the folder `run`, with totals over all runs that it came from.

    runs_before: {folder: [steps, FLOPs]} of the others, each once, and of the transfer matrix of groups.
    start_unknown: why the totals are null.
    """
    places, before, unknown = _places_of_weights(start), {}, None
    routes = Path(without_permutation(start.routes or "")[0])
    if routes.name == GROUPS_FILE and (matrix := routes.with_name(TRANSFER_FILE)).is_file():
        found = load_json_object(matrix, "how tasks were grouped")
        before[str(matrix.resolve())] = [0, found.get("total_flops", 0)]
        if _run_folder(found.get("run"), run):  # not if its rows were too few for a training
            places.append(found["run"])
    for place in filter(None, places):
        if folder := _run_folder(place, run):
            earlier = read_cost(folder)
            unknown = unknown or earlier["start_unknown"]
            before[str(folder)] = [earlier["steps"], earlier["total_flops"]]
            before |= earlier.get("runs_before", {})
        elif not _is_untrained(place):
            unknown = unknown or f"no {COST_FILE} with {place}; {HOW_TO_GET_IT}"
    own, steps, flops = [cost["steps"], cost["total_flops"]], None, None
    if not unknown:
        steps, flops = (sum(numbers) for numbers in zip(own, *before.values(), strict=True))
    totals = {"steps_with_start": steps, "total_flops_with_start": flops}
    return cost | totals | {"start_unknown": unknown, "runs_before": before}


def _places_of_weights(start: Start) -> list[str | None]:
    """Returns the checkpoint of a start; of a merged one, that of its routes, and --vanilla_checkpoint."""
    place = start.described if start.checkpoint else start.vanilla
    merged = known_folder(place or "") / MERGE_FILE
    if place is None or not merged.is_file():
        return [place]
    settings = load_json_object(merged, "what a checkpoint was made of").get("settings", {})
    return [settings.get("routes_from", place), settings.get("vanilla_checkpoint")]


def _is_untrained(place: str) -> bool:
    """Returns whether a place is a plain model that no run has trained."""
    saved = saved_fields(known_folder(place))
    return bool(saved) and saved.get("model_type") not in MIXTURES and not saved.get("weights_seen")


def _run_folder(place: str | None, run: str | Path) -> Path | None:
    """Returns the other run with a cost that a place is, or whose checkpoint or file it is."""
    path = known_folder(place or "")
    folders = (path, *path.parents[:2]) if place else ()
    runs = [folder.resolve() for folder in folders if (folder / COST_FILE).is_file()]
    return next((folder for folder in runs if folder != Path(run).resolve()), None)
