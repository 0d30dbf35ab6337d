"""Cityscapes from files in its official layout, and the whole way from these files to a score."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics import JaccardIndex

from u2learn import inference, recipes, tasks, training
from u2learn.data import Cityscapes, SyntheticStreets, local, street, write_streets
from u2learn.data.augment import Augmentation
from u2learn.data.cityscapes import CLASSES, LABELS, PALETTE, train_ids

# The reference's list: name, train id, id in the files. Everything else is ignored.
DUE = """
road 0 7, sidewalk 1 8, building 2 11, wall 3 12, fence 4 13, pole 5 17, traffic light 6 19,
traffic sign 7 20, vegetation 8 21, terrain 9 22, sky 10 23, person 11 24, rider 12 25,
car 13 26, truck 14 27, bus 15 28, train 16 31, motorcycle 17 32, bicycle 18 33"""
LABEL = "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png"
IMAGE = "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"


def put(root, path, pixels):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(root / path)


def one_pair(root, label, size=(6, 12)):
    put(root, IMAGE, np.full((*size, 3), 90))
    put(root, LABEL, label)


def test_the_table_is_the_reference():
    due = [entry.strip().rsplit(" ", 2) for entry in DUE.split(",")]
    assert [(label.name, label.train_id, label.id) for label in LABELS if label.train_id != 255] == [
        (name, int(train), int(number)) for name, train, number in due
    ]
    assert tuple(name for name, *_ in due) == CLASSES and len(PALETTE) == 19
    assert [label.id for label in LABELS] == list(range(34))
    assert len(set(PALETTE)) == 19 and PALETTE[CLASSES.index("person")] == (220, 20, 60)


def test_ids_are_translated_one_by_one():
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    entries = [entry.strip().rsplit(" ", 2) for entry in DUE.split(",")]
    learnt = {int(number): int(train) for _, train, number in entries}
    due = [[learnt.get(int(number), 255) for number in row] for row in ids]
    translated = train_ids(ids)
    assert translated.dtype == np.uint8 and translated.tolist() == due


def test_an_example_comes_from_its_two_files(tmp_path):
    ids = np.arange(72).reshape(6, 12) % 34
    one_pair(tmp_path, ids)
    data = Cityscapes("val", tmp_path)
    example = data[0]
    assert len(data) == 1 and data.names == ["ulm_000001_000019"] and example.name == "ulm_000001_000019"
    assert example.num_classes == 19 and example.image.shape == (3, 6, 12) and (example.image == 90).all()
    assert (example.label == train_ids(ids.astype(np.uint8))).all()
    assert [e.name for e in data[:]] == data.names


def test_files_are_read_when_asked_for_in_the_order_of_their_names(tmp_path):
    for part, length in (("train", 3), ("val", 2)):
        write_streets(tmp_path, part, length, (16, 32))
    put(tmp_path, "leftImg8bit/val/aachen/aachen_000000_000000_leftImg8bit.png", np.zeros((16, 32, 3)))
    damaged = tmp_path / "gtFine/val/aachen/aachen_000000_000000_gtFine_labelIds.png"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no picture")
    data = Cityscapes("val", tmp_path)
    assert data.names == ["aachen_000000_000000", "drawn_000000_000001", "drawn_000000_000003"]
    assert len(Cityscapes("train", tmp_path)) == 3
    assert data[2].label.shape == (16, 32)
    with pytest.raises(ValueError, match=r"aachen_000000_000000_gtFine_labelIds\.png cannot be read"):
        data[0]


@pytest.mark.parametrize("wrong", [34, 100, 254, 255])
def test_ids_that_cityscapes_does_not_have_are_refused_with_the_files_name(tmp_path, wrong):
    label = np.full((6, 12), 7)
    label[2, 3] = wrong
    one_pair(tmp_path, label)
    with pytest.raises(ValueError, match=r"ulm_000001_000019_gtFine_labelIds\.png") as error:
        Cityscapes("val", tmp_path)[0]
    assert f"has the ids {wrong}, and Cityscapes has 0 to 33" in str(error.value)
    assert ("labelTrainIds" in str(error.value)) == (wrong == 255)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "nothing"))
    with pytest.raises(local.MissingDataset, match=r"cityscapes-dataset\.com, register there"):
        Cityscapes("val")
    with pytest.raises(ValueError, match="parts of Cityscapes are train and val, not 'test'"):
        Cityscapes("test", tmp_path)
    with pytest.raises(FileNotFoundError, match="leftImg8bit/val: there is no such folder"):
        Cityscapes("val", tmp_path)
    (tmp_path / "leftImg8bit/val/ulm").mkdir(parents=True)
    with pytest.raises(ValueError, match="val part of Cityscapes has no image"):
        Cityscapes("val", tmp_path)
    put(tmp_path, IMAGE, np.zeros((6, 12, 3)))
    with pytest.raises(FileNotFoundError, match=f"{LABEL}: the label of image ulm_000001_000019 is missing"):
        Cityscapes("val", tmp_path)


def test_a_label_of_another_size_or_in_colour_is_refused(tmp_path):
    one_pair(tmp_path, np.full((5, 12), 7))
    with pytest.raises(ValueError, match=r"ulm_000001_000019: the label is 5 x 12, the image 6 x 12"):
        Cityscapes("val", tmp_path)[0]
    one_pair(tmp_path, np.tile(np.array((128, 64, 128)), (6, 12, 1)))
    with pytest.raises(ValueError, match=r"labelIds\.png is in colour"):
        Cityscapes("val", tmp_path)[0]


def test_the_store_finds_a_copy_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    write_streets(tmp_path / "Cityscapes", "val", 2, (16, 32))
    check = local.verify("cityscapes")
    assert check.found == {
        "training images": 0, "training labels": 0, "validation images": 2, "validation labels": 2,
    }  # fmt: skip
    assert "validation labels (2 of 500)" in check.missing and not check.complete
    assert [example.name for example in Cityscapes("val")] == ["drawn_000000_000001", "drawn_000000_000003"]


def test_written_scenes_come_back_as_they_were_drawn(tmp_path):
    write_streets(tmp_path, "train", 2, (32, 64), seed=1)
    image, ids = street(200_000, (32, 64))
    stored = Image.open(tmp_path / "gtFine/train/drawn/drawn_000001_200000_gtFine_labelIds.png")
    assert stored.mode == "L" and (np.asarray(stored) == ids).all()
    read = Cityscapes("train", tmp_path)[:]
    for mine, due in zip(read, SyntheticStreets("train", 2, (32, 64), seed=1), strict=True):
        assert (mine.image == due.image).all() and (mine.label == due.label).all()
    assert (read[0].image == image).all()


def test_from_files_to_a_score_equal_to_torchmetrics(tmp_path):
    """Files in the official layout, a short training, whole images in 6 scales and mirrored, mIoU."""
    for part, length in (("train", 6), ("val", 3)):
        write_streets(tmp_path / "cityscapes", part, length, (32, 64))
    train, val = (Cityscapes(part, tmp_path / "cityscapes") for part in ("train", "val"))
    recipe = recipes.Recipe(
        name="streets", dataset="cityscapes", model="unet_small", num_classes=19, crop=(32, 64), batch=4,
        model_options={"width": 8, "depth": 3}, augmentation=Augmentation(scale=(0.5, 2.0), flips="h"),
        optimiser="adamw", learning_rate=0.02, final_rate=0.0, warm_up=0.2, iterations=40, evaluations=2,
        views="h", scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    )  # fmt: skip
    model = training.train(recipe, tmp_path / "run", train, val, "cpu", progress=False)
    result = tasks.evaluate(model, recipe, val).scores.score()

    due = JaccardIndex(task="multiclass", num_classes=19, ignore_index=255, average="macro")
    for example in val:
        prediction = inference.segment(model, example.image, recipe).argmax(0)
        due.update(prediction[None], torch.from_numpy(example.label).long()[None])
    assert result["miou"] == pytest.approx(float(due.compute()), abs=1e-6)
    assert any(np.isnan(result["iou_per_class"]))  # some class is absent, in torchmetrics' mean as well
    assert result["miou"] > 0.1 and result["accuracy"] > 0.5  # it has learnt something

    log = training.read_log(tmp_path / "run")
    assert log[-1]["miou"] == result["miou"]
    single = tasks.evaluate(model, dataclasses.replace(recipe, views="", scales=(1,)), val).scores
    assert single.score()["miou"] != result["miou"]


def test_the_twelve_views_are_averaged_as_published():
    """Each view is resized, mirrored, predicted, mirrored back, resized back; softmax; mean (mmseg 0.x)."""
    example = SyntheticStreets("val", 1, (32, 64))[0]
    recipe = recipes.Recipe(
        name="x", dataset="streets", model="unet_small", num_classes=19, crop=(32, 64),
        model_options={"width": 4, "depth": 2}, views="h", scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    )  # fmt: skip
    model = recipe.build_model().eval()
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    image = ((torch.from_numpy(example.image).float() - mean) / std)[None]
    total = torch.zeros(1, 19, 32, 64)
    for scale in recipe.scales:
        scaled = torch.nn.functional.interpolate(
            image, size=(int(32 * scale + 0.5), int(64 * scale + 0.5)), mode="bilinear", align_corners=False
        )
        for mirrored in (False, True):
            with torch.no_grad():
                logits = model(scaled.flip(3) if mirrored else scaled)[0]
            logits = torch.nn.functional.interpolate(logits, (32, 64), mode="bilinear", align_corners=False)
            total += (logits.flip(3) if mirrored else logits).softmax(1)
    got = inference.segment(model, example.image, recipe)
    assert torch.allclose(got, total[0] / 12, atol=1e-5)
