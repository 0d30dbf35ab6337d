"""The drawn diagrams: well-formed, readable on light and dark pages and on a phone, right in every number."""

import os
import re
import xml.etree.ElementTree as ET
from itertools import combinations, product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from tools.browser import browser, chromium
from u2learn import RSU, ULevel, u2net_small, unet_small, wnet_small
from u2learn.data import fundus, read_mask
from u2learn.metrics.saliency import e_measure, s_measure
from u2learn.models.ulevel import ResizeConvJoin, ResizeJoin, UpConvCropJoin
from u2learn.show import diagrams
from u2learn.show.diagrams import sheet
from u2learn.show.palette import INKS

SVG = "{http://www.w3.org/2000/svg}"
PHONE = 358  # pixels of the column
ALL = pytest.mark.parametrize("draw", diagrams.DIAGRAMS, ids=lambda draw: draw.__name__)


def texts(diagram) -> list[str]:
    return [e.text for e in ET.fromstring(diagram.svg).iter(f"{SVG}text")]


def numbers(diagram) -> list[float]:
    """Every text that is a number."""
    found = (word.replace("−", "-").replace(",", "") for word in texts(diagram))
    return [float(word) for word in found if re.fullmatch(r"-?\d+(\.\d+)?", word)]


# ------------------------------------------------------------------------------------------------- all


@ALL
def test_a_diagram_is_an_image_with_a_name_and_legible_on_a_phone(draw):
    diagram = draw()
    root = ET.fromstring(diagram.svg)
    assert root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root[0].text == diagram.title and root[1].text == diagram.description
    assert len(diagram.description) > 60 and diagram.description.endswith(".")
    w, h = map(float, root.get("viewBox").split()[2:])
    assert (w, h) == (diagram.width, diagram.height) and w <= sheet.WIDEST
    smallest = min(float(e.get("font-size")) for e in root.iter(f"{SVG}text"))
    assert smallest * min(1, PHONE / w) >= 11
    assert not any(
        "id" in e.attrib for e in root.iter()
    )  # several on a page must not get into each other's way
    state = torch.random.get_rng_state()
    assert diagram.svg == draw().svg  # the same call, the same file
    assert torch.equal(state, torch.random.get_rng_state())  # and a chapter's own numbers stay what they were
    assert len(diagram.svg) < 30_000


@ALL
def test_a_diagram_has_the_colours_of_the_house_only(draw):
    allowed = re.compile(rf"none|currentColor|var\(--u2-({'|'.join(INKS)})(-tint)?,#[0-9A-F]{{6}}\)")
    for element in ET.fromstring(draw().svg).iter():
        for what in ("fill", "stroke"):
            value = element.get(what)
            assert value is None or allowed.fullmatch(value), value


def test_a_page_may_be_dark_in_every_host():
    html = diagrams.window()._repr_html_()
    for host in ("[data-theme=dark]", "[data-jp-theme-light=false]", "[theme=dark]", ".vscode-dark"):
        assert f"{host} .u2-diagram" in html
    assert all(f"--u2-{role}:{dark}" in html for role, (_, dark) in INKS.items())


# What is asked in the page itself: texts, and the boxes around them, in pixels of the page.
LOOK = """svg => {
    const at = e => {
        const b = e.getBoundingClientRect(), s = svg.getBoundingClientRect();
        return [b.left - s.left, b.top - s.top, b.right - s.left, b.bottom - s.top];
    };
    const area = b => (b[2] - b[0]) * (b[3] - b[1]);
    const colour = css => css.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const over = (fill, much, paper) => paper.map((c, i) => c * (1 - much) + fill[i] * much);
    const frames = [...svg.querySelectorAll("rect, circle")].map(at);
    return [...svg.querySelectorAll("text")].map(e => {
        const box = at(e), x = (box[0] + box[2]) / 2, y = (box[1] + box[3]) / 2;
        const around = frames.filter(b => b[0] < x && x < b[2] && b[1] < y && y < b[3]);
        around.sort((one, two) => area(one) - area(two));
        const whole = svg.getBoundingClientRect();
        const below = document.elementsFromPoint(x + whole.left, y + whole.top);
        let paper = colour(getComputedStyle(document.body).backgroundColor);
        for (const o of below.filter(o => svg !== o && svg.contains(o) && o.tagName != "text").reverse()) {
            const style = getComputedStyle(o);
            if (style.fill != "none") paper = over(colour(style.fill), +style.fillOpacity, paper);
        }
        const style = getComputedStyle(e), ink = over(colour(style.fill), +style.fillOpacity, paper);
        const height = parseFloat(style.fontSize) * (box[3] - box[1]) / e.getBBox().height;
        return {words: e.textContent, box, frame: around[0] || at(svg), paper, ink, height};
    });
}"""


