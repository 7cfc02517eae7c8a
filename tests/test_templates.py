"""Several prompts of one data set: scores grouped over templates, and gains of zero-shot scores."""

import json

import pandas as pd
import pytest
from conftest import without_pictures
from mistakes import Place
from test_gains import call, refusal, write_summary
from tiny_runs import NO_LEARNING, run, write_gym

from dataloader.ontology import Ontology
from routing_moe.cli import show_scores
from routing_moe.results.markdown import markdown_table
from routing_moe.results.scores import category_table, dataset_scores, datasets_markdown, read_scores

pytestmark = pytest.mark.usefixtures("empty_pictures")
ANSWERS = {"first": ("Yes", "No"), "second": ("True", "False"), "third": ("right", "wrong")}


def scores_of(means, metric="ACC", constant=0.25):
    """Scores of two samples per task, 0.1 below and above its mean."""
    rows = [
        (task, f"{task}_16_{seed}", metric, mean + shift, 8, constant)
        for task, mean in means.items()
        for seed, shift in ((13, -0.1), (21, 0.1))
    ]
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
    return pd.DataFrame(rows, columns=columns)


ZERO_SHOT = "eval-test_tasks-test-performance"  # .csv, as --do_predict names it
OURS = {"rte__first": 0.6, "rte__second": 0.1, "rte__third": 0.8, "cb__first": 0.4, "cb__second": 0.9}
MEANS = {"rte__first": 0.5, "rte__second": 0.2, "rte__third": 0.8, "cb__first": 0.4, "cb__second": 0.6}


def test_scores_of_a_data_set_are_statistics_over_its_templates():
    means = MEANS | {"rte__third": 0.95, "boolq": 0.3}
    table = dataset_scores(scores_of(means)).set_index("dataset")
    assert table.index.tolist() == ["rte", "cb", "boolq"]
    assert table["templates"].tolist() == [3, 2, 1]
    assert table["mean"].tolist() == pytest.approx([0.55, 0.5, 0.3])  # (0.5 + 0.2 + 0.95) / 3
    assert table["median"].tolist() == pytest.approx([0.5, 0.5, 0.3])
    assert table["min"].tolist() == pytest.approx([0.2, 0.4, 0.3])
    assert table["max"].tolist() == pytest.approx([0.95, 0.6, 0.3])
    assert table["constant"].tolist() == [0.25] * 3
    assert table["metric"].tolist() == ["ACC"] * 3


def test_the_mean_of_the_data_sets_counts_each_once():
    lines = datasets_markdown({"dev": scores_of(MEANS), "test": scores_of({**MEANS, "rte__first": 0.65})})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines() if "|" in line]
    assert rows[2] == ["rte", "3", "0.500", "0.500", "0.250", "0.550", "0.650", "0.250"]
    assert rows[3] == ["cb", "2", "0.500", "0.500", "0.250", "0.500", "0.500", "0.250"]
    assert rows[4] == ["mean of the data sets", "", "0.500", "0.500", "0.250", "0.525", "0.575", "0.250"]


# ---------------------------------------------------------------------------- whole runs


def write_templates(gym):
    """Adds the data sets rte and cb to a gym as test tasks, three templates each, with options."""
    tasks = [f"{name}__{template}" for name in ("rte", "cb") for template in ANSWERS]
    for task in tasks:
        options = list(ANSWERS[task.split("__")[1]])
        rows = [{"input": f"is it {i}", "outputs": [options[i % 2]], "options": options} for i in range(6)]
        (gym / task).mkdir()
        for part in ("train", "dev", "test"):
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (gym / task / f"{task}_3_13_{part}.jsonl").write_text(text)
    metrics = json.loads((gym / "metrics.json").read_text()) | {"rte": "ACC", "cb": "ACC", "cb__third": "EM"}
    (gym / "metrics.json").write_text(json.dumps(metrics))
    (gym / "split.json").write_text(json.dumps({"train": ["colour"], "dev": ["plural"], "test": tasks}))
    return tasks


@pytest.fixture(scope="module")
def ranked(world):
    """A place with a run of one step on a plain task that scored another one and ranked templates."""
    gym = write_gym(world / "templates/gym")
    write_templates(gym)
    place = Place(world / "templates", gym, world.bart)
    with without_pictures():
        assert run(gym, world.bart, place.out, **NO_LEARNING) == 0
    flags = dict(do_train=False, do_predict=True, initialize_from_vanilla=None, model=None)
    assert run(gym, world.bart, place.out, **flags, predict_split="dev") == 0
    assert run(gym, world.bart, place.out, **flags, predict_split="test", scoring="rank") == 0
    return place


