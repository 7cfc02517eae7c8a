"""The clusters of a mixture with given routes, and the nearest cluster of a vector.

The trained tasks with equal routes are a cluster, separately for each part of the layers. A task without a
route of its own gets that of the cluster whose centroid is nearest to the task's vector
(`route_clusters.nearest_cluster`), if the mixture keeps the vectors of its tasks.
"""

import numpy as np

from routing_moe.model.given_routes import layers_of_parts
from routing_moe.model.route_clusters import groups_of_equal_rows, nearest_cluster
from routing_moe.model.task_vectors import NOTHING
from routing_moe.task_choice.choice import TaskChoice, seen_when_stored


class RouteClusters:
    """The clusters of a mixture with given routes."""

    def __init__(self, model):
        """routes: {task: route (L, E)}; vectors: {task: vector (D,)}, {} for a mixture without them."""
        config = self.config = model.config
        self.routes = {}
        if config.route_source == "fixed":
            self.routes = dict(zip(config.task_names, model.task_routes.float().cpu().numpy(), strict=True))
        self.vectors = {}
        if config.route_parts:
            self.vectors = dict(zip(config.task_names, model.vectors_of_tasks(), strict=True))
        trained = [task for task in config.task_names if task in config.trained_tasks]
        self.trained = trained or list(self.routes)

    def nearest(self, task: str, vector_D: np.ndarray, seen: str) -> TaskChoice:
        """Returns the route of the nearest cluster of each part, for a mixture with vectors of its tasks."""
        config = self.config
        depths = config.encoder_layers, config.decoder_layers
        rows_of = layers_of_parts(config.route_parts, *depths, config.lora_splits)
        vectors_TD = np.stack([self.vectors[task] for task in self.trained])
        routes_TLE = np.stack([self.routes[task] for task in self.trained])
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
        listed = ", ".join(f"{part} {word}" for part, word in words.items())
        described = f"clusters {listed}" if len(words) > 1 else f"cluster {next(iter(words.values()))}"
        return TaskChoice(task, "cluster", described, seen, route_LE=route_LE)

    def own(self, task: str) -> TaskChoice | None:
        """Returns the mixture's own route of a task, or None."""
        if task not in self.routes:
            return None
        seen, route_LE = seen_when_stored(self.config, task), self.routes[task]
        words = "given route" if self.config.given_routes else "random for the task, drawn in the run"
        if task in self.vectors and task not in self.config.trained_tasks:
            found = self.nearest(task, self.vectors[task], seen)
            if np.array_equal(found.route_LE, route_LE):
                words = found.words
        return TaskChoice(task, "own", words, seen, route_LE=route_LE)

    def average(self, task: str) -> TaskChoice:
        """Returns equal weights of all experts."""
        L, E = self.config.num_layers, self.config.num_experts
        why = "" if self.config.route_source == "average" else ": no vector" if self.vectors else ": no route"
        route_LE = np.full((L, E), 1 / E, dtype=np.float32)
        return TaskChoice(task, "average", f"average{why}", NOTHING, route_LE=route_LE)


def cluster_name(routes_NLE: np.ndarray, task: int, label: int) -> int:
    """Returns a task's expert if each task has the same expert in all layers, else the cluster's number."""
    experts_N = single_experts(routes_NLE)
    return label if experts_N is None else int(experts_N[task])


def single_experts(routes_NLE: np.ndarray) -> np.ndarray | None:
    """Returns the experts (N,) of routes that each have the same expert in all layers, else None."""
    experts_NL = routes_NLE.argmax(axis=2)
    are_single = (routes_NLE.max(axis=2) == 1).all() and (experts_NL == experts_NL[:, :1]).all()
    return experts_NL[:, 0] if are_single else None
