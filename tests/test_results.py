"""Tables of results, with hand-computed numbers."""

import pandas as pd
import pytest

from dataloader.gym import Example, Gym
from dataloader.ontology import Ontology
from routing_moe.evaluation.scored_files import TaskFile
from routing_moe.evaluation.scoring import mean_score
from routing_moe.results.markdown import markdown_table
from routing_moe.results.scores import category_table, constant_answer, constant_baseline, constant_scores


def examples(*answers):
    return [Example("t", "t_1_0", f"input {i}", (answer,)) for i, answer in enumerate(answers)]


def test_the_constant_answer_is_the_most_frequent_first_answer():
    assert constant_answer(examples("no", "yes", "yes")) == "yes"
    assert constant_answer(examples("yes", "no", "yes", "no")) == "no"  # a tie: alphabetical
    assert constant_baseline(examples("yes", "yes", "no"), examples("yes", "no", "no", "yes"), "ACC") == 0.5
    # macro F1 of always "a": class a has precision 1/2 and recall 1 (F1 2/3), class b 0
    assert constant_baseline(examples("a"), examples("a", "b"), "Classification-F1") == pytest.approx(1 / 3)


def test_means_have_equal_weights_of_tasks_for_any_number_of_samples():
    ontology = Ontology({"labels": {"binary": ["yesno"]}, "text": {"copying": ["copy"]}})
    scores = pd.DataFrame(
        {
            "task_prefix": ["copy", "copy", "yesno"],
            "performance": [1.0, 0.5, 0.25],
            "constant": [0.2, 0.4, 0.1],
        }
    )
    assert mean_score(scores) == 0.5
    table = category_table({"dev": scores, "test": scores}, ontology)
    assert table.index.tolist() == ["labels", "text", "all"]
    assert table["tasks"].tolist() == [1, 1, 2]
    assert table["dev"].tolist() == [0.25, 0.75, 0.5]
    assert table["test, constant"].tolist() == pytest.approx([0.1, 0.3, 0.2])


def test_the_constant_is_scored_on_the_same_rows(tmp_path):
    (tmp_path / "yesno").mkdir()
    (tmp_path / "yesno/yesno_3_7_train.tsv").write_text("a\tyes\nb\tyes\nc\tno\n")
    scored = [Example("yesno", "yesno_3_7", "d", ("no",)), Example("yesno", "yesno_3_7", "e", ("yes",))]
    file = TaskFile("yesno", "yesno_3_7", "dev", "ACC", scored, None)
    unseen = TaskFile("other", "other_3_7", "dev", "ACC", scored, None)
    assert constant_scores([file, unseen], Gym(tmp_path)) == [0.5, None]


def test_a_markdown_table_is_aligned():
    table = pd.DataFrame(
        {"tasks": [1, 12], "dev": [0.5, 0.25]}, index=pd.Index(["a", "all"], name="category")
    )
    assert markdown_table(table).splitlines() == [
        "| category | tasks |   dev |",
        "| -------- | ----: | ----: |",
        "| a        |     1 | 0.500 |",
        "| all      |    12 | 0.250 |",
    ]
