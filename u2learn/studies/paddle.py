"""PaddleSeg's table for its UNet: four retinal sets and Cityscapes."""

from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.mmseg import SETS
from u2learn.studies.study import Study

LOSSES = {"paddle-ce": "CE", "paddle-dice": "Dice"}


def row(
    dataset: str, crop: tuple[int, int], flips: str = "hv", loss: str = "paddle-dice", **rest: Any
) -> Recipe:
    """A row of the table (source: PaddleSeg, configs/unet and configs/_base_)."""
    return Recipe(
        name=f"{dataset}-paddle",
        dataset=dataset,
        model="unet_paddle",
        protocol="paddleseg",
        normalisation="half",
        crop=crop,
        augmentation=Augmentation(
            scale=(0.5, 2.0), scale_step=0.25, flips=flips, flip_v=0.1, photometric="paddleseg"
        ),
        loss=loss,
        final_rate=0.0,
        weight_decay=4e-5,
        row={"group": "UNet (PaddleSeg)", "dataset": SETS[dataset], "loss": LOSSES[loss]},
        **rest,
    )


@STUDIES.add("paddle")
def study() -> Study:
    streets: dict[str, Any] = {"num_classes": 19, "iterations": 160_000, "batch": 4, "loss": "paddle-ce"}
    return Study(
        "PaddleSeg's table: UNet (a GPU and the data sets)",
        (
            *(row(dataset, (128, 128)) for dataset in ("drive", "stare", "chase")),
            row("hrf", (256, 256), scales=(1280 / 3504,)),  # tested at a long side of 1280
            row("cityscapes", (512, 1024), flips="h", **streets),
        ),
        suites={"retina-paddle": ("drive-paddle", "stare-paddle", "chase-paddle", "hrf-paddle")},
        columns={
            "Dice": ("image", "dice"),
            "DICE": ("image", "mdice"),
            "AUC ROC": ("image", "auc"),
            "mIoU": ("image", "miou"),
            "mIoU(flip)": ("flip", "miou"),
            "mIoU(ms+flip)": ("ms+flip", "miou"),
        },
    )
