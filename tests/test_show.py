"""What the book shows: pictures hold the right numbers, drawings the model's own shapes, sliders move."""

import base64
import io
import itertools
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from tools.browser import browser, chromium
from u2learn import ConvBlock, ULevel, show, unet_2015, unet_s5_d16, unet_small, wnet_small
from u2learn.metrics.hce import corrections
from u2learn.show import watching, widgets
from u2learn.show.module_tree import measure
from u2learn.show.palette import figure_of

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("IPython")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No window, no kernel, nothing set by the shell that runs the tests."""
    plt.switch_backend("agg")
    monkeypatch.delenv("U2LEARN_BUDGET", raising=False)
    monkeypatch.delenv("U2LEARN_PUBLISH", raising=False)
    with plt.rc_context():
        yield
    assert plt.get_fignums() == []  # whatever was shown is closed, or notebooks would show it twice


# ------------------------------------------------------------------------------------------------ page


def test_importing_costs_nothing_of_jupyter():
    code = (
        "import sys, u2learn.show\n"
        "print([m for m in ('matplotlib', 'IPython', 'ipywidgets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_budget_and_publishing_follow_the_environment(monkeypatch):
    assert show.budget() == ("gpu" if torch.cuda.is_available() else "cpu")
    for value in ("smoke", "cpu", "gpu"):
        monkeypatch.setenv("U2LEARN_BUDGET", value)
        assert show.budget() == value
    monkeypatch.setenv("U2LEARN_BUDGET", "large")
    with pytest.raises(ValueError, match='U2LEARN_BUDGET is "large"; set it to smoke, cpu or gpu'):
        show.budget()
    assert show.publishing() is False
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    assert show.publishing() is True
    monkeypatch.setenv("U2LEARN_PUBLISH", "yes")
    with pytest.raises(ValueError, match='U2LEARN_PUBLISH is "yes"'):
        show.publishing()


def test_source_is_a_fenced_block_under_the_module_name():
    text = show.source(ULevel, ULevel.forward, ConvBlock).data
    assert text.count("**`u2learn.models.ulevel`**") == 1 and text.count("**`u2learn.models.conv`**") == 1
    assert "````python\nclass ULevel(nn.Module):" in text
    assert "````python\ndef forward(self, x" in text  # a method is not left hanging in its indentation
    with pytest.raises(ValueError, match=r"show its class: source\(type\(x\)\)"):
        show.source(nn.ReLU())
    with pytest.raises(ValueError, match="at least one"):
        show.source()


# -------------------------------------------------------------------------------------------- pictures


def panels(figure):
    return [axis.images[0] for axis in figure.axes if axis.images]


def test_image_row_shows_every_kind_of_image_with_its_own_numbers():
    colour = torch.rand(3, 4, 5)
    images = [
        colour,
        (colour * 255).to(torch.uint8),
        colour[0],
        colour[:1],
        colour[0] > 0.5,
        torch.tensor([[0, 1], [255, 1]], dtype=torch.uint8),
        torch.tensor([[0, 18], [255, 3]]),
        torch.tensor([[0, 200]], dtype=torch.uint8),
        np.zeros((4, 5, 3)),
        torch.tensor([[-2.0, 6.0]]),
    ]
    shown = panels(show.image_row(images, columns=5))
    assert len(shown) == 10
    np.testing.assert_allclose(shown[0].get_array(), colour.permute(1, 2, 0))
    np.testing.assert_array_equal(shown[1].get_array(), images[1].permute(1, 2, 0))
    assert shown[2].get_array().shape == shown[3].get_array().shape == (4, 5)
    limits = [s.get_clim() for s in shown]
    assert limits[2] == limits[4] == limits[5] == (0, 1)  # floats in [0, 1], masks, binary labels
    assert limits[6] == (0, 18) and limits[7] == (0, 255) and limits[9] == (-2, 6)
    assert panels(show.image_row([colour[0]], limits=(0.2, 0.3)))[0].get_clim() == (0.2, 0.3)


def test_image_row_lays_out_and_refuses_clearly():
    images = [torch.rand(3, 8, 8)] * 5
    figure = show.image_row(images, [f"picture {i}" for i in range(5)], columns=3)
    assert len(figure.axes) == 6 and [a.get_title() for a in figure.axes][4] == "picture 4"
    assert figure.get_figwidth() <= 7
    with pytest.raises(ValueError, match="5 pictures and 2 titles"):
        show.image_row(images, ["a", "b"])
    with pytest.raises(
        ValueError, match=r"image 1: expected \(3, H, W\) or \(H, W\), got shape \(2, 3, 8, 8\)"
    ):
        show.image_row([images[0], torch.rand(2, 3, 8, 8)])
    with pytest.raises(ValueError, match="nothing to show"):
        show.image_row([])


def test_feature_grid_stretches_each_map():
    maps = torch.stack([torch.eye(3) * 7 - 2, torch.zeros(3, 3)])
    first, flat = panels(show.feature_grid(maps))
    assert first.get_array().min() == 0 and first.get_array().max() == 1
    assert flat.get_array().max() == 0  # a dead channel is black, not a division by zero
    with pytest.raises(ValueError, match=r"\(C, H, W\), got \(1, 2, 3, 3\)"):
        show.feature_grid(maps[None])


def test_kernel_picture_writes_each_number_in_cells_of_one_size():
    patch, kernel, result = torch.arange(9.0).reshape(3, 3), torch.tensor([[-1, 0.25], [1 / 9, 2]]), [[36]]
    figure = show.kernel_picture(
        [patch, kernel, result], ["patch", "a kernel", "the sum of products"], box=(0, 1, 2, 2)
    )
    texts = [[t.get_text() for t in axis.texts] for axis in figure.axes]
    assert texts == [[str(i) for i in range(9)], ["\N{MINUS SIGN}1", "0.25", "0.11", "2"], ["36"]]
    figure.canvas.draw()
    cells = [np.ptp(axis.transData.transform([(0, 0), (1, 1)]), axis=0) for axis in figure.axes]
    np.testing.assert_allclose(cells, np.broadcast_to(cells[0], (3, 2)), rtol=0.02)
    assert figure.axes[0].patches[0].get_bbox().bounds == (1, 0, 2, 2)
    assert not show.kernel_picture(patch, numbers=False).axes[0].texts
    with pytest.raises(ValueError, match="use image_row"):
        show.kernel_picture(torch.zeros(30, 30))


def test_receptive_field_centres_the_theoretical_box():
    heat = torch.zeros(11, 13)
    heat[5, 6] = -4
    figure = show.receptive_field([heat, heat], sizes=[3, (5, 7)])
    assert panels(figure)[0].get_array().max() == 1
    # Pixel centres are whole numbers, so a box over rows 4..6 starts at 3.5.
    assert figure.axes[0].patches[0].get_bbox().bounds == (4.5, 3.5, 3, 3)
    assert figure.axes[1].patches[0].get_bbox().bounds == (2.5, 2.5, 7, 5)
    assert not show.receptive_field(heat).axes[0].patches
    with pytest.raises(ValueError, match="2 maps and 1 sizes"):
        show.receptive_field([heat, heat], sizes=[3])


def test_overlay_colours_are_exact():
    image = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8).expand(3, 2, 2)
    prediction, label = torch.tensor([[1, 0], [1, 0]]), torch.tensor([[1, 1], [0, 0]])
    picture = show.overlay(image, prediction, label)
    assert picture.dtype == torch.uint8 and picture.shape == (3, 2, 2)

    def hexed(y, x):
        return "#" + bytes(picture[:, y, x].tolist()).hex().upper()

    assert hexed(0, 0) == show.COLOURS["hit"]
    assert hexed(0, 1) == show.COLOURS["miss"]
    assert hexed(1, 0) == show.COLOURS["false_alarm"]
    assert hexed(1, 1) == "#969696"  # white, dimmed
    label[0, 0], label[1, 0] = 255, 255  # ignored pixels are neither right nor wrong
    ignored = show.overlay(image.float() / 255, prediction.bool(), label)
    assert ignored[:, 0, 0].tolist() == [0, 0, 0] and ignored[:, 1, 0].tolist() == [150, 150, 150]


def test_overlay_refuses_what_would_mislead():
    image, mask = torch.rand(3, 4, 4), torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r"prediction must be a mask of 0 and 1 and holds 0\.3; threshold"):
        show.overlay(image, mask + 0.3, mask)
    with pytest.raises(ValueError, match="label must be a mask of 0 and 1 and holds 7"):
        show.overlay(image, mask, mask + 7)
    with pytest.raises(ValueError, match="prediction is 4 x 4 pixels and the label 5 x 4"):
        show.overlay(image, mask, torch.zeros(5, 4))
    with pytest.raises(ValueError, match="image is 6 x 4 pixels and the masks are 4 x 4"):
        show.overlay(torch.rand(3, 6, 4), mask, mask)


def test_show_errors_counts_in_its_legend():
    prediction, label = torch.tensor([[1, 0, 1, 1]]), torch.tensor([[1, 1, 0, 255]])
    figure = show.show_errors(torch.rand(3, 1, 4), prediction, label, title="one row")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["hit 1", "missed 1", "false alarm 1"]


def test_scoreboard_draws_each_score_at_its_height_and_skips_the_undefined():
    names = {"Dice": 0.81, "precision": float("nan"), "AUC": 0.975}
    figure = show.scoreboard(torch.rand(3, 4, 6), names, reference=names | {"Dice": 0.79})
    picture, board = figure.axes
    assert len(picture.images) == 1
    widths = [bar.get_width() for bar in board.patches]
    np.testing.assert_array_equal(widths, [0.81, np.nan, 0.975])
    assert [(text.get_text(), text.xy) for text in board.texts] == [(n, (0, i)) for i, n in enumerate(names)]
    (values,) = board.child_axes
    numbers = values.get_yticklabels()
    assert [text.get_text() for text in numbers] == ["81.0", "–", "97.5"]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in board.patches]
    np.testing.assert_allclose(board.lines[0].get_ydata(), middles)  # each mark on the bar of its name
    np.testing.assert_array_equal(board.lines[0].get_xdata(), [0.79, np.nan, 0.975])
    assert board.yaxis_inverted() and board.get_xlim() == (0, 1)  # first name on top, nothing zoomed in on
    assert figure.get_figwidth() * 96 <= 410  # CSS pixels: a phone does not shrink its letters
    figure.canvas.draw()
    assert max(text.get_window_extent().x1 for text in numbers) <= figure.bbox.x1  # no number is cut off
    assert not show.scoreboard(torch.rand(4, 6), names).axes[1].lines


def test_scoreboard_refuses_clearly():
    picture = torch.rand(4, 6)
    for arguments, message in (
        (dict(scores={}), "no scores"),
        (dict(scores={"Dice": 81.0}), r'"Dice" is 81; scores are fractions in \[0, 1\]'),
        (dict(scores={"Dice": 0.8}, reference={"Dice": -0.1}), '"Dice" is -0.1'),
        (dict(scores={"Dice": 0.8}, reference={"IoU": 0.8}), '"Dice" is in only one of scores and reference'),
    ):
        with pytest.raises(ValueError, match=message):
            show.scoreboard(picture, **arguments)


# ---------------------------------------------------------------------------------------------- curves


def test_precision_recall_lines_of_equal_dice_are_right():
    recall = np.linspace(0.1, 1, 20)
    figure = show.precision_recall({"net": (recall, 1 - recall / 2)}, {"second observer": (0.78, 0.8)})
    lines = figure.axes[0].lines
    grey, named = (
        [x for x in lines if x.get_color() == "#C4C4C4"],
        [x for x in lines if x.get_label()[0] != "_"],
    )
    labels = [float(t.get_text().removeprefix("Dice ")) for t in figure.axes[0].texts]
    assert len(grey) == len(labels) > 3
    for line, dice in zip(grey, labels, strict=True):
        r, p = line.get_data()
        np.testing.assert_allclose(2 * p * r / (p + r), dice, rtol=1e-6)
    np.testing.assert_array_equal(named[0].get_data(), (recall, 1 - recall / 2))
    assert named[1].get_label() == "second observer" and tuple(np.ravel(named[1].get_data())) == (0.78, 0.8)
    with pytest.raises(ValueError, match="divide per cents by 100"):
        show.precision_recall({"net": (recall * 100, recall)})
    with pytest.raises(ValueError, match="20 recalls and 3 precisions"):
        show.precision_recall({"net": (recall, recall[:3])})


def test_training_curve_reads_lists_files_and_folders(tmp_path):
    lines = [{"iteration": i, "loss": 1 / (i + 1)} for i in range(5)] + [{"iteration": 4, "dice": 0.7}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for log in (lines, tmp_path, str(tmp_path / "log.jsonl")):
        loss, dice = show.training_curve(log, keys=("loss", "dice")).axes
        assert loss.lines[0].get_ydata().tolist() == [1 / (i + 1) for i in range(5)]
        assert dice.lines[0].get_xydata().tolist() == [[4, 0.7]]
    both = show.training_curve({"seed 0": lines, "seed 1": tmp_path})
    assert [t.get_text() for t in both.axes[0].get_legend().get_texts()] == ["seed 0", "seed 1"]
    with pytest.raises(
        ValueError, match='no line of the log has both "iteration" and "iou"; it holds dice, iter'
    ):
        show.training_curve(lines, keys=("iou",))
    with pytest.raises(FileNotFoundError, match="there is no such log"):
        show.training_curve(tmp_path / "elsewhere.jsonl")
    (tmp_path / "log.jsonl").write_text('{"iteration": 1, "loss": 2}\n{"iter')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: not JSON"):
        show.training_curve(tmp_path)


# --------------------------------------------------------------------------------------------- explore


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


FRAMES = [torch.full((4, 6), k / 4) for k in range(5)]


def decoded(image):
    data = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def test_explore_publishes_one_self_contained_block(monkeypatch):
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    text = show.explore(FRAMES, title="Grey & <even>", slider="step", labels=[0.1, 0.25, "c", "d", 1e-5]).data
    again = show.explore(
        FRAMES, title="Grey & <even>", slider="step", labels=[0.1, 0.25, "c", "d", 1e-5]
    ).data
    assert text == again  # builds are reproducible
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    tags = Tags(text)
    assert not any("id" in attributes for _, attributes in tags.tags)  # so ids cannot collide on a page
    (group,) = [d for d in tags.all("div") if d.get("role") == "group"]
    assert group["aria-label"] == "Grey & <even>"
    (slider,) = tags.all("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "4", "0")
    assert slider["aria-valuetext"] == "0.1" and slider["aria-label"] == "step"
    images = tags.all("img")
    assert ["hidden" in image for image in images] == [False, True, True, True, True]
    assert [image["data-label"] for image in images] == ["0.1", "0.25", "c", "d", "1e-05"]
    assert images[1]["alt"] == "Grey & <even>: step 0.25"
    for k, image in enumerate(images):
        shown = decoded(image)
        assert shown.shape == (240, 360)  # 4 x 6 pixels, as squares of 60
        assert np.abs(shown.astype(int) - round(255 * k / 4)).max() <= 1


def test_explore_takes_figures_bytes_and_functions(monkeypatch):
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    figure, axis = plt.subplots(figsize=(4, 2))
    axis.plot([0, 1])
    png = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(png, "PNG")
    images = Tags(show.explore([figure, png.getvalue(), FRAMES[0]]).data).all("img")
    assert [image["width"] for image in images] == ["384", "30", "360"]
    text = show.explore(lambda t: torch.full((4, 4), float(t)), values=torch.linspace(0, 1, 3)).data
    images = Tags(text).all("img")
    assert [image["data-label"] for image in images] == ["0", "0.5", "1"]
    assert [int(decoded(image).max()) for image in images] == [0, 128, 255]


def test_explore_refuses_clearly(monkeypatch):
    for arguments, message in (
        (dict(frames=[]), "no frames to show"),
        (dict(frames=FRAMES, labels=["a"]), "5 frames and 1 labels"),
        (dict(frames=FRAMES, values=[1]), "values=.* only with a function"),
        (dict(frames=lambda t: None), r"needs values=\[...\]"),
        (dict(frames=lambda t: None, values=[0.5]), r"frame 0 \(0.5\) is None"),
        (dict(frames=[torch.rand(2, 3, 4, 4)]), r"frame 0 \(1\): expected \(3, H, W\)"),
    ):
        with pytest.raises(ValueError, match=message):
            show.explore(**arguments)
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    monkeypatch.setattr(widgets, "PAGE_LIMIT", 20)
    noise = [torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    with pytest.raises(ValueError, match=r'explore\("noise"\): 4 frames make \d+ kB, more than the 20'):
        show.explore(noise, title="noise")
    monkeypatch.setattr(widgets, "PAGE_LIMIT", 100)
    assert len(show.explore(noise).data) <= 100_000  # it fits at a lower quality, so it is published


def test_explore_is_a_live_slider_where_a_kernel_runs(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    monkeypatch.setattr(widgets, "live", lambda: True)
    asked = []

    def frame(value):
        asked.append(value)
        return torch.full((4, 4), value)

    box = show.explore(frame, values=[0.0, 0.5, 1.0], title="Grey", slider="level")
    heading, slider, image = box.children
    assert isinstance(box, ipywidgets.VBox) and "Grey" in heading.value and slider.description == "level"
    assert asked == [0.0]  # the others are computed when they are wanted
    before = image.value
    slider.value = 2
    assert slider.label == "1" and asked == [0.0, 1.0]
    assert image.value != before and np.asarray(Image.open(io.BytesIO(image.value))).min() == 255
    slider.value = 0
    assert image.value == before and asked == [0.0, 1.0]  # and kept


def test_explore_shows_diagrams_as_the_drawings_that_they_are(monkeypatch):
    drawn = [show.diagrams.stamps(count=count) for count in (1, 2, 3)]
    tags = Tags(show.explore(drawn, labels=[1, 2, 3], title="Stamps", slider="stamps").data)
    frames = [d for d in tags.all("div") if d.get("class") == "u2-diagram"]
    assert ["hidden" in frame for frame in frames] == [False, True, True]
    assert [frame["data-label"] for frame in frames] == ["1", "2", "3"]
    assert len(tags.all("svg")) == 3 and tags.all("img") == []
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(widgets, "live", lambda: True)
    _, slider, shown = show.explore(drawn, title="Stamps", slider="stamps").children
    slider.value = 2
    assert drawn[2].svg in shown.value


@pytest.mark.browser
@pytest.mark.parametrize("frames", [FRAMES, [show.diagrams.descent(rate=k / 4) for k in range(1, 6)]])
def test_explore_moves_in_a_browser(monkeypatch, frames):
    """Two equal widgets on one page: keys and mouse move the one that they touch; nothing is requested."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next((p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(p).exists()), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    monkeypatch.setenv("U2LEARN_PUBLISH", "1")
    block = show.explore(frames, labels=list("abcde"), title="Grey", slider="step").data
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 390, "height": 800})
        asked, complaints = [], []
        page.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
        page.on("console", lambda m: complaints.append(m.text))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.set_content(f"<!doctype html><body>{block}{block}</body>")

        state_of = """w => {
            const frames = [...w.querySelector('.u2-frames').children];
            const seen = frames.map(x => getComputedStyle(x).visibility == 'visible');
            return [seen.indexOf(true), seen.filter(x => x).length, w.querySelector('output').textContent,
                    w.querySelector('input').getAttribute('aria-valuetext')];
        }"""

        def state(i):
            return page.locator(".u2-explore").nth(i).evaluate(state_of)

        assert state(0) == state(1) == [0, 1, "a", "a"]
        page.get_by_role("slider", name="step").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert state(0) == [2, 1, "c", "c"] and state(1) == [0, 1, "a", "a"]
        second = page.get_by_role("slider", name="step").nth(1)
        second.scroll_into_view_if_needed()
        box = second.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        assert state(1) == [4, 1, "e", "e"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # fits a phone
        assert asked == [] and complaints == []
        browser.close()


@pytest.mark.parametrize(
    "titles", [["vessels"], ["first observer, the one who counts", "ÅÄ"], ["many words " * 9, "b"]]
)
def test_no_title_is_cut_off(titles):
    """A slider saves a frame as it is laid out, so all of a title has to be in it."""
    images = [torch.zeros(40, 50)] * len(titles)
    for figure in (show.image_row(images, titles), show.kernel_picture([x[:3, :3] for x in images], titles)):
        pixels = np.asarray(widgets.rendered(figure, ""))
        dark = (pixels.min(2) < 140).sum(1)  # pixels in each row
        assert dark[0] == 0 and dark[:60].sum() > 0


def test_a_training_is_watched_picture_by_picture(monkeypatch):
    monkeypatch.setattr(widgets, "live", lambda: True)
    pytest.importorskip("ipywidgets")
    drawn = []
    monkeypatch.setattr(watching, "figure_of", lambda *a, **k: drawn.append(figure_of(*a, **k)) or drawn[-1])
    at, loss = [0, 20, 100], ([0, 20, 60, 100], [0.7, 0.4, 0.3, 0.2])
    curves = {"training": loss, "validation": (loss[0], [0.7, 0.45, 0.4, 0.5])}
    pictures = [torch.full((4, 6), k / 2) for k in range(3)]
    _, slider, _ = show.watch(pictures, at, curves, "Watch it learn").children
    assert [label for label, _ in slider.options] == ["0", "20", "100"]
    slider.value = 2
    assert len(drawn) == 2  # the first, and the one that was asked for
    picture, axis = drawn[1][0].axes
    assert picture.images[0].get_array().max() == 1
    assert [line.get_label() for line in axis.lines[:2]] == list(curves)
    np.testing.assert_array_equal(axis.lines[1].get_data(), curves["validation"])
    assert list(axis.lines[2].get_xdata()) == [100, 100]
    with pytest.raises(ValueError, match="3 pictures and 2 iterations; each needs one"):
        show.watch([torch.zeros(4, 4)] * 3, [0, 1], curves)


@pytest.mark.browser
def test_the_calculator_of_fields_counts_in_the_page(tmp_path):
    if not chromium():
        pytest.skip("no Chromium on this machine")
    text = show.field_calculator(layers=2, kernel=3, dilation=2).data
    assert "id=" not in text and "http" not in text
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{text}", encoding="utf-8")
    with browser() as chrome:
        page = chrome.new_page(viewport={"width": 390, "height": 800})
        page.goto((tmp_path / "page.html").as_uri())
        out = page.locator("output")
        words = "One output sees {0} × {0} pixels. Neighbouring outputs are {1} pixel"
        assert out.text_content() == words.format(9, 1) + " apart."
        names = ("layers", "kernel", "stride", "dilation")
        for settings in ((4, 3, 1, 1), (3, 3, 2, 1), (2, 5, 3, 4), (1, 1, 1, 1), (3, 2, 2, 1)):
            layers, kernel, stride, dilation = settings
            for name, value in zip(names, settings, strict=True):
                page.locator(f"input[name={name}]").fill(str(value))
            x = torch.ones(1, 1, 200, requires_grad=True)
            y = x
            for _ in range(layers):
                y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride, dilation=dilation)
            y[0, 0, 0].backward()
            seen = int(x.grad[0, 0].nonzero().max()) + 1
            assert out.text_content().startswith(words.format(seen, stride**layers))
        page.locator("input").first.press("ArrowRight")
        assert page.locator("b").first.text_content() == "4"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["of its own", "forked"])
