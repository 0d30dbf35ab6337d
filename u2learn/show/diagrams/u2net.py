"""The diagrams of part III: the RSU, the U of U's, what saliency scores look at, and thin parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from u2learn.metrics import saliency
from u2learn.models.rsu import RSU
from u2learn.models.u2net import U2Net, u2net
from u2learn.models.ulevel import ULevel
from u2learn.pixels import Size, size_of
from u2learn.show.diagrams.convolution import FOUR
from u2learn.show.diagrams.sheet import SMALL, Box, Diagram, Sheet, by
from u2learn.show.module_tree import Box as Block
from u2learn.show.module_tree import U, measure, run

ROW = 46.0


def rsu(
    height: int = 7, channels: Sequence[int] = (3, 32, 64), dilated: bool = False, size: Size = (320, 320)
) -> Diagram:
    """An RSU unfolded: a block, a U of `height` levels, and the sum of the two.

    `channels` are those in, inside and out.
    """
    before, inside, after = channels
    with torch.device("meta"):  # only its shapes are asked for
        block = RSU(height, before, inside, after, dilated)
    (u,) = measure(block, size).us
    assert u.stem is not None
    sheet = Sheet()
    stem = sheet.box(110, -15, 46, 30, f"{u.stem.channels}", "encoder", size=SMALL)
    sheet.arrow((84, 0), stem.left)
    sheet.text(95, -13, f"{before}", size=SMALL)
    first, last = _ladder(sheet, u, 182, 384)
    sheet.arrow(stem.right, first)
    plus = (412.0, 0.0)
    sheet.circle(*plus, 11, "+")
    sheet.arrow(last, (plus[0] - 11, 0))
    sheet.arrow((167, 0), (167, -32), (plus[0], -32), (plus[0], -11), role="accent", width=1.8)
    sheet.text(290, -44, "residual: the input of the U is added", size=SMALL, role="accent")
    sheet.arrow((plus[0] + 11, 0), (plus[0] + 34, 0))
    for i, level in enumerate([*(level.encode for level in u.levels), u.bottom]):
        sheet.text(0, ROW * i, by(level.size), size=SMALL, role="muted", anchor="start")
    name = f"RSU-{height}" + ("F" if dilated else "")
    return sheet.diagram(
        f"{name}, unfolded",
        f"{name} with {before} channels in, {inside} inside and {after} out, for an image of {size[0]} × "
        f"{size[1]}. In a box: its channels. A block makes the map x; a U of single convolutions works on "
        "it, its lowest level is dilated (d) instead of pooled; the U's result and x are added.",
    )


def _ladder(sheet: Sheet, u: U, left: float, right: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The U between two heights of x, encoders down the left; gives where its first row begins and ends."""
    step, ends = 7.0, []
    inner = len(u.levels)
    for i, level in enumerate(u.levels):
        y, shift = ROW * i, step * i
        one = _block(sheet, left + shift, y, level.encode, "encoder")
        two = _block(sheet, right - 46 - shift, y, level.decode, "decoder")
        sheet.arrow(one.right, two.left, role="skip")
        ends += [one.left, two.right] if not i else []
        x0, x1 = one.x + 28, two.x + 18
        if i + 1 < inner:
            sheet.arrow((x0, y + 15), (x0, y + ROW - 15))
            sheet.arrow((x1, y + ROW - 15), (x1, y + 15))
        else:
            bottom = _block(sheet, (left + right) / 2 - 23, y + ROW, u.bottom, "bottleneck")
            sheet.arrow((x0, y + 15), (x0, y + ROW), bottom.left)
            sheet.arrow(bottom.right, (x1, y + ROW), (x1, y + 15))
    return ends[0], ends[1]


def _block(sheet: Sheet, x: float, y: float, block: Block, role: str) -> Box:
    words = f"{block.channels}" if block.dilation == 1 else f"d = {block.dilation}"
    return sheet.box(x, y - 15, 46, 30, words, role, size=SMALL)


