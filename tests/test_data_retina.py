"""The retinal sets: layouts, parts, second observers, fields of view; real files where there are some."""

import gzip
import hashlib
import io
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from u2learn.data.drawn.retina import fundus
from u2learn.data.example import read_mask
from u2learn.data.local import MissingDataset, find
from u2learn.data.retina import LAYOUTS, TRAINING, Retina, field_of_view

STARE = [1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324]
SIZE = (20, 24)  # (H, W) of the tiny images here


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8))


def mask(seed):
    return (np.random.default_rng(1000 + seed).random(SIZE) < 0.2).astype(np.uint8)


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        plain = path.with_suffix("")
        image.save(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    else:
        image.save(path)


def white(array):
    return Image.fromarray(array * 255)


def make_drive(folder):
    for n in range(1, 41):
        part = "test" if n <= 20 else "training"
        put(folder / part / "images" / f"{n:02}_{part}.tif", picture(n))
        put(folder / part / "1st_manual" / f"{n:02}_manual1.gif", white(mask(n)))
        put(folder / part / "mask" / f"{n:02}_{part}_mask.gif", white(1 - mask(n + 100)))
        if part == "test":
            second = Image.fromarray(mask(n + 200)).convert("P")
            second.putpalette([4, 2, 4, 252, 254, 252])
            put(folder / part / "2nd_manual" / f"{n:02}_manual2.gif", second)


def make_stare(folder, ending=".ppm.gz"):
    for n in STARE:
        put(folder / "stare-images" / f"im{n:04}{ending}", picture(n))
        put(folder / "labels-ah" / f"im{n:04}.ah{ending}", white(mask(n)))
        put(folder / "labels-vk" / f"im{n:04}.vk{ending}", white(mask(n + 200)))


def make_chase(folder):
    for i, name in enumerate(f"{n:02}{side}" for n in range(1, 15) for side in "LR"):
        put(folder / f"Image_{name}.jpg", picture(i))
        put(folder / f"Image_{name}_1stHO.png", white(mask(i)).convert("1"))
        put(folder / f"Image_{name}_2ndHO.png", white(mask(i + 200)).convert("1"))


def make_hrf(folder):
    for i, (n, group) in enumerate((n, group) for n in range(1, 16) for group in ("dr", "g", "h")):
        ending = "JPG" if group == "dr" else "jpg"
        put(folder / "images" / f"{n:02}_{group}.{ending}", picture(i))
        put(folder / "manual1" / f"{n:02}_{group}.tif", white(mask(i)))
        put(folder / "mask" / f"{n:02}_{group}_mask.tif", white(1 - mask(i + 100)).convert("RGB"))


MAKE = {"drive": make_drive, "stare": make_stare, "chase": make_chase, "hrf": make_hrf}
SIZES = {  # training and test images: the projects' READMEs and, for lwnet, its script
    "mmseg": {"drive": (20, 20), "stare": (10, 10), "chase": (20, 8), "hrf": (15, 30)},
    "paddleseg": {"drive": (20, 20), "stare": (10, 10), "chase": (20, 8), "hrf": (21, 24)},
    "lwnet": {"drive": (20, 20), "stare": (0, 20), "chase": (8, 20), "hrf": (15, 30)},
    "binseg": {"drive": (20, 20), "stare": (10, 10), "chase": (8, 20), "hrf": (15, 30)},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, make in MAKE.items():
        make(root / name)
    return root


@pytest.mark.parametrize("dataset", LAYOUTS)
@pytest.mark.parametrize("protocol", TRAINING)
def test_every_part_has_the_images_that_its_protocol_says(sets, dataset, protocol):
    number = SIZES[protocol][dataset]
    names = {}
    for part, n in zip(("train", "test"), number, strict=True):
        if n == 0:
            with pytest.raises(ValueError, match=f"The {part} part of {dataset} .{protocol}. has no image"):
                Retina(dataset, part, sets / dataset, protocol)
            names[part] = []
        else:
            names[part] = Retina(dataset, part, sets / dataset, protocol).names
        assert len(names[part]) == n
    assert not set(names["train"]) & set(names["test"])
    everything = Retina(dataset, "all", sets / dataset, protocol).names
    assert everything == sorted(names["train"] + names["test"])


def test_the_names_of_the_parts(sets):
    def names(*arguments, protocol="mmseg"):
        return Retina(arguments[0], arguments[1], sets / arguments[0], protocol).names

    assert names("drive", "test") == [f"{n:02}" for n in range(1, 21)]
    assert names("stare", "train") == [f"im{n:04}" for n in STARE[:10]]
    assert names("stare", "test") == [f"im{n:04}" for n in STARE[10:]]
    assert names("chase", "test") == [f"{n}{side}" for n in range(11, 15) for side in "LR"]
    assert names("chase", "train", protocol="lwnet") == [f"0{n}{side}" for n in range(1, 5) for side in "LR"]
    assert names("chase", "train", protocol="binseg") == [
        f"{n}{side}" for n in range(11, 15) for side in "LR"
    ]
    for dataset in ("drive", "stare", "hrf"):
        assert names(dataset, "train", protocol="binseg") == names(dataset, "train")
    assert names("hrf", "train") == sorted(f"{n:02}_{g}" for n in range(1, 6) for g in ("dr", "g", "h"))
    assert names("hrf", "train", protocol="paddleseg")[-1] == "07_h"


def test_a_missing_file_shifts_no_part(tmp_path):
    make_chase(tmp_path)
    for path in tmp_path.glob("Image_03L*"):
        path.unlink()
    assert len(Retina("chase", "train", tmp_path)) == 19
    assert Retina("chase", "test", tmp_path).names[0] == "11L"


@pytest.mark.parametrize(
    "dataset, name, seed", [("drive", "03", 3), ("stare", "im0162", 162), ("chase", "11L", 20)]
)
def test_every_part_of_an_example_is_the_file_it_should_be(sets, dataset, name, seed):
    retina = Retina(dataset, "test", sets / dataset)
    example = retina[retina.names.index(name)]
    assert example.name == f"{dataset}-{name}"
    assert np.array_equal(example.label, mask(seed)) and np.array_equal(example.second, mask(seed + 200))
    if dataset != "chase":  # stored as JPEG
        assert np.array_equal(example.image, np.asarray(picture(seed)).transpose(2, 0, 1))
    if dataset == "drive":
        assert np.array_equal(example.field, mask(seed + 100) == 0)
    else:
        assert np.array_equal(example.field, field_of_view(example.image))


def test_hrf_has_mixed_endings_its_own_fields_and_no_second_observer(sets):
    retina = Retina("hrf", "test", sets / "hrf")
    seeds = {f"{n:02}_{g}": 3 * (n - 1) + i for n in range(1, 16) for i, g in enumerate(("dr", "g", "h"))}
    for i in (0, 1, 2):
        example = retina[i]
        assert example.second is None
        assert np.array_equal(example.label, mask(seeds[retina.names[i]]))
        assert np.array_equal(example.field, mask(seeds[retina.names[i]] + 100) == 0)


def test_drive_s_training_part_has_no_second_observer(sets):
    assert Retina("drive", "train", sets / "drive")[0].second is None


def test_stare_may_be_unpacked_and_without_the_second_observer(tmp_path):
    make_stare(tmp_path, ".ppm")
    for path in (tmp_path / "labels-vk").iterdir():
        path.unlink()
    assert Retina("stare", "train", tmp_path)[9].second is None


def test_files_are_read_when_asked_for_and_a_slice_is_a_list(tmp_path):
    make_chase(tmp_path)
    retina = Retina("chase", "test", tmp_path)
    assert [example.name for example in retina[:2]] == ["chase-11L", "chase-11R"]
    assert retina[-1].name == "chase-14R" and len(list(retina)) == 8
    (tmp_path / "Image_12L.jpg").write_bytes(b"no image")
    assert Retina("chase", "test", tmp_path)[0].name == "chase-11L"
    with pytest.raises(ValueError, match=r"Image_12L\.jpg cannot be read"):
        retina[2]
    with pytest.raises(IndexError):
        retina[8]


def test_other_files_in_the_folder_do_no_harm(tmp_path):
    make_chase(tmp_path)
    for name in ("Thumbs.db", "readme.txt", ".DS_Store", "._Image_01L.jpg", "montage.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert len(Retina("chase", "all", tmp_path)) == 28


def test_wrong_names_are_answered_with_the_right_ones(sets):
    with pytest.raises(ValueError, match="no retinal set 'DRIVE'; there are drive, stare, chase, hrf"):
        Retina("DRIVE", "train", sets / "drive")
    with pytest.raises(ValueError, match=r"no retinal protocol 'ours'; there are mmseg, .*binseg-held-out"):
        Retina("drive", "train", sets / "drive", "ours")
    with pytest.raises(ValueError, match="parts of drive are train, test and all, not 'val'"):
        Retina("drive", "val", sets / "drive")


def test_missing_folders_and_labels_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    with pytest.raises(MissingDataset, match=r"register there, .*DRIVE/training/images"):
        Retina("drive", "train")
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        Retina("drive", "train", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"stare-images: there is no such folder"):
        Retina("stare", "train", tmp_path)
    (tmp_path / "stare-images").mkdir()
    with pytest.raises(ValueError, match=r"The train part of stare \(mmseg\) has no image in"):
        Retina("stare", "train", tmp_path)

    make_drive(tmp_path / "DRIVE")
    for path in (tmp_path / "DRIVE" / "test" / "1st_manual").iterdir():
        path.unlink()
    assert len(Retina("drive", "train")) == 20
    with pytest.raises(
        FileNotFoundError, match=r"01_manual1\.gif: .* image 01 .* without the labels of the test"
    ):
        Retina("drive", "test")
    (tmp_path / "DRIVE" / "training" / "1st_manual" / "30_manual1.gif").unlink()
    with pytest.raises(FileNotFoundError, match=r"30_manual1\.gif: .* image 30 is missing; the copy"):
        Retina("drive", "train")


def test_held_out_are_training_images_and_no_test_image_is_touched(tmp_path):
    """On every set; with DRIVE as it is handed out today."""
    makers = {"drive": make_drive, "stare": make_stare, "chase": make_chase, "hrf": make_hrf}
    for dataset, make in makers.items():
        folder = tmp_path / dataset
        make(folder)
        for protocol, divided in (("held-out", "mmseg"), ("binseg-held-out", "binseg")):
            trains = set(Retina(dataset, "train", folder, divided).names)
            parts = {part: Retina(dataset, part, folder, protocol).names for part in ("train", "test")}
            assert sorted([*parts["train"], *parts["test"]]) == sorted(trains)
            assert 1 / 6 < len(parts["test"]) / len(trains) <= 1 / 4
    shutil.rmtree(tmp_path / "drive" / "test" / "1st_manual")
    assert Retina("drive", "test", tmp_path / "drive", "held-out").names == ["25", "30", "35", "40"]


def test_the_field_of_view_is_found_in_synthetic_photographs():
    for seed in range(4):
        example = fundus(seed, (200, 230))
        found = field_of_view(example.image)
        union, both = (found | example.field).sum(), (found & example.field).sum()
        assert found.dtype == bool and both / union > 0.97
    image = fundus(0, (200, 230)).image
    image[:, 90:120, 100:130] = 0
    assert field_of_view(image)[90:120, 100:130].all()  # a black spot is no hole
    assert field_of_view(np.full((3, 9, 8), 90, np.uint8)).shape == (9, 8)


def in_frame(image, field, factor):
    """An eye cut out and laid on black, in a frame `factor` times as high and wide; and its field there."""
    height, width = field.shape
    frame = np.zeros((3, round(height * factor), round(width * factor)), np.uint8)
    y, x = (frame.shape[1] - height) // 2, (frame.shape[2] - width) // 3
    frame[:, y : y + height, x : x + width] = image * field
    true = np.zeros(frame.shape[1:], bool)
    true[y : y + height, x : x + width] = field
    return frame, true


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def noisy(levels):
    def add(image):
        noise = np.random.default_rng(0).integers(0, levels, image.shape)
        return np.minimum(image.astype(int) + noise, 255).astype(np.uint8)

    return add


CAMERAS = {
    "clean": lambda image: image,
    "one level of noise": noisy(2),
    "five levels": noisy(6),
    "twenty levels": noisy(21),
    "JPEG": as_jpeg,
    "noise and JPEG": lambda image: as_jpeg(noisy(6)(image)),
}


@cache
def drawn():
    return [fundus(seed, (200, 200)) for seed in range(2)]


@pytest.mark.parametrize("factor", [1, 1.35, 1.5, 2, 4])
@pytest.mark.parametrize("camera", CAMERAS)
def test_the_field_of_view_of_an_eye_that_fills_little_of_the_frame(camera, factor):
    """Where most of the frame is border, its noise must not be taken for the eye."""
    for eye in drawn():
        frame, true = in_frame(eye.image, eye.field, factor)
        found = field_of_view(CAMERAS[camera](frame))
        assert (found & true).sum() / (found | true).sum() > 0.95


@pytest.mark.parametrize("image", [np.zeros((3, 30, 40), np.uint8), np.full((3, 9, 8), 90, np.uint8)])
def test_a_picture_without_an_eye_is_all_field(image):
    assert field_of_view(image).all()
    assert field_of_view(image + np.random.default_rng(0).integers(0, 6, image.shape, np.uint8)).all()


# Real files: only their numbers are looked at.

ROOT = os.environ.get("U2LEARN_DATA")


def real(name):
    try:
        return find(name) if ROOT else pytest.skip("U2LEARN_DATA is not set")
    except MissingDataset:
        pytest.skip(f"U2LEARN_DATA has no {name}")


@pytest.mark.parametrize(
    "dataset, size, share, second",
    [
        ("drive", (584, 565), 0.0876, True),
        ("stare", (605, 700), 0.0776, None),
        ("chase", (960, 999), 0.0630, True),
    ],
)
def test_real_sets(dataset, size, share, second):
    real(dataset)
    examples = list(Retina(dataset, "test"))
    assert {example.label.shape for example in examples} == {size}
    assert np.mean([example.label.mean() for example in examples]) == pytest.approx(share, abs=0.002)
    if second is not None:
        assert all((example.second is not None) == second for example in examples)
    for example in examples:
        assert 0.6 < example.field.mean() < 0.85


def test_the_second_observer_on_drive_and_chase_scores_what_is_known():
    for dataset, expected in (("drive", 0.7889), ("chase", 0.7969)):
        real(dataset)
        examples = list(Retina(dataset, "test"))
        first, second = (np.stack([getattr(e, name) for e in examples]) for name in ("label", "second"))
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) == pytest.approx(expected, abs=1e-4)


@cache
def fields(dataset):
    """The fields of all images as they are computed, whether the set has its own or not."""
    whole = Retina(dataset, "all")
    own = dataset in FIELDS_OF_RECORDS  # the computed one is that of the example
    found = (example.field if own else field_of_view(example.image) for example in whole)
    return dict(zip(whole.names, found, strict=True))


FIELDS_OF_RECORDS = {"stare": "dde4eebe9f25baec", "chase": "68a62d2051e78817"}


@pytest.mark.parametrize("dataset", FIELDS_OF_RECORDS)
def test_the_fields_that_records_were_made_with_are_found_to_the_bit(dataset):
    """Scores inside the field of view are in the records, and these sets have no fields of their own."""
    real(dataset)
    digest = hashlib.sha256()
    for field in fields(dataset).values():
        digest.update(np.packbits(field).tobytes())
    assert digest.hexdigest()[:16] == FIELDS_OF_RECORDS[dataset]


@pytest.mark.parametrize("dataset", ["drive", "stare", "chase"])
def test_a_real_eye_that_fills_little_of_a_noisy_frame(dataset):
    real(dataset)
    for example in list(Retina(dataset, "test"))[::10]:
        frame, true = in_frame(example.image, example.field, 2)
        found = field_of_view(CAMERAS["noise and JPEG"](frame))
        assert (found & true).sum() / (found | true).sum() > 0.95


def test_two_pixels_more_or_less_of_a_field_move_a_score_by_little():
    """bob.ip.binseg's masks of CHASE_DB1 are not ours, so its scores and ours may differ by as much."""
    real("chase")
    examples = list(Retina("chase", "test", protocol="binseg"))
    first, second, field = (
        torch.from_numpy(np.stack([getattr(e, name) for e in examples])) > 0
        for name in ("label", "second", "field")
    )

    def grown(mask):
        return F.max_pool2d(mask[:, None].float(), 5, 1, 2)[:, 0] > 0  # by two pixels on each side

    def dice(field):
        return float(2 * (first & second & field).sum() / ((first & field).sum() + (second & field).sum()))

    assert dice(field) == pytest.approx(0.768, abs=5e-4)  # what bob.ip.binseg has for the second observer
    more, less = dice(grown(field)), dice(~grown(~field))
    assert more < dice(field) < less and less - more < 0.003


@pytest.mark.slow
def test_computed_fields_agree_with_masks_that_others_made():
    def overlaps(dataset, path_of):
        folder = real(dataset)
        if not (folder / "fov_masks_thirdparty").is_dir() and dataset != "drive":
            pytest.skip(f"{folder} has no masks of others")
        for name, ours in fields(dataset).items():
            theirs = read_mask(path_of(Path(folder), name)) > 0
            yield (ours & theirs).sum() / (ours | theirs).sum()

    stare = list(overlaps("stare", lambda f, n: f / "fov_masks_thirdparty" / f"mask_{n[2:]}.png"))
    chase = list(overlaps("chase", lambda f, n: f / "fov_masks_thirdparty" / f"Image_{n}.gif"))
    drive = list(overlaps("drive", lambda f, n: next(f.glob(f"*/mask/{n}_*"))))
    assert min(stare) > 0.96 and min(chase) > 0.98 and min(drive) > 0.98
