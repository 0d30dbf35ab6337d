"""Overlap scores against torchmetrics, scikit-learn and plain NumPy, protocol by protocol."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, recall_score, roc_auc_score
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    BinaryJaccardIndex,
    BinaryRecall,
    BinarySpecificity,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from u2learn.metrics.overlap import BINS, ClassScores, OverlapScores, confusion, score_overlap, scores


def probability_map(vessel: np.ndarray | torch.Tensor) -> torch.Tensor:
    vessel = torch.as_tensor(vessel)
    return torch.stack([1 - vessel, vessel])


def dataset(images=3, seed=0, ignore=False, sizes=((37, 29), (24, 51), (40, 40))):
    """Random but informative maps of several sizes, with fields of view and, if asked for, ignored pixels."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(images):
        size = sizes[i % len(sizes)]
        label = (rng.random(size) < 0.15 + 0.1 * i).astype(np.uint8)
        logits = rng.normal(size=size) * 1.5 + 2.0 * label - 1.2
        vessel = (1 / (1 + np.exp(-logits))).astype(np.float32)
        field = np.hypot(*np.indices(size) - np.reshape(size, (2, 1, 1)) / 2) < 0.45 * min(size)
        if ignore:
            label[rng.random(size) < 0.2] = 255
        found.append((vessel, label, field))
    return found


def pixels(found, region):
    """All scored pixels as two flat arrays: probability and label."""
    keep = [(label != 255) & (field if region == "field" else True) for _, label, field in found]
    p = np.concatenate([vessel[k] for (vessel, _, _), k in zip(found, keep, strict=True)])
    t = np.concatenate([label[k] for (_, label, _), k in zip(found, keep, strict=True)])
    return p, t.astype(int)


def scored(found) -> OverlapScores:
    result = OverlapScores()
    for vessel, label, field in found:
        result.add(probability_map(vessel), label, field)
    return result


@pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])
@pytest.mark.parametrize("region", ["image", "field"])
@pytest.mark.parametrize("threshold", [0.5, 0.25, 717 / 1024])
def test_pooled_scores_equal_scikit_learn(region, ignore, threshold):
    found = dataset(ignore=ignore)
    got = scored(found).score(region=region, pool="total", threshold=threshold)
    p, t = pixels(found, region)
    guess = (p > threshold).astype(int)
    background = f1_score(t, guess, pos_label=0)
    due = {
        "dice": f1_score(t, guess),
        "iou": jaccard_score(t, guess),
        "sensitivity": recall_score(t, guess),
        "specificity": recall_score(t, guess, pos_label=0),
        "accuracy": float((t == guess).mean()),
        "mdice": (f1_score(t, guess) + background) / 2,
        "miou": jaccard_score(t, guess, average="macro"),
    }
    assert {name: got[name] for name in due} == pytest.approx(due, abs=1e-9)
    assert got["dice_per_class"] == pytest.approx([background, due["dice"]], abs=1e-9)
    assert got["iou_per_class"] == pytest.approx([jaccard_score(t, guess, pos_label=0), due["iou"]], abs=1e-9)
    assert got["auc"] == pytest.approx(roc_auc_score(t, p), abs=1 / 4096)


@pytest.mark.parametrize("region", ["image", "field"])
def test_pooled_scores_equal_torchmetrics(region):
    found = dataset(seed=1)
    got = scored(found).score(region=region)
    p, t = map(torch.as_tensor, pixels(found, region))
    due = {
        "dice": BinaryF1Score(),
        "iou": BinaryJaccardIndex(),
        "sensitivity": BinaryRecall(),
        "specificity": BinarySpecificity(),
        "accuracy": BinaryAccuracy(),
    }
    assert {name: got[name] for name in due} == pytest.approx(
        {name: metric(p, t).item() for name, metric in due.items()}, abs=1e-6
    )
    assert got["auc"] == pytest.approx(BinaryAUROC()(p, t).item(), abs=1 / 4096)


@pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])
@pytest.mark.parametrize("region", ["image", "field"])
def test_mean_of_images_equals_scikit_learn(region, ignore):
    found = dataset(ignore=ignore, images=4)
    got = scored(found).score(region=region, pool="image", threshold=0.25)
    each = [pixels([one], region) for one in found]
    due = {
        "dice": np.mean([f1_score(t, p > 0.25) for p, t in each]),
        "iou": np.mean([jaccard_score(t, p > 0.25) for p, t in each]),
        "sensitivity": np.mean([recall_score(t, p > 0.25) for p, t in each]),
        "specificity": np.mean([recall_score(t, p > 0.25, pos_label=0) for p, t in each]),
        "accuracy": np.mean([(t == (p > 0.25)).mean() for p, t in each]),
        "mdice": np.mean([f1_score(t, p > 0.25, average="macro") for p, t in each]),
    }
    assert {name: got[name] for name in due} == pytest.approx(due, abs=1e-9)
    assert got["auc"] == pytest.approx(np.mean([roc_auc_score(t, p) for p, t in each]), abs=1 / 4096)
    assert got["dice"] != pytest.approx(scored(found).score(region=region, threshold=0.25)["dice"], abs=1e-4)


def test_auc_is_exact_where_probabilities_are_multiples_of_the_bin():
    rng = np.random.default_rng(0)
    vessel = rng.integers(1, 1025, (50, 50)) / 1024
    label = (rng.random((50, 50)) < vessel).astype(np.uint8)
    got = score_overlap([probability_map(vessel)], [label])
    assert got["auc"] == pytest.approx(roc_auc_score(label.ravel(), vessel.ravel()), abs=1e-12)


