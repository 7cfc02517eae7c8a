"""The files that describe a whole gym: metrics.json, ontology.json and split.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataloader.atomic_files import folder_lock, write_text
from dataloader.building.recipe import Recipe
from dataloader.errors import Faults, InputError, in_brief
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRICS
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

    def add(self, recipes: Iterable[Recipe], split: Split, moves: bool) -> None:
        """Adds built tasks and writes the files; what is already in them remains.

        split: gives each task's section. If it does not list a prompt, the section is that of the data set's
        own task. Other tasks become test tasks. moves: tasks that it lists go there even if split.json has
        them in another section.
        """
        recipes = list(recipes)
        own = {recipe.task: recipe.metric or METRICS[recipe.task] for recipe in recipes}
        self._write("metrics.json", dict(sorted((own | self.metrics).items())))
        # An empty ontology in place of none would leave tasks of the shipped one uncategorised.
        if (ontology := self._with_categories(recipes)) != self.ontology:
            self._write("ontology.json", ontology)
        self._write("split.json", self._with_sections([recipe.task for recipe in recipes], split, moves))

    def other_metrics(self, recipes: Iterable[Recipe]) -> list[str]:
        """Returns a note on each recipe with another metric than metrics.json has for its task."""
        return [
            f"note: {self.folder}/metrics.json has {self.metrics[recipe.task]} for '{recipe.task}', which "
            f"counts; its recipe has {recipe.metric}"
            for recipe in recipes
            if recipe.metric and self.metrics.get(recipe.task, recipe.metric) != recipe.metric
        ]

    def _with_categories(self, recipes: list[Recipe]) -> dict:
        """Returns the ontology; if tasks are added, all are in the order of the shipped ontology."""
        shipped, own = Ontology.load(), Ontology(self.ontology)
        added = {recipe.task: recipe.category or shipped.category(recipe.task) for recipe in recipes}
        places = added | {task: own.category(task) for task in own.tasks}
        if places.keys() == set(own.tasks):
            return self.ontology
        tree: dict[str, dict[str, list[str]]] = {}
        for task in shipped.order(places):
            category, subcategory = places[task]
            if (category, subcategory) != UNCATEGORISED:
                tree.setdefault(category, {}).setdefault(subcategory, []).append(task)
        return tree

    def _with_sections(self, tasks: list[str], split: Split, moves: bool) -> dict:
        """Returns the split; a section that tasks are added to is in alphabetical order."""
        moved = {task for task in tasks if moves and _section(task, split)}
        sections: dict[str, list[str]] = {name: [] for name in SECTIONS}
        sections |= {key: [task for task in old if task not in moved] for key, old in self.split.items()}
        there = {task for name in SECTIONS for task in sections[name]}
        for task in set(tasks) - there:
            name = _section(task, split) or _section(dataset_of(task), split) or "test"
            sections[name] = sorted([*sections[name], task])
        return sections

    def _write(self, name: str, content: dict) -> None:
        write_text(self.folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def exclusive(gym: Path, flag: str = "--output_dir") -> Iterator[None]:
    """Creates the folder, which the flag names, and keeps other commands from building in it."""
    if gym.exists() and not gym.is_dir():
        raise InputError(f"{flag} {gym}: is a file, expected a folder")
    with ExitStack() as held:
        with no_traceback(gym, flag):
            held.enter_context(folder_lock(gym, flag, lock_file=".lock"))
        yield


@contextmanager
def no_traceback(gym: Path, flag: str = "--output_dir") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{flag} {gym}: cannot be written ({in_brief(error)})") from None


def _read(path: Path, check=None) -> dict:
    """Returns the content of a JSON file, which `check` must be able to read; {} if it is missing."""
    if not path.exists():
        return {}
    if check is not None:
        check(path)
    return load_json_object(path, "a file of the gym")


def _read_metrics(path: Path) -> dict[str, str]:
    metrics, faults = _read(path), Faults()
    gym = Gym(path.parent) if metrics else None
    for task in metrics:
        faults.of(gym.metric, task)
    if faults:
        raise InputError(faults)
    return metrics


def _section(task: str, split: Split) -> str | None:
    return next((name for name in SECTIONS if task in split.section(name)), None)
