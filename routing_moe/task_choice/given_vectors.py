"""The vectors of --taskvecs: rows of tasks, and rows of single samples, which go before those of their task.

Does not import torch.
"""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, problem_context
from routing_moe.model.given_routes import ALL
from routing_moe.model.task_vectors import load_meta, load_task_vectors, of_sample, parts_in, row_of, seen_by


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """The vectors (N, D) of a folder, the names of their rows, and what they have seen of their tasks.

    parts: {part: (start, end)} of the dimensions, {"all": (0, D)} for vectors without parts.
    """

    folder: str
    names: list[str]
    vectors_ND: np.ndarray
    parts: dict[str, tuple[int, int]]
    seen: str

    @classmethod
    def load(cls, folder: str | Path) -> "GivenVectors":
        """Returns the vectors of a folder. Raises InputError that names it."""
        names, vectors_ND = load_task_vectors(folder)
        meta, D = load_meta(folder), vectors_ND.shape[1]
        with problem_context(f"{folder}/"):
            parts = parts_in(meta)
            if outside := [part for part, (_, end) in parts.items() if end > D]:
                raise InputError(f"meta.json: part {outside[0]} ends after the {D} dimensions of the vectors")
        return cls(str(folder), names, vectors_ND, parts or {ALL: (0, D)}, seen_by(meta))

    @property
    def by_name(self) -> dict[str, np.ndarray]:
        """{row: vector (D,)}."""
        return dict(zip(self.names, self.vectors_ND, strict=True))

    def only(self, names: Collection[str]) -> "GivenVectors":
        """Returns the rows with one of the names."""
        rows = [row for row, name in enumerate(self.names) if name in names]
        chosen = [self.names[row] for row in rows]
        return dataclasses.replace(self, names=chosen, vectors_ND=self.vectors_ND[rows])

    def vector_of(self, task: str, sample: str | None = None) -> tuple[np.ndarray, str] | None:
        """Returns (vector (D,), what it has seen) of the sample's row, else of the task's row; or None."""
        row = row_of(self.names, task, sample)
        if row not in self.names:
            return None
        seen = self.seen if row == task else of_sample(self.seen, row)
        return self.vectors_ND[self.names.index(row)], seen

    def check(self, place: str | Path, config) -> None:
        """Raises InputError unless width and parts are those of the vectors of the mixture in `place`."""
        D, parts = self.vectors_ND.shape[1], config.route_parts or self.parts
        differ = None
        if config.router_input_dim != D:
            differ = f"of {D} dimensions, but those of {place} have {config.router_input_dim}"
        elif self.parts != {part: tuple(ends) for part, ends in parts.items()}:
            differ = f"with the parts {self.parts}, but those of {place} have {parts}"
        if differ:
            advice = "give vectors made like those that it was trained with"
            raise InputError(f"--taskvecs {self.folder} has vectors {differ}; {advice}")
