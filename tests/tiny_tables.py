"""Shared by the tests of add-task: small tables, the command, and what it wrote."""

import csv
import json
from pathlib import Path

import pyarrow
from pyarrow import parquet
from tiny_runs import typed

from dataloader.gym import Gym
from routing_moe.cli.add_task import main

INPUT = "review: {text} of {year}"


def reviews(n: int = 100) -> list[dict]:
    return [
        {"text": f'the "plot", scene {i}', "year": 1990 + i, "verdict": "bad" if i % 3 else "good"}
        for i in range(n)
    ]


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        delimiter = {".tsv": "\t", ".CSV": ";"}.get(path.suffix, ",")  # .CSV as spreadsheets write it
        encoding = "utf-8-sig" if path.suffix == ".CSV" else "utf-8"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def add_task(**changed) -> int:
    """Returns the exit code of the command; None omits a flag."""
    given = {"gym": "gym", "name": "reviews", "from": "reviews.csv", "input": INPUT, "output": "{verdict}"}
    given |= {"metric": "ACC", "k": 4, "samples": 2} | changed
    return main(typed(given))


def examples(task: str = "reviews", part: str = "train", gym: str = "gym") -> list[tuple]:
    return [
        (each.input, each.outputs, each.options) for each in Gym(gym).examples(task, part, samples="first")
    ]
