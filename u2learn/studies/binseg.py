"""Vessels by the rules of bob.ip.binseg, whose smallest network is a W-Net of 68 thousand parameters.

The rules: its own division of the images, pixel totals inside the field of view, and the threshold that is
best on the training images. HRF is not here, since it is scored there at half its size.
"""

import dataclasses
from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.small import vessels
from u2learn.studies.study import Study

SETS = {"drive": "DRIVE", "stare": "STARE", "chase": "CHASE_DB1"}
FLIPS = Augmentation(flips="hvt", jitter=0.1, max_share=0.93)  # as our small net has them
WNET: dict[str, Any] = {"model": "wnet_small", "model_options": {"width": 9, "depth": 3}}


def augmented(**changes: Any) -> dict[str, Any]:
    return WNET | {"augmentation": dataclasses.replace(FLIPS, **changes)}


# What was tried on held-out training images, with an eighth of our small net's steps and one view.
TRIES: dict[str, dict[str, dict[str, Any]]] = {
    "drive": {
        "base": {},
        "wide": {"model_options": {"width": 13, "depth": 3}},
        "wnet": WNET,
        "both": augmented(elastic=6.0, photometric="paddleseg"),
    },
    "stare": {
        "wnet": WNET,
        "elastic": augmented(elastic=6.0),
        "colours": augmented(photometric="paddleseg"),
    },
    "chase": {
        "wnet": WNET,
        "both": augmented(elastic=6.0, photometric="paddleseg"),
    },
}
# Changing light paid on STARE, whose photographs differ most; with bent windows it cost on the others.
CHOSEN = {"drive": WNET, "stare": augmented(photometric="paddleseg"), "chase": WNET}


def binseg(dataset: str, /, **rest: Any) -> Recipe:
    """Two U's in a row, with twice the steps of our small net."""
    values: dict[str, Any] = {
        "name": f"{dataset}-binseg",
        "protocol": "binseg",
        "iterations": 12_800,
        "ema": 0.9975,
        "row": {"dataset": SETS[dataset], "group": "bob.ip.binseg", "model": "Little W-Net"},
    }
    return vessels(dataset, **values | CHOSEN[dataset] | rest)


def tried(dataset: str, name: str, changes: dict[str, Any]) -> Recipe:
    """A try: the eighth part of the small net's training, so the running mean is shorter, too."""
    short: dict[str, Any] = {"protocol": "binseg-held-out", "iterations": 800, "ema": 0.96, "views": ""}
    return vessels(dataset, name=f"{dataset}-binseg-try-{name}", **short | changes)


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
