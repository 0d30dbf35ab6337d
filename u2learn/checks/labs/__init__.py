"""Labs: nine trainings with a bug each, which run to their end without an error message.

    from u2learn.checks import labs
    lab = labs.broken(1)

runs the first. Its script is hidden; its symptom, and what it left behind, are there to look at. Give a
verdict, then a mended line: both are checked. The solutions stand in this package as well.
"""

from u2learn.checks.labs import loss, maps, scores
from u2learn.checks.labs.bench import Run, dice, eyes, fit, probability, windows
from u2learn.checks.labs.lab import Lab
from u2learn.checks.labs.maps import cells
from u2learn.checks.labs.scores import clinic

BUGS = (*loss.BUGS, *maps.BUGS, *scores.BUGS)

__all__ = ["Lab", "Run", "broken", "cells", "clinic", "dice", "eyes", "fit", "probability", "windows"]


def broken(number: int, seed: int = 0) -> Lab:
    """Run the script of a lab; about a second.

    Raises:
        ValueError: there is no lab of this number.
    """
    if not 1 <= number <= len(BUGS):
        raise ValueError(f"There is no lab {number!r}; there are labs 1 to {len(BUGS)}.")
    return Lab(number, BUGS[number - 1], seed)
