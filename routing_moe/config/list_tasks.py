"""The flags of `routing_moe.cli.list_tasks`."""

from dataclasses import dataclass

from routing_moe.config.flags import REQUIRED, Command, group

TASKS = group("tasks")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ListTasksSettings(Command):
    program = "python -m routing_moe.cli.list_tasks"
    usage = "--split FILE [--gym DIR] WORD [WORD ...]"

    words: tuple[str, ...] = TASKS(REQUIRED, "a task; train, dev, test or all; or file.json:section", positional=True)
    split: str = TASKS(REQUIRED, "split file for sections without a file name", metavar="FILE")
    gym: str | None = TASKS(None, "gym folder, to check that it has a folder for each task", metavar="DIR")
# fmt: on
