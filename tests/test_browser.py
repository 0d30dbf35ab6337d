"""The site in a browser: it asks no other server, throws nothing, moves, and fits on a phone."""

import os

import pytest

from tools.browser import DESKTOP, PHONE, browser, chromium, pages, serve, watch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not chromium() and not os.environ.get("CI"),
        reason="no Chromium on the search path, nor in the variable CHROMIUM",
    ),
]

# What a page looks like, asked in the page itself.
LOOK = """() => {
    const wide = ["html", "body", ".bd-main", ".bd-article-container", ".bd-article"]
        .map(name => [name, document.querySelector(name)])
        .filter(([name, e]) => e && e.scrollWidth > e.clientWidth + 1)
        .map(([name, e]) => `${name} has ${e.scrollWidth} pixels in ${e.clientWidth}`);
    const bad = [...document.querySelectorAll(".bd-article img")]
        .filter(i => i.offsetParent !== null && (i.naturalWidth === 0 || i.width > window.innerWidth))
        .map(i => i.src.slice(0, 80));
    return {
        wide, bad,
        formulas: document.querySelectorAll(".bd-article .math").length,
        set: document.querySelectorAll(".bd-article mjx-container").length,
        wrong_formulas: document.querySelectorAll("mjx-merror, mjx-mtext[style*='red']").length,
    };
}"""
SHOWN = """all => all.filter(f => f.offsetParent !== null && f.naturalWidth !== 0 && f.checkVisibility(
    {visibilityProperty: true})).map(f => f.src || f.innerHTML)"""


@pytest.fixture(scope="module")
def looks(site) -> dict[str, dict]:
    """What each page looks like on a desktop and then on a phone, after all of its sliders were moved."""
    found = {}
    with serve(site) as address, browser() as chrome:
        page = chrome.new_page(viewport=DESKTOP)
        wrong = watch(page, address)
        for name in pages(site):
            page.set_viewport_size(DESKTOP)
            page.goto(f"{address}/{name}", wait_until="networkidle")
            if page.locator(".bd-article .math").count():
                page.wait_for_selector("mjx-container", state="attached")  # it may be folded away
            for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
                page.set_viewport_size(size)
                sliders = [move(block) for block in page.locator(".u2-explore").all()]
                look = page.evaluate(LOOK)
                found[f"{name}, {screen}"] = {"sliders": sliders, "wrong": wrong.copy(), **look}
                wrong.clear()
    assert len(found) > 10
    return found


def move(block) -> tuple[list[str], list[str]]:
    """Move a slider by the keyboard; gives the pictures that are shown before and after."""
    slider, frames = block.locator("input[type=range]"), block.locator(".u2-frames > *")
    before = frames.evaluate_all(SHOWN)
    slider.press("ArrowLeft" if slider.evaluate("s => +s.value >= +s.max") else "ArrowRight")
    return before, frames.evaluate_all(SHOWN)


def test_pages_are_quiet_and_alone(looks):
    """No error in the console, no failed request, nothing asked of another server: the book works offline."""
    assert {name: look["wrong"] for name, look in looks.items() if look["wrong"]} == {}


def test_formulas_are_set(looks):
    assert sum(look["formulas"] for look in looks.values()) > 5
    assert [
        name for name, look in looks.items() if look["set"] < look["formulas"] or look["wrong_formulas"]
    ] == []


def test_sliders_change_their_picture(looks):
    assert sum(len(look["sliders"]) for look in looks.values()) > 0
    for name, look in looks.items():
        for before, after in look["sliders"]:
            assert len(before) == len(after) == 1, (
                f"{name}: a slider shows {len(before)}, then {len(after)} pictures"
            )
            assert before != after, f"{name}: a slider moves, and its picture does not change"


def test_pages_and_pictures_fit(looks):
    assert {name: look["wide"] for name, look in looks.items() if look["wide"]} == {}
    assert {name: look["bad"] for name, look in looks.items() if look["bad"]} == {}
