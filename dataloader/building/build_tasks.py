"""Builds several tasks in parallel processes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from dataloader.building.downloads import Downloads, Mirror
from dataloader.building.own_recipes import load_recipes
from dataloader.building.recipe import Recipe
from dataloader.building.report import Line, line_of, unavailable, write_report
from dataloader.building.sources import Files
from dataloader.building.task_folder import PARTIAL, NotBuilt, build_task
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

    def known_recipes(self) -> dict[str, Recipe]:
        """Returns all recipes by task. Raises InputError for faults in the user's file."""
        return {**RECIPES, **load_recipes(self.recipes)}

    def files(self) -> Files:
        if self.mirror is not None:
            return Mirror(self.mirror, self.accept_changed)
        return Downloads(self.cache_dir, self.accept_changed)


def build_tasks(recipes: Sequence[Recipe], settings: BuildSettings) -> list[Line]:
    """Builds the tasks and returns the lines of the report, which is written after each task.

    Another process must not build in the same folder at the same time.
    """
    lines: list[Line] = []
    remove_unfinished(settings.output_dir)
    context = get_context("spawn")
    initial = (settings, context.RLock(), os.getpid())
    workers = min(settings.num_workers, len(recipes))
    with ProcessPool(workers, context=context, initializer=start_worker, initargs=initial) as pool:
        try:
            futures = {pool.schedule(build, args=(recipe.task,)): recipe for recipe in recipes}
            for future in tqdm(as_completed(futures), total=len(futures), unit="task", disable=None):
                try:
                    line = future.result()
                except ProcessExpired:
                    reason = "its process was killed; if memory was short, try fewer --num_workers"
                    line = unavailable(futures[future], NotBuilt([reason]), settings.samples, settings.verify)
                lines.append(line)
                write_report(settings.output_dir, lines)
                tqdm.write(f"{line.task}: {line.outcome}", file=sys.stderr)
        except BaseException:
            pool.stop()
            raise
    remove_unfinished(settings.output_dir)
    return lines


def remove_unfinished(gym: Path) -> None:
    """Removes what killed processes have left."""
    shutil.rmtree(gym / PARTIAL, ignore_errors=True)


# ---------------------------------------------------------------------------- in a worker process

_worker: dict = {}  # settings, files and recipes


def start_worker(settings: BuildSettings, lock, parent: int) -> None:
    leave_signals_to(parent)
    tqdm.set_lock(lock)  # of the lines of the terminal
    _worker.update(settings=settings, files=settings.files(), recipes=settings.known_recipes())


def build(task: str) -> Line:
    """Builds a task and returns its line of the report."""
    settings, recipe = _worker["settings"], _worker["recipes"][task]
    try:
        build_task(recipe, _worker["files"], settings.output_dir, settings.samples)
    except NotBuilt as error:
        return unavailable(recipe, error, settings.samples, settings.verify)
    return line_of(recipe, settings.output_dir, settings.samples, settings.verify)
