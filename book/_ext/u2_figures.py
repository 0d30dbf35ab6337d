"""Pictures of cells as numbered figures, with the caption and the alternative text that the cell gives them.

The first lines of a code cell may say what its picture shows, in the names of Quarto:

    #| fig-cap: A sentence, with `code`, $x^2$ and [links](unet.ipynb).
    #|   It may go on here.
    #| fig-alt: What is to be seen, where the caption does not say it.
    #| fig-card: true

The last one puts the picture on the chapter's card on the front page, in place of the chapter's first. The
pages show the code without these lines. A picture without a caption is marked; tools/figures.py lists those.
"""

import html
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.utils import new_document
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from u2_pictures import drawing, for_the_site, words

KEYS = ("fig-cap", "fig-alt", "fig-card")
LINE = re.compile(r"#\| ?(.*)")
KEY = re.compile(r"([\w-]+): *(.*)")
PICTURE = re.compile(r"<(?:svg|img|canvas)\b")
UNNAMED_SVG = re.compile(r"<svg\b(?![^>]*\baria-label)")
LIGHT = (".svg", ".png", ".jpg", ".jpeg", ".webp")  # what can be made light
log = logging.getLogger(__name__)


class Figures(SphinxTransform):
    """Give each picture its words, its frame and its light file, before Sphinx collects the files."""

    default_priority = 800

    @property
    def folder(self) -> Path:
        return Path(self.app.outdir).parent / "pictures"

    def apply(self, **_) -> None:
        page = Path(self.env.doc2path(self.env.docname))
        if page.suffix == ".ipynb":
            cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
            for part in list(self.document.findall(lambda n: is_part(n, "cell_code"))):
                cell = cells[part["cell_index"]]
                self.frame(part, cell["id"], *options("".join(cell["source"])))
        self.choose_for_the_card()
        for image in list(self.document.findall(nodes.image)):
            self.lighten(image)
        for links in list(self.document.findall(is_for_notebooks)):
            links.parent.remove(links)

    def frame(self, part: nodes.Element, name: str, said: dict[str, str], code: str) -> None:
        """Make a figure of the pictures of one cell."""
        for source in part.findall(lambda n: is_part(n, "cell_code_source")):
            source[0].rawsource = code
            source[0].children = [nodes.Text(code)]
        for key in set(said) - set(KEYS):
            log.warning("cell %r: '#| %s:' is not one of %s", name, key, ", ".join(KEYS), location=part)
        bundles = [b for b in part.findall(lambda n: is_part(n, "mime_bundle")) if shows_a_picture(b)]
        if not bundles:
            if said:
                log.warning("cell %r speaks of a picture, and shows none", name, location=part)
            return
        caption = said.get("fig-cap", "")
        alt = said.get("fig-alt") or plain(caption)
        for count, bundle in enumerate(bundles, start=1):
            describe(bundle, f"{alt} ({count} of {len(bundles)})" if alt and len(bundles) > 1 else alt)
        if caption:
            frame = nodes.figure(names=[f"fig-{name}"], classes=["u2-figure"])
        else:
            frame = nodes.container(classes=["u2-figure", "uncaptioned", f"cell-{name}"])
        frame["classes"] += ["on-card"] if "fig-card" in said else []
        place = bundles[0].parent
        place.insert(place.index(bundles[0]), frame)
        for bundle in bundles:
            place.remove(bundle)
            frame += bundle
        if caption:
            frame += nodes.caption(caption, "", *self.markdown(caption))
            self.document.note_explicit_target(frame)

    def choose_for_the_card(self) -> None:
        """Note the picture for the chapter's card: the one that says so, else the first."""
        self.env.u2_pictures.pop(self.env.docname, None)
        pictures = list(self.document.findall(lambda n: isinstance(n, (nodes.image, nodes.raw))))
        pictures.sort(key=lambda n: not any("on-card" in p.get("classes", ()) for p in parents(n)))
        for node in pictures:
            path = self.source(node) if isinstance(node, nodes.image) else drawing(node.astext(), self.folder)
            if path:
                self.env.u2_pictures[self.env.docname] = path
                return

    def source(self, image: nodes.image) -> Path | None:
        """The file of an image, if it is one that can be made light."""
        root, uri = Path(self.app.srcdir), image["uri"]
        page = Path(self.env.doc2path(self.env.docname))
        path = root / uri.lstrip("/") if uri.startswith("/") else page.parent / uri
        return path if path.suffix in LIGHT and path.exists() else None

    def markdown(self, text: str) -> list[nodes.Node]:
        """One paragraph of Markdown as nodes."""
        inside = new_document(self.document["source"], self.document.settings)
        parser = create_md_parser(self.env.myst_config, SphinxRenderer)
        parser.options["document"] = inside
        parser.render(text)
        return inside[0].children

    def lighten(self, image: nodes.image) -> None:
        """Point the image to its file for the pages; without words of its own it gets those written in it."""
        path = self.source(image)
        if path is None:
            return
        if not image.get("alt"):
            written = words(path.read_text(encoding="utf-8")) if path.suffix == ".svg" else ""
            image["alt"] = f"Picture: {written}" if written else "Picture that the cell above makes"
        light = for_the_site(path, self.folder)
        image["uri"] = "/" + Path(os.path.relpath(light, self.app.srcdir)).as_posix()


