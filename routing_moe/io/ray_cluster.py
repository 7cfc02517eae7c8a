"""Calls of one function as tasks of a Ray cluster, each with its CPUs and its share of a GPU."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dataloader.errors import InputError, in_brief
from routing_moe.io.memory import WORKERS_OF_GPU
from routing_moe.io.process_pool import worker_environment

LOCAL = "local"  # the address of a cluster that is started on this machine
PARTS = 10_000  # Ray rounds resources to 1 / PARTS
RETRIES = 3  # of a call whose process or machine died


@contextmanager
def remote_function(function: Callable, address: str, workers: int) -> Iterator:
    """Connects to a cluster; gives the function as one whose calls return references for `ray.get`.

    workers: the calls that run at the same time; they divide the GPUs of the cluster evenly. With the address
    "local", a cluster of that many CPUs is started on this machine. On every machine of another cluster the
    package must be installed, and the files must have the same paths. Raises InputError if the cluster
    cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    variables, connect = worker_environment(workers), {"address": address}
    if address == LOCAL:
        connect |= {"num_cpus": workers, "include_dashboard": False}
    else:
        del variables["OMP_NUM_THREADS"]  # Ray gives a task the threads of the one core that it reserves
    try:
        ray.init(**connect, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except Exception as error:  # errors depend on the kind of address
        raise InputError(f"--ray {address}: no cluster can be reached there ({in_brief(error)})") from None
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        # max_calls=0: a process is reused for further calls, even if it has a GPU.
        options = dict(num_cpus=1, max_retries=RETRIES, max_calls=0)
        yield ray.remote(**options | (gpu_options(workers, gpus) if gpus else {}))(function).remote
    finally:
        ray.shutdown()


def gpu_options(workers: int, gpus: float) -> dict:
    """Returns the options of Ray tasks of which `workers` run at the same time, evenly on the GPUs.

    Each task reserves its share of a GPU, and reads in its environment how many have a share.
    """
    on_each = math.ceil(workers / gpus)
    share = math.floor(PARTS / on_each) / PARTS
    return dict(num_gpus=share, runtime_env={"env_vars": {WORKERS_OF_GPU: str(on_each)}})
