"""Building a gym: problems in sources, recipes, flags and files, and commands that are killed."""

import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from forks import killed
from small_mirror import OWN, files_of, report, write_lines

from dataloader import Gym
from dataloader.building import task_folder
from dataloader.building.downloads import Mirror
from dataloader.building.raw_file import json_lines
from dataloader.building.recipe import Raw
from dataloader.building.task_folder import NotBuilt, build_task
from routing_moe.cli.build_gym import main

TRAIN = "data.example.org/fruits/train.jsonl"


def with_rows(*rows: dict):
    return lambda mirror: write_lines(mirror / TRAIN, list(rows))


def truncate(mirror: Path) -> None:
    (mirror / TRAIN).write_bytes((mirror / TRAIN).read_bytes()[:-9])


def remove_split(mirror: Path) -> None:
    (mirror / "data.example.org/fruits/dev.jsonl").unlink()


def truncate_parquet(mirror: Path) -> None:
    path = next(mirror.rglob("0001.parquet"))
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "task", "message"),
    [
        (with_rows({"title": "x"}), "fruits", "train, row 1: no column or key 'name' (its columns: title)"),
        (with_rows({"name": "x", "label": 2}), "fruits", "row 1: unexpected content: the label 2 is not"),
        (with_rows(), "fruits", "fruits/train.jsonl: no rows"),
        (truncate, "fruits", "fruits/train.jsonl, train, row 8: unexpected content: "),
        (remove_split, "fruits", "https://data.example.org/fruits/dev.jsonl is not in "),
        (truncate_parquet, "capitals", "0001.parquet cannot be read as parquet"),
    ],
)
def test_a_wrong_source_is_one_clear_error_and_the_other_tasks_are_built(
    build, mirror, capsys, spoil, task, message
):
    spoil(mirror)
    assert build() == 1
    assert Gym(build.gym).tasks() == sorted({*OWN} - {task})
    row = report(build.gym)[task]
    assert row["outcome"] == "unavailable"
    assert message in row["note"]
    assert message in capsys.readouterr().out


def test_a_raw_file_that_differs_from_that_of_2021_is_not_used(tmp_path, mirror):
    gym = tmp_path / "gym"
    boolq = mirror / "storage.googleapis.com/boolq"
    rows = [{"question": f"q{i}", "answer": i % 2 == 0, "passage": "p"} for i in range(40)]
    for name in ("train.jsonl", "dev.jsonl"):
        write_lines(boolq / name, rows)
    flags = ["--output_dir", str(gym), "--mirror", str(mirror), "--tasks", "boolq"]
    assert main(flags) == 1
    assert "train.jsonl is damaged, or https://storage.googleapis.com/boolq" in report(gym)["boolq"]["note"]
    assert main([*flags, "--accept_changed"]) == 0
    assert report(gym)["boolq"]["outcome"] == "differs"


def test_a_full_disk_leaves_nothing_of_the_task(tmp_path, mirror, recipes, monkeypatch):
    gym = tmp_path / "gym"
    written = []

    def write(path: Path, content: bytes) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(task_folder, "write_bytes", write)
    with pytest.raises(NotBuilt, match=r"fruits cannot be written \(No space left on device\)"):
        build_task(recipes["fruits"], Mirror(mirror), gym, [13, 21])
    assert files_of(gym) == {}


class Failing:
    def rows(self, split: str, files: Mirror):
        raise RuntimeError("out of order")


def test_an_error_in_a_source_does_not_stop_the_other_tasks(build, recipes):
    recipes["colours"] = replace(recipes["colours"], sources=(Failing(),))
    assert build() == 1
    assert Gym(build.gym).tasks() == ["capitals", "fruits"]
    assert "unexpected content: out of order" in report(build.gym)["colours"]["note"]


def test_a_truncated_archive_is_named(build, mirror, recipes):
    source = Raw(json_lines, every="https://data.example.org/fruits.zip!train.jsonl")
    recipes["fruits"] = replace(recipes["fruits"], sources=(source,))
    with zipfile.ZipFile(mirror / "data.example.org/fruits.zip", "w") as archive:
        archive.writestr("train.jsonl", '{"name": "x", "label": 1}\n' * 9)
    path = mirror / "data.example.org/fruits.zip"
    path.write_bytes(path.read_bytes()[:-20])
    assert build(tasks=["fruits"]) == 1
    assert f"{path} is not a complete ZIP or TAR archive" in report(build.gym)["fruits"]["note"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("split.json", '{"train": 3}', '"train" is not a list'),
        ("ontology.json", '{"a": ["b"]}', '"a" must be an object'),
        ("metrics.json", '{"fruits": "AC"}', "unknown metric 'AC' for task 'fruits'; did you mean 'ACC'?"),
    ],
)
def test_wrong_files_of_the_gym_are_named_before_anything_is_built(
    build, tmp_path, capsys, name, content, message
):
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym" / name).write_text(content)
    assert build() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gym/fruits").exists()


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--tasks", "fruitz"], ["--tasks: no recipe for 'fruitz'; did you mean 'fruits'?"]),
        (
            ["--num_workers", "0", "--samples", "1", "1", "--mirror", "nowhere"],
            ["--num_workers is 0", "--samples 1 1", "--mirror nowhere: no such folder"],
        ),
        (["--split", "none.json"], ["none.json: no such file"]),
    ],
)
def test_wrong_flags_are_reported_together(tmp_path, recipes, capsys, flags, messages):
    assert main(["--output_dir", str(tmp_path / "gym"), *flags]) == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages)
    assert not (tmp_path / "gym").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_build_that_is_killed_three_times_ends_equal(build, tmp_path):
    """It is killed before or after it has finished the next task."""
    assert build(gym=tmp_path / "at_once") == 0
    for when in ("before", "after", "before"):
        killed(build, when, "source.json")
    assert build() == 0
    assert files_of(build.gym) == files_of(tmp_path / "at_once")
