"""Recipes for images of one's own: small ones to start from, and any other recipe turned to such images."""

import dataclasses
from pathlib import Path
from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.data.folder import Facts
from u2learn.files import checksum
from u2learn.models.weights import weights_file
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.small import objects, vessels
from u2learn.studies.study import Study


@STUDIES.add("own")
def study() -> Study:
    """`small` and `small-u2net`: a minute or two of a CPU, for images of any size."""
    watched: dict[str, Any] = {"watched": "validation", "keep": "best", "evaluations": 10}
    small = vessels(
        "drive",
        name="small",
        dataset="folder",
        protocol="",
        long_side=0,
        augmentation=Augmentation(flips="hvt", jitter=0.1),
        ema=0.98,
        iterations=400,
        views="",
        window=(512, 512),
        stride=(384, 384),
        scored_under=("image", "image, mean of images"),
        **watched,
    )
    one_map = objects(
        "drive",
        320,
        288,
        name="small-u2net",
        dataset="folder",
        batch=8,
        learning_rate=0.002,
        iterations=1000,
        stretch=False,
        **watched,
    )
    return Study("images of your own, with --data FOLDER (minutes of a CPU)", (small, one_map))


def for_images(recipe: Recipe, facts: Facts, folder: str | Path) -> Recipe:
    """The recipe turned to a folder of one's own: its classes, channels, range, and its validation part.

    Raises:
        ValueError: the recipe makes one map, and the folder has several classes.
    """
    classes = len(facts.class_names)
    channels = 3 if facts.channels == 1 else facts.channels  # grey: three alike, as others expect
    if recipe.task == "saliency" and classes > 2:
        raise ValueError(
            f"{recipe.name!r} makes one map of what stands out, and {folder} has {classes} classes: take a "
            "recipe of a U-Net, as 'small'."
        )
    changes: dict[str, Any] = {"num_classes": 1, "stretch": False, "scored_under": ("image",)}
    if recipe.task != "saliency":
        mean = ("image, mean of images",) if classes == 2 else ()
        changes = {"num_classes": classes, "task": facts.task, "scored_under": ("image", *mean)}
    return dataclasses.replace(
        recipe,
        name=f"{facts.name}-{recipe.name}",
        dataset="folder",
        protocol="",
        data_options={"digest": facts.digest, "classes": facts.class_names, "palette": facts.palette},
        folder=str(Path(folder).resolve()),
        levels=facts.levels,
        channels=channels,
        normalisation=recipe.normalisation if channels == 3 else "image",  # others know three means
        watched="validation",
        keep="best",
        evaluations=max(recipe.evaluations, min(10, recipe.iterations)),
        trained_by="",
        row={},
        **changes,
    )


def starting_from(recipe: Recipe, weights: str | Path) -> Recipe:
    """The recipe that begins with the weights of a file or of a run's folder, known by their checksum.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return dataclasses.replace(recipe, start=checksum(weights_file(weights)))