def side_maps(model: U2Net | None = None, size: Size = (320, 320)) -> Diagram:
    """U²-Net: a U whose blocks are U's, a side map from each level, and the fusion of all."""
    if model is None:
        with torch.device("meta"):  # only its shapes are asked for
            model = u2net()
    record, levels, node = run(model, size), [], model.body
    while isinstance(node, ULevel):
        levels.append(node)
        node = node.inner
    sheet, pitch = Sheet(), 62.0
    bottom = len(levels)

    def block(part: nn.Module, x: float, y: float, role: str) -> Box:
        return sheet.box(x, y - 22, 78, 44, _name(part), role, f"{record[part][1].shape[1]}", size=SMALL)

    fuse = sheet.box(392, -24, 52, pitch * bottom + 48, "fuse", "accent", "1×1")
    for i in range(bottom + 1):
        y = pitch * i
        made = record[levels[i].encode if i < bottom else node][1]
        sheet.text(0, y, by(size_of(made)), size=SMALL, role="muted", anchor="start")
        if i < bottom:
            one, two = block(levels[i].encode, 80, y, "encoder"), block(levels[i].decode, 210, y, "decoder")
            sheet.arrow(one.right, two.left, role="skip")
            x0, x1 = one.bottom[0], two.bottom[0]
            if i + 1 < bottom:
                sheet.arrow((x0, y + 22), (x0, y + pitch - 22))
                sheet.arrow((x1, y + pitch - 22), (x1, y + 22))
        else:
            two = block(node, 145, y, "bottleneck")
            sheet.arrow((119, y - pitch + 22), (119, y), two.left)
            sheet.arrow((223, y + 8), (249, y + 8), (249, y - pitch + 22))
        side = sheet.box(318, y - 15, 44, 30, f"S{i + 1}", "accent", size=SMALL)
        sheet.arrow((two.right[0], y - (8 if i == bottom else 0)), (318, y - (8 if i == bottom else 0)))
        sheet.arrow(side.right, (fuse.x, y))
    sheet.text(119, -36, "down", size=SMALL, role="muted")
    sheet.text(249, -36, "up", size=SMALL, role="muted")
    sheet.text(340, -36, "side maps", size=SMALL, role="muted")
    sheet.text(418, pitch * bottom + 38, "main map", size=SMALL)
    return sheet.diagram(
        "U²-Net: a U of U's with side maps",
        f"{bottom} levels and a bottom, each block an RSU with its channels below. A 3x3 convolution makes "
        f"a side map of each level, S1 to S{bottom + 1}; each is resized to {by(size)}, and a 1x1 "
        f"convolution fuses the {model.fuse.in_channels} maps into the main one. In training all of them "
        "are compared with the mask.",
    )


def _name(block: nn.Module) -> str:
    levels = [m for m in block.modules() if isinstance(m, ULevel)]
    pooled = any(not isinstance(level.down, nn.Identity) for level in levels)
    return f"RSU-{len(levels) + 1}" + ("" if pooled else "F")


MASK = np.zeros((8, 8), bool)
MASK[1:6, 2:5] = True
MASK[3:5, 5:7] = True
MAP = np.round(
    np.clip(F.avg_pool2d(torch.tensor(MASK * 1.0)[None, None], 3, 1, 1)[0, 0].numpy() * 1.3, 0, 1), 1
)
MAP[6, 6] = MAP[7, 6] = 0.6  # something that is not there
CUT = MASK.copy()
CUT[5, 2:5], CUT[3:5, 6] = False, False
CUT[6, 5:7] = True


