"""Readers of raw files that hold the columns of the data set as they are: (split, file) -> rows."""

from __future__ import annotations

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.sources import Row


def json_lines(_: str, file: RawFile) -> Iterator[Row]:
    return file.json_lines()


def json_list(_: str, file: RawFile) -> Iterator[Row]:
    return iter(file.json())


def records(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the lines of a CSV file whose first line has the names of the columns."""
    return file.records()


def labelled_json_lines(_: str, file: RawFile, labels: RawFile) -> Iterator[Row]:
    """Yields JSON lines with the column "label", which is a file of one number a line."""
    for row, label in zip(file.json_lines(), labels.lines(), strict=True):
        yield row | {"label": int(label)}