@pytest.fixture(scope="module")
def looks() -> dict:
    """How each text of each diagram looks, on light and dark pages, in a wide and in a narrow column."""
    if not chromium() and not os.environ.get("CI"):
        pytest.skip("no Chromium on the search path, nor in the variable CHROMIUM")
    found: dict = {}
    blocks = "".join(draw()._repr_html_() for draw in diagrams.DIAGRAMS)
    with browser() as chrome:
        page = chrome.new_page()
        for theme, ink, paper in (("light", "#222832", "#ffffff"), ("dark", "#ced6dd", "#14181e")):
            page.set_content(
                f'<!doctype html><html data-theme="{theme}"><body style="margin:16px;background:{paper};'
                f'color:{ink};font-family:sans-serif">{blocks}</body></html>'
            )
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 14_000})  # all of it is in sight
                drawings = page.locator(".u2-diagram svg").all()
                for draw, one in zip(diagrams.DIAGRAMS, drawings, strict=True):
                    found[draw.__name__, theme, width] = one.evaluate(LOOK)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"a page of {width} pixels is {wide} wide"
    return found


def luminance(colour) -> float:
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@ALL
def test_words_stay_in_their_boxes_and_stand_out(draw, theme, looks):
    for width in (1280, 390):
        seen = looks[draw.__name__, theme, width]
        assert seen
        for text in seen:
            (left, top, right, low), (fl, ft, fr, fb) = text["box"], text["frame"]
            assert fl - 1 <= left and right <= fr + 1, f"{text['words']!r} leaves its box at {width}"
            assert ft - 3 <= top and low <= fb + 3, f"{text['words']!r} leaves its box at {width}"
            assert text["height"] >= 10.9, f"{text['words']!r} is {text['height']:.1f} pixels high at {width}"
            light, dark = sorted((luminance(text["ink"]), luminance(text["paper"])), reverse=True)
            contrast = (light + 0.05) / (dark + 0.05)
            assert contrast >= 4.5, f"{text['words']!r} has a contrast of {contrast:.1f} on a {theme} page"
        for one, two in combinations(seen, 2):
            (l0, t0, r0, b0), (l1, t1, r1, b1) = one["box"], two["box"]
            apart = min(r0, r1) - max(l0, l1) < 1 or min(b0, b1) - max(t0, t1) < 4
            assert apart, f"{one['words']!r} lies on {two['words']!r} at {width}"


# --------------------------------------------------------------------------------------------- numbers


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def naive(image, kernel) -> np.ndarray:
    """A convolution without padding, by its definition."""
    h, w = kernel.shape
    out = np.zeros((image.shape[0] - h + 1, image.shape[1] - w + 1))
    for y, x, i, j in product(range(out.shape[0]), range(out.shape[1]), range(h), range(w)):
        out[y, x] += image[y + i, x + j] * kernel[i, j]
    return out


def test_window_adds_up_three_channels(rng):
    patch, kernel = rng.integers(0, 9, (3, 3, 3)), rng.integers(-4, 5, (3, 3, 3))
    sums = [naive(p, k)[0, 0] for p, k in zip(patch, kernel, strict=True)]
    shown = numbers(diagrams.window(patch, kernel, bias=-7))
    expected = [n for p, k, s in zip(patch, kernel, sums, strict=True) for n in (*p.flat, *k.flat, s)]
    assert shown == [*expected, -7, sum(sums) - 7]


