"""Checks of assignment 4: data and augmentation."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from u2learn.checks.core import (
    Answer,
    Cases,
    Mistake,
    call,
    integers,
    normal,
    one_of,
    question,
    shown,
    uniform,
)
from u2learn.checks.reading import Refusal
from u2learn.checks.unet import NORMS


@question("4.1", "to_label", Refusal("write the rule yourself."))
def to_label(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the label")
    kinds = {"0 and 1": 1, "0 and 255": 255, "a JPEG, about 0 and about 255": 250, "True and False": True}
    for kind, white in kinds.items():
        for _ in range(2):
            H, W = integers(g, (8, 12), (13, 18))
            truth = uniform(g, H, W) < 0.3
            mask = truth.numpy() * np.uint8(white)
            if white == 250:
                noise = torch.randint(0, 6, (H, W), generator=g).numpy().astype(np.uint8)
                mask = mask + noise
            if white is True:
                mask = truth.numpy()
            got = call(answer, mask.copy(), note=f" with {kind}")
            if isinstance(got, Tensor) and got.dtype != torch.int64:
                raise Mistake(f"the label should be int64, which a loss wants, not {got.dtype}: use .long().")
            values = torch.as_tensor(mask.astype(np.int64))
            suspects = {
                "everything above 0 is taken for vessel: the black of a JPEG is not quite 0": (
                    values > 0
                ).long(),
                "dividing by 255 and cutting off leaves nothing of a 250 or a 1": values // 255,
                "a mask of 0 and 1 has no value of 128 or more, and comes out empty": (values >= 128).long(),
                "a label holds class ids, 0 and 1: the 255 has to become 1": values,
                "black and white are exchanged": 1 - truth.long(),
                "halving the range leaves the ones of a mask of 0 and 1 out": values // 128,
            }
            cases.add(got, truth.long(), suspects, f"a mask with {kind}")
    cases.done("")
    grey = (uniform(g, 20, 20) * 255).numpy().astype(np.uint8)
    try:
        got = call(answer, grey)
    except Mistake as mistake:
        if "ValueError" not in str(mistake):
            raise
        return "8 masks in four forms give their label, and a photograph is refused."
    raise Mistake(
        "a photograph of all grey values is taken for a mask: raise a ValueError when more than a quarter of "
        "the values lie from 32 to 223."
    )


@question("4.2", "pair", Refusal("pair the names yourself."))
def pair(g: torch.Generator, answer: Answer) -> str:
    for trial in range(6):
        first, last = integers(g, (1, 9), (0, 9))
        numbers = sorted({first, 10 * first + last, *integers(g, (100, 200), (201, 400))})
        images = [f"{n:02}_training.tif" if trial % 2 else f"eye{n}.png" for n in numbers]
        masks = [f"{n:02}_manual1.gif" if trial % 2 else f"eye{n}_mask.png" for n in numbers]
        want = sorted(zip(images, masks, strict=True))
        got = call(answer, shuffled(g, images), shuffled(g, masks))
        case = f"images {images}, masks {masks}, both in any order"
        if not isinstance(got, (list, tuple)) or not all(len(p) == 2 for p in got):
            raise Mistake(f"return a list of pairs (image, mask), not {shown(got)}.")
        got = [tuple(p) for p in got]
        wrong = [p for p in got if tuple(p) not in want]
        if wrong:
            raise Mistake(f"{wrong[0][0]!r} is paired with {wrong[0][1]!r}: pair by the number ({case}).")
        if len(got) != len(want):
            raise Mistake(f"{len(got)} pairs, expected {len(want)} ({case}).")
        if got != want:
            raise Mistake(f"the pairs should be in the order of the images' names ({case}): got {got}.")
        lost = one_of(g, masks)
        refused(answer, images, [m for m in masks if m != lost], images[masks.index(lost)], "has no mask")
        alone = one_of(g, images)
        refused(answer, [i for i in images if i != alone], masks, masks[images.index(alone)], "has no image")
    return "6 random folders are paired by number, and a name without a partner is named."


def shuffled(g: torch.Generator, items: Sequence[str]) -> list[str]:
    return [items[i] for i in torch.randperm(len(items), generator=g).tolist()]


def refused(answer: Answer, images: list[str], masks: list[str], name: str, why: str) -> None:
    try:
        got = call(answer, images, masks)
    except Mistake as mistake:
        if "ValueError" not in str(mistake):
            raise
        if name not in str(mistake).split("raised ValueError")[1]:
            raise Mistake(f"{name!r} {why}: your ValueError should name it.") from None
        return
    raise Mistake(f"{name!r} {why}, and nobody is told: raise a ValueError that names it, got {shown(got)}.")


@question("4.3", "crop_and_flip", Refusal("cut and flip with slices and flip.", ("RandomCrop",)))
def crop_and_flip(g: torch.Generator, answer: Answer) -> str:
    H, W, h, w = integers(g, (8, 9), (11, 12), (5, 6), (7, 8))
    places = torch.arange(H * W).reshape(H, W)
    image = torch.stack([places, places, places]).float()
    tops, lefts, flips, seen = set(), set(), 0, set()
    for seed in range(120):
        got = call(answer, image.clone(), places.clone(), (h, w), seed)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Mistake(f"return two tensors, image and label, not {shown(got)}.")
        x, y = got
        if not isinstance(x, Tensor) or tuple(x.shape) != (3, h, w):
            raise Mistake(f"the image's crop should be a tensor (3, {h}, {w}), got {shown(x)}.")
        if not isinstance(y, Tensor) or tuple(y.shape) != (h, w):
            raise Mistake(f"the label's crop should be a tensor ({h}, {w}), got {shown(y)}.")
        again = call(answer, image.clone(), places.clone(), (h, w), seed)
        if not torch.equal(again[0], x):
            raise Mistake(
                f"seed {seed} gives another crop the second time: draw from "
                "torch.Generator().manual_seed(seed), and pass it to each random function."
            )
        if not torch.equal(x[0].long(), y):
            if torch.equal(x[0].long().flip(1), y):
                raise Mistake(
                    "the image is flipped, the label is not (or the other way round): flip both or none."
                )
            if torch.equal(x[0].long().flip(0), y):
                raise Mistake("one of the two is upside down.")
            raise Mistake(
                "image and label are cut at different places: draw the place once, use it for both."
            )
        rows, columns = y[:, 0] // W, y[0] % W
        if bool((rows.diff() != 1).any()):
            raise Mistake(
                "the crop is upside down: left and right are to be exchanged, top and bottom are not."
            )
        flipped = bool((columns.diff() == -1).all())
        if not flipped and bool((columns.diff() != 1).any()):
            raise Mistake("the crop's columns are not neighbours in the image.")
        flips += flipped
        tops.add(int(rows[0]))
        lefts.add(int(columns.min()))
        seen.add((int(rows[0]), int(columns.min()), flipped))
    if len(seen) == 1:
        raise Mistake("every seed gives the same crop.")
    for found, room, what in ((tops, H - h, "row"), (lefts, W - w, "column")):
        missing = sorted(set(range(room + 1)) - found)
        if missing:
            which = (
                "the last possible one: randint leaves its upper end out" if missing == [room] else missing
            )
            raise Mistake(
                f"among 120 crops none begins in {what} {room if missing == [room] else ''} ({which})."
            )
    if not 30 <= flips <= 90:
        raise Mistake(f"{flips} of 120 crops are flipped, expected about half.")
    kinds = len({(top, flipped) for top, _, flipped in seen}), len({place[:2] for place in seen})
    if kinds[0] < 2 * len(tops) or kinds[1] < len(tops) + len(lefts):
        raise Mistake(
            "row, column and flip hang together: one random number decides more than one of them. Draw a "
            "number for each."
        )
    whole = call(answer, image.clone(), places.clone(), (H, W), 0)
    if tuple(whole[1].shape) != (H, W):
        raise Mistake("a crop of the image's own size should be the image (or its mirror image).")
    return "120 crops: image and label together, all places, half of them flipped, each seed its own."


@question("4.4", "normalise", Refusal("take mean and deviation yourself.", NORMS))
def normalise(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the image", 2e-3)
    for _ in range(8):
        H, W = integers(g, (12, 20), (21, 30))
        scale = torch.tensor([90.0, 60, 30])[:, None, None]
        image = (torch.tensor([140.0, 100, 50])[:, None, None] + scale * (uniform(g, 3, H, W) - 0.5)).byte()
        x = image.float()
        std, mean = torch.std_mean(x, (1, 2), keepdim=True)
        got = call(answer, image.clone())
        if isinstance(got, Tensor) and got.dtype != torch.float32:
            raise Mistake(f"the result should be float32, not {got.dtype}.")
        median = x.flatten(1).median(1).values[:, None, None]
        imagenet = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
        suspects = {
            "all channels share one mean and deviation: each has its own": (x - x.mean()) / x.std(),
            "the median is taken off: the mean is asked for": (x - median) / std,
            "ImageNet's mean and deviation are used: those of the image are asked for": (
                (x / 255 - imagenet[0]) / imagenet[1]
            ),
            "the mean is taken off bytes, and 20 - 200 is not negative there: .float() first": (
                (image - mean.byte()).float() / std
            ),
            "that is [0, 1], not mean 0 and deviation 1": x / 255,
            "the mean is taken off, the deviation is not divided by": x - mean,
            "it is divided by the variance: take its root": (x - mean) / std**2,
            "the darkest is 0 and the brightest 1: mean 0 and deviation 1 are asked for": (
                (x - x.amin((1, 2), True)) / (x.amax((1, 2), True) - x.amin((1, 2), True))
            ),
            "every row has its own mean: a channel has one": (x - x.mean(2, True)) / x.std(2, keepdim=True),
            "each pixel's three colours share a mean, and the colour is lost": (
                (x - x.mean(0, True)) / x.std(0, keepdim=True)
            ),
        }
        cases.add(got, (x - mean) / std, suspects, f"a uint8 image {tuple(image.shape)}")
    cases.done("")
    flat = torch.full((3, 8, 9), 7, dtype=torch.uint8)
    flat[0] = (normal(g, 8, 9) * 20 + 100).byte()
    got = call(answer, flat)
    if not bool(got.isfinite().all()):
        raise Mistake("a channel of one value gives NaN: 0 / 0. Keep the deviation above some tiny number.")
    if float(got[1:].abs().max()) > 1e-3:
        raise Mistake("a channel of one value should become 0.")
    return "8 random images have mean 0 and deviation 1 in each channel, and a flat channel is 0."
