"""Building a gym: what is written, and what a second call does."""

import json
import shutil
import signal
import zipfile
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from forks import killed
from small_mirror import OWN, all_recipes, capitals, fruits, report, write_lines, write_parquet
from tiny_runs import contents

from dataloader import Gym, load_split
from dataloader.building import task_folder
from dataloader.building.build_tasks import build_tasks
from dataloader.building.downloads import Mirror
from dataloader.building.gym_files import GymFiles
from dataloader.building.raw_file import json_lines
from dataloader.building.recipe import Raw
from dataloader.building.task_folder import NotBuilt, build_task
from dataloader.task_splits import Split
from routing_moe.cli.build_gym import main


def test_a_gym_has_the_samples_that_its_loader_reads(build, tmp_path):
    assert build() == 0
    gym = Gym(tmp_path / "gym")
    assert gym.tasks() == sorted(OWN)
    assert gym.samples("fruits") == [f"fruits_2_{seed}" for seed in (100, 13, 21, 42, 87)]
    train = gym.examples("fruits", "train", "13")
    assert sorted(example.outputs for example in train) == [("sour",)] * 2 + [("sweet",)] * 2
    inputs = {example.input for example in gym.examples("fruits", "test")}
    assert inputs == {f"fruit: dev fruit {i}" for i in range(9)}
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
    for name, rows in (("train", pool[:3]), ("test", test)):
        expected = "".join(f"{country}\t{capital}\n" for country, capital in rows)
        assert (gym / f"capitals_3_21_{name}.tsv").read_text() == expected


def test_the_gym_is_described_by_its_files(build, tmp_path):
    for split in ("train", "validation"):
        rows = [{"sentence1": f"a{i}", "sentence2": "b", "label": i % 2} for i in range(64)]
        write_parquet(build.mirror, "nyu-mll/glue", f"rte/{split}-00000-of-00001.parquet", rows)
    assert build(tasks=[*OWN, "glue-rte"]) == 0
    gym = tmp_path / "gym"
    metrics = {"capitals": "EM", "colours": "ACC", "fruits": "ACC", "glue-rte": "ACC"}
    assert json.loads((gym / "metrics.json").read_text()) == metrics
    assert json.loads((gym / "ontology.json").read_text()) == {"classification": {"nli": ["glue-rte"]}}
    assert load_split(gym / "split.json").test == ("capitals", "colours", "fruits")
    rows = report(gym)
    assert rows.pop("glue-rte")["outcome"] == "differs"
    assert {row["outcome"] for row in rows.values()} == {"built, not compared"}
    assert rows["capitals"]["terms"] == "for tests only"
    assert rows["fruits"]["source"] == "https://data.example.org/fruits/train.jsonl"


def test_a_split_gives_the_sections_and_moves_tasks_that_are_there(build, tmp_path):
    flags = ["--output_dir", str(build.gym), "--mirror", str(build.mirror), "--num_workers", "1"]
    split = tmp_path / "split.json"

    def sections() -> dict:
        return json.loads((build.gym / "split.json").read_text())

    split.write_text(json.dumps({"train": ["fruits"], "dev": ["colours"], "test": []}))
    assert main([*flags, "--split", str(split)]) == 0
    assert sections() == {"train": ["fruits"], "dev": ["colours"], "test": []}
    assert build() == 0  # the task that the split does not name is added; what was there remains
    assert sections()["test"] == ["capitals"]
    split.write_text(json.dumps({"train": ["fruits", "colours"]}))
    assert main([*flags, "--split", str(split)]) == 0
    assert sections() == {"train": ["colours", "fruits"], "dev": [], "test": ["capitals"]}


def test_what_the_user_has_changed_in_the_gyms_files_remains_also_a_task_taken_out(build):
    build(tasks=["fruits", "capitals"])
    split, metrics = build.gym / "split.json", build.gym / "metrics.json"
    metrics.write_text('{"fruits": "Classification-F1", "mine": "EM"}')
    split.write_text('{"train": ["fruits", "mine"]}')
    build()
    expected = dict(capitals="EM", colours="ACC", fruits="Classification-F1", mine="EM")
    assert json.loads(metrics.read_text()) == expected
    assert load_split(split).all == ("fruits", "mine", "colours")
    split.unlink()
    build()
    assert load_split(split).test == ("capitals", "colours", "fruits")


