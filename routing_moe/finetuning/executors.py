"""Where configurations run: in this process, in a pool of processes, or on a Ray cluster.

Each executor yields (configuration, outcome), like the generators of `process_pool.py`; an outcome is the
result of `TrialRunner.run`, or the exception that it raised. A process loads model and data once for all of
its configurations.
"""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from dataloader.errors import InputError, in_brief
from routing_moe.checkpoints.find import SavedBart, SavedMixture
from routing_moe.config.finetune import Configuration, FinetuneSettings
from routing_moe.config.flags import flags_of
from routing_moe.io.hub import is_hub_name
from routing_moe.io.memory import WORKERS_OF_GPU, peak_memory_gb
from routing_moe.io.process_pool import (
    result_or_error,
    run_here,
    run_in_processes,
    traceback_noted,
    worker_environment,
)
from routing_moe.task_choice.choice import TaskChoice

RAY_PARTS = 10_000  # Ray rounds resources to 1 / RAY_PARTS
RAY_RETRIES = 3  # of a configuration whose process or machine died

Outcomes = Iterator[tuple[Configuration, dict | Exception]]
_runners: dict = {}  # {settings: TrialRunner}, at most one: that of the model loaded in this process

PATHS = ["output_dir", *(name for name, flag in flags_of(FinetuneSettings).items() if flag.is_path)]


def run_configuration(
    settings: FinetuneSettings,
    choice: Mapping[str, TaskChoice] | None,
    configuration: Configuration,
    start: SavedMixture | SavedBart | None = None,
) -> dict:
    """Runs one configuration with the `TrialRunner` of this process, which is loaded on the first call.

    start: None: find the model that the settings name. Adds the configuration's time in seconds and the peak
    memory of the process in GB.
    """
    from routing_moe.finetuning.trial import TrialRunner  # imports torch, which takes seconds

    key = repr((settings, choice))
    if key not in _runners:
        _runners.clear()
        _runners[key] = TrialRunner(settings, choice, start)
    began = time.perf_counter()
    with traceback_noted():
        outcome = _runners[key].run(configuration)
        if settings.save_best and outcome["dev_performance"] is not None:
            _runners[key].save(model_folder(settings.output_dir, configuration.name))
    return outcome | {"seconds": time.perf_counter() - began, "peak_memory_gb": peak_memory_gb()}


def model_folder(output_dir: str | Path, name: str) -> Path:
    return Path(output_dir) / "models" / name


# ---- on this machine


def in_this_process(settings: FinetuneSettings, choice, missing: list[Configuration], start) -> Outcomes:
    try:
        yield from run_here(run_configuration, {c: (settings, choice, c, start) for c in missing})
    finally:
        _runners.clear()


def in_processes(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--num_workers` processes, distributed over the visible GPUs; if one dies, its configuration fails."""
    quiet = dataclasses.replace(settings, quiet=True)
    arguments = {c: (quiet, choice, c) for c in missing}
    yield from run_in_processes(run_configuration, arguments, settings.num_workers)


# ---- a Ray cluster


def on_ray(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--ray ADDRESS`: each configuration is a Ray task, repeated if its process or machine dies.

    "local" starts a cluster of `--num_workers` CPUs on this machine. On every machine of
    another cluster the package must be installed, and the files must have the same paths.
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
    except Exception as error:  # errors depend on the kind of address
        raise InputError(
            f"--ray {settings.ray}: no cluster can be reached there ({in_brief(error)})"
        ) from None
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        # max_calls=0: a process is reused for further configurations, even if it has a GPU.
        options = dict(num_cpus=1, max_retries=RAY_RETRIES, max_calls=0)
        options |= gpu_options(settings.num_workers, gpus) if gpus else {}
        task = ray.remote(**options)(run_configuration)
        # Machines of a cluster have working directories of their own.
        common = ray.put(dataclasses.replace(with_absolute_paths(settings), quiet=True)), ray.put(choice)
        pending = {task.remote(*common, c): c for c in missing}
        while pending:
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(ended), result_or_error(lambda ended=ended: ray.get(ended))
    finally:
        ray.shutdown()


def gpu_options(workers: int, gpus: float) -> dict:
    """Returns the options of Ray tasks of which `workers` run at the same time, evenly on the GPUs.

    Each task reserves its share of a GPU, and reads in its environment how many have a share.
    """
    on_each = math.ceil(workers / gpus)
    share = math.floor(RAY_PARTS / on_each) / RAY_PARTS
    return dict(num_gpus=share, runtime_env={"env_vars": {WORKERS_OF_GPU: str(on_each)}})


def with_absolute_paths(settings: FinetuneSettings) -> FinetuneSettings:
    given = {name: getattr(settings, name) for name in PATHS}
    absolute = {
        name: str(Path(value).absolute())
        for name, value in given.items()
        if value and (Path(value).exists() or not is_hub_name(value))
    }
    return dataclasses.replace(settings, **absolute)


def executor(settings: FinetuneSettings, start: SavedMixture | SavedBart):
    """Returns the executor that the settings select. start: the model, found on disk."""
    if settings.runs_here:
        return partial(in_this_process, start=start)
    return on_ray if settings.ray else in_processes
