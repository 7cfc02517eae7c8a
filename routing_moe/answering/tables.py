"""Texts in the rows of a table, made by a template as that of `add-task`. Does not import torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dataloader.building.downloads import Downloads
from dataloader.building.tables import FORMATS, Kept, Table, Template, column_of, read_table
from dataloader.errors import InputError, in_short, problem_context
from dataloader.task_files import last_input
from routing_moe.answering.queries import Query

WITH_COLUMNS = (".csv", ".parquet")  # others of FORMATS may also have a text a line
TEXT_COLUMN, OPTIONS_COLUMN = "input", "options"  # as in JSON lines


def is_table(file: str, formats: tuple[str, ...] = FORMATS) -> bool:
    """Returns whether the name of a file ends as that of a table."""
    return Path(file).suffix.lower() in formats


def table_of(flag: str, file: str, typed: str | None, kept: Kept | None) -> tuple[Table, Template] | None:
    """Returns a table and the template of its texts; None for a file that is read line by line.

    flag: that of the file. typed: --input. kept: of `add-task`; it is left out where a .tsv or .jsonl file
    lacks its columns. Raises InputError, also if it is unknown which column of a .csv file is the text.
    """
    given = kept if typed is None else typed
    has_columns = typed is not None or is_table(file, WITH_COLUMNS)  # else it may have a text a line
    if not is_table(file) or (given is None and not has_columns):
        return None
    fields = kept if isinstance(kept, dict) else {"text": kept or f"{{{TEXT_COLUMN}}}"}
    template = Template("--input" if given is typed else "--input of add-task", **fields)
    if typed is not None:
        template = replace(template, text=typed, is_chat=False)
    if not template.fields:
        raise InputError(f"{template.flag} {given!r} names no column; write {{column}}")
    try:
        with problem_context(f"--{flag} "):
            table = read_table(file, {*map(column_of, template.fields), OPTIONS_COLUMN}, Downloads(Path()))
            if given is None and TEXT_COLUMN not in table.columns:
                template = Template("--input", f"{{{table.columns[0]}}}")
                if len(table.columns) > 1:
                    known = f'"{template.text}"; its columns: {in_short(table.columns, 20)}'
                    raise InputError(f"{file}: say which column is the text, such as --input {known}")
        template.check(table)
    except InputError:
        if has_columns:
            raise
        return None
    return (table, template) if has_columns or "outputs" not in table.columns else None  # None: of a gym


def table_queries(table: Table, template: Template, options: tuple[str, ...]) -> Iterator[Query]:
    """Yields the texts of a table. options: for rows without a list in the column of this name."""
    for number, row in sorted(table.rows + table.malformed, key=lambda numbered: numbered[0]):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            own = row.get(OPTIONS_COLUMN)
            is_list, is_input = isinstance(own, list), OPTIONS_COLUMN in map(column_of, template.fields)
            if not (is_list or is_input or options or own in (None, "")):
                raise ValueError(f"{OPTIONS_COLUMN} is {own!r}; give a list (.jsonl, .parquet), or --options")
            offered = tuple(map(str, own)) if is_list else options
            text, before = last_input(template.turns(row))
            query = Query(text, offered, before)
            query.check()
        except ValueError as error:
            raise InputError(f"{table.source}:{number}: {error}") from None
        yield query
