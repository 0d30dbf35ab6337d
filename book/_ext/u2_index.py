"""The front page: the chapters as cards with a picture each, and a map of the ways through them.

Both follow _toc.yml and the chapters. The table of chapters that tools/links.py writes into book/index.md is
what a reader sees on GitHub; on the site the cards stand in its place. The directive

    ```{paths}
    two evenings: unet losses | what you have at its end
    everything: *
    ```

draws one line for each way, through the chapters that it names by their files; `*` is all of them.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from u2_page import colab, minutes_of
from u2_pictures import size, thumbnail

from tools.links import read_chapters

HUES = ("encoder", "false_alarm", "decoder", "bottleneck", "accent")


@dataclass(frozen=True)
class Stop:
    """A chapter, as the front page shows it."""

    number: int
    title: str
    builds: str
    name: str  # "unet"
    part: str
    minutes: str

    @property
    def docname(self) -> str:
        return f"book/chapters/{self.name}"

    @property
    def link(self) -> str:
        return f'<a href="chapters/{self.name}.html">{self.number}. {html.escape(self.title)}</a>'


def stops(root: Path) -> list[Stop]:
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts = {c["file"]: part["caption"] for part in contents["parts"] for c in part["chapters"]}
    return [
        Stop(
            chapter.number,
            chapter.title,
            chapter.builds,
            Path(chapter.file).stem,
            parts[chapter.path.removesuffix(".ipynb")],
            minutes_of(root / chapter.path),
        )
        for chapter in read_chapters(root)
    ]


class Paths(SphinxDirective):
    """The map: a row a chapter, a column a way; a way is a line with a dot at each chapter of it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        for stop in (chapters := stops(root)):
            self.env.note_dependency(str(root / f"{stop.docname}.ipynb"))
        self.env.note_dependency(str(root / "_toc.yml"))
        ways = [Way.read(line, chapters) for line in self.content if line.strip()]
        return [nodes.raw("", drawn(ways, chapters), format="html")]


class Begin(SphinxDirective):
    """Two buttons: to the first chapter, and to its notebook in Colab."""

    def run(self) -> list[nodes.Node]:
        first = stops(Path(self.env.srcdir))[0]
        buttons = (
            f'<a href="chapters/{first.name}.html">Begin with {html.escape(first.title)}</a>'
            f'<a href="{colab(self.env.app, first.docname)}">Run it in Colab</a>'
        )
        return [nodes.raw("", f'<p class="u2-begin">{buttons}</p>', format="html")]


@dataclass(frozen=True)
class Way:
    name: str
    gives: str
    chapters: list[Stop]

    @classmethod
    def read(cls, line: str, chapters: list[Stop]) -> "Way":
        name, _, rest = line.partition(":")
        names, _, gives = rest.partition("|")
        known = {stop.name: stop for stop in chapters}
        if names.strip() == "*":
            return cls(name.strip(), gives.strip(), chapters)
        if lost := [n for n in names.split() if n not in known]:
            raise ExtensionError(f"{{paths}} in book/index.md: _toc.yml has no chapter {', '.join(lost)}.")
        return cls(name.strip(), gives.strip(), [known[n] for n in names.split()])

    @property
    def length(self) -> str:
        """The hours of reading, to the half, where all of its chapters say their minutes."""
        count = f"{len(self.chapters)} chapter{'s' * (len(self.chapters) > 1)}"
        times = [stop.minutes.split(" to ")[-1] for stop in self.chapters]
        if not all(time.isdecimal() for time in times):
            return count
        hours = round(sum(map(int, times)) / 30) / 2
        return f"{count}, {hours:g} hours" if hours > 1 else f"{count}, {sum(map(int, times))} minutes"

    def lane(self, stop: Stop) -> str:
        """How its line looks beside a chapter: it begins, stops, passes or ends there."""
        first, last = self.chapters[0].number, self.chapters[-1].number
        if not first <= stop.number <= last:
            return ""
        kinds = ["stop"] if stop in self.chapters else ["pass"]
        return " ".join(kinds + ["first"] * (stop.number == first) + ["last"] * (stop.number == last))


