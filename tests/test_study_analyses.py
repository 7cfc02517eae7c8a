"""The analyses of studies: shares by hand, ingredients on a tiny dense run, fine-tuning, coverage."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from test_conflict_gym_bart import made, run

from routing_moe.studies import conflict_few_shot, conflict_routes, conflict_shares, coverage
from task.conflict_gym import gradient_clusters, ingredients

ROUTING = ("taskvecs_dim", "router_hidden_dim", "router_lr", "task_model_lr")
DENSE = dict.fromkeys((*ROUTING, "init_eps")) | dict(num_experts=1)


def level_of(folder: Path, **scores: list[float]) -> Path:
    """Returns the folder, with a comparison_runs.csv of these scores by seed."""
    rows = [
        {"variant": variant, "run": f"seed{seed}", "seed": seed, "category": category, "mean": mean}
        for variant, means in scores.items()
        for seed, mean in enumerate(means)
        for category in ("other", "all")
    ]
    pd.DataFrame(rows).to_csv(folder / "comparison_runs.csv", index=False)
    return folder


@pytest.fixture
def routes(monkeypatch):
    """The agreement of each run with the skills, by its seed."""
    ami = {"seed0": 0.7, "seed1": 0.9, "seed2": 0.8}
    found = dict.fromkeys(conflict_routes.COLUMNS, math.nan)
    monkeypatch.setattr(
        conflict_shares, "routes_of_run", lambda run: found | {"ami": ami[run.name], "right": 1}
    )


@pytest.mark.usefixtures("routes")
def test_shares_are_ratios_of_mean_differences_of_the_same_seeds(tmp_path):
    level = level_of(
        tmp_path,
        dense=[0.3, 0.2, 0.3],
        dense_flops=[0.1, 0.2, 0.3],
        clusters=[0.5, 0.5, 0.8],
        oracle=[0.9, 0.9, 1.0],
        two=[0.5, 0.8],
        alone=[0.5],
    )
    assert conflict_shares.main([str(level), "--output_file", str(tmp_path / "shares.csv")]) == 0
    runs = pd.read_csv(tmp_path / "shares.csv")
    assert list(runs) == ["place", "variant", "seed", "score", *conflict_routes.COLUMNS]
    table = pd.read_csv(tmp_path / "shares_means.csv").set_index("variant")
    assert list(table) == ["place", "n", *conflict_shares.COLUMNS]
    assert table["n"].to_dict() == dict(dense=3, dense_flops=3, clusters=3, oracle=3, two=2, alone=1)
    # Differences from dense_flops: 0.4, 0.3, 0.5; of the oracle: 0.8, 0.7, 0.7. The t quantile is 4.3027.
    clusters = table.loc["clusters"]
    assert clusters["flops_difference"] == pytest.approx(0.4, abs=1e-4)
    assert clusters["flops_difference_high"] == pytest.approx(0.4 + 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert clusters["difference"] == pytest.approx(1 / 3, abs=1e-4)
    assert clusters[["ami", "ami_lowest", "right"]].tolist() == pytest.approx([0.8, 0.7, 1])
    assert table.loc["two", "ami"] == pytest.approx(0.8)
    assert clusters["share"] == pytest.approx(1.2 / 2.2, abs=1e-4)
    # Fieller: the t value of the differences 0.4 - 0.8 r, ... is the quantile at both ends r.
    for end in ("share_low", "share_high"):
        rest = np.array([0.4, 0.3, 0.5]) - clusters[end] * np.array([0.8, 0.7, 0.7])
        assert abs(ttest_1samp(rest, 0).statistic) == pytest.approx(4.3027, abs=0.01)
    assert clusters["share_low"] < clusters["share"] < clusters["share_high"]
    shares = ["share", "share_low", "share_high"]
    assert table.loc["dense_flops", shares].tolist() == [0, 0, 0]
    assert table.loc["oracle", shares].tolist() == [1, 1, 1]
    # Of two seeds, 0.8 and 0.7: 0.75 -+ 12.7062 * 0.05 excludes 0. One seed has no interval.
    assert table.loc["two", "share"] == pytest.approx(0.5 / 0.75, abs=1e-4)
    assert table.loc["alone", "flops_difference"] == pytest.approx(0.4)
    assert table.loc["alone", ["difference_low", "difference_high", *shares]].isna().all()


@pytest.mark.usefixtures("routes")
def test_a_share_is_empty_if_the_oracle_may_equal_dense(tmp_path):
    dense = [0.5, 0.5, 0.5]
    scores = dict(dense=dense, dense_flops=dense, oracle=[0.5, 0.6, 0.5], clusters=[0.6, 0.6, 0.7])
    level = level_of(tmp_path, **scores)
    conflict_shares.main([str(level), "--output_file", str(tmp_path / "shares.csv")])
    clusters = pd.read_csv(tmp_path / "shares_means.csv").set_index("variant").loc["clusters"]
    assert clusters[["share", "share_low", "share_high"]].isna().all()
    assert clusters["difference"] == pytest.approx(0.1333, abs=1e-4)
    assert clusters["difference_low"] < 0.1333 < clusters["difference_high"]


@pytest.mark.usefixtures("routes")
def test_without_an_oracle_differences_are_from_the_baseline(tmp_path):
    level = level_of(tmp_path, refined=[0.5, 0.6, 0.8], refined_no_splits=[0.4, 0.6, 0.6])
    flags = ["--baseline", "refined", "--output_file", str(tmp_path / "shares.csv")]
    assert conflict_shares.main([str(level), *flags]) == 0
    table = pd.read_csv(tmp_path / "shares_means.csv").set_index("variant")
    assert table["difference"].tolist() == pytest.approx([0, -0.1])
    assert table.loc["refined_no_splits", "difference_high"] == pytest.approx(
        -0.1 + 4.3027 / 10 / 3**0.5, abs=1e-4
    )
    assert table["ami_difference"].tolist() == [0, 0]
    assert table[["flops_difference", "share"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ({}, "comparison_runs.csv does not exist"),
        (
            {"oracle": [0.5], "clusters": [0.6]},
            "comparison_runs.csv has no run of it, only of clusters, oracle",
        ),
    ],
)
def test_differences_need_the_baseline(tmp_path, capsys, scores, error):
    if scores:
        level_of(tmp_path, **scores)
    assert conflict_shares.main([str(tmp_path)]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("experts", "words", "right"),
    [
        (
            [[2, 2], [2, 2], [5, 5], [5, 5]],
            ["route of expert 2 (lowest loss, 0.1)", "cluster 5 (cosine 0.1)"],
            1,
        ),
        ([[2, 2], [2, 2], [5, 5], [5, 5]], ["cluster 5 (cosine 0.1)", "route of c (lowest loss, 0.1)"], 0.5),
        # Composed routes: the clusters are 0 (a, b) and 1 (c, d).
        ([[0, 1], [0, 1], [1, 1], [1, 1]], ["route of b (lowest loss, 0.1)", "cluster 1 (cosine 0.1)"], 1),
        ([[0, 1], [0, 1], [1, 1], [1, 1]], ["route of b (lowest loss, 0.1)", "average: no vector"], math.nan),
    ],
)
def test_an_unseen_task_is_routed_right_if_its_cluster_has_mostly_its_skill(experts, words, right):
    skill_of = dict(a=0, b=0, c=1, d=1, new=0, other=1)
    scores = pd.DataFrame({"task_prefix": ["new", "other"], "route": words})
    found = conflict_routes.routed_right(scores, tuple("abcd"), np.array(experts), skill_of)
    assert found == pytest.approx(right, nan_ok=True)


def test_agreement_by_hand():
    """Three skills along three axes; one unseen task is near its own skill, the other near another one."""
    rng = np.random.default_rng(0)
    run = SimpleNamespace(
        train=list("abcdef"), skill_N=np.array([0, 0, 1, 1, 2, 2]), skill_of_unseen=np.array([0, 2])
    )
    axes = np.eye(3)[[0, 0, 1, 1, 2, 2, 0, 1]]
    vectors = axes + rng.normal(0, 0.01, axes.shape) + [50, 0, 0]
    agreement, nan = gradient_clusters.agreement, math.nan
    expected = {"ami": 1, "ami_auto": 1, "clusters": 3, "unseen": 0.5}
    assert agreement(run, vectors) == pytest.approx(expected)
    for kind in ("complete", "single", "k-means"):
        found = agreement(run, vectors, gradient_clusters.linkage(kind))
        assert found == pytest.approx(expected | {"ami_auto": nan, "clusters": nan}, nan_ok=True)
    run.skill_N = np.array([0, 1, 2, 0, 1, 2])
    assert agreement(run, vectors)["ami"] < 0.1
    # Skills as rays with vectors of very different lengths: centring moves the short ones together.
    run = SimpleNamespace(train=list("abcd"), skill_N=np.array([0, 0, 1, 1]), skill_of_unseen=np.array([0]))
    rays = np.array([[1, 0], [9, 0], [0, 1], [0, 9], [1, 0]])
    found = agreement(run, rays, centred=False)
    assert found == pytest.approx({"ami": 1, "ami_auto": 1, "clusters": 2, "unseen": nan}, nan_ok=True)
    assert agreement(run, rays)["ami"] < 0.9


def test_each_ingredient_is_changed_on_its_own(tmp_path):
    gym, bart = made(tmp_path, encoder_parts=2, decoder_parts=1, rows=14)
    dense = DENSE | dict(hide_task_names=True, total_steps=3, save_period=1)
    assert run(gym, bart, tmp_path / "run", **dense) == 0
    dense_run, N = gradient_clusters.DenseRun(tmp_path / "run"), 4
    dense_run.compute()

    def by_hand(*steps, rows=None, few=None, part="model.shared.weight"):
        blocks = [
            np.concatenate([gradients[:N], dense_run.gradients[step, few][name][N:]])
            for step in steps
            for name, gradients in dense_run.gradients[step, rows].items()
            if part in name
        ]
        return np.concatenate(blocks, axis=1)

    vectors = {
        ("recipe", ""): by_hand(2, 3),
        ("one checkpoint, at step", "3"): by_hand(3),
        ("checkpoints", "all"): by_hand(1, 2, 3),
        ("weights", "decoder"): by_hand(2, 3, part="model.decoder.layers."),
        ("rows of a train task", "12"): by_hand(2, 3, rows=12),
        ("rows of an unseen task", "4"): by_hand(2, 3, few=4),
        ("minus shuffled answers, weights", "embeddings"): by_hand(2, 3)
        - by_hand(2, 3, rows="shuffled", few="shuffled"),
    }
    assert np.abs(by_hand(2, 3) - by_hand(2, 3, rows="shuffled", few="shuffled")).max() > 1e-3
    rows = gradient_clusters.ingredients(dense_run)
    for key, vectors_MD in vectors.items():
        expected = gradient_clusters.agreement(dense_run, vectors_MD)
        assert rows[key] == pytest.approx(expected, nan_ok=True), key
    assert gradient_clusters.projection(dense_run, 64).shape == (N + 2, 2 * 64)
    assert ingredients.main([str(tmp_path / "run"), "--output_file", str(tmp_path / "table.csv")]) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["ami"].to_list() == pytest.approx([row["ami"] for row in rows.values()], abs=1e-4)
    means = pd.read_csv(tmp_path / "table_means.csv")
    assert list(means) == ["names", "changed", "n", "ami", "ami_lowest", "ami_auto", "clusters", "unseen"]


def test_unseen_tasks_are_fine_tuned_from_every_start(tmp_path, capsys):
    small = dict(encoder_parts=2, decoder_parts=1, words=8, unseen_rows=4, test_rows=12)
    gym, bart = made(tmp_path, **small)
    fixed = dict.fromkeys(ROUTING) | dict(num_experts=None)
    oracle = fixed | dict(task_routes=gym / "oracle_routes.json")
    lengths = dict(max_input_length=16, max_output_length=8, num_beams=1)
    for variant, flags in (("dense", DENSE), ("oracle", oracle)):
        folder = tmp_path / variant / "seed3"
        assert run(gym, bart, folder, total_steps=60, eval_period=60, **lengths, **flags) == 0
    table, oracle_run = tmp_path / "table.csv", tmp_path / "oracle/seed3"

    def few_shot(flags: str) -> int:
        given = [
            "--seeds",
            "3",
            "--tasks",
            "1",
            "--steps",
            "4",
            "--rates",
            "0.01",
            "--output_file",
            str(table),
        ]
        return conflict_few_shot.main([str(tmp_path), *given, *flags.split()])

    assert few_shot("--variants dense oracle-average-logits oracle --logit_rates 0.5") == 0
    rows = pd.read_csv(table).set_index("variant")
    assert list(rows.index) == ["dense", "oracle-average-logits", "oracle"]
    assert (rows["seconds"] > 0).all()
    results = pd.read_csv(oracle_run / "few_shot_4_steps_rates_0.01/t004/results.csv")
    assert set(results["route"]) == {"given route; plain BART"}
    assert rows.loc["oracle", "few_shot"] == pytest.approx(results["test_performance"].iloc[-1], abs=1e-4)
    learned = pd.read_csv(oracle_run / "few_shot_4_steps_rates_0.5-average-logits/t004/results.csv")
    assert set(learned["route"]) == {"average; logits trained"}
    assert rows["mflops"].iloc[1] == pytest.approx(learned["total_flops"].iloc[0] / 1e6, abs=1e-3)
    # zero_shot is the score of a prediction along the true route, by the command for trained models.
    predict = dict(do_train=None, initialize_from_vanilla=None, init_eps=None, do_predict=True)
    predict |= fixed | lengths | dict(predict_split="test")
    assert run(gym, bart, oracle_run, **predict) == 0
    scores = pd.read_csv(oracle_run / "best/eval-test_tasks-test-performance.csv").set_index("task_prefix")
    assert rows.loc["oracle", "zero_shot"] == pytest.approx(scores.loc["t004", "performance"], abs=1e-4) != 0
    assert few_shot("--variants oracle-logit") == 2
    assert "--variants holds 'oracle-logit', not one of dense, softmax, " in capsys.readouterr().err


def test_coverage_is_simulated_for_every_case_and_design(capsys, tmp_path):
    few = ["--simulations", "20", "--tasks", "6", "--seeds", "1", "2", "--seed_stds", "0.3"]
    assert coverage.main([*few, "--output_file", str(tmp_path / "coverage.csv")]) == 0
    assert "| 2 | 6 | 0.3 | " in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "coverage.csv")
    sizes = table.groupby(["seeds", "case"], sort=False).size()
    assert sizes.to_list() == 4 * [1] + 4 * [3]
    assert table["coverage"].between(0, 1).all()
