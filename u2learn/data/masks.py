"""What the files of masks hold, before anybody says what it means; and whether their edges are soft."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from u2learn.data.pictures import deep_values, opaque, open_picture

RGB, GREY = (65536, 256, 1), 65536 + 256 + 1  # red, green and blue as one number; grey 1 as one
DARK = 32  # grey levels below this count as black, those as near to 255 as white


@dataclass(frozen=True)
class StoredMask:
    """What a mask's file holds, before anybody says what it means.

    Attributes:
        kind: "values" (grey levels), "indices" (of a palette), "colours" or "alpha" (opacity).
        codes: int64 (H, W); a colour is 65536 red + 256 green + blue.
        palette: the colour of each index that is used.
        lossy: whether it is a JPEG, whose values are not quite those that were saved.
    """

    kind: str
    codes: np.ndarray
    palette: dict[int, int] = field(default_factory=dict)
    lossy: bool = False

    def as_kind(self, kind: str) -> np.ndarray:
        """The codes as masks of another kind have them: everything as colours, grey colours as values.

        Raises:
            ValueError: if that cannot be.
        """
        if kind == self.kind or (kind, self.kind) == ("alpha", "values"):
            return self.codes
        if kind in ("colours", "values") and self.kind != "alpha":
            colours = self._colours()
            if kind == "colours" and colours.max() < 1 << 24:
                return colours
            if kind == "values" and (colours % 256 * GREY == colours).all():
                return colours % 256
        raise ValueError(f"holds {self.kind} where the other masks hold {kind}")

    def grey(self) -> np.ndarray:
        """Grey levels, of colours as Pillow weighs them. (H, W)"""
        if self.kind in ("values", "alpha"):
            return self.codes
        colours = self._colours()
        red, green, blue = (colours >> shift & 255 for shift in (16, 8, 0))
        return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16

    def _colours(self) -> np.ndarray:
        if self.kind != "indices":
            return self.codes if self.kind == "colours" else self.codes * GREY
        table = np.zeros(256, np.int64)
        table[list(self.palette)] = list(self.palette.values())
        return table[self.codes]


def stored_mask(path: str | Path) -> StoredMask:
    """What a mask's file holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as an image, or holds fractions or negative numbers.
    """
    picture = open_picture(path)
    deep = deep_values(picture, path)
    if deep is not None:
        return _of_numbers(deep, path)
    if picture.mode == "P":
        return _of_palette(picture)
    if picture.mode == "1":
        return StoredMask("values", np.asarray(picture, np.int64))
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"), np.int64)
        if _tells(rgba.reshape(-1, 4)):
            return StoredMask("alpha", rgba[..., 3])
        picture = opaque(picture)
    return _of_colours(np.asarray(picture.convert("RGB")), picture.info.get("lossy", False))


def _tells(rgba: np.ndarray) -> bool:
    """Whether opacity alone tells the object from the rest: what is seen has one colour. (N, 4)"""
    seen = rgba[rgba[:, 3] > 0, :3]
    return bool(rgba[:, 3].min() < rgba[:, 3].max() and (seen == seen[0]).all())


def _of_palette(picture: Image.Image) -> StoredMask:
    codes = np.asarray(picture)
    used, first = np.unique(codes, return_index=True)
    rgba = np.asarray(picture.convert("RGBA"), np.int64).reshape(-1, 4)[first]  # of each index that is used
    colours = rgba[:, 3:] * (GREY,) if _tells(rgba) else rgba[:, :3] * rgba[:, 3:] // 255 @ RGB
    palette = dict(zip(used.tolist(), colours.ravel().tolist(), strict=True))
    return StoredMask("indices", codes.astype(np.int64), palette)


def _of_numbers(deep: np.ndarray, path: str | Path) -> StoredMask:
    """A mask of more than 8 bits, from (C, H, W)."""
    if (deep != np.trunc(deep)).any() or deep.min() < 0:
        raise ValueError(
            f"{path} holds {deep.min()} to {deep.max()}; a mask holds whole numbers from 0: save it as such."
        )
    numbers = deep.astype(np.int64)
    if (numbers == numbers[0]).all():
        return StoredMask("values", numbers[0])
    if (numbers[:3] % 257).any():
        raise ValueError(f"{path} has colours of 16 bits; save the mask with 8.")
    return _of_colours(numbers[:3].transpose(1, 2, 0) // 257)


def _of_colours(rgb: np.ndarray, lossy: bool = False) -> StoredMask:
    """A mask from whole numbers (H, W, 3)."""
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return StoredMask("values", rgb[..., 0].astype(np.int64), lossy=lossy)
    return StoredMask("colours", rgb.astype(np.int64) @ RGB, lossy=lossy)


def distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of an array of whole numbers from 0, rising, and how often each is there."""
    if codes.max() < 1 << 16:
        counts = np.bincount(codes.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(codes, return_counts=True)


def soft_edges(grey: np.ndarray) -> bool:
    """Whether grey levels (H, W) are a mask of dark and bright whose edges are soft, or stored as a JPEG.

    Then few pixels lie between dark and bright, and they lie on slopes, with a darker and a brighter pixel
    near by. Not so in a map of several classes and in one of numbered objects, which have flat areas.
    """
    grey = (grey if grey.max() < 256 else grey * 255 // 65535).astype(np.uint8)
    values, _ = distinct(grey)
    if values[0] >= 128 or values[-1] < 128 or (values[:-1] < DARK).all():  # the last: ids, and 255
        return False
    between = (grey >= DARK) & (grey < 256 - DARK)  # (H, W)
    if between.mean() > 0.25:
        return False
    if between.sum() < 16:  # too few to tell
        return True
    here = grey[between]  # (N,)
    near = sliding_window_view(np.pad(grey, 2, mode="edge"), (5, 5))[between]  # (N, 5, 5)
    slopes = ((near.min((1, 2)) < here) & (near.max((1, 2)) > here)).mean()
    blocks = [near[:, y : y + 2, x : x + 2] for y in (1, 2) for x in (1, 2)]  # 2 x 2 pixels with this one
    flat = np.any([(block == here[:, None, None]).all((1, 2)) for block in blocks], axis=0).mean()
    return bool(slopes > 0.5 and (flat < 0.5 or len(distinct(here)[0]) > 8))
