"""The files that describe a whole gym: metrics.json, ontology.json and split.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from dataloader.building.recipe import Recipe
from dataloader.building.report import replace_text
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRICS
from dataloader.ontology import UNCATEGORISED, Ontology
from dataloader.task_splits import SECTIONS, Split
from dataloader.templates import dataset_of


def write_gym_files(gym: Path, built: Iterable[Recipe], split: Split) -> None:
    """Adds the built tasks to the three files; what is already in them remains.

    split: gives each task's section. If it does not list a prompt, the section is that of the data set's own
    task. Other tasks become test tasks.
    """
    recipes = list(built)
    _write_metrics(gym / "metrics.json", recipes)
    _write_ontology(gym / "ontology.json", recipes)
    _write_split(gym / "split.json", [recipe.task for recipe in recipes], split)


def _existing(path: Path, what: str) -> dict:
    return load_json_object(path, what) if os.path.exists(path) else {}


def _write_metrics(path: Path, recipes: list[Recipe]) -> None:
    metrics = {recipe.task: recipe.metric or METRICS[recipe.task] for recipe in recipes}
    _write(path, dict(sorted((metrics | _existing(path, "the metric of each task")).items())))


def _write_ontology(path: Path, recipes: list[Recipe]) -> None:
    shipped = Ontology.load()
    tree = _existing(path, "an ontology like {category: {subcategory: [task, ...]}}")
    there = set(Ontology(tree).tasks)
    places = {recipe.task: recipe.category or shipped.category(recipe.task) for recipe in recipes}
    for task in shipped.order(places.keys() - there):
        category, subcategory = places[task]
        if (category, subcategory) != UNCATEGORISED:
            tree.setdefault(category, {}).setdefault(subcategory, []).append(task)
    _write(path, tree)


def _write_split(path: Path, tasks: list[str], split: Split) -> None:
    sections = {name: [] for name in SECTIONS} | _existing(path, "a split file")
    there = {task for name in SECTIONS for task in sections[name]}
    for task in sorted(set(tasks) - there):
        sections[_section(task, split) or _section(dataset_of(task), split) or "test"].append(task)
    _write(path, sections)


def _section(task: str, split: Split) -> str | None:
    return next((name for name in SECTIONS if task in split.section(name)), None)


def _write(path: Path, content: dict) -> None:
    replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
