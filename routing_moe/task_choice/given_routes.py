"""The routes that `--task_routes` gives: those of a file, or of clusters of task vectors.

Also these permuted among the train tasks: random groups of the same sizes, the control for their content.
Only the split's train tasks are clustered or required to have a route; another task without one is scored
with equal weights. Does not import torch.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from dataloader.checksums import sha256
from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.ontology import Ontology
from dataloader.task_splits import Split
from routing_moe.config.choices import LOWEST_LOSS
from routing_moe.config.shared import Start, without_permutation
from routing_moe.model.given_routes import ROUTE_TASKS_FILE, GivenRoutes, Route, read_routes, same_expert
from routing_moe.model.route_clusters import best_clusters, centred_cosine, nearest_cluster
from routing_moe.model.task_vectors import NAMES_FILE, VECTORS_FILE
from routing_moe.task_choice.choice import GivenVectors

TASKS, CLUSTERS = "tasks", "clusters:"
MOST_CLUSTERS = 64  # the largest number that auto tries
SPECS = "a file (.json or .npy), tasks, clusters:K, clusters:auto, or random: and one of all these"


def is_route_file(spec: str) -> bool:
    """Returns whether a value of `--task_routes` names a file whose routes are not permuted."""
    return Path(spec).suffix in (".json", ".npy") and without_permutation(spec)[1] is None


def given_checksums(routes: str | None, **folders: str | None) -> dict[str, str]:
    """Returns the SHA-256 of the file of --task_routes, and of vectors in the folders, {flag: folder}."""
    files = {
        f"--{flag} {name}": Path(folder) / name
        for flag, folder in folders.items()
        for name in (NAMES_FILE, VECTORS_FILE)
        if folder
    }
    if routes and is_route_file(spec := without_permutation(routes)[0]):
        files |= {"--task_routes 0": Path(spec), "--task_routes 1": Path(spec).with_name(ROUTE_TASKS_FILE)}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}


def described(start: Start) -> str:
    """Returns the source of given routes in words, such as "clusters:16 of data/vectors"."""
    are_clusters = without_permutation(start.routes)[0].startswith(CLUSTERS)
    return f"{start.routes} of {start.vectors}" if are_clusters else start.routes


def training_routes(start: Start, split: Split, ontology: Ontology) -> GivenRoutes:
    """Returns the routes of `--task_routes` for training, with the vectors of `--taskvecs`, if any."""
    vectors = None
    if start.vectors:
        with problem_context("--taskvecs "):
            vectors = GivenVectors.load(start.vectors)
    spec, seed = without_permutation(start.routes)
    notes, clusters = [], None
    with problem_context("--task_routes "):
        if is_route_file(spec):
            routes = routes_of_file(spec, split)
        elif spec == TASKS:
            routes = {task: same_expert(number) for number, task in enumerate(ontology.order(split.train))}
        elif spec.startswith(CLUSTERS):
            routes, clusters = routes_of_clusters(spec, start, split, ontology, vectors)
            description = f"{clusters['clusters']} clusters of {clusters['sizes'].replace(' ', ', ')} tasks"
            notes.append(f"{description}; mean silhouette {clusters['silhouette']:.3f}")
        elif spec == LOWEST_LOSS:
            raise InputError(f"is {spec}, a choice among the routes of a mixture; leave --do_train out")
        else:
            typed = spec if seed is None else f"random:{spec}"
            hint = did_you_mean(typed, [TASKS, "clusters:auto", "random:clusters:auto"])
            raise InputError(f"is {typed!r}; give {SPECS}{hint}")
    if seed is not None:
        routes, note = permuted(routes, split.train, int(seed))
        notes.append(note)
    if vectors and (lacking := [task for task in routes if task not in vectors.names]):
        raise InputError(f"--taskvecs {start.vectors} has no vector for {in_short(lacking)}")
    if without := sorted(set(split.all) - set(routes)):
        notes.append(f"no route for {in_short(without)}: when scored, all experts have equal weights")
    kept = {}
    if vectors:
        kept = dict(vectors=vectors.only(routes).by_name, seen=vectors.seen)
    return GivenRoutes(described(start), routes, notes=tuple(notes), clusters=clusters, **kept)


def permuted(routes: Mapping[str, Route], train: Collection[str], seed: int) -> tuple[dict[str, Route], str]:
    """Returns the routes, permuted among the train tasks, and a note. The routes of other tasks stay."""
    tasks = sorted(train)
    order_N = np.random.default_rng(seed).permutation(len(tasks))
    new = {task: routes[tasks[n]] for task, n in zip(tasks, order_N, strict=True)}
    same = sum(np.array_equal(route, routes[task]) for task, route in new.items())
    note = f"routes permuted among {len(tasks)} train tasks (seed {seed}): {same} have the same as before"
    return {**routes, **new}, note


def routes_of_file(path: str, split: Split) -> dict[str, Route]:
    """Returns the routes of the split's tasks in a file."""
    routes = read_routes(path)
    if lacking := sorted(set(split.train) - set(routes)):
        hint = did_you_mean(lacking[0], sorted(set(routes) - set(split.all)))
        raise InputError(f"{path} has no route for the train tasks {in_short(lacking)}{hint}")
    return {task: routes[task] for task in split.all if task in routes}


