"""Inference: the sliding window against a loop over pixels, views and scales by hand, whole photographs."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from u2learn import inference, predict, recipes, unet_s5_d16, unet_small
from u2learn.data.augment import normalise, resize, shrunk_size
from u2learn.data.drawn.retina import fundus
from u2learn.inference import load_model, pretrained, save_model, segment, slide, window_starts
from u2learn.metrics.overlap import OverlapScores
from u2learn.recipe import Recipe
from u2learn.tasks import evaluate


class Tiny(nn.Module):
    """Two convolutions with a wide view and no symmetry: every shift, flip and border matters."""

    def __init__(self, classes: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 5, padding=2)
        self.last = nn.Conv2d(4, classes, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image):
        self.seen.append(tuple(image.shape))
        return [self.last(self.norm(self.first(image)).tanh()), torch.full((1, 1, 1, 1), math.nan)]


@pytest.fixture
def net():
    return Tiny().eval()


def picture(height, width, seed=0):
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def naive_slide(model, image, window, stride):
    """Pixel by pixel: the mean of the logits of all windows that hold it, windows as OpenMMLab lays them."""
    _, height, width = image.shape
    boxes = []
    for i in range(max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1):
        for j in range(max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(i * stride[0] + window[0], height), min(j * stride[1] + window[1], width)
            boxes.append((max(bottom - window[0], 0), bottom, max(right - window[1], 0), right))
    with torch.no_grad():
        maps = [model(image[None, :, t:b, left:r])[0][0] for t, b, left, r in boxes]
    out = torch.empty(len(maps[0]), height, width)
    for y in range(height):
        for x in range(width):
            mine = [
                m[:, y - t, x - left]
                for (t, b, left, r), m in zip(boxes, maps, strict=True)
                if t <= y < b and left <= x < r
            ]
            out[:, y, x] = torch.stack(mine).mean(0)
    return out


WINDOWS = [
    ((20, 30), (8, 8), (5, 5)),
    ((17, 23), (8, 12), (8, 7)),
    ((16, 16), (8, 8), (8, 8)),
    ((9, 31), (16, 8), (3, 8)),  # lower than the window
    ((5, 6), (8, 8), (4, 4)),  # smaller than the window
    ((8, 8), (8, 8), (5, 5)),
    ((1, 1), (8, 8), (8, 8)),
    ((13, 11), (4, 4), (1, 3)),
]


@pytest.mark.parametrize(("size", "window", "stride"), WINDOWS)
def test_slide_equals_the_mean_of_all_windows_of_a_pixel(net, size, window, stride):
    image = picture(*size)
    due = naive_slide(net, image, window, stride)
    torch.testing.assert_close(slide(net, image, window, stride), due, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(net, image, window, stride), due.softmax(0), rtol=1e-4, atol=1e-5)


def test_slide_with_a_real_network():
    torch.manual_seed(0)
    model = unet_small(width=4, depth=3).eval()
    image = picture(30, 41)
    due = naive_slide(model, image, (16, 16), (11, 11))
    torch.testing.assert_close(slide(model, image, (16, 16), (11, 11)), due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "rows", "columns"),
    [
        ((584, 565), 64, 42, 14, 13),
        ((605, 700), 128, 85, 7, 8),
        ((960, 999), 128, 85, 11, 12),
        ((2336, 3504), 256, 170, 14, 21),
    ],
    ids=["drive", "stare", "chase", "hrf"],
)
def test_windows_are_those_of_openmmlab(size, window, stride, rows, columns):
    starts = [window_starts(side, window, stride) for side in size]
    assert [len(s) for s in starts] == [rows, columns]
    assert rows * columns == {584: 182, 605: 56, 960: 132, 2336: 294}[size[0]]
    for side, first in zip(size, starts, strict=True):
        assert first[0] == 0 and first[-1] == side - window
        assert first[:-1] == list(range(0, stride * (len(first) - 1), stride))


def test_windows_cover_every_pixel_and_stay_inside():
    for size in range(1, 40):
        for window in (1, 2, 7, 16):
            for stride in {1, window // 2 or 1, window}:
                starts = window_starts(size, window, stride)
                covered = {x for s in starts for x in range(s, min(s + window, size))}
                assert covered == set(range(size))
                assert all(0 <= s <= max(size - window, 0) for s in starts)
                assert len(starts) == len(set(starts))


@pytest.mark.parametrize(("window", "stride"), [(8, 9), (8, 0), (0, 1), (-1, 1), (8, -3)])
def test_gaps_are_refused(net, window, stride):
    with pytest.raises(ValueError, match=rf"{window}.*{stride}"):
        window_starts(20, window, stride)


def test_default_stride_is_two_thirds(net):
    image = picture(20, 20)
    torch.testing.assert_close(
        predict(net, image, window=9), predict(net, image, window=(9, 9), stride=(6, 6))
    )


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_window_batch_bounds_the_memory_and_changes_nothing(net, batch, monkeypatch):
    image = picture(40, 50)
    due = slide(net, image, (8, 8), (5, 5))
    monkeypatch.setattr(inference, "WINDOW_BATCH", batch)
    net.seen.clear()
    torch.testing.assert_close(slide(net, image, (8, 8), (5, 5)), due, rtol=1e-4, atol=1e-5)
    windows = len(window_starts(40, 8, 5)) * len(window_starts(50, 8, 5))
    assert sum(shape[0] for shape in net.seen) == windows
    assert max(shape[0] for shape in net.seen) == min(batch, windows)
    assert {shape[1:] for shape in net.seen} == {(3, 8, 8)}


def test_a_large_image_goes_through_in_windows():
    """HRF: 294 windows, never more than a batch of them at once."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.largest = self.windows = 0

        def forward(self, image):
            self.largest, self.windows = max(self.largest, len(image)), self.windows + len(image)
            return [image[:, :2] * 1.0]

    model, image = Mean(), torch.rand(3, 2336, 3504)
    got = slide(model, image, (256, 256), (170, 170))
    assert (model.windows, model.largest) == (294, inference.WINDOW_BATCH)
    torch.testing.assert_close(got, image[:2])


