"""Labs 4 to 7: the training looks normal, and the map is poor."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.checks.core import Mistake
from u2learn.checks.labs.bench import (
    Run,
    draw,
    draw_eyes,
    entropy,
    eyes,
    fit,
    last,
    learned,
    probability,
    windows,
)
from u2learn.checks.labs.lab import Bug, Suspicion
from u2learn.data.augment import normalise, resize
from u2learn.data.drawn.cells import COLOURS, SIZES, field_of_view
from u2learn.models.unet import unet_small

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- 4 ------------------------------------------------------------------------------------------------------


def folders(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Eleven eyes as files, by their names: images and masks. A folder has no order of its own."""
    images, masks = eyes(seed)
    files = [(f"eye{i}.png", images[i], f"eye{i:02}_mask.png", masks[i]) for i in range(11)]
    random.Random(seed).shuffle(files)
    return {name: image for name, image, _, _ in files}, {name: mask for _, _, name, mask in reversed(files)}


def lab4(images: dict[str, Tensor], masks: dict[str, Tensor], seed: int) -> Run:
    """Files by name: eye0.png to eye10.png, eye00_mask.png to eye10_mask.png."""
    torch.manual_seed(seed)
    pairs = list(zip(sorted(images), sorted(masks), strict=True))
    x_all = torch.stack([images[name] for name, _ in pairs])
    x_all = normalise(x_all / 255, "image")
    y_all = torch.stack([masks[name] for _, name in pairs]).long() // 255
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all, y_all, step)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all, pairs=pairs)


def check4(run: Run, seed: int) -> str:
    wrong = [pair for pair in run.pairs if len({int(re.sub(r"\D", "", name)) for name in pair}) > 1]
    if wrong:
        raise Mistake(
            f"{len(wrong)} of {len(run.pairs)} pairs do not belong together: {wrong[0][0]!r} is still with "
            f"{wrong[0][1]!r}."
        )
    if (left := len(set(map(tuple, run.pairs)))) < 11:
        raise Mistake(f"only {left} of the 11 eyes are left.")
    learned(probability(run.net, normalise(eyes(seed)[0][11:] / 255, "image")), seed)
    return "all 11 images have the mask of their number, and the loss falls below the dotted line."


def draw4(run: Run, mended: Run | None, seed: int) -> Figure:
    return draw_eyes(run, mended, seed, level={"entropy of the vessels' share": entropy(run.labels)})


LAB4 = Bug(
    script=lab4,
    data=folders,
    wrong="pairs = list(zip(sorted(images), sorted(masks), strict=True))",
    mended='pairs = [(f"eye{i}.png", f"eye{i:02}_mask.png") for i in range(11)]',
    suspicions=(
        Suspicion(
            "The learning rate is too low",
            "then the loss is still falling at the end. This one stops early, and just below what a network "
            "reaches that does not look at the image.",
        ),
        Suspicion(
            "The network is too small",
            "a small network misses thin vessels. This one misses the wide ones too, and four larger "
            "networks did the same.",
        ),
        Suspicion(
            "The labels are empty",
            "then the loss goes to zero: an empty map is right everywhere.",
        ),
        Suspicion(
            "Images and labels do not belong together",
            "the loss stops near the entropy of the vessels' share. So the image is of no help, whatever the "
            "network is.",
            right=True,
        ),
        Suspicion(
            "There are far more pixels of background than of vessels",
            "so there are in every other lab, and the vessels are found there.",
        ),
    ),
    hints=(
        "Which loss has a network that does not look at the image? Compare with the dotted line.",
        "Draw the label on the image for several eyes, not only for the first one.",
        "lab.run.pairs holds the names of the files. How does Python sort 'eye2.png' and 'eye10.png'?",
    ),
    check=check4,
    draw=draw4,
)


# --- 5 ------------------------------------------------------------------------------------------------------


def lab5(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks.long() // 255
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.SGD(net.parameters(), lr=10, momentum=0.9)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:10], y_all[:10], step)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def check5(run: Run, seed: int) -> str:
    p = probability(run.net, run.images[10:])
    between = (p[0] - p[1]).abs().max().item()
    if not between > 0.01:
        raise Mistake(
            "the maps of two images are still the same: the steps were too long in the beginning, and what "
            "died there stays dead."
        )
    if last(run.losses) > 0.25:
        raise Mistake(
            f"the maps differ now, but the loss ends at {last(run.losses):.2f}, and it can come down to "
            "0.15: the steps are too short, or still too long. Look at the curve, and choose another rate."
        )
    learned(p, seed)
    return f"the maps of two images differ, by up to {between:.2f}, and the loss falls."


