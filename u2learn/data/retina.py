"""Retinal vessels: DRIVE, STARE, CHASE_DB1 and HRF, read from the folders that their makers hand out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np

from u2learn.data import local
from u2learn.data.base import ExampleSet
from u2learn.data.example import Example, read_image, read_mask
from u2learn.registry import DATASETS


@dataclass(frozen=True)
class Files:
    """Where the files of one example lie; one that the set does not have is None."""

    image: Path
    label: Path
    second: Path | None = None
    field: Path | None = None


def _drive(folder: Path) -> dict[str, Files]:
    found = {}
    for part in ("test", "training"):
        for n, image in _pictures(folder / part / "images", rf"(\d\d)_{part}\.tif"):
            found[n] = Files(
                image,
                folder / part / "1st_manual" / f"{n}_manual1.gif",
                _existing(folder / part / "2nd_manual", f"{n}_manual2.gif"),
                _existing(folder / part / "mask", f"{n}_{part}_mask.gif"),
            )
    return found


def _stare(folder: Path) -> dict[str, Files]:
    found = {}
    for n, image in _pictures(folder / "stare-images", r"(im\d{4})\.ppm(?:\.gz)?"):
        label = _existing(folder / "labels-ah", f"{n}.ah.ppm", f"{n}.ah.ppm.gz")
        second = _existing(folder / "labels-vk", f"{n}.vk.ppm", f"{n}.vk.ppm.gz")
        found[n] = Files(image, label or folder / "labels-ah" / f"{n}.ah.ppm", second)
    return found


def _chase(folder: Path) -> dict[str, Files]:
    found = {}
    for n, image in _pictures(folder, r"Image_(\d\d[LR])\.jpg"):
        second = _existing(folder, f"Image_{n}_2ndHO.png")
        found[n] = Files(image, folder / f"Image_{n}_1stHO.png", second)
    return found


def _hrf(folder: Path) -> dict[str, Files]:
    found = {}
    for n, image in _pictures(folder / "images", r"(\d\d_(?:dr|g|h))\.jpg"):
        label = _existing(folder / "manual1", f"{n}.tif") or folder / "manual1" / f"{n}.tif"
        found[n] = Files(image, label, field=_existing(folder / "mask", f"{n}_mask.tif"))
    return found


def _pictures(folder: Path, pattern: str) -> list[tuple[str, Path]]:
    """Name and path of the images in a folder; the name is what the pattern's group matches."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder; is this copy of the set unpacked as it came?"
        )
    matches = ((re.fullmatch(pattern, path.name, re.IGNORECASE), path) for path in folder.iterdir())
    return sorted((match[1], path) for match, path in matches if match)


def _existing(folder: Path, *names: str) -> Path | None:
    """The file of one of these names, upper or lower case: HRF mixes .jpg and .JPG."""
    wanted = {name.lower() for name in names}
    found = (path for path in folder.glob("*") if path.name.lower() in wanted)
    return next(found, None)


LAYOUTS: dict[str, Callable[[Path], dict[str, Files]]] = {
    "drive": _drive,
    "stare": _stare,
    "chase": _chase,
    "hrf": _hrf,
}

# The numbers of the images that train; the others test. By number and not by rank, so that a file that is
# missing shifts nothing. im0139 is the tenth image of STARE; CHASE_DB1 has a left and a right eye of each
# number, HRF a diabetic, a glaucomatous and a healthy one.
TRAINING: dict[str, dict[str, range]] = {
    "mmseg": {"drive": range(21, 41), "stare": range(1, 140), "chase": range(1, 11), "hrf": range(1, 6)},
    "paddleseg": {"drive": range(21, 41), "stare": range(1, 140), "chase": range(1, 11), "hrf": range(1, 8)},
    "lwnet": {"drive": range(21, 41), "stare": range(0), "chase": range(1, 5), "hrf": range(1, 6)},
}

# Every fifth of OpenMMLab's training images. What is chosen (a rate, a length, a threshold) is chosen on
# these, and a copy of DRIVE without the labels of its test part is scored on them.
HELD_OUT = {"drive": (25, 30, 35, 40), "stare": (5, 139), "chase": (5, 10), "hrf": (5,)}


