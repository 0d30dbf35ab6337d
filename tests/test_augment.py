"""Augmentation as properties: an image that encodes its own coordinates tells where every pixel came from."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional as F

from u2learn.data import augment as module
from u2learn.data.augment import (
    Augmentation,
    colour_jitter,
    hsv_to_rgb,
    jitter,
    normalise,
    photometric_distortion,
    resize,
    rgb_to_hsv,
    sample_batch,
    shrunk_size,
)

HEIGHT, WIDTH = 97, 131


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(count: int = 1, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Red is the row, green the column, blue is full: uint8 (count, 3, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (
        torch.stack([rows, columns, torch.full_like(rows, 255)]).byte().expand(count, -1, -1, -1).contiguous()
    )


def noise_labels(count: int = 1, classes: int = 2, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.randint(0, classes, (count, height, width), generator=seeded(9)).byte()


def draw(augment: Augmentation, batch: int = 64, crop: tuple[int, int] = (32, 40), seed: int = 0):
    """Rows and columns (B, h, w) that were read, where they are inside, and the labels."""
    images, labels = coordinates(), noise_labels()
    x, y = sample_batch(images, labels, torch.zeros(batch, dtype=torch.int64), crop, augment, seeded(seed))
    return x[:, 0] * 255, x[:, 1] * 255, x[:, 2] > 0.5, y, labels[0]


ALL = Augmentation(scale=(0.5, 2.0), rotate=180, flips="hv")
EVERY = {
    "none": Augmentation(),
    "scale": Augmentation(scale=(0.5, 2.0)),
    "rotate": Augmentation(rotate=180),
    "elastic": Augmentation(elastic=4),
    "flips": Augmentation(flips="hv"),
    "all": ALL,
    "balance": Augmentation(scale=(0.5, 2.0), rotate=45, flips="h", max_share=0.75),
}


# --- image and label ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", EVERY.values(), ids=EVERY)
def test_every_label_is_that_of_its_pixel(augment):
    """Noise as the label map: a shift of one pixel anywhere would be seen."""
    row, column, inside, y, labels = draw(augment)
    sure = inside & ((row % 1 - 0.5).abs() > 2e-3) & ((column % 1 - 0.5).abs() > 2e-3)
    assert sure.float().mean() > 0.4
    due = labels[row.round().long().clamp(0, HEIGHT - 1), column.round().long().clamp(0, WIDTH - 1)]
    assert torch.equal(y[sure], due[sure].long())


@pytest.mark.parametrize("augment", EVERY.values(), ids=EVERY)
def test_outside_is_black_and_ignored_and_inside_is_neither(augment):
    images = torch.full((1, 3, 40, 50), 255, dtype=torch.uint8)
    labels = torch.ones(1, 40, 50, dtype=torch.uint8)
    x, y = sample_batch(images, labels, torch.zeros(64, dtype=torch.int64), (48, 40), augment, seeded())
    outside = (y == 255)[:, None].expand_as(x)
    assert 0 < outside.float().mean() < 0.9
    assert not x[outside].any()
    assert x[~outside].min() > 1 - 1e-5  # a white image is white up to its border
    assert set(y.unique().tolist()) == {1, 255}


def test_types_and_range():
    images = torch.randint(0, 256, (3, 3, 50, 60), dtype=torch.uint8, generator=seeded())
    x, y = sample_batch(images, noise_labels(3, 2, 50, 60), torch.arange(3), (17, 23), ALL, seeded())
    assert x.shape == (3, 3, 17, 23) and x.dtype == torch.float32
    assert y.shape == (3, 17, 23) and y.dtype == torch.int64
    assert x.min() >= 0 and x.max() <= 1


def test_a_plain_window_is_an_exact_piece_of_its_image():
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8, generator=seeded())
    labels = noise_labels(2, 2, 20, 30)
    index = torch.tensor([1, 0] * 16)
    x, y = sample_batch(images, labels, index, (8, 12), Augmentation(), seeded())
    for i, (window, label) in enumerate(zip(x, y, strict=True)):
        pieces = [
            (top, left)
            for top in range(13)
            for left in range(19)
            if torch.equal(label.byte(), labels[index[i], top : top + 8, left : left + 12])
        ]
        assert len(pieces) == 1
        top, left = pieces[0]
        torch.testing.assert_close(window * 255, images[index[i], :, top : top + 8, left : left + 12].float())


def test_index_says_which_images():
    images = (torch.arange(5) * 50).byte()[:, None, None, None].expand(5, 3, 20, 20).contiguous()
    labels = torch.arange(5).byte()[:, None, None].expand(5, 20, 20).contiguous()
    index = torch.tensor([4, 0, 4, 2, 1])
    x, y = sample_batch(images, labels, index, (6, 6), Augmentation(flips="h"), seeded(), num_classes=5)
    assert torch.equal(y[:, 0, 0], index)
    torch.testing.assert_close(x[:, 1, 3, 3] * 255, index.float() * 50)


def test_same_generator_same_batch():
    images, labels, index = coordinates(2), noise_labels(2), torch.tensor([0, 1, 1])
    one, two, other = (sample_batch(images, labels, index, (32, 32), ALL, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_global_random_state_is_neither_used_nor_changed():
    images, labels, index = coordinates(), noise_labels(), torch.tensor([0])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = sample_batch(images, labels, index, (32, 32), ALL, seeded())[0]
    photometric_distortion(one, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(one, sample_batch(images, labels, index, (32, 32), ALL, seeded())[0])


# --- where windows lie --------------------------------------------------------------------------------------


def geometry(augment: Augmentation, batch: int = 4000, seed: int = 0):
    """Scale, angle in degrees and handedness of every window, from the coordinates in its middle."""
    images = coordinates(1, 250, 250)
    crop = (9, 9)
    labels = torch.zeros(1, 250, 250, dtype=torch.uint8)
    x, _ = sample_batch(images, labels, torch.zeros(batch, dtype=torch.int64), crop, augment, seeded(seed))
    row, column = x[:, 0] * 255, x[:, 1] * 255
    whole = (
        (x[:, 2] > 0.999).flatten(1).all(1)
        & (row.flatten(1).amin(1) > 0.5)
        & (column.flatten(1).amin(1) > 0.5)
    )
    whole &= (row.flatten(1).amax(1) < 248.5) & (column.flatten(1).amax(1) < 248.5)
    row, column = row[whole], column[whole]
    right = (
        torch.stack([row[:, 4, 8] - row[:, 4, 0], column[:, 4, 8] - column[:, 4, 0]]) / 8
    )  # (2, B): d(row, column)
    down = torch.stack([row[:, 8, 4] - row[:, 0, 4], column[:, 8, 4] - column[:, 0, 4]]) / 8
    assert (right.norm(dim=0) - down.norm(dim=0)).abs().max() < 1e-3  # no stretch
    assert ((right * down).sum(0)).abs().max() < 1e-3  # no shear
    hand = down[0] * right[1] - down[1] * right[0]
    return 1 / right.norm(dim=0), right, down, hand.sign()


def uniform_within(values: torch.Tensor, low: float, high: float) -> None:
    """Inside of the range, filling it evenly: every tenth of the range holds about a tenth."""
    values = values.double()
    slack = 1e-3 * (high - low)
    assert low - slack <= values.min() and values.max() <= high + slack
    shares = torch.histc(values, 10, low, high) / len(values)
    assert (shares - 0.1).abs().max() < 5 * math.sqrt(0.09 / len(values)), shares


def fair(chances: torch.Tensor, chance: float = 0.5) -> None:
    deviation = math.sqrt(chance * (1 - chance) / len(chances))
    assert abs(chances.double().mean().item() - chance) < 4.5 * deviation


def test_without_options_nothing_is_scaled_turned_or_flipped():
    scale, right, down, _ = geometry(Augmentation(), 200)
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=1e-4, atol=0)
    assert right[0].abs().max() < 1e-3 and (right[1] > 0).all() and (down[0] > 0).all()


def test_scale_is_uniform_in_its_range():
    scale, *_ = geometry(Augmentation(scale=(0.5, 2.0)), 6000)
    # `geometry` leaves out windows at the border, which large images have less often: a wide tolerance
    assert scale.min() >= 0.5 - 1e-3 and scale.max() <= 2 + 1e-3
    assert scale.min() < 0.51 and scale.max() > 1.99
    shares = torch.histc(scale, 5, 0.5, 2.0) / len(scale)
    assert (shares - 0.2).abs().max() < 0.03


def test_angles_are_uniform_in_their_range():
    _, right, _, hand = geometry(Augmentation(rotate=30))
    uniform_within(torch.atan2(right[0], right[1]).rad2deg(), -30, 30)
    assert (hand > 0).all()  # turned, not mirrored


def test_a_turn_keeps_the_centre():
    """A window turns about its middle, which stays where that of a plain window may be."""
    row, column, inside, _, _ = draw(Augmentation(rotate=180), batch=500, crop=(33, 41))
    assert inside[:, 16, 20].all()
    for middle, low, high in ((row[:, 16, 20], 16, 80), (column[:, 16, 20], 20, 110)):
        torch.testing.assert_close(middle, middle.round(), rtol=0, atol=1e-3)
        assert low == middle.round().min() and middle.round().max() == high
    _, right, down, _ = geometry(Augmentation(rotate=90), 500)
    torch.testing.assert_close(right.norm(dim=0), torch.ones_like(right[0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(down[0], right[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(down[1], -right[0], rtol=1e-3, atol=1e-3)


def test_elastic_shifts_are_gaussian_at_nine_points_and_smooth_between_them():
    """In a window with a pixel on each of the points: what was read less the regular grid of its middle."""
    crop = 33, 41
    images, labels = coordinates(height=250, width=250), noise_labels(height=250, width=250)
    index = torch.zeros(6000, dtype=torch.int64)
    x, _ = sample_batch(images, labels, index, crop, Augmentation(elastic=1.5), seeded())
    whole = (x[:, 2] > 0.5).flatten(1).all(dim=1)
    assert whole.float().mean() > 0.9
    place = x[whole, :2] * 255  # (B, 2, h, w)
    points = place[:, :, ::16, ::20]  # (B, 2, 3, 3)
    regular = torch.stack(torch.meshgrid(torch.arange(-16, 17, 16), torch.arange(-20, 21, 20), indexing="ij"))
    outer = points - points[:, :, 1:2, 1:2] - regular  # the shift of a point less that of the middle
    outer = outer.flatten(2)[:, :, [0, 1, 2, 3, 5, 6, 7, 8]]  # (B, 2, 8)
    assert outer.mean().abs() < 0.05
    for axis in (0, 1):  # two independent draws of 1.5: 1.5² for each and, with the middle shared, between
        found = torch.cov(outer[:, axis].T)
        due = 1.5**2 * (torch.ones(8, 8) + torch.eye(8))
        torch.testing.assert_close(found, due, rtol=0, atol=0.3)
    assert torch.corrcoef(outer.flatten(1).T)[:8, 8:].abs().max() < 0.06  # y and x shift apart
    bend = place[:, 1].diff(n=2, dim=2).square().mean(dim=(0, 1)).sqrt()  # (w - 2,), of rows; from point to
    assert 0 < bend.max() < 4 * bend.mean()  # point on a line they would bend at the middle point alone


def test_elastic_windows_equal_scipys_at_the_places_that_were_read():
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=seeded(1))
    labels, index = noise_labels(), torch.zeros(8, dtype=torch.int64)
    augment = Augmentation(elastic=3, scale=(0.9, 1.2), rotate=20, flips="h")
    row, column, inside, _, _ = draw(augment, batch=8)
    x, _ = sample_batch(noise, labels, index, (32, 40), augment, seeded())
    for channel in range(3):
        places = np.stack([row.numpy(), column.numpy()]).astype(np.float64)
        due = ndimage.map_coordinates(noise[0, channel].double().numpy(), places, order=1, mode="nearest")
        difference = np.abs(255 * x[:, channel].numpy() - due)[inside.numpy()]
        assert difference.max() < 0.05
    assert inside.float().mean() > 0.9


@pytest.mark.parametrize("flips", ["", "h", "v", "hv"])
def test_flips_happen_half_of_the_time(flips):
    _, right, down, _ = geometry(Augmentation(flips=flips), 2000)
    for axis, mirrored in (("h", right[1] < 0), ("v", down[0] < 0)):
        if axis in flips:
            fair(mirrored)
        else:
            assert not mirrored.any()
    if flips == "hv":
        fair((right[1] < 0) & (down[0] < 0), 0.25)  # one does not depend on the other


def test_a_share_of_up_down_flips():
    """PaddleSeg turns one window in ten upside down."""
    _, right, down, _ = geometry(Augmentation(flips="hv", flip_v=0.1), 4000)
    fair(right[1] < 0)
    fair(down[0] < 0, 0.1)


def test_scale_steps():
    """PaddleSeg draws the scale from 0.5, 0.75, ..., 2, each as often."""
    scale, *_ = geometry(Augmentation(scale=(0.5, 2), scale_step=0.25), 7000)
    nearest = (scale * 4).round() / 4
    torch.testing.assert_close(scale, nearest, rtol=0, atol=2e-3)
    for value in (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2):
        fair(nearest == value, 1 / 7)


def test_three_flips_make_the_eight_ways_to_lay_a_square():
    _, right, down, _ = geometry(Augmentation(flips="hvt"), 4000)
    ways = torch.stack([right[0], right[1], down[0], down[1]], dim=1)
    torch.testing.assert_close(ways, ways.round(), rtol=0, atol=1e-3)
    found, counts = ways.round().unique(dim=0, return_counts=True)
    assert len(found) == 8
    assert (counts / len(ways) - 1 / 8).abs().max() < 5 * math.sqrt(1 / 8 / len(ways))


def test_a_flipped_window_is_the_mirrored_piece():
    row, column, inside, _, _ = draw(Augmentation(flips="h"))
    assert inside.all()
    step = column[:, :, 1:] - column[:, :, :-1]
    assert torch.equal(step.round().abs(), torch.ones_like(step))
    left = column.flatten(1).amin(1)
    torch.testing.assert_close(left, left.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(row[:, 1:] - row[:, :-1], torch.ones_like(row[:, 1:]), rtol=0, atol=1e-3)


def test_plain_windows_lie_everywhere_with_equal_chance():
    images, labels = coordinates(1, 20, 20), torch.zeros(1, 20, 20, dtype=torch.uint8)
    x, y = sample_batch(
        images, labels, torch.zeros(6000, dtype=torch.int64), (15, 15), Augmentation(), seeded()
    )
    assert (y == 0).all()
    corner = (x[:, :2, 0, 0] * 255).round().long()
    counts = torch.bincount(corner[:, 0] * 6 + corner[:, 1], minlength=36)
    assert len(counts) == 36  # whole-pixel offsets 0 to 5 on both axes
    assert (counts / 6000 - 1 / 36).abs().max() < 5 * math.sqrt(1 / 36 / 6000)


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_scaled_windows_lie_inside_and_reach_the_borders(scale):
    row, column, inside, y, _ = draw(Augmentation(scale=(scale, scale)), batch=400)
    assert inside.all() and (y != 255).all()
    for places, side in ((row, HEIGHT), (column, WIDTH)):
        assert places.min() < 2 / scale and places.max() > side - 1 - 2 / scale
        step = places.diff(dim=1 if side == HEIGHT else 2)[:, 3:-3, 3:-3]
        assert step.median().item() == pytest.approx(1 / scale, rel=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.0])
def test_a_window_of_the_whole_scaled_image_is_pytorchs_resize(scale):
    """Bilinear without anti-aliasing, as OpenCV and OpenMMLab do it; the border is repeated."""
    size = (int(40 * scale), int(60 * scale))
    images = torch.randint(0, 256, (1, 3, 40, 60), dtype=torch.uint8, generator=seeded())
    labels = noise_labels(1, 2, 40, 60)
    index, augment = torch.tensor([0]), Augmentation(scale=(scale, scale))
    x, y = sample_batch(images, labels, index, size, augment, seeded())
    due = F.interpolate(images / 255, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(x, due, rtol=0, atol=1e-5)
    if scale in (1, 2):  # the others have ties, two or four pixels that are equally near
        due = F.interpolate(labels[None].float(), size, mode="nearest-exact")[0]
        assert torch.equal(y.float(), due)


def test_an_image_smaller_than_the_window_lies_at_its_top_left():
    """OpenMMLab pads to the right and to the bottom."""
    images, labels = coordinates(1, 10, 12), noise_labels(1, 2, 10, 12)
    x, y = sample_batch(images, labels, torch.tensor([0]), (16, 16), Augmentation(), seeded())
    assert torch.equal(y[0, :10, :12].byte(), labels[0])
    assert (y[0, 10:] == 255).all() and (y[0, :, 12:] == 255).all()
    torch.testing.assert_close(x[0, :, :10, :12] * 255, images[0].float())


# --- the rule of the largest share --------------------------------------------------------------------------


def stripes(width: int = 101, borders: int = 8) -> torch.Tensor:
    """One row of pixels; a window of two holds both classes at 2 * borders of its 100 places."""
    label = torch.zeros(1, 1, width, dtype=torch.uint8)
    label[0, 0, torch.arange(1, borders + 1) * 10] = 1
    return label


def shares_of(
    batch: int, augment: Augmentation, labels: torch.Tensor, crop, seed=0, classes=2
) -> torch.Tensor:
    images = torch.zeros(1, 3, *labels.shape[1:], dtype=torch.uint8)
    index = torch.zeros(batch, dtype=torch.int64)
    _, y = sample_batch(images, labels, index, crop, augment, seeded(seed), num_classes=classes)
    counts = torch.stack([(y == c).flatten(1).sum(1) for c in range(classes)])
    return counts.amax(0) / counts.sum(0).clamp(min=1)


def test_unbalanced_windows_are_redrawn_ten_times():
    """The chance of a window that breaks the rule, against OpenMMLab's loop: one draw, at most ten more."""

    def loop(rng: np.random.Generator, label: np.ndarray) -> bool:
        window = rng.integers(0, 100)
        for _ in range(10):
            if label[window] != label[window + 1]:
                break
            window = rng.integers(0, 100)  # the tenth of these is taken as it comes
        return label[window] != label[window + 1]

    labels, batch = stripes(borders=5), 30_000
    rng, flat = np.random.default_rng(0), stripes(borders=5)[0, 0].numpy()
    due = np.mean([loop(rng, flat) for _ in range(batch)])
    assert due == pytest.approx(1 - 0.9**11, abs=0.01)
    got = (shares_of(batch, Augmentation(max_share=0.75), labels, (1, 2)) < 0.75).double().mean().item()
    assert got == pytest.approx(due, abs=5 * math.sqrt(2 * 0.25 / batch))  # 10 draws would be 0.035 less