def test_a_notebook_shows_each_thing_once_and_sharp(kernel, kernels):
    """In a real kernel: figures as one SVG, sliders as widgets, and as HTML while the book is published."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    if kernel == "forked":  # as those of the site are
        pytest.importorskip("tools.kernels").fork_kernels()
    cells = [
        "import os, torch\nfrom u2learn import show, unet_small\nframes = [torch.rand(4, 4)] * 3",
        "show.draw(unet_small(width=2, depth=2))",
        "import matplotlib.pyplot as plt\n_ = plt.plot([0, 1])",
        "figures = [plt.figure() for _ in range(3)]\nshow.explore(figures)",
        "os.environ['U2LEARN_PUBLISH'] = '1'\nshow.explore(frames)",
        "show.source(show.source)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    resources = {"metadata": {"path": str(Path(__file__).parents[1])}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [[sorted(output.data) for output in cell.outputs] for cell in notebook.cells]
    assert outputs == [
        [],
        [["image/svg+xml", "text/plain"]],
        [["image/svg+xml", "text/plain"]],
        [["application/vnd.jupyter.widget-view+json", "text/plain"]],
        [["text/html", "text/plain"]],
        [["text/markdown", "text/plain"]],
    ]
    assert "<dc:date>" not in notebook.cells[1].outputs[0].data["image/svg+xml"]


# ------------------------------------------------------------------------------------------------ draw


class Residual(nn.Module):
    """A small U with a stem, plus the stem: the form of an RSU."""

    def __init__(self, a, m, b, depth):
        super().__init__()
        self.stem = ConvBlock(a, b)
        inner = ConvBlock(m, m, dilation=2)
        for i in reversed(range(depth)):
            inner = ULevel(
                ConvBlock(m if i else b, m),
                inner,
                ConvBlock(2 * m, m if i else b),
                nn.Identity() if i == 2 else None,
            )
        self.body = inner

    def forward(self, x):
        x = self.stem(x)
        return x + self.body(x)[0]


class Nested(nn.Module):
    """U's as encoders and decoders, side outputs, one that joins them: the form of a U²-Net."""

    def __init__(self):
        super().__init__()
        inner = ULevel(Residual(6, 2, 8, 2), Residual(8, 2, 8, 2), Residual(16, 2, 6, 2))
        self.body = ULevel(Residual(3, 2, 6, 3), inner, Residual(12, 2, 4, 3))
        self.sides = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in (4, 6, 8))
        self.fuse = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        maps = [side(m) for side, m in zip(self.sides, self.body(x), strict=True)]
        maps = [F.interpolate(m, x.shape[-2:]) for m in maps]
        return [self.fuse(torch.cat(maps, 1)), *maps]


