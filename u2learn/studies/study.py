"""What a study is: recipes that belong together, and the words of the reported tables for them."""

from dataclasses import dataclass, field

from u2learn.recipe import Recipe


@dataclass(frozen=True)
class Study:
    """Recipes, the lists of them that one command reproduces, and what the columns of reported tables hold.

    about: one line for the command line. suites: name -> names of recipes. columns: metric of the reported
    rows that these recipes answer to -> (protocol, score) of our records.
    """

    about: str
    recipes: tuple[Recipe, ...]
    suites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    shortened: dict[str, str] = field(default_factory=dict)
