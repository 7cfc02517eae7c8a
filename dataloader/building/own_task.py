"""A task from examples of the user: how it is sampled, and its files in the gym."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from dataloader.atomic_files import folder_lock
from dataloader.building.downloads import Files
from dataloader.building.gym_files import GYM_LOCK, GymFiles
from dataloader.building.recipe import SEED, Recipe, classification, text_to_text
from dataloader.building.sampling import draw_sample, shuffled
from dataloader.building.sources import Row
from dataloader.building.task_folder import PROVENANCE, Examples, NotBuilt, Rows, sample_contents, write_task
from dataloader.errors import InputError, counted, in_short
from dataloader.metrics import METRIC_FUNCTIONS
from dataloader.options import LABEL_METRICS, LEAST_PER_LABEL
from dataloader.task_splits import SECTIONS, Split

# Stray labels, such as typing errors, decide neither whether rows are drawn by label nor how many: this share
# of the rows may have an answer of their own, and a label with less than it of a frequent label's is rare.
STRAY = 0.1
LABELS_SHOWN, ANSWERS_SHOWN = 50, 5


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
        cut=stratified if by_label and "test" not in source.splits else None,
        input="{input}",
        output="{output}",
        options=None if train[0]["options"] is None else itemgetter("options"),
        metric=metric,
        **({"k": k} if k else {}),
    )


def answers_are_labels(rows: list[Row]) -> bool:
    """Returns whether each row has one answer, and the answers of several rows are few."""
    counts = Counter(row["output"] for row in rows)
    once = sum(n == 1 for n in counts.values())
    few = len(rows) - once >= LEAST_PER_LABEL * (len(counts) - once)
    return (
        len(counts) - once > 1
        and few
        and once <= STRAY * len(rows)
        and not any("\t" in text for text in counts)
    )


def stratified(rows: Examples, _: None) -> tuple[Examples, Examples]:
    """Returns (pool, test rows): 20% of the shuffled rows of each label, rounded, are for the test file."""
    left = {label: round(0.2 * n) for label, n in Counter(example[1] for example in rows).items()}
    pool, test = [], []
    for example in shuffled(rows, SEED):
        left[example[1]] -= 1
        (pool if left[example[1]] < 0 else test).append(example)
    return pool, test


def answers_line(recipe: Recipe, source: Prepared) -> str:
    """Returns a line with the answers and their counts, or "" if the metric does not compare them."""
    answers = Counter(row["output"].replace("\t", " | ") for row in source.splits["train"])
    counts = [f"{answer} {n}" for answer, n in answers.most_common()]
    if recipe.by_label:
        return f"labels: {in_short(counts, LABELS_SHOWN)}\n"
    if recipe.metric not in LABEL_METRICS:
        return ""
    return (
        f"answers: {in_short(counts, ANSWERS_SHOWN)}; k rows of any are drawn (--sample_by label: of each)\n"
    )


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


def fitted(recipe: Recipe, rows: Rows, typed: bool) -> tuple[Recipe, list[str]]:
    """Returns the recipe, its default `k` lowered to one that fits, and notes.

    typed: whether the user chose `k`. Raises InputError for a typed `k` that does not fit, for too few rows
    for any, and for a label that only test rows have, because it would never be trained.
    """
    labels, of_each = pool_labels(recipe, rows), " of each label" if recipe.by_label else ""
    if recipe.by_label and (unknown := {example[1] for example in rows.test} - labels.keys()):
        names = in_short([f"'{label}'" for label in sorted(unknown)], 10)
        raise InputError(f"--test_from: no row of {rows.source} has its label {names}; give --sample_by row")
    cut = "" if "test" in recipe.splits else ", not counting the 20% for the test file (see --test_from)"
    most, needed, notes = largest_k(labels), 2 * recipe.k, []
    if most < recipe.k:
        few = in_short([f"'{label}' ({n})" for n, label in frequent(labels) if n < needed], 10)
        has = f"{rows.source} has " + (f"fewer of {few}" if recipe.by_label else f"only {len(rows.pool)}")
        reason = f"the train and dev rows of a sample are {needed}{of_each}, but {has}{cut}"
        ways = [f"--k {most}"] if most else []
        if recipe.by_label and (len(rows.pool) >= needed or not typed):
            ways.append("--sample_by row")
        if typed or not most:
            flag = f"--k {recipe.k}" if typed else f"--from {rows.source}"
            advice = f"; give {' or '.join(ways)}" if ways else ""
            raise InputError(f"{flag}: {reason}{advice}")
        by_row = "; --sample_by row draws k of all rows" if recipe.by_label else ""
        notes.append(f"k lowered from {recipe.k} to {most}: {reason}{by_row}")
        recipe = replace(recipe, k=most)
    k = recipe.k
    rare = [
        f"'{label}' ({min(n, k)} train, {max(n - k, 0)} dev)"
        for label, n in sorted(labels.items())
        if n < 2 * k
    ]
    if rare:
        notes.append(f"warning: fewer than {k} train or {k} dev rows of {in_short(rare, 10)}")
    return recipe, notes


def pool_labels(recipe: Recipe, rows: Rows) -> Counter[str]:
    """Returns the number of few-shot rows of each label, or {"": that of all} if they are drawn by row."""
    return Counter(example[1] if recipe.by_label else "" for example in rows.pool)


def frequent(labels: Counter[str]) -> list[tuple[int, str]]:
    """Returns (number of rows, label) of all but rare labels, sorted; `k` fits if these have 2k rows.

    At least two labels are not rare, so that no dev file has a single label.
    """
    every = sorted((n, label) for label, n in labels.items())
    second = every[-2:][0][0]
    least = min(second, max(LEAST_PER_LABEL, STRAY * second))
    return [(n, label) for n, label in every if n >= least]


def largest_k(labels: Counter[str]) -> int:
    return frequent(labels)[0][0] // 2


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
        larger = ": a larger --k uses more" if recipe.k < largest_k(pool_labels(recipe, rows)) else ""
        lines.append(f"{counted(unused, 'row')} not used{larger}")
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