def test_a_prediction_of_templates_also_writes_scores_per_data_set(ranked):
    scores = read_scores(ranked.out / "best/eval-test_tasks-test-performance.csv")
    assert scores["task_prefix"].tolist() == sorted(scores["task_prefix"])
    assert scores["metric"].tolist() == ["ACC", "ACC", "EM", "ACC", "ACC", "ACC"]
    assert set(scores["scoring"]) == {"rank (field)"}
    for part in ("dev", "test"):
        scores = read_scores(ranked.out / f"best/eval-test_tasks-{part}-performance.csv")
        table = pd.read_csv(ranked.out / f"best/eval-test_tasks-{part}-datasets.csv", index_col=0)
        pd.testing.assert_frame_equal(table, dataset_scores(scores))
        assert table["templates"].tolist() == [3, 3]
    assert len(list(ranked.out.rglob("*-datasets.csv"))) == 2  # none of the dev tasks, which are no templates


def test_scores_per_data_set_are_shown_below_the_same_table_by_category(ranked, capsys):
    assert show_scores.main([str(ranked.out), "--predict_split", "dev"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| all ")  # without templates, that alone
    assert show_scores.main([str(ranked.out), "--predict_split", "test"]) == 0
    printed = capsys.readouterr().out
    files = {part: ranked.out / f"best/eval-test_tasks-{part}-performance.csv" for part in ("dev", "test")}
    scores = {part: read_scores(path) for part, path in files.items()}
    table = category_table(scores, Ontology.load(ranked.gym / "ontology.json"))
    assert printed == f"{markdown_table(table)}\n\n{datasets_markdown(scores)}\n"
    assert table.loc["all", "tasks"] == 6


@pytest.fixture
def files(tmp_path):
    """Zero-shot scores of three systems in base, ours and odd."""
    write_scores(tmp_path, "base", scores_of(MEANS))
    write_scores(tmp_path, "ours", scores_of(OURS))
    write_scores(tmp_path, "odd", scores_of({"rte__first": 0.6, "cb__second": 0.3}, metric="EM"))
    return tmp_path


def write_scores(folder, name, scores):
    (folder / name).mkdir()
    scores.to_csv(folder / name / f"{ZERO_SHOT}.csv")


def test_zero_shot_scores_are_summaries_whose_n_is_the_number_of_samples(files):
    write_scores(files, "one", scores_of(MEANS).drop_duplicates("task_prefix"))
    systems = [f"{name}/{ZERO_SHOT}" for name in ("ours", "one")]
    assert call(files, *systems, base=f"base/{ZERO_SHOT}", flags=["--names", "b", "ours", "one"]) == 0
    per_task = pd.read_csv(files / "out/gains.csv").set_index(["task", "system"])
    assert len(per_task) == 10
    row = per_task.loc[("rte__first", "ours")]
    assert row[["baseline", "score", "relative_gain"]].tolist() == pytest.approx([0.5, 0.6, 0.2])
    # two samples, 0.1 below and above the mean: squared distances 0.01 + 0.01 over n - 1 = 1
    assert row[["std", "n", "baseline_n"]].tolist() == pytest.approx([0.02**0.5, 2, 2])
    alone = per_task.loc[("rte__first", "one")]
    assert alone["n"] == 1
    assert pd.isna(alone["std"])


def test_zero_shot_and_fine_tuned_scores_are_compared(files, capsys):
    write_summary(files / "tuned.csv", {"boolq": 0.6, "new__a": 0.5})
    write_scores(files, "zero", scores_of({"boolq": 0.5, "new__a": 0.4}))
    assert call(files, "tuned", base=f"zero/{ZERO_SHOT}", flags=["--names", "zero", "tuned"]) == 0
    assert "unequal numbers of samples in boolq, new__a" in capsys.readouterr().err
    assert pd.read_csv(files / "out/gains_summary.csv")["arg"][0] == pytest.approx((0.2 + 0.25) / 2)


def test_scores_in_different_metrics_or_of_the_wrong_part_are_refused(files, capsys):
    base, odd = (f"{name}/{ZERO_SHOT}" for name in ("base", "odd"))
    error = refusal(capsys, files, odd, base=base, flags=["--names", "base", "odd"])
    assert "cannot be compared: rte__first, cb__second" in error
    (files / f"{base}.csv").rename(files / "base/eval-test_tasks-dev-performance.csv")
    error = refusal(capsys, files, odd, base="base/eval-test_tasks-dev-performance")
    assert error.endswith("holds dev scores, but --metric is test_performance")
    assert not (files / "out").exists()
