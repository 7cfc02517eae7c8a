"""The files that describe a whole gym: metrics.json, ontology.json and split.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.recipe import Recipe
from dataloader.building.report import replace_text
from dataloader.errors import Faults, InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRIC_FUNCTIONS, METRICS
from dataloader.ontology import UNCATEGORISED, Ontology
from dataloader.task_splits import SECTIONS, Split, load_split
from dataloader.templates import dataset_of


@dataclass(frozen=True)
class GymFiles:
    """The content of the three files, {} for those that are missing."""

    folder: Path
    metrics: dict[str, str]
    ontology: dict[str, dict[str, list[str]]]
    split: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path) -> GymFiles:
        """Reads the files that are there. Raises InputError with the faults of all of them."""
        faults = Faults()
        metrics = faults.of(_read_metrics, folder / "metrics.json")
        ontology = faults.of(_read, folder / "ontology.json", Ontology.load)
        split = faults.of(_read, folder / "split.json", load_split)
        if faults:
            raise InputError(faults)
        return cls(folder, metrics, ontology, split)

    def add(self, recipes: Iterable[Recipe], split: Split) -> None:
        """Adds built tasks and writes the files; what is already in them remains.

        split: gives each task's section. If it does not list a prompt, the section is that of the data set's
        own task. Other tasks become test tasks.
        """
        recipes = list(recipes)
        own = {recipe.task: recipe.metric or METRICS[recipe.task] for recipe in recipes}
        self._write("metrics.json", dict(sorted((own | self.metrics).items())))
        self._write("ontology.json", self._with_categories(recipes))
        self._write("split.json", self._with_sections([recipe.task for recipe in recipes], split))

    def _with_categories(self, recipes: list[Recipe]) -> dict:
        shipped, there = Ontology.load(), set(Ontology(self.ontology).tasks)
        tree = json.loads(json.dumps(self.ontology))
        places = {recipe.task: recipe.category or shipped.category(recipe.task) for recipe in recipes}
        for task in shipped.order(places.keys() - there):
            category, subcategory = places[task]
            if (category, subcategory) != UNCATEGORISED:
                tree.setdefault(category, {}).setdefault(subcategory, []).append(task)
        return tree

    def _with_sections(self, tasks: list[str], split: Split) -> dict:
        sections = {name: [] for name in SECTIONS} | {key: list(tasks) for key, tasks in self.split.items()}
        there = {task for name in SECTIONS for task in sections[name]}
        for task in sorted(set(tasks) - there):
            sections[_section(task, split) or _section(dataset_of(task), split) or "test"].append(task)
        return sections

    def _write(self, name: str, content: dict) -> None:
        replace_text(self.folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path, check=None) -> dict:
    """Returns the content of a JSON file, which `check` must be able to read; {} if it is missing."""
    if not path.exists():
        return {}
    if check is not None:
        check(path)
    return load_json_object(path, "a file of the gym")


def _read_metrics(path: Path) -> dict[str, str]:
    metrics = _read(path)
    faults = [
        f"{path}: unknown metric {name!r} for task '{task}'{did_you_mean(name, METRIC_FUNCTIONS)}"
        for task, name in metrics.items()
        if name not in METRIC_FUNCTIONS
    ]
    if faults:
        raise InputError(faults)
    return metrics


def _section(task: str, split: Split) -> str | None:
    return next((name for name in SECTIONS if task in split.section(name)), None)
