"""One image with its labels: what `Example` refuses, what the readers cope with, what the linter sees."""

import gzip
import re

import numpy as np
import pytest
from PIL import Image

from u2learn.data.example import Example, read_image, read_label, read_mask
from u2learn.data.linter import lint

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 9, 3), np.uint8)  # (H, W, 3)
MASK = (RNG.random((12, 9)) < 0.3).astype(np.uint8)  # (H, W)


def example(**changes):
    arrays = {"image": PHOTO.transpose(2, 0, 1), "label": MASK, "field": MASK > 0, "second": MASK}
    return Example("eye7", **(arrays | changes))


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


# Example


def test_a_good_example_is_accepted_and_frozen():
    good = example(label=np.where(MASK, MASK, 255).astype(np.uint8))
    with pytest.raises(AttributeError):
        good.name = "other"
    assert example(field=None, second=None).second is None


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"image": PHOTO}, r"eye7: image has the shape \(12, 9, 3\).*transpose\(2, 0, 1\)"),
        ({"image": PHOTO[..., 0]}, "eye7: image must be a NumPy array of uint8 with 3 axes"),
        ({"image": PHOTO.transpose(2, 0, 1) / 255}, r"NumPy array of uint8 .* not float64 \(3, 12, 9\)"),
        ({"image": None}, "image must be a NumPy array .* not NoneType"),
        ({"label": MASK[:, :-1]}, "eye7: the label is 12 x 8, the image 12 x 9"),
        (
            {"label": MASK * 255},
            "eye7: the label has values 0, 255: this looks like a 0/255 mask; read it with",
        ),
        ({"label": MASK + np.uint8(1)}, "the label has values 1, 2: with 2 classes the ids are 0 to 1"),
        ({"label": MASK.astype(np.int64)}, "label must be a NumPy array of uint8"),
        ({"label": MASK[None]}, "label must be a NumPy array of uint8 with 2 axes"),
        ({"second": MASK[:-1]}, "the second is 11 x 9"),
        ({"second": MASK * 255}, "the second has values 0, 255"),
        ({"field": MASK}, "field must be a NumPy array of bool"),
        ({"field": MASK[1:] > 0}, "the field is 11 x 9"),
        ({"field": MASK > 9}, "eye7: the field of view is empty"),
    ],
)
def test_an_example_refuses_what_does_not_fit_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        example(**changes)
    assert "\n" not in str(error.value) and str(error.value).startswith("eye7: ")


def test_more_classes_allow_more_ids_and_a_map_of_background_and_ignore():
    assert example(label=MASK * 3, num_classes=4).num_classes == 4
    example(label=MASK * 255, num_classes=4)
    with pytest.raises(ValueError, match="has values 0, 4: with 4 classes"):
        example(label=MASK * 4, num_classes=4)


# Images


def test_an_rgb_image_comes_as_it_is(tmp_path):
    image = read_image(save(tmp_path / "a.png", PHOTO))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, PHOTO.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_images_get_three_equal_channels(tmp_path, mode):
    grey = MASK * 255
    picture = Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3))


def test_a_palette_gives_its_colours_not_its_indices(tmp_path):
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.gif")
    expected = np.where(MASK, np.reshape([200, 100, 50], (3, 1, 1)), np.reshape([10, 20, 30], (3, 1, 1)))
    assert np.array_equal(read_image(tmp_path / "a.gif"), expected)


def test_what_is_transparent_is_black(tmp_path):
    rgba = np.concatenate([PHOTO, 255 * MASK[..., None]], -1)
    expected = (PHOTO * MASK[..., None]).transpose(2, 0, 1)
    assert np.array_equal(read_image(save(tmp_path / "a.png", rgba)), expected)


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 12 * 9).reshape(12, 9).astype(np.uint16)
    image = read_image(save(tmp_path / "a.png", deep))
    assert np.abs(image[0] - deep / 257.0).max() <= 0.5 and np.array_equal(image[0], image[2])