def test_half_is_argmax():
    """At 0.5 the protocol is OpenMMLab's: the class with the larger probability, ties to the background."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 300, 300, generator=generator)
    logits[:, :40] *= 1e-3  # near ties
    logits[1, :5] = logits[0, :5]  # ties
    probabilities = logits.softmax(0)
    label = torch.randint(0, 2, (300, 300), generator=generator)
    got = score_overlap([probabilities], [label])
    guess = probabilities.argmax(0)
    assert got["dice"] == pytest.approx(f1_score(label.flatten(), guess.flatten()), abs=1e-12)
    assert got["accuracy"] == pytest.approx((guess == label).double().mean().item(), abs=1e-12)


@pytest.mark.parametrize("region", ["image", "field"])
@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_is_the_best_of_all(region, seed):
    found = dataset(seed=seed, ignore=True)
    result = scored(found)
    p, t = pixels(found, region)
    every = [2 * (t[p > k / 1024]).sum() / max((p > k / 1024).sum() + t.sum(), 1) for k in range(1024)]
    best = result.best_threshold(region)
    assert every[round(best * 1024)] == pytest.approx(max(every), abs=1e-12)
    assert result.score(region=region, threshold=best)["dice"] == pytest.approx(max(every), abs=1e-12)


def test_field_and_image_differ_and_no_field_means_everything():
    found = dataset()
    result = scored(found)
    assert result.score(region="image")["dice"] != result.score(region="field")["dice"]
    bare = OverlapScores()
    for vessel, label, _ in found:
        bare.add(probability_map(vessel), label)
    assert bare.score(region="image") == result.score(region="image") == bare.score(region="field")


def test_the_threshold_is_exact_at_a_bin_border():
    vessel = torch.tensor([[0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.5, 0.0, 1.0]])
    label = torch.tensor([[0, 1, 1, 0, 1]])
    assert score_overlap([probability_map(vessel)], [label], threshold=0.25)["dice"] == 1  # p > 0.25, not >=
    assert score_overlap([probability_map(vessel)], [label], threshold=0.5)["sensitivity"] == pytest.approx(
        1 / 3
    )
    assert score_overlap([probability_map(vessel)], [label], threshold=1)["sensitivity"] == 0


def test_hard_masks_can_be_scored():
    """The second observer is a map of zeros and ones: every threshold between gives the same."""
    rng = np.random.default_rng(0)
    first = (rng.random((30, 30)) < 0.2).astype(np.uint8)
    second = np.where(rng.random((30, 30)) < 0.1, 1 - first, first)
    result = OverlapScores()
    result.add(probability_map(second.astype(np.float32)), first)
    due = f1_score(first.ravel(), second.ravel())
    for threshold in (1 / 1024, 0.3, 0.5, 1023 / 1024, result.best_threshold()):
        assert result.score(threshold=threshold)["dice"] == pytest.approx(due, abs=1e-12)


def test_curve_is_recall_and_precision():
    found = dataset(images=1)
    recall, precision = scored(found).curve()
    p, t = pixels(found, "image")
    assert recall.shape == precision.shape == (1024,)
    for k in (0, 100, 512, 900):
        guess = p > k / 1024
        assert recall[k].item() == pytest.approx((guess & (t == 1)).sum() / (t == 1).sum())
        assert precision[k].item() == pytest.approx((t[guess] == 1).mean())


def test_score_overlap_is_the_class_in_one_call():
    found = dataset(ignore=True)
    maps, labels, fields = ([x[i] for x in found] for i in range(3))
    got = score_overlap(
        map(probability_map, maps), labels, fields, region="field", pool="image", threshold=0.25
    )
    assert got == scored(found).score("field", "image", 0.25)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        score_overlap(map(probability_map, maps), labels[:2])


def test_numpy_and_torch_labels_give_the_same():
    (vessel, label, field), *_ = dataset(images=1)
    one = score_overlap([probability_map(vessel)], [label], [field])
    two = score_overlap([probability_map(vessel)], [torch.as_tensor(label).long()], [torch.as_tensor(field)])
    assert one == two


# --- images without vessels and other corners ---------------------------------------------------------------


def test_an_image_without_vessels_spoils_no_mean():
    found = dataset(images=2)
    empty = (np.full((9, 9), 0.1, np.float32), np.zeros((9, 9), np.uint8), np.ones((9, 9), bool))
    alone = scored([empty]).score()
    assert math.isnan(alone["dice"]) and math.isnan(alone["auc"]) and math.isnan(alone["sensitivity"])
    assert alone["specificity"] == alone["accuracy"] == 1
    mean = scored([*found, empty]).score(pool="image")
    assert mean["dice"] == pytest.approx(scored(found).score(pool="image")["dice"])


def test_nothing_right_is_zero_and_all_right_is_one():
    label = np.zeros((8, 8), np.uint8)
    label[:2] = 1
    perfect = score_overlap([probability_map(label.astype(np.float32))], [label])
    assert all(
        perfect[name] == 1 for name in ("dice", "iou", "accuracy", "sensitivity", "specificity", "auc")
    )
    wrong = score_overlap([probability_map(1 - label.astype(np.float32))], [label])
    assert all(wrong[name] == 0 for name in ("dice", "iou", "accuracy", "sensitivity", "specificity", "auc"))


# --- what is refused ----------------------------------------------------------------------------------------


def refusal(*arguments) -> str:
    with pytest.raises(ValueError) as error:
        OverlapScores().add(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_0_255_mask_is_refused():
    label = np.zeros((4, 4), np.uint8)
    label[0] = 254
    assert "0/255" in refusal(torch.full((2, 4, 4), 0.5), label)


def test_a_mask_of_0_and_255_only_is_not_silently_all_ignored():
    """255 means ignore: of a 0/255 mask only background is scored, so Dice is NaN, never a number."""
    label = np.zeros((4, 4), np.uint8)
    label[0] = 255
    got = score_overlap([torch.full((2, 4, 4), 0.5)], [label])
    assert math.isnan(got["dice"])


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01, math.inf])
def test_what_is_no_probability_is_refused(value):
    probabilities = torch.full((2, 4, 4), 0.5)
    probabilities[1, 2, 3] = value
    assert "softmax" in refusal(probabilities, np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (3, 4, 4), (2, 4, 5), (1, 2, 4, 4)])
def test_shapes_that_differ_are_refused(shape):
    assert str(tuple(shape)) in refusal(torch.full(shape, 0.5), np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("shape", [(4, 5), (1, 4), (4,), (1, 4, 4)])
def test_a_field_of_another_shape_is_refused(shape):
    assert "field" in refusal(torch.full((2, 4, 4), 0.5), np.zeros((4, 4), np.uint8), np.ones(shape, bool))


def test_an_empty_field_is_refused_with_the_number_of_its_image():
    """Inside of it every score is 0 / 0."""
    result = scored(dataset(images=2))
    with pytest.raises(ValueError, match="field of view of image 3 is empty"):
        result.add(torch.full((2, 4, 4), 0.5), np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool))


def test_a_0_255_field_is_a_field():
    (vessel, label, field), *_ = dataset(images=1)
    due = score_overlap([probability_map(vessel)], [label], [field], region="field")
    got = score_overlap([probability_map(vessel)], [label], [field.astype(np.uint8) * 255], region="field")
    assert got == due


def test_a_refused_image_leaves_the_scores_as_they_were():
    result = scored(dataset())
    before = result.score()
    with pytest.raises(ValueError):
        result.add(torch.full((2, 4, 4), math.nan), np.zeros((4, 4), np.uint8))
    assert result.score() == before


def test_unknown_protocols_are_refused():
    result = scored(dataset(images=1))
    with pytest.raises(ValueError, match="region"):
        result.score(region="disc")
    with pytest.raises(ValueError, match="pool"):
        result.score(pool="mean")
    for threshold in (-0.1, 1.1, 128, math.nan):
        with pytest.raises(ValueError, match=r"[Tt]hreshold"):
            result.score(threshold=threshold)
    with pytest.raises(ValueError, match="No image"):
        OverlapScores().score()
    with pytest.raises(ValueError, match="No image"):
        OverlapScores().best_threshold()


# --- many classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore", [False, True], ids=["all", "ignore"])
def test_confusion_of_many_classes(ignore):
    generator = torch.Generator().manual_seed(0)
    label, guess = torch.randint(0, 5, (2, 30, 40), generator=generator)
    if ignore:
        label[torch.rand(30, 40, generator=generator) < 0.3] = 255
    counts = confusion(guess, label, 5)
    keep = label != 255
    assert counts.tolist() == confusion_matrix(label[keep], guess[keep]).tolist()  # rows are the truth
    got = scores(counts)
    due = {
        "mdice": MulticlassF1Score(5, average="macro")(guess[keep], label[keep]).item(),
        "miou": MulticlassJaccardIndex(5, average="macro")(guess[keep], label[keep]).item(),
        "accuracy": (guess == label)[keep].double().mean().item(),
    }
    assert {name: got[name] for name in due} == pytest.approx(due, abs=1e-6)
    each = MulticlassF1Score(5, average="none")(guess[keep], label[keep]).tolist()
    assert got["dice_per_class"] == pytest.approx(each, abs=1e-6)
    assert "dice" not in got  # there is no vessel among five classes


def test_a_class_that_never_occurs_is_left_out_of_means():
    label, guess = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    got = scores(confusion(guess, label, 4))
    assert got["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert got["mdice"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert math.isnan(got["iou_per_class"][3])


def test_a_class_that_is_missed_entirely_counts_as_zero():
    got = scores(confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), 2))
    assert got["dice"] == 0 and got["iou"] == 0 and got["sensitivity"] == 0 and math.isnan(got["precision"])


def test_counts_of_images_add_up():
    generator = torch.Generator().manual_seed(0)
    label, guess = torch.randint(0, 3, (2, 4, 6, 6), generator=generator)
    assert torch.equal(
        confusion(guess, label, 3), sum(confusion(g, t, 3) for g, t in zip(guess, label, strict=True))
    )


@pytest.mark.parametrize(
    ("guess", "label", "words"),
    [
        ([0, 1], [0, 7], "class 7"),
        ([0, 9], [0, 1], "class 9"),
        ([0, 1], [0, -1], "class -1"),
        ([0, 1, 1], [0, 1], "(3,)"),
    ],
)
def test_ids_and_shapes_that_do_not_fit_are_refused(guess, label, words):
    with pytest.raises(ValueError) as error:
        confusion(torch.tensor(guess), torch.tensor(label), 2)
    assert words in str(error.value) and "\n" not in str(error.value)


# --- many classes -------------------------------------------------------------------------------------------


def street_maps(absent=(), seed=0, images=4):
    """Label maps of 19 classes with ignored pixels, and predictions that are right two times in three."""
    rng = np.random.default_rng(seed)
    kinds = [k for k in range(19) if k not in absent]
    found = []
    for i in range(images):
        size = (20 + i, 31)
        label = rng.choice(kinds, size, p=rng.dirichlet(np.ones(len(kinds)))).astype(np.uint8)
        guess = np.where(rng.random(size) < 0.67, label, rng.choice(kinds, size))
        label[rng.random(size) < 0.2] = 255
        found.append((torch.from_numpy(guess), label))
    return found


@pytest.mark.parametrize("absent", [(), (3,), (0, 7, 18)], ids=["all", "one absent", "three absent"])
def test_many_classes_equal_torchmetrics(absent):
    found, options = street_maps(absent), {"num_classes": 19, "ignore_index": 255}
    result = ClassScores(19)
    theirs = {
        "miou": MulticlassJaccardIndex(**options, average="macro"),
        "mdice": MulticlassF1Score(**options, average="macro"),
        "accuracy": MulticlassAccuracy(**options, average="micro"),
        "iou_per_class": MulticlassJaccardIndex(**options, average="none"),
        "dice_per_class": MulticlassF1Score(**options, average="none"),
    }
    for guess, label in found:
        result.add(guess, label)
        for metric in theirs.values():
            metric.update(guess[None], torch.from_numpy(label).long()[None])
    got = result.score()
    assert set(got) == set(theirs)
    for name, metric in theirs.items():
        due = metric.compute().double().numpy()
        if due.ndim:  # class by class: torchmetrics writes 0 where a class is absent, we write NaN
            assert np.isnan(np.array(got[name])[list(absent)]).all()
            due = np.delete(due, absent)
            assert np.delete(got[name], absent) == pytest.approx(due, abs=1e-6)
        else:
            assert got[name] == pytest.approx(float(due), abs=1e-6)


def test_many_classes_add_up_over_images_before_anything_is_divided():
    """The score of the set, which is not the mean of the images' scores."""
    found = street_maps(images=3)
    together, each = ClassScores(19), []
    for guess, label in found:
        together.add(guess, label)
        alone = ClassScores(19)
        alone.add(guess, label)
        each.append(alone.score()["miou"])
    flat = [np.concatenate([np.asarray(x).ravel() for x in column]) for column in zip(*found, strict=True)]
    keep = flat[1] != 255
    due = jaccard_score(flat[1][keep], flat[0][keep], average="macro")
    assert together.score()["miou"] == pytest.approx(due, abs=1e-12)
    assert abs(due - np.mean(each)) > 0.01
    assert together.counts.sum() == keep.sum()


