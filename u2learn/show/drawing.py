"""The U, drawn from the module's own shapes, so that a drawing cannot be out of date."""

import math
import textwrap
from itertools import pairwise
from typing import Any

from torch import nn

from u2learn.show.look import COLOURS, figure_of
from u2learn.show.outline import Box, Diagram, Head, Level, U, measure

# Inches. Each U is a ladder: encoders down the left, decoders up the right, each level a step inwards.
STEP, ROWS, JOIN = 0.17, 0.36, 0.1
INK, GREY = "#333333", COLOURS["grey"]


def draw(
    model: nn.Module, size: tuple[int, int] = (584, 565), title: str | None = None, parameters: bool = False
) -> Any:
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
    total = sum(p.numel() for p in model.parameters())
    notes = ["In a block: its channels. On a skip: channels from below + from the skip."]
    if parameters:
        notes.append(f"In grey: parameters, {total:,} in all.")
    if any(h.training_only for h in diagram.heads):
        notes.append("Dashed: only while training.")
    if pen.dilated:
        notes.append("d: dilation.")
    low = pen.bottom - 0.12
    for line in textwrap.wrap(" ".join(notes), int((pen.right - pen.left) / 0.068)):
        pen.text(pen.left, low, line, 8, GREY, ha="left", va="top")
        low -= 0.16
    return pen.figure(title)


def _rows(pen: "Pen", diagram: Diagram) -> list[float]:
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


def _row_labels(pen: "Pen", diagram: Diagram, rows: list[float]) -> None:
    deepest = max(diagram.us, key=lambda u: len(u.levels))
    for y, box in zip(rows, [*(level.encode for level in deepest.levels), deepest.bottom], strict=True):
        pen.text(-0.2, y + 0.08, _scale(box.size, diagram.size), 10, ha="right")
        pen.text(-0.2, y - 0.09, _by(box.size), 8, GREY, ha="right")


class Ladder:
    """One U on its rows, with its left edge at `x`."""

    def __init__(self, pen: "Pen", u: U, x: float, rows: list[float], size: tuple[int, int]):
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
        """`channels` of what goes in, unless that is the U before; then perhaps the image comes in again."""
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
            self._stem()
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

    def _stem(self) -> None:
        pen, stem, y = self.pen, self.u.stem, self.rows[0]
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


def _heads(pen: "Pen", heads: list[Head], ladder: Ladder) -> float:
    """The heads at the right of a U, each on its level's row; what joins several of them further right."""
    x, right = ladder.right + 0.34, ladder.right
    bottom = len(ladder.u.levels)
    boxes, lows = [h for h in heads if h.level is not None], []
    for h in boxes:
        y, start = ladder.rows[h.level], ladder.decoders[min(h.level, bottom - 1)]
        if h.level == bottom:
            y -= ladder.height(ladder.u.bottom) / 4
            start = ladder.bottom + width(ladder.u.bottom) / 2
        else:
            start += width(ladder.u.levels[h.level].decode) / 2
        wide = width(h.box)
        lows.append(y)
        pen.arrow((start, y), (x, y))
        pen.head(x + wide / 2, y, h)
        right = max(right, x + wide)
    fused = [h for h in heads if h.level is None]
    y = ladder.rows[0]
    for h in fused:
        bus = right + 0.14
        for side, low in zip(boxes, lows, strict=True):
            pen.arrow((x + width(side.box), low), (bus, low), head=False)
        pen.arrow((bus, min(lows, default=y)), (bus, y), (bus + 0.2, y))
        pen.head(bus + 0.2 + width(h.box) / 2, y, h)
        right = bus + 0.2 + width(h.box)
    if not ladder.u.residual:
        start = max([x + width(h.box) for h in boxes if h.level == 0] + [right if fused else ladder.right])
        right = max(right, start + 0.42)
        pen.arrow((start, y), (start + 0.42, y))
    return right


