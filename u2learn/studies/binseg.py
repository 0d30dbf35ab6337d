"""Vessels by the rules of bob.ip.binseg, whose smallest network is a W-Net of 68 thousand parameters.

The rules: its own division of the images, pixel totals inside the field of view, and the threshold that is
best on the training images. HRF is not here, since it is scored there at half its size.
"""

import dataclasses
from typing import Any

from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.small import FLIPS, vessels
from u2learn.studies.study import Study

SETS = ("drive", "stare", "chase")
LIGHT = dataclasses.replace(FLIPS, photometric="paddleseg")
# On blocks of pixels, with orthogonal steps; below 70 thousand parameters, which a test counts.
HALF: dict[str, Any] = {
    "model": "half_unet",
    "model_options": {"width": 20, "depth": 3, "growth": 8, "decoder": 2},
    "optimiser": "muon",
    "learning_rate": 0.02,
    "warm_up": 0.1,
}

# What was tried on held-out training images, in 2,000 steps.
TRIES: dict[str, dict[str, dict[str, Any]]] = {
    "drive": {
        "base": {},
        "one-convolution": {"model_options": {"width": 16, "depth": 3}},
        "elastic": {"augmentation": dataclasses.replace(FLIPS, elastic=6.0)},
        "turned": {"augmentation": dataclasses.replace(FLIPS, rotate=180.0)},
        "batch-8": {"batch": 8, "iterations": 1000, "ema": 0.967},
    },
    "stare": {
        "base": {},
        "light": {"augmentation": LIGHT},
    },
    "chase": {
        "base": {},
        "light": {"augmentation": LIGHT},
        "native": {"long_side": 0},
    },
}
# Changing light paid on STARE alone, whose photographs differ most.
CHOSEN: dict[str, dict[str, Any]] = {"drive": {}, "stare": {"augmentation": LIGHT}, "chase": {}}


def binseg(dataset: str, /, **rest: Any) -> Recipe:
    """A network of the speedrun, with more steps, and tested with eight views."""
    values: dict[str, Any] = {
        "name": f"{dataset}-binseg",
        "protocol": "binseg",
        "iterations": 12_800,
        "ema": 0.9974,
    }
    return vessels(dataset, **values | HALF | CHOSEN[dataset] | rest)


def tried(dataset: str, name: str, changes: dict[str, Any]) -> Recipe:
    """A try: fewer steps, so the running mean is shorter, too."""
    short: dict[str, Any] = {"protocol": "binseg-held-out", "iterations": 2000, "ema": 0.9835}
    return vessels(dataset, name=f"{dataset}-binseg-try-{name}", **HALF | short | changes)


@STUDIES.add("binseg")
def study() -> Study:
    recipes = tuple(binseg(dataset) for dataset in SETS)
    tries = tuple(
        tried(dataset, name, changes) for dataset in TRIES for name, changes in TRIES[dataset].items()
    )
    return Study(
        "vessels by the rules of bob.ip.binseg (the data sets)",
        (*recipes, *tries),
        suites={
            "binseg": tuple(each.name for each in recipes),
            "binseg-tries": tuple(each.name for each in tries),
        },
        columns={"Dice": ("field, chosen threshold", "dice")},
    )