def test_an_absent_class_that_is_predicted_counts_as_zero():
    result = ClassScores(3)
    result.add(torch.tensor([[0, 1, 0, 0]]), np.array([[0, 0, 0, 255]]))
    assert result.score()["iou_per_class"][:2] == [pytest.approx(2 / 3), 0]
    assert math.isnan(result.score()["iou_per_class"][2])
    assert result.score()["miou"] == pytest.approx(1 / 3)  # (2/3 + 0) / 2: the third is left out


def test_many_classes_refuse_what_does_not_fit():
    result = ClassScores(3)
    with pytest.raises(ValueError, match="nothing to score"):
        result.score()
    with pytest.raises(ValueError, match="class 7, but the classes are 0 to 2"):
        result.add(torch.zeros(2, 2, dtype=torch.int64), np.full((2, 2), 7))
    with pytest.raises(ValueError, match=r"\(2, 2\) cannot be scored on \(2, 3\)"):
        result.add(torch.zeros(2, 2, dtype=torch.int64), np.zeros((2, 3), np.uint8))
    assert not result.counts.any()


# --- large images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_off_by_no_more_than_it_says(seed):
    """Probabilities that crowd in a few bins, where the histogram knows least."""
    rng = np.random.default_rng(seed)
    label = (rng.random((60, 50)) < 0.2).astype(np.uint8)
    spread = (0.2, 0.002, 0.0008, 0.0002)[seed]
    vessel = np.clip(0.4 + spread * (rng.normal(size=label.shape) + label), 0, 1)
    result = OverlapScores()
    result.add(probability_map(vessel), label)
    got = result.score()
    off = abs(got["auc"] - roc_auc_score(label.ravel(), vessel.ravel()))
    assert off <= got["auc_error"] + 1e-12
    # The bound is half the share of pairs in one bin, here by a naive loop over bins.
    edges = [*(np.arange(1, 1024) / 1024), *(1 / (1 + np.exp(-np.arange(-512, 512) / 32)))]
    bins = np.searchsorted(np.sort(edges), vessel)
    tied = sum(
        ((bins == b) & (label == 1)).sum() * ((bins == b) & (label == 0)).sum() for b in np.unique(bins)
    )
    assert got["auc_error"] == pytest.approx(tied / 2 / (label == 1).sum() / (label == 0).sum(), abs=1e-12)
    if spread < 0.0005:
        assert off > 0.05  # so the bound is not idle


