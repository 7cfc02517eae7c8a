"""Finds the vector or the route of a task in the way that a `choice.Resolver` decides."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.encoded import EncodedExamples
from routing_moe.model.route_clusters import groups_of_equal_rows, nearest_cluster, single_experts
from routing_moe.model.selection import select_routes
from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import UNKNOWN, of_sample, row_of
from routing_moe.task_choice.choice import Resolver, TaskChoice, rows_read, seen_when_stored
from routing_moe.task_choice.learned import LowestLoss, learn
from routing_moe.task_choice.texts import TextsOfModel, nearest_task

Rows = Callable[[str, str | None], tuple[EncodedExamples, str]]  # of a task or sample: (rows, sample)


class Chooser:
    """Finds the vector or route of tasks of one model, which it does not change.

    texts: for the nearest task. rows: labelled ones, for the lowest loss, or to learn a vector or route from;
    learning: steps, rate and seed.
    """

    def __init__(
        self,
        model,
        resolver: Resolver,
        texts: TextsOfModel | None = None,
        rows: Rows | None = None,
        accelerator: Accelerator | None = None,
        **learning,
    ):
        self.model, self.config, self.resolver = model, model.config, resolver
        self.texts, self.rows, self.accelerator, self.learning = texts, rows, accelerator, learning
        self.stored_routes = None if resolver.kind.reads_vectors else StoredRoutes(model)

    def choose(self, task: str, sample: str | None = None) -> TaskChoice:
        """Returns the choice for a task, or for one of its samples."""
        return getattr(self, self.resolver.way(task, sample))(task, sample)

    def choose_all(self, tasks: Iterable[str]) -> dict[str, TaskChoice]:
        """Returns {task: choice}; the rows of all tasks that need the lowest loss are batched together."""
        by_loss = [task for task in tasks if self.resolver.way(task) == "lowest_loss"]
        found = (
            self.lowest_loss_chooser.choose({task: self.rows(task, None) for task in by_loss})
            if by_loss
            else {}
        )
        return {task: found[task] if task in found else self.choose(task) for task in tasks}

    def route(self, choice: TaskChoice) -> Tensor:
        """Returns the noise-free route (L, E) of a choice."""
        if choice.route_LE is not None:
            return torch.from_numpy(choice.route_LE).to(self.model.device, self.model.routing_dtype)
        config, logits_1LE = self.config, self.model.router(vector_of(self.model, choice)[None])
        how = config.router_mode, config.router_temperature
        return select_routes(logits_1LE, *how, top_k=config.router_top_k, noise=False)[0].detach()

    # ---- the ways of a resolver

    def given_route(self, task: str, sample: str | None) -> TaskChoice:
        return TaskChoice(task, "given", "given route", route_LE=self.resolver.routes[task])

    def given_vector(self, task: str, sample: str | None) -> TaskChoice:
        vector_D, seen = self.resolver.vectors.vector_of(task, sample)
        return TaskChoice(task, "given", "given vector", seen, vector_D=vector_D)

    def nearest_cluster(self, task: str, sample: str | None) -> TaskChoice:
        return self.stored_routes.nearest(task, *self.resolver.vectors.vector_of(task, sample))

    def own_route(self, task: str, sample: str | None) -> TaskChoice:
        if not self.resolver.by_loss:
            return self.stored_routes.stored(task)
        seen, route_LE = seen_when_stored(self.config, task), self.lowest_loss_chooser.routes[task]
        return TaskChoice(task, "own", "own route", seen, route_LE=route_LE)

    def average(self, task: str, sample: str | None) -> TaskChoice:
        """Returns equal weights of all experts."""
        L, E = self.config.num_layers, self.config.num_experts
        why = ": no vector" if self.stored_routes.vectors else ": no route"
        description = "average" if self.config.source_kind.is_equal else f"average{why}"
        seen, route_LE = seen_when_stored(self.config, task), np.full((L, E), 1 / E, dtype=np.float32)
        return TaskChoice(task, "average", description, seen, route_LE=route_LE)

    def learned(self, task: str, sample: str | None) -> TaskChoice:
        rows, sample = self.rows(task, sample)
        return learn(self.model, task, rows, sample=sample, accelerator=self.accelerator, **self.learning)

    def lowest_loss(self, task: str, sample: str | None) -> TaskChoice:
        return self.lowest_loss_chooser.choose({task: self.rows(task, sample)})[task]

    def stored_vector(self, task: str, sample: str | None) -> TaskChoice:
        """Returns the checkpoint's vector of the task or of one of its samples."""
        row = row_of(rows_read(self.config, task), task, sample)
        source = "random" if row in self.config.random_vectors else "stored"
        seen = seen_when_stored(self.config, row)
        seen = seen if row == task else of_sample(seen, row)
        return TaskChoice(task, source, f"{source} vector", seen, int(self.model.task_rows([row])))

    def nearest_task(self, task: str, sample: str | None) -> TaskChoice:
        """Returns the vector or the route of the train task with the most similar text vector."""
        return self.nearest(task, *self.texts.text_vector_of(task, sample))

    def nearest(self, task: str, text_D: np.ndarray, seen: str = UNKNOWN, candidates: Mapping | None = None):
        """Returns `nearest_task` of a text vector. candidates: {task: text vector (D,)}; None: all."""
        neighbour, cosine = nearest_task(text_D, self.candidates if candidates is None else candidates)
        what = "route" if self.stored_routes else "vector"
        description = f"{what} of {neighbour} (nearest by text, cosine {cosine:.2f})"
        own = (
            self.stored_routes.stored(neighbour)
            if self.stored_routes
            else self.stored_vector(neighbour, None)
        )
        return TaskChoice(task, "nearest", description, seen, own.row, None, own.route_LE, neighbour)

    @cached_property
    def candidates(self) -> Mapping[str, np.ndarray]:
        return self.texts.candidates(self.resolver.seen)

    @cached_property
    def lowest_loss_chooser(self) -> LowestLoss:
        return LowestLoss(self.model, self.resolver.trained, self.accelerator)


