"""Microscope pictures drawn by a program, as a folder of files: to try with what one's own images need.

A slide has two fields of view, stained and lit alike. Pictures have 12 bits in files of 16, and three sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from u2learn.data.drawn.retina import blur

SIZES = ((256, 256), (240, 320), (320, 224))  # height and width
COLOURS = {"background": (0, 0, 0), "cell": (0, 158, 115), "nucleus": (204, 121, 167)}
TOP = 4095  # the largest value of 12 bits


def field_of_view(slide: int, which: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint16 (H, W) of 12 bits, and its classes, uint8 (H, W): 0 background, 1 cell, 2 nucleus."""
    stain = np.random.default_rng((slide, 99))
    light, cell_light, nucleus_light = stain.uniform((0.05, 0.16, 0.16), (0.10, 0.22, 0.26))
    rng = np.random.default_rng((slide, which))
    height, width = SIZES[(2 * slide + which) % len(SIZES)]
    y, x = np.mgrid[:height, :width]
    label, picture = np.zeros((height, width), np.uint8), np.full((height, width), light)
    for _ in range(int(rng.integers(9, 15))):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(17, 30)
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)
        u = (np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)) / radius
        v = (np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)) / (radius * stretch)
        cell = np.hypot(u, v) < 1 + 0.07 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6))
        if (label[cell] > 0).any():  # cells lie beside each other
            continue
        nucleus = np.hypot(u - rng.uniform(-0.2, 0.2), v - rng.uniform(-0.2, 0.2)) < rng.uniform(0.38, 0.5)
        label[cell], label[cell & nucleus] = 1, 2
        picture[cell] += cell_light * rng.uniform(0.9, 1.1)
        picture[cell & nucleus] += nucleus_light * rng.uniform(0.9, 1.1)
    shade = 1 + 0.15 * (x / width - 0.5)  # light falls from one side
    photons = 900 * blur(picture * shade, 1.2)
    noisy = rng.poisson(np.maximum(photons, 0)) / 900 + rng.normal(0, 0.004, label.shape)
    return np.clip(np.round(noisy * TOP), 0, TOP).astype(np.uint16), label


def write_slides(folder: str | Path, slides: int = 20) -> tuple[Path, Path]:
    """Writes two pictures a slide into FOLDER/images (tif) and FOLDER/masks (png in colours); returns both.

    Raises:
        FileExistsError: a folder is there already.
    """
    images, masks = Path(folder) / "images", Path(folder) / "masks"
    for place in (images, masks):
        place.mkdir(parents=True)
    for slide in range(slides):
        for which, letter in enumerate("ab"):
            picture, label = field_of_view(slide, which)
            Image.fromarray(picture).save(images / f"slide{slide:02}_{letter}.tif")
            colours = np.array(list(COLOURS.values()), np.uint8)[label]  # (H, W, 3)
            Image.fromarray(colours).save(masks / f"slide{slide:02}_{letter}.png")
    return images, masks
