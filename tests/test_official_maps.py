"""Saliency of a photograph, step by step as published, and the authors' own maps where they are at hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import u2learn
from u2learn import saliency, u2net_small
from u2learn.data.augment import resize


class Net(nn.Module):
    """What it sees, it remembers; its map is a function of the image that this test knows."""

    def __init__(self, classes=1):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4, 0.5]))
        self.classes, self.seen, self.modes = classes, [], []
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        self.seen.append(x)
        self.modes.append(self.norm.training)
        logit = (x * self.weight[:, None, None]).sum(1, keepdim=True)
        return [logit.expand(-1, self.classes, -1, -1), torch.full((1, 1, 1, 1), math.nan)]


def photograph(height, width, channels=3, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (channels, height, width), np.uint8)


def read_points(image, side):
    """Bilinear at single points, 0 outside, clipped to the image's own range: pixel by pixel."""
    channels, height, width = image.shape
    out = np.zeros((channels, side, side))
    for i in range(side):
        for j in range(side):
            y, x = (i + 0.5) * height / side - 0.5, (j + 0.5) * width / side - 0.5
            top, left = math.floor(y), math.floor(x)
            for row in (top, top + 1):
                for column in (left, left + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(y - row)) * (1 - abs(x - column))
                        out[:, i, j] += share * image[:, row, column]
    return out.clip(image.min(), image.max())


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("size", [(40, 57), (9, 13), (24, 24), (1, 1), (100, 3)])
@pytest.mark.parametrize("low", [0, 30])
def test_as_published_by_loops(size, low):
    image, side, net = photograph(*size, low=low, high=200), 24, Net()
    got = saliency(net, image, side=side)
    x = read_points(image / 255, side)
    x = x / x.max()
    x = (x - MEAN[:, None, None]) / STD[:, None, None]
    np.testing.assert_allclose(net.seen[0][0].numpy(), x, rtol=1e-4, atol=1e-5)
    p = 1 / (1 + np.exp(-np.tensordot([0.7, -0.4, 0.5], x, 1)))
    p = (p - p.min()) / (p.max() - p.min())
    due = Image.fromarray((p * 255).astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)
    assert got.dtype == torch.float32 and got.shape == size
    levels = got.numpy() * 255
    assert np.abs(levels - levels.round()).max() < 1e-3  # 8 bits, as in a PNG
    error = np.abs(levels - np.asarray(due))  # truncation turns 1e-6 into one level, here and there
    assert error.max() <= 1.001 and error.mean() < 0.05


def test_grey_photographs_take_the_numbers_of_red():
    image, net = photograph(30, 20, channels=1), Net()
    saliency(net, image, side=16)
    x = read_points(image / 255, 16)[0]
    due = (x / x.max() - 0.485) / 0.229
    for channel in net.seen[0][0].numpy():
        np.testing.assert_allclose(channel, due, rtol=1e-4, atol=1e-5)


def test_the_sane_way_averages_and_does_not_stretch():
    image, net = photograph(64, 96), Net()
    got = saliency(net, image, as_published=False, side=16)
    x = resize(torch.from_numpy(image).double() / 255, (16, 16)).numpy()
    np.testing.assert_allclose(  # 4 x 6 pixels fall together, and those around have a little share
        x[:, 8, 8].mean(), image[:, 30:38, 45:57].mean() / 255, atol=0.05
    )
    x = (x / x.max() - MEAN[:, None, None]) / STD[:, None, None]
    p = torch.from_numpy(1 / (1 + np.exp(-np.tensordot([0.7, -0.4, 0.5], x, 1))))
    torch.testing.assert_close(got, resize(p[None].float(), (64, 96))[0], rtol=1e-4, atol=1e-5)


def test_fine_stripes_vanish_or_become_false_ones():
    """Why averaging: every second column is white; read at single points, some period remains."""
    image, net = np.zeros((3, 64, 64), np.uint8), Net()
    image[:, :, ::2] = 255
    saliency(net, image, side=24)
    saliency(net, image, side=24, as_published=False)
    published, averaged = (x[0, 0].std() for x in net.seen)
    assert published > 5 * averaged


@pytest.mark.parametrize("size", [(1, 1), (17, 5)])
@pytest.mark.parametrize("as_published", [True, False])
def test_black_and_flat_photographs_are_no_division_by_zero(size, as_published):
    for value in (0, 128, 255):
        got = saliency(Net(), np.full((3, *size), value, np.uint8), as_published, side=8)
        assert got.shape == size and got.isfinite().all()
        assert got.min() >= 0 and got.max() <= 1
        if as_published:
            assert not got.any()  # nothing stands out


def test_where_nothing_stands_out_only_the_sane_map_stays_dark():
    class Dark(Net):
        def forward(self, x):
            return [super().forward(x)[0] * 1e-3 - 6]

    image = photograph(20, 30)
    assert saliency(Dark(), image, side=16).max() > 0.5
    assert saliency(Dark(), image, as_published=False, side=16).max() < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode(training):
    net = Net().train(training)
    net.norm.eval()
    saliency(net, photograph(8, 9), side=8)
    assert net.training is training and net.norm.training is False and net.modes == [False]
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.float32),
        torch.rand(3, 8, 8),
        np.zeros((8, 8), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
    ],
)
def test_what_is_no_photograph_is_refused(image):
    with pytest.raises(ValueError, match=r"uint8 image \(3, H, W\) or \(1, H, W\), got .*\.$"):
        saliency(Net(), image)


def test_a_model_of_several_classes_is_refused():
    with pytest.raises(ValueError, match="one map; this one has 3 classes"):
        saliency(Net(3), photograph(8, 8))


def test_a_real_network_at_any_size():
    torch.manual_seed(0)
    model = u2net_small(mid=2, out=4)
    for size in ((1, 1), (3, 5), (97, 131)):
        got = saliency(model, torch.from_numpy(photograph(*size)))
        assert got.shape == size and 0 <= got.min() <= got.max() <= 1
    assert u2learn.saliency is u2learn.inference.saliency
