"""Checks of assignment 7: U²-Net, deep supervision, and the authors' weights."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.checks.core import (
    Answer,
    Cases,
    Mistake,
    call,
    gradient,
    integers,
    normal,
    question,
    shown,
    uniform,
)
from u2learn.checks.reading import Refusal
from u2learn.models.official import official_names
from u2learn.models.u2net import DOWN, u2net_small


@question("7.1", "side_outputs", Refusal("apply the heads, resize and fuse yourself."))
def side_outputs(g: torch.Generator, answer: Answer) -> str:
    cases = [Cases(f"output {i}") for i in range(5)]
    for trial in range(6):
        h, w = integers(g, (13, 18), (21, 27))
        depth = 4
        # The picture is as large as its finest map, or another.
        maps, heads, (H, W) = [], [], (h + 3 * (trial % 2), w + 5 * (trial % 2))
        for i in range(depth):
            maps.append(normal(g, 2, i + 2, h, w))
            heads.append(partial(F.conv2d, weight=normal(g, 1, i + 2, 3, 3), padding=1))
            h, w = -(-h // 2), -(-w // 2)
        fuse = partial(F.conv2d, weight=normal(g, 1, depth, 1, 1), bias=normal(g, 1))
        got = call(answer, [m.clone() for m in maps], list(map(named, heads)), named(fuse), (H, W))
        if not isinstance(got, (list, tuple)):
            raise Mistake(f"return a list, [fused, *sides], not {shown(got)}.")
        want = fused_outputs(maps, heads, fuse, (H, W))
        if len(got) != len(want):
            raise Mistake(
                f"the list has {len(got)} maps, expected {len(want)}: the fused one, then all sides."
            )
        wrong = output_suspects(maps, heads, fuse, (H, W))
        for i, one in enumerate(got):
            others = {k: v[i] for k, v in wrong.items()}
            cases[i].add(one, want[i], others, f"maps of {[tuple(m.shape) for m in maps]}")
    for each in cases[1:]:
        each.done("")
    return cases[0].done("6 random pyramids give the fused map and every side, at the picture's size.")


def named(function: partial[Tensor]) -> Callable[[Tensor], Tensor]:
    """A partial as a function, whose name can be shown, that refuses another number of channels."""

    def head(x: Tensor) -> Tensor:
        channels = function.keywords["weight"].shape[1]
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != channels:
            raise Mistake(f"this head takes a map of {channels} channels, and got {shown(x)}.")
        return function(x)

    return head


def fused_outputs(
    maps: Sequence[Tensor],
    heads: Sequence[Callable],
    fuse: Callable,
    size: tuple[int, int],
    mode: str = "bilinear",
    align: bool | None = False,
    activate: Callable[[Tensor], Tensor] = lambda x: x,
    order: int = 1,
) -> list[Tensor]:
    sides = [
        F.interpolate(h(m), size, mode=mode, align_corners=align) for h, m in zip(heads, maps, strict=True)
    ]
    sides = [activate(s) for s in sides]
    return [fuse(torch.cat(sides[::order], 1)), *sides]


def output_suspects(
    maps: list, heads: list, fuse: Callable, size: tuple[int, int]
) -> dict[str, list[Tensor]]:
    make = partial(fused_outputs, maps, heads, fuse, size)
    right = make()
    first = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]
    early = [h(m) for h, m in zip(heads, first, strict=True)]
    resized = partial(F.interpolate, size=size, mode="bilinear", align_corners=False)
    small = [h(m) for h, m in zip(heads, maps, strict=True)]
    fine = [F.interpolate(s, small[0].shape[2:], mode="bilinear", align_corners=False) for s in small]
    steps = []
    for i, step in enumerate(small):
        for above in small[:i][::-1]:
            step = F.interpolate(step, above.shape[2:], mode="bilinear", align_corners=False)
        steps.append(resized(step))
    return {
        "the fused map comes first: [fused, side 1, side 2, ...]": [*right[1:], right[0]],
        "the sides are stacked finest first, and the other way round here": make(order=-1),
        "the sides come finest first": [right[0], *right[:0:-1]],
        "the sides are resized by repeating pixels: bilinear is asked for": make("nearest", None),
        "align_corners=True moves every pixel a little: leave it False": make(align=True),
        "the sides are resized with mode bicubic: bilinear is asked for": make("bicubic"),
        "the sides are fused before they have the picture's size": [
            resized(fuse(torch.cat(fine, 1))),
            *right[1:],
        ],
        "the sides are resized in steps, from each map to the one above: once, to the picture's size": [
            fuse(torch.cat(steps, 1)),
            *steps,
        ],
        "no sigmoid here: the loss wants logits": make(activate=torch.sigmoid),
        "the head comes before the resizing: it is a 3x3 convolution of the small map": [
            fuse(torch.cat(early, 1)),
            *early,
        ],
        "the sides are averaged: the fuse layer has learned weights for them": [
            torch.stack(right[1:]).mean(0),
            *right[1:],
        ],
        "the fused map went through a sigmoid: the loss wants logits": [right[0].sigmoid(), *right[1:]],
    }


@question(
    "7.2", "deep_loss", Refusal("add the losses yourself; F.binary_cross_entropy_with_logits is yours.")
)
def deep_loss(g: torch.Generator, answer: Answer) -> str:
    cases, gradients = Cases(), Cases("the gradient")
    for _ in range(8):
        B, H, W, count = integers(g, (1, 3), (5, 7), (8, 10), (3, 7))
        outputs = [3 * normal(g, B, 1, H, W) for _ in range(count)]
        mask = (uniform(g, B, 1, H, W) < 0.3).float()
        each = torch.stack([F.binary_cross_entropy_with_logits(x, mask) for x in outputs])
        total = [F.binary_cross_entropy_with_logits(x, mask, reduction="sum") for x in outputs]
        suspects = {
            "the losses are averaged over the outputs: they are added": each.mean(),
            "only the first output counts: every output has a loss of its own": each[0],
            "the fused output is left out": each[1:].sum(),
            "the last output is left out": each[:-1].sum(),
            "the fused output counts twice": each.sum() + each[0],
            "the sides count half: all outputs count alike": (each.sum() + each[0]) / 2,
            "the pixels' losses are added: take the mean of each output": torch.stack(total).sum(),
            "the sigmoid is applied twice: the outputs are logits": sum(
                F.binary_cross_entropy_with_logits(x.sigmoid(), mask) for x in outputs
            ),
            "the outputs are averaged before the loss: each has a loss of its own": (
                F.binary_cross_entropy_with_logits(torch.stack(outputs).mean(0), mask)
            ),
            "that is a squared error, not a cross-entropy": sum(
                F.mse_loss(x.sigmoid(), mask) for x in outputs
            ),
            "mask and prediction are exchanged": sum(
                F.binary_cross_entropy_with_logits(x, 1 - mask) for x in outputs
            ),
        }
        case = f"{count} outputs of {tuple(mask.shape)}"
        cases.add(call(answer, outputs, mask), each.sum(), suspects, case)
    cases.done("")
    x, mask = normal(g, 2, 1, 4, 5), (uniform(g, 2, 1, 4, 5) < 0.5).float()
    want = (x.sigmoid() - mask) / x.numel()

    got = call(partial(gradient, answer), [x], mask)
    gradients.add(got, want, case="belief minus truth, over the pixels")
    gradients.done("")
    huge = call(answer, [torch.full((1, 1, 2, 2), 200.0)], torch.zeros(1, 1, 2, 2))
    if abs(float(huge) - 200) > 0.1:
        raise Mistake(
            f"a logit of 200 where the mask is 0 costs 200, and here {float(huge):.4g}: sigmoid and "
            "logarithm apart lose it; use the loss that takes logits."
        )
    try:
        got = call(answer, [x], mask * 255)
    except Mistake as mistake:
        if "ValueError" not in str(mistake):
            raise
        return "8 random lists agree with PyTorch's binary cross-entropy, and a mask of 0 and 255 is refused."
    raise Mistake(f"a mask of 0 and 255 gives {shown(got)}: raise a ValueError if it leaves [0, 1].")


@cache
def stages() -> list[tuple[int, dict[str, str], dict[str, tuple[int, ...]]]]:
    """For the stages on the way down that are pooled: height, our names -> the authors', shapes."""
    with torch.device("meta"):
        model = u2net_small()
    state, names = model.state_dict(), official_names(model)
    found = []
    for i, (height, *_) in enumerate(DOWN[:4]):
        ours, theirs = "body" + ".inner" * i + ".encode.", f"stage{i + 1}."
        pairs = {a.removeprefix(ours): b.removeprefix(theirs) for a, b in names.items() if a.startswith(ours)}
        found.append((height, pairs, {a: tuple(state[ours + a].shape) for a in pairs}))
    return found


