"""Loads recipes from a Python file of the user."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path

from dataloader.building.recipe import Recipe
from dataloader.errors import InputError
from dataloader.metrics import METRIC_FUNCTIONS, METRICS


def load_recipes(path: Path | None) -> dict[str, Recipe]:
    """Returns the recipes in the list RECIPES of a Python file, by task; {} for None.

    The file is run, like any program of the user. Raises InputError if it fails or has no such list.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise InputError(f"--recipes {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception:
        raise InputError(f"--recipes {path} fails:\n  " + _last_lines(traceback.format_exc())) from None
    recipes = getattr(module, "RECIPES", None)
    if not isinstance(recipes, list) or not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise InputError(f"--recipes {path} has no list RECIPES of recipes (see docs/data.md)")
    faults = [f"--recipes {path}: {fault}" for recipe in recipes for fault in _faults(recipe)]
    if faults:
        raise InputError(faults)
    return {recipe.task: recipe for recipe in recipes}


def _last_lines(report: str, most: int = 3) -> str:
    return "\n  ".join(report.strip().splitlines()[-most:])


def _faults(recipe: Recipe) -> list[str]:
    known = ", ".join(METRIC_FUNCTIONS)
    if recipe.metric is None and recipe.task not in METRICS:
        return [f"'{recipe.task}' has no metric (one of {known})"]
    if recipe.metric is not None and recipe.metric not in METRIC_FUNCTIONS:
        return [f"'{recipe.task}' has the unknown metric {recipe.metric!r} (one of {known})"]
    return []
