"""Tasks with permuted labels: scores and routes of pairs by hand."""

import pandas as pd
import planted_routes
import pytest

from routing_moe.studies import permuted_twins

TASKS = ("a", "a2", "b", "b2", "c")
RELABELLED = """task,source,labels,permutation
a,first,kept,
a2,first,permuted,x -> y; y -> x
b,second,kept,
b2,second,permuted,x -> y; y -> x
c,third,,
d,fourth,kept,
d2,fourth,permuted,x -> y; y -> x
"""


def finished_run(folder, routes_NLE, performance, **config):
    planted_routes.write_run(folder, {10: routes_NLE}, tasks=TASKS, best=10, **config)
    scores = pd.DataFrame({"task_prefix": TASKS, "sample": "8_1", "metric": "ACC"})
    scores = scores.assign(performance=performance, n=10, constant=[0.5, 0.5, 0.3, 0.5, 0.2])
    scores.to_csv(folder / "best/eval-test-performance.csv")


@pytest.fixture
def relabelled(tmp_path):
    (tmp_path / "relabelled.csv").write_text(RELABELLED)
    return tmp_path


def table_of(folder):
    """Returns the rows of the file by variant."""
    arguments = ["--relabelled", str(folder), "--output_file", str(folder / "table.csv")]
    assert permuted_twins.main([str(folder / "runs"), *arguments]) == 0
    return pd.read_csv(folder / "table.csv").set_index("variant").to_dict("index")


def test_scores_and_routes_of_pairs(relabelled):
    # Of the first pair, one of two layers differs; the second pair has the same route.
    routes = planted_routes.one_hot([[0, 0], [0, 1], [2, 2], [2, 2], [0, 0]])
    finished_run(relabelled / "runs/moe/seed1", routes, [0.8, 0.6, 0.4, 0.2, 0.0])
    same = planted_routes.one_hot([[0, 0]] * 4 + [[1, 1]])
    finished_run(relabelled / "runs/moe/seed2", same, [1.0, 0.6, 0.6, 0.2, 0.0])
    planted_routes.write_run(relabelled / "runs/moe/seed3", {10: routes}, tasks=TASKS)  # not finished
    moe = table_of(relabelled)["moe"]
    assert (moe["n"], moe["pairs"]) == (2, 2)
    assert (moe["kept"], moe["permuted"], moe["constant"]) == pytest.approx((0.7, 0.4, 0.45))
    # Differences of the pairs, means over runs: 0.3 and 0.3.
    assert [moe[name] for name in permuted_twins.DIFFERENCE] == pytest.approx([0.3, 0.3, 0.3])
    assert (moe["other_route"], moe["distance"]) == pytest.approx((0.25, 0.125))
    # Of the eight other pairs, a c has distance 0, a2 c 0.5 and six 1; with equal routes, four of them 1.
    assert moe["distance_others"] == pytest.approx((6.5 / 8 + 4 / 8) / 2, abs=1e-4)


def test_the_routes_are_those_that_scores_were_computed_with(relabelled):
    scores = [0.9, 0.1, 0.7, 0.1, 0.0]
    soft = 0.6 * planted_routes.one_hot([[0, 0], [0, 1], [2, 2], [2, 2], [0, 0]]) + 0.4 / 3
    finished_run(relabelled / "runs/soft/seed1", soft, scores, router_mode="softmax")
    finished_run(relabelled / "runs/hard/seed1", soft, scores, router_mode="gumbel_softmax_st")
    finished_run(relabelled / "runs/average/seed1", soft, scores, route_source="average")
    finished_run(relabelled / "runs/one/seed1", soft[:, :, :1] * 0 + 1, scores, num_experts=1)
    table = table_of(relabelled)
    assert table["soft"]["distance"] == pytest.approx(0.6 * 0.25)
    assert (table["hard"]["distance"], table["hard"]["other_route"]) == (0.25, 0.5)
    for name in ("average", "one"):
        assert table[name]["kept"] == 0.8
        assert all(pd.isna(table[name][column]) for column in permuted_twins.ROUTES)
    # 0.8 and 0.6: the t quantile of one degree of freedom is 12.706.
    assert table["one"]["difference_low"] == pytest.approx(0.7 - 12.706 * 0.1, abs=1e-3)


def test_a_gym_without_pairs_is_an_error(tmp_path, capsys):
    def error(message):
        assert permuted_twins.main([str(tmp_path / "runs"), "--relabelled", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err

    error("relabelled.csv does not exist; routing-moe conflict-gym relabel")
    gym = tmp_path / "relabelled.csv"
    gym.write_text("task,source,labels,permutation\na,first,kept,\nc,third,,\n")
    error("has no task with kept and permuted labels")
    gym.write_text(RELABELLED)
    error(f"error: {tmp_path}/runs")
    finished_run(tmp_path / "runs/one/seed1", planted_routes.one_hot([[0, 0]] * 5), [0.5] * 5)
    gym.write_text(RELABELLED.replace("a,first", "f,first").replace("b,second", "g,second"))
    error("one/seed1: no pair is among its train tasks")
