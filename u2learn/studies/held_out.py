"""DRIVE as it is handed out today, without the labels of its test part: trained and scored on the rest."""

import dataclasses
from itertools import chain

from u2learn.data import local
from u2learn.data.retina import HELD_OUT
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies import binseg, mmseg, paddle, small
from u2learn.studies.study import Study


def held_out(recipe: Recipe) -> Recipe:
    """The recipe on 16 of the training images, scored on the other four: an answer to no row of a table."""
    return dataclasses.replace(recipe, name=f"{recipe.name}-held-out", protocol="held-out", row={})


def without_test_labels(recipe: Recipe) -> bool:
    """Does the recipe's test part have no labels on this machine, so that nothing can be scored on it?"""
    if recipe.dataset != "drive" or recipe.protocol in HELD_OUT:
        return False
    try:
        return not local.files("drive")[local.UNSCORED]
    except local.MissingDataset:  # whoever opens it will say how to get it
        return False


@STUDIES.add("held-out")
def study() -> Study:
    tables = (each.study().recipes for each in (mmseg, paddle, small, binseg))
    drive = (recipe for recipe in chain(*tables) if recipe.dataset == "drive")
    recipes = tuple(held_out(recipe) for recipe in drive if recipe.protocol not in HELD_OUT)
    return Study("DRIVE without the labels of its test part (the data set)", recipes)
