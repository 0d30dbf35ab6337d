"""A folder of one's own images: what dataset.json holds, and what is read by it."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from u2learn.cli import main
from u2learn.data.augment import Augmentation
from u2learn.data.folder import Folder, facts, load, summary
from u2learn.data.new import create
from u2learn.data.parts import draw_parts
from u2learn.measure import measure
from u2learn.studies import get
from u2learn.studies.own import for_images
from u2learn.training import train

SHARES = {"train": 70, "validation": 15, "test": 15}


def scene(k, size=(40, 32)):
    """A label map of 0, 1 and 2."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where(
        np.hypot(y - 14 - k % 9, x - 15) < 9, np.where(np.hypot(y - 14 - k % 9, x - 15) < 4, 2, 1), 0
    )


def write(folder, images, masks, names=None, ending="png"):
    for name, arrays in (("images", images), ("masks", masks)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k, array in enumerate(arrays):
            stem = names[k] if names else f"im{k:02d}"
            Image.fromarray(array).save(folder / name / f"{stem}.{ending if name == 'images' else 'png'}")
    return folder, folder / "images", folder / "masks"


def photographs(count, size=(40, 32)):
    return [np.random.default_rng(k).integers(0, 256, (*size, 3), np.uint8) for k in range(count)]


def binary(count, size=(40, 32)):
    return [(scene(k, size) > 0).astype(np.uint8) * 255 for k in range(count)]


@pytest.fixture
def eyes(tmp_path):
    return write(tmp_path / "eyes", photographs(12), binary(12))


def parts_of(folder):
    return {entry.image: entry.part for entry in load(folder).examples}


# The example of a laboratory: 12 bits in 16, three sizes, colours, two pictures a slide

SIZES = ((48, 64), (64, 64), (72, 96))
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)


