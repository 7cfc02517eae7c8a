"""A pool of worker processes, which end together with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import as_completed
from typing import Any

from dataloader.errors import InputError

WATCH_SECONDS = 1.0

Outcomes = Iterator[tuple[Any, Any]]


def run_in_processes(
    function: Callable,
    arguments: Mapping[Hashable, tuple],
    workers: int,
    initializer: Callable,
    initargs: tuple,
) -> Outcomes:
    """Yields (key, outcome) of function(*arguments[key]) in the order in which the calls end.

    An outcome is the function's result or the exception that it raised; a process that dies loses only its
    current call. An InputError ends all calls, because it would occur in each of them.
    function, initializer: ones that a new process can import by module and name. initializer(*initargs) is
    called first in each process and must call `leave_signals_to`.
    """
    from pebble import ProcessPool

    spawning = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPool(workers, context=spawning, initializer=initializer, initargs=initargs) as pool:
        try:
            futures = {pool.schedule(function, args=values): key for key, values in arguments.items()}
            for future in as_completed(futures):
                yield futures[future], result_or_error(future.result)
        except BaseException:
            pool.stop()
            raise


def result_or_error(result: Callable) -> Any:
    """Returns the result of `result()` or the exception that it raises; an InputError is raised again."""
    try:
        return result()
    except Exception as error:
        error = getattr(error, "cause", None) or error  # Ray wraps the original error
        if isinstance(error, InputError):
            raise error from None
        return error


def leave_signals_to(parent: int) -> None:
    """Prepares a worker process: Ctrl-C is left to its parent, and it ends when the parent has ended.

    parent: process id. A parent killed by SIGKILL cannot end its workers, which would work for lost results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
