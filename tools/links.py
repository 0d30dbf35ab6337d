"""Write every link to the project's home, and the numbers of the chapters, from their one source.

    python -m tools.links [--check]

The home is `[project.urls] Repository` in pyproject.toml. The chapters are those of _toc.yml, in its order: a
chapter's place there is its number in its title, in the tables of chapters, and in the text of every link
such as [chapter N](metrics.ipynb). The assignments are those of exercises/release.
With --check nothing is written: the files that differ are named, and the exit status is 1. With or without,
nothing is written where a link leads to no chapter, or where a chapter's number stands without a link.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from tools import notebooks
from tools.settle import settle

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
BADGE = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
INSTALL_MARK = "# u2learn: install"
CHAPTER = re.compile(r"- file: book/chapters/(\S+)(?: # (.+))?")
TITLE = re.compile(r"# (?:\d+\. )?(.+)")
ASSIGNMENT = re.compile(r"# Assignment (\d+)\. (.+)")
LINK = re.compile(r"\[([^][]*)\]\(([^()\s]+)\)")
ON_THE_SITE = re.compile(r"https://\S+/book/chapters/([^/\s]+)\.html")
PAGE = re.compile(r"https://[\w.-]+\.github\.io/[\w.-]+/(book/[^)\s]+\.html)")
IN_COLAB = re.compile(r"https://colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/([^)\s]+)")
LINKED_NUMBER = re.compile(r"\b([Cc]hapter\s+)\d+")
NUMBER = re.compile(r"\b[Cc]hapters?(?:[ \t]*\n)?[ \t]*\d+")
MARKDOWN = ("*.md", "book/**/*.md")
NOTEBOOKS = ("book/chapters/*.ipynb", "book/labs/*.ipynb", "exercises/*/*.ipynb")
CODE = ("u2learn", "tools", "tests", "book/_ext")


def main(options: list[str], root: Path = ROOT) -> None:
    texts = wanted(root)
    if found := list(mistakes(root, texts)):
        sys.exit("\n".join(found))
    settle(texts, root, "--check" in options, "make links")


def wanted(root: Path) -> dict[Path, str]:
    """The files that may hold a link to the home or a chapter's number, each with the text wanted."""
    home = repository(root)
    chapters = read_chapters(root)
    texts = {path: path.read_text(encoding="utf-8") for path in files(root, *MARKDOWN)}

    def write(name: str, marker: str, content: str) -> None:
        texts[root / name] = block(texts[root / name], marker, content, root / name)

    write("README.md", "badges", badges(home))
    write("README.md", "start", start(home))
    write("README.md", "chapters", readme_table(root, chapters))
    write("book/index.md", "start", start(home))
    write("book/index.md", "chapters", book_table(chapters))
    write("book/back/students.md", "exercises", exercise_table(root))
    texts = {path: numbered(text, path, root, chapters) for path, text in texts.items()}

    for path in files(root, *NOTEBOOKS):
        texts[path] = notebook(path, root, chapters)

    for name, key, link in (
        ("_config.yml", "  url", home),
        ("_config.yml", "  baseurl", site(home)),
        ("CITATION.cff", "repository-code", home),
        ("CITATION.cff", "url", site(home)),
    ):
        path = root / name
        texts[path] = set_key(texts.get(path) or path.read_text(encoding="utf-8"), key, link, path)
    return texts


def mistakes(root: Path, texts: dict[Path, str]) -> Iterator[str]:
    """Links to chapters that do not exist, and chapters' numbers without a link: a sentence each."""
    known = {chapter.file for chapter in read_chapters(root)}
    for path, text in texts.items():
        if path.suffix == ".ipynb":
            yield from mistakes_in_code(cells(text, "code"), path, root)
            text = cells(text, "markdown")
        yield from mistakes_in_prose(text, path, root, known)
    for path in files(root, *(f"{folder}/**/*.py" for folder in CODE)):
        yield from mistakes_in_code(path.read_text(encoding="utf-8"), path, root)


def mistakes_in_prose(text: str, path: Path, root: Path, known: set[str]) -> Iterator[str]:
    name, unlinked = path.relative_to(root).as_posix(), text
    for link in LINK.finditer(text):
        file = chapter_file(link[2], path, root)
        if file:
            unlinked = unlinked.replace(link[0], "")
        if file and file not in known:
            yield f"{name}: the link {link[0]} leads to no chapter of _toc.yml."
    for number in NUMBER.findall(unlinked):
        yield f"{name}: {number!r} needs a link to that chapter's file; its number is then written for you."


