"""Which mask belongs to which image, and what the linter sees in both."""

import gzip
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from u2learn.data.linter import lint, lint_folder
from u2learn.data.new import create
from u2learn.data.pairing import image_files, skipped

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 9, 3), np.uint8)  # (H, W, 3)
MASK = (RNG.random((12, 9)) < 0.3).astype(np.uint8)  # (H, W)


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


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


# What may be called what


@pytest.mark.parametrize(
    "image, mask",
    [
        ("müller.png", unicodedata.normalize("NFD", "müller.png")),
        (unicodedata.normalize("NFD", "ÉCHO_7.png"), "écho_7_mask.png"),
        ("a.jpg", "a.jpg.png"),
        ("a.jpg", "a.jpg_mask.png"),
        ("a.ome.tif", "a.png"),
        ("A.OME.TIF", "a.ome.tiff"),
        ("a.jfif", "a.png"),
        ("a.jp2", "a.gif"),
        ("case_001_0000.png", "case_001.png"),
        ("img_0000_0000.png", "img_0000.png"),
        ("x.tif", "x.ppm.gz"),
    ],
)
def test_names_of_other_tools_are_paired(tmp_path, image, mask):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    save(tmp_path / "i" / image, PHOTO, format="JPEG" if image.endswith("jfif") else None)
    if mask.endswith(".gz"):
        save(tmp_path / "m.ppm", np.stack([MASK * 255] * 3, -1))
        (tmp_path / "m" / mask).write_bytes(gzip.compress((tmp_path / "m.ppm").read_bytes()))
    else:
        save(tmp_path / "m" / mask, MASK * 255)
    report = lint(tmp_path / "i", tmp_path / "m")
    assert report.pairs == 1 and kinds(report, "error") == []


def test_two_images_of_one_stem_find_their_own_masks(tmp_path):
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
    for name in ("a.jpg", "a.png"):
        save(tmp_path / "i" / name, PHOTO)
        save(tmp_path / "m" / f"{name}.png", MASK * 255)
    assert lint(tmp_path / "i", tmp_path / "m").pairs == 2


def test_numbers_at_the_end_are_no_channels_where_the_masks_have_them(folders):
    for folder in folders:
        for k, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"frame_{k:04d}{'_mask' * (folder.name == 'masks')}.png")
    report = lint(*folders)
    assert report.pairs == 4 and list(report) == []


def test_channels_in_files_of_their_own_are_refused_with_a_hint(tmp_path):
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
    for k in range(2):
        save(tmp_path / "i" / f"case_{k:04d}.png", PHOTO[k:])
    save(tmp_path / "m" / "case.png", MASK)
    [finding] = lint(tmp_path / "i", tmp_path / "m")
    assert (finding.level, finding.kind) == ("error", "channels in files of their own")
    assert (
        "case_0000.png, case_0001.png are channels of one image; merge them into one TIFF of 2"
        in finding.text
    )


