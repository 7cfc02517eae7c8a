"""Calls of a function in worker processes, which end together with the process that started them."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

SPAWNING = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
Outcomes = Iterator[tuple[Any, Any]]


def run_in_processes(
    function: Callable, arguments: Mapping[Hashable, tuple], workers: Sequence[Mapping[str, str]]
) -> Outcomes:
    """Yields (key, `outcome_of` function(*arguments[key])) in the order in which the calls end.

    Each process does several calls; one that dies loses only its current call. If the generator is closed or
    interrupted, the current calls are interrupted (KeyboardInterrupt), and it returns when they have ended.
    function: one that a new process can import by module and name. workers: of each process the environment
    variables that it has in addition to those of this one.
    """
    waiting, unused, processes, free, busy = deque(arguments.items()), list(workers), [], [], {}
    try:
        while waiting or busy:
            while waiting and (free or unused):
                if not free:
                    processes.append(_Worker(unused.pop(0)))
                    free.append(processes[-1])
                worker, (key, values) = free.pop(), waiting.popleft()
                busy[worker.pipe] = worker, key
                with suppress(BrokenPipeError):  # it has just died, which is the outcome
                    worker.pipe.send((function, values))
            for pipe in wait(busy):
                worker, key = busy.pop(pipe)
                outcome = worker.outcome()
                if worker.process.is_alive():
                    free.append(worker)
                else:
                    unused.append(worker.variables)
                yield key, outcome
    finally:
        _end(processes)


def outcome_of(function: Callable, arguments: tuple) -> Any:
    """Returns function(*arguments), or the exception that it raised, with its traceback as a note."""
    try:
        return function(*arguments)
    except Exception as error:
        error.add_note(traceback.format_exc())  # is kept when the error is pickled
        return error.with_traceback(None)  # which would keep tensors alive


class _Worker:
    """A process, and the pipe that brings it calls."""

    def __init__(self, variables: Mapping[str, str]):
        self.variables, before = variables, dict(os.environ)
        self.pipe, other_end = SPAWNING.Pipe()
        self.process = SPAWNING.Process(target=_serve, args=(other_end,))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until `_serve` handles it
        os.environ |= variables  # before the first import of the process
        try:
            self.process.start()
        finally:
            os.environ.clear()
            os.environ |= before
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            other_end.close()

    def outcome(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return RuntimeError(f"its process died (exit code {self.process.exitcode})")
        except Exception as error:  # the outcome cannot be unpickled
            return error


def _end(workers: list[_Worker]) -> None:
    """Interrupts the workers, again at each further Ctrl-C, and waits until they have ended."""
    while running := [worker for worker in workers if worker.process.is_alive()]:
        with suppress(KeyboardInterrupt):
            for worker in running:
                worker.pipe.close()
                os.kill(worker.process.pid, signal.SIGINT)  # an idle one ends by itself and ignores it
            for worker in running:
                worker.process.join()


def _serve(pipe: Connection) -> None:
    """Does the calls that the pipe brings, until the process is interrupted or its parent has ended."""
    os.setpgrp()  # Ctrl-C in a terminal reaches the parent alone, which passes it on
    threading.Thread(target=_interrupt_after_parent, daemon=True).start()
    with suppress(KeyboardInterrupt, EOFError, OSError):
        try:
            while True:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                pipe.send(outcome_of(*pipe.recv()))
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending


def _interrupt_after_parent() -> None:
    multiprocessing.parent_process().join()  # one that SIGKILL ends cannot end its workers
    os.kill(os.getpid(), signal.SIGINT)
