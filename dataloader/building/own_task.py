"""A task from examples of the user: how it is sampled, and its files in the gym."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from dataloader.building.build_tasks import remove_unfinished
from dataloader.building.gym_files import GymFiles, exclusive
from dataloader.building.recipe import Recipe, classification, text_to_text
from dataloader.building.sources import Files, Row
from dataloader.building.task_folder import PROVENANCE, NotBuilt, Rows, sample_contents, write_task
from dataloader.errors import InputError, in_short
from dataloader.gym import Example
from dataloader.metrics import METRIC_FUNCTIONS
from dataloader.options import LABEL_METRICS, label_set
from dataloader.task_splits import SECTIONS, Split


@dataclass(frozen=True)
class Prepared:
    """Examples {"input", "output", "options"} as a source: of the split "train", and "test" if given."""

    name: str
    splits: dict[str, list[Row]]

    def rows(self, split: str, _: Files) -> Iterator[Row]:
        return iter(self.splits[split])

    def __str__(self) -> str:
        return self.name


def own_recipe(task: str, source: Prepared, metric: str, k: int | None, sample_by: str | None) -> Recipe:
    """Returns the recipe of a task.

    k: None for CrossFit's 16 per label or 32. sample_by: "label", "row", or None: "label" if the metric
    compares labels and the answers are few.
    """
    train = source.splits["train"]
    by_label = sample_by == "label" or (
        sample_by is None and metric in LABEL_METRICS and answers_are_labels(train)
    )
    return (classification if by_label else text_to_text)(
        task,
        source,
        splits=tuple(source.splits),
        input="{input}",
        output="{output}",
        options=None if train[0]["options"] is None else itemgetter("options"),
        metric=metric,
        **({"k": k} if k else {}),
    )


def answers_are_labels(rows: list[Row]) -> bool:
    examples = [Example("", "", row["input"], tuple(row["output"].split("\t"))) for row in rows]
    return all(len(example.outputs) == 1 for example in examples) and bool(label_set(examples))


def check_numbers(recipe: Recipe, rows: Rows) -> None:
    """Raises InputError if there are too few rows for k train and k dev rows, of each label or in total."""
    needed = 2 * recipe.k
    counts = Counter(example[1] for example in rows.pool) if recipe.by_label else {"": len(rows.pool)}
    few = {label: n for label, n in counts.items() if n < needed}
    if not few:
        return
    what, has = " of each label", "fewer of " + in_short([f"'{label}' ({n})" for label, n in few.items()], 10)
    if not recipe.by_label:
        what, has = "", f"only {len(rows.pool)}"
    cut = "" if "test" in recipe.splits else ", not counting the 20% for the test file (see --test_from)"
    most = min(few.values()) // 2
    ways = [f"--k {most}" if most else "", "--sample_by row" if recipe.by_label else ""]
    advice = " or ".join(filter(None, ways))
    raise InputError(
        f"--k {recipe.k}: the train and dev rows of a sample are {needed}{what}, but {rows.source} has {has}"
        f"{cut}{f'; give {advice}' if advice else ''}"
    )


def place_faults(gym: Path, task: str, metric: str, section: str | None) -> list[str]:
    """Returns contradictions with metrics.json and split.json. Raises InputError for broken files."""
    described, faults = GymFiles.read(gym), []
    if described.metrics.get(task, metric) != metric and metric in METRIC_FUNCTIONS:
        known = described.metrics[task]
        faults.append(f"--metric {metric}: {gym}/metrics.json has {known} for '{task}'; change it there")
    sections = [name for name in SECTIONS if task in described.split.get(name, ())]
    if section and sections and section not in sections:
        faults.append(
            f"--section {section}: {gym}/split.json has '{task}' in section {sections[0]}; change it there"
        )
    return faults


def add_to_gym(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int], section: str) -> None:
    """Writes the samples that are missing, the metric, and the section unless split.json names the task.

    Raises InputError if the task's folder has other files: nothing is overwritten.
    """
    contents = sample_contents(recipe, rows, gym, samples)
    folder = gym / recipe.task
    with exclusive(gym, "--gym"):
        remove_unfinished(gym)
        check_same_task(folder, contents)
        missing = {path: content for path, content in contents.items() if not path.exists()}
        try:
            if missing:
                write_task(folder, missing, dict.fromkeys(samples, rows.source))
        except NotBuilt as error:
            raise InputError(f"--gym {error}") from None
        finally:
            remove_unfinished(gym)
        split = Split(Path(), **{"train": (), section: (recipe.task,)})
        GymFiles.read(gym).add([recipe], split, moves=False)


def check_same_task(folder: Path, contents: dict[Path, bytes]) -> None:
    if not folder.exists():
        return
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    other = [path.name for path in files if path.name != PROVENANCE and not is_equal(path, contents)]
    if other:
        raise InputError(
            f"--name {folder.name}: {folder} is there with other content ({in_short(other, 3)}) and is not "
            "overwritten; choose another name, or delete the folder to replace the task"
        )


def is_equal(path: Path, contents: dict[Path, bytes]) -> bool:
    return path in contents and path.is_file() and path.read_bytes() == contents[path]
