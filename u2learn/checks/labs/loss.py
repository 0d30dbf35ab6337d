"""Labs 1 to 3: the loss does what no loss should do."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import Mistake
from u2learn.checks.labs.bench import (
    Run,
    draw_eyes,
    entropy,
    eyes,
    fit,
    last,
    learned,
    probability,
    truth,
    windows,
)
from u2learn.checks.labs.lab import Bug, Suspicion
from u2learn.data.augment import normalise
from u2learn.models.unet import unet_small

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- 1 ------------------------------------------------------------------------------------------------------


def lab1(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks[:, None].float()
    net = unet_small(num_classes=1, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.binary_cross_entropy_with_logits

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:10], y_all[:10], step)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def check1(run: Run, seed: int) -> str:
    y, due = run.batch(0)[1], truth(seed, 0)[:, None]
    values = f"from {y.min().item():g} to {y.max().item():g}"
    if min(run.losses) < 0:
        raise Mistake(f"the loss goes below zero as before: the label still holds values {values}.")
    if y.min() < 0 or y.max() > 1:
        raise Mistake(
            f"the loss stays above zero, but the label still holds values {values}: your line hides the "
            "symptom, and leaves the cause."
        )
    if y.shape == due.shape and torch.equal(y, 1 - due.to(y.dtype)):
        raise Mistake("background is 1 in the label, and a vessel 0: they are exchanged.")
    if y.shape != due.shape or not torch.equal(y, due.to(y.dtype)):
        raise Mistake(f"the label should be 1 on a vessel and 0 elsewhere; it holds values {values}.")
    learned(probability(run.net, run.images[10:]), seed)
    return "the label holds 0 and 1, and the loss stays above zero."


def draw1(run: Run, mended: Run | None, seed: int) -> Figure:
    return draw_eyes(run, mended, seed, scale="symlog" if mended else "linear")


LAB1 = Bug(
    script=lab1,
    data=eyes,
    wrong="y_all = masks[:, None].float()",
    mended="y_all = masks[:, None].float() / 255",
    suspicions=(
        Suspicion(
            "The learning rate is too high",
            "too long a step makes a loss jump up. It makes no cross-entropy negative, since that is minus "
            "the logarithm of a number between 0 and 1.",
        ),
        Suspicion(
            "There are far more pixels of background than of vessels",
            "then the loss of an empty map is small. It is not negative.",
        ),
        Suspicion(
            "The label holds other values than 0 and 1",
            "-y log p - (1 - y) log(1 - p) is not negative for a y from 0 to 1. For y = 255 the second term "
            "has the other sign: the surer the network is of a vessel, the further the loss falls.",
            right=True,
        ),
        Suspicion(
            "The loss applies a sigmoid to what has been through one",
            "then its probabilities lie between 0.5 and 0.731, and it stops at a level above zero.",
        ),
        Suspicion(
            "Images and labels do not belong together",
            "then the network learns nothing, and the loss settles at the entropy of the vessels' share. "
            "This one falls without end.",
        ),
    ),
    hints=(
        "Take the loss of one pixel, -y log p - (1 - y) log(1 - p). Which values can it have if y is 0 or 1?",
        "x, y = lab.run.batch(0) is what the network and the loss get. What is the largest value in y?",
        "Compare the line that prepares the images with the line that prepares the masks.",
    ),
    check=check1,
    draw=draw1,
)


# --- 2 ------------------------------------------------------------------------------------------------------


def lab2(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks[:, None].float() / 255
    net = unet_small(num_classes=1, depth=2)
    net.head = nn.Sequential(net.head, nn.Sigmoid())
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.binary_cross_entropy_with_logits

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:10], y_all[:10], step)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def takes_logits(run: Run) -> bool:
    """Whether the loss applies a sigmoid of its own to what it gets."""
    half, one = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)
    return abs(run.loss(half, one).item() - F.softplus(-half).item()) < 1e-3


@torch.no_grad()
def believed(run: Run, images: Tensor) -> Tensor:
    """The probability of a vessel that the loss computes with, (B, H, W)."""
    outputs = run.net(images)[0][:, 0]
    return outputs.sigmoid() if takes_logits(run) else outputs


def check2(run: Run, seed: int) -> str:
    half, one = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)
    if not takes_logits(run) and abs(run.loss(half, one).item() - half.log().abs().item()) > 1e-3:
        raise Mistake("this is no cross-entropy any more: keep it, and give it what it expects.")
    p = believed(run, run.images[10:])
    if p.min() >= 0.49 or last(run.losses) > 0.4:
        raise Mistake(
            f"the loss still stops early, at {last(run.losses):.2f}: it computes with probabilities from "
            f"{p.min().item():.2f} to {p.max().item():.2f}, and nothing else can come out."
        )
    learned(p, seed)
    return "one sigmoid is left, and the loss falls below the entropy of the vessels' share."


def draw2(run: Run, mended: Run | None, seed: int) -> Figure:
    level = {"log 2": math.log(2), "entropy of the vessels' share": entropy(eyes(seed)[1][:10] // 255)}
    return draw_eyes(run, mended, seed, view=lambda run, x: believed(run, x) > 0.5, level=level)


LAB2 = Bug(
    script=lab2,
    data=eyes,
    wrong="net.head = nn.Sequential(net.head, nn.Sigmoid())",
    mended="pass",
    suspicions=(
        Suspicion(
            "The learning rate is too high",
            "then the loss jumps. This one falls smoothly, and stops at the same level with any rate.",
        ),
        Suspicion(
            "There are far more pixels of background than of vessels",
            "then a network tends to say background everywhere, and the map is black. This one is white.",
        ),
        Suspicion(
            "The label holds 0 and 255",
            "then the loss falls below zero, as in lab 1.",
        ),
        Suspicion(
            "Images and labels do not belong together",
            "then the loss settles at the entropy of the vessels' share, which needs no image. This one does "
            "not even come down to that line.",
        ),
        Suspicion(
            "The loss applies a sigmoid to what has been through one",
            "the sigmoid of a number from 0 to 1 lies between 0.5 and 0.731. So a pixel of background costs "
            "at least log 2, and all pixels lie above one half.",
            right=True,
        ),
    ),
    hints=(
        "Which values can the output of the network have? Look at the smallest and the largest one.",
        "Give lab.run.loss an output of 20 and of -20, with a label of 1. How small can the loss of a vessel "
        "be?",
        "The name of the loss says what it expects: logits. Does the network give logits?",
    ),
    check=check2,
    draw=draw2,
)


# --- 3 ------------------------------------------------------------------------------------------------------


def lab3(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks.long() // 255
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:10], y_all[:10], step)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, ignore_index=0)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def check3(run: Run, seed: int) -> str:
    y = run.batch(0)[1]
    logits = torch.zeros(len(y), 2, *y.shape[1:], requires_grad=True)
    run.loss(logits, y).backward()
    counted = logits.grad.abs().sum(1) > 0 if logits.grad is not None else torch.zeros_like(y)
    due = truth(seed, 0)
    if not counted[due == 0].any():
        raise Mistake("no pixel of the background counts, as before: the loss asks for vessels only.")
    if not counted[due == 1].any():
        raise Mistake("now no pixel of a vessel counts: the loss asks for the background only.")
    learned(probability(run.net, run.images[10:]), seed)
    return "the loss counts the pixels of both classes."


LAB3 = Bug(
    script=lab3,
    data=eyes,
    wrong="return F.cross_entropy(logits, y, ignore_index=0)",
    mended="return F.cross_entropy(logits, y, ignore_index=255)",
    suspicions=(
        Suspicion(
            "The loss does not count the pixels of one class",
            "a loss near zero says that of the pixels which it counts nearly all are right. All that is "
            "wrong in the map is background, so background does not count.",
            right=True,
        ),
        Suspicion(
            "The network has learned the training eyes by heart",
            "then the map of an eye that it has seen is right. Here it is as white as that of any other.",
        ),
        Suspicion(
            "The two classes are exchanged",
            "then the map is the negative of the label, black on vessels. This one is white on both.",
        ),
        Suspicion(
            "The learning rate is too low",
            "then the loss hardly falls. This one is near zero after half of the steps.",
        ),
        Suspicion(
            "The network was left in training mode",
            "then a map depends on the other images of its batch. It still shows vessels.",
        ),
    ),
    hints=(
        "The loss is a mean over pixels. Over which?",
        "A pixel that counts has a gradient: call lab.run.loss(logits, y).backward() and look at "
        "logits.grad.",
        "Which class has no gradient anywhere, and which argument of the loss can do that?",
    ),
    check=check3,
    draw=partial(draw_eyes, which=(0, 11)),
)


BUGS = (LAB1, LAB2, LAB3)
