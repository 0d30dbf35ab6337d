"""Home and chapters' order are written in one place each, and `tools/links.py` carries them everywhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pybtex.database
import pytest
from conftest import ROOT

import u2learn
from tools import links, notebooks, references

HOME = links.repository(ROOT)
N = 7  # the tool reads this file too, so no digit stands behind the word
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
    owner_and_name = links.slug(HOME)
    named = {
        path.relative_to(copy).as_posix()
        for path in links.wanted(copy)
        if owner_and_name in path.read_text(encoding="utf-8")
    }
    project = copy / "pyproject.toml"
    project.write_text(
        project.read_text(encoding="utf-8").replace(HOME, "https://github.com/Some-One/unets"),
        encoding="utf-8",
    )

    before = run(copy, "--check")
    assert before.returncode == 1
    assert {"README.md", "book/index.md", "_config.yml", "CITATION.cff"} < named
    assert all(name in before.stderr for name in named)

    assert run(copy).returncode == 0
    assert run(copy, "--check").returncode == 0
    left = [p for p in files(copy) if owner_and_name in p.read_text(encoding="utf-8", errors="ignore")]
    assert left == [], "the old home is still there"
    left = [p for p in files(copy) if links.site(HOME) in p.read_text(encoding="utf-8", errors="ignore")]
    assert left == [], "the old site is still there"
    assert "some-one.github.io/unets" in (copy / "_config.yml").read_text(encoding="utf-8")
    assert "colab.research.google.com/github/Some-One/unets/blob/main/book/chapters" in (
        copy / "README.md"
    ).read_text(encoding="utf-8")
    for path in copy.glob("book/chapters/*.ipynb"):
        code = links.cells(path.read_text(encoding="utf-8"), "code")
        assert f'RELEASE, HOME = "{u2learn.__version__}", "https://github.com/Some-One/unets"' in code


@pytest.mark.parametrize("name", ["README.md", "book/index.md", "_config.yml", "CITATION.cff", "a chapter"])
def test_one_wrong_link_is_found(copy, name):
    path = next(copy.glob("book/chapters/*.ipynb")) if name == "a chapter" else copy / name
    path.write_text(
        path.read_text(encoding="utf-8").replace(HOME, "https://github.com/nobody/nothing", 1),
        encoding="utf-8",
    )
    result = run(copy, "--check")
    assert result.returncode == 1
    assert path.name in result.stderr


def test_the_table_lists_the_chapters_in_order():
    chapters = links.read_chapters(ROOT)
    assert [chapter.number for chapter in chapters] == list(range(1, len(chapters) + 1))
    stored = {path.relative_to(ROOT).as_posix() for path in (ROOT / "book" / "chapters").glob("*.ipynb")}
    assert {chapter.path for chapter in chapters} == stored, "a chapter is not in _toc.yml"


def test_a_chapter_without_its_install_cell_is_refused(copy):
    path = next(copy.glob("book/chapters/*.ipynb"))
    path.write_text(
        path.read_text(encoding="utf-8").replace("u2learn: install", "something else"), encoding="utf-8"
    )
    result = run(copy, "--check")
    assert result.returncode == 1
    assert "u2learn: install" in result.stderr and path.name in result.stderr


@pytest.fixture
def longer(copy) -> Path:
    """A copy with a made-up chapter between the third and the fourth; nothing but _toc.yml knows of it."""
    chapters = copy / "book" / "chapters"
    made_up = json.loads((chapters / "unet.ipynb").read_text(encoding="utf-8"))
    made_up["cells"][0]["source"] = ["# Sideways\n", "\n", f"As in [chapter {N}](unet.ipynb#the-u)."]
    (chapters / "sideways.ipynb").write_text(json.dumps(made_up), encoding="utf-8")
    contents = (copy / "_toc.yml").read_text(encoding="utf-8")
    line = "      - file: book/chapters/unet #"
    assert contents.count(line) == 1
    contents = contents.replace(line, f"      - file: book/chapters/sideways # a step to the left\n{line}")
    (copy / "_toc.yml").write_text(contents, encoding="utf-8")
    return copy


def test_a_chapter_in_between_renumbers_the_book(longer):
    """Every number of a chapter in titles, tables and prose follows _toc.yml after one run of the tool."""
    names = re.findall(r"book/chapters/(\S+)", (longer / "_toc.yml").read_text(encoding="utf-8"))
    before = {name: place for place, name in enumerate((n for n in names if n != "sideways"), start=1)}
    after = {name: place for place, name in enumerate(names, start=1)}
    assert after["sideways"] == after["down-and-up"] + 1 == after["unet"] - 1
    old = numbers_in_prose(longer, leave_out="sideways")
    assert len(old) > 100 and {place[0].split("/")[0] for place in old} >= {"book", "exercises", "README.md"}
    assert all(number == before[name] for (_, name), numbers in old.items() for number in numbers)

    assert run(longer, "--check").returncode == 1
    result = run(longer)
    assert result.returncode == 0, result.stderr
    assert run(longer, "--check").returncode == 0

    new = numbers_in_prose(longer, leave_out="sideways")
    assert {key: len(numbers) for key, numbers in new.items()} == {key: len(n) for key, n in old.items()}
    assert all(number == after[name] for (_, name), numbers in new.items() for number in numbers)
    for name, number in after.items():
        assert prose(longer / f"book/chapters/{name}.ipynb").startswith(f"# {number}. ")
    assert f"As in [chapter {after['unet']}](unet.ipynb#the-u)." in prose(
        longer / "book/chapters/sideways.ipynb"
    )
    for file, folder in (("README.md", "book/chapters"), ("book/index.md", "chapters")):
        table = (longer / file).read_text(encoding="utf-8")
        rows = re.findall(rf"^\| (\d+) \| \[[^]]+\]\({folder}/([\w-]+)\.ipynb\)", table, re.MULTILINE)
        assert [(name, int(number)) for number, name in rows] == list(after.items())
        assert f"| {after['sideways']} | [Sideways]({folder}/sideways.ipynb) | a step to the left |" in table


def test_a_chapter_that_goes_away_is_missed_by_those_who_point_to_it(copy):
    contents = copy / "_toc.yml"
    lines = contents.read_text(encoding="utf-8").splitlines(keepends=True)
    contents.write_text("".join(line for line in lines if "chapters/heads" not in line), encoding="utf-8")
    result = run(copy)
    assert result.returncode == 1
    assert re.search(
        r"^book/chapters/rsu\.ipynb: the link \[chapter \d+\]\(heads\.ipynb\) leads to no chapter",
        result.stderr,
        re.MULTILINE,
    )
    assert "book/chapters/unet.ipynb" not in result.stderr, "it has no link to that chapter"


@pytest.mark.parametrize(
    ("file", "written", "complaint"),
    [
        ("README.md", f"[chapter {N}](book/chapters/speed.ipynb)", "(book/chapters/speed.ipynb) leads to no"),
        (
            "book/back/glossary.md",
            "[how](../chapters/speed.ipynb#how)",
            "(../chapters/speed.ipynb#how) leads",
        ),
        ("book/chapters/unet.ipynb", f"[Chapter {N}](speed.ipynb)", "(speed.ipynb) leads to no chapter"),
        ("book/labs/broken-unets.ipynb", "[x](../chapters/speed.ipynb)", "(../chapters/speed.ipynb) leads"),
        (
            "exercises/02-unet/02-unet.ipynb",
            f"[chapter {N}]({links.site(HOME)}book/chapters/speed.html)",
            "book/chapters/speed.html) leads to no chapter",
        ),
        ("README.md", f"as chapter {N} says", f"'chapter {N}' needs a link"),
        ("README.md", f"[chapter {N}](book/back/glossary.md)", f"'chapter {N}' needs a link"),
        ("CONTRIBUTING.md", f"Chapter {N} says", f"'Chapter {N}' needs a link"),
        ("book/back/notation.md", f"from chapters {N} and on", f"'chapters {N}' needs a link"),
        ("book/chapters/rsu.ipynb", f"(see chapter\n{N})", f"'chapter\\n{N}' needs a link"),
        (
            "book/labs/broken-unets.ipynb",
            f"[chapter {N}](../chapters/rsu.ipynb), chapter {N}",
            "needs a link",
        ),
        ("exercises/06-rsu/06-rsu.ipynb", f"Chapter {N}.", f"'Chapter {N}' needs a link"),
        (
            "README.md",
            "[2020](https://doi.org/10.1/none)",
            "https://doi.org/10.1/none is a paper, and no entry",
        ),
        (
            "book/chapters/rsu.ipynb",
            "[it](https://www.arxiv.org/abs/1)",
            "arxiv.org/abs/1 is a paper, and no",
        ),
        (
            "book/chapters/rsu.ipynb",
            "[who](../back/nobody.md#a)",
            "book/back/nobody.html#a) leads to no page",
        ),
        (
            "exercises/06-rsu/06-rsu.ipynb",
            f"[who]({links.site(HOME)}book/back/nobody.html)",
            "leads to no page",
        ),
        ("u2learn/losses.py", f"# chapter {N} derives it", f"'chapter {N}' stands in code"),
        ("tools/notebooks.py", f"# Chapters {N} and on", f"'Chapters {N}' stands in code"),
    ],
)
def test_a_dead_link_and_a_lone_number_are_named(copy, file, written, complaint):
    add(copy / file, written)
    before = (copy / file).read_bytes()
    for options in ([], ["--check"]):
        with pytest.raises(SystemExit) as stop:
            links.main(options, copy)
        (line,) = stop.value.code.splitlines()
        assert line.startswith(f"{file}: ") and complaint in line
        assert (copy / file).read_bytes() == before


def test_a_number_in_a_code_cell_is_named(copy):
    add(copy / "book/chapters/heads.ipynb", f"# see chapter {N}", kind="code")
    result = run(copy, "--check")
    assert result.returncode == 1
    assert result.stderr.startswith(f"book/chapters/heads.ipynb: 'chapter {N}' stands in code")


@pytest.mark.parametrize(
    "text",
    [f"A new chapter\n\n{N}. a list", "this chapter, 7 pages", "[the U](unet.ipynb)", "[7](rsu.ipynb)"],
)
def test_what_is_no_number_of_a_chapter_stays(copy, text):
    add(copy / "book/chapters/heads.ipynb", text)
    links.main(["--check"], copy)


def test_a_chapter_says_what_is_built_in_it(copy):
    contents = copy / "_toc.yml"
    text = contents.read_text(encoding="utf-8")
    contents.write_text(re.sub(r"(chapters/unet) # .+", r"\1", text), encoding="utf-8")
    result = run(copy, "--check")
    assert result.returncode == 1
    assert "_toc.yml" in result.stderr and "book/chapters/unet" in result.stderr


def test_exercises_are_numbered_by_their_chapter(longer):
    chapters = longer / "book" / "chapters"
    add(chapters / "heads.ipynb", "### Exercise. One more\n\nText.\n\n### Exercise 77.7. And one\n\nText.")
    links.main([], longer)
    for chapter in links.read_chapters(longer):
        found = re.findall(r"^### Exercise (\S+)\. \S", prose(chapters / chapter.file), re.MULTILINE)
        assert found == [f"{chapter.number}.{place}" for place in range(1, len(found) + 1)], chapter.file
        assert len(found) >= 3 or chapter.file == "sideways.ipynb"
    number = next(c.number for c in links.read_chapters(longer) if c.file == "heads.ipynb")
    assert f"\n### Exercise {number}.7. And one\n" in prose(chapters / "heads.ipynb")


def test_every_notebook_of_the_book_says_where_it_can_be_opened(copy):
    """Below its title: in Colab, on the site, in how many minutes if that is known, and for which release."""
    contents = copy / "_toc.yml"
    text = contents.read_text(encoding="utf-8")
    contents.write_text(text.replace("chapters/unet # ", "chapters/unet # 25 min: "), encoding="utf-8")
    (copy / "u2learn/version.py").write_text('__version__ = "3.2.1"\n', encoding="utf-8")
    (copy / "CHANGELOG.md").write_text("# Changelog\n\n## 3.2.1 (in work)\n\n## 0.1.0\n", encoding="utf-8")
    links.main([], copy)
    links.main(["--check"], copy)
    for path in [*copy.glob("book/chapters/*.ipynb"), *copy.glob("book/labs/*.ipynb")]:
        place = path.relative_to(copy).with_suffix("").as_posix()
        title, empty, line, *_ = prose(path).splitlines()
        assert title.startswith("# ") and empty == "" and line.count("<p") == line.count("</p>") == 1
        assert line.startswith('<p class="u2-links">') and line.endswith("Written for U2Learn 3.2.1</p>")
        assert f'google.com/github/{links.slug(HOME)}/blob/main/{place}.ipynb"' in line
        assert f'"{links.site(HOME)}{place}.html"' in line
        assert ("25 minutes" in line) == (path.stem == "unet") and line.count("minutes") <= 1
        assert prose(path).count("u2-links") == 1
    assert "| [The U](chapters/unet.ipynb) | `ULevel`, " in prose(copy / "book/index.md")


def test_install_cells_changelog_and_package_agree_on_the_release():
    assert links.release(ROOT) == u2learn.__version__
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert newest == u2learn.__version__
    paths = [path for pattern in links.NOTEBOOKS for path in ROOT.glob(pattern)]
    assert len(paths) > 30
    for path in paths:
        code = links.cells(path.read_text(encoding="utf-8"), "code")
        assert code.startswith("# @title u2learn: install")
        (cell,) = (
            cell
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if "remove-cell" in cell["metadata"].get("tags", []) and cell["cell_type"] == "code"
        )
        assert cell["metadata"]["cellView"] == "form", "Colab shows its title alone"
        assert cell["metadata"]["jupyter"] == {"source_hidden": True}, "JupyterLab folds it"
        assert code.count(f'RELEASE, HOME = "{u2learn.__version__}", "{HOME}"') == 1, path
    assert max(map(len, links.install(HOME, "10.10.10").splitlines())) <= notebooks.WIDTH


def test_another_release_in_the_changelog_is_named(copy):
    path = copy / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"## {u2learn.__version__}", "## 99.0.0"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md: its first release should be that of u2learn"):
        links.main(["--check"], copy)


def test_a_link_to_a_page_of_the_book_becomes_its_address_on_the_site(copy):
    """Colab opens no Markdown file; a link to another notebook stays as it is."""
    add(copy / "book/chapters/heads.ipynb", "[a](../back/notation.md#x), [b](rsu.ipynb), [c](../index.md)")
    add(copy / "book/back/glossary.md", "[a](notation.md)")
    links.main([], copy)
    site = links.site(HOME)
    wanted = f"[a]({site}book/back/notation.html#x), [b](rsu.ipynb), [c]({site}book/index.html)"
    assert wanted in prose(copy / "book/chapters/heads.ipynb")
    assert "[a](notation.md)" in prose(copy / "book/back/glossary.md")


# --- papers -------------------------------------------------------------------------------------------------

PAPERS = references.read(ROOT)
DOI = "https://doi.org/10.1016/j.patcog.2020.107404"


def test_the_bibliography_is_read_as_bibtex_reads_it():
    entries = pybtex.database.parse_file(str(ROOT / references.BIBLIOGRAPHY)).entries
    assert {paper.key for paper in PAPERS} == set(entries) and len(PAPERS) > 90
    for paper in PAPERS:
        entry = entries[paper.key]
        fields = {key.lower(): re.sub("[{}]", "", value) for key, value in entry.fields.items()}
        assert fields == {key: value for key, value in paper.fields.items() if key != "author"}
        families = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
        assert paper.names.split(" et al.")[0].split(" and ")[0] == re.sub("[{}]", "", families[0])
        assert paper.names.endswith(" et al.") == (len(families) > 2)


def test_each_paper_has_an_address_of_its_own():
    addresses = [address for paper in PAPERS for address in paper.addresses]
    assert all(paper.addresses for paper in PAPERS) and len(set(addresses)) == len(addresses)
    assert all(re.fullmatch(r"https://[^()\s]+", address) for address in addresses)
    words = [paper.cited(in_sentence=False) for paper in PAPERS]
    assert len(set(words)) == len(words), (
        "two papers are cited alike: a letter behind the year tells them apart"
    )


def test_the_page_lists_every_paper_and_who_cites_it():
    page = (ROOT / "book/back/bibliography.md").read_text(encoding="utf-8")
    for paper in PAPERS:
        (line,) = (
            line for line in page.splitlines() if f"[{paper.fields['title']}]({paper.addresses[0]})" in line
        )
        assert f"({paper.fields['year']})" in line
    (line,) = (line for line in page.splitlines() if DOI in line)
    assert "Xuebin Qin, Zichen Zhang" in line and "Pattern Recognition 106, 107404. Cited in chapters" in line
    cited = re.findall(r"\(\.\./chapters/([\w-]+)\.ipynb\)", line)
    assert cited == [c.file[:-6] for c in links.read_chapters(ROOT) if f"]({DOI})" in prose(ROOT / c.path)]


def test_every_citation_leads_to_the_bibliography():
    """There are many. What the bibliography does not have is refused: see above."""
    papers = references.by_address(PAPERS)
    found = [
        link
        for pattern in (*links.MARKDOWN, *links.NOTEBOOKS)
        for path in ROOT.glob(pattern)
        for link in references.LINK.findall(prose(path))
        if references.is_paper(link[1]) and path.name != "bibliography.md"
    ]
    assert len(found) > 250 and all(address in papers for _, address in found)
    alike = [words for words, address in found if words == papers[address].cited(False)]
    assert len(alike) > 200


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        (f"[]({DOI})", f"[Qin et al., 2020]({DOI})"),
        (f"[2020]({DOI})", f"[Qin et al., 2020]({DOI})"),
        (f"[(2020)]({DOI})", f"[Qin et al. (2020)]({DOI})"),
        (f"[Quin, 2021]({DOI})", f"[Qin et al., 2020]({DOI})"),
        (f"[Quin and others (2021)]({DOI})", f"[Qin et al. (2020)]({DOI})"),
        (f"[the paper]({DOI})", f"[the paper]({DOI})"),
        (f"[the net of 2020]({DOI})", f"[the net of 2020]({DOI})"),
        ("[](https://arxiv.org/abs/2005.09007)", "[Qin et al., 2020](https://arxiv.org/abs/2005.09007)"),
        ("[](https://arxiv.org/abs/1412.6980)", "[Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980)"),
        ("[](https://doi.org/10.2307/1932409)", "[Dice, 1945](https://doi.org/10.2307/1932409)"),
    ],
)
def test_the_words_of_a_citation(typed, written):
    papers = references.by_address(PAPERS)
    assert references.worded(f"A {typed}.", papers) == f"A {written}."
    assert references.worded(f"A {written}.", papers) == f"A {written}."


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            "@misc{nobody2020,\n  author = {No Body},\n  title = {None},\n  year = {2020}\n}",
            "neither a doi nor",
        ),
        ("@misc{nobody2020,\n  author = {No Body},\n  url = {https://a.b}\n}", "has no title and no year"),
        ("@misc{nobody2020, author = {No Body}}", "is not written as the others are"),
    ],
)
def test_an_entry_that_nothing_can_link_to_is_refused(copy, entry, complaint):
    add(copy / references.BIBLIOGRAPHY, entry)
    with pytest.raises(SystemExit, match=complaint):
        links.main(["--check"], copy)


def add(path: Path, written: str, kind: str = "markdown") -> None:
    """Put a line at the end of a text, or of the last cell of its kind of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        path.write_text(f"{text}\n{written}\n", encoding="utf-8")
        return
    notebook = json.loads(text)
    cell = [cell for cell in notebook["cells"] if cell["cell_type"] == kind][-1]
    cell["source"] = "".join([*cell["source"], f"\n\n{written}"]).splitlines(keepends=True)
    path.write_text(notebooks.dump(notebook), encoding="utf-8")


def prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def numbers_in_prose(root: Path, leave_out: str) -> dict[tuple[str, str], list[int]]:
    """The numbers that stand in links, by file and by the chapter that the link leads to."""
    found: dict[tuple[str, str], list[int]] = {}
    for path in files(root):
        if path.suffix not in (".md", ".ipynb") or path.stem == leave_out:
            continue
        link = r"\[[Cc]hapter (\d+)\]\(\S*?([\w-]+)\.(?:ipynb|html)(?:#\S*?)?\)"
        for number, name in re.findall(link, prose(path)):
            found.setdefault((path.relative_to(root).as_posix(), name), []).append(int(number))
    return found


def files(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if p.is_file()]
