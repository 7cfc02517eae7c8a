"""The routes of a run, read from the files that training wrote.

    routes = load_routes("models/moe")               # at the step of the best dev score
    history = load_history("models/moe")             # at every evaluation

Only layers with experts are kept, named "enc 0" or "dec 2" in `SavedRoutes.layers`: the rows of vanilla
layers, which no model reads, are in no picture and no statistic. N tasks, L layers with experts, E experts,
S steps.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, did_you_mean, in_short
from routing_moe.checkpoints.folder import load_progress
from routing_moe.io.files import folder_problem
from routing_moe.io.hub import folder_of_run
from routing_moe.model.given_routes import read_route_array

# "soft": the softmax at the temperature of the step; "soft_t1": at temperature 1; "chosen": one-hot, the
# expert of the largest weight in each layer, as straight-through runs are evaluated.
KINDS = {"soft": "route.npy", "soft_t1": "route_t1.npy", "chosen": "route.npy"}


@dataclass(frozen=True, eq=False)
class SavedRoutes:
    """Routes of some tasks: `values_NLE[n, l]` are the weights of tasks[n] for the experts of layers[l]."""

    name: str  # of the run, for titles and tables
    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    values_NLE: np.ndarray
    step: int | None = None
    kind: str = "soft"  # one of KINDS

    @property
    def experts(self) -> int:
        return self.values_NLE.shape[2]

    @property
    def are_equal(self) -> bool:
        """Whether all tasks have the same route."""
        return bool((self.values_NLE == self.values_NLE[:1]).all())

    @property
    def titled(self) -> str:
        """The name, with the step if there is one."""
        return self.name if self.step is None else f"{self.name}, step {self.step}"

    def of(self, tasks: Sequence[str]) -> "SavedRoutes":
        """Returns the routes of these tasks, in this order. Raises KeyError for an unknown task."""
        row = {task: n for n, task in enumerate(self.tasks)}
        return replace(self, tasks=tuple(tasks), values_NLE=self.values_NLE[[row[task] for task in tasks]])


@dataclass(frozen=True, eq=False)
class History:
    """Routes over training: `values_SNLE[s]` are those at step `steps[s]`."""

    name: str
    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    values_SNLE: np.ndarray

    def of(self, tasks: Sequence[str]) -> "History":
        rows = [self.tasks.index(task) for task in tasks]
        return replace(self, tasks=tuple(tasks), values_SNLE=self.values_SNLE[:, rows])


def load_routes(place: str | Path, step: int | str = "best", kind: str = "soft") -> SavedRoutes:
    """Returns routes of the train tasks of a run, or of the tasks of a checkpoint, as one of KINDS.

    place: a run folder with `<step>-steps/route.npy`, or a folder with a checkpoint, which is loaded.
    step: of a run: a number, "last" or "best" (best dev score).
    """
    place = folder_of_run(place)
    if problem := folder_problem(place):
        raise InputError(f"{problem}; name that of a run or of a checkpoint")
    steps = steps_with_routes(place)
    if not steps and step in ("best", "last"):
        return _routes_of_checkpoint(place, kind)
    number = best_step(place, steps) if step == "best" else steps[-1] if step == "last" else step
    if not str(number).isdecimal() or int(number) not in steps:
        known = ["best", "last", *map(str, steps)]
        guess = did_you_mean(str(step), known[:2])
        raise InputError(f"--step {step}: {place} has {in_short(known, 10)}{guess}")
    tasks, values_NLE = _read_step(place / f"{number}-steps", kind)
    rows, layers = layers_with_experts(place, values_NLE.shape[1])
    return SavedRoutes(run_name(place), tasks, layers, values_NLE[:, rows], int(number), kind)


def load_history(run: str | Path, kind: str = "soft") -> History:
    """Returns routes at every step of a run. Raises InputError if there are none, or tasks differ."""
    run = Path(run)
    if problem := folder_problem(run):
        raise InputError(problem)
    steps = steps_with_routes(run)
    if not steps:
        raise InputError(f"{run} holds no <step>-steps/route.npy")
    read = [_read_step(run / f"{step}-steps", kind) for step in steps]
    tasks, first = read[0]
    for step, (others, values) in zip(steps, read, strict=True):
        if others != tasks or values.shape != first.shape:
            raise InputError(f"{run}: {step}-steps has other tasks or layers than {steps[0]}-steps")
    rows, layers = layers_with_experts(run, first.shape[1])
    values_SNLE = np.stack([values[:, rows] for _, values in read])
    return History(run_name(run), tasks, layers, tuple(steps), values_SNLE)


def run_name(place: str | Path) -> str:
    """Returns the folder's name, with its parent's if it is generic, such as `stage1`, `seed42`, `best`.

    Of a folder in the cache of the hub: owner/name.
    """
    place = Path(place).resolve()
    if place.parent.name == "snapshots" and place.parents[1].name.startswith("models--"):
        return place.parents[1].name.removeprefix("models--").replace("--", "/")
    is_generic = re.fullmatch(r"best|last|init|(stage|seed)\d*", place.name)
    return f"{place.parent.name}/{place.name}" if is_generic else place.name


def steps_with_routes(run: Path) -> list[int]:
    """Returns the steps of evaluations, ascending."""
    names = (path.parent.name.removesuffix("-steps") for path in run.glob("*-steps/route_tasks.txt"))
    return sorted(int(name) for name in names if name.isdecimal())


def best_step(run: Path, steps: Sequence[int]) -> int:
    """Returns the step of `best/`, or the last one where that is not among the steps."""
    saved = load_progress(run / "best").get("step")
    return saved if saved in steps else steps[-1]


def layers_with_experts(run: Path, n_layers: int) -> tuple[list[int], tuple[str, ...]]:
    """Returns (rows of a route that a layer reads, their names), from the configuration of a checkpoint."""
    folders = [run / name for name in ("best", "last", "init", ".") if (run / name / "config.json").is_file()]
    if not folders:
        raise InputError(f"{run} holds no checkpoint (best/config.json), whose numbers of layers are needed")
    from routing_moe.model.configuration import Mixture  # imports torch, after files were checked

    config = Mixture.load(folders[0])
    if config.num_layers != n_layers or not config.routed_rows:
        depth = f"{config.depths[0]} + {config.depths[1]} layers"
        layers = f"{depth}, {len(config.routed_rows)} with experts; the routes of the run have {n_layers}"
        raise InputError(f"{folders[0]}/config.json has {layers}")
    return config.routed_rows, config.row_names


def layer_place(name: str) -> tuple[int, ...]:
    """Returns (stack, number) of a layer: (0, 3) for "enc 3", (1, 0) for "dec 0", (2, 0) for "layer 0".

    With the number of the split, if there are several: (0, 3, 1) for "enc 3s1".
    """
    stack, number = name.split()
    return ("enc", "dec", "layer").index(stack), *map(int, number.split("s"))


def expert_name(layer: str, expert: int) -> str:
    """Returns "enc0.1" for expert 1 of "enc 0"."""
    return f"{layer.replace(' ', '')}.{expert}"


def encoder_part(layers: Sequence[str]) -> int:
    """Returns how many of the named layers are the encoder's."""
    return sum(layer_place(name)[0] == 0 for name in layers)