@question("7.3", "to_ours", Refusal("translate the names yourself."))
def to_ours(g: torch.Generator, answer: Answer) -> str:
    for height, names, shapes in stages():
        want = {
            a: normal(g, *shapes[a]) if shapes[a] else torch.tensor(integers(g, (1, 10**6))[0]) for a in names
        }
        got = call(answer, {names[a]: x for a, x in want.items()}, height)
        if not isinstance(got, dict):
            raise Mistake(f"return a dict, name -> tensor, not {shown(got)}.")
        strange, missing = sorted(set(got) - set(want)), sorted(set(want) - set(got))
        if strange:
            raise Mistake(
                f"in an RSU-{height} there is no {strange[0]!r} ({len(strange)} such names); "
                f"missing is, for example, {missing[0]!r}."
                if missing
                else f"in an RSU-{height} there is no {strange[0]!r}."
            )
        if missing:
            raise Mistake(f"{missing[0]!r} is missing, with {len(missing) - 1} others (RSU-{height}).")
        wrong = [a for a in want if got[a].shape != want[a].shape or not torch.equal(got[a], want[a])]
        if wrong:
            source = [
                names[b]
                for b in want
                if got[wrong[0]].shape == want[b].shape and torch.equal(got[wrong[0]], want[b])
            ]
            raise Mistake(
                f"{wrong[0]!r} should hold {names[wrong[0]]!r}"
                + (f", and holds {source[0]!r}" if source else ", and holds other numbers")
                + f" ({len(wrong)} are wrong, RSU-{height})."
            )
    return "RSU-7, -6, -5 and -4 of the authors get the book's names."


