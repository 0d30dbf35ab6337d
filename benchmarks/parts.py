"""What entries of the speedrun add to the package: a network, a loss, an optimiser, each under its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock, double_conv
from u2learn.models.ulevel import ULevel
from u2learn.pixels import IGNORE
from u2learn.registry import LOSSES, MODELS, OPTIMISERS, Optimiser


class AddJoin(nn.Module):
    """A 1x1 convolution takes the deep map to the skip's channels, it is enlarged, and the two are added.

    Stacked, two maps of C channels cost the next convolution twice as much as their sum.
    """

    def __init__(self, deep: int, skip: int):
        super().__init__()
        self.mix = nn.Conv2d(deep, skip, kernel_size=1, bias=False)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return F.interpolate(self.mix(deep), size=skip.shape[-2:], mode="nearest") + skip  # (B, C, H, W)


class HalfUNet(nn.Module):
    """A U-Net on blocks of 2x2 pixels: each block is one position with four times the channels.

    Image (B, C, H, W) -> [logits (B, K, H, W)]; any H and W. A convolution over a large map of few channels
    waits for the memory of a CPU, and leaves half of its vector registers empty. Here the finest map has a
    quarter of the positions, and no pixel is lost: the head gives each of the four its own logits.

    Source: Shi et al., 2016 (the arrangement of pixels into channels, and back).
    """

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        x = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        x = F.pixel_unshuffle(x, 2)  # (B, 4 C, ⌈H/2⌉, ⌈W/2⌉)
        x = F.pixel_shuffle(self.head(self.body(x)[0]), 2)  # (B, K, 2 ⌈H/2⌉, 2 ⌈W/2⌉)
        return [x[..., :height, :width]]


@MODELS.add("half_unet")
def half_unet(num_classes: int = 2, width: int = 16, depth: int = 3, in_channels: int = 3) -> HalfUNet:
    """`depth` scales of width, 2 width, 3 width, ... channels, the finest at half of the image's size.

    A level encodes with two convolutions and decodes with one: what that saves buys more steps.
    """
    channels = [width * (i + 1) for i in range(depth)]
    body: nn.Module = double_conv(channels[-2], channels[-1], bias=False)
    for i in reversed(range(depth - 1)):
        before = channels[i - 1] if i else 4 * in_channels
        body = ULevel(
            encode=double_conv(before, channels[i], bias=False),
            inner=body,
            decode=ConvBlock(channels[i], channels[i], bias=False),
            join=AddJoin(channels[i + 1], channels[i]),
        )
    return HalfUNet(body, head=nn.Conv2d(width, 4 * num_classes, kernel_size=1))


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


class Muon(torch.optim.Optimizer):
    """Kernels of 3x3 and more go an orthogonal step; all other parameters go that of AdamW.

    A kernel is read as a matrix (out, in * height * width). Its gradients are averaged, and the mean is
    replaced by the nearest matrix whose singular values are all about 1: directions that few windows ask for
    count as much as the others. The step is scaled to the size that one of Adam has, so that both share a
    rate.

    Source: Jordan et al., 2024 (kellerjordan.github.io/posts/muon); the scale is that of Liu et al., 2025,
    section 2.2.
    """

    def __init__(self, groups: Any, rate: float, momentum: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": rate, "momentum": momentum, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]  # no closure here
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    rule = self._orthogonal if p.ndim == 4 and p[0, 0].numel() > 1 else self._adam
                    change = rule(p.grad, self.state[p], group)
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])

    def _orthogonal(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        if not state:
            state["mean"] = torch.zeros_like(grad)
        state["mean"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["mean"], group["momentum"])  # Nesterov's
        matrix = orthogonal(ahead.flatten(1))
        return 0.2 * max(matrix.shape) ** 0.5 * matrix.view_as(grad)

    def _adam(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(grad),
                "square": torch.zeros_like(grad),
            }
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad**2, 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        return mean / ((state["square"] / (1 - second ** state["step"])).sqrt() + 1e-8)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values all brought near 1 (0.7 to 1.2), by five steps of an iteration."""
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if len(matrix) > matrix.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


OPTIMISERS["muon"] = Optimiser(Muon, schedule="one-cycle", betas=(0.9, 0.99), decay_on="kernels")
