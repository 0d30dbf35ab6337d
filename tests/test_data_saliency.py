"""The saliency sets: layouts, protocols, masks of every kind, files that do not pair; ECSSD where it is."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2learn.data import catalogue, local
from u2learn.data.example import read_mask
from u2learn.data.local import MissingDataset
from u2learn.data.saliency import PROTOCOLS, SUBSETS, TESTS, Saliency, paired

SIZE = (20, 24)  # (H, W) of the tiny images here
OFFICIAL = {  # set -> the folders that its makers hand out: (images, masks, how many files here)
    "duts": [
        ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", 5),
        ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", 3),
    ],
    "ecssd": [("images", "ground_truth_mask", 4)],
    "hku-is": [("imgs", "gt", 3)],
    "pascal-s": [("datasets/imgs/pascal", "datasets/masks/pascal", 3)],
    "dut-omron": [("DUT-OMRON-image", "pixelwiseGT-new-PNG", 3)],
    "sod": [("Images", "Masks", 3)],
    "dis5k": [
        (f"DIS-{p}/im", f"DIS-{p}/gt", n) for n, p in enumerate(("TR", "VD", "TE1", "TE2", "TE3", "TE4"), 3)
    ],
}  # fmt: skip


def mask(seed):
    return (np.random.default_rng(1000 + seed).random(SIZE) < 0.3).astype(np.uint8)


def picture(seed, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def put(folder, images, masks, names, ending=".jpg"):
    """Images with masks of 0 and 255, as the official sets have them."""
    for kind in (images, masks):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        picture(seed).save(folder / images / f"{name}{ending}")
        Image.fromarray(mask(seed) * 255).save(folder / masks / f"{name}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of all sets in their official layouts."""
    root = tmp_path_factory.mktemp("sets")
    for name, parts in OFFICIAL.items():
        for images, masks, count in parts:
            names = [f"{n:04}" for n in (1, 700, 701, 1000, 1001, 1002, 1003, 1004)[:count]]
            put(
                root / catalogue.DATASETS[name].folder,
                images,
                masks,
                names,
                ".png" if name == "hku-is" else ".jpg",
            )
    return root


@pytest.fixture(autouse=True)
def home(root, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(root))


# --- layouts and protocols ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", TESTS)
def test_the_official_layouts_are_read(dataset, root):
    protocol = "dis5k" if dataset.startswith("dis-") else "duts"
    counts = {SUBSET_OF[name]: n for parts in OFFICIAL.values() for name, _, n in parts}
    test, train = (Saliency(dataset, part, protocol=protocol) for part in ("test", "train"))
    assert len(test) == counts[dataset] and len(train) == (5 if protocol == "duts" else 3)
    example = test[1]
    assert example.name == f"{dataset}-0700"
    assert np.array_equal(example.label, mask(1)) and example.image.shape == (3, *SIZE)
    assert example.field is None and example.num_classes == 2
    assert [e.name for e in test[:2]] == [f"{dataset}-0001", f"{dataset}-0700"]


SUBSET_OF = {images: name for name, (_, images, _) in SUBSETS.items()}


def test_the_store_finds_and_counts_what_is_read(root):
    """Each kind of the store's table counts exactly the files that the reader would read."""
    for name, parts in OFFICIAL.items():
        check = local.verify(name)
        assert check.folder == root / catalogue.DATASETS[name].folder and not check.unreadable
        assert list(check.found.values()) == [n for *_, n in parts for _ in range(2)]
    due = {
        "duts": 10553 + 5019,
        "ecssd": 1000,
        "hku-is": 4447,
        "pascal-s": 850,
        "dut-omron": 5168,
        "sod": 300,
    }
    due["dis5k"] = 5470  # reference: the tables of both papers
    for name, total in due.items():
        numbers = [n for kind, (_, n) in catalogue.DATASETS[name].contents.items() if "images" in kind]
        assert sum(numbers) == total, name


