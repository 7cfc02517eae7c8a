"""Costs of compared runs and their scores along training: hand-computed for synthetic runs."""

import json

import pandas as pd
import pytest
from test_comparison import TREE, by_category, refusal, write_run

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


def compared(folder):
    """Returns the table of costs by variant."""
    assert by_category([str(folder)]) == 0
    return pd.read_csv(folder / "comparison_cost.csv").set_index("variant")


def row_of(variant, printed):
    """Returns the variant's cells in the table of costs, which is printed last."""
    (*_, line) = [line for line in printed.splitlines() if line.startswith(f"| {variant} ")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


# ---- as trained


def test_costs_are_means_over_seeds_printed_with_the_scores(folder, capsys):
    costs = compared(folder)
    assert costs.loc["cheap", "n"] == 2
    assert costs.loc["cheap", "total_flops"] == 400 * 8_015_000
    assert costs.loc["costly", ["active_parameters", "total_parameters", "steps"]].tolist() == [1e6, 3e6, 400]
    shown = row_of("costly", capsys.readouterr().out)
    assert shown == ["costly", "2", "1 M", "3 M", "2 M", "400", "6.4 G", "-", "-"]


def test_the_cost_table_has_the_scored_step_and_the_final_expert_distance(folder, capsys):
    for seed, step, distance in ((1, 200, 0.1), (2, 400, 0.3)):
        progress = {"step": step, "temperature": 1.0, "expert_distance": distance}
        for name in ("best", "last"):
            place = folder / f"costly/seed{seed}" / name
            place.mkdir(exist_ok=True)
            own = progress if name == "best" else {"step": 400, "expert_distance": 2 * distance}
            (place / "checkpoint.json").write_text(json.dumps(own))
    costs = compared(folder)
    assert costs.loc["costly", ["selected_step", "expert_distance"]].tolist() == [300, pytest.approx(0.4)]
    assert costs.loc["cheap", ["selected_step", "expert_distance"]].isna().all()
    assert row_of("costly", capsys.readouterr().out)[-2:] == ["300", "0.4"]


def test_earlier_runs_count_in_costs_and_curves(folder):
    place = write_run(folder, "late", 1, dict.fromkeys(TASKS, 0.5))
    write_cost_and_evaluations(place, 8_000_000, 400, {400: 0.5}, before=(100, 800_000_000))
    costs = compared(folder)
    assert costs.loc["late", ["steps", "total_flops"]].tolist() == [500, 4_000_000_000]
    curves = pd.read_csv(folder / "comparison_curves.csv")
    assert list(curves.columns) == ["variant", "run", "seed", "step", "flops", "dev_score"]
    assert len(curves) == 4 * 4 + 1
    assert curves[curves["variant"] == "late"][["step", "flops"]].values.tolist() == [[500, 4_000_000_000]]
    second = curves[(curves["variant"] == "costly") & (curves["seed"] == 2)].iloc[1]
    assert second[["step", "flops", "dev_score"]].tolist() == pytest.approx([200, 3.2e9, 0.4])


def test_an_unknown_cost_is_a_dash_with_a_note_and_a_damaged_one_an_error(folder, capsys):
    path = folder / "costly/seed2/cost.json"
    unknown = {"steps_with_start": None, "total_flops_with_start": None, "start_unknown": "stage1 is gone"}
    path.write_text(json.dumps(json.loads(path.read_text()) | unknown))
    costs = compared(folder)
    assert costs.loc["costly", "flops_per_example"] == 2_000_000  # the run's own cost is known
    assert costs.loc["costly", ["steps", "total_flops"]].isna().all()
    assert "- cost of costly/seed2 is unknown: stage1 is gone" in capsys.readouterr().out
    path.write_text("{")
    assert "costly/seed2/cost.json is not valid JSON" in refusal(capsys, folder)
    path.unlink()
    costs = compared(folder)
    assert costs.loc["costly", ["total_parameters", "steps", "total_flops"]].isna().all()
    out = capsys.readouterr().out
    assert row_of("costly", out) == ["costly", "2", *["-"] * 7]
    assert "- cost of costly/seed2 is unknown: no cost.json" in out


# ---- curves


@pytest.mark.parametrize("variants", [("costly",), ("costly", "cheap")])
def test_evaluations_without_answers_are_in_curves_only_if_no_run_has_others(folder, variants):
    """As --select_by answer_loss writes them."""
    for path in (path for name in variants for path in folder.glob(f"{name}/*/*-steps/dev_results.csv")):
        pd.read_csv(path, index_col=0).rename(columns={"performance": "answer_loss"}).to_csv(path)
    compared(folder)
    curves = pd.read_csv(folder / "comparison_curves.csv")
    alone = len(variants) == 1
    assert curves.columns[-1] == ("dev_score" if alone else "dev_answer_loss")
    assert set(curves["variant"]) == ({"cheap"} if alone else {"costly", "cheap"})
    assert (folder / "comparison_curves.png").is_file()
