"""Print the tasks that names of tasks and of a split's sections stand for, a line each: for shell scripts.

python -m dataloader.list_tasks --split data/gym/split.json test
python -m dataloader.list_tasks --split data/gym/split.json boolq other_split.json:dev
"""

import argparse
import os
import sys
from collections.abc import Sequence

from dataloader.errors import InputError
from dataloader.task_splits import SECTIONS, load_split


def tasks_named(words: Sequence[str], split: str | os.PathLike) -> list[str]:
    """Task names from names of tasks and of sections: `test` of `split`, or `file.json:test` of another.

    Each task once, in order. Raises InputError for an unknown or an empty section. Whether a task exists is
    not looked at.
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", required=True, help="split file of sections that name none")
    parser.add_argument("words", nargs="+", help="a task, train, dev, test or all, or file.json:section")
    args = parser.parse_args(argv)
    try:
        print("\n".join(tasks_named(args.words, args.split)))
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