def drawn(ways: list[Way], chapters: list[Stop]) -> str:
    lines = ['<div class="u2-map">', '<ul class="u2-ways">']
    for hue, way in zip(HUES, ways, strict=False):
        words = (
            f"<strong>{html.escape(way.name)}:</strong> {html.escape(way.gives)} <span>({way.length})</span>"
        )
        lines.append(f'<li class="{hue}">{words}</li>')
    lines += ["</ul>", '<ol class="u2-stops">']
    for before, stop in zip([None, *chapters], chapters, strict=False):
        if before is None or stop.part != before.part:
            lines.append(
                f'<li class="part">{lanes(ways, before, stop)}<span>{html.escape(stop.part)}</span></li>'
            )
        on = [way.name for way in ways if stop in way.chapters]
        words = (
            f'<span class="visually-hidden">, on the ways: {html.escape(", ".join(on))}</span>' if on else ""
        )
        time = f'<span class="time">{stop.minutes} min</span>' if stop.minutes else ""
        lines.append(f"<li>{lanes(ways, stop, stop)}<span>{stop.link}{words}</span>{time}</li>")
    return "\n".join([*lines, "</ol>", "</div>"])


def lanes(ways: list[Way], before: Stop | None, stop: Stop) -> str:
    """The lines beside a chapter, or between a chapter and the next."""
    found = []
    for hue, way in zip(HUES, ways, strict=False):
        kind = way.lane(stop)
        if before != stop and kind:
            on = {before, stop} <= set(way.chapters)
            kind = "" if "first" in kind else "on" if on else "pass"
        found.append(f'<span class="{hue} {kind}"></span>')
    return f'<span class="u2-lanes" aria-hidden="true">{"".join(found)}</span>'


def cards(app, doctree, docname: str) -> None:
    """Put the cards in the place of the table of chapters."""
    if docname != app.config.root_doc:
        return
    marks = {
        name: raw
        for raw in doctree.findall(nodes.raw)
        for name in ("begin", "end")
        if f"chapters:{name}" in raw.astext()
    }
    parent = marks["begin"].parent
    first, last = (parent.index(marks[name]) for name in ("begin", "end"))
    parent[first : last + 1] = [nodes.raw("", deck(app, stops(Path(app.srcdir))), format="html")]


def deck(app, chapters: list[Stop]) -> str:
    lines, part = [], ""
    for stop in chapters:
        if stop.part != part:
            lines += ["</div>"] * bool(part) + [
                f"<h3>{html.escape(stop.part)}</h3>",
                '<div class="u2-cards">',
            ]
            part = stop.part
        lines.append(card(app, stop))
    return "\n".join([*lines, "</div>"])


def card(app, stop: Stop) -> str:
    picture = app.env.u2_pictures.get(stop.docname)
    image = ""
    if picture:
        file = thumbnail(picture, Path(app.outdir) / "_images")
        room = 'width="{}" height="{}"'.format(*size(file))
        image = f'<img alt="" loading="lazy" decoding="async" {room} src="../_images/{file.name}">'
    time = f"<span>{stop.minutes} minutes</span>" if stop.minutes else ""
    builds = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(stop.builds))
    name = f'aria-label="Colab: {html.escape(stop.title)}"'
    return (
        f'<div class="u2-card">{image}<p class="u2-name">{stop.link}</p><p>{builds}</p>'
        f'<p class="u2-foot">{time}<a href="{colab(app, stop.docname)}" {name}>Colab</a></p></div>'
    )


def setup(app):
    app.add_directive("begin", Begin)
    app.add_directive("paths", Paths)
    app.connect("doctree-resolved", cards)
    return {"parallel_read_safe": True}
