"""Notebooks are plain CommonMark with tables, formulas between dollars, and a few HTML tags.

This is what the site, JupyterLab and Colab have in common. Here each Markdown cell is rendered by something
that knows nothing else; whatever it leaves standing as text would be seen by a reader.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT
from markdown_it import MarkdownIt

PATTERNS = ("book/chapters/*.ipynb", "book/labs/*.ipynb", "exercises/*/*.ipynb")
NOTEBOOKS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
UNCONVERTED = {"broken-unets"}  # until it is rewritten

RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")
# Code first, as a dollar in it is no formula. A fence may stand in a list.
CODE = r"(?:^|(?<=\n))[ >]*(`{3,}|~{3,}).*?\n[ >]*\1|(?<!`)(`+)(?!`).*?(?<!`)\2(?!`)"
FORMULA = r"(?P<formula>\$\$(?:(?!\n\n)[^$])+\$\$|\$(?! )(?:(?!\n\n)[^$])+(?<! )\$)"
PIECES = re.compile(f"{CODE}|{FORMULA}", re.DOTALL)
# What the sanitisers of JupyterLab and Colab keep.
TAGS = {
    *("a", "blockquote", "br", "code", "details", "em", "h1", "h2", "h3", "h4", "hr", "img", "li", "ol", "p"),
    *("pre", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
FAULTS = {
    r"\{[\w:+.-]+\}": "a role or a directive",
    r"[{}]": "a brace outside of code and formulas",
    r"\$": "a dollar that opens no formula",
    r"\\": "a backslash outside of code and formulas",
    r"^:::": "a fence of colons",
    r"^:[\w-]+:": "an option of a directive",
    r"^\([\w-]+\)=": "a label",
    r"^(%|\+\+\+)": "a comment or a break of MyST",
    r"^: ": "a definition",
    r"^\[[ x]\] ": "a box to tick",
    r"\[\^": "a footnote",
    r"\]\(|\]\[|`|\*\*|^#+ ": "Markdown that was not rendered",
}


def faults(source: str) -> list[str]:
    """What a reader of this Markdown cell would see of its syntax, a sentence each."""
    plain = PIECES.sub(lambda piece: "FORMULA" if piece["formula"] else piece[0], source)
    page = Page(RENDERER.render(plain))
    found = [
        f"the fence {name!r} is no language" for name in page.languages if not re.fullmatch(r"\w+", name)
    ]
    if re.search(r"\\[()[\]]", PIECES.sub("", source)):
        found.append("a formula that is not between dollars")
    found += [f"the tag <{tag}> is taken out by Colab or JupyterLab" for tag in page.tags - TAGS]
    for pattern, what in FAULTS.items():
        found += [f"{what}: {line!r}" for line in page.lines if re.search(pattern, line)]
    return found


class Page(HTMLParser):
    """A rendered cell: its lines of text outside of code, the names of its fences, its tags."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.languages, self.tags, self.inside = "", [], set(), 0
        self.feed(html)
        self.lines = [line.strip() for line in self.text.splitlines() if line.strip()]

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.inside += tag in ("code", "pre")
        for name, value in attributes:
            if tag == "code" and name == "class":
                self.languages.append(value.removeprefix("language-"))

    def handle_endtag(self, tag):
        self.inside -= tag in ("code", "pre")

    def handle_data(self, data):
        self.text += "CODE" if self.inside else data


def prose(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix()
)
def test_nothing_is_left_raw(path):
    if path.stem in UNCONVERTED:
        pytest.skip("is not converted yet")
    assert [fault for cell in prose(path) for fault in faults(cell)] == []


@pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix()
)
def test_a_relative_link_leads_to_a_notebook(path):
    """Colab opens nothing else of a repository, and an assignment is read alone."""
    for cell in prose(path):
        for link in re.findall(r"(?<!`)\]\(([^()\s]+)\)", re.sub(r"`[^`]*`", "", cell)):
            if not re.match("https://", link):
                assert path.is_relative_to(ROOT / "book"), link
                target = path.parent / link.partition("#")[0]
                assert target.suffix == ".ipynb" and target.exists(), link


@pytest.mark.parametrize(
    "source",
    [
        "A *word*, a [link](rsu.ipynb), `{cite}` in code, $a_{i}$ and a price of 5 €.",
        "$$ \\frac{a}{b} $$\n\n| a | b |\n|---|--:|\n| $x$ | 1 |",
        "```python\nx = {1: '$'}  # {cite}`a`\n```",
        "- a list\n\n  ```sh\n  echo $HOME {a}\n  ```",
        "<details>\n<summary>Solution</summary>\n\nAn **answer**:\n\n```python\nf'{x}'\n```\n\n</details>",
        "> **Note.** A quotation of $x^2$.",
        "<!-- summary:begin -->\n| a |\n|---|\n<!-- summary:end -->",
        "In ``a`b`` one tick, and `$HOME` no formula.",
    ],
)
def test_what_all_three_understand_is_no_fault(source):
    assert faults(source) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("As in {cite}`qin2020u2net`.", "a role"),
        ("See {doc}`unet`.", "a role"),
        ("```{exercise} Which skip\n:label: a\nText.\n```", "no language"),
        ("````{solution} a\n```python\nx\n```\n````", "no language"),
        ("```{admonition} What\n:class: dropdown\nText.\n```", "no language"),
        (":::{note}\nText.\n:::", "a fence of colons"),
        ("(memory)=\n## Memory", "a label"),
        ("Text.\n\n+++\n\nText.", "a break of MyST"),
        ("% a comment", "a comment"),
        ("Term\n: what it means", "a definition"),
        ("- [ ] to do", "a box"),
        ("A note.[^1]", "a footnote"),
        ("[text]{.class}", "a brace"),
        ("{{ version }}", "a brace"),
        ("\\begin{align}a\\end{align}", "a brace"),
        ("\\(a\\)", "a formula that is not between dollars"),
        ("It costs $5 a month.", "a dollar"),
        ("<details>\n<summary>Solution</summary>\nAn **answer**.\n</details>", "not rendered"),
        ("<p>[a link](rsu.ipynb)</p>", "not rendered"),
        ("**Bold:**text", "not rendered"),
        ("<iframe src='x'></iframe>", "<iframe>"),
        ("<div style='color: red'>red</div>", "<div>"),
    ],
)
def test_each_fault_is_seen(source, fault):
    found = "\n".join(faults(source))
    assert fault in found
