"""Labels of tasks: category and subcategory from the ontology, and a CSV file of further ones.

    task,format,skill:negation,skill:entailment
    rte-negated,pair,1,1

A column without colon, such as "format", is a kind of label, and its cells are the labels. Columns named
`kind:value` contain 0 or 1. An empty cell means unknown.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.ontology import UNCATEGORISED, Ontology

ONTOLOGY_KINDS = ("category", "subcategory")
ZERO_OR_ONE = ("0", "1", "0.0", "1.0")  # pandas writes 1.0 where a cell is empty

Labelling = dict[str, str]  # {task: label}; tasks without a label are missing


def ontology_labels(tasks: Iterable[str], ontology: Ontology) -> dict[str, Labelling]:
    """Returns {"category": labelling, "subcategory": labelling}; tasks outside the ontology have no label."""
    kinds = {task: ontology.category(task) for task in tasks}
    known = {task: kind for task, kind in kinds.items() if kind != UNCATEGORISED}
    return {
        "category": {task: category for task, (category, _) in known.items()},
        # The category is part of the label, because several categories may have a subcategory "other".
        "subcategory": {task: f"{category}/{sub}" for task, (category, sub) in known.items()},
    }


def read_task_table(path: str | Path) -> tuple[list[str], dict[str, list[str]]]:
    """Returns (column names, {task: cells}) of a CSV file. Raises InputError, with the line."""
    path, records = Path(path), []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # else a quotation mark left open takes in the later rows
            for cells in reader:
                records.append((reader.line_num, [cell.strip() for cell in cells]))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (expected a CSV file with a column task)") from None
    except csv.Error as error:
        line, hint = records[-1][0] + 1 if records else 1, "a quotation mark inside a field is written twice"
        raise InputError(f"{path}, line {line}: {error}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from None
    rows = [(line, cells) for line, cells in records if cells]
    header, rows = (rows[0][1], rows[1:]) if rows else ([], [])
    _check_header(path, header)
    table: dict[str, list[str]] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} columns, the first line has {len(header)}")
        if (task := cells[header.index("task")]) in table:
            raise InputError(f"{path}, line {line}: task {task} occurs already in an earlier line")
        for name, cell in zip(header, cells, strict=True):
            if ":" in name and cell not in (*ZERO_OR_ONE, ""):
                raise InputError(f"{path}, line {line}, column {name}: '{cell}' is neither 0 nor 1")
        table[task] = cells
    return header, table


def kinds_of(header: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns {kind: {value: column index}}; the value is "" for a column that contains labels."""
    kinds: dict[str, dict[str, int]] = {}
    for column, name in enumerate(header):
        if name != "task":
            kind, _, value = name.partition(":")
            kinds.setdefault(kind, {})[value] = column
    return kinds


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "task" not in header:
        guess, names = did_you_mean("task", header), in_short(list(header)) or "none"
        raise InputError(f"{path}: no column task{guess} (its columns: {names})")
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]} occurs twice")
    for kind, columns in kinds_of(header).items():
        if "" in columns and len(columns) > 1:
            raise InputError(f"{path}: both a column {kind} and columns {kind}:value; rename one of them")
        if kind in ONTOLOGY_KINDS:
            raise InputError(f"{path}: column {kind}: this name is used by the ontology; rename the column")
