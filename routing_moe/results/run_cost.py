"""Reads the cost of a training run from its `cost.json`: parameters, FLOPs per example, steps, total FLOPs.

`routing_moe.training.cost` computes and writes it.
"""

import math
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE, AVERAGED_FILE
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.shared import Start, without_permutation
from routing_moe.io.hub import known_folder
from routing_moe.io.run_folder import GROUPS_FILE, TRANSFER_FILE
from routing_moe.model.task_vectors import load_meta

COST_FILE = "cost.json"
EXAMPLE_COST = ("active_parameters", "total_parameters", "flops_per_example")  # shown in tables
TRAINING_COST = (*EXAMPLE_COST, "steps", "total_flops")
NUMBERS = (
    "total_parameters", "active_parameters", "flops_per_example", "examples_per_step", "steps", "total_flops"
)  # fmt: skip
WITH_START = (*NUMBERS, "steps_with_start", "total_flops_with_start")
HOW_TO_GET_IT = f"only train writes {COST_FILE}; for a finished run, give its command again with --resume"


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


def earlier_runs(start: Start, run: str | Path) -> list[dict]:
    """Returns folder, steps, total_flops (null if unknown) and the reason if unknown, of each earlier run.

    Earlier runs are the run that the training started from, the runs that a merge took routes and weights
    from, or those that were averaged or assembled; the run whose file of routes it has; the run whose model
    the task vectors were computed with; the transfer matrix (of 0 steps) whose groups it has; and the earlier
    runs of these. Each is listed once, with its own cost. start: of the run in the folder `run`.
    """
    runs: dict[Path, dict] = {}
    places = [*_start_places(start, run), *_route_places(start, run), *_vector_places(start, run)]
    for entry in [*(one for place in places for one in _with_earlier(place, run)), *_transfer(start)]:
        own = _run_folder(entry["folder"], run) if entry["steps"] != 0 else None
        runs.setdefault(own or known_folder(entry["folder"]).resolve(), entry)
    return list(runs.values())


def _start_places(start: Start, run: str | Path) -> list[str]:
    place = start.described if start.checkpoint else start.vanilla
    if place is None:
        return []
    for file in (MERGE_FILE, AVERAGED_FILE, ASSEMBLED_FILE):
        made = known_folder(place) / file
        if made.is_file():
            settings = load_json_object(made, "what a checkpoint was made of").get("settings")
            settings = settings if isinstance(settings, dict) else {}
            named = [settings.get(name) for name in ("routes_from", "vanilla_checkpoint")]
            named += settings.get("runs", [])
            named += [expert.partition("=")[2] for expert in settings.get("experts", [])]
            named += _places_in_runs(settings.get("base"), run)
            return [one for one in named if isinstance(one, str)] or [place]
    return [place]


def _route_places(start: Start, run: str | Path) -> list[str]:
    """Returns the file of --task_routes if it is in another run, else the run of its transfer matrix."""
    file = without_permutation(start.routes)[0] if start.routes else None
    if file and _run_folder(file, run):
        return [file]
    return _places_in_runs(_transfer_of(start).get("run"), run)


def _vector_places(start: Start, run: str | Path) -> list[str]:
    """Returns the run whose model the task vectors were computed with, [] for a BART of no run."""
    return _places_in_runs(load_meta(start.vectors).get("model") if start.vectors else None, run)


def _places_in_runs(place, run: str | Path) -> list[str]:
    """Returns [place] if it is a place in another run, else []."""
    return [place] if isinstance(place, str) and _run_folder(place, run, "run.json") else []


def _run_folder(place: str, run: str | Path, file: str = COST_FILE) -> Path | None:
    """Returns the folder of another run that holds a place: itself, or a checkpoint or weights in it."""
    path, own = known_folder(place), Path(run).resolve()
    folders = (f.resolve() for f in (path, *list(path.parents)[:2]) if (f / file).is_file())
    return next((folder for folder in folders if folder != own), None)


def _with_earlier(place: str, run: str | Path) -> list[dict]:
    """Returns the entries of a run, or of a checkpoint or file in a run, and of its own earlier runs."""
    folder = _run_folder(place, run)
    known = {"folder": place, "steps": None, "total_flops": None, "unknown": None}
    if not known_folder(place).exists():
        return [known | {"unknown": f"{place} no longer exists"}]
    if folder is None:
        return [known | {"unknown": f"no {COST_FILE} with {place}; {HOW_TO_GET_IT}"}]
    cost = read_cost(folder)
    if cost["start_unknown"]:
        return [known | {"unknown": cost["start_unknown"]}]
    own = known | {"steps": cost["steps"], "total_flops": cost["total_flops"]}
    return [own, *cost.get("earlier_runs", [])]


def _transfer(start: Start) -> list[dict]:
    """Returns the entry of the transfer matrix whose groups are the routes, [] for other routes."""
    flops = _transfer_of(start).get("total_flops")
    entry = {"folder": start.routes, "steps": 0, "total_flops": flops, "unknown": None}
    return [entry] if is_count(flops) else []


def _transfer_of(start: Start) -> dict:
    """Returns how the groups that are the routes were found (transfer.json), {} for other routes."""
    routes = Path(without_permutation(start.routes or "")[0])
    summary = routes.parent / TRANSFER_FILE
    is_there = routes.name == GROUPS_FILE and summary.is_file()
    return load_json_object(summary, "how tasks were grouped") if is_there else {}


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
    if bad := [name for name in wanted if not is_count(cost.get(name))]:
        raise InputError(f"{path}: {bad[0]} is {cost.get(bad[0])!r}, expected a number; {HOW_TO_GET_IT}")
    return _as_far_as_trained(cost | {"start_unknown": unknown, "planned_steps": cost["steps"]}, Path(run))


def reference_cost(run: str | Path) -> dict:
    """Returns the cost of the run `--equal_flops`. Raises InputError unless its total FLOPs are known."""
    flag = f"--equal_flops {run}"
    if not Path(run).is_dir():
        raise InputError(f"{flag}: no such folder; give that of a run")
    cost = read_cost(run)
    if cost is None:
        raise InputError(f"{flag} has no {COST_FILE}; {HOW_TO_GET_IT}")
    if cost["start_unknown"]:
        raise InputError(f"{flag}: total FLOPs are unknown: {cost['start_unknown']}")
    return cost


def _as_far_as_trained(cost: dict, run: Path) -> dict:
    """Returns the cost of the steps taken, which are fewer than planned if the run stopped early."""
    done = load_progress(run / "last").get("step", cost["steps"])
    for name in ("steps", "total_flops") if done < cost["steps"] else ():
        scoring = 0 if name == "steps" else cost.get("scoring_flops", 0)
        spent = scoring + round((cost[name] - scoring) * done / cost["planned_steps"])
        if cost["start_unknown"] is None:
            cost[f"{name}_with_start"] -= cost[name] - spent
        cost[name] = spent
    return cost


def is_count(value) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
