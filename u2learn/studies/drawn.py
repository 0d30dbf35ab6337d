"""Small U²-Net†s on drawn things: the steps from the published training to ours, and thin things."""

import dataclasses

from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.small import objects
from u2learn.studies.study import Study
from u2learn.studies.u2net import published

THINGS = {"train": 800, "test": 100, "size": (64, 64), "seed": 0, "thin": False}
WIRES = {"train": 800, "test": 100, "size": (192, 192), "seed": 0, "thin": True}
NARROW = {"mid_channels": 16, "out_channels": 16}


def steps_towards(ours: Recipe) -> list[Recipe]:
    """What our recipe changes, or might, one thing at a time: Adam at one rate, one cycle, and so on."""
    cycle = dataclasses.replace(ours, name=f"{ours.dataset}-cycle", loss="u2net")
    theirs = published(ours.model)
    changed = ("optimiser", "schedule", "betas", "decay_on", "learning_rate", "final_rate", "weight_decay")
    as_published = {field: getattr(theirs, field) for field in (*changed, "warm_up")}
    return [
        dataclasses.replace(cycle, name=f"{ours.dataset}-adam", **as_published),
        cycle,
        dataclasses.replace(ours, name=f"{ours.dataset}-ema", ema=0.95),
        dataclasses.replace(ours, name=f"{ours.dataset}-growing", small_first=0.5),
    ]


def seen_smaller(recipe: Recipe, side: int) -> Recipe:
    """The same pictures, squeezed to fewer pixels a side before the network sees them."""
    crop = recipe.crop[0] * side // recipe.square
    return dataclasses.replace(recipe, name=f"{recipe.name}-{side}", square=side, crop=(crop, crop))


@STUDIES.add("drawn")
def study() -> Study:
    short = {"batch": 16, "learning_rate": 0.03, "iterations": 200, "evaluations": 2}
    things = objects("objects", 64, 64, data_options=THINGS, model_options=NARROW, **short)
    short = {"batch": 8, "learning_rate": 0.02, "iterations": 300, "evaluations": 1}
    thin = objects("thin", 192, 160, data_options=WIRES, model_options=NARROW, **short)
    thin = dataclasses.replace(thin, scored_under=("image", "DIS"))
    return Study(
        "small U²-Net†s on drawn things (no data needed, minutes on a CPU)",
        (things, *steps_towards(things), thin, *(seen_smaller(thin, side) for side in (96, 48))),
        suites={"saliency-small": (things.name, thin.name)},
    )