def test_im2col_has_windows_as_rows_and_their_products(rng):
    image, kernel = rng.integers(0, 9, (4, 4)), rng.integers(-4, 5, (3, 3))
    windows = [image[y : y + 3, x : x + 3].ravel() for y, x in product(range(2), repeat=2)]
    out = naive(image, kernel).ravel()
    rows = [n for window, value in zip(windows, out, strict=True) for n in (*window, value)]
    assert numbers(diagrams.im2col(image, kernel)) == [*image.flat, *kernel.flat, *kernel.flat, *rows, *out]


def test_autograd_has_the_slopes_of_finite_differences():
    at = {"w": 1.5, "x": -2.0, "b": 0.5, "y": 3.0}

    def loss(w, x, b, y):
        return (w * x + b - y) ** 2

    step = 1e-6
    slopes = {
        n: (loss(**at | {n: v + step}) - loss(**at | {n: v - step})) / (2 * step) for n, v in at.items()
    }
    words = diagrams.autograd(**at).description
    for name, slope in slopes.items():
        assert (
            f"{name} {slope:.0f}".replace("-", "−") in words
            or f"{name} {slope:.1f}".replace("-", "−") in words
        )
    assert f"the loss is {loss(**at):g}" in words
    inner = 1.5 * -2 + 0.5 - 3
    assert {-3.0, -2.5, inner, inner**2, 2 * inner, 1.0} <= set(numbers(diagrams.autograd(**at)))


def test_descent_walks_against_the_slope():
    w, path = -1.0, []
    for _ in range(4):
        path.append(w)
        w -= 0.75 * (w - 2)
    assert (
        ", ".join(f"{v:.2f}".rstrip("0").rstrip(".") for v in path).replace("-", "−")
        in diagrams.descent(-1, 0.75, 3).description
    )
    assert "step = −0.75 × (−3) = 2.25" in texts(diagrams.descent(-1, 0.75))


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 1)] * 3,
        [(3, 1, 1), (2, 2, 1), (3, 1, 2)],
        [(3, 1, 4)],
        [(3, 1, 1), (3, 1, 9)],
        [(5, 3, 1), (3, 2, 1)],
    ],
)
def test_cone_reaches_the_pixels_that_have_a_gradient(layers):
    x = torch.ones(1, 1, 60, requires_grad=True)
    y = x
    for kernel, stride, dilation in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride, dilation=dilation)
    y[0, 0, 0].backward()
    seen = x.grad[0, 0].nonzero().flatten()
    diagram = diagrams.cone(layers)
    assert f"receptive field: {int(seen.max()) + 1} pixels" in texts(diagram)
    # The lowest row of cells that are tinted is the image.
    cells = [(float(e.get("y")), e.get("fill")) for e in ET.fromstring(diagram.svg).iter(f"{SVG}rect")]
    lowest = max(y for y, _ in cells)
    assert sum(y == lowest and "encoder" in fill for y, fill in cells) == len(seen)


def test_norm_modes_are_those_of_the_formula():
    values = np.array([2.0, 2.5, 9.0, -3.0])
    mean, variance = 0.2 * values.mean(), 0.8 + 0.2 * values.var(ddof=1)
    trained = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
    tested = (values - mean) / np.sqrt(variance + 1e-5)
    shown = [f"{v:.1f}".replace("-", "−") for v in (*trained, *tested)]
    diagram = diagrams.norm_modes(values.tolist(), momentum=0.2)
    assert [w for w in texts(diagram) if w in shown] == shown
    assert f"÷ √{values.var():.2f}" in texts(diagram) and f"÷ √{variance:.2f}" in texts(diagram)
    assert f"mean {mean:.2f}, variance {variance:.2f}" in texts(diagram)


def test_pools_keep_or_drop_the_last_row(rng):
    image = rng.permutation(35).reshape(5, 7)
    up = [image[y : y + 2, x : x + 2].max() for y, x in product((0, 2, 4), (0, 2, 4, 6))]
    down = [image[y : y + 2, x : x + 2].max() for y, x in product((0, 2), (0, 2, 4))]
    assert numbers(diagrams.pools(image)) == [*image.flat, *up, *down]