@pytest.mark.parametrize("dataset", ["ecssd", "hku-is", "pascal-s", "dut-omron", "sod", "duts", "dis-te2"])
@pytest.mark.parametrize(("images", "masks"), [("image", "mask"), ("Images", "Masks"), ("im", "GT")])
def test_copies_that_others_handed_on_are_read_too(tmp_path, monkeypatch, dataset, images, masks):
    inner = {"duts": "DUTS-TE/", "dis-te2": "DIS-TE2/"}.get(dataset, "")
    name = SUBSETS[dataset].dataset
    put(tmp_path / catalogue.DATASETS[name].folder, inner + images, inner + masks, ["a", "b"])
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    protocol = "dis5k" if dataset.startswith("dis") else "duts"
    assert Saliency(dataset, "test", protocol=protocol).names == ["a", "b"]


def test_duts_trains_every_set_of_its_table_and_dis_tr_its_own():
    tables = {name: Saliency(name, "train").subset for name in PROTOCOLS["duts"][1]}
    assert tables == dict.fromkeys(("duts", "ecssd", "hku-is", "pascal-s", "dut-omron", "sod"), "duts-tr")
    assert Saliency("dis-te3", "train", protocol="dis5k")[0].name == "dis-tr-0001"


def test_the_study_is_cut_by_number_so_that_a_lost_file_shifts_nothing(tmp_path):
    def names(part):
        return Saliency("ecssd", part, tmp_path, "study").names

    put(tmp_path, "images", "ground_truth_mask", [f"{n:04}" for n in range(1, 1001) if n != 3])
    assert (len(names("train")), len(names("test"))) == (699, 300)
    assert names("train")[-1] == "0700" and names("test")[0] == "0701" and names("test")[-1] == "1000"
    assert not set(names("train")) & set(names("test"))
    assert len(Saliency("ecssd", "test", tmp_path)) == 999  # the published test is all of it


# --- masks and images of every kind -------------------------------------------------------------------------


def stored(how, values):
    """One mask as files have it: mode and values."""
    image = Image.fromarray(values * 255) if "255" in how else Image.fromarray(values)
    return image.convert("RGB" if "RGB" in how else how[0] if how[0] == "1" else "L")


@pytest.mark.parametrize("how", ["1 255", "L 255", "RGB 255", "L 1", "RGB 1"])
@pytest.mark.parametrize("dataset", ["ecssd", "pascal-s"])
def test_masks_of_every_kind(tmp_path, how, dataset):
    images, masks = SUBSETS[dataset][1:]
    put(tmp_path, images, masks, ["0001"])
    stored(how, mask(3)).save(tmp_path / masks / "0001.png")
    assert np.array_equal(Saliency(dataset, "test", tmp_path)[0].label, mask(3))