def ladders(model):
    """The outermost U's, each as its ULevels from the finest down: another walk than the drawing's."""
    below = {m for u in model.modules() if isinstance(u, ULevel) for m in u.modules() if m is not u}
    found = []
    for module in model.modules():
        if isinstance(module, ULevel) and module not in below:
            found.append([])
            while isinstance(module, ULevel):
                found[-1].append(module)
                module = module.inner
    return found


def really(model, *size):
    """(channels, (H, W)) of encode, join, decode and bottom, from real numbers on the CPU and other hooks."""
    seen, hooks = {}, []
    levels = [level for ladder in ladders(model) for level in ladder]
    for level in levels:
        for block in (level.encode, level.join, level.decode, level.inner):
            hooks.append(block.register_forward_hook(lambda m, _, y: seen.__setitem__(m, y)))
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        model.train()(torch.rand(2, channels, *size))
    for hook in hooks:
        hook.remove()

    def of(block):
        return seen[block].shape[1], tuple(seen[block].shape[-2:])

    return [
        (of(m.encode), of(m.join), of(m.decode), None if m.inner in levels else of(m.inner)) for m in levels
    ]


MODELS = {
    "small": (lambda: unet_small(), (37, 50)),
    "s5": (lambda: unet_s5_d16(), (37, 50)),
    "2015": (lambda: unet_2015(), (188, 188)),
    "wnet": (lambda: wnet_small(), (20, 21)),
    "deep": (lambda: unet_small(width=2, depth=7), (64, 65)),
    "body": (lambda: unet_small().body, (32, 32)),
    "residual": (lambda: Residual(3, 4, 8, 3), (40, 40)),
    "nested": (Nested, (40, 40)),
}


