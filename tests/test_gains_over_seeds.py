"""Gains over a baseline with several seeds: hand-computed numbers, files."""

import pandas as pd
import pytest
from test_gains import BASE, OTHER, OURS, TASKS, summary, write_summary

from dataloader.errors import InputError
from routing_moe.cli import compute_arg
from routing_moe.results import gains

# Six tasks; the gains of ours are 0, 0.1 ... 0.5 with seed 1 and 0.1, 0.2 ... 0.6 with seed 2.
SIX = [f"t{n}" for n in range(6)]
OF_SEED_1, OF_SEED_2 = ([0.5 + 0.05 * (n + more) for n in range(6)] for more in (0, 1))


def over_seeds(by_seed, min_baseline=0.01):
    tasks = list(next(iter(by_seed["base"].values())).index)
    per_task = gains.gains_per_task(by_seed, tasks, min_baseline)
    return per_task, gains.gains_per_system(per_task)


def test_with_seeds_the_interval_is_by_the_design():
    base = {seed: summary([0.5] * 6, tasks=SIX) for seed in (1, 2, 3)}
    ours = {1: summary(OF_SEED_1, std=0.3, tasks=SIX), 2: summary(OF_SEED_2, std=0.4, tasks=SIX)}
    per_task, few = over_seeds({"base": base, "ours": ours, "one": {2: ours[2]}})
    first = per_task.iloc[0]
    assert first[["system", "seeds"]].tolist() == ["ours", 2]
    assert first[["difference_seed1", "difference_seed2", "difference"]].tolist() == [0.0, 0.05, 0.025]
    assert first[["score", "relative_gain"]].tolist() == pytest.approx([0.525, 0.05])
    assert first["std"] == pytest.approx(((0.3**2 + 0.4**2) / 2) ** 0.5)
    # Means of seeds 0.25 and 0.35 with variance 0.005; t of one degree of freedom: 12.7062
    half = 12.7062 * (0.005 / 2) ** 0.5
    assert few.loc[0, ["low", "high"]].tolist() == pytest.approx([0.3 - half, 0.3 + half], abs=1e-4)
    assert (few["interval"][0], few["difference_interval"][0]) == ("seeds", "seeds")
    assert few["difference_high"][0] == pytest.approx(0.15 + half / 2, abs=1e-4)  # of a baseline of 0.5
    # Means of tasks 0.05 ... 0.55 with variance 0.035, of seeds 0.25 and 0.35 with variance 0.005:
    # MS_tasks = 2 * 0.035, MS_seeds = 6 * 0.005, squared error (0.07 + 0.03) / 12; degrees of freedom
    # 0.1^2 / (0.07^2 / 5 + 0.03^2 / 1) = 5.319, whose t is 2.5245
    row = gains.gains_per_system(per_task, "seeds_and_tasks").iloc[0]
    half = 2.5245 * (0.1 / 12) ** 0.5
    assert (row.arg, row.low, row.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=1e-4)
    assert (row.interval, row.seeds) == ("seeds x tasks", 2)
    one = few.iloc[1]
    half = 2.5706 * (0.035 / 6) ** 0.5  # as with a summary of one seed
    assert (one.arg, one.low, one.high) == pytest.approx((0.35, 0.35 - half, 0.35 + half), abs=1e-4)
    assert (one.interval, one.seeds) == ("tasks", 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_uneven_samples_of_any_seed_are_warned_of(seed):
    base = {one: summary([0.5] * 6, tasks=SIX) for one in (1, 2)}
    assert gains.uneven_samples(over_seeds({"base": base, "ours": dict(base)})[0]) == []
    ours = base | {seed: summary([0.5] * 6, n=3, tasks=SIX)}
    per_task, _ = over_seeds({"base": base, "ours": ours})
    assert "t0 (ours 3, baseline 5), t1 (ours 3, baseline 5)" in gains.uneven_samples(per_task)[0]


def test_lower_losses_are_wins_and_tasks_without_options_have_no_rank_accuracy(tmp_path):
    """The columns of further measures are read; the best, and bars to the left, are the lower ones."""
    for name, losses in (("a", [2.0, 1.0, 1.0]), ("b", [1.5, 1.2, 1.0])):
        write_summary(tmp_path / f"{name}.csv", dict(zip(TASKS, [0.5] * 3, strict=False)))
        table = pd.read_csv(tmp_path / f"{name}.csv", index_col=0)
        table["test_answer_loss"] = [value for loss in losses for value in (loss, 0.1)]
        table["test_rank_accuracy"] = [0.5, 0.1, 0.5, 0.1, None, None]  # copa has no options
        table.to_csv(tmp_path / f"{name}.csv")
    words = [
        "--summary1",
        tmp_path / "a.csv",
        "--summary2",
        tmp_path / "b.csv",
        "--metric",
        "test_answer_loss",
    ]
    words += ["--output_file", tmp_path / "out.csv"]
    assert compute_arg.main([str(word) for word in words]) == 0
    row = pd.read_csv(tmp_path / "out_summary.csv").iloc[0]
    assert row[["wins", "losses", "ties", "baseline"]].tolist() == pytest.approx([1, 1, 1, 4 / 3])
    assert row["difference"] == pytest.approx(-0.1)
    text = (tmp_path / "out.md").read_text()
    assert "Mean test_answer_loss ± sample std over samples (n = 5); lower is better." in text
    words[words.index("test_answer_loss")] = "test_rank_accuracy"
    assert compute_arg.main([str(word) for word in words]) == 0
    assert pd.read_csv(tmp_path / "out.csv")["task"].tolist() == ["boolq", "sick"]


def test_the_gain_is_relative_to_the_mean_baseline_of_common_seeds():
    base = {1: summary([0.1, 0.0], tasks=SIX[:2]), 2: summary([0.4, 0.02], tasks=SIX[:2])}
    both = {1: summary([0.3, 0.5], tasks=SIX[:2]), 2: summary([0.3, 0.02], tasks=SIX[:2])}
    per_task, per_system = over_seeds({"base": base, "both": both, "one": {1: both[1]}})
    rows = per_task.set_index(["system", "task"])
    assert rows["baseline"].tolist() == pytest.approx([0.25, 0.1, 0.01, 0.0])
    assert rows["relative_gain"]["both", "t0"] == pytest.approx(0.2)  # 0.05 / 0.25
    assert rows["relative_gain"]["one", "t0"] == pytest.approx(2.0)
    assert rows["in_arg"].tolist() == [True, True, False, False]
    assert per_system["arg"].tolist() == pytest.approx([0.2, 2.0])
    shown = gains.tasks_markdown(per_task[::-1], "base")
    assert shown.splitlines()[3].split(" | ")[1].strip() == "0.250 ± 0.100"  # of both seeds
    with pytest.raises(InputError, match="one: no seed in common with base"):
        over_seeds({"base": {2: base[2]}, "one": {1: both[1]}})


def test_summaries_of_seeds_are_read_by_their_paths(tmp_path, capsys):
    for place, means in (("a/seed1", BASE), ("a/seed2", OURS), ("b/seed2", OTHER)):
        write_summary(tmp_path / place / "s.csv", dict(zip(TASKS, means, strict=True)))
    words = ["--summary1", tmp_path / "a/seed{seed}/s.csv", "--summary2", tmp_path / "b/seed{seed}/s.csv"]
    words = [*map(str, words), "--names", "a", "b", "--output_file", str(tmp_path / "out/gains.csv")]
    assert compute_arg.main([*words, "--seeds", "1", "2"]) == 0
    written = pd.read_csv(tmp_path / "out/gains.csv").set_index("task")
    assert written["baseline"]["boolq"] == pytest.approx(0.6)
    assert written["difference_seed2"]["boolq"] == pytest.approx(0.15)
    assert written["relative_gain"]["boolq"] == pytest.approx(0.25)
    shown = capsys.readouterr().out
    assert "relative to the runs of the baseline with the same seeds" in shown
    assert "| seeds |" in shown
    assert compute_arg.main([*words, "--seeds", "1"]) == 2
    assert "b: no such file with any of --seeds 1" in capsys.readouterr().err
    assert compute_arg.main([word.replace("{seed}", "2") for word in [*words, "--seeds", "1"]]) == 2
    assert "a/seed2/s.csv: --seeds needs {seed} in it" in capsys.readouterr().err


def test_systems_are_found_in_a_folder_or_named_as_runs(tmp_path):
    places = {"a/seed1": BASE, "a/seed2": OURS, "b/seed2": OTHER, "c/seed1": OURS, "c/seed2": OURS}
    for place, means in places.items():
        write_summary(tmp_path / "all" / place / "summary.csv", dict(zip(TASKS, means, strict=True)))
    words = [str(tmp_path / "all"), "--output_file", str(tmp_path / "out.csv")]
    assert compute_arg.main([*words, "--baseline", "a"]) == 0
    written = pd.read_csv(tmp_path / "out.csv").set_index(["task", "system"]).loc["boolq"]
    assert written["seeds"].to_dict() == {"b": 1, "c": 2}
    assert written["difference"].tolist() == pytest.approx([0.15, 0.05])  # b to a of seed 2
    words[0:1] = [str(tmp_path / "all" / name) for name in ("a/seed1", "b/seed2")]
    for flags, difference in (((), 0.25), (("--baseline", "b"), -0.25)):
        assert compute_arg.main([*words, *flags]) == 0
        written = pd.read_csv(tmp_path / "out.csv").set_index("task")
        assert (written["difference"]["boolq"], "seeds" in written) == (pytest.approx(difference), False)


def test_runs_without_summaries_are_compared_by_the_scores_of_unseen_tasks(tmp_path):
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
    for name, of_unseen in (("a", 0.5), ("b", 0.75), ("c", None)):
        (tmp_path / name / "best").mkdir(parents=True)
        for section, score in (("", 0.1), ("test_tasks-", of_unseen)):
            path = tmp_path / name / f"best/eval-{section}test-performance.csv"
            table = pd.DataFrame([("boolq", "boolq_16_100", "ACC", score, 8, 0.0)], columns=columns)
            table[table["performance"].notna()].to_csv(path)
    (tmp_path / "c/best/eval-test_tasks-test-performance.csv").unlink()
    for names, difference in (("ab", 0.25), ("ac", 0.0)):  # c has no scores of unseen tasks
        runs = [str(tmp_path / name) for name in names]
        assert compute_arg.main([*runs, "--output_file", str(tmp_path / "out.csv")]) == 0
        assert pd.read_csv(tmp_path / "out.csv")["difference"].tolist() == [difference]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "name folders with runs, or summaries by --summary1 and --summary2"),
        (["all"], "--baseline is missing (there are a, b)"),
        (["all", "--baseline", "bb"], "--baseline bb: no such system; did you mean 'b'? (there are a, b)"),
        (["all", "--seeds", "1"], "--seeds: for summaries that are named, not for those of folders"),
        (["all/a/seed1", "all/a/seed2"], "a is the only system with summary.csv"),
        (["all/a/none"], "all/a/none: no such folder"),
    ],
)
def test_folders_that_name_no_systems_are_errors(tmp_path, monkeypatch, capsys, words, problem):
    monkeypatch.chdir(tmp_path)
    for place in ("a/seed1", "a/seed2", "b/seed1"):
        write_summary(tmp_path / "all" / place / "summary.csv", {"boolq": 0.5})
    assert compute_arg.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
