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
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from dataloader.atomic_files import folder_lock
from dataloader.building.gym_files import GYM_LOCK, GymFiles
from dataloader.building.recipe import SEED, Examples, Recipe, eighty_twenty, shuffled
from dataloader.building.task_folder import PROVENANCE, NotBuilt, Rows, sample_contents, write_task
from dataloader.errors import InputError, counted, in_short
from dataloader.options import LABEL_METRICS, LEAST_PER_LABEL
from dataloader.task_splits import Split

K_PER_LABEL, K_IN_ALL = 16, 32  # those of CrossFit
# Stray labels, such as typing errors, decide neither whether rows are drawn by label nor how many: this share
# of the rows may have an answer of their own, and a label with less than it of a frequent label's is rare.
STRAY = 0.1
LABELS_SHOWN, ANSWERS_SHOWN = 50, 5


def task_of(
    name: str,
    train: Examples,
    test: Examples | None,
    source: str,
    metric: str,
    k: int | None = None,
    sample_by: str | None = None,
) -> tuple[Recipe, Rows, list[str]]:
    """Returns how the task is sampled, its rows, and notes for the user.

    test: those of another table; None: 20% of `train`. source: name of the table of `train`. k: None for the
    default. sample_by: "label", "row", or None for label if the metric compares labels and the answers are
    few. Raises InputError if there are too few rows.
    """
    train, test, notes = without_repeats(train, test, source)
    by_label = sample_by == "label" or (sample_by is None and metric in LABEL_METRICS and are_labels(train))
    recipe = Recipe(
        task=name,
        sources=(),
        input="",
        output="",
        by_label=by_label,
        k=K_PER_LABEL if by_label else K_IN_ALL,
        options=itemgetter(2) if len(train[0]) == 3 else None,
        metric=metric,
    )
    if by_label or metric in LABEL_METRICS:
        notes.append(answers_line(train, by_label))
    rows = Rows(*(cut(train, by_label) if test is None else (train, test)), source)
    if not rows.pool or not rows.test:
        raise InputError(f"--from {source}: too few rows to keep 20% for a test file")
    chosen, more = fitting_k(recipe, rows, k)
    return replace(recipe, k=chosen), rows, notes + more


def without_repeats(
    train: Examples, test: Examples | None, source: str
) -> tuple[Examples, Examples | None, list[str]]:
    """Returns both lists without the rows whose input an earlier row has, and notes on what is left out.

    A train row whose input is in a test row is left out, too. Raises InputError if no train row remains.
    """
    unique, tested, notes = first_of_each(train), None, []
    if left_out := len(train) - len(unique):
        notes.append(f"{source}: {counted(left_out, 'row')} left out, whose input an earlier row has")
    if test is not None:
        tested = first_of_each(test)
        inputs = {example[0] for example in tested}
        untested = [example for example in unique if example[0] not in inputs]
        if left_out := len(unique) - len(untested):
            notes.append(f"{source}: {counted(left_out, 'row')} left out, whose input a test row has")
        unique = untested
    if not unique:
        raise InputError(f"--test_from: it has every input of --from {source}")
    return unique, tested, notes


def first_of_each(examples: Examples) -> Examples:
    by_input: dict[str, tuple] = {}
    for example in examples:
        by_input.setdefault(example[0], example)
    return list(by_input.values())


def are_labels(examples: Examples) -> bool:
    """Returns whether each example has one answer, and the answers of several examples are few."""
    counts = Counter(example[1] for example in examples)
    once = sum(n == 1 for n in counts.values())
    repeated = len(counts) - once
    few = repeated > 1 and len(examples) - once >= LEAST_PER_LABEL * repeated
    return few and once <= STRAY * len(examples) and not any("\t" in text for text in counts)


def answers_line(examples: Examples, by_label: bool) -> str:
    """Returns a line with the answers and their counts."""
    answers = Counter(example[1].replace("\t", " | ") for example in examples)
    counts = [f"{answer} {n}" for answer, n in answers.most_common()]
    if by_label:
        return f"labels: {in_short(counts, LABELS_SHOWN)}"
    return f"answers: {in_short(counts, ANSWERS_SHOWN)}; k rows of any are drawn (--sample_by label: of each)"


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


