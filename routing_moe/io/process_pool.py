"""Calls one function many times, in this process or in a pool of processes that share the GPUs.

Both ways yield (key, outcome) in the order in which the calls end. An outcome is the function's result or the
exception that it raised. An InputError ends all calls, because it would occur in each of them.
"""

import gc
import json
import multiprocessing
import os
import traceback
from collections.abc import Callable, Hashable, Mapping
from contextlib import contextmanager

from dataloader import processes
from dataloader.errors import InputError
from dataloader.processes import Outcomes, leave_signals_to, result_or_error
from routing_moe.io.hub import COMMITS, commits
from routing_moe.io.memory import WORKERS_OF_GPU, workers_of_gpu

__all__ = ["Outcomes", "result_or_error", "run_here", "run_in_processes", "traceback_noted"]


def run_here(function: Callable, arguments: Mapping[Hashable, tuple]) -> Outcomes:
    """Runs the calls one after the other in this process. arguments: {key: arguments of the call}."""
    for key, own in arguments.items():
        try:
            yield key, function(*own)
        except InputError:
            raise
        except Exception as error:
            yield key, error.with_traceback(None)  # the traceback would keep tensors alive
            gc.collect()
            import torch  # takes seconds, which checks need not wait for

            if torch.cuda.is_available():  # after out of memory, the next call may need less
                torch.cuda.empty_cache()


def run_in_processes(function: Callable, arguments: Mapping[Hashable, tuple], workers: int) -> Outcomes:
    """Runs the calls in processes that are spread over the visible GPUs and reused for several calls.

    A process that dies loses only its current call. function: one that a new process can import by module and
    name.
    """
    workers = min(workers, len(arguments))
    places = multiprocessing.get_context("spawn").Array("i", workers)
    prepared = (places, visible_gpus(), os.getpid())
    with environment(worker_environment(workers)):
        yield from processes.run_in_processes(function, arguments, workers, prepare_worker, prepared)


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs that a new process can use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def worker_environment(workers: int) -> dict[str, str]:
    """Returns variables to set before a worker's imports: its cores, no progress bars, commits of models."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    asked = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    given = {name: os.environ[name] for name in asked if name in os.environ}
    return asked | given | {"TQDM_DISABLE": "1", COMMITS: json.dumps(commits())}


@contextmanager
def environment(variables: dict[str, str]):
    """Sets environment variables in the block, in which processes are started."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
            os.environ.update({name: before[name]} if name in before else {})


def prepare_worker(places, gpus: list[str], parent: int) -> None:
    """Assigns a GPU to the process, leaves Ctrl-C to the parent, and ends the process with its parent.

    places: for each worker of the pool the id of its process, 0 if it is not started.
    """
    leave_signals_to(parent)
    if gpus:
        os.environ |= gpu_of(take_place(places), len(places), gpus)


def gpu_of(worker: int, workers: int, gpus: list[str]) -> dict[str, str]:
    """Returns the variables of a worker's GPUs: their names, and how many workers share one. worker: from 0.

    There are several GPUs for each of few workers, one for several of many.
    """
    first = worker % len(gpus)
    sharing = len(range(first, workers, len(gpus))) * workers_of_gpu()
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first::workers]), WORKERS_OF_GPU: str(sharing)}


def take_place(places) -> int:
    """Returns a place that no running process has. That of a dead process is taken again, with its GPU."""
    with places.get_lock():
        place = next((i for i, process in enumerate(places) if not is_running(process)), 0)
        places[place] = os.getpid()
    return place


def is_running(process: int) -> bool:
    """Returns whether a process with this id is running; 0 stands for none."""
    try:
        if process:
            os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # it ended, and another user's process may have its id
        return False
    return process != 0


@contextmanager
def traceback_noted():
    """Adds the traceback of an error in the block as a note, which is kept when the error is pickled."""
    try:
        yield
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise
