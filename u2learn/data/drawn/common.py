"""What the drawn sets have in common: seeds that never meet, smooth noise, and a number for each channel."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from PIL import Image

from u2learn.data.base import ExampleSet
from u2learn.data.example import Example
from u2learn.pixels import Size


class SyntheticSet(ExampleSet):
    """A set of drawn examples that needs no files; index i is drawn anew on every access.

    No picture is ever in both of its two `parts`, whatever the seed.

    Raises:
        ValueError: for another part or a length below one.
    """

    def __init__(self, parts: tuple[str, str], part: str, length: int, size: Size, seed: int):
        name = type(self).__name__
        if part not in parts:
            raise ValueError(f"{name} has the parts {parts[0]!r} and {parts[1]!r}, not {part!r}.")
        if length < 1:
            raise ValueError(f"{name} needs a length of at least 1, not {length}.")
        first = 2 * 100_000 * seed + parts.index(part)  # even numbers train, odd ones test
        self.seeds = range(first, first + 2 * length, 2)
        self.size = size

    @abstractmethod
    def draw(self, seed: int) -> Example:
        """The example of a seed."""

    def __len__(self) -> int:
        return len(self.seeds)

    def example(self, i: int) -> Example:
        return self.draw(self.seeds[i])


def smooth_noise(rng: np.random.Generator, cells: Size, size: Size) -> np.ndarray:
    """Normal random numbers for (rows, columns) of cells, spread over a plane without edges. (H, W)"""
    coarse = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A number for each channel. (3, 1, 1)"""
    return np.array([red, green, blue], np.float32)[:, None, None]
