"""Synthetic fundus photographs: contract, likeness to real ones, determinism."""

import time

import numpy as np
import pytest

from u2learn.data.drawn.retina import SyntheticRetina, fundus

SIZES = [(584, 565), (256, 256), (96, 96)]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module", params=SIZES, ids=str)
def pictures(request):
    return [fundus(seed, request.param) for seed in range(6)]


def test_arrays_are_what_the_contract_says(pictures):
    for example in pictures:
        size = example.label.shape
        assert example.image.shape == (3, *size) and example.image.dtype == np.uint8
        assert example.label.dtype == example.second.dtype == np.uint8
        assert example.field.shape == size and example.field.dtype == bool
        assert set(np.unique(example.label)) == set(np.unique(example.second)) == {0, 1}


def test_vessels_lie_inside_the_field_and_cover_as_much_of_it_as_in_real_photographs(pictures):
    for example in pictures:
        assert not example.label[~example.field].any() and not example.second[~example.field].any()
    share = np.mean([example.label[example.field].mean() for example in pictures])
    assert 0.08 < share < 0.16  # DRIVE: 0.127


def test_it_looks_like_a_fundus(pictures):
    for example in pictures:
        red, green, blue = (channel[example.field].mean() for channel in example.image)
        assert red > 1.5 * green > 1.5 * blue
        assert example.image[:, ~example.field].mean() < 12
        h, w = example.label.shape
        assert example.field.sum() == pytest.approx(np.pi * (0.48 * min(h, w)) ** 2, rel=0.02)


def test_vessels_are_darker_than_what_lies_beside_them_in_green_most_of_all(pictures):
    for example in pictures:
        vessel = example.label > 0
        beside = np.zeros_like(vessel)
        for shift in (-6, 6):
            beside |= np.roll(vessel, shift, 0) | np.roll(vessel, shift, 1)
        beside &= ~vessel & example.field
        drop = [1 - channel[vessel].mean() / channel[beside].mean() for channel in example.image]
        assert drop[1] > 0.04 and drop[1] > drop[0]


def test_no_threshold_on_green_solves_it(pictures):
    best = []
    for example in pictures:
        vessel = example.label > 0
        dark = [(example.image[1] < level) & example.field for level in range(10, 200, 3)]
        best.append(max(dice(d, vessel) for d in dark))
    assert 0.2 < np.mean(best) < 0.6


def test_the_second_observer_agrees_about_as_well_as_people_do(pictures):
    agreement = [dice(example.label > 0, example.second > 0) for example in pictures]
    assert 0.7 < np.mean(agreement) < 0.9 and max(agreement) < 0.95  # DRIVE: 0.789


def test_the_second_observer_misses_whole_vessels_and_sees_some_others():
    def far(vessels, others):
        near = np.zeros_like(others)
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                near |= np.roll(others, (dy, dx), (0, 1))
        return (vessels & ~near).sum() / vessels.sum()

    pictures = [fundus(seed, (584, 565)) for seed in range(4)]
    missed = [far(example.label > 0, example.second > 0) for example in pictures]
    added = [far(example.second > 0, example.label > 0) for example in pictures]
    assert 0.05 < np.mean(missed) < 0.3 and 0.002 < np.mean(added) < np.mean(missed)


def test_same_seed_same_picture_and_another_seed_another_one():
    first, again, other = fundus(7, (96, 96)), fundus(7, (96, 96)), fundus(8, (96, 96))
    for name in ("image", "label", "field", "second"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert first.name == again.name != other.name
    assert not np.array_equal(first.label, other.label)


def test_a_seed_draws_the_same_anatomy_at_every_size():
    small, large = fundus(3, (128, 128)), fundus(3, (512, 512))
    blocks = large.label.reshape(128, 4, 128, 4).max((1, 3)) > 0
    found = blocks[small.label > 0].mean()
    assert found > 0.95  # the small picture has only vessels of the large one, though not all


def test_pictures_differ_in_colour_and_contrast():
    pictures = [fundus(seed, (64, 64)) for seed in range(12)]
    means = np.array([example.image[:, example.field].mean(1) for example in pictures])
    assert (means.std(0) > 3).all()
    assert (
        len({bool(example.image[1, :, :24].max() > example.image[1, :, 40:].max()) for example in pictures})
        == 2
    )


def test_train_and_test_share_no_seed_whatever_the_seed_of_the_set():
    train = {s for seed in range(5) for s in SyntheticRetina("train", 50, seed=seed).seeds}
    test = {s for seed in range(5) for s in SyntheticRetina("test", 50, seed=seed).seeds}
    assert len(train) == len(test) == 250 and not train & test


def test_a_set_is_a_sequence():
    pictures = SyntheticRetina("test", length=3, size=(32, 48))
    assert len(pictures) == 3 and pictures[0].image.shape == (3, 32, 48)
    assert [example.name for example in pictures] == [example.name for example in pictures[0:3]]
    assert pictures[-1].name == pictures[2].name
    with pytest.raises(IndexError):
        pictures[3]


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="16 pixels"):
        fundus(0, (8, 64))
    with pytest.raises(ValueError, match="'train' and 'test', not 'val'"):
        SyntheticRetina("val")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        SyntheticRetina("train", 0)


@pytest.mark.parametrize("size", [(16, 16), (17, 90), (90, 17)])
def test_odd_and_small_sizes_work(size):
    example = fundus(0, size)
    assert example.label.shape == size and example.label.any()


def test_it_is_fast_enough_to_draw_a_training_set_in_seconds():
    start = time.process_time()
    fundus(0)
    assert time.process_time() - start < 1.0  # about 0.1 s on a free core
