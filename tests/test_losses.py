"""Losses: published check values, naive loops, the ignore label, gradients by finite differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from u2learn.losses import cross_entropy, deep_supervision, dice_mmseg0, dice_paddle2021, weighted_sum

LOSSES = {"ce": cross_entropy, "mmseg0": dice_mmseg0, "paddle2021": dice_paddle2021}


def published_example(dtype=torch.double):
    """The logits and labels for which the official code was run."""
    logits = torch.tensor([[[[2, -1], [0.5, 0]], [[-1, 1], [0.5, 3]]]], dtype=dtype)
    return logits, torch.tensor([[[0, 1], [1, 1]]])


def random_example(classes=3, ignore=None, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, 5, 4, generator=generator, dtype=torch.double)
    label = torch.randint(0, classes, (batch, 5, 4), generator=generator)
    if ignore is not None:
        label[torch.rand(label.shape, generator=generator) < 0.3] = ignore
    return logits, label


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def naive(name, logits, label, ignore=255):
    """Each formula as a loop over single pixels, on plain numbers."""
    B, K, H, W = logits.shape
    pixels = [
        (b, softmax(logits[b, :, y, x].tolist()), int(label[b, y, x]))
        for b in range(B)
        for y in range(H)
        for x in range(W)
    ]
    if name == "ce":
        return sum(-math.log(p[t]) for _, p, t in pixels if t != ignore) / len(pixels)
    if name == "mmseg0":  # each image and class; 255 counts as the last class in the divisor, nowhere else
        total = 0.0
        for b in range(B):
            for c in range(K):
                mine = [(p[c], float(min(t, K - 1) == c), t != ignore) for i, p, t in pixels if i == b]
                numerator = 2 * sum(p * t for p, t, valid in mine if valid) + 1
                total += 1 - numerator / (sum(p * p + t * t for p, t, _ in mine) + 1)
        return total / (B * K)
    total = 0.0
    for c in range(K):  # paddle2021: batch and pixels together
        mine = [(p[c], float(t == c)) for _, p, t in pixels if t != ignore]
        total += 2 * sum(p * t for p, t in mine) / (sum(p + t for p, t in mine) + 1e-5)
    return 1 - total / K


@pytest.mark.parametrize(
    ("name", "value"), [("ce", 0.22931246), ("mmseg0", 0.06496730), ("paddle2021", 0.20266581)]
)
def test_values_of_the_official_code(name, value):
    assert LOSSES[name](*published_example()).item() == pytest.approx(
        value, abs=1e-7
    )  # they were run in float32
    assert LOSSES[name](*published_example(torch.float32)).item() == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("ignore", [None, 255], ids=["all", "ignore"])
@pytest.mark.parametrize("classes", [2, 3, 19])
@pytest.mark.parametrize("name", LOSSES)
def test_equal_to_a_loop_over_pixels(name, classes, ignore):
    logits, label = random_example(classes, ignore, seed=classes)
    assert LOSSES[name](logits, label).item() == pytest.approx(naive(name, logits, label), abs=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_another_ignore_label(name):
    logits, label = random_example(3, ignore=255)
    other = label.where(label != 255, 77)
    assert LOSSES[name](logits, other, ignore=77).item() == pytest.approx(
        LOSSES[name](logits, label).item(), abs=1e-12
    )


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name):
    logits, label = random_example(3, ignore=255)
    assert torch.autograd.gradcheck(
        lambda x: LOSSES[name](x, label), logits.requires_grad_(), eps=1e-6, atol=1e-8
    )


def test_cross_entropy_divides_by_all_pixels():
    """OpenMMLab's avg_non_ignore=False: half of the pixels ignored is half the loss, not the same loss."""
    logits, label = random_example(2)
    half = label.clone()
    half[:, :, 2:] = 255
    kept = F.cross_entropy(logits[..., :2], label[..., :2])
    assert cross_entropy(logits, half).item() == pytest.approx(kept.item() / 2)
    assert cross_entropy(logits, torch.full_like(label, 255)).item() == 0


@pytest.mark.parametrize("name", ["ce", "paddle2021"])
def test_ignored_pixels_get_no_gradient(name):
    logits, label = random_example(3, ignore=255)
    LOSSES[name](logits.requires_grad_(), label).backward()
    ignored = (label == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].all()


