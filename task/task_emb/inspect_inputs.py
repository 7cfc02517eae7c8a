"""The inputs of `inspect`: flags, folders, tasks and labels, checked before anything is computed."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.errors import Faults, InputError, did_you_mean, fault_context, in_short
from dataloader.labels import Labelling, ontology_labels, read_labels
from dataloader.list_tasks import tasks_named
from dataloader.ontology import Ontology, ontology_path
from dataloader.task_splits import SECTIONS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Command, flag_faults, group
from routing_moe.io.files import distinct_tails, unwritable
from routing_moe.model.task_vectors import load_meta, load_task_vectors, samples_in
from task.task_emb.agreement import DISTANCES

MIN_TASKS = 3
VECTORS = group("vectors and tasks")
LABELS = group("labels of tasks")
STATISTICS = group("statistics")
OUTPUT = group("output")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Settings(Command):
    """The flags of `python -m task.task_emb.inspect`."""

    program = "python -m task.task_emb.inspect"
    usage = "--taskvecs FOLDER [FOLDER ...] --output_dir FOLDER [flags, see --help]"

    taskvecs: tuple[str, ...] = VECTORS(REQUIRED, "folders with id2task.json and task_vecs.npy", metavar="FOLDER")
    names: tuple[str, ...] | None = VECTORS(None, "names of the folders in tables and pictures (default: the distinct ends of their paths)", metavar="NAME")
    tasks: tuple[str, ...] | None = VECTORS(None, "tasks, or sections of the split: train, dev, test, all, file.json:section (default: the tasks that all folders have)", metavar="WORD")
    custom_tasks_splits: str | None = VECTORS(None, "split of the sections in --tasks (default: split.json in --train_dir)", metavar="FILE")
    train_dir: str | None = LABELS(None, "gym folder; only ontology.json and split.json are read", metavar="GYM")
    task_ontology: str | None = LABELS(None, "two-level ontology JSON (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)", metavar="FILE")
    labels: str | None = LABELS(None, "further labellings: a column task, and columns of labels, or columns of 0 and 1 named labelling:value", metavar="CSV")
    neighbours: int = STATISTICS(3, "number of nearest neighbours", metavar="K", range=AT_LEAST_1)
    similarity: str = STATISTICS("cosine", "of two vectors", choices=tuple(DISTANCES))
    no_centring: bool = STATISTICS(False, "cosine without mean-centring (default: the mean vector of the tasks is subtracted first)")
    permutations: int = STATISTICS(10_000, "permutations of the labels; the smallest possible p is 1 / (1 + P)", metavar="P", range=AT_LEAST_1)
    seed: int = STATISTICS(0, "seed of the permutations", range=SEED)
    output_dir: Path = OUTPUT(REQUIRED, "output folder; existing results are replaced", metavar="FOLDER")
    title: str | None = OUTPUT(None, "title of the pictures (default: none)")
# fmt: on

    @property
    def is_centred(self) -> bool:
        """Whether vectors are mean-centred; Euclidean distances do not depend on it."""
        return not self.no_centring and self.similarity == "cosine"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Checked vectors and labels. The rows of all `vectors` are in the order of `tasks`."""

    vectors: dict[str, np.ndarray]  # {name of the folder: (N, D)}
    tasks: list[str]  # in the order of the ontology
    ontology: Ontology
    labellings: dict[str, Labelling]
    notes: list[str]


def check(settings: Settings) -> Inputs:
    """Reads all input files. Raises one InputError with all errors."""
    faults, notes = Faults(flag_faults(settings)), []
    if fault := unwritable(settings.output_dir):
        faults.append(f"--output_dir {fault}")
    names = faults.of(names_of_folders, settings.taskvecs, settings.names) or settings.taskvecs
    folders = [faults.of(load_task_vectors, folder, flag="taskvecs") for folder in settings.taskvecs]
    ontology = faults.of(load_ontology, settings)
    read = faults.of(read_labels, settings.labels, flag="labels") if settings.labels else {}
    vectors, tasks = {}, None
    if all(folders):
        vectors = {name: dict(zip(*folder, strict=True)) for name, folder in zip(names, folders, strict=True)}
        for rows, folder in zip(vectors.values(), settings.taskvecs, strict=True):
            for sample in samples_in(faults.of(load_meta, folder, flag="taskvecs") or {}):
                rows.pop(sample, None)  # the task of the sample has its own row
        tasks = faults.of(common_tasks, vectors, settings, notes)
    if tasks and settings.neighbours >= len(tasks):
        faults.append(
            f"--neighbours {settings.neighbours} must be less than {len(tasks)}, the number of tasks"
        )
    if tasks and read and not any(task in labelling for labelling in read.values() for task in tasks):
        guess = did_you_mean(tasks[0], {task for labelling in read.values() for task in labelling})
        faults.append(
            f"--labels {settings.labels} has labels for none of the tasks, such as {tasks[0]}{guess}"
        )
    if faults:
        raise InputError(dict.fromkeys(faults))
    tasks = ontology.order(tasks)
    labellings = ontology_labels(tasks, ontology) | read
    notes += label_notes(tasks, labellings)
    stacked = {name: np.stack([rows[task] for task in tasks]) for name, rows in vectors.items()}
    return Inputs(stacked, tasks, ontology, labellings, notes)


