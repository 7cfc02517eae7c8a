"""A task from examples of the user: how it is sampled, and its files in the gym."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from dataloader.atomic_files import folder_lock
from dataloader.building.downloads import Files
from dataloader.building.gym_files import GYM_LOCK, GymFiles
from dataloader.building.recipe import Recipe, classification, text_to_text
from dataloader.building.sampling import draw_sample
from dataloader.building.sources import Row
from dataloader.building.task_folder import PROVENANCE, NotBuilt, Rows, sample_contents, write_task
from dataloader.errors import InputError, counted, in_short
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


def apart(splits: dict[str, list[Row]], sources: dict[str, str]) -> tuple[dict[str, list[Row]], list[str]]:
    """Returns the splits without inputs that occur twice, and a note on the rows of each that are left out.

    The first row of an input remains; a train row whose input is in the split "test" does not. Then no input
    is in two of the train, dev and test files of a sample.
    sources: the name of each split's table. Raises InputError if no train row remains.
    """
    remaining, notes = {}, []
    for split, rows in splits.items():
        first: dict[str, Row] = {}
        for row in rows:
            first.setdefault(row["input"], row)
        remaining[split] = list(first.values())
        if left_out := len(rows) - len(first):
            differ = sum(row["output"] != first[row["input"]]["output"] for row in rows)
            notes.append(
                f"{sources[split]}: {counted(left_out, 'row')} left out, whose input an earlier row has"
                + (f", {differ} of them with another answer" if differ else "")
            )
    tested = {row["input"] for row in remaining.get("test", ())}
    train = [row for row in remaining["train"] if row["input"] not in tested]
    if left_out := len(remaining["train"]) - len(train):
        notes.append(f"{sources['train']}: {counted(left_out, 'row')} left out, whose input a test row has")
    if not train:
        raise InputError(f"--test_from {sources['test']}: has every input of --from {sources['train']}")
    return remaining | {"train": train}, notes


def check_numbers(recipe: Recipe, rows: Rows) -> None:
    """Raises InputError if there are too few rows for k train and k dev rows, of each label or in total."""
    needed = 2 * recipe.k
    if recipe.by_label:  # a label that only test rows have would never be trained
        counts = Counter(example[1] for example in rows.pool)
        counts.update({example[1]: 0 for example in rows.test})
    else:
        counts = {"": len(rows.pool)}
    few = {label: n for label, n in sorted(counts.items()) if n < needed}
    if not few:
        return
    labels = [f"'{label}' ({n or '0, but test rows have it'})" for label, n in few.items()]
    per_label, available = " of each label", f"fewer of {in_short(labels, 10)}"
    if not recipe.by_label:
        per_label, available = "", f"only {len(rows.pool)}"
    cut = "" if "test" in recipe.splits else ", not counting the 20% for the test file (see --test_from)"
    most = min(few.values()) // 2
    ways = [f"--k {most}" if most else "", "--sample_by row" if recipe.by_label else ""]
    advice = " or ".join(filter(None, ways))
    raise InputError(
        f"--k {recipe.k}: the train and dev rows of a sample are {needed}{per_label}, but {rows.source} has "
        f"{available}{cut}{f'; give {advice}' if advice else ''}"
    )


def place_problems(gym: Path, task: str, metric: str, section: str | None) -> list[str]:
    """Returns contradictions with metrics.json and split.json. Raises InputError for broken files."""
    described, problems = GymFiles.read(gym), []
    if described.metrics.get(task, metric) != metric and metric in METRIC_FUNCTIONS:
        known = described.metrics[task]
        problems.append(f"--metric {metric}: {gym}/metrics.json has {known} for '{task}'; change it there")
    there = section_of(described, task)
    if section and there and task not in described.split.get(section, ()):
        problems.append(
            f"--section {section}: {gym}/split.json has '{task}' in section {there}; change it there"
        )
    return problems


def section_of(described: GymFiles, task: str) -> str | None:
    return next((name for name in SECTIONS if task in described.split.get(name, ())), None)


def summary(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int], section: str) -> str:
    """Returns a line on the samples, and others on what a user may want to change."""
    draws = [draw_sample(rows.pool, recipe.k, recipe.by_label, seed) for seed in samples]
    trained = {example[0] for train, _ in draws for example in train}
    dev = [example[0] for _, dev in draws for example in dev]
    n_labels = len({example[1] for example in rows.pool})
    of_labels = f" of each of {counted(n_labels, 'label')}" if recipe.by_label else ""
    lines = [
        f"{gym / recipe.task}: {counted(len(samples), 'sample')} of {recipe.k} train and {recipe.k} dev rows"
        f"{of_labels}, drawn from {counted(len(rows.pool), 'row')}; {counted(len(rows.test), 'test row')}"
    ]
    if unused := len(rows.pool) - len(trained.union(dev)):
        lines.append(f"{counted(unused, 'row')} not used: a larger --k uses more")
    if section == "train" and (n_trained := sum(source in trained for source in dev)):
        lines.append(
            f"{n_trained} of {counted(len(dev), 'dev row')} are in train files of other samples, and "
            "training pools the samples: --samples 1 avoids this"
        )
    return "\n".join(lines)


def add_to_gym(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int], section: str) -> None:
    """Writes the samples that are missing, the metric, and the section unless split.json names the task.

    Raises InputError if the task's folder has other files: nothing is overwritten.
    """
    contents = sample_contents(recipe, rows, gym, samples)
    folder = gym / recipe.task
    with folder_lock(gym, "--gym", GYM_LOCK):
        check_same_task(folder, contents)
        missing = {path: content for path, content in contents.items() if not path.exists()}
        try:
            if missing:
                write_task(folder, missing, dict.fromkeys(samples, rows.source))
        except NotBuilt as error:
            raise InputError(f"--gym {error}") from None
        split = Split(Path(), **{"train": (), section: (recipe.task,)})
        GymFiles.read(gym).add([recipe], split, moves=False)


def check_same_task(folder: Path, contents: dict[Path, bytes]) -> None:
    """Raises InputError if the task's folder has files that are not in {path: content}."""
    if not folder.exists():
        return
    files = sorted(path for path in folder.iterdir() if path.name != PROVENANCE)
    other = [path for path in files if path not in contents or path.read_bytes() != contents[path]]
    if not other:
        return
    names = in_short([path.name for path in other], 3)
    raise InputError(
        f"--name {folder.name}: {folder} has other files than this call would write ({names}) and is not "
        "overwritten; give another name, or the --k and --samples of these files, or delete the folder"
    )
