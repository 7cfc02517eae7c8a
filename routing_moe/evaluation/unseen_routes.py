"""Routes of tasks in a mixture with given routes: their own, that of the nearest cluster, or equal weights.

The trained tasks with equal routes are a cluster, separately for each part of the layers. A task without a
route of its own gets that of the cluster whose centroid is nearest to the task's vector
(`route_clusters.nearest_cluster`), if the mixture keeps the vectors of its tasks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from routing_moe.evaluation.vector_sources import seen_when_stored
from routing_moe.model.given_routes import layers_of_parts
from routing_moe.model.route_clusters import groups_of_equal_rows, nearest_cluster
from routing_moe.model.task_vectors import NOTHING, UNKNOWN


@dataclass(frozen=True, eq=False)
class RouteChoice:
    """The route (L, E) of a task.

    source: "own" (of the mixture), "given", "cluster" or "average". words: the source as tables show it.
    seen: the data of the task that the choice is based on, one of `task_vectors.SEEN`.
    """

    task: str
    source: str
    route_LE: np.ndarray
    words: str
    seen: str = UNKNOWN

    def described(self) -> str:
        return self.words


class RouteClusters:
    """The clusters of a mixture with given routes."""

    def __init__(self, model):
        """own: {task: route (L, E)}; vectors: {task: vector (D,)}, {} for a mixture without them."""
        config = self.config = model.config
        self.own = {}
        if config.route_source == "fixed":
            self.own = dict(zip(config.task_names, model.task_routes.float().cpu().numpy(), strict=True))
        self.vectors = {}
        if config.route_parts:
            self.vectors = dict(zip(config.task_names, model.vectors_of_tasks(), strict=True))
        self.trained = [task for task in config.task_names if task in config.trained_tasks] or list(self.own)

    def nearest(self, task: str, vector_D: np.ndarray, seen: str) -> RouteChoice:
        """Returns the route of the nearest cluster of each part, for a mixture with vectors of its tasks."""
        depths = self.config.encoder_layers, self.config.decoder_layers
        rows_of = layers_of_parts(self.config.route_parts, *depths)
        vectors_TD = np.stack([self.vectors[task] for task in self.trained])
        routes_TLE = np.stack([self.own[task] for task in self.trained])
        route_LE, words = np.zeros_like(routes_TLE[0]), {}
        for part in sorted(rows_of, key=lambda part: rows_of[part][0]):
            start, end = self.config.route_parts[part]
            part_TLE = routes_TLE[:, rows_of[part]]
            labels_T = groups_of_equal_rows(part_TLE.reshape(len(part_TLE), -1))
            found = nearest_cluster(vector_D[start:end], vectors_TD[:, start:end], labels_T)
            member = int(np.flatnonzero(labels_T == found.label)[0])
            route_LE[rows_of[part]] = part_TLE[member]
            name = cluster_name(part_TLE, member, found.label)
            words[part] = f"{name} (cosine {found.cosine:.2f})"
        if len(words) == 1:
            return RouteChoice(task, "cluster", route_LE, f"cluster {next(iter(words.values()))}", seen)
        listed = ", ".join(f"{part} {word}" for part, word in words.items())
        return RouteChoice(task, "cluster", route_LE, f"clusters {listed}", seen)

    def choose(self, task: str) -> RouteChoice:
        """Returns the mixture's own route of a task, else equal weights."""
        if task not in self.own:
            return self.average(task)
        seen = seen_when_stored(self.config, task)
        words = "given route" if self.config.given_routes else "random for the task, drawn in the run"
        if task in self.vectors and task not in self.config.trained_tasks:
            found = self.nearest(task, self.vectors[task], seen)
            if np.array_equal(found.route_LE, self.own[task]):
                words = found.words
        return RouteChoice(task, "own", self.own[task], words, seen)

    def average(self, task: str) -> RouteChoice:
        size = self.config.num_layers, self.config.num_experts
        why = "no vector" if self.vectors else "no route"
        route_LE = np.full(size, 1 / size[1], dtype=np.float32)
        return RouteChoice(task, "average", route_LE, f"average: {why}", NOTHING)


def cluster_name(routes_NLE: np.ndarray, task: int, label: int) -> int:
    """Returns a task's expert if each task has the same expert in all layers, else the cluster's number."""
    experts_NL = routes_NLE.argmax(axis=2)
    are_single = (routes_NLE.max(axis=2) == 1).all() and (experts_NL == experts_NL[:, :1]).all()
    return int(experts_NL[task, 0]) if are_single else label


def choose_routes(
    clusters: RouteClusters,
    tasks: Iterable[str],
    given: Mapping[str, np.ndarray],
    vectors: Mapping[str, np.ndarray],
    vectors_seen: str = UNKNOWN,
) -> list[RouteChoice]:
    """Returns the route of each task: a given one (L, E), by its given vector, its own, or equal weights.

    clusters: of the model. vectors_seen: the data that the vectors are based on. Does not change the model;
    `with_routes` applies the choices.
    """
    choices = []
    for task in tasks:
        if task in given:
            choices.append(RouteChoice(task, "given", given[task], "given route"))
        elif task in vectors:
            choices.append(clusters.nearest(task, vectors[task], vectors_seen))
        else:
            choices.append(clusters.choose(task))
    return choices


def with_routes(model, choices: Iterable[RouteChoice]):
    """Returns the same model, restricted to the tasks of the choices, with their routes as fixed ones."""
    choices, source = list(choices), model.config.given_routes
    model.config.task_names = [choice.task for choice in choices]
    routes_NLE = np.stack([choice.route_LE for choice in choices]).astype(np.float32)
    model.use_routes("fixed", torch.from_numpy(routes_NLE))
    model.config.given_routes = source or "--task_routes"
    return model