def names_of_folders(folders: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Returns `names`, else the shortest ends of the folders' paths that are distinct. Raises InputError."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    faults = [f"--taskvecs: {path} is given twice" for path, n in Counter(paths).items() if n > 1]
    if names is not None:
        if len(names) != len(folders):
            faults.append(f"--names: {len(names)} names for {len(folders)} folders")
        faults += [f"--names: '{name}' is given twice" for name, n in Counter(names).items() if n > 1]
        faults += ["--names: a name is empty"] * any(not name.strip() for name in names)
    if faults:
        raise InputError(faults)
    if names is not None:
        return list(names)
    return distinct_tails(paths)


def load_ontology(settings: Settings) -> Ontology:
    if settings.train_dir and not Path(settings.train_dir).is_dir():
        raise InputError(f"--train_dir {settings.train_dir}: no such folder")
    path = settings.task_ontology
    if settings.train_dir:
        path = ontology_path(settings.train_dir, settings.task_ontology)
    with fault_context("--task_ontology " if settings.task_ontology else ""):
        return Ontology.load(path)


def common_tasks(vectors: Mapping[str, Mapping], settings: Settings, notes: list[str]) -> list[str]:
    """The tasks (of --tasks, or all) that have a vector in every folder; appends a note on the others.

    Raises InputError if fewer than MIN_TASKS remain.
    """
    known = list(dict.fromkeys(task for rows in vectors.values() for task in rows))
    chosen = known if settings.tasks is None else chosen_tasks(settings, known)
    if settings.tasks is None and settings.custom_tasks_splits:
        notes.append("--custom_tasks_splits is not used without --tasks")
    for name, rows in vectors.items():
        if missing := [task for task in chosen if task not in rows]:
            notes.append(
                f"{len(missing)} of {len(chosen)} tasks left out, without a vector in {name}: "
                + ", ".join(missing)
            )
    tasks = [task for task in chosen if all(task in rows for rows in vectors.values())]
    if len(tasks) < MIN_TASKS:
        flag = "--taskvecs" if settings.tasks is None else "--tasks"
        where = "in" if len(vectors) == 1 else "in all of"
        count = f"{len(tasks)} ({in_short(tasks)})" if tasks else "none"
        raise InputError(
            f"{flag}: of {len(chosen)} tasks, {count} have vectors {where} {' and '.join(vectors)}; "
            f"at least {MIN_TASKS} are needed"
        )
    return tasks


def chosen_tasks(settings: Settings, known: Sequence[str]) -> list[str]:
    """Returns the tasks of --tasks, names or sections. Raises InputError for a task without a vector."""
    split = settings.custom_tasks_splits
    if split is None and settings.train_dir:
        split = Path(settings.train_dir) / "split.json"
    sections = (*SECTIONS, "all")
    faults, chosen = Faults(), []
    for word in settings.tasks:
        if word in sections and split is None:
            faults.append(
                f"--tasks {word}: a section needs a split; give --custom_tasks_splits or --train_dir"
            )
        elif word in sections or word.rpartition(":")[0].endswith(".json"):
            chosen += faults.of(tasks_named, [word], split, flag="tasks") or []
        elif word in known:
            chosen.append(word)
        else:
            guess = did_you_mean(word, [*known, *sections])
            faults.append(f"--tasks {word}: no folder has a vector of this task{guess}")
    if faults:
        raise InputError(faults)
    return list(dict.fromkeys(chosen))


def label_notes(tasks: Sequence[str], labellings: Mapping[str, Labelling]) -> list[str]:
    """Returns one note per labelling with tasks that have no label and are left out."""
    missing = {name: [task for task in tasks if task not in labels] for name, labels in labellings.items()}
    missing.pop("subcategory")  # the same tasks as for category
    reason = {"category": "not in the ontology"}
    notes = [
        f"{len(unlabelled)} of {len(tasks)} tasks {reason.get(name, f'without a label of {name}')}: "
        + (", ".join(unlabelled) if len(unlabelled) < len(tasks) else "all")
        for name, unlabelled in missing.items()
        if unlabelled
    ]
    if len(missing["category"]) == len(tasks):
        notes.append("no task has a category; name the ontology with --train_dir or --task_ontology")
    return notes
