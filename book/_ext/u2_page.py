"""What each page of the site gets, and what it loses: it asks no other server, waits for no file that it does
not need, says what it is about, and can be used by ear and by keyboard.

Sphinx hands out no part of the theme's own, so a page is mended when it is about to be written.
"""

import base64
import html
import json
import re
from pathlib import Path

from docutils import nodes
from u2_pictures import raster, size

PREVIEW = "_static/u2learn.png"  # what a link to a page shows, where it is shared
FOR_NOTHING = ("thebe", "scripts/fontawesome.js")  # no code runs in a page, and icons are a font
FOR_TABS = ("design-tabs.js", "sphinx-design.min.css")
FOR_SEARCH = ("_static/searchtools.js", "_static/language_data.js", "searchindex.js")
FOR_FORMULAS = ("mathjax", "MathJax")
FORMULA = re.compile(r'class="math[ -"]')
FILE = re.compile(r'[ \t]*(?:<script\b[^>]*>.*?</script>|<link rel="stylesheet"[^>]*>)\n?', re.DOTALL)
VIEWPORT = re.compile(r'[ \t]*<meta name="viewport"[^>]*>\n?')
PRINTED_CONTENTS = re.compile(r'<div id="jb-print-docs-body".*?(?=<div id="searchbox")', re.DOTALL)
ARTICLE = re.compile(r'<article class="bd-article">.*?</article>', re.DOTALL)
# A page in the dark is dark at once, and not only when the theme's last script has come.
MODE = (
    'getItem("theme") || "auto"',
    'getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")',
)
IMAGE = re.compile(r"<img\b[^>]*>")
DRAWING = re.compile(r'(?<=\n)<img (?![^>]*(?:dark-light|alt=""))[^>]*\.svg"[^>]*>')
SOURCE = re.compile(r'\bsrc="([^"]*)"')
DATA = re.compile(r"data:image/(?:webp|png|jpeg);base64,(.*)", re.DOTALL)
MINUTES = re.compile(r"(\d+)(?: ?(?:to|–|-) ?(\d+))? minutes")
# Names that say something else than what is to be seen, roles without what they need, ids that come twice,
# headers of nothing.
MENDED = [
    (re.compile(r'(<summary) aria-label="[^"]*"'), r"\1"),
    (re.compile(r'(<button class="btn search-button-field [^>]*?) aria-label="[^"]*"'), r"\1"),
    (re.compile(r'(<i class="theme-switch [^>]*?) title="[^"]*"'), r"\1"),
    (re.compile(r'(<div) role="list" (class="citation-list")'), r"\1 \2"),
    (re.compile(r'(<div class="citation"[^>]*?) role="doc-biblioentry"'), r"\1"),
    (re.compile(r' id="(?:exercise|solution)-content"'), ""),
    (re.compile(r'<th class="head[^"]*">(?:<p></p>)?</th>'), "<td></td>"),
    (re.compile(r'<div id="pst-primary-sidebar"'), r'\g<0> role="region" aria-label="The book"'),
]


def start(app) -> None:
    """Let every page pass through `finished` when it is written."""
    render = app.builder.templates.render
    app.builder.templates.render = lambda template, context: finished(render(template, context), context, app)


def finished(page: str, context: dict, app) -> str:
    page = with_fewer_files(page, searches=context["pagename"] == "search")
    page = page.replace(*MODE)
    page = PRINTED_CONTENTS.sub("", page)
    for viewport in VIEWPORT.findall(page)[1:]:
        before, _, after = page.rpartition(viewport)
        page = before + after
    for wrong, right in MENDED:
        page = wrong.sub(right, page)
    pictures = Pictures(app, context["content_root"])
    return ARTICLE.sub(lambda article: DRAWING.sub(openable, IMAGE.sub(pictures.mended, article[0])), page)


def openable(picture: re.Match[str]) -> str:
    """A drawing that opens in its own size, as a phone needs it; the keyboard passes it by."""
    return f'<a class="u2-open" tabindex="-1" href="{SOURCE.search(picture[0])[1]}">{picture[0]}</a>'


def with_fewer_files(page: str, searches: bool) -> str:
    """Only what the page uses, and nothing that is waited for: what comes later cannot be seen missing."""
    uses = {
        FOR_NOTHING: False,
        FOR_TABS: ' class="sd-' in page,
        FOR_SEARCH: searches,
        FOR_FORMULAS: FORMULA.search(page),
    }
    unused = [name for names, used in uses.items() if not used for name in names]

    def kept(file: re.Match[str]) -> str:
        tag = file[0]
        if any(name in tag for name in unused):
            return ""
        if "mathjax" in tag:
            return tag.replace('defer="defer"', "async").replace("tex-chtml.js", "startup.js")
        # Lines of the page itself use the options; and the page of the search waits for its files.
        if searches or " defer" in tag or "documentation_options" in tag:
            return tag
        return tag.replace("<script src=", "<script defer src=")

    return FILE.sub(kept, page)


