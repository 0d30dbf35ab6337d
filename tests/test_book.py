"""The site: built without a warning, complete, without dead links inside, without traces of the machine."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from conftest import ROOT

import u2learn
from tools.browser import pages
from tools.figures import uncaptioned

pytestmark = pytest.mark.site

HOME = re.search(r"baseurl: (\S+)", (ROOT / "_config.yml").read_text(encoding="utf-8"))[1]
# Pictures whose cells do not say yet what they show. A page may have so many, another page none: the numbers
# go down as captions come, and at the end this is empty. `python -m tools.figures` names the cells.
UNCAPTIONED = {
    "book/chapters/blocks": 5,
    "book/chapters/convolution": 13,
    "book/chapters/down-and-up": 8,
    "book/chapters/exported": 7,
    "book/chapters/fast": 3,
    "book/chapters/heads": 6,
    "book/chapters/images-and-masks": 8,
    "book/chapters/losses": 6,
    "book/chapters/metrics": 11,
    "book/chapters/own-images": 7,
    "book/chapters/receptive-field": 5,
    "book/chapters/reported-and-ours": 3,
    "book/chapters/reproduce": 1,
    "book/chapters/rsu": 8,
    "book/chapters/saliency-metrics": 15,
    "book/chapters/scaled-out": 3,
    "book/chapters/street-scenes": 12,
    "book/chapters/training-on-vessels": 17,
    "book/chapters/training-u2net": 10,
    "book/chapters/u2net": 13,
    "book/chapters/unet": 10,
    "book/labs/broken-unets": 15,
}


def test_builds_without_a_warning(built):
    warnings = [line for line in built.stdout.splitlines() if "WARNING" in line or "ERROR" in line]
    assert built.returncode == 0, "\n".join([*warnings, built.stdout[-3000:]])


def test_every_page_of_the_contents_is_there(site):
    names = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert len(names) > 5
    assert [name for name in names if not (site / f"{name}.html").exists()] == []


def test_every_chapter_shows_a_picture_and_no_traceback(site):
    for path in chapter_pages(site):
        html = path.read_text(encoding="utf-8")
        assert "cell_output" in html, f"{path.name} was not executed"
        assert re.search(r'<(img|svg)[^>]*(src="[^"]*(_images|data:)|viewBox|viewbox)', html), (
            f"{path.name} has no picture"
        )
        assert "Traceback (most recent call last)" not in html, path.name


def test_exercises_carry_the_number_of_their_chapter(site):
    for path in chapter_pages(site):
        html = path.read_text(encoding="utf-8")
        chapter = int(re.findall(r"<h1>(\d+)\. ", html)[0])
        found = re.findall(r'caption-number">Exercise (\d+)\.(\d+)', html)
        assert len(found) >= 3, path.name
        wanted = [(chapter, place) for place in range(1, len(found) + 1)]
        assert [(int(first), int(second)) for first, second in found] == wanted, path.name


def test_pictures_say_what_they_show(site):
    pictures = 0
    for name in pages(site):
        for image in re.findall(r"<img [^>]*>", article(site / name)):
            alt = re.search(r'alt="([^"]*)"', image)
            pictures += 1
            assert alt and not re.search(r"[0-9a-f]{16}|_images|^\S+\.(svg|png|webp)$", alt[1]), (
                f"{name}: {image}"
            )
            assert alt[1].strip() or ('alt="" loading' in image and name == "book/index.html"), (
                f"{name}: {image}"
            )
    assert pictures > 100


def test_every_picture_has_a_caption(site):
    missing = {
        page: cells for page, cells in uncaptioned(site).items() if len(cells) > UNCAPTIONED.get(page, 0)
    }
    assert missing == {}, "pictures without '#| fig-cap: ...' in their cell"


def test_figures_are_numbered_by_chapter(site):
    for path in chapter_pages(site):
        html = path.read_text(encoding="utf-8")
        chapter = re.findall(r"<h1>(\d+)\. ", html)[0]
        found = re.findall(r'caption-number">Figure ([\d.]+) ', html)
        assert found == [f"{chapter}.{place}" for place in range(1, len(found) + 1)], path.name
        assert html.count("<figure ") == len(found), path.name
        assert not re.search(r"#\|.{0,30}fig-", re.sub("<[^>]+>", "", html)), path.name


def test_pictures_are_light_files(site):
    """Photographs are WebP, no page holds a picture itself, and figures know the colours of a dark page."""
    figures = 0
    for name in pages(site):
        assert "data:image/" not in article(site / name), name
        for image in re.findall(r'src="([^"]*_images/[^"]*)"', article(site / name)):
            file = (site / name).parent / image
            assert file.suffix in (".svg", ".webp"), f"{name}: {image}"
            if file.suffix == ".svg":
                svg = file.read_text(encoding="utf-8")
                figures += 1
                assert "prefers-color-scheme:dark" in svg, f"{name}: {image}"
                assert "data:image/png" not in svg, f"{name}: {image}"
    assert figures > 50


def test_pictures_wait_until_they_are_needed(site):
    for name in pages(site):
        images = re.findall(r"<img [^>]*>", article(site / name))
        kept = [image for image in images if "_images/" in image]
        if kept:
            shown = [image for image in kept if " data-src=" not in image]
            assert "loading=" not in shown[0], f"{name}: the first picture should be there at once"
            assert [image for image in shown[1:] if 'loading="lazy"' not in image] == [], name
            assert [image for image in shown if not re.search(r' width="\d+" height="\d+"', image)] == [], (
                name
            )
            assert all(" hidden " in image for image in kept if " data-src=" in image), name


def test_pages_load_only_what_they_use(site):
    formulas = 0
    for name in pages(site):
        html = (site / name).read_text(encoding="utf-8")
        has_formula = 'class="math' in html
        formulas += has_formula
        assert "fontawesome.js" not in html and "thebe" not in html, name
        assert ("/mathjax/" in html) == has_formula, name
        assert ("searchindex.js" in html) == (name == "search.html"), name
        files = re.findall(r'<(?:script|link|img)\b[^>]*?(?:src|href)="(https?:[^"]*)"', html)
        assert [file for file in files if not file.startswith(HOME)] == [], f"{name} asks another server"
    assert 5 < formulas < len(pages(site))


def test_icons_are_in_the_small_font(site):
    icons = (site / "_static" / "u2-icons.css").read_text(encoding="utf-8")
    assert icons.count("@font-face") >= 2 and len(icons) < 30_000


def test_a_link_to_a_page_says_what_it_is_about(site):
    seen = set()
    for name in pages(site):
        if name == "search.html":
            continue
        html = (site / name).read_text(encoding="utf-8")
        page = "book/index.html" if name == "index.html" else name
        words = dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', html))
        assert len(words["description"]) >= 30 and words["og:description"] == words["description"], name
        assert words["og:title"] and words["og:url"] == HOME + page, name
        image = words["og:image"].removeprefix(HOME)
        assert image != words["og:image"] and (site / image).exists(), name
        assert f'<link rel="canonical" href="{HOME}{page}"' in html, name
        assert html.count('name="viewport"') <= 1, name
        seen.add(words["description"])
    assert len(seen) > 20, "each page has words of its own"


def test_a_notebook_can_be_run_and_had_from_below_its_title(site):
    for path in [*chapter_pages(site), *(site / "book" / "labs").glob("*.html")]:
        name = path.relative_to(site).with_suffix(".ipynb").as_posix()
        line = re.search(
            r'</h1>\s*<p class="u2-badges">(.*?)</p>', path.read_text(encoding="utf-8"), re.DOTALL
        )
        assert line, f"{name} has no line below its title"
        links = re.findall(r'href="([^"]+)"', line[1])
        assert links[0].startswith("https://colab.research.google.com/github/"), name
        assert [link.endswith(f"/blob/main/{name}") for link in links] == [True, True, False], name
        assert (path.parent / links[2]).exists(), name


def test_the_front_page_shows_every_chapter_and_the_ways_through_them(site):
    html = article(site / "book/index.html")
    names = re.findall(r"file: book/chapters/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    cards = re.findall(r'<div class="u2-card">(.*?)</div>', html, re.DOTALL)
    assert [re.findall(r'href="chapters/([\w-]+)\.html"', card) for card in cards] == [[n] for n in names]
    assert [name for name, card in zip(names, cards, strict=True) if "<img " not in card] == []
    rows = re.findall(r'<li><span class="u2-lanes"(.*?)</li>', html, re.DOTALL)
    assert [re.findall(r"chapters/([\w-]+)\.html", row) for row in rows] == [[n] for n in names]
    ways = re.findall(r'<li class="(\w+)"><strong>(.*?):</strong>', html)
    assert len(ways) == 4
    for hue, way in ways:
        stops = [" stop" in re.search(rf'class="{hue} ?(.*?)"', f" {row}")[0] for row in rows]
        said = [bool(re.search(rf"on the ways: [^<]*{way}", row)) for row in rows]
        assert stops == said and sum(stops) > 2, way
    assert "<table" not in html, "the table of chapters is for GitHub"


def test_pages_have_no_id_twice_and_no_false_labels(site):
    for name in pages(site):
        html = (site / name).read_text(encoding="utf-8")
        ids = re.findall(r'\bid="([^"]+)"', html)
        assert {each for each in ids if ids.count(each) > 1} == set(), name
        assert not re.search(r"<summary[^>]* aria-label|citation[^>]* role=", html), name
        assert not re.search(r"<th[^>]*>(<p></p>)?</th>", html), name


def test_tables_that_a_cell_prints_are_tables(site):
    """A Markdown table that was not understood shows its rule of dashes and bars."""
    tables = 0
    for path in chapter_pages(site):
        html = path.read_text(encoding="utf-8")
        tables += html.count("<table")
        prose = re.sub(r"<pre.*?</pre>|<[^>]+>", "", html, flags=re.DOTALL)
        assert not re.search(r"\|\s*:?[—–-]+:?\s*\|", prose), path.name
    assert tables > 10


def test_the_install_cell_is_hidden(site):
    for path in chapter_pages(site):
        assert "u2learn: install" not in re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")), path.name


def test_pages_tell_nothing_of_this_machine(site):
    for name in pages(site):
        html = (site / name).read_text(encoding="utf-8")
        assert str(ROOT) not in html and str(Path.home()) + "/" not in html, name


def test_links_inside_the_site_are_alive(site):
    links, dead = 0, []
    for name in pages(site):
        for link in Links.of(site / name).targets:
            if urlparse(link).scheme or urlparse(link).netloc:
                continue
            links += 1
            address, anchor = urldefrag(unquote(link))
            target = (site / name).parent / address.split("?")[0] if address else site / name
            lost = anchor and target.suffix == ".html" and anchor not in Links.of(target).anchors
            if not target.exists() or lost:
                dead.append(f"{name}: {link}")
    assert links > 100
    assert dead == []


def test_the_reference_has_every_module_and_every_public_name(site):
    names = set(
        re.findall(r'id="u2learn\.[\w.]*?(\w+)"', (site / "book/back/api.html").read_text(encoding="utf-8"))
    )
    assert set(u2learn.__all__) <= names
    listed = re.findall(
        r"^```\{api\} (\S+)", (ROOT / "book/back/api.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    listed.append("u2learn.cli")  # the command line explains itself
    package = Path(u2learn.__file__).parent
    for path in package.rglob("[!_]*.py"):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        assert any(f"{module}.".startswith(f"{name}.") for name in listed), (
            f"{module} is not in book/back/api.md"
        )


def article(page: Path) -> str:
    """What the page says, without what the theme puts around it."""
    found = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    return found[0] if found else ""


def chapter_pages(site: Path) -> list[Path]:
    found = sorted((site / "book" / "chapters").glob("*.html"))
    assert found, "no chapter was built"
    return found


class Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self):
        super().__init__()
        self.targets, self.anchors = [], {"top"}

    @classmethod
    @functools.cache
    def of(cls, path: Path) -> "Links":
        links = cls()
        if path.exists():
            links.feed(path.read_text(encoding="utf-8"))
        return links

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(attributes[key] for key in ("id", "name") if attributes.get(key))
        self.targets += [attributes[key] for key in ("href", "src") if attributes.get(key)]
