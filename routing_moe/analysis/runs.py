"""The runs that a command explains: their routes, with the ontology and features of their tasks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, Problems, in_short
from dataloader.ontology import ONTOLOGY_FILE, UNCATEGORISED, Ontology, ontology_path
from routing_moe.analysis.features import OWN_FEATURES, Features, features_of
from routing_moe.analysis.saved_routes import Routes, load_routes
from routing_moe.io.files import distinct_tails
from routing_moe.io.hub import folder_of_run
from routing_moe.io.run_folder import load_run_settings


@dataclass(frozen=True, eq=False)
class ExplainedRun:
    """A run or a checkpoint, with the ontology and features of its tasks, which are in ontology order."""

    place: Path
    settings: dict  # of run.json; {} where there is none
    routes: Routes
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
    """Returns the runs, with distinct names. Raises InputError with all problems of all runs.

    with_features: False reads no file of features; the runs then have none.
    """
    paths = [Path(os.path.abspath(place)) for place in places]
    problems = Problems(f"{path} is given twice" for path, n in Counter(paths).items() if n > 1)
    options = (step, kind, task_ontology, feature_file, with_features)
    runs = [problems.of(_read_run, Path(place), *options) for place in places]
    if problems:
        raise InputError(dict.fromkeys(problems))
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = distinct_tails(paths)
    return [
        replace(run, routes=replace(run.routes, name=name)) for run, name in zip(runs, names, strict=True)
    ]


def _read_run(place: Path, step: str, kind: str, task_ontology, feature_file, with_features) -> ExplainedRun:
    place = folder_of_run(place)
    routes = load_routes(place, step, kind)
    settings = load_run_settings(place) or load_run_settings(place.parent) or {}
    gym = place if (place / OWN_FEATURES).is_file() else settings.get("train_dir")
    ontology = ontology_of(place, settings, task_ontology)
    routes = routes.of(ontology.order(routes.tasks))
    if with_features:
        features = features_of(routes.tasks, ontology, gym, feature_file)
    else:
        features = Features(routes.tasks, (), np.empty((len(routes.tasks), 0)))
    return ExplainedRun(place, settings, routes, ontology, features)


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
        if (run.routes.values_NLE == run.routes.values_NLE[:1]).all():
            notes.append(f"{run.name}: all tasks have the same route")
    return notes


def safe_name(name: str) -> str:
    """Returns a run's name as a folder name."""
    return name.replace(os.sep, "_")
