"""Two-level ontology of tasks: {category: {subcategory: [task, ...]}}.

The shipped file covers the 160 CrossFit tasks. It determines the order of tasks in figures and tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from dataloader.templates import dataset_of

ONTOLOGY_FILE = "ontology.json"  # of a gym
SHIPPED_ONTOLOGY = Path(__file__).parent / "ontology.json"
UNCATEGORISED = ("uncategorised", "uncategorised")


class Ontology:
    """Category and subcategory of each task.

    A task `<data set>__<template>` that is not listed has those of its data set, any other "uncategorised".
    """

    def __init__(self, tree: dict[str, dict[str, list[str]]]):
        self.tree = tree  # as in the file
        self._category: dict[str, tuple[str, str]] = {}
        for category, subcategories in tree.items():
            for subcategory, tasks in subcategories.items():
                self._category.update(dict.fromkeys(tasks, (category, subcategory)))
        self._rank = {task: rank for rank, task in enumerate(self._category)}

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> Ontology:
        """Reads an ontology file (None: the shipped one).

        Raises InputError, with the file and category of each problem, if the file is missing, has another
        structure, or lists a task twice.
        """
        path = Path(path) if path is not None else SHIPPED_ONTOLOGY
        tree = load_json_object(path, "an ontology like {category: {subcategory: [task, ...]}}")
        problems = _shape_problems(tree)
        if problems:
            raise InputError(f"{path}: {problem}" for problem in problems)
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
        """Returns the tasks in the order of the ontology, then unlisted tasks in alphabetical order.

        The templates of a listed data set have its place.
        """
        last = len(self._rank)

        def place(task: str) -> tuple[int, str]:
            return self._rank.get(task, self._rank.get(dataset_of(task), last)), task

        return sorted(tasks, key=place)


def _shape_problems(tree: dict) -> list[str]:
    problems = []
    places: dict[str, str] = {}
    for category, subcategories in tree.items():
        if not isinstance(subcategories, dict):
            problems.append(f'"{category}" must be an object {{subcategory: [task, ...]}}')
            continue
        for subcategory, tasks in subcategories.items():
            place = f'"{category}" / "{subcategory}"'
            if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
                problems.append(f"{place} must be a list of task names")
                continue
            for task in tasks:
                if task in places:
                    problems.append(f"task '{task}' is in {places[task]} and again in {place}")
                places.setdefault(task, place)
    return problems


def ontology_path(train_dir: str | Path, task_ontology: str | Path | None) -> Path | None:
    """Returns `--task_ontology`, else the gym's `ontology.json`, else None: of the 160 CrossFit tasks."""
    of_gym = Path(train_dir) / ONTOLOGY_FILE
    return Path(task_ontology) if task_ontology else of_gym if of_gym.is_file() else None
