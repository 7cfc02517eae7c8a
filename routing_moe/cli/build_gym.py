"""Build the tasks of CrossFit's few-shot gym from public data sets, and compare them with the published ones.

    routing-moe build-gym --output_dir data/gym
    routing-moe build-gym --output_dir data/gym --tasks boolq "glue-*"
    routing-moe build-gym --output_dir data/gym --split my_split.json --mirror downloads

Writes <output_dir>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv (.jsonl with answer options),
gym_report.csv, metrics.json, ontology.json, split.json, and in splits/ the published splits without the tasks
that the gym lacks. A second call builds what is missing. Exits with 0 if all tasks are built but those whose
source is known to be gone; 1 if others, or all, are missing; 2 for wrong flags or files, or a folder that
cannot be written; 130 after Ctrl-C.
"""

import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import chain

from dataloader.atomic_files import folder_lock
from dataloader.building.build_tasks import Build, build_tasks
from dataloader.building.downloads import Downloads, Mirror
from dataloader.building.gym_files import GYM_LOCK, GymFiles, changed_splits, write_splits
from dataloader.building.recipe import Recipe
from dataloader.building.report import MISSING, UNAVAILABLE, Line, read_report, summary, write_report
from dataloader.building.task_folder import missing_samples
from dataloader.errors import InputError, did_you_mean
from dataloader.recipes import PUBLISHED, RECIPES
from dataloader.task_splits import PUBLISHED_SPLITS, load_split
from dataloader.templates import has_templates
from routing_moe.config.console import run_command
from routing_moe.config.gyms import BuildGymSettings


def main(argv: list[str] | None = None) -> int:
    return run_command(build_gym, BuildGymSettings, argv, __doc__)


def build_gym(settings: BuildGymSettings) -> int:
    """Builds the tasks; returns the exit code."""
    check_flags(settings)
    gym, known = settings.output_dir, all_recipes()
    sections = load_split(settings.split or PUBLISHED_SPLITS / "random.json")
    tasks = settings.tasks or (sections.all if settings.split else tuple(PUBLISHED))
    recipes = chosen_recipes(tasks, "--tasks" if settings.tasks else f"--split {settings.split}", known)
    files = (Mirror if settings.mirror else Downloads)(
        settings.mirror or settings.cache_dir, settings.accept_changed
    )
    build = Build(gym, files, settings.samples)
    lines: list[Line] = []
    with folder_lock(gym, lock_file=GYM_LOCK):
        GymFiles.read(gym, {recipe.task for recipe in recipes})  # wrong files end the command here
        changed = changed_splits(gym)
        for path in changed:
            print(f"{path} was changed, so it remains; delete it to have it written", file=sys.stderr)
        write_splits(gym, changed)  # a later difference is an edit during the build
        # Tasks of an earlier build that are not in split.json have been taken out of it.
        earlier = () if settings.split else read_report(gym).items()
        left_out = {task for task, line in earlier if line.outcome not in MISSING}
        if not settings.mirror:
            for recipe in recipes:
                if recipe.terms and missing_samples(recipe, gym, settings.samples):
                    print(f"terms of use of {recipe.task}: {recipe.terms}", file=sys.stderr)
        try:
            for line in build_tasks(recipes, build, all_recipes, settings.num_workers):
                lines.append(line)
        finally:
            print(summary(lines))
            built = [known[line.task] for line in lines if line.outcome not in MISSING]
            if built:  # the files are read again, because a build takes hours, and users edit them
                described = GymFiles.read(gym, {recipe.task for recipe in built})
                described.add(built, sections, moves=settings.split is not None, left_out=left_out)
            write_splits(gym, changed_splits(gym))
            write_report(gym, lines)  # last: what it has was in split.json
    outcomes = {line.outcome for line in lines}
    return int(UNAVAILABLE in outcomes or outcomes <= {*MISSING})


def all_recipes() -> dict[str, Recipe]:
    """Returns the recipes by task; worker processes call it, because recipes cannot be sent to them."""
    return RECIPES


def check_flags(settings: BuildGymSettings) -> None:
    problems, seeds = [], settings.samples
    if len(set(seeds)) < len(seeds):
        problems.append(f"--samples {' '.join(map(str, seeds))}: a seed is given twice")
    if settings.tasks and settings.split:
        problems.append("--tasks and --split both name tasks; give one of them")
    if settings.mirror and not settings.mirror.is_dir():
        problems.append(f"--mirror {settings.mirror}: no such folder")
    if problems:
        raise InputError(problems)


def chosen_recipes(names: Iterable[str], flag: str, known: dict[str, Recipe]) -> list[Recipe]:
    """Returns the recipes of the tasks that names or patterns match. Raises InputError for unknown ones."""
    matches = {name: [task for task in known if matches_pattern(task, name)] for name in names}
    problems = [
        f"{flag}: no recipe for '{name}'{did_you_mean(name, known)}"
        for name, tasks in matches.items()
        if not tasks
    ]
    if problems:
        raise InputError(problems)
    return [known[task] for task in dict.fromkeys(chain(*matches.values()))]


def matches_pattern(task: str, pattern: str) -> bool:
    """Returns whether a pattern names a task; "glue-*" does not name prompts, "glue-*__*" does."""
    return fnmatchcase(task, pattern) and has_templates([task]) <= has_templates([pattern])