def test_bilinear_weighs_by_the_distance_of_centres():
    corners, at = np.array([[3.0, 7], [1, 12]]), (2, 1)
    centre = [(i + 0.5) / 2 - 0.5 for i in range(4)]  # of a new pixel, on the old grid
    weight = [[max(0, 1 - abs(np.clip(c, 0, 1) - k)) for k in (0, 1)] for c in centre]
    large = np.array(weight) @ corners @ np.array(weight).T
    diagram = diagrams.bilinear(corners, at)
    assert np.allclose(numbers(diagram), np.round(large.ravel(), 2), atol=0.011)
    for (r, c), value in np.ndenumerate(corners):
        assert f"{value:g} × {16 * weight[at[0]][r] * weight[at[1]][c]:.0f}/16" in texts(diagram)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_stamps_add_up(rng, count):
    image, kernel = rng.integers(1, 9, (2, 2)), rng.integers(1, 9, (3, 3))
    out, laid = np.zeros((5, 5)), np.zeros((5, 5), bool)
    for k in range(count):
        y, x = k // 2, k % 2
        out[2 * y : 2 * y + 3, 2 * x : 2 * x + 3] += image[y, x] * kernel
        laid[2 * y : 2 * y + 3, 2 * x : 2 * x + 3] = True
    assert numbers(diagrams.stamps(image, kernel, count)) == [*image.flat, *kernel.flat, *out[laid]]


def test_a_block_learns_as_many_numbers_as_it_says():
    words = texts(diagrams.block())
    assert [w for w in words if w.startswith("learns")] == [f"learns {n}" for n in (3 * 8 * 9, 2 * 8, 0)]
    assert "mean 0" in words and "deviation 1" in words


def real_calls(model, size) -> dict[str, list[tuple]]:
    """The shapes of maps in a pass with real numbers, by what made them, in the order of the calls."""
    found: dict[str, list[tuple]] = {}
    hooks = []
    for level in (m for m in model.modules() if isinstance(m, ULevel)):
        for name in ("encode", "down", "join", "decode"):
            note = lambda m, i, out, name=name: found.setdefault(name, []).append(tuple(out.shape[1:]))  # noqa: E731
            hooks.append(getattr(level, name).register_forward_hook(note))
    model.eval()(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return found


def test_unfolded_shows_the_shapes_of_a_real_pass():
    net, size = unet_small(width=4, depth=3), (33, 50)
    by_name = real_calls(net, size)
    words = texts(diagrams.unfolded(net, size))
    names = {
        "encode": "skip = encode(x)",
        "down": "down(skip)",
        "join": "join(deep, skip)",
        "decode": "decode(joined)",
    }
    for name, line in names.items():
        shown = [words[i + 1] for i, word in enumerate(words) if word == line]
        assert shown == [" × ".join(map(str, shape)) for shape in by_name[name]]
    with pytest.raises(ValueError, match="Conv2d has no ULevel"):
        diagrams.unfolded(nn.Conv2d(3, 1, 1))


def test_unfolding_goes_call_by_call():
    frames = diagrams.unfolding(unet_small(depth=3))
    assert len(frames) == 4 * 2 + 1 and len({frame.svg for frame in frames}) == len(frames)
    pale = [frame.svg.count('opacity="0.3"') for frame in frames]
    assert pale == sorted(pale, reverse=True) and pale[-1] == 0
    assert "Shown up to inner(x) on level 3" in frames[4].description


def test_joins_give_the_channels_of_the_real_ones():
    words = texts(diagrams.joins(deep=32, skip=16))
    skip = torch.zeros(1, 16, 64, 64)
    for join, small in ((UpConvCropJoin(32, 16), 28), (ResizeJoin(), 32), (ResizeConvJoin(32, 16), 32)):
        out = join.eval()(torch.zeros(1, 32, small, small), skip)
        assert f"{out.shape[1]}, {out.shape[2]} × {out.shape[3]}" in words
    assert wnet_small(num_classes=2).second.body.encode[0].conv.in_channels == 5 and "5, 64 × 64" in words


def test_the_crop_rule_counts_background():
    label = fundus(3, (120, 120)).label
    diagram = diagrams.crop_rule()
    rects = [e.attrib for e in ET.fromstring(diagram.svg).iter(f"{SVG}rect") if e.get("width") == "35"]
    assert len(rects) == 4
    kinds = set()
    for rect in rects:
        y, x = round(float(rect["y"]) / 2.5), round(float(rect["x"]) / 2.5)
        share = (label[y : y + 14, x : x + 14] == 0).mean()
        assert f"{share:.0%}" in texts(diagram)
        assert ("decoder" in rect["stroke"]) == (share < 0.75)
        kinds.add(share < 0.75)
    assert kinds == {True, False}


def test_mask_files_are_read_as_the_package_reads_them(tmp_path):
    grey = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    diagram = diagrams.mask_files(grey.tolist(), [["red", "black"]], {"red": 1, "black": 255})
    assert numbers(diagram) == [*grey.flat, *read_mask(tmp_path / "mask.png").flat, 1, 255]
    assert "black → 255" in texts(diagram)


def curves(diagram) -> list[np.ndarray]:
    """The points of every curve, (N, 2) each."""
    paths = [
        e.get("d") for e in ET.fromstring(diagram.svg).iter(f"{SVG}path") if e.get("stroke-width") == "2.2"
    ]
    points = [np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), float) for path in paths]
    return [p for p in points if len(p) > 2]


