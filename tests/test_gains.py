"""Gains over a baseline, of one and of several seeds: hand-computed numbers, tables, the command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from dataloader.errors import InputError
from routing_moe.cli import compute_arg
from routing_moe.results import gains

pytestmark = pytest.mark.usefixtures("empty_pictures")

TASKS = ["boolq", "sick", "copa", "emo"]
BASE = [0.5, 0.2, 0.4, 0.0]
OURS = [0.6, 0.1, 0.4, 0.1]  # gains 0.1/0.5 = 0.2, -0.1/0.2 = -0.5, 0, not defined
OTHER = [0.75, 0.4, 0.6, 0.0]  # gains 0.5, 1.0, 0.5, not defined


def summary(means, std=0.1, n=5, tasks=None):
    index = pd.Index(tasks or TASKS[: len(means)], name="task")
    return pd.DataFrame({"mean": means, "std": std, "n": float(n)}, index=index)


def tables_of(summaries, **fields):
    tasks, _ = gains.common_tasks(summaries, "test_performance")
    per_task = gains.gains_per_task({name: {0: s} for name, s in summaries.items()}, tasks, **fields)
    return per_task, gains.gains_per_system(per_task)


def write_summary(path, means, stds=0.1, n=5, dev=0.5):
    """Writes a file like collect_results.py does, with means and stds only."""
    rows = []
    for task, mean in means.items():
        rows += [(task, "mean", dev, mean, n), (task, "std", 0.0, stds, n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["task", "entry", "dev_performance", "test_performance", "n"]
    pd.DataFrame(rows, columns=columns).to_csv(path)
    return path


@pytest.fixture
def files(tmp_path):
    """Summaries base.csv, ours.csv and other.csv in one folder."""
    for name, means in (("base", BASE), ("ours", OURS), ("other", OTHER)):
        write_summary(tmp_path / f"{name}.csv", dict(zip(TASKS, means, strict=True)))
    return tmp_path


def call(files, *systems, flags=(), base="base"):
    words = ["--summary1", files / f"{base}.csv", "--output_file", files / "out/gains.csv"]
    words += ["--summary2", *(files / f"{name}.csv" for name in systems or ["ours"]), *flags]
    return compute_arg.main([str(word) for word in words])


# ---------------------------------------------------------------------------- numbers


def test_arg_is_the_mean_of_the_relative_gains_of_tasks_with_a_baseline():
    per_task, per_system = tables_of({"base": summary(BASE), "ours": summary(OURS), "other": summary(OTHER)})
    ours = per_task[per_task["system"] == "ours"].set_index("task")
    assert ours["difference"].tolist() == pytest.approx([0.1, -0.1, 0.0, 0.1])
    assert ours["relative_gain"].tolist()[:3] == pytest.approx([0.2, -0.5, 0.0])
    assert ours["in_arg"].tolist() == [True, True, True, False]
    row = per_system.set_index("system").loc["ours"]
    assert row["arg"] == pytest.approx(-0.1)  # (0.2 - 0.5 + 0) / 3
    assert row["median"] == pytest.approx(0.0)
    # emo, which has no relative gain, is a win; copa is a tie
    assert row[["wins", "losses", "ties", "n", "excluded"]].tolist() == [2, 1, 1, 4, 1]
    assert row[["baseline", "score"]].tolist() == pytest.approx([0.275, 0.3])
    other = per_system.set_index("system").loc["other"]
    assert other[["arg", "median"]].tolist() == pytest.approx([2 / 3, 0.5])


def test_the_mean_difference_has_the_interval_and_the_test_of_its_design():
    """A system that is better in six tasks, by hand, and p corrected for the number of systems."""
    tasks = [f"t{n}" for n in range(6)]
    better = {f"system {n}": summary([0.5 + 0.01 * (i + 1) for i in range(6)], tasks=tasks) for n in range(2)}
    worse = summary([0.4, 0.6, 0.35, 0.65, 0.3, 0.72], tasks=tasks)
    base = summary([0.5] * 6, tasks=tasks)
    _, per_system = tables_of({"base": base, **better, "mixed": worse})
    known = ttest_1samp([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], 0.0)
    row = per_system.iloc[0]
    ends = known.confidence_interval(0.95)
    assert row[["difference", "difference_low", "difference_high", "p"]].tolist() == pytest.approx(
        [0.035, ends.low, ends.high, known.pvalue]
    )
    assert row["difference_interval"] == "tasks"
    assert per_system["p_holm"].tolist() == pytest.approx([3 * row["p"]] * 2 + [per_system["p"][2]])


@pytest.mark.parametrize("baseline", [0.01, -0.2])
def test_a_baseline_below_or_near_zero_has_no_relative_gain(baseline):
    assert np.isnan(gains.relative_gains([0.3, 0.9], [baseline, 0.3], 0.3)).all()
    per_task, per_system = tables_of({"base": summary([baseline, 0.5]), "ours": summary([0.3, 0.6])})
    assert per_task["in_arg"].tolist() == [False, True]
    assert per_task["difference"][0] == pytest.approx(0.3 - baseline)
    assert per_system[["arg", "wins", "n", "excluded"]].values.tolist()[0] == pytest.approx([0.2, 2, 2, 1])
    _, rounded = tables_of({"base": summary([0.1 + 0.2, 0.5]), "ours": summary([0.3, 0.6])})
    assert rounded[["wins", "losses", "ties"]].values.tolist() == [[1, 0, 1]]


def test_markdown_shows_scores_gains_and_marked_differences():
    per_task, per_system = tables_of({"base": summary(BASE), "ours": summary(OURS, std=np.nan)})
    lines = gains.tasks_markdown(per_task, "base").splitlines()
    assert lines[2] == "| boolq | 0.500 ± 0.100 |   0.600 (+20.0%) |"
    assert lines[5] == "| emo   | 0.000 ± 0.100 | 0.100 (+0.100 †) |"
    cells = [cell.strip() for cell in gains.systems_markdown(per_system, "base").splitlines()[3].split("|")]
    assert cells[1:6] == ["ours", "0.300", "-10.0%, too few tasks (3)", "+0.0%", "2"]


# ---------------------------------------------------------------------------- the script


def refusal(capsys, *args, **fields):
    assert call(*args, **fields) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return "\n".join(lines)


def test_the_script_writes_five_files_that_agree_and_are_named_after_the_systems(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    summaries = ["--summary1", "base.csv", "--summary2", "ours.csv", "other.csv"]
    assert compute_arg.main(summaries) == 0
    stem = "results_summary/CMP_base_ours_other"
    written = sorted(path.as_posix() for path in Path("results_summary").iterdir())
    assert written == [f"{stem}{end}" for end in (".csv", ".md", ".pdf", ".png", "_summary.csv")]
    per_task = pd.read_csv(f"{stem}.csv")
    assert per_task["system"].tolist() == ["ours", "other"] * 4
    assert per_task["relative_gain"].tolist()[:2] == pytest.approx([0.2, 0.5])
    per_system = pd.read_csv(f"{stem}_summary.csv").set_index("system")
    assert per_system.loc["ours", "arg"] == pytest.approx(-0.1)
    printed = capsys.readouterr().out
    assert Path(f"{stem}.md").read_text() in printed
    assert f"{stem}.csv, _summary.csv" in printed
    assert compute_arg.main([*summaries, "--names", "one BART", "a/b", "c"]) == 0
    assert Path("results_summary/CMP_one-BART_a-b_c.csv").is_file()


def test_tasks_missing_in_some_summaries_are_listed_and_the_others_compared(files, capsys):
    write_summary(files / "less.csv", {"boolq": 0.6, "new": 0.1, "emo": np.nan})
    assert call(files, "less", flags=["--min_baseline", "0.5"]) == 1
    lines = ["base: no test_performance of new", "less: no test_performance of sick, copa, emo"]
    assert capsys.readouterr().err.splitlines() == lines
    assert pd.read_csv(files / "out/gains.csv")[["task", "in_arg"]].values.tolist() == [["boolq", False]]
    assert f"- {lines[1]}" in (files / "out/gains.md").read_text()


@pytest.mark.parametrize(
    ("systems", "flags", "words"),
    [
        ("else", (), "no task has a mean test_performance in every summary"),
        ("bad", (), "bad.csv holds no summary"),
        ("ours ours", (), "ours.csv is given twice"),
        ("ours", ("--names", "a", "a"), "expected 2 different names"),
        ("ours", ("--baseline", "base"), "--baseline base: for systems of FOLDER; of summaries,"),
        ("ours", ("--output_file", "base.csv/x"), "the name must end in .csv"),
        ("ours", ("--output_file", "ours.csv"), "is one of the summaries; name another file"),
        ("ours", ("--output_file", "folder.csv"), "folder.csv is a folder; name a file"),
        ("ours", ("--output_file", "notes.csv"), "notes.csv would replace notes.md"),
    ],
)
def test_summaries_that_cannot_be_compared_are_reported(files, capsys, monkeypatch, systems, flags, words):
    monkeypatch.chdir(files)
    write_summary(files / "else.csv", {"new": 0.6})
    (files / "bad.csv").write_text("a,b\n1,2\n")
    (files / "folder.csv").mkdir()
    (files / "notes.md").write_text("mine")
    assert words in refusal(capsys, files, *systems.split(), flags=flags)
    assert not (files / "out").exists()


# ---- several seeds

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


def test_uneven_samples_of_any_seed_are_warned_of():
    base = {seed: summary([0.5] * 6, tasks=SIX) for seed in (1, 2)}
    assert gains.uneven_samples(over_seeds({"base": base, "ours": dict(base)})[0]) == []
    ours = base | {2: summary([0.5] * 6, n=3, tasks=SIX)}
    per_task, _ = over_seeds({"base": base, "ours": ours})
    assert "unequal numbers of samples in t0, t1" in gains.uneven_samples(per_task)[0]
    assert "(n = 3 to 5)" in gains.explain_gains(per_task, "base", "test_performance", 0.01)[0]


def test_tasks_without_options_have_no_rank_accuracy(files):
    for path in files.glob("*.csv"):
        table = pd.read_csv(path, index_col=0)
        accuracies = table["test_performance"].where(table["task"] != "copa")  # which has no options
        table.assign(test_rank_accuracy=accuracies).to_csv(path)
    assert call(files, flags=["--metric", "test_rank_accuracy"]) == 0
    assert pd.read_csv(files / "out/gains.csv")["task"].tolist() == ["boolq", "sick", "emo"]


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


def test_differences_that_cancel_over_seeds_are_ties():
    base = {seed: summary([0.5, 0.5], tasks=SIX[:2]) for seed in (1, 2, 3)}
    ours = {
        seed: summary([mean] * 2, tasks=SIX[:2]) for seed, mean in zip(base, (0.6, 0.7, 0.2), strict=True)
    }
    _, per_system = over_seeds({"base": base, "ours": ours})
    assert per_system[["wins", "losses", "ties"]].values.tolist() == [[0, 0, 2]]


@pytest.fixture
def by_seed(tmp_path, monkeypatch):
    """Summaries of three systems and of two seeds of two of them, in folders of the working folder."""
    monkeypatch.chdir(tmp_path)
    places = {"a/seed1": BASE, "a/seed2": OURS, "b/seed2": OTHER, "c/seed1": OURS, "c/seed2": OURS}
    for place, means in places.items():
        write_summary(tmp_path / "all" / place / "summary.csv", dict(zip(TASKS, means, strict=True)))


def test_systems_are_found_in_a_folder_or_named_as_runs(by_seed, capsys):
    assert compute_arg.main(["all", "--output_file", "out.csv", "--baseline", "a"]) == 0
    assert capsys.readouterr().err == "b: no summary of seed 1\n"
    written = pd.read_csv("out.csv").set_index(["task", "system"]).loc["boolq"]
    assert written["seeds"].to_dict() == {"b": 1, "c": 2}
    assert written["difference"].tolist() == pytest.approx([0.15, 0.05])  # b to a of seed 2
    for flags, difference in (((), 0.25), (("--baseline", "b"), -0.25)):
        assert compute_arg.main(["all/a/seed1", "all/b/seed2", "--output_file", "out.csv", *flags]) == 0
        written = pd.read_csv("out.csv").set_index("task")
        assert (written["difference"]["boolq"], "seeds" in written) == (pytest.approx(difference), False)


def test_two_runs_of_a_system_with_the_same_seed_are_an_error(by_seed, capsys):
    write_summary(Path("all/a/1/summary.csv"), dict(zip(TASKS, OTHER, strict=True)))
    assert compute_arg.main(["all", "--output_file", "out.csv", "--baseline", "a"]) == 2
    both = "all/a/1/summary.csv and all/a/seed1/summary.csv are both of seed 1 of a"
    assert capsys.readouterr().err == f"error: {both}; keep only one of them there\n"


def test_runs_that_all_lack_summaries_are_compared_by_the_scores_of_unseen_tasks(tmp_path, capsys):
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]  # a task may be called "NA"
    for name, of_unseen in (("a", 0.5), ("b", 0.75), ("c", None)):
        (tmp_path / name / "best").mkdir(parents=True)
        for section, score in (("", 0.1), ("test_tasks-", of_unseen)):
            path = tmp_path / name / f"best/eval-{section}test-performance.csv"
            table = pd.DataFrame([("NA", "NA_16_100", "ACC", score, 8, 0.0)], columns=columns)
            table[table["performance"].notna()].to_csv(path)
    (tmp_path / "c/best/eval-test_tasks-test-performance.csv").unlink()
    for names, difference in (("ab", 0.25), ("ac", 0.0)):  # c has no scores of unseen tasks
        runs = [str(tmp_path / name) for name in names]
        assert compute_arg.main([*runs, "--output_file", str(tmp_path / "out.csv")]) == 0
        assert pd.read_csv(tmp_path / "out.csv")["difference"].tolist() == [difference]
    write_summary(tmp_path / "a/summary.csv", dict(zip(TASKS, BASE, strict=True)))
    assert compute_arg.main([*runs, "--output_file", str(tmp_path / "out.csv")]) == 2
    assert f"error: {runs[1]} holds no runs; expected summary.csv in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "name folders with runs, or summaries by --summary1 and --summary2"),
        (["all"], "--baseline is missing (there are a, b, c)"),
        (["all", "--baseline", "bb"], "--baseline bb: no such system; did you mean 'b'? (there are a, b, c)"),
        (["all/a/seed1", "all/a/seed2"], "a is the only system with summary.csv"),
    ],
)
def test_folders_that_name_no_systems_are_errors(by_seed, capsys, words, problem):
    assert compute_arg.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