def mistakes_in_code(text: str, path: Path, root: Path) -> Iterator[str]:
    for number in NUMBER.findall(text):
        name = path.relative_to(root).as_posix()
        yield f"{name}: {number!r} stands in code, where nothing renumbers it; name the chapter's subject."


def files(root: Path, *patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern)})


def cells(notebook: str, kind: str) -> str:
    """The source of all Markdown or code cells of a stored notebook."""
    found = (cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == kind)
    return "\n\n".join("".join(cell["source"]) for cell in found)


def repository(root: Path) -> str:
    """The home, as https://github.com/OWNER/NAME. (A plain search: Python 3.10 cannot read TOML.)"""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "(https://github\.com/[\w.-]+/[\w.-]+)"$', project, re.M)
    if not found:
        sys.exit('pyproject.toml needs, under [project.urls]: Repository = "https://github.com/OWNER/NAME"')
    return found[1]


def site(home: str) -> str:
    owner, name = slug(home).split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def slug(home: str) -> str:
    return urlparse(home).path.strip("/")


@dataclass(frozen=True)
class Chapter:
    number: int
    title: str
    file: str  # "unet.ipynb"
    builds: str

    @property
    def path(self) -> str:
        """Below the root."""
        return f"book/chapters/{self.file}"


def read_chapters(root: Path) -> list[Chapter]:
    """The chapters of _toc.yml, numbered in their order."""
    found = CHAPTER.findall((root / "_toc.yml").read_text(encoding="utf-8"))
    return [read_chapter(root, number, *names) for number, names in enumerate(found, start=1)]


def read_chapter(root: Path, number: int, name: str, builds: str) -> Chapter:
    path = root / "book" / "chapters" / f"{name}.ipynb"
    if not path.exists():
        sys.exit(f"_toc.yml names book/chapters/{name}, but there is no {name}.ipynb.")
    if not builds:
        sys.exit(f"_toc.yml should say behind book/chapters/{name}, in a comment, what the reader builds.")
    first = cells(path.read_text(encoding="utf-8"), "markdown")
    title = TITLE.match(first)
    if not title:
        sys.exit(f"{path.name} should open with a title like '# The U', not with {first[:40]!r}.")
    return Chapter(number, title[1], path.name, builds)


def numbered(text: str, path: Path, root: Path, chapters: list[Chapter]) -> str:
    """The prose of `path` with the right number in the text of each link to a chapter, and the right site."""
    numbers = {chapter.file: chapter.number for chapter in chapters}
    pages = f"{site(repository(root))}book/chapters/"

    def mended(link: re.Match[str]) -> str:
        words, target = link.groups()
        file = chapter_file(target, path, root)
        if file not in numbers:
            return link[0]
        words = LINKED_NUMBER.sub(lambda match: f"{match[1]}{numbers[file]}", words)
        return f"[{words}]({ON_THE_SITE.sub(lambda page: f'{pages}{page[1]}.html', target)})"

    return LINK.sub(mended, text)


def chapter_file(target: str, path: Path, root: Path) -> str | None:
    """The file in book/chapters that a link in `path` leads to, there or not; None if it leads elsewhere."""
    address = target.partition("#")[0]
    if page := ON_THE_SITE.fullmatch(address):
        return f"{page[1]}.ipynb"
    file = Path(os.path.normpath(path.parent / address))
    is_chapter = file.parent == root / "book" / "chapters" and file.suffix == ".ipynb"
    return file.name if is_chapter else None


def notebook(path: Path, root: Path, chapters: list[Chapter]) -> str:
    """The notebook with its numbers, and a first code cell that installs the package if it is missing."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            prose = numbered("".join(cell["source"]), path, root, chapters)
            prose = PAGE.sub(lambda page: site(repository(root)) + page[1], prose)
            set_source(cell, IN_COLAB.sub(lambda page: colab(root, page[1]), prose))
    titles = {root / chapter.path: f"# {chapter.number}. {chapter.title}" for chapter in chapters}
    if path in titles:
        first = content["cells"][0]
        set_source(first, TITLE.sub(lambda _: titles[path], "".join(first["source"]), count=1))
    graded = path.is_relative_to(root / "exercises")
    code = install_release(repository(root), release(root)) if graded else install(repository(root))
    set_source(install_cell(content, path), code)
    return text if content == json.loads(text) else notebooks.dump(content)


def set_source(cell: dict, source: str) -> None:
    cell["source"] = source.splitlines(keepends=True)


def install_cell(notebook: dict, path: Path) -> dict:
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    marked = "".join(cell["source"]).startswith(INSTALL_MARK)
    if not marked or "remove-cell" not in cell["metadata"].get("tags", []):
        sys.exit(
            f"{path.name}: the first code cell needs '{INSTALL_MARK}' as first line and the tag remove-cell."
        )
    return cell


def block(text: str, name: str, content: str, path: Path) -> str:
    """`text` with `content` between its markers `name:begin` and `name:end`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f"{path.name} needs the markers {begin} and {end}, once each.")
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def set_key(text: str, key: str, link: str, path: Path) -> str:
    """`text` with the link behind `key:` replaced; a comment behind it stays."""
    text, count = re.subn(rf"^({key}: )\S+", lambda match: match[1] + link, text, flags=re.M)
    if count != 1:
        sys.exit(f"{path.name} should have one line '{key}: LINK', it has {count}.")
    return text


