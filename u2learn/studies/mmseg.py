"""OpenMMLab's table for UNet-S5-D16: three heads, two losses, four retinal sets and Cityscapes."""

from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.study import Study

SETS = {"drive": "DRIVE", "stare": "STARE", "chase": "CHASE_DB1", "hrf": "HRF", "cityscapes": "Cityscapes"}
WINDOWS = {"drive": (64, 42), "stare": (128, 85), "chase": (128, 85), "hrf": (256, 170)}  # side and stride
HEADS = {"fcn": ("fcn", "FCN"), "psp": ("psp", "PSPNet"), "deeplabv3": ("aspp", "DeepLabV3")}  # ours, theirs
LOSSES = {"ce": "CE", "ce-dice": "CE(1.0)+Dice(3.0)"}


def row(dataset: str, head: str, loss: str, crop: tuple[int, int], **rest: Any) -> Recipe:
    """A row of the table (source: mmsegmentation 0.30, configs/unet)."""
    ours, theirs = HEADS[head]
    return Recipe(
        name=f"{dataset}-{head}-{loss}",
        dataset=dataset,
        model="unet_s5_d16",
        protocol="mmseg",
        model_options={"head": ours},
        crop=crop,
        augmentation=Augmentation(scale=(0.5, 2.0), flips="h", max_share=0.75, photometric="mmseg"),
        loss=loss,
        row={
            "group": "UNet-S5-D16 (OpenMMLab)",
            "dataset": SETS[dataset],
            "head": theirs,
            "loss": LOSSES[loss],
        },
        **rest,
    )


@STUDIES.add("mmseg")
def study() -> Study:
    retina = [
        row(dataset, head, loss, (side, side), window=(side, side), stride=(stride, stride))
        for dataset, (side, stride) in WINDOWS.items()
        for head in HEADS
        for loss in LOSSES
    ]
    streets = row("cityscapes", "fcn", "ce", (512, 1024), num_classes=19, iterations=160_000)
    order = (f"{dataset}-{head}-{loss}" for loss in LOSSES for head in HEADS for dataset in WINDOWS)
    return Study(
        "OpenMMLab's table: UNet-S5-D16 with three heads and two losses (a GPU and the data sets)",
        (*retina, streets),
        suites={"retina-openmmlab": tuple(order)},
        columns={
            "Dice": ("image", "dice"),
            "mDice": ("image", "mdice"),
            "mIoU": ("image", "miou"),
            "mIoU(ms+flip)": ("ms+flip", "miou"),
        },
    )
