"""The benchmarks of gradient routing: shares by hand, ingredients on a tiny dense run."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from test_conflict_gym_bart import made, run

from benchmarks import conflict_few_shot, conflict_ingredients, conflict_shares

ROUTING = ("taskvecs_dim", "router_hidden_dim", "router_lr", "task_model_lr")
DENSE = dict.fromkeys((*ROUTING, "init_eps")) | dict(num_experts=1)


def place_of(folder: Path, **scores: list[float]) -> Path:
    """Returns the folder, with a comparison_runs.csv of these scores by seed."""
    rows = [
        {"variant": variant, "run": f"seed{seed}", "seed": seed, "category": category, "mean": mean}
        for variant, means in scores.items()
        for seed, mean in enumerate(means)
        for category in ("other", "all")
    ]
    pd.DataFrame(rows).to_csv(folder / "comparison_runs.csv", index=False)
    return folder


def test_shares_are_ratios_of_mean_differences_of_the_same_seeds(tmp_path, capsys):
    place = place_of(
        tmp_path,
        dense=[0.1, 0.2, 0.3],
        clusters=[0.5, 0.5, 0.8],
        oracle=[0.9, 0.9, 1.0],
        two=[0.5, 0.8],
        alone=[0.5],
    )
    conflict_shares.main([str(place), "--output_file", str(tmp_path / "shares.csv")])
    variants = json.loads(capsys.readouterr().out)["variants"]
    table = pd.read_csv(tmp_path / "shares.csv").set_index("variant")
    assert list(table) == ["place", "n", *conflict_shares.COLUMNS]
    assert table["n"].to_dict() == {"dense": 3, "clusters": 3, "oracle": 3, "two": 2, "alone": 1}
    # Differences from dense: 0.4, 0.3, 0.5; of the oracle: 0.8, 0.7, 0.7. The t quantile is 4.3027.
    clusters = table.loc["clusters"]
    assert clusters["difference"] == pytest.approx(0.4, abs=1e-4)
    assert clusters["difference_high"] == pytest.approx(0.4 + 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert clusters["share"] == pytest.approx(1.2 / 2.2, abs=1e-4)
    # Fieller: the t value of the differences 0.4 - 0.8 r, ... is the quantile at both ends r.
    for end in ("share_low", "share_high"):
        rest = np.array([0.4, 0.3, 0.5]) - clusters[end] * np.array([0.8, 0.7, 0.7])
        assert abs(ttest_1samp(rest, 0).statistic) == pytest.approx(4.3027, abs=0.01)
    assert clusters["share_low"] < clusters["share"] < clusters["share_high"]
    shares = ["share", "share_low", "share_high"]
    assert table.loc["dense", shares].tolist() == [0, 0, 0]
    assert table.loc["oracle", shares].tolist() == [1, 1, 1]
    # Of two seeds, 0.8 and 0.7: 0.75 -+ 12.7062 * 0.05 excludes 0. One seed has no interval.
    assert table.loc["two", "share"] == pytest.approx(0.5 / 0.75, abs=1e-4)
    assert table.loc["alone", "difference"] == pytest.approx(0.4)
    assert table.loc["alone", ["difference_low", "difference_high", *shares]].isna().all()
    assert variants[f"{place.name}/alone"] == {"n": 1, "difference": 0.4}


def test_a_share_is_empty_if_the_oracle_may_equal_dense(tmp_path):
    place = place_of(tmp_path, dense=[0.5, 0.5, 0.5], oracle=[0.5, 0.6, 0.5], clusters=[0.6, 0.6, 0.7])
    conflict_shares.main([str(place), "--output_file", str(tmp_path / "shares.csv")])
    clusters = pd.read_csv(tmp_path / "shares.csv").set_index("variant").loc["clusters"]
    assert clusters[["share", "share_low", "share_high"]].isna().all()
    assert clusters["difference"] == pytest.approx(0.1333, abs=1e-4)
    assert clusters["difference_low"] < 0.1333 < clusters["difference_high"]


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ({}, "comparison_runs.csv does not exist"),
        ({"dense": [0.5]}, "comparison_runs.csv has no run of oracle"),
        ({"clusters": [0.5]}, "comparison_runs.csv has no run of dense and oracle"),
    ],
)
def test_shares_need_dense_and_oracle(tmp_path, scores, error):
    if scores:
        place_of(tmp_path, **scores)
    with pytest.raises(SystemExit, match=error):
        conflict_shares.main([str(tmp_path)])


def test_each_ingredient_is_changed_on_its_own(tmp_path, capsys):
    gym, bart = made(tmp_path)
    dense = DENSE | dict(hide_task_names=True, total_steps=4, save_period=1)
    assert run(gym, bart, tmp_path / "run", **dense) == 0
    capsys.readouterr()
    conflict_ingredients.main([str(tmp_path / "run"), "--output_file", str(tmp_path / "table.csv")])
    assert json.loads(capsys.readouterr().out)["benchmark"] == "conflict_ingredients"
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert set(table["names"]) == {"hidden"}
    assert list(table[table["ingredient"] == "one checkpoint, at step"]["value"]) == ["1", "2", "3", "4"]
    found = table.set_index(["ingredient", "value"])[["ami", "ami_auto", "clusters", "unseen"]]
    pd.testing.assert_series_equal(
        found.loc["recipe", ""], found.loc["weights", "embeddings"], check_names=False
    )
    assert found["ami"].between(-1, 1).all()
    assert found["unseen"].between(0, 1).all()
    assert (found["clusters"] >= 2).all()


def test_unseen_tasks_are_fine_tuned_from_every_start(tmp_path, capsys):
    gym, bart = made(tmp_path)
    oracle = dict.fromkeys(ROUTING) | dict(num_experts=None, task_routes=gym / "oracle_routes.json")
    for variant, flags in (("dense", DENSE), ("oracle", oracle)):
        assert run(gym, bart, tmp_path / variant / "seed3", total_steps=4, **flags) == 0
    capsys.readouterr()
    flags = ["--seeds", "3", "--variants", "dense", "oracle", "--tasks", "1", "--steps", "4"]
    table = tmp_path / "table.csv"
    conflict_few_shot.main([str(tmp_path), *flags, "--rates", "0.01", "--output_file", str(table)])
    assert set(json.loads(capsys.readouterr().out)["variants"]) == {"dense", "oracle"}
    found = pd.read_csv(table)
    assert list(found["variant"]) == ["dense", "oracle"]
    assert set(found["task"]) == {"t004"}
    assert found[["zero_shot", "few_shot"]].stack().between(0, 1).all()
    (route,) = pd.read_csv(tmp_path / "oracle/seed3/few_shot/t004/results.csv")["route"]
    assert route == "ROUTE"