def install(home: str) -> str:
    return f"""{INSTALL_MARK}
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("u2learn") is None:
    packages = ["einops", "torchinfo", "u2learn @ git+{home}"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=True)"""


def install_release(home: str, release: str) -> str:
    """The first cell of an assignment: the package as it was when the assignment was made, or a newer one."""
    return f"""{INSTALL_MARK}
import importlib.metadata
import importlib.util
import re
import subprocess
import sys

RELEASE, HOME = "{release}", "{home}"


def numbers(version):
    return [int(n) for n in re.findall(r"\\d+", version)[:3]]


try:
    found = importlib.metadata.version("u2learn")
except importlib.metadata.PackageNotFoundError:
    found = RELEASE if importlib.util.find_spec("u2learn") else "0"  # run from its source, or not there
if numbers(found) < numbers(RELEASE):
    for source in (f"{{HOME}}@v{{RELEASE}}", HOME):  # the newest, where the release has no tag
        packages = ["einops", "torchinfo", f"u2learn @ git+{{source}}"]
        if subprocess.run([sys.executable, "-m", "pip", "install", "-qU", *packages]).returncode == 0:
            break
    else:
        raise RuntimeError("u2learn could not be installed: see above why; often there is no network.")"""


def release(root: Path) -> str:
    """The package's version, which is the assignments' release too, as "0.1.0"."""
    text = (root / "u2learn" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.M)
    if not found:
        sys.exit('u2learn/version.py needs a line: __version__ = "0.1.0"')
    return found[1]


def colab(root: Path, path: str) -> str:
    """The address that opens a notebook of the repository in Colab; path: below the root."""
    return f"https://colab.research.google.com/github/{slug(repository(root))}/blob/{BRANCH}/{path}"


def badges(home: str) -> str:
    return "\n".join(
        [
            f"[![tests]({home}/actions/workflows/test.yml/badge.svg)]({home}/actions/workflows/test.yml)",
            f"[![read the book](https://img.shields.io/badge/read-the_book-0072B2)]({site(home)})",
            f"[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{slug(home)}/{BRANCH}?labpath=book/chapters)",
        ]
    )


def start(home: str) -> str:
    return f"""```sh
git clone {home} && cd {slug(home).split("/")[1]}
make book    # set up, execute the chapters, build the site
make test    # prove that all of it works
```"""


def readme_table(root: Path, chapters: list[Chapter]) -> str:
    lines = ["| | chapter | what you build | run it |", "|--:|---|---|---|"]
    for c in chapters:
        lines.append(
            f"| {c.number} | [{c.title}]({c.path}) | {c.builds} | [{BADGE}]({colab(root, c.path)}) |"
        )
    return "\n".join(lines)


def book_table(chapters: list[Chapter]) -> str:
    lines = ["| | chapter | what you build |", "|--:|---|---|"]
    for c in chapters:
        lines.append(f"| {c.number} | [{c.title}](chapters/{c.file}) | {c.builds} |")
    return "\n".join(lines)


def exercise_table(root: Path) -> str:
    """The assignments, each with points, minutes and a link that opens the student's version in Colab.

    A link in words: the book's pages ask no other server for a picture.
    """
    lines = ["| no. | assignment | points | minutes | minutes, if PyTorch is new to you | open |"]
    lines.append("|--:|---|--:|--:|--:|---|")
    for path in sorted((root / "exercises" / "release").glob("*.ipynb")):
        content = json.loads(path.read_text(encoding="utf-8"))
        cells, minutes = content["cells"], content["metadata"]["u2learn"]["minutes"]
        title = ASSIGNMENT.match("".join(cells[0]["source"]))
        if not title:
            sys.exit(f"{path.name} should open with a title like '# Assignment 2. The block and the U'.")
        points = sum(cell["metadata"].get("nbgrader", {}).get("points", 0) for cell in cells)
        link = colab(root, f"exercises/release/{path.name}")
        lines.append(
            f"| {title[1]} | {title[2]} | {points} | {minutes[0]} | {minutes[1]} | [Colab]({link}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
