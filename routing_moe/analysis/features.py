"""Human features of tasks, 0 or 1: format, domain, skill..., from the ontology and a CSV file.

    task,format:pair,skill:negation,vocabulary
    rte-negated,1,1,shop

`kind:value` columns hold 0 or 1; in other columns each distinct text is a feature, `column:text`. An empty
cell means unknown: the task is left out where the feature is used.
The file for the 160 CrossFit tasks, dataloader/task_features.csv, was written by hand; Ye, Zha, Ren 2022
(arXiv 2205.12701), section 6, correlate routes with features of these kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import dataloader
from dataloader.errors import InputError, did_you_mean
from dataloader.labels import kinds_of, ontology_labels, read_task_table
from dataloader.ontology import Ontology

SHIPPED_FEATURES = Path(dataloader.__file__).parent / "task_features.csv"
OWN_FEATURES = "skills.csv"  # of a gym, in its folder


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
    columns = {}
    for kind, labels in ontology_labels(tasks, ontology).items():
        columns |= _one_hot(kind, pd.Series(labels, list(tasks), dtype=object))
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
