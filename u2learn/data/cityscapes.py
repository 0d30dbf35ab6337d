"""Cityscapes: street scenes from 27 cities, read from the folders that its makers hand out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from u2learn.data import local
from u2learn.data.base import ExampleSet
from u2learn.data.example import Example, read_image, read_label
from u2learn.pixels import IGNORE
from u2learn.registry import DATASETS


class Label(NamedTuple):
    """One of the things that an annotator could mark. `train_id` 255: neither learnt nor scored."""

    name: str
    id: int  # in the files *_gtFine_labelIds.png
    train_id: int  # in the network
    colour: tuple[int, int, int]  # RGB


# Source: mcordts/cityscapesScripts, helpers/labels.py. A licence plate (id -1) is never drawn into a file.
LABELS = (
    Label("unlabeled", 0, 255, (0, 0, 0)),
    Label("ego vehicle", 1, 255, (0, 0, 0)),
    Label("rectification border", 2, 255, (0, 0, 0)),
    Label("out of roi", 3, 255, (0, 0, 0)),
    Label("static", 4, 255, (0, 0, 0)),
    Label("dynamic", 5, 255, (111, 74, 0)),
    Label("ground", 6, 255, (81, 0, 81)),
    Label("road", 7, 0, (128, 64, 128)),
    Label("sidewalk", 8, 1, (244, 35, 232)),
    Label("parking", 9, 255, (250, 170, 160)),
    Label("rail track", 10, 255, (230, 150, 140)),
    Label("building", 11, 2, (70, 70, 70)),
    Label("wall", 12, 3, (102, 102, 156)),
    Label("fence", 13, 4, (190, 153, 153)),
    Label("guard rail", 14, 255, (180, 165, 180)),
    Label("bridge", 15, 255, (150, 100, 100)),
    Label("tunnel", 16, 255, (150, 120, 90)),
    Label("pole", 17, 5, (153, 153, 153)),
    Label("polegroup", 18, 255, (153, 153, 153)),
    Label("traffic light", 19, 6, (250, 170, 30)),
    Label("traffic sign", 20, 7, (220, 220, 0)),
    Label("vegetation", 21, 8, (107, 142, 35)),
    Label("terrain", 22, 9, (152, 251, 152)),
    Label("sky", 23, 10, (70, 130, 180)),
    Label("person", 24, 11, (220, 20, 60)),
    Label("rider", 25, 12, (255, 0, 0)),
    Label("car", 26, 13, (0, 0, 142)),
    Label("truck", 27, 14, (0, 0, 70)),
    Label("bus", 28, 15, (0, 60, 100)),
    Label("caravan", 29, 255, (0, 0, 90)),
    Label("trailer", 30, 255, (0, 0, 110)),
    Label("train", 31, 16, (0, 80, 100)),
    Label("motorcycle", 32, 17, (0, 0, 230)),
    Label("bicycle", 33, 18, (119, 11, 32)),
)
CLASSES = tuple(label.name for label in LABELS if label.train_id != IGNORE)  # by train id, 0 to 18
PALETTE = tuple(label.colour for label in LABELS if label.train_id != IGNORE)
TRAIN_IDS = np.array([label.train_id for label in LABELS], np.uint8)  # (34,), by id


def train_ids(label: np.ndarray, what: str = "the label") -> np.ndarray:
    """Class ids of the files (0 to 33) as the 19 train ids, the rest as 255: uint8 (H, W) to uint8 (H, W).

    `what` is what the message calls the label; a file's name helps.

    Raises:
        ValueError: for an id that Cityscapes does not have, 255 among them.
    """
    found = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    wrong = found[found >= len(LABELS)]
    if len(wrong):
        hint = "is it a damaged file, or a label of another set?"
        if wrong.tolist() == [IGNORE]:
            hint = "is it a labelTrainIds file? Those are translated already; the labelIds file is due."
        raise ValueError(
            f"{what} has the ids {', '.join(map(str, wrong[:6]))}, and Cityscapes has 0 to 33: {hint}"
        )
    return TRAIN_IDS[label]


class Cityscapes(ExampleSet):
    """The finely annotated images of Cityscapes in 19 classes; a file is read when its index is asked for.

    2,975 images of 1024 x 2048 pixels train, 500 validate, and it is these 500 on which results are
    reported. The test part comes without labels.

    The files lie as they come out of `leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip`:

        leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
        gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png

    Args:
        part: "train" or "val".
        root: the folder that holds leftImg8bit and gtFine; default: where `local.find` finds it.

    Raises:
        ValueError: for another part, or one that holds no image. When an index is asked for: if a file
            cannot be read, if its sizes differ, or if a label holds an id that Cityscapes does not have.
        FileNotFoundError: if a folder, or the label of an image, is missing.

    Source: Cordts et al., 2016.
    """

    def __init__(self, part: str, root: str | Path | None = None):
        if part not in ("train", "val"):
            raise ValueError(
                f"The parts of Cityscapes are train and val, not {part!r}; its test part has no labels."
            )
        root = local.find("cityscapes") if root is None else Path(root)
        images = root / "leftImg8bit" / part
        if not images.is_dir():
            raise FileNotFoundError(
                f"{images}: there is no such folder; leftImg8bit_trainvaltest.zip holds it."
            )
        self.files: dict[str, tuple[Path, Path]] = {}
        for image in sorted(images.glob("*/*_leftImg8bit.png")):
            name, city = image.name.removesuffix("_leftImg8bit.png"), image.parent.name
            label = root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png"
            if not label.is_file():
                raise FileNotFoundError(
                    f"{label}: the label of image {name} is missing; unpack gtFine_trainvaltest.zip."
                )
            self.files[name] = image, label
        if not self.files:
            raise ValueError(
                f"The {part} part of Cityscapes has no image CITY/*_leftImg8bit.png in {images}."
            )
        self.names = list(self.files)

    def __len__(self) -> int:
        return len(self.names)

    def example(self, i: int) -> Example:
        image, label = self.files[self.names[i]]
        ids = train_ids(read_label(label, 256), str(label))
        return Example(self.names[i], read_image(image), ids, num_classes=len(CLASSES))


@DATASETS.add("cityscapes")
def cityscapes(part: str, protocol: str = "") -> Cityscapes:
    """The set as recipes open it: what is reported as a test is about its validation part."""
    return Cityscapes("val" if part == "test" else part)