def test_the_rule_can_be_switched_off():
    got = (shares_of(20_000, Augmentation(), stripes(borders=5), (1, 2)) < 0.75).double()
    fair(got, 0.1)


def test_the_first_window_that_is_balanced_is_taken():
    """Accepted places are equally likely, whichever they are: nothing prefers early or late ones."""
    images, labels = coordinates(1, 1, 101), stripes(borders=8)
    index = torch.zeros(30_000, dtype=torch.int64)
    x, y = sample_batch(images, labels, index, (1, 2), Augmentation(max_share=0.75), seeded())
    balanced = y[:, 0, 0] != y[:, 0, 1]
    places = (x[balanced, 1, 0, 0] * 255).round().long()
    shares = torch.bincount(places, minlength=100)[torch.bincount(places, minlength=100) > 0] / balanced.sum()
    assert len(shares) == 16
    assert (shares - 1 / 16).abs().max() < 5 * math.sqrt(1 / 16 / int(balanced.sum()))


def test_hopeless_images_still_give_windows():
    for value in (0, 1, 255):
        labels = torch.full((1, 30, 30), value, dtype=torch.uint8)
        images = torch.zeros(1, 3, 30, 30, dtype=torch.uint8)
        _, y = sample_batch(images, labels, torch.zeros(4, dtype=torch.int64), (8, 8), ALL_BALANCED, seeded())
        assert set(y.unique().tolist()) <= {value, 255}


