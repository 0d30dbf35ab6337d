"""Street scenes drawn by a program, in the layout of Cityscapes: the book's stand-in for a set with a login.

Lengths are in metres. The camera looks along the street from 1.5 m above the ground: a point (x, y, z), x to
the right, y up and z ahead, is seen at x / z and y / z. A scene is drawn from the back to the front, as a
painter would, once in colour and once in class ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from u2learn.data.cityscapes import CLASSES, LABELS, train_ids
from u2learn.data.drawn.common import SyntheticSet, smooth_noise
from u2learn.data.example import Example
from u2learn.pixels import Size
from u2learn.registry import DATASETS

ID = {label.name: label.id for label in LABELS}
EYE = 1.5  # m, height of the camera
FINE = 2  # a scene is drawn this much finer than it is handed out, so that edges are soft
FAR = 140.0  # m; what is farther is haze
Colour = Sequence[float] | np.ndarray  # red, green, blue, 0 to 255
Point = tuple[float, float]  # x, y


class Canvas:
    """The picture and its class ids, and how a point of the world comes onto both."""

    def __init__(self, rng: np.random.Generator, size: Size):
        self.height, self.width = (FINE * side for side in size)
        self.horizon = self.height * rng.uniform(0.36, 0.54)
        self.centre = self.width * rng.uniform(0.36, 0.64)  # where the street vanishes
        self.focal = self.width * rng.uniform(0.5, 0.8)
        self.haze = np.array(rng.choice([(206, 214, 222), (226, 222, 212), (184, 192, 200)]), float)
        self.thickness = rng.uniform(0.3, 1.0) / FAR  # of the haze, a metre
        self.picture = Image.new("RGB", (self.width, self.height))
        self.ids = Image.new("L", (self.width, self.height), ID["sky"])

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where a point is seen, in pixels from the upper left."""
        return self.centre + self.focal * x / z, self.horizon - self.focal * (y - EYE) / z

    def hazy(self, colour: Colour, z: float) -> tuple[int, ...]:
        """A colour seen through z metres of air."""
        clear = np.exp(-self.thickness * z)
        return tuple(np.clip(np.asarray(colour) * clear + self.haze * (1 - clear), 0, 255).astype(int))

    def fill(self, points: Sequence[Point], z: float, colour: Colour, name: str | None) -> None:
        """A flat shape at distance z; points are (x, y). Without a name it leaves the ids alone."""
        outline = [self.at(x, y, z) for x, y in points]
        ImageDraw.Draw(self.picture).polygon(outline, fill=self.hazy(colour, z))
        if name:
            ImageDraw.Draw(self.ids).polygon(outline, fill=ID[name])

    def box(
        self, x: float, y: float, width: float, height: float, z: float, colour: Colour, name: str | None
    ) -> None:
        """A rectangle that stands upright; x is its middle, y its foot."""
        left, right = x - width / 2, x + width / 2
        self.fill([(left, y), (right, y), (right, y + height), (left, y + height)], z, colour, name)

    def disc(
        self, x: float, y: float, radius: float, z: float, colour: Colour, name: str | None, flat: float = 1
    ) -> None:
        """A disc about (x, y), or an ellipse of `flat` times its height."""
        turn = np.linspace(0, 2 * np.pi, 18)
        points = zip(x + radius * np.cos(turn), y + flat * radius * np.sin(turn), strict=True)
        self.fill([*points], z, colour, name)

    def shadow(self, x: float, z: float, width: float) -> None:
        """Darkens the ground under a thing."""
        (u, v), half = self.at(x, 0, z), self.focal * width / z / 2
        ellipse = (u - half, v - half / 7, u + half, v + half / 7)
        ImageDraw.Draw(self.picture, "RGBA").ellipse(ellipse, fill=(20, 20, 28, 120))


def noise(rng: np.random.Generator, size: Size, cells: int) -> np.ndarray:
    """Smooth noise (H, W) of standard deviation 1, with about `cells` bumps from left to right."""
    rows = max(2, round(cells * size[0] / size[1]))
    smooth = smooth_noise(rng, (rows, cells), size)
    return smooth / smooth.std()