def _read_step(folder: Path, kind: str) -> tuple[tuple[str, ...], np.ndarray]:
    path = folder / KINDS[kind]
    try:
        tasks, values_NLE = read_route_array(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; a run without a router has no route_t1.npy") from None
    return tasks, chosen_experts(values_NLE) if kind == "chosen" else values_NLE


def chosen_experts(values_NLE: np.ndarray) -> np.ndarray:
    """Returns one-hot routes (N, L, E): the expert of the largest weight in each layer."""
    return np.eye(values_NLE.shape[2])[values_NLE.argmax(axis=2)]


def _routes_of_checkpoint(place: Path, kind: str) -> SavedRoutes:
    """Returns routes of the trained tasks if they are known, else of all tasks whose vector is not random."""
    from routing_moe.checkpoints.find import find_mixture

    mixture = find_mixture(place, None, "checkpoint_name")
    config, names = mixture.config, mixture.config.task_names
    tasks = [task for task in names if task in config.trained_tasks]
    tasks = tasks or [task for task in names if task not in config.random_vectors]
    if not config.routes_by_task or not tasks:
        source = f"{config.num_experts} expert(s), routes: {config.route_source}"
        raise InputError(f"{place}: {source}; no task that was trained on has its own route")
    return routes_of_model(mixture.load(), tasks, kind, run_name(mixture.place))


def routes_of_model(model, tasks: Sequence[str], kind: str = "soft", name: str = "") -> SavedRoutes:
    """Returns the routes of tasks of a loaded model, as one of KINDS."""
    import torch  # takes seconds; most commands read arrays only

    config = model.config
    temperature = 1.0 if kind == "soft_t1" else config.router_temperature
    with torch.no_grad():
        values_NLE = model.source.expected(model, list(tasks), temperature).double().cpu().numpy()
    values_NLE = values_NLE[:, config.routed_rows]
    values_NLE = chosen_experts(values_NLE) if kind == "chosen" else values_NLE
    return SavedRoutes(name, tuple(tasks), config.row_names, values_NLE, kind=kind)