ALL_BALANCED = Augmentation(scale=(0.5, 2.0), flips="h", max_share=0.75)


def test_a_share_equal_to_the_limit_is_too_much():
    labels = torch.zeros(1, 1, 400, dtype=torch.uint8)
    labels[..., ::4] = 1  # every window of 4 has exactly three quarters of background ...
    labels[..., 200:300:2] = 1  # ... but for some windows in here
    got = shares_of(3000, Augmentation(max_share=0.75), labels, (1, 4))
    assert (got < 0.75).double().mean() > 0.8


def test_ignored_pixels_count_for_no_class():
    """Left: 35 % background, 5 % vessel, 60 % ignored, a share of 7/8. Right: half and half."""
    rng = np.random.default_rng(0)
    left = rng.choice([0, 1, 255], p=[0.35, 0.05, 0.6], size=(60, 60))
    right = rng.choice([0, 1], size=(60, 60))
    labels = torch.as_tensor(np.concatenate([left, right], axis=1)).byte()[None]
    images = coordinates(1, 60, 120)
    index = torch.zeros(2000, dtype=torch.int64)
    x, _ = sample_batch(images, labels, index, (20, 20), Augmentation(max_share=0.75), seeded())
    starts_left = (
        (x[:, 1, 0, 0] * 255 < 35).double().mean().item()
    )  # at least a quarter of it on the right else
    assert starts_left < 0.02