class Pictures:
    """The pictures of one page: in files, loaded when they are needed, and with their sizes, so that nothing
    jumps when they come."""

    def __init__(self, app, root: str):
        self.folder, self.root = Path(app.outdir) / "_images", root
        self.files = {name: Path(f"{app.srcdir}/{uri}") for uri, name in app.builder.images.items()}
        self.seen = False

    def mended(self, image: re.Match[str]) -> str:
        tag, source = image[0], SOURCE.search(image[0])
        path = self.file(source[1]) if source else None
        if path is None:
            return tag
        tag = tag.replace(source[0], f'src="{self.root}_images/{path.name}"')
        if " hidden " in tag:  # of a slider: loaded when the slider is touched
            return tag.replace(" src=", " data-src=")
        width, height = size(path)
        if given := re.search(r' width="(\d+)"', tag):
            tag, height = tag.replace(given[0], ""), round(height * int(given[1]) / width)
            width = int(given[1])
        lazy = 'loading="lazy" decoding="async" ' if self.seen else ""
        self.seen = True
        return tag.replace("<img ", f'<img {lazy}width="{width}" height="{height}" ', 1)

    def file(self, source: str) -> Path | None:
        """The file of a picture; written, where the page holds the picture itself."""
        data = DATA.fullmatch(source)
        if not data:
            return self.files.get(source.rpartition("/")[2])
        return raster(base64.b64decode(data[1]), self.folder)


def introduce(app, pagename, templatename, context, doctree) -> None:
    """Say what the page is about: to search engines, where a link to it is shared, and below its title."""
    if doctree is None:
        return
    title = re.sub("<[^>]+>", "", context["title"])
    tags = {
        "og:type": "article",
        "og:site_name": app.config.html_title,
        "og:title": html.unescape(title),
        "og:url": context["pageurl"],
        "og:image": app.config.html_baseurl + PREVIEW,
        "og:image:alt": "A photograph of an eye, a U-Net, and the vessels that it marks",
    }
    words = description(doctree) or f"{tags['og:title']}: {app.env.titles[app.config.root_doc].astext()}"
    tags["og:description"] = words
    metas = [f'<meta property="{name}" content="{html.escape(text)}" />' for name, text in tags.items()]
    metas += ['<meta name="twitter:card" content="summary_large_image" />']
    metas += [f'<meta name="description" content="{html.escape(words)}" />']
    context["metatags"] += "\n    " + "\n    ".join(metas)
    if pagename == app.config.root_doc:
        app.env.u2_front = "\n".join([*metas, f'<link rel="canonical" href="{tags["og:url"]}" />'])
    if Path(app.env.doc2path(pagename)).suffix == ".ipynb":
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{badges(app, pagename, context)}", 1)


def introduce_the_door(app, error) -> None:
    """The address of the site leads on to its front page, and says the same when it is shared."""
    door = Path(app.outdir) / "index.html"
    if error or app.config.root_doc == "index" or not door.exists():
        return
    lead = f'<meta http-equiv="Refresh" content="0; url={app.config.root_doc}.html" />'
    title = html.escape(app.config.html_title)
    head = f'<meta charset="utf-8" />\n<title>{title}</title>\n{lead}\n{app.env.u2_front}'
    door.write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n</html>\n', encoding="utf-8"
    )


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page, up to the sentence that ends before 200 letters."""
    paragraphs = (p.astext() for p in doctree.findall(nodes.paragraph) if isinstance(p.parent, nodes.section))
    text = " ".join(next((p for p in paragraphs if len(p) > 40), "").split())
    sentences = re.split(r"(?<=[.?!:]) ", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + len(sentence) >= 200:
            break
        kept += f" {sentence}"
    return kept if len(kept) <= 300 else kept[:297].rsplit(" ", 1)[0] + " …"


def badges(app, pagename: str, context: dict) -> str:
    """Where the notebook of a page can be run, read and had."""
    minutes = minutes_of(Path(app.env.doc2path(pagename)))
    notebook = f"{context['content_root']}_sources/{pagename}.ipynb"
    parts = [
        f'<a class="u2-run" href="{colab(app, pagename)}">Run in Colab</a>',
        f"<span>{minutes} minutes</span>" if minutes else "",
        f'<a href="{on_github(app, pagename)}">Notebook</a>',
        f'<a href="{notebook}" download>Download</a>',
    ]
    return f'<p class="u2-badges">{" ".join(filter(None, parts))}</p>'


def on_github(app, docname: str) -> str:
    options = app.config.html_theme_options
    return f"{options['repository_url']}/blob/{options['repository_branch']}/{docname}.ipynb"


def colab(app, docname: str) -> str:
    """The address that opens a page's notebook in Colab."""
    home = app.config.html_theme_options["launch_buttons"]["colab_url"]
    return on_github(app, docname).replace("https://github.com", f"{home}/github")


def minutes_of(path: Path) -> str:
    """How long a notebook takes, as "20" or "15 to 25", from its first cell; "" if it does not say so."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = MINUTES.search("".join(cells[0]["source"]))
    return " to ".join(filter(None, found.groups())) if found else ""


def setup(app):
    app.connect("builder-inited", start)
    app.connect("html-page-context", introduce, priority=900)
    app.connect("build-finished", introduce_the_door, priority=900)  # after it was made
    return {"parallel_read_safe": True}