@question("7.4", "saliency_map", Refusal("stretch and resize yourself."))
def saliency_map(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the map")
    for _ in range(8):
        B, h, w, H, W = integers(g, (2, 3), (5, 8), (9, 11), (12, 17), (19, 25))
        logits = 2 * normal(g, B, 1, h, w) + torch.arange(B)[:, None, None, None]
        suspects = map_suspects(logits, (H, W))
        want = suspects.pop("right")
        cases.add(call(answer, logits, (H, W)), want, suspects, f"logits {tuple(logits.shape)} to {(H, W)}")
    cases.done("")
    flat = call(answer, torch.full((1, 1, 4, 4), -3.0), (8, 8))
    if not isinstance(flat, Tensor) or not bool(flat.isfinite().all()) or float(flat.abs().max()) > 0:
        raise Mistake(
            "a map of one value should become 0: maximum minus minimum is 0 there, and 0 / 0 is NaN."
        )
    return "8 random batches are stretched image by image and resized, and a flat map is 0."


def map_suspects(logits: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """What the mistakes give, and under "right" what is right."""
    p = logits.sigmoid()
    resized = partial(F.interpolate, size=size, mode="bilinear", align_corners=False)
    late = resized(p)
    found = {
        "right": resized(stretch(p)),
        "the map is not stretched to [0, 1]": late,
        "the batch is stretched as a whole: each image has its own darkest and brightest pixel": (
            resized(stretch(p, (0, 1, 2, 3)))
        ),
        "stretch first, then resize: interpolation lowers the peaks": stretch(late),
        "the sigmoid is missing": resized(stretch(logits)),
        "the sigmoid comes after the stretching": resized(stretch(logits).sigmoid()),
        "the map is divided by its maximum, and the minimum is not taken off": (
            resized(p / p.amax((1, 2, 3), True))
        ),
        "pixels are repeated: bilinear is asked for": F.interpolate(stretch(p), size=size),
        "align_corners=True moves every pixel a little: leave it False": F.interpolate(
            stretch(p), size=size, mode="bilinear", align_corners=True
        ),
        "the map is resized with mode bicubic: bilinear is asked for": F.interpolate(
            stretch(p), size=size, mode="bicubic"
        ),
        "each row is stretched by itself: a map has one darkest and one brightest pixel": (
            resized(stretch(p, (3,)))
        ),
    }
    return {message: x[:, 0] for message, x in found.items()}


def stretch(p: Tensor, axes: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    low, high = p.amin(axes, True), p.amax(axes, True)
    return (p - low) / (high - low)