def test_the_rule_knows_many_classes():
    """Above nine tenths are of class 5, below all classes are alike: windows go below."""
    labels = torch.randint(0, 7, (1, 80, 40), generator=seeded()).byte()
    labels[:, :40][torch.rand(1, 40, 40, generator=seeded()) < 0.9] = 5
    got = shares_of(1000, Augmentation(max_share=0.75), labels, (8, 8), classes=7)
    assert (got < 0.75).all()


def test_redraws_keep_the_scale():
    """Scales stay uniform though a small one, which sees several bars, is accepted much more often."""
    labels = (torch.arange(250) // 12 % 2).byte()[None, None].expand(1, 250, 250).contiguous()
    images = coordinates(1, 250, 250)
    x, _ = sample_batch(
        images,
        labels,
        torch.zeros(4000, dtype=torch.int64),
        (9, 9),
        Augmentation(scale=(0.5, 2), max_share=0.75),
        seeded(),
    )
    scale = 8 / ((x[:, 1, 4, 8] - x[:, 1, 4, 0]) * 255)
    uniform_within(scale.clamp(0.5, 2), 0.5, 2)


# --- colours ------------------------------------------------------------------------------------------------


def test_hsv_equals_colorsys():
    rng = np.random.default_rng(0)
    colours = np.concatenate(
        [rng.random((500, 3)), rng.integers(0, 2, (40, 3)), rng.random((20, 1)).repeat(3, 1)]
    )
    rgb = torch.tensor(colours.T[None, :, :, None], dtype=torch.float32)
    due = torch.tensor([colorsys.rgb_to_hsv(*c) for c in colours], dtype=torch.float32).T
    got = rgb_to_hsv(rgb)[0, :, :, 0]
    turn = ((got[0] - due[0] + 0.5) % 1 - 0.5).abs()  # hue 0 and hue 1 are the same
    assert turn.max() < 1e-4
    torch.testing.assert_close(got[1:], due[1:], rtol=1e-5, atol=1e-5)
    assert got.min() >= 0 and got.max() <= 1
    torch.testing.assert_close(hsv_to_rgb(rgb_to_hsv(rgb)), rgb, rtol=0, atol=1e-5)


def test_hsv_back_equals_colorsys():
    hsv = torch.rand(1, 3, 20, 20, generator=seeded())
    due = [colorsys.hsv_to_rgb(*c) for c in hsv[0].flatten(1).T.tolist()]
    torch.testing.assert_close(hsv_to_rgb(hsv)[0].flatten(1).T, torch.tensor(due), rtol=0, atol=1e-5)


BRIGHT, DARK, SPREAD = 0.5, 0.4, 0.1  # values that no draw can clip


def distorted(batch: int = 8000):
    """The four draws of every image, from two reddish pixels, and a third pixel that can be clipped."""
    reddish = [[v, v - SPREAD, v - SPREAD] for v in (BRIGHT, DARK)] + [[1.0, 0.6, 0.6]]
    images = (
        torch.tensor(reddish).T[None, :, None, :].expand(batch, 3, 1, 3).contiguous()
    )  # (B, 3, 1, 3 pixels)
    out = photometric_distortion(images, seeded()).double()[:, :, 0]  # (B, 3, 3 pixels)
    value = out.amax(1)
    contrast = (value[:, 0] - value[:, 1]) / (BRIGHT - DARK)
    brightness = value[:, 0] / contrast - BRIGHT
    spread = value[:, 0] - out.amin(1)[:, 0]
    saturation = spread / contrast / SPREAD
    hue = torch.tensor(
        [colorsys.rgb_to_hsv(*pixel)[0] for pixel in out[:, :, 0].tolist()], dtype=torch.double
    )
    return brightness, contrast, saturation, (hue + 0.5) % 1 - 0.5, out


def test_photometric_draws_have_the_published_ranges():
    brightness, contrast, saturation, hue, _ = distorted()
    draws = {
        "brightness": (brightness, 0.0, 32 / 255, -32 / 255),
        "contrast": (contrast, 1.0, 1.5, 0.5),
        "saturation": (saturation, 1.0, 1.5, 0.5),
        "hue": (hue, 0.0, 0.1, -0.1),  # 18 of OpenCV's 180 steps
    }
    used = []
    for values, neutral, high, low in draws.values():
        idle = (values - neutral).abs() < 1e-4 * (high - low)
        fair(idle)
        uniform_within(values[~idle], low, high)
        used.append(~idle)
    fair(used[0] & used[1] & used[2] & used[3], 1 / 16)
    fair(used[0] ^ used[1])
    fair(used[2] ^ used[3])


def test_contrast_comes_before_or_after_the_colours_by_a_fair_coin():
    brightness, contrast, saturation, hue, out = distorted()
    pick = (brightness.abs() < 1e-6) & (hue.abs() < 1e-5) & (contrast > 1.1) & ((saturation - 1).abs() > 0.1)
    c, s, got = contrast[pick], saturation[pick], out[pick, 1, 2]  # the green of (1, 0.6, 0.6)
    first = 1 - s * (1 - (0.6 * c).clamp(max=1))  # red is clipped to 1 before its colour is measured
    last = ((1 - 0.4 * s) * c).clamp(max=1)
    is_first, is_last = (got - first).abs() < 1e-4, (got - last).abs() < 1e-4
    assert (is_first | is_last).all()
    fair(is_first[~(is_first & is_last)])


def test_distortion_keeps_the_range_and_the_shape():
    images = torch.rand(32, 3, 9, 7, generator=seeded())
    images[:8] = images[:8].round()  # pure colours, black and white
    out = photometric_distortion(images, seeded())
    assert out.shape == images.shape and out.dtype == torch.float32
    assert out.isfinite().all() and out.min() >= 0 and out.max() <= 1
    assert torch.equal(out, photometric_distortion(images, seeded()))
    same = (out - images).abs().flatten(1).amax(1) < 1e-5
    assert 0 <= same.double().mean() < 0.3  # one in sixteen stays


def test_black_stays_grey():
    """No colour can come out of a grey image."""
    grey = torch.rand(64, 1, 8, 8, generator=seeded()).expand(-1, 3, -1, -1)
    out = photometric_distortion(grey, seeded())
    assert (out.amax(1) - out.amin(1)).max() < 1e-6


def test_imagenet_and_half_normalisation():
    image = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(normalise(image, "imagenet"), torch.zeros(1, 3, 1, 1), rtol=0, atol=1e-6)
    step = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(normalise(image + step, "imagenet"), torch.ones(1, 3, 1, 1), rtol=0, atol=1e-6)
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(2, 3, 1, 2)
    torch.testing.assert_close(normalise(ends, "half"), ends * 2 - 1)


def test_image_normalisation():
    images = torch.rand(3, 3, 40, 50, generator=seeded()) * torch.tensor([0.2, 0.5, 1.0])[:, None, None, None]
    out = normalise(images, "image")
    assert out.mean(dim=(2, 3)).abs().max() < 1e-5
    assert (out.std(dim=(2, 3)) - 1).abs().max() < 1e-3
    flat = normalise(torch.full((1, 3, 8, 8), 0.3), "image")
    assert flat.isfinite().all() and flat.abs().max() < 1e-2


def test_maximum_normalisation_divides_by_the_brightest_value_first():
    """U-2-Net, data_loader.py, ToTensorLab with flag 0: image / max(image), then ImageNet's numbers."""
    images = torch.rand(3, 3, 20, 30, generator=seeded()) * torch.tensor([0.2, 0.5, 1.0])[:, None, None, None]
    images[2] = 0
    out = normalise(images, "maximum")
    for image, got in zip(images[:2].numpy().transpose(0, 2, 3, 1), out, strict=False):
        image = image / np.max(image)
        due = np.stack([(image[..., c] - m) / s for c, (m, s) in enumerate(zip(MEAN, STD, strict=True))])
        torch.testing.assert_close(got, torch.tensor(due), rtol=0, atol=1e-5)
    torch.testing.assert_close(out[2], normalise(images[2:], "imagenet")[0])  # black is not divided


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"'imagnet'.*imagenet"):
        normalise(torch.rand(1, 3, 4, 4), "imagnet")


