"""The workbench of the labs: what the hidden scripts share, and how a run of theirs is drawn.

Nothing in here has a bug. The bugs are in the scripts, one each.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from u2learn.checks.core import Mistake
from u2learn.data.augment import normalise
from u2learn.data.drawn.retina import fundus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from u2learn.show.pictures import Picture

EYES = 12


class Run(SimpleNamespace):
    """What a script leaves behind, to look into.

    net: the network after its training. losses: the loss of each step. batch(step): what the network got,
    images and labels. loss(logits, labels): what was minimised. images, labels: all of them, as the script
    uses them. more: what only some scripts have.
    """

    def __init__(
        self,
        net: nn.Module,
        losses: list[float],
        batch: Callable[[int], tuple[Tensor, Tensor]],
        loss: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        **more: Any,
    ):
        super().__init__(net=net, losses=losses, batch=batch, loss=loss, images=images, labels=labels, **more)


@lru_cache(maxsize=4)
def eyes(seed: int = 0) -> tuple[Tensor, Tensor]:
    """The middle of drawn eyes: images (12, 3, 96, 96) and masks (12, 96, 96) of 0 and 255, both uint8."""
    drawn = [fundus(100 * seed + i, (160, 156)) for i in range(EYES)]
    middle = (..., slice(32, 128), slice(30, 126))
    images = torch.stack([torch.from_numpy(eye.image) for eye in drawn])[middle]
    masks = torch.stack([torch.from_numpy(eye.label) for eye in drawn])[middle]
    return images, 255 * masks


def windows(
    images: Tensor, labels: Tensor, step: int, batch: int = 12, side: int = 24
) -> tuple[Tensor, Tensor]:
    """Random windows of images (N, C, H, W), and the same windows of their labels."""
    draw = random.Random(step).randrange
    height, width = images.shape[-2:]
    cut = []
    for _ in range(batch):
        i, top, left = draw(len(images)), draw(height - side + 1), draw(width - side + 1)
        window = (i, ..., slice(top, top + side), slice(left, left + side))
        cut.append((images[window], labels[window]))
    x, y = zip(*cut, strict=True)
    return torch.stack(x), torch.stack(y)


def fit(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int = 100,
) -> list[float]:
    """The training loop; returns the loss of each step."""
    net.train()
    losses = []
    for step in range(steps):
        x, y = batch(step)
        value = loss(net(x)[0], y)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


@torch.no_grad()
def probability(net: nn.Module, images: Tensor) -> Tensor:
    """How likely each pixel is of class 1, (B, H, W): of one channel by the sigmoid, else by the softmax."""
    logits = net(images)[0]
    return logits.sigmoid()[:, 0] if logits.shape[1] == 1 else logits.softmax(1)[:, 1]


def dice(p: Tensor, labels: Tensor, threshold: float = 0.5) -> float:
    """Dice of class 1, over all pixels of all images."""
    found, drawn = p > threshold, labels == 1
    return (2 * (found & drawn).sum() / (found.sum() + drawn.sum()).clamp(min=1)).item()


def truth(seed: int, step: int) -> Tensor:
    """The labels of a batch as they should be: (B, H, W) of 0 and 1."""
    images, masks = eyes(seed)
    return windows(images[:10], masks[:10], step)[1] // 255


def learned(p: Tensor, seed: int) -> None:
    """Raises Mistake unless p (N, H, W) is a map of the vessels of the last N eyes."""
    drawn = eyes(seed)[1][-len(p) :] // 255
    if not (score := dice(p, drawn)) > 0.5:
        raise Mistake(
            f"the symptom is gone, but little was learned: Dice is {score:.2f} on eyes that the training did "
            "not see. What else does your line change?"
        )


def entropy(labels: Tensor) -> float:
    """The cross-entropy of a network that says the share of class 1 at every pixel, without looking."""
    share = (labels == 1).double().mean().item()
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


def last(losses: Sequence[float]) -> float:
    """The mean loss of the last ten steps."""
    return sum(losses[-10:]) / len(losses[-10:])


def draw_eyes(
    run: Run,
    mended: Run | None,
    seed: int,
    which: Sequence[int] = (11,),
    view: Callable[[Run, Tensor], Tensor] | None = None,
    level: Mapping[str, float] | None = None,
    scale: str = "linear",
) -> Figure:
    """The losses of a run, and what it makes of some eyes; or of one, before and after it was mended.

    view: the map (1, H, W) of a run for an image (1, 3, H, W); by default the probability of class 1. level:
    lines across the losses, by their names.
    """
    images, masks = eyes(seed)
    view = view or (lambda run, x: probability(run.net, x))

    def map_of(run: Run, eye: int) -> Tensor:
        return view(run, normalise(images[eye, None] / 255, "image"))[0]

    if mended:
        losses = {"as it was": run.losses, "mended": mended.losses}
        pictures = {"image": images[which[-1]], "label": masks[which[-1]]}
        pictures |= {name: map_of(r, which[-1]) for name, r in (("as it was", run), ("mended", mended))}
    elif len(which) == 1:
        losses = {"training": run.losses}
        pictures = {"image": images[which[0]], "label": masks[which[0]], "map": map_of(run, which[0])}
    else:
        losses, pictures = {"training": run.losses}, {}
        for eye in which:
            name = f"eye {eye + 1}, {'seen' if eye < 10 else 'unseen'}"
            pictures |= {name: images[eye], f"map of eye {eye + 1}": map_of(run, eye)}
    return draw(losses, pictures, level, scale)


def draw(
    losses: Mapping[str, Sequence[float]],
    pictures: Mapping[str, Picture],
    level: Mapping[str, float] | None = None,
    scale: str = "linear",
) -> Figure:
    """Loss curves, each the mean of ten steps, with level lines; and below them a row of pictures."""
    from u2learn.show.palette import COLOURS, WIDTH, figure_of
    from u2learn.show.pictures import panel

    figure, axes = figure_of(WIDTH, 4.6, 2, len(pictures), height_ratios=[2, 2.4])
    grid = axes[0, 0].get_gridspec()
    for axis in axes[0]:
        axis.remove()
    top = figure.add_subplot(grid[0, :])
    for name, values in losses.items():
        mean = torch.tensor(values).unfold(0, 10, 1).mean(1)
        top.plot(range(10, len(values) + 1), mean, label=name)
    for name, value in (level or {}).items():
        top.axhline(value, color=COLOURS["grey"], lw=1.2, ls=":", label=name)
    top.set(xlabel="step", ylabel="loss", yscale=scale)
    top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    for axis, (name, image) in zip(axes[1], pictures.items(), strict=True):
        panel(axis, image, "gray", None, name)
        axis.set_title(name)
    return figure