def test_32_bits_and_stacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tif has 32 bits a pixel"):
        read_image(save(tmp_path / "a.tif", RNG.random((4, 4), np.float32)))
    Image.fromarray(PHOTO).save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(PHOTO)] * 2)
    with pytest.raises(ValueError, match=r"b\.tif holds 3 images"):
        read_image(tmp_path / "b.tif")


def test_the_camera_s_rotation_is_carried_out(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    save(tmp_path / "a.png", PHOTO, exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(PHOTO, -1).transpose(2, 0, 1))


def test_gzip_is_unpacked_on_the_fly(tmp_path):
    save(tmp_path / "a.ppm", PHOTO)
    (tmp_path / "b.ppm.gz").write_bytes(gzip.compress((tmp_path / "a.ppm").read_bytes()))
    assert np.array_equal(read_image(tmp_path / "b.ppm.gz"), read_image(tmp_path / "a.ppm"))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "ppm", "ppm.gz", "gif"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused_in_one_sentence(tmp_path, ending, share):
    save(tmp_path / f"whole.{ending.removesuffix('.gz')}", RNG.integers(0, 256, (64, 64, 3), np.uint8))
    data = (tmp_path / f"whole.{ending.removesuffix('.gz')}").read_bytes()
    data = gzip.compress(data) if ending.endswith("gz") else data
    (tmp_path / f"cut.{ending}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ValueError, match=rf"cut\.{re.escape(ending)} cannot be read as an image; it is damaged"
    ):
        read_image(tmp_path / f"cut.{ending}")


def test_no_image_and_no_file(tmp_path):
    (tmp_path / "page.png").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("page.png", "empty.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png")


# Masks


def drive_palette():
    """As DRIVE stores its second observer: indices 0 and 1 that look like 4 and 252."""
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([4, 2, 4, 252, 254, 252])
    return picture


def voc_palette():
    """As PASCAL VOC stores classes: index 1 is a dark red."""
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


STORED = {
    "0/1": lambda: Image.fromarray(MASK),
    "0/255": lambda: Image.fromarray(MASK * 255),
    "one bit": lambda: Image.fromarray(MASK * 255).convert("1"),
    "rgb": lambda: Image.fromarray(np.stack([MASK * 255] * 3, -1)),
    "rgba": lambda: Image.fromarray(np.stack([MASK * 255] * 3 + [np.full_like(MASK, 255)], -1)),
    "white on transparent": lambda: Image.fromarray(np.stack([MASK * 0 + 255] * 3 + [MASK * 255], -1)),
    "red": lambda: Image.fromarray(np.stack([MASK * 255, MASK * 0, MASK * 0], -1)),
    "drive": drive_palette,
    "voc": voc_palette,
    "16 bits": lambda: Image.fromarray(MASK.astype(np.uint16) * 65535),
    "16 bits 0/1": lambda: Image.fromarray(MASK.astype(np.uint16)),
}


@pytest.mark.parametrize("how", STORED)
def test_a_mask_is_0_and_1_however_it_is_stored(tmp_path, how):
    STORED[how]().save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8 and np.array_equal(mask, MASK)


def test_more_than_two_values_are_cut_at_128_as_openmmlab_does(tmp_path):
    soft = np.where(MASK, RNG.integers(224, 256, MASK.shape), RNG.integers(0, 32, MASK.shape)).astype(
        np.uint8
    )
    soft[0, :4] = [127, 128, 127, 128]
    assert np.array_equal(read_mask(save(tmp_path / "m.png", soft)), soft // 128)


def test_a_jpeg_mask_comes_back(tmp_path):
    big = np.zeros((64, 64), np.uint8)
    big[10:40, 20:50] = 255
    mask = read_mask(save(tmp_path / "m.jpg", big, quality=70))
    assert (mask != big // 255).mean() < 0.01


@pytest.mark.parametrize("value, expected", [(0, 0), (1, 1), (3, 0), (255, 1), (252, 1)])
def test_a_mask_of_one_value_is_empty_or_full(tmp_path, value, expected):
    mask = read_mask(save(tmp_path / "m.png", np.full((5, 4), value, np.uint8)))
    assert (mask == expected).all()


@pytest.mark.parametrize(
    "array, sentence",
    [
        (PHOTO, "neither dark nor bright"),
        (np.array([[0, 1, 2]], np.uint8), r"grey values 0, 1, 2\. .*use read_label"),
        (np.array([[200, 255]], np.uint8), "grey values 200, 255"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, sentence):
    with pytest.raises(ValueError, match=r"m\.png is no binary mask: .*" + sentence):
        read_mask(save(tmp_path / "m.png", array))


def test_label_maps_keep_their_ids(tmp_path):
    ids = RNG.integers(0, 5, (7, 6)).astype(np.uint8)
    ids[0, 0] = 255
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    palette.save(tmp_path / "p.png")
    files = [
        save(tmp_path / "l.png", ids),
        save(tmp_path / "rgb.png", np.stack([ids] * 3, -1)),
        tmp_path / "p.png",
    ]
    for path in files:
        assert np.array_equal(read_label(path, 5), ids), path
    with pytest.raises(
        ValueError, match=r"l\.png has values 0, 1, 2, 3, 4, 255: with 4 classes the ids are 0 to 3"
    ):
        read_label(tmp_path / "l.png", 4)
    with pytest.raises(ValueError, match="is in colour"):
        read_label(save(tmp_path / "c.png", PHOTO), 5)
    assert np.array_equal(read_label(save(tmp_path / "m.png", MASK * 255)), MASK)


# The linter


@pytest.fixture
def folders(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for i in range(4):
        rng = np.random.default_rng(i)
        save(images / f"eye{i}.png", rng.integers(0, 256, (16, 12, 3), np.uint8))
        save(masks / f"eye{i}_mask.png", (rng.random((16, 12)) < 0.2).astype(np.uint8))
    return images, masks


def kinds(report, level=None):
    return sorted({finding.kind for finding in report if level in (None, finding.level)})


def test_good_data_has_no_findings(folders):
    report = lint(*folders)
    assert list(report) == [] and report.pairs == 4
    assert "4 pairs" in str(report) and "nothing to complain about" in str(report)
    assert report.balance.sum() == pytest.approx(1) and 0.1 < report.balance[1] < 0.3


@pytest.mark.parametrize(
    "image, mask",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a_mask.gif"),
        ("a.jpg", "A-Label.png"),
        ("a.jpg", "mask_a.png"),
        ("21_training.tif", "21_manual1.gif"),
        ("21_training.tif", "21_training_mask.gif"),
        ("im0001.ppm", "im0001.ah.ppm"),
        ("Image_01L.jpg", "Image_01L_1stHO.png"),
        ("01_dr.JPG", "01_dr.tif"),
        ("x.y.png", "x.y_gt.png"),
    ],
)
def test_names_that_go_together_are_paired(tmp_path, image, mask):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    save(tmp_path / "i" / image, PHOTO)
    save(tmp_path / "m" / mask, MASK * 255)
    report = lint(tmp_path / "i", tmp_path / "m")
    assert report.pairs == 1 and kinds(report, "error") == []


def test_names_that_do_not_go_together_are_not_paired(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    for name in ("eye1", "eye10", "left"):
        save(tmp_path / "i" / f"{name}.png", PHOTO)
    for name in ("eye11", "eye2", "right"):
        save(tmp_path / "m" / f"{name}.png", MASK)
    report = lint(tmp_path / "i", tmp_path / "m")
    assert report.pairs == 0 and kinds(report) == ["image without mask", "mask without image"]
    assert {finding.file for finding in report} == {
        f"{n}.png" for n in ("eye1", "eye10", "left", "eye11", "eye2", "right")
    }


def break_unpaired(images, masks):
    (masks / "eye0_mask.png").rename(masks / "eyeO_mask.png")


def break_ambiguous(images, masks):
    save(masks / "eye1_label.png", MASK)


def break_sizes(images, masks):
    save(masks / "eye2_mask.png", np.eye(12, 16, dtype=np.uint8))


def break_truncated(images, masks):
    data = (images / "eye3.png").read_bytes()
    (images / "eye3.png").write_bytes(data[:-200])


def break_photo_as_mask(images, masks):
    save(masks / "eye0_mask.png", RNG.integers(0, 256, (16, 12, 3), np.uint8))


def break_empty_folder(images, masks):
    for path in masks.iterdir():
        path.rename(path.with_suffix(".npy"))


def break_empty_mask(images, masks):
    save(masks / "eye0_mask.png", np.zeros((16, 12), np.uint8))


def break_duplicate(images, masks):
    save(images / "eye0.png", np.array(Image.open(images / "eye2.png")))


def break_jpeg_mask(images, masks):
    (masks / "eye1_mask.png").unlink()
    save(
        masks / "eye1_mask.jpg",
        np.kron(np.eye(2, dtype=np.uint8), np.full((8, 6), 250, np.uint8)),
        quality=60,
    )


def break_inverted(images, masks):
    for path in masks.iterdir():
        save(path, 1 - np.array(Image.open(path)))


def break_255(images, masks):
    for path in masks.iterdir():
        save(path, 255 * np.array(Image.open(path)))


def break_grey(images, masks):
    save(images / "eye0.png", RNG.integers(0, 256, (16, 12), np.uint8))


def break_several_sizes(images, masks):
    save(images / "eye0.png", RNG.integers(0, 256, (20, 12, 3), np.uint8))
    save(masks / "eye0_mask.png", np.eye(20, 12, dtype=np.uint8))


@pytest.mark.parametrize(
    "damage, level, kind, text",
    [
        (break_unpaired, "error", "image without mask", "eye0.png"),
        (break_unpaired, "error", "mask without image", "eyeO_mask.png"),
        (break_ambiguous, "error", "ambiguous names", "eye1_label.png, eye1_mask.png"),
        (break_sizes, "error", "sizes differ", "12 x 16, its image is 16 x 12; turned by 90 degrees?"),
        (break_truncated, "error", "unreadable", "cut short"),
        (break_photo_as_mask, "error", "unreadable", "no binary mask"),
        (break_empty_folder, "error", "empty folder", "masks"),
        (break_empty_mask, "warning", "one class only", "every pixel is of class 0"),
        (break_duplicate, "warning", "duplicates", "the same image as eye2.png"),
        (break_jpeg_mask, "warning", "more than two values", "eye1_mask.jpg"),
        (break_inverted, "warning", "mostly foreground", "inverted?"),
        (break_255, "note", "masks of 0 and 255", "4 of 4"),
        (break_grey, "note", "grey images", "eye0.png"),
        (break_several_sizes, "note", "several sizes", "16 x 12 (3), 20 x 12 (1)"),
    ],
)
def test_every_mistake_is_found_once_and_said(folders, damage, level, kind, text):
    damage(*folders)
    report = lint(*folders)
    found = [finding for finding in report if finding.kind == kind]
    assert found and all(finding.level == level for finding in found)
    assert any(text in f"{finding.file}: {finding.text}" for finding in found)
    assert f"{level}: {kind} ({len(found)})" in str(report) and text in str(report)


def test_label_maps_of_more_classes(folders):
    for path in folders[1].iterdir():
        save(path, RNG.integers(0, 5, (16, 12)).astype(np.uint8))
    assert kinds(lint(*folders, num_classes=5)) == [] and len(lint(*folders, num_classes=5).balance) == 5
    report = lint(*folders, num_classes=4)
    assert len(report) == 4 and "with 4 classes the ids are 0 to 3" in str(report)


def test_images_and_masks_in_one_folder(folders):
    images, masks = folders
    for path in masks.iterdir():
        path.rename(images / path.name)
    report = lint(images, images)
    assert report.pairs == 4 and list(report) == []


def test_a_long_list_is_cut_and_the_worst_comes_first(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    for i in range(9):
        save(tmp_path / "i" / f"{i}.png", np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8))
        save(tmp_path / "m" / f"{i}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "m" / "0.png").unlink()
    lines = str(lint(tmp_path / "i", tmp_path / "m")).splitlines()
    assert lines[0].startswith("8 pairs") and lines[1].startswith("error: image without mask (1)")
    assert lines[3].startswith("warning: one class only (8)") and lines[-1].strip() == "and 3 more"


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        lint(tmp_path, tmp_path / "nowhere")
