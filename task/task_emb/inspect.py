"""Compare task vectors with labels of tasks: do tasks with similar vectors have the same label?

    routing-moe vectors inspect --taskvecs data/task_vectors/text --output_dir data/inspected
    routing-moe vectors inspect --taskvecs data/task_vectors/text data/task_vectors/fisher \\
        --names "text" "Fisher" --train_dir data/gym --tasks train --output_dir data/inspected
    routing-moe vectors inspect --taskvecs data/task_vectors/* --train_dir data/skill_gym \\
        --labels data/skill_gym/skills.csv --output_dir data/inspected

Writes agreement.md and agreement.csv (for each folder and labelling: leave-one-out accuracy of the majority
label of the nearest neighbours, its permutation test, and the silhouette), agreement.png and .pdf (a dot plot
of these), neighbours.csv (the nearest tasks of each task), similarity.png and .pdf (heat maps, tasks by
tasks). Labellings: category and subcategory of the ontology, and the columns of --labels. Exits with 2 if an
error prevents the results.
"""

import dataclasses
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems, did_you_mean, problem_context
from dataloader.labels import Labelling, ontology_labels, read_labels
from dataloader.ontology import Ontology, ontology_path
from routing_moe.cli.console import run_command
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Command, flag_problems, group
from routing_moe.io.files import distinct_tails, unwritable
from routing_moe.model.task_vectors import load_meta, load_task_vectors, samples_in
from routing_moe.results.markdown import markdown_table, mean_and_std
from task.task_emb.agreement import agreement, all_equidistant, cosine_distances, mean_centred, nearest
from task.task_emb.sources import chosen_tasks, split_of

MIN_TASKS = 3
VECTORS = group("vectors and tasks")
LABELS = group("labels of tasks")
STATISTICS = group("statistics")
OUTPUT = group("output")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Settings(Command):
    """The flags of `routing-moe vectors inspect`."""

    program = "routing-moe vectors inspect"
    usage = "--taskvecs FOLDER [FOLDER ...] --output_dir FOLDER [flags, see --help]"

    taskvecs: tuple[str, ...] = VECTORS(REQUIRED, "folders with id2task.json and task_vecs.npy", metavar="FOLDER")
    names: tuple[str, ...] | None = VECTORS(None, "names of the folders in tables and pictures (default: the distinct ends of their paths)", metavar="NAME")
    tasks: tuple[str, ...] | None = VECTORS(None, "tasks, or sections of the split: train, dev, test, all, file.json:section (default: the tasks that all folders have)", metavar="WORD")
    custom_tasks_splits: str | None = VECTORS(None, "split of the sections in --tasks (default: split.json in --train_dir)", metavar="FILE")
    train_dir: str | None = LABELS(None, "gym folder; only ontology.json and split.json are read", metavar="GYM")
    task_ontology: str | None = LABELS(None, "two-level ontology JSON (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)", metavar="FILE")
    labels: str | None = LABELS(None, "further labellings: a column task, and columns of labels, or columns of 0 and 1 named labelling:value", metavar="CSV")
    neighbours: int = STATISTICS(3, "number of nearest neighbours", metavar="K", range=AT_LEAST_1)
    permutations: int = STATISTICS(10_000, "permutations of the labels; the smallest possible p is 1 / (1 + P)", metavar="P", range=AT_LEAST_1)
    seed: int = STATISTICS(0, "seed of the permutations", range=SEED)
    output_dir: Path = OUTPUT(REQUIRED, "output folder; existing results are replaced", metavar="FOLDER")
    title: str | None = OUTPUT(None, "title of the pictures (default: none)")
# fmt: on


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
    problems, notes = Problems(flag_problems(settings)), []
    if problem := unwritable(settings.output_dir):
        problems.append(f"--output_dir {problem}")
    names = problems.of(names_of_folders, settings.taskvecs, settings.names) or settings.taskvecs
    folders = [problems.of(vectors_of_tasks, folder, flag="taskvecs") for folder in settings.taskvecs]
    ontology = problems.of(load_ontology, settings)
    labellings = problems.of(read_labels, settings.labels, flag="labels") if settings.labels else {}
    vectors = dict(zip(names, folders, strict=True))
    tasks = None if None in folders else problems.of(common_tasks, vectors, settings, notes)
    if tasks and settings.neighbours >= len(tasks):
        problems.append(
            f"--neighbours {settings.neighbours} must be less than {len(tasks)}, the number of tasks"
        )
    labelled = {task for labelling in (labellings or {}).values() for task in labelling}
    if tasks and labellings and labelled.isdisjoint(tasks):
        guess = did_you_mean(tasks[0], labelled)
        problems.append(
            f"--labels {settings.labels} has labels for none of the tasks, such as {tasks[0]}{guess}"
        )
    if problems:
        raise InputError(dict.fromkeys(problems))
    tasks = ontology.order(tasks)
    labellings = ontology_labels(tasks, ontology) | labellings
    notes += label_notes(tasks, labellings)
    stacked = {name: np.stack([rows[task] for task in tasks]) for name, rows in vectors.items()}
    return Inputs(stacked, tasks, ontology, labellings, notes)


