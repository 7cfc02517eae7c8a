"""Builds several tasks in parallel processes."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.downloads import Files
from dataloader.building.recipe import Recipe
from dataloader.building.report import Line, line_of, unavailable
from dataloader.building.task_folder import NotBuilt, build_task, missing_samples
from dataloader.errors import in_brief
from dataloader.progress import ProgressBar


@dataclass(frozen=True)
class Build:
    """What all tasks of a build share. verify: whether files are compared with the published ones."""

    gym: Path
    files: Files
    samples: tuple[int, ...]
    verify: bool


def build_tasks(
    recipes: Sequence[Recipe], build: Build, load: Callable[[], Mapping[str, Recipe]], workers: int
) -> Iterator[Line]:
    """Builds the tasks and yields their lines of the report in the order in which they are finished.

    load: returns the recipes by task; it is called in each worker process, because recipes hold functions and
    cannot be sent to it. Another process must not build in the same folder at the same time.
    """
    # Tasks that are there already are verified again, after the others are built.
    recipes = sorted(recipes, key=lambda recipe: not missing_samples(recipe, build.gym, build.samples))
    workers = min(workers, len(recipes))
    if workers > 1:
        lines = build_in_processes(recipes, build, load, workers)
    else:
        lines = (build_line(recipe, build) for recipe in recipes)
    for line in ProgressBar(lines, total=len(recipes), unit="task"):
        ProgressBar.write(f"{line.task}: {line.outcome}", file=sys.stderr)
        yield line


def build_line(recipe: Recipe, build: Build) -> Line:
    """Builds a task and returns its line of the report."""
    try:
        build_task(recipe, build.files, build.gym, build.samples)
        return line_of(recipe, build.gym, build.samples, build.verify)
    except NotBuilt as error:
        return unavailable(recipe, str(error))
    except Exception as error:  # of one source must not stop the other tasks
        return unavailable(recipe, f"unexpected error, {type(error).__name__}: {in_brief(error)}")


def build_in_processes(
    recipes: Sequence[Recipe], build: Build, load: Callable, workers: int
) -> Iterator[Line]:
    """Yields the lines of the report; when it is interrupted, the processes end at once."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent)
    lines = {pool.submit(build_named, recipe.task, build, load): recipe for recipe in recipes}
    try:
        for line in as_completed(lines):
            try:
                yield line.result()
            except BrokenProcessPool:
                reason = "a process was killed; call again (if memory was short, try fewer --num_workers)"
                yield unavailable(lines[line], reason)
    except BaseException:  # Ctrl-C
        for process in multiprocessing.active_children():
            process.terminate()  # a task that it is writing is built by the next call
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Ends this process when its parent has ended; one that is killed cannot end it."""
    os.setpgrp()  # Ctrl-C in a terminal reaches the parent alone, which ends its processes

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def build_named(task: str, build: Build, load: Callable[[], Mapping[str, Recipe]]) -> Line:
    return build_line(load()[task], build)