@pytest.fixture(scope="module")
def microscope(tmp_path_factory):
    labels = [scene(k, SIZES[k // 2 % 3]) for k in range(40)]
    deep = [
        (500 + 900 * label + np.random.default_rng(k).normal(0, 100, label.shape))
        .clip(0, 4095)
        .astype(np.uint16)
        for k, label in enumerate(labels)
    ]
    names = [f"slide{k // 2:02d}_{'ab'[k % 2]}" for k in range(40)]
    folder, images, masks = write(
        tmp_path_factory.mktemp("lab") / "cells", deep, [COLOURS[label] for label in labels], names, "tif"
    )
    create(folder, images, masks, classes="#ff0000=cell,#0000ff=nucleus", group="(.*)_[a-z]$")
    return folder, dict(zip(names, zip(deep, labels, strict=True), strict=True))


def test_what_is_known_of_a_folder(microscope):
    folder, pictures = microscope
    known = facts(folder)
    assert (known.name, known.task, known.channels) == ("cells", "classes", 1)
    assert known.class_names == ("background", "cell", "nucleus")
    assert known.palette == ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    assert known.sizes == ((48, 64), (72, 96)) and sum(known.parts.values()) == 40
    every = np.concatenate([deep.ravel() for deep, _ in pictures.values()])
    assert known.levels == pytest.approx(np.percentile(every, (0.1, 99.9)), rel=1e-5)


def test_every_example_has_the_range_and_the_classes_of_the_set(microscope):
    folder, pictures = microscope
    low, high = facts(folder).levels
    for example in Folder(folder, "all"):
        deep, label = pictures[example.name.removesuffix(".tif")]
        assert np.array_equal(example.image, np.rint(((deep[None] - low) * 255 / (high - low)).clip(0, 255)))
        assert np.array_equal(example.label, label) and example.num_classes == 3


def test_a_slide_is_never_divided(microscope):
    folder, _ = microscope
    parts = parts_of(folder)
    assert all(parts[name] == parts[name.replace("_a", "_b")] for name in parts)
    assert set(parts.values()) == {"train", "validation", "test"}
    names = [{example.name for example in Folder(folder, part)} for part in ("train", "validation", "test")]
    assert len(set().union(*names)) == 40 == sum(map(len, names)) == len(Folder(folder, "all"))


def test_the_summary_says_what_was_understood(microscope):
    lines = summary(microscope[0]).splitlines()
    assert lines[0] == "cells: 40 images with masks"
    assert lines[1].startswith("images: grey, 48 x 64 to 72 x 96 pixels (height x width); the stored values ")
    assert lines[2] == "masks: 3 classes by the colours in their files"
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["0", "background", "#000000"],
        ["1", "cell", "#ff0000"],
        ["2", "nucleus", "#0000ff"],
    ]
    assert lines[6].startswith("parts: train ") and "groups)" in lines[6]


# Meaning in the record


def test_255_beside_ids_is_ignored_even_where_there_is_no_object(tmp_path):
    masks = [np.where(scene(k) == 2, 255, scene(k)).astype(np.uint8) for k in range(4)]
    masks[2][masks[2] == 1] = 0  # a tile of background and unsure pixels only
    create(*write(tmp_path, photographs(4), masks))
    for example in Folder(tmp_path, "all"):
        assert np.array_equal(example.label, masks[int(example.name[2:4])])


def test_saliency_is_asked_for_and_has_no_unsure_pixels(tmp_path, eyes):
    assert create(*eyes).task == "binary"
    assert create(*eyes, saliency=True).task == "saliency" == facts(eyes[0]).task
    unsure = [np.where(scene(k) == 2, 255, scene(k)).astype(np.uint8) for k in range(4)]
    with pytest.raises(ValueError, match="--saliency is about two classes without any unsure pixel"):
        create(*write(tmp_path / "u", photographs(4), unsure), saliency=True)


# Images


def test_images_of_8_bits_have_no_levels_and_stay_what_they_are(eyes):
    known = create(*eyes)
    assert known.levels is None and known.channels == 3
    stored = photographs(12)
    for example in Folder(eyes[0], "all"):
        assert np.array_equal(example.image, stored[int(example.name[2:4])].transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_be_chosen(tmp_path, channels):
    grey = [picture[..., 0] for picture in photographs(3)]
    assert create(*write(tmp_path, grey, binary(3))).channels == 1
    assert create(*write(tmp_path, grey, binary(3)), channels=channels).channels == channels
    for example in Folder(tmp_path, "all"):
        assert np.array_equal(example.image, np.stack([grey[int(example.name[2:4])]] * channels))


def test_bands_that_are_no_colours(tmp_path):
    rgba = [np.random.default_rng(k).integers(0, 256, (40, 32, 4), np.uint8) for k in range(3)]
    assert create(*write(tmp_path, rgba, binary(3))).channels == 3
    assert create(*write(tmp_path, rgba, binary(3)), channels=4).channels == 4
    assert np.array_equal(Folder(tmp_path, "all")[1].image, rgba[1].transpose(2, 0, 1))


def test_a_network_of_four_channels_is_trained_and_scored(tmp_path):
    """ImageNet's means are those of three; the bands of others are brought to one range image by image."""
    rgba = [np.random.default_rng(k).integers(0, 256, (40, 32, 4), np.uint8) for k in range(6)]
    create(*write(tmp_path, rgba, binary(6)), channels=4)
    plain = get("drive-fcn-ce", model="unet_small", model_options={}, augmentation=Augmentation())
    recipe = for_images(plain, facts(tmp_path), tmp_path)
    assert (recipe.channels, recipe.normalisation) == (4, "image")
    recipe = dataclasses.replace(recipe, iterations=3, evaluations=1, crop=(32, 32), batch=2, loss="ce")
    train(recipe, tmp_path / "run", progress=False)
    assert measure(tmp_path / "run", "cpu", False)["scores"]["image"]["accuracy"] > 0


def test_levels_may_be_said_and_one_range_holds_for_all(tmp_path):
    dark, bright = np.full((40, 32), 1000, np.uint16), np.full((40, 32), 3000, np.uint16)
    images = [dark, bright, (dark + bright) // 2]
    assert create(*write(tmp_path, images, binary(3), ending="tif")).levels == (1000, 3000)
    assert [int(each.image.mean()) for each in Folder(tmp_path, "all")] == [0, 255, 128]
    assert create(*write(tmp_path, images, binary(3), ending="tif"), levels=(0, 4000)).levels == (0, 4000)
    assert [int(each.image.mean()) for each in Folder(tmp_path, "all")] == [64, 191, 128]


def test_images_of_floats(tmp_path):
    images = [np.random.default_rng(k).random((40, 32), np.float32) / 1000 for k in range(3)]
    low, high = create(*write(tmp_path, images, binary(3), ending="tif")).levels
    assert 0 <= low < 1e-5 and 9.9e-4 < high < 1e-3
    assert all(len(np.unique(each.image)) > 200 for each in Folder(tmp_path, "all"))


def refused(sentence, folders, **said):
    with pytest.raises((ValueError, OSError), match=sentence):
        create(*folders, **said)
    assert not (folders[0] / "dataset.json").exists()


def test_images_of_different_depths_and_wrong_levels_are_refused(tmp_path, eyes):
    refused("--levels is about images of more than 8 bits", eyes, levels=(0, 99))
    deep = [picture[..., 0].astype(np.uint16) * 16 for picture in photographs(3)]
    folders = write(tmp_path / "deep", deep, binary(3))
    refused("two rising numbers, black and white, not 9 and 9", folders, levels=(9, 9))
    Image.fromarray(photographs(1)[0]).save(folders[1] / "im00.png")
    refused(r"1 of 3 images have 8 bits, the others more: im00\.png", folders)


def test_all_files_that_cannot_be_read_are_named_at_once(eyes):
    for name in ("im03", "im07"):
        (eyes[1] / f"{name}.png").write_bytes(b"no image")
    refused(r"im03\.png cannot be read .*im07\.png cannot be read", eyes)


def test_what_does_not_pair_or_fit_is_refused(tmp_path, eyes):
    (eyes[2] / "im03.png").rename(eyes[2] / "other.png")
    refused("image without mask: im03.png .*; mask without image: other.png", eyes)
    (eyes[2] / "other.png").rename(eyes[2] / "im03.png")
    Image.fromarray(binary(1, (32, 40))[0]).save(eyes[2] / "im03.png")
    refused(r"differ in size .*im03\.png is 32 x 40, its image 40 x 32", eyes)
    refused("nowhere: there is no such folder", (eyes[0], eyes[1], tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    refused("empty folder: .*empty", (eyes[0], eyes[1], tmp_path / "empty"))


# EXIF


def turned_set(folder, how, size, masks):
    """Three photographs, the second of which is to be turned; `masks` are drawn on the stored pixels."""
    folders = write(folder, photographs(3, size), masks)
    exif = Image.Exif()
    exif[0x0112] = how
    Image.fromarray(photographs(3, size)[1]).save(folders[1] / "im01.png", exif=exif)
    return folders


TURNS = {  # by the standard: what has to be done to the stored rows and columns
    2: lambda a: np.fliplr(a),
    3: lambda a: np.rot90(a, 2),
    4: lambda a: np.flipud(a),
    5: lambda a: np.rot90(np.fliplr(a)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.fliplr(a), -1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("how", TURNS)
def test_a_turned_image_with_a_mask_that_is_not_is_asked_about(tmp_path, how):
    size = (36, 36)
    folders = turned_set(tmp_path, how, size, binary(3, size))
    refused(
        r"EXIF turns 1 images, but not their masks: im01\.png\. Say --exif upright .*--exif stored", folders
    )
    stored, mask = photographs(3, size)[1], binary(3, size)[1] // 255
    for exif, due in (("upright", mask), ("stored", TURNS[how](mask))):
        create(*folders, exif=exif)
        example = Folder(tmp_path, "all")[1]
        assert np.array_equal(example.image[0], TURNS[how](stored[..., 0]))
        assert np.array_equal(example.label, due)
    with pytest.raises(ValueError, match="--exif is upright or stored, not 'up'"):
        create(*folders, exif="up")


@pytest.mark.parametrize("how", [5, 6, 7, 8])
def test_the_size_of_an_oblong_mask_says_on_what_it_was_drawn(tmp_path, how):
    size = (40, 32)
    folders = turned_set(tmp_path, how, size, binary(3, size))
    create(*folders)
    mask = binary(3, size)[1] // 255
    assert np.array_equal(Folder(tmp_path, "all")[1].label, TURNS[how](mask))
    Image.fromarray(binary(3, size[::-1])[1]).save(folders[2] / "im01.png")
    create(*folders)
    assert np.array_equal(Folder(tmp_path, "all")[1].label, binary(3, size[::-1])[1] // 255)


def test_a_mask_with_an_orientation_of_its_own_is_turned_by_that(tmp_path):
    folders = turned_set(tmp_path, 3, (40, 32), binary(3))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(binary(3)[1]).save(folders[2] / "im01.png", exif=exif)
    create(*folders)
    assert np.array_equal(Folder(tmp_path, "all")[1].label, np.rot90(binary(3)[1] // 255, 2))


# Parts


def test_a_group_that_comes_later_moves_no_other_one():
    groups = [f"slide{k}" for k in range(60)]
    before = draw_parts(groups, SHARES)
    after = draw_parts(["aaa", *groups, "zzz"], SHARES)
    assert after[1:-1] == before and draw_parts(groups[::-1], SHARES) == before[::-1]


def test_shares_are_kept_in_the_long_run_and_every_part_has_a_group():
    many = draw_parts([f"slide{k}" for k in range(10_000)], SHARES)
    assert [many.count(part) / 10_000 for part in SHARES] == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    for few in range(3, 12):
        for start in range(40):
            assert set(draw_parts([f"{start}-{k}" for k in range(few)], SHARES)) == set(SHARES)
    with pytest.raises(ValueError, match="need a group each, and there are only 2 groups"):
        draw_parts(["a", "b", "a"], SHARES)
    with pytest.raises(ValueError, match="must be above 0, not 80, 20, 0"):
        draw_parts(["a", "b", "c"], {"train": 80, "validation": 20, "test": 0})


def test_adding_a_file_leaves_the_others_where_they_are(tmp_path):
    create(*write(tmp_path, photographs(25), binary(25)))
    before = parts_of(tmp_path)
    create(*write(tmp_path, photographs(26), binary(26)))
    assert parts_of(tmp_path) | before == parts_of(tmp_path) and len(parts_of(tmp_path)) == 26


def test_the_parts_do_not_hang_on_the_form_of_unicode(tmp_path):
    composed, decomposed = (
        draw_parts([f"{name}{k}" for k in range(30)], SHARES) for name in ("\u00e9", "e\u0301")
    )
    assert composed == decomposed


@pytest.mark.parametrize(
    "group, sentence",
    [
        ("(", "--group '\\(' is no regular expression"),
        ("(.*)_[a-z]$", "finds nothing in the name 'im00'"),
        ("im", "only 1 groups"),
    ],
)
def test_groups_that_cannot_be(eyes, group, sentence):
    refused(sentence, eyes, group=group)


def test_folders_of_parts_are_taken_as_they_are(tmp_path):
    for part, names in {"train": "abcd", "val": "ab", "test": "ae"}.items():
        count = len(names)
        folder, images, masks = write(tmp_path / part, photographs(count), binary(count), names)
        for what, where in (("images", images), ("masks", masks)):
            (tmp_path / what).mkdir(exist_ok=True)
            where.rename(tmp_path / what / part)
        folder.rmdir()
    folders = tmp_path, tmp_path / "images", tmp_path / "masks"
    assert create(*folders).parts == {"train": 4, "validation": 2, "test": 2}
    assert parts_of(tmp_path)["val/a.png"] == "validation" and parts_of(tmp_path)["test/a.png"] == "test"
    assert len(Folder(tmp_path, "test")[0].image) == 3
    refused_again = pytest.raises(
        ValueError, match="must not be divided, and these are in several parts: a, b"
    )
    with refused_again:
        create(*folders, group=".")
    shutil.rmtree(tmp_path / "images" / "val")
    with pytest.raises(ValueError, match="need folders of the same parts; they have test, train and"):
        create(*folders)
    shutil.rmtree(tmp_path / "masks" / "val")
    assert create(*folders).parts == {"train": 3, "validation": 1, "test": 2}
    for what in ("images", "masks"):
        shutil.rmtree(tmp_path / what / "test")
    with pytest.raises(ValueError, match="no image in the part test"):
        create(*folders)


def test_lists_say_the_parts(tmp_path, eyes):
    names = [f"im{k:02d}" for k in range(12)]
    (tmp_path / "train.txt").write_text("\n".join(names[:8]), encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text(
        "\r\n".join(f"{name}.png" for name in names[8:]) + "\n", encoding="utf-8"
    )
    assert create(*eyes, lists=tmp_path).parts["test"] == 4
    assert {name for name, part in parts_of(eyes[0]).items() if part == "test"} == {
        f"{n}.png" for n in names[8:]
    }
    (tmp_path / "val.txt").write_text("im00\n", encoding="utf-8")
    with pytest.raises(ValueError, match="im00 is in several lists"):
        create(*eyes, lists=tmp_path)
    (tmp_path / "val.txt").write_text("im77\n", encoding="utf-8")
    with pytest.raises(ValueError, match="and the names of the images differ by im77"):
        create(*eyes, lists=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train\.txt and test\.txt"):
        create(*eyes, lists=tmp_path / "nowhere")


# The file


def test_a_folder_may_be_moved_and_its_file_laid_out_anew(tmp_path, eyes):
    before = create(*eyes)
    eyes[0].rename(tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / "dataset.json"
    assert facts(path.parent) == before and len(Folder(path.parent, "all")[:2]) == 2
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(reversed(values.items())), indent=7), encoding="utf-8")
    assert facts(path.parent) == before
    values["examples"][0]["part"] = {"train": "test", "test": "train", "validation": "test"}[
        values["examples"][0]["part"]
    ]
    path.write_text(json.dumps(values), encoding="utf-8")
    assert facts(path.parent).digest != before.digest


def test_the_digest_is_that_of_what_is_learnt(tmp_path, eyes):
    before = create(*eyes)
    assert create(tmp_path / "other", *eyes[1:]).digest == before.digest
    assert create(*eyes, classes="background,eye").digest != before.digest
    Image.fromarray(photographs(1)[0][::-1]).save(eyes[1] / "im00.png")
    assert create(*eyes).digest != before.digest


def test_a_file_that_changed_or_vanished_is_refused(eyes):
    create(*eyes)
    Image.fromarray(binary(2)[1]).save(eyes[2] / "im00.png")
    with pytest.raises(ValueError, match=r"masks.im00\.png has changed since dataset\.json was written"):
        Folder(eyes[0], "all")[0]
    (eyes[1] / "im01.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"im01\.png is gone; dataset\.json names it"):
        Folder(eyes[0], "all")[1]
    assert Folder(eyes[0], "all")[2].name == "im02.png"


def test_a_missing_or_damaged_file_says_what_to_do(eyes):
    with pytest.raises(
        FileNotFoundError, match=r"has no dataset\.json: run `u2learn data new .*eyes --images"
    ):
        Folder(eyes[0], "train")
    create(*eyes)
    with pytest.raises(ValueError, match="parts of a folder are train, validation, test and all, not 'val'"):
        Folder(eyes[0], "val")
    path = eyes[0] / "dataset.json"
    whole = path.read_text(encoding="utf-8")
    for damaged in (
        "",
        whole[:300],
        "[]",
        "null",
        whole.replace('"version": 1', '"version": 2'),
        whole.replace('"channels"', '"chanels"'),
        whole.replace('"part": "test"', '"part": "tets"'),
        whole.replace('"stored": [', '"stored": ["x", '),
    ):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"dataset\.json is damaged .*run `u2learn data new` again"):
            load(eyes[0])


def test_a_refusal_leaves_the_file_that_was_there(eyes):
    create(*eyes)
    before = (eyes[0] / "dataset.json").read_bytes()
    with pytest.raises(ValueError):
        create(*eyes, classes="a,b,c")
    assert (eyes[0] / "dataset.json").read_bytes() == before
    assert sorted(path.name for path in eyes[0].iterdir()) == ["dataset.json", "images", "masks"]


def test_images_and_masks_may_lie_in_one_folder(tmp_path):
    for k, (image, mask) in enumerate(zip(photographs(4), binary(4), strict=True)):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        Image.fromarray(mask).save(tmp_path / f"{k}_mask.png")
    create(tmp_path / "set", tmp_path, tmp_path)
    assert [each.name for each in Folder(tmp_path / "set", "all")] == [f"{k}.png" for k in range(4)]


# The command line


def test_new_and_lint_from_the_command_line(tmp_path, eyes, capsys):
    folder, images, masks = map(str, eyes)
    (eyes[1] / "notes.txt").write_text("see me", encoding="utf-8")
    main(["data", "new", folder, "--images", images, "--masks", masks, "--shares", "50", "25", "25"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"skipped: {eyes[1] / 'notes.txt'}: has no image's ending"
    assert "\n".join(printed[1:-1]) == summary(folder)
    assert (
        printed[-1].startswith(f"Written: {eyes[0] / 'dataset.json'}. ")
        and "u2learn data lint" in printed[-1]
    )
    main(["data", "lint", folder])
    assert "12 pairs of image and mask" in capsys.readouterr().out
    (eyes[2] / "im00.png").unlink()
    for command in (["data", "lint", folder], ["data", "lint", images, masks]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 1 and "error: " in capsys.readouterr().out


def test_a_question_is_a_sentence_and_not_a_traceback(tmp_path, capsys):
    folders = write(tmp_path / "new", photographs(3), [(mask > 0).astype(np.uint8) + 1 for mask in binary(3)])
    command = [sys.executable, "-m", "u2learn", "data", "new", *map(str, folders)]
    command[-2:] = ["--images", str(folders[1]), "--masks", str(folders[2])]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 1 and run.stderr.startswith(
        "u2learn: The masks hold the values 1, 2, which can mean"
    )
    assert run.stderr.count("\n") == 1
    main([*command[3:], "--classes", "background,cell"])
    assert "cell" in capsys.readouterr().out