def vectors_of_tasks(folder: str) -> dict[str, np.ndarray]:
    """Returns {task: vector (D,)}. Rows of samples are left out: their tasks have their own rows."""
    names, vectors_ND = load_task_vectors(folder)
    samples = samples_in(load_meta(folder))
    return {name: vector_D for name, vector_D in zip(names, vectors_ND, strict=True) if name not in samples}


def names_of_folders(folders: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Returns `names`, else the shortest ends of the folders' paths that are distinct. Raises InputError."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    problems = [f"--taskvecs: {path} is given twice" for path, n in Counter(paths).items() if n > 1]
    if names is not None and len(names) != len(folders):
        problems.append(f"--names: {len(names)} names for {len(folders)} folders")
    problems += [f"--names: '{name}' is given twice" for name, n in Counter(names or ()).items() if n > 1]
    if problems:
        raise InputError(problems)
    return distinct_tails(paths) if names is None else list(names)


def load_ontology(settings: Settings) -> Ontology:
    if settings.train_dir and not Path(settings.train_dir).is_dir():
        raise InputError(f"--train_dir {settings.train_dir}: no such folder")
    path = settings.task_ontology
    if settings.train_dir:
        path = ontology_path(settings.train_dir, settings.task_ontology)
    with problem_context("--task_ontology " if settings.task_ontology else ""):
        return Ontology.load(path)


def common_tasks(vectors: Mapping[str, Mapping], settings: Settings, notes: list[str]) -> list[str]:
    """The tasks (of --tasks, or all) that have a vector in every folder; appends a note on the others.

    Raises InputError if fewer than MIN_TASKS remain.
    """
    chosen = list(dict.fromkeys(task for rows in vectors.values() for task in rows))
    if settings.tasks is not None:
        split = split_of(settings.custom_tasks_splits, settings.train_dir)
        in_split = split.all if split else ()
        chosen = chosen_tasks(settings.tasks, split, [*chosen, *in_split], "the folders of --taskvecs")
    for name, rows in vectors.items():
        if missing := [task for task in chosen if task not in rows]:
            notes.append(
                f"{len(missing)} of {len(chosen)} tasks left out, without a vector in {name}: "
                + ", ".join(missing)
            )
    tasks = [task for task in chosen if all(task in rows for rows in vectors.values())]
    if len(tasks) < MIN_TASKS:
        raise InputError(
            f"--tasks: of {len(chosen)} tasks, {len(tasks)} have vectors in all of {' and '.join(vectors)}; at "
            f"least {MIN_TASKS} are needed"
        )
    return tasks


def label_notes(tasks: Sequence[str], labellings: Mapping[str, Labelling]) -> list[str]:
    """Returns one note per labelling with tasks that have no label and are left out."""
    notes = []
    for name, labels in labellings.items():
        unlabelled = [task for task in tasks if task not in labels]
        if unlabelled and name != "subcategory":  # the same tasks as for category
            reason = "not in the ontology" if name == "category" else f"without a label of {name}"
            names = ", ".join(unlabelled) if len(unlabelled) < len(tasks) else "all"
            notes.append(f"{len(unlabelled)} of {len(tasks)} tasks {reason}: {names}")
    if not labellings["category"]:
        notes.append("no task has a category; name the ontology with --train_dir or --task_ontology")
    return notes


# ---- the command

EQUIDISTANT = "all distances between tasks are equal, so that no task has a nearest neighbour"
AGREEMENT_COLUMNS = (
    "vectors", "dimension", "labelling", "tasks", "labels", "scored",
    "silhouette", "k", "accuracy", "chance", "p",
)  # fmt: skip
NEIGHBOUR_COLUMNS = (
    "vectors", "task", "category", "rank", "neighbour", "similarity", "same_category", "same_subcategory",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    return run_command(run, Settings, argv, __doc__)


def run(settings: Settings) -> None:
    inputs = check(settings)
    vectors = inputs.vectors.items()
    distances = {name: cosine_distances(mean_centred(vectors_ND)) for name, vectors_ND in vectors}
    inputs.notes.extend(f"{name}: {EQUIDISTANT}" for name, d in distances.items() if all_equidistant(d))
    table = agreement_table(inputs, distances, settings)
    text = agreement_text(inputs, table, settings)
    write(inputs, distances, table, text, settings)
    for note in inputs.notes:
        print(f"note: {note}", file=sys.stderr)
    folder = settings.output_dir
    print(f"{text}\n{folder / 'agreement'}.md, .csv, .png, .pdf; {folder / 'similarity'}.png, .pdf")
    print(folder / "neighbours.csv")


# ---------------------------------------------------------------------------- results


def agreement_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """Returns one row of results of `agreement` per folder and labelling; columns AGREEMENT_COLUMNS."""
    rows = []
    for name, distance_NN in distances.items():
        for labelling, label_of in inputs.labellings.items():
            labels = [label_of.get(task) for task in inputs.tasks]
            k, permutations = settings.neighbours, settings.permutations
            result = agreement(distance_NN, labels, k, permutations, settings.seed)
            keys = dict(vectors=name, dimension=inputs.vectors[name].shape[1], labelling=labelling, k=k)
            rows.append(keys | dataclasses.asdict(result))
    return pd.DataFrame(rows)[list(AGREEMENT_COLUMNS)]


def agreement_text(inputs: Inputs, table: pd.DataFrame, settings: Settings) -> str:
    """Returns the content of agreement.md: an explanation, the table, the notes."""
    k, n = settings.neighbours, len(inputs.tasks)
    predicted = (
        "that of the nearest other task" if k == 1 else f"the majority label of the {k} nearest others"
    )
    explanation = (
        f"Do tasks with similar vectors have the same label? {n} tasks; cells: accuracy (p) / silhouette. "
        f"Accuracy: the share of tasks whose label is {predicted}, by cosine similarity of the vectors minus "
        f"their mean over the {n} tasks. "
        "Only tasks whose label occurs at least twice are scored; their number is in brackets. p: by "
        f"{settings.permutations} permutations of the labels, not corrected for multiple tests; chance: mean "
        "accuracy of permuted labels. Silhouette of the same tasks: near 1 if labels form separate clusters, "
        "0 if they overlap. -: not defined (a single label, no label that occurs twice, at most k tasks with "
        "a label, or all distances equal)."
    )
    by_folder, by_labelling = (table.groupby(column, sort=False) for column in ("vectors", "labelling"))
    rows = [[_cell(row) for row in rows.itertuples()] for _, rows in by_folder]
    rows.append([mean_and_std(chance, np.nan) for chance in by_labelling["chance"].mean()])
    heads = [f"{labelling} ({scored})" for labelling, scored in by_labelling["scored"].first().items()]
    index = pd.Index([*inputs.vectors, "chance"], name="vectors")
    body = markdown_table(pd.DataFrame(rows, index=index, columns=heads))
    notes = "".join(f"\n- {note}" for note in inputs.notes)
    return f"{textwrap.fill(explanation, 100)}\n\n{body}\n" + (f"{notes}\n" if notes else "")


def _cell(row) -> str:
    if np.isnan(row.accuracy):
        return "-"
    return f"{mean_and_std(row.accuracy, np.nan)} (p {row.p:.2g}) / {mean_and_std(row.silhouette, np.nan)}"


def neighbours_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """Returns the k nearest tasks of each task; columns NEIGHBOUR_COLUMNS."""
    from routing_moe.analysis.route_tables import neighbours  # imports scipy

    tables = [pd.DataFrame(columns=NEIGHBOUR_COLUMNS)]
    for name, distance_NN in distances.items():
        if not all_equidistant(distance_NN):
            nearest_NK = nearest(distance_NN, settings.neighbours)
            table = neighbours(inputs.tasks, nearest_NK, 1 - distance_NN, inputs.ontology)
            tables.append(table.assign(vectors=name, similarity=[round(x, 6) for x in table["similarity"]]))
    return pd.concat(tables, ignore_index=True)[list(NEIGHBOUR_COLUMNS)]


def headings_of(table: pd.DataFrame) -> list[str]:
    """Returns the heading of each folder's heat map."""
    headings = []
    for name, row in table[table["labelling"] == "category"].set_index("vectors").iterrows():
        shown = "-" if np.isnan(row["accuracy"]) else f"{row['accuracy']:.2f}, chance {row['chance']:.2f}"
        headings.append(f"{name}\ncategory: accuracy {shown}")
    return headings


def write(inputs: Inputs, distances: Mapping, table: pd.DataFrame, text: str, settings: Settings) -> None:
    """Writes all tables and pictures into the output folder."""
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.pictures.dots import plot_agreement
    from routing_moe.pictures.heat_maps import plot_similarities
    from routing_moe.pictures.style import save

    folder = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    neighbours = neighbours_table(inputs, distances, settings)
    write_text(folder / "agreement.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "neighbours.csv", neighbours.to_csv(index=False))
    write_text(folder / "agreement.md", text)
    similarities = [1 - distance_NN for distance_NN in distances.values()]
    maps = dict(zip(headings_of(table), similarities, strict=True))
    save(plot_similarities(maps, inputs.tasks, inputs.ontology), folder / "similarity", settings.title)
    save(plot_agreement(table), folder / "agreement", settings.title)


if __name__ == "__main__":
    sys.exit(main())
