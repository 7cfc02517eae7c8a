"""Build the tasks of CrossFit's few-shot gym from public data sets, and compare them with the published ones.

    routing-moe build-gym --output_dir data/gym
    routing-moe build-gym --output_dir data/gym --tasks boolq "glue-*"
    routing-moe build-gym --output_dir data/gym --split my_split.json --mirror downloads
    routing-moe build-gym --output_dir data/gym --recipes my_recipes.py --tasks my_task

Writes <output_dir>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv (.jsonl with answer options), gym_report.csv,
metrics.json, ontology.json and split.json. A second call builds what is missing. Exits with 0 if all tasks are
built; 1 if some could not be; 2 for wrong flags or files, or a folder that cannot be written; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from dataloader.building.build_tasks import BuildSettings, build_tasks
from dataloader.building.gym_files import GymFiles, exclusive, no_traceback
from dataloader.building.own_recipes import load_recipes
from dataloader.building.recipe import Recipe
from dataloader.building.report import UNAVAILABLE, Line, table, terms_of_use, write_report
from dataloader.building.sampling import SAMPLES
from dataloader.building.task_folder import missing_samples
from dataloader.command_line import Parser
from dataloader.errors import Faults, InputError, did_you_mean
from dataloader.recipes import PUBLISHED, RECIPES
from dataloader.task_splits import PUBLISHED_SPLITS, load_split
from dataloader.templates import has_templates

INTERRUPTED = 130


def parser() -> Parser:
    usage = Parser("python -m dataloader.build_gym", description=__doc__)
    add = usage.add_argument
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "routing_moe"
    seeds = " ".join(map(str, SAMPLES))
    workers = min(4, os.cpu_count() or 1)
    # fmt: off
    add("--output_dir", type=Path, required=True, metavar="DIR", help="gym folder to write")
    add("--tasks", nargs="+", metavar="NAME", help='names or patterns such as "glue-*" (default: see --split)')
    add("--split", type=Path, metavar="FILE", help="split file: builds its tasks; its sections go to split.json (default: the tasks of --recipes, or else the 160 published ones, in the sections of random.json)")
    add("--recipes", type=Path, metavar="FILE", help="Python file with a list RECIPES of your own (default: none)")
    add("--samples", nargs="+", type=int, default=SAMPLES, metavar="SEED", help=f"seeds of the samples (default: {seeds})")
    add("--mirror", type=Path, metavar="DIR", help="read all files from this folder, <host>/<path> of the URL, and download nothing (default: none)")
    add("--cache_dir", type=Path, default=cache, metavar="DIR", help=f"folder of downloaded raw files (default: {cache})")
    add("--accept_changed", action="store_true", help="use raw files that differ from those of 2021")
    add("--verify", action=argparse.BooleanOptionalAction, default=True, help="compare with the published MD5 sums (default)")
    add("--num_workers", type=int, default=workers, metavar="N", help=f"tasks built at the same time (default: {workers})")
    # fmt: on
    return usage


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    flags = vars(args) | {"samples": tuple(args.samples)}
    tasks, split = flags.pop("tasks"), flags.pop("split")
    try:
        return run(BuildSettings(**flags), tasks, split)
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return INTERRUPTED


def run(settings: BuildSettings, tasks: list[str] | None, split: Path | None) -> int:
    """Builds the tasks and returns 1 if some could not be built, else 0."""
    faults, gym = Faults(setting_faults(settings)), settings.output_dir
    own = faults.of(load_recipes, settings.recipes)
    known = {**RECIPES, **(own or {})}
    sections = faults.of(load_split, split or PUBLISHED_SPLITS / "random.json")
    if own is not None and sections:  # otherwise their tasks would be unknown
        default = sections.all if split else own or PUBLISHED
        recipes = faults.of(chosen_recipes, tasks, split, default, known)
    described = faults.of(GymFiles.read, gym)
    if faults:
        raise InputError(faults)
    lines: list[Line] = []
    with exclusive(gym):
        if not settings.mirror:
            downloaded = [recipe for recipe in recipes if missing_samples(recipe, gym, settings.samples)]
            sys.stderr.writelines(f"{terms}\n" for terms in terms_of_use(downloaded))
        sys.stderr.writelines(f"{note}\n" for note in described.other_metrics(recipes))
        try:
            for line in build_tasks(recipes, settings):
                lines.append(line)
                with suppress(OSError):  # of a full disk; it is written again at the end
                    write_report(gym, lines)
        finally:
            print(table(lines))
            built = [known[line.task] for line in lines if line.outcome != UNAVAILABLE]
            with no_traceback(gym):
                described.add(built, sections, moves=split is not None)
                write_report(gym, lines)
    return 1 if len(built) < len(recipes) else 0


def setting_faults(settings: BuildSettings) -> list[str]:
    faults, seeds = [], settings.samples
    if settings.num_workers < 1:
        faults.append(f"--num_workers {settings.num_workers}: must be at least 1")
    if any(not 0 <= seed < 2**32 for seed in seeds) or len(set(seeds)) < len(seeds):
        faults.append(
            f"--samples {' '.join(map(str, seeds))}: must be different whole numbers from 0 to 2^32 - 1"
        )
    if settings.mirror and not settings.mirror.is_dir():
        faults.append(f"--mirror {settings.mirror}: no such folder")
    return faults


def chosen_recipes(
    tasks: list[str] | None, split: Path | None, default: Iterable[str], known: dict[str, Recipe]
) -> list[Recipe]:
    """Returns the recipes of the tasks that the flags name. Raises InputError with all faults.

    tasks: names or patterns; split: split file; default: tasks if neither is given.
    """
    if tasks and split:
        raise InputError("--tasks and --split both name tasks; give one of them")
    flag = "--tasks" if tasks else "--split"
    tasks = tasks or list(default)
    if not tasks:
        raise InputError(f"--split {split} names no tasks")
    matches = {name: [task for task in known if matches_pattern(task, name)] for name in tasks}
    faults = [
        f"{flag}: no recipe for '{name}'{did_you_mean(name, known)}" for name in tasks if not matches[name]
    ]
    if faults:
        raise InputError(faults)
    return [known[task] for task in dict.fromkeys(task for found in matches.values() for task in found)]


def matches_pattern(task: str, pattern: str) -> bool:
    """Returns whether a pattern names a task; "glue-*" does not name prompts, "glue-*__*" does."""
    return fnmatchcase(task, pattern) and has_templates([task]) <= has_templates([pattern])


if __name__ == "__main__":
    sys.exit(main())
