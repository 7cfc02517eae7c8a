"""Human features of tasks as numbers: format, domain, skill..., from the ontology and a CSV file.

    task,format:pair,skill:negation,answer_length
    rte-negated,1,1,1.0

`kind:value` columns hold 0 or 1. A numeric column is one feature; in other columns each distinct text is one,
`column:text`. An empty cell means unknown: the task is left out where the feature is used.
The file for the 160 CrossFit tasks, dataloader/task_features.csv, was written by hand; Ye, Zha, Ren 2022
(arXiv 2205.12701), section 6, correlate routes with features of these kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dataloader
from dataloader.errors import InputError, did_you_mean, problem_context
from dataloader.labels import kinds_of, ontology_labels, read_task_table
from dataloader.ontology import Ontology

SHIPPED_FEATURES = Path(dataloader.__file__).parent / "task_features.csv"
OWN_FEATURES = "skills.csv"  # of a gym, in its folder


@dataclass(frozen=True, eq=False)
class Features:
    """`values_NF[n, f]` is feature names[f] of tasks[n]; NaN where it is unknown."""

    tasks: tuple[str, ...]
    names: tuple[str, ...]
    values_NF: np.ndarray
    described: frozenset[str] = frozenset()  # the tasks that are in the file of features

    @property
    def kinds(self) -> dict[str, list[int]]:
        """{kind: its columns}; the kind of `skill:negation` is `skill`, that of `length` is `length`."""
        kinds: dict[str, list[int]] = {}
        for column, name in enumerate(self.names):
            kinds.setdefault(name.partition(":")[0], []).append(column)
        return kinds

    def column(self, name: str) -> np.ndarray:
        return self.values_NF[:, self.names.index(name)]

    def is_binary(self, name: str) -> bool:
        column = self.column(name)
        return bool(np.isin(column[np.isfinite(column)], (0, 1)).all())


def features_of(
    tasks: Sequence[str],
    ontology: Ontology,
    train_dir: str | Path | None = None,
    file: str | Path | None = None,
) -> Features:
    """Returns category and subcategory from the ontology, and the columns of a CSV file.

    The CSV file is `file`, else the gym's skills.csv in `train_dir`, else that of the 160 CrossFit tasks if
    some of the tasks are among them.
    """
    columns = {}
    for kind, labels in ontology_labels(tasks, ontology).items():
        columns |= _one_hot(kind, [labels.get(task) for task in tasks])  # NaN for tasks that it does not know
    of_gym = Path(train_dir) / OWN_FEATURES if train_dir else SHIPPED_FEATURES
    path = Path(file) if file else of_gym if of_gym.is_file() else SHIPPED_FEATURES
    header, rows = read_task_table(path)
    if any(task in rows for task in tasks):
        with problem_context(f"{path}, "):
            columns |= file_columns(tasks, header, rows)
    elif path is not SHIPPED_FEATURES:
        guess = did_you_mean(tasks[0], rows)
        raise InputError(f"{path} has features of none of the tasks, such as {tasks[0]}{guess}")
    values_NF = np.array(list(columns.values())).T.reshape(len(tasks), len(columns))
    return Features(tuple(tasks), tuple(columns), values_NF, frozenset(set(tasks) & set(rows)))


def file_columns(
    tasks: Sequence[str], header: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    """Returns the columns of a table of tasks {task: cells}, as numbers.

    Raises InputError for a few texts among numbers, a mistake.
    """
    columns: dict[str, list[float]] = {}
    for kind, columns_of_kind in kinds_of(header).items():
        for value, column in columns_of_kind.items():
            cells = [rows[task][column] if task in rows else "" for task in tasks]
            filled = {task: row[column] for task, row in rows.items() if row[column]}
            texts = [task for task, cell in filled.items() if not np.isfinite(_number(cell))]
            if value:
                columns[f"{kind}:{value}"] = [_number(cell) for cell in cells]
            elif 0 < 2 * len(texts) < len(filled):
                where = f"column {kind}: '{filled[texts[0]]}' (task {texts[0]})"
                raise InputError(f"{where} among numbers; empty the cell if it is unknown")
            elif texts:
                columns |= _one_hot(kind, [cell or None for cell in cells])
            elif any(cells):
                columns[kind] = [_number(cell) for cell in cells]
    return columns


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _one_hot(kind: str, labels: Sequence[str | None]) -> dict[str, list[float]]:
    known = dict.fromkeys(label for label in labels if label is not None)
    return {
        f"{kind}:{value}": [np.nan if label is None else float(label == value) for label in labels]
        for value in known
    }
