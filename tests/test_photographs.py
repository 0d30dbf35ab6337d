"""The real photographs that ship: these and no others, as they came, with their labels and their licence."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import u2learn
from u2learn import data, show
from u2learn.data import local, photographs, retina
from u2learn.data.catalogue import DATASETS

plt = pytest.importorskip("matplotlib.pyplot")
PACKAGE = Path(u2learn.__file__).parent
CATALOGUE = json.loads((photographs.HOME / "photographs.json").read_text(encoding="utf-8"))
NAMES = list(CATALOGUE)


def test_only_these_pictures_ship_and_none_was_changed():
    listed = {file: digest for entry in CATALOGUE.values() for file, digest in entry["sha256"].items()}
    kinds = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".ppm", ".bmp", ".npy", ".npz")
    pictures = [path for path in PACKAGE.rglob("*") if path.suffix.lower() in kinds]
    assert sorted(path.name for path in pictures) == sorted(listed)
    for path in pictures:
        assert path.parent == photographs.HOME
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[path.name]
    others = {path.name for path in photographs.HOME.iterdir()} - set(listed)
    assert others == {"README.md", "photographs.json"}
    assert sum(path.stat().st_size for path in photographs.HOME.iterdir()) < 300_000


def test_source_and_licence_lie_beside_them():
    words = (photographs.HOME / "README.md").read_text(encoding="utf-8")
    licence = "https://creativecommons.org/licenses/by/4.0/"
    for due in (DATASETS["chase"].home, "Kingston University London", licence, "Changed:"):
        assert due in words
    assert DATASETS["chase"].terms == "CC BY 4.0"


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_an_example_with_its_credit(name):
    picture = data.photograph(name)
    _, _, height, width = CATALOGUE[name]["box"]
    assert picture.image.shape == (3, height, width)
    assert picture.label.shape == picture.second.shape == (height, width)
    for mask in (picture.label, picture.second):
        assert set(np.unique(mask)) == {0, 1} and 0.005 < mask.mean() < 0.35
    both = 2 * (picture.label & picture.second).sum() / (picture.label.sum() + picture.second.sum())
    assert 0.6 < both < 0.95  # two observers of one eye
    green = picture.image[1].astype(float)
    assert (
        green[picture.label == 1].mean() < green[(picture.label == 0) & (green > 20)].mean()
    )  # vessels are dark
    assert (picture.field is not None) == (name == "eye")
    eye = CATALOGUE[name]["eye"]
    assert f"CHASE_DB1, image {eye}" in picture.credit and picture.credit.endswith(
        "Kingston University London, CC BY 4.0"
    )


def test_all_are_training_images():
    for entry in CATALOGUE.values():
        for protocol in ("mmseg", "paddleseg", "lwnet"):
            assert int(entry["eye"][:2]) in retina.TRAINING[protocol]["chase"]


def test_another_name_is_refused():
    with pytest.raises(
        ValueError, match="no photograph 'nose'; there are eye, disc, crossing, reflex, faint"
    ):
        data.photograph("nose")


@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_kingston_hands_out(name):
    try:
        folder = local.find("chase")
    except FileNotFoundError:
        pytest.skip("CHASE_DB1 is not here")
    top, left, height, width = CATALOGUE[name]["box"]
    picture, eye = data.photograph(name), CATALOGUE[name]["eye"]

    def original(ending: str) -> np.ndarray:
        return np.asarray(Image.open(folder / f"Image_{eye}{ending}"))[
            top : top + height, left : left + width
        ]

    assert np.array_equal(picture.label, original("_1stHO.png"))
    assert np.array_equal(picture.second, original("_2ndHO.png"))
    error = picture.image.transpose(1, 2, 0).astype(float) - original(".jpg")
    assert 10 * np.log10(255**2 / (error**2).mean()) > 36  # decibels: no eye sees it


@pytest.mark.parametrize("draw", ["row", "errors"])
def test_the_credit_stands_below_the_picture(draw):
    picture = data.photograph("disc")
    if draw == "row":
        figure = show.image_row([picture.image, picture.label], ["disc", "vessels"], credit=picture.credit)
    else:
        figure = show.show_errors(picture.image, picture.second, picture.label, credit=picture.credit)
    for _ in range(2):  # the first lays out, the second draws in these places
        figure.canvas.draw()
    written = [t for t in figure.findobj(plt.Text) if "Kingston" in t.get_text()]
    assert [" ".join(t.get_text().split()) for t in written] == [picture.credit]
    box, sheet = written[0].get_window_extent(), figure.bbox
    assert box.x0 >= 0 and box.x1 <= sheet.width and box.y0 >= 0
    for axis in figure.axes:
        assert box.y1 <= axis.get_window_extent().y0 + 1
    for other in figure.findobj(plt.Text):
        if other.get_text() and other is not written[0]:
            assert not box.overlaps(other.get_window_extent())