def test_a_grey_image_has_three_equal_channels(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0557"])
    grey = picture(5).convert("L")
    grey.save(tmp_path / "images" / "0557.jpg", quality=95)
    image = Saliency("ecssd", "test", tmp_path)[0].image
    assert (image == image[:1]).all() and image.shape == (3, *SIZE)


def test_graded_masks_are_cut_as_the_authors_program_does():
    """255 g / max > 128, also where no observer's object is bright and where nothing is marked."""
    for values in (
        [0, 40, 120],
        [0, 60, 61, 120],
        [0, 85, 170, 255],
        [0, 128, 255],
        [0, 129, 255],
        [0],
        [90],
    ):
        grey = np.array(values * 6, np.uint8).reshape(6, -1)
        path = Path(os.environ["U2LEARN_DATA"]) / "graded.png"
        Image.fromarray(grey).save(path)
        top = grey.max()
        due = grey / top * 255 > 128 if top else grey > 0
        assert np.array_equal(read_mask(path, graded=True), due), values


def test_what_few_observers_marked_is_a_mask_of_pascal_s_only(tmp_path):
    """Three grey values below 128: shares of agreement there, and nobody's mask elsewhere."""
    grey = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 3 * 50
    for dataset in ("pascal-s", "ecssd"):
        put(tmp_path / dataset, *SUBSETS[dataset][1:], ["0001"])
        Image.fromarray(grey).save(tmp_path / dataset / SUBSETS[dataset].masks / "0001.png")
    assert np.array_equal(Saliency("pascal-s", "test", tmp_path / "pascal-s")[0].label, grey == 100)
    with pytest.raises(ValueError, match="no binary mask"):
        Saliency("ecssd", "test", tmp_path / "ecssd")[0]


def test_soft_edges_are_cut_at_half(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001"])
    soft = np.zeros(SIZE, np.uint8)
    soft[:, 10:] = 255
    soft[:, 9], soft[:, 8] = 128, 127
    Image.fromarray(soft).save(tmp_path / "ground_truth_mask" / "0001.png")
    label = Saliency("ecssd", "test", tmp_path)[0].label
    assert (label[:, 9:] == 1).all() and (label[:, :9] == 0).all()


# --- what is refused ----------------------------------------------------------------------------------------


def sentence(error) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_files_that_do_not_pair_are_named(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001", "0002", "0003"])
    (tmp_path / "ground_truth_mask" / "0002.png").unlink()
    (tmp_path / "images" / "0003.jpg").unlink()
    with pytest.raises(ValueError) as error:
        Saliency("ecssd", "test", tmp_path)
    message = sentence(error)
    assert "image without mask: 0002.jpg" in message and "mask without image: 0003.png" in message
    assert "0001" not in message and str(tmp_path / "images") in message


def test_one_name_twice_is_refused(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001", "0002"])
    picture(9).save(tmp_path / "images" / "0002.png")
    with pytest.raises(ValueError, match=r"ambiguous names: 0002\.jpg") as error:
        Saliency("ecssd", "test", tmp_path)
    sentence(error)


def test_sizes_that_differ_are_refused_by_name(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001"])
    picture(1, (20, 26)).save(tmp_path / "images" / "0001.jpg")
    with pytest.raises(ValueError, match="ecssd-0001: the label is 20 x 24, the image 20 x 26"):
        Saliency("ecssd", "test", tmp_path)[0]


def test_a_photograph_is_no_mask(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001"])
    picture(1).save(tmp_path / "ground_truth_mask" / "0001.png")
    with pytest.raises(ValueError, match=r"0001\.png is no binary mask"):
        Saliency("ecssd", "test", tmp_path)[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("duts-tr", "test"), "no saliency set 'duts-tr'; there are duts, ecssd, hku-is"),
        (("ecssd", "val"), "no saliency part 'val'; there are train, test"),
        (("ecssd", "test", None, "mmseg"), "no saliency protocol 'mmseg'; there are duts, dis5k, study"),
        (("dis-vd", "test"), "'duts' tests on duts, ecssd, .*sod, not on 'dis-vd'"),
        (("sod", "test", None, "study"), "'study' tests on ecssd, not on 'sod'"),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(arguments, text):
    with pytest.raises(ValueError, match=text) as error:
        Saliency(*arguments)
    sentence(error)


def test_a_set_that_is_not_there_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    with pytest.raises(MissingDataset, match=r"u2learn data fetch ecssd.*hsaliency"):
        Saliency("ecssd", "test")
    with pytest.raises(MissingDataset, match=r"u2learn data fetch duts"):  # what trains is another set
        Saliency("ecssd", "train")
    with pytest.raises(FileNotFoundError, match=r"no folders images and ground_truth_mask") as error:
        Saliency("ecssd", "test", tmp_path)
    assert str(error.value).endswith("?")


def test_an_empty_part_is_refused(tmp_path):
    put(tmp_path, "images", "ground_truth_mask", ["0001"])
    with pytest.raises(ValueError, match=r"The test part of ecssd \(study\) has no image"):
        Saliency("ecssd", "test", tmp_path, "study")


def test_ten_thousand_files_pair_in_a_second(tmp_path):
    """DUTS-TR has 10,553 of each."""
    import time

    for kind, ending in (("images", "jpg"), ("ground_truth_mask", "png")):
        (tmp_path / kind).mkdir()
        for n in range(10_000):
            (tmp_path / kind / f"{n:05}.{ending}").touch()
    started = time.process_time()
    assert len(paired("ecssd", tmp_path)) == 10_000
    assert time.process_time() - started < 5  # about one second; pair against pair would take a minute


# --- the real set -------------------------------------------------------------------------------------------


def test_ecssd_is_whole(monkeypatch):
    monkeypatch.undo()
    try:
        test = Saliency("ecssd", "test")
    except MissingDataset as error:
        pytest.skip(str(error))
    assert len(test) == 1000 and all(re.fullmatch(r"\d{4}", name) for name in test.names)
    for i in (0, 556, 999):  # 0557 is grey
        example = test[i]
        assert 0.005 < example.label.mean() < 0.9
        assert ((example.image == example.image[:1]).all()) == (i == 556)
