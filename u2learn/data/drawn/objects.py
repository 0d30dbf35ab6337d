"""Salient objects drawn by a program: one thing that stands out from a ground full of things that do not.

The unit is the picture's shorter side, the origin its upper left corner and y points down, so a seed gives
the same scene at every size. A thing is a list of parts, each an outline with a tone (1 or 2: one of its two
paints; 0: a hole), drawn one over the other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from u2learn.data.drawn.common import SyntheticSet, rgb
from u2learn.data.drawn.retina import clouds
from u2learn.data.example import Example
from u2learn.pixels import Size
from u2learn.registry import DATASETS

FINE = 3  # outlines are drawn this much finer than the picture, so that edges are soft
SHADE = 0.5  # of a label: a pixel belongs to the thing from this share of its area on
Part = tuple[np.ndarray, int | np.integer]  # points (N, 2), x and y, and the tone


# --- outlines ---------------------------------------------------------------------------------------------


def circle(x: float, y: float, a: float, b: float, turn: float = 0.0, power: float = 2.0) -> np.ndarray:
    """An ellipse about (x, y) with half axes a and b; a higher power makes it a box with round corners."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([np.cos(t), np.sin(t)], 1)
    points = np.sign(points) * np.abs(points) ** (2 / power) * (a, b)
    return np.array([x, y]) + rotated(points, turn)


def rotated(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (N, 2), turned about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def blob(rng: np.random.Generator) -> np.ndarray:
    """A smooth closed curve about the origin, of a radius near 1."""
    t, waves = np.linspace(0, 2 * np.pi, 60, endpoint=False), np.arange(2, 6)
    size, phase = rng.normal(0, 0.35, 4) / waves, rng.uniform(0, 2 * np.pi, 4)
    radius = np.maximum(1 + np.cos(t[:, None] * waves + phase) @ size, 0.35)
    return radius[:, None] * np.stack([np.cos(t), np.sin(t)], 1)


def limb(points: np.ndarray, first: float, last: float) -> np.ndarray:
    """A line through points (N, 2) that is `first` wide at its beginning and `last` at its end."""
    step = np.gradient(points, axis=0)
    across = np.stack([-step[:, 1], step[:, 0]], 1) / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    half = np.linspace(first, last, len(points))[:, None] / 2
    return np.concatenate([points + half * across, (points - half * across)[::-1]])


def bent(rng: np.random.Generator, start: ArrayLike, angle: float, length: float, bend: float) -> np.ndarray:
    """Nine points along an arc that starts at an angle and turns by `bend`. (9, 2)"""
    t = np.linspace(0, 1, 9)
    heading = angle + bend * t + 0.2 * np.sin(rng.uniform(0, 6) + 5 * t)
    steps = np.stack([np.cos(heading), np.sin(heading)], 1) * length / 8
    return np.asarray(start) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps[:-1], 0)])


# --- things: parts about the origin, about 2 wide and high -------------------------------------------------


def animal(rng: np.random.Generator) -> list[Part]:
    """A body, a head with ears, legs and a tail."""
    long, thick = rng.uniform(0.55, 0.95), rng.uniform(0.28, 0.5)
    neck = np.array([long * 0.85, -thick * rng.uniform(0.5, 1.6)])
    parts: list[Part] = [(limb(np.linspace((long / 2, 0), neck, 5), 0.9 * thick, 0.5 * thick), 1)]
    for x in (-0.8, -0.55, 0.5, 0.75):
        foot = (x * long + rng.normal(0, 0.08), thick + rng.uniform(0.3, 0.7))
        parts.append((limb(np.linspace((x * long, 0), foot, 4), 0.3, 0.12), 1))
    tail = bent(rng, (-0.9 * long, -0.1), rng.uniform(2.4, 4.2), rng.uniform(0.3, 0.9), rng.normal(0, 1.5))
    parts += [(limb(tail, 0.14, 0.05), rng.integers(1, 3)), (blob(rng) * (long, thick), 1)]
    head = rng.uniform(0.2, 0.34)
    for side in (-1, 1):
        ear = np.array([(-0.5, -0.5), (0.5, -0.5), (side * 0.6, -rng.uniform(1.2, 2.2))])
        parts.append((ear * head + neck + (side * 0.45 * head, 0), rng.integers(1, 3)))
    x, y = neck
    parts.append((circle(x, y, head, 0.85 * head), 1))
    nose = circle(x + 0.7 * head, y + 0.25 * head, 0.5 * head, 0.35 * head)
    parts.append((nose, rng.integers(1, 3)))
    spots = rng.uniform((-long, -thick), (long, thick), (rng.integers(0, 6), 2)) * 0.6
    return parts + [(circle(*spot, *rng.uniform(0.05, 0.2, 2)), 2) for spot in spots]


