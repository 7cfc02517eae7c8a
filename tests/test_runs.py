"""Runs of a study: order, resumption, failures, Ctrl-C, GPUs, a Ray cluster."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from routing_moe.studies.runs import OnThisMachine, Run, Runner, report_unfinished

QUICK = ["calendar", "2026", "1"]  # a module of Python that prints a little and ends


def code(text: str) -> list[str]:
    """A command that executes Python code."""
    return ["timeit", "-n", "1", "-r", "1", text]


def run_of(folder: Path, name: str, *commands: list[str], **fields) -> Run:
    return Run(name, folder / name, lambda: list(commands), **fields)


@pytest.mark.parametrize("ray", [None, pytest.param("local", marks=pytest.mark.slow)])
def test_a_run_starts_after_the_runs_that_it_needs_and_a_failure_stops_only_those_that_need_it(
    tmp_path, capsys, monkeypatch, ray
):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    first = run_of(
        tmp_path, "first", code(f"import time; time.sleep(0.3); open({str(tmp_path / 'file')!r}, 'w')")
    )
    second = run_of(tmp_path, "second", code(f"open({str(tmp_path / 'file')!r})"), needs=(first,))
    printing = run_of(tmp_path, "steps", QUICK, needs=(first,), result="steps", printed=True)
    failing = run_of(tmp_path, "failing", code("raise SystemExit(3)"), QUICK)
    skipped = run_of(tmp_path, "skipped", QUICK, needs=(failing,))

    left = Runner(tmp_path, jobs=2, ray=ray).run([skipped, second, printing])

    assert left == [failing, skipped]
    assert printing.folder.joinpath("steps").read_text() == "26 27 28 29 30 31"
    assert "January" not in failing.log_file.read_text()  # its second command was not called
    times = [line.split(",") for line in (tmp_path / "times.csv").read_text().splitlines()]
    assert {(name, ended) for name, _, ended in times[1:]} == {
        ("first", "finished"),
        ("second", "finished"),
        ("steps", "finished"),
        ("failing", "failed"),
    }
    assert report_unfinished(left) == 1
    messages = capsys.readouterr().err
    assert "not finished: failing; the end of" in messages
    assert "not finished: skipped; it was skipped" in messages


def test_a_second_call_does_only_what_is_missing(tmp_path, capsys):
    finished, missing = run_of(tmp_path, "finished", QUICK), run_of(tmp_path, "missing", QUICK)
    assert Runner(tmp_path).run([finished]) == []
    capsys.readouterr()
    assert Runner(tmp_path).run([finished, missing]) == []
    assert "finished finished" not in (output := capsys.readouterr().out)
    assert "started  missing" in output


def test_temporary_folders_are_deleted_only_when_a_run_is_finished(tmp_path):
    makes = code(
        f"import os; os.makedirs({str(tmp_path / 'run/last')!r}); os.mkdir({str(tmp_path / 'run/best')!r})"
    )
    failing = run_of(tmp_path, "run", makes, code("raise SystemExit(3)"), temporary=("last",))
    Runner(tmp_path).run([failing])
    assert (tmp_path / "run/last").is_dir()
    Runner(tmp_path).run([run_of(tmp_path, "run", QUICK, temporary=("last", "absent"))])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best", "finished"]


def test_a_run_with_a_result_of_its_own_is_finished_when_its_command_has_written_it(tmp_path):
    lazy = run_of(tmp_path, "lazy", QUICK, result="scores.csv")
    assert Runner(tmp_path).run([lazy]) == [lazy]
    lazy.folder.mkdir(exist_ok=True)
    (lazy.folder / "scores.csv").touch()
    assert Runner(tmp_path).run([lazy]) == []


@pytest.mark.parametrize(
    ("jobs", "seen"), [(1, {"0,1,2"}), (2, {"0,2", "1"}), (3, {"0", "1", "2"}), (5, {"0", "1", "2"})]
)
def test_runs_divide_the_gpus(tmp_path, monkeypatch, jobs, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    workers = OnThisMachine(Runner(tmp_path, jobs=jobs)).free_workers
    variables = [workers.get() for _ in range(jobs)]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in variables} == seen
    shares = sorted(int(each["ROUTING_MOE_WORKERS_OF_GPU"]) for each in variables)
    assert shares == ([1, 2, 2, 2, 2] if jobs == 5 else [1] * jobs)


SAVING = """
import time
try:
    open("ready", "w")
    time.sleep(60)
except KeyboardInterrupt:
    open("saved", "w")
    raise SystemExit(130)
"""
IN_BACKGROUND = "signal.signal(signal.SIGINT, signal.SIG_IGN)"  # as under nohup
TERMINATED = f"import signal; signal.signal(signal.SIGTERM, signal.default_int_handler){SAVING}"


@pytest.mark.parametrize(
    ("number", "saving", "calls"),
    [
        (signal.SIGINT, SAVING, "runs.Runner(Path('.')).run([saving, other])"),
        (signal.SIGTERM, SAVING, "runs.Runner(Path('.')).run([saving, other])"),
        (signal.SIGTERM, TERMINATED, "runs.call_all(*saving.commands(), *other.commands())"),
        (signal.SIGTERM, TERMINATED, f"{IN_BACKGROUND}\nruns.Runner(Path('.')).run([saving, other])"),
    ],
)
def test_signals_let_running_commands_save_their_state_and_no_others_start(tmp_path, number, saving, calls):
    script = f"""
import signal
from pathlib import Path
from routing_moe.studies import runs
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
saving = runs.Run("saving", Path("saving"), lambda: [["timeit", "-n", "1", "-r", "1", {saving!r}]])
other = runs.Run("other", Path("other"), lambda: [["timeit", "-n", "1", "-r", "1", "open('other', 'w')"]])
{calls}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    watch = threading.Timer(60, process.kill)
    watch.start()
    while not (tmp_path / "ready").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    errors = process.communicate()[1]
    watch.cancel()
    assert "KeyboardInterrupt" in errors
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "other").exists()
    if "Runner" in calls:
        assert "saving" in (times := (tmp_path / "times.csv").read_text())
        assert "interrupted" in times
