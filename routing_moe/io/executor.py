"""Calls of one function: in this process, in worker processes that share the GPUs, or on a Ray cluster.

All yield (key, outcome) in the order in which the calls end. An outcome is the function's result, or the
exception that it raised, with its traceback as a note. If a generator is closed or interrupted, the current
calls are interrupted (KeyboardInterrupt), and it returns when they have ended.
"""

import gc
import importlib.util
import json
import math
import os
import signal
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any

from dataloader.errors import InputError, in_brief
from dataloader.processes import Outcomes, outcome_of, run_in_processes
from routing_moe.io.hub import COMMITS, commits

LOCAL = "local"  # the address of a cluster that is started on this machine
PARTS = 10_000  # Ray rounds resources to 1 / PARTS
GPUS = "CUDA_VISIBLE_DEVICES"
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # devices of NVIDIA, AMD, and of Windows in WSL

Calls = Mapping[Hashable, tuple]  # {key: arguments of its call}


def run_calls(function: Callable, calls: Calls, workers: int, ray: str | None = None) -> Outcomes:
    """Runs the calls, `workers` at a time. ray: address of a cluster."""
    if ray:
        return on_ray(function, calls, workers, ray)
    several = min(workers, len(calls)) > 1
    return in_processes(function, calls, workers) if several else in_this_process(function, calls)


def in_this_process(function: Callable, calls: Calls) -> Outcomes:
    """Runs the calls one after the other."""
    for key, arguments in calls.items():
        yield key, (outcome := outcome_of(function, arguments))
        if isinstance(outcome, Exception):
            gc.collect()
            import torch  # takes seconds, which checks need not wait for

            if torch.cuda.is_available():  # after out of memory, the next call may need less
                torch.cuda.empty_cache()


def in_processes(function: Callable, calls: Calls, workers: int) -> Outcomes:
    """Runs the calls in processes that are spread over the visible GPUs and reused."""
    workers = min(workers, len(calls))
    common, gpus = worker_environment(workers), visible_gpus()
    variables = [common | (gpu_of(i, workers, gpus) if gpus else {}) for i in range(workers)]
    return run_in_processes(function, calls, variables)


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs that a new process can use."""
    named = os.environ.get(GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if not any(map(os.path.exists, DRIVERS)):
        return []
    import torch  # takes seconds

    return [str(i) for i in range(torch.cuda.device_count())]


def worker_environment(workers: int) -> dict[str, str]:
    """Returns variables to set before a worker's imports: its cores, no progress bars, commits of models."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    asked = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    given = {name: os.environ[name] for name in asked if name in os.environ}
    return asked | given | {"TQDM_DISABLE": "1", COMMITS: json.dumps(commits())}


def gpu_of(worker: int, workers: int, gpus: list[str]) -> dict[str, str]:
    """Returns the variable of a worker's GPUs. worker: from 0.

    There are several GPUs for each of few workers, one for several of many.
    """
    return {GPUS: ",".join(gpus[worker % len(gpus) :: workers])}


# ---- a Ray cluster


def ray_problems(address: str | None) -> list[str]:
    missing = address and importlib.util.find_spec("ray") is None
    return [f"--ray is {address!r}, which needs the extra: pip install .[ray]"] if missing else []


def on_ray(function: Callable, calls: Calls, workers: int, address: str) -> Outcomes:
    """Runs each call as a task of a cluster, in this working directory; `workers` of them share the GPUs.

    With the address "local", a cluster of that many CPUs is started on this machine. On every machine of
    another cluster the package must be installed, and the files must have the same paths. Raises InputError
    if the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    connect(address, workers)
    gpus = gpu_options(workers, ray.cluster_resources().get("GPU", 0))
    # A task is repeated if its machine dies. max_calls=0: a process is reused, even if it has a GPU.
    call = ray.remote(num_cpus=1, max_retries=3, max_calls=0, **gpus)(outcome_in).remote
    tasks = {call(os.getcwd(), function, arguments): key for key, arguments in calls.items()}
    try:
        while tasks:
            (ended,), _ = ray.wait(list(tasks), num_returns=1)
            yield tasks.pop(ended), outcome_of(ray.get, (ended,))
    finally:
        while tasks:
            with suppress(KeyboardInterrupt):  # a further one interrupts the tasks again
                for task in tasks:
                    ray.cancel(task)
                ray.wait(list(tasks), num_returns=len(tasks))
                tasks.clear()
        ray.shutdown()


def connect(address: str, workers: int) -> None:
    import ray

    variables, options = worker_environment(workers), {"address": address}
    if address == LOCAL:
        options |= {"num_cpus": workers, "include_dashboard": False}
    else:
        del variables["OMP_NUM_THREADS"]  # Ray gives a task the threads of the one core that it reserves
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except Exception as error:  # errors depend on the kind of address
        raise InputError(f"--ray {address}: no cluster can be reached there ({in_brief(error)})") from None
    signal.signal(signal.SIGTERM, handler)  # Ray has set another


def gpu_options(workers: int, gpus: float) -> dict:
    """Returns the options by which each task reserves its share of a GPU."""
    if not gpus:
        return {}
    on_each = math.ceil(workers / gpus)
    return dict(num_gpus=math.floor(PARTS / on_each) / PARTS)


def outcome_in(folder: str, function: Callable, arguments: tuple) -> Any:
    """Returns `outcome_of` in a working directory, as relative paths need it."""
    os.chdir(folder)
    return outcome_of(function, arguments)