def test_edits_during_a_build_remain(build, monkeypatch):
    (build.gym / "boolq").mkdir(parents=True)
    (build.gym / "boolq/boolq_16_100_train.tsv").write_text("in\tout\n")
    assert build(tasks=["fruits"]) == 0
    split, metrics, of_splits = (build.gym / f"{name}.json" for name in ("split", "metrics", "splits/random"))

    def edited(*given):
        split.write_text('{"train": ["mine", "fruits"]}')
        metrics.write_text('{"fruits": "EM", "mine": "EM"}')
        of_splits.write_text('{"train": ["boolq", "mine"]}')
        yield from build_tasks(*given)

    monkeypatch.setattr("routing_moe.cli.build_gym.build_tasks", edited)
    assert build(tasks=["colours"]) == 0
    assert load_split(split).all == ("mine", "fruits", "colours")
    assert json.loads(metrics.read_text()) == {"colours": "ACC", "fruits": "EM", "mine": "EM"}
    assert load_split(of_splits).all == ("boolq", "mine")


def test_other_keys_of_a_split_remain(build):
    build.gym.mkdir()
    own = {"description": "mine", "seed": 42, "train": ["mine"]}
    (build.gym / "split.json").write_text(json.dumps(own))
    assert build(tasks=["fruits"]) == 0
    assert json.loads((build.gym / "split.json").read_text()) == own | {"dev": [], "test": ["fruits"]}


def test_an_ontology_of_the_user_keeps_its_order(tmp_path):
    mine = {"z": {"z": ["zebra"], "none": []}, "classification": {"a": ["yak", "ant"]}}
    file, recipes = tmp_path / "ontology.json", all_recipes()
    file.write_text(json.dumps(mine))
    for task, added in (("fruits", {}), ("glue-rte", {"nli": ["glue-rte"]})):
        GymFiles.read(tmp_path).add([recipes[task]], Split(tmp_path, ()), moves=False)
        mine["classification"] |= added
        assert json.dumps(json.loads(file.read_text())) == json.dumps(mine)


def test_a_build_writes_the_published_splits_of_the_gyms_tasks_and_keeps_one_that_was_changed(build, capsys):
    build(tasks=["fruits"])
    assert not (build.gym / "splits").exists()  # none of their tasks are there
    for task in ("boolq", "quoref"):
        (build.gym / task).mkdir()
        (build.gym / task / f"{task}_16_100_train.tsv").write_text("in\tout\n")
    build(tasks=["fruits"])
    changed, other = build.gym / "splits/random.json", build.gym / "splits/t0_held_out.json"
    sections = {"all": ["boolq", "quoref"], "train": ["boolq"], "dev": [], "test": ["quoref"]}
    assert json.loads(changed.read_text()) == sections
    changed.write_text(mine := '{"train": ["boolq", "fruits"], "test": []}')
    build(tasks=["capitals"])
    assert f"{changed} was changed, so it remains" in capsys.readouterr().err
    assert changed.read_text() == mine
    assert load_split(other).train == ("boolq", "quoref")
    shutil.rmtree(build.gym / "quoref")
    changed.unlink()
    build(tasks=["capitals"])
    assert (load_split(changed).all, load_split(other).all) == (("boolq",), ("boolq",))
    (build.gym / "quoref").mkdir()  # built, but killed before the splits were written
    (build.gym / "quoref/quoref_16_100_train.tsv").write_text("in\tout\n")
    build(tasks=["capitals"])
    assert load_split(changed).test == ("quoref",)
    assert "was changed" not in capsys.readouterr().err


def test_tasks_whose_source_is_gone_are_named_and_do_not_fail_the_build(build, recipes, tmp_path, capsys):
    recipes["capitals"] = replace(recipes["capitals"], gone=True)
    for shard in build.mirror.rglob("*.parquet"):
        shard.unlink()
    assert build() == 0
    assert "   1 unavailable, the source is gone\n" in capsys.readouterr().out
    assert build(tasks=["capitals"]) == 1  # nothing is built
    (build.mirror / "data.example.org/colours.jsonl").unlink()
    assert build(gym=tmp_path / "another") == 1


def test_a_second_call_builds_what_is_missing_and_leaves_the_rest(build, tmp_path):
    gym = tmp_path / "gym"
    build("--samples", "13", "21", tasks=["fruits"])
    first = {path: path.stat().st_mtime_ns for path in gym.glob("fruits/*.tsv")}
    assert len(first) == 6
    assert build() == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(gym.glob("fruits/*.tsv"))) == 15
    build(gym=tmp_path / "at_once")
    assert contents(tmp_path / "at_once") == contents(gym)