def test_one_pixel_pulls_as_the_derivatives_say():
    vessel, p = 4, np.linspace(0.005, 0.995, 100)

    def dice(p):  # of the vessel, and of the background, in which this pixel counts 1 - p
        others = 20 - vessel
        one, two = 2 * (vessel - 1 + p) / (2 * vessel - 1 + p), 2 * others / (2 * others + 1 - p)
        return 1 - (one + two) / 2

    step = 1e-6
    expected = {
        "loss": (-np.log(p), dice(p)),
        "pull": (1 - p, -(dice(p + step) - dice(p - step)) / (2 * step) * p * (1 - p)),
    }
    drawn = curves(diagrams.one_pixel(20, vessel))
    for curve, truth in zip(drawn, [*expected["loss"], *expected["pull"]], strict=True):
        low, high = 150.0, 150 - 150 / 1.05  # where 0 and 1 lie on the sheet
        assert np.allclose((low - curve[:, 1]) / (low - high), truth / truth.max(), atol=0.01)


def test_two_curves_part_where_training_should_stop():
    train, val = curves(diagrams.two_curves(best=30, length=100))
    assert (np.diff(train[:, 1]) >= 0).all()  # y grows downwards: the loss falls
    lowest = val[np.argmax(val[:, 1]), 0]
    assert abs((lowest - val[0, 0]) / (val[-1, 0] - val[0, 0]) - 0.3) < 0.03
    assert (val[:, 1] <= train[:, 1]).all()


def test_confusion_areas_are_in_proportion():
    tp, fn, fp, tn = 50, 25, 75, 450
    diagram = diagrams.confusion_areas(tp, fn, fp, tn)
    rects = [
        (float(e.get("width")) * float(e.get("height")))
        for e in ET.fromstring(diagram.svg).iter(f"{SVG}rect")
    ]
    whole, areas = rects[0], rects[1:4]
    assert np.allclose(np.array(areas) / whole, np.array([fn, tp, fp]) / 600, rtol=0.01)
    scores = {
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "IoU": tp / (tp + fn + fp),
        "Dice": 2 * tp / (2 * tp + fn + fp),
    }
    words = texts(diagram)
    for name, value in scores.items():
        after = words[words.index(name) + 1 :]
        assert next(w for w in after if re.fullmatch(r"\d\.\d\d", w)) == f"{value:.2f}"


def test_regions_and_pooling_by_hand():
    words = texts(diagrams.regions((80, 20, 40, 860), (0, 0, 10, 490)))
    for tp, fn, fp, tn in ((80, 20, 40, 860), (80, 20, 50, 1350)):
        total = tp + fn + fp + tn
        for value in ((tp + tn) / total, tn / (tn + fp), 2 * tp / (2 * tp + fn + fp)):
            assert f"{value:.3f}" in words
        assert f"{total:,}" in words
    words = texts(diagrams.pooling(((10, 10, 0), (400, 50, 50), (5, 0, 5))))
    dice = [20 / 30, 800 / 900, 10 / 15]
    assert [f"Dice {d:.2f}" for d in (*dice, 830 / 945)] == [w for w in words if w.startswith("Dice")]
    assert (
        f"mean over the images: {sum(dice) / 3:.2f}" in words and f"from the totals: {830 / 945:.2f}" in words
    )


