"""routing-moe parallel: GPUs, failures, Ctrl-C, two calls at once, wrong lines."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forks import wait_until
from tiny_runs import ROOT

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    "PYTHONPATH": str(ROOT),
    "CUDA_VISIBLE_DEVICES": "4,7",
    "BASH_FUNC_hello%%": "() { echo hello; }",  # as `export -f hello` does
}
# Saves its state when Ctrl-C reaches it once; a second one ends `sleep 0.4` and so the saving.
SAVES = "trap 'sleep 0.4 && echo > state; exit 130' INT; touch begun; for i in {1..200}; do sleep 0.1; done"


def as_in_a_terminal() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def started(folder: Path, jobs: dict[str, str] | str, *flags: str) -> subprocess.Popen:
    """Starts the command in a folder. jobs: {result: command}, or standard input as it is."""
    lines = [jobs] if isinstance(jobs, str) else [f"{file}\t{one}\n" for file, one in jobs.items()]
    (folder / "lines").write_text("".join(lines))
    with (folder / "lines").open() as given:
        return subprocess.Popen(
            [sys.executable, "-m", "routing_moe.cli.entry", "parallel", *flags],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=as_in_a_terminal,
            process_group=0,
        )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """Returns the exit code, standard output and standard error."""
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def test_four_jobs_divide_two_gpus_and_the_cores(tmp_path):
    shown = "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"
    # Each waits for the others, so that all four run at the same time.
    command = "mkdir -p {0}; touch {0}/here; until [ $(ls */here | wc -l) = 4 ]; do sleep 0.1; done; "
    command += f"echo {shown} > {{0}}/gpu"
    jobs = {f"{i}/gpu": command.format(i) for i in range(4)}
    code, _, _ = ended(started(tmp_path, jobs, "--jobs", "4"))
    seen = sorted((tmp_path / f"{i}/gpu").read_text().split() for i in range(4))
    threads = str(max(1, os.cpu_count() // 4))
    assert (code, seen) == (0, [["4", threads]] * 2 + [["7", threads]] * 2)


def test_a_failure_stops_no_other_command_and_a_second_call_runs_what_is_missing(tmp_path):
    scores = "runs/bad/best/scores.csv"
    jobs = {
        scores: f"echo first; hello; mkdir -p runs/bad/best; ls > {scores}; exit 3",
        "lazy": "true",
        "good": "pwd >> good",
        "tables/a": "mkdir -p tables; sleep 0.2; touch tables/a",
        "tables/b": "echo of b; touch tables/b",  # with the same log, so after a
        "tables/c": "echo of c; false",
    }
    code, _, errors = ended(started(tmp_path, jobs, "--jobs", "5"))
    assert "failed: tables/b" not in errors
    assert code == 1
    assert f"failed: {scores}: exit code 3; the end of runs/bad.log:\n    first\n    hello\n" in errors
    assert "failed: tables/c: exit code 1; the end of tables.log:\n    of c\n" in errors
    log = "---- tables/a\n---- tables/b\nof b\n---- tables/c\nof c\n"
    assert (tmp_path / "tables.log").read_text() == log
    assert "failed: lazy: no error" in errors
    assert (tmp_path / "runs/bad/best/incomplete-scores.csv").is_file()  # it is not taken for finished
    jobs |= {scores: f"echo > {scores}", "lazy": "echo > lazy", "tables/c": "touch tables/c"}
    assert ended(started(tmp_path, jobs))[0] == 0
    assert (tmp_path / "good").read_text() == f"{tmp_path}\n"  # once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_let_commands_save_and_the_same_call_continues(tmp_path, number):
    jobs = {"a/x": f"[ ! -e state ] || {{ mkdir -p a; touch a/x; exit; }}; {SAVES}", "b": "touch b"}
    process = started(tmp_path, jobs)
    wait_until((tmp_path / "begun").exists)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    code, _, _ = ended(process)
    assert (code, (tmp_path / "state").exists(), (tmp_path / "b").exists()) == (130, True, False)
    assert ended(started(tmp_path, jobs))[0] == 0


def test_a_second_call_starts_no_running_command_again_even_if_its_caller_was_killed(tmp_path):
    jobs = {"a/x": "trap '' INT; touch begun; until [ -e go ]; do sleep 0.1; done; mkdir -p a; echo >> a/x"}
    first = started(tmp_path, jobs)
    wait_until((tmp_path / "begun").exists)
    first.kill()
    code, _, errors = ended(started(tmp_path, jobs))
    assert (code, "failed: a/x: another command is writing a.log" in errors) == (1, True)
    (tmp_path / "go").touch()
    wait_until((tmp_path / "a/x").exists)
    assert ended(started(tmp_path, jobs)) == (0, "", "nothing to do: all results are there\n")
    first.communicate()


def test_a_dry_run_prints_the_commands_of_missing_results_alone(tmp_path):
    (tmp_path / "there").touch()
    jobs = {"there": "echo 1", "missing": "echo '2  3'", "other/x": "echo 4"}
    assert ended(started(tmp_path, jobs, "--dry_run")) == (0, "echo '2  3'\necho 4\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines", "there"]


@pytest.mark.parametrize("missing", ["package", "cluster"])
def test_without_ray_or_its_cluster_there_is_one_error(tmp_path, missing):
    error = "--ray 127.0.0.1:1: no cluster answers there ("
    if missing == "package":
        (tmp_path / "ray.py").write_text("raise ModuleNotFoundError")
        error = "--ray 127.0.0.1:1 needs Ray: pip install '.[ray]'"
    else:
        pytest.importorskip("ray")
    code, output, errors = ended(started(tmp_path, {"x": "touch x"}, "--ray", "127.0.0.1:1"))
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert error in errors


def test_wrong_lines_are_named_before_anything_runs(tmp_path):
    lines = "a\ttouch a\nno tab\n./a\ttrue\nb\t \n"
    code, _, errors = ended(started(tmp_path, lines))
    assert code == 2
    for words in ("line 2: 'no tab' lacks", "line 3: a is the result of line 1", "line 4: 'b' lacks"):
        assert f"error: standard input, {words}" in errors
    assert not (tmp_path / "a").exists()