def person(rng: np.random.Generator) -> list[Part]:
    """A head, a coat, arms and legs; or no legs, and a coat that leaves the picture, as in a portrait."""
    wide, portrait = rng.uniform(0.3, 0.5), rng.random() < 0.4
    hem = 4.0 if portrait else 0.4
    parts: list[Part] = []
    for side in (-1, 1):
        leg = np.linspace((side * 0.5 * wide, 0.2), (side * rng.uniform(0.1, 0.5), 1.0), 4)
        parts.append((limb(leg, 0.26, 0.16), 2))
        angle = np.pi / 2 - side * rng.uniform(-0.3, 1)
        arm = bent(rng, (side * wide * 0.9, -0.3), angle, 0.8, side * rng.normal())
        parts.append((limb(arm, 0.2, 0.12), 1))
    coat = np.array([(-wide, -0.4), (wide, -0.4), (0.9 * wide, hem), (-0.9 * wide, hem)])
    parts += [(coat, 1), (circle(0, -0.38, wide, 0.14), 1)]
    hair = rng.uniform(0.2, 0.28)
    return [*parts, (circle(0, -0.68, hair, 1.2 * hair), 1), (circle(0, -0.63, 0.8 * hair, hair), 2)]


def vessel(rng: np.random.Generator) -> list[Part]:
    """A cup, a jug or a vase: a turned body with a rim, and sometimes a handle."""
    height = np.linspace(-0.8, 0.8, 24)
    radius = rng.uniform(0.35, 0.6) + 0.12 * np.sin(height * rng.uniform(1, 4) + rng.uniform(0, 6))
    body = np.stack([radius, height], 1)
    parts: list[Part] = []
    if rng.random() < 0.6:
        grip = circle(radius[12], rng.uniform(-0.2, 0.2), 0.4, rng.uniform(0.3, 0.5))
        parts += [(grip, 1), (grip * 0.62 + 0.38 * grip.mean(0), 0)]
    parts += [(np.concatenate([body, body[::-1] * (-1, 1)]), 1), (circle(0, 0.8, radius[-1], 0.12), 1)]
    parts += [(circle(0, -0.8, radius[0], 0.16), 1), (circle(0, -0.8, 0.85 * radius[0], 0.12), 2)]
    if rng.random() < 0.5:
        band = np.abs(height - rng.uniform(-0.3, 0.4)) < rng.uniform(0.08, 0.25)
        parts.append((np.concatenate([body[band], body[band][::-1] * (-1, 1)]), 2))
    return parts


def plant(rng: np.random.Generator) -> list[Part]:
    """Petals or leaves about a middle, and perhaps a stem."""
    parts: list[Part] = []
    if rng.random() < 0.6:
        parts.append((limb(bent(rng, (0, 0), np.pi / 2, 1.1, rng.normal(0, 0.5)), 0.1, 0.08), 2))
    count, long = rng.integers(4, 13), rng.uniform(0.5, 0.95)
    for k, angle in enumerate(np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 6)):
        leaf = circle(long / 2, 0, long / 2, long * rng.uniform(0.12, 0.3))
        parts.append((rotated(leaf, angle + rng.normal(0, 0.1)) * (1, 0.85) - (0, 0.2), 1 + (k % 3 == 0)))
    return [*parts, (circle(0, -0.2, 0.22, 0.2), 2)]