def test_jitter_is_one_gain_and_one_shift_an_image():
    x = torch.tensor([0.0, 1.0, -3.0]).view(1, 1, 1, 3).expand(5000, 3, 2, 3)
    out = jitter(x, 0.2, seeded())
    shift, gain = out[:, 0, 0, 0], out[:, 0, 0, 1] - out[:, 0, 0, 0]
    uniform_within(shift, -0.2, 0.2)
    uniform_within(gain, 0.8, 1.2)
    torch.testing.assert_close(out, x * gain.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1), rtol=0, atol=1e-5)
    assert torch.corrcoef(torch.stack([shift, gain]))[0, 1].abs() < 0.07
    assert torch.equal(jitter(x, 0.0, seeded()), x)


# --- shrinking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "due"),
    [((584, 565), 640, (584, 565)), ((605, 700), 640, (553, 640)), ((960, 999), 640, (615, 640)),
     ((2336, 3504), 640, (427, 640)), ((3, 4000), 640, (1, 640)), ((700, 700), 700, (700, 700))],
)  # fmt: skip
def test_shrunk_size(size, side, due):
    assert shrunk_size(size, side) == due


@pytest.mark.parametrize("size", [(50, 80), (37, 61), (20, 99)])
def test_resize_equals_pillow(size):
    plane = torch.rand(120, 150, generator=seeded())
    due = Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    torch.testing.assert_close(resize(plane[None], size)[0], torch.tensor(np.asarray(due)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("finer", [1, 1.6, 3])
def test_labels_finer_than_the_image_are_read_at_the_same_places(finer):
    """Images that were shrunk keep their labels as they came: row by row, both must show the same place."""
    height, width, edge = 100, 120, 40
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    fine = (round(height * finer), round(width * finer))
    label = (torch.arange(fine[0]) >= edge * finer).byte()[:, None].expand(fine)
    augment = Augmentation(scale=(0.8, 1.25), rotate=20, flips="hvt")
    index = torch.zeros(200, dtype=torch.int64)
    images, labels = sample_batch(rows.expand(1, 3, -1, -1), label[None], index, (24, 24), augment, seeded())
    row = images[:, 0] * 255 + 0.5  # where the window looks, in pixels from the top edge of the image
    clear = (labels != 255) & ((row - edge).abs() > 1)
    assert clear.float().mean() > 0.8
    assert torch.equal(labels[clear] == 1, (row > edge)[clear])


def test_labels_of_shrunk_images_are_right_on_the_average():
    """A pixel half covered by a class is of that class half of the time: no thin line is lost."""
    label = torch.zeros(300, 300, dtype=torch.uint8)
    label[:, ::10] = 1  # lines of a third of a pixel of the image
    augment = Augmentation(scale=(0.8, 1.25), rotate=180)
    index = torch.zeros(100, dtype=torch.int64)
    blank = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    labels = sample_batch(blank, label[None], index, (40, 40), augment, seeded())[1]
    assert (labels[labels != 255] == 1).float().mean() == pytest.approx(0.1, abs=0.01)


def enhanced(image: torch.Tensor, steps: list[tuple[int, float]]) -> torch.Tensor:
    """Pillow's own brightness, contrast, colour and hue, one after the other, on uint8."""
    picture = Image.fromarray((image * 255).round().byte().movedim(0, -1).numpy())
    for which, amount in steps:
        if which < 3:
            kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
            picture = kind(picture).enhance(amount)
        else:
            hsv = np.array(picture.convert("HSV")).astype(int)
            hsv[..., 0] = (hsv[..., 0] + round(255 * amount)) % 256
            picture = Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")
    return torch.tensor(np.asarray(picture)).movedim(-1, 0) / 255


def test_colour_jitter_equals_pillow_step_by_step():
    """The draws are made here once more, in the same order; what they do to an image is Pillow's affair."""
    small = torch.rand(60, 3, 5, 6, generator=seeded(1))
    images = F.interpolate(small, size=(20, 24), mode="bilinear")
    got = colour_jitter(images, seeded(2))
    draws = seeded(2)
    order, use, factor = (torch.rand(4, 60, generator=draws) for _ in range(3))
    turn = (2 * torch.rand(60, generator=draws) - 1) * 18 / 255
    order, use, factor = order.argsort(dim=0), use < 0.5, 0.6 + 0.8 * factor
    fair(use.flatten())
    for b in range(60):
        amounts = [*factor[:3, b].tolist(), turn[b].item()]
        steps = [(w, amounts[w]) for w in order[:, b].tolist() if use[w, b]]
        due = enhanced(images[b], steps)
        assert (got[b] - due).abs().mean() < 2.5 / 255, steps  # Pillow rounds to 1 / 255 after each step
        if not steps:
            torch.testing.assert_close(got[b], images[b], rtol=0, atol=1e-5)


def test_colour_jitter_is_seeded_and_stays_in_range():
    images = torch.rand(16, 3, 7, 9, generator=seeded())
    one, two, other = (colour_jitter(images, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.shape == images.shape and one.min() >= 0 and one.max() <= 1


@pytest.mark.parametrize("crop", [(8, 8), (7, 7), (40, 40)], ids=str)  # the last is larger than the images
def test_whole_pixels_are_read_once_and_are_the_same(crop, monkeypatch):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, 3, 20, 24), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 2, (3, 20, 24), dtype=np.uint8))
    index, flips = torch.tensor([0, 1, 2, 1]), Augmentation(flips="hvt", max_share=0.6)

    def batch():
        return sample_batch(images, labels, index, crop, flips, torch.Generator().manual_seed(3))

    once = batch()
    monkeypatch.setattr(module, "_read_whole", module._read_bilinear)
    assert all(torch.equal(a, b) for a, b in zip(once, batch(), strict=True))
