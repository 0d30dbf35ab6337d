"""Predict, then see: the guess lies where it belongs, is locked and counted, by mouse and by keyboard."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tools.browser import browser, chromium
from u2learn import show
from u2learn.show import questions as module
from u2learn.show import widgets

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("IPython")

STEPS = list(range(0, 281, 20))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    plt.switch_backend("agg")
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    monkeypatch.setattr(module, "ASKED", {})
    monkeypatch.setattr(module, "FOLLOWERS", [])
    with plt.rc_context():
        yield
    assert plt.get_fignums() == []


def losses(**scales):
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    axis.plot([1, 100, 200, 300], [0.55, 0.34, 0.5, 0.72], label="test")
    axis.legend()
    axis.set(title="Loss", xlabel="step", ylabel="loss", **scales)
    return figure


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, name, part=""):
        return [a for tag, a in self.tags if tag == name and part in (a.get("class") or "")]


def picture(image) -> np.ndarray:
    data = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


def test_a_question_is_one_self_contained_block():
    text = show.guess("Lowest where? <&>", STEPS, 100, losses(), axis="x").data
    assert text == show.guess("Lowest where? <&>", STEPS, 100, losses(), axis="x").data
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    tags = Tags(text)
    assert not any("id" in attributes for _, attributes in tags.tags)
    (group,) = tags.all("div", "u2-guess")
    assert group["aria-label"] == "Lowest where? <&>" and "data-state" not in group
    (slider,) = tags.all("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", str(len(STEPS) - 1), str(len(STEPS) // 2))
    assert slider["aria-label"] == "Your guess" and slider["aria-valuetext"] == "140"
    assert len(tags.all("div", "u2-full")) == 1 and ">It is 100.<" in text


@pytest.mark.parametrize(
    ("axis", "scales"), [("x", {}), ("x", {"xscale": "log"}), ("y", {}), ("y", {"yscale": "log"})]
)
def test_the_mark_lies_where_the_figure_has_that_number(axis, scales):
    answers = [50, 100, 250] if axis == "x" else [0.4, 0.5, 0.7]
    text = show.guess("Where?", answers, answers[0], losses(**scales), axis=axis).data
    known = json.loads(Tags(text).all("div", "u2-guess")[0]["data-question"])
    for answer, place in zip(answers, known["places"], strict=True):
        figure = losses(**scales)
        drawn = figure.axes[0].axvline if axis == "x" else figure.axes[0].axhline
        drawn(answer, color="#ff00ff")
        image = np.asarray(widgets.rendered(figure, ""), np.int16)
        line = (image[..., 0] > 200) & (image[..., 1] < 90) & (image[..., 2] > 200)
        middle = np.argwhere(line)[:, 1 if axis == "x" else 0].mean() + 0.5
        assert middle / image.shape[1 if axis == "x" else 0] == pytest.approx(place / 100, abs=0.004)
    assert known["side"] == ("left" if axis == "x" else "top")


def test_before_the_guess_the_axes_are_empty():
    blank, full = (
        picture(image) for image in Tags(show.guess("?", STEPS, 100, losses(), axis="x").data).all("img")
    )
    assert blank.shape == full.shape
    coloured = [(np.ptp(image, axis=2) > 60).sum() for image in (blank, full)]
    assert coloured[0] == 0 and coloured[1] > 300  # the curve is blue
    # The ticks and names at the border are the same, and at the same place.
    rows = slice(int(0.9 * len(blank)), None)
    assert np.abs(blank[rows] - full[rows]).max() < 30 and (blank[rows] < 100).any()


def test_the_guess_may_lie_on_other_axes():
    figure, axes = plt.subplots(1, 2, figsize=(6, 3))
    axes[1].plot([0, 10], [0, 1])
    known = json.loads(
        Tags(show.guess("?", [0, 10], 10, axes[1], axis="x").data).all("div", "u2-guess")[0]["data-question"]
    )
    assert all(place > 50 for place in known["places"])
    plt.close(figure)


@pytest.mark.parametrize(
    ("answers", "truth", "within", "near"),
    [
        ([0, 1, 2, 3, 10], 2.4, None, [False, False, True, True, False]),
        ([0, 1, 2], 1, 0, [False, True, False]),
        (["a", "b"], "b", None, [False, True]),
    ],
)
def test_what_counts_as_near(answers, truth, within, near):
    text = show.guess("?", answers, truth, within=within).data
    assert json.loads(Tags(text).all("div", "u2-guess")[0]["data-question"])["near"] == near


def test_refusals_are_clear():
    with pytest.raises(ValueError, match='guess\\("Why\\?"\\) needs two answers or more'):
        show.guess("Why?", [1], 1)
    with pytest.raises(ValueError, match="of texts the truth must be one; got \\['a', 'b'\\] and 'c'"):
        show.guess("Which?", ["a", "b"], "c")
    with pytest.raises(ValueError, match='axis="x" or "y", not \'z\''):
        show.guess("Where?", [1, 2], 1, axis="z")


def test_in_a_notebook_nothing_waits_and_the_count_follows(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(module, "live", lambda: True)
    one = show.guess("Lowest where?", STEPS, 100, losses(), axis="x")
    two = show.guess("Which?", ["the U", "none"], "the U")
    three = show.guess("How many?", [1, 2, 3], 3)
    end = show.guesses()  # as after Run all: nobody has guessed yet
    assert end.value.startswith("<p>You have locked no guess yet.")

    _, control, buttons, told, shown = one.children
    lock, skip = buttons.children
    before = shown.value
    control.value = STEPS.index(120)
    lock.click()
    assert told.value == '<p role="status">Your guess: 120. It is 100. That was near.</p>'
    assert control.disabled and lock.disabled and skip.disabled
    image = np.asarray(Image.open(io.BytesIO(shown.value)).convert("RGB"), np.int16)
    mine = np.array([int(module.MINE[i : i + 2], 16) for i in (1, 3, 5)])
    assert shown.value != before and (np.abs(image - mine).max(2) < 12).sum() > 50  # the guess is drawn
    assert "Near: 1 of your 1 guesses; 3 were asked for." in end.value

    _, control, buttons, told = two.children
    assert buttons.children[0].disabled  # nothing is chosen
    control.value = 1
    buttons.children[0].click()
    assert told.value == '<p role="status">Your guess: none. It is the U.</p>'
    three.children[2].children[1].click()
    assert "Near: 1 of your 2 guesses; 3 were asked for." in end.value
    assert end.value.count("<li>") == 3 and "How many? No guess. It is 3." in end.value
    show.guess("Which?", ["the U", "none"], "the U")  # the cell runs again
    show.guesses()
    assert len(module.ASKED) == 3 and module.ASKED["Which?"].given is None


# What the reader sees of each question.
STATE = """all => all.map(w => {
    const seen = e => e && getComputedStyle(e).visibility == "visible" && e.getClientRects().length > 0;
    const one = s => w.querySelector(s);
    return {form: seen(one("form")), full: seen(one(".u2-full")), mark: seen(one(".u2-mark")),
            answer: seen(one(".u2-answer")), told: one(".u2-told").textContent, state: w.dataset.state || ""};
})"""


@pytest.fixture
def page_file(tmp_path):
    blocks = [
        show.guess("Lowest where?", STEPS, 100, losses(), axis="x").data,
        show.guess("How low?", [0.1, 0.2, 0.3, 0.4], 0.34, losses(), axis="y").data,
        show.guess("Which?", ["the U", "none"], "the U").data,
        show.guesses().data,
    ]
    file = tmp_path / "page.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8">'
    head += '<meta name="viewport" content="width=device-width">'
    file.write_text(f"{head}<title>Guess</title><main>{''.join(blocks)}</main>", encoding="utf-8")
    return file.as_uri()


@pytest.mark.browser
@pytest.mark.skipif(not chromium() and not os.environ.get("CI"), reason="no Chromium")
def test_a_page_asks_locks_and_counts_by_keyboard(page_file):
    with browser() as chrome:
        page = chrome.new_page(viewport={"width": 390, "height": 800})
        wrong, asked = [], []
        page.on("console", lambda m: wrong.append(m.text))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(page_file)

        def states():
            return page.locator(".u2-guess").evaluate_all(STATE)

        def end():
            return page.locator(".u2-guesses p").text_content()

        assert [s["form"] for s in states()] == [True] * 3 and not any(
            s["full"] or s["answer"] for s in states()
        )
        assert end() == "You have locked no guess yet."
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        page.keyboard.press("Tab")  # the first slider
        mark = page.locator(".u2-mark").first
        before = mark.evaluate("m => m.style.left")
        page.keyboard.press("ArrowLeft")
        assert mark.evaluate("m => m.style.left") != before  # the mark follows on the empty axes
        assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "120"
        page.keyboard.press("Enter")
        first, second, _ = states()
        assert first == {"form": False, "full": True, "mark": True, "answer": False, "state": "near"} | {
            "told": "Your guess: 120. It is 100. That was near."
        }
        assert page.evaluate("document.activeElement.className") == "u2-told"  # and is read aloud
        assert second["form"] and not second["full"]  # the other question is still open
        assert end() == "Near: 1 of your 1 guesses; 3 were asked for."

        for _ in range(3):  # slider, lock, skip of the second question
            page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert (
            states()[1]["told"] == "No guess. It is 0.34." and states()[1]["full"] and not states()[1]["mark"]
        )

        page.get_by_role("button", name="Lock my guess").last.click()
        assert states()[2]["state"] == ""  # no answer is chosen: nothing is locked
        page.get_by_role("radio", name="none").check()
        page.get_by_role("button", name="Lock my guess").last.click()
        assert states()[2]["told"] == "Your guess: none. It is the U."
        assert end() == "Near: 1 of your 2 guesses; 3 were asked for."
        assert (
            page.locator(".u2-guesses li").all_text_contents()[0].startswith("Lowest where? Your guess: 120.")
        )
        assert wrong == [] and [url for url in asked if not url.startswith("data:")] == [page_file]


@pytest.mark.browser
@pytest.mark.skipif(not chromium() and not os.environ.get("CI"), reason="no Chromium")
def test_paper_and_a_page_without_scripts_show_the_truth(page_file):
    with browser() as chrome:
        page = chrome.new_page()
        page.goto(page_file)
        page.emulate_media(media="print")
        for state in page.locator(".u2-guess").evaluate_all(STATE)[:2]:
            assert state["full"] and state["answer"] and not state["form"] and not state["mark"]
        page = chrome.new_context(java_script_enabled=False).new_page()
        page.goto(page_file)
        assert page.locator("form:visible").count() == 0
        assert page.locator(".u2-answer:visible").all_text_contents() == [
            "It is 100.",
            "It is 0.34.",
            "It is the U.",
        ]
        assert page.locator(".u2-full img").first.is_visible()
