"""Builds several tasks in parallel processes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.downloads import Files
from dataloader.building.recipe import Recipe
from dataloader.building.report import Line, line_of, unavailable
from dataloader.building.task_folder import NotBuilt, build_task, missing_samples
from dataloader.errors import in_brief
from dataloader.executor import run_calls
from dataloader.progress import ProgressBar


@dataclass(frozen=True)
class Build:
    """What all tasks of a build share."""

    gym: Path
    files: Files
    samples: tuple[int, ...]


def build_tasks(
    recipes: Sequence[Recipe], build: Build, load: Callable[[], Mapping[str, Recipe]], workers: int
) -> Iterator[Line]:
    """Builds the tasks and yields their lines of the report in the order in which they are finished.

    load: returns the recipes by task; it is called in each worker process, because recipes hold functions and
    cannot be sent to it. Another process must not build in the same folder at the same time.
    """
    # Tasks that are there already are verified again, after the others are built.
    recipes = sorted(recipes, key=lambda recipe: not missing_samples(recipe, build.gym, build.samples))
    calls = {recipe: (recipe.task, build, load) for recipe in recipes}
    bar = ProgressBar(total=len(recipes), unit="task")
    with bar, closing(run_calls(build_line, calls, workers)) as outcomes:
        for recipe, outcome in outcomes:
            line = outcome
            if isinstance(outcome, Exception):
                reason = f"{in_brief(outcome)}; call again (if memory was short, with fewer --num_workers)"
                line = unavailable(recipe, reason)
            bar.update()
            ProgressBar.write(f"{line.task}: {line.outcome}", file=sys.stderr)
            yield line


def build_line(task: str, build: Build, load: Callable[[], Mapping[str, Recipe]]) -> Line:
    """Builds a task and returns its line of the report."""
    recipe = load()[task]
    try:
        build_task(recipe, build.files, build.gym, build.samples)
        return line_of(recipe, build.gym, build.samples)
    except NotBuilt as error:
        return unavailable(recipe, str(error))
    except Exception as error:  # of one source must not stop the other tasks
        return unavailable(recipe, f"unexpected error, {type(error).__name__}: {in_brief(error)}")
