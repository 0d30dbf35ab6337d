"""From a map to a cut-out: how opaque each pixel is, and the colour of the object alone.

A map says how likely a pixel belongs to the object; a cut-out wants to know how much of it does. On the edge
a pixel shows object and background at once, colour = α F + (1 - α) B, and hair or fur is nothing but edge.
So two things are estimated: the opacity α, and the object's colour F, as B would shine as a fringe on any
other background.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from u2learn.data.augment import resize

EDGE = 0.5  # how far the probability rises over the edge of a cut-out, from clear to opaque
RADII = (90, 6)  # of the means that colours are estimated by, in pixels: coarse, then fine
SURE = 0.05  # a map within this of 0 or 1 is sure, where a matte is asked for
REACH = 0.02  # of the long side: so near to what it is not sure of, even a sure map may have missed a hair
MATTED = 1000  # pixels of the long side on which a matte is solved; it grows with its square


def cut_out(photo: Image.Image, sure: Tensor, threshold: float = 0.5, matted: bool = False) -> Image.Image:
    """The object alone: RGBA, opaque where the map `sure` (H, W) is well above the threshold, clear below.

    Over the edge the opacity rises with the map; at the threshold it is a half. `matted`: it is found in the
    photograph instead, see `matte`. Where nothing is seen, the colours are black, so that the background is
    not in the file.

    Raises:
        ImportError: a matte is asked for without the extra "cutout".
    """
    pixels = np.array(photo.convert("RGB"))  # (H, W, 3)
    rgb = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    alpha = matte(rgb, sure.float().cpu()) if matted else ramp(sure.float().cpu(), threshold)
    alpha = alpha.mul(255).round() / 255
    colours = foreground(rgb, alpha) * (alpha > 0)  # (3, H, W)
    rgba = torch.cat([colours, alpha[None]]).mul(255).round().byte()
    return Image.fromarray(rgba.permute(1, 2, 0).numpy())


def ramp(sure: Tensor, threshold: float) -> Tensor:
    """Opacity (H, W) straight from a map: a half at the threshold, over an edge of EDGE."""
    width = max(min(EDGE, 2 * threshold, 2 - 2 * threshold), 1e-6)  # so that 0 is clear and 1 is opaque
    return ((sure - threshold) / width + 0.5).clamp(0, 1)


def matte(photo: Tensor, sure: Tensor) -> Tensor:
    """Opacity (H, W) of the object in a photograph (3, H, W): from its colours where the map is not sure.

    Within any small window the colours of object and of background lie on a line each; then the opacity is a
    linear function of the colour there, and what makes it so everywhere at once is a system of equations.

    Source: Levin et al., 2008 (closed-form matting), as pymatting solves it.
    """
    pymatting = _pymatting()
    size = sure.shape[0], sure.shape[1]
    scale = min(1.0, MATTED / max(size))
    small = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    known = trimap(resize(sure[None], small)[0])  # (h, w)
    if known.unique().numel() < 3:
        return ramp(sure, 0.5)  # nothing to solve, or nothing to solve it from
    colours = resize(photo, small).clamp(0, 1).permute(1, 2, 0).double().numpy()  # (h, w, 3)
    alpha = torch.from_numpy(pymatting.estimate_alpha_cf(colours, known.double().numpy())).float()
    return resize(alpha[None], size)[0].clamp(0, 1)


def trimap(sure: Tensor) -> Tensor:
    """What is object (1) or background (0) for certain in a map (H, W); 0.5 where the photograph must tell.

    Certain is what the map is sure of, and all around it, too, as far as REACH says: a map has no hairs.
    """
    far = round(REACH * max(sure.shape))
    background, thing = (_eroded(some, far) for some in (sure < SURE, sure > 1 - SURE))
    return torch.where(thing, 1.0, torch.where(background, 0.0, 0.5))


def _eroded(mask: Tensor, by: int) -> Tensor:
    """The pixels of a mask (H, W) that have none of the rest within so many pixels."""
    return F.max_pool2d((~mask)[None].float(), 2 * by + 1, 1, by)[0] == 0


def foreground(photo: Tensor, alpha: Tensor) -> Tensor:
    """The object's own colours (3, H, W) in a photograph (3, H, W); opacity (H, W).

    Around a pixel, the object's colour is the mean of colours weighted by α, the
    background's that weighted by 1 - α. Both are moved so that together they give
    the pixel's colour. Once over wide windows, which reach sure object from afar,
    once over small ones.

    Source: Forte, 2021, "Approximate fast foreground colour estimation", section 2.
    """
    colours, background = photo, photo
    for radius in RADII:
        weight = box_mean(alpha[None], radius)  # (1, H, W)
        mean = box_mean(colours * alpha, radius) / (weight + 1e-5)  # (3, H, W)
        rest = box_mean(1 - alpha[None], radius)
        background = box_mean(background * (1 - alpha), radius) / (rest + 1e-5)
        left_over = photo - alpha * mean - (1 - alpha) * background
        colours = (mean + alpha * left_over).clamp(0, 1)
    return torch.where(alpha == 1, photo, colours)


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """The mean of maps (C, H, W) over squares of 2 `radius` + 1 pixels, cut off at the border."""
    for dim in (-2, -1):
        length = maps.shape[dim]
        sums = F.pad(maps.double().cumsum(dim), (1, 0) if dim == -1 else (0, 0, 1, 0))  # of all before
        low = (torch.arange(length) - radius).clamp(min=0)
        high = (torch.arange(length) + radius + 1).clamp(max=length)
        count = (high - low).view(-1, 1) if dim == -2 else high - low
        maps = (sums.index_select(dim, high) - sums.index_select(dim, low)) / count
    return maps.float()


def _pymatting() -> ModuleType:
    try:
        import pymatting
    except ImportError as error:
        raise ImportError(
            "A matte needs pymatting, which is not installed: pip install 'u2learn[cutout]'. Without "
            "--matted, the edge of a cut-out follows the map."
        ) from error
    return pymatting
