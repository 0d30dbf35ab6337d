"""Drawn salient things: contract, what makes them a task, determinism, thin structures."""

import time

import numpy as np
import pytest

from u2learn.data.drawn.objects import THINGS, WIRES, SyntheticObjects, salient
from u2learn.metrics.saliency import score_saliency

SIZES = [(96, 96), (64, 96), (120, 90)]


@pytest.fixture(scope="module", params=[False, True], ids=["things", "wires"])
def pictures(request):
    return [salient(seed, (96, 96), request.param) for seed in range(40)]


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_arrays_are_what_the_contract_says(size, thin):
    for seed in range(5):
        example = salient(seed, size, thin)
        assert example.image.shape == (3, *size) and example.image.dtype == np.uint8
        assert example.label.shape == size and set(np.unique(example.label)) == {0, 1}
        assert example.field is None and example.num_classes == 2


def test_something_is_salient_and_not_everything(pictures):
    shares = [example.label.mean() for example in pictures]
    assert min(shares) > 0.01 and max(shares) < 0.75
    thin = pictures[0].name.startswith("thin")
    assert (0.04 < np.mean(shares) < 0.12) if thin else (0.18 < np.mean(shares) < 0.32)  # ECSSD: 0.24


def test_simple_rules_do_not_solve_it(pictures):
    """Brightness, a place in the middle, a colour unlike the border's: the best cut of each, over all."""

    def best(maps):
        pairs = [(m / m.max(), e.label) for m, e in zip(maps, pictures, strict=True)]
        return score_saliency(pairs, also=())["max_f"]

    middle = np.mean([e.label for e in pictures], 0)
    far = []
    for image in (e.image.astype(float) for e in pictures):
        edge = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1).mean(1)
        far.append(np.abs(image - edge[:, None, None]).mean(0))
    assert best([e.image.mean(0) for e in pictures]) < 0.55
    assert best([middle] * len(pictures)) < 0.7
    assert 0.6 < best(far) < 0.9  # so it can be learnt, and there is something to learn


def test_every_kind_of_thing_is_drawn(monkeypatch):
    for kinds, thin in ((THINGS, False), (WIRES, True)):
        for make in kinds:
            rng = np.random.default_rng(3)
            parts = make(rng)
            assert all(
                points.ndim == 2 and points.shape[1] == 2 and tone in (0, 1, 2) for points, tone in parts
            )
            everything = np.concatenate([points for points, _ in parts])
            assert np.quantile(np.abs(everything), 0.9) < 1.6 and np.ptp(everything, 0).min() > 0.5
        monkeypatch.setattr(f"u2learn.data.drawn.objects.{'WIRES' if thin else 'THINGS'}", kinds[:1])
        salient(0, (64, 64), thin)
        monkeypatch.undo()


def test_wires_are_thin_and_full_of_holes():
    """Most of a wire thing lies within two of 320 pixels of its border; of the others hardly any does."""
    ndimage = pytest.importorskip("scipy.ndimage")
    near = {}
    for thin in (False, True):
        masks = [salient(seed, (320, 320), thin).label > 0 for seed in range(12)]
        near[thin] = np.mean([(ndimage.distance_transform_edt(m)[m] <= 2.5).mean() for m in masks])
    assert near[True] > 0.5 > 0.25 > near[False]


def test_same_seed_same_picture_and_another_seed_another_one():
    for thin in (False, True):
        first, again, other = (salient(seed, (64, 64), thin) for seed in (7, 7, 8))
        assert np.array_equal(first.image, again.image) and np.array_equal(first.label, again.label)
        assert first.name == again.name != other.name and not np.array_equal(first.label, other.label)


def test_a_seed_draws_the_same_scene_at_every_size():
    for seed in range(6):
        small, large = salient(seed, (80, 80)), salient(seed, (320, 320))
        share = large.label.reshape(80, 4, 80, 4).mean((1, 3))
        sure = (share == 0) | (share == 1)
        assert (small.label == share)[sure].mean() > 0.995
        coarse = large.image.reshape(3, 80, 4, 80, 4).mean((2, 4))
        assert np.abs(coarse.mean((1, 2)) - small.image.mean((1, 2))).max() < 8


def test_pictures_differ():
    pictures = [salient(seed, (64, 64)) for seed in range(20)]
    assert np.std([e.image.mean((1, 2)) for e in pictures], 0).min() > 20
    brighter = [e.image.mean(0)[e.label > 0].mean() > e.image.mean(0)[e.label == 0].mean() for e in pictures]
    assert 3 < sum(brighter) < 17  # things are not always the bright ones


def test_a_set_is_a_sequence_with_two_parts_that_share_nothing():
    train, test = (SyntheticObjects(part, 30, (32, 48), seed=2) for part in ("train", "test"))
    assert len(train) == 30 and train[0].image.shape == (3, 32, 48) and not set(train.seeds) & set(test.seeds)
    assert [e.name for e in test[:2]] == [test[0].name, test[1].name]
    assert SyntheticObjects("test", 2, (32, 32), thin=True)[0].name.startswith("thin-")
    with pytest.raises(ValueError, match="'train' and 'test', not 'val'"):
        SyntheticObjects("val")


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (200, 33)])
def test_odd_and_small_sizes_work(size):
    assert salient(0, size).label.shape == size


def test_too_small_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"20 x 64.*32 pixels a side\.$"):
        salient(0, (20, 64))


def test_it_is_fast_enough_to_draw_a_training_set_in_seconds():
    started = time.process_time()
    for seed in range(10):
        salient(seed, (64, 64))
    assert time.process_time() - started < 1.0  # about 0.07 s on a free core
