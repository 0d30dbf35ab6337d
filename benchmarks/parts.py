"""What entries of the speedrun add to the package: a loss, under its name."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.pixels import IGNORE
from u2learn.registry import LOSSES


@LOSSES.add("small-binary")
def small_binary(outputs: list[Tensor], labels: Tensor) -> Tensor:
    """The loss "small" (cross-entropy + 2 Dice) of the main output, written for two classes.

    Only the difference of the two logits counts, so one map is computed where the general form computes
    two, and no one-hot label. Labels (B, H, W); ignored pixels count nowhere but in the mean of the
    cross-entropy, as there.
    """
    margin = outputs[0][:, 1] - outputs[0][:, 0]  # (B, H, W)
    valid, vessel = (labels != IGNORE).float(), (labels == 1).float()
    entropy = F.binary_cross_entropy_with_logits(margin, vessel, weight=valid)
    p = margin.sigmoid() * valid
    count, sizes, both = valid.sum(), p.sum() + vessel.sum(), (p * vessel).sum()
    dice = 2 * torch.stack([both, count - sizes + both]) / (torch.stack([sizes, 2 * count - sizes]) + 1e-5)
    return entropy + 2 * (1 - dice.mean())
