"""Recipes of the 160 tasks of CrossFit's gym, one module per family of data sets.

Each module has a list RECIPES; prompts.py adds several prompts for some of the data sets.
`dataloader.building` has what a recipe is made of.
"""

from importlib import import_module

from dataloader.building.recipe import Recipe
from dataloader.recipes import prompts

# fmt: off
FAMILIES = ("completion", "generation", "glue", "hate_speech", "inference", "knowledge", "multiple_choice",
            "parsing", "passage_choice", "questions", "reading", "sentence_pairs", "sentiment", "superglue",
            "topics")
# fmt: on

PUBLISHED: dict[str, Recipe] = {
    recipe.task: recipe for name in FAMILIES for recipe in import_module(f"{__name__}.{name}").RECIPES
}
RECIPES: dict[str, Recipe] = {**PUBLISHED, **prompts.prompt_recipes(PUBLISHED)}
