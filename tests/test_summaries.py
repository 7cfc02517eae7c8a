"""Results of fine-tuning in one table: means, missing results, unreadable files, the script."""

import json

import pandas as pd
import pytest

from dataloader.errors import InputError
from routing_moe.cli import collect_results
from routing_moe.results.few_shot import read_summary

COLUMNS = ["prefix", "lr", "bsz", "dev_performance", "test_performance"]
BOOLQ = {"boolq_16_100": (0.5, 0.4), "boolq_16_13": (0.7, 0.8), "boolq_16_21": (0.6, 0.6)}
SICK = {"sick_16_100": (0.1, -0.2), "sick_16_13": (0.3, 0.0), "sick_16_21": (0.2, 0.2)}


def write_results(folder, best, name="results.csv", extra=(), samples=None, **columns):
    """Writes a task folder with two configurations of each sample and its best row; `extra`: more rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for sample, (dev, test) in best.items():
        rows += [(sample, 1e-5, 8, dev - 0.1, None), (sample, 2e-5, 8, dev, test)]
        rows.append((f"{sample}_best", 2e-5, 8, dev, test))
    pd.DataFrame([*rows, *extra], columns=COLUMNS).assign(**columns).to_csv(folder / name)
    if samples is not None:
        (folder / "run.json").write_text(json.dumps({"settings": {"samples": samples}}))
    return folder / name


@pytest.fixture
def logs(tmp_path):
    """Two complete tasks, and other files and folders."""
    write_results(tmp_path / "logs/singletask-boolq", BOOLQ, best_step=20, route="fixed")
    write_results(tmp_path / "logs/sick", SICK, samples=list(SICK))
    (tmp_path / "logs/text_vectors").mkdir()
    (tmp_path / "logs/times.csv").write_text("x\n")
    return tmp_path / "logs"


def call(logs, *flags):
    """Returns the exit code, and the table if one was written."""
    output = logs.parent / "tables/out.csv"
    words = ["--logs_dir", logs, "--output_file", output, *flags]
    code = collect_results.main(list(map(str, words)))
    return code, pd.read_csv(output, index_col=0) if output.exists() else None


def cells(table, task, entry):
    row = table[(table["task"] == task) & (table["entry"] == entry)]
    return row[["dev_performance", "test_performance", "n"]].values.tolist()[0]


def test_a_task_has_its_samples_best_then_mean_and_sample_std(logs, capsys):
    code, table = call(logs)
    assert code == 0
    assert table.columns.tolist() == ["task", "entry", "dev_performance", "test_performance", "n"]
    assert table["task"].tolist() == ["boolq"] * 5 + ["sick"] * 5
    assert table["entry"].tolist()[:5] == [*BOOLQ, "mean", "std"]
    assert cells(table, "boolq", "boolq_16_13") == [0.7, 0.8, 1]
    # dev 0.5, 0.7, 0.6: mean 0.6, squared distances 0.01 + 0.01 + 0 over n - 1 = 2: std 0.1
    # test 0.4, 0.8, 0.6: mean 0.6, squared distances 0.04 + 0.04 + 0 over 2: std 0.2
    assert cells(table, "boolq", "mean") == pytest.approx([0.6, 0.6, 3])
    assert cells(table, "boolq", "std") == pytest.approx([0.1, 0.2, 3])
    assert cells(table, "sick", "mean") == pytest.approx([0.2, 0.0, 3])
    assert capsys.readouterr().out.splitlines()[2:7] == [
        "| task              |           dev |          test |  n |",
        "| ----------------- | ------------: | ------------: | -: |",
        "| boolq             | 0.600 ± 0.100 | 0.600 ± 0.200 |  3 |",
        "| sick              | 0.200 ± 0.100 | 0.000 ± 0.200 |  3 |",
        "| mean of the tasks |         0.400 |         0.300 |  2 |",
    ]


def test_results_of_the_published_code_are_read_if_there_are_none_of_ours(tmp_path):
    diverged = [("boolq_16_13", 1.0, 8, None, None)]
    write_results(tmp_path / "logs/singletask-boolq", BOOLQ, "result.csv", extra=diverged)
    write_results(tmp_path / "logs/singletask-sick", BOOLQ, "result.csv")
    write_results(tmp_path / "logs/singletask-sick", SICK, "results.csv")
    code, table = call(tmp_path / "logs")
    assert code == 0
    assert cells(table, "boolq", "mean") == pytest.approx([0.6, 0.6, 3])
    assert cells(table, "sick", "mean") == pytest.approx([0.2, 0.0, 3])


def test_the_scores_of_one_sample_have_no_std_and_rows_of_another_postfix_are_collected(tmp_path, capsys):
    rows = [("boolq_16_100_zeroshot", None, None, 0.2, None), ("boolq_16_13_zeroshot", None, None, 0.4, None)]
    write_results(tmp_path / "logs/boolq", {"boolq_16_100": (0.5, 0.4)}, extra=rows)
    _, table = call(tmp_path / "logs")
    assert cells(table, "boolq", "mean") == [0.5, 0.4, 1]
    assert table[table["entry"] == "std"].isna().sum(axis=1).tolist() == [2]
    capsys.readouterr()
    _, table = call(tmp_path / "logs", "--postfix", "_zeroshot")
    assert table["entry"].tolist() == ["boolq_16_100", "boolq_16_13", "mean", "std"]
    assert cells(table, "boolq", "mean")[::2] == pytest.approx([0.3, 2])  # dev alone: no sample was tested
    assert "| 0.300 ± 0.141 |    - |  2 |" in capsys.readouterr().out


def test_missing_samples_and_scores_are_listed_and_means_are_of_the_samples_with_both(logs, capsys):
    best, samples = {"copa_16_100": (0.5, 0.5)}, ["copa_16_100", "copa_16_13", "copa_16_21"]
    write_results(logs / "copa", best, extra=[("copa_16_13", 1e-5, 8, 0.4, None)], samples=samples)
    write_results(logs / "emo", {"c_1": (0.5, 0.4), "c_2": (0.9, None), "c_3": (0.7, 0.8)})
    write_results(logs / "wic", {"wic_16_100": (0.5, 0.5)})
    code, table = call(logs)
    assert code == 1
    assert capsys.readouterr().err.splitlines() == [
        "partial: copa: no best configuration: copa_16_13, copa_16_21",
        "partial: emo: no test score: c_2",
        "partial: wic: number of samples is 1, of other tasks 3",
    ]
    assert cells(table, "copa", "mean") == [0.5, 0.5, 1]
    assert cells(table, "emo", "mean") == pytest.approx([0.6, 0.6, 2])  # c_2 in neither
    assert cells(table, "emo", "c_2")[0] == 0.9


def test_a_task_of_two_folders_does_not_count_twice(logs, capsys):
    other = write_results(logs / "boolq-high-rate", {"boolq_16_7": (0.5, 0.4)})
    assert call(logs) == (2, None)
    both = f"{logs}/singletask-boolq/results.csv and {other} both hold results of boolq; keep only one"
    assert capsys.readouterr().err.startswith(f"error: {both}")
    code, table = call(logs, "--tasks", "boolq-high-rate", "sick")
    assert (code, table["task"].unique().tolist()) == (1, ["boolq-high-rate", "sick"])


def test_tasks_without_results_are_listed_of_all_or_of_those_that_flags_name(logs, capsys, tmp_path):
    (logs / "singletask-copa").mkdir()
    assert call(logs)[0] == 1
    missing = "missing: {0}: no singletask-{0}/results.csv or {0}/results.csv\n"
    assert capsys.readouterr().err == missing.format("copa")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["copa"], "dev": ["sick"], "test": ["boolq", "emo"]}))
    for flags in (["--tasks", "boolq", "emo"], ["--custom_tasks_splits", split]):
        code, table = call(logs, *flags)
        assert code == 1
        assert table["task"].unique().tolist() == ["boolq"]  # the named ones only
        assert capsys.readouterr().err == missing.format("emo")
    assert call(logs, "--custom_tasks_splits", split, "--section", "dev")[0] == 0


def refusal(capsys, logs, *flags):
    code, table = call(logs, *flags)
    assert (code, table) == (2, None)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return "\n".join(lines)


def test_a_folder_without_results_is_reported(logs, tmp_path, capsys):
    assert "nowhere: no such folder" in refusal(capsys, tmp_path / "nowhere")
    assert "--section dev: of a split" in refusal(capsys, logs, "--section", "dev")
    message = "holds no task folder (expected singletask-<task>/results.csv"
    assert message in refusal(capsys, logs / "text_vectors")
    write_results(tmp_path / "new/boolq", {}, extra=[("boolq_16_13", 1e-5, 8, 0.4, None)])
    assert "no row of a finished sample (<sample>_best)" in refusal(capsys, tmp_path / "new")


def test_unreadable_files_are_named(logs, capsys):
    (logs / "singletask-boolq/results.csv").write_text(",prefix,dev_performance\n0,b_best,1\n")
    (logs / "sick/results.csv").write_text("")
    write_results(logs / "copa", {"c_1": (0.5, 0.4)}, extra=[("c_2_best", 0, 8, "high", 0.5)])
    write_results(logs / "emo", {"e_1": (0.5, 0.4)}, extra=[("e_1_best", 0, 8, 0.1, 0.2)])
    for task, words in {
        "boolq": "singletask-boolq/results.csv holds no results of fine-tuning: no column test_performance",
        "sick": "sick/results.csv: cannot be read (",
        "copa": "copa/results.csv: column dev_performance holds values that are not numbers, such as 'high'",
        "emo": "emo/results.csv: more than one row of e_1_best",
    }.items():
        assert words in refusal(capsys, logs, "--tasks", task)
    write_results(logs / "boolq", BOOLQ)
    assert "both hold results of boolq" in refusal(capsys, logs)


def test_the_summary_replaces_no_results_of_a_task_and_no_other_table(logs, capsys, monkeypatch):
    monkeypatch.chdir(logs)
    words = refusal(capsys, logs, "--output_file", "sick/results.csv")
    assert "would replace the results of a task" in words
    (logs / "mine.csv").write_text("task,score\nboolq,0.5\n")
    words = refusal(capsys, logs, "--output_file", "mine.csv")
    assert "--output_file mine.csv is not a table of this command; name another file" in words
    assert call(logs)[0] == call(logs)[0] == 0  # its own table is written again


def test_a_written_summary_is_read_unchanged(logs):
    call(logs)
    summary = read_summary(logs.parent / "tables/out.csv")
    assert summary.index.tolist() == ["boolq", "sick"]
    assert summary.loc["boolq", ["mean", "std", "n"]].tolist() == pytest.approx([0.6, 0.2, 3])
    assert summary["metric"].tolist() == ["ACC", "Classification-F1"]
    dev = read_summary(logs.parent / "tables/out.csv", "dev_performance")
    assert dev.loc["sick", ["mean", "std", "n"]].tolist() == pytest.approx([0.2, 0.1, 3])


PUBLISHED = """,task,entry,dev_performance,test_performance
0,boolq,boolq_16_100,0.5,0.4
1,boolq,boolq_16_13,0.7,0.8
2,boolq,mean,0.6,0.6
3,boolq,std,0.1,0.2
4,,,,
5,nan,nan_16_100,0.5,
6,nan,mean,0.5,
7,nan,std,0.0,
8,,,,
"""


def test_a_published_summary_is_read_with_the_sample_std(tmp_path):
    (tmp_path / "s.csv").write_text(PUBLISHED)
    summary = read_summary(tmp_path / "s.csv")
    assert summary.index.tolist() == ["boolq", "nan"]
    # of 0.4 and 0.8: squared distances 0.04 + 0.04 over n - 1 = 1; the file's 0.2 is over n = 2
    assert summary.loc["boolq", ["mean", "std", "n"]].tolist() == pytest.approx([0.6, 0.08**0.5, 2])
    assert summary.loc["nan", ["mean", "std"]].isna().all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",prefix,test_performance\n0,a,1\n", "no column task, entry"),
        (PUBLISHED.replace("mean,0.6,0.6", 'mean,0.6,"0,6"'), "not numbers, such as '0,6'"),
        (PUBLISHED.replace("mean,0.6,0.6", "mean,0.6,inf"), "column test_performance holds an infinite"),
        ("task,entry,test_performance,n\na,mean,0.5,4.5\n", "column n holds 4.5; expected whole numbers"),
        (PUBLISHED + "9,boolq,mean,0.1,0.1\n", "more than one mean of boolq"),
        ("task,entry,test_performance\na,mean,0.5,0.1,7\n", "more fields than its header"),
    ],
)
def test_other_files_than_summaries_are_errors_with_the_reason(tmp_path, text, words):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=rf"s\.csv.*{words}"):
        read_summary(tmp_path / "s.csv")


def test_costs_of_models_are_in_the_summary_if_results_have_them(logs):
    _, table = call(logs)
    assert "flops_per_example" not in table
    costs = dict(active_parameters=1000, total_parameters=3000)
    of_samples = {sample.replace("boolq", "copa"): scores for sample, scores in BOOLQ.items()}
    write_results(logs / "copa", of_samples, flops_per_example=[5, 6, 6, 5, 6, 6, 5, 6, 9], **costs)
    code, table = call(logs)
    assert code == 0
    of_copa = table[table["task"] == "copa"].set_index("entry")
    assert of_copa.loc["copa_16_21", "flops_per_example"] == 9  # of the best row
    columns = ["active_parameters", "total_parameters", "flops_per_example"]
    assert of_copa.loc["mean", columns].tolist() == [1000, 3000, 7]
    assert table[table["task"] == "sick"]["flops_per_example"].isna().all()
    assert table[table["entry"] == "std"]["total_parameters"].isna().all()
