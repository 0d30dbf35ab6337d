"""The door to all recipes: `get` one by name, with fields changed, or list their `names`."""

from u2learn.recipe import VIEWS, Recipe
from u2learn.studies import get, names

__all__ = ["VIEWS", "Recipe", "get", "names"]
