"""Where configurations run: in this process, in a pool of processes, or on a Ray cluster.

Each is a generator of (configuration, outcome), in the order in which they end; an outcome is what
`Workbench.run` returns, or the exception that it died of. An InputError ends the whole: it would meet all.
A process loads model and data once and keeps them for the configurations that follow.
"""

import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path

import torch

from dataloader.errors import InputError, in_brief
from routing_moe.finetuning.settings import PATHS, Configuration, FinetuneSettings
from routing_moe.finetuning.workbench import Workbench
from routing_moe.tracking import peak_memory_gb
from routing_moe.unseen_tasks import VectorChoice
from routing_moe.upcycling import is_hub_name

RAY_RETRIES = 3  # of a configuration whose process or machine died
WATCH_SECONDS = 1.0

Outcomes = Iterator[tuple[Configuration, dict | Exception]]
_benches: dict[str, Workbench] = {}  # at most one: what this process has loaded


def run_configuration(
    settings: FinetuneSettings, choice: VectorChoice | None, configuration: Configuration
) -> dict:
    """Run one configuration on the workbench that this process has for the grid.

    Adds its time in seconds, and the most memory in GB that the process had taken by then.
    """
    key = repr((settings, choice))
    if key not in _benches:
        _benches.clear()
        _benches[key] = Workbench(settings, choice)
    began = time.perf_counter()
    try:
        outcome = _benches[key].run(configuration)
        if settings.save_best and outcome["dev_performance"] is not None:
            _benches[key].save(model_folder(settings.output_dir, configuration.name))
    except Exception as error:
        error.add_note(traceback.format_exc())  # which a note takes along to another process
        raise
    return outcome | {"seconds": time.perf_counter() - began, "peak_memory_gb": peak_memory_gb()}


def model_folder(output_dir: str | Path, name: str) -> Path:
    return Path(output_dir) / "models" / name


# ---- here


def in_this_process(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    try:
        for configuration in missing:
            try:
                yield configuration, run_configuration(settings, choice, configuration)
            except InputError:
                raise
            except Exception as error:
                yield configuration, error.with_traceback(None)  # which would keep tensors alive
                gc.collect()
                if torch.cuda.is_available():  # after a lack of memory the next may need less
                    torch.cuda.empty_cache()
    finally:
        _benches.clear()


# ---- a pool of processes


def in_processes(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--num_workers` processes, spread over the visible GPUs; one that dies takes only its own along."""
    from pebble import ProcessPool

    spawning = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    started = spawning.Value("i", 0)
    workers = min(settings.num_workers, len(missing))
    with environment(worker_environment(workers)):
        pool = ProcessPool(
            max_workers=workers,
            context=spawning,
            initializer=prepare_worker,
            initargs=(started, visible_gpus(), os.getpid()),
        )
        quiet = dataclasses.replace(settings, quiet=True)
        try:
            futures = {pool.schedule(run_configuration, args=(quiet, choice, c)): c for c in missing}
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


def result_or_error(result) -> dict | Exception:
    """What `result()` returns or raises; an InputError is raised on."""
    try:
        return result()
    except Exception as error:
        error = getattr(error, "cause", None) or error  # Ray wraps what was raised in an error of its own
        if isinstance(error, InputError):
            raise error from None
        return error


# ---- a Ray cluster


def on_ray(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--ray ADDRESS`: each configuration a Ray task, tried again if its process or machine dies.

    "local" starts a cluster of `--num_workers` CPUs on this machine. The package must be installed on every
    machine of another cluster, and the files there under the same paths.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    variables, connect = worker_environment(settings.num_workers), {"address": settings.ray}
    if settings.ray != "local":
        del variables["OMP_NUM_THREADS"]  # Ray gives a task the threads of the one core that it reserves
    else:
        connect |= {"num_cpus": settings.num_workers, "include_dashboard": False}
    try:
        ray.init(**connect, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except Exception as error:  # each way of connecting has its own ways to fail
        raise InputError(
            f"--ray {settings.ray}: no cluster can be reached there ({in_brief(error)})"
        ) from None
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # max_calls=0: a process stays for the configurations that follow, also where it has a GPU.
        options = dict(num_cpus=1, num_gpus=gpus, max_retries=RAY_RETRIES, max_calls=0)
        task = ray.remote(**options)(run_configuration)
        # Machines of a cluster have working directories of their own.
        common = ray.put(dataclasses.replace(with_absolute_paths(settings), quiet=True)), ray.put(choice)
        pending = {task.remote(*common, c): c for c in missing}
        while pending:
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(ended), result_or_error(lambda ended=ended: ray.get(ended))
    finally:
        ray.shutdown()


def with_absolute_paths(settings: FinetuneSettings) -> FinetuneSettings:
    given = {name: getattr(settings, name) for name in (*PATHS, "output_dir")}
    absolute = {
        name: str(Path(value).absolute())
        for name, value in given.items()
        if value and (Path(value).exists() or not is_hub_name(value))
    }
    return dataclasses.replace(settings, **absolute)


def executor(settings: FinetuneSettings):
    """Which of the three the settings ask for."""
    if settings.ray:
        return on_ray
    return in_processes if settings.num_workers > 1 else in_this_process
