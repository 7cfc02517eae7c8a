"""Compare task vectors with features of tasks: do tasks with similar vectors have similar features?

    routing-moe vectors inspect --taskvecs data/task_vectors/text data/task_vectors/fisher \\
        --train_dir data/gym --tasks train --output_dir data/inspected
    routing-moe vectors inspect --taskvecs data/task_vectors/* --train_dir data/gym --labels my_features.csv \\
        --output_dir data/inspected

Writes agreement.md and .csv (of each folder and kind of features: Mantel's test and adjusted mutual information,
as `routing-moe correlate-routes` has them of routes), and a picture of each folder, similarity_<name>.png and
.pdf. Distances are 1 - cosine of centred vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, problem_context
from dataloader.gym import Gym
from dataloader.ontology import Ontology, ontology_path
from dataloader.task_splits import load_split
from routing_moe.analysis.runs import safe_name
from routing_moe.config.console import run_command
from routing_moe.config.flags import REQUIRED, Command, group
from routing_moe.io.files import distinct_paths, distinct_tails
from routing_moe.model.task_vectors import load_meta, load_task_vectors
from task.task_emb.settings import chosen_tasks, split_of

MIN_TASKS = 3
FLOAT32 = 1e-6  # relative to the longest vector: shorter ones are zero up to the float32 precision of files
VECTORS, LABELS, OUTPUT = group("vectors and tasks"), group("features of tasks"), group("output")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class InspectVectorsSettings(Command):
    """The flags of `routing-moe vectors inspect`."""

    program = "routing-moe vectors inspect"

    taskvecs: tuple[str, ...] = VECTORS(REQUIRED, "folders with id2task.json and task_vecs.npy", metavar="FOLDER")
    tasks: tuple[str, ...] | None = VECTORS(None, "tasks, or sections of the split: train, dev, test, all, file.json:section (default: the tasks that all folders have)", metavar="WORD")
    custom_tasks_splits: str | None = VECTORS(None, "split of the sections in --tasks (default: split.json in --train_dir)", metavar="FILE")
    train_dir: str | None = LABELS(None, "gym folder; only ontology.json, split.json and skills.csv are read", metavar="GYM")
    task_ontology: str | None = LABELS(None, "two-level ontology JSON (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)", metavar="FILE")
    labels: str | None = LABELS(None, "features beside the ontology: task, kind:value columns of 0 and 1, or columns of names (default: skills.csv in --train_dir, else those of the 160 CrossFit tasks)", metavar="CSV")
    output_dir: Path = OUTPUT(REQUIRED, "output folder; existing results are replaced", metavar="FOLDER")
# fmt: on


def main(argv: list[str] | None = None) -> int:
    return run_command(run, InspectVectorsSettings, argv, __doc__)


def run(settings: InspectVectorsSettings) -> None:
    folder = settings.output_dir
    vectors, path = vectors_of_folders(settings), settings.task_ontology
    ontology = Ontology.load(
        ontology_path(Gym(settings.train_dir).folder, path) if settings.train_dir else path
    )
    tasks = ontology.order(common_tasks(vectors, settings))
    from routing_moe.analysis.features import features_of  # these import scipy, which takes a second
    from routing_moe.analysis.recovery import recovery_markdown, recovery_table

    features = features_of(tasks, ontology, settings.train_dir, settings.labels)
    distances, tables = {}, []
    for name, rows in vectors.items():
        vectors_ND = np.stack([rows[task] for task in tasks])
        distances[name] = cosine_distances_of_centred(vectors_ND)
        found = recovery_table(distances[name], features)
        found.insert(0, "vectors", name)
        tables.append(found.assign(dimension=vectors_ND.shape[1]))
    table = pd.concat(tables)
    left_out = sorted({task for rows in vectors.values() for task in rows} - set(tasks))
    text = f"{recovery_markdown(table, 'vectors', 'vectors')}\n"
    text += f"\n{len(tasks)} tasks" + (f", without {', '.join(left_out)}" if left_out else "") + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "agreement.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "agreement.md", text)
    draw(distances, tasks, ontology, folder)
    print(f"{text}\n{folder / 'agreement'}.md, .csv; {folder / 'similarity'}_<name>.png, .pdf")


# ---- inputs


def vectors_of_folders(settings: InspectVectorsSettings) -> dict[str, dict[str, np.ndarray]]:
    """Returns {name of the folder: {task: vector (D,)}}, without rows of samples: tasks have their own."""
    vectors = {}
    with problem_context("--taskvecs: "):
        paths = distinct_paths(settings.taskvecs)
    for name, folder in zip(distinct_tails(paths), settings.taskvecs, strict=True):
        with problem_context("--taskvecs "):
            tasks, vectors_ND = load_task_vectors(folder)
            samples = load_meta(folder).get("sample_of") or {}
        rows = zip(tasks, vectors_ND, strict=True)
        vectors[name] = {task: vector_D for task, vector_D in rows if task not in samples}
    return vectors


def common_tasks(vectors: Mapping[str, Mapping], settings: InspectVectorsSettings) -> list[str]:
    """Returns the tasks (of --tasks, or all) with a vector in every folder. Raises InputError for too few."""
    chosen = list(dict.fromkeys(task for rows in vectors.values() for task in rows))
    if settings.tasks is not None:
        split = split_of(settings.custom_tasks_splits, settings.train_dir)
        with problem_context("--tasks: "):
            chosen = chosen_tasks(settings.tasks, split, [*chosen, *(load_split(split).all if split else ())])
    tasks = [task for task in chosen if all(task in rows for rows in vectors.values())]
    if len(tasks) < MIN_TASKS:
        which = f"of {len(chosen)} tasks, {len(tasks)} have vectors in all of {' and '.join(vectors)}"
        raise InputError(f"--tasks: {which}; at least {MIN_TASKS} are needed")
    return tasks


# ---- statistics: N tasks, D dimensions of a vector


def cosine_distances_of_centred(vectors_ND: np.ndarray) -> np.ndarray:
    """Returns pairwise 1 - cosine (N, N) of the vectors minus their mean, from 0 to 2, to 9 decimals."""
    from sklearn.metrics.pairwise import cosine_distances  # imported late: it takes a second

    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    longest = np.linalg.norm(vectors_ND, axis=1).max()
    # A direction that consists of rounding errors; the distance of 0 to all others is 1.
    centred_ND[np.linalg.norm(centred_ND, axis=1) <= FLOAT32 * longest] = 0.0
    return cosine_distances(centred_ND).round(9)


# ---- outputs


def draw(distances: Mapping, tasks: list[str], ontology: Ontology, folder: Path) -> None:
    """Draws the cosines of each folder, in the order of a clustering."""
    from routing_moe.pictures.heat_maps import COSINE, plot_clustered  # matplotlib takes half a second
    from routing_moe.pictures.style import save

    for name, distance_NN in distances.items():
        figure = plot_clustered(1 - distance_NN, tasks, ontology, COSINE)
        save(figure, folder / f"similarity_{safe_name(name)}", name)
