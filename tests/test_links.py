"""The project's home is written in one place, and `tools/links.py` carries it everywhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from tools import links

HOME = links.repository(ROOT)
LEFT_OUT = shutil.ignore_patterns(
    ".*_cache", ".venv", ".git", "_build", "__pycache__", "runs", "assets", "tests"
)


def run(root: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tools.links", *options], cwd=root, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "a copy", ignore=LEFT_OUT))


def test_all_links_are_up_to_date():
    result = run(ROOT, "--check")
    assert result.returncode == 0, result.stderr


def test_a_move_reaches_every_file(copy):
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace(HOME, "https://github.com/Some-One/unets"))

    before = run(copy, "--check")
    assert before.returncode == 1
    named = {path.relative_to(copy).as_posix() for path in links.wanted(copy)}
    assert {"README.md", "book/index.md", "_config.yml", "CITATION.cff"} < named
    assert all(name in before.stderr for name in named)

    assert run(copy).returncode == 0
    assert run(copy, "--check").returncode == 0
    owner_and_name = links.slug(HOME)
    left = [p for p in files(copy) if owner_and_name in p.read_text(encoding="utf-8", errors="ignore")]
    assert left == [], "the old home is still there"
    assert "some-one.github.io/unets" in (copy / "_config.yml").read_text()
    assert (
        "colab.research.google.com/github/Some-One/unets/blob/main/book/chapters"
        in (copy / "README.md").read_text()
    )
    assert all(
        "git+https://github.com/Some-One/unets" in p.read_text() for p in copy.glob("book/chapters/*.ipynb")
    )


@pytest.mark.parametrize("name", ["README.md", "book/index.md", "_config.yml", "CITATION.cff", "a chapter"])
def test_one_wrong_link_is_found(copy, name):
    path = next(copy.glob("book/chapters/*.ipynb")) if name == "a chapter" else copy / name
    path.write_text(path.read_text().replace(HOME, "https://github.com/nobody/nothing", 1))
    result = run(copy, "--check")
    assert result.returncode == 1
    assert path.name in result.stderr


def test_the_table_lists_the_chapters_in_order():
    chapters = links.read_chapters(ROOT)
    numbers = [int(chapter.number) for chapter in chapters]
    assert numbers == sorted(set(numbers))
    stored = {path.relative_to(ROOT).as_posix() for path in (ROOT / "book" / "chapters").glob("*.ipynb")}
    assert {chapter.path for chapter in chapters} == stored, "a chapter is not in _toc.yml"
    for chapter in chapters:
        assert Path(chapter.path).name.startswith(f"{int(chapter.number):02}-")


def test_a_chapter_without_its_install_cell_is_refused(copy):
    path = next(copy.glob("book/chapters/*.ipynb"))
    path.write_text(path.read_text().replace("# u2learn: install", "# something else"))
    result = run(copy, "--check")
    assert result.returncode == 1
    assert "u2learn: install" in result.stderr and path.name in result.stderr


def files(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if p.is_file()]
