"""Gyms of real tasks with opaque names and permuted labels: the same text has different answers."""

import csv
import json
import random
from pathlib import Path

import pytest
from tiny_runs import contents, typed

from dataloader.gym import Gym
from dataloader.ontology import Ontology
from dataloader.task_splits import load_split
from routing_moe.analysis.features import features_of
from task.conflict_gym.relabel import deranged, labels_of, main

SECTIONS = {
    "train": ["mood", "kind", "listed", "choice", "free", "mixed"],
    "dev": ["spam"],
    "test": ["mood2"],
}


def rows_of(labels: list[str], text: str = "text {} of {}") -> list[tuple[str, str]]:
    return [(text.format(number, label), label) for label in labels for number in range(6)]


def write_rows(folder: Path, task: str, rows, other=()) -> None:
    """Writes two samples of the same rows; `other` are rows of the test files only."""
    (folder / task).mkdir(parents=True)
    for seed in (13, 21):
        for part in ("train", "dev", "test"):
            own = [*rows, *other] if part == "test" else rows
            text = "".join("\t".join(row) + "\n" for row in own)
            (folder / task / f"{task}_6_{seed}_{part}.tsv").write_text(text)


@pytest.fixture(scope="module")
def gym(tmp_path_factory) -> Path:
    """mood, mood2, kind, spam, listed and choice have fixed labels; free, mixed and other do not."""
    folder = tmp_path_factory.mktemp("gym") / "gym"
    write_rows(folder, "mood", rows_of(["good", "bad"]))
    write_rows(folder, "mood2", rows_of(["good", "bad"]))
    write_rows(folder, "spam", rows_of(["spam", "ham"]))
    write_rows(folder, "kind", rows_of(["a b", "c-d", "e"]))
    write_rows(folder, "listed", rows_of(["yes", "no"], "is {} {}? (A) yes (B) no"))
    write_rows(folder, "free", [(f"name {n}", f"name {n}") for n in range(12)])
    write_rows(folder, "mixed", rows_of(["one", "two"]), other=[("text", "three")])
    write_rows(folder, "other", rows_of(["x", "y"]))
    (folder / "choice").mkdir()
    for part in ("train", "dev", "test"):
        lines = [
            {"input": f"{n}\t{label}", "outputs": [label], "options": ["left", "right"]}
            for label in ("left", "right")
            for n in range(6)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "choice" / f"choice_6_13_{part}.jsonl").write_text(text)
    names = ["mood", "mood2", "spam", "kind", "listed", "free", "mixed", "other", "choice"]
    ontology = {
        "classification": {"mood": ["mood", "mood2"], "rest": ["spam", "kind"]},
        "qa": {"all": ["free"]},
    }
    files = {
        "metrics.json": dict.fromkeys(names, "ACC"),
        "ontology.json": ontology,
        "split.json": SECTIONS,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "skills.csv").write_text("mood:1,task,size\n1,mood,2\n0,kind,3\n")
    return folder


@pytest.fixture(scope="module")
def copied(gym, tmp_path_factory) -> Path:
    """The gym with a copy of every classification task."""
    folder = tmp_path_factory.mktemp("copied") / "gym"
    assert main(["--gym", str(gym), "--share", "1", "--output_dir", str(folder)]) == 0
    return folder