def width(box: Box) -> float:
    """Inches: the logarithm of the channels, and room for a small U where the block is made of one."""
    return max(0.18 + 0.072 * math.log2(box.channels + 1), 0.46, 1.0 if box.inside else 0)


def _miniature(pen: "Pen", us: list[U], x: float, y: float, w: float, h: float) -> None:
    """The U's of a block in the rectangle with its lower left corner at (x, y): form only, no numbers."""
    w = w / len(us)
    for k, u in enumerate(us):
        left, n = x + k * w, len(u.levels)
        row = h / (n + 1)
        largest = u.levels[0].encode.size[0]
        brick, step = 0.2 * w, 0.24 * w / n
        for i, level in enumerate([*u.levels, None]):
            box = level.encode if level else u.bottom
            tall = row * (0.3 + 0.5 * box.size[0] / largest)
            middle = y + h - (i + 0.5) * row
            if level is None:
                pen.rectangle(left + w / 2, middle, brick, tall, COLOURS["bottleneck"], tint=0.7, lw=0)
                continue
            xs = left + brick / 2 + i * step, left + w - brick / 2 - i * step
            pen.line((xs[0], middle), (xs[1], middle), COLOURS["skip"], 0.7)
            pen.rectangle(xs[0], middle, brick, tall, COLOURS["encoder"], tint=0.7, lw=0)
            pen.rectangle(xs[1], middle, brick, tall, COLOURS["decoder"], tint=0.7, lw=0)


def _joined(level: Level) -> str:
    """ "64 + 128": channels from below and from the skip, or one number where they are not stacked."""
    skip, joined = level.encode.channels, level.join.channels
    return f"{joined - skip} + {skip}" if joined > skip else f"{joined}"


def _scale(size: tuple[int, int], whole: tuple[int, int]) -> str:
    """ "1", "1/2", "1/4" ...: the power of two that is nearest to how much smaller the map is."""
    power = round(math.log2(whole[0] / size[0]))
    return "1" if power <= 0 else f"1/{2**power}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"


def short_count(n: int) -> str:
    """576, 1.8 k, 37 k, 1.2 M: a count of parameters that fits into a block."""
    for unit, letter in ((1e6, " M"), (1e3, " k")):
        if n >= unit:
            return f"{n / unit:.1f}{letter}" if n < 9.95 * unit else f"{n / unit:.0f}{letter}"
    return str(n)


