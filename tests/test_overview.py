"""One table of compared runs, and route recovery beside scores: hand-computed for synthetic runs."""

import json
import math
import shutil

import pandas as pd
import pytest
from planted_routes import NAMES, one_hot, write_place, write_run
from test_comparison import by_category, write_cost_and_evaluations

from routing_moe.cli import compare
from routing_moe.results.overview import overview_markdown

SPELLING = [0, 0, 0, 1, 1, 1]  # of NAMES: skill:spell or skill:count
SCORES = {"train": {"dev": 0.4, "test": 0.5}, "test": {"test": 0.25}}  # of seed 1; of seed 2 0.1 more


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(compare, "draw", lambda *_: None)


def by_means(words: list[str]) -> int:
    """Returns the exit code of the command with the table of costs and mean scores only."""
    return compare.main([*words, "--columns", "cost", "dev", "test", "unseen"])


def write_scores(run, seed, scores=SCORES):
    for section, parts in scores.items():
        for part, score in parts.items():
            tasks = NAMES if section == "train" else ("new", "other")
            rows = [(task, f"{task}_16_100", "EM", score + (seed - 1) / 10, 64, 0.1) for task in tasks]
            columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
            name = f"eval-{part}" if section == "train" else f"eval-{section}_tasks-{part}"
            table = pd.DataFrame(rows, columns=columns)
            if section == "test" and run.parent.name == "found":
                table["route"] = ["route of expert 1 (lowest loss, 0.1)"] * 2
                table["vector_seen"] = [f"labelled rows of one sample: {task}_16_100" for task in tasks]
            table.to_csv(run / f"best/{name}-performance.csv")


def add_run(folder, gym, variant, seed, experts_N, before=(0, 0), **config):
    """Writes a run of two evaluations, the second the best; a task's expert is the same in all layers."""
    routes_NLE = one_hot([[expert] * 3 for expert in experts_N])
    history = {10: one_hot([[0] * 3] * 6), 20: routes_NLE}
    run = write_run(folder / variant / f"seed{seed}", history, best=20, **config)
    settings = {"settings": {"seed": seed, "train_dir": str(gym), "predict_dir": str(gym), "num_beams": 1}}
    (run / "run.json").write_text(json.dumps(settings))
    write_cost_and_evaluations(run, 8_000_000_000, 20, {}, before)
    write_scores(run, seed)
    return run


@pytest.fixture
def folder(tmp_path):
    """found has an expert per skill, dense one expert, both two seeds; all routes of the others are equal."""
    gym = write_place(tmp_path / "place", runs=()).gym
    folder = tmp_path / "runs"
    for seed in (1, 2):
        add_run(folder, gym, "found", seed, SPELLING, before=(30, 10_000_000_000))
        add_run(folder, gym, "dense", seed, [0] * 6, num_experts=1)
    add_run(folder, gym, "average", 1, [0] * 6, route_source="average")
    add_run(folder, gym, "equal", 1, [2] * 6)
    return folder


def shown(folder, capsys, *flags, code=0):
    """Returns the rows of overview.csv by variant, and what was printed."""
    assert by_means([str(folder), *flags]) == code
    return pd.read_csv(folder / "overview.csv", index_col=0), capsys.readouterr()


def test_a_row_has_costs_scores_and_the_agreement_of_routes(folder, capsys):
    table, printed = shown(folder, capsys, "--recovery", "skill", "--order", "dense", "found")
    assert list(table.index) == ["dense", "found", "average", "equal"]
    found = table.loc["found"]
    assert found[["n", "total_parameters", "active_parameters", "steps"]].tolist() == [2, 3e6, 1e6, 50]
    assert found["gflops"] == 160 + 10
    assert table.loc["dense", ["steps", "gflops"]].tolist() == [20, 160]
    assert found[["dev", "test", "unseen"]].tolist() == pytest.approx([0.45, 0.55, 0.3])
    assert table["unseen_read"].to_dict() == {
        **dict.fromkeys(("dense", "average", "equal"), "nothing"), "found": "labelled rows of one sample"
    }  # fmt: skip
    assert found["unseen_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert math.isnan(table.loc["equal", "test_std"])
    assert (found["skill_ami"], found["skill_ami_std"]) == (1, 0)
    assert table.loc[["dense", "average", "equal"], "skill_ami"].isna().all()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.out.splitlines()[:6]]
    costs = ["variant", "n", "parameters", "active", "steps", "GFLOPs"]
    assert cells[0] == [*costs, "dev", "test", "unseen", "read of unseen", "AMI skill"]
    assert cells[3] == [
        *("found", "2", "3000000", "1000000", "50", "170", "0.450 ± 0.071", "0.550 ± 0.071"),
        *("0.300 ± 0.071", "labelled rows of one sample", "1.000 ± 0.000"),
    ]
    assert cells[2][-1] == cells[5][-1] == "-"
    assert (folder / "overview.md").read_text() == printed.out.removesuffix("\n")
    recovery = pd.read_csv(folder / "recovery.csv")
    own = recovery[recovery["variant"] == "found"]
    assert own[["seed", "kind", "tasks"]].values.tolist() == [[1, "skill", 6], [2, "skill", 6]]
    assert own["mantel_r"].tolist() == pytest.approx([1, 1])


