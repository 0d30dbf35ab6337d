"""Losses: what a network is asked to make small. They take logits (B, K, H, W) and labels int64 (B, H, W).

The two for saliency take one map of logits (B, 1, H, W) and a mask, float (B, 1, H, W) in [0, 1].
Logits in half precision are made float32 before anything is summed, and the loss is float32.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.pixels import IGNORE
from u2learn.registry import LOSSES

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Minus the log-probability of the true class, averaged over *all* pixels of the batch.

    Ignored pixels count 0 in the sum and 1 in the divisor, as in the OpenMMLab code behind the published
    tables (`avg_non_ignore=False`).

    Raises:
        ValueError: label and logits do not fit each other.

    Source: mmsegmentation 0.30, models/losses/cross_entropy_loss.py.
    """
    logits = _checked(logits, label, ignore)
    return F.cross_entropy(logits, label, ignore_index=ignore, reduction="sum") / label.numel()


def cross_entropy_paddle(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Minus the log-probability of the true class, averaged over the pixels that are *not* ignored.

    A batch with nothing but ignored pixels costs 0, where PyTorch's own mean would be 0 / 0.

    Raises:
        ValueError: label and logits do not fit each other.

    Source: PaddleSeg of October 2024, models/losses/cross_entropy_loss.py.
    """
    logits = _checked(logits, label, ignore)
    counted = (label != ignore).sum().clamp(min=1)
    return F.cross_entropy(logits, label, ignore_index=ignore, reduction="sum") / counted


def dice_mmseg0(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Dice loss of OpenMMLab 0.x: 1 - (2 Σ p t + 1) / (Σ p² + Σ t² + 1) for each image and class.

    The mean runs over images and classes, background included; p is the softmax, t the one-hot label.
    Ignored pixels are left out of the numerator only; in the denominator they count as the last class.

    Raises:
        ValueError: label and logits do not fit each other.

    Source: mmsegmentation 0.30, models/losses/dice_loss.py, after Milletari et al., 2016, section 3.
    """
    logits, t, valid = _one_hot(logits, label, ignore)
    p = logits.softmax(dim=1)  # (B, K, H, W)
    overlap, size = (p * t * valid).sum(dim=(2, 3)), (p**2 + t**2).sum(dim=(2, 3))  # (B, K)
    return (1 - (2 * overlap + 1) / (size + 1)).mean()


def dice_mmseg1(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Dice loss of OpenMMLab 1.x: 1 - 2 Σ p t / (Σ p² + Σ t² + 0.002) for each image, then mean.

    The sums run over classes and pixels together, and p is the *sigmoid* of each logit. Ignored pixels
    belong to no class: their t is 0, their p still counts in the denominator.

    Raises:
        ValueError: label and logits do not fit each other.

    Source: mmsegmentation 1.2.2, models/losses/dice_loss.py.
    """
    logits, t, valid = _one_hot(logits, label, ignore)
    p, t = logits.sigmoid(), t * valid  # (B, K, H, W)
    overlap, size = (p * t).sum(dim=(1, 2, 3)), (p**2 + t**2).sum(dim=(1, 2, 3))  # (B,)
    return (1 - 2 * overlap / (size + 2e-3)).mean()


def dice_paddle2021(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Dice loss of PaddleSeg in 2021: 1 - 2 Σ p t / (Σ p + Σ t + 1e-5) for each class, then mean.

    p is the softmax. The sums run over the batch and its pixels together, without those ignored, so that one
    image without vessels does no harm.

    Raises:
        ValueError: label and logits do not fit each other.

    Source: PaddleSeg at 4de5f04f, models/losses/dice_loss.py.
    """
    logits, t, valid = _one_hot(logits, label, ignore)
    p, t = logits.softmax(dim=1) * valid, t * valid  # (B, K, H, W)
    overlap, size = (p * t).sum(dim=(0, 2, 3)), (p + t).sum(dim=(0, 2, 3))  # (K,)
    return (1 - 2 * overlap / (size + 1e-5)).mean()


def dice_paddle2022(logits: Tensor, label: Tensor, ignore: int = IGNORE) -> Tensor:
    """Dice loss of PaddleSeg since 2022: 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1) for each image and class.

    The mean runs over images and classes. p is the softmax; ignored pixels are left out of all sums. (The
    1e-8 that the original adds to the last 1 is lost in float32.)

    Raises:
        ValueError: label and logits do not fit each other.

    Source: PaddleSeg since a12d2f05, models/losses/dice_loss.py.
    """
    logits, t, valid = _one_hot(logits, label, ignore)
    p, t = logits.softmax(dim=1) * valid, t * valid  # (B, K, H, W)
    overlap, size = (p * t).sum(dim=(2, 3)), (p + t).sum(dim=(2, 3))  # (B, K)
    return (1 - (2 * overlap + 1) / (size + 1)).mean()


def binary_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Minus the log-probability of what is true of a pixel, salient or not, averaged over all pixels.

    Raises:
        ValueError: mask and logits do not fit each other, or the mask is not float in [0, 1].

    Source: Qin et al., 2020, equation 2 (a sum there, the mean in the authors' code).
    """
    _check_mask(logits, mask)
    return F.binary_cross_entropy_with_logits(_single(logits), _single(mask))


def iou_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft IoU loss: 1 - (Σ p m + 1) / (Σ (p + m - p m) + 1) for each image, then mean.

    p is the sigmoid. The 1s are ours: without them a mask with nothing in it costs 1 whatever the network
    says, and nothing is learnt from it.

    Raises:
        ValueError: mask and logits do not fit each other, or the mask is not float in [0, 1].

    Source: Qin et al., 2019, equation 9.
    """
    _check_mask(logits, mask)
    p, mask = _single(logits).sigmoid(), _single(mask)
    overlap, union = (p * mask).sum(dim=(1, 2, 3)), (p + mask - p * mask).sum(dim=(1, 2, 3))  # (B,)
    return (1 - (overlap + 1) / (union + 1)).mean()


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """One loss from several: weighted_sum((1, cross_entropy), (3, dice_mmseg0)) is OpenMMLab's CE + Dice."""
    return lambda logits, label: reduce(torch.add, (w * loss(logits, label) for w, loss in terms))


def deep_supervision(
    loss: Loss, weights: Sequence[float], auxiliary: Loss | None = None
) -> Callable[[list[Tensor], Tensor], Tensor]:
    """A loss for a model's whole list of outputs, each against the same label: Σ weights[i] loss(outputs[i]).

    `auxiliary` replaces `loss` for all outputs but the main one. Outputs that a model in eval mode leaves
    out are left out of the sum.

    Raises:
        ValueError: (when called) there are more outputs than weights.

    Source: Lee et al., 2015; Qin et al., 2020, equation 1.
    """

    def total(outputs: list[Tensor], label: Tensor) -> Tensor:
        if len(outputs) > len(weights):
            raise ValueError(
                f"The model gives {len(outputs)} outputs, but only {len(weights)} have a weight."
            )
        losses = [loss] + [auxiliary or loss] * (len(outputs) - 1)
        terms = zip(weights, losses, outputs, strict=False)
        return reduce(torch.add, (w * f(x, label) for w, f, x in terms))

    return total


def _single(x: Tensor) -> Tensor:
    """Half precision made float32: float16 ends at 65504, the pixels of a 256 x 256 image are more."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _one_hot(logits: Tensor, label: Tensor, ignore: int) -> tuple[Tensor, Tensor, Tensor]:
    """The logits as `_checked` gives them, the label as a map of 0 and 1 for each class (B, K, H, W), the
    ignored pixels in the last, and where it counts (B, 1, H, W)."""
    logits = _checked(logits, label, ignore)
    num_classes, valid = logits.shape[1], label != ignore
    t = F.one_hot(label.where(valid, num_classes - 1), num_classes)  # (B, H, W, K)
    return logits, t.movedim(-1, 1).to(logits), valid[:, None]


def _checked(logits: Tensor, label: Tensor, ignore: int) -> Tensor:
    """The logits in single precision; shapes, types and ids that would become a wrong number are refused."""
    if label.dtype != torch.int64:
        raise ValueError(f"Labels must be int64 class ids, got {label.dtype}: use label.long().")
    if logits.ndim != 4 or label.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"Labels of shape {tuple(label.shape)} do not fit logits of shape {tuple(logits.shape)}: "
            "labels are (B, H, W) class ids, logits (B, K, H, W)."
        )
    if label.device.type == "cpu":  # on a GPU this look would make every step wait
        wrong = label[(label != ignore) & ((label < 0) | (label >= logits.shape[1]))]
        if len(wrong):
            raise ValueError(
                f"A label has class {int(wrong[0])}, but there are {logits.shape[1]} classes, 0 to "
                f"{logits.shape[1] - 1}, and {ignore} to ignore: is it a 0/255 mask?"
            )
    return _single(logits)


def _check_mask(logits: Tensor, mask: Tensor) -> None:
    if not mask.is_floating_point() or mask.shape != logits.shape or logits.shape[1] != 1:
        raise ValueError(
            f"A mask of {mask.dtype} {tuple(mask.shape)} does not fit logits of shape {tuple(logits.shape)}: "
            "both are (B, 1, H, W), and the mask is float in [0, 1]."
        )
    if mask.device.type == "cpu" and mask.numel() and not 0 <= mask.min() <= mask.max() <= 1:
        raise ValueError(
            f"A mask has values from {float(mask.min()):g} to {float(mask.max()):g}, and they must lie in "
            "[0, 1]: is it a 0/255 mask? Divide it by 255."
        )


# What a recipe may name: a loss for all outputs of a model, with the weights of the auxiliary ones.
LOSSES["ce"] = deep_supervision(cross_entropy, (1, 0.4))
LOSSES["ce-dice"] = deep_supervision(
    weighted_sum((1, cross_entropy), (3, dice_mmseg0)), (1, 0.4), auxiliary=cross_entropy
)
LOSSES["paddle-ce"] = deep_supervision(cross_entropy_paddle, (1,))
LOSSES["paddle-dice"] = deep_supervision(dice_paddle2021, (1,))
LOSSES["small"] = deep_supervision(weighted_sum((1, cross_entropy), (2, dice_paddle2021)), (1,) * 7)
LOSSES["u2net"] = deep_supervision(binary_cross_entropy, (1,) * 7)
LOSSES["bce-iou"] = deep_supervision(weighted_sum((1, binary_cross_entropy), (1, iou_loss)), (1,) * 7)
