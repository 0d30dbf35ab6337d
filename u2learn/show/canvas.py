"""A pen that draws in inches: boxes, arrows, numbers. It knows nothing of where a block belongs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from u2learn.pixels import Size
from u2learn.show.module_tree import Box, Head, U
from u2learn.show.palette import COLOURS, figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

INK, GREY = "#333333", COLOURS["grey"]


def width(box: Box) -> float:
    """How wide a block is drawn, in inches: by the logarithm of its channels; wider for a small U in it."""
    return max(0.18 + 0.072 * math.log2(box.channels + 1), 0.46, 1.0 if box.inside else 0)


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
        self.shapes: list[Patch] = []
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

    def height(self, box: Box, size: Size) -> float:
        """How high a block is drawn, in inches: by its map's height, and high enough to be read."""
        lines = len(self._lines(box))
        return max(1.15 * (box.size[0] / size[0]) ** 0.6, 0.12 + 0.15 * lines + (0.6 if box.inside else 0))

    def _lines(self, box: Box) -> list[str]:
        lines = [f"{box.channels}"]
        if box.dilation > 1:
            lines.append(f"d = {box.dilation}")
            self.dilated = True
        return lines + ([short_count(box.parameters)] if self.parameters else [])

    def block(self, x: float, y: float, box: Box, size: Size, colour: str) -> None:
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

    def figure(self, title: str | None) -> Figure:
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


def _miniature(pen: Pen, us: list[U], x: float, y: float, w: float, h: float) -> None:
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
