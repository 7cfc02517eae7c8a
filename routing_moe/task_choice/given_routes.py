"""The routes that `--task_routes` gives: those of a file, of the ontology, or of clusters of task vectors.

Only the split's train tasks are clustered or required to have a route. Another task of the split gets a route
if the source has one for it; otherwise it has none, and is scored with equal weights. Does not import torch.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.ontology import SHIPPED_ONTOLOGY, UNCATEGORISED, Ontology
from dataloader.task_splits import Split
from routing_moe.config.choices import LOWEST_LOSS
from routing_moe.config.shared import Start
from routing_moe.model.given_routes import ALL, GivenRoutes, Route, read_routes
from routing_moe.model.route_clusters import (
    MOST_CLUSTERS,
    best_count,
    centred_cosine,
    cluster_labels,
    nearest_cluster,
)
from routing_moe.model.task_vectors import UNKNOWN
from routing_moe.task_choice.given_vectors import GivenVectors

ONTOLOGY_LEVELS = {"ontology": 1, "ontology:fine": 2}
TASKS, CLUSTERS = "tasks", "clusters"
SPECS = "a file (.json or .npy), ontology, ontology:fine, tasks, clusters:K or clusters:auto"


def names_file(spec: str) -> bool:
    """Returns whether a value of `--task_routes` names a file."""
    return Path(spec).suffix in (".json", ".npy")


def described(start: Start) -> str:
    """Returns the source of given routes in words, such as "clusters:16 of data/vectors"."""
    spec = start.routes
    return f"{spec} of {start.vectors}" if spec.startswith(f"{CLUSTERS}:") else spec


def training_routes(start: Start, split: Split, ontology: Ontology, stay: bool) -> GivenRoutes:
    """Returns the routes of `--task_routes` for training, with the vectors of `--taskvecs` if they are given.

    stay: whether the routes stay, so that tasks without one have equal weights.
    Raises InputError for another value, an unreadable file, and for train tasks without a route or vector.
    """
    spec, vectors, parts, seen, notes = start.routes, {}, {}, UNKNOWN, []
    if start.vectors:
        with problem_context("--taskvecs "):
            given = GivenVectors.load(start.vectors)
        vectors, parts, seen = given.by_name, given.parts, given.seen
    with problem_context("--task_routes "):
        if names_file(spec):
            routes = of_file(spec, split)
        elif spec in ONTOLOGY_LEVELS:
            routes, notes = of_ontology(spec, split, ontology)
        elif spec == TASKS:
            routes = {task: {ALL: number} for number, task in enumerate(ontology.order(split.train))}
        elif spec.startswith(f"{CLUSTERS}:"):
            routes, notes = of_clusters(start, split, ontology, vectors, parts)
        elif spec == LOWEST_LOSS:
            raise InputError(
                f"is {spec}, a choice among the routes of a trained mixture; leave --do_train out"
            )
        else:
            known = [*ONTOLOGY_LEVELS, TASKS, "clusters:auto"]
            raise InputError(f"is {spec!r}; give {SPECS}{did_you_mean(spec, known)}")
    lacking = [task for task in routes if start.vectors and task not in vectors]
    if lacking:
        raise InputError(f"--taskvecs {start.vectors} has no vector for {in_short(lacking)}")
    without = sorted(set(split.all) - set(routes))
    if without and stay:
        notes = [*notes, f"no route for {in_short(without)}: when scored, all experts have equal weights"]
    own = {task: vectors[task] for task in routes} if vectors else {}
    are_clusters = spec.startswith(f"{CLUSTERS}:")
    return GivenRoutes(described(start), routes, own, parts if own else {}, seen, tuple(notes), are_clusters)


# ---- sources


def of_file(path: str, split: Split) -> dict[str, Route]:
    """Returns the routes of the split's tasks in a file."""
    routes = read_routes(path)
    if lacking := sorted(set(split.train) - set(routes)):
        hint = did_you_mean(lacking[0], sorted(set(routes) - set(split.all)))
        raise InputError(f"{path} has no route for the train tasks {in_short(lacking)}{hint}")
    return {task: routes[task] for task in split.all if task in routes}


def of_ontology(spec: str, split: Split, ontology: Ontology) -> tuple[dict[str, Route], list[str]]:
    """Returns the routes of the tasks of categories with train tasks, and a note with the experts."""
    level = ONTOLOGY_LEVELS[spec]
    category_of = {task: ontology.category(task)[:level] for task in split.all}
    lacking = [task for task in split.train if category_of[task] == UNCATEGORISED[:level]]
    if lacking:
        where = f"the ontology (--task_ontology, ontology.json in --train_dir, or {SHIPPED_ONTOLOGY})"
        raise InputError(f"{spec}: {where} has no category for {in_short(lacking)}")
    order = [category_of[task] for task in ontology.order(split.train)]
    expert = {category: number for number, category in enumerate(dict.fromkeys(order))}
    note = ", ".join(f"{number} {'/'.join(category)}" for category, number in expert.items())
    routes = {task: {ALL: expert[c]} for task, c in category_of.items() if c in expert}
    return routes, [f"experts of the categories: {note}"]


