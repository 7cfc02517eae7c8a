"""A task made from a user's examples (`routing-moe add-task`). Its steps, in this order:

1. `without_repeats`: an input is in one row only, and not in a train and a test row.
2. `are_labels`: whether a sample has k rows of each label (classification), or k rows in all.
3. `cut`: 20% of the rows are for the test file, unless there is a table of test rows.
4. `fitting_k`: how large k is; a sample needs 2k rows, for its train and its dev file.
5. `add_to_gym`: writes the samples that are missing; nothing that exists is overwritten.

The samples are drawn and written by the gym builder, by way of a `Recipe`.
"""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from dataloader.atomic_files import folder_lock
from dataloader.building.gym_files import GYM_LOCK, GymFiles
from dataloader.building.recipe import SEED, Examples, Recipe, eighty_twenty, shuffled
from dataloader.building.task_folder import NotBuilt, Rows, sample_contents, write_task
from dataloader.errors import InputError, counted, in_short
from dataloader.gym import PROVENANCE
from dataloader.options import LABEL_METRICS, LEAST_PER_LABEL
from dataloader.task_splits import Split

K_PER_LABEL, K_IN_ALL = 16, 32  # those of CrossFit
STRAY = 0.1  # share of the rows that may have an answer of their own, such as a typing error, beside labels
LABELS_SHOWN = 20


def task_of(
    name: str,
    train: Examples,
    test: Examples | None,
    source: str,
    metric: str,
    k: int | None = None,
    sample_by: str | None = None,
    template: str | dict = "",
) -> tuple[Recipe, Rows, list[str]]:
    """Returns how the task is sampled, its rows, and notes for the user.

    test: those of another table; None: 20% of `train`. source: name of the table of `train`. k: None for the
    default. sample_by: "label", "row", or None for label if the metric compares labels and the answers are
    few. template: of the inputs, which is kept. Raises InputError if there are too few rows.
    """
    train, test, notes = without_repeats(train, test, source)
    by_label = sample_by == "label" or (sample_by is None and metric in LABEL_METRICS and are_labels(train))
    if by_label:
        counts = Counter(example[1] for example in train).most_common()
        notes.append(f"labels: {in_short([f'{label} {n}' for label, n in counts], LABELS_SHOWN)}")
    rows = Rows(*(cut(train, by_label) if test is None else (train, test)), source)
    if not rows.pool or not rows.test:
        raise InputError(f"--from {source}: too few rows to keep 20% for a test file")
    k, more = fitting_k(rows, by_label, k)
    options = itemgetter(2) if len(train[0]) == 3 else None
    sampling = dict(by_label=by_label, k=k, options=options, metric=metric)
    return Recipe(task=name, sources=(), input=template, output="", **sampling), rows, notes + more


def without_repeats(
    train: Examples, test: Examples | None, source: str
) -> tuple[Examples, Examples | None, list[str]]:
    """Returns both lists without the rows whose input an earlier row or, of train rows, a test row has.

    The third value are notes on what is left out. Raises InputError if no train row remains.
    """
    tests = None if test is None else first_of_each(test)
    tested = {example[0] for example in tests or ()}
    unique = [example for example in first_of_each(train) if example[0] not in tested]
    if not unique:
        raise InputError(f"--test_from: it has every input of --from {source}")
    notes = []
    if n := len(train) - len(unique):
        notes.append(f"{source}: {counted(n, 'row')} left out, whose input an earlier row or a test row has")
    if n := len(test or ()) - len(tested):
        notes.append(f"--test_from: {counted(n, 'row')} left out, whose input an earlier row has")
    return unique, tests, notes


def first_of_each(examples: Examples) -> Examples:
    """Returns the first example of each input, in order."""
    first: dict[str, tuple] = {}
    for example in examples:
        first.setdefault(example[0], example)
    return list(first.values())