def test_at_threshold_0_a_probability_of_0_is_vessel_too_and_at_1_nothing_is():
    label = np.array([[1, 1, 0, 0]])
    result = OverlapScores()
    result.add(probability_map(np.array([[0.0, 1.0, 0.0, 1.0]])), label)
    all_of_it, half, nothing = (result.score(threshold=t) for t in (0, 1 / 1024, 1))
    assert (all_of_it["sensitivity"], all_of_it["specificity"]) == (1, 0)
    assert (half["sensitivity"], half["specificity"]) == (0.5, 0.5)
    assert (nothing["sensitivity"], nothing["specificity"]) == (0, 1)
    recall, precision = result.curve()
    assert recall[0] == 1 and precision[0] == 0.5 and recall[1] == 0.5


def test_the_area_of_a_network_that_is_sure():
    """Most pixels below the lowest threshold, as a trained network has them: equal bins would not do."""
    rng = np.random.default_rng(0)
    label = (rng.random((300, 300)) < 0.1).astype(np.uint8)
    vessel = 1 / (1 + np.exp(-rng.normal(np.where(label, -5, -9), 2.5)))
    got = score_overlap([probability_map(vessel)], [label])
    exact = roc_auc_score(label.ravel(), vessel.ravel())
    equal_bins = roc_auc_score(label.ravel(), np.ceil(vessel * 1024).ravel())
    assert (vessel < 1 / 1024).mean() > 0.7
    assert got["auc"] == pytest.approx(exact, abs=2e-5) and abs(equal_bins - exact) > 0.01
    assert got["auc_error"] < 0.003


