"""Tasks side by side, each in a slot with its share of the GPUs and cores; calls of one function.

Slots: `Worker`, a process for calls; in routing_moe/io shell commands, also of a Ray cluster. Workers are no
pools of `concurrent.futures`, which break when a process dies, pass no Ctrl-C on and outlive a killed parent.
"""

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

SPAWNING = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
GPUS = "CUDA_VISIBLE_DEVICES"
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # devices of NVIDIA, AMD, and of Windows in WSL
PAUSE = 0.05  # seconds between two looks at the running tasks
Outcomes = Iterator[tuple[Any, Any]]


def run_in_slots(tasks: Iterable[Hashable], slots: Sequence, may_start: Callable | None = None) -> Outcomes:
    """Yields (task, outcome) in the order in which the tasks end.

    A slot has start(task), is_done(), outcome(), and interrupt(), which passes Ctrl-C on. If the generator is
    closed or interrupted (KeyboardInterrupt), it interrupts what runs, and returns when that has ended.
    may_start(task, running): whether a task may run beside those that run.
    """
    waiting, free, running = list(tasks), list(slots), {}
    try:
        while waiting or running:
            for task in list(waiting):
                if free and (may_start is None or may_start(task, running)):
                    waiting.remove(task)
                    running[task] = free.pop(0)
                    running[task].start(task)
            for task in _ended(running):
                free.append(running.pop(task))
                yield task, free[-1].outcome()
            time.sleep(PAUSE)
    finally:
        while running:
            with suppress(KeyboardInterrupt):  # a further one interrupts them again
                for slot in running.values():
                    slot.interrupt()
                while running:
                    for task in _ended(running):
                        running.pop(task).outcome()
                    time.sleep(PAUSE)


def _ended(running: Mapping) -> list:
    return [task for task, slot in running.items() if slot.is_done()]


# ---- calls of a function


def run_calls(function: Callable, calls: Mapping[Hashable, tuple], workers: int) -> Outcomes:
    """Yields (key, `outcome_of` function(*calls[key])) in the order in which the calls end.

    They run in `workers` processes that are reused, of one in this process. If the generator is closed or
    interrupted, the current calls are interrupted (KeyboardInterrupt), and it returns when they have ended.
    function: one that a new process can import by module and name.
    """
    workers = min(workers, len(calls))
    if workers > 1:
        slots = [Worker(function, calls, variables) for variables in environments(workers)]
        try:
            yield from run_in_slots(calls, slots)
        finally:
            end_all(slots)
        return
    for key, arguments in calls.items():
        outcome = outcome_of(function, arguments)
        yield key, outcome
        if isinstance(outcome, Exception):
            gc.collect()
            import torch  # takes seconds, which checks need not wait for

            if torch.cuda.is_available():  # after out of memory, the next call may need less
                torch.cuda.empty_cache()


def outcome_of(function: Callable, arguments: tuple) -> Any:
    """Returns function(*arguments), or the exception that it raised, with its traceback as a note."""
    try:
        return function(*arguments)
    except Exception as error:
        error.add_note(traceback.format_exc())  # is kept when the error is pickled
        return error.with_traceback(None)  # which would keep tensors alive


class Worker:
    """A slot for keys of calls: a process that is reused. One that dies loses only its current call."""

    def __init__(self, function: Callable, calls: Mapping[Hashable, tuple], variables: Mapping[str, str]):
        self.function, self.calls, self.variables = function, calls, variables
        self.process = self.pipe = None

    def start(self, key: Hashable) -> None:
        if not (self.process and self.process.is_alive()):
            self._start_process()
        with suppress(BrokenPipeError):  # it has just died, which is the outcome
            self.pipe.send((self.function, self.calls[key]))

    def _start_process(self) -> None:
        self.pipe, other_end = SPAWNING.Pipe()
        self.process = SPAWNING.Process(target=_serve, args=(other_end,))
        resource_tracker.ensure_running()  # unblocks SIGINT when it starts
        before, mask = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ |= self.variables  # before the first import of the process; `_serve` unblocks SIGINT
        try:
            self.process.start()
        finally:
            os.environ.clear()
            os.environ |= before
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            other_end.close()

    def is_done(self) -> bool:
        return not self.pipe or self.pipe.poll()

    def outcome(self) -> Any:
        if not self.pipe:
            return RuntimeError("its process was not started")
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return RuntimeError(f"its process died (exit code {self.process.exitcode})")
        except Exception as error:  # the outcome cannot be unpickled
            return error

    def interrupt(self) -> None:
        if self.process and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)


def end_all(workers: Sequence[Worker]) -> None:
    """Interrupts the workers, again at each further Ctrl-C, and waits until they have ended."""
    while running := [worker for worker in workers if worker.process and worker.process.is_alive()]:
        with suppress(KeyboardInterrupt):
            for worker in running:
                worker.interrupt()
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


# ---- cores and GPUs


def environments(workers: int) -> list[dict[str, str]]:
    """Returns the variables to set before a worker's imports: its cores and GPUs, and no progress bars.

    There are several GPUs for each of few workers, one for several of many.
    """
    common, gpus = variables_for(max(1, (os.cpu_count() or 1) // workers)), visible_gpus()
    if not gpus:
        return [common] * workers
    return [common | {GPUS: ",".join(gpus[worker % len(gpus) :: workers])} for worker in range(workers)]


def variables_for(threads: int) -> dict[str, str]:
    """Returns the variables of a worker with so many threads, unless the user has set them."""
    asked = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return asked | {name: os.environ[name] for name in asked if name in os.environ} | {"TQDM_DISABLE": "1"}


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs that a new process can use."""
    named = os.environ.get(GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if not any(map(os.path.exists, DRIVERS)):
        return []
    import torch  # takes seconds

    return [str(i) for i in range(torch.cuda.device_count())]