def are_labels(examples: Examples) -> bool:
    """Returns whether each example has one answer, and the answers of several examples are few."""
    counts = Counter(example[1] for example in examples)
    once = sum(n == 1 for n in counts.values())
    repeated = len(counts) - once
    few = repeated > 1 and len(examples) - once >= LEAST_PER_LABEL * repeated
    return few and once <= STRAY * len(examples) and not any("\t" in text for text in counts)


def cut(examples: Examples, by_label: bool) -> tuple[Examples, Examples]:
    """Returns (pool, test rows): 20% of the shuffled rows, or of those of each label, are test rows."""
    if not by_label:
        return eighty_twenty(examples, None)
    left = {label: round(0.2 * n) for label, n in Counter(example[1] for example in examples).items()}
    pool, test = [], []
    for example in shuffled(examples, SEED):
        left[example[1]] -= 1
        (pool if left[example[1]] < 0 else test).append(example)
    return pool, test


def fitting_k(rows: Rows, by_label: bool, typed: int | None) -> tuple[int, list[str]]:
    """Returns k, and notes: the typed one, or the default, which is lowered to the largest that fits.

    k fits if there are 2k rows, or 2k rows of each of two labels; of other labels a sample has what there is.
    Raises InputError for a typed k that does not fit, and for too few rows for any.
    """
    counts = Counter(example[1] if by_label else "" for example in rows.pool)
    enough = sorted(counts.values())[-2:][0]  # those of the second most frequent label
    k, largest, notes = typed or (K_PER_LABEL if by_label else K_IN_ALL), enough // 2, []
    if largest < k:
        of_each = of_label = ignoring = ""
        if by_label:
            of_each, of_label = " of each of two labels", " of the second most frequent label"
            ignoring = ", or --sample_by row, which ignores labels"
        needs = f"--k {k} needs {2 * k} rows{of_each}"
        reason = f"{needs}; beside the test rows, {rows.source} has {enough}{of_label}"
        if typed or not largest:
            raise InputError(f"{reason}; give {f'--k {largest}' if largest else 'more rows'}{ignoring}")
        notes.append(f"k lowered from {k} to {largest}: {reason}")
        k = largest
    if rare := [f"'{label}' ({n})" for label, n in sorted(counts.items()) if n < 2 * k]:
        few = f"fewer than {2 * k} train and dev rows of {in_short(rare, LABELS_SHOWN)}"
        notes.append(f"warning: {few}; a sample has what there is. --sample_by row ignores labels")
    return k, notes


def add_to_gym(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int], section: str) -> None:
    """Writes the samples that are missing, the metric, and the section unless split.json names the task.

    Raises InputError if the gym has another metric, section or file of this task: nothing is overwritten.
    """
    contents, folder = sample_contents(recipe, rows, gym, samples), gym / recipe.task
    with folder_lock(gym, "--gym", GYM_LOCK):
        described = GymFiles.read(gym, {recipe.task})
        metric, present = described.metrics.get(recipe.task), described.section_of(recipe.task)
        if metric not in (None, recipe.metric):
            raise InputError(f"--metric {recipe.metric}: {gym}/metrics.json has {metric}; change it there")
        if present not in (None, section):
            raise InputError(f"--section {section}: {gym}/split.json has {present}; change it there")
        for path in sorted(folder.iterdir()) if folder.exists() else []:
            if path.name != PROVENANCE and (path not in contents or path.read_bytes() != contents[path]):
                raise InputError(
                    f"--name {recipe.task}: {path} is not what this call would write, so it remains; "
                    "give another name, or the --k and --samples of that file, or delete the folder"
                )
        missing = {path: content for path, content in contents.items() if not path.exists()}
        try:
            if missing:
                write_task(folder, missing, samples, rows.source, recipe.input)
        except NotBuilt as error:
            raise InputError(f"--gym {error}") from None
        described.add([recipe], Split(Path(), **{"train": (), section: (recipe.task,)}), moves=False)
