"""How commands end: one line for what a user can correct, and the exit code."""

import pytest
from safetensors import SafetensorError

from dataloader.errors import InputError
from routing_moe.analysis.ablation import NothingToAblate
from routing_moe.config.console import reporting_errors
from routing_moe.io.logs import start_logging
from routing_moe.io.memory import OutOfMemory


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