class Retina(ExampleSet):
    """The images of a retinal set with their vessel labels; a file is read when its index is asked for.

    The label is the first observer's, `second` the second observer's where the set has one (DRIVE's test
    part, STARE, CHASE_DB1). `field` is the set's own field of view where it has one (DRIVE, HRF), else
    `field_of_view` of the image.

    Parts, as (train / test):

    | protocol | DRIVE | STARE | CHASE_DB1 | HRF |
    |---|---|---|---|---|
    | mmseg | official 20 / 20 | first 10 / last 10 by name | first 20 / last 8 | first 5 of each group / 30 |
    | paddleseg | the same | the same, assumed | the same, assumed | first 7 of each group / 24, assumed |
    | lwnet | official 20 / 20 | none / all 20 | first 8 / last 20 | first 5 of each group / 30 |
    | held-out | 16 / 4 | 8 / 2 | 16 / 4 | first 4 of each group / 3 |

    Held out is every fifth of OpenMMLab's training images; its test images are in neither part.

    PaddleSeg states the numbers for HRF only and publishes no list of names; its parts here are an
    assumption. lwnet (Galdran et al. 2022) holds back one fifth of its training images for validation; here
    they all train. The benchmark of Laibacher et al. 2019 (bob.ip.binseg) has 8 / 20 on CHASE_DB1 too, but
    trains on the *last* 8.

    Args:
        dataset: "drive", "stare", "chase" or "hrf".
        part: "train", "test" or "all".
        root: the folder of the set; default: where `local.find` finds it.
        protocol: "mmseg", "paddleseg", "lwnet" or "held-out".

    Raises:
        ValueError: for another name, or where the part holds no image.
        FileNotFoundError: if the folder, or the label of an image, is missing.
    """

    def __init__(self, dataset: str, part: str, root: str | Path | None = None, protocol: str = "mmseg"):
        protocols = (*TRAINING, "held-out")
        for what, given, known in (("set", dataset, LAYOUTS), ("protocol", protocol, protocols)):
            if given not in known:
                raise ValueError(f"There is no retinal {what} {given!r}; there are {', '.join(known)}.")
        if part not in ("train", "test", "all"):
            raise ValueError(f"The parts of {dataset} are train, test and all, not {part!r}.")
        folder = local.find(dataset) if root is None else Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder; it should hold {dataset}.")
        self.dataset = dataset
        self.files: dict[str, Files] = {}
        for name, files in sorted(LAYOUTS[dataset](folder).items()):
            if part in ("all", _part(dataset, protocol, int(re.sub(r"\D", "", name)))):
                self.files[name] = files
        if not self.files:
            raise ValueError(f"The {part} part of {dataset} ({protocol}) has no image in {folder}.")
        self.names = list(self.files)
        for name, files in self.files.items():
            _check_label(name, files, dataset)

    def __len__(self) -> int:
        return len(self.names)

    def example(self, i: int) -> Example:
        files = self.files[self.names[i]]
        image = read_image(files.image)
        return Example(
            f"{self.dataset}-{self.names[i]}",
            image,
            read_mask(files.label),
            field_of_view(image) if files.field is None else read_mask(files.field) > 0,
            None if files.second is None else read_mask(files.second),
        )


def _part(dataset: str, protocol: str, number: int) -> str:
    """The part that the image of this number is in: "train", "test" or, of neither, ""."""
    if protocol != "held-out":
        return "train" if number in TRAINING[protocol][dataset] else "test"
    if number in HELD_OUT[dataset]:
        return "test"
    return "train" if number in TRAINING["mmseg"][dataset] else ""


def _check_label(name: str, files: Files, dataset: str) -> None:
    if files.label.is_file():
        return
    reason = "the copy of the set is not complete"
    if dataset == "drive" and name <= "20":
        reason = (
            "recent downloads of DRIVE come without the labels of the test part, and without them no score "
            "can be computed; an older copy of the zip holds them"
        )
    raise FileNotFoundError(f"{files.label}: the label of image {name} is missing; {reason}.")


def field_of_view(image: np.ndarray) -> np.ndarray:
    """Where a fundus photograph shows the eye, bool (H, W): for sets that come without masks.

    Bright is what lies above the dark border's red (its first percentile) by a quarter of the way to the
    median, after a mean over 5 x 5 pixels. The field is what has bright pixels on its left and right as well
    as above and below, so that dark vessels and lesions do not make holes.

    Where the eye fills less than half of the frame, that median is the border's; instead it is taken of the
    brighter of the two levels then. A picture with no more than 8 grey levels shows no eye, and all of it is
    field.
    """
    red = image[0].astype(np.float32)
    for _ in range(2):  # rows, then columns
        padded = np.pad(red, ((2, 2), (0, 0)), mode="edge")
        red = reduce(np.add, (padded[i : i + len(red)] for i in range(5))).T / 5
    dark, middle, top = np.percentile(red, (1, 50, 99))
    if top - dark < 8:
        return np.ones(red.shape, bool)
    if middle - dark < (top - dark) / 8:  # mostly border; in real photographs it is a quarter and more
        middle = np.median(red[red > (dark + top) / 2])
    bright = red > dark + (middle - dark) / 4
    return _between(bright) & _between(bright.T).T


def _between(bright: np.ndarray) -> np.ndarray:
    """From the first to the last True of each row."""
    return np.maximum.accumulate(bright, 1) & np.maximum.accumulate(bright[:, ::-1], 1)[:, ::-1]


for _name in LAYOUTS:
    DATASETS[_name] = partial(Retina, _name)
