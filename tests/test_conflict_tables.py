"""Tables of the conflict gyms from folders of compare_conflict.sh."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from benchmarks.conflict_tables import TEST, UNSEEN, fieller, main
from routing_moe.results.run_cost import TRAINING_COST


@pytest.fixture
def folder(tmp_path):
    """Two gyms of three variants; of cross_loss, unseen task u0 is routed to its skill, u1 is not."""
    tests = {"dense_flops": (0.5, 0.7), "cross_loss": (0.8, 0.9), "oracle": (1.0, 1.0)}
    for variant, scores in tests.items():
        for seed, score in zip((1, 2), scores, strict=True):
            run = tmp_path / f"runs/{variant}/seed{seed}"
            (run / "best").mkdir(parents=True)
            cost = dict.fromkeys((*TRAINING_COST, "examples_per_step", "steps_with_start"), 2e9)
            cost["total_flops_with_start"] = 3e9 if variant == "cross_loss" else 2e9
            (run / "cost.json").write_text(json.dumps(cost))
            pd.DataFrame({"performance": [score, score]}).to_csv(run / TEST)
    for seed in (1, 2):
        run = tmp_path / f"runs/cross_loss/seed{seed}"
        routes = [f"route of expert {number} (lowest loss, 0.1; next 2)" for number in (1, 1)]
        unseen = {"task_prefix": ["u0", "u1"], "performance": [1.0, 0.0], "route": routes}
        pd.DataFrame(unseen).to_csv(run / UNSEEN)
        (run / "deltas/transfer").mkdir(parents=True)
        (run / "deltas/transfer/groups.json").write_text(json.dumps({"a": 0, "b": 1, "c": 1, "d": 1}))
        gym = tmp_path / f"gyms/{seed}"
        gym.mkdir(parents=True)
        (gym / "skill_routes.json").write_text(json.dumps({"a": 5, "b": 3, "c": 3, "d": 5, "u0": 3, "u1": 5}))
    recovery = {"variant": ["cross_loss"] * 2, "seed": [1, 2], "ami": [0.9, 1.0], "clusters": [2, 2]}
    pd.DataFrame(recovery).to_csv(tmp_path / "recovery.csv")
    return tmp_path


def test_runs_and_means_have_scores_costs_of_all_stages_and_right_routes(folder):
    assert main([f"half={folder}", "--output_dir", str(folder)]) == 0
    runs = pd.read_csv(folder / "conflict_runs.csv").set_index(["variant", "seed"])
    assert runs["gflops"].to_dict()[("cross_loss", 1)] == 3  # with the start
    assert runs["gflops"].to_dict()[("oracle", 1)] == 2
    assert runs.loc["cross_loss", "right"].tolist() == [0.5, 0.5]
    means = pd.read_csv(folder / "conflict.csv").set_index("variant")
    assert means.loc["cross_loss", ["test", "ami_lowest", "unseen", "n"]].tolist() == [0.85, 0.9, 0.5, 2]
    assert means.loc["cross_loss", "share"] == pytest.approx(0.25 / 0.4)


def test_runs_of_an_earlier_file_count_too(folder):
    main([f"half={folder}", "--output_dir", str(folder)])
    earlier = pd.read_csv(folder / "conflict_runs.csv").assign(seed=lambda runs: runs["seed"] + 10)
    earlier.to_csv(folder / "earlier.csv", index=False)
    main([f"half={folder}", "--earlier", str(folder / "earlier.csv"), "--output_dir", str(folder)])
    assert pd.read_csv(folder / "conflict.csv")["n"].tolist() == [4, 4, 4]


def test_a_run_that_two_folders_of_a_place_have_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        main([f"half={folder}", f"half={folder}", "--output_dir", str(folder)])
    assert "the same variant and seed" in capsys.readouterr().err


def test_the_interval_of_a_share_ends_where_the_t_test_does_not_reject():
    b = np.array([0.3, 0.25, 0.28, 0.31, 0.22])
    a = np.array([0.2, 0.21, 0.19, 0.27, 0.2])
    for ratio in fieller(a, b):
        rest = a - ratio * b
        statistic = abs(rest.mean()) / (rest.std(ddof=1) / len(rest) ** 0.5)
        assert statistic == pytest.approx(t.ppf(0.975, len(rest) - 1))


def test_without_an_advantage_of_the_oracle_the_share_has_no_interval():
    assert np.isnan(fieller(np.array([0.1, -0.1, 0.0]), np.array([0.2, -0.2, 0.01]))).all()
