"""One image with its labels, sets of them, and how both are read from files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from u2learn.data.masks import DARK, distinct, soft_edges, stored_mask
from u2learn.data.pictures import as_image, opaque, stored_image
from u2learn.pixels import IGNORE

DARKEST = 16  # a mask's background may be as bright: the palette of DRIVE's second observer has 4


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its labels, checked when it is made.

    Attributes:
        name: what messages and tables call it.
        image: uint8 (C, H, W); three channels are RGB.
        label: uint8 (H, W), class ids; 255 = ignore.
        field: bool (H, W), True inside the field of view, or None.
        second: uint8 (H, W), the label of a second annotator, or None.
        num_classes: how many class ids there are.
        ignores: whether 255 is known to mean "ignore"; else a label of 0 and 255 alone is refused, as it is
            nearly always a mask of two classes that was not divided by 255.

    Raises:
        ValueError: if an array has another type, size or other values than stated, or the field is empty.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    field: np.ndarray | None = None
    second: np.ndarray | None = None
    num_classes: int = 2
    ignores: bool = False

    def __post_init__(self) -> None:
        _check(self.name, "image", self.image, np.uint8, 3)
        # Torch takes no negative strides, and warns of arrays that must not be written to.
        object.__setattr__(self, "image", np.require(self.image, requirements=["C", "W"]))
        _check(self.name, "label", self.label, np.uint8, 2)
        last = self.label.shape == self.image.shape[:2] or self.image.shape[2] <= 4
        if not len(self.image) or (self.label.shape != self.image.shape[1:] and last):
            raise ValueError(
                f"{self.name}: image has the shape {self.image.shape}, expected (channels, H, W); where "
                "channels come last, use image.transpose(2, 0, 1)."
            )
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
                check_classes(array, self.num_classes, f"{self.name}: the {what}", self.ignores)
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


def check_classes(label: np.ndarray, num_classes: int, what: str, ignores: bool = False) -> None:
    """Every value of a label map is a class id or 255. `ignores`: see `Example`.

    Raises:
        ValueError: if not; says which values there are, and what they look like.
    """
    found = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    wrong = found[(found >= num_classes) & (found != IGNORE)]
    looks_like_mask = num_classes == 2 and not ignores and IGNORE in found and 1 not in found
    if len(wrong) or looks_like_mask:
        hint = "this looks like a 0/255 mask; read it with read_mask, or divide by 255"
        if not looks_like_mask:
            hint = f"with {num_classes} classes the ids are 0 to {num_classes - 1}, and {IGNORE} means ignore"
        raise ValueError(f"{what} has values {listed(found)}: {hint}.")


def listed(values: Iterable, most: int = 6) -> str:
    """The first values, and how many more there are: for messages."""
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def read_image(path: str | Path, levels: tuple[float, float] | None = None, channels: int = 3) -> np.ndarray:
    """An image, uint8 (channels, H, W), from any format that Pillow reads, also compressed with gzip.

    A rotation that a camera noted is carried out. Three channels are RGB: grey images get three equal ones,
    transparent ones lie on black. One channel is grey. Any other number are the bands as the file has them: 4
    of an RGBA image, n of a TIFF (for which tifffile must be installed).

    An image of 8 bits is read as it is. In one of more, or of floats, `levels` are the stored values that
    become 0 and 255, linearly; what lies outside is cut. Left out, they are the 0.1 and 99.9 percentiles of
    this one file, so that files of the same brightness may come out differently: a set needs `levels`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no image, is damaged, holds several images, or has other channels.
        ImportError: if tifffile is needed and not there.
    """
    return as_image(stored_image(path, channels), levels, channels)


def image_of(
    picture: Image.Image, levels: tuple[float, float] | None = None, channels: int = 3
) -> np.ndarray:
    """A PIL image as `read_image` gives that of a file, uint8 (C, H, W), turned as its EXIF says.

    Raises:
        ValueError: see `read_image`.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        return as_image(np.asarray(picture)[None], levels, channels)
    if channels not in (1, 3):
        return as_image(np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1), levels, channels)
    colours = opaque(picture).convert("RGB" if channels == 3 else "L")
    return as_image(np.atleast_3d(np.asarray(colours)).transpose(2, 0, 1), levels, channels)


def read_mask(path: str | Path, graded: bool = False) -> np.ndarray:
    """A binary mask, uint8 (H, W) of 0 and 1, whether it is stored as 0/1, 0/255, palette, grey or colour.

    Of two values the brighter is 1, if the other is black or nearly so. Where there are more (a JPEG, soft
    edges), 128 and above is 1, as in OpenMMLab's converters. A mask of one value is empty (0) or full (1, or
    at least 128). An image whose opacity alone tells the object from the rest is read by that. `graded`: the
    grey values are shares of agreement (PASCAL-S), and what lies above half of the largest is 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as an image, or is not known to be such a mask: a map of more
            classes, numbered objects, 0 and 1 with 255 for "ignore", a photograph.
    """
    stored = stored_mask(path)
    grey = stored.grey()  # (H, W)
    if graded:  # the program of U²-Net's authors: 255 grey / largest > 128
        return (255 * grey > 128 * grey.max()).astype(np.uint8)
    values, _ = distinct(grey)
    low, high = int(values[0]), int(values[-1])
    if stored.lossy and (high < DARK or low >= 256 - DARK):  # all black or all white, but for noise
        return np.full(grey.shape, low >= 128, np.uint8)
    if len(values) == 1:
        only = int(stored.codes.flat[0]) if stored.kind == "indices" else low
        if only in (0, 1) or low >= 128:
            return np.full(grey.shape, only > 0, np.uint8)
    elif len(values) == 2 and len(distinct(stored.codes)[0]) == 2:
        if low == 0 or (low < DARKEST and high >= 128):
            return (grey == high).astype(np.uint8)
    elif soft_edges(grey):
        return (grey >= (128 if high < 256 else 128 * 257)).astype(np.uint8)
    between = ((grey >= DARK) & (grey < 256 - DARK)).mean()
    raise ValueError(
        f"{path} is no binary mask: it has the grey values {listed(values)}"
        + (f", and {between:.0%} of its pixels are neither dark nor bright." if between > 0.25 else ".")
        + " Is it the image itself, a label map of more than two classes (then use read_label), or are these "
        "instance ids? `u2learn data new` looks at all masks of a set, and takes the answer."
    )


def read_label(path: str | Path, num_classes: int = 2) -> np.ndarray:
    """A label map, uint8 (H, W) of class ids with 255 = ignore.

    Of a palette image the indices are the ids, of a grey image the grey values. Two classes are read by
    `read_mask`, unless the values are the ids 0 and 1 with 255.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, is in colour, or holds ids that are no classes.
    """
    stored = stored_mask(path)
    values, _ = distinct(stored.codes)
    if num_classes == 2 and (stored.kind == "colours" or values.tolist() != [0, 1, IGNORE]):
        return read_mask(path)
    if stored.kind == "colours":
        raise ValueError(
            f"{path} is in colour; a label map holds class ids. `u2learn data new` says what colours mean."
        )
    if stored.kind == "alpha":
        raise ValueError(f"{path} shows one object by its opacity, no classes: read it with read_mask.")
    if values[-1] > 255:
        raise ValueError(f"{path} has values up to {values[-1]}; class ids go up to 254.")
    label = stored.codes.astype(np.uint8)
    check_classes(label, num_classes, str(path))
    return label