def test_mmseg0_ignores_in_the_numerator_only():
    """What the logits say at an ignored pixel still weighs in the divisor."""
    logits, label = random_example(2, ignore=255)
    there = (label == 255)[:, None].expand_as(logits)
    assert dice_mmseg0(logits, label) != dice_mmseg0(logits.masked_fill(there, 0.0), label)
    assert dice_paddle2021(logits, label) == pytest.approx(
        dice_paddle2021(logits.masked_fill(there, 0.0), label)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_is_zero_and_wrong_is_large(name):
    label = torch.randint(0, 3, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    perfect = F.one_hot(label, 3).movedim(-1, 1).double() * 60 - 30
    assert LOSSES[name](perfect, label).item() == pytest.approx(0, abs=1e-5)
    assert LOSSES[name](-perfect, label).item() > 0.6


@pytest.mark.parametrize("name", ["mmseg0", "paddle2021"])
def test_dice_losses_stay_between_0_and_1(name):
    for seed in range(20):
        logits, label = random_example(2, seed=seed)
        assert 0 <= LOSSES[name](20 * logits, label) <= 1
        assert 0 <= LOSSES[name](logits, torch.zeros_like(label)) <= 1  # no vessel at all


def test_paddle_pools_the_batch_and_mmseg_does_not():
    logits, label = random_example(2, batch=2)
    parts = [
        [f(logits[i : i + 1], label[i : i + 1]).item() for i in range(2)]
        for f in (dice_mmseg0, dice_paddle2021)
    ]
    assert dice_mmseg0(logits, label).item() == pytest.approx(sum(parts[0]) / 2)
    assert abs(dice_paddle2021(logits, label).item() - sum(parts[1]) / 2) > 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_values_and_gradients(name):
    label = torch.randint(0, 2, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = (torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 1e4).requires_grad_()
    loss = LOSSES[name](logits, label)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("logits", "label", "words"),
    [
        ((2, 3, 4, 4), torch.zeros(2, 4, 4), "int64"),
        ((2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8), "int64"),
        ((2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64), "(2, 1, 4, 4)"),
        ((2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64), "(1, 4, 4)"),
        ((2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.int64), "(2, 4, 5)"),
        ((3, 4, 4), torch.zeros(4, 4, dtype=torch.int64), "(3, 4, 4)"),
    ],
)
def test_what_does_not_fit_is_refused(name, logits, label, words):
    with pytest.raises(ValueError) as error:
        LOSSES[name](torch.zeros(logits), label)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_that_the_logits_do_not_have_is_never_taken_for_another(name):
    """Label 2 of two classes is a mistake in the data (a wrong num_classes), not "vessel"."""
    logits, label = random_example(2)
    label[0, 0, 0] = 2
    with pytest.raises((ValueError, IndexError)):
        LOSSES[name](logits, label)


# --- sums of losses -----------------------------------------------------------------------------------------


def test_weighted_sum():
    logits, label = random_example(2)
    both = weighted_sum((1, cross_entropy), (3, dice_mmseg0))
    due = cross_entropy(logits, label) + 3 * dice_mmseg0(logits, label)
    assert both(logits, label).item() == pytest.approx(due.item())


def test_deep_supervision_weighs_every_output():
    outputs = [random_example(3, seed=s)[0] for s in range(3)]
    label = random_example(3)[1]
    total = deep_supervision(dice_mmseg0, (1, 0.4, 2))(outputs, label)
    due = sum(w * dice_mmseg0(x, label) for w, x in zip((1, 0.4, 2), outputs, strict=True))
    assert total.item() == pytest.approx(due.item())


def test_auxiliaries_may_have_another_loss():
    outputs = [random_example(3, seed=s)[0] for s in range(3)]
    label = random_example(3)[1]
    total = deep_supervision(dice_mmseg0, (1, 0.4, 0.2), auxiliary=cross_entropy)(outputs, label)
    due = (
        dice_mmseg0(outputs[0], label)
        + 0.4 * cross_entropy(outputs[1], label)
        + 0.2 * cross_entropy(outputs[2], label)
    )
    assert total.item() == pytest.approx(due.item())


def test_deep_supervision_of_a_model_in_eval_mode_takes_the_main_map():
    logits, label = random_example(3)
    assert (
        deep_supervision(cross_entropy, (1, 0.4))([logits], label).item()
        == cross_entropy(logits, label).item()
    )


def test_more_outputs_than_weights_are_refused():
    logits, label = random_example(3)
    with pytest.raises(ValueError, match=r"3 outputs.*2"):
        deep_supervision(cross_entropy, (1, 0.4))([logits] * 3, label)
