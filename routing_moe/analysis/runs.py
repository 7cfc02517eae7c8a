"""The runs that a command explains: their routes, with the ontology and features of their tasks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataloader.errors import in_short
from dataloader.ontology import ONTOLOGY_FILE, UNCATEGORISED, Ontology, ontology_path
from routing_moe.analysis.features import OWN_FEATURES, Features, features_of
from routing_moe.analysis.saved_routes import SavedRoutes, load_routes
from routing_moe.io.files import distinct_paths, distinct_tails
from routing_moe.io.hub import folder_of_run
from routing_moe.io.run_folder import load_run_settings


@dataclass(frozen=True, eq=False)
class ExplainedRun:
    """A run or a checkpoint, with the ontology and features of its tasks, which are in ontology order."""

    place: Path
    settings: dict  # of run.json; {} where there is none
    routes: SavedRoutes
    ontology: Ontology
    features: Features

    @property
    def name(self) -> str:
        return self.routes.name


def read_runs(
    places: Sequence[str | Path],
    step: str = "best",
    kind: str = "soft",
    task_ontology: str | Path | None = None,
    feature_file: str | Path | None = None,
    with_features: bool = True,
) -> list[ExplainedRun]:
    """Returns the runs, with distinct names. with_features: False reads no file of features."""
    paths, runs = distinct_paths(places), []
    for place in map(folder_of_run, places):
        routes = load_routes(place, step, kind)
        settings = load_run_settings(place) or load_run_settings(place.parent) or {}
        ontology = ontology_of(place, settings, task_ontology)
        routes = routes.of(ontology.order(routes.tasks))
        features = Features(routes.tasks, (), np.empty((len(routes.tasks), 0)))
        if with_features:
            gym = place if (place / OWN_FEATURES).is_file() else settings.get("train_dir")
            features = features_of(routes.tasks, ontology, gym, feature_file)
        runs.append(ExplainedRun(place, settings, routes, ontology, features))
    if len({run.name for run in runs}) < len(runs):
        names = distinct_tails(paths)
        runs = [replace(r, routes=replace(r.routes, name=n)) for r, n in zip(runs, names, strict=True)]
    return runs


def ontology_of(place: Path, settings: Mapping, task_ontology: str | Path | None) -> Ontology:
    """Returns the file given, or that of the run's settings, or a shared run's, or its gym's, or ours."""
    path = task_ontology or settings.get("task_ontology")
    is_shared = (place / ONTOLOGY_FILE).is_file()
    gym = place if is_shared else settings.get("train_dir") or place
    return Ontology.load(ontology_path(gym, path and str(path)))


def notes_of(runs: Sequence[ExplainedRun]) -> list[str]:
    """Notes for the reader of a report, a line each: unknown categories and features, constant routes."""
    notes = []
    for run in runs:
        known = [task for task in run.routes.tasks if run.ontology.category(task) != UNCATEGORISED]
        if not known:
            gym = run.settings.get("train_dir")
            why = f"; the run's gym folder {gym} is missing or has no ontology.json" if gym else ""
            notes.append(f"{run.name}: no task has a category{why}; give an ontology with --task_ontology")
        lacking = [task for task in run.features.tasks if task not in run.features.described]
        if lacking and run.features.described:
            notes.append(f"{run.name}: the file of features has none of {in_short(lacking)}")
        if run.routes.are_equal:
            notes.append(f"{run.name}: all tasks have the same route")
    return notes


def safe_name(name: str) -> str:
    """Returns a run's name as a folder name."""
    return name.replace(os.sep, "_")


def file_names(runs: Sequence[ExplainedRun]) -> list[str]:
    """Returns distinct `safe_name`s: moe/seed1 and a run moe_seed1 must not overwrite each other's files."""
    names = []
    for run in runs:
        name = safe_name(run.name)
        while name in names:
            name += "_2"
        names.append(name)
    return names
