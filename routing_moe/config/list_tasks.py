"""The flags of `routing-moe list-tasks`."""

from dataclasses import dataclass

from routing_moe.config.flags import REQUIRED, Command, group

TASKS = group("tasks")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ListTasksSettings(Command):
    program = "routing-moe list-tasks"
    usage = "--split FILE [--gym DIR] WORD [WORD ...]"

    names: tuple[str, ...] = TASKS(REQUIRED, "a task; train, dev, test or all; or file.json:section", positional=True)
    split: str = TASKS(REQUIRED, "split file for sections without a file name", metavar="FILE")
    gym: str | None = TASKS(None, "gym folder, to check that it has a folder for each task", metavar="DIR")
# fmt: on