def of_clusters(
    start: Start,
    split: Split,
    ontology: Ontology,
    vectors: Mapping[str, np.ndarray],
    parts: Mapping[str, tuple[int, int]],
) -> tuple[dict[str, Route], list[str]]:
    """Returns the routes of all tasks of the split with a vector, and notes on the clusters.

    Each part is clustered separately; its clusters are numbered by their first task in the ontology's order.
    """
    if not start.vectors:
        raise InputError(f"is {start.routes}, clusters of the vectors of --taskvecs; give them")
    if lacking := sorted(set(split.train) - set(vectors)):
        raise InputError(f"{described(start)}: no vector for the train tasks {in_short(lacking)}")
    train = ontology.order(split.train)
    others = [task for task in split.all if task in vectors and task not in split.train]
    routes: dict[str, Route] = {task: {} for task in (*train, *others)}
    notes = []
    for part, (first, end) in parts.items():
        vectors_ND = np.stack([vectors[task][first:end] for task in train])
        labels_N, note = clusters_of(start.routes, vectors_ND)
        notes.append(f"{part} layers: {note}")
        for task, label in zip(train, labels_N.tolist(), strict=True):
            routes[task][part] = label
        for task in others:
            routes[task][part] = nearest_cluster(vectors[task][first:end], vectors_ND, labels_N).label
    return routes, notes


def clusters_of(spec: str, vectors_ND: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns the labels (N,) of `clusters:K` or `clusters:auto`, and a note. Raises InputError."""
    wanted, N = spec.removeprefix(f"{CLUSTERS}:"), len(vectors_ND)
    if wanted == "auto" and N < 3:
        raise InputError(f"is {spec}, which needs at least 3 train tasks; there are {N}")
    if wanted != "auto" and not (wanted.isdecimal() and 2 <= int(wanted) <= N):
        raise InputError(f"is {spec}; K must be auto, or from 2 to the {N} train tasks")
    cosine_NN = centred_cosine(vectors_ND)
    if wanted == "auto":
        count, silhouette = best_count(cosine_NN)
        how = f" (mean silhouette {silhouette:.3f}, the largest from 2 to {min(N - 1, MOST_CLUSTERS)})"
    else:
        count, how = int(wanted), ""
    labels_N = cluster_labels(cosine_NN, count)
    sizes = ", ".join(map(str, np.bincount(labels_N).tolist()))
    return labels_N, f"{count} clusters{how} of {sizes} tasks"


# ---- other tasks than those of the split


def check_scored_spec(spec: str) -> None:
    """Raises InputError for a value of `--task_routes` that needs training: no file and not lowest_loss."""
    if spec != LOWEST_LOSS and not names_file(spec):
        hint = did_you_mean(spec, [LOWEST_LOSS])
        raise InputError(
            f"is {spec}, which a model is trained with; without training give a file (.json or .npy) with "
            f"the routes of the scored tasks, or {LOWEST_LOSS}{hint}"
        )


def check_routes_differ(config) -> None:
    """Raises InputError if a mixture has no routes of tasks for lowest_loss. config: the mixture's."""
    reason = None
    if config.route_source == "fixed":  # also with one expert, to which all clusters may be reduced
        return
    if config.num_experts == 1:
        reason = "the model has one expert, so it has no routes to choose from"
    elif not config.routes_by_task:
        drawn = "random routes for each example" if config.route_source == "random" else "average routes"
        reason = f"the model has {drawn}, the same for all tasks, so there is no choice"
    if reason:
        raise InputError(f"is {LOWEST_LOSS}, but {reason}")


def file_routes(path: str, tasks: Collection[str]) -> GivenRoutes:
    """Returns the routes that a file gives some of the tasks. Raises InputError if it has none of them."""
    with problem_context("--task_routes "):
        routes = read_routes(path)
        by_task = {task: routes[task] for task in tasks if task in routes}
        if not by_task:
            hint = did_you_mean(next(iter(tasks), ""), routes)
            raise InputError(f"{path} has no route for {in_short(sorted(tasks))}{hint}")
    return GivenRoutes(path, by_task)


def file_matrices(path: str, tasks: Collection[str], config) -> dict[str, np.ndarray]:
    """Returns {task: route (L, E)} of the tasks that a file has, for the layers and experts of a mixture.

    Raises InputError if the file has none of them, or if they do not fit. config: the mixture's.
    """
    routes = file_routes(path, tasks)
    with problem_context(f"--task_routes {path}: "):
        matrices = routes.matrices(*config.route_sizes)
    return dict(zip(routes.tasks, matrices, strict=True))