# --- views --------------------------------------------------------------------------------------------------


def logits_of(model, image):
    with torch.no_grad():
        return model(image[None])[0][0]


def mirrored(model, image, axes):
    return logits_of(model, image.flip(axes)).flip(axes)


def test_without_a_window_the_whole_image_goes_in(net):
    image = picture(13, 21)
    net.seen.clear()
    got = predict(net, image)
    assert net.seen == [(1, 3, 13, 21)]
    torch.testing.assert_close(got, logits_of(net, image).softmax(0))
    torch.testing.assert_close(got.sum(0), torch.ones(13, 21))


@pytest.mark.parametrize(
    ("views", "mirrors"),
    [("", [()]), ("h", [(), (2,)]), ("hv", [(), (2,), (1,), (1, 2)])],
)
def test_views_are_averaged(net, views, mirrors):
    image = picture(14, 19)
    due = sum(mirrored(net, image, v).softmax(0) for v in mirrors) / len(mirrors)
    torch.testing.assert_close(predict(net, image, views=views), due)


def test_eight_views_are_averaged(net):
    """All quarter turns, and all of the mirrored picture: another way to the same eight."""
    image, due = picture(14, 19), 0
    for mirror in (False, True):
        for quarters in range(4):
            view = (image.flip(2) if mirror else image).rot90(quarters, (1, 2))
            back = logits_of(net, view).softmax(0).rot90(-quarters, (1, 2))
            due = due + (back.flip(2) if mirror else back)
    torch.testing.assert_close(predict(net, image, views="hvt"), due / 8)


def test_windows_lie_down_with_the_picture(net):
    """A window of 8 x 12 pixels sees the same pixels of the picture in every view, if they tile it evenly."""
    image = picture(16, 24)
    due = 0
    for y in (0, 8):
        for x in (0, 12):
            part = F.pad(predict(net, image[:, y : y + 8, x : x + 12], views="hvt"), (x, 12 - x, y, 8 - y))
            due = due + part
    torch.testing.assert_close(predict(net, image, window=(8, 12), stride=(8, 12), views="hvt"), due)


