"""All recipes, by name. A study registers itself: a file with its recipes, its suites and its words."""

import dataclasses
from pathlib import Path
from typing import Any

from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies import blocks, drawn, mmseg, own, paddle, short, small, u2net  # noqa: F401
from u2learn.studies.study import Study

_made: dict[str, Study] = {}


def studies() -> dict[str, Study]:
    """The registered studies by name, each made once, also one that registered itself a moment ago."""
    for name in STUDIES.keys() - _made.keys():
        _made[name] = STUDIES[name]()
    return {name: _made[name] for name in STUDIES}


def all_recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    return {recipe.name: recipe for study in studies().values() for recipe in study.recipes}


def names() -> list[str]:
    """All recipes' names, sorted."""
    return sorted(all_recipes())


def suites() -> dict[str, tuple[str, ...]]:
    """The lists of recipes that one command reproduces."""
    return {name: recipes for study in studies().values() for name, recipes in study.suites.items()}


def get(name: str, /, **changes: Any) -> Recipe:
    """The recipe of this name, or in a JSON file, with fields changed: get("drive-small", seed=3).

    Raises:
        KeyError: there is no such recipe; the message lists those that there are.
    """
    recipes = all_recipes()
    if name not in recipes and Path(name).is_file():
        return dataclasses.replace(Recipe.from_json(Path(name).read_text(encoding="utf-8")), **changes)
    if name not in recipes:
        raise KeyError(f"There is no recipe {name!r}. There are: {', '.join(sorted(recipes))}.")
    return dataclasses.replace(recipes[name], **changes)


def training_of(recipe: Recipe) -> Recipe:
    """The recipe whose run makes the weights of this one: several tests share one training."""
    return get(recipe.trained_by, seed=recipe.seed) if recipe.trained_by else recipe


def columns_of(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """For each metric of the reported row of a recipe: the protocol and the score that our records have."""
    found = (s.columns for s in studies().values() if recipe.name in (each.name for each in s.recipes))
    return next(found, {})
