"""Writes the files of a gym: the rows of its tasks, and its tables."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataloader.atomic_files import write_text
from dataloader.task_splits import SECTIONS

Row = tuple[str, ...]  # input, answer, further accepted answers


@dataclass(frozen=True)
class GymTask:
    """What the tables of a gym say about a task. traits: its columns of skills.csv, such as skill:swap."""

    name: str
    section: str
    metric: str
    category: str
    subcategory: str
    traits: tuple[str, ...]


def without_repeats(draw: Callable[[], Any], key: Callable = lambda drawn: drawn) -> Iterator:
    """Yields what `draw()` returns, endlessly, each `key` once."""
    keys = set()
    while True:
        drawn = draw()
        if key(drawn) not in keys:
            keys.add(key(drawn))
            yield drawn


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes a task file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())


def write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    """Writes {file name: content}: JSON, or for names that end with .csv rows of cells."""
    for name, content in tables.items():
        text = io.StringIO()
        if name.endswith(".csv"):
            csv.writer(text, lineterminator="\n").writerows(content)
        else:
            text.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / name, text.getvalue())


def tables_of(tasks: Sequence[GymTask], ordered: Sequence[GymTask] | None = None) -> dict[str, Any]:
    """Returns the tables that every gym has, for `write_tables`.

    ordered: the tasks in the order in which the ontology and the columns of skills.csv have them, if another.
    skills.csv has a row of 0 and 1 per task. Its columns `kind:value` are ordered by kind, then by first use.
    """
    ordered = tasks if ordered is None else ordered
    ontology: dict[str, dict[str, list[str]]] = {}
    for task in ordered:
        ontology.setdefault(task.category, {}).setdefault(task.subcategory, []).append(task.name)
    used = dict.fromkeys(trait for task in ordered for trait in task.traits)
    kinds = dict.fromkeys(trait.partition(":")[0] for trait in ordered[0].traits)
    columns = [trait for kind in kinds for trait in used if trait.startswith(f"{kind}:")]
    rows = [[task.name, *(int(column in task.traits) for column in columns)] for task in tasks]
    sections = {name: [task.name for task in tasks if task.section == name] for name in SECTIONS}
    return {
        "metrics.json": {task.name: task.metric for task in tasks},
        "ontology.json": ontology,
        "skills.csv": [["task", *columns], *rows],
        "split.json": sections,
    }
