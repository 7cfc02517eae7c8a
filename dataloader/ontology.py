"""Two-level ontology of tasks: {category: {subcategory: [task, ...]}}.

The shipped file covers the 160 CrossFit tasks. It determines the order of tasks in figures and tables.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from dataloader.templates import dataset_of

ONTOLOGY_FILE = "ontology.json"  # of a gym
SHIPPED_ONTOLOGY = Path(__file__).parent / "ontology.json"
UNCATEGORISED = ("uncategorised", "uncategorised")
ALL = "all"  # the category of all tasks in tables of results


class Ontology:
    """Category and subcategory of each task; an unlisted `<data set>__<template>` has its data set's."""

    def __init__(self, tree: dict[str, dict[str, list[str]]]):
        self.tree = tree  # as in the file
        self._category: dict[str, tuple[str, str]] = {}
        for category, subcategories in tree.items():
            for subcategory, tasks in subcategories.items():
                self._category.update(dict.fromkeys(tasks, (category, subcategory)))
        self._rank = {task: rank for rank, task in enumerate(self._category)}

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> "Ontology":
        """Reads an ontology file (None: the shipped one). Raises InputError if it has another structure."""
        path = Path(path) if path is not None else SHIPPED_ONTOLOGY
        tree = load_json_object(path, "an ontology like {category: {subcategory: [task, ...]}}")
        places: dict[str, str] = {}
        for category, subcategories in tree.items():
            if category in (ALL, UNCATEGORISED[0]):
                raise InputError(f'{path}: "{category}" is a category that tables of results add; rename it')
            if not isinstance(subcategories, dict):
                raise InputError(f'{path}: "{category}" must be an object {{subcategory: [task, ...]}}')
            for subcategory, tasks in subcategories.items():
                place = f'"{category}" / "{subcategory}"'
                if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
                    raise InputError(f"{path}: {place} must be a list of task names")
                for task in tasks:
                    if task in places:
                        raise InputError(f"{path}: task '{task}' is in {places[task]} and again in {place}")
                    places[task] = place
        return cls(tree)

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Subcategories of each category, both in the order of the file."""
        return {category: tuple(subcategories) for category, subcategories in self.tree.items()}

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the ontology, in the order of the file."""
        return tuple(self._category)

    def category(self, task: str) -> tuple[str, str]:
        """Returns (category, subcategory) of a task, else of its data set, else UNCATEGORISED."""
        return self._category.get(task, self._category.get(dataset_of(task), UNCATEGORISED))

    def order(self, tasks: Iterable[str]) -> list[str]:
        """Returns the tasks in the order of the ontology, templates at their data set, then the rest."""
        last = len(self._rank)

        def place(task: str) -> tuple[int, str]:
            return self._rank.get(task, self._rank.get(dataset_of(task), last)), task

        return sorted(tasks, key=place)


def ontology_path(train_dir: str | Path, task_ontology: str | Path | None) -> Path | None:
    """Returns `--task_ontology`, else the gym's `ontology.json`, else None: of the 160 CrossFit tasks."""
    of_gym = Path(train_dir) / ONTOLOGY_FILE
    return Path(task_ontology) if task_ontology else of_gym if of_gym.is_file() else None
