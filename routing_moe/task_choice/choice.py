"""What the route of a task comes from (`Resolver`), what is found (`TaskChoice`), and given vectors.

A mixture with a router reads a vector of the task: unless it is learned, a given one, else by the rule of
--task_vector:

    auto     the task's row of the checkpoint unless it is random, else nearest
    stored   the task's row of the checkpoint
    nearest  that of the train task with the most similar texts (`texts.py`), for all but train tasks
    learned  one that is trained on labelled rows, with all else frozen

A mixture with given routes has no router: a task's route is a given one, else of the cluster nearest to its
given vector, else its own, else by the rule nearest of that train task, else equal weights.

Does not import torch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, did_you_mean, in_short
from routing_moe.config.choices import SourceKind, kind_of
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
    """What a task's route comes from: a row of the model's task vectors, another vector, or a route (L, E).

    source of a vector: "given", "stored", "random" (stored but untrained), "nearest" or "learned"; of a
    route: "given", "own" (of the mixture), "cluster", "nearest", "lowest_loss", "learned" or "average".
    description: the source as logs and tables show it. seen: one of `task_vectors.SEEN`, with the name of the
    sample. neighbour: the task whose vector or route is copied.
    """

    task: str
    source: str
    description: str
    seen: str | None = UNKNOWN
    row: int | None = None
    vector_D: np.ndarray | None = None
    route_LE: np.ndarray | None = None
    neighbour: str | None = None


@dataclass(frozen=True, eq=False)
class Resolver:
    """Decides what each task's route comes from, for checks before a model is loaded as for all commands.

    source: of the mixture's routes, a key of ROUTE_SOURCES. names: tasks with a row in the mixture, a vector
    or a route; random: those whose vector is untrained; trained: those whose row may be copied. rule: as
    --task_vector. routes, vectors: given ones. by_loss: whether others get the route of lowest loss.
    """

    source: str
    names: Collection[str]
    random: Collection[str] = ()
    trained: Collection[str] = ()
    rule: str = "auto"
    routes: Mapping[str, np.ndarray] = field(default_factory=dict)
    vectors: "GivenVectors | None" = None
    by_loss: bool = False

    @classmethod
    def of(cls, config, trained: Collection[str] = (), source: str | None = None, **asked) -> "Resolver":
        """Returns that of a mixture. source: of the routes, if it is not the mixture's."""
        source = source or config.route_source
        kind = kind_of(source)
        has_rows = source == config.route_source and kind.per_task and not kind.is_equal
        return cls(source, config.task_names if has_rows else (), config.random_vectors, trained, **asked)

    @property
    def kind(self) -> type[SourceKind]:
        return kind_of(self.source)

    @property
    def known(self) -> frozenset[str]:
        """Tasks whose row has information about them."""
        return frozenset(self.names).difference(self.random)

    @property
    def seen(self) -> frozenset[str]:
        """Tasks whose rows may be copied: the known train tasks, or all known tasks if there are none."""
        return self.known.intersection(self.trained) or self.known

    def has(self, task: str) -> bool:
        """Returns whether the mixture itself has a route for the task; not if it draws one per example."""
        return self.kind.is_equal or (self.kind.per_task and task in self.known)

    def way(self, task: str, sample: str | None = None) -> str:
        """Returns what the route of a task, or of one of its samples, comes from: a method of `Chooser`."""
        if task in self.routes:
            return "given_route"
        if self.by_loss:
            return "own_route" if task in self.trained and sample is None else "lowest_loss"
        if self.rule == "learned":
            return "learned"
        if self.vectors and row_of(self.vectors.names, task, sample) in self.vectors.names:
            return "given_vector" if self.kind.reads_vectors else "nearest_cluster"
        if self.kind.reads_vectors:
            has_own = self.rule == "stored" or task in (self.known if self.rule == "auto" else self.seen)
            return "stored_vector" if has_own else "nearest_task"
        if task in self.names:
            return "own_route"
        return "nearest_task" if self.rule == "nearest" and self.names else "average"


def missing_row_error(
    place, kind: str, names: Collection[str], known: Collection[str], advice: str
) -> InputError:
    """Returns the error of tasks without a vector or route (kind) in a place, which has those of others."""
    names = sorted(map(str, names))
    those = f"{in_short(names)}, only for {in_short(sorted(known))}{did_you_mean(names[0], known)}"
    return InputError(f"{place} has no {kind} for {those}; {advice}")


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
