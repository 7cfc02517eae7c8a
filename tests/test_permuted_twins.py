"""The benchmark of tasks with permuted labels: scores and routes of pairs by hand."""

import json

import pandas as pd
import planted_routes
import pytest

from benchmarks import permuted_twins

TASKS = ("a", "a2", "b", "b2", "c")
RELABELLED = """task,source,labels,permutation
a,first,kept,
a2,first,permuted,x -> y; y -> x
b,second,kept,
b2,second,permuted,x -> y; y -> x
c,third,kept,
d,fourth,kept,
d2,fourth,permuted,x -> y; y -> x
"""


def finished_run(folder, routes_NLE, performance):
    planted_routes.write_run(folder, {10: routes_NLE}, tasks=TASKS, best=10)
    scores = pd.DataFrame({"task_prefix": TASKS, "sample": "8_1", "metric": "ACC"})
    scores = scores.assign(performance=performance, n=10, constant=[0.5, 0.5, 0.3, 0.5, 0.2])
    scores.to_csv(folder / "best/eval-test-performance.csv")


@pytest.fixture
def relabelled(tmp_path):
    (tmp_path / "relabelled.csv").write_text(RELABELLED)
    return tmp_path


def test_scores_and_routes_of_pairs(relabelled, capsys):
    # Of the first pair, one of two layers differs; the second pair has the same route.
    routes = planted_routes.one_hot([[0, 0], [0, 1], [2, 2], [2, 2], [0, 0]])
    finished_run(relabelled / "runs/moe/seed1", routes, [0.8, 0.6, 0.4, 0.2, 0.0])
    same = planted_routes.one_hot([[0, 0]] * 4 + [[1, 1]])
    finished_run(relabelled / "runs/moe/seed2", same, [1.0, 0.6, 0.4, 0.2, 0.0])
    finished_run(relabelled / "runs/one/seed1", routes[:, :, :1] * 0 + 1, [0.9, 0.1, 0.9, 0.1, 0.0])
    planted_routes.write_run(relabelled / "runs/one/seed2", {10: routes}, tasks=TASKS)  # not finished
    table = relabelled / "table.csv"
    arguments = ["--relabelled", str(relabelled), "--output_file", str(table)]
    permuted_twins.main([str(relabelled / "runs"), *arguments])
    moe, one = pd.read_csv(table).to_dict("records")
    assert json.loads(capsys.readouterr().out)["variants"]["one"]["kept"] == 0.9
    assert (moe["variant"], moe["n"], moe["n_pairs"]) == ("moe", 2, 2)
    assert (moe["kept"], moe["permuted"], moe["constant"]) == pytest.approx((0.65, 0.4, 0.45))
    assert (moe["other_route"], moe["distance"]) == pytest.approx((0.25, 0.125))
    # Of the eight other pairs, a c has distance 0, a2 c 0.5 and six 1; with equal routes, four of them 1.
    assert moe["distance_others"] == pytest.approx((6.5 / 8 + 4 / 8) / 2, abs=1e-4)
    assert (one["n"], one["kept"], one["permuted"]) == pytest.approx((1, 0.9, 0.1))
    assert pd.isna(one["other_route"]) and pd.isna(one["distance_others"])


def test_a_gym_without_permuted_labels_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"relabelled.csv does not exist; python -m task.conflict_gym.relabel"):
        permuted_twins.main([str(tmp_path), "--relabelled", str(tmp_path)])
    (tmp_path / "relabelled.csv").write_text(RELABELLED)
    with pytest.raises(SystemExit, match="error: .* holds no runs"):
        permuted_twins.main([str(tmp_path), "--relabelled", str(tmp_path)])
