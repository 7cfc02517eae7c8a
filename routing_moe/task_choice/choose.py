"""Chooses what the route of a task comes from: the first source that has something for the task.

A mixture with a router reads a vector of the task. By the rule of --task_vector:

    auto     a given vector, else the task's row of the checkpoint unless it is random, else nearest
    stored   a given vector, else the task's row of the checkpoint
    nearest  a given vector, else that of the train task with the most similar texts (`texts.py`)

A mixture with given routes has no router: a task's route is a given one, else of the cluster nearest to its
given vector, else its own, else by the rule nearest of that train task, else equal weights.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import torch

from routing_moe.model.route_clusters import groups_of_equal_rows, nearest_cluster
from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import UNKNOWN, of_sample, row_of
from routing_moe.task_choice.choice import GivenVectors, TaskChoice, VectorTable, rows_read, seen_when_stored
from routing_moe.task_choice.texts import TextsOfModel, nearest_task


class Chooser:
    """Chooses the vector or route of tasks of one model, which it does not change.

    trained: the tasks whose vectors and routes may be copied. vectors, routes: given ones, {task: (L, E)}.
    texts: for the nearest task. by_vector: whether the router reads vectors; None: if there is a router.
    """

    def __init__(
        self,
        model,
        rule: str = "auto",
        trained: Iterable[str] = (),
        vectors: GivenVectors | None = None,
        routes: Mapping[str, np.ndarray] | None = None,
        texts: TextsOfModel | None = None,
        by_vector: bool | None = None,
    ):
        self.model, self.config, self.rule = model, model.config, rule
        self.table = VectorTable(self.config.task_names, self.config.random_vectors, trained)
        self.vectors, self.routes, self.texts = vectors, routes or {}, texts
        by_vector = self.config.has_router if by_vector is None else by_vector
        self.clusters = None if by_vector else RouteClusters(model)

    @cached_property
    def candidates(self) -> Mapping[str, np.ndarray]:
        """{task: text vector (D,)} of the tasks that may be the nearest."""
        return self.texts.candidates(self.table.seen)

    def choose(self, task: str, sample: str | None = None) -> TaskChoice:
        """Returns the choice for a task, or for one of its samples."""
        if task in self.routes:
            return TaskChoice(task, "given", "given route", route_LE=self.routes[task])
        if self.vectors and (given := self.vectors.vector_of(task, sample)):
            vector_D, seen = given
            if self.clusters:
                return self.clusters.nearest(task, vector_D, seen)
            return TaskChoice(task, "given", "given vector", seen, vector_D)
        if self.clusters:
            if route := self.clusters.stored(task):
                return route
            if self.rule == "nearest" and self.texts:
                return self.nearest(task, *self.texts.text_of(task, sample))
            return self.clusters.average(task)
        if self.table.needing_nearest([task], self.rule):
            return self.nearest(task, *self.texts.text_of(task, sample))
        return self.stored(task, row_of(rows_read(self.config, task), task, sample))

    def stored(self, task: str, row: str) -> TaskChoice:
        """Returns the checkpoint's vector of a row, which is the task or one of its samples."""
        source = "random" if row in self.config.random_vectors else "stored"
        seen = seen_when_stored(self.config, row)
        seen = seen if row == task else of_sample(seen, row)
        vector_D = self.model.task_vectors.weight.detach()[int(self.model.task_rows([row])[0])]
        return TaskChoice(task, source, f"{source} vector", seen, vector_D.float().cpu().numpy().copy())

    def nearest(
        self,
        task: str,
        text_D: np.ndarray,
        seen: str = UNKNOWN,
        candidates: Mapping[str, np.ndarray] | None = None,
    ) -> TaskChoice:
        """Returns the vector or the route of the train task with the most similar text vector."""
        neighbour, cosine = nearest_task(text_D, self.candidates if candidates is None else candidates)
        what = "route" if self.clusters else "vector"
        words = f"{what} of {neighbour} (nearest by text, cosine {cosine:.2f})"
        copied = self.clusters.stored(neighbour) if self.clusters else self.stored(neighbour, neighbour)
        return TaskChoice(task, "nearest", words, seen, copied.vector_D, copied.route_LE, neighbour)


