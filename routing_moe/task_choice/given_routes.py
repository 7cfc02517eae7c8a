"""The routes that `--task_routes` gives: those of a file, of the ontology, or of clusters of task vectors.

Also these permuted among the train tasks: random groups of the same sizes, the control for their content.

Only the split's train tasks are clustered or required to have a route. Another task of the split gets a route
if the source has one for it; otherwise it has none, and is scored with equal weights. Does not import torch.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.ontology import SHIPPED_ONTOLOGY, UNCATEGORISED, Ontology
from dataloader.task_splits import Split
from routing_moe.config.choices import LOWEST_LOSS
from routing_moe.config.shared import Start, without_permutation
from routing_moe.model.given_routes import ALL, GivenRoutes, Route, read_routes
from routing_moe.model.route_clusters import best_clusters, centred_cosine, nearest_cluster, possible_counts
from routing_moe.task_choice.given_vectors import GivenVectors

ONTOLOGY_LEVELS = {"ontology": 1, "ontology:fine": 2}
TASKS, CLUSTERS = "tasks", "clusters"
SPECS = (
    "a file (.json or .npy), ontology, ontology:fine, tasks, clusters:K, clusters:auto, or "
    "random: and one of all these"
)


def names_file(spec: str) -> bool:
    """Returns whether a value of `--task_routes` names a file whose routes are not permuted."""
    return Path(spec).suffix in (".json", ".npy") and without_permutation(spec)[1] is None


def are_clusters(spec: str) -> bool:
    """Returns whether a value of `--task_routes` means clusters, permuted or not."""
    return without_permutation(spec)[0].startswith(f"{CLUSTERS}:")


def described(start: Start) -> str:
    """Returns the source of given routes in words, such as "clusters:16 of data/vectors"."""
    return f"{start.routes} of {start.vectors}" if are_clusters(start.routes) else start.routes


def training_routes(start: Start, split: Split, ontology: Ontology) -> GivenRoutes:
    """Returns the routes of `--task_routes` for training, with the vectors of `--taskvecs` if they are given.

    Raises InputError for another value, an unreadable file, and for train tasks without a route or vector.
    """
    given = None
    if start.vectors:
        with problem_context("--taskvecs "):
            given = GivenVectors.load(start.vectors)
    with problem_context("--task_routes "):
        spec, permutation = without_permutation(start.routes)
        routes, notes, clusters = routes_of(spec, start, split, ontology, given)
        if permutation is not None:
            routes, note = permuted(routes, split.train, int(permutation))
            notes = [*notes, note]
    if lacking := [task for task in routes if given and task not in given.names]:
        raise InputError(f"--taskvecs {start.vectors} has no vector for {in_short(lacking)}")
    without = sorted(set(split.all) - set(routes))
    if without:
        notes = [*notes, f"no route for {in_short(without)}: when scored, all experts have equal weights"]
    own = {}
    if given:
        own = dict(vectors=given.only(routes).by_name, parts=given.parts, seen=given.seen)
    return GivenRoutes(described(start), routes, notes=tuple(notes), clusters=tuple(clusters), **own)


def routes_of(
    spec: str, start: Start, split: Split, ontology: Ontology, given: GivenVectors | None
) -> tuple[dict[str, Route], list[str], list[dict]]:
    """Returns the routes of a value of `--task_routes` before any permutation, notes, and rows of clusters.

    given: the vectors of --taskvecs. Raises InputError for another value.
    """
    if names_file(spec):
        return of_file(spec, split), [], []
    if spec in ONTOLOGY_LEVELS:
        return *of_ontology(spec, split, ontology), []
    if spec == TASKS:
        return {task: {ALL: number} for number, task in enumerate(ontology.order(split.train))}, [], []
    if are_clusters(spec):
        return of_clusters(spec, start, split, ontology, given)
    if spec == LOWEST_LOSS:
        raise InputError(f"is {spec}, a choice among the routes of a trained mixture; leave --do_train out")
    known = [*ONTOLOGY_LEVELS, TASKS, "clusters:auto", "random:clusters:auto"]
    typed = f"random:{spec}" if spec != start.routes else spec
    raise InputError(f"is {typed!r}; give {SPECS}{did_you_mean(typed, known)}")


def permuted(routes: Mapping[str, Route], train: Collection[str], seed: int) -> tuple[dict[str, Route], str]:
    """Returns the routes, permuted among the train tasks, and a note. The routes of other tasks stay."""
    tasks = sorted(train)
    order_N = np.random.default_rng(seed).permutation(len(tasks))
    new = {task: routes[tasks[other]] for task, other in zip(tasks, order_N, strict=True)}
    kept = sum(np.array_equal(route, routes[task]) for task, route in new.items())
    note = f"routes permuted among {len(tasks)} train tasks (seed {seed}): {kept} have the same as before"
    return {**routes, **new}, note


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
    spec: str, start: Start, split: Split, ontology: Ontology, given: GivenVectors | None
) -> tuple[dict[str, Route], list[str], list[dict]]:
    """Returns the routes of all tasks of the split with a vector, notes on the clusters, and rows of a table.

    Each part is clustered separately; its clusters are numbered by their first task in the ontology's order.
    """
    if given is None:
        raise InputError(f"is {spec}, clusters of the vectors of --taskvecs; give them")
    vectors = given.by_name
    if lacking := sorted(set(split.train) - set(vectors)):
        raise InputError(f"{described(start)}: no vector for the train tasks {in_short(lacking)}")
    train = ontology.order(split.train)
    others = [task for task in split.all if task in vectors and task not in split.train]
    routes: dict[str, Route] = {task: {} for task in (*train, *others)}
    notes, rows = [], []
    for part, (first, end) in given.parts.items():
        vectors_ND = np.stack([vectors[task][first:end] for task in train])
        labels_N, row = clusters_of(spec, vectors_ND)
        rows.append({"source": described(start), "part": part} | row)
        notes.append(f"{part} layers: {in_words(row)}")
        for task, label in zip(train, labels_N.tolist(), strict=True):
            routes[task][part] = label
        for task in others:
            routes[task][part] = nearest_cluster(vectors[task][first:end], vectors_ND, labels_N).label
    return routes, notes, rows


def clusters_of(spec: str, vectors_ND: np.ndarray) -> tuple[np.ndarray, dict]:
    """Returns the labels (N,) of a value such as clusters:8 or clusters:auto, and a row of the table.

    The row has the number of clusters, their sizes and the mean silhouette. Raises InputError.
    """
    counts = wanted_clusters(spec, len(vectors_ND))
    labels_N, silhouette = best_clusters(centred_cosine(vectors_ND), counts)
    return labels_N, {
        "clusters": int(labels_N.max()) + 1,
        "sizes": " ".join(map(str, np.bincount(labels_N).tolist())),
        "silhouette": silhouette,
    }


def wanted_clusters(spec: str, N: int) -> list[int]:
    """Returns the numbers of clusters to choose from, of N train tasks. Raises InputError for a wrong K."""
    count = spec.removeprefix(f"{CLUSTERS}:")
    if count != "auto" and not re.fullmatch(r"\d+", count):
        raise InputError(f"is {spec}; after clusters: give auto or a number K")
    if count == "auto" and N < 3:
        raise InputError(f"is {spec}, which needs at least 3 train tasks; there are {N}")
    if count != "auto" and not 2 <= int(count) <= N:
        raise InputError(f"is {spec}; K must be auto, or from 2 to the {N} train tasks")
    return possible_counts(N) if count == "auto" else [int(count)]


def in_words(row: Mapping) -> str:
    """Returns a row of the table of clusters as a note for the log."""
    sizes = row["sizes"].replace(" ", ", ")
    return f"{row['clusters']} clusters of {sizes} tasks; mean silhouette {row['silhouette']:.3f}"


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
    if config.route_source == "fixed":  # also with one expert
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