@pytest.mark.parametrize(("size", "window", "stride"), [((10, 13), 6, 4), ((7, 9), 4, 3), ((6, 12), 6, 3)])
def test_the_window_grid_counts_the_windows_on_a_pixel(size, window, stride):
    def seen(place: int, side: int) -> int:
        count = -(-(side - window) // stride) + 1
        starts = [min(k * stride, side - window) for k in range(count)]
        return sum(start <= place < start + window for start in starts)

    expected = [seen(y, size[0]) * seen(x, size[1]) for y, x in product(range(size[0]), range(size[1]))]
    diagram = diagrams.window_grid(size, window, stride)
    assert numbers(diagram) == expected
    moved = any((side - window) % stride for side in size[1:])
    assert ("moved back to the border" in texts(diagram)) == moved


def test_heads_stack_the_channels_of_their_branches():
    words = texts(diagrams.three_heads(channels=48))
    assert str(48 + 4 * 16) in words and str(5 * 16) in words
    assert [w for w in words if "d =" in w] == ["3×3, d = 12", "3×3, d = 24", "3×3, d = 36"]
    assert [w for w in words if w.startswith("mean")] == [f"mean {n}×{n}" for n in (1, 2, 3, 6, 1)]


def test_an_rsu_has_its_levels_and_dilations():
    words = texts(diagrams.rsu(5, (3, 12, 24), size=(50, 33)))
    assert [w for w in words if "×" in w] == ["50 × 33", "25 × 17", "13 × 9", "7 × 5", "7 × 5"]
    assert words.count("12") == 4 + 3 and words.count("24") == 2 and "d = 2" in words
    made = real_calls(RSU(5, 3, 12, 24), (50, 33))
    assert made["encode"] == [(12, 50, 33), (12, 25, 17), (12, 13, 9), (12, 7, 5)]
    assert made["decode"] == [(12, 7, 5), (12, 13, 9), (12, 25, 17), (24, 50, 33)]
    words = texts(diagrams.rsu(4, (8, 4, 8), dilated=True))
    assert [w for w in words if w.startswith("d =")] == ["d = 2", "d = 2", "d = 4", "d = 4", "d = 8"]


def test_side_maps_come_from_every_level():
    net = u2net_small()
    words = texts(diagrams.side_maps(net, (100, 60)))
    assert [w for w in words if re.fullmatch(r"S\d", w)] == [f"S{k}" for k in range(1, 7)]
    sizes, side = [], (100, 60)
    for _ in range(6):
        sizes.append(f"{side[0]} × {side[1]}")
        side = tuple(-(-s // 2) for s in side)
    assert [w for w in words if " × " in w] == sizes
    assert [w for w in words if w.startswith("RSU")] == [
        *(
            "RSU-7",
            "RSU-7",
            "RSU-6",
            "RSU-6",
            "RSU-5",
            "RSU-5",
            "RSU-4",
            "RSU-4",
            "RSU-4F",
            "RSU-4F",
            "RSU-4F",
        )
    ]
    assert words.count("64") == 11
    assert len(net.eval()(torch.zeros(1, 3, 32, 32))) == 7  # these six and the fused one


def test_the_regions_of_the_s_measure_are_half_of_it(rng):
    mask = np.zeros((9, 10), bool)
    mask[2:7, 3:9] = True
    pred = np.round(rng.random(mask.shape), 2)
    shown = float(re.search(r"= (\d\.\d\d)\.$", diagrams.s_regions(pred, mask).description)[1])
    inside, outside = pred[mask], 1 - pred[~mask]
    even = [2 * v.mean() / (v.mean() ** 2 + 1 + v.std(ddof=1)) for v in (inside, outside)]
    objects = mask.mean() * even[0] + (1 - mask.mean()) * even[1]
    assert shown == pytest.approx(2 * s_measure(pred, mask) - objects, abs=0.006)


def test_alignment_sums_up_to_the_e_measure(rng):
    mask, cut = rng.random((8, 8)) > 0.6, rng.random((8, 8)) > 0.5
    diagram = diagrams.alignment(cut, mask)
    expected = float(e_measure(int((cut & mask).sum()), int(cut.sum()), mask))
    assert f"E = sum / 63 = {expected:.2f}" in texts(diagram)
    counts = [int(w.split(" × ")[0]) for w in texts(diagram) if re.fullmatch(r"\d+ × \d\.\d\d", w)]
    assert counts == [(cut & mask).sum(), (~cut & mask).sum(), (cut & ~mask).sum(), (~cut & ~mask).sum()]


def test_thin_parts_vanish_at_small_sizes():
    y, x = np.mgrid[:32, :32]
    bar = np.abs((y - 0.45 * x - 9) / np.hypot(1, 0.45)) <= 2
    kept, areas = [], []
    for factor in (1, 2, 4, 8):
        grey = bar.reshape(32 // factor, factor, 32 // factor, factor).mean((1, 3))
        kept.append((bar & np.repeat(np.repeat(grey >= 0.5, factor, 0), factor, 1)).sum() / bar.sum())
        areas.append((grey >= 0.5).mean() * 100**2)
    diagram = diagrams.thin_parts(4)
    assert [w for w in texts(diagram) if "kept" in w] == [f"{k:.0%} kept" for k in kept]
    drawn = np.zeros(4)  # of the pictures in the lower row, the area that has ink
    for path in ET.fromstring(diagram.svg).iter(f"{SVG}path"):
        for x, y, w, h in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)", path.get("d")):
            drawn[int(float(x) / 112)] += float(w) * float(h) * (float(y) >= 134)
    assert np.allclose(drawn, areas, rtol=0.05)


def test_the_roofline_is_the_lower_of_two_limits():
    diagram = diagrams.roofline(200e9, 5e9, [(8, 8), (256, 256)])
    reach = [2 * 9 * c * c / (4 * 6 * c) for c in (8, 256)]  # operations, by bytes: six maps of c channels
    assert [f"makes {r:.0f}" in diagram.description for r in reach] == [True, True]
    dots = [e for e in ET.fromstring(diagram.svg).iter(f"{SVG}circle")]
    xs, ys = ([float(e.get(name)) for e in dots] for name in ("cx", "cy"))
    assert (xs[1] - xs[0]) / 380 == pytest.approx(np.log10(reach[1] / reach[0]) / 3, abs=0.01)
    roof = [min(200e9, r * 5e9) for r in reach]
    tall = np.log10(200e9) + 0.35 - np.log10(5e9)
    assert (ys[0] - ys[1]) / 210 == pytest.approx(np.log10(roof[1] / roof[0]) / tall, abs=0.01)


def test_folding_gives_the_same_result():
    weight, bias, (mean, variance, gamma, beta), x = (2, -1), 1.5, (0.5, 9, 2, -1), (3, 4)
    between = np.dot(weight, x) + bias
    after = (between - mean) / variance**0.5 * gamma + beta
    new = [w * gamma / 3 for w in weight]
    plus = (bias - mean) * gamma / 3 + beta
    assert np.dot(new, x) + plus == pytest.approx(after)
    shown = numbers(diagrams.folding(weight, bias, (mean, variance, gamma, beta), x))
    assert np.allclose(
        shown, [*weight, *np.round(new, 2), between, round(after, 2), round(after, 2)], atol=0.006
    )


def test_integers_round_to_the_nearest_level():
    values, low, high, bits = (-0.7, 0.0, 1.234, 1.9), -1, 2, 3
    scale = (high - low) / 7
    zero = round(-low / scale)
    words = texts(diagrams.integers(low, high, bits, values))
    for value in values:
        level = min(range(8), key=lambda q: abs((q - zero) * scale - value))
        short = [
            f"{v:.2f}".rstrip("0").rstrip(".").replace("-", "−") for v in (value, (level - zero) * scale)
        ]
        assert f"{short[0] if value else '0'} → {level} → {short[1] if level != zero else '0'}" in words
    assert f"zero point {zero}" in words
