"""Comparisons in several measures: contrasts, families of tests, scores per task."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp
from test_comparison import ONTOLOGY, TREE, by_category, refusal

from routing_moe.config.choices import MEASURES
from routing_moe.results.comparison import contrast_table
from routing_moe.results.statistics import holm

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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym/ontology.json").write_text(json.dumps(TREE))
    for variant, ahead in AHEAD.items():
        for seed in SEEDS:
            write_scores(tmp_path / "runs", variant, seed, ahead=ahead)
    return tmp_path / "runs"


def compared(folder, *flags) -> tuple[pd.DataFrame, str]:
    assert by_category([str(folder), *flags]) == 0
    return pd.read_csv(folder / "comparison.csv"), (folder / "comparison.md").read_text()


ALL_MEASURES = ("--measures", *MEASURES, "--baseline", "a")


def test_every_measure_has_a_table_over_the_tasks_that_have_it(folder):
    table, text = compared(folder, *ALL_MEASURES)
    over_all = table[table["category"] == "all"].set_index(["measure", "variant"])
    assert over_all["tasks"].xs("b", level="variant").to_dict() == dict(zip(MEASURES, (8, 8, 6), strict=True))
    assert over_all.loc[("answer_loss", "c"), "difference"] == pytest.approx(-0.04, abs=0.01)
    assert over_all.loc[("rank_accuracy", "c"), "difference"] == pytest.approx(0.04, abs=0.01)
    assert over_all.loc[("performance", "random option"), ["tasks", "mean"]].tolist() == [6, 0.5]
    names = {m: list(rows.index.get_level_values(1)[3:]) for m, rows in over_all.groupby(level=0)}
    assert names["performance"] == ["constant answer", "random option", "copied input"]
    assert (names["answer_loss"], names["rank_accuracy"]) == ([], ["random option"])
    assert text.count("**Mean ") == 3
    assert (folder / "comparison_answer_loss.png").exists()


def test_a_baseline_that_is_the_only_variant_has_no_differences(folder):
    assert by_category([str(folder / "a"), *ALL_MEASURES, "--gym_per_seed"]) == 0
    assert "difference" not in pd.read_csv(folder / "a/comparison.csv")
    text = (folder / "a/comparison.md").read_text()
    assert "minus" not in text
    assert "Differences" not in text


def test_a_measure_that_a_run_lacks_is_refused(folder, capsys):
    write_scores(folder, "b", 2, rank_accuracy=None)
    error = "--measures rank_accuracy: b/seed2 has no rank_accuracy in its scores"
    assert refusal(capsys, folder, *ALL_MEASURES).startswith(f"error: {error}")
    assert by_category([str(folder), *ALL_MEASURES[:3], "--baseline", "a"]) == 0  # without it


def test_p_values_are_corrected_over_all_contrasts_and_primary_measures(folder):
    primary = ["performance", "answer_loss"]
    compared(folder, *ALL_MEASURES, "--primary", *primary, "--contrasts", "c:b", "b:a")
    table = pd.read_csv(folder / "comparison_contrasts.csv")
    over_all = table[table["category"] == "all"]
    assert over_all[["variant", "minus"]].drop_duplicates().values.tolist() == [
        *map(list, ("ba", "ca", "cb"))
    ]
    family = over_all[over_all["measure"].isin(primary)]
    assert len(family) == 6
    assert family["p_holm"].tolist() == pytest.approx(holm(family["p"]).tolist())
    assert over_all.loc[over_all["measure"] == "rank_accuracy", "p_holm"].isna().all()
    assert "| c minus b |" in (folder / "comparison.md").read_text()


def test_the_scores_per_task_are_enough_to_recompute_the_differences(folder):
    """By hand: samples are averaged, then differences of common seeds are averaged over tasks."""
    flags = ("--measures", "answer_loss", "--baseline", "a")
    table, _ = compared(folder, *flags)
    scores = pd.read_csv(folder / "comparison_tasks.csv")
    assert scores.columns[:7].tolist() == ["variant", "run", "seed", "task", "sample", "metric", "n"]
    assert {"constant", "chance", "copy"} < set(scores)
    per_task = scores.groupby(["variant", "seed", "task"])["answer_loss"].mean().unstack()
    values_ST = (per_task.loc["c"] - per_task.loc["a"]).to_numpy()
    seeds, tasks = values_ST.shape
    of_tasks = seeds * values_ST.mean(axis=0).var(ddof=1)
    of_seeds = tasks * values_ST.mean(axis=1).var(ddof=1)
    error = ((of_tasks + of_seeds) / (seeds * tasks)) ** 0.5
    df = (of_tasks + of_seeds) ** 2 / (of_tasks**2 / (tasks - 1) + of_seeds**2 / (seeds - 1))
    mean, half = values_ST.mean(), error * t.ppf(0.975, df)
    row = table.set_index(["variant", "category"]).loc[("c", "all")]
    expected = [mean, mean - half, mean + half, 2 * t.sf(abs(mean) / error, df)]
    assert row[["difference", "low", "high", "p"]].tolist() == pytest.approx(expected)
    by_seed, _ = compared(folder, *flags, "--design", "seeds")
    found = by_seed[by_seed["variant"] == "c"].iloc[-1]
    known = ttest_1samp(values_ST.mean(axis=1), 0.0)
    assert (found["p"], found["interval"]) == (pytest.approx(known.pvalue), "seeds")
    by_gym, _ = compared(folder, *flags, "--gym_per_seed")
    found = by_gym[by_gym["variant"] == "c"].iloc[0]
    assert (found["p"], found["interval"]) == (pytest.approx(known.pvalue), "gyms")


def test_differences_are_over_common_seeds_and_the_measure_of_both():
    rows = [
        ("a", 1, "copy", 0.5), ("a", 1, "spell", np.nan), ("a", 2, "copy", 0.1), ("a", 2, "spell", np.nan),
        ("b", 1, "copy", 0.7), ("b", 1, "spell", np.nan), ("b", 3, "copy", 0.9), ("b", 3, "spell", np.nan),
    ]  # fmt: skip
    scores = pd.DataFrame(rows, columns=["variant", "seed", "task", "performance"])
    table = contrast_table(scores, ONTOLOGY, [("b", "a")], ["performance"]).set_index("category")
    assert table.loc["all", ["tasks", "pairs", "difference"]].tolist() == pytest.approx([1, 1, 0.2])
