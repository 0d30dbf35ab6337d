"""One image with its labels, and how both are read from files and find each other."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from u2learn.pixels import IGNORE

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm", ".webp")
MASK_WORDS = "masks?|labels?|gt|groundtruth|annotations?|seg|segmentation|manual[12]?|1stho|2ndho|ah|vk"
IMAGE_WORDS = "images?|img|im|training|test|photo"


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its labels, checked when it is made.

    Attributes:
        name: what messages and tables call it.
        image: uint8 (3, H, W), RGB.
        label: uint8 (H, W), class ids; 255 = ignore.
        field: bool (H, W), True inside the field of view, or None.
        second: uint8 (H, W), the label of a second annotator, or None.
        num_classes: how many class ids there are.

    Raises:
        ValueError: if an array has another type, size or other values than stated, or the field is empty.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    field: np.ndarray | None = None
    second: np.ndarray | None = None
    num_classes: int = 2

    def __post_init__(self) -> None:
        _check(self.name, "image", self.image, np.uint8, 3)
        if len(self.image) != 3:
            raise ValueError(
                f"{self.name}: image has the shape {self.image.shape}, expected (3, H, W); for channels "
                "that come last use image.transpose(2, 0, 1), for a grey image np.stack([image] * 3)."
            )
        # Torch takes no negative strides, and warns of arrays that must not be written to.
        object.__setattr__(self, "image", np.require(self.image, requirements=["C", "W"]))
        _check(self.name, "label", self.label, np.uint8, 2)
        for what, array in (("label", self.label), ("second", self.second), ("field", self.field)):
            if array is None:
                continue
            _check(self.name, what, array, bool if what == "field" else np.uint8, 2)
            if array.shape != self.image.shape[1:]:
                raise ValueError(
                    f"{self.name}: the {what} is {array.shape[0]} x {array.shape[1]}, the image "
                    f"{self.image.shape[1]} x {self.image.shape[2]} (height x width); they must be equal."
                )
            object.__setattr__(self, what, np.require(array, requirements=["C", "W"]))
            if what != "field":
                check_classes(array, self.num_classes, f"{self.name}: the {what}")
            elif not array.any():
                raise ValueError(
                    f"{self.name}: the field of view is empty, and in it no score can be computed; mend its "
                    "mask, or leave the field out to count every pixel."
                )


def _check(name: str, what: str, array: object, dtype: type, ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        kind = getattr(array, "dtype", type(array).__name__)
        shape = tuple(getattr(array, "shape", ()))
        raise ValueError(
            f"{name}: {what} must be a NumPy array of {np.dtype(dtype)} with {ndim} axes, not {kind} {shape}."
        )


def check_classes(label: np.ndarray, num_classes: int, what: str) -> None:
    """Every value of a label map is a class id or 255.

    Raises:
        ValueError: if not; says which values there are, and what they look like.
    """
    found = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    wrong = found[(found >= num_classes) & (found != IGNORE)]
    looks_like_mask = num_classes == 2 and IGNORE in found and 1 not in found
    if len(wrong) or looks_like_mask:
        hint = "this looks like a 0/255 mask; read it with read_mask, or divide by 255"
        if not looks_like_mask:
            hint = f"with {num_classes} classes the ids are 0 to {num_classes - 1}, and {IGNORE} means ignore"
        raise ValueError(f"{what} has values {listed(found)}: {hint}.")


def listed(values: Iterable, most: int = 6) -> str:
    """The first values, and how many more there are: for messages."""
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def read_image(path: str | Path) -> np.ndarray:
    """An RGB image, uint8 (3, H, W), from any format that Pillow reads, also compressed with gzip.

    Grey images get three equal channels, 16-bit ones are scaled to 8 bits, transparent ones lie on black, and
    a rotation that a camera noted is carried out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no image, is damaged, holds several images or more than 16 bits a channel.
    """
    return image_of(_open(path), path)


def image_of(picture: Image.Image, name: str | Path = "The picture") -> np.ndarray:
    """A PIL image as `read_image` gives that of a file, uint8 (3, H, W); `name` is for messages.

    Raises:
        ValueError: if it has more than 16 bits a channel.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        grey = _integers(picture, name)
        grey = (grey / 257).round().astype(np.uint8) if "16" in picture.mode or grey.max() > 255 else grey
        return np.repeat(grey.astype(np.uint8)[None], 3, axis=0)
    return np.array(np.asarray(_opaque(picture).convert("RGB")).transpose(2, 0, 1), order="C")


