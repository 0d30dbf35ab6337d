"""From uint8 images on the device to training batches: windows, augmentation, normalisation, all as tensors.

A 40,000-iteration run of 16 windows reads 640,000 windows: done image by image on the CPU it would wait for
its data. Here the whole data set lies on the device as uint8 and a batch is a handful of tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.pixels import IGNORE, Size


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training window. Probabilities are 0.5 where there is a choice.

    scale: factor of the image's size, uniform in this range, or (scale_step > 0) one of low, low + step, ...,
    high. rotate: degrees, uniform in ± this. elastic: nine points of the window, three by three from corner
    to corner, are shifted by a Gaussian of so many pixels, and all between them smoothly (Ronneberger et al.,
    2015, section 3.1). flips: any of "h" (left-right), "v" (up-down, for a share `flip_v` of the windows) and
    "t" (on the diagonal; all three together make quarter turns). max_share: draw the window again (at most 10
    times) while one class covers this share of it or more; 1 switches the rule off. photometric: brightness,
    contrast, saturation and hue as "mmseg" or "paddleseg" change them. jitter: contrast factor and brightness
    shift, uniform in ± this, in units of the normalised image.

    Raises:
        ValueError: a flip or a photometric change that there is not.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    scale_step: float = 0.0
    rotate: float = 0.0
    elastic: float = 0.0
    flips: str = ""
    flip_v: float = 0.5
    max_share: float = 1.0
    photometric: str = ""
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not set(self.flips) <= set("hvt"):
            raise ValueError(f"An augmentation's flips are letters of 'hvt', not {self.flips!r}.")
        if self.photometric not in ("", *PHOTOMETRICS):
            known = ", ".join(map(repr, PHOTOMETRICS))
            raise ValueError(f"An augmentation's photometric is '', {known}, not {self.photometric!r}.")


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images of any sizes, pixel by pixel and one behind the other.

    Attributes:
        values: (P, C) of images, (P,) of labels.
        start, height, width: int64 (N,), the first pixel of each image, and its size.
        apart: they are too many for the device, and all of it lies in the memory of the host.
    """

    values: Tensor
    start: Tensor
    height: Tensor
    width: Tensor
    apart: bool = False

    @staticmethod
    def of(stack: Tensor) -> Pixels:
        """The pixels of images (N, C, H, W), not copied if stored channels last, or of labels (N, H, W)."""
        height, width = stack.shape[-2:]
        values = stack.movedim(1, -1).flatten(0, 2) if stack.ndim == 4 else stack.flatten()
        start = torch.arange(len(stack), device=stack.device) * (height * width)
        return Pixels(values, start, torch.full_like(start, height), torch.full_like(start, width))

    @staticmethod
    def gather(images: Iterable[Tensor], count: int, device: str, limit: float = math.inf) -> Pixels:
        """The pixels of `count` images (C, H, W) or labels (H, W), read one after the other.

        A set as large as Cityscapes must not lie in memory twice, so it grows only where sizes do. One that
        comes to more than `limit` bytes is kept apart, where a GPU can fetch it by itself (pinned).
        """
        values, filled, sizes, apart = torch.empty(0), 0, [], False
        pin = torch.device(device).type == "cuda"
        for done, image in enumerate(images):
            flat = image.movedim(0, -1).flatten(0, 1) if image.ndim == 3 else image.flatten()
            need = filled + len(flat)
            if need > len(values):
                room = (need * count // (done + 1), *flat.shape[1:])
                apart = apart or math.prod(room) * flat.itemsize > limit
                where = {"device": "cpu", "pin_memory": pin} if apart else {"device": device}
                values = _moved(values[:filled], torch.empty(room, dtype=flat.dtype, **where))
            values[filled:need] = flat
            sizes.append((filled, *image.shape[-2:]))
            filled = need
        places = torch.tensor(sizes, device=values.device).reshape(-1, 3)
        start, height, width = places.unbind(1)
        return Pixels(values[:filled], start, height, width, apart)

    def __len__(self) -> int:
        return len(self.start)

    def fetched(self, index: Tensor, device: str) -> Pixels:
        """The images `index` (B,) alone, copied to the device."""
        places = [(int(self.start[i]), int(self.height[i]), int(self.width[i])) for i in index]
        count = sum(math.prod(size) for _, *size in places)
        values = self.values.new_empty(count, *self.values.shape[1:], device=device)
        sizes, filled = [], 0
        for first, *size in places:
            pixels = self.values[first : first + math.prod(size)]
            values[filled : filled + len(pixels)].copy_(pixels, non_blocking=True)
            sizes.append((filled, *size))
            filled += len(pixels)
        start, height, width = torch.tensor(sizes, device=device).unbind(1)
        return Pixels(values, start, height, width)

    def frames(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First pixel, height and width of the images `index` (B,), each (B, 1, 1)."""
        start, height, width = (each[index][:, None, None] for each in (self.start, self.height, self.width))
        return start, height, width


def _moved(values: Tensor, room: Tensor) -> Tensor:
    if len(values):
        room[: len(values)] = values
    return room


class Draws(torch.Generator):
    """A generator for some of the windows of a batch, every N-th, as one of N processes cuts them.

    It draws for all of them and keeps the numbers of its own: a window looks the same whoever cuts it.
    """

    share = slice(0, None, 1)  # which windows: first, (no last), N


def sample_batch(
    images: Tensor | Pixels,
    labels: Tensor | Pixels,
    index: Tensor,
    crop: Size,
    augment: Augmentation,
    generator: torch.Generator,
    num_classes: int = 2,
) -> tuple[Tensor, Tensor]:
    """Cut a random window of `crop` (height, width) pixels from each image of `index`.

    images: uint8 (N, C, H, W), or `Pixels` where their sizes differ. labels: uint8 (N, H', W') likewise,
    finer than the images where these were shrunk, so that labels need no averaging. index: int64 (B,), which
    images. Returns float32 (B, C, h, w) in [0, 1] and int64 (B, h, w). Image and label are read at the same
    places, the image bilinearly, the label at the nearest pixel; outside of the image they are black and 255
    (ignore).

    Source: mmsegmentation 0.30, datasets/pipelines/transforms.py (Resize, RandomCrop with cat_max_ratio).
    """
    tries = 11 if augment.max_share < 1 else 1  # one draw and ten more
    images, labels = (x if isinstance(x, Pixels) else Pixels.of(x) for x in (images, labels))
    size, fine = (torch.stack([x.height[index], x.width[index]])[..., None, None] for x in (images, labels))
    ratio = (fine / size.double()).float() if index.device.type != "mps" else fine / size  # (2, B, 1, 1)
    places, offsets = _window_grid(size, tries, crop, augment, generator)
    accepted = torch.zeros(len(index), 1, 1, dtype=torch.bool, device=index.device)
    grid, window = offsets, labels.values.new_zeros(len(index), *crop)
    for place in places:
        here = place + offsets  # (2, B, h, w): y and x of every pixel
        seen = _read_nearest(labels, index, *((here + 0.5) * ratio - 0.5))  # (B, h, w)
        grid, window = torch.where(accepted, grid, here), torch.where(accepted, window, seen)
        accepted = accepted | (_largest_share(seen, num_classes) < augment.max_share)[:, None, None]
        if index.device.type == "cpu" and accepted.all():  # on a GPU the question would make every step wait
            break
    whole = augment.scale == (1.0, 1.0) and not (augment.rotate or augment.elastic)  # quarter turns at most
    read = _read_whole if whole else _read_bilinear
    return read(images, index, *grid), window.long()


def photometric_distortion(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, each for half of the images; (B, 3, H, W) in [0, 1].

    Brightness + U(-32, 32) / 255; contrast x U(0.5, 1.5), before the colours or after them by a fair coin;
    saturation x U(0.5, 1.5); hue turned by up to ±36 degrees. Clipped to [0, 1] after each step.

    Source: mmsegmentation 0.30, PhotoMetricDistortion (there on uint8, here without rounding).
    """

    def draw(low: float, high: float, neutral: float) -> Tensor:
        values = _uniform(generator, low, high, len(images))
        use = _uniform(generator, 0, 1, len(images)) < 0.5
        return torch.where(use, values, neutral)[:, None, None, None]  # (B, 1, 1, 1)

    contrast = draw(0.5, 1.5, 1)
    early = _uniform(generator, 0, 1, len(images), 1, 1, 1) < 0.5
    images = (images + draw(-32 / 255, 32 / 255, 0)).clamp(0, 1)
    images = (images * torch.where(early, contrast, 1)).clamp(0, 1)
    hue, saturation, value = rgb_to_hsv(images).unbind(1)
    saturation = (saturation * draw(0.5, 1.5, 1)[:, 0]).clamp(0, 1)
    hue = (hue + draw(-0.1, 0.1, 0)[:, 0]) % 1
    images = hsv_to_rgb(torch.stack([hue, saturation, value], dim=1))
    return (images * torch.where(early, 1, contrast)).clamp(0, 1)


def colour_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """PaddleSeg's brightness, contrast, saturation and hue; (B, 3, H, W) in [0, 1].

    Each for half of the images and in an order of its own for each image. The first three mix the image with
    black, with its mean grey and with its own grey version, at a factor U(0.6, 1.4); hue is turned by up to
    18 / 255 of the circle. Clipped to [0, 1] after each step.

    Source: PaddleSeg, transforms/transforms.py, RandomDistort (there on uint8, here without rounding).
    """
    count = len(images)
    order = _uniform(generator, 0, 1, 4, count, windows=1).argsort(
        dim=0
    )  # (4, B): what comes first, second, ...
    use = _uniform(generator, 0, 1, 4, count, windows=1) < 0.5  # (4, B)
    factor = torch.where(use, _uniform(generator, 0.6, 1.4, 4, count, windows=1), 1)[:, :, None, None, None]
    turn = torch.where(use[3], _uniform(generator, -18 / 255, 18 / 255, count), 0)[:, None, None]  # (B, 1, 1)
    for which in order:
        grey = rgb_to_grey(images)  # (B, 1, H, W)
        hue, saturation, value = rgb_to_hsv(images).unbind(1)
        results = [
            images * factor[0],
            grey.mean(dim=(2, 3), keepdim=True).lerp(images, factor[1]),
            grey.lerp(images, factor[2]),
            hsv_to_rgb(torch.stack([(hue + turn) % 1, saturation, value], dim=1)),
        ]
        images = torch.stack(results)[which, torch.arange(count, device=images.device)].clamp(0, 1)
    return images


PHOTOMETRICS = {"mmseg": photometric_distortion, "paddleseg": colour_jitter}


def normalise(images: Tensor, how: str) -> Tensor:
    """Shift and scale images (B, 3, H, W) in [0, 1] as a network expects them.

    "imagenet": by ImageNet's mean and deviation (OpenMMLab); "half": to [-1, 1] (PaddleSeg); "image": each
    channel of each image to mean 0, deviation 1; "maximum": divided by its own largest value, then as
    "imagenet" (U²-Net). Cut windows only *after* "image", which needs the whole image, and *before*
    "maximum", as its authors do.

    Raises:
        ValueError: `how` is not one of these.
    """
    mean, std = normalisation(images, how)
    return (images - mean) / std


def normalisation(images: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """The mean and deviation that `normalise` uses: two tensors that broadcast to (B, 3, H, W)."""
    if how == "image":
        correction = 1 if images[0, 0].numel() > 1 else 0  # one pixel deviates from nothing
        std, mean = torch.std_mean(images.float(), dim=(2, 3), keepdim=True, correction=correction)
        return mean, std.clamp(min=1e-6)  # a flat image becomes all zero
    if how == "maximum":
        top = images.amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        top = torch.where(top > 0, top, 1)
        mean, std = normalisation(images, "imagenet")
        return mean * top, std * top
    if how not in NORMALISATIONS:
        raise ValueError(
            f"Unknown normalisation {how!r}: choose 'image', 'maximum', "
            f"{', '.join(map(repr, NORMALISATIONS))}."
        )
    mean, std = (_channels(x, images.device) for x in NORMALISATIONS[how])  # (1, 3, 1, 1)
    return mean, std


NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def jitter(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Contrast times 1 ± amount and brightness ± amount, one draw an image; for normalised (B, 3, H, W)."""
    gain = _uniform(generator, 1 - amount, 1 + amount, len(images), 1, 1, 1)
    return images * gain + _uniform(generator, -amount, amount, len(images), 1, 1, 1)


def shrunk_size(size: Size, side: int) -> Size:
    """The (height, width) of `size` after shrinking the long side to at most `side` pixels.

    In whole numbers, and the larger one as PyTorch takes it, so that it also works on the unknown sizes of
    a graph that is exported.
    """
    long = torch.sym_max(torch.sym_max(*size), side)
    height, width = (torch.sym_max((2 * length * side + long) // (2 * long), 1) for length in size)
    return height, width


def resize(maps: Tensor, size: Size) -> Tensor:
    """Resize float (..., C, H, W) bilinearly to `size`, averaging over what falls together when shrinking."""
    batch = maps if maps.ndim == 4 else maps[None]
    small = F.interpolate(batch, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return small if maps.ndim == 4 else small[0]


def read_points(maps: Tensor, size: Size) -> Tensor:
    """Read float (..., C, H, W) at the centres of (..., C, *size): bilinear of four pixels, black outside.

    Unlike `resize` it does not average when shrinking: as scikit-image 0.14 resizes, which does not go below
    the darkest value of the picture.
    """
    rows, columns = (_neighbours(maps, dim, count) for dim, count in zip((-2, -1), size, strict=True))
    read = [maps[..., y[:, None], x] * (a[:, None] * b) for y, a in rows for x, b in columns]
    darkest = maps.amin(dim=(-3, -2, -1), keepdim=True)
    return torch.maximum(read[0] + read[1] + read[2] + read[3], darkest)  # (..., C, *size)


def _neighbours(maps: Tensor, dim: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """The pixels before and after each of `count` centres along a dimension: index and share, (count,)."""
    length = maps.shape[dim]
    at = (torch.arange(count, dtype=maps.dtype, device=maps.device) + 0.5) * length / count - 0.5
    both = at.floor(), at.floor() + 1
    shares = [(1 - (at - pixel).abs()) * ((pixel >= 0) & (pixel < length)) for pixel in both]
    return [(pixel.long().clamp(0, length - 1), share) for pixel, share in zip(both, shares, strict=True)]


def rgb_to_grey(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): the luma of ITU-R 601, as Pillow's mode L."""
    return (rgb * _channels((0.299, 0.587, 0.114), rgb.device)).sum(dim=1, keepdim=True)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> hue, saturation, value, all in [0, 1]; hue 0 is red, 1/3 green."""
    value, top = rgb.max(dim=1)
    spread = value - rgb.min(dim=1).values
    red, green, blue = rgb.unbind(1)
    safe = spread.clamp(min=1e-12)
    sectors = torch.stack([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4], dim=1)
    hue = sectors.gather(1, top[:, None])[:, 0] / 6 % 1
    return torch.stack([hue, spread / value.clamp(min=1e-12), value], dim=1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`."""
    hue, saturation, value = hsv.unbind(1)
    offsets = _channels((5.0, 3.0, 1.0), hsv.device)  # red, green, blue
    k = (offsets + 6 * hue[:, None]) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def _channels(numbers: Sequence[float], device: torch.device) -> Tensor:
    """A number a channel, (1, C, 1, 1), filled in on the device: a list sent there would be waited for."""
    return torch.stack([torch.full((1, 1), number, device=device) for number in numbers])[None]


def _window_grid(
    size: Tensor, tries: int, crop: Size, augment: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Where to read: centres (tries, 2, B, 1, 1) and the pixels around them (2, B, h, w); y and x in pixels.

    size: (2, B, 1, 1), of the images. 0 is the centre of the first pixel. The tries of a window differ in
    their place only.
    """
    device, batch = generator.device, size.shape[1]
    scale = _uniform(generator, *augment.scale, batch, 1, 1)
    if augment.scale_step:
        low, high = augment.scale
        choices = round((high - low) / augment.scale_step) + 1
        scale = low + augment.scale_step * _uniform(generator, 0, choices, batch, 1, 1).floor()
    angle = math.radians(1) * _uniform(generator, -augment.rotate, augment.rotate, batch, 1, 1)
    centre = []
    for side, window in zip(size, crop, strict=True):
        room = (side * scale - window).clamp(min=0).floor()  # how far it may slide on the scaled image
        offset = (
            _uniform(generator, 0, 1, tries, batch, 1, 1, windows=1) * (room + 1)
        ).floor()  # whole pixels
        centre.append((offset + window / 2) / scale - 0.5)
    v, u = torch.meshgrid(
        *(torch.arange(n, device=device) - (n - 1) / 2 for n in crop), indexing="ij"
    )  # (h, w)
    v, u = v / scale, u / scale
    if augment.elastic:
        v, u = torch.stack([v, u]) + _elastic_shifts(crop, augment.elastic, batch, generator) / scale
    if "h" in augment.flips:
        u = u * _sign(generator, batch)
    if "v" in augment.flips:
        v = v * _sign(generator, batch, augment.flip_v)
    if "t" in augment.flips:
        swap = _sign(generator, batch) > 0
        v, u = torch.where(swap, u, v), torch.where(swap, v, u)
    turned = angle.cos() * v - angle.sin() * u, angle.sin() * v + angle.cos() * u
    return torch.stack(centre, dim=1), torch.stack(turned)


def _elastic_shifts(crop: Size, amount: float, batch: int, generator: torch.Generator) -> Tensor:
    """How far the pixels of a window are shifted in y and x, (2, B, h, w): bicubic between 3 x 3 draws."""
    points = amount * _drawn(torch.randn, generator, [2, batch, 3, 3], windows=1)
    return F.interpolate(points, size=tuple(crop), mode="bicubic", align_corners=True)


def _read_nearest(labels: Pixels, index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The labels `index` (B,) at the pixels nearest to y, x (B, h, w); outside is 255."""
    start, height, width = labels.frames(index)
    y, x = y.round().long(), x.round().long()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    place = torch.where(inside, start + y * width + x, start)
    seen = labels.values.index_select(0, place.flatten())  # Apple's GPU has no `take`
    return torch.where(inside, seen.view_as(place), IGNORE)


def _read_whole(images: Pixels, index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """What `_read_bilinear` gives where y and x are whole numbers: one pixel is read instead of four."""
    start, height, width = images.frames(index)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)  # (B, h, w)
    place = torch.where(inside, start + y.long() * width + x.long(), start)
    values = images.values.index_select(0, place.flatten()).unflatten(0, place.shape) / 255  # (B, h, w, C)
    return (values * inside[..., None]).movedim(-1, 1)


def _read_bilinear(images: Pixels, index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The images `index` (B,) at y, x (B, h, w), between four pixels: (B, C, h, w) in [0, 1]."""
    start, height, width = images.frames(index)
    inside = (y.round() >= 0) & (y.round() < height) & (x.round() >= 0) & (x.round() < width)
    # the outermost half pixel repeats the border
    y, x = y.clamp(min=0).minimum(height - 1), x.clamp(min=0).minimum(width - 1)
    top, left = y.floor(), x.floor()
    total = torch.zeros((), device=index.device)
    for row in (top, top + 1):
        line = start + row.long().minimum(height - 1) * width
        for column in (left, left + 1):
            weight = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside  # (B, h, w)
            place = line + column.long().minimum(width - 1)
            corner = images.values.index_select(0, place.flatten()).unflatten(0, place.shape)  # (B, h, w, C)
            total = total + weight[..., None] * corner
    return (total / 255).movedim(-1, 1)


def _largest_share(labels: Tensor, num_classes: int) -> Tensor:
    """The share of the most frequent class in (..., h, w) among pixels that are not ignored; 1 if all are."""
    counts = torch.stack([(labels == c).sum(dim=(-2, -1)) for c in range(num_classes)])  # (K, ...)
    return torch.where(counts.sum(0) > 0, counts.amax(0) / counts.sum(0).clamp(min=1), 1.0)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int, windows: int = 0) -> Tensor:
    """Numbers between low and high; `windows` is the dimension in which the windows lie."""
    return low + (high - low) * _drawn(torch.rand, generator, [*shape], windows)


def _drawn(draw: Callable[..., Tensor], generator: torch.Generator, shape: list[int], windows: int) -> Tensor:
    """Random numbers of this shape, of `Draws` for a share of the windows."""
    share = generator.share if isinstance(generator, Draws) else slice(0, None, 1)
    shape[windows] *= share.step
    numbers = draw(shape, generator=generator, device=generator.device)
    return numbers if share.step == 1 else numbers.movedim(windows, 0)[share].movedim(0, windows)


def _sign(generator: torch.Generator, batch: int, minus: float = 0.5) -> Tensor:
    """-1 for a share `minus`, else 1; (B, 1, 1)."""
    return torch.where(_uniform(generator, 0, 1, batch, 1, 1) < minus, -1.0, 1.0)
