"""Checks of assignment 2: the block and the U."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import (
    Answer,
    Cases,
    Mistake,
    call,
    expect,
    grows,
    integers,
    normal,
    question,
    shown,
    uniform,
)
from u2learn.checks.reading import Refusal
from u2learn.models.conv import double_conv, parameters
from u2learn.models.unet import nest
from u2learn.pixels import Size

NORMS = (
    *("batch_norm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "native_batch_norm"),
    *(
        "instance_norm",
        "InstanceNorm1d",
        "InstanceNorm2d",
        "layer_norm",
        "LayerNorm",
        "group_norm",
        "GroupNorm",
    ),
    *("batch_norm_stats", "batch_norm_elemt", "native_group_norm", "native_layer_norm"),
)
BUILT = ("Conv2d", "BatchNorm2d", "parameters", "numel", "state_dict", "summary")


@question("2.1", "batch_norm", Refusal("take mean and variance yourself, with x.mean and x.var.", NORMS))
def batch_norm(g: torch.Generator, answer: Answer) -> str:
    outputs, means, variances = Cases("the result"), Cases("the new mean"), Cases("the new variance")
    for trial in range(12):
        B, C, H, W = integers(g, (2, 3), (2, 4), (3, 5), (6, 7))
        training, faint = trial % 2 == 0, trial % 3 == 2  # faint: as small as eps, which then counts
        x = 0.003 * normal(g, B, C, H, W) + 0.01 if faint else 3 * normal(g, B, C, H, W) + 2
        weight, bias, mean = normal(g, C) + 2, normal(g, C), normal(g, C) * (0.01 if faint else 1)
        var = (uniform(g, C) + 0.5) * (1e-5 if faint else 1)
        eps: dict[str, Any] = {"eps": 3e-5} if trial > 5 else {}
        new_mean, new_var = mean.clone(), var.clone()
        want = F.batch_norm(x, new_mean, new_var, weight, bias, training, **eps)
        got = call(answer, x, weight, bias, mean, var, training, **eps)
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Mistake(f"return three tensors, (y, mean, var), not {shown(got)}.")
        case = f"x {tuple(x.shape)}, training={training}" + (", eps=3e-5" if eps else "")
        suspects = partial(norm_suspects, x, weight, bias, mean, var, training, **eps)
        simple = {
            "training is True": training,
            "training is False": not training,
            "eps is the default": not eps,
            "the variance is far above eps": not faint,
        }
        outputs.add(got[0], want, suspects, case, simple)
        means.add(got[1], new_mean, partial(mean_suspects, x, mean, training), case, simple)
        variances.add(got[2], new_var, partial(variance_suspects, x, var, training), case, simple)
    outputs.done("")
    means.done("")
    return variances.done("12 random cases agree with PyTorch's batch norm, in both modes.")


def norm_suspects(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, training: bool, eps: float = 1e-5
) -> dict:
    def affine(y: Tensor) -> Tensor:
        return y * weight[:, None, None] + bias[:, None, None]

    def norm(eps: float = eps, training: bool = training, own: bool = False, affine: bool = True) -> Tensor:
        return F.batch_norm(
            x,
            None if own else mean.clone(),
            None if own else var.clone(),
            weight if affine else None,
            bias if affine else None,
            training,
            eps=eps,
        )

    def with_axes(*axes: int) -> Tensor:
        if not training:
            return norm()
        return affine((x - x.mean(axes, True)) / (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt())

    def with_new() -> Tensor:
        new_mean, new_var = mean.clone(), var.clone()
        F.batch_norm(x, new_mean, new_var, weight, bias, training)
        return F.batch_norm(x, new_mean, new_var, weight, bias, eps=eps)

    centre = x.mean((0, 2, 3), True) if training else mean[:, None, None]
    spread = x.var((0, 2, 3), unbiased=False, keepdim=True) if training else var[:, None, None]
    unbiased = x.var((0, 2, 3), keepdim=True) if training else var[:, None, None]
    return {
        "in training too the running mean and variance are used: there it is those of the batch": lambda: (
            norm(training=False)
        ),
        "in training the new running mean and variance are used: there it is those of the batch": with_new,
        "in eval mode too the batch's own mean and variance are used: there it is the running ones": lambda: (
            norm(training=True, own=True)
        ),
        "the statistics are taken for each image: in batch norm the whole batch shares them": lambda: (
            with_axes(2, 3)
        ),
        "the statistics are taken for each pixel: a channel has one mean, over batch, height and width": (
            lambda: with_axes(0)
        ),
        "all channels share one mean and variance: each channel has its own": lambda: with_axes(0, 1, 2, 3),
        "divide by the biased variance (by n, not n - 1) of the batch": lambda: affine(
            (x - centre) / (unbiased + eps).sqrt()
        ),
        "the eps that was given is not used": lambda: norm(1e-5),
        "eps is missing: it is added to the variance, before the root": lambda: affine(
            (x - centre) / spread.sqrt()
        ),
        "eps is added to the root: it is added to the variance, before the root": lambda: affine(
            (x - centre) / (spread.sqrt() + eps)
        ),
        "eps is taken for the smallest variance: it is added to every variance": lambda: affine(
            (x - centre) / spread.clamp(min=eps).sqrt()
        ),
        "the root is missing: divide by the deviation": lambda: affine((x - centre) / (spread + eps)),
        "the mean is not taken off": lambda: affine(x / (spread + eps).sqrt()),
        "weight and bias are not used": lambda: norm(affine=False),
        "the bias is not used": lambda: norm(affine=False) * weight[:, None, None],
        "the weight is not used": lambda: norm(affine=False) + bias[:, None, None],
    }


def mean_suspects(x: Tensor, mean: Tensor, training: bool) -> dict:
    batch = x.mean((0, 2, 3))
    return {
        "the running mean must not change in eval mode": lambda: 0.9 * mean + 0.1 * batch,
        "the running mean moves by a tenth of the way in training": mean,
        "the running mean moves by a hundredth of the way, and a tenth is asked for": lambda: (
            0.99 * mean + 0.01 * batch if training else mean
        ),
        "old and new are exchanged: a tenth of the new mean, nine tenths of the old": lambda: (
            0.1 * mean + 0.9 * batch if training else mean
        ),
        "the running mean keeps nine tenths of its old value": batch if training else mean,
    }


def variance_suspects(x: Tensor, var: Tensor, training: bool) -> dict:
    batch, biased, B = x.var((0, 2, 3)), x.var((0, 2, 3), unbiased=False), len(x)
    return {
        "the running variance takes the unbiased variance of the batch (by n - 1), as PyTorch does": lambda: (
            0.9 * var + 0.1 * biased if training else var
        ),
        "n is the number of values of a channel, images times rows times columns, not of images": lambda: (
            0.9 * var + 0.1 * biased * B / (B - 1) if training else var
        ),
        "the running variance must not change in eval mode": lambda: 0.9 * var + 0.1 * batch,
        "the running variance moves by a tenth of the way in training": var,
        "the running variance moves by a hundredth of the way, and a tenth is asked for": lambda: (
            0.99 * var + 0.01 * batch if training else var
        ),
        "old and new are exchanged in the variance": lambda: 0.1 * var + 0.9 * batch if training else var,
        "the running variance keeps nine tenths of its old value": batch if training else var,
        "a deviation is kept where a variance belongs": lambda: (
            0.9 * var + 0.1 * batch.sqrt() if training else var
        ),
    }


@question("2.2", "Block", Refusal("put the three layers together yourself."))
def block(g: torch.Generator, answer: Answer) -> str:
    evaluated, trained, running = Cases(), Cases(), Cases("the running mean after training")
    for trial in range(8):
        a, b = integers(g, (1, 3), (4, 6))
        kernel, dilation = (1, 3, 5)[trial % 3], 1 + trial % 2
        H, W = integers(g, (9, 12), (13, 15))
        module = call(answer, a, b, kernel, dilation)
        state = dict(call(module.state_dict))
        due = ["conv.weight", *(f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var"))]
        if "conv.bias" in state:
            raise Mistake("the convolution has a bias, but the norm takes the mean off again: bias=False.")
        if not set(due) <= set(state) or len(set(state) - set(due)) > 1:
            raise Mistake(f"the layers should be called conv, norm and relu; there are {sorted(state)}.")
        shape, right = tuple(state["conv.weight"].shape), (b, a, kernel, kernel)
        if shape != right:
            raise Mistake(f"the kernel has the shape {shape}, expected {right}.")
        state |= {"norm.weight": normal(g, b), "norm.bias": normal(g, b), "norm.running_mean": normal(g, b)}
        state["norm.running_var"] = uniform(g, b) + 0.5
        call(module.load_state_dict, state)
        x = normal(g, 2, a, H, W)
        case = f"x {tuple(x.shape)}, kernel {kernel}, dilation {dilation}"
        for cases, training in ((evaluated, False), (trained, True)):
            call(module.train, training)
            values = x, *(state[name].clone() for name in due), dilation, training
            cases.add(
                call(module, x, note=f" of Block({a}, {b}, {kernel}, {dilation})"),
                block_output(*values),
                partial(block_suspects, *values),
                f"{case}, training={training}",
            )
        mean, batch = (
            state["norm.running_mean"],
            F.conv2d(x, state["conv.weight"], None, 1, dilation * (kernel - 1) // 2, dilation).mean(
                (0, 2, 3)
            ),
        )
        moved = {
            "the norm's momentum is not PyTorch's own, 0.1": 0.99 * mean + 0.01 * batch,
            "the norm keeps no running mean": mean,
        }
        running.add(call(module.state_dict)["norm.running_mean"], 0.9 * mean + 0.1 * batch, moved, case)
    evaluated.done("")
    running.done("")
    return trained.done("8 random blocks keep the size and agree with convolution, norm, ReLU in both modes.")


def block_output(
    x: Tensor,
    w: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    dilation: int,
    training: bool,
    order: str = "conv norm relu",
    padding: int | None = None,
) -> Tensor:
    pad = (w.shape[-1] - 1) * dilation // 2 if padding is None else padding
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        "conv": lambda y: F.conv2d(y, w, None, 1, pad, dilation),
        "norm": lambda y: F.batch_norm(y, mean.clone(), var.clone(), weight, bias, training),
        "relu": F.relu,
    }
    for step in order.split():
        x = steps[step](x)
    return x


def block_suspects(
    x: Tensor,
    w: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    dilation: int,
    training: bool,
) -> dict:
    plain = partial(block_output, x, w, weight, bias, mean, var)
    make = partial(plain, dilation, training)
    return {
        "ReLU comes before the norm: it is convolution, norm, ReLU": lambda: make("conv relu norm"),
        "there is no ReLU at the end": lambda: make("conv norm"),
        "negative values pass: the last layer is a plain ReLU": lambda: F.leaky_relu(make("conv norm")),
        "there is no norm": lambda: make("conv relu"),
        "the dilation is not given to the convolution": lambda: plain(1, training),
        "the padding does not know of the dilation: d (k - 1) / 2 keeps the size": lambda: make(
            padding=w.shape[-1] // 2
        ),
        "the padding is 1 for every kernel: d (k - 1) / 2 keeps the size": lambda: make(padding=1),
        "there is no padding: d (k - 1) / 2 keeps the size": lambda: make(padding=0),
        "the padding is the dilation, which is right for kernels of 3 only": lambda: make(padding=dilation),
    }


@question("2.3", "join", Refusal("resize and stack yourself."))
def join(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the joined map")
    for trial in range(10):
        B, C, D, h, w = integers(g, (1, 2), (1, 3), (4, 5), (3, 5), (6, 8))
        odd = trial % 2
        deep, skip = normal(g, B, D, h, w), normal(g, B, C, 2 * h - odd, 2 * w - odd)
        want = torch.cat([up(deep, skip), skip], dim=1)
        case = f"deep {tuple(deep.shape)}, skip {tuple(skip.shape)}"
        cases.add(call(answer, deep, skip), want, partial(join_suspects, deep, skip), case)
    return cases.done("10 random pairs, odd sizes too: resized to the skip's size and stacked (deep, skip).")


def up(deep: Tensor, skip: Tensor) -> Tensor:
    return F.interpolate(deep, size=skip.shape[2:], mode="bilinear", align_corners=False)


def doubled(deep: Tensor, mode: str) -> Tensor:
    return F.interpolate(deep, scale_factor=2, mode=mode)


def join_suspects(deep: Tensor, skip: Tensor) -> dict:
    size = skip.shape[2:]
    return {
        "the order is (deep, skip), not (skip, deep)": lambda: torch.cat([skip, up(deep, skip)], 1),
        "the deep map is resized by repeating pixels: bilinear is asked for": lambda: torch.cat(
            [F.interpolate(deep, size=size), skip], 1
        ),
        "the deep map is resized with mode bicubic: bilinear is asked for": lambda: torch.cat(
            [F.interpolate(deep, size=size, mode="bicubic"), skip], 1
        ),
        "the deep map is doubled and cut off: resize it to the skip's own height and width": lambda: (
            torch.cat([doubled(deep, "bilinear")[..., : size[0], : size[1]], skip], 1)
        ),
        "pixels are repeated and cut off: bilinear is asked for, to the skip's own size": lambda: torch.cat(
            [doubled(deep, "nearest")[..., : size[0], : size[1]], skip], 1
        ),
        "align_corners=True moves every pixel a little: leave it False": lambda: torch.cat(
            [F.interpolate(deep, size=size, mode="bilinear", align_corners=True), skip], 1
        ),
        "the skip is resized to the deep map, and its detail is lost: the deep map comes up to the skip": (
            lambda: torch.cat([deep, up(skip, deep)], 1)
        ),
        "the two are added: they are stacked": lambda: up(deep, skip)[:, : skip.shape[1]] + skip,
        "the skip is missing": lambda: up(deep, skip),
    }


@question("2.4", "Level", Refusal("write the six steps yourself."))
def level(g: torch.Generator, answer: Answer) -> str:
    cases = [Cases(f"map {i}") for i in range(3)]
    for _ in range(6):
        H, W = integers(g, (9, 14), (15, 20))
        a, b, c = normal(g, 4, 3, 3, 3), normal(g, 5, 4, 3, 3), normal(g, 6, 9, 3, 3)
        x = normal(g, 2, 3, H, W)
        bottom = normal(g, 7, 4, 1, 1)
        calls: list[str] = []

        def encode(x: Tensor, weight: Tensor = a, calls: list[str] = calls) -> Tensor:
            calls.append("encode")
            if x.shape[1] != 3:
                raise Mistake(f"encode takes the level's input (3 channels), and got {shown(x)}.")
            return F.conv2d(x, weight, padding=1)

        def inner(
            x: Tensor,
            weight: Tensor = b,
            last: Tensor = bottom,
            half: Size = (-(-H // 2), -(-W // 2)),
            calls: list[str] = calls,
        ) -> list[Tensor]:
            calls.append("inner")
            if tuple(x.shape[2:]) != half:
                raise Mistake(
                    f"the inside gets a map of {tuple(x.shape[2:])}, expected {half}: call down first."
                )
            if x.shape[1] != 4:
                raise Mistake("the inside gets what was not encoded: it takes down(skip), not down(x).")
            y = F.conv2d(x, weight, padding=1)
            return [y, F.max_pool2d(F.conv2d(x, last), 2, ceil_mode=True)]

        def decode(x: Tensor, weight: Tensor = c, calls: list[str] = calls) -> Tensor:
            calls.append("decode")
            if x.shape[1] != 9:
                raise Mistake(f"decode takes what join made (9 channels), and got {shown(x)}.")
            return F.conv2d(x, weight, padding=1)

        def stack(deep: Tensor, skip: Tensor, full: tuple[int, ...] = (2, 4, H, W)) -> Tensor:
            if not isinstance(deep, Tensor):
                raise Mistake("the inside gives a list of maps, finest first: join takes the first of them.")
            if deep.ndim != 4:
                raise Mistake("a bottom gives a single tensor, not a list: put it into one.")
            if tuple(skip.shape) != full and tuple(deep.shape) == full:
                raise Mistake("join takes (deep, skip), in this order.")
            if tuple(skip.shape) != full:
                raise Mistake(
                    f"your skip was taken after pooling: shape {tuple(skip.shape)}, expected {full}."
                    if skip.shape[1] == 4
                    else f"your skip is {shown(skip)}, expected the encoder's map, {full}."
                )
            if deep.shape[1] != 5:
                raise Mistake(
                    f"the deep map that comes to join is {shown(deep)}: it is the inside's first map."
                )
            return torch.cat([up(deep, skip), skip], 1)

        skip = encode(x)
        maps = inner(pool(skip))
        want = [decode(stack(maps[0], skip)), *maps]
        for inside, due in ((inner, want), (lambda y, inner=inner: inner(y)[0], want[:2])):
            module = call(answer, encode, inside, decode, pool, stack)
            calls.clear()
            got = call(module, x)
            if not isinstance(got, (list, tuple)):
                raise Mistake(f"return a list of maps, [own, *inner's], not {shown(got)}.")
            if len(got) != len(due):
                raise Mistake(
                    f"the list has {len(got)} maps, expected {len(due)}: the level's own, then all of the "
                    + ("inside's (which may also give a single tensor)." if len(due) == 2 else "inside's.")
                )
            for i, (one, right) in enumerate(zip(got, due, strict=True)):
                others = {
                    "the finest map comes first: own, then the inside's": list(due)[::-1][i],
                    "the map went through encode, but not through decode": skip,
                    "the map was joined, but did not go through decode": stack(maps[0], skip),
                }
                cases[i].add(one, right, others, f"x {tuple(x.shape)}")
            twice = [name for name in dict.fromkeys(calls) if calls.count(name) > 1]
            for name in twice:
                raise Mistake(f"{name} is called {calls.count(name)} times for one map: once is enough.")
    for each in cases[:2]:
        each.done("")
    return cases[2].done("6 random levels go down, inside and up again, and hand on all maps, finest first.")


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


@question("2.5", "count", Refusal("write it as arithmetic.", BUILT))
def count(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(10):
        depth, inputs, classes = integers(g, (2, 5), (1, 4), (2, 5))
        channels = integers(g, *[(2, 20)] * depth)
        want = measured_count(channels, inputs, classes)
        got = call(answer, channels, inputs, classes)
        cases.add(
            got, want, count_suspects(channels, inputs, classes), f"count({channels}, {inputs}, {classes})"
        )
    return cases.done(
        "10 random U's have the parameters that PyTorch counts.", partial(count_by_steps, answer)
    )


def count_by_steps(answer: Answer) -> None:
    """From a single scale on, what each thing more costs."""
    base = ([8], 3, 2)
    for what, more in (
        ("one class more", ([8], 3, 3)),
        ("one input channel more", ([8], 4, 2)),
        ("a second scale of 16 channels, with its decoder,", ([8, 16], 3, 2)),
    ):
        grows(answer, base, more, measured_count(*more) - measured_count(*base), what)
    expect(
        call(answer, *base), measured_count(*base), "a single scale, two convolutions and norms and the head"
    )


def measured_count(channels: Sequence[int], inputs: int, classes: int) -> int:
    """The parameters of a U that is built."""
    with torch.device("meta"):
        body = nest(channels, channels[:-1], partial(double_conv, bias=False), in_channels=inputs)
        return parameters(body) + parameters(nn.Conv2d(channels[0], classes, 1))


def count_suspects(channels: Sequence[int], inputs: int, classes: int) -> dict[str, int]:
    def total(
        conv: Callable[[int, int], int] = lambda a, b: 9 * a * b,
        norm: int = 2,
        joined: Callable[[int, int], int] = lambda deep, skip: deep + skip,
        head_bias: int = 1,
        convs: int = 2,
        up: int = 1,
        head: int = channels[0],
        read: Sequence[int] = (inputs, *channels[:-1]),
    ) -> int:
        def stage(a: int, b: int) -> int:
            return conv(a, b) + norm * b + (convs - 1) * (conv(b, b) + norm * b)

        down = sum(stage(a, b) for a, b in zip(read, channels, strict=True))
        back = sum(stage(joined(d, s), s) for s, d in pairwise(channels))
        return down + up * back + head * classes + head_bias * classes

    return {
        "each batch norm has a weight and a bias for every channel": total(norm=0),
        "each batch norm has two parameters a channel, not one": total(norm=1),
        "batch norm's mean and variance are no parameters": total(norm=4),
        "the 3x3 convolutions have no bias here": total(lambda a, b: 9 * a * b + b),
        "the head has a bias": total(head_bias=0),
        "a decoder's first convolution reads the deep map and the skip": total(joined=lambda d, s: d),
        "a decoder reads the deep map and the skip, and these have different channels": total(
            joined=lambda d, s: 2 * s
        ),
        "every stage has two convolutions": total(convs=1),
        "the head reads the finest map, not the bottom's": total(head=channels[-1]),
        "the head is missing": total(head=0, head_bias=0),
        "an encoder reads the map of the scale above, not the picture": total(read=[inputs] * len(channels)),
        "each encoder reads the map of the scale above, which has fewer or more channels": total(
            read=[inputs, *channels[1:]]
        ),
        "the bottom has no decoder: there is one decoder less than there are scales": (
            total() + 27 * channels[-1] ** 2 + 4 * channels[-1]
        ),
    }
