"""A mirror folder of invented data sets, recipes that read them, and the command that builds them."""

import csv
import json
from pathlib import Path

import pyarrow
from pyarrow import parquet

from dataloader.building.downloads import Mirror
from dataloader.building.raw_file import json_lines
from dataloader.building.recipe import Hub, Raw, Recipe, classification, text_to_text
from dataloader.building.text import word
from dataloader.recipes import RECIPES as PUBLISHED_AND_PROMPTS
from routing_moe.cli.build_gym import main

HOST = "https://data.example.org"
RECIPES = {
    recipe.task: recipe
    for recipe in (
        classification(
            "fruits",
            Raw(json_lines, train=f"{HOST}/fruits/train.jsonl", validation=f"{HOST}/fruits/dev.jsonl"),
            Hub("example/fruits"),
            input="fruit: {name}",
            output=word("label", "sour", "sweet"),
            metric="ACC",
            k=2,
        ),
        text_to_text(
            "capitals",
            Hub("example/geography", "capitals"),
            splits=("train",),
            input=lambda row: row["country"].strip(),
            output="{capital}",
            metric="EM",
            terms="for tests only",
            k=3,
        ),
        text_to_text(
            "colours",
            Raw(json_lines, every=f"{HOST}/colours.jsonl"),
            splits=("train",),
            input="{thing}",
            output=lambda row: "\t".join(row["colours"]),
            options=lambda row: ["red", "blue", "green"],
            metric="ACC",
            k=2,
        ),
    )
}
OWN = tuple(RECIPES)


def all_recipes() -> dict[str, Recipe]:
    """Returns those of the project and of this file, also in a worker process."""
    return PUBLISHED_AND_PROMPTS | RECIPES


def fruits(split: str) -> list[dict]:
    return [{"name": f"{split} fruit {i}", "label": i % 2} for i in range(9)]


def capitals() -> list[dict]:
    return [{"country": f"Land {i} ", "capital": f"City {i}"} for i in range(12)]


def colours() -> list[dict]:
    return [{"thing": f"thing {i}", "colours": ["red", "blue"] if i % 3 else ["green"]} for i in range(10)]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(mirror: Path, repository: str, name: str, rows: list[dict], revision="main") -> Path:
    """Writes a file of a data set on the hub, where a mirror has it."""
    path = mirror / "huggingface.co/datasets" / repository / "resolve" / revision / name
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def make_mirror(folder: Path) -> Path:
    host = folder / "data.example.org"
    write_lines(host / "fruits/train.jsonl", fruits("train"))
    write_lines(host / "fruits/dev.jsonl", fruits("dev"))
    write_lines(host / "colours.jsonl", colours())
    rows = capitals()
    for shard, part in enumerate((rows[:7], rows[7:])):
        name = f"capitals/train/{shard:04}.parquet"
        write_parquet(folder, "example/geography", name, part, "refs/convert/parquet")
    return folder


def read_from_mirror(monkeypatch, folder: Path) -> None:
    """The client of the hub reads the files of a mirror folder."""
    mirror = Mirror(folder)

    def download(repository: str, name: str, repo_type: str, revision: str) -> str:
        return str(mirror._file(repository, revision, name))

    monkeypatch.setattr("dataloader.building.downloads.names_on_hub", mirror._names)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


class Build:
    """Runs the command in this process, on the mirror in a folder."""

    def __init__(self, folder: Path):
        self.gym = folder / "gym"
        self.mirror = make_mirror(folder / "mirror")

    def __call__(self, *flags: str, tasks=OWN, gym: Path | None = None) -> int:
        """Returns the exit code."""
        paths = ["--output_dir", str(gym or self.gym), "--mirror", str(self.mirror)]
        return main([*paths, "--num_workers", "1", "--tasks", *tasks, *flags])


def report(gym: Path) -> dict[str, dict[str, str]]:
    with (gym / "gym_report.csv").open(encoding="utf-8") as file:
        return {row["task"]: row for row in csv.DictReader(file)}
