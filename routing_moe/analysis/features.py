"""Human features of tasks, 0 or 1: format, domain, skill..., from the ontology and a CSV file.

    task,format:pair,skill:negation,vocabulary
    rte-negated,1,1,shop

`kind:value` columns hold 0 or 1; in other columns each distinct text is a feature, `column:text`. An empty
cell means unknown: the task is left out where the feature is used.
The file for the 160 CrossFit tasks, dataloader/task_features.csv, was written by hand; Ye, Zha, Ren 2022
(arXiv 2205.12701), section 6, correlate routes with features of these kinds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import dataloader
from dataloader.building.tables import read_table
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.ontology import UNCATEGORISED, Ontology

SHIPPED_FEATURES = Path(dataloader.__file__).parent / "task_features.csv"
OWN_FEATURES = "skills.csv"  # of a gym, in its folder
ZERO_OR_ONE = ("0", "1", "0.0", "1.0")  # pandas writes 1.0 where a cell is empty


@dataclass(frozen=True, eq=False)
class Features:
    """`values_NF[n, f]` is 1 if tasks[n] has feature names[f], else 0; NaN where it is unknown."""

    tasks: tuple[str, ...]
    names: tuple[str, ...]
    values_NF: np.ndarray
    described: frozenset[str] = frozenset()  # the tasks that are in the file of features

    @property
    def kinds(self) -> dict[str, list[int]]:
        """{kind: its columns}; the kind of `skill:negation` is `skill`."""
        return {kind: list(columns.values()) for kind, columns in kinds_of(self.names).items()}

    def column(self, name: str) -> np.ndarray:
        return self.values_NF[:, self.names.index(name)]


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
    columns, known = {}, {task: ontology.category(task) for task in tasks}
    known = {task: kind for task, kind in known.items() if kind != UNCATEGORISED}
    labels = {"category": {task: category for task, (category, _) in known.items()}}
    labels["subcategory"] = {task: "/".join(kind) for task, kind in known.items()}  # several have an "other"
    for kind, of_tasks in labels.items():
        columns |= _one_hot(kind, pd.Series(of_tasks, list(tasks), dtype=object))
    of_gym = Path(train_dir) / OWN_FEATURES if train_dir else SHIPPED_FEATURES
    path = Path(file) if file else of_gym if of_gym.is_file() else SHIPPED_FEATURES
    header, rows = read_task_table(path)
    if any(task in rows for task in tasks):
        columns |= file_columns(tasks, header, rows)
    elif path is not SHIPPED_FEATURES:
        guess = did_you_mean(tasks[0], rows)
        raise InputError(f"{path} has features of none of the tasks, such as {tasks[0]}{guess}")
    values_NF = pd.DataFrame(columns, index=list(tasks), dtype=float).to_numpy()
    return Features(tuple(tasks), tuple(columns), values_NF, frozenset(set(tasks) & set(rows)))


def read_task_table(path: str | Path) -> tuple[list[str], dict[str, list[str]]]:
    """Returns (column names, {task: cells}) of a CSV file. Raises InputError, with the line."""
    table = read_table(str(path), (), None)
    header, rows = [name.strip() for name in table.columns], {}
    _check_header(path, header)
    for line, problem in table.malformed:
        raise InputError(f"{path}, line {line}: {problem}")
    for line, row in table.rows:
        cells = [str(cell).strip() for cell in row.values()]
        if (task := cells[header.index("task")]) in rows:
            raise InputError(f"{path}, line {line}: task {task} occurs already in an earlier line")
        for name, cell in zip(header, cells, strict=True):
            if ":" in name and cell not in (*ZERO_OR_ONE, ""):
                raise InputError(f"{path}, line {line}, column {name}: '{cell}' is neither 0 nor 1")
        rows[task] = cells
    return header, rows


def _check_header(path: str | Path, header: list[str]) -> None:
    if "task" not in header:
        guess, names = did_you_mean("task", header), in_short(header)
        raise InputError(f"{path}: no column task{guess} (its columns: {names})")
    for kind, columns in kinds_of(name for name in header if name != "task").items():
        if "" in columns and len(columns) > 1:
            raise InputError(f"{path}: both a column {kind} and columns {kind}:value; rename one of them")
        if kind in ("category", "subcategory"):
            raise InputError(f"{path}: column {kind}: this name is used by the ontology; rename the column")


def kinds_of(names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Returns {kind: {value: column index}}; the value is "" for a column that contains labels."""
    kinds: dict[str, dict[str, int]] = {}
    for column, name in enumerate(names):
        kind, _, value = name.partition(":")
        kinds.setdefault(kind, {})[value] = column
    return kinds


def file_columns(
    tasks: Sequence[str], header: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> dict[str, pd.Series]:
    """Returns the columns of a table of tasks {task: cells}, as features; numbers are texts as others are."""
    columns: dict[str, pd.Series] = {}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=header).drop(columns="task")
    for name in table:
        filled = table[name][table[name] != ""].reindex(tasks)
        columns |= {name: pd.to_numeric(filled)} if ":" in name else _one_hot(name, filled)
    return columns


def _one_hot(kind: str, labels: pd.Series) -> dict[str, pd.Series]:
    """Returns {kind:label: 1 where it is the label, 0 where it is another, NaN where it is unknown}."""
    return {
        f"{kind}:{label}": (labels == label).astype(float).where(labels.notna())
        for label in labels.dropna().unique()
    }
