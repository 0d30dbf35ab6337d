"""The site in a browser: it asks no other server, throws nothing, moves, is light, and fits on a phone."""

import io
import os

import pytest
from PIL import Image

from tools.browser import DESKTOP, PHONE, browser, chromium, pages, serve, watch

WIDEST = 84  # letters: a longer line of code may be cut on a laptop
HEAVIEST = 2_500_000  # bytes that a page loads before it is scrolled, uncompressed

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
    const bad = [...document.querySelectorAll(".bd-article img[src]")]
        .filter(i => i.offsetParent !== null && (i.naturalWidth === 0 || i.width > window.innerWidth))
        .map(i => i.src.slice(0, 80));
    const cut = [...document.querySelectorAll(".bd-article pre")]
        .filter(e => e.scrollWidth > e.clientWidth + 1);
    const start = e => e.textContent.slice(0, 80);
    return {
        wide, bad,
        cut: cut.map(start),
        cut_short: cut.filter(e => e.textContent.split("\\n").every(l => l.length <= WIDEST)).map(start),
        cut_outputs: cut.filter(e => e.closest(".cell_output .output")).map(start),
        no_edge: [...cut, ...document.querySelectorAll(".pst-scrollable-table-container")]
            .filter(e => !getComputedStyle(e).backgroundImage.includes("gradient")).length,
        formulas: document.querySelectorAll(".bd-article .math").length,
        set: document.querySelectorAll(".bd-article mjx-container").length,
        wrong_formulas: document.querySelectorAll("mjx-merror, mjx-mtext[style*='red']").length,
    };
}""".replace("WIDEST", str(WIDEST))
SHOWN = "all => all.filter(i => i.offsetParent !== null && i.naturalWidth > 0 && !i.hidden).map(i => i.src)"
WEIGHT = """() => performance.getEntries().reduce((sum, entry) => sum + (entry.decodedBodySize || 0), 0)"""
# Everything that would come when a reader scrolls and unfolds.
ALL = """async () => {
    document.querySelectorAll("details").forEach(fold => { fold.open = true });
    const pictures = [...document.querySelectorAll(".bd-article img[src]")];
    pictures.forEach(picture => { picture.loading = "eager" });
    await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
}"""
FORMULAS = """() => document.querySelectorAll(".bd-article mjx-container").length
    >= document.querySelectorAll(".bd-article .math").length"""
PICTURE = (
    "w => [...w.querySelectorAll('.u2-frames img')].some(i => !i.hidden && i.complete && i.naturalWidth > 0)"
)


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
            page.wait_for_function(FORMULAS)  # it may be folded away
            weight = page.evaluate(WEIGHT)
            page.evaluate(ALL)
            for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
                page.set_viewport_size(size)
                sliders = [move(page, block) for block in page.locator(".u2-explore").all()]
                look = page.evaluate(LOOK) | {"weight": weight, "sliders": sliders}
                found[f"{name}, {screen}"] = {"wrong": wrong.copy(), **look}
                wrong.clear()
    assert len(found) > 10
    return found


def move(page, block) -> tuple[list[str], list[str]]:
    """Move a slider by the keyboard; gives the pictures that are shown before and after."""
    slider, before = block.locator("input[type=range]"), block.locator("img").evaluate_all(SHOWN)
    slider.press("ArrowLeft" if slider.evaluate("s => +s.value >= +s.max") else "ArrowRight")
    page.wait_for_function(PICTURE, arg=block.element_handle())
    return before, block.locator("img").evaluate_all(SHOWN)


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


def test_code_is_not_cut(looks):
    """Lines of 84 letters are whole on a laptop; on a phone outputs wrap, and a shadow ends longer code."""
    for screen, what in (("desktop", "cut_short"), ("phone", "cut_outputs")):
        assert {name: look[what] for name, look in looks.items() if screen in name and look[what]} == {}
    assert {name: look["no_edge"] for name, look in looks.items() if look["no_edge"]} == {}


def test_pages_are_light(looks):
    weights = {name: look["weight"] for name, look in looks.items() if look["weight"] > HEAVIEST}
    assert weights == {}


@pytest.fixture(scope="module")
def chapter(site) -> str:
    """A chapter with a slider, formulas and pictures."""
    found = (site / "book/chapters").glob("*.html")
    return next(
        f"book/chapters/{p.name}" for p in sorted(found) if "u2-explore" in p.read_text(encoding="utf-8")
    )


def test_figures_go_with_the_dark(site, chapter):
    """Near its corner a figure has the colour of the page, on a light and on a dark one."""
    with serve(site) as address, browser() as chrome:
        for scheme, ground in (("light", (255, 255, 255)), ("dark", (18, 18, 18))):
            page = chrome.new_page(viewport=DESKTOP, color_scheme=scheme)
            page.goto(f"{address}/{chapter}", wait_until="networkidle")
            page.evaluate(ALL)
            colour = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            assert colour == f"rgb{ground}"
            figures = page.locator(".u2-figure img[src$='.svg']:not(.dark-light)").all()[:3]
            assert figures
            for figure in figures:
                shot = Image.open(io.BytesIO(figure.screenshot())).convert("RGB")
                corner = shot.getpixel((3, 3))
                assert max(abs(a - b) for a, b in zip(corner, ground, strict=True)) < 4, (scheme, corner)


def test_the_keyboard_can_be_followed(site, chapter):
    """Whatever the Tab key reaches has a line around it; a slider is reached, and moved."""
    look = "() => [getComputedStyle(document.activeElement).outlineStyle, document.activeElement.outerHTML]"
    with serve(site) as address, browser() as chrome:
        page = chrome.new_page(viewport=DESKTOP)
        page.goto(f"{address}/{chapter}", wait_until="networkidle")
        seen = []
        for _ in range(300):
            page.keyboard.press("Tab")
            style, html = page.evaluate(look)
            assert style == "solid", f"no line around {html[:150]}"
            seen.append(html)
            if 'type="range"' in html:
                break
        assert len(seen) > 20 and 'type="range"' in seen[-1]
        assert any("u2-run" in html for html in seen)


def test_a_page_works_from_a_folder(site, chapter):
    """Opened as a file: formulas are set, and a slider finds its pictures."""
    with browser() as chrome:
        page = chrome.new_page(viewport=DESKTOP)
        page.goto((site / chapter).as_uri())
        page.wait_for_function(FORMULAS)
        page.evaluate(ALL)
        before, after = move(page, page.locator(".u2-explore").first)
        assert len(before) == len(after) == 1 and before != after


def test_a_dark_page_is_printed_light_and_code_wraps(site, chapter):
    with serve(site) as address, browser() as chrome:
        page = chrome.new_page(viewport={"width": 700, "height": 900}, color_scheme="dark")
        page.goto(f"{address}/{chapter}", wait_until="networkidle")
        assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.evaluate("() => document.documentElement.dataset.theme") == "light"
        look = page.evaluate(LOOK)
        assert look["cut"] == look["wide"] == []