def test_the_bound_is_reached_when_a_bin_hides_a_perfect_order():
    label = np.array([[0, 0, 1, 1]])
    result = OverlapScores()
    result.add(probability_map(np.array([[0.50010, 0.50011, 0.50012, 0.50013]])), label)
    assert result.score()["auc"] == 0.5 and result.score()["auc_error"] == 0.5


MEASURE = """
import re, sys, torch
from pathlib import Path
from u2learn.metrics.overlap import OverlapScores

result, generator = OverlapScores(), torch.Generator().manual_seed(0)
for i in range(int(sys.argv[1])):
    vessel = torch.rand(2336, 3504, generator=generator)
    label = (torch.rand(2336, 3504, generator=generator) < vessel**3).to(torch.uint8)
    result.add(torch.stack([1 - vessel, vessel]), label, vessel > 0.1)
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
result.score()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_images_of_hrfs_size_stay_below_2_gib():
    """The peak of a process of its own over three images; what an image leaves behind is its counts alone."""
    run = subprocess.run([sys.executable, "-c", MEASURE, "3"], capture_output=True, text=True, check=True)
    peaks = [int(line) / 2**20 for line in run.stdout.split()]  # GiB
    assert len(peaks) == 3 and peaks[-1] < 1.5
    result = OverlapScores()
    for _ in range(2):
        result.add(torch.rand(2, 80, 80), torch.zeros(80, 80))
    assert list(vars(result)) == ["histograms"]  # so 30 images cost what 3 do, and 2 MB
    for counts in result.histograms:
        assert counts.untyped_storage().nbytes() == 4 * BINS * 8