class StoredRoutes:
    """The clusters of a mixture with given routes: trained tasks with equal routes.

    routes: {task: route (L, E)}; vectors: {task: vector (D,)}, {} for a mixture without them.
    """

    def __init__(self, model):
        config = self.config = model.config
        self.routes, self.vectors = {}, {}
        kind = config.source_kind
        if kind.per_task and not kind.reads_vectors and not kind.is_equal:
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
        description = f"cluster {name} (cosine {cosine:.2f})"
        return TaskChoice(task, "cluster", description, seen, route_LE=routes_TLE[member])

    def stored(self, task: str) -> TaskChoice:
        """Returns the mixture's own route of a task that has one."""
        seen, route_LE = seen_when_stored(self.config, task), self.routes[task]
        if not self.config.source_kind.is_stored:
            description = f"route of {self.config.route_source}"
        else:
            is_given = self.config.given_routes
            description = "given route" if is_given else "random for the task, drawn in the run"
        if task in self.vectors and task not in self.config.trained_tasks:
            nearest = self.nearest(task, self.vectors[task], seen)
            description = nearest.description if np.array_equal(nearest.route_LE, route_LE) else description
        return TaskChoice(task, "own", description, seen, route_LE=route_LE)


# ---- choices in a model


def vector_of(model, choice: TaskChoice) -> Tensor:
    """Returns the vector (D,) of a choice that is no route."""
    if choice.row is not None:
        return model.task_vectors.weight[choice.row]
    return torch.from_numpy(choice.vector_D).to(model.device, model.routing_dtype)


@torch.no_grad()
def with_vectors(model, vectors: Mapping[str, Tensor]):
    """Returns the same model with these vectors (D,) as the rows of the named tasks, new ones at the end."""
    table = model.task_vectors.weight
    rows = dict(zip(model.config.task_names, table.detach(), strict=True))
    rows |= {task: vector_D.to(table) for task, vector_D in vectors.items()}
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