def draw5(run: Run, mended: Run | None, seed: int) -> Figure:
    level = {"entropy of the vessels' share": entropy(run.labels[:10])}
    return draw_eyes(run, mended, seed, which=(10, 11), level=level)


LAB5 = Bug(
    script=lab5,
    data=eyes,
    wrong="optimiser = torch.optim.SGD(net.parameters(), lr=10, momentum=0.9)",
    mended="optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)",
    suspicions=(
        Suspicion(
            "Images and labels do not belong together",
            "then the maps are grey, and still differ from image to image. These are equal.",
        ),
        Suspicion(
            "Every batch holds the same image",
            "lab.run.batch(0) holds different ones. And a network that saw a single image in its training "
            "would still give another map for another image.",
        ),
        Suspicion(
            "The learning rate is too high",
            "the loss jumps in the first steps. They throw the weights of the norms so far that whole blocks "
            "are zero for every image; then their gradient is zero too, and they stay so.",
            right=True,
        ),
        Suspicion(
            "The learning rate is too low",
            "then the loss stays near that of an untrained network, about 0.7. This one jumps far above it.",
        ),
        Suspicion(
            "The network was left in training mode",
            "then the map of an image changes with its neighbours in the batch. This one never changes.",
        ),
    ),
    hints=(
        "Look at the first ten steps: lab.run.losses[:10].",
        "Where does the image get lost? Count in each block the channels that are zero at every pixel.",
        "Which number decides how far the first steps go?",
    ),
    check=check5,
    draw=draw5,
)


# --- 6 ------------------------------------------------------------------------------------------------------


def lab6(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks.long() // 255
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = windows(x_all[:10], y_all[:10], step)
        turned = torch.rand(len(x)) < 0.5
        x[turned] = x[turned].flip(-1)
        return x, y

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def check6(run: Run, seed: int) -> str:
    images, masks = normalise(eyes(seed)[0] / 255, "image"), eyes(seed)[1].long() // 255
    ways = {"as it was": (), "flipped": (-1,), "upside down": (-2,), "turned by half": (-2, -1)}
    seen = set()
    for step in range(4):
        were = windows(images[:10], masks[:10], step)
        for x, y, x_was, y_was in zip(*run.batch(step), *were, strict=True):
            way = next((name for name, dims in ways.items() if torch.equal(x, x_was.flip(dims))), None)
            if way is None:
                raise Mistake("there is a window whose image is neither as it was nor flipped.")
            if not torch.equal(y, y_was.flip(ways[way])):
                raise Mistake(f"there is a window whose image is {way} and whose label is not.")
            seen.add(way)
    if len(seen) == 1:
        raise Mistake(
            "image and label fit, but every window comes as it was: the augmentation is gone. Keep it, and "
            "let the label follow."
        )
    learned(probability(run.net, run.images[10:]), seed)
    return "whatever happens to an image happens to its label, and the network is sure of what it finds."


LAB6 = Bug(
    script=lab6,
    data=eyes,
    wrong="x[turned] = x[turned].flip(-1)",
    mended="x[turned], y[turned] = x[turned].flip(-1), y[turned].flip(-1)",
    suspicions=(
        Suspicion(
            "It was trained for too few steps",
            "then the loss is still falling at the end. This one has stopped.",
        ),
        Suspicion(
            "Each image has the label of another one",
            "then no vessel is seen in the map. Here they are, at the right places.",
        ),
        Suspicion(
            "There are far more pixels of background than of vessels",
            "that makes a network miss faint vessels. A wide and dark one still gets a probability near 1, "
            "and here none does.",
        ),
        Suspicion(
            "The image is augmented, and its label is not",
            "where an image is flipped and its label is not, the label is wrong. If that happens half of the "
            "time, one half is the most that the network can say.",
            right=True,
        ),
        Suspicion(
            "The threshold of one half is too high",
            "a lower one gives a better map, but no reason. A network that could trust its labels is sure of "
            "a wide vessel.",
        ),
    ),
    hints=(
        "How often is the best possible network right about a vessel, if no probability is above one half?",
        "Look at single windows of lab.run.batch(0), with the label drawn on the image. Do all of them fit?",
        "Some fit only after image[..., ::-1], the mirror. Find the line that flips.",
    ),
    check=check6,
    draw=draw_eyes,
)


# --- 7 ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def cells(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Drawn microscope pictures (8, 1, 256, 256) in [0, 1], and their classes (8, 256, 256), int64."""
    fields = [(slide, which) for slide in range(100 * seed, 100 * seed + 12) for which in (0, 1)]
    drawn = [field_of_view(*field) for field in fields if SIZES[sum(field, field[0]) % 3] == (256, 256)][:8]
    images = torch.stack([torch.from_numpy(image.astype(np.float32)) for image, _ in drawn])[:, None] / 4095
    label = torch.stack([torch.from_numpy(label) for _, label in drawn]).long()
    return images, torch.tensor([0, 2, 1])[label]  # 0 background, 1 nucleus, 2 cell


def lab7(images: Tensor, labels: Tensor, seed: int) -> Run:
    """(8, 1, 256, 256); (8, 256, 256): 0 background, 1 nucleus, 2 cell."""
    torch.manual_seed(seed)
    x_all = normalise(resize(images, (96, 96)), "image")
    y_all = resize(labels[:, None].float(), (96, 96))[:, 0].long()
    net = unet_small(num_classes=3, depth=2, in_channels=1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:6], y_all[:6], step)

    losses = fit(net, optimiser, batch, loss)
    return Run(net.eval(), losses, batch, loss, x_all, y_all)