def parents(node: nodes.Node) -> Iterator[nodes.Element]:
    while node := node.parent:
        yield node


def is_part(node: nodes.Node, element: str) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == element


def options(source: str) -> tuple[dict[str, str], str]:
    """What the first lines `#| key: value` of a cell say, and the code behind them."""
    found: dict[str, str] = {}
    lines = source.split("\n")
    while lines and (line := LINE.fullmatch(lines[0])):
        if key := KEY.fullmatch(line[1]):
            last = key[1]
            found[last] = key[2].strip()
        elif found:
            found[last] = f"{found[last]} {line[1].strip()}".strip()
        else:
            break
        lines.pop(0)
    return found, "\n".join(lines).lstrip("\n") if found else source


def is_for_notebooks(node: nodes.Node) -> bool:
    """The line of links below a notebook's title; a page has its own there."""
    return isinstance(node, nodes.raw) and 'class="u2-links"' in node.astext()


def plain(markdown: str) -> str:
    """The words of a caption."""
    return re.sub(r"[`*]|\$", "", re.sub(r"\[([^][]*)\]\([^()\s]*\)", r"\1", markdown))


def shows_a_picture(bundle: nodes.Element) -> bool:
    return any(
        part["mime_type"].startswith("image/")
        or (part["mime_type"] == "text/html" and PICTURE.search(part.astext()))
        for part in bundle
    )


def describe(bundle: nodes.Element, alt: str) -> None:
    """Give the pictures of an output their alternative text; drawings and sliders that have one keep it."""
    if not alt:
        return
    for image in bundle.findall(nodes.image):
        image["alt"] = alt
    for raw in bundle.findall(nodes.raw):
        label = f'<svg role="img" aria-label="{html.escape(alt)}"'
        raw.children = [nodes.Text(UNNAMED_SVG.sub(label, raw.astext()))]


def number_by_chapter(app, env) -> list[str]:
    """Number the figures 4.1, 4.2 and so on; a chapter's number is its place in the contents."""
    contents = env.toctree_includes[app.config.root_doc]
    chapters = [docname for docname in contents if docname.startswith("book/chapters/")]
    for docname, kinds in env.toc_fignumbers.items():
        chapter = (chapters.index(docname) + 1,) if docname in chapters else ()
        figures = kinds.get("figure", {})
        for count, label in enumerate(figures, start=1):
            figures[label] = (*chapter, count)
    return []  # no further page has to be written


def prepare(app, env, docnames) -> None:
    env.u2_pictures = getattr(env, "u2_pictures", {})


def setup(app):
    app.connect("env-before-read-docs", prepare)
    app.add_transform(Figures)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered them
    return {"parallel_read_safe": True}
