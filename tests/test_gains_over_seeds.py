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
    per_task = gains.gains_over_seeds(by_seed, tasks, gains.gains_per_task, min_baseline)
    return per_task, gains.gains_per_system(per_task)


def test_with_seeds_the_interval_is_the_two_way_t_interval():
    base = {seed: summary([0.5] * 6, tasks=SIX) for seed in (1, 2, 3)}
    ours = {1: summary(OF_SEED_1, std=0.3, tasks=SIX), 2: summary(OF_SEED_2, std=0.4, tasks=SIX)}
    per_task, per_system = over_seeds({"base": base, "ours": ours, "one": {2: ours[2]}})
    first = per_task.iloc[0]
    assert first[["system", "seeds"]].tolist() == ["ours", 2]
    assert first[["difference_seed1", "difference_seed2", "difference"]].tolist() == [0.0, 0.05, 0.025]
    assert first[["score", "relative_gain"]].tolist() == pytest.approx([0.525, 0.05])
    assert first["std"] == pytest.approx(((0.3**2 + 0.4**2) / 2) ** 0.5)
    # Means of tasks 0.05 ... 0.55 with variance 0.035, of seeds 0.25 and 0.35 with variance 0.005:
    # MS_tasks = 2 * 0.035, MS_seeds = 6 * 0.005, squared error (0.07 + 0.03) / 12; degrees of freedom
    # 0.1^2 / (0.07^2 / 5 + 0.03^2 / 1) = 5.319, whose t is 2.5245
    row, one = per_system.itertuples()
    half = 2.5245 * (0.1 / 12) ** 0.5
    assert (row.arg, row.low, row.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=1e-4)
    assert (row.interval, row.seeds) == ("seeds x tasks", 2)
    half = 2.5706 * (0.035 / 6) ** 0.5  # as with a summary of one seed
    assert (one.arg, one.low, one.high) == pytest.approx((0.35, 0.35 - half, 0.35 + half), abs=1e-4)
    assert (one.interval, one.seeds) == ("tasks", 1)


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
    assert "b/seed{seed}/s.csv: no such file with any of --seeds 1" in capsys.readouterr().err
    assert compute_arg.main([word.replace("{seed}", "2") for word in [*words, "--seeds", "1"]]) == 2
    assert "a/seed2/s.csv: --seeds needs {seed} in it" in capsys.readouterr().err
