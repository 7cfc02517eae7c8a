"""Runs work in the main process on behalf of all processes."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dataloader.atomic_files import folder_lock
from dataloader.errors import InputError


def on_main(accelerator: Accelerator, act: Callable[[], object]):
    """Calls `act` in the main process only; all processes return its result or raise its error.

    The error is an InputError or OSError; others end the main process.
    """
    result, failure = None, None
    try:
        if accelerator.is_main_process:
            result = act()
    except (InputError, OSError) as error:
        failure = error
    result, failure = broadcast_object_list([result, failure])
    if failure:
        raise failure
    return result


@contextmanager
def main_process_lock(accelerator: Accelerator, folder: str | Path, check: Callable[[], list[str]] = list):
    """`folder_lock` for a command with several processes, of which the main process holds the lock.

    check: returns the problems of the locked folder. Raises InputError in all processes if another command
    has the lock, or if there are problems.
    """
    with ExitStack() as held:

        def enter() -> None:
            held.enter_context(folder_lock(folder))
            if problems := check():
                raise InputError(problems)

        on_main(accelerator, enter)
        yield