def s_regions(pred: np.ndarray = MAP, mask: np.ndarray = MASK) -> Diagram:
    """S-measure's regions: map and mask, cut where the mask's centre lies, and the similarity in each part.

    `pred` (H, W) in [0, 1] and `mask` bool (H, W).
    """
    h, w = mask.shape
    y, x = (int(centre) + 1 for centre in np.argwhere(mask).mean(0).round())
    quarters = [(0, y, 0, x), (0, y, x, w), (y, h, 0, x), (y, h, x, w)]  # rows and columns, from and to
    parts = []
    for top, low, left, right in quarters:
        window = np.s_[top:low, left:right]
        parts.append((mask[window].size / mask.size, saliency.similarity(pred[window], mask[window])))
    total = sum(area * alike for area, alike in parts)
    sheet, side, beside = Sheet(), 190 / max(h, w), 234.0
    for x0, picture, name in ((0.0, pred, "map"), (beside, mask * 1.0, "mask")):
        sheet.greys(picture * 0.8, x0, 0, side)
        sheet.text(x0 + w * side / 2, -14, name, size=SMALL, role="muted")
        for role, (top, low, left, right) in zip(FOUR, quarters, strict=True):
            place = (x0 + left * side, top * side, (right - left) * side, (low - top) * side)
            sheet.frame(*place, role, width=2.4)
    for k, (role, (area, alike)) in enumerate(zip(FOUR, parts, strict=True)):
        words = f"{area:.2f} of the area × {alike:.2f}"
        at = h * side + 24 + 24 * (k // 2)
        sheet.text(beside * (k % 2), at, words, size=SMALL, role=role, anchor="start")
    words = f"regions: {total:.2f}, the sum of areas × similarities"
    sheet.text(0, h * side + 78, words, size=SMALL, anchor="start")
    return sheet.diagram(
        "The regions of the S-measure",
        "Map and mask are cut into four at the mask's centre of mass. The structural similarity of each "
        f"part is weighted by its area: {' + '.join(f'{a:.2f} × {b:.2f}' for a, b in parts)} = "
        f"{total:.2f}.",
    )


def alignment(cut: np.ndarray = CUT, mask: np.ndarray = MASK) -> Diagram:
    """E-measure: the four kinds of pixel of a cut map, and what each counts. Both are bool (H, W)."""
    said, true = cut - cut.mean(), mask - mask.mean()
    phi = 2 * said * true / (said**2 + true**2)
    enhanced = (phi + 1) ** 2 / 4
    sheet, side = Sheet(), 190 / max(mask.shape)
    kinds = (
        ("hit", cut & mask, "encoder"),
        ("missed", ~cut & mask, "accent"),
        ("false alarm", cut & ~mask, "false_alarm"),
        ("background", ~cut & ~mask, "grey"),
    )
    h, w = mask.shape
    for _, where, role in kinds:
        sheet.mask(where, 0, 0, side, role, 0.5 if role != "grey" else 0.15)
    sheet.box(0, 0, w * side, h * side, tint=False, width=1)
    for k, (name, where, role) in enumerate(kinds):
        y = 34 + 34 * k
        sheet.box(214, y - 9, 18, 18, role=role)
        sheet.text(242, y, name, size=SMALL, anchor="start")
        value = enhanced[where][0] if where.any() else 0
        sheet.text(434, y, f"{where.sum()} × {value:.2f}", size=SMALL, anchor="end")
    total = enhanced.sum() / (mask.size - 1)
    sheet.line((214, 158), (434, 158), role="muted", width=1)
    sheet.text(214, 176, f"E = sum / {mask.size - 1} = {total:.2f}", size=SMALL, anchor="start")
    sheet.text(214, 6, "pixels × alignment", size=SMALL, role="muted", anchor="start")
    return sheet.diagram(
        "The E-measure of a cut map",
        "Map and mask are centred on their means, so that a pixel's alignment depends on its kind only: "
        + ", ".join(
            f"{where.sum()} {name} of {enhanced[where][0]:.2f}" for name, where, _ in kinds if where.any()
        )
        + f". Their sum, divided by the pixels less one, is {total:.2f}.",
    )


def thin_parts(thickness: float = 3.0, photograph: int = 1024) -> Diagram:
    """A thin part at several input sizes: what is left of it in the pixels, and after the cut at one half."""
    side = 32
    y, x = np.mgrid[:side, :side]
    bar = np.abs((y - 0.45 * x - 9) / np.hypot(1, 0.45)) <= thickness / 2
    sheet, width = Sheet(), 100.0
    words = []
    for k, factor in enumerate((1, 2, 4, 8)):
        grey = F.avg_pool2d(torch.tensor(bar * 1.0)[None, None], factor)[0, 0].numpy()
        left, pixel = 112.0 * k, width / (side // factor)
        sheet.text(left + width / 2, -14, f"{photograph // factor:,}", size=SMALL, bold=True)
        sheet.greys(np.round(grey * 16) / 16 * 0.85, left, 0, pixel)
        sheet.greys((grey >= 0.5) * 0.85, left, width + 34, pixel)
        for top in (0, width + 34):
            sheet.box(left, top, width, width, tint=False, width=1)
        kept = float(np.kron(grey >= 0.5, np.ones((factor, factor)))[bar].mean())
        sheet.text(left + width / 2, 2 * width + 48, f"{kept:.0%} kept", size=SMALL)
        words.append(f"{photograph // factor}: {kept:.0%}")
    sheet.text(0, width + 17, "cut at one half:", size=SMALL, role="muted", anchor="start")
    return sheet.diagram(
        "A thin part at four input sizes",
        f"A part {thickness:g} pixels thick in a photograph of {photograph} pixels, as a network sees it "
        "at smaller input sizes. Share of its pixels that is left after the cut at one half: "
        f"{', '.join(words)}.",
    )
