"""Readers of raw files that hold the columns of the data set as they are: (split, file) -> rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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


def with_label_indices(rows: Iterable[Row], labels: Sequence[str]) -> Iterator[Row]:
    """Yields the rows with "label" as an index; it is one of the labels, an index or a truth value."""
    for row in rows:
        label = row["label"]
        yield row | {"label": labels.index(label) if label in labels else int(label)}


def question_with_choices(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the JSON lines of AI2's question format as columns.

    "question": {"stem": "...", "choices": [{"label": "A", "text": "..."}, ...]} becomes the columns
    "question" and "question_stem" with the stem, and "choices" {"label": [...], "text": [...]}.
    """
    for item in file.json_lines():
        question = item["question"]
        choices = {key: [choice[key] for choice in question["choices"]] for key in ("label", "text")}
        stem = question["stem"]
        yield item | {"question": stem, "question_stem": stem, "choices": choices}


def squad(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the questions of a JSON file in SQuAD's format, with the texts of their paragraph."""
    for article in file.json()["data"]:
        for paragraph in article["paragraphs"]:
            texts = {key: value.strip() for key, value in paragraph.items() if isinstance(value, str)}
            for item in paragraph["qas"]:
                answers = {"text": [answer["text"].strip() for answer in item["answers"]]}
                yield texts | {"question": item["question"].strip(), "answers": answers}
