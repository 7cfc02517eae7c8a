"""What the commands share: flags parsed with a guess at misspelt ones, and errors without a traceback."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dataloader.errors import InputError, did_you_mean, in_brief

log = logging.getLogger("routing_moe")


def parse_or_guess(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The parsed flags; the parser's error, with the nearest flag there is, for an unknown one."""
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(unknown[0], flags)}")
    return known


def flags_given(parser: argparse.ArgumentParser, argv: list[str] | None) -> set[str]:
    """The names of the parser's flags that stand on the command line. Takes the parser's defaults away."""
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return set(vars(parser.parse_known_args(argv)[0]))


@dataclass
class CommandResult:
    """How a command ended. exit_code: 0 unless the command or an error sets it."""

    exit_code: int = 0


def run_command(run: Callable, parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """The exit code of `run(parsed flags)`, which returns one other than 0 or nothing; reports errors."""
    args = parse_or_guess(parser, argv)
    with reporting_errors() as result:
        result.exit_code = run(args) or 0
    return result.exit_code


@contextmanager
def reporting_errors(kept: Callable[[], str] | None = None) -> Iterator[CommandResult]:
    """Reports errors that a user can correct, and Ctrl-C, and sets the result's exit code.

    InputError: prints its faults; its own exit code. Ctrl-C: 130. Full disk, unwritable file, out of memory:
    1 if `kept` is given, which returns what is kept of the work done so far, else 2. Other exceptions pass.
    """
    result = CommandResult()
    try:
        yield result
    except InputError as error:
        report_faults(error)
        result.exit_code = error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted; {kept()}" if kept else "interrupted", file=sys.stderr)
        result.exit_code = 130
    except Exception as error:
        if not isinstance(error, _resource_errors()):
            raise
        if kept:
            log.error("stopped: %s; %s", in_brief(error), kept())
        else:
            print(f"error: {in_brief(error)}", file=sys.stderr)
        result.exit_code = 1 if kept else 2


def _resource_errors() -> tuple[type[Exception], ...]:
    """Errors of a full disk, an unwritable file, too little memory. Imports torch, hence only when needed."""
    from safetensors import SafetensorError

    from routing_moe.io.memory import OutOfMemory

    return OSError, SafetensorError, OutOfMemory


def report_faults(error: InputError) -> None:
    """Print the faults; the first process alone does, as all of them find the same."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
