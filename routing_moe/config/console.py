"""Shared by the commands: reports errors without a traceback and sets the exit code."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError

from dataloader.errors import InputError, in_brief
from routing_moe.config.flags import Command, flag_problems, parse
from routing_moe.config.plugins import load_plugin
from routing_moe.io.files import unwritable
from routing_moe.io.logs import early_notes
from routing_moe.io.memory import OutOfMemory

log = logging.getLogger("routing_moe")


def run_command(
    run: Callable,
    command: type[Command],
    argv: list[str] | None,
    description: str | None,
    kept: Callable[[Any], str] | None = None,
) -> int:
    """Returns the exit code of `run(settings)`; reports errors. kept: see `reporting_errors`.

    Checks the ranges of the flags, and that a given --output_dir can be written.
    """
    early_notes.clear()  # of an earlier command of this process that was refused
    settings = command(**parse(command, argv, description))
    with reporting_errors(partial(kept, settings) if kept else None) as result:
        load_plugin(getattr(settings, "plugin", None))
        problems, folder = flag_problems(settings), getattr(settings, "output_dir", None)
        if folder and (reason := unwritable(folder)):
            problems.append(f"--output_dir {reason}")
        if problems:
            raise InputError(problems)
        result.exit_code = run(settings) or 0
    return result.exit_code


@contextmanager
def reporting_errors(kept: Callable[[], str] | None = None) -> Iterator[SimpleNamespace]:
    """Reports errors that a user can correct, and Ctrl-C. Yields a result, and sets its exit_code, else 0.

    InputError: prints its problems; its own exit code. Ctrl-C: 130. A reader of the output that is gone: 141,
    unless `kept` is given. Full disk, unwritable file, out of memory: 1 if `kept` is given, which returns
    what is kept of the work done so far, else 2. Other exceptions pass.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is imported
    result = SimpleNamespace(exit_code=0)
    try:
        yield result
        sys.stdout.flush()
    except InputError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # all processes find the same
            print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        result.exit_code = error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted; {kept()}" if kept else "interrupted", file=sys.stderr)
        result.exit_code = 130
    except Exception as error:
        if not isinstance(error, OSError | SafetensorError | OutOfMemory):
            raise
        if isinstance(error, BrokenPipeError) and not kept:  # of `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
            result.exit_code = 141
            return
        reason = str(error) if isinstance(error, OutOfMemory) else in_brief(error)
        if kept:
            log.error("stopped: %s; %s", reason, kept())
        else:
            print(f"error: {reason}", file=sys.stderr)
        result.exit_code = 1 if kept else 2