def test_an_unknown_cost_is_a_dash_with_a_note_and_a_damaged_one_an_error(folder, capsys):
    path = folder / "found/seed2/cost.json"
    unknown = {"steps_with_start": None, "total_flops_with_start": None, "start_unknown": "stage1 is gone"}
    path.write_text(json.dumps(json.loads(path.read_text()) | unknown))
    table, printed = shown(folder, capsys)
    assert table.loc["found", ["steps", "gflops"]].isna().all()
    assert table.loc["found", "active_parameters"] == 1e6  # the run's own cost is known
    assert "- cost of found/seed2 is unknown: stage1 is gone" in printed.out
    path.unlink()
    table, printed = shown(folder, capsys)
    assert table.loc["found", ["total_parameters", "steps", "gflops"]].isna().all()
    assert "- cost of found/seed2 is unknown: no cost.json" in printed.out
    path.write_text("{")
    assert by_means([str(folder)]) == 2
    assert "found/seed2/cost.json is not valid JSON" in capsys.readouterr().err


def write_summary(folder, **scores):
    folder.mkdir(parents=True)
    rows = "".join(f"{task},mean,{score},5\n" for task, score in scores.items())
    (folder / "summary.csv").write_text(f"task,entry,test_performance,n\n{rows}")


def test_few_shot_scores_are_those_of_the_runs_of_the_same_names(folder, tmp_path, capsys):
    flags = ["--few_shot", str(tmp_path / "tuned")]
    assert by_means([str(folder), *flags]) == 2
    assert "tuned holds no <variant>/<run>/summary.csv" in capsys.readouterr().err
    for run, new, other in (("found/seed1", 0.2, 0.4), ("found/seed2", 0.4, 0.6), ("equal/seed1", 0.5, "")):
        write_summary(tmp_path / "tuned" / run, new=new, other=other)
    table, printed = shown(folder, capsys, *flags)
    assert table.loc["found", ["few_shot", "few_shot_std"]].tolist() == pytest.approx([0.4, 0.2 / 2**0.5])
    assert table.loc[["dense", "equal"], "few_shot"].isna().all()
    assert "few-shot |" in printed.out
    write_summary(tmp_path / "tuned/dense/seed1", new=0.2)
    assert by_means([str(folder), *flags]) == 2
    assert "summary.csv has other tasks or samples than" in capsys.readouterr().err


def test_missing_scores_of_train_tasks_are_reported_once_and_empty_columns_left_out(folder, capsys):
    for path in folder.glob("*/*/best/eval-test_tasks-*"):
        path.unlink()
    (folder / "dense/seed2/best/eval-test-performance.csv").unlink()
    (folder / "found/seed1/best/eval-dev-performance.csv").unlink()
    table, printed = shown(folder, capsys, code=1)
    assert printed.err.splitlines() == [
        "not finished: found/seed1 (no best/eval-dev-performance.csv)",
        "not finished: dense/seed2 (no best/eval-test-performance.csv)",
    ]
    assert compare.main([str(folder)]) == 1
    line = "not finished: dense/seed2 (no best/eval-test-performance.csv)"
    assert capsys.readouterr().err.splitlines().count(line) == 1  # of both tables
    assert line in (folder / "comparison.md").read_text()
    assert (table.loc["dense", "n"], table.loc["dense", "test"]) == (1, 0.5)
    assert not any("ami" in name or "unseen" in name for name in table)
    assert overview_markdown(pd.read_csv(folder / "overview.csv")) in printed.out
    assert math.isnan(table.loc["found", "dev"])
    for path in folder.glob("*/*/best/eval-test-performance.csv"):
        path.unlink()
    assert by_means([str(folder)]) == 2
    assert "no run has scores of train tasks" in capsys.readouterr().err