@pytest.fixture(params=MODELS)
def model_and_size(request):
    make, size = MODELS[request.param]
    torch.manual_seed(0)
    return make(), size


def test_draw_measures_what_a_real_pass_gives(model_and_size):
    model, size = model_and_size
    measured = []
    for u in measure(model, size).us:
        for level in u.levels:
            boxes = [level.encode, level.join, level.decode, u.bottom if level is u.levels[-1] else None]
            measured.append(tuple(box and (box.channels, box.size) for box in boxes))
    assert measured == really(model, *size)


@pytest.mark.parametrize("name", ["small", "nested"])
def test_draw_leaves_the_model_as_it_was(name):
    make, size = MODELS[name]
    model = make().eval()
    next(model.children()).train()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    show.draw(model, size)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) and v.device.type == "cpu" for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def boxes_of(figure):
    from matplotlib.patches import FancyBboxPatch

    return [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch) and p.get_linewidth() > 0]


@pytest.mark.parametrize(("name", "heads"), [("small", ["2"]), ("s5", ["2", "2"])])
def test_draw_has_a_box_for_each_block_with_its_channels(name, heads):
    make, size = MODELS[name]
    model = make()
    figure, truth = show.draw(model, size), really(model, *size)
    assert len(boxes_of(figure)) == 2 * len(truth) + 1 + len(heads)
    texts = [t.get_text() for t in figure.axes[0].texts]
    numbers = sorted(t for t in texts if t.isdigit() and t != "1")  # 1 is the finest scale
    blocks = [block for encode, _, decode, bottom in truth for block in (encode, decode, bottom) if block]
    assert numbers == sorted([str(channels) for channels, _ in blocks] + heads)
    joins = [f"{join[0] - encode[0]} + {encode[0]}" for encode, join, *_ in truth]
    assert sorted(t for t in texts if " + " in t and len(t) < 12) == sorted(joins)
    scales = ["1"] + [f"1/{2**i}" for i in range(1, len(truth) + 1)]
    assert [t for t in texts if t == "1" or t.startswith("1/")] == scales
    assert (
        ("auxiliary" in texts)
        == any("only while training" in t.replace("\n", " ") for t in texts)
        == (name == "s5")
    )


