"""Salient objects: DUTS, ECSSD, HKU-IS, PASCAL-S, DUT-OMRON, SOD and DIS5K, from their makers' folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from u2learn.data import local
from u2learn.data.base import ExampleSet
from u2learn.data.example import Example, listed, read_image, read_mask
from u2learn.data.pairing import image_files, pair_files
from u2learn.registry import DATASETS


class Subset(NamedTuple):
    """Images that are trained or tested on together: their set, and the folders of its images and masks."""

    dataset: str  # of `catalogue.DATASETS`
    images: str
    masks: str


# Read without regard to upper and lower case. Below the set's own folder also lie, in copies that others
# handed on, `image` and `mask` (see COPIES).
SUBSETS = {
    "duts-tr": Subset("duts", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
    "duts": Subset("duts", "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
    "ecssd": Subset("ecssd", "images", "ground_truth_mask"),
    "hku-is": Subset("hku-is", "imgs", "gt"),
    "pascal-s": Subset("pascal-s", "datasets/imgs/pascal", "datasets/masks/pascal"),
    "dut-omron": Subset("dut-omron", "DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "sod": Subset("sod", "Images", "Masks"),
} | {
    f"dis-{name.lower()}": Subset("dis5k", f"DIS-{name}/im", f"DIS-{name}/gt")
    for name in ("TR", "VD", "TE1", "TE2", "TE3", "TE4")
}
TRAINING = ("duts-tr", "dis-tr")
TESTS = tuple(name for name in SUBSETS if name not in TRAINING)
# Who learns from what: the subset that trains, and the tests that this is done for.
PROTOCOLS = {
    "duts": ("duts-tr", tuple(name for name in TESTS if not name.startswith("dis-"))),
    "dis5k": ("dis-tr", tuple(name for name in TESTS if name.startswith("dis-"))),
    "study": ("ecssd", ("ecssd",)),
}
STUDY = range(1, 701)  # the images of ECSSD that train; by number, so that a lost file shifts nothing
COPIES = (("image", "mask"), ("images", "masks"), ("img", "gt"), ("imgs", "gt"), ("im", "gt"))


class Saliency(ExampleSet):
    """The images of a saliency set with their masks; a file is read when its index is asked for.

    | protocol | trains on | tests on |
    |---|---|---|
    | duts | DUTS-TR, whatever the set | all of the set; of DUTS, DUTS-TE |
    | dis5k | DIS-TR, whatever the subset | all of DIS-VD, DIS-TE1, ... |
    | study | ECSSD 1-700 | ECSSD 701-1000 |

    "duts" is how the tables of U²-Net were made, "dis5k" those of the DIS paper. "study" is ours, for those
    who have no DUTS; what it gives must not be put beside the published rows.

    Masks are cut at half (`read_mask`), those of PASCAL-S, which count how many of its observers marked an
    object, at half of their largest value. The authors' training code keeps the grey values of soft edges.

    Args:
        dataset: "duts", "ecssd", "hku-is", "pascal-s", "dut-omron", "sod", "dis-vd", "dis-te1" ... "dis-te4".
        part: "train" or "test".
        root: the folder of the set that is read; default: where `local.find` finds it.
        protocol: "duts", "dis5k" or "study".

    Raises:
        ValueError: for another name, a protocol that does not know the set, a part without images, or where
            images and masks do not pair; names the files. When an index is asked for: if a file cannot be
            read, or its sizes differ.
        FileNotFoundError: if the set, or a folder of it, is not there.

    Source: Qin et al., 2020; Qin et al., 2022, section 3.
    """

    def __init__(self, dataset: str, part: str, root: str | Path | None = None, protocol: str = "duts"):
        for what, given, known in (
            ("set", dataset, TESTS),
            ("part", part, ("train", "test")),
            ("protocol", protocol, PROTOCOLS),
        ):
            if given not in known:
                raise ValueError(f"There is no saliency {what} {given!r}; there are {', '.join(known)}.")
        training, tests = PROTOCOLS[protocol]
        if dataset not in tests:
            raise ValueError(f"The protocol {protocol!r} tests on {', '.join(tests)}, not on {dataset!r}.")
        self.subset = training if part == "train" else dataset
        folder = local.find(SUBSETS[self.subset].dataset) if root is None else Path(root)
        self.files = {image.stem: (image, mask) for image, mask in paired(self.subset, folder)}
        if protocol == "study":
            self.files = {n: pair for n, pair in self.files.items() if (int(n) in STUDY) == (part == "train")}
        self.names = list(self.files)
        if not self.names:
            raise ValueError(f"The {part} part of {dataset} ({protocol}) has no image in {folder}.")

    def __len__(self) -> int:
        return len(self.names)

    def example(self, i: int) -> Example:
        image, mask = self.files[self.names[i]]
        return Example(
            f"{self.subset}-{self.names[i]}",
            read_image(image),
            read_mask(mask, graded=SUBSETS[self.subset].dataset == "pascal-s"),
        )


def paired(subset: str, root: Path) -> list[tuple[Path, Path]]:
    """The files of a subset, (image, mask) each, by name.

    Raises:
        FileNotFoundError: if `root` has none of the folders that the subset may lie in.
        ValueError: if an image has no mask, a mask no image, or two may be meant; names them.
    """
    _, *official = SUBSETS[subset]
    inner = official[0].split("/")[0] if SUBSETS[subset].dataset in ("duts", "dis5k") else "."
    layouts = [official, *([f"{inner}/{name}" for name in copy] for copy in COPIES)]
    found = ((_folder(root, images), _folder(root, masks)) for images, masks in layouts)
    folders = next(((images, masks) for images, masks in found if images and masks), None)
    if folders is None:
        raise FileNotFoundError(
            f"{root} has no folders {official[0]} and {official[1]}; is this copy of {subset} as it came?"
        )
    problems: dict[str, list[str]] = {}
    pairs = pair_files(
        image_files(folders[0]),
        image_files(folders[1]),
        lambda level, kind, file, text: problems.setdefault(kind, []).append(file),
    )
    if problems:
        text = "; ".join(f"{kind}: {listed(files)}" for kind, files in problems.items())
        raise ValueError(f"The files of {subset} in {folders[0]} and {folders[1]} do not pair: {text}.")
    return pairs


def _folder(root: Path, name: str) -> Path | None:
    """The folder of this name below `root`, whatever its case: copies mix `Image` and `image`."""
    for part in Path(name).parts:
        inside = (path for path in root.glob("*") if path.is_dir() and path.name.lower() == part.lower())
        found = next(inside, None)
        if found is None:
            return None
        root = found
    return root


for _name in TESTS:
    DATASETS[_name] = partial(Saliency, _name)