def thing(rng: np.random.Generator) -> list[Part]:
    """Something made: a box, a disc, a star or a lump, with a mark on it, and sometimes a hole through it."""
    corners = np.linspace(0, 2 * np.pi, 2 * rng.integers(3, 9), endpoint=False)
    star = np.stack([np.cos(corners), np.sin(corners)], 1)
    star[::2] *= rng.uniform(0.35, 0.95)
    shapes = [blob(rng), circle(0, 0, 1, rng.uniform(0.3, 1), power=rng.uniform(2, 8)), star]
    body = shapes[rng.integers(3)]
    parts: list[Part] = [(body, 1)]
    if rng.random() < 0.7:
        parts.append((body * rng.uniform(0.3, 0.75) + rng.normal(0, 0.1, 2), 2))
    for _ in range(rng.integers(0, 4)):
        parts.append((circle(*rng.normal(0, 0.35, 2), *rng.uniform(0.06, 0.25, 2)), rng.integers(1, 3)))
    if rng.random() < 0.2:
        parts.append((circle(*rng.normal(0, 0.1, 2), *rng.uniform(0.2, 0.4, 2)), 0))
    return parts


def wheel(rng: np.random.Generator) -> list[Part]:
    """Two wheels with spokes and a frame between them."""
    parts: list[Part] = []
    size, wire = rng.uniform(0.4, 0.5), rng.uniform(0.012, 0.03)
    hubs = [(-0.52, 0.25), (0.52, 0.25)]
    for hub in hubs:
        parts += [(circle(*hub, size, size), 1), (circle(*hub, size - 2.5 * wire, size - 2.5 * wire), 0)]
        for angle in np.linspace(0, 2 * np.pi, rng.integers(8, 19), endpoint=False):
            rim = np.array(hub) + size * np.array([np.cos(angle), np.sin(angle)])
            parts.append((limb(np.linspace(hub, rim, 2), wire, wire), 1))
    seat, bar, pedal = (-0.25, -0.45), (0.35, -0.5), (-0.05, 0.25)
    tubes = [(hubs[0], seat), (seat, bar), (bar, hubs[1]), (pedal, bar), (pedal, seat), (hubs[0], pedal)]
    tubes += [((0.2, -0.62), (0.5, -0.62)), ((-0.4, -0.5), (-0.1, -0.5))]
    return parts + [(limb(np.linspace(a, b, 2), 3 * wire, 3 * wire), 2) for a, b in tubes]


def tree(rng: np.random.Generator) -> list[Part]:
    """A bare tree: every branch forks until it is a twig."""
    parts: list[Part] = []
    branches = [((0.0, 1.0), -np.pi / 2, rng.uniform(0.6, 0.8), rng.uniform(0.07, 0.12))]
    for start, angle, long, wide in branches:  # the list grows while we walk along it
        line = bent(rng, start, angle, long, rng.normal(0, 0.3))
        parts.append((limb(line, wide, 0.7 * wide), 1))
        if wide > 0.02:
            for turn in rng.uniform(0.25, 0.75) * np.array([-1, 1]) + rng.normal(0, 0.1, 2):
                share = rng.uniform(0.55, 0.8)
                branches.append((line[-1], angle + turn, long * share, 0.68 * wide))
    return parts