def done(folder: Path) -> list[dict[str, str]]:
    with open(folder / "relabelled.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_classification_tasks_have_few_labels_and_no_other_answer(gym):
    found = {task: labels_of(Gym(gym), task) for task in Gym(gym).tasks()}
    assert found == {
        "mood": ("bad", "good"),
        "mood2": ("bad", "good"),
        "spam": ("ham", "spam"),
        "kind": ("a b", "c-d", "e"),
        "listed": ("no", "yes"),
        "choice": ("left", "right"),
        "other": ("x", "y"),
        "free": (),
        "mixed": (),  # a test file has a third answer
    }


def test_names_are_opaque_and_each_task_of_the_split_is_there_with_its_copies(copied):
    rows = done(copied)
    assert [row["task"] for row in rows] == [f"t{number:03d}" for number in range(1, 15)]
    assert Gym(copied).tasks() == [row["task"] for row in rows]
    sources = [(row["source"], row["labels"]) for row in rows]
    kinds = ["mood", "mood2", "spam", "kind", "listed", "choice"]
    expected = [(task, labels) for task in kinds for labels in ("kept", "permuted")]
    assert sorted(sources) == sorted([*expected, ("free", ""), ("mixed", "")])
    assert [task for task, _ in sources] != sorted(task for task, _ in sources)
    text = "".join(str(path.relative_to(copied)) for path in copied.rglob("*.tsv"))
    assert not any(task in text for task in ("mood", "kind", "listed", "free"))


def test_copies_have_the_same_texts_and_every_answer_is_another_label(copied, gym):
    old, new = Gym(gym), Gym(copied)
    for row in done(copied):
        changes = dict(pair.split(" -> ") for pair in row["permutation"].split("; ") if pair)
        assert bool(changes) == (row["labels"] == "permuted")
        assert all(before != after for before, after in changes.items())
        assert sorted(changes) == sorted(changes.values())
        for part in ("train", "dev", "test"):
            before, after = old.examples(row["source"], part), new.examples(row["task"], part)
            assert [example.input for example in before] == [example.input for example in after]
            assert [example.options for example in before] == [example.options for example in after]
            answers = [changes.get(example.outputs[0], example.outputs[0]) for example in before]
            assert answers == [example.outputs[0] for example in after]
        assert new.metric(row["task"]) == old.metric(row["source"])


def test_unchanged_files_are_the_same_bytes(copied, gym):
    for row in done(copied):
        if row["labels"] != "permuted":
            for path in (copied / row["task"]).iterdir():
                source = gym / row["source"] / path.name.replace(row["task"], row["source"])
                assert path.read_bytes() == source.read_bytes()


def test_split_oracle_ontology_and_features_have_the_new_names(copied):
    split, rows = load_split(copied / "split.json"), {row["task"]: row["source"] for row in done(copied)}
    for section, sources in SECTIONS.items():
        assert {rows[task] for task in split.section(section)} == set(sources)
    assert sorted(split.all) == sorted(rows)
    oracle = json.loads((copied / "oracle_routes.json").read_text())
    assert oracle == {row["task"]: int(row["labels"] == "permuted") for row in done(copied)}
    ontology = Ontology.load(copied / "ontology.json")
    for task, source in rows.items():
        category = {"mood": "mood", "mood2": "mood", "spam": "rest", "kind": "rest"}.get(source)
        if category:
            assert ontology.category(task) == ("classification", category)
    found = features_of(sorted(rows), ontology, copied)
    sizes = dict(zip(found.tasks, found.column("size"), strict=True))
    assert {sizes[task] for task, source in rows.items() if source == "kind"} == {3}


def test_half_of_the_classification_tasks_of_each_section_by_default(gym, tmp_path):
    chosen = set()
    for seed in range(4):
        folder = tmp_path / str(seed)
        assert main(["--gym", str(gym), "--seed", str(seed), "--output_dir", str(folder)]) == 0
        permuted = [row["source"] for row in done(folder) if row["labels"] == "permuted"]
        assert len(permuted) == 2  # of 4 train tasks; of one dev task and of one test task none
        chosen.add(tuple(sorted(permuted)))
    assert len(chosen) > 1


def test_in_place_the_labels_of_the_task_itself_are_permuted(gym, tmp_path):
    flags = ["--gym", str(gym), "--permute", "in_place", "--output_dir", str(tmp_path / "gym")]
    assert main(flags) == 0
    rows = done(tmp_path / "gym")
    assert len(rows) == 8
    labels = [row["labels"] for row in rows]
    assert (labels.count("permuted"), labels.count("kept"), labels.count("")) == (2, 4, 2)


def test_the_same_settings_write_the_same_bytes_and_others_are_refused(gym, copied, tmp_path, capsys):
    flags = ["--gym", str(gym), "--share", "1", "--output_dir", str(tmp_path / "gym")]
    assert main(flags) == 0
    assert contents(tmp_path / "gym") == contents(copied)
    assert main([*flags, "--seed", "1"]) == 2
    assert "--seed is 1, but in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--share", "2"], "--share is 2.0; it must be from 0 to 1"),
        (["--permute", "copies"], "--permute is 'copies'; choose from copy, in_place; did you mean 'copy'?"),
        (["--share", "0.1"], "--share is 0.1, but no task is chosen: of the 8 tasks of the split, 6 are"),
        (["--split", "{}/split.json"], "{}/split.json: no task 'moods' in"),
        (["--gym", "{}/none"], "--gym {}/none: no such folder"),
    ],
)
def test_wrong_flags_are_errors_and_nothing_is_written(gym, tmp_path, capsys, flags, problem):
    (tmp_path / "split.json").write_text('{"train": ["moods"]}')
    words = [word.format(tmp_path) for word in flags]
    assert main(["--gym", str(gym), "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert f"error: {problem.format(tmp_path)}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_malformed_lines_are_an_error_or_left_out(gym, tmp_path, capsys):
    write_rows(tmp_path / "gym", "mood", [*rows_of(["good", "bad"]), ("no answer",)])
    (tmp_path / "gym/metrics.json").write_text('{"mood": "ACC"}')
    (tmp_path / "gym/split.json").write_text('{"train": ["mood"]}')
    flags = ["--gym", str(tmp_path / "gym"), "--share", "1", "--output_dir", str(tmp_path / "out")]
    assert main(flags) == 2
    assert "malformed line" in capsys.readouterr().err
    assert main([*flags, "--skip_malformed"]) == 0
    (permuted,) = [row["task"] for row in done(tmp_path / "out") if row["labels"] == "permuted"]
    assert len(Gym(tmp_path / "out").examples(permuted, "dev", "13")) == 12


def test_a_derangement_changes_every_label():
    rng = random.Random(0)
    for count in (2, 3, 7):
        labels = [f"label {number}" for number in range(count)]
        for _ in range(20):
            changes = deranged(rng, labels)
            assert sorted(changes) == sorted(changes.values()) == sorted(labels)
            assert all(old != new for old, new in changes.items())


def test_the_real_gym_can_be_relabelled(real_gym, tmp_path):
    split = tmp_path / "split.json"
    tasks = "glue-rte superglue-rte trec-finegrained openbookqa squad-with_context tweet_eval-emoji"
    split.write_text(json.dumps({"train": tasks.split(), "test": ["glue-cola", "aeslc"]}))
    flags = dict(gym=real_gym, split=split, share=1, output_dir=tmp_path / "gym")
    assert main(typed(flags)) == 0
    gym, rows = Gym(tmp_path / "gym"), done(tmp_path / "gym")
    permuted = sorted(row["source"] for row in rows if row["labels"] == "permuted")
    assert permuted == ["glue-cola", "glue-rte", "superglue-rte", "trec-finegrained", "tweet_eval-emoji"]
    assert gym.check([row["task"] for row in rows]) == []
    assert len(gym.tasks()) == 13