def ground_and_walls(rng: np.random.Generator, canvas: Canvas, road: float) -> None:
    """Sky, ground and the rows of houses on both sides, pixel by pixel: what does a ray hit first?

    road: half of its width in metres. Drawn in the size that is handed out, which is quicker.
    """
    size = canvas.height // FINE, canvas.width // FINE
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float32) * FINE + (FINE - 1) / 2
    side, up = (u - canvas.centre) / canvas.focal, (canvas.horizon - v) / canvas.focal  # (H, W), at z = 1
    texture = 1 + 0.04 * noise(rng, size, 12) + 0.04 * noise(rng, size, 200)
    ids = np.full(size, ID["sky"], np.uint8)
    top = np.array((205, 210, 216)) + rng.uniform() * np.array((-85, -50, 0))  # grey to blue
    share = np.clip(up / up.max(), 0, 1)[..., None] ** 0.6
    clouds = rng.uniform(0, 22) * np.clip(noise(rng, size, 7), 0, 2)
    colour = canvas.haze * (1 - share) + top * share + clouds[..., None]  # (H, W, 3)

    depth = np.where(up < 0, EYE / np.maximum(-up, 1e-3), 1e3)  # m, of the first thing on a ray
    kind, tone = pavement(rng, side * depth, depth, road)
    ids[up < 0], colour[up < 0] = kind[up < 0], (tone * texture[..., None])[up < 0]

    front = road + rng.uniform(2, 5)  # how far the houses stand from the middle
    for sign in (-1, 1):
        z = np.minimum((front + rng.uniform(0, 2)) / np.maximum(sign * side, 1e-3), 1e3)  # of the wall
        kind, tone, height = facade(rng, z, up * z + EYE)
        hit = (kind != 0) & (z < FAR) & (z < depth) & (up * z + EYE < height)
        sun = rng.uniform(0.7, 1.1)  # one side of a street has it
        ids[hit], colour[hit] = kind[hit], (sun * tone * texture[..., None])[hit]
        depth = np.where(hit, z, depth)

    clear = np.where(ids == ID["sky"], 1, np.exp(-canvas.thickness * depth))[..., None]
    colour = colour * clear + canvas.haze * (1 - clear)
    picture = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    canvas.picture = picture.resize((canvas.width, canvas.height), Image.Resampling.BILINEAR)
    canvas.ids = Image.fromarray(ids).resize((canvas.width, canvas.height), Image.Resampling.NEAREST)


def pavement(
    rng: np.random.Generator, x: np.ndarray, z: np.ndarray, road: float
) -> tuple[np.ndarray, np.ndarray]:
    """What lies on the ground at the points (x, z): ids (H, W) and colours (H, W, 3)."""
    away, walk = np.abs(x), road + rng.uniform(1.8, 4.0)  # to the pavement's outer edge
    lanes = road - (2.2 if rng.random() < 0.3 else 0)  # the rest is for parking
    lawn = (away > walk - 1.2) & np.where(x < 0, *(rng.random(2) < 0.35))
    places = [away < lanes, away < road, lawn, away < walk]
    names = ["road", "parking", "terrain", "sidewalk", "ground"]
    ids = np.select(places, [ID[name] for name in names[:4]], ID["ground"]).astype(np.uint8)
    grey = rng.uniform(70, 120) * np.ones(3)
    tones = np.zeros((len(LABELS), 3))
    tones[[ID[name] for name in names]] = [
        grey * (1, 1, 1.04),
        grey * rng.uniform(0.85, 1.2),
        np.array((105, 118, 62)) * rng.uniform(0.7, 1.1),
        grey * rng.uniform(1.0, 1.5) * (1.02, 1, 0.96),
        grey * rng.uniform(0.9, 1.3) * (1, 0.98, 0.94),
    ]
    colour = tones[ids]
    joints = ((x % 0.8 < 0.06) | (z % 0.8 < 0.06)) & (z < 18) & (away > road) & ~lawn
    ruts = np.exp(-(((away - 1.9) / 0.5) ** 2))  # where the tyres run
    colour *= (1 - 0.1 * joints - 0.07 * ruts)[..., None]
    dash, crossing = rng.uniform(3, 6), rng.uniform(9, 45)  # m; most are too far to be seen
    white = (away < 0.08) & ((z + rng.uniform(0, 10)) % (2 * dash) < dash)
    white |= (np.abs(away - lanes + 0.25) < 0.06) & (rng.random() < 0.5)
    white |= (np.abs(z - crossing) < 1.6) & (x % 1.0 < 0.5)
    colour[white & (away < lanes)] = (215, 215, 208)
    colour[(np.abs(away - road) < 0.09) & (z < 60)] = (165, 163, 158)  # the kerb
    return ids, colour


