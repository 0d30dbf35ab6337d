"""The site in a browser: it asks no other server, throws nothing, moves, and fits on a phone."""

import os

import pytest

from tools.browser import DESKTOP, PHONE, browser, chromium, pages, serve, watch

pytestmark = pytest.mark.skipif(
    not chromium() and not os.environ.get("CI"),
    reason="no Chromium on the search path, nor in the variable CHROMIUM",
)


@pytest.fixture(scope="module")
def chrome(site):
    with serve(site) as address, browser() as started:
        yield started, address


def visit(chrome, size):
    """Open each page in turn; gives (name, page, what went wrong on it so far)."""
    started, address = chrome
    for name in pages_of_book:
        page = started.new_page(viewport=size)
        wrong = watch(page, address)
        page.goto(f"{address}/{name}", wait_until="networkidle")
        yield name, page, wrong
        page.close()


pages_of_book: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def list_pages(site):
    pages_of_book[:] = pages(site)
    assert len(pages_of_book) > 5


def test_pages_are_quiet_and_alone(chrome):
    """No error in the console, no failed request, nothing asked of another server: the book works offline."""
    found = {name: list(wrong) for name, _, wrong in visit(chrome, DESKTOP)}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_formulas_are_set(chrome):
    formulas = 0
    for name, page, _ in visit(chrome, DESKTOP):
        sources = page.locator(".bd-article .math").count()
        formulas += sources
        if sources:
            page.wait_for_selector("mjx-container", timeout=10_000)
            assert page.locator(".bd-article mjx-container").count() >= sources, (
                f"{name}: formulas are not set"
            )
            assert page.locator("mjx-merror").count() == 0, f"{name}: a formula with an error"
    assert formulas > 5


def test_sliders_change_their_picture(chrome):
    sliders = 0
    for name, page, wrong in visit(chrome, PHONE):
        for block in page.locator(".u2-explore").all():
            sliders += 1
            before = shown(block)
            assert len(before) == 1, f"{name}: {len(before)} pictures of a slider are shown"
            slider = block.locator("input[type=range]")
            slider.focus()
            at_end = slider.evaluate("s => +s.value >= +s.max")
            page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            assert shown(block) != before, f"{name}: a slider moves, and its picture does not change"
        assert wrong == [], name
    assert sliders > 0, "there is no slider in the whole book"


def shown(block) -> list[str]:
    """The sources of the pictures of an explore block that are visible and loaded."""
    return block.locator("img").evaluate_all(
        "all => all.filter(i => i.offsetParent !== null && i.naturalWidth > 0).map(i => i.src)"
    )


def test_pages_fit_on_a_phone(chrome):
    wide = {}
    for name, page, _ in visit(chrome, PHONE):
        widths = page.evaluate(
            """() => ["html", "body", ".bd-main", ".bd-article-container", ".bd-article"]
                .map(s => [s, document.querySelector(s)])
                .filter(([s, e]) => e && e.scrollWidth > Math.max(e.clientWidth, 1) + 1)
                .map(([s, e]) => `${s}: ${e.scrollWidth} in ${e.clientWidth} pixels`)"""
        )
        if widths:
            wide[name] = widths
    assert wide == {}


def test_pictures_fit_and_have_a_name(chrome):
    """No picture is wider than the column, none is broken."""
    for name, page, _ in visit(chrome, PHONE):
        broken = page.evaluate(
            """() => [...document.querySelectorAll(".bd-article img")]
                .filter(i => i.offsetParent !== null && (i.naturalWidth === 0 || i.width > window.innerWidth))
                .map(i => i.src.slice(0, 80))"""
        )
        assert broken == [], name
