"""Recipes of the 160 tasks of CrossFit's gym, one module per family of data sets.

Each module has a list RECIPES. `dataloader.building` has what a recipe is made of.
"""

from dataloader.building.recipe import Recipe
from dataloader.recipes import (
    blimp,
    closed_book,
    completion,
    dialogue,
    generation,
    glue,
    kilt,
    lama,
    multiple_choice,
    parsing,
    passage_choice,
    reading,
    summarization,
    tweet_eval,
)

FAMILIES = (
    blimp,
    closed_book,
    completion,
    dialogue,
    generation,
    glue,
    kilt,
    lama,
    multiple_choice,
    parsing,
    passage_choice,
    reading,
    summarization,
    tweet_eval,
)

RECIPES: dict[str, Recipe] = {recipe.task: recipe for family in FAMILIES for recipe in family.RECIPES}
