"""Builds several tasks in parallel processes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from dataloader.building.downloads import Downloads, Mirror
from dataloader.building.own_recipes import load_recipes
from dataloader.building.recipe import Recipe
from dataloader.building.report import Line, line_of, unavailable
from dataloader.building.sources import Files
from dataloader.building.task_folder import PARTIAL, NotBuilt, build_task, missing_samples
from dataloader.errors import InputError, in_brief
from dataloader.processes import leave_signals_to
from dataloader.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Settings of a build: the flags of `python -m dataloader.build_gym`."""

    output_dir: Path
    samples: tuple[int, ...]
    recipes: Path | None
    mirror: Path | None
    cache_dir: Path
    accept_changed: bool
    verify: bool
    num_workers: int

    def files(self) -> Files:
        if self.mirror is not None:
            return Mirror(self.mirror, self.accept_changed)
        return Downloads(self.cache_dir, self.accept_changed)


def build_tasks(recipes: Sequence[Recipe], settings: BuildSettings) -> Iterator[Line]:
    """Builds the tasks and yields their lines of the report in the order in which they are finished.

    Another process must not build in the same folder at the same time.
    """
    remove_unfinished(settings.output_dir)
    # Tasks that are there already are verified again, after the others are built.
    recipes = sorted(
        recipes, key=lambda recipe: not missing_samples(recipe, settings.output_dir, settings.samples)
    )
    parallel = settings.num_workers > 1 and len(recipes) > 1
    results = (build_in_processes if parallel else build_here)(recipes, settings)
    try:
        for line in tqdm(results, total=len(recipes), unit="task", disable=None):
            tqdm.write(f"{line.task}: {line.outcome}", file=sys.stderr)
            yield line
    finally:
        remove_unfinished(settings.output_dir)


def remove_unfinished(gym: Path) -> None:
    """Removes what killed processes have left."""
    shutil.rmtree(gym / PARTIAL, ignore_errors=True)


def build(recipe: Recipe, settings: BuildSettings, files: Files) -> Line:
    """Builds a task and returns its line of the report."""
    try:
        build_task(recipe, files, settings.output_dir, settings.samples)
        return line_of(recipe, settings.output_dir, settings.samples, settings.verify)
    except NotBuilt as error:
        return unavailable(recipe, error, settings.samples, settings.verify)
    except (Exception, SystemExit) as error:  # of one source must not stop the other tasks
        reason = f"unexpected error, {type(error).__name__}: {in_brief(error)}"
        return unavailable(recipe, NotBuilt([reason]), settings.samples, settings.verify)


def build_here(recipes: Sequence[Recipe], settings: BuildSettings) -> Iterator[Line]:
    """Builds the tasks one after the other in this process."""
    files = settings.files()
    return (build(recipe, settings, files) for recipe in recipes)


def build_in_processes(recipes: Sequence[Recipe], settings: BuildSettings) -> Iterator[Line]:
    """Builds the tasks in a pool of processes; yields the lines in the order in which they are finished."""
    context = get_context("spawn")
    initial = (settings, context.RLock(), os.getpid())
    workers = min(settings.num_workers, len(recipes))
    with ProcessPool(workers, context=context, initializer=start_worker, initargs=initial) as pool:
        try:
            futures = {pool.schedule(build_named, args=(recipe.task,)): recipe for recipe in recipes}
            for future in as_completed(futures):
                try:
                    yield future.result()
                except ProcessExpired:
                    reason = "its process was killed (if memory was short, try fewer --num_workers)"
                    yield unavailable(futures[future], NotBuilt([reason]), settings.samples, settings.verify)
        except BrokenProcessPool:
            raise InputError("the processes cannot start; --num_workers 1 shows why") from None
        except BaseException:
            pool.stop()
            raise


_worker: dict = {}  # settings, files and recipes of a worker process: recipes cannot be sent to it


def start_worker(settings: BuildSettings, lock, parent: int) -> None:
    leave_signals_to(parent)
    tqdm.set_lock(lock)  # of the lines of the terminal
    _worker.update(
        settings=settings, files=settings.files(), recipes={**RECIPES, **load_recipes(settings.recipes)}
    )


def build_named(task: str) -> Line:
    return build(_worker["recipes"][task], _worker["settings"], _worker["files"])
