"""The vector or the route of a task, where it comes from, what it has seen of the task; given vectors.

Does not import torch.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataloader.errors import InputError
from routing_moe.model.task_vectors import (
    NOTHING,
    ROWS_OF_ALL,
    UNKNOWN,
    load_meta,
    load_task_vectors,
    of_sample,
    row_of,
    seen_by,
    seen_together,
)


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
    """Returns the data of a task that a checkpoint, its experts and its vector, is based on."""
    of_weights, is_random = config.weights_seen.get(task), task in config.random_vectors
    if task in config.trained_tasks:  # in training all samples are pooled
        return ROWS_OF_ALL
    if task in config.task_names and config.routes_by_task and not is_random:
        return seen_together(config.vectors_seen or UNKNOWN, of_weights or NOTHING)
    return of_weights or (NOTHING if is_random or config.trained_tasks else UNKNOWN)


def rows_read(config, task: str) -> list[str]:
    """Returns the names of a checkpoint's vectors that a task and its samples may read."""
    return [task] if task in config.trained_tasks else config.task_names


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """The vectors (N, D) of --taskvecs, of tasks and of single samples, and what they have seen of these."""

    folder: str
    names: list[str]
    vectors_ND: np.ndarray
    seen: str

    @classmethod
    def load(cls, folder: str | Path) -> "GivenVectors":
        """Returns the vectors of a folder. Raises InputError that names it."""
        (names, vectors_ND), meta = load_task_vectors(folder), load_meta(folder)
        return cls(str(folder), names, vectors_ND, seen_by(meta))

    @property
    def by_name(self) -> dict[str, np.ndarray]:
        """{row: vector (D,)}."""
        return dict(zip(self.names, self.vectors_ND, strict=True))

    def only(self, names: Collection[str]) -> "GivenVectors":
        """Returns the rows with one of the names."""
        rows = [row for row, name in enumerate(self.names) if name in names]
        return replace(self, names=[self.names[row] for row in rows], vectors_ND=self.vectors_ND[rows])

    def vector_of(self, task: str, sample: str | None = None) -> tuple[np.ndarray, str] | None:
        """Returns (vector (D,), what it has seen) of the sample's row, else of the task's row; or None."""
        row = row_of(self.names, task, sample)
        if row not in self.names:
            return None
        seen = self.seen if row == task else of_sample(self.seen, row)
        return self.vectors_ND[self.names.index(row)], seen

    def check(self, place: str | Path, config) -> None:
        """Raises InputError unless the width is that of the vectors of the mixture in `place`."""
        D = self.vectors_ND.shape[1]
        if config.router_input_dim != D:
            raise InputError(
                f"--taskvecs {self.folder} has vectors of {D} dimensions, but those of {place} have "
                f"{config.router_input_dim}; give vectors made like those that it was trained with"
            )
