"""The main function that the commands that compute task vectors share: parse, check, compute, report.

Flags and files are checked before torch is imported, which takes seconds.
"""

import logging
from collections.abc import Mapping
from typing import Any

from huggingface_hub.utils import disable_progress_bars

from dataloader.atomic_files import folder_lock
from dataloader.errors import InputError, Problems, counted, problem_context
from routing_moe.cli.console import reporting_errors
from routing_moe.config.flags import command_line, parse
from routing_moe.io.memory import is_out_of_memory, memory_flags, naming_memory_flags
from task.task_emb.job import VectorJob
from task.task_emb.settings import PUBLISHED, GymSettings, VectorSettings
from task.task_emb.sources import Source, chosen_tasks, split_of

log = logging.getLogger("routing_moe")


def compute_vectors(method: type[VectorSettings], argv: list[str] | None, description: str) -> int:
    """Parses flags, checks them, computes missing vectors and writes the folder; returns the exit code.

    It is 1 if tasks failed; they are listed at the end.
    """
    flags, job = parse(method, argv, description), None
    with reporting_errors(lambda: progress(job)) as result:
        if flags.get("quiet"):
            disable_progress_bars()
        job = check(settings_of(method, flags))
        from routing_moe.io.logs import log_to_file, start_logging  # imports transformers

        start_logging()
        with naming_memory_flags(job.settings), folder_lock(job.folder):
            log_to_file(job.folder, "log.txt")
            failed = job.run(command_line(method, argv))
        if failed:
            report_failed(job, failed)
            result.exit_code = 1
        else:
            log.info(summary(job))
    return result.exit_code


def settings_of(method: type[VectorSettings], flags: Mapping[str, Any]) -> VectorSettings:
    """Returns the settings of the flags given. Others have those of --recipe, else of the run --model."""
    given = {**(method.PUBLISHED_RECIPE if flags.get("recipe") == PUBLISHED else {}), **flags}
    settings = method(**given)
    return settings.with_texts_of_model(given) if isinstance(settings, GymSettings) else settings


def check(settings: VectorSettings) -> VectorJob:
    """Returns the checked job, with its finished vectors loaded. Raises one InputError with all errors."""
    problems = Problems(settings.problems())
    settings = settings.resolved()
    source, data, units = problems.of(settings.source), {}, {}
    if source is not None:
        tasks = problems.of(tasks_of, settings, source) or []
        file_problems = source.problems(tasks)
        problems += file_problems
        units = {} if file_problems else source.units(tasks)
        data = {unit: source.checksum(unit) for unit in units}
    job = VectorJob(settings, data, {} if problems else problems.of(settings.model_files) or {}, units)
    problems.of(job.check_folder)
    if not problems:
        problems.of(job.load)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return job


def tasks_of(settings: VectorSettings, source: Source) -> list[str]:
    """Returns the selected tasks. Raises InputError for a broken split and for unknown tasks."""
    with problem_context("--custom_tasks_splits " if settings.custom_tasks_splits else ""):
        split = split_of(settings.custom_tasks_splits, settings.train_dir)
    where = settings.train_dir or getattr(settings, "descriptions", None) or settings.custom_tasks_splits
    return chosen_tasks(settings.tasks, split, source.known, str(where or "the split"))


def report_failed(job: VectorJob, failed: dict[str, Exception]) -> None:
    """Logs the tasks that failed. failed: {line that names the task: its error}."""
    log.error(
        "%s failed, so that only by_task/ is written; run the same command to try again:",
        counted(len(failed), "task"),
    )
    for line in failed:
        log.error("  %s", line)
    if any(map(is_out_of_memory, failed.values())):
        log.error("out of memory: %s", memory_flags(job.settings))


def summary(job: VectorJob) -> str:
    """Returns a line for the log: number and dimension of vectors, seconds, what vectors have seen."""
    seconds = [job.finished[task].seconds for task in job.data]
    D = len(next(iter(job.finished.values())).vector_D)
    return (
        f"{len(job.finished)} vectors of {D} dimensions in {job.folder}; {sum(seconds):.1f} s in total, "
        f"{sum(seconds) / len(seconds):.2f} s per vector; data of a task that its vector has seen: "
        f"{job.settings.seen}"
    )


def progress(job: VectorJob | None) -> str:
    """Returns what is saved after an interruption, for the last line of the command."""
    if job is None:
        return "no task was started"
    total = len(job.data)
    return f"{total - len(job.missing)} of {total} tasks are finished; run the same command to continue"
