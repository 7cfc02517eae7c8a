"""Print the tasks of a split's sections and the named tasks, one per line, for use in shell scripts.

routing-moe list-tasks --split data/gym/split.json test
routing-moe list-tasks --split data/gym/split.json boolq other_split.json:dev
"""

import os
import sys
from collections.abc import Sequence

from dataloader.command_line import Parser
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


def main(argv: list[str] | None = None) -> int:
    parser = Parser("python -m dataloader.list_tasks", description=__doc__)
    parser.add_argument("--split", required=True, help="split file for sections without a file name")
    parser.add_argument("--gym", help="gym folder, to check that it has a folder for each task")
    parser.add_argument("words", nargs="+", help="a task; train, dev, test or all; or file.json:section")
    args = parser.parse_args(argv)
    try:
        tasks = tasks_named(args.words, args.split)
        if args.gym:
            check_tasks(tasks, args.gym)
        print("\n".join(tasks))
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
