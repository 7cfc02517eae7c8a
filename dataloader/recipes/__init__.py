"""Recipes of the 160 tasks of CrossFit's gym, one module per family of data sets.

Each module has a list RECIPES. `dataloader.building` has what a recipe is made of.
"""

from dataloader.building.recipe import Recipe
from dataloader.recipes import (
    blimp,
    fact_checking,
    glue,
    hate_speech,
    inference,
    questions,
    sentence_pairs,
    sentiment,
    superglue,
    topics,
    tweet_eval,
)

FAMILIES = (
    blimp,
    fact_checking,
    glue,
    hate_speech,
    inference,
    questions,
    sentence_pairs,
    sentiment,
    superglue,
    topics,
    tweet_eval,
)

RECIPES: dict[str, Recipe] = {recipe.task: recipe for family in FAMILIES for recipe in family.RECIPES}
