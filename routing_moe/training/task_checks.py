"""Whether each task of a run can have a vector or route, and whether its scores would replace other ones."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from dataloader.errors import InputError, in_short, problem_context
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.config.choices import has_parameters
from routing_moe.config.train import ROUTING_FLAGS, TrainSettings
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import GivenVectors, Resolver, missing_row_error
from routing_moe.task_choice.given_routes import (
    check_routes_differ,
    check_scored_spec,
    described,
    file_matrices,
    is_route_file,
)
from routing_moe.task_choice.texts import TextSource

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig


def trained_on(config: "RoutingBartConfig", split: Split) -> set[str]:
    """Returns the tasks that a checkpoint was trained on; if it lists none, the split's train tasks."""
    return set(config.trained_tasks or split.train)


def check_tasks(
    settings: TrainSettings,
    split: Split,
    config: "RoutingBartConfig",
    checkpoint: Path | None,
    texts: TextSource,
    new_routes: Collection[str] | None,
) -> None:
    """Raises InputError for tasks that the model of a run has no vector or route for, and cannot get one.

    config: of the model that the run starts with. checkpoint: its folder; None: it is new. new_routes: the
    tasks with routes that are given to the training, if any, among them all train tasks.
    """
    if config.routes_by_task and new_routes is None:
        check_known_tasks(settings, split, config, checkpoint)
    if not settings.do_predict:
        return
    if checkpoint and not settings.do_train:
        check_given(settings, config, checkpoint)
        scored = SavedMixture(checkpoint).config if settings.start.routes else config  # keeps its router
        resolver = resolver_of(settings, scored, split)
        if resolver and resolver.vectors:
            resolver.vectors.check(checkpoint, config)
        check_prefix(settings, checkpoint, resolver)
    elif resolver := resolver_of(settings, config, split):  # as it is after the training
        is_new = checkpoint is None and not settings.taskvecs
        random = set(config.task_names if is_new else config.random_vectors).difference(split.train)
        resolver = replace(resolver, names=new_routes or config.task_names, random=random)
    ways = {task: resolver.way(task) for task in split.section(settings.predict_split)} if resolver else {}
    if needing := [task for task, way in ways.items() if way == "nearest_task"]:
        texts.check(needing, resolver.seen)


def resolver_of(settings: TrainSettings, config, split: Split) -> Resolver | None:
    """Returns what decides the routes of scored tasks; None if they are those of the mixture's source.

    config: of the mixture that scores. Given routes and vectors are read, unless they are for the training.
    """
    start, by_loss, tasks = settings.start, settings.by_loss, split.section(settings.predict_split)
    trained, given = trained_on(config, split), {}
    if not settings.do_train and is_route_file(start.routes or ""):
        given["routes"] = file_matrices(start.routes, tasks, config)
    by_vector = config.has_router and not start.routes and not by_loss
    if config.num_experts == 1 or not (by_vector or by_loss or start.routes or config.given_routes):
        return None
    reads_vectors = by_vector or config.has_route_vectors
    if not settings.do_train and start.vectors and reads_vectors and (untrained := set(tasks) - trained):
        with problem_context("--taskvecs "):
            given["vectors"] = GivenVectors.load(start.vectors).only(untrained)
    source = "fixed" if config.has_router and start.routes else None
    whose = trained if by_loss else split.train
    return Resolver.of(config, whose, source, rule=settings.task_vector, by_loss=by_loss, **given)


def check_known_tasks(settings: TrainSettings, split: Split, config, checkpoint: Path | None) -> None:
    """Raises InputError for tasks that need a vector or route of the model, which has none for them."""
    needed, scored = set(split.train if settings.do_train else ()), set(split.section(settings.predict_split))
    # Other tasks get the vector of their nearest task or, among given routes, equal weights.
    stored_only = settings.task_vector == "stored" if config.has_router else not config.given_routes
    has_own = config.source_kind.is_stored and settings.task_routes
    if settings.do_predict and stored_only and not has_own:
        needed |= scored
    if settings.by_loss:  # other tasks get the route of one of these
        needed = trained_on(config, split) & scored
    if missing := needed - set(config.task_names):
        kind = "vector" if config.has_router else "route"
        place = checkpoint or f"--taskvecs {settings.taskvecs}"
        advice = "give --taskvecs, or a gym or split whose tasks have some"
        raise missing_row_error(place, kind, missing, config.task_names, advice)


# ---- predictions along other routes than those of the checkpoint


def check_given(settings: TrainSettings, config, checkpoint: Path) -> None:
    """Raises InputError for routes that need training, and for vectors that nothing reads."""
    source = settings.route_source
    if source and has_parameters(source) and source != SavedMixture(checkpoint).config.route_source:
        raise InputError(f"--route_source {source}: {checkpoint} has no router of it; train one (--do_train)")
    with problem_context("--task_routes "):
        if settings.by_loss:
            check_routes_differ(config)
        elif settings.task_routes and described(settings.start) != config.given_routes:
            check_scored_spec(settings.task_routes)
    if settings.taskvecs and config.routes_by_task and not (config.has_router or config.has_route_vectors):
        flag = f"--taskvecs {settings.taskvecs}"
        raise InputError(f"{flag}: the routes of {checkpoint} do not depend on vectors; leave it out")


def check_prefix(settings: TrainSettings, checkpoint: Path, resolver: Resolver | None) -> None:
    """Raises InputError if scores along other routes would overwrite those of the checkpoint.

    What the checkpoint has for a task must be equal to a given route or vector.
    """
    config, routes = SavedMixture(checkpoint).config, resolver.routes if resolver else {}
    vectors = resolver.vectors.by_name if resolver and resolver.vectors else {}
    changed = [
        f"--{flag}" for flag in ROUTING_FLAGS if getattr(settings, flag) not in (None, getattr(config, flag))
    ]
    redrawn = settings.task_level_random_routing and config.given_routes
    chosen = settings.by_loss and config.has_router  # other choices of given routes replace each other
    if settings.chosen_source not in (None, config.route_source) or redrawn or chosen:
        changed.append("source of routes")
    stored = {}
    if routes and config.source_kind.is_stored:
        with safe_open(checkpoint / "model.safetensors", "np") as weights:
            stored = dict(zip(config.task_names, weights.get_tensor("task_routes"), strict=True))
    changed += [
        f"route of {task}"
        for task in routes
        if task in stored and not np.allclose(stored[task], routes[task])
    ]
    stored = dict(zip(*load_task_vectors(checkpoint), strict=True)) if vectors else {}
    learned = set(stored).intersection(vectors).difference(config.random_vectors)
    changed += [f"vector of {task}" for task in sorted(learned) if (stored[task] != vectors[task]).any()]
    if changed and not settings.prefix:
        raise InputError(
            f"{checkpoint} has another {in_short(changed)} than this prediction; give --prefix, so that its "
            "own scores are not overwritten"
        )