def test_draw_makes_a_block_wider_with_its_channels():
    """Five stages of 64, 128, ... 1024 channels: each doubling is worth 0.072 inches."""
    widths = sorted({round(box.get_width(), 4) for box in boxes_of(show.draw(unet_s5_d16(), (584, 565)))})
    assert len(widths) == 6  # and the heads, with two channels
    assert np.diff(widths[1:]) == pytest.approx([0.072] * 4, rel=0.02)
    assert widths[1] == pytest.approx(0.18 + 0.072 * 6, abs=0.01)


@pytest.mark.parametrize("published", [True, False])
def test_curves_follow_a_run_and_a_page_shows_their_end(tmp_path, monkeypatch, published):
    """A page keeps what a cell displays first, and no later state of it."""
    shown, updated = [], []

    class Handle:
        def update(self, figure):
            updated.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setenv("U2LEARN_PUBLISH", "1" if published else "0")
    log = tmp_path / "log.jsonl"
    with show.following(tmp_path, "dice", reported=0.8, every=0.02):
        log.write_text(json.dumps({"iteration": 10, "loss": 0.9, "dice": 0.3}) + "\n")
        deadline = time.monotonic() + (0.5 if published else 20)
        while not updated and time.monotonic() < deadline:
            time.sleep(0.02)
        with log.open("a") as file:
            file.write(json.dumps({"iteration": 20, "loss": 0.5, "dice": 0.6}) + "\n")
    assert len(shown) == 1 and bool(updated) is not published
    loss, score = (axis.lines for axis in (shown if published else updated)[-1].axes)
    assert loss[0].get_ydata().tolist() == [0.9, 0.5]
    assert score[0].get_ydata().tolist() == [0.3, 0.6] and score[1].get_ydata()[0] == 0.8


