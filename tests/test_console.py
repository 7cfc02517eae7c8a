"""What a terminal and trackers show: progress, the log, one line for what a user can correct."""

import logging
import sys
import threading
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from safetensors import SafetensorError

from dataloader import progress
from dataloader.errors import InputError
from dataloader.progress import ProgressBar
from routing_moe.analysis.ablation import NothingToAblate
from routing_moe.config.choices import TRACKERS
from routing_moe.config.console import reporting_errors
from routing_moe.io.logs import log, log_to_file, start_logging
from routing_moe.io.memory import OutOfMemory
from routing_moe.io.trackers import start_trackers


@pytest.mark.parametrize(
    ("error", "with_kept", "without"),
    [
        (InputError(["--lr -1: must be above 0", "--seed x"]), 2, 2),
        (NothingToAblate("no expert"), 3, 3),
        (KeyboardInterrupt(), 130, 130),
        (OSError(28, "No space left on device"), 1, 2),
        (SafetensorError("I/O error: No space left on device"), 1, 2),
        (OutOfMemory("out of memory: give a smaller --num_beams (now 4)"), 1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_that_a_user_can_correct_are_reported_with_their_exit_code(error, with_kept, without, capsys):
    start_logging()
    with reporting_errors(lambda: "3 of 6 are finished") as result:
        raise error
    assert result.exit_code == with_kept
    assert ("3 of 6 are finished" in capsys.readouterr().err) == (with_kept in (1, 130))
    with reporting_errors() as result:
        raise error
    assert result.exit_code == without
    output = capsys.readouterr().err
    assert output.startswith("interrupted" if without == 130 else "error: ")
    assert "Traceback" not in output


def test_other_errors_pass_and_an_end_without_one_is_zero():
    with pytest.raises(ZeroDivisionError), reporting_errors():
        raise ZeroDivisionError
    with reporting_errors() as result:
        pass
    assert result.exit_code == 0


def test_only_the_first_of_several_processes_prints_problems(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with reporting_errors() as result:
        raise InputError("--lr -1: must be above 0")
    assert (result.exit_code, capsys.readouterr().err) == (2, "")


def test_a_file_gets_a_plain_line_from_time_to_time_also_of_slow_steps(capsys, monkeypatch):
    with ProgressBar(total=3, desc="training"):
        for _ in ProgressBar(range(3), desc="losses"):
            ProgressBar.write("step", file=sys.stderr)
    assert capsys.readouterr().err == "step\n" * 3
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with ProgressBar(total=3, desc="training", unit="step") as bar:
        bar.update(2)
        output = ""
        while output.count("\n") < 2:
            time.sleep(0.01)
            output += capsys.readouterr().err
    assert not set(output) & set("\r\x1b█")
    assert {line.partition(" [")[0] for line in output.splitlines()} == {"training:  67% 2/3"}
    running = threading.active_count()
    with ProgressBar(total=3, disable=True):
        assert threading.active_count() == running


def test_a_terminal_gets_a_bar_that_disappears_when_it_ends(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in ProgressBar(range(2), desc="training", ncols=80):
        pass
    first, *_, last, end = capsys.readouterr().err.removeprefix("\r").split("\r")
    assert first.startswith("training:   0%|  ")
    assert (last.strip(), end) == ("", "")


def test_details_go_to_the_file_of_the_log_only(capsys, tmp_path):
    start_logging()
    log_to_file(tmp_path, "log.txt")
    logging.getLogger("routing_moe.training").debug("padding 1.5x")
    log.info("step 1: dev loss 2.5")
    lines = [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == ["padding 1.5x", "step 1: dev loss 2.5"]
    assert capsys.readouterr().err[20:] == "step 1: dev loss 2.5\n"


def test_all_trackers_of_accelerate_can_be_chosen():
    assert sorted(TRACKERS) == sorted(["csv", *LOGGER_TYPE_TO_CLASS])


@pytest.mark.parametrize(
    ("tracker", "shown"),
    [
        ("aim", lambda library: library.Run().name),
        ("clearml", lambda library: library.Task.init.call_args.kwargs["task_name"]),
        ("comet_ml", lambda library: library.ExperimentConfig.call_args.kwargs["name"]),
        ("dvclive", lambda library: library.Live.call_args.kwargs["exp_name"]),
        ("mlflow", lambda library: library.start_run.call_args.kwargs["run_name"]),
        ("swanlab", lambda library: library.init.call_args.kwargs["experiment_name"]),
        ("trackio", lambda library: library.init.call_args.kwargs["name"]),
        ("wandb", lambda library: library.init.call_args.kwargs["name"]),
    ],
)
def test_a_tracker_shows_the_last_two_folders(tracker, shown, tmp_path, monkeypatch):
    library = MagicMock(__version__="3.41.0")
    library.Task.current_task.return_value = None
    monkeypatch.setitem(sys.modules, tracker, library)
    monkeypatch.setattr(LOGGER_TYPE_TO_CLASS[tracker], "store_init_configuration", lambda *_: None)
    folder = tmp_path / "softmax/seed42"
    folder.mkdir(parents=True)
    settings = SimpleNamespace(output_dir=folder, log_with=tracker, to_dict=dict)
    start_trackers(settings, Accelerator(cpu=True), first_step=0)
    assert shown(library) == "softmax-seed42"
