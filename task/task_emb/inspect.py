"""Compare task vectors with labels of tasks: do tasks with similar vectors have the same label?

    routing-moe vectors inspect --taskvecs data/task_vectors/text data/task_vectors/fisher \\
        --train_dir data/gym --tasks train --output_dir data/inspected
    routing-moe vectors inspect --taskvecs data/task_vectors/* --train_dir data/skill_gym \\
        --labels data/skill_gym/skills.csv --output_dir data/inspected

Writes agreement.md, .csv, .png and .pdf (of each folder and labelling: accuracy of the majority label of the
nearest neighbours, its permutation test, the silhouette), neighbours.csv (the nearest tasks of each task),
similarity.png and .pdf. Labellings: category and subcategory of the ontology, and the columns of --labels.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, did_you_mean, problem_context
from dataloader.gym import Gym
from dataloader.labels import Labelling, ontology_labels, read_labels
from dataloader.ontology import Ontology, ontology_path
from dataloader.task_splits import load_split
from routing_moe.config.console import run_command
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, Command, flag_problems, group
from routing_moe.io.files import distinct_tails, unwritable
from routing_moe.model.task_vectors import load_meta, load_task_vectors, samples_in
from routing_moe.results.markdown import markdown_table, shown_p
from routing_moe.results.statistics import PERMUTATIONS, permutation_test
from task.task_emb.settings import chosen_tasks, split_of

MIN_TASKS = 3
FLOAT32 = 1e-6  # relative to the longest vector: shorter ones are zero up to the float32 precision of files
AT_ONCE = 4_000_000  # pairs of neighbours whose labels are compared at once; bounds the memory
EXPLANATION = """\
Do tasks with similar vectors have the same label? accuracy: the share of tasks whose label is the majority
label of the k nearest other tasks, by cosine similarity of centred vectors. Only tasks whose label occurs
at least twice are scored. p: by permutations of the labels, not corrected for multiple tests; chance: mean
accuracy of permuted labels. -: not defined, because no label occurs twice, or all distances are equal."""
VECTORS, LABELS = group("vectors and tasks"), group("labels of tasks")
STATISTICS, OUTPUT = group("statistics"), group("output")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class InspectSettings(Command):
    """The flags of `routing-moe vectors inspect`."""

    program = "routing-moe vectors inspect"
    usage = "--taskvecs FOLDER [FOLDER ...] --output_dir FOLDER [flags, see --help]"

    taskvecs: tuple[str, ...] = VECTORS(REQUIRED, "folders with id2task.json and task_vecs.npy", metavar="FOLDER")
    tasks: tuple[str, ...] | None = VECTORS(None, "tasks, or sections of the split: train, dev, test, all, file.json:section (default: the tasks that all folders have)", metavar="WORD")
    custom_tasks_splits: str | None = VECTORS(None, "split of the sections in --tasks (default: split.json in --train_dir)", metavar="FILE")
    train_dir: str | None = LABELS(None, "gym folder; only ontology.json and split.json are read", metavar="GYM")
    task_ontology: str | None = LABELS(None, "two-level ontology JSON (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)", metavar="FILE")
    labels: str | None = LABELS(None, "further labellings: a column task, and columns of labels, or columns of 0 and 1 named labelling:value", metavar="CSV")
    neighbours: int = STATISTICS(3, "number of nearest neighbours", metavar="K", range=AT_LEAST_1)
    permutations: int = STATISTICS(PERMUTATIONS, "permutations of the labels; the smallest possible p is 1 / (1 + P)", metavar="P", range=AT_LEAST_1)
    output_dir: Path = OUTPUT(REQUIRED, "output folder; existing results are replaced", metavar="FOLDER")
# fmt: on


def main(argv: list[str] | None = None) -> int:
    return run_command(run, InspectSettings, argv, __doc__)


def run(settings: InspectSettings) -> None:
    folder = settings.output_dir
    if problems := flag_problems(settings):
        raise InputError(problems)
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    vectors, path = vectors_of_folders(settings), settings.task_ontology
    ontology = Ontology.load(
        ontology_path(Gym(settings.train_dir).folder, path) if settings.train_dir else path
    )
    tasks = ontology.order(common_tasks(vectors, settings))
    labellings = ontology_labels(tasks, ontology) | labels_of(settings, tasks)
    distances, results, k = {}, [], settings.neighbours
    for name, rows in vectors.items():
        vectors_ND = np.stack([rows[task] for task in tasks])
        distances[name] = distance_NN = cosine_distances_of_centred(vectors_ND)
        for labelling, label_of in labellings.items():
            labels = [label_of.get(task) for task in tasks]
            result = agreement(distance_NN, labels, k, settings.permutations)
            results.append(dict(vectors=name, dimension=vectors_ND.shape[1], labelling=labelling) | result)
    table = pd.DataFrame(results)
    left_out = sorted({task for rows in vectors.values() for task in rows} - set(tasks))
    shown = table.assign(p=table["p"].map(shown_p)).set_index("vectors")
    text = f"{EXPLANATION}\n\n{markdown_table(shown)}\n"
    text += f"\n{len(tasks)} tasks" + (f", without {', '.join(left_out)}" if left_out else "") + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "agreement.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "neighbours.csv", neighbours_table(tasks, distances, ontology, k).to_csv(index=False))
    write_text(folder / "agreement.md", text)
    draw(table, distances, tasks, ontology, settings)
    print(f"{text}\n{folder / 'agreement'}.md, .csv, .png, .pdf; {folder / 'similarity'}.png, .pdf")
    print(folder / "neighbours.csv")


# ---- inputs


def vectors_of_folders(settings: InspectSettings) -> dict[str, dict[str, np.ndarray]]:
    """Returns {name of the folder: {task: vector (D,)}}, without rows of samples: tasks have their own."""
    paths = [Path(os.path.abspath(folder)) for folder in settings.taskvecs]
    if len(set(paths)) < len(paths):
        raise InputError("--taskvecs: a folder is given twice")
    vectors = {}
    for name, folder in zip(distinct_tails(paths), settings.taskvecs, strict=True):
        with problem_context("--taskvecs "):
            tasks, vectors_ND = load_task_vectors(folder)
            samples = samples_in(load_meta(folder))
        rows = zip(tasks, vectors_ND, strict=True)
        vectors[name] = {task: vector_D for task, vector_D in rows if task not in samples}
    return vectors


def common_tasks(vectors: Mapping[str, Mapping], settings: InspectSettings) -> list[str]:
    """Returns the tasks (of --tasks, or all) with a vector in every folder. Raises InputError for too few."""
    chosen = list(dict.fromkeys(task for rows in vectors.values() for task in rows))
    if settings.tasks is not None:
        split = split_of(settings.custom_tasks_splits, settings.train_dir)
        with problem_context("--tasks: "):
            chosen = chosen_tasks(settings.tasks, split, [*chosen, *(load_split(split).all if split else ())])
    tasks = [task for task in chosen if all(task in rows for rows in vectors.values())]
    if len(tasks) < max(MIN_TASKS, settings.neighbours + 1):
        which = f"of {len(chosen)} tasks, {len(tasks)} have vectors in all of {' and '.join(vectors)}"
        needed = f"at least {MIN_TASKS}, and more than --neighbours {settings.neighbours}, are needed"
        raise InputError(f"--tasks: {which}; {needed}")
    return tasks


def labels_of(settings: InspectSettings, tasks: Sequence[str]) -> dict[str, Labelling]:
    """Returns the labellings of --labels. Raises InputError if none of the tasks has a label."""
    with problem_context("--labels "):
        labellings = read_labels(settings.labels) if settings.labels else {}
    labelled = {task for labelling in labellings.values() for task in labelling}
    if labellings and labelled.isdisjoint(tasks):
        example = f"{tasks[0]}{did_you_mean(tasks[0], labelled)}"
        raise InputError(f"--labels {settings.labels} has labels for none of the tasks, such as {example}")
    return labellings


# ---- statistics: N tasks, D dimensions of a vector, K neighbours, P permutations of the labels


def cosine_distances_of_centred(vectors_ND: np.ndarray) -> np.ndarray:
    """Returns pairwise 1 - cosine (N, N) of the vectors minus their mean, from 0 to 2, to 9 decimals."""
    from sklearn.metrics.pairwise import cosine_distances  # imported late: it takes a second

    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    longest = np.linalg.norm(vectors_ND, axis=1).max()
    # A direction that consists of rounding errors; the distance of 0 to all others is 1.
    centred_ND[np.linalg.norm(centred_ND, axis=1) <= FLOAT32 * longest] = 0.0
    return cosine_distances(centred_ND).round(9)


def all_equidistant(distance_NN: np.ndarray) -> bool:
    """Returns whether all pairs of tasks have the same distance, so that no task has a nearest neighbour."""
    return len(np.unique(distance_NN[~np.eye(len(distance_NN), dtype=bool)])) == 1


def nearest(distance_NN: np.ndarray, k: int) -> np.ndarray:
    """Returns the k < N nearest other tasks of each task (N, K), nearest first; ties: the lower index."""
    others_NN = distance_NN + np.diag(np.full(len(distance_NN), np.inf))
    return np.argsort(others_NN, axis=1, kind="stable")[:, :k]


def majority(labels_XK: np.ndarray) -> np.ndarray:
    """Returns the most frequent of k labels, ordered by distance: (..., K) to (...); ties: the nearest."""
    votes_XK = (labels_XK[..., :, None] == labels_XK[..., None, :]).sum(axis=-1, dtype=np.int32)
    winner_X1 = votes_XK.argmax(axis=-1)[..., None]  # argmax returns the first maximum: the nearest
    return np.take_along_axis(labels_XK, winner_X1, axis=-1)[..., 0]


def agreement(distance_NN: np.ndarray, labels: Sequence, k: int, permutations: int) -> dict:
    """Returns {statistic: value} of the tasks whose label is not None.

    tasks, labels: their numbers; scored: tasks with a label that occurs twice. silhouette: the mean of these
    (Rousseeuw 1987), -1 to 1. accuracy: leave-one-out, of these; all tasks are neighbours. chance, p: of the
    permutation test. NaN where EXPLANATION says so.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    label_ids_N = np.unique([labels[row] for row in rows], return_inverse=True)[1].astype(np.int16)
    frequency, distance_NN = np.bincount(label_ids_N), distance_NN[np.ix_(rows, rows)]
    is_scored = frequency > 1  # of each label
    scored = int(frequency[is_scored].sum())
    result = dict(tasks=len(rows), labels=len(frequency), scored=scored, silhouette=np.nan, k=k)
    result |= dict(accuracy=np.nan, chance=np.nan, p=np.nan)
    if len(frequency) < 2 or not scored or len(rows) <= k or all_equidistant(distance_NN):
        return result
    nearest_NK = nearest(distance_NN, k)

    def accuracies(label_ids_PN: np.ndarray) -> np.ndarray:
        is_correct_PN = majority(label_ids_PN[..., nearest_NK]) == label_ids_PN
        return (is_correct_PN & is_scored[label_ids_PN]).sum(axis=-1) / scored

    batch = max(1, AT_ONCE // (nearest_NK.size * k))
    test = permutation_test(accuracies, label_ids_N, permutations, batch)
    chance = test.null_distribution.mean()
    result |= dict(accuracy=float(test.statistic), chance=float(chance), p=float(test.pvalue))
    if is_scored.sum() > 1:
        from sklearn.metrics import silhouette_score

        rows = np.flatnonzero(is_scored[label_ids_N])
        distance_NN, label_ids_N = distance_NN[np.ix_(rows, rows)], label_ids_N[rows]
        result["silhouette"] = float(silhouette_score(distance_NN, label_ids_N, metric="precomputed"))
    return result


# ---- outputs


def neighbours_table(tasks: list[str], distances: Mapping, ontology: Ontology, k: int) -> pd.DataFrame:
    """Returns a row for each of the k nearest tasks of each task, by folder."""
    from routing_moe.analysis.route_metrics import neighbours  # imports scipy

    tables = {}
    for name, distance_NN in distances.items():
        nearest_NK = nearest(distance_NN, 0 if all_equidistant(distance_NN) else k)
        tables[name] = neighbours(tasks, nearest_NK, (1 - distance_NN).round(6), ontology)
    table = pd.concat(tables, names=["vectors"]).reset_index("vectors").reset_index(drop=True)
    return table.drop(columns="neighbour_category")


def draw(table: pd.DataFrame, distances: Mapping, tasks: list[str], ontology: Ontology, settings) -> None:
    """Draws the agreement, and a heat map of cosines for each folder."""
    from routing_moe.pictures.dots import plot_agreement  # matplotlib takes half a second
    from routing_moe.pictures.heat_maps import plot_similarities
    from routing_moe.pictures.style import save

    accuracy, maps = table[table["labelling"] == "category"].set_index("vectors")["accuracy"], {}
    for name, distance_NN in distances.items():
        note = "-" if np.isnan(accuracy[name]) else f"{accuracy[name]:.2f}"
        maps[f"{name}\ncategory: accuracy {note}"] = 1 - distance_NN
    save(plot_similarities(maps, tasks, ontology), settings.output_dir / "similarity")
    save(plot_agreement(table), settings.output_dir / "agreement")


if __name__ == "__main__":
    sys.exit(main())
