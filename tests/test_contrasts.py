"""Comparisons in several measures: contrasts, families of tests, scores per task."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import without_pictures
from test_comparison import by_category, refusal, write_ontology

from routing_moe.config.measures import MEASURES
from routing_moe.results.statistics import holm, mean_interval

pytestmark = pytest.mark.usefixtures("empty_pictures")

TASKS = ["copy", "spell", "yesno", *(f"t{n}" for n in range(5))]
SEEDS = (1, 2, 3, 4, 5)
AHEAD = {"a": 0.0, "b": 0.02, "c": 0.04}  # of each variant
OPTIONS = TASKS[:6]  # the tasks that have options


def write_scores(folder, variant, seed, ahead=0.0, samples=("x", "y"), **columns):
    """Writes the scores of a run in all measures; columns: values of all rows, None to leave one out."""
    draw = np.random.default_rng([seed, list(AHEAD).index(variant)])
    rows = [
        {
            "task_prefix": task, "sample": f"{task}_{sample}", "metric": "ACC",
            "performance": 0.5 + ahead + 0.02 * number + draw.normal(0, 0.02), "n": 20, "constant": 0.4,
            "chance": 0.5 if task in OPTIONS else None, "copy": 0.0,
            "answer_loss": 2.0 - ahead + draw.normal(0, 0.02),
            "rank_accuracy": 0.6 + ahead + draw.normal(0, 0.02) if task in OPTIONS else None,
        }
        for number, task in enumerate(TASKS)
        for sample in samples
    ]  # fmt: skip
    place = folder / variant / f"seed{seed}"
    (place / "best").mkdir(parents=True, exist_ok=True)
    gym = str(folder.parent / "gym")
    settings = {"seed": seed, "train_dir": gym, "predict_dir": gym}
    (place / "run.json").write_text(json.dumps({"settings": settings}))
    table = pd.DataFrame(rows).assign(**columns).dropna(axis="columns", how="all")
    table.to_csv(place / "best/eval-test-performance.csv")
    return place


def write_runs(folder, variants=AHEAD, seeds=SEEDS):
    """Writes the runs of these variants and seeds, and the ontology in their gym."""
    write_ontology(folder)
    for variant in variants:
        for seed in seeds:
            write_scores(folder / "runs", variant, seed, ahead=AHEAD[variant])
    return folder / "runs"


ALL_MEASURES = ("--measures", *MEASURES, "--baseline", "a")
PRIMARY = ["performance", "answer_loss"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of all runs, with their comparison in all measures."""
    folder = write_runs(tmp_path_factory.mktemp("study"))
    with without_pictures():
        flags = (*ALL_MEASURES, "--primary", *PRIMARY, "--contrasts", "c:b", "b:a")
        assert by_category([str(folder), *flags]) == 0
    return folder


def test_every_measure_has_a_table_over_the_tasks_that_have_it(study):
    table, text = pd.read_csv(study / "comparison.csv"), (study / "comparison.md").read_text()
    over_all = table[table["category"] == "all"].set_index(["measure", "variant"])
    assert over_all["tasks"].xs("b", level="variant").to_dict() == dict(zip(MEASURES, (8, 8, 6), strict=True))
    assert over_all.loc[("answer_loss", "c"), "difference"] == pytest.approx(-0.04, abs=0.01)
    assert over_all.loc[("rank_accuracy", "c"), "difference"] == pytest.approx(0.04, abs=0.01)
    assert over_all.loc[("performance", "random option"), ["tasks", "mean"]].tolist() == [6, 0.5]
    names = {m: list(rows.index.get_level_values(1)[3:]) for m, rows in over_all.groupby(level=0)}
    assert names["performance"] == ["constant answer", "random option", "copied input"]
    assert (names["answer_loss"], names["rank_accuracy"]) == ([], ["random option"])
    assert text.count("**Mean ") == 3
    assert (study / "comparison_answer_loss.png").exists()


def test_p_values_are_corrected_over_all_contrasts_and_primary_measures(study):
    table = pd.read_csv(study / "comparison_contrasts.csv")
    over_all = table[table["category"] == "all"]
    contrasts = over_all[["variant", "minus"]].drop_duplicates().values.tolist()
    assert contrasts == [["b", "a"], ["c", "a"], ["c", "b"]]
    family = over_all[over_all["measure"].isin(PRIMARY)]
    assert len(family) == 6
    assert family["p_holm"].tolist() == pytest.approx(holm(family["p"]).tolist())
    assert over_all.loc[over_all["measure"] == "rank_accuracy", "p_holm"].isna().all()
    assert "| c minus b |" in (study / "comparison.md").read_text()


def test_the_scores_per_task_are_enough_to_recompute_the_differences(study, tmp_path):
    """Samples are averaged, then differences of common seeds are averaged over tasks."""
    scores = pd.read_csv(study / "comparison_tasks.csv")
    assert scores.columns[:7].tolist() == ["variant", "run", "seed", "task", "sample", "metric", "n"]
    assert {"constant", "chance", "copy"} < set(scores)
    per_task = scores.groupby(["variant", "seed", "task"])["answer_loss"].mean().unstack()
    values_ST = (per_task.loc["c"] - per_task.loc["a"]).to_numpy()
    known = mean_interval(values_ST)
    table = pd.read_csv(study / "comparison.csv").set_index(["measure", "variant", "category"])
    row = table.loc[("answer_loss", "c", "all")]
    expected = [values_ST.mean(), known.low, known.high, known.p]
    assert row[["difference", "low", "high", "p"]].tolist() == pytest.approx(expected)
    runs = [str(study / "a"), str(study / "c"), "--output_dir", str(tmp_path)]
    for flags, over in ((["--design", "seeds"], "seeds"), (["--gym_per_seed"], "gyms")):
        assert by_category([*runs, "--measures", "answer_loss", "--baseline", "a", *flags]) == 0
        found = pd.read_csv(tmp_path / "comparison.csv").set_index(["variant", "category"]).loc[("c", "all")]
        assert (found["p"], found["interval"]) == (pytest.approx(mean_interval(values_ST, "seeds").p), over)


def test_a_measure_that_is_given_twice_counts_once(study, tmp_path):
    for name, words in (("once", ["performance"]), ("twice", ["performance"] * 2)):
        flags = ["--measures", *words, "--baseline", "a", "--output_dir", str(tmp_path / name)]
        assert by_category([str(study), *flags]) == 0
    once, twice = (tmp_path / name / "comparison.csv" for name in ("once", "twice"))
    assert twice.read_text() == once.read_text()


def test_a_baseline_that_is_the_only_variant_has_no_differences(study, tmp_path):
    flags = ["--gym_per_seed", "--output_dir", str(tmp_path)]
    assert by_category([str(study / "a"), *ALL_MEASURES, *flags]) == 0
    assert "difference" not in pd.read_csv(tmp_path / "comparison.csv")
    assert not {"minus", "Differences"} & set((tmp_path / "comparison.md").read_text().split())


def test_a_measure_that_a_run_lacks_is_refused(tmp_path, capsys):
    folder = write_runs(tmp_path, "ab", seeds=(2,))
    write_scores(folder, "b", 2, rank_accuracy=None)
    error = "--measures rank_accuracy: b/seed2 has no rank_accuracy in its scores"
    assert refusal(capsys, folder, *ALL_MEASURES).startswith(f"error: {error}")
    assert by_category([str(folder), *ALL_MEASURES[:3], "--baseline", "a"]) == 0  # without it
