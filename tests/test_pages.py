"""The pages of a course can be read and used by everybody: names, labels, order of headings, contrast."""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest
from test_gradebook import NAME, SOURCE, WORDS, mark, of, result

from tools.grading import board, marking, report
from tools.grading.gradebook import Gradebook
from tools.grading.marking import Marking

pytestmark = pytest.mark.course

VOID = {"meta", "link", "input", "br", "polyline", "circle"}


class Reader(HTMLParser):
    """The elements of a page in order: (tag, attributes, text within)."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(page)
        assert self.open == [] or {self.found[i][0] for i in self.open} <= {"html", "body"}, (
            "tags that stay open"
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.found[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for i in self.open:
            self.found[i][2].append(data)

    def all(self, *tags: str) -> Iterator[tuple[str, dict[str, str | None], str]]:
        return ((tag, attrs, "".join(text).strip()) for tag, attrs, text in self.found if tag in tags)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    book = Gradebook(tmp_path_factory.mktemp("course"))
    book.keep(NAME, result("ada", "an answer"), "x")
    book.enter([mark("ada", "2.5", "no loss is named")])
    book.keep(NAME, result("eve", ""), "x")
    pages = Marking(book.folder)
    score = {"name": "Amber hare 10123", "dice": 0.6, "low": 0.5, "high": 0.7, "baseline": 0.3}
    score |= {"parameters": 6832, "seconds": 12.0, "date": "2026-11-29"}
    graded = result("ada")
    graded.verdicts[0].score = score
    yield {
        "overview": pages.overview(),
        "words": pages.item(NAME, ("ada", WORDS), ("9", "a comment"), "9 points are too many"),
        "nothing": pages.item(NAME, ("eve", WORDS)),
        "code": pages.item(NAME, ("ada", "1.2 hidden")),
        "feedback": report.feedback(SOURCE, of(book, "ada")),
        "board": board.page([graded, graded], {"a net": score}, datetime.now(timezone.utc)),
    }
    book.close()


@pytest.mark.parametrize("name", ["overview", "words", "nothing", "code", "feedback", "board"])
def test_everything_has_a_name_and_a_place(pages, name):
    page = Reader(pages[name])
    ((_, html, _),) = page.all("html")
    assert html["lang"] == "en" and all(text for _, _, text in page.all("title"))
    assert len(list(page.all("title"))) == len(list(page.all("h1"))) == len(list(page.all("main"))) == 1
    levels = [int(tag[1]) for tag, _, _ in page.all("h1", "h2", "h3")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(
        text or attrs.get("aria-label") for _, attrs, text in page.all("a", "button", "th", "label", "nav")
    )
    labelled = {attrs["for"] for _, attrs, _ in page.all("label")}
    fields = [
        attrs for _, attrs, _ in page.all("input", "textarea", "select") if attrs.get("type") != "hidden"
    ]
    assert {attrs["id"] for attrs in fields} == labelled
    ids = [attrs["id"] for _, attrs, _ in page.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get("aria-label") for _, attrs, _ in page.all("svg", "img"))
    ((_, view, _),) = (m for m in page.all("meta") if m[1].get("name") == "viewport")
    assert "user-scalable" not in view["content"] and "maximum-scale" not in view["content"]


def test_what_is_wrong_with_a_form_is_told(pages):
    (alert,) = (text for _, attrs, text in Reader(pages["words"]).all("p") if attrs.get("role") == "alert")
    assert alert == "9 points are too many"


def contrast(one: str, other: str) -> float:
    """Of two colours as fff or 1b1b1b, from 1 to 21: 4.5 is due for text (WCAG 2, 1.4.3)."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("style", "texts", "grounds"),
    [
        (board.PAGE, ("text", "soft", "mark"), ("ground", "tint")),
        (marking.STYLE, ("ink", "link"), ("back", "soft")),
    ],
    ids=["board", "marking"],
)
def test_text_can_be_read_on_its_ground_in_light_and_dark(style, texts, grounds):
    themes = re.findall(r":root \{+(.*?)\}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #(\w+);", theme))
        for text in texts:
            for ground in grounds:
                assert contrast(colours[text], colours[ground]) >= 4.5, (theme, text, ground)


def test_text_can_be_read_on_a_feedback_page():
    """It is white in both, and says so with no word: browsers turn nothing dark by themselves."""
    colours = re.findall(r"(?<!-)\bcolor: #(\w+)", report.PAGE)
    assert len(colours) == 4 and "color-scheme" not in report.PAGE
    assert all(contrast(colour, "fff") >= 4.5 for colour in colours)
