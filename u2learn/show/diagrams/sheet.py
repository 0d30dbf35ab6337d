"""A sheet to draw diagrams on: boxes, arrows, cells with numbers, brackets, curves; it becomes inline SVG.

Colours are CSS custom properties with their values for white paper as fallback, `--u2-encoder` and so on, and
plain ink is the colour of the text around: one drawing serves light and dark pages. Units are CSS pixels,
y grows downwards, and the sheet ends where the drawing ends.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from u2learn.show.palette import COLOURS, INKS
from u2learn.show.pictures import short_number

TEXT, SMALL = 15, 14.5
WIDEST = 471  # a phone's column has 358 pixels, and there the smallest text is still 11 high
MARGIN = 6
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
CODE = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

# A page says that it is dark: the site, JupyterLab, Colab, VS Code.
DARK = "[data-theme=dark] {0},[data-jp-theme-light=false] {0},[theme=dark] {0},.vscode-dark {0}"
STYLE = "".join(
    (
        ".u2-diagram{max-width:100%;margin:.5rem 0;text-align:center}",
        ".u2-diagram svg{max-width:100%;height:auto}",
        "html[data-theme=dark] .bd-content div.cell_output .text_html:has(.u2-diagram)",
        "{background:none!important;color:inherit!important}",
        DARK.format(".u2-diagram"),
        "{" + ";".join(f"--u2-{role}:{dark}" for role, (_, dark) in INKS.items()) + ";--u2-tint:.24}",
    )
)

# How wide a letter is, in its own heights: that of the widest usual font, so that text fits in all of them.
LETTERS = {
    0.32: " ',.:;IJijl·|/-\\",
    0.41: "!()[]frt²",
    0.59: '"*_`sz∂cvxyk?',
    0.65: "0123456789abdeghnopquL$FPTYγμσβ√ES",
    0.78: "ABCDGHKNRUVXZOQw&",
    0.86: "#+<=>M^~−×→≈±←↓",
    1.0: "m%@W½",
}
WIDTHS = {letter: width for width, letters in LETTERS.items() for letter in letters}

Point = tuple[float, float]


def by(size: Sequence[int]) -> str:
    return " × ".join(map(str, size))


def text_width(words: str, size: float = TEXT, mono: bool = False) -> float:
    """How wide the longest line of some text becomes at most, in pixels."""
    each = (sum(0.61 if mono else WIDTHS.get(c, 0.7) for c in line) for line in words.split("\n"))
    return size * max(each)


@dataclass(frozen=True)
class Diagram:
    """A drawing that a notebook shows as inline SVG; `title` and `description` are for those who hear it."""

    title: str
    description: str
    svg: str
    width: int
    height: int

    def _repr_html_(self) -> str:
        return f'<div class="u2-diagram"><style>{STYLE}</style>{self.svg}</div>'


class Box(NamedTuple):
    """Where something was drawn: upper left corner and size. Arrows go to the middles of its sides."""

    x: float
    y: float
    w: float
    h: float

    @property
    def centre(self) -> Point:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def left(self) -> Point:
        return self.x, self.y + self.h / 2

    @property
    def right(self) -> Point:
        return self.x + self.w, self.y + self.h / 2

    @property
    def top(self) -> Point:
        return self.x + self.w / 2, self.y

    @property
    def bottom(self) -> Point:
        return self.x + self.w / 2, self.y + self.h


class Sheet:
    """What is drawn is kept in order, and the sheet remembers how far it reaches."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.x0 = self.y0 = math.inf
        self.x1 = self.y1 = -math.inf

    def diagram(self, title: str, description: str) -> Diagram:
        """The finished sheet. `title` names it in a few words, `description` says what is to be seen."""
        x, y = math.floor(self.x0 - MARGIN), math.floor(self.y0 - MARGIN)
        w, h = math.ceil(self.x1 + MARGIN) - x, math.ceil(self.y1 + MARGIN) - y
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(title)}" '
            f'viewBox="{x} {y} {w} {h}" width="{w}" height="{h}" font-family="{FONT}">'
            f"<title>{html.escape(title)}</title>"
            f"<desc>{html.escape(description)}</desc>{''.join(self.parts)}</svg>"
        )
        return Diagram(title, description, svg, w, h)

    # ------------------------------------------------------------------------------------------ strokes

    def line(self, *points: Point, role: str = "ink", width: float = 1.4, dashed: bool = False) -> None:
        self._path(_through(points), points, stroke=role, width=width, dashed=dashed)

    def arrow(self, *points: Point, role: str = "ink", width: float = 1.4) -> None:
        """A line through `points`, with a head at the last."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        neck = x1 - 7 * ux, y1 - 7 * uy
        wings = [(neck[0] - 3.6 * side * uy, neck[1] + 3.6 * side * ux) for side in (1, -1)]
        self.line(*points[:-1], neck, role=role, width=width)
        self._path(_through([*wings, points[-1]]) + "z", [*wings, points[-1]], fill=role)

    def curve(self, points: Sequence[Point], role: str = "ink") -> None:
        self._path(_through(points), points, stroke=role, width=2.2)

    def area(self, points: Sequence[Point], role: str, strength: float) -> None:
        """A filled polygon without a line around it; `strength` is how much of its colour, up to 1."""
        self._path(_through(points) + "z", points, fill=role, strength=strength)

    def bar(self, x: float, y: float, w: float, h: float, role: str, strength: float = 0.45) -> None:
        """A filled rectangle without a line around it."""
        self._rectangle(x, y, w, h, role, strength)

    def bracket(self, start: Point, end: Point, depth: float = 7, role: str = "ink") -> None:
        """A bracket from `start` to `end`, which lie beside or below each other; it opens towards -depth."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = (depth, 0) if x0 == x1 else (0, depth)
        self.line((x0 - dx, y0 - dy), start, end, (x1 - dx, y1 - dy), role=role)

    # ------------------------------------------------------------------------------------------ shapes

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        words: str = "",
        role: str = "grey",
        note: str = "",
        size: float = TEXT,
        tint: bool = True,
        width: float = 1.4,
    ) -> Box:
        """A rounded box with its upper left corner at (x, y), words in its middle and a paler note below."""
        self._rectangle(x, y, w, h, role, "tint" if tint else 0, width, min(5, w / 4, h / 4))
        middle, lines = y + h / 2, words.count("\n") + 1
        if note:
            self.text(x + w / 2, middle + 0.6 * size * lines, note, size=SMALL, role="muted")
            middle -= 0.6 * SMALL * (note.count("\n") + 1)
        if words:
            self.text(x + w / 2, middle, words, size=size)
        return Box(x, y, w, h)

    def frame(
        self, x: float, y: float, w: float, h: float, role: str, inset: float = 2, width: float = 2
    ) -> Box:
        """A box without words or tint, a little inside of its place, so that neighbours are told apart."""
        return self.box(
            x + inset, y + inset, w - 2 * inset, h - 2 * inset, role=role, tint=False, width=width
        )

    def circle(
        self, x: float, y: float, r: float, words: str = "", role: str = "grey", tint: bool = True
    ) -> Box:
        form = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}"'
        inside = _fill(role, "tint" if tint else 0)
        self.parts.append(f"<circle {form} {inside}{_stroke(role, 1.4)}/>")
        self._reach((x - r, y - r), (x + r, y + r))
        if words:
            self.text(x, y, words, size=TEXT + 2)
        return Box(x - r, y - r, 2 * r, 2 * r)

    def dot(self, x: float, y: float, role: str = "ink", r: float = 4.5, hollow: bool = False) -> None:
        form = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}"'
        self.parts.append(f"<circle {form} {_fill(role, 0 if hollow else 1)}{_stroke(role, 1.6)}/>")
        self._reach((x - r, y - r), (x + r, y + r))

    def cells(
        self,
        values: Any,
        x: float,
        y: float,
        side: float = 30,
        role: str | Sequence[Sequence[str]] = "grey",
        strengths: Any = None,
        wide: float | None = None,
        size: float = SMALL,
    ) -> Box:
        """Numbers or words (H, W) in a grid with its upper left corner at (x, y), cells of `wide` by `side`.

        `role`: one for all, or one for each cell. `strengths` (H, W) in 0..1 says how much of its colour each
        cell has; by default all have a tint of it.
        """
        table, wide = [list(row) for row in values], wide or side
        h, w = len(table), len(table[0])
        for r, row in enumerate(table):
            for c, value in enumerate(row):
                colour = role if isinstance(role, str) else role[r][c]
                much = "tint" if strengths is None else 0.45 * float(strengths[r][c])
                self._rectangle(x + c * wide, y + r * side, wide, side, colour, much)
                words = value if isinstance(value, str) else short_number(value)
                if words:
                    self.text(x + (c + 0.5) * wide, y + (r + 0.5) * side, words, size=size)
        lines = [((x, y + r * side), (x + w * wide, y + r * side)) for r in range(h + 1)]
        lines += [((x + c * wide, y), (x + c * wide, y + h * side)) for c in range(w + 1)]
        path = "".join(_through(line) for line in lines)
        outline = role if isinstance(role, str) else "grey"
        self._path(path, [(x, y), (x + w * wide, y + h * side)], stroke=outline, width=0.9)
        return Box(x, y, w * wide, h * side)

    def mask(
        self, where: np.ndarray, x: float, y: float, side: float, role: str = "ink", strength: float = 0.85
    ) -> Box:
        """The true pixels of a mask (H, W) as squares of `side`, all in one path."""
        path = []
        for r, row in enumerate(np.asarray(where, bool)):
            changes = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
            for first, last in changes.reshape(-1, 2):  # each run of true pixels
                run = side * float(last - first)
                path.append(f"M{_n(x + first * side)} {_n(y + r * side)}h{_n(run)}v{_n(side)}h{_n(-run)}z")
        h, w = where.shape
        self._path("".join(path), [(x, y), (x + w * side, y + h * side)], fill=role, strength=strength)
        return Box(x, y, w * side, h * side)

    def greys(self, shares: np.ndarray, x: float, y: float, side: float, role: str = "ink") -> Box:
        """A picture (H, W) of few different numbers in [0, 1]: how much ink each pixel has."""
        for share in np.unique(shares[shares > 0]):
            self.mask(shares == share, x, y, side, role, float(share))
        h, w = shares.shape
        self._reach((x, y), (x + w * side, y + h * side))
        return Box(x, y, w * side, h * side)

    # -------------------------------------------------------------------------------------------- words

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = TEXT,
        role: str = "ink",
        anchor: str = "middle",
        bold: bool = False,
        mono: bool = False,
    ) -> Box:
        """Words around the height `y`; `x` is their "middle", "start" or "end". \\n breaks the line."""
        lines = words.split("\n")
        wide, high = text_width(words, size, mono), 1.2 * size * len(lines)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
        style = f'font-size="{_n(size)}" text-anchor="{anchor}" fill="{_colour(role)}"'
        style += ' fill-opacity=".78"' if role == "muted" else ""
        style += ' font-weight="600"' if bold else ""
        style += f' font-family="{CODE}"' if mono else ""
        for i, line in enumerate(lines):
            low = y + 1.2 * size * (i - (len(lines) - 1) / 2) + 0.35 * size
            self.parts.append(f'<text x="{_n(x)}" y="{_n(low)}" {style}>{html.escape(line)}</text>')
        self._reach((left, y - high / 2), (left + wide, y + high / 2))
        return Box(left, y - high / 2, wide, high)

    # -------------------------------------------------------------------------------------------- plots

    def plot(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        xlim: Point,
        ylim: Point,
        xlabel: str = "",
        ylabel: str = "",
        xticks: Iterable[float] = (),
        yticks: Iterable[float] = (),
    ) -> Plot:
        """Two axes with their corner at the lower left of the rectangle; gives where its points lie."""
        plot = Plot(Box(x, y, w, h), xlim, ylim)
        self.line((x, y), (x, y + h), (x + w, y + h), role="muted", width=1)
        for value in xticks:
            at = plot(value, ylim[0])[0]
            self.line((at, y + h), (at, y + h + 4), role="muted", width=1)
            self.text(at, y + h + 13, short_number(value), size=SMALL, role="muted")
        for value in yticks:
            at = plot(xlim[0], value)[1]
            self.line((x, at), (x - 4, at), role="muted", width=1)
            self.text(x - 8, at, short_number(value), size=SMALL, role="muted", anchor="end")
        if xlabel:
            self.text(x + w / 2, y + h + 31, xlabel, size=SMALL, role="muted")
        if ylabel:
            self.text(x, y - 13, ylabel, size=SMALL, role="muted", anchor="start")
        return plot

    # ------------------------------------------------------------------------------------------- inside

    @contextmanager
    def faded(self, opacity: float) -> Iterator[None]:
        """What is drawn inside is paler."""
        self.parts.append(f'<g opacity="{opacity}">')
        yield
        self.parts.append("</g>")

    def _rectangle(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        role: str,
        strength: float | str,
        width: float = 0,
        corner: float = 0,
    ) -> None:
        form = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
        form += f' rx="{_n(corner)}"' if corner else ""
        self.parts.append(f"<rect {form} {_fill(role, strength)}{_stroke(role, width) if width else ''}/>")
        self._reach((x, y), (x + w, y + h))

    def _path(
        self,
        path: str,
        points: Sequence[Point],
        stroke: str = "",
        fill: str = "",
        width: float = 1.4,
        dashed: bool = False,
        strength: float | str = 1,
    ) -> None:
        inside = _fill(fill, strength if fill else 0)
        self.parts.append(f'<path d="{path}" {inside}{_stroke(stroke, width, dashed) if stroke else ""}/>')
        self._reach(*points)

    def _reach(self, *points: Point) -> None:
        for x, y in points:
            self.x0, self.x1 = min(self.x0, x), max(self.x1, x)
            self.y0, self.y1 = min(self.y0, y), max(self.y1, y)