class RouteClusters:
    """The clusters of a mixture with given routes: trained tasks with equal routes.

    routes: {task: route (L, E)}; vectors: {task: vector (D,)}, {} for a mixture without them.
    """

    def __init__(self, model):
        config = self.config = model.config
        self.routes, self.vectors = {}, {}
        if config.route_source not in ("learned", "average", "random"):
            routes_NLE = model.routes_for(config.task_names).float().cpu().numpy()
            self.routes = dict(zip(config.task_names, routes_NLE, strict=True))
        if config.has_route_vectors:
            self.vectors = dict(zip(config.task_names, model.vectors_of_tasks(), strict=True))
        trained = [task for task in config.task_names if task in config.trained_tasks]
        self.trained = trained or list(self.routes)

    def nearest(self, task: str, vector_D: np.ndarray, seen: str) -> TaskChoice:
        """Returns the route of the nearest cluster, for a mixture with vectors of its tasks."""
        vectors_TD = np.stack([self.vectors[task] for task in self.trained])
        routes_TLE = np.stack([self.routes[task] for task in self.trained])
        labels_T = groups_of_equal_rows(routes_TLE.reshape(len(routes_TLE), -1))
        label, cosine = nearest_cluster(vector_D, vectors_TD, labels_T)
        member = int(np.flatnonzero(labels_T == label)[0])
        experts_T = single_experts(routes_TLE)
        name = label if experts_T is None else experts_T[member]
        words = f"cluster {name} (cosine {cosine:.2f})"
        return TaskChoice(task, "cluster", words, seen, route_LE=routes_TLE[member])

    def stored(self, task: str) -> TaskChoice | None:
        """Returns the mixture's own route of a task, or None."""
        if task not in self.routes:
            return None
        seen, route_LE = seen_when_stored(self.config, task), self.routes[task]
        words = "given route" if self.config.given_routes else "random for the task, drawn in the run"
        words = words if self.config.route_source == "fixed" else f"route of {self.config.route_source}"
        if task in self.vectors and task not in self.config.trained_tasks:
            nearest = self.nearest(task, self.vectors[task], seen)
            words = nearest.words if np.array_equal(nearest.route_LE, route_LE) else words
        return TaskChoice(task, "own", words, seen, route_LE=route_LE)

    def average(self, task: str) -> TaskChoice:
        """Returns equal weights of all experts."""
        L, E = self.config.num_layers, self.config.num_experts
        why = "" if self.config.route_source == "average" else ": no vector" if self.vectors else ": no route"
        route_LE = np.full((L, E), 1 / E, dtype=np.float32)
        seen = seen_when_stored(self.config, task)
        return TaskChoice(task, "average", f"average{why}", seen, route_LE=route_LE)


def single_experts(routes_NLE: np.ndarray) -> np.ndarray | None:
    """Returns the experts (N,) of routes that each have the same expert in all layers, else None."""
    experts_NL = routes_NLE.argmax(axis=2)
    are_single = (routes_NLE.max(axis=2) == 1).all() and (experts_NL == experts_NL[:, :1]).all()
    return experts_NL[:, 0] if are_single else None


# ---- choices in a model


def with_vectors(model, vectors: Mapping[str, np.ndarray]):
    """Returns the same model with these vectors (D,) as the rows of the named tasks, new ones at the end."""
    table = model.task_vectors.weight
    rows = dict(zip(model.config.task_names, table.detach(), strict=True))
    rows |= {task: torch.as_tensor(vector_D).to(table) for task, vector_D in vectors.items()}
    weight_ND = torch.stack(list(rows.values()))
    model.task_vectors = TaskVectors.from_pretrained(weight_ND, freeze=not table.requires_grad)
    model.config.task_names = list(rows)
    model.config.random_vectors = [task for task in model.config.random_vectors if task not in vectors]
    return model


def with_routes(model, choices: Iterable[TaskChoice]):
    """Returns the same model, restricted to the tasks of the choices, with their routes as fixed ones."""
    choices, source = list(choices), model.config.given_routes
    model.config.task_names = [choice.task for choice in choices]
    routes_NLE = np.stack([choice.route_LE for choice in choices]).astype(np.float32)
    model.use_routes("fixed", torch.from_numpy(routes_NLE))
    model.config.given_routes = source or "--task_routes"
    return model