def routes_of_clusters(
    spec: str, start: Start, split: Split, ontology: Ontology, given: GivenVectors | None
) -> tuple[dict[str, Route], dict]:
    """Returns the routes of all tasks of the split with a vector, and the row of clusters.csv.

    Clusters are numbered by their first task in the ontology's order.
    """
    if given is None:
        raise InputError(f"is {spec}, clusters of the vectors of --taskvecs; give them")
    vectors, train, count = given.by_name, ontology.order(split.train), spec.removeprefix(CLUSTERS)
    N = len(train)
    if lacking := sorted(set(train) - set(vectors)):
        raise InputError(f"{described(start)}: no vector for the train tasks {in_short(lacking)}")
    if not (count == "auto" and N >= 3) and not (count.isdecimal() and 2 <= int(count) <= N):
        allowed = f"a number K from 2 to the {N} train tasks, or auto for at least 3 tasks"
        raise InputError(f"is {spec}; give {allowed}")
    counts = range(2, min(N - 1, MOST_CLUSTERS) + 1) if count == "auto" else [int(count)]
    others = [task for task in split.all if task in vectors and task not in split.train]
    vectors_ND = np.stack([vectors[task] for task in train])
    labels_N, silhouette = best_clusters(centred_cosine(vectors_ND), counts)
    labels = dict(zip(train, labels_N.tolist(), strict=True))
    labels |= {task: nearest_cluster(vectors[task], vectors_ND, labels_N).label for task in others}
    row = {"source": described(start), "clusters": int(labels_N.max()) + 1}
    row |= {"sizes": " ".join(map(str, np.bincount(labels_N).tolist())), "silhouette": silhouette}
    return {task: same_expert(label) for task, label in labels.items()}, row


# ---- routes for scoring with a trained mixture


def check_scored_spec(spec: str) -> None:
    """Raises InputError for a value of `--task_routes` that needs training: no file and not lowest_loss."""
    if spec != LOWEST_LOSS and not is_route_file(spec):
        allowed = f"a file (.json or .npy) with the routes of the scored tasks, or {LOWEST_LOSS}"
        raise InputError(f"is {spec}; without training give {allowed}{did_you_mean(spec, [LOWEST_LOSS])}")


def check_routes_differ(config) -> None:
    """Raises InputError if a mixture has no routes of tasks for lowest_loss. config: the mixture's."""
    if not config.source_kind.is_stored and not config.routes_by_task:
        drawn = f"{config.route_source} routes" + ("" if config.source_kind.per_task else " for each example")
        has = "one expert" if config.num_experts == 1 else f"{drawn}, the same for all tasks"
        raise InputError(f"is {LOWEST_LOSS}, but the model has {has}, so there is no choice")


def file_matrices(path: str, tasks: Collection[str], config) -> dict[str, np.ndarray]:
    """Returns {task: route (L, E)} of the tasks that a file has, for the layers and experts of a mixture."""
    with problem_context("--task_routes "):
        routes = read_routes(path)
        by_task = {task: routes[task] for task in tasks if task in routes}
        if not by_task:
            hint = did_you_mean(next(iter(tasks), ""), routes)
            raise InputError(f"{path} has no route for {in_short(sorted(tasks))}{hint}")
    given = GivenRoutes(path, by_task)
    with problem_context(f"--task_routes {path}: "):
        return dict(zip(given.tasks, given.matrices(*config.route_sizes), strict=True))
