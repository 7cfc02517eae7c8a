"""Loads recipes from a Python file of the user."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path

from dataloader.building.recipe import Recipe
from dataloader.errors import InputError
from dataloader.metrics import METRIC_FUNCTIONS, METRICS

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def load_recipes(path: Path | None) -> dict[str, Recipe]:
    """Returns the recipes in the list RECIPES of a Python file, by task; {} for None.

    The file is run, like any program of the user. Raises InputError if it fails, has no such list, or if a
    recipe is faulty.
    """
    if path is None:
        return {}
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"--recipes {path}: {'not a .py file' if path.is_file() else 'no such file'}")
    recipes = getattr(run_file(path), "RECIPES", None)
    if not isinstance(recipes, list) or not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise InputError(f"--recipes {path} has no list RECIPES of recipes (see docs/data.md)")
    tasks = [recipe.task for recipe in recipes]
    faults = [f"two recipes of '{task}'" for task in dict.fromkeys(tasks) if tasks.count(task) > 1]
    faults += [f"recipe '{recipe.task}': {fault}" for recipe in recipes for fault in faults_of(recipe)]
    if faults:
        raise InputError(f"--recipes {path}: {fault}" for fault in faults)
    return {recipe.task: recipe for recipe in recipes}


def run_file(path: Path):
    """Returns the module of a file, which may import modules beside it. Raises InputError if it fails."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit):
        lines = traceback.format_exc().strip().splitlines()
        raise InputError(f"--recipes {path} fails:\n  " + "\n  ".join(lines[-3:])) from None
    finally:
        sys.path.pop(0)
    return module


def faults_of(recipe: Recipe) -> list[str]:
    """Returns what is wrong with the fields of a recipe."""
    faults = []
    if not isinstance(recipe.task, str) or not TASK_NAME.fullmatch(recipe.task):
        faults.append("the name may have letters, digits and _ . + - only, and starts with one of the former")
    if not recipe.sources or not all(hasattr(source, "rows") for source in recipe.sources):
        faults.append("it needs at least one source")
    if not isinstance(recipe.splits, tuple) or len(recipe.splits) not in (1, 2):
        faults.append(f"splits is {recipe.splits!r}; it must be a tuple of one or two names")
    if not isinstance(recipe.k, int) or recipe.k < 1:
        faults.append(f"k is {recipe.k!r}; it must be a whole number of at least 1")
    if recipe.category is not None and not is_category(recipe.category):
        faults.append(f"category is {recipe.category!r}; it must be (category, subcategory)")
    if recipe.metric is None and recipe.task not in METRICS:
        faults.append(f"it has no metric (one of {', '.join(METRIC_FUNCTIONS)})")
    if recipe.metric is not None and recipe.metric not in METRIC_FUNCTIONS:
        faults.append(f"unknown metric {recipe.metric!r} (one of {', '.join(METRIC_FUNCTIONS)})")
    return faults


def is_category(value) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(name, str) for name in value)
