"""Print the tasks of a split's sections and the named tasks, one per line, for use in shell scripts.

routing-moe list-tasks --split data/gym/split.json test
routing-moe list-tasks --split data/gym/split.json boolq other_split.json:dev
"""

from dataloader.gym import tasks_named
from routing_moe.config.console import run_command
from routing_moe.config.gyms import ListTasksSettings


def main(argv: list[str] | None = None) -> int:
    return run_command(list_tasks, ListTasksSettings, argv, __doc__)


def list_tasks(settings: ListTasksSettings) -> None:
    print("\n".join(tasks_named(settings.names, settings.split, settings.gym)))
