"""The U, drawn from the module's own shapes, so that a drawing cannot be out of date."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from u2learn.models.conv import parameters as count
from u2learn.pixels import Size
from u2learn.show.canvas import GREY, Pen, short_count, width
from u2learn.show.module_tree import Box, Head, Level, Outline, U, measure
from u2learn.show.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. Each U is a ladder: encoders down the left, decoders up the right, each level a step inwards.
STEP, ROWS, JOIN = 0.17, 0.36, 0.1


def draw(
    model: nn.Module, size: Size = (584, 565), title: str | None = None, parameters: bool = False
) -> Figure:
    """Draw the U (or the U's) of a model for an input of `size` (H, W), with channels and scales as computed.

    A block's height follows its map's size, its width the logarithm of its channels; a block that is made of
    U's shows them in small. `parameters` adds the count of every block. Nothing is computed but shapes.

    Raises:
        ValueError: the model has no `ULevel`, or refuses that size.
    """
    diagram = measure(model, size)
    pen = Pen(parameters)
    rows = _rows(pen, diagram)
    _row_labels(pen, diagram, rows)
    x = 0.0
    for i, u in enumerate(diagram.us):
        ladder = Ladder(pen, u, x, rows, size)
        ladder.draw(None if i else diagram.channels, plus_image=i > 0 and diagram.channels < u.channels)
        x = _heads(pen, [h for h in diagram.heads if h.u == i], ladder)
    notes = ["In a block: its channels. On a skip: channels from below + from the skip."]
    if parameters:
        notes.append(f"In grey: parameters, {count(model):,} in all.")
    if any(h.training_only for h in diagram.heads):
        notes.append("Dashed: only while training.")
    if pen.dilated:
        notes.append("d: dilation.")
    low = pen.bottom - 0.12
    for line in textwrap.wrap(" ".join(notes), int((pen.right - pen.left) / 0.068)):
        pen.text(pen.left, low, line, 8, GREY, ha="left", va="top")
        low -= 0.16
    return pen.figure(title)


def _rows(pen: Pen, diagram: Outline) -> list[float]:
    """The height of the middle of each row, shared by all U's: level 0 at 0, the bottom last."""
    depth = max(len(u.levels) for u in diagram.us)
    tall = [0.0] * (depth + 1)
    for u in diagram.us:
        boxes = [(level.encode, level.decode) for level in u.levels] + [(u.bottom,)]
        for i, row in enumerate(boxes):
            tall[i] = max(tall[i], *(pen.height(box, diagram.size) for box in row))
    rows = [0.0]
    for above, below in pairwise(tall):
        rows.append(rows[-1] - above / 2 - ROWS - below / 2)
    return rows


def _row_labels(pen: Pen, diagram: Outline, rows: list[float]) -> None:
    deepest = max(diagram.us, key=lambda u: len(u.levels))
    for y, box in zip(rows, [*(level.encode for level in deepest.levels), deepest.bottom], strict=True):
        pen.text(-0.2, y + 0.08, _scale(box.size, diagram.size), 10, ha="right")
        pen.text(-0.2, y - 0.09, _by(box.size), 8, GREY, ha="right")


class Ladder:
    """One U on its rows, with its left edge at `x`."""

    def __init__(self, pen: Pen, u: U, x: float, rows: list[float], size: Size):
        self.pen, self.u, self.rows, self.size = pen, u, rows, size
        self.left = x
        start = x + (width(u.stem) + 0.3 if u.stem else 0)
        first, last = u.levels[0], u.levels[-1]
        n = len(u.levels) - 1
        self.encoders = [start + width(first.encode) / 2 + i * STEP for i in range(n + 1)]
        # The innermost join leaves room for the numbers on its skip and for the bottleneck below it.
        skip = (
            max(0.075 * len(_joined(level)) - 2 * STEP * (n - i) for i, level in enumerate(u.levels)) + 0.34
        )
        inner = self.encoders[-1] + max(width(last.encode) / 2 + skip, width(u.bottom) + 0.45)
        self.joins = [
            inner + (n - i) * STEP + (width(last.decode) - width(level.decode)) / 2
            for i, level in enumerate(u.levels)
        ]
        self.decoders = [
            x + JOIN / 2 + 0.03 + width(level.decode) / 2
            for x, level in zip(self.joins, u.levels, strict=True)
        ]
        self.bottom = (self.encoders[-1] + self.joins[-1]) / 2
        self.right = self.decoders[0] + width(first.decode) / 2

    def height(self, box: Box) -> float:
        return self.pen.height(box, self.size)

    def draw(self, channels: int | None, plus_image: bool) -> None:
        """Draw the U. channels: of its input, if no U gives it; plus_image: the image is read again."""
        pen, u, rows = self.pen, self.u, self.rows
        for i, level in enumerate(u.levels):
            y = rows[i]
            pen.block(self.encoders[i], y, level.encode, self.size, COLOURS["encoder"])
            self._skip(i)
            pen.block(self.decoders[i], y, level.decode, self.size, COLOURS["decoder"])
            if level.decode.size != level.encode.size:
                low = y - self.height(level.decode) / 2
                pen.text(self.decoders[i] + 0.04, low - 0.03, _by(level.decode.size), 8, GREY, va="top")
            if i:
                self._down(i - 1, self.encoders[i], self.height(level.encode))
                x = self.joins[i - 1]
                pen.arrow(
                    (x, y + self.height(level.decode) / 2), (x, self._foot(i - 1)), colour=COLOURS["decoder"]
                )
        self._bottom()
        top = rows[0] + self.height(u.stem or u.levels[0].encode) / 2
        x = self.left + width(u.stem) / 2 if u.stem else self.encoders[0]
        if u.stem:
            self._stem(u.stem)
        name = "image" if channels in (1, 3) else "input"
        if channels or plus_image:
            pen.arrow((x, top + 0.32), (x, top))
            pen.text(x - 0.07, top + 0.2, "image" if plus_image else f"{name}, {channels}", 9, ha="right")
        if plus_image:
            pen.text(
                self.encoders[0] - width(u.levels[0].encode) / 2 - 0.1, rows[0] + 0.1, f"{u.channels}", 9
            )

    def _down(self, i: int, x: float, height: float) -> None:
        """From the encoder of level i straight down to a box on the next row."""
        start = self.rows[i] - self.height(self.u.levels[i].encode) / 2
        self.pen.arrow((x, start), (x, self.rows[i + 1] + height / 2), colour=COLOURS["encoder"])

    def _foot(self, i: int) -> float:
        return self.rows[i] - self.height(self.u.levels[i].decode) / 2

    def _skip(self, i: int) -> None:
        """The skip arrow and the join: two colours in proportion to the channels that meet."""
        pen, level, x, y = self.pen, self.u.levels[i], self.joins[i], self.rows[i]
        tall = self.height(level.decode)
        skip, joined = level.encode.channels, level.join.channels
        start = self.encoders[i] + width(level.encode) / 2
        pen.arrow((start, y), (x - JOIN / 2, y), colour=COLOURS["skip"])
        middle = (start + x - JOIN / 2) / 2
        pen.text(middle, y + 0.04, _joined(level), 9, va="bottom")
        if pen.parameters and level.join.parameters:
            pen.text(middle, y - 0.04, short_count(level.join.parameters), 8, GREY, va="top")
        share = (joined - skip) / joined
        pen.bar(x, y - tall / 2, JOIN, tall * share, COLOURS["decoder"])
        pen.bar(x, y - tall / 2 + tall * share, JOIN, tall * (1 - share), COLOURS["encoder"])

    def _bottom(self) -> None:
        """The bottleneck between the last two columns, reached from the left and left to the right."""
        pen, box, y, last = self.pen, self.u.bottom, self.rows[len(self.u.levels)], len(self.u.levels) - 1
        half, rise = width(box) / 2, self.height(box) / 4
        pen.block(self.bottom, y, box, self.size, COLOURS["bottleneck"])
        x, start = self.encoders[-1], self.rows[last] - self.height(self.u.levels[last].encode) / 2
        pen.arrow((x, start), (x, y), (self.bottom - half, y), colour=COLOURS["encoder"])
        x = self.joins[-1]
        pen.arrow(
            (self.bottom + half, y + rise), (x, y + rise), (x, self._foot(last)), colour=COLOURS["decoder"]
        )

    def _stem(self, stem: Box) -> None:
        pen, y = self.pen, self.rows[0]
        x, half = self.left + width(stem) / 2, self.height(stem) / 2
        pen.block(x, y, stem, self.size, COLOURS["encoder"])
        pen.arrow((x + width(stem) / 2, y), (self.encoders[0] - width(self.u.levels[0].encode) / 2, y))
        if self.u.residual:
            over, plus = y + max(half, self.height(self.u.levels[0].decode) / 2) + 0.16, self.right + 0.36
            branch = x + width(stem) / 2 + 0.13
            pen.arrow((self.right, y), (plus - 0.1, y))
            pen.arrow((branch, y), (branch, over), (plus, over), (plus, y + 0.1), colour=COLOURS["skip"])
            pen.circle(plus, y, 0.1, "+")
            pen.arrow((plus + 0.1, y), (plus + 0.4, y))
            self.right = plus + 0.4


def _heads(pen: Pen, heads: list[Head], ladder: Ladder) -> float:
    """The heads at the right of a U, each on its level's row; what joins several of them further right."""
    x, right = ladder.right + 0.34, ladder.right
    bottom = len(ladder.u.levels)
    boxes, lows = [(h, h.level) for h in heads if h.level is not None], []
    for h, level in boxes:
        y = ladder.rows[level]
        if level == bottom:
            y -= ladder.height(ladder.u.bottom) / 4
            start = ladder.bottom + width(ladder.u.bottom) / 2
        else:
            start = ladder.decoders[level] + width(ladder.u.levels[level].decode) / 2
        wide = width(h.box)
        lows.append(y)
        pen.arrow((start, y), (x, y))
        pen.head(x + wide / 2, y, h)
        right = max(right, x + wide)
    fused = [h for h in heads if h.level is None]
    y = ladder.rows[0]
    for h in fused:
        bus = right + 0.14
        for (side, _), low in zip(boxes, lows, strict=True):
            pen.arrow((x + width(side.box), low), (bus, low), head=False)
        pen.arrow((bus, min(lows, default=y)), (bus, y), (bus + 0.2, y))
        pen.head(bus + 0.2 + width(h.box) / 2, y, h)
        right = bus + 0.2 + width(h.box)
    if not ladder.u.residual:
        ends = [x + width(h.box) for h, level in boxes if level == 0]
        start = max([*ends, right if fused else ladder.right])
        right = max(right, start + 0.42)
        pen.arrow((start, y), (start + 0.42, y))
    return right


def _joined(level: Level) -> str:
    """ "64 + 128": channels from below and from the skip, or one number where they are not stacked."""
    skip, joined = level.encode.channels, level.join.channels
    return f"{joined - skip} + {skip}" if joined > skip else f"{joined}"


def _scale(size: Size, whole: Size) -> str:
    """ "1", "1/2", "1/4" ...: the power of two that is nearest to how much smaller the map is."""
    power = round(math.log2(whole[0] / size[0]))
    return "1" if power <= 0 else f"1/{2**power}"


def _by(size: Size) -> str:
    return f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"
