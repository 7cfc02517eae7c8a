"""Many calls of one function, in this process or in a pool of processes that share the machine's GPUs.

Each is a generator of (key, outcome), in the order in which calls end; an outcome is what the function
returns, or the exception that it died of. An InputError ends the whole: it would meet all.
"""

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dataloader.errors import InputError, in_brief
from routing_moe.io.files import write_text

WATCH_SECONDS = 1.0

Outcomes = Iterator[tuple[Any, Any]]


def run_here(function: Callable, arguments: Mapping[Hashable, tuple]) -> Outcomes:
    """One call after the other. arguments: {key: those of its call}."""
    for key, own in arguments.items():
        try:
            yield key, function(*own)
        except InputError:
            raise
        except Exception as error:
            yield key, error.with_traceback(None)  # which would keep tensors alive
            gc.collect()
            if torch.cuda.is_available():  # after a lack of memory the next may need less
                torch.cuda.empty_cache()


def run_in_processes(function: Callable, arguments: Mapping[Hashable, tuple], workers: int) -> Outcomes:
    """Processes that stay for the calls that follow, spread over the visible GPUs; one that dies takes only
    its own call along. function: one that a fresh process finds by its module and name."""
    from pebble import ProcessPool

    spawning = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    started = spawning.Value("i", 0)
    workers = min(workers, len(arguments))
    with environment(worker_environment(workers)):
        pool = ProcessPool(
            max_workers=workers,
            context=spawning,
            initializer=prepare_worker,
            initargs=(started, visible_gpus(), os.getpid()),
        )
        try:
            futures = {pool.schedule(function, args=own): key for key, own in arguments.items()}
            for future in as_completed(futures):
                yield futures[future], result_or_error(future.result)
            pool.close()
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()


def visible_gpus() -> list[str]:
    """What the GPUs are called that a process started now could use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]


def worker_environment(workers: int) -> dict[str, str]:
    """Variables that must be set before a worker's imports: its share of the cores, no progress bars."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    asked = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return asked | {name: os.environ[name] for name in asked if name in os.environ} | {"TQDM_DISABLE": "1"}


@contextmanager
def environment(variables: dict[str, str]):
    """Variables of the environment, set for as long as processes are started."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
            os.environ.update({name: before[name]} if name in before else {})


def prepare_worker(started, gpus: list[str], parent: int) -> None:
    """Give the process a GPU of its own in turn, leave Ctrl-C to the parent, and end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        with started.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[started.value % len(gpus)]
            started.value += 1
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A parent killed by SIGKILL tells nobody; what an orphan computes would be lost and stand in the way.
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def result_or_error(result: Callable) -> Any:
    """What `result()` returns or raises; an InputError is raised on."""
    try:
        return result()
    except Exception as error:
        error = getattr(error, "cause", None) or error  # Ray wraps what was raised in an error of its own
        if isinstance(error, InputError):
            raise error from None
        return error


# ---- what is left of a call that failed


@contextmanager
def traceback_noted():
    """Adds the traceback of an error raised inside as a note, which it takes along to another process."""
    try:
        yield
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise


def write_failure(error: Exception, path: Path) -> str:
    """The error in brief; the traceback that was noted goes into the file."""
    told, notes = f"{type(error).__name__}: {in_brief(error)}", getattr(error, "__notes__", None)
    if not notes:  # the process died
        return told
    write_text(path, "\n".join(notes))
    return f"{told} ({path})"
