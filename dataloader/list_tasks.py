"""The tasks that a user names: by their names, or as sections of a split."""

import os
from collections.abc import Sequence

from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Gym
from dataloader.task_splits import SECTIONS, load_split


def tasks_named(words: Sequence[str], split: str | os.PathLike) -> list[str]:
    """Returns the tasks that the words name, each once and in order.

    words: task names, sections of `split` (`test`), or sections of other split files (`file.json:test`).
    Raises InputError for an unknown or empty section. Does not check whether a task exists.
    """
    tasks: list[str] = []
    for word in words:
        path, _, section = word.rpartition(":")
        if path.endswith(".json") or word in (*SECTIONS, "all"):
            chosen = load_split(path or split).section(section)
            if not chosen:
                raise InputError(f"{path or split}: the {section} section is empty")
            tasks += chosen
        else:
            tasks.append(word)
    return list(dict.fromkeys(tasks))


def check_tasks(tasks: Sequence[str], folder: str) -> None:
    """Raises InputError for tasks without a folder in the gym; hints include similar section names."""
    gym = Gym(folder)
    known = gym.tasks()
    unknown = [task for task in tasks if task not in known]
    if unknown:
        names = [*known, *SECTIONS, "all"]
        raise InputError(f"no task '{task}' in {folder}{did_you_mean(task, names)}" for task in unknown)