def lattice(rng: np.random.Generator) -> list[Part]:
    """A fence, a ladder or a cage: bars one way, rails the other way."""
    parts: list[Part] = []
    bars, rails, wire = rng.integers(3, 12), rng.integers(2, 5), rng.uniform(0.015, 0.05)
    high, lean = rng.uniform(0.5, 1.0), rng.normal(0, 0.2)
    for x in np.linspace(-0.9, 0.9, bars):
        parts.append((limb(np.linspace((x + lean, -high), (x - lean, high), 2), wire, wire), 1))
    for y in np.linspace(-0.85, 0.85, rails) * high:
        parts.append((limb(np.linspace((-0.95, y), (0.95, y), 2), 1.4 * wire, 1.4 * wire), 2))
    return parts


def chair(rng: np.random.Generator) -> list[Part]:
    """A seat on four legs with a back of thin bars."""
    wide, deep, wire = rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.4), rng.uniform(0.02, 0.06)
    seat = np.array([(-wide, 0.1), (wide, 0.1), (wide + deep, 0.3), (-wide + deep, 0.3)])
    parts: list[Part] = []
    for corner in seat:
        foot = corner + np.array([rng.normal(0, 0.06), 0.65])
        parts.append((limb(np.linspace(corner, foot, 2), wire, 0.6 * wire), 1))
    for x in np.linspace(-wide, wide, rng.integers(3, 9)):
        parts.append((limb(np.linspace((x, 0.1), (1.05 * x, -0.85), 2), 0.5 * wire, 0.5 * wire), 2))
    top = np.linspace((-1.1 * wide, -0.85), (1.1 * wide, -0.85), 2)
    return [*parts, (limb(top, 1.5 * wire, 1.5 * wire), 1), (seat, 1)]


THINGS: tuple[Callable[[np.random.Generator], list[Part]], ...] = (animal, person, vessel, plant, thing)
WIRES: tuple[Callable[[np.random.Generator], list[Part]], ...] = (wheel, tree, lattice, chair)


# --- paint and light --------------------------------------------------------------------------------------