def test_files_are_compared_with_the_published_sums(build, monkeypatch):
    build("--samples", "13", "21", tasks=["fruits"])
    (build.gym / "fruits/source.json").unlink()  # as in a folder that other scripts have made
    files = {path.name: path.read_bytes() for path in build.gym.glob("fruits/*.tsv")}
    sums = {name: md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr("dataloader.building.report.published_sums", lambda: sums)
    build("--samples", "13", "21", tasks=["fruits"])
    row = report(build.gym)["fruits"]
    assert (row["outcome"], row["train"], row["test"], row["source"]) == ("verified", "2/2", "2/2", "")
    (build.gym / "fruits/fruits_2_21_dev.tsv").write_text("another\tline\n")
    build("--samples", "13", "21", tasks=["fruits"])
    row = report(build.gym)["fruits"]
    assert (row["outcome"], row["train"], row["dev"], row["test"]) == ("differs", "2/2", "1/2", "2/2")


def test_parquet_files_of_the_hub_give_the_same_task_as_raw_files(build, tmp_path):
    build(tasks=["fruits"])
    for name in ("train.jsonl", "dev.jsonl"):
        (build.mirror / "data.example.org/fruits" / name).unlink()
    for split, name in (("train", "train"), ("validation", "dev")):
        write_parquet(build.mirror, "example/fruits", f"data/{split}-00000-of-00001.parquet", fruits(name))
    build(tasks=["fruits"], gym=tmp_path / "from_hub")
    raw, hub = contents(tmp_path / "gym"), contents(tmp_path / "from_hub")
    one, other = ({n: files[n] for n in files if n.endswith(".tsv")} for files in (raw, hub))
    assert one == other
    assert report(tmp_path / "from_hub")["fruits"]["source"] == "hub data set example/fruits"


# ---- problems in sources, flags and files, and kills

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
        (with_rows({"title": "x"}), "fruits", "train, row 1: unexpected content: no column or key 'name'"),
        (with_rows(), "fruits", "fruits/train.jsonl: no rows"),
        (truncate, "fruits", "fruits/train.jsonl, train, row 8: unexpected content: "),
        (remove_split, "fruits", "https://data.example.org/fruits/dev.jsonl is not in "),
        (truncate_parquet, "capitals", "0001.parquet cannot be read as parquet"),
    ],
)
def test_a_wrong_source_is_one_clear_error_and_the_other_tasks_are_built(build, capsys, spoil, task, message):
    spoil(build.mirror)
    assert build() == 1
    assert Gym(build.gym).tasks() == sorted({*OWN} - {task})
    row = report(build.gym)[task]
    assert row["outcome"] == "unavailable"
    assert message in row["note"]
    assert message in capsys.readouterr().out


def test_a_full_disk_leaves_nothing_of_the_task(build, recipes, monkeypatch):
    written = []

    def write(path: Path, content: bytes) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(task_folder, "write_bytes", write)
    with pytest.raises(NotBuilt, match=r"fruits cannot be written \(No space left on device\)"):
        build_task(recipes["fruits"], Mirror(build.mirror), build.gym, [13, 21])
    assert contents(build.gym) == {}


class Failing:
    def rows(self, split: str, files: Mirror):
        raise RuntimeError("out of order")


def test_an_error_in_a_source_and_a_truncated_archive_do_not_stop_the_other_tasks(build, recipes):
    recipes["colours"] = replace(recipes["colours"], sources=(Failing(),))
    archive = Raw(json_lines, every="https://data.example.org/fruits.zip!train.jsonl")
    recipes["fruits"] = replace(recipes["fruits"], sources=(archive,))
    path = build.mirror / "data.example.org/fruits.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("train.jsonl", '{"name": "x", "label": 1}\n' * 9)
    path.write_bytes(path.read_bytes()[:-20])
    assert build() == 1
    assert Gym(build.gym).tasks() == ["capitals"]
    notes = {task: line["note"] for task, line in report(build.gym).items()}
    assert "unexpected content: out of order" in notes["colours"]
    assert f"{path} is not a complete ZIP or TAR archive" in notes["fruits"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("split.json", '{"train": 3}', '"train" is not a list'),
        ("metrics.json", '{"fruits": "AC"}', "unknown metric 'AC' for task 'fruits'; did you mean 'ACC'?"),
    ],
)
def test_wrong_files_of_the_gym_are_named_first(build, tmp_path, capsys, name, content, message):
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym" / name).write_text(content)
    assert build() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gym/fruits").exists()


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--tasks", "fruitz"], ["--tasks: no recipe for 'fruitz'; did you mean 'fruits'?"]),
        (["--samples", "1", "1", "--mirror", "no"], ["--samples 1 1", "--mirror no: no such folder"]),
    ],
)
def test_wrong_flags_are_reported_together(tmp_path, recipes, capsys, flags, messages):
    assert main(["--output_dir", str(tmp_path / "gym"), *flags]) == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages)
    assert not (tmp_path / "gym").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_build_that_is_killed_three_times_ends_equal_to_one_of_several_processes(build, tmp_path):
    """It is killed before or after it has finished the next task."""
    assert build("--num_workers", "2", gym=tmp_path / "at_once") == 0
    for when in ("before", "after", "before"):
        killed(build, when, "source.json")
    assert build() == 0
    assert contents(build.gym) == contents(tmp_path / "at_once")
