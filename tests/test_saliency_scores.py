"""Saliency scores against PySODMetrics, naive loops and the reference values that U²-Net's program gives."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import py_sod_metrics
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tools import saliency_speed
from u2learn.metrics import saliency
from u2learn.metrics.hce import corrections
from u2learn.metrics.hce import hce as count_efforts
from u2learn.metrics.saliency import SaliencyScores, normalised, relaxed_f, score_saliency

EVERYTHING = ("weighted_f", "relaxed_f", "hce")
pytestmark = pytest.mark.filterwarnings("ignore:This class will be removed", "ignore::RuntimeWarning")


def package(pairs) -> dict[str, float]:
    """What PySODMetrics gives for pairs of an 8-bit map and a bool mask, under our names."""
    metrics = {
        "mae": py_sod_metrics.MAE(),
        "fm": py_sod_metrics.Fmeasure(),
        "wfm": py_sod_metrics.WeightedFmeasure(),
        "sm": py_sod_metrics.Smeasure(),
        "em": py_sod_metrics.Emeasure(),
        "hce": py_sod_metrics.HumanCorrectionEffortMeasure(),
    }
    for level, mask in pairs:
        for metric in metrics.values():
            metric.step(level, mask.astype(np.uint8) * 255)
    found = {}
    for metric in metrics.values():
        found |= metric.get_results()
    precision, recall = found["pr"]["p"], found["pr"]["r"]
    f_of_means = [1.3 * p * r / (0.3 * p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True)]
    return {
        "mae": found["mae"],
        "max_f": max(f_of_means),
        "max_f_curves": found["fm"]["curve"].max(),
        "mean_f": found["fm"]["curve"].mean(),
        "adaptive_f": found["fm"]["adp"],
        "weighted_f": found["wfm"],
        "s": found["sm"],
        "max_e": found["em"]["curve"].max(),
        "mean_e": found["em"]["curve"].mean(),
        "adaptive_e": found["em"]["adp"],
        "hce": found["hce"],
    }


def ours(pairs, **options) -> dict[str, float]:
    return score_saliency([(level / 255, mask) for level, mask in pairs], **options)


def blobs(rng, size):
    return ndimage.gaussian_filter(rng.normal(size=size), 3)


def made(rng, size, kind, mask_kind):
    """A random pair of an 8-bit map and a bool mask."""
    field = blobs(rng, size)
    mask = {
        "noise": lambda: rng.random(size) < 0.3,
        "empty": lambda: np.zeros(size, bool),
        "full": lambda: np.ones(size, bool),
        "one pixel": lambda: np.arange(math.prod(size)).reshape(size) == rng.integers(math.prod(size)),
        "blobs": lambda: field > np.quantile(field, rng.random()),
    }[mask_kind]()
    near = field + 0.5 * blobs(rng, size)
    level = {
        "noise": lambda: rng.integers(0, 256, size),
        "one grey": lambda: np.full(size, rng.integers(256)),
        "two greys": lambda: np.where(rng.random(size) < 0.5, *rng.integers(0, 256, 2)),
        "blobs": lambda: 255 * (near - near.min()) / max(np.ptp(near), 1e-9),
        "sure": lambda: 255 * (near > np.median(near)),
        "right": lambda: 255 * mask,
    }[kind]()
    return level.astype(np.uint8), mask


MASKS = ["noise", "empty", "full", "one pixel", "blobs"]
SIZES = [(1, 1), (1, 7), (2, 2), (5, 3), (37, 53)]


# --- against PySODMetrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("kind", ["noise", "one grey", "two greys", "blobs", "sure", "right"])
def test_each_image_scores_as_in_pysodmetrics(kind, mask_kind):
    rng = np.random.default_rng(0)
    for size in SIZES:
        for _ in range(4):
            pair = made(rng, size, kind, mask_kind)
            due, got = package([pair]), ours([pair], also=EVERYTHING)
            for name in ("max_e", "mean_e", "adaptive_e"):  # theirs may be n / (n - 1); of one pixel, 1 / EPS
                due[name] = min(due[name] * (saliency.EPS if size == (1, 1) else 1), 1)
            assert got.keys() == {*due, "relaxed_f", "empty_masks"}
            assert got["empty_masks"] == (not pair[1].any())
            for name, value in due.items():
                if math.isnan(value):  # a window of no pixels: see the next test
                    assert name == "s" and 0 <= got["s"] <= 1
                else:
                    assert got[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (name, size, pair)


def test_an_object_in_the_last_column_has_a_structure_score():
    """The windows right of it are empty, and the original takes the mean of nothing."""
    mask = np.zeros((6, 5), bool)
    mask[2:4, 4] = True
    level = np.where(mask, 200, 10).astype(np.uint8)
    assert math.isnan(package([(level, mask)])["s"])
    (got,) = SaliencyScoresOf([(level, mask)]).images
    wider = np.pad(mask, ((0, 0), (0, 1))), np.pad(level, ((0, 0), (0, 1)), constant_values=10)
    assert got["s"] == pytest.approx(package([wider[::-1]])["s"], abs=0.05) and got["s"] > 0.9


def SaliencyScoresOf(pairs, **options) -> SaliencyScores:
    scores = SaliencyScores(**options)
    for level, mask in pairs:
        scores.add(level / 255, mask)
    return scores


def test_a_data_set_scores_as_in_pysodmetrics():
    rng = np.random.default_rng(1)
    pairs = [made(rng, (40 + i, 61 - i), "blobs", MASKS[i % 5]) for i in range(15)]
    due, got = package(pairs), ours(pairs, also=EVERYTHING)
    assert {name: got[name] for name in due} == pytest.approx(due, abs=1e-9)
    assert got["max_f"] > got["max_f_curves"] + 1e-3  # or the test could not tell them apart


def test_the_curves_are_those_of_pysodmetrics():
    rng = np.random.default_rng(2)
    pairs = [made(rng, (30, 40), "blobs", "blobs") for _ in range(3)]
    got, f, e = SaliencyScoresOf(pairs).curves(), py_sod_metrics.Fmeasure(), py_sod_metrics.Emeasure()
    for level, mask in pairs:
        f.step(level, 255 * mask.astype(np.uint8))
        e.step(level, 255 * mask.astype(np.uint8))
    due = {"f": f.get_results()["fm"]["curve"], "e": e.get_results()["em"]["curve"]}
    due |= {"precision": f.get_results()["pr"]["p"], "recall": f.get_results()["pr"]["r"]}
    for name, curve in due.items():
        assert got[name] == pytest.approx(curve[::-1], abs=1e-12)  # ours begins with threshold 0


@pytest.mark.parametrize("folder", ["ECSSD"])
def test_real_masks_score_as_in_pysodmetrics(folder):
    """Masks of people, with a bright disc in the middle of the picture as the prediction."""
    masks = sorted(Path(os.environ.get("U2LEARN_DATA", "nowhere"), folder, "ground_truth_mask").glob("*.png"))
    if not masks:
        pytest.skip(f"no {folder} in U2LEARN_DATA")
    pairs = []
    for path in masks[:: len(masks) // 20][:20]:
        mask = np.asarray(Image.open(path)) > 127
        y, x = np.indices(mask.shape) - np.reshape(mask.shape, (2, 1, 1)) / 2
        level = 255 * np.exp(-((y / mask.shape[0]) ** 2 + (x / mask.shape[1]) ** 2) * 8)
        pairs.append((level.astype(np.uint8), mask))
    due, got = package(pairs), ours(pairs, also=EVERYTHING)
    assert {name: got[name] for name in due} == pytest.approx(due, abs=1e-9)
    assert 0.3 < got["max_f"] < 0.8  # better than nothing, and no net


# --- reference values ---------------------------------------------------------------------------------------

Y, X = np.mgrid[:48, :64]
DISC = (
    np.floor(0.5 + 255 / (1 + np.exp((np.hypot(Y - 24, X - 33) - 15) / 2.5))),
    (Y - 22) ** 2 / 14**2 + (X - 30) ** 2 / 18**2 <= 1,
)
CHESS = np.where((Y // 8 + X // 8) % 2 == 0, 200, 30), (Y >= 10) & (Y <= 29) & (X >= 5) & (X <= 24)
KNOWN = {
    "mae": (0.130261, 0.502604, 0.316433),
    "max_f_curves": (0.878038, 0.162907, 0.515951),
    "max_f": (0.878038, 0.162907, 0.554076),
    "mean_f": (0.757573, 0.153900, 0.455737),
    "adaptive_f": (0.872631, 0.153865, 0.513248),
    "weighted_f": (0.715294, 0.170935, 0.443114),
    "s": (0.849621, 0.285524, 0.567572),
    "max_e": (0.930773, 0.324385, 0.627579),
    "mean_e": (0.787834, 0.324095, 0.555965),
    "adaptive_e": (0.926214, 0.324385, 0.625300),
    "relaxed_f": (0.747854, 0.246862, (0.747854 + 0.246862) / 2),
    "hce": (5, 6, 5.5),
    "empty_masks": (0, 0, 0),
}


@pytest.mark.parametrize(
    ("which", "pairs"), [(0, [DISC]), (1, [CHESS]), (2, [DISC, CHESS])], ids=["disc", "chess", "both"]
)
def test_two_drawn_pairs_have_the_known_scores(which, pairs):
    due = {name: values[which] for name, values in KNOWN.items()}
    assert ours(pairs, also=EVERYTHING) == pytest.approx(due, abs=1e-6)
    # The program of U²-Net's authors divides by the maximum: 200 becomes 1 in both, but 30 does not become 0.
    by_maximum = ours(pairs, normalise="maximum", also=())
    assert by_maximum["mae"] == pytest.approx((0.130261, 0.557682, 0.343972)[which], abs=1e-6)
    assert by_maximum["max_f"] == pytest.approx(due["max_f"], abs=1e-6)


def authors_curves(pairs):
    """Mean precision and recall as in the program of U²-Net's authors, threshold by threshold: (255,) each.

    It divides a map by its maximum plus 1e-8 and takes histograms with the edges 0, 1, ..., 255.
    """
    precision, recall = [], []
    for level, mask in pairs:
        grey = level / (level.max() + 1e-8) * 255
        cut = [grey >= edge for edge in range(255)]
        precision.append([(c & mask).sum() / (c.sum() + 1e-8) for c in cut])
        recall.append([(c & mask).sum() / (mask.sum() + 1e-8) for c in cut])
    return np.mean(precision, 0), np.mean(recall, 0)


def test_by_maximum_the_curves_are_those_of_the_authors():
    rng = np.random.default_rng(3)
    pairs = [made(rng, (20, 30), "blobs", "blobs") for _ in range(4)]
    pairs += [(level // 3, mask) for level, mask in pairs]  # maps that are dark in their brightest pixel
    got = SaliencyScoresOf(pairs, normalise="maximum")
    precision, recall = authors_curves(pairs)
    assert got.curves()["precision"][:255] == pytest.approx(precision, abs=1e-6)
    assert got.curves()["recall"][:255] == pytest.approx(recall, abs=1e-6)
    best = np.max(1.3 * precision * recall / (0.3 * precision + recall + 1e-8))
    assert got.result()["max_f"] == pytest.approx(best, abs=1e-6)
    mae = np.mean([np.abs(level / level.max() - mask).mean() for level, mask in pairs])
    assert got.result()["mae"] == pytest.approx(mae, abs=1e-6)


# --- against plain loops and the definitions ----------------------------------------------------------------


def test_relaxed_f_by_counting():
    rng = np.random.default_rng(4)
    for size in SIZES:
        level, mask = made(rng, size, "blobs", "blobs")
        got = relaxed_f(level / 255, mask, rho=2)

        def border(m):
            found = []
            for y, x in zip(*np.nonzero(m), strict=True):
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                if any(not m[p] for p in around if 0 <= p[0] < m.shape[0] and 0 <= p[1] < m.shape[1]):
                    found.append((y, x))
            return found

        drawn, true = border(level > 127.5), border(mask)

        def share(some, others):
            return np.mean([any(math.dist(a, b) <= 2 for b in others) for a in some])

        if not drawn or not true:
            assert got == 0
        else:
            p, r = share(drawn, true), share(true, drawn)
            assert got == pytest.approx(1.3 * p * r / (0.3 * p + r) if p + r else 0)


def test_alignment_pixel_by_pixel():
    level, mask = made(np.random.default_rng(5), (13, 17), "blobs", "blobs")
    for threshold in (40, 128, 200):
        cut = level >= threshold
        a, b = cut - cut.mean(), mask - mask.mean()
        due = ((2 * a * b / (a**2 + b**2) + 1) ** 2 / 4).sum() / (mask.size - 1)
        hits, marked = (cut & mask).sum(), cut.sum()
        assert saliency.e_measure(hits, marked, mask) == pytest.approx(due, abs=1e-12)
        assert saliency.count_above(level / 255, mask)[1][threshold] == marked


@pytest.mark.parametrize("seed", range(5))
def test_the_maximum_over_means_is_never_the_smaller_one(seed):
    rng = np.random.default_rng(seed)
    pairs = [made(rng, (12, 15), "noise" if i % 2 else "blobs", "blobs") for i in range(6)]
    got = ours(pairs, also=())
    best_each = np.mean([image["f"].max() for image in SaliencyScoresOf(pairs, also=()).images])
    assert got["max_f"] >= got["max_f_curves"] and best_each >= got["max_f_curves"]


def test_a_right_map_is_perfect_and_a_wrong_one_is_not():
    mask = np.zeros((30, 40), bool)
    mask[8:20, 10:30] = True
    good = score_saliency([(mask, mask)], also=EVERYTHING)
    best = {"mae": 0, "hce": 0, "weighted_f": 1, "relaxed_f": 1, "s": 1, "max_f": 1, "max_f_curves": 1}
    assert {name: good[name] for name in best} == pytest.approx(best, abs=1e-9)
    assert good["max_e"] == 1  # E divides by one pixel too few, and is cut off
    bad = score_saliency([(~mask, mask)], also=EVERYTHING)
    assert bad["mae"] == 1 and bad["s"] < 0.1 and bad["weighted_f"] < 0.01 and bad["hce"] > 0


@pytest.mark.parametrize("side", [1, 2, 10, 100])
def test_no_share_is_above_1(side):
    """E is divided by one pixel too few: a perfect map had 4/3 of four pixels, and 4.5e15 of one."""
    mask = np.arange(side**2).reshape(side, side) < (side**2 + 1) // 2
    got = ours([(255 * mask, mask)], also=("weighted_f", "relaxed_f"))
    assert got.pop("empty_masks") == 0 and all(0 <= value <= 1 for value in got.values())
    assert got["max_e"] == got["adaptive_e"] == 1


def test_a_picture_of_one_pixel_does_not_outweigh_the_others():
    dot, half = np.ones((1, 1), bool), np.arange(400).reshape(20, 20) < 200
    pairs = [(255 * half, half), (255 * (half & (np.arange(20) < 10)), half), (255 * dot, dot)]
    alone = [ours([pair], also=())["adaptive_e"] for pair in pairs]
    assert ours(pairs, also=())["adaptive_e"] == pytest.approx(np.mean(alone), abs=2e-3)
    assert 0.5 < np.mean(alone) < 0.95


def test_images_without_an_object_are_counted():
    """Their F is 0 whatever the map says, so a reader must know how many there are."""
    empty, full = np.zeros((8, 9), bool), np.ones((8, 9), bool)
    right = ours([(255 * empty, empty)])
    wrong = ours([(255 * full, empty)])
    for name in ("max_f", "max_f_curves", "mean_f", "adaptive_f", "weighted_f", "relaxed_f"):
        assert right[name] == wrong[name] == 0
    assert (right["mae"], right["s"], right["adaptive_e"]) == (0, 1, 0)  # adaptive: all that is >= 0
    assert (wrong["mae"], wrong["s"], wrong["adaptive_e"]) == (1, 0, 0)
    both = ours([DISC, (255 * empty, empty), (255 * full, full), (255 * empty, empty)])
    assert both["empty_masks"] == 2 and right["empty_masks"] == wrong["empty_masks"] == 1
    assert ours([(255 * full, full)])["relaxed_f"] == 0  # no border
    json.dumps(both, allow_nan=False)


def test_what_happens_to_a_map_before_it_is_scored():
    grey = np.array([[0.2, 0.6]])
    assert normalised(grey, "range").tolist() == [[0, 1]]
    assert normalised(grey, "maximum").tolist() == [[pytest.approx(1 / 3), pytest.approx(1)]]
    assert normalised(grey, "none") is grey
    for how in ("range", "maximum", "none"):
        assert normalised(np.zeros((2, 2)), how).tolist() == [[0, 0], [0, 0]]
    assert normalised(np.full((2, 2), 0.4), "range").tolist() == [[0.4, 0.4], [0.4, 0.4]]
    assert (
        normalised(np.array([[0.0, 1.0]]), "maximum").max() < 1
    )  # hence no pixel reaches the 256th threshold


# --- human correction efforts -------------------------------------------------------------------------------


def test_a_border_moved_by_less_than_the_slack_costs_nothing():
    mask = np.zeros((80, 100), bool)
    mask[20:60, 20:80] = True
    for shift, free in ((0, True), (3, True), (14, False)):
        cost = count_efforts(np.roll(mask, shift, 1).astype(float), mask)
        assert (cost == 0) == free, shift


def test_an_island_and_a_hole_cost_a_click_each():
    mask = np.zeros((80, 100), bool)
    mask[10:70, 10:60] = True
    guess = mask.copy()
    guess[20:50, 75:95] = True  # far from the object, and wide enough to reach into the core
    guess[25:45, 25:45] = False
    steps = corrections(guess, mask)
    assert steps.total == 2
    assert steps.remove.cost == 1 and not steps.remove.polygons
    assert steps.remove.islands.sum() == 20 * 30 - 4 * 15  # a cross, grown five times, leaves the corners
    assert steps.fill.cost == 1 and steps.fill.islands.sum() == 20 * 20  # the hole lies in the core
    assert np.array_equal(steps.miss, mask & ~guess) and np.array_equal(steps.false_alarm, guess & ~mask)


def test_a_missing_half_costs_the_corners_of_its_border():
    mask = np.zeros((80, 120), bool)
    mask[20:60, 10:110] = True
    guess = mask.copy()
    guess[:, 70:] = False
    fill = corrections(guess, mask).fill
    (line,) = fill.polygons  # the border to the background; beside the hit nothing has to be drawn
    corners = [[70, 20], [104, 20], [109, 25], [109, 54], [104, 59], [70, 59]]  # two of four are cut off
    assert line.tolist() in (corners, corners[::-1])
    assert fill.cost == 6 and not fill.islands.any()


def test_a_missed_thin_line_is_seen_by_its_bone():
    mask = np.zeros((60, 80), bool)
    mask[20:45, 10:30] = True
    mask[31:33, 30:75] = True  # two pixels thick: no core
    guess = mask.copy()
    guess[:, 32:] = False
    assert not corrections(guess, mask).core[:, 40:].any()
    assert (
        corrections(guess, mask).fill.region[:, 40:70].any(0).all() and count_efforts(guess * 1.0, mask) > 0
    )


def test_without_slack_every_error_counts():
    rng = np.random.default_rng(6)
    level, mask = made(rng, (37, 53), "blobs", "blobs")
    steps = corrections(level > 127, mask, relax=0)
    assert np.array_equal(steps.remove.region, (level > 127) & ~mask)
    assert steps.total > corrections(level > 127, mask).total


# --- what may come in ---------------------------------------------------------------------------------------


def test_every_kind_of_array_gives_the_same():
    level, mask = made(np.random.default_rng(7), (20, 30), "noise", "blobs")
    due = ours([(level, mask)], also=EVERYTHING)
    grey = torch.from_numpy(level / 255)
    pairs = [
        (grey.float(), torch.from_numpy(mask)),
        (grey.float()[None], torch.from_numpy(mask)[None].float()),
        (grey, torch.from_numpy(mask)[None]),
        (grey.half(), mask.astype(np.uint8)),
        (grey.numpy() + 0.3 / 255 * (level < 255), mask),  # a map is scored in 256 levels
        (grey.float().requires_grad_(), mask.tolist()),
    ]
    for pair in pairs:
        assert score_saliency([pair], also=EVERYTHING) == due


def test_images_may_differ_in_size_and_are_not_changed():
    rng = np.random.default_rng(8)
    pairs = [made(rng, size, "blobs", "blobs") for size in ((10, 20), (33, 8))]
    kept = [(level.copy(), mask.copy()) for level, mask in pairs]
    each = [ours([pair]) for pair in pairs]
    both = ours(pairs)
    assert both["s"] == pytest.approx((each[0]["s"] + each[1]["s"]) / 2)
    assert all(
        np.array_equal(a, b)
        for pair, old in zip(pairs, kept, strict=True)
        for a, b in zip(pair, old, strict=True)
    )


def refusal(pred, mask) -> str:
    with pytest.raises(ValueError) as error:
        SaliencyScores().add(pred, mask)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("pred", "mask"),
    [
        ((4, 5), (5, 4)),
        ((2, 4, 5), (2, 4, 5)),
        ((1, 1, 4, 5), (4, 5)),
        ((5,), (5,)),
        ((0, 5), (0, 5)),
        ((4, 5, 3), (4, 5, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(pred, mask):
    message = refusal(np.zeros(pred), np.zeros(mask))
    assert str(pred) in message and str(mask) in message and "(H, W)" in message


@pytest.mark.parametrize("value", [-0.01, 1.01, 255, math.nan, math.inf])
def test_a_map_outside_of_0_and_1_is_refused(value):
    pred = np.full((4, 4), 0.5)
    pred[1, 2] = value
    message = refusal(pred, np.zeros((4, 4)))
    assert f"{value:g}" in message and "sigmoid" in message and "255" in message


@pytest.mark.parametrize("value", [0.5, 255, -1, math.nan])
def test_a_mask_that_is_not_binary_is_refused(value):
    mask = torch.zeros(4, 4)
    mask[2, 1] = value
    assert f"{value:g}" in (message := refusal(torch.rand(4, 4), mask)) and "mask > 127" in message


def test_nothing_added_and_unknown_names_are_refused():
    for ask in (SaliencyScores().result, SaliencyScores().curves, lambda: score_saliency([])):
        with pytest.raises(ValueError, match="No image was added"):
            ask()
    with pytest.raises(ValueError, match="'range', 'maximum' or 'none', not 'minmax'"):
        SaliencyScores(normalise="minmax")
    with pytest.raises(ValueError, match="weighted_f, relaxed_f, hce, not 'mae'"):
        SaliencyScores(also=["mae"])


def test_a_refused_image_leaves_the_scores_as_they_were():
    pairs = [DISC, CHESS]
    scores = SaliencyScoresOf(pairs)
    before = scores.result()
    with pytest.raises(ValueError):
        scores.add(np.full((4, 4), math.nan), np.zeros((4, 4)))
    assert scores.result() == before


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("weighted_f", "scipy.ndimage"),
        ("relaxed_f", "scipy.spatial"),
        ("hce", "cv2"),
        ("hce", "skimage.morphology"),
    ],
)
def test_a_missing_library_is_named_with_what_to_do(monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    level, mask = DISC
    with pytest.raises(ImportError, match=rf"needs {missing}, .*pip install 'u2learn\[metrics\]'\.$"):
        ours([(level, mask)], also=[name])
    assert ours([(level, mask)], also=())["mae"] == pytest.approx(0.130261, abs=1e-6)


def test_importing_the_scores_loads_none_of_the_libraries():
    code = (
        "import sys, u2learn.metrics.saliency\n"
        "print([m for m in ('scipy', 'skimage', 'cv2', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- time ---------------------------------------------------------------------------------------------------


def test_it_is_no_slower_than_pysodmetrics(capsys):
    """The bounds are generous, for a busy machine; `python -m tools.saliency_speed` has 100 images."""
    same, more = saliency_speed.main(images=12)
    assert same < 1.1 and more < 1.4
    assert "PySODMetrics" in capsys.readouterr().out
