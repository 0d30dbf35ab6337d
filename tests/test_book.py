"""The site: built without a warning, complete, without dead links inside, without traces of the machine."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from conftest import ROOT

import u2learn
from tools import links
from tools.browser import pages

pytestmark = pytest.mark.site


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
        found = re.findall(r"<h3>Exercise (\d+)\.(\d+)\. ", html)
        assert 3 <= len(found) == html.count("<summary>Solution</summary>"), path.name
        wanted = [(chapter, place) for place in range(1, len(found) + 1)]
        assert [(int(first), int(second)) for first, second in found] == wanted, path.name


def test_notebooks_link_to_the_pages_beside_them(site):
    """In a notebook these links are addresses on the web; only the line for Colab keeps its own."""
    home = links.site(links.repository(ROOT))
    for path in chapter_pages(site):
        html = re.sub(r'<p class="u2-links">.*?</p>', "", path.read_text(encoding="utf-8"))
        assert f'href="{home}book/' not in re.sub(r"<link[^>]*>", "", html), path.name
        assert 'href="../back/students.html"' in html, path.name


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