def fitting_k(recipe: Recipe, rows: Rows, typed: int | None) -> tuple[int, list[str]]:
    """Returns k, and notes: the typed one, or the recipe's default, which is lowered to one that fits.

    Raises InputError for a typed k that does not fit, for too few rows for any, and for a label that only
    test rows have, because it would never be trained.
    """
    labels, of_each = pool_labels(recipe, rows), " of each label" if recipe.by_label else ""
    if recipe.by_label and (untrained := {example[1] for example in rows.test} - labels.keys()):
        names = in_short([f"'{label}'" for label in sorted(untrained)])
        raise InputError(f"--test_from: no row of {rows.source} has its label {names}; give --sample_by row")
    k, notes, fewest = typed or recipe.k, [], fewest_rows(labels)
    largest = fewest // 2
    if largest < k:
        reason = f"--k {k} needs {2 * k} rows{of_each}; beside the test rows, {rows.source} has {fewest}"
        if typed or not largest:
            ways = [f"--k {largest}"] if largest else []
            ways += ["--sample_by row"] if recipe.by_label else []
            raise InputError(reason + (f"; give {' or '.join(ways)}" if ways else ""))
        notes.append(f"k lowered from {k} to {largest}: {reason}")
        k = largest
    rare = [f"'{label}' ({n})" for label, n in sorted(labels.items()) if n < 2 * k]
    if rare:
        notes.append(f"warning: fewer than {2 * k} train and dev rows of {in_short(rare, 10)}")
    return k, notes


def pool_labels(recipe: Recipe, rows: Rows) -> Counter[str]:
    """Returns the number of few-shot rows of each label, or {"": that of all} if they are drawn by row."""
    return Counter(example[1] if recipe.by_label else "" for example in rows.pool)


def fewest_rows(labels: Counter[str]) -> int:
    """Returns the number of rows of the least frequent label that is not rare; k fits if it is at least 2k.

    The two most frequent labels are never rare, so that no dev file has a single label.
    """
    second = sorted(labels.values())[-2:][0]
    rare = min(second, max(LEAST_PER_LABEL, STRAY * second))
    return min(n for n in labels.values() if n >= rare)


def summary(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int]) -> str:
    """Returns what the samples have."""
    n_labels = len({example[1] for example in rows.pool})
    of_labels = f" of each of {counted(n_labels, 'label')}" if recipe.by_label else ""
    larger = " (a larger --k uses more)" if fewest_rows(pool_labels(recipe, rows)) // 2 > recipe.k else ""
    return (
        f"{gym / recipe.task}: {counted(len(samples), 'sample')} of {recipe.k} train and {recipe.k} dev rows"
        f"{of_labels}, drawn from {counted(len(rows.pool), 'row')}{larger}; "
        f"{counted(len(rows.test), 'test row')}"
    )


def add_to_gym(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int], section: str) -> None:
    """Writes the samples that are missing, the metric, and the section unless split.json names the task.

    Raises InputError if the gym has another metric, section or file of this task: nothing is overwritten.
    """
    contents, folder = sample_contents(recipe, rows, gym, samples), gym / recipe.task
    with folder_lock(gym, "--gym", GYM_LOCK):
        described = GymFiles.read(gym)
        metric, present = described.metrics.get(recipe.task), described.section_of(recipe.task)
        if metric not in (None, recipe.metric):
            raise InputError(f"--metric {recipe.metric}: {gym}/metrics.json has {metric}; change it there")
        if present not in (None, section):
            raise InputError(f"--section {section}: {gym}/split.json has {present}; change it there")
        files = sorted(folder.iterdir()) if folder.exists() else []
        others = [
            path.name
            for path in files
            if path.name != PROVENANCE and (path not in contents or path.read_bytes() != contents[path])
        ]
        if others:
            raise InputError(
                f"--name {recipe.task}: {folder} has other files than this call would write "
                f"({in_short(others, 3)}) and is not overwritten; give another name, or the --k and "
                "--samples of these files, or delete the folder"
            )
        missing = {path: content for path, content in contents.items() if not path.exists()}
        try:
            if missing:
                write_task(folder, missing, dict.fromkeys(samples, rows.source))
        except NotBuilt as error:
            raise InputError(f"--gym {error}") from None
        described.add([recipe], Split(Path(), **{"train": (), section: (recipe.task,)}), moves=False)
