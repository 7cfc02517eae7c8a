"""Splits of tasks into training, development and test tasks.

A split is a JSON file {"train": [...], "dev": [...], "test": [...], "all": [...]} of task names; all keys
but "train" are optional and may be empty. `PUBLISHED_SPLITS` has the eight published partitions of the 160
CrossFit tasks, and t0_held_out.json, whose test tasks are prompts (docs/crossfit_gym.md). The folder `splits`
of a built gym has them without the tasks that the gym lacks.
"""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object

PUBLISHED_SPLITS = Path(__file__).parent / "splits"
SECTIONS = ("train", "dev", "test")

# The published no-NLI partition lists this task under both "train" and "dev". It loads with a warning, so
# that published runs can be repeated; any other overlap is an error.
PUBLISHED_LEAKS = frozenset({"sick"})


@dataclass(frozen=True)
class Split:
    """The tasks of one split file. `listed` has the tasks of the file's "all" key, if it has one."""

    path: Path
    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    listed: tuple[str, ...] = field(default=(), repr=False)

    @property
    def all(self) -> tuple[str, ...]:
        """All tasks, each once: train, dev, test, then other tasks under the file's "all" key."""
        return tuple(dict.fromkeys(self.train + self.dev + self.test + self.listed))

    def section(self, name: str) -> tuple[str, ...]:
        """Returns the tasks of "train", "dev", "test" or "all"; raises InputError for any other name."""
        if name not in (*SECTIONS, "all"):
            known = ", ".join((*SECTIONS, "all"))
            raise InputError(f"no section '{name}' in a split{did_you_mean(name, SECTIONS)} (known: {known})")
        return getattr(self, name)


def load_split(path: str | os.PathLike) -> Split:
    """Reads a split file. Raises InputError; overlaps in PUBLISHED_LEAKS only give a warning."""
    path = Path(path)
    content = load_json_object(path, 'a split file like {"train": [...], "dev": [...], "test": [...]}')
    if "train" not in content:
        raise InputError(f'{path} has no "train" key (it has: {", ".join(content) or "none"})')
    sections = {name: content.get(name, []) for name in (*SECTIONS, "all")}
    for name, tasks in sections.items():
        if not isinstance(tasks, list) or not all(isinstance(task, str) and task.strip() for task in tasks):
            raise InputError(f'{path}: "{name}" is not a list of task names')
        if twice := [task for task, count in Counter(tasks).items() if count > 1]:
            raise InputError(f'{path}: "{name}" lists {", ".join(twice)} more than once')
    for name in ("dev", "test"):
        both = [task for task in sections[name] if task in set(sections["train"])]
        names = ", ".join(both)
        if both and not (name == "dev" and PUBLISHED_LEAKS.issuperset(both)):
            raise InputError(f'{path}: in "train" and in "{name}": {names}; these tasks would not be unseen')
        if both:
            about = f'{path}: trains on {names}, which is also under "dev" and so not unseen'
            warnings.warn(about, stacklevel=2)
    if both := [task for task in sections["dev"] if task in set(sections["test"])]:
        raise InputError(f'{path}: in "dev" and in "test": {", ".join(both)}; name each task in one of them')
    return Split(path, *(tuple(tasks) for tasks in sections.values()))
