"""What kind of task is it: a two-level ontology, {category: {subcategory: [task, ...]}}.

The shipped file places the 160 CrossFit tasks. It decides the order of tasks in pictures and tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object

SHIPPED_ONTOLOGY = Path(__file__).parent / "ontology.json"
UNCATEGORISED = ("uncategorised", "uncategorised")


class Ontology:
    """Category and subcategory of every task it knows; other tasks are "uncategorised", never dropped."""

    def __init__(self, tree: dict[str, dict[str, list[str]]]):
        self._tree = tree
        self._category: dict[str, tuple[str, str]] = {}
        for category, subcategories in tree.items():
            for subcategory, tasks in subcategories.items():
                self._category.update(dict.fromkeys(tasks, (category, subcategory)))
        self._rank = {task: rank for rank, task in enumerate(self._category)}

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> Ontology:
        """Reads an ontology file; None: the shipped one. Raises InputError naming the file and the place."""
        path = Path(path) if path is not None else SHIPPED_ONTOLOGY
        tree = load_json_object(path, "an ontology like {category: {subcategory: [task, ...]}}")
        faults = _shape_faults(tree)
        if faults:
            raise InputError(f"{path}: {fault}" for fault in faults)
        return cls(tree)

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """{category: its subcategories}, both in the file's order."""
        return {category: tuple(subcategories) for category, subcategories in self._tree.items()}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task it knows, in the file's order."""
        return tuple(self._category)

    def category(self, task: str) -> tuple[str, str]:
        """Returns (category, subcategory); ("uncategorised", "uncategorised") for a task it does not know."""
        return self._category.get(task, UNCATEGORISED)

    def order(self, tasks: Iterable[str]) -> list[str]:
        """The same tasks by the ontology's order; those it does not know come last, alphabetically."""
        last = len(self._rank)
        return sorted(tasks, key=lambda task: (self._rank.get(task, last), task))


def _shape_faults(tree: dict) -> list[str]:
    faults = []
    places: dict[str, str] = {}
    for category, subcategories in tree.items():
        if not isinstance(subcategories, dict):
            faults.append(f'"{category}" should hold {{subcategory: [task, ...]}}')
            continue
        for subcategory, tasks in subcategories.items():
            place = f'"{category}" / "{subcategory}"'
            if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
                faults.append(f"{place} should hold a list of task names")
                continue
            for task in tasks:
                if task in places:
                    faults.append(f"task '{task}' is in {places[task]} and again in {place}")
                places.setdefault(task, place)
    return faults
