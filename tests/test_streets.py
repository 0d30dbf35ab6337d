"""Synthetic street scenes: the same for a seed, varied between seeds, and worth learning from."""

import numpy as np
import pytest
import torch

from u2learn.data import SyntheticStreets, street
from u2learn.data.cityscapes import CLASSES, LABELS
from u2learn.data.drawn.streets import Canvas, ground_and_walls
from u2learn.metrics.overlap import confusion, scores

SIZE = (64, 128)


@pytest.fixture(scope="module")
def scenes():
    return {part: SyntheticStreets(part, 24, SIZE)[:] for part in ("train", "val")}


def test_a_seed_gives_the_same_scene_and_another_seed_another():
    (image, ids), (again, ids_again) = street(3, SIZE), street(3, SIZE)
    assert (image == again).all() and (ids == ids_again).all()
    other, other_ids = street(4, SIZE)
    assert (image != other).mean() > 0.5 and (ids != other_ids).mean() > 0.1


def test_what_a_scene_is():
    image, ids = street(0, SIZE)
    assert image.shape == (3, *SIZE) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert ids.shape == SIZE and ids.dtype == np.uint8 and ids.flags.c_contiguous
    assert set(np.unique(ids)) <= {label.id for label in LABELS}


def test_another_size_is_the_same_street():
    """A scene of half the size is the scene, shrunk: most labels agree at every second pixel."""
    for seed in range(4):
        (image, ids), (small, small_ids) = street(seed, (128, 256)), street(seed, SIZE)
        assert (ids[::2, ::2] == small_ids).mean() > 0.9
        shrunk = image.reshape(3, 64, 2, 128, 2).mean((2, 4))
        assert np.abs(shrunk - small).mean() < 12


@pytest.mark.parametrize("seed", range(4))
def test_the_camera_stands_a_metre_and_a_half_above_the_ground(seed):
    """What is as high as the camera lies on the horizon, and the road is as wide as it is seen from there:
    from a height h, a row that is t below the horizon shows a street of width w as w t / h."""
    canvas = Canvas(np.random.default_rng(seed), (128, 256))
    for x, z in ((0, 3), (-4, 20), (2, 90)):
        assert canvas.at(x, 1.5, z)[1] == pytest.approx(canvas.horizon)
    ground_and_walls(np.random.default_rng(seed), canvas, road=3.0)  # metres, half of the width
    road = np.isin(np.array(canvas.ids), [label.id for label in LABELS if label.name in ("road", "parking")])
    row = int(canvas.horizon) + 48
    assert road[row].sum() == pytest.approx(6.0 * (row - canvas.horizon) / 1.5, abs=4)  # pixels


def test_every_class_and_the_void_occur(scenes):
    labels = np.stack([example.label for example in scenes["train"] + scenes["val"]])
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    missing = [name for name, part in zip(CLASSES, share, strict=False) if part == 0]
    assert not missing
    assert 0.02 < share[255] < 0.3
    by_name = dict(zip(CLASSES, share, strict=False))
    assert by_name["road"] > 20 * by_name["person"] > 20 * by_name["train"]  # imbalanced, as streets are


def test_ids_that_are_not_learnt_occur(scenes):
    found = set(np.unique(np.stack([street(seed, SIZE)[1] for seed in range(12)])))
    by_id = {label.id: label.name for label in LABELS}
    assert {"ego vehicle", "out of roi", "ground", "parking"} <= {by_id[number] for number in found}


def test_the_border_and_the_bonnet_are_void(scenes):
    for example in scenes["train"]:
        border = [example.label[0], example.label[-1], example.label[:, 0], example.label[:, -1]]
        assert (np.concatenate(border) == 255).all()
        assert (example.label[-2, 48:80] == 255).all()  # the camera's own car


def test_position_alone_does_not_solve_it(scenes):
    """For each pixel the class that is most frequent there in training: some accuracy, hardly any IoU."""
    labels = np.stack([example.label for example in scenes["train"]])
    votes = np.stack([(labels == k).sum(0) for k in range(19)]).argmax(0)
    found = scores(
        sum(
            confusion(torch.from_numpy(votes), torch.from_numpy(example.label), 19)
            for example in scenes["val"]
        )
    )
    assert 0.4 < found["accuracy"] < 0.75 and found["miou"] < 0.2


def test_colour_alone_does_not_solve_it(scenes):
    """For each of 512 colours the class that is most frequent in training."""

    def cells(example):
        red, green, blue = (example.image // 32).astype(int)
        return (64 * red + 8 * green + blue)[example.label != 255], example.label[example.label != 255]

    counts = np.zeros((512, 19), int)
    for example in scenes["train"]:
        np.add.at(counts, cells(example), 1)
    guess = counts.argmax(1)
    found = torch.zeros(19, 19, dtype=torch.int64)
    for example in scenes["val"]:
        colour, label = cells(example)
        found += confusion(torch.from_numpy(guess[colour]), torch.from_numpy(label), 19)
    assert scores(found)["miou"] < 0.25


def test_nearer_things_hide_farther_ones_and_labels_follow_the_picture(scenes):
    """Edges of the label are edges of the picture: the gradient is larger there than elsewhere."""
    for example in scenes["train"][:8]:
        grey = example.image.astype(float).mean(0)
        step, change = np.abs(np.diff(grey, axis=1)), np.diff(example.label.astype(int), axis=1) != 0
        known = (example.label[:, 1:] != 255) & (example.label[:, :-1] != 255)
        assert step[change & known].mean() > 2 * step[~change & known].mean()
        wrong = np.roll(change & known, 9, axis=1)
        assert step[change & known].mean() > 1.4 * step[wrong].mean()


def test_the_parts_share_no_scene():
    train, val = (SyntheticStreets(part, 50, seed=seed) for part, seed in (("train", 0), ("val", 0)))
    more = SyntheticStreets("train", 50, seed=1)
    assert not set(train.seeds) & set(val.seeds) and not set(train.seeds) & set(more.seeds)
    assert len(train) == 50
    example = SyntheticStreets("val", 3, SIZE)[1:][0]
    assert example.name == "street-3" and example.num_classes == 19


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SyntheticStreets("test"), "parts 'train' and 'val', not 'test'"),
        (lambda: SyntheticStreets("val", 0), "at least 1, not 0"),
        (lambda: street(0, (64, 100)), "64 x 100; a scene is twice as wide as high"),
        (lambda: street(0, (8, 16)), "16 x 32 at least"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
