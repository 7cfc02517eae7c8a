"""Scores of compared runs along training, by steps and FLOPs: hand-computed for synthetic runs."""

import json

import pandas as pd
import pytest
from test_comparison import TREE, by_category, write_run

pytestmark = pytest.mark.usefixtures("empty_pictures")
TASKS = ("copy", "spell", "yesno")


def write_cost_and_evaluations(place, flops_a_step, steps, scores, before=(0, 0)):
    """scores: {step: score of every task}; before: steps and FLOPs of earlier runs."""
    total = flops_a_step * steps
    cost = dict(
        total_parameters=3_000_000, active_parameters=1_000_000, flops_per_example=flops_a_step // 8,
        examples_per_step=8, steps=steps, total_flops=total, start_unknown=None,
        steps_with_start=steps + before[0], total_flops_with_start=total + before[1],
    )  # fmt: skip
    (place / "cost.json").write_text(json.dumps(cost))
    for step, score in scores.items():
        (place / f"{step}-steps").mkdir()
        rows = [(task, f"{task}_32_100", "ACC", score, 20) for task in TASKS]
        table = pd.DataFrame(rows, columns=["task_prefix", "sample", "metric", "performance", "n"])
        table.to_csv(place / f"{step}-steps/dev_results.csv")


@pytest.fixture
def folder(tmp_path):
    """cheap: 8 MFLOPs per step; costly: 16; late: as cheap, after 100 steps and 800 MFLOPs of another run."""
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym/ontology.json").write_text(json.dumps(TREE))
    test_scores = dict.fromkeys(TASKS, 0.5)
    for seed in (1, 2):
        # A seed's batches differ a little.
        for variant, flops in (("cheap", 8_000_000 + 10_000 * seed), ("costly", 16_000_000)):
            place = write_run(tmp_path / "runs", variant, seed, test_scores)
            scores = {100: 0.1 * seed, 200: 0.2 * seed, 300: 0.3 * seed, 400: 0.4 * seed}
            write_cost_and_evaluations(place, flops, 400, scores)
    return tmp_path / "runs"


def test_curves_count_earlier_runs(folder):
    place = write_run(folder, "late", 1, dict.fromkeys(TASKS, 0.5))
    write_cost_and_evaluations(place, 8_000_000, 400, {400: 0.5}, before=(100, 800_000_000))
    assert by_category([str(folder)]) == 0
    curves = pd.read_csv(folder / "comparison_curves.csv")
    assert list(curves.columns) == ["variant", "run", "seed", "step", "flops", "dev_score"]
    assert len(curves) == 4 * 4 + 1
    assert curves[curves["variant"] == "late"][["step", "flops"]].values.tolist() == [[500, 4_000_000_000]]
    second = curves[(curves["variant"] == "costly") & (curves["seed"] == 2)].iloc[1]
    assert second[["step", "flops", "dev_score"]].tolist() == pytest.approx([200, 3.2e9, 0.4])


@pytest.mark.parametrize("variants", [("costly",), ("costly", "cheap")])
def test_evaluations_without_answers_are_in_curves_only_if_no_run_has_others(folder, variants):
    """As --select_by answer_loss writes them."""
    for path in (path for name in variants for path in folder.glob(f"{name}/*/*-steps/dev_results.csv")):
        pd.read_csv(path, index_col=0).rename(columns={"performance": "answer_loss"}).to_csv(path)
    assert by_category([str(folder)]) == 0
    curves = pd.read_csv(folder / "comparison_curves.csv")
    alone = len(variants) == 1
    assert curves.columns[-1] == ("dev_score" if alone else "dev_answer_loss")
    assert set(curves["variant"]) == ({"cheap"} if alone else {"costly", "cheap"})
    assert (folder / "comparison_curves.png").is_file()