class Pen:
    """Boxes, arrows and texts in inches; it remembers how far it has drawn, so that the figure fits."""

    def __init__(self, parameters: bool):
        self.parameters, self.dilated = parameters, False
        self.shapes: list[Any] = []
        self.texts: list[dict[str, Any]] = []
        self.left = self.bottom = math.inf
        self.right = self.top = -math.inf

    def _reach(self, *points: tuple[float, float]) -> None:
        for x, y in points:
            self.left, self.right = min(self.left, x), max(self.right, x)
            self.bottom, self.top = min(self.bottom, y), max(self.top, y)

    def rectangle(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        colour: str,
        tint: float = 0.2,
        lw: float = 1.3,
        dashed: bool = False,
    ) -> None:
        """A rounded box around (x, y), filled with a tint of its colour."""
        from matplotlib.colors import to_rgb
        from matplotlib.patches import FancyBboxPatch

        fill = tuple(1 - tint * (1 - c) for c in to_rgb(colour))
        form = f"round,pad=0,rounding_size={min(0.05, w / 4, h / 4)}"
        corner = (x - w / 2, y - h / 2)
        self.shapes.append(
            FancyBboxPatch(
                corner, w, h, boxstyle=form, fc=fill, ec=colour, lw=lw, ls="--" if dashed else "-", zorder=3
            )
        )
        self._reach(corner, (x + w / 2, y + h / 2))

    def bar(self, x: float, y: float, w: float, h: float, colour: str) -> None:
        from matplotlib.patches import Rectangle

        self.shapes.append(Rectangle((x - w / 2, y), w, h, fc=colour, ec="none", alpha=0.75, zorder=3))

    def circle(self, x: float, y: float, radius: float, text: str) -> None:
        from matplotlib.patches import Circle

        self.shapes.append(Circle((x, y), radius, fc="white", ec=INK, lw=1.2, zorder=3))
        self.text(x, y, text, 11)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str, lw: float) -> None:
        from matplotlib.patches import Polygon

        self.shapes.append(Polygon([start, end], closed=False, fill=False, ec=colour, lw=lw, zorder=3))

    def arrow(self, *points: tuple[float, float], colour: str = INK, head: bool = True) -> None:
        """A line through `points` with, by default, a head at its end."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        form = "-|>,head_length=4,head_width=2" if head else "-"
        self.shapes.append(
            FancyArrowPatch(
                path=Path(points),
                arrowstyle=form,
                color=colour,
                lw=1.3,
                joinstyle="round",
                capstyle="butt",
                zorder=2,
            )
        )
        self._reach(*points)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 10,
        colour: str = INK,
        ha: str = "center",
        va: str = "center",
    ) -> None:
        self.texts.append(dict(x=x, y=y, s=text, fontsize=size, color=colour, ha=ha, va=va, zorder=4))
        w, h = 0.0085 * size * len(text), 0.014 * size
        left = {"left": x, "center": x - w / 2, "right": x - w}[ha]
        low = {"bottom": y, "center": y - h / 2, "top": y - h}[va]
        self._reach((left, low), (left + w, low + h))

    def height(self, box: Box, size: tuple[int, int]) -> float:
        """Inches: the map's height, softened so that 1/16 can be read, and room for what stands inside."""
        lines = len(self._lines(box))
        return max(1.15 * (box.size[0] / size[0]) ** 0.6, 0.12 + 0.15 * lines + (0.6 if box.inside else 0))

    def _lines(self, box: Box) -> list[str]:
        lines = [f"{box.channels}"]
        if box.dilation > 1:
            lines.append(f"d = {box.dilation}")
            self.dilated = True
        return lines + ([short_count(box.parameters)] if self.parameters else [])

    def block(self, x: float, y: float, box: Box, size: tuple[int, int], colour: str) -> None:
        """A block with its channels in it and, where it is made of U's, those in small above."""
        w, h = width(box), self.height(box, size)
        self.rectangle(x, y, w, h, colour)
        lines = self._lines(box)
        if box.inside:
            room = 0.09 + 0.15 * len(lines)
            _miniature(self, box.inside, x - w / 2 + 0.09, y - h / 2 + room, w - 0.18, h - room - 0.08)
            y -= (h - room) / 2
        for i, line in enumerate(lines):
            middle = y + 0.15 * ((len(lines) - 1) / 2 - i)
            self.text(x, middle, line, 8 if i else 10, GREY if i else INK)

    def head(self, x: float, y: float, head: Head) -> None:
        """A head: its channels inside, its name below."""
        h = 0.3 + (0.15 if self.parameters else 0)
        self.rectangle(x, y, width(head.box), h, COLOURS["accent"], dashed=head.training_only)
        for i, line in enumerate(self._lines(head.box)):
            self.text(
                x, y + (0.07 if self.parameters else 0) - 0.15 * i, line, 8 if i else 10, GREY if i else INK
            )
        self.text(x, y - h / 2 - 0.03, head.name, 8, GREY, va="top")

    def figure(self, title: str | None) -> Any:
        pad, above = 0.05, 0.3 if title else 0
        w, h = self.right - self.left + 2 * pad, self.top - self.bottom + 2 * pad
        figure, axes = figure_of(w, h + above, layout="none")
        axis = axes[0, 0]
        axis.set_position((0, 0, 1, h / (h + above)))
        axis.set(
            xlim=(self.left - pad, self.right + pad),
            ylim=(self.bottom - pad, self.top + pad),
            title=title or "",
        )
        axis.set_axis_off()
        for shape in self.shapes:
            axis.add_patch(shape)
        for text in self.texts:
            axis.text(**text)
        return figure
