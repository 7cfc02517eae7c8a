"""Contested rows: train rows that a model shared by all tasks loses much on (`train --contested_above`).

A row on which all tasks agree says nothing about which tasks belong together: one model knows its answer. If
few rows are contested, one model serves all tasks, and there is nothing to divide.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.encoded import EncodedExamples
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object

CONTESTED_FILE = "contested.json"
LEAST_SHARE = 0.05  # of the train rows; below, tasks agree


@dataclass(frozen=True)
class Contested:
    """above: nats. rows: {task: its contested train rows, numbered from 0}. train_rows: of all tasks.

    data: the fingerprint of the train rows. scoring_flops: what their losses have cost.
    """

    above: float
    rows: dict[str, list[int]]
    train_rows: int
    data: int
    scoring_flops: int

    @classmethod
    def of_losses(
        cls, losses_R: np.ndarray, examples: EncodedExamples, tasks: list[str], above: float, flops: int
    ) -> "Contested":
        """Returns the rows with a loss above `above`. tasks: the names of `examples.task_ids_N`."""
        is_contested_R, rows = losses_R > above, {}
        for n in np.unique(examples.task_ids_N):
            rows[tasks[n]] = np.flatnonzero(is_contested_R[examples.task_ids_N == n]).tolist()
        return cls(above, rows, len(examples), examples.fingerprint(), flops)

    @classmethod
    def load(cls, run: Path) -> "Contested | None":
        """Returns the contested rows of a run, None if it was trained on all rows. Raises InputError."""
        path = Path(run) / CONTESTED_FILE
        if not path.is_file():
            return None
        saved = load_json_object(path, "the contested rows of a run")
        return cls(**{field.name: saved[field.name] for field in fields(cls)})

    def write(self, run: Path) -> None:
        content = {"share": round(self.share, 4)} | asdict(self)
        write_text(Path(run) / CONTESTED_FILE, json.dumps(content, indent=1))

    @property
    def share(self) -> float:
        """Contested rows as a share of all train rows."""
        return sum(map(len, self.rows.values())) / max(self.train_rows, 1)

    @property
    def are_few(self) -> bool:
        """Whether one model serves all tasks."""
        return self.share < LEAST_SHARE

    def described(self) -> str:
        few = f", fewer than {LEAST_SHARE:.0%}: one model serves all tasks" if self.are_few else ""
        return f"{self.share:.1%} of {self.train_rows} train rows lose more than {self.above:g} nats{few}"

    def chosen_from(self, examples: EncodedExamples, tasks: list[str]) -> EncodedExamples:
        """Returns the contested ones of all train rows. Raises InputError if these are other rows."""
        if examples.fingerprint() != self.data:
            advice = "restore them, or train again in another --output_dir"
            raise InputError(f"{CONTESTED_FILE} numbers other train rows than those in --train_dir; {advice}")
        chosen = [
            np.flatnonzero(examples.task_ids_N == n)[self.rows[tasks[n]]]
            for n in np.unique(examples.task_ids_N)
        ]
        return examples.subset(np.sort(np.concatenate(chosen)))