def at_the_rim(nuclei: Tensor, background: Tensor) -> float:
    """The share of the nuclei's pixels that touch the background; both (N, H, W), bool."""
    near = F.max_pool2d(background[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    return ((nuclei & near).sum() / nuclei.sum().clamp(min=1)).item()


def classes(run: Run, images: Tensor) -> Tensor:
    with torch.no_grad():
        return run.net(images)[0].argmax(1)


def check7(run: Run, seed: int) -> str:
    due = F.interpolate(cells(seed)[1][:, None].float(), (96, 96), mode="nearest-exact")[:, 0].long()
    y = run.labels
    if y.shape != due.shape:
        raise Mistake(f"the labels have the shape {tuple(y.shape)}, expected {tuple(due.shape)}.")
    if (rim := at_the_rim(y == 1, due == 0)) > 0.02:
        raise Mistake(
            f"{rim:.0%} of the pixels labelled as nucleus still touch the background, where no nucleus is. "
            "What is computed from two class ids, cut off or rounded, may be the id of a third one."
        )
    if (share := (y != due).float().mean().item()) > 0.05:
        raise Mistake(
            f"the ring is gone, but {share:.0%} of the pixels have another class than at full size."
        )
    found = classes(run, run.images[6:])
    if not (found == due[6:]).float().mean() > 0.9 or at_the_rim(found == 1, due[6:] == 0) > 0.1:
        raise Mistake("the labels are right, but little was learned. What else does your line change?")
    return "each pixel has the class of a pixel, and the ring of nuclei is gone."


def draw7(run: Run, mended: Run | None, seed: int) -> Figure:
    colours = torch.tensor([COLOURS[name] for name in ("background", "nucleus", "cell")], dtype=torch.uint8)
    images, labels = cells(seed)
    losses = {"as it was": run.losses, "mended": mended.losses} if mended else {"training": run.losses}
    pictures = {"image": images[6] / images[6].max(), "label": colours[labels[6]].numpy()}
    for name, each in (("as it was", run), ("mended", mended)) if mended else (("map", run),):
        if each:
            pictures[name] = colours[classes(each, each.images[6:7])[0]].numpy()
    return draw(losses, pictures)


LAB7 = Bug(
    script=lab7,
    data=cells,
    wrong="y_all = resize(labels[:, None].float(), (96, 96))[:, 0].long()",
    mended='y_all = F.interpolate(labels[:, None].float(), (96, 96), mode="nearest-exact")\n'
    "y_all = y_all[:, 0].long()",
    suspicions=(
        Suspicion(
            "There are too few nuclei to learn what they are",
            "then nuclei are missed. Here more are found than there are.",
        ),
        Suspicion(
            "The labels were interpolated when they were resized",
            "half way from background, 0, to cell, 2, lies 1: a nucleus that nobody drew. So each cell has a "
            "ring of them, in the labels already.",
            right=True,
        ),
        Suspicion(
            "The network is too coarse to see an edge",
            "then edges are blurred or jagged. This ring is thin, sharp, and a class of its own.",
        ),
        Suspicion(
            "The classes cell and nucleus are exchanged",
            "then a cell is a nucleus all over, and not only along its rim.",
        ),
        Suspicion(
            "The learning rate is too high",
            "then the loss jumps. This one falls smoothly to a low level: the network has learned what its "
            "labels say.",
        ),
    ),
    hints=(
        "The loss is low. So the network does what its labels ask for: look at the labels, not at the "
        "network.",
        "Count the pixels of each class in lab.run.labels, and in the drawing at its full size.",
        "The picture of a label is made of names, not of quantities. Which line takes them for quantities?",
    ),
    check=check7,
    draw=draw7,
)

BUGS = (LAB4, LAB5, LAB6, LAB7)