def test_a_flip_and_its_way_back():
    x = picture(5, 7)
    for view in recipes.VIEWS["hvt"]:
        assert torch.equal(inference.flipped(inference.flipped(x, view), view[::-1]), x)
    assert len({inference.flipped(x, view).numpy().tobytes() for view in recipes.VIEWS["hvt"]}) == 8


def test_scales_and_views_are_averaged_as_probabilities_at_native_size(net):
    """Cityscapes' twelve views: six scales, mirrored too; logits resized, then the softmax, then the mean."""
    image, scales = picture(15, 22), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    due, count = 0, 0
    for scale in scales:
        size = (int(15 * scale + 0.5), int(22 * scale + 0.5))
        scaled = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        for axes in ((), (2,)):
            back = F.interpolate(
                mirrored(net, scaled, axes)[None], size=(15, 22), mode="bilinear", align_corners=False
            )[0]
            due, count = due + back.softmax(0), count + 1
    assert count == 12
    net.seen.clear()
    torch.testing.assert_close(predict(net, image, views="h", scales=scales), due / 12, rtol=1e-4, atol=1e-6)
    assert len(net.seen) == 12


def test_windows_views_and_scales_together(net):
    image = picture(14, 19)
    due = 0
    for scale in (1.0, 1.5):
        size = (int(14 * scale + 0.5), int(19 * scale + 0.5))
        scaled = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        for axes in ((), (2,), (1,), (1, 2)):
            logits = naive_slide(net, scaled.flip(axes), (8, 8), (5, 5)).flip(axes)
            due = due + F.interpolate(logits[None], size=(14, 19), mode="bilinear", align_corners=False)[
                0
            ].softmax(0)
    got = predict(net, image, window=8, stride=5, views="hv", scales=(1.0, 1.5))
    torch.testing.assert_close(got, due / 8, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (97, 131)])
def test_any_size_is_predicted_at_its_own_size(size):
    model = unet_small(width=4, depth=4).eval()
    for options in ({}, {"window": 32, "stride": 20}, {"views": "hv", "scales": (0.5, 1, 2)}):
        got = predict(model, picture(*size), **options)
        assert got.shape == (2, *size)
        torch.testing.assert_close(got.sum(0), torch.ones(size))


# --- modes and refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_predict_runs_in_eval_mode_and_restores_every_mode(training):
    model = unet_s5_d16(head="fcn")
    model.train(training)
    model.body.encode.eval()  # frozen, as in fine-tuning
    modes = [m.training for m in model.modules()]
    before = {name: x.clone() for name, x in model.named_buffers()}
    image = picture(16, 16)
    one, two = predict(model, image), predict(model, image)
    assert torch.equal(one, two)  # no dropout
    assert [m.training for m in model.modules()] == modes
    assert all(
        torch.equal(x, before[name]) for name, x in model.named_buffers()
    )  # no norm learnt from the test
    assert not one.requires_grad


def test_predict_restores_the_mode_after_an_error():
    class Broken(Tiny):
        def forward(self, image):
            raise RuntimeError("broken")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        predict(model, picture(8, 8))
    assert all(m.training for m in model.modules())