@dataclass(frozen=True)
class Plot:
    """Where numbers lie on the sheet: `plot(x, y)` is a point."""

    box: Box
    xlim: Point
    ylim: Point

    def __call__(self, x: float, y: float) -> Point:
        (x0, x1), (y0, y1), box = self.xlim, self.ylim, self.box
        return box.x + box.w * (x - x0) / (x1 - x0), box.y + box.h * (1 - (y - y0) / (y1 - y0))

    def points(self, xs: Iterable[float], ys: Iterable[float]) -> list[Point]:
        return [self(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _n(value: float) -> str:
    """A coordinate in tenths of a pixel, and no longer than it must be."""
    return f"{round(float(value), 1) + 0:g}"


def _through(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _colour(role: str) -> str:
    return "currentColor" if role in ("ink", "muted") else f"var(--u2-{role},{INKS[role][0]})"


def _fill(role: str, strength: float | str) -> str:
    """A fill; a weak one has the brighter colour of the house, and a "tint" is stronger on dark pages."""
    if not strength:
        return 'fill="none"'
    if strength == "tint":
        return f'fill="{_tint(role)}" fill-opacity="var(--u2-tint,.17)"'
    colour = _tint(role) if float(strength) < 0.6 else _colour(role)
    return f'fill="{colour}"' + (f' fill-opacity="{float(strength):.2g}"' if float(strength) < 1 else "")


def _tint(role: str) -> str:
    return "currentColor" if role in ("ink", "muted") else f"var(--u2-{role}-tint,{COLOURS[role]})"


def _stroke(role: str, width: float, dashed: bool = False) -> str:
    pale = ' stroke-opacity=".6"' if role == "muted" else ""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f' stroke="{_colour(role)}" stroke-width="{_n(width)}" stroke-linejoin="round"{pale}{dashes}'
