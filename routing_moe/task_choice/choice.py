"""The vector or the route of a task, where it comes from, and what it has seen of the task.

Does not import torch.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from routing_moe.model.task_vectors import NOTHING, ROWS_OF_ALL, UNKNOWN


@dataclass(frozen=True, eq=False)
class TaskChoice:
    """What a task's route comes from: a vector (D,) float32 that the router reads, or a route (L, E).

    source of a vector: "given", "stored", "random" (stored but untrained), "nearest" or "learned"; of a
    route: "given", "own" (of the mixture), "cluster", "nearest", "lowest_loss", "learned" or "average".
    words: the source as logs and tables show it. seen: one of `task_vectors.SEEN`, with the name of the
    sample. neighbour: the task whose vector or route is copied.
    """

    task: str
    source: str
    words: str
    seen: str = UNKNOWN
    vector_D: np.ndarray | None = None
    route_LE: np.ndarray | None = None
    neighbour: str | None = None


@dataclass(frozen=True)
class VectorTable:
    """The tasks in a checkpoint: all with a row, those whose row is random, the split's train tasks."""

    names: Collection[str]
    random: Collection[str]
    trained: Collection[str]

    @property
    def known(self) -> frozenset[str]:
        """Tasks whose row has information about them."""
        return frozenset(self.names).difference(self.random)

    @property
    def seen(self) -> frozenset[str]:
        """Tasks whose vectors may be copied: the known train tasks, or all known tasks if there are none."""
        return self.known.intersection(self.trained) or self.known

    def needing_nearest(self, tasks: Iterable[str], rule: str) -> list[str]:
        """Returns the tasks that get the vector of their nearest neighbour. rule: as --task_vector."""
        have = {"stored": set(tasks), "auto": self.known, "nearest": self.seen}[rule]
        return [task for task in tasks if task not in have]


def seen_when_stored(config, task: str) -> str:
    """Returns the data that a checkpoint's vector of a task is based on. config: a RoutingBartConfig."""
    if task in config.trained_tasks:  # in training all samples are pooled
        return ROWS_OF_ALL
    if task in config.random_vectors:
        return NOTHING
    return config.vectors_seen or UNKNOWN


def rows_read(config, task: str) -> list[str]:
    """Returns the names of a checkpoint's vectors that a task and its samples may read."""
    return [task] if task in config.trained_tasks else config.task_names
