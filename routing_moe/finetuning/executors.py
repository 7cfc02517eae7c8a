"""Where configurations run: in this process, in a pool of processes, or on a Ray cluster.

Each executor yields (configuration, outcome), like the generators of `process_pool.py`; an outcome is the
result of `TrialRunner.run`, or the exception that it raised. A process loads model and data once for all of
its configurations.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from routing_moe.config.finetune import Configuration, FinetuneSettings
from routing_moe.config.flags import flags_of
from routing_moe.io.hub import is_hub_name
from routing_moe.io.memory import peak_memory_gb
from routing_moe.io.process_pool import result_or_error, run_here, run_in_processes, traceback_noted
from routing_moe.io.ray_cluster import remote_function
from routing_moe.task_choice.choice import TaskChoice

Outcomes = Iterator[tuple[Configuration, dict | Exception]]
_runners: dict = {}  # {settings: TrialRunner}, at most one: that of the model loaded in this process

PATHS = ["output_dir", *(name for name, flag in flags_of(FinetuneSettings).items() if flag.is_path)]


def run_configuration(
    settings: FinetuneSettings,
    choice: Mapping[str, TaskChoice] | None,
    configuration: Configuration,
) -> dict:
    """Runs one configuration with the `TrialRunner` of this process, which is loaded on the first call.

    Adds the configuration's time in seconds and the peak memory of the process in GB.
    """
    from routing_moe.finetuning.trial import TrialRunner  # imports torch, which takes seconds

    key = repr((settings, choice))
    if key not in _runners:
        _runners.clear()
        _runners[key] = TrialRunner(settings, choice)
    began = time.perf_counter()
    with traceback_noted():
        outcome = _runners[key].run(configuration)
        if settings.save_best and outcome["dev_performance"] is not None:
            _runners[key].save(model_folder(settings.output_dir, configuration.name))
    return outcome | {"seconds": time.perf_counter() - began, "peak_memory_gb": peak_memory_gb()}


def model_folder(output_dir: str | Path, name: str) -> Path:
    return Path(output_dir) / "models" / name


# ---- on this machine


def in_this_process(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    try:
        yield from run_here(run_configuration, {c: (settings, choice, c) for c in missing})
    finally:
        _runners.clear()


def in_processes(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--num_workers` processes, distributed over the visible GPUs; if one dies, its configuration fails."""
    quiet = dataclasses.replace(settings, quiet=True)
    arguments = {c: (quiet, choice, c) for c in missing}
    yield from run_in_processes(run_configuration, arguments, settings.num_workers)


# ---- a Ray cluster


def on_ray(settings: FinetuneSettings, choice, missing: list[Configuration]) -> Outcomes:
    """`--ray ADDRESS`: each configuration is a Ray task, repeated if its process or machine dies."""
    import ray

    with remote_function(run_configuration, settings.ray, settings.num_workers) as call:
        # Machines of a cluster have working directories of their own.
        common = ray.put(dataclasses.replace(with_absolute_paths(settings), quiet=True)), ray.put(choice)
        pending = {call(*common, c): c for c in missing}
        while pending:
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(ended), result_or_error(lambda ended=ended: ray.get(ended))


def with_absolute_paths(settings: FinetuneSettings) -> FinetuneSettings:
    given = {name: getattr(settings, name) for name in PATHS}
    absolute = {
        name: str(Path(value).absolute())
        for name, value in given.items()
        if value and (Path(value).exists() or not is_hub_name(value))
    }
    return dataclasses.replace(settings, **absolute)


def executor(settings: FinetuneSettings):
    """Returns the executor that the settings select."""
    if settings.ray:
        return on_ray
    return in_processes if settings.num_workers > 1 else in_this_process
