"""Routes that are given from outside: their files, and their matrices (N, L, E).

A route in a file is an expert number (in all layers), {"encoder": a, "decoder": b}, a list of L expert
numbers, or L rows of E weights. N tasks, L layers (encoder, then decoder), E experts. Does not import torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, Problems, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.io.arrays import load_array
from routing_moe.model.task_vectors import UNKNOWN

ROUTE_TASKS_FILE = "route_tasks.txt"  # beside a .npy file, the tasks of its rows
ROUNDING = 1e-3  # tolerance for sums of weights, because of bfloat16
FORMS = (
    'an expert number, {"encoder": number, "decoder": number}, a list of expert numbers by layer, or rows of '
    "weights by layer"
)

# {"encoder": expert, "decoder": expert}, experts by layer (L,) or weights (L, E)
Route = dict[str, int] | np.ndarray


@dataclass(frozen=True, eq=False)
class GivenRoutes:
    """The given routes of named tasks, for a model of any fitting depth.

    source: in words. vectors: {task: vector (D,)} by which other tasks are routed, or {}. seen: the data
    that they are based on. notes: for the log. clusters: the row of the table of clusters, or None.
    """

    source: str
    by_task: Mapping[str, Route]
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: str = UNKNOWN
    notes: tuple[str, ...] = ()
    clusters: Mapping | None = None

    @property
    def tasks(self) -> list[str]:
        """The tasks in the order of the rows of `matrices` and `vectors_ND`."""
        return sorted(self.by_task)

    @property
    def num_experts(self) -> int:
        """The number of experts that the routes name."""
        return max(map(experts_of, self.by_task.values()))

    @property
    def vectors_ND(self) -> np.ndarray | None:
        if not self.vectors:
            return None
        return np.stack([self.vectors[task] for task in self.tasks]).astype(np.float32)

    def matrices(
        self, encoder_layers: int, decoder_layers: int, num_experts: int, splits: int = 1
    ) -> np.ndarray:
        """Returns the routes (N, L, E) float32 in the order of `tasks`. splits: rows of a layer."""
        if self.num_experts > num_experts:
            raise InputError(f"the routes name {self.num_experts} experts; there are {num_experts}")
        layers, matrices = encoder_layers + decoder_layers, []
        for task in self.tasks:
            route = self.by_task[task]
            if isinstance(route, dict):
                route = np.repeat([route["encoder"], route["decoder"]], [encoder_layers, decoder_layers])
            if len(route) == layers:
                route = route.repeat(splits, axis=0)
            if len(route) != layers * splits:
                depths = f"{encoder_layers}+{decoder_layers} (encoder+decoder)" if encoder_layers else layers
                raise InputError(f"the route of {task} has {len(route)} layers; the model has {depths}")
            if route.ndim == 1:
                matrices.append(np.eye(num_experts)[route])
            else:
                matrices.append(np.pad(route, ((0, 0), (0, num_experts - route.shape[1]))))
        return np.stack(matrices).astype(np.float32)


# ---- layers


def layer_names(encoder_layers: int, rows: Sequence[int], splits: int = 1) -> tuple[str, ...]:
    """Returns ("enc 0", "dec 0", ...) for these rows of a route; "enc 0s1" if layers have several.

    Without an encoder ("layer 0", ...).
    """

    decoder = "dec" if encoder_layers else "layer"

    def name(row: int) -> str:
        layer, split = divmod(row, splits)
        side, i = ("enc", layer) if layer < encoder_layers else (decoder, layer - encoder_layers)
        return f"{side} {i}s{split}" if splits > 1 else f"{side} {i}"

    return tuple(map(name, rows))


def same_expert(expert: int) -> Route:
    """Returns the route along one expert in all layers."""
    return {"encoder": expert, "decoder": expert}


def experts_of(route: Route) -> int:
    """Returns the smallest number of experts that a route fits."""
    if isinstance(route, dict):
        return max(route.values()) + 1
    return route.shape[1] if route.ndim == 2 else int(route.max()) + 1


# ---- files


def read_routes(path: str | Path) -> dict[str, Route]:
    """Returns {task: route} of a .json or .npy file. Raises InputError that names the file and the task."""
    path = Path(path)
    if path.suffix == ".npy":
        if not path.is_file():
            raise InputError(f"{path}: no such file (expected routes)")
        tasks, values_NLE = read_route_array(path)
        return dict(zip(tasks, _normalised(values_NLE), strict=True))
    content = load_json_object(path, f'routes like {{"task": route, ...}}, where a route is {FORMS}')
    problems, routes = Problems(), {}
    for task, value in content.items():
        try:
            routes[task] = route_in_json(value)
        except ValueError as error:
            problems.append(f"{path}: the route of {task} {error}")
    if problems or not routes:
        raise InputError(problems or f"{path}: has no route")
    return routes


def route_in_json(value) -> Route:
    """Returns the route of a JSON value. Raises ValueError that says what is wrong with it."""
    if _is_expert(value):
        return same_expert(value)
    if isinstance(value, dict) and set(value) == {"encoder", "decoder"}:
        if all(map(_is_expert, value.values())):
            return dict(value)
    elif isinstance(value, list) and value and all(map(_is_expert, value)):
        return np.array(value, dtype=np.int64)
    elif isinstance(value, list) and value and all(isinstance(row, list) and row for row in value):
        if any(
            len(row) != len(value[0]) or not all(type(w) in (int, float) and 0 <= w <= 1 for w in row)
            for row in value
        ):
            raise ValueError("has rows of different lengths or with something else than weights from 0 to 1")
        return _normalised(np.array(value, dtype=np.float64))
    raise ValueError(f"is {str(value)[:60]!r}; it must be {FORMS}")


def _is_expert(value) -> bool:
    return type(value) is int and 0 <= value < 10_000


def _normalised(weights: np.ndarray) -> np.ndarray:
    """Returns the weights (..., E) with sums of exactly 1. Raises ValueError if they are not close to 1."""
    sums = weights.sum(axis=-1, keepdims=True)
    if not (np.abs(sums - 1) < ROUNDING).all():  # false for NaN, too
        raise ValueError("has weights of a layer's experts that do not sum to 1")
    return weights / sums


def read_route_array(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the tasks and routes (N, L, E) float64 of `route.npy` and `route_tasks.txt`, files of a run."""
    names = path.with_name(ROUTE_TASKS_FILE)
    try:
        tasks = tuple(names.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{names}: cannot be read as a list of tasks ({in_brief(error)})") from None
    values_NLE = load_array(path).astype(np.float64)
    if values_NLE.ndim != 3 or len(values_NLE) != len(tasks) or 0 in values_NLE.shape:
        expected = f"expected ({len(tasks)} tasks of {ROUTE_TASKS_FILE}, layers, experts)"
        raise InputError(f"{path}: shape {values_NLE.shape}; {expected}")
    try:
        if (values_NLE < 0).any():
            raise ValueError("has a weight below 0")
        _normalised(values_NLE)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return tasks, values_NLE
