"""Fundus photographs drawn by a program: what the book uses where no real data is found.

Lengths are in units of the field's radius, the origin is the field's centre and y points down, so a seed
gives the same anatomy at every size. The proportions are those of the eye: the optic disc is 1.8 mm wide, the
fovea lies 4.7 mm from it, the widest vein measures 0.18 mm, and a 45 degree camera sees about 13 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from u2learn.data.drawn.common import SyntheticSet, rgb, smooth_noise
from u2learn.data.example import Example
from u2learn.pixels import Size
from u2learn.registry import DATASETS

STEP = 0.002  # between two points of a vessel's centre line
THINNEST = 0.0021  # radius at which a vessel ends
FOVEA = 0.13  # radius of the zone round the fovea that no vessel enters
RADIUS = 0.48  # of the field, as a share of the picture's shorter side
CELLS = 45  # the growing tree knows which of CELLS x CELLS places are taken


@dataclass(frozen=True)
class Vessel:
    """One unbranched piece of the tree, from its root to its tip."""

    points: np.ndarray  # (N, 2), x and y
    heading: np.ndarray  # (N,), radians
    radius: np.ndarray  # (N,)
    artery: bool


def turn(a: float, b: float) -> float:
    """The turn from heading a to heading b, in [-pi, pi)."""
    return (b - a + np.pi) % (2 * np.pi) - np.pi


def grow(
    rng: np.random.Generator,
    start: np.ndarray,
    heading: float,
    bend: float,
    length: float,
    radius: float,
    artery: bool,
) -> Vessel:
    """A vessel that turns by `bend` along its length, meanders and tapers."""
    n = int(length / STEP) + 2
    t = np.linspace(0, 1, n)
    waves, phases = rng.uniform([0.08, 0.15, 0.3], [0.15, 0.3, 0.6]), rng.uniform(0, 2 * np.pi, 3)
    meander = np.sin(2 * np.pi * t[:, None] * length / waves + phases) @ [0.8, 1.0, 1.2]
    angle = heading + bend * t * t * (3 - 2 * t) + rng.uniform(0.05, 0.14) * meander
    points = start + np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0) * STEP
    return Vessel(points, angle, np.maximum(radius * (1 - rng.uniform(0.35, 0.65) * t), THINNEST), artery)


def cut(vessel: Vessel, fovea: np.ndarray, taken: np.ndarray | None = None) -> Vessel:
    """The vessel up to where it leaves the field, comes to the fovea, or runs into a place that is taken."""
    stop = (np.hypot(*vessel.points.T) > 1.02) | (np.hypot(*(vessel.points - fovea).T) < FOVEA)
    if taken is not None:
        away = np.hypot(*(vessel.points - vessel.points[0]).T) > 0.06
        stop |= away & taken[places(vessel.points)]
    n = int(stop.argmax()) if stop.any() else len(stop)
    return Vessel(vessel.points[:n], vessel.heading[:n], vessel.radius[:n], vessel.artery)


def places(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cell that each point lies in."""
    cell = np.clip(((points + 1.1) * CELLS / 2.2).astype(int), 0, CELLS - 1)
    return cell[:, 1], cell[:, 0]


def trunks(rng: np.random.Generator, disc: np.ndarray) -> list[Vessel]:
    """Arteries and veins leave the disc: four arcades each, and a few small vessels between them."""
    found = []
    for artery in (False, True):
        widest = rng.uniform(0.0085, 0.0105) if artery else rng.uniform(0.0115, 0.0145)
        roots = []  # heading at the disc and at the end, length, radius; temporal is 0, down is pi/2
        for side in (-1, 1):
            roots.append(
                (side * rng.uniform(1.0, 1.5), -side * rng.uniform(0.1, 0.6), rng.uniform(1.5, 2.0), widest)
            )
            roots.append((side * rng.uniform(1.9, 2.4), side * rng.uniform(2.3, 2.9), 0.9, 0.65 * widest))
        for _ in range(rng.integers(1, 4)):
            heading = rng.uniform(-0.5, 0.5) + rng.choice([0, np.pi])
            roots.append((heading, heading + rng.normal(0, 0.3), rng.uniform(0.4, 0.7), 0.4 * widest))
        for first, last, length, radius in roots:
            found.append(
                grow(rng, disc + rng.normal(0, 0.02, 2), first, last - first, length, radius, artery)
            )
    return found


def branches(rng: np.random.Generator, parent: Vessel, disc: np.ndarray, fovea: np.ndarray) -> list[Vessel]:
    """What grows out of `parent`: side branches along it and a fork at its tip."""
    sites, at, side = [], rng.uniform(0.05, 0.2), rng.choice([-1, 1])
    while at < len(parent.points) * STEP:
        sites.append((int(at / STEP), side * rng.uniform(0.5, 1.2), rng.uniform(0.42, 0.8)))
        at, side = at + rng.uniform(0.08, 0.3), side if rng.random() < 0.3 else -side
    sites += [(-1, 0.4, rng.uniform(0.7, 0.95)), (-1, -0.45, rng.uniform(0.6, 0.9))]
    found = []
    for i, angle, share in sites:
        start, heading, radius = parent.points[i], parent.heading[i] + angle, parent.radius[i] * share
        if radius > THINNEST:
            inwards = fovea - start
            goal = inwards if np.hypot(*inwards) < 0.8 and rng.random() < 0.6 else start - disc
            bend = rng.uniform(0.3, 0.8) * turn(heading, np.arctan2(goal[1], goal[0]))
            found.append(
                grow(rng, start, heading, bend, rng.uniform(1600, 3800) * radius**1.6, radius, parent.artery)
            )
    return found


