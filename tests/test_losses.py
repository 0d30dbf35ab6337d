"""Losses: published check values, naive loops, the ignore label, gradients by finite differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from u2learn.losses import (
    binary_cross_entropy,
    cross_entropy,
    cross_entropy_paddle,
    deep_supervision,
    dice_mmseg0,
    dice_mmseg1,
    dice_paddle2021,
    dice_paddle2022,
    iou_loss,
    weighted_sum,
)

LOSSES = {
    "ce": cross_entropy,
    "ce-paddle": cross_entropy_paddle,
    "mmseg0": dice_mmseg0,
    "mmseg1": dice_mmseg1,
    "paddle2021": dice_paddle2021,
    "paddle2022": dice_paddle2022,
}
DICE = [name for name in LOSSES if "ce" not in name]


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
    pixels = []  # image, probabilities, class
    for b in range(B):
        for y in range(H):
            for x in range(W):
                z = logits[b, :, y, x].tolist()
                p = [1 / (1 + math.exp(-v)) for v in z] if name == "mmseg1" else softmax(z)
                pixels.append((b, p, int(label[b, y, x])))
    surprise = [-math.log(p[t]) for _, p, t in pixels if t != ignore]
    if name == "ce":
        return sum(surprise) / len(pixels)
    if name == "ce-paddle":
        return sum(surprise) / len(surprise)
    total = 0.0
    if name == "mmseg1":  # each image; an ignored pixel has no class, but still its p
        for b in range(B):
            mine = [(p[c], float(t == c)) for i, p, t in pixels for c in range(K) if i == b]
            below = sum(p * p for p, _ in mine) + 0.001 + sum(t * t for _, t in mine) + 0.001
            total += 1 - 2 * sum(p * t for p, t in mine) / below
        return total / B
    if name == "paddle2021":  # each class; batch and pixels together
        for c in range(K):
            mine = [(p[c], float(t == c)) for _, p, t in pixels if t != ignore]
            total += 1 - 2 * sum(p * t for p, t in mine) / (sum(p + t for p, t in mine) + 1e-5)
        return total / K
    for b in range(B):
        for c in range(K):  # each image and class
            if name == "paddle2022":
                mine = [(p[c], float(t == c)) for i, p, t in pixels if i == b and t != ignore]
                above = 2 * sum(p * t for p, t in mine) + 1
                total += 1 - above / (sum(p + t for p, t in mine) + 1 + 1e-8)
            if name == "mmseg0":  # 255 counts as the last class in the divisor, nowhere else
                mine = [(p[c], float(min(t, K - 1) == c), t != ignore) for i, p, t in pixels if i == b]
                above = 2 * sum(p * t for p, t, valid in mine if valid) + 1
                total += 1 - above / (sum(p * p + t * t for p, t, _ in mine) + 1)
    return total / (B * K)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce", 0.22931246),
        ("ce-paddle", 0.22931246),  # nothing is ignored in the example
        ("mmseg0", 0.06496730),
        ("mmseg1", 0.13742179),
        ("paddle2021", 0.20266581),
        ("paddle2022", 0.15460148),
    ],
)
def test_values_of_the_official_code(name, value):
    for dtype in (torch.double, torch.float32):  # the official code ran in float32
        assert LOSSES[name](*published_example(dtype)).item() == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("ignore", [None, 255], ids=["all", "ignore"])
@pytest.mark.parametrize("classes", [2, 3, 19])
@pytest.mark.parametrize("name", LOSSES)
def test_equal_to_a_loop_over_pixels(name, classes, ignore):
    logits, label = random_example(classes, ignore, seed=classes)
    assert LOSSES[name](logits, label).item() == pytest.approx(naive(name, logits, label), abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignore", [77, -1])
def test_another_ignore_label(name, ignore):
    logits, label = random_example(3, ignore=255)
    other = label.where(label != 255, ignore)
    assert LOSSES[name](logits, other, ignore=ignore).item() == pytest.approx(
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


@pytest.mark.parametrize("classes", [2, 19])
def test_paddle_cross_entropy_is_the_mean_of_pytorch(classes):
    logits, label = random_example(classes, ignore=255)
    logits.requires_grad_()
    ours, theirs = cross_entropy_paddle(logits, label), F.cross_entropy(logits, label, ignore_index=255)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert torch.allclose(*(torch.autograd.grad(x, logits)[0] for x in (ours, theirs)), rtol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_with_nothing_but_ignored_pixels_is_a_number(name):
    """PyTorch's mean is 0 / 0 there, and one NaN ends a training."""
    logits = random_example(2)[0].requires_grad_()
    loss = LOSSES[name](logits, torch.full((2, 5, 4), 255))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    if "ce" in name:
        assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("name", ["ce", "ce-paddle", "paddle2021", "paddle2022"])
