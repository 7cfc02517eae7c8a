"""Building a gym: what is written, what a second call does, and what faults in the sources lead to."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_mirror import (
    RECIPES,
    capitals,
    files_of,
    fruits,
    make_mirror,
    write_lines,
    write_parquet,
)

from dataloader import Gym, load_split
from dataloader.build_gym import chosen_recipes, main
from dataloader.building import task_folder
from dataloader.building.downloads import Mirror
from dataloader.building.own_recipes import load_recipes
from dataloader.building.task_folder import NotBuilt, build_task
from dataloader.recipes import RECIPES as RECIPES_OF_GYM

OWN = ("fruits", "capitals", "colours")


@pytest.fixture
def mirror(tmp_path) -> Path:
    return make_mirror(tmp_path / "mirror")


@pytest.fixture
def recipes(tmp_path) -> Path:
    path = tmp_path / "my_recipes.py"
    path.write_text(RECIPES, encoding="utf-8")
    return path


@pytest.fixture
def build(tmp_path, mirror, recipes):
    """build(tasks, *flags): runs the command on the mirror in one process; returns its exit code."""

    def run(*flags: str, tasks=OWN, gym: Path = tmp_path / "gym") -> int:
        paths = ["--output_dir", str(gym), "--mirror", str(mirror), "--recipes", str(recipes)]
        return main([*paths, "--num_workers", "1", "--tasks", *tasks, *flags])

    return run


def report(gym: Path) -> dict[str, dict[str, str]]:
    with (gym / "gym_report.csv").open(encoding="utf-8") as file:
        return {row["task"]: row for row in csv.DictReader(file)}


def test_a_gym_has_the_samples_that_its_loader_reads(build, tmp_path):
    assert build() == 0
    gym = Gym(tmp_path / "gym")
    assert gym.tasks() == sorted(OWN)
    assert gym.samples("fruits") == [f"fruits_2_{seed}" for seed in (100, 13, 21, 42, 87)]
    train = gym.examples("fruits", "train", "13")
    assert sorted(example.outputs for example in train) == [("sour",)] * 2 + [("sweet",)] * 2
    assert {example.input for example in gym.examples("fruits", "test")} == {
        f"fruit: dev fruit {i}" for i in range(9)
    }
    colours = gym.examples("colours", "test", "first")
    assert {example.options for example in colours} == {("red", "blue", "green")}
    assert {example.outputs for example in colours} <= {("red", "blue"), ("green",)}


def test_a_sample_is_the_legacy_generators_shuffle_of_the_pool(build, tmp_path):
    build()
    pool = [(row["country"].strip(), row["capital"]) for row in capitals()]
    np.random.RandomState(42).shuffle(pool)
    pool, test = pool[:9], pool[9:]
    np.random.RandomState(21).shuffle(pool)
    gym = tmp_path / "gym/capitals"
    lines = {
        name: "".join(f"{a}\t{b}\n" for a, b in rows) for name, rows in (("train", pool[:3]), ("test", test))
    }
    for name, text in lines.items():
        assert (gym / f"capitals_3_21_{name}.tsv").read_text() == text


def test_the_gym_is_described_by_its_files(build, tmp_path):
    build()
    gym = tmp_path / "gym"
    assert json.loads((gym / "metrics.json").read_text()) == dict(capitals="EM", colours="ACC", fruits="ACC")
    assert json.loads((gym / "ontology.json").read_text()) == {"classification": {"taste": ["fruits"]}}
    assert load_split(gym / "split.json").test == ("capitals", "colours", "fruits")
    rows = report(gym)
    assert {row["outcome"] for row in rows.values()} == {"built, not compared"}
    assert rows["capitals"]["terms"] == "for tests only"
    assert rows["fruits"]["source"] == "https://data.example.org/fruits/train.jsonl"


def test_the_split_that_was_asked_for_gives_the_sections(build, tmp_path, mirror, recipes):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["fruits"], "dev": ["colours"], "test": []}))
    gym = tmp_path / "gym"
    flags = [
        "--output_dir",
        str(gym),
        "--mirror",
        str(mirror),
        "--recipes",
        str(recipes),
        "--split",
        str(split),
    ]
    assert main(flags) == 0
    assert json.loads((gym / "split.json").read_text()) == {
        "train": ["fruits"],
        "dev": ["colours"],
        "test": [],
    }
    assert build() == 0  # the task that the split does not name is added; what was there remains
    assert json.loads((gym / "split.json").read_text())["test"] == ["capitals"]


def test_what_the_user_has_changed_in_the_gyms_files_remains(build, tmp_path):
    build("--samples", "13", tasks=["fruits"])
    gym = tmp_path / "gym"
    (gym / "metrics.json").write_text('{"fruits": "Classification-F1", "mine": "EM"}')
    (gym / "split.json").write_text('{"train": ["fruits", "mine"]}')
    build()
    metrics = json.loads((gym / "metrics.json").read_text())
    assert metrics == dict(capitals="EM", colours="ACC", fruits="Classification-F1", mine="EM")
    assert load_split(gym / "split.json").train == ("fruits", "mine")


def test_a_second_call_builds_what_is_missing_and_leaves_the_rest(build, tmp_path):
    gym = tmp_path / "gym"
    build("--samples", "13", "21", tasks=["fruits"])
    first = {path: path.stat().st_mtime_ns for path in gym.glob("fruits/*.tsv")}
    assert len(first) == 6
    assert build() == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(gym.glob("fruits/*.tsv"))) == 15
    build(gym=tmp_path / "at_once")
    once, twice = files_of(tmp_path / "at_once"), files_of(gym)
    for files in (once, twice):
        files["split.json"] = sorted(json.loads(files["split.json"])["test"])
    assert once == twice


def test_files_from_elsewhere_are_verified_too(build, tmp_path):
    build(tasks=["fruits"])
    (tmp_path / "gym/fruits/source.json").unlink()
    assert build(tasks=["fruits"]) == 0
    assert report(tmp_path / "gym")["fruits"]["source"] == ""


def test_parquet_files_of_the_hub_give_the_same_task_as_raw_files(build, tmp_path, mirror):
    build(tasks=["fruits"])
    for name in ("train.jsonl", "dev.jsonl"):
        (mirror / "data.example.org/fruits" / name).unlink()
    for split, name in (("train", "train"), ("validation", "dev")):
        write_parquet(mirror, "example/fruits", f"data/{split}-00000-of-00001.parquet", fruits(name))
    build(tasks=["fruits"], gym=tmp_path / "from_hub")
    raw, hub = files_of(tmp_path / "gym"), files_of(tmp_path / "from_hub")
    assert {name: raw[name] for name in raw if name.endswith(".tsv")} == {
        name: hub[name] for name in hub if name.endswith(".tsv")
    }
    assert report(tmp_path / "from_hub")["fruits"]["source"] == "hub data set example/fruits"


def test_patterns_name_prompts_only_if_they_have_their_mark():
    def tasks(pattern: str) -> list[str]:
        return [recipe.task for recipe in chosen_recipes([pattern], None, (), RECIPES_OF_GYM)]

    assert tasks("superglue-r*") == ["superglue-record", "superglue-rte"]
    assert [task.split("__")[0] for task in tasks("superglue-r*__*")] == ["superglue-rte"] * 3
    assert tasks("superglue-rte__conclude") == ["superglue-rte__conclude"]


# ---------------------------------------------------------------------------- faults


def rename_column(mirror: Path) -> None:
    write_lines(mirror / "data.example.org/fruits/train.jsonl", [{"title": "x", "label": 1}])


def change_label(mirror: Path) -> None:
    write_lines(mirror / "data.example.org/fruits/train.jsonl", [{"name": "x", "label": 2}])


def truncate(mirror: Path) -> None:
    path = mirror / "data.example.org/fruits/train.jsonl"
    path.write_bytes(path.read_bytes()[:-9])


def remove_split(mirror: Path) -> None:
    (mirror / "data.example.org/fruits/dev.jsonl").unlink()


def empty(mirror: Path) -> None:
    write_lines(mirror / "data.example.org/fruits/train.jsonl", [])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename_column, "fruits/train.jsonl, train, row 1: no column 'name' (its columns: title, label)"),
        (change_label, "row 1: unexpected content: the label 2 is not one of 0 to 1"),
        (truncate, "fruits/train.jsonl, train, row 8: unexpected content: "),
        (remove_split, "https://data.example.org/fruits/dev.jsonl is not in "),
        (empty, "fruits/train.jsonl: no rows"),
    ],
)
def test_a_faulty_source_is_one_clear_error_and_the_other_tasks_are_built(
    build, tmp_path, mirror, capsys, spoil, message
):
    spoil(mirror)
    assert build() == 1
    assert Gym(tmp_path / "gym").tasks() == ["capitals", "colours"]
    row = report(tmp_path / "gym")["fruits"]
    assert row["outcome"] == "unavailable"
    assert message in row["note"]
    assert message in capsys.readouterr().out


def test_a_damaged_parquet_file_is_one_clear_error(build, tmp_path, mirror):
    path = next(mirror.rglob("0001.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    assert build() == 1
    assert "0001.parquet cannot be read as parquet" in report(tmp_path / "gym")["capitals"]["note"]


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
    assert report(gym)["boolq"]["outcome"] == "format only"


def test_a_full_disk_leaves_nothing_of_the_task(tmp_path, mirror, recipes, monkeypatch):
    gym = tmp_path / "gym"
    written = []

    def write(path: Path, content: bytes) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(task_folder, "write", write)
    with pytest.raises(NotBuilt, match=r"fruits cannot be written \(No space left on device\)"):
        build_task(load_recipes(recipes)["fruits"], Mirror(mirror), gym, [13, 21])
    assert files_of(gym) == {}


def test_a_full_disk_is_one_error_and_leaves_the_finished_tasks(build, tmp_path, monkeypatch, capsys):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dataloader.building.report.replace_text", full)
    assert build() == 2
    assert Gym(tmp_path / "gym").tasks() == sorted(OWN)
    captured = capsys.readouterr()
    assert "3 built, not compared" in captured.out
    assert captured.err.splitlines()[-1] == (
        f"error: --output_dir {tmp_path}/gym: cannot be written ([Errno 28] No space left on device: "
        f"'{tmp_path}/gym/gym_report.csv')"
    )


def test_an_error_in_a_recipes_source_does_not_stop_the_other_tasks(build, tmp_path, recipes):
    text = RECIPES.replace('Raw(json_lines, every=f"{HOST}/colours.jsonl")', "Failing()")
    failing = (
        "class Failing:\n    def rows(self, split, files):\n        raise RuntimeError('out of order')\n"
    )
    recipes.write_text(failing + text)
    assert build() == 1
    assert Gym(tmp_path / "gym").tasks() == ["capitals", "fruits"]
    assert "unexpected content: out of order" in report(tmp_path / "gym")["colours"]["note"]


def test_nulls_of_the_hub_are_empty_texts(build, tmp_path, mirror):
    rows = [{"country": f"Land {i}", "capital": None if i == 3 else "x"} for i in range(12)]
    for path in mirror.rglob("*.parquet"):
        path.unlink()
    write_parquet(mirror, "example/geography", "capitals/train-00000-of-00001.parquet", rows)
    build(tasks=["capitals"])
    lines = [line for path in (tmp_path / "gym").rglob("*.tsv") for line in path.read_text().splitlines()]
    assert {line for line in lines if line.startswith("Land 3\t")} == {"Land 3\t"}
    assert int(report(tmp_path / "gym")["capitals"]["malformed"]) >= 1


def test_too_few_rows_for_a_sample_are_an_error(build, tmp_path, mirror):
    write_lines(mirror / "data.example.org/colours.jsonl", [{"thing": "x", "colours": ["red"]}] * 2)
    assert build(tasks=["colours"]) == 1
    assert "too few rows (1) for a train and a dev file" in report(tmp_path / "gym")["colours"]["note"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("split.json", '{"train": 3}', '"train" is not a list'),
        ("split.json", '{"train": ["a"], "test": ["a"]}', 'in "train" and in "test": a'),
        ("ontology.json", '{"a": ["b"]}', '"a" must be an object'),
        ("metrics.json", '{"fruits": "AC"}', "unknown metric 'AC' for task 'fruits'; did you mean 'ACC'?"),
        ("metrics.json", "{", "is not valid JSON"),
    ],
)
def test_faulty_files_of_the_gym_are_named_before_anything_is_built(
    build, tmp_path, capsys, name, content, message
):
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym" / name).write_text(content)
    assert build() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gym/fruits").exists()


def test_a_report_and_a_source_that_cannot_be_read_are_written_again(build, tmp_path):
    build()
    (tmp_path / "gym/gym_report.csv").write_bytes(b"\xff\x00")
    (tmp_path / "gym/fruits/source.json").write_text("[")
    assert build() == 0
    assert report(tmp_path / "gym").keys() == set(OWN)


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--tasks", "fruitz"], ["--tasks: no recipe for 'fruitz'; did you mean 'fruits'?"]),
        (["--num_workers", "0", "--samples", "1", "1"], ["--num_workers 0", "--samples 1 1"]),
        (["--mirror", "nowhere"], ["--mirror nowhere: no such folder"]),
        (["--split", "none.json"], ["none.json: no such file"]),
    ],
)
def test_wrong_flags_are_reported_together(tmp_path, recipes, capsys, flags, messages):
    assert main(["--output_dir", str(tmp_path / "gym"), "--recipes", str(recipes), *flags]) == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages)
    assert not (tmp_path / "gym").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RECIPES = 3", "has no list RECIPES"),
        ("import nothing_like_this", "fails:"),
        (RECIPES.replace('metric="EM"', 'metric="EMM"'), "recipe 'capitals': unknown metric 'EMM'"),
        (RECIPES.replace('metric="EM",', ""), "recipe 'capitals': it has no metric"),
        (RECIPES.replace('"fruits",', '"../fruits",', 1), "recipe '../fruits': the name may have letters"),
        (RECIPES.replace('"capitals",', '"fruits",', 1), "two recipes of 'fruits'"),
        (RECIPES.replace('splits=("train",)', 'splits="train"'), "splits is 'train'; it must be a tuple"),
        (RECIPES.replace("k=2,", "k=0,", 1), "k is 0; it must be a whole number of at least 1"),
        (RECIPES.replace('("classification", "taste")', '"taste"'), "category is 'taste'"),
        ("raise SystemExit(0)", "fails:"),
    ],
)
def test_a_faulty_file_of_recipes_is_one_clear_error(tmp_path, capsys, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert main(["--output_dir", str(tmp_path / "gym"), "--recipes", str(path)]) == 2
    assert message in capsys.readouterr().err


SLOW = """
import time