def test_draw_shows_how_the_parts_of_other_models_hang_together():
    wnet = measure(wnet_small(), (32, 32))
    assert len(wnet.us) == 2 and [(h.u, h.level) for h in wnet.heads] == [(0, 0), (1, 0)]
    assert [u.channels for u in wnet.us] == [3, 5]  # the second sees the image and two logit maps
    residual = measure(Residual(3, 4, 8, 3), (32, 32))
    assert residual.us[0].residual and residual.us[0].stem.channels == 8 and not residual.heads
    assert residual.us[0].bottom.dilation == 2 and residual.us[0].levels[0].encode.dilation == 1
    nested = measure(Nested(), (32, 32))
    assert [(h.name, h.level) for h in nested.heads] == [
        ("sides 0", 0),
        ("sides 1", 1),
        ("sides 2", 2),
        ("fuse", None),
    ]
    assert [len(level.encode.inside[0].levels) for level in nested.us[0].levels] == [3, 2]
    assert not nested.us[0].residual and nested.us[0].levels[0].encode.inside[0].residual
    assert [h.training_only for h in measure(unet_s5_d16(), (32, 32)).heads] == [False, True]


def test_draw_counts_every_parameter_once():
    model = unet_s5_d16()
    diagram = measure(model, (32, 32))
    boxes = [
        box for u in diagram.us for level in u.levels for box in (level.encode, level.join, level.decode)
    ]
    boxes += [u.bottom for u in diagram.us] + [head.box for head in diagram.heads]
    assert sum(box.parameters for box in boxes) == sum(p.numel() for p in model.parameters())
    texts = " ".join(t.get_text() for t in show.draw(model, (32, 32), parameters=True).axes[0].texts)
    assert "29,060,676" in texts and "14 M" in texts