def texture(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pattern between 0 and 1: flat, cloudy, striped, dotted or in patches. (H, W)"""
    size, coarse, fine = x.shape, int(rng.integers(2, 8)), int(rng.integers(12, 50))
    soft, rough = clouds(rng, size, coarse), clouds(rng, size, fine)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(6, 60)  # a picture
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(5)
    if kind == 0:
        pattern = 0.12 * soft
    elif kind == 1:
        pattern = 0.35 * soft + rng.uniform(0.05, 0.3) * rough
    elif kind == 2:
        pattern = 0.5 * np.sin(waves * along + rng.uniform(0, 2) * soft) + 0.1 * rough
    elif kind == 3:
        pattern = 0.8 * np.sin(waves * along) * np.sin(waves * across) + 0.1 * soft
    else:
        pattern = 0.2 * np.floor(2.5 * (soft + 0.4 * rough)) / 2
    return np.clip(0.5 + pattern, 0, 1).astype(np.float32)


def colour(rng: np.random.Generator) -> np.ndarray:
    """A colour as they are seen: more often dull than bright. (3,), 0 to 1"""
    grey, vivid = rng.uniform(0.08, 0.95), rng.beta(1, 3)
    return np.clip(grey + 0.4 * vivid * rng.uniform(-1, 1, 3), 0.02, 0.98)


def other_colour(rng: np.random.Generator, than: list[np.ndarray], distance: float) -> np.ndarray:
    """A colour at some distance from all those that are there already, or the farthest of twenty."""
    found = [colour(rng) for _ in range(20)]
    apart = [min(np.abs(c - t).mean() for t in than) for c in found]
    return next((c for c, d in zip(found, apart, strict=True) if d > distance), found[int(np.argmax(apart))])


def paint(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, one: np.ndarray, two: np.ndarray
) -> np.ndarray:
    """Two colours mixed by a texture. (3, H, W)"""
    share = texture(rng, x, y)
    return rgb(*one) * (1 - share) + rgb(*two) * share


def covered(parts: list[Part], size: Size) -> np.ndarray:
    """The share of each pixel that tone 1 and tone 2 cover. (2, H, W)"""
    height, width = size
    canvas = Image.new("L", (FINE * width, FINE * height))
    draw = ImageDraw.Draw(canvas)
    for points, tone in parts:
        draw.polygon([tuple(p) for p in points * FINE * min(size)], fill=int(tone))
    tones = np.asarray(canvas).reshape(height, FINE, width, FINE)
    return np.stack([(tones == tone).mean((1, 3), dtype=np.float32) for tone in (1, 2)])


def softened(plane: np.ndarray, radius: float) -> np.ndarray:
    """A plane of shares, blurred; radius in pixels. (H, W)"""
    grey = Image.fromarray((255 * np.clip(plane, 0, 1)).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def placed(
    rng: np.random.Generator, parts: list[Part], middle: np.ndarray, scale: float, turn: float
) -> list[Part]:
    """Parts about the origin, brought to their place in the picture; every other time mirrored."""
    flip = (rng.choice([-1, 1]), 1)
    return [(rotated(points * flip, turn) * scale + middle, tone) for points, tone in parts]


# --- the scene --------------------------------------------------------------------------------------------


def ground(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, colours: list[np.ndarray]) -> np.ndarray:
    """What lies behind: a surface or two, many small things of one kind, beams that run through. (3, H, W)"""
    size, wide, high = x.shape, float(x.max()), float(y.max())
    image = paint(rng, x, y, *colours[:2])
    if rng.random() < 0.5:  # a horizon, the edge of a table, a wall
        level = high * rng.uniform(0.25, 0.8) + rng.normal(0, 0.15) * (x - wide / 2)
        level += 0.02 * clouds(rng, size, 6)
        below = np.clip((y - level) * min(size) / rng.uniform(1, 12), 0, 1)
        image = image * (1 - below) + paint(rng, x, y, *colours[1:3]) * below
    small: list[Part] = []
    if rng.random() < 0.55:
        shape, radius = blob(rng), rng.uniform(0.01, 0.045)
        for _ in range(rng.integers(10, 90)):
            one = rotated(shape, rng.uniform(0, 6)) * radius * rng.uniform(0.6, 1.4)
            small.append((one + rng.uniform((0, 0), (wide, high)), rng.integers(1, 3)))
    if rng.random() < 0.4:
        angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1)
        for _ in range(rng.integers(1, 6)):
            way, thick = 2 * np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.008, 0.08)
            beam = limb(np.stack([-way, way]), thick, thick)
            small.append((beam + rng.uniform((0, 0), (wide, high)), rng.integers(1, 3)))
    if small:
        for share, c in zip(covered(small, size), colours[1:3], strict=True):
            share = share * rng.uniform(0.4, 1)
            image = image * (1 - share) + rgb(*np.clip(c + rng.normal(0, 0.08, 3), 0, 1)) * share
    if rng.random() < 0.5:  # out of focus
        soft = Image.fromarray((255 * image.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0))
        soft = soft.filter(ImageFilter.GaussianBlur(min(size) * rng.uniform(0.003, 0.02)))
        image = np.asarray(soft, np.float32).transpose(2, 0, 1) / 255
    return image


def add(
    rng: np.random.Generator,
    image: np.ndarray,
    parts: list[Part],
    x: np.ndarray,
    y: np.ndarray,
    colours: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a thing in it, and the share of each pixel that it covers: (3, H, W) and (H, W)."""
    size = x.shape
    tones = covered(parts, size)  # (2, H, W)
    share = tones.sum(0)
    reach = max(0.5, 0.02 * min(size))
    if rng.random() < 0.6:
        drop = np.roll(softened(share, 1.5 * reach), (int(reach), int(rng.integers(-2, 3) * reach)), (0, 1))
        image = image * (1 - rng.uniform(0.2, 0.6) * drop)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.5) * ((x - x.mean()) * np.cos(angle) + (y - y.mean()) * np.sin(angle))
    round_ = rng.uniform(0, 0.5)
    light = light * (1 - round_ + round_ * softened(share, reach))  # darker towards its own edge
    for tone, pair in zip(tones, (colours[:2], colours[2:]), strict=True):
        image = image * (1 - tone) + np.clip(paint(rng, x, y, *pair) * light, 0, 1) * tone
    return image, share


