"""Write every link to the project's home, and the tables of chapters, from their one source.

    python -m tools.links [--check]

The home is `[project.urls] Repository` in pyproject.toml; the chapters are those of _toc.yml, by title, the
assignments those of exercises/release.
With --check nothing is written: the files that differ are named, and the exit status is 1.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from tools import notebooks
from tools.settle import settle

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
INSTALL_MARK = "# u2learn: install"
CHAPTER = re.compile(r"- file: (book/chapters/\S+) # (.+)")


def main(options: list[str], root: Path = ROOT) -> None:
    settle(wanted(root), root, "--check" in options, "make links")


def wanted(root: Path) -> dict[Path, str]:
    """The files that hold a link to the home, each with the text that it should have."""
    home = repository(root)
    chapters = read_chapters(root)
    texts = {}

    path = root / "README.md"
    text = block(path.read_text(encoding="utf-8"), "badges", badges(home), path)
    text = block(text, "start", start(home), path)
    texts[path] = block(text, "chapters", readme_table(home, chapters), path)

    path = root / "book" / "index.md"
    text = block(path.read_text(encoding="utf-8"), "start", start(home), path)
    texts[path] = block(text, "chapters", book_table(chapters), path)

    for name, key, link in (
        ("_config.yml", "  url", home),
        ("_config.yml", "  baseurl", site(home)),
        ("CITATION.cff", "repository-code", home),
        ("CITATION.cff", "url", site(home)),
    ):
        path = root / name
        texts[path] = set_key(texts.get(path) or path.read_text(encoding="utf-8"), key, link, path)

    for chapter in chapters:
        texts[root / chapter.path] = set_install_cell(root / chapter.path, home)
    for pattern in ("book/labs/*.ipynb", "exercises/*/*.ipynb"):
        for path in sorted(root.glob(pattern)):
            texts[path] = set_install_cell(path, home)

    path = root / "book" / "back" / "students.md"
    texts[path] = block(path.read_text(encoding="utf-8"), "exercises", exercise_table(home, root), path)
    return texts


def repository(root: Path) -> str:
    """The home, as https://github.com/OWNER/NAME. (A plain search: Python 3.10 cannot read TOML.)"""
    found = re.search(
        r'^Repository = "(https://github\.com/[\w.-]+/[\w.-]+)"$', (root / "pyproject.toml").read_text(), re.M
    )
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
    number: str
    title: str
    path: str  # below the root, as "book/chapters/04-unet.ipynb"
    builds: str


def read_chapters(root: Path) -> list[Chapter]:
    """The chapters of _toc.yml in their order."""
    chapters = []
    for document, builds in CHAPTER.findall((root / "_toc.yml").read_text(encoding="utf-8")):
        path = f"{document}.ipynb"
        if not (root / path).exists():
            sys.exit(f"_toc.yml names {document}, but there is no {path}.")
        first = "".join(json.loads((root / path).read_text(encoding="utf-8"))["cells"][0]["source"])
        title = re.match(r"# (\d+)\. (.+)", first)
        if not title:
            sys.exit(f"{path} should open with a title like '# 4. The U', not with {first[:40]!r}.")
        chapters.append(Chapter(title[1], title[2], path, builds))
    return chapters


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


def set_install_cell(path: Path, home: str) -> str:
    """The notebook with its first code cell as it should be: it installs the package if that is missing."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    source = "".join(cell["source"])
    if not source.startswith(INSTALL_MARK) or "remove-cell" not in cell["metadata"].get("tags", []):
        sys.exit(
            f"{path.name}: the first code cell needs '{INSTALL_MARK}' as first line and the tag remove-cell."
        )
    if source == install(home):
        return text
    cell["source"] = install(home).splitlines(keepends=True)
    return notebooks.dump(notebook)


def install(home: str) -> str:
    return f"""{INSTALL_MARK}
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("u2learn") is None:
    packages = ["torchinfo", "u2learn @ git+{home}"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=True)"""


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


def readme_table(home: str, chapters: list[Chapter]) -> str:
    colab = f"https://colab.research.google.com/github/{slug(home)}/blob/{BRANCH}"
    badge = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
    lines = ["| | chapter | what you build | run it |", "|--:|---|---|---|"]
    for c in chapters:
        lines.append(f"| {c.number} | [{c.title}]({c.path}) | {c.builds} | [{badge}]({colab}/{c.path}) |")
    return "\n".join(lines)


def book_table(chapters: list[Chapter]) -> str:
    lines = ["| | chapter | what you build |", "|--:|---|---|"]
    for c in chapters:
        lines.append(f"| {c.number} | [{c.title}](chapters/{Path(c.path).name}) | {c.builds} |")
    return "\n".join(lines)


def exercise_table(home: str, root: Path) -> str:
    """The assignments, each with its points and a link that opens the student's version in Colab.

    A link in words: the book's pages ask no other server for a picture.
    """
    colab = f"https://colab.research.google.com/github/{slug(home)}/blob/{BRANCH}"
    lines = ["| | assignment | points | open |", "|--:|---|--:|---|"]
    for path in sorted((root / "exercises" / "release").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        number, title = re.match(r"# Assignment (\d+)\. (.+)", "".join(cells[0]["source"])).groups()
        points = sum(cell["metadata"].get("nbgrader", {}).get("points", 0) for cell in cells)
        link = f"{colab}/exercises/release/{path.name}"
        lines.append(f"| {number} | {title} | {points} | [Colab]({link}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