def read_mask(path: str | Path, graded: bool = False) -> np.ndarray:
    """A binary mask, uint8 (H, W) of 0 and 1, whether it is stored as 0/1, 0/255, palette, grey or colour.

    Of two grey values the larger is 1. Where there are more (a JPEG, soft edges), 128 and above is 1, as in
    OpenMMLab's converters. An image of one value is full if this is 1 or at least 128, else empty. `graded`:
    the grey values are shares of agreement (PASCAL-S), and what lies above half of the largest is 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as an image, or is no mask: a label map of more classes, a
            photograph.
    """
    picture = _open(path)
    grey = (
        _integers(picture, path)
        if picture.mode.startswith(("I", "F"))
        else np.asarray(_opaque(picture).convert("RGB").convert("L"))
    )
    grey = grey // 257 if grey.max() > 255 else grey
    if graded:  # the program of U²-Net's authors: 255 grey / largest > 128
        return (255 * grey.astype(np.int64) > 128 * int(grey.max())).astype(np.uint8)
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    if len(values) == 1:
        return np.full(grey.shape, values[0] == 1 or values[0] >= 128, np.uint8)
    if len(values) == 2 and values[0] < 128:
        return (grey == values[1]).astype(np.uint8)
    between = counts[32:224].sum() / grey.size
    if values[0] >= 128 or values[-1] < 128 or between > 0.25:
        raise ValueError(
            f"{path} is no binary mask: it has the grey values {listed(values)}"
            + (f", and {between:.0%} of its pixels are neither dark nor bright." if between > 0.25 else ".")
            + " Is it the image itself, or a label map of more than two classes (then use read_label)?"
        )
    return (grey >= 128).astype(np.uint8)


def read_label(path: str | Path, num_classes: int = 2) -> np.ndarray:
    """A label map, uint8 (H, W) of class ids with 255 = ignore. Two classes are read by `read_mask`.

    Of a palette image the indices are the ids, of a grey image the grey values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, is in colour, or holds ids that are no classes.
    """
    if num_classes == 2:
        return read_mask(path)
    picture = _open(path)
    if picture.mode.startswith(("I", "F")):
        label = _integers(picture, path)
    elif picture.mode in ("1", "L", "P"):
        label = np.asarray(picture)
    else:
        label = np.asarray(_opaque(picture).convert("RGB"))
        if (label != label[..., :1]).any():
            raise ValueError(
                f"{path} is in colour; a label map holds class ids: translate its colours to ids first."
            )
        label = label[..., 0]
    if label.max() > 255:
        raise ValueError(f"{path} has values up to {label.max()}; class ids go up to 254.")
    label = label.astype(np.uint8)
    check_classes(label, num_classes, str(path))
    return label


def _open(path: str | Path) -> Image.Image:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            picture = Image.open(file)
            count = getattr(picture, "n_frames", 1)
            picture.load()
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image; it is damaged, cut short or none ({error})."
        ) from error
    if count > 1 and picture.format != "MPO":
        raise ValueError(f"{path} holds {count} images; split it into one file each.")
    return ImageOps.exif_transpose(picture)


def _integers(picture: Image.Image, path: str | Path) -> np.ndarray:
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{path} has 32 bits a pixel ({values.min()} to {values.max()}); convert it to 8 or 16 bits."
        )
    return values.astype(np.int64)


def _opaque(picture: Image.Image) -> Image.Image:
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder, by their endings; not those in folders below it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    found = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.name.lower().removesuffix(".gz").endswith(ENDINGS))


def _stem(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).stem


def _bare(path: Path, words: str = f"{MASK_WORDS}|{IMAGE_WORDS}") -> str:
    """The name without what says that it is an image or a mask: eye7_mask, mask_eye7, eye7.ah -> eye7."""
    stem, shorter = None, _stem(path)
    while shorter != stem:
        stem = shorter
        shorter = re.sub(rf"^(?:{words})[-_. ]+(?=.)|(?<=.)[-_. ]+(?:{words})$", "", stem)
    return stem


def _grouped(items: Iterable, key) -> dict:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def pair_files(
    images: list[Path], masks: list[Path], find: Callable[[str, str, str, str], None]
) -> list[tuple[Path, Path]]:
    """Images with their masks: by the whole name first, then by the bare one.

    What has no partner goes to `find(level, kind, file, text)`.
    """
    pairs = []
    for name in (_stem, _bare):
        wanted, done = _grouped(masks, name), set()
        for key, rivals in _grouped(images, name).items():
            partners = wanted.get(key, [])
            if len(rivals) == len(partners) == 1:
                pairs.append((rivals[0], partners[0]))
            elif partners and name is _bare:
                find(
                    "error",
                    "ambiguous names",
                    rivals[0].name,
                    f"{listed(p.name for p in rivals)} may go with {listed(p.name for p in partners)}",
                )
            else:
                continue
            done.update(rivals, partners)
        images, masks = ([p for p in files if p not in done] for files in (images, masks))
    for path in images:
        find(
            "error",
            "image without mask",
            path.name,
            f"no mask is named {_bare(path)}, {_bare(path)}_mask or the like",
        )
    for path in masks:
        find("error", "mask without image", path.name, f"no image is named {_bare(path)}")
    return sorted(pairs)
