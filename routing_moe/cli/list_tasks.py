"""Print the tasks of a split's sections and the named tasks, one per line, for use in shell scripts.

routing-moe list-tasks --split data/gym/split.json test
routing-moe list-tasks --split data/gym/split.json boolq other_split.json:dev
"""

import sys
from collections.abc import Sequence

from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Gym
from dataloader.task_splits import SECTIONS, tasks_named
from routing_moe.cli.console import run_command
from routing_moe.config.list_tasks import ListTasksSettings


def main(argv: list[str] | None = None) -> int:
    return run_command(list_tasks, ListTasksSettings, argv, __doc__)


def list_tasks(settings: ListTasksSettings) -> None:
    tasks = tasks_named(settings.words, settings.split)
    if settings.gym:
        check_tasks(tasks, settings.gym)
    print("\n".join(tasks))


def check_tasks(tasks: Sequence[str], folder: str) -> None:
    """Raises InputError for tasks without a folder in the gym; hints include similar section names."""
    known = Gym(folder).tasks()
    names = [*known, *SECTIONS, "all"]
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise InputError(f"no task '{task}' in {folder}{did_you_mean(task, names)}" for task in unknown)


if __name__ == "__main__":
    sys.exit(main())
