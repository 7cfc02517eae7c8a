"""The benchmarks of gradient routing: shares by hand, ingredients on a tiny dense run."""

import json
import math

import pandas as pd
import pytest
from test_conflict_gym_bart import made, run

from benchmarks import conflict_few_shot, conflict_ingredients, conflict_shares

ROUTING = ("taskvecs_dim", "router_hidden_dim", "router_lr", "task_model_lr")
DENSE = dict.fromkeys((*ROUTING, "init_eps")) | dict(num_experts=1)


def test_a_share_is_relative_to_dense_and_oracle_of_the_same_seed(tmp_path, capsys):
    scores = {"dense": [0.1, 0.2], "clusters": [0.9, 0.6], "oracle": [0.9, 1.0], "alone": [0.5]}
    rows = [
        {"variant": variant, "run": f"seed{seed}", "seed": seed, "category": category, "mean": mean}
        for variant, means in scores.items()
        for seed, mean in enumerate(means)
        for category in ("other", "all")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "comparison_runs.csv", index=False)
    conflict_shares.main([str(tmp_path), "--output_file", str(tmp_path / "shares.csv")])
    table = pd.read_csv(tmp_path / "shares.csv").set_index("variant")
    assert table["n"].to_dict() == {"dense": 2, "clusters": 2, "oracle": 2, "alone": 1}
    assert table["share"].to_dict() == pytest.approx(
        {"dense": 0, "clusters": 0.75, "oracle": 1, "alone": 0.5}
    )
    # Shares 1 and 0.5: standard error 0.25, times the t quantile 12.706 of one degree of freedom.
    assert table.loc["clusters", "high"] == pytest.approx(0.75 + 12.7062 * 0.25, abs=1e-4)
    assert math.isnan(table.loc["alone", "low"])
    assert json.loads(capsys.readouterr().out)["variants"][f"{tmp_path.name}/clusters"]["share"] == 0.75


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