def salient(seed: int, size: Size = (320, 320), thin: bool = False) -> Example:
    """Draws a picture of `size` (H, W) with one to three salient things, and the mask of what is salient.

    The same seed and size always give the same picture. The things have two paints of their own, light and a
    shadow, which is not part of them; the ground has textures, a horizon, and many small things of one kind,
    which are not salient. `thin`: bicycles, bare trees, fences and chairs, which are mostly holes.

    Raises:
        ValueError: if a side is shorter than 32 pixels.
    """
    h, w = size
    if min(size) < 32:
        raise ValueError(f"salient: the size is {h} x {w}, and a picture needs at least 32 pixels a side.")
    rng, grain = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    y, x = (axis.astype(np.float32) / min(size) for axis in np.mgrid[:h, :w])
    behind = [colour(rng)]
    behind += [np.clip(behind[0] + rng.normal(0, 0.13, 3), 0, 1), colour(rng)]
    apart = rng.uniform(0.15, 0.35)  # some things are hard to tell from what is behind them
    first = other_colour(rng, behind, apart)
    paints = [first, np.clip(first + rng.normal(0, 0.12, 3), 0, 1)]
    paints += [other_colour(rng, [*behind, first], apart / 2) for _ in range(2)]

    image = ground(rng, x, y, behind)
    count = 1 if thin or rng.random() < 0.75 else int(rng.integers(2, 4))
    make = (WIRES if thin else THINGS)[rng.integers(len(WIRES if thin else THINGS))]
    share = np.zeros(size, np.float32)
    for k in range(count):
        scale = rng.uniform(0.3, 0.46) if thin else rng.uniform(0.22, 0.46) / count**0.5
        spread = np.array([w, h]) / min(size)
        middle = spread * ((k + 0.5) / count if count > 1 else 0.5, 0.5) + rng.normal(0, 0.06, 2)
        parts = placed(rng, make(rng), middle, scale, rng.normal(0, 0.25))
        image, mine = add(rng, image, parts, x, y, paints)
        share = np.maximum(share, mine)

    picture = Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8).transpose(1, 2, 0))
    picture = picture.filter(ImageFilter.GaussianBlur(min(size) * rng.uniform(0, 0.002)))
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) * rng.uniform(0.8, 1.1)
    pixels += grain.standard_normal((3, *size), np.float32) * rng.uniform(1, 7)
    return Example(
        f"{'thin' if thin else 'object'}-{seed}",
        np.clip(pixels, 0, 255).astype(np.uint8),
        (share >= SHADE).astype(np.uint8),
    )


class SyntheticObjects(SyntheticSet):
    """Pictures with salient things and their masks; `part` is "train" or "test". See `SyntheticSet`.

    `thin`: things of wires and twigs, as DIS asks for.
    """

    def __init__(
        self,
        part: str,
        length: int = 20,
        size: Size = (320, 320),
        seed: int = 0,
        thin: bool = False,
    ):
        super().__init__(("train", "test"), part, length, size, seed)
        self.thin = thin

    def draw(self, seed: int) -> Example:
        return salient(seed, self.size, self.thin)


@DATASETS.add("objects")
@DATASETS.add("thin")
def things(
    part: str, protocol: str = "", *, train: int, test: int, size: Size, seed: int, thin: bool
) -> SyntheticObjects:
    """The set as recipes open it: `train` and `test` say how many pictures each part has."""
    return SyntheticObjects(part, {"train": train, "test": test}[part], size, seed, thin)