def facade(
    rng: np.random.Generator, z: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row of houses, walls, fences and gaps: ids (H, W), colours (H, W, 3) and heights (H, W)."""
    starts = np.cumsum(rng.uniform(7, 22, 25)) - 20
    names = rng.choice(["building", "wall", "fence", "gap"], 25, p=[0.7, 0.1, 0.1, 0.1])
    heights = {"building": (7, 19), "wall": (1.6, 3.2), "fence": (1.1, 1.9), "gap": (0, 0)}
    height = np.array([rng.uniform(*heights[name]) for name in names])
    plaster = np.array([(168, 150, 128), (186, 178, 164), (140, 92, 74), (150, 150, 152), (196, 182, 140)])
    tones = rng.choice(plaster, 25) * rng.uniform(0.65, 1.2, (25, 1))
    each = np.searchsorted(starts, z).clip(1, 25) - 1  # (H, W), which piece of the row
    along, name, tone = z - starts[each], names[each], tones[each]
    house, floor = (name == "building")[..., None], y % 3.2
    window = (along % 3.1 > 1.5) & (floor > 1.2) & (floor < 2.6) & (y > 3.2)
    shop = (y > 0.5) & (y < 2.9) & (along % 4.7 > 1.1)
    tone = np.where(
        house & (window | shop)[..., None], (62, 72, 88) + 25 * rng.uniform(-1, 2, (25, 1))[each], tone
    )
    tone = np.where(house & (floor < 0.16)[..., None], 0.86 * tone, tone)  # ledges
    between = (name == "fence") & (along % 0.5 > 0.12) & (y < height[each] - 0.15)
    tone = np.where(between[..., None], 0.55 * tone, tone)
    ids = np.array([ID.get(name, 0) for name in names], np.uint8)
    return ids[each], tone, height[each]


def tree(rng: np.random.Generator, canvas: Canvas, x: float, z: float) -> None:
    """A trunk and a crown of many leaves; a hedge, one time in four."""
    green = np.array((78, 102, 48)) * rng.uniform(0.55, 1.1) * rng.uniform(0.85, 1.15, 3)
    hedge = rng.random() < 0.25
    tall, wide = (rng.uniform(0.8, 1.6), rng.uniform(1.5, 3)) if hedge else rng.uniform((4, 1.4), (8, 2.8))
    if not hedge:
        canvas.box(x, 0, 0.28, tall, z, (74, 62, 52), "vegetation")
    leaves = int(np.clip(1500 / z, 50, 150))
    spots = rng.normal(size=(leaves, 2)) * ((wide / 2.2, tall / 4) if hedge else (wide / 2.2, wide / 2.6))
    light = rng.uniform(0.55, 1.35, leaves)
    for (dx, dy), shade in sorted(zip(spots, light, strict=True), key=lambda spot: spot[1]):
        y = max(0.15, (tall / 2 if hedge else tall) + dy)
        canvas.disc(x + dx, y, rng.uniform(0.12, 0.38), z, green * (shade + 0.08 * dy), "vegetation")


def car(rng: np.random.Generator, canvas: Canvas, x: float, z: float, name: str = "car") -> None:
    """A car, truck, bus or train: its outline swept from the far end to the near one, panes, lamps."""
    width, tall, long = {
        "car": (1.8, rng.uniform(1.35, 1.8), 4.2),
        "truck": (2.4, rng.uniform(2.7, 3.6), 8.0),
        "bus": (2.5, 3.1, 11.0),
        "train": (2.5, 3.4, 25.0),
    }[name]
    paints = [(190, 192, 196), (40, 42, 48), (120, 122, 128), (150, 34, 34), (38, 62, 110), (225, 225, 222)]
    paint, glass = rng.choice(paints) * rng.uniform(0.75, 1.1), np.array((46, 54, 66))
    low = name == "car"
    body, sill, rim = (0.58 * tall, 0.6 * tall, 0.94 * tall) if low else (tall, 0.5 * tall, 0.88 * tall)
    canvas.shadow(x, z + 0.3, 1.25 * width)
    for step in np.linspace(long, 0, 9):
        shade = paint * (0.62 if step else 1.0)
        canvas.box(x, 0.28, width, body - 0.28, z + step, shade, name)
        if low and step < 3:
            roof = [(-0.46, body), (0.46, body), (0.36, tall), (-0.36, tall)]
            canvas.fill([(x + dx * width, y) for dx, y in roof], z + max(step, 0.6), shade, name)
    inner = x - np.sign(x) * width / 2  # the side that shows
    for start in {"car": [1.0], "truck": []}.get(name, np.arange(1, long - 2, 2).tolist()):
        corners = [(start, sill), (start + 1.5, sill), (start + 1.5, rim), (start, rim)]
        pane = [canvas.at(inner, y, z + step) for step, y in corners]
        ImageDraw.Draw(canvas.picture).polygon(pane, fill=canvas.hazy(glass, z + start))
    if name == "truck":  # two doors
        canvas.box(x, 0.35 * tall, 0.04, 0.55 * tall, z, paint * 0.6, None)
    else:
        pane = [(-0.4, sill), (0.4, sill), (0.33, rim), (-0.33, rim)]
        canvas.fill([(x + dx * width, y) for dx, y in pane], z, glass, None)
    lamp = (190, 40, 34) if x > 0 else (236, 232, 205)  # tail lights on our side of the street
    for dx in (-0.36 * width, 0.36 * width):
        canvas.box(x + dx, 0, 0.24, 0.4, z, (26, 26, 28), name)
        canvas.box(x + 1.12 * dx, 0.46 * min(tall, 1.8), 0.26, 0.14, z, lamp, None)
    canvas.box(x, 0.42, 0.5, 0.12, z, (230, 230, 225), None)  # the licence plate has no id of its own


def person(
    rng: np.random.Generator, canvas: Canvas, x: float, z: float, y: float = 0, name: str = "person"
) -> None:
    """Legs in mid-step, a coat, arms, a head."""
    tall = rng.uniform(1.55, 1.9)
    hip, shoulder = y + 0.46 * tall, y + 0.8 * tall
    coat, legs = (rng.uniform(30, 190) * rng.uniform(0.6, 1.4, 3) for _ in range(2))
    skin, step = rng.choice([(222, 184, 158), (150, 106, 78), (196, 150, 120)]), rng.uniform(-0.25, 0.25)
    if name == "person":
        canvas.shadow(x, z, 0.9)
    for foot in (-step, step):
        leg = [(0.3 * foot - 0.1, hip), (0.3 * foot + 0.1, hip), (foot + 0.07, y), (foot - 0.07, y)]
        canvas.fill([(x + dx, dy) for dx, dy in leg], z, legs * 0.7, name)
    body = [(-0.17, hip - 0.05), (0.17, hip - 0.05), (0.24, shoulder), (-0.24, shoulder)]
    canvas.fill([(x + dx, dy) for dx, dy in body], z, coat, name)
    for side in (-1, 1):
        arm = [(0.2, shoulder), (0.24 + abs(step) / 2, hip), (0.15 + abs(step) / 2, hip)]
        canvas.fill([(x + side * dx, dy) for dx, dy in arm], z, coat * 0.85, name)
    canvas.disc(x, y + 0.91 * tall, 0.065 * tall, z, skin, name, flat=1.25)
    canvas.disc(x, y + 0.955 * tall, 0.06 * tall, z, skin * rng.uniform(0.15, 0.6), name, flat=0.6)


def cycle(rng: np.random.Generator, canvas: Canvas, x: float, z: float) -> None:
    """A bicycle or a motorcycle, seen from the side, most times with somebody on it."""
    name, half = ("motorcycle", 0.13) if rng.random() < 0.35 else ("bicycle", 0.05)  # m, half a tube
    tone, radius = rng.uniform(25, 140) * rng.uniform(0.6, 1.4, 3), 0.34
    canvas.shadow(x, z, 1.8)
    if rng.random() < 0.7:
        person(rng, canvas, x - 0.05, z + 0.02, 0.42, "rider")
    for hub in (x - 0.55, x + 0.55):  # what shows between the spokes is marked too, as annotators do
        canvas.disc(hub, radius, radius, z, (28, 28, 30), name)
        canvas.disc(hub, radius, radius - 2 * half, z, (105, 105, 108), name)
    tubes = [
        (-0.55, 0.34, -0.1, 0.9),
        (-0.1, 0.9, 0.42, 0.86),
        (0.42, 0.95, 0.55, 0.34),
        (-0.1, 0.4, 0.42, 0.86),
    ]
    for a, b, c, d in tubes:
        tube = [(a, b - half), (a, b + half), (c, d + half), (c, d - half)]
        canvas.fill([(x + dx, y) for dx, y in tube], z, tone, name)
    if name == "motorcycle":
        tank = [(-0.5, 0.4), (0.4, 0.4), (0.35, 0.95), (-0.45, 0.8)]
        canvas.fill([(x + dx, y) for dx, y in tank], z, tone, name)


def pole(rng: np.random.Generator, canvas: Canvas, x: float, z: float) -> None:
    """A mast that carries a traffic light, a sign, a lamp, or nothing."""
    tall, grey = rng.uniform(2.6, 5.5), np.full(3, rng.uniform(70, 150))
    canvas.box(x, 0, 0.13, tall, z, grey, "pole")
    carries = rng.choice(["light", "sign", "lamp", "nothing"], p=[0.3, 0.4, 0.2, 0.1])
    if carries == "light":
        canvas.box(x, tall - 0.1, 0.42, 1.05, z, (34, 36, 36), "traffic light")
        on = rng.integers(3)
        for i, lamp in enumerate(np.array([(70, 220, 130), (250, 190, 60), (235, 60, 50)])):
            canvas.disc(x, tall + 0.1 + 0.32 * i, 0.12, z, lamp * (1 if i == on else 0.3), None)
    elif carries == "sign":
        blue, red, white = (44, 88, 168), (196, 40, 44), (236, 236, 232)
        kind = rng.integers(3)
        if kind == 0:
            canvas.box(x, tall - 0.3, 0.7, 0.7, z, blue, "traffic sign")
            canvas.box(x, tall - 0.15, 0.18, 0.4, z, white, None)
        elif kind == 1:
            canvas.disc(x, tall, 0.38, z, red, "traffic sign")
            canvas.disc(x, tall, 0.26, z, white, None)
        else:
            for size, paint in ((1, red), (0.6, white)):
                corners = [(x - 0.45 * size, tall - 0.25 * size), (x + 0.45 * size, tall - 0.25 * size)]
                canvas.fill([*corners, (x, tall + 0.5 * size)], z, paint, "traffic sign")
    elif carries == "lamp":
        reach = x - np.sign(x) * 1.2
        arm = [(x, tall - 0.06), (x, tall + 0.06), (reach, tall + 0.3), (reach, tall + 0.2)]
        canvas.fill(arm, z, grey, "pole")


def bin_or_cabinet(rng: np.random.Generator, canvas: Canvas, x: float, z: float) -> None:
    """A thing that Cityscapes marks as "static", which is not learnt."""
    canvas.shadow(x, z, 1.0)
    canvas.box(x, 0, rng.uniform(0.5, 0.9), rng.uniform(0.8, 1.4), z, rng.uniform(40, 130, 3), "static")


Draw = Callable[[np.random.Generator, Canvas, float, float], None]  # at x and z


def things(rng: np.random.Generator, road: float) -> list[tuple[float, Draw, float]]:
    """What stands and moves in the street: (distance, who draws it, x), the farthest first."""
    found: list[tuple[float, Draw, float]] = []

    def strew(draw: Draw, most: float, places: tuple[float, float], near: float, far: float) -> None:
        for _ in range(rng.poisson(most)):
            x = rng.choice((-1, 1)) * rng.uniform(*places)
            found.append((near * (far / near) ** rng.uniform(), draw, x))

    def vehicle(rng: np.random.Generator, canvas: Canvas, x: float, z: float) -> None:
        name = rng.choice(["car", "truck", "bus", "train"], p=[0.72, 0.12, 0.11, 0.05])
        car(rng, canvas, x, z, name)

    strew(tree, 5, (road + 0.8, road + 5), 8, 70)
    strew(pole, 6, (road + 0.3, road + 1.5), 6, 50)
    strew(person, 5, (road + 0.2, road + 3), 5, 40)
    strew(person, 0.8, (0.5, road), 9, 30)
    strew(cycle, 1.6, (0.8, road + 1), 6, 28)
    strew(car, 3.5, (road - 1.3, road - 0.9), 8, 60)  # parked
    strew(vehicle, 1.8, (1.5, 2.6), 11, 70)  # under way
    strew(bin_or_cabinet, 0.8, (road + 0.6, road + 2.5), 6, 25)
    return sorted(found, key=lambda thing: -thing[0])


def street(seed: int, size: Size = (256, 512)) -> tuple[np.ndarray, np.ndarray]:
    """Draws a street: the picture, uint8 (3, H, W), and the ids of Cityscapes' files, uint8 (H, W).

    The same seed and size always give the same picture, and another size the same street. Horizon, vanishing
    point, lens, light, haze and everything in the street are drawn anew for each seed.

    Raises:
        ValueError: if the size is not H x 2 H, as Cityscapes' is, with at least 16 rows.
    """
    if size[1] != 2 * size[0] or size[0] < 16:
        raise ValueError(
            f"street: the size is {size[0]} x {size[1]}; a scene is twice as wide as high, 16 x 32 at least."
        )
    rng, grain = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    canvas, road = Canvas(rng, size), rng.uniform(3.2, 6.5)
    ground_and_walls(rng, canvas, road)
    for z, draw, x in things(rng, road):
        draw(rng, canvas, x, z)
    bonnet(rng, canvas)

    picture = canvas.picture.resize(size[::-1], Image.Resampling.BOX)
    picture = picture.filter(ImageFilter.GaussianBlur(0.0004 * size[1]))
    pixels = np.asarray(picture, np.float32) * rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3)
    pixels += grain.standard_normal((*size, 3), np.float32) * rng.uniform(1, 5)
    ids = np.array(canvas.ids)[::FINE, ::FINE]
    edge = max(1, size[0] // 200)  # Cityscapes has no labels along the border
    for side in (ids[:edge], ids[-edge:], ids[:, :edge], ids[:, -edge:]):
        side[...] = ID["out of roi"]
    image = np.clip(pixels, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    if rng.random() < 0.5:
        image, ids = image[..., ::-1], ids[..., ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(ids)


def bonnet(rng: np.random.Generator, canvas: Canvas) -> None:
    """The camera's own car at the lower edge, with a sheen."""
    rise, middle = canvas.height * rng.uniform(0.03, 0.11), canvas.width * rng.uniform(0.45, 0.55)
    for i in range(8):
        top, half = canvas.height - rise * (1 - i / 8), canvas.width * (0.62 - 0.05 * i)
        ellipse = (middle - half, top, middle + half, top + 3 * rise)
        ImageDraw.Draw(canvas.picture).ellipse(ellipse, fill=(30 + 6 * i, 32 + 6 * i, 36 + 6 * i))
        if i == 0:
            ImageDraw.Draw(canvas.ids).ellipse(ellipse, fill=ID["ego vehicle"])


class SyntheticStreets(SyntheticSet):
    """Synthetic street scenes in 19 classes; `part` is "train" or "val". See `SyntheticSet`."""

    def __init__(self, part: str, length: int = 20, size: Size = (256, 512), seed: int = 0):
        super().__init__(("train", "val"), part, length, size, seed)

    def draw(self, seed: int) -> Example:
        image, ids = street(seed, self.size)
        return Example(f"street-{seed}", image, train_ids(ids), num_classes=len(CLASSES))


def write_streets(root: str | Path, part: str, length: int, size: Size = (256, 512), seed: int = 0) -> None:
    """Writes the scenes of `SyntheticStreets` as files in Cityscapes' layout, from a city named "drawn".

    Below `root`: leftImg8bit/PART/drawn/*_leftImg8bit.png and gtFine/PART/drawn/*_gtFine_labelIds.png.
    """
    for number in SyntheticStreets(part, length, size, seed).seeds:
        image, ids = street(number, size)
        pictures = {
            "leftImg8bit": ("leftImg8bit", image.transpose(1, 2, 0)),
            "gtFine": ("gtFine_labelIds", ids),
        }
        for folder, (ending, pixels) in pictures.items():
            city = Path(root) / folder / part / "drawn"
            city.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(city / f"drawn_{seed:06d}_{number:06d}_{ending}.png")


@DATASETS.add("streets")
def scenes(
    part: str, protocol: str = "", *, train: int, test: int, size: Size, seed: int
) -> SyntheticStreets:
    """The set as recipes open it, with the parts of Cityscapes: its test is the validation part."""
    number = {"train": train, "test": test}[part]
    return SyntheticStreets("val" if part == "test" else part, number, size, seed)
