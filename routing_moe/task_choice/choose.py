"""Chooses what the route of a task comes from: the first source that has something for the task.

A mixture with a router reads a vector of the task. By the rule of --task_vector:

    auto     a given vector, else the task's row of the checkpoint unless it is random and untrained, else
             nearest
    stored   a given vector, else the task's row of the checkpoint
    nearest  a given vector, else the vector of the train task with the most similar texts (`texts.py`); train
             tasks have their own

A mixture with given routes has no router: a task's route is a given one, else that of the cluster nearest to
its given vector, else its own, else by the rule nearest that of the train task with the most similar texts,
else equal weights. `learned.py` makes a vector or route from labelled rows.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import torch

from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import UNKNOWN, of_sample, row_of
from routing_moe.task_choice.choice import TaskChoice, VectorTable, rows_read, seen_when_stored
from routing_moe.task_choice.clusters import RouteClusters
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.texts import TextsOfModel, nearest_task


class Chooser:
    """Chooses the vector or route of tasks of one model, which it does not change.

    rule: "auto", "stored" or "nearest". trained: the tasks whose vectors and routes may be copied. vectors:
    given ones; routes: given ones, {task: (L, E)}. texts: text vectors, for the nearest task. by_vector:
    whether the router reads vectors; None: if there is a router.
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
        """Returns the choice for a task, or for one of its samples.

        Raises KeyError for a task without a row if its row is needed, and ValueError if there is no neighbour
        (`TextSource.problems` reports this before).
        """
        if task in self.routes:
            return TaskChoice(task, "given", "given route", route_LE=self.routes[task])
        if self.vectors and (given := self.vectors.of(task, sample)):
            vector_D, seen = given
            if self.clusters:
                return self.clusters.nearest(task, vector_D, seen)
            return TaskChoice(task, "given", "given vector", seen, vector_D)
        if self.clusters:
            own = self.clusters.own(task)
            if own is None and self.rule == "nearest" and self.texts:
                return self.nearest(task, *self.texts.of(task, sample))
            return own or self.clusters.average(task)
        if self.table.needing_nearest([task], self.rule):
            return self.nearest(task, *self.texts.of(task, sample))
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
        """Returns the vector or the route of the train task with the most similar text vector.

        candidates: {task: text vector (D,)} of train tasks; None: those of `texts`.
        """
        neighbour, cosine = nearest_task(text_D, self.candidates if candidates is None else candidates)
        what = "route" if self.clusters else "vector"
        words = f"{what} of {neighbour} (nearest by text, cosine {cosine:.2f})"
        found = self.clusters.own(neighbour) if self.clusters else self.stored(neighbour, neighbour)
        return TaskChoice(task, "nearest", words, seen, found.vector_D, found.route_LE, neighbour)


# ---- choices in a model


def with_vectors(model, vectors: Mapping[str, np.ndarray]):
    """Returns the same model with these vectors (D,) as the rows of the named tasks.

    A new name gets a new row after the others; no name counts as random afterwards. The rows are a
    new parameter, so optimizers must be created afterwards. Raises ValueError for a model without a router,
    and for a vector of another width or with a value that is not finite.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router, so it does not use task vectors")
    D, old = model.config.router_input_dim, model.task_vectors.weight
    rows = dict(zip(model.config.task_names, old.detach(), strict=True))
    for task, vector_D in vectors.items():
        new_D = torch.as_tensor(vector_D, dtype=old.dtype, device=old.device)
        if new_D.shape != (D,) or not new_D.isfinite().all():
            raise ValueError(f"the vector of {task} must have {D} finite numbers")
        rows[task] = new_D
    weight_ND = torch.stack(list(rows.values()))
    model.task_vectors = TaskVectors.from_pretrained(weight_ND, freeze=not old.requires_grad)
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