def test_what_is_not_read_is_said(folders):
    images, masks = folders
    (images / "eye9.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (masks / "notes.txt").write_text("see me", encoding="utf-8")
    (images / "more").mkdir()
    (images / ".DS_Store").write_bytes(b"x")
    assert len(image_files(images)) == 4
    assert skipped(images) == {
        "eye9.heic": "HEIC is not read; convert it to PNG or TIFF",
        "more": "a folder; only the files in the folder itself are read",
    }
    found = {(f.level, f.file) for f in lint(images, masks) if f.kind == "skipped files"}
    assert found == {("warning", "eye9.heic"), ("note", "notes.txt"), ("note", "more")}


# What several masks show together


def each_mask(folder, change):
    for k, path in enumerate(sorted(folder.iterdir())):
        save(path, change(k, np.array(Image.open(path))))


def classes_apart(images, masks):
    each_mask(masks, lambda k, mask: mask * (1 + k % 2))


def colours_apart(images, masks):
    each_mask(
        masks, lambda k, mask: np.stack([mask * 255 * (k % 2 == c) for c in range(3)], -1).astype(np.uint8)
    )


def stored_in_two_ways(images, masks):
    each_mask(masks, lambda k, mask: mask * (255 if k else 1))


def unsure(images, masks):
    each_mask(masks, lambda k, mask: np.where(np.arange(12) < 2, 255, mask).astype(np.uint8))


def unsure_here_object_there(images, masks):
    unsure(images, masks)
    each_mask(masks, lambda k, mask: (mask == 1).astype(np.uint8) * 255 if k == 3 else mask)


def one_inverted(images, masks):
    each_mask(masks, lambda k, mask: 1 - mask if k == 2 else mask)


def numbered(images, masks):
    ids = np.kron(np.arange(24).reshape(6, 4), np.ones((3, 3), int))[:16, :12].astype(np.uint8)
    each_mask(masks, lambda k, mask: np.where(ids < 9 + k, ids, 0).astype(np.uint8))


def twelve_bits(images, masks):
    for path in images.iterdir():
        save(path, np.linspace(0, 4095, 192).reshape(16, 12).astype(np.uint16))


def few_of_many_bits(images, masks):
    save(images / "eye0.png", np.array([[0] * 12, [65535] * 12] * 8, np.uint16))


def turned(how):
    def turn(images, masks):
        exif = Image.Exif()
        exif[0x0112] = how
        pixels = RNG.integers(0, 256, (16, 16, 3), np.uint8)
        save(images / "eye1.png", pixels, exif=exif)
        save(masks / "eye1_mask.png", np.eye(16, dtype=np.uint8))

    return turn


@pytest.mark.parametrize(
    "damage, level, kind, text",
    [
        (classes_apart, "error", "more than two classes", "1 in 2 masks (eye0_mask.png), 2 in 2 masks"),
        (colours_apart, "error", "more than two classes", "several classes"),
        (stored_in_two_ways, "note", "masks of 0 and 255", "3 of 4; read_mask makes them 0 and 1. Otherwise"),
        (unsure, "note", "255 unsure", "16.7% of the pixels"),
        (
            unsure_here_object_there,
            "error",
            "more than two classes",
            "1 beside 255 in 3 masks (eye0_mask.png), 255 in 1",
        ),
        (one_inverted, "warning", "inverted mask", "eye2_mask.png: "),
        (numbered, "error", "instance ids", "instance ids"),
        (twelve_bits, "note", "more than 8 bits", "4 of 4; at least 1"),
        (few_of_many_bits, "warning", "more than 8 bits", "1 of 4; at least 2 grey levels used (eye0.png)"),
        (turned(3), "warning", "turned by EXIF", "eye1.png: EXIF (3) turns the image, and not eye1_mask.png"),
        (turned(2), "warning", "turned by EXIF", "EXIF (2)"),
        (turned(6), "warning", "turned by EXIF", "EXIF (6)"),
    ],
)
def test_what_only_all_masks_or_the_files_heads_show(folders, damage, level, kind, text):
    damage(*folders)
    report = lint(*folders)
    found = [finding for finding in report if finding.kind == kind]
    assert found and all(finding.level == level for finding in found)
    assert any(text in f"{finding.file}: {finding.text}" for finding in found), str(report)
    assert report.failed == (level == "error")


def test_an_oblong_mask_that_fits_the_turned_image_was_drawn_on_it(folders):
    images, masks = folders
    exif = Image.Exif()
    exif[0x0112] = 6
    save(images / "eye1.png", RNG.integers(0, 256, (12, 16, 3), np.uint8), exif=exif)  # 16 x 12 upright
    assert list(lint(images, masks)) == []


def test_masks_of_one_object_in_two_shades_of_white_are_one_class(folders):
    each_mask(folders[1], lambda k, mask: mask * (255 - k))
    assert "more than two classes" not in kinds(lint(*folders))


# A folder with a dataset.json


@pytest.fixture
def made(folders):
    images, masks = folders
    for k in range(4, 12):
        save(images / f"eye{k}.png", np.random.default_rng(k).integers(0, 256, (16, 12, 3), np.uint8))
        save(masks / f"eye{k}.png", np.roll(np.array(Image.open(masks / "eye0_mask.png")), k, 0))
    create(images.parent, images, masks)
    return images.parent


def test_a_good_folder_has_no_findings(made):
    report = lint_folder(made)
    assert list(report) == [] and report.pairs == 12 and not report.failed


def test_a_folder_is_judged_by_its_own_meaning(folders):
    images, masks = folders
    ids = {}
    for k in range(4):
        labels = np.array([0, 3, 7, 255])[RNG.integers(0, 4, (16, 12))]
        ids[f"eye{k}"] = np.bincount(labels.ravel(), minlength=8)[[0, 3, 7]]
        save(masks / f"eye{k}_mask.png", labels.astype(np.uint8))
    create(images.parent, images, masks)
    report = lint_folder(images.parent)
    assert kinds(report) == ["255 unsure"] and len(report) == 4
    total = sum(ids.values())
    assert report.balance == pytest.approx(total / total.sum())


def test_places_are_written_as_a_person_would(made, monkeypatch):
    """Where images lie is kept as seen from the folder of dataset.json, which may be a detour."""
    beside = made.parent / "beside"
    create(beside, made / "images", made / "masks")
    (made / "masks" / "eye5.png").unlink()
    save(made / "masks" / "eye4.png", MASK)
    for k in range(6, 12):
        save(made / "images" / f"eye{k}.png", np.zeros((16, 12), np.uint8))
    monkeypatch.chdir(made.parent)
    said = str(lint_folder(beside))
    assert f"{os.path.join(made.name, 'masks', 'eye4.png')} has changed" in said
    assert f"{os.path.join(made.name, 'masks', 'eye5.png')}" in said
    assert ".." not in said and str(made.parent) not in said, said


def test_a_folder_has_said_how_masks_lie_on_turned_images(folders):
    turned(3)(*folders)
    create(folders[0].parent, *folders, exif="stored")
    assert kinds(lint_folder(folders[0].parent), "warning") == []


def test_files_that_changed_vanished_or_came_later_are_found(made):
    save(made / "images" / "eye0.png", PHOTO)
    (made / "masks" / "eye4.png").unlink()
    save(made / "images" / "late.png", PHOTO)
    found = {(f.level, f.kind, f.file) for f in lint_folder(made)}
    assert found == {
        ("error", "unreadable", "eye0.png, eye0_mask.png"),
        ("error", "unreadable", "eye4.png, eye4.png"),
        ("warning", "not in dataset.json", "late.png"),
    }


def test_what_lies_in_two_parts_is_an_error(made):
    record = json.loads((made / "dataset.json").read_text(encoding="utf-8"))
    first = {each["part"]: each for each in record["examples"]}
    first["test"]["group"] = first["train"]["group"]
    (made / "dataset.json").write_text(json.dumps(record), encoding="utf-8")
    assert kinds(lint_folder(made)) == ["group in two parts"]
    test, train = first["test"]["image"], first["train"]["image"]
    (made / "images" / test).write_bytes((made / "images" / train).read_bytes())
    create(made, made / "images", made / "masks")
    report = lint_folder(made)
    assert kinds(report, "error") == ["image in two parts"] and report.failed
    assert f"test ({test})" in str(report) and f"train ({train})" in str(report)
