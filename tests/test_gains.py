"""Gains over a baseline: hand-computed numbers, small baselines, tables, the script."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

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


def test_the_interval_is_students_t_over_at_least_six_tasks():
    tasks = [f"t{n}" for n in range(7)]
    base = summary([0.5] * 6 + [0.0], tasks=tasks)
    ours = summary([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.1], tasks=tasks)
    _, per_system = tables_of({"base": base, "ours": ours})
    # gains 0, 0.1 ... 0.5: mean 0.25, variance 0.035, standard error sqrt(0.035 / 6); t of 5 degrees: 2.5706
    half = 2.5706 * (0.035 / 6) ** 0.5
    assert per_system[["low", "high"]].values.tolist()[0] == pytest.approx(
        [0.25 - half, 0.25 + half], abs=1e-5
    )
    assert per_system["interval"].tolist() == ["tasks"]
    _, few = tables_of({"base": base[1:], "ours": ours[1:]})
    assert few[["low", "high"]].isna().all(axis=None)
    assert few["interval"].tolist() == ["too few tasks (5)"]
    assert "| +30.0%, too few tasks (5) |" in gains.systems_markdown(few, "base")


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
    shown = gains.systems_markdown(per_system, "base").splitlines()[3]
    assert f"| +0.035 [{ends.low:+.3f}, {ends.high:+.3f}] (tasks alone) |" in shown
    assert f"| {row['detectable']:.3f} |" in " ".join(shown.split())


@pytest.mark.parametrize("baseline", [0.0, 0.01, -0.2])
def test_a_baseline_at_below_or_near_zero_has_no_relative_gain(baseline):
    assert np.isnan(gains.relative_gains([0.3, 0.9], [baseline, 0.3], 0.3)).all()
    per_task, per_system = tables_of({"base": summary([baseline, 0.5]), "ours": summary([0.3, 0.6])})
    assert per_task["in_arg"].tolist() == [False, True]
    assert per_task["difference"][0] == pytest.approx(0.3 - baseline)
    assert per_system[["arg", "wins", "n", "excluded"]].values.tolist()[0] == pytest.approx([0.2, 2, 2, 1])
    _, rounded = tables_of({"base": summary([0.1 + 0.2, 0.5]), "ours": summary([0.3, 0.6])})
    assert rounded[["wins", "losses", "ties"]].values.tolist() == [[1, 0, 1]]


def test_unequal_numbers_of_samples_are_a_warning():
    even, _ = tables_of({"base": summary(BASE), "ours": summary(OURS)})
    assert gains.uneven_samples(even) == []
    uneven, _ = tables_of({"base": summary(BASE), "ours": summary(OURS, n=3)})
    assert "boolq (ours 3, baseline 5)" in gains.uneven_samples(uneven)[0]
    assert "(n = 3 to 5)" in gains.explain_gains(uneven, "base", "test_performance", 0.01)[0]


# ---------------------------------------------------------------------------- tables


def test_markdown_shows_scores_gains_and_marked_differences():
    per_task, per_system = tables_of({"base": summary(BASE), "ours": summary(OURS, std=np.nan)})
    lines = gains.tasks_markdown(per_task, "base").splitlines()
    assert lines[2] == "| boolq | 0.500 ± 0.100 |   0.600 (+20.0%) |"
    assert lines[5] == "| emo   | 0.000 ± 0.100 | 0.100 (+0.100 †) |"
    cells = [cell.strip() for cell in gains.systems_markdown(per_system, "base").splitlines()[3].split("|")]
    assert cells[1:6] == ["ours", "0.300", "-10.0%, too few tasks (3)", "+0.0%", "2"]
    explained = "\n".join(gains.explain_gains(per_task, "base", "test_performance", 0.01))
    assert "at or below 0.01 (marked †)" in explained
    assert "Difference: mean over tasks (and seeds); in brackets the 95% t interval" in explained


# ---------------------------------------------------------------------------- the script


def refusal(capsys, *args, **fields):
    assert call(*args, **fields) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return "\n".join(lines)


def test_the_script_writes_five_files_that_agree(files, capsys):
    assert call(files, "ours", "other") == 0
    names = sorted(path.name for path in (files / "out").iterdir())
    assert names == [f"gains{end}" for end in (".csv", ".md", ".pdf", ".png", "_summary.csv")]
    per_task = pd.read_csv(files / "out/gains.csv")
    assert per_task["system"].tolist() == ["ours", "other"] * 4
    assert per_task["relative_gain"].tolist()[:2] == pytest.approx([0.2, 0.5])
    per_system = pd.read_csv(files / "out/gains_summary.csv").set_index("system")
    assert per_system.columns.tolist() == [
        "arg", "low", "high", "median", "wins", "losses", "ties", "difference", "difference_low",
        "difference_high", "p", "detectable", "difference_interval", "n", "excluded", "baseline", "score",
        "interval", "p_holm",
    ]  # fmt: skip
    assert per_system.loc["ours", "arg"] == pytest.approx(-0.1)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert (files / "out/gains.md").read_text() in printed.out
    assert "If the baseline is at or below 0.01" in printed.out


def test_without_an_output_file_the_tables_are_named_after_the_summaries(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    summaries = ["--summary1", "base.csv", "--summary2", "ours.csv", "other.csv"]
    assert compute_arg.main(summaries) == 0
    assert compute_arg.main([*summaries, "--names", "one BART", "a/b", "c"]) == 0
    tables = sorted(path.name for path in (files / "results_summary").glob("*_summary.csv"))
    assert tables == ["CMP_base_ours_other_summary.csv", "CMP_one-BART_a-b_c_summary.csv"]
    assert "results_summary/CMP_base_ours_other.csv, _summary.csv" in capsys.readouterr().out


def test_tasks_missing_in_some_summaries_are_listed_and_the_others_compared(files, capsys):
    write_summary(files / "less.csv", {"boolq": 0.6, "new": 0.1, "emo": np.nan})
    assert call(files, "less", flags=["--min_baseline", "0.5"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        *("base: lacks new", "less: lacks sick, copa", "less: no mean test_performance of emo")
    ]
    assert pd.read_csv(files / "out/gains.csv")[["task", "in_arg"]].values.tolist() == [["boolq", False]]
    assert "- less: lacks sick, copa" in (files / "out/gains.md").read_text()


def test_summaries_that_cannot_be_compared_are_reported(files, capsys):
    write_summary(files / "else.csv", {"new": 0.6})
    output = refusal(capsys, files, "else")
    assert "else: lacks boolq, sick, copa, emo" in output
    assert "no task has a mean test_performance in every summary" in output
    (files / "bad.csv").write_text("a,b\n1,2\n")
    output = refusal(capsys, files, "bad", "nowhere")
    assert "bad.csv holds no summary as collect_results.py writes it: no column task, entry" in output
    assert "nowhere.csv: no such file" in output
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("systems", "flags", "words"),
    [
        (("ours", "ours"), (), "ours.csv is given twice"),
        (("ours",), ("--names", "a"), "expected 2 different names"),
        (("ours",), ("--names", "a", "a"), "expected 2 different names"),
        (("ours",), ("--min_baseline", "-1"), "--min_baseline is -1.0; it must be 0 or greater"),
        (("ours",), ("--output_file", "base.csv/x"), "the name must end in .csv"),
        (("ours",), ("--output_file", "ours.csv"), "is one of the summaries; name another file"),
    ],
)
def test_invalid_flags_are_reported(files, capsys, monkeypatch, systems, flags, words):
    monkeypatch.chdir(files)
    assert words in refusal(capsys, files, *systems, flags=flags)