def vessel_tree(rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray) -> list[Vessel]:
    """All vessels. The tree grows in generations, and most vessels stop where another one is."""
    vessels = [cut(trunk, fovea) for trunk in trunks(rng, disc)]
    taken = np.zeros((CELLS, CELLS), bool)
    for vessel in vessels:
        taken[places(vessel.points)] = True
    for vessel in vessels:  # the list grows while we walk along it
        for child in branches(rng, vessel, disc, fovea):
            child = cut(child, fovea, taken if rng.random() < 0.85 else None)
            if len(child.points) * STEP > 0.04:
                taken[places(child.points)] = True
                vessels.append(child)
    return vessels


def paint(size: Size, points: np.ndarray, radius: np.ndarray, height: np.ndarray) -> np.ndarray:
    """A parabola of some radius and height round every point; where they overlap the highest wins. (H, W)"""
    h, w = size
    canvas = np.zeros(h * w, np.float32)
    scale = RADIUS * min(size)
    centre = points * scale + np.array([(w - 1) / 2, (h - 1) / 2])  # pixels from here on
    radius = np.maximum(radius * scale, 0.55)
    reach = np.ceil(radius).astype(int)
    for k in np.unique(reach):
        here = reach == k
        dy, dx = (d.reshape(1, -1) for d in np.mgrid[-k : k + 1, -k : k + 1])
        px, py = centre[here, :1], centre[here, 1:]
        column, row = np.rint(px).astype(int) + dx, np.rint(py).astype(int) + dy
        value = height[here, None] * (1 - ((column - px) ** 2 + (row - py) ** 2) / radius[here, None] ** 2)
        keep = (value > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        np.maximum.at(canvas, (row * w + column)[keep], value[keep].astype(np.float32))
    return canvas.reshape(size)


def clouds(rng: np.random.Generator, size: Size, blobs: int) -> np.ndarray:
    """Smooth random variation with about `blobs` blobs a side, mean 0, standard deviation about 1. (H, W)"""
    return smooth_noise(rng, (blobs, blobs), size) * 1.4


def blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of one plane; sigma in pixels. (H, W)"""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    for _ in range(2):  # rows, then columns
        padded, n = np.pad(plane, ((reach, reach), (0, 0)), mode="edge"), len(plane)
        plane = sum(tap * padded[i : i + n] for i, tap in enumerate(taps / taps.sum())).T
    return plane


def resolved(vessels: Sequence[Vessel], size: Size) -> list[Vessel]:
    """The vessels that a picture of this size shows: what is much thinner than a pixel is lost."""
    finest = min(0.27 / (RADIUS * min(size)), 0.007)  # the arcades always stay
    return [v for v in vessels if v.radius[0] > finest]


def trace(
    rng: np.random.Generator, vessels: Sequence[Vessel], size: Size, missed: float, shake: float
) -> np.ndarray:
    """The label of an observer who misses a share of the thinnest vessels and whose hand shakes. (H, W)"""
    points, radii = [], []
    for v in vessels:
        seen, slip, phase = rng.random(), rng.normal(0, shake, 2), rng.uniform(0, 2 * np.pi)
        width = min(max(rng.normal(1, 40 * shake), 0.6), 1.5)
        if seen > missed * np.exp(-((v.radius[0] / 0.0045) ** 2)):
            sway = np.sin(np.arange(len(v.radius)) * STEP * 25 + phase)[:, None]
            points.append(v.points + slip * sway)
            radii.append(v.radius * width)
    radius = np.concatenate(radii)
    return (paint(size, np.concatenate(points), radius, np.ones(len(radius))) > 0).astype(np.uint8)


def lesions(rng: np.random.Generator, size: Size, radius: float) -> np.ndarray:
    """One to three clusters of round spots. (H, W), 0 to 1"""
    n = rng.integers(1, 4)
    centre, spread = rng.uniform(-0.6, 0.6, (n, 1, 2)), rng.uniform(0.03, 0.15, (n, 1, 1))
    points = rng.normal(centre, spread, (n, rng.integers(4, 18), 2)).reshape(-1, 2)
    radii = radius * rng.lognormal(-0.3, 0.5, len(points))
    return np.minimum(2 * paint(size, points, radii, rng.uniform(0.4, 1, len(points))), 1)


def distance(x: np.ndarray, y: np.ndarray, point: np.ndarray | Sequence[float]) -> np.ndarray:
    """From every pixel to a point. (H, W)"""
    return np.hypot(x - float(point[0]), y - float(point[1]))


def photograph(
    rng: np.random.Generator,
    size: Size,
    x: np.ndarray,
    y: np.ndarray,
    disc: np.ndarray,
    fovea: np.ndarray,
    vessels: Sequence[Vessel],
) -> np.ndarray:
    """What the camera sees: light that pigment and blood absorb, blurred and noisy. (3, H, W) uint8"""
    red = rng.uniform(165, 215)
    base = rgb(red, red * rng.uniform(0.44, 0.54), red * rng.uniform(0.27, 0.36))  # grey levels
    lamp, falloff = rng.uniform(-0.45, 0.45, 2), rng.uniform(0.12, 0.4)
    light = 1.05 - falloff * distance(x, y, lamp) ** 2 + 0.04 * clouds(rng, size, 5)

    macula = np.exp(-((distance(x, y, fovea) / rng.uniform(0.12, 0.2)) ** 2))
    choroid = np.exp(-((clouds(rng, size, 30) / 0.3) ** 2))  # light between dark meshes
    pigment = rng.uniform(0.25, 0.5) * macula - rng.uniform(0, 0.09) * choroid
    pigment += 0.04 * clouds(rng, size, 10) + 0.025 * clouds(rng, size, 70)

    away = distance(x, y, disc) / rng.uniform(0.125, 0.155)
    papilla = 0.5 - 0.5 * np.tanh(8 * (away - 1))  # the disc, with a soft edge
    glow = papilla * (1 + 0.4 * np.exp(-((away / 0.5) ** 2))) + 0.2 * np.exp(-((away / 2) ** 2))

    blood = np.zeros(size, np.float32)
    contrast = rng.uniform(0.65, 1.1)
    for artery, strength in ((False, 0.6), (True, 0.42)):
        mine = [v for v in vessels if v.artery == artery]
        points, radius = np.concatenate([v.points for v in mine]), np.concatenate([v.radius for v in mine])
        depth = strength * contrast * (1 - np.exp(-radius / 0.0055))
        blood += paint(size, points, 1.25 * radius, depth)
        wide = artery & (radius > 0.005)  # the light reflex along an artery
        blood -= paint(size, points[wide], 0.45 * radius[wide], 0.5 * depth[wide])
    blood += rng.choice([0, 0.4]) * lesions(rng, size, 0.012)
    glow += rng.choice([0, 0.5]) * lesions(rng, size, 0.008)

    absorbed = rgb(0.25, 1, 0.75) * blur(blood, 0.0035 * RADIUS * min(size)) + rgb(0.5, 1, 0.6) * pigment
    image = base * light * (1 + rgb(0.3, 0.9, 0.7) * glow) * np.exp(-absorbed)
    image += rng.standard_normal((3, *size), np.float32) * rgb(2.5, 2.5, 3)
    inside = np.clip((1 - distance(x, y, (0, 0))) * RADIUS * min(size) / 2, 0, 1)
    return np.clip(image * inside + 6, 0, 255).astype(np.uint8)


def fundus(seed: int, size: Size = (584, 565)) -> Example:
    """Draws a fundus photograph of `size` (H, W) with the labels of two observers and the field of view.

    The same seed and size always give the same picture. Thin vessels are faint, the light is uneven, and
    bright and dark spots that are no vessels lie about, so that no threshold on a colour solves the task.

    Raises:
        ValueError: if a side is shorter than 16 pixels.
    """
    h, w = size
    if min(size) < 16:
        raise ValueError(f"fundus: the size is {h} x {w}, and a picture needs at least 16 pixels a side")
    rng = np.random.default_rng(seed)
    disc = rng.uniform([-0.72, -0.1], [-0.52, 0.1])
    fovea = disc + rng.uniform([0.68, 0.0], [0.78, 0.1])
    vessels = resolved(vessel_tree(rng, disc, fovea), size)
    label = trace(rng, vessels, size, missed=0.05, shake=0.0005)
    second = trace(rng, vessels, size, missed=0.65, shake=max(0.002, 0.7 / min(size)))

    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    x, y = ((a - (n - 1) / 2) / (RADIUS * min(size)) for a, n in ((x, w), (y, h)))  # (H, W) each
    field = x * x + y * y < 1
    image = photograph(rng, size, x, y, disc, fovea, vessels)
    if rng.random() < 0.5:  # the other eye
        image, label, second = (a[..., ::-1].copy() for a in (image, label, second))
    return Example(f"synthetic-{seed}", image, label * field, field, second * field)


class SyntheticRetina(SyntheticSet):
    """Synthetic fundus photographs; `part` is "train" or "test". See `SyntheticSet`."""

    def __init__(self, part: str, length: int = 20, size: Size = (584, 565), seed: int = 0):
        super().__init__(("train", "test"), part, length, size, seed)

    def draw(self, seed: int) -> Example:
        return fundus(seed, self.size)


@DATASETS.add("synthetic")
def eyes(part: str, protocol: str = "", *, train: int, test: int, size: Size, seed: int) -> SyntheticRetina:
    """The set as recipes open it: `train` and `test` say how many pictures each part has."""
    return SyntheticRetina(part, {"train": train, "test": test}[part], size, seed)