def test_ignored_pixels_get_no_gradient(name):
    logits, label = random_example(3, ignore=255)
    LOSSES[name](logits.requires_grad_(), label).backward()
    ignored = (label == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].all()


@pytest.mark.parametrize("name", DICE)
def test_openmmlab_ignores_in_the_numerator_only(name):
    """What the logits say at an ignored pixel still weighs in its divisors; in PaddleSeg's it does not."""
    logits, label = random_example(2, ignore=255)
    there = (label == 255)[:, None].expand_as(logits)
    same = LOSSES[name](logits, label) == pytest.approx(
        LOSSES[name](logits.masked_fill(there, 0.0), label).item()
    )
    assert same == ("paddle" in name)


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_is_zero_and_wrong_is_large(name):
    label = torch.randint(0, 3, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    perfect = F.one_hot(label, 3).movedim(-1, 1).double() * 60 - 30
    assert LOSSES[name](perfect, label).item() == pytest.approx(0, abs=2e-5)
    assert LOSSES[name](-perfect, label).item() > 0.6


@pytest.mark.parametrize("name", DICE)
def test_dice_losses_stay_between_0_and_1(name):
    for seed in range(20):
        logits, label = random_example(2, seed=seed)
        assert 0 <= LOSSES[name](20 * logits, label) <= 1
        assert 0 <= LOSSES[name](logits, torch.zeros_like(label)) <= 1  # no vessel at all


@pytest.mark.parametrize("name", DICE)
def test_only_paddle2021_pools_the_batch(name):
    logits, label = random_example(2, batch=2)
    parts = [LOSSES[name](logits[i : i + 1], label[i : i + 1]).item() for i in range(2)]
    alike = abs(LOSSES[name](logits, label).item() - sum(parts) / 2) < 1e-9
    assert alike == (name != "paddle2021")


def test_mmseg1_of_a_sure_prediction_is_the_share_of_wrong_pixels():
    """Its sums run over all classes together, so it cannot see that the one class is rare."""
    label = torch.zeros(1, 10, 10, dtype=torch.int64)
    label[:, 0] = 1  # a tenth is vessel
    background = torch.stack([torch.full(label.shape, x).double() for x in (60, -60)], dim=1)
    assert dice_mmseg1(background, label).item() == pytest.approx(0.1, abs=1e-4)
    assert dice_paddle2021(background, label).item() == pytest.approx((1 + 1 - 180 / 190) / 2, abs=1e-4)


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


# --- saliency: one map of logits and a mask -----------------------------------------------------------------

SALIENCY = {"bce": binary_cross_entropy, "iou": iou_loss}


def salient_example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 1, 5, 4, generator=generator, dtype=torch.double)
    return logits, (torch.rand(3, 1, 5, 4, generator=generator) < 0.4).double()


def naive_saliency(name, logits, mask):
    """The papers' formulas as a loop over single pixels, on plain numbers."""
    images = []
    for z, m in zip(logits.flatten(1).tolist(), mask.flatten(1).tolist(), strict=True):
        p = [1 / (1 + math.exp(-v)) for v in z]
        if name == "bce":
            terms = [-(t * math.log(q) + (1 - t) * math.log(1 - q)) for q, t in zip(p, m, strict=True)]
            images.append(sum(terms) / len(terms))
        else:
            both = sum(q * t for q, t in zip(p, m, strict=True))
            either = sum(q + t - q * t for q, t in zip(p, m, strict=True))
            images.append(1 - (both + 1) / (either + 1))
    return sum(images) / len(images)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SALIENCY)
def test_saliency_losses_equal_a_loop_over_pixels(name, seed):
    logits, mask = salient_example(seed)
    assert SALIENCY[name](logits, mask).item() == pytest.approx(naive_saliency(name, logits, mask), rel=1e-9)


@pytest.mark.parametrize("name", SALIENCY)
def test_gradients_of_saliency_losses_by_finite_differences(name):
    logits, mask = salient_example()
    assert torch.autograd.gradcheck(lambda x: SALIENCY[name](x, mask), logits.requires_grad_())