def test_every_run_has_a_row_of_each_kind_even_if_too_few_tasks_have_it(folder):
    features = folder.parent / "place/gym/skills.csv"
    known = ["x", "y", "x", *[None] * 3]
    pd.read_csv(features).assign(rare=known).to_csv(features, index=False)
    assert by_means([str(folder), "--recovery", "skill", "rare", "skill"]) == 0
    table = pd.read_csv(folder / "recovery.csv")
    rows = table.groupby("run")["kind"].agg(list)
    assert rows.to_dict() == {"seed1": ["skill", "rare"] * 4, "seed2": ["skill", "rare"] * 2}
    of_kind = table.set_index(["variant", "kind"])
    assert of_kind.loc[("found", "skill"), "ami"].tolist() == [1, 1]
    assert of_kind.loc[("found", "rare"), "ami"].isna().all()


def test_an_unknown_kind_of_features_is_an_error(folder, capsys):
    assert compare.main([str(folder), "--recovery", "skil", "--output_dir", str(folder / "out")]) == 2
    error = "error: --recovery skil: no such kind of features; did you mean 'skill'?"
    assert capsys.readouterr().err.startswith(error)
    assert not (folder / "out").exists()


# ---- chosen columns, scores by category


def test_one_command_shows_the_chosen_columns_of_both_tables(folder, tmp_path, capsys):
    folders = {name: tmp_path / name for name in ("both", "means", "categories", "chosen")}
    flags = {name: [str(folder), "--output_dir", str(path)] for name, path in folders.items()}
    assert compare.main(flags["both"]) == 0
    assert by_means(flags["means"]) == 0
    assert by_category(flags["categories"]) == 0
    files = {
        name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for name, folder in folders.items()
        if folder.exists()
    }
    assert files["both"] == files["means"] | files["categories"]
    chosen = ["--columns", "unseen", *flags["chosen"][1:]]
    assert compare.main([str(folder / "dense"), str(folder / "found"), *chosen]) == 0
    written = sorted(path.name for path in folders["chosen"].iterdir())
    assert written == ["overview.csv", "overview.md"]
    columns = ["variant", "n", "unseen", "unseen_std", "unseen_read"]
    assert list(pd.read_csv(folders["chosen"] / "overview.csv")) == columns
    assert compare.main([str(folder), "--columns", "unsen"]) == 2
    assert "--columns holds 'unsen'" in capsys.readouterr().err


def test_each_seed_may_have_a_gym_of_its_own(folder, tmp_path, capsys):
    """Runs of seed 2 were scored on another gym, with other numbers of examples."""
    shutil.rmtree(folder / "average")
    shutil.rmtree(folder / "equal")
    other = write_place(tmp_path / "other", runs=()).gym
    for path in folder.glob("*/seed2/best/eval-*.csv"):
        scores = pd.read_csv(path, index_col=0)
        scores.assign(n=7).to_csv(path)
    for path in folder.glob("*/seed2/run.json"):
        settings = json.loads(path.read_text())["settings"]
        path.write_text(json.dumps({"settings": settings | {"train_dir": str(other)}}))
    for command in (by_means, by_category):
        assert command([str(folder)]) == 2
        assert "was scored on different tasks" in capsys.readouterr().err
    assert compare.main([str(folder), "--gym_per_seed", "--baseline", "dense"]) == 0
    assert "train_dir" not in capsys.readouterr().err
    assert set(pd.read_csv(folder / "comparison_runs.csv")["category"]) == {"all"}
    # Within a seed, the gyms must still be equal.
    path = next(folder.glob("found/seed2/best/eval-test-performance.csv"))
    pd.read_csv(path, index_col=0).assign(n=8).to_csv(path)
    assert by_means([str(folder), "--gym_per_seed"]) == 2
    assert "seed2 was scored on different tasks" in capsys.readouterr().err