def test_draw_lets_no_texts_overlap(model_and_size):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    model, size = model_and_size
    figure = show.draw(model, size, title="A title", parameters=True)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axis = figure.axes[0]
    texts = [t for t in axis.texts if t.get_text()]
    extents = [t.get_window_extent(renderer) for t in texts]
    for (a, ea), (b, eb) in itertools.combinations(zip(texts, extents, strict=True), 2):
        assert not ea.overlaps(eb), f"{a.get_text()!r} over {b.get_text()!r}"
    page = figure.bbox
    for text, extent in zip(texts, extents, strict=True):
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text.get_text()
        assert page.y0 <= extent.y0 and extent.y1 <= page.y1, text.get_text()
    for patch in boxes_of(figure):  # what stands in a box stays in it
        frame = patch.get_window_extent(renderer)
        for text, extent in zip(texts, extents, strict=True):
            if frame.contains((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2):
                assert frame.x0 <= extent.x0 and extent.x1 <= frame.x1, text.get_text()
    assert figure.get_figwidth() < 8.5


def test_draw_is_the_same_file_each_time():
    files = []
    for _ in range(2):
        buffer = io.BytesIO()
        show.draw(unet_small()).savefig(buffer, format="svg", metadata={"Date": None})
        files.append(buffer.getvalue())
    assert files[0] == files[1] and len(files[0]) < 80_000


def test_draw_refuses_clearly():
    with pytest.raises(ValueError, match="Sequential has none"):
        show.draw(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match="takes sides of 188"):
        show.draw(unet_2015())


# ------------------------------------------------------------------------------------------------ classes


def test_classes_have_their_own_colours_and_ignored_is_black():
    label = np.array([[0, 13, 255], [10, 11, 0]], np.uint8)
    picture = show.class_colours(label)
    assert picture.shape == (3, 2, 3) and picture.dtype == torch.uint8
    due = {0: (128, 64, 128), 13: (0, 0, 142), 255: (0, 0, 0), 10: (70, 130, 180), 11: (220, 20, 60)}
    for (row, column), value in np.ndenumerate(label):
        assert tuple(picture[:, row, column].tolist()) == due[int(value)]
    assert torch.equal(show.class_colours(torch.from_numpy(label).long()), picture)
    two = show.class_colours(np.array([[0, 1]]), [(1, 2, 3), (4, 5, 6)])
    assert two[:, 0].T.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.array([[0, 19]]), "the label has the id 19"),
        (np.array([[0, -1]]), "the id -1"),
        (np.zeros((3, 4, 4), np.uint8), r"the shape \(4, 4, 3\)"),
    ],
)
def test_labels_without_a_colour_are_refused(label, words):
    with pytest.raises(ValueError, match=words):
        show.class_colours(label)


def legend_of(figure):
    legend = figure.axes[0].get_legend()
    colours = [tuple(round(255 * c) for c in patch.get_facecolor()[:3]) for patch in legend.get_patches()]
    return dict(zip([text.get_text() for text in legend.get_texts()], colours, strict=True))


def test_the_legend_names_what_is_there():
    every = legend_of(show.class_legend())
    assert len(every) == 20 and every["car"] == (0, 0, 142) and every["ignored"] == (0, 0, 0)
    some = legend_of(show.class_legend(np.array([[13, 0], [0, 10]])))
    assert some == {name: every[name] for name in ("road", "sky", "car")}
    assert "ignored" in legend_of(show.class_legend(np.array([[255, 1]])))
    with pytest.raises(ValueError, match="2 names and 1 colours"):
        show.class_legend(names=["a", "b"], colours=[(0, 0, 0)])


def test_the_table_of_classes_has_a_dash_for_what_is_absent():
    scores = {
        "plain": {"iou_per_class": [0.5, float("nan"), 0.25], "dice_per_class": [0.6, 0.1, 0.2]},
        "flipped": {"iou_per_class": [0.75, 0.0, 0.3], "dice_per_class": [0.7, 0.1, 0.2]},
    }
    lines = show.class_table(scores, ["road", "car", "sky"]).splitlines()
    assert lines[0] == "| class | plain | flipped |"
    assert lines[2:] == [
        "| road | 50.0 | 75.0 |",
        "| car | – | 0.0 |",
        "| sky | 25.0 | 30.0 |",
        "| **mean** | **37.5** | **35.0** |",  # the dash is left out of its mean, the zero is not
    ]
    assert "60.0" in show.class_table(scores, ["road", "car", "sky"], key="dice_per_class")
    scores["plain"]["iou_per_class"][1] = None  # as a record has it
    assert show.class_table(scores, ["road", "car", "sky"]).splitlines() == lines
    for wrong in (scores, {}):
        with pytest.raises(ValueError, match="class_table got 2 names"):
            show.class_table(wrong, ["road", "car"])


