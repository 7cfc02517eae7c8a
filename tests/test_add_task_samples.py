"""add-task: which rows of a table are in the files of a gym, and how labels decide it."""

from collections import Counter
from pathlib import Path

import pytest
from small_mirror import files_of
from tiny_tables import INPUT, examples, reviews, write_table

from dataloader.building.raw_file import json_lines
from dataloader.building.recipe import SAMPLES, Raw, text_to_text


def test_samples_by_row_are_those_of_the_gym_builder(add, build, recipes):
    """The same rows as a recipe of build-gym, which reads raw files."""
    host = Path("mirror/data.example.org")
    write_table(host / "reviews.jsonl", reviews())
    source = Raw(json_lines, train="https://data.example.org/reviews.jsonl")
    recipes["reviews"] = text_to_text(
        "reviews", source, splits=("train",), input=INPUT, output="{verdict}", metric="ACC", k=4
    )
    assert build("--samples", *map(str, SAMPLES), tasks=["reviews"]) == 0
    assert add(gym="own", samples=5, sample_by="row") == 0
    theirs = files_of(build.gym)
    ours = {name: content for name, content in files_of(Path("own")).items() if name.endswith(".tsv")}
    assert len(ours) == 15
    assert ours == {name: content for name, content in theirs.items() if name.endswith(".tsv")}


def test_labels_are_sampled_by_label_and_other_answers_by_row(add):
    assert add() == 0
    assert [len(examples(part=part)) for part in ("train", "dev", "test")] == [8, 8, 20]
    assert add(name="by_row", sample_by="row") == 0
    assert len(examples("by_row")) == 4
    assert add(name="years", output="{year}", metric="EM", k=None) == 0
    assert len(examples("years")) == 32


def write_labels(name: str, **counts: int) -> None:
    labels = [label for label, n in counts.items() for _ in range(n)]
    write_table(
        Path(name), [{"text": f"t{i}", "year": i, "verdict": label} for i, label in enumerate(labels)]
    )


def labels_of(task: str, part: str) -> dict[str, int]:
    return Counter(outputs[0] for _, outputs, _ in examples(task, part))


def test_a_default_k_is_lowered_to_what_fits_and_the_test_file_has_each_label_in_proportion(add, capsys):
    write_labels("even.csv", negative=30, positive=60)
    assert add(**{"from": "even.csv"}, k=None, samples=1) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("labels: positive 60, negative 30\nk lowered from 16 to 12: --k 16 needs ")
    assert "1 sample of 12 train and 12 dev rows of each of 2 labels, drawn from 72 rows; 18" in printed.out
    assert labels_of("reviews", "test") == {"negative": 6, "positive": 12}
    assert labels_of("reviews", "train") == labels_of("reviews", "dev") == {"negative": 12, "positive": 12}
    write_labels("few.csv", a=50)
    assert add(**{"from": "few.csv"}, name="by_row", metric="QA-F1", k=None) == 0
    assert capsys.readouterr().err.startswith("k lowered from 32 to 20: --k 32 needs 64 rows; beside the")


@pytest.mark.parametrize("stray", [1, 4])
def test_a_stray_label_changes_neither_the_kind_of_sample_nor_k(add, capsys, stray):
    write_labels("odd.csv", negative=26, positive=19, neutrl=stray)
    assert add(**{"from": "odd.csv"}, samples=1, k=7) == 0
    printed = capsys.readouterr()
    in_pool = min(stray, 3)  # of 4 rows, 1 is for the test file
    assert printed.err == (
        f"labels: negative 26, positive 19, neutrl {stray}\n"
        f"warning: fewer than 14 train and dev rows of 'neutrl' ({in_pool})\n"
    )
    assert labels_of("reviews", "train") == {"negative": 7, "positive": 7, "neutrl": in_pool}
    assert add(**{"from": "odd.csv"}, name="more", k=8) == 2
    assert "beside the test rows, odd.csv has 15; give --k 7 or --sample_by row\n" in capsys.readouterr().err


def test_two_labels_are_never_rare_and_many_answers_are_shown_in_part(add, capsys):
    write_labels("spam.csv", ham=200, spam=13)
    assert add(**{"from": "spam.csv"}, k=None) == 0
    assert labels_of("reviews", "dev") == {"ham": 5, "spam": 5}
    capsys.readouterr()
    assert add(name="years", output="{year}") == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "answers: 1990 1, 1991 1, 1992 1, 1993 1, 1994 1 and 95 more; "
        "k rows of any are drawn (--sample_by label: of each)"
    )


def seeds(task: str) -> set[str]:
    return {path.stem.split("_")[-2] for path in Path("gym", task).glob("*.tsv")}


def test_train_tasks_have_one_sample_unless_more_are_asked_for(add, capsys):
    """Training pools samples: with several, dev rows are train rows of another sample."""
    assert add(samples=None, name="one") == 0
    assert seeds("one") == {"100"}
    assert "drawn from 80 rows (a larger --k uses more); 20 test rows\n" in capsys.readouterr().out
    assert add(samples=None, name="unseen", section="test") == 0
    assert add(samples=None, name="unseen") == 0  # split.json has it in the section test
    assert seeds("unseen") == set(map(str, SAMPLES))


def test_an_input_is_in_one_file_of_a_sample(add, capsys):
    rows = reviews(60) * 5
    other = rows[0] | {"verdict": "bad"}
    write_table(Path("copies.csv"), [*rows, other])
    write_table(Path("test.csv"), reviews(3) * 2)
    assert add(**{"from": "copies.csv"}) == 0
    assert "copies.csv: 241 rows left out, whose input an earlier row has\n" in capsys.readouterr().err
    inputs = [source for part in ("train", "dev", "test") for source, *_ in examples(part=part)]
    assert len(set(inputs)) == len(inputs) == 8 + 8 + 12
    assert add(name="tested", test_from="test.csv") == 0
    assert "reviews.csv: 3 rows left out, whose input a test row has\n" in capsys.readouterr().err
    tested = [source for source, *_ in examples("tested", "test")]
    assert len(tested) == 3
    trained = {source for part in ("train", "dev") for source, *_ in examples("tested", part)}
    assert not trained & set(tested)
