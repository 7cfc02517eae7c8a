"""The benchmarks of gradient routing: shares by hand, ingredients on a tiny dense run."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

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


def test_agreement_by_hand():
    """Three skills along three axes; one unseen task is near its own skill, the other near another one."""
    rng = np.random.default_rng(0)
    run = SimpleNamespace(
        train=list("abcdef"), skill_N=np.array([0, 0, 1, 1, 2, 2]), skill_of_unseen=np.array([0, 2])
    )
    axes = np.eye(3)[[0, 0, 1, 1, 2, 2, 0, 1]]
    vectors = axes + rng.normal(0, 0.01, axes.shape) + [50, 0, 0]
    agreement, nan = conflict_ingredients.agreement, math.nan
    expected = {"ami": 1, "ami_auto": 1, "clusters": 3, "unseen": 0.5}
    assert agreement(run, vectors) == pytest.approx(expected)
    for kind in ("complete", "single", "k-means"):
        found = agreement(run, vectors, conflict_ingredients.linkage(kind))
        assert found == pytest.approx(expected | {"ami_auto": nan, "clusters": nan}, nan_ok=True)
    run.skill_N = np.array([0, 1, 2, 0, 1, 2])
    assert agreement(run, vectors)["ami"] < 0.1
    # Skills as rays with vectors of very different lengths: centring moves the short ones together.
    run = SimpleNamespace(train=list("abcd"), skill_N=np.array([0, 0, 1, 1]), skill_of_unseen=np.array([0]))
    rays = np.array([[1, 0], [9, 0], [0, 1], [0, 9], [1, 0]])
    found = agreement(run, rays, centred=False)
    assert found == pytest.approx({"ami": 1, "ami_auto": 1, "clusters": 2, "unseen": nan}, nan_ok=True)
    assert agreement(run, rays)["ami"] < 0.9


def test_each_ingredient_is_changed_on_its_own(tmp_path, capsys, monkeypatch):
    gym, bart = made(tmp_path, encoder_parts=2, decoder_parts=1, rows=14)
    dense = DENSE | dict(hide_task_names=True, total_steps=3, save_period=1)
    assert run(gym, bart, tmp_path / "run", **dense) == 0
    capsys.readouterr()
    agreement, calls = conflict_ingredients.agreement, []

    def recorded(run, vectors_MD, *args, **changed):
        calls.append((run, vectors_MD, agreement(run, vectors_MD, *args, **changed)))
        return calls[-1][2]

    monkeypatch.setattr(conflict_ingredients, "agreement", recorded)
    conflict_ingredients.main([str(tmp_path / "run"), "--output_file", str(tmp_path / "table.csv")])
    assert json.loads(capsys.readouterr().out)["benchmark"] == "conflict_ingredients"
    table = pd.read_csv(tmp_path / "table.csv", dtype={"value": str}).fillna({"value": ""})
    means = pd.read_csv(tmp_path / "table_means.csv")
    assert list(means) == ["names", "changed", "n", "ami", "ami_lowest", "ami_auto", "clusters", "unseen"]
    assert set(table["names"]) == {"hidden"}
    numbers = ["ami", "ami_auto", "clusters", "unseen"]
    expected = pd.DataFrame([found for *_, found in calls])[numbers].astype(float).round(4)
    pd.testing.assert_frame_equal(table[numbers].astype(float), expected)

    keys = zip(table["ingredient"], table["value"], strict=True)
    of = dict(zip(keys, [vectors_MD for _, vectors_MD, _ in calls], strict=True))
    dense_run, N = calls[0][0], 4

    def by_hand(*steps, rows=None, few=None, part="model.shared.weight"):
        blocks = [
            np.concatenate([gradients[:N], dense_run.found[step, few][name][N:]])
            for step in steps
            for name, gradients in dense_run.found[step, rows].items()
            if part in name
        ]
        return np.concatenate(blocks, axis=1)

    assert dense_run.steps == [1, 2, 3]
    np.testing.assert_array_equal(of["recipe", ""], by_hand(2, 3))
    changed = {
        ("one checkpoint, at step", "3"): by_hand(3),
        ("checkpoints", "first half"): by_hand(1),
        ("checkpoints", "all"): by_hand(1, 2, 3),
        ("weights", "decoder"): by_hand(2, 3, part="model.decoder.layers."),
        ("weights", "all"): by_hand(2, 3, part=""),
        ("rows of a train task", "12"): by_hand(2, 3, rows=12),
        ("rows of an unseen task", "4"): by_hand(2, 3, few=4),
    }
    for key, vectors_MD in changed.items():
        np.testing.assert_array_equal(of[key], vectors_MD)
        assert not np.array_equal(of[key], of["recipe", ""]), key
    for key in (("weights", "embeddings"), ("centring", "none"), ("clusters by", "single")):
        np.testing.assert_array_equal(of[key], of["recipe", ""])
    assert of["projection of a checkpoint", "64"].shape == (N + 2, 2 * 64)


def test_unseen_tasks_are_fine_tuned_from_every_start(tmp_path, capsys):
    small = dict(encoder_parts=2, decoder_parts=1, words=8, unseen_rows=4, test_rows=12)
    gym, bart = made(tmp_path, **small)
    given = dict.fromkeys(ROUTING) | dict(num_experts=None)
    oracle = given | dict(task_routes=gym / "oracle_routes.json")
    lengths = dict(max_input_length=16, max_output_length=8, num_beams=1)
    for variant, flags in (("dense", DENSE), ("oracle", oracle)):
        folder = tmp_path / variant / "seed3"
        assert run(gym, bart, folder, total_steps=60, eval_period=60, **lengths, **flags) == 0
    capsys.readouterr()
    flags = ["--seeds", "3", "--variants", "dense", "oracle", "--tasks", "1", "--steps", "4"]
    table = tmp_path / "table.csv"
    conflict_few_shot.main([str(tmp_path), *flags, "--rates", "0.01", "--output_file", str(table)])
    assert set(json.loads(capsys.readouterr().out)["variants"]) == {"dense", "oracle"}
    found = pd.read_csv(table)
    assert list(found["variant"]) == ["dense", "oracle"]
    assert set(found["task"]) == {"t004"}
    place = tmp_path / "oracle/seed3"
    results = pd.read_csv(place / "few_shot_4_steps_rates_0.01/t004/results.csv")
    assert set(results["route"]) == {"given route; plain BART"}
    assert found.loc[1, "few_shot"] == pytest.approx(results["test_performance"].iloc[-1], abs=1e-4)
    # zero_shot is the score of a prediction along the true route, by the command for trained models.
    predict = dict(do_train=None, initialize_from_vanilla=None, init_eps=None, do_predict=True)
    predict |= given | lengths | dict(predict_split="test")
    assert run(gym, bart, place, **predict) == 0
    scores = pd.read_csv(place / "best/eval-test_tasks-test-performance.csv").set_index("task_prefix")
    score = scores.loc["t004", "performance"]
    assert found.loc[1, "zero_shot"] == pytest.approx(score, abs=1e-4)
    assert score > 0
    # Other rates have a folder of their own.
    rest = ["--variants", "dense", "oracle-average-logits", "--logit_rates", "0.5"]
    conflict_few_shot.main([str(tmp_path), *flags, *rest, "--rates", "0.02", "--output_file", str(table)])
    learned = pd.read_csv(place / "few_shot_4_steps_rates_0.5-average-logits/t004/results.csv")
    assert set(learned["route"]) == {"average; logits trained"}
    found = pd.read_csv(table).set_index("variant")
    assert list(found.index) == ["dense", "oracle-average-logits"]
    assert found["mflops"].iloc[1] == pytest.approx(learned["total_flops"].iloc[0] / 1e6, abs=1e-3)
    assert (found["seconds"] > 0).all()
    assert (tmp_path / "dense/seed3/few_shot_4_steps_rates_0.02/t004/results.csv").exists()
    with pytest.raises(SystemExit):
        conflict_few_shot.main([str(tmp_path), "--variants", "oracle-logit"])
    assert "'oracle-logit' is not one of dense, softmax, " in capsys.readouterr().err