def test_the_confusion_picture_counts_row_by_row():
    counts = torch.tensor([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    axis = show.confusion_picture(counts, ["road", "car", "sky"], title="who").axes[0]
    drawn = {tuple(map(round, text.get_position()))[::-1]: text.get_text() for text in axis.texts}
    assert drawn == {(0, 0): "80", (0, 1): "20", (2, 0): "25", (2, 2): "75"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["road", "car", "sky"]
    assert axis.get_xlabel() == "predicted as" and axis.get_title() == "who"
    empty = axis.get_images()[0].get_array()[1]
    assert np.isnan(np.ma.filled(empty, np.nan)).all()
    with pytest.raises(ValueError, match=r"shape \(3, 3\) do not fit 19 names"):
        show.confusion_picture(counts)


# ------------------------------------------------------------------------------------------- corrections


def drawn_pair():
    """An object with a thin arm, and a prediction with a hole, an island, a bump and without the arm."""
    y, x = np.mgrid[:90, :130]
    body = np.hypot(y - 45, x - 45) <= 30
    mask = body | ((abs(y - 45) < 2) & (x > 70) & (x < 120))
    bump = (y > 60) & (y < 85) & (x > 50) & (x < 90)
    pred = (body & (np.hypot(y - 35, x - 35) > 9)) | (np.hypot(y - 18, x - 105) <= 12) | bump
    return pred, mask


def test_hce_steps_show_what_is_counted():
    pred, mask = drawn_pair()
    steps = corrections(pred, mask)
    figure = show.hce_steps(torch.from_numpy(0.4 + 0.2 * pred)[None], mask)
    pictures = [shown.get_array() for shown in panels(figure)]
    titles = " ".join(axis.get_title() for axis in figure.axes).replace("\n", " ")
    counts = (pred & ~mask).sum(), (mask & ~pred).sum(), steps.remove.region.sum(), steps.fill.region.sum()
    assert f"{counts[0]:,} false alarms and {counts[1]:,} missed" in titles
    assert f"worth mending: {counts[2]:,} and {counts[3]:,} pixels" in titles
    assert f"HCE = {steps.total} clicks: {steps.remove.cost} to remove, {steps.fill.cost} to fill" in titles

    def of(picture, role):
        return (picture == tuple(bytes.fromhex(show.COLOURS[role][1:]))).all(-1)

    assert np.array_equal(of(pictures[0], "false_alarm"), pred & ~mask)
    assert np.array_equal(of(pictures[0], "miss"), mask & ~pred)
    assert np.array_equal(of(pictures[1], "miss"), mask & ~pred & steps.core)
    for picture in pictures[2:]:
        assert np.array_equal(of(picture, "false_alarm"), steps.remove.region)
        assert np.array_equal(of(picture, "miss"), steps.fill.region)


def test_hce_steps_mark_every_click():
    pred, mask = drawn_pair()
    steps = corrections(pred, mask)
    lines = show.hce_steps(pred, mask).axes[3].get_lines()
    crosses = [line.get_xydata()[0].astype(int) for line in lines if line.get_marker() == "X"]
    dots = [line.get_xydata() for line in lines if line.get_marker() == "o"]
    assert len(crosses) + sum(map(len, dots)) == steps.total
    for got, due in zip(dots, [*steps.remove.polygons, *steps.fill.polygons], strict=True):
        assert np.array_equal(got, due)
    assert len(crosses) == 2 and all((steps.remove.islands | steps.fill.islands)[y, x] for x, y in crosses)
    tall = show.hce_steps(np.tile(pred.T, (2, 1)), np.tile(mask.T, (2, 1)))
    assert len({axis.get_subplotspec().rowspan.start for axis in tall.axes}) == 1  # four in a row
    corner = np.zeros((40, 60), bool)
    corner[5:15, 40:50] = corner[15:25, 50:58] = True  # two squares that touch at a corner are one island
    touching = show.hce_steps(corner, np.zeros_like(corner), relax=0)
    assert [line.get_marker() for line in touching.axes[3].get_lines()] == ["X"]
    perfect = show.hce_steps(mask, mask)
    assert "HCE = 0" in perfect.axes[3].get_title() and not perfect.axes[3].get_lines()
    for values, words in (((pred * 255, mask), "divide 8-bit"), ((pred, mask * 255), "mask > 127")):
        with pytest.raises(ValueError, match=words):
            show.hce_steps(*values)


# --------------------------------------------------------------------------------------- several processes


@pytest.mark.parametrize(("windows", "processes"), [(8, 2), (9, 3), (12, 4)])
def test_a_shared_step_shows_every_window_twice(windows, processes):
    """In the batch, and with the process that takes it, in its colour."""
    (axis,) = show.shared_step(windows, processes).axes
    numbers = [text for text in axis.texts if text.get_text().isdigit()]
    assert sorted(int(text.get_text()) for text in numbers) == sorted([*range(windows)] * 2)
    rows = {}
    for text in numbers:
        rows.setdefault(round(text.get_position()[1], 3), []).append(int(text.get_text()))
    batch, shares = (rows[y] for y in sorted(rows, reverse=True))
    assert batch == list(range(windows))
    assert shares == [i for first in range(processes) for i in range(windows)[first::processes]]
    colours = {}
    for text in numbers:
        boxes = [box for box in axis.patches if box.get_path().contains_point(text.get_position())]
        colours.setdefault(int(text.get_text()) % processes, set()).update(b.get_edgecolor() for b in boxes)
    assert [len(found) for found in colours.values()] == [1] * processes
    assert len(set.union(*colours.values())) == processes


@pytest.mark.parametrize(("windows", "processes"), [(8, 3), (8, 1), (10, 5)])
def test_steps_that_are_not_shared_are_not_drawn(windows, processes):
    with pytest.raises(ValueError, match="share the windows evenly"):
        show.shared_step(windows, processes)
