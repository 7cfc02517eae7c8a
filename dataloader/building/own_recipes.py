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

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
MODULE = "_own_recipes"  # the file's name in sys.modules


def load_recipes(path: Path | None) -> dict[str, Recipe]:
    """Returns the recipes in the list RECIPES of a Python file, by task; {} for None.

    The file is run, like any program of the user. Raises InputError if it fails, has no such list, or if a
    recipe is wrong.
    """
    if path is None:
        return {}
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"--recipes {path}: {'not a .py file' if path.is_file() else 'no such file'}")
    recipes = getattr(run_file(path), "RECIPES", None)
    are_recipes = isinstance(recipes, list) and all(isinstance(recipe, Recipe) for recipe in recipes)
    if not recipes or not are_recipes:
        raise InputError(f"--recipes {path} has no list RECIPES of recipes (see docs/data.md)")
    tasks = [str(recipe.task) for recipe in recipes]
    problems = [f"two recipes of '{task}'" for task in dict.fromkeys(tasks) if tasks.count(task) > 1]
    problems += [
        f"recipe '{recipe.task}': {problem}" for recipe in recipes for problem in problems_of(recipe)
    ]
    if problems:
        raise InputError(f"--recipes {path}: {problem}" for problem in problems)
    return {recipe.task: recipe for recipe in recipes}


def run_file(path: Path):
    """Returns the module of a file, which may import modules of its folder. Raises InputError if it fails."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses look their module up
    sys.path.append(str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit):
        raise InputError(f"--recipes {path}: {traceback.format_exc(limit=-1)}") from None
    return module


def problems_of(recipe: Recipe) -> list[str]:
    """Returns what is wrong with the name of a recipe's task and with its metric, which are in files."""
    task, metric, problems = str(recipe.task), recipe.metric or METRICS.get(recipe.task), []
    if not TASK_NAME.fullmatch(task):
        problems.append(f"task is {task!r}; it must be letters, digits and _ + -")
    if metric not in METRIC_FUNCTIONS:
        problems.append(f"metric is {metric!r}; it must be one of {', '.join(METRIC_FUNCTIONS)}")
    return problems