def test_a_soft_mask_costs_least_at_its_own_value():
    mask = torch.full((1, 1, 2, 2), 0.3)
    costs = [binary_cross_entropy(torch.full((1, 1, 2, 2), p).logit(), mask).item() for p in (0.2, 0.3, 0.4)]
    assert costs[1] < min(costs[0], costs[2])


@pytest.mark.parametrize("name", SALIENCY)
def test_saliency_losses_of_perfect_wrong_and_extreme_maps(name):
    _, mask = salient_example()
    sure = 200 * (2 * mask - 1)
    assert SALIENCY[name](sure, mask).item() == pytest.approx(0, abs=1e-9)
    assert SALIENCY[name](-sure, mask).item() > 0.8
    wrong = (-1e4 * (2 * mask - 1)).float().requires_grad_()
    loss = SALIENCY[name](wrong, mask.float())
    loss.backward()
    assert loss.isfinite() and wrong.grad.isfinite().all()


def test_an_empty_mask_teaches_to_say_nothing():
    """Without the 1s in both sums the loss is 1 and its gradient 0, whatever the network says."""
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = iou_loss(logits, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(1 - 1 / 9) and (logits.grad > 0).all()
    assert iou_loss(torch.full((1, 1, 4, 4), -50.0), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(
        0, abs=1e-6
    )


def test_iou_is_a_mean_over_images():
    """A small object counts as much as a large one, which cross-entropy does not see."""
    mask = torch.zeros(2, 1, 20, 20)
    mask[0, :, :2, :2], mask[1, :, :, :10] = 1, 1
    logits = 20 * (2 * mask - 1)
    logits[0] = -20  # the small one is missed
    assert iou_loss(logits, mask).item() == pytest.approx((1 - 1 / 5) / 2, abs=1e-5)


@pytest.mark.parametrize("name", SALIENCY)
@pytest.mark.parametrize(
    ("logits", "mask", "words"),
    [
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), r"float32 \(1, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int64), "int64"),
        (torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), r"\(1, 2, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 2), r"\(1, 1, 3, 2\)"),
        (torch.zeros(1, 1, 2, 2), 255 * torch.ones(1, 1, 2, 2), r"from 255 to 255.*0/255 mask"),
        (torch.zeros(1, 1, 2, 2), -torch.ones(1, 1, 2, 2), r"from -1 to -1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(name, logits, mask, words):
    with pytest.raises(ValueError, match=words) as error:
        SALIENCY[name](logits, mask)
    assert "\n" not in str(error.value)


# --- half precision -----------------------------------------------------------------------------------------


def large_example(name, side):
    """Logits, float32, and the label or mask that a loss takes, for more pixels than float16 can count."""
    generator = torch.Generator().manual_seed(side)
    logits = 2 * torch.randn(2, 1 if name in SALIENCY else 2, side, side, generator=generator)
    label = torch.randint(0, 2, (2, side, side), generator=generator)
    if name in SALIENCY:
        return logits, label[:, None].float()
    label[:, :9] = 255
    return logits, label


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*LOSSES, *SALIENCY])
def test_sums_over_pixels_are_taken_in_single_precision(name, dtype, autocast):
    """65504 is the largest float16, and bfloat16 has three digits."""
    loss = {**LOSSES, **SALIENCY}[name]
    logits, truth = large_example(name, 512)
    half, single = (x.detach().requires_grad_() for x in (logits.to(dtype), logits.to(dtype).float()))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got, due = loss(half, truth), loss(single, truth)
    got.backward()
    due.backward()
    assert got.dtype == torch.float32 and torch.equal(got, due)
    assert torch.equal(half.grad, single.grad.to(dtype))
    assert got.item() == pytest.approx(loss(logits.double(), truth).item(), abs=1e-3)


@pytest.mark.parametrize("name", SALIENCY)
def test_a_mask_in_half_precision_is_summed_in_single_precision_too(name):
    logits, mask = large_example(name, 300)
    got, due = SALIENCY[name](logits.half(), mask.half()), SALIENCY[name](logits, mask)
    assert got.dtype == torch.float32 and got.item() == pytest.approx(due.item(), abs=1e-3)


def test_deep_supervision_sums_half_precision_outputs_in_single_precision():
    logits, label = large_example("mmseg0", 300)
    total = deep_supervision(weighted_sum((1, cross_entropy), (3, dice_mmseg0)), (1, 0.4))
    got, due = total([logits.half()] * 2, label), total([logits] * 2, label)
    assert got.dtype == torch.float32 and got.item() == pytest.approx(due.item(), abs=1e-3)