def slowly(row):
    time.sleep(0.02)
    return True


RECIPES = [replace(recipe, task=f"{recipe.task}{i}", keep=slowly) for i in range(4) for recipe in RECIPES]
"""


@pytest.mark.slow
def test_a_build_that_is_killed_ten_times_ends_equal(build, tmp_path, recipes):
    """It is killed each time when it has finished one more task, and works on the next."""
    recipes.write_text("from dataclasses import replace\n" + RECIPES + SLOW, encoding="utf-8")
    build(tasks=[f"{task}{i}" for i in range(4) for task in OWN], gym=tmp_path / "at_once")
    gym = tmp_path / "killed"
    command = [sys.executable, "-m", "dataloader.build_gym", "--output_dir", str(gym), "--num_workers", "1"]
    command += ["--mirror", str(tmp_path / "mirror"), "--recipes", str(recipes)]
    for n_tasks in range(1, 11):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until(lambda n=n_tasks: len(list(gym.glob("*/source.json"))) >= n)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, capture_output=True, check=True)
    assert files_of(gym) == files_of(tmp_path / "at_once")


@pytest.mark.slow
def test_workers_end_with_the_command_that_was_killed(tmp_path, recipes, mirror):
    recipes.write_text("from dataclasses import replace\n" + RECIPES + SLOW.replace("0.02", "60"))
    command = [sys.executable, "-m", "dataloader.build_gym", "--output_dir", str(tmp_path / "gym")]
    command += ["--mirror", str(mirror), "--recipes", str(recipes), "--num_workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            process.kill()
            pytest.skip("this system does not list the children of a process")
        until(lambda: len(children.read_text().split()) >= 2)
        workers = children.read_text().split()
        process.send_signal(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def until(condition, seconds: float = 60) -> None:
    """Waits until the condition holds. Fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_recipes_in_the_documentation_build_their_tasks(tmp_path):
    page = (Path(__file__).resolve().parents[1] / "docs/data.md").read_text(encoding="utf-8")
    (tmp_path / "my_recipes.py").write_text(page.split("```python\n")[1].split("```")[0])
    mirror, gym = tmp_path / "mirror", tmp_path / "gym"
    for split, n in (("train", 80), ("test", 6)):
        rows = [{"text": f"dish\n{i}", "stars": 1 + i % 5} for i in range(n)]
        write_parquet(mirror, "my_name/restaurant_reviews", f"data/{split}-00000-of-00001.parquet", rows)
    facts = [{"question": f"q{i}?", "passage": "p", "answers": ["a", "b"]} for i in range(90)]
    write_lines(mirror / "example.org/cities/facts.jsonl", facts)
    flags = ["--mirror", str(mirror), "--recipes", str(tmp_path / "my_recipes.py"), "--num_workers", "1"]
    assert main(["--output_dir", str(gym), *flags, "--tasks", "restaurant_reviews", "city_facts"]) == 0
    reviews = Gym(gym).examples("restaurant_reviews", "test", "first")
    assert [(example.input, *example.outputs) for example in reviews] == [
        (f"review: dish {i}", "positive" if i == 3 or i == 4 else "negative") for i in (0, 1, 3, 4, 5)
    ]
    assert Gym(gym).examples("city_facts", "train", "first")[0].outputs == ("a", "b")