def test_only_the_main_map_predicts(net):
    assert predict(net, picture(8, 8)).isfinite().all()  # Tiny's second output is NaN


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 3, 8, 8), torch.zeros(8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_float_image_is_refused(net, image):
    with pytest.raises(ValueError, match=r"float image.*segment"):
        predict(net, image)


@pytest.mark.parametrize("scales", [(), (0,), (1, -2.0)])
def test_scales_that_are_none_are_refused(net, scales):
    with pytest.raises(ValueError, match="scales"):
        predict(net, picture(8, 8), scales=scales)


def test_unknown_views_are_refused(net):
    with pytest.raises(ValueError, match=r"views is one of .*'hvt', not 'vh'"):
        predict(net, picture(8, 8), views="vh")


# --- photographs --------------------------------------------------------------------------------------------


def recipe(**changes) -> Recipe:
    options = {"width": 4, "depth": 3}
    return Recipe(
        "tiny", "synthetic", "unet_small", model_options=options, window=(32, 32), stride=(21, 21), **changes
    )


@pytest.fixture(scope="module")
def photograph():
    return fundus(3, (60, 70))


@pytest.mark.parametrize("normalisation", ["imagenet", "half", "image"])
def test_segment_is_normalise_and_predict(photograph, normalisation):
    it = recipe(normalisation=normalisation, views="h")
    model = it.build_model()
    image = torch.as_tensor(photograph.image)
    due = predict(model, normalise(image[None] / 255, normalisation)[0], 32, 21, "h")
    got = segment(model, image, it)
    torch.testing.assert_close(got, due)
    torch.testing.assert_close(segment(model, photograph.image, it), got)  # NumPy too


def test_segment_shrinks_and_comes_back(photograph):
    it = recipe(long_side=48)
    model = it.build_model()
    image = torch.as_tensor(photograph.image) / 255
    small = resize(image, shrunk_size((60, 70), 48))
    due = resize(predict(model, normalise(small[None], "imagenet")[0], 32, 21), (60, 70))
    got = segment(model, photograph.image, it)
    assert got.shape == (2, 60, 70)
    torch.testing.assert_close(got, due)
    torch.testing.assert_close(got.sum(0), torch.ones(60, 70))
    assert got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.float32), np.zeros((8, 8), np.uint8)]
)
def test_segment_refuses_what_is_no_photograph(image):
    it = recipe()
    with pytest.raises(ValueError, match="uint8") as error:
        segment(it.build_model(), image, it)
    assert str(tuple(image.shape)) in str(error.value)


def test_evaluate_scores_every_example(photograph):
    it = recipe()
    model = it.build_model()
    examples = [photograph, fundus(4, (50, 66))]
    due = OverlapScores()
    for example in examples:
        due.add(segment(model, example.image, it), example.label, example.field)
    got = evaluate(model, it, examples).scores
    assert all(torch.equal(a, b) for a, b in zip(got.histograms, due.histograms, strict=True))


# --- trained models -----------------------------------------------------------------------------------------


def test_load_model_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        load_model(tmp_path)


def test_load_model_refuses_foreign_weights(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors"):
        load_model(tmp_path / "foreign.safetensors")
    for text in ("{}", "no json", '{"name": "x"}', "[]"):
        save_file({"a": torch.ones(1)}, tmp_path / "odd.safetensors", {"recipe": text})
        with pytest.raises(ValueError) as error:
            load_model(tmp_path / "odd.safetensors")
        assert "\n" not in str(error.value)


def test_load_model_refuses_weights_that_do_not_fit_their_recipe(tmp_path):
    from safetensors.torch import save_file

    save_file({"model.a": torch.ones(1)}, tmp_path / "odd.safetensors", {"recipe": recipe().to_json()})
    with pytest.raises(ValueError, match=r"odd\.safetensors"):
        load_model(tmp_path / "odd.safetensors")


def test_a_pretrained_model_that_does_not_ship_is_refused():
    with pytest.raises(KeyError, match="nonsense"):
        pretrained("nonsense")


def test_a_saved_model_comes_back_with_its_recipe(tmp_path):
    recipe = recipes.get("synthetic-small")
    model = recipe.build_model().eval()
    save_model(tmp_path / "weights.safetensors", model, recipe)
    loaded, its_recipe = load_model(tmp_path / "weights.safetensors")
    assert its_recipe == recipe and not loaded.training
    due = model.state_dict()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, due[name])


def test_the_net_that_ships_segments_a_picture_it_never_saw():
    """It learned on real photographs; a drawn one is of another kind, and still its vessels are found."""
    model, recipe = pretrained()
    example = fundus(1)
    probabilities = segment(model, example.image, recipe)
    scores = OverlapScores()
    scores.add(probabilities, example.label, example.field)
    assert scores.score()["dice"] > 0.7
    assert sum(p.numel() for p in model.parameters()) < 70_000
