"""Tables of results, with hand-computed numbers."""

from math import nan

import pandas as pd
import pytest

from dataloader.gym import Example, Gym
from dataloader.ontology import Ontology
from routing_moe.evaluation.predictions import baseline_scores, constant_answer
from routing_moe.evaluation.scored_files import TaskFile
from routing_moe.results.markdown import markdown_table
from routing_moe.results.scores import category_table, mean_score


def examples(*answers):
    return [Example("t", "t_1_0", f"input {i}", (answer,)) for i, answer in enumerate(answers)]


def test_the_constant_answer_is_the_most_frequent_first_answer():
    assert constant_answer(examples("no", "yes", "yes")) == "yes"
    assert constant_answer(examples("yes", "no", "yes", "no")) == "no"  # a tie: alphabetical


def test_means_have_equal_weights_of_tasks_and_columns_are_the_values_that_scores_have():
    ontology = Ontology({"labels": {"binary": ["yesno"]}, "text": {"copying": ["copy"]}})
    rows = [("copy", 1.0, nan, 0.2, 1.5), ("copy", 0.5, nan, 0.4, 0.5), ("yesno", 0.25, 0.5, 0.1, 0.5)]
    scores = pd.DataFrame(rows, columns=["task_prefix", "performance", "chance", "copy", "answer_loss"])
    assert mean_score(scores) == 0.5
    table = category_table({"dev": scores, "test": scores.assign(chance=nan)}, ontology)
    assert table.index.tolist() == ["labels", "text", "all"]
    assert table["tasks"].tolist() == [1, 1, 2]
    assert table.columns.tolist() == [
        *("tasks", "dev", "dev, chance", "dev, copy", "dev, answer loss"),
        *("test", "test, copy", "test, answer loss"),
    ]
    assert table["dev"].tolist() == [0.25, 0.75, 0.5]
    assert table["dev, chance"].tolist() == pytest.approx([0.5, nan, 0.5], nan_ok=True)
    assert table["test, copy"].tolist() == pytest.approx([0.1, 0.3, 0.2])
    assert "|           - |" in markdown_table(table[["dev, chance"]].rename_axis("category"))


def scored_file(task: str, metric: str, *rows: tuple) -> TaskFile:
    """Returns a file of rows (input, accepted answers, options)."""
    scored = [Example(task, f"{task}_3_7", text, answers, options) for text, answers, options in rows]
    return TaskFile(task, f"{task}_3_7", "dev", metric, scored, None)


def test_answers_without_a_model_are_scored_on_the_same_rows(tmp_path):
    (tmp_path / "yesno").mkdir()
    lines = [f"{text}\t{answer}\n" for answer in ("no", "yes", "yes") for text in "abcde"]
    (tmp_path / "yesno/yesno_3_7_train.tsv").write_text("".join(lines))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/broken_3_7_train.tsv").write_text("no answer\n")
    labels = scored_file("yesno", "ACC", ("d", ("no",), ()), ("Yes", ("yes",), ()), ("e", ("no", "yes"), ()))
    choices = scored_file(
        "other",
        "EM",
        ("the cat", ("A cat",), ("cat", "dog", "the cat.", "cow")),  # two of four are accepted by EM
        ("b", ("x",), ("x", "y", "z")),
    )
    overlap = scored_file("other", "Rouge-L", ("red green", ("red blue",), ()))
    broken = scored_file("broken", "Classification-F1", ("yes", ("yes",), ("yes", "no", "may be", "Yes")))
    table = baseline_scores([labels, choices, overlap, broken], Gym(tmp_path)).astype(float)
    assert table.columns.tolist() == ["constant", "chance", "copy"]
    # labels: the constant answer "yes", and either label, is one of two accepted answers in the last row
    assert table["constant"].tolist() == pytest.approx([2 / 3, nan, nan, nan], nan_ok=True)
    assert table["chance"].tolist() == pytest.approx([2 / 3, (1 / 2 + 1 / 3) / 2, nan, 1 / 2], nan_ok=True)
    assert table["copy"].tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 2, 1.0], abs=1e-6)
