"""Labels of tasks: category and subcategory from the ontology, and further labels from a CSV file.

    task,format,skill:negation,skill:entailment
    rte-negated,pair,1,1

A column without colon, such as "format", is a kind of label, and its cells are the labels. Columns named
`kind:value` contain 0 or 1 and together give one label per task: the values that are 1, such as
"negation+entailment". A task has no label of a kind if the cell is empty, or if all columns of the kind
are 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.ontology import UNCATEGORISED, Ontology

ONTOLOGY_KINDS = ("category", "subcategory")
ZERO_OR_ONE = {"0": False, "1": True, "0.0": False, "1.0": True}  # pandas writes 1.0 where a cell is empty

Labelling = dict[str, str]  # {task: label}; tasks without a label are missing
Row = tuple[int, list[str]]  # (line number, cells)


def ontology_labels(tasks: Iterable[str], ontology: Ontology) -> dict[str, Labelling]:
    """Returns {"category": labelling, "subcategory": labelling}; tasks outside the ontology have no label."""
    kinds = {task: ontology.category(task) for task in tasks}
    known = {task: kind for task, kind in kinds.items() if kind != UNCATEGORISED}
    return {
        "category": {task: category for task, (category, _) in known.items()},
        # The category is part of the label, because several categories may have a subcategory "other".
        "subcategory": {task: f"{category}/{sub}" for task, (category, sub) in known.items()},
    }


def read_labels(path: str | Path) -> dict[str, Labelling]:
    """Returns {kind: labelling} of a CSV file, with kinds in the order of the columns.

    Raises InputError with file, line and column of every fault: no column `task` or no other column, a column
    or task twice, a task without a name, a line with too few or too many cells, a `kind:value` cell that is
    not 0 or 1.
    """
    header, rows = read_task_table(path)
    return {
        kind: {
            task: label
            for task, cells in rows.items()
            if (label := _label({value: cells[column] for value, column in columns.items()}))
        }
        for kind, columns in kinds_of(header).items()
    }


def read_task_table(path: str | Path) -> tuple[list[str], dict[str, list[str]]]:
    """Returns (column names, {task: cells}) of a CSV file. Raises InputError as `read_labels` does."""
    path = Path(path)
    header, rows = _read_rows(path)
    if faults := [f"{path}: {fault}" for fault in _header_faults(header)]:
        raise InputError(faults)
    faults = [f"{path}, line {line}: {fault}" for line, fault in _row_faults(header, rows)]
    rows = [row for row in rows if len(row[1]) == len(header)]
    faults += [f"{path}, {fault}" for fault in _cell_faults(header, rows)]
    if faults:
        raise InputError(faults)
    return header, {cells[header.index("task")]: cells for _, cells in rows}


def _read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Returns the column names and the lines that are not empty."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (expected a CSV file with a column task)") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from None
    return (rows[0][1], rows[1:]) if rows else ([], [])


def kinds_of(header: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns {kind: {value: column index}}; the value is "" for a column that contains labels."""
    kinds: dict[str, dict[str, int]] = {}
    for column, name in enumerate(header):
        if name != "task":
            kind, _, value = name.partition(":")
            kinds.setdefault(kind, {})[value] = column
    return kinds


def _label(cells: dict[str, str]) -> str:
    """Returns the label that the cells {value: cell} of a kind give; "" for none."""
    if "" in cells:
        return cells[""]
    if not all(cells.values()):
        return ""
    return "+".join(value for value, cell in cells.items() if ZERO_OR_ONE[cell])


def _header_faults(header: Sequence[str]) -> list[str]:
    if "task" not in header:
        guess = did_you_mean("task", header)
        return [f"no column task{guess} (its columns: {in_short(list(header)) or 'none'})"]
    faults = [f"column {name} occurs twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    faults += [
        f"column {number} is '{name}'; it must be a name, or kind:value"
        for number, name in enumerate(header, start=1)
        if not name.partition(":")[0] or name.endswith(":")
    ]
    kinds = kinds_of(header)
    if not kinds:
        faults.append("no column besides task")
    for kind, columns in kinds.items():
        if "" in columns and len(columns) > 1:
            faults.append(f"both a column {kind} and columns {kind}:value; rename one of them")
        if kind in ONTOLOGY_KINDS:
            faults.append(f"column {kind}: this name is used by the ontology; rename the column")
    return faults


def _row_faults(header: Sequence[str], rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Returns (line, fault) of lines of different length, without a task name, or with a repeated task."""
    faults = []
    lines: dict[str, int] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            faults.append((line, f"{len(cells)} columns, the first line has {len(header)}"))
            continue
        task = cells[header.index("task")]
        if not task:
            faults.append((line, "column task is empty"))
        elif task in lines:
            faults.append((line, f"task {task} occurs already in line {lines[task]}"))
        lines.setdefault(task, line)
    return faults


def _cell_faults(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Returns one fault per kind:value column: its first cell that is not 0, 1 or empty."""
    faults = []
    for column, name in enumerate(header):
        wrong = [(line, cells[column]) for line, cells in rows if cells[column] not in (*ZERO_OR_ONE, "")]
        if wrong and ":" in name:
            line, cell = wrong[0]
            more = f", and {len(wrong) - 1} more lines" if len(wrong) > 1 else ""
            faults.append(f"line {line}, column {name}: '{cell}' is neither 0 nor 1{more}")
    return faults
