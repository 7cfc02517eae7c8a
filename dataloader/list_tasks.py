"""The tasks that a user names: by their names, or as sections of a split."""

import os
from collections.abc import Sequence

from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Gym
from dataloader.task_splits import SECTIONS, load_split


def tasks_named(
    words: Sequence[str], split: str | os.PathLike, folder: str | os.PathLike | None = None
) -> list[str]:
    """Returns the tasks that the words name, each once and in order.

    words: task names, sections of `split` (`test`), or sections of other split files (`file.json:test`).
    folder: the gym that must have the tasks; None: any.
    Raises InputError for an unknown or empty section, or tasks that the gym lacks.
    """
    tasks, gym = [], None if folder is None else Gym(folder)
    for word in words:
        path, _, section = word.rpartition(":")
        if path.endswith(".json") or word in (*SECTIONS, "all"):
            chosen = load_split(path or split).section(section)
            if not chosen:
                raise InputError(f"{path or split}: the {section} section is empty")
            problems = gym.lacking(chosen, path or split) if gym else []
        else:
            chosen, problems = [word], []
            if gym and word not in (known := gym.tasks()):
                guess = did_you_mean(word, [*known, *SECTIONS, "all"])
                problems = [f"no task '{word}' in {folder}{guess}"]
        if problems:
            raise InputError(problems)
        tasks += chosen
    return list(dict.fromkeys(tasks))
