"""The files that describe a whole gym: metrics.json, ontology.json, split.json and splits/."""

import copy
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.building.recipe import Recipe
from dataloader.checksums import sha256
from dataloader.gym import SPLITS, Gym
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRICS
from dataloader.ontology import UNCATEGORISED, Ontology
from dataloader.task_splits import PUBLISHED_SPLITS, SECTIONS, Split, load_split
from dataloader.templates import dataset_of

GYM_LOCK = ".lock"  # file in a gym that keeps other commands from building in it
WRITTEN = ".written"  # in splits/: {file: the SHA-256 that it was written with}


@dataclass(frozen=True)
class GymFiles:
    """The content of the three JSON files, {} for those that are missing."""

    folder: Path
    metrics: dict[str, str]
    ontology: dict[str, dict[str, list[str]]]
    split: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path, tasks: Collection[str] = ()) -> "GymFiles":
        """Reads the files that are there. Raises InputError for one that is wrong.

        tasks: those whose metrics are checked; others may have metrics of a plug-in.
        """
        paths = {name: folder / f"{name}.json" for name in ("metrics", "ontology", "split")}
        contents = {
            name: load_json_object(path, "a file of the gym") if path.exists() else {}
            for name, path in paths.items()
        }
        for task in contents["metrics"].keys() & tasks:
            Gym(folder).metric(task)
        if contents["ontology"]:
            Ontology.load(paths["ontology"])
        if contents["split"]:
            load_split(paths["split"])
        return cls(folder, **contents)

    def section_of(self, task: str) -> str | None:
        return next((name for name in SECTIONS if task in self.split.get(name, ())), None)

    def add(
        self, recipes: Iterable[Recipe], split: Split, moves: bool, left_out: Collection[str] = ()
    ) -> None:
        """Adds built tasks and writes the files; what is already in them remains.

        split: gives each task's section. If it does not list a prompt, the section is that of the data set's
        own task. Other tasks become test tasks. moves: tasks that it lists go there even if split.json has
        them in another section. left_out: tasks that are not added to a split.json that lacks them.
        """
        recipes = list(recipes)
        added = {recipe.task: recipe.metric or METRICS[recipe.task] for recipe in recipes}
        write_text(self.folder / "metrics.json", in_json(dict(sorted((added | self.metrics).items()))))
        # An empty ontology in place of none would leave tasks of the shipped one uncategorised.
        if (ontology := self._with_categories(recipes)) != self.ontology:
            write_text(self.folder / "ontology.json", in_json(ontology))
        tasks = [recipe.task for recipe in recipes if not self.split or recipe.task not in left_out]
        write_text(self.folder / "split.json", in_json(self._with_sections(tasks, split, moves)))

    def _with_categories(self, recipes: list[Recipe]) -> dict:
        """Returns the ontology with the added tasks: in the shipped order, but a user's order remains."""
        shipped, current, tree = Ontology.load(), Ontology(self.ontology), self.ontology
        known = {task: current.category(task) for task in current.tasks}
        added = {recipe.task: shipped.category(recipe.task) for recipe in recipes}
        added = {k: v for k, v in added.items() if k not in known and v != UNCATEGORISED}
        if in_json(_with_tasks({}, known, shipped)) == in_json(tree):
            tree, added = {}, known | added
        return _with_tasks(tree, added, shipped)

    def _with_sections(self, tasks: list[str], split: Split, moves: bool) -> dict:
        """Returns the split; a section that tasks are added to is in alphabetical order."""
        moved = {task for task in tasks if moves and _section(task, split)}
        sections: dict[str, list[str]] = {name: [] for name in SECTIONS}
        for key, old in self.split.items():  # any other key is the user's, such as a description
            is_list = key in (*SECTIONS, "all")
            sections[key] = [task for task in old if task not in moved] if is_list else old
        present = {task for name in SECTIONS for task in sections[name]}
        for task in set(tasks) - present:
            name = _section(task, split) or _section(dataset_of(task), split) or "test"
            sections[name] = sorted([*sections[name], task])
        return sections


def restricted_splits(folder: Path) -> dict[Path, str]:
    """Returns {file of splits/: its text, "" if no train task is there}: published, without lacking tasks."""
    tasks, files = Gym(folder).tasks(), {}
    for path in sorted(PUBLISHED_SPLITS.glob("*.json")):
        published = load_json_object(path, "a split")
        content = {section: [task for task in names if task in tasks] for section, names in published.items()}
        files[folder / SPLITS / path.name] = in_json(content) if content["train"] else ""
    return files


def changed_splits(folder: Path) -> list[Path]:
    """Returns the files of splits/ that a user has changed: not as written, nor of the tasks in the gym."""
    splits, written = restricted_splits(folder).items(), written_sums(folder)
    changed = [path for path, text in splits if path.exists() and path.read_bytes() != text.encode()]
    return [path for path in changed if sha256(path) != written.get(path.name)]


def written_sums(folder: Path) -> dict[str, str]:
    path = folder / SPLITS / WRITTEN
    return load_json_object(path, "checksums") if path.exists() else {}


def write_splits(folder: Path, changed: Collection[Path]) -> None:
    """Writes splits/ but the files that a user has changed."""
    written = written_sums(folder)
    for path, text in restricted_splits(folder).items():
        if text and path not in changed:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
            written[path.name] = sha256(path)
    if written:
        write_text(folder / SPLITS / WRITTEN, in_json(written))


def in_json(content: dict) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _with_tasks(tree: dict, categories: Mapping[str, tuple[str, str]], order: Ontology) -> dict:
    """Returns a tree {category: {subcategory: [task, ...]}} with tasks added, each last in its list."""
    tree = copy.deepcopy(tree)
    for task in order.order(categories):
        category, subcategory = categories[task]
        tree.setdefault(category, {}).setdefault(subcategory, []).append(task)
    return tree


def _section(task: str, split: Split) -> str | None:
    return next((name for name in SECTIONS if task in split.section(name)), None)
