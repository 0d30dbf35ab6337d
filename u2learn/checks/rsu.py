"""Checks of assignment 6: the residual U-block."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import Answer, Cases, Mistake, call, integers, normal, question, shown
from u2learn.models.conv import parameters
from u2learn.models.rsu import RSU
from u2learn.models.ulevel import ULevel


@question("6.1", "level_sizes")
def level_sizes(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for trial in range(20):
        height, size = integers(g, (3, 7), (5, 320))
        if trial < 3:
            size = (1, 33, 97)[trial]
        sizes = [size]
        for _ in range(height - 2):
            sizes.append(-(-sizes[-1] // 2))
        want = [*sizes, sizes[-1]]
        floor = [size // 2**i for i in range(height - 1)]
        got = call(answer, height, size)
        got = list(got) if isinstance(got, (list, tuple)) else got
        suspects = {
            "the bottom of an RSU-L must not be pooled: it has the size of the level above": (
                [*sizes, -(-sizes[-1] // 2)]
            ),
            "halves are rounded up, so that the last row is kept": [*floor, floor[-1]],
            "an RSU-L has L levels, the bottom among them": sizes,
            "there is one level too many: an RSU-L has L, the bottom among them": (
                [*sizes, -(-sizes[-1] // 2), -(-sizes[-1] // 2)]
            ),
            "the first level is not pooled, it has the block's own size": [
                *[-(-s // 2) for s in sizes],
                -(-sizes[-1] // 2),
            ],
        }
        cases.add(got, want, suspects, f"level_sizes({height}, {size})")
    return cases.done("20 random blocks have the sizes of their levels.")


class Recorder(nn.Module):
    """Stands for a convolution block: its answer depends on its channels, its dilation and its input."""

    def __init__(self, trace: list, a: int, b: int, dilation: int):
        super().__init__()
        g = torch.Generator().manual_seed(1000 * a + 10 * b + dilation)
        self.trace, self.sizes, self.dilation = trace, (a, b), dilation
        self.weight = normal(g, b, a, 3, 3) / (3 * a**0.5)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != self.sizes[0]:
            raise Mistake(f"conv{self.sizes} takes {self.sizes[0]} channels, and got {shown(x)}.")
        self.trace.append((*self.sizes, self.dilation, tuple(x.shape[2:])))
        return F.conv2d(x, self.weight, None, 1, self.dilation, self.dilation).relu()


def maker(trace: list) -> Callable:
    def conv(a: int, b: int, dilation: int = 1) -> Recorder:
        return Recorder(trace, a, b, dilation)

    return conv


def trace_of(build: Callable, x: Tensor) -> tuple[list, Tensor]:
    trace: list = []
    return trace, build(maker(trace))(x)


def tell(got: Sequence[tuple], want: Sequence[tuple], dilated: bool) -> str | None:
    """What the record of convolutions says about a mistake: (in, out, dilation, size) each."""
    if len(got) != len(want):
        return f"{len(got)} convolutions ran, expected {len(want)}: one to project, L down, L - 1 up"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        where = f"convolution {i + 1} of {len(want)}"
        bottom = b[3] == want[i - 1][3] and b[2] > 1 and not dilated
        if a[3] != b[3]:
            size = f"its input is {a[3]}, expected {b[3]}"
            if dilated:
                return f"nothing is pooled in an RSU-4F ({where}: {size})"
            if bottom:
                return f"the bottom of an RSU-L must not be pooled ({where}: {size})"
            return f"the size is wrong at {where}: {size}"
        if a[:2] != b[:2]:
            return f"{where} has the channels {a[:2]}, expected {b[:2]}"
        if a[2] != b[2]:
            if bottom:
                return f"the bottom has dilation {b[2]}, and yours has {a[2]} ({where})"
            return f"{where} has dilation {a[2]}, expected {b[2]}"
    return None


def structure(g: torch.Generator, answer: Answer, dilated: bool) -> str:
    for equal in (True, False):  # first with as many channels in as out, where a wrong residual still adds up
        cases = Cases()
        for _ in range(4):
            mid, out, extra = integers(g, (2, 4), (5, 7), (1, 3))
            height = 4 if dilated else integers(g, (3, 6))[0]
            inputs = out if equal else out + extra
            x = normal(g, 2, inputs, *integers(g, (17, 24), (33, 40)))
            arguments = (inputs, mid, out) if dilated else (height, inputs, mid, out)
            case = f"{'RSU4F' if dilated else 'RSU'}{arguments}, x {tuple(x.shape)}"
            due, want = trace_of(partial(RSU, height, inputs, mid, out, dilated), x)
            trace: list = []
            module = call(answer, *arguments, maker(trace))
            got = call(module, x, note=f" of {case}")
            mistake = tell(trace, due, dilated)
            if mistake:
                raise Mistake(f"{mistake} ({case}).")
            cases.add(got, want, residual_suspects(want, x, maker([])(inputs, out)(x)), case)
            wrong_order(got, want, (height, inputs, mid, out), dilated, x, case)
        cases.done("")
    how = "dilated" if dilated else "pooled"
    return f"8 random blocks run the convolutions of an RSU (U²-Net, figure 2), {how} as they should be."


def residual_suspects(want: Tensor, x: Tensor, projected: Tensor) -> dict[str, Tensor]:
    suspects = {
        "the residual is missing: add the projected input to what the U gives": want - projected,
        "the residual is added twice": want + projected,
        "the residual is multiplied, not added": (want - projected) * projected,
    }
    if x.shape == want.shape:
        suspects["the residual is the block's own input: add the projected one"] = want - projected + x
    return suspects


class SkipFirst(nn.Module):
    """The join in the wrong order."""

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(deep, size=skip.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([skip, up], 1)


class Repeat(nn.Module):
    """The join without interpolation."""

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([F.interpolate(deep, size=skip.shape[2:]), skip], 1)


def wrong_order(
    got: Any, want: Tensor, sizes: tuple[int, int, int, int], dilated: bool, x: Tensor, case: str
) -> None:
    """Raise if the answer is that of a block which stacks (skip, deep), or repeats pixels on the way up."""
    if not isinstance(got, Tensor) or torch.allclose(got, want, atol=1e-4):
        return

    for join, message in (
        (SkipFirst(), "what comes up and the skip are stacked in the wrong order: (deep, skip)"),
        (Repeat(), "the deep map is resized by repeating pixels: bilinear is asked for"),
    ):
        block = RSU(*sizes, dilated, maker([]))
        level = block.u
        while isinstance(level, ULevel):
            level.join, level = join, level.inner
        if torch.allclose(got, block(x), atol=1e-4):
            raise Mistake(f"{message} ({case}).")


@question("6.2", "RSU")
def rsu(g: torch.Generator, answer: Answer) -> str:
    return structure(g, answer, dilated=False)


@question("6.3", "RSU4F")
def rsu_4f(g: torch.Generator, answer: Answer) -> str:
    return structure(g, answer, dilated=True)


@question("6.4", "count")
def count(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(10):
        height, inputs, mid, out = integers(g, (3, 7), (1, 20), (2, 12), (13, 30))
        with torch.device("meta"):
            want = parameters(RSU(height, inputs, mid, out))
        got = call(answer, height, inputs, mid, out)
        suspects = count_suspects(height, inputs, mid, out)
        cases.add(got, want, suspects, f"count({height}, {inputs}, {mid}, {out})")
    return cases.done("10 random blocks have the parameters that PyTorch counts.")


def count_suspects(height: int, inputs: int, mid: int, out: int) -> dict[str, int]:
    def total(
        norm: int = 2,
        bias: int = 1,
        up: int = 2,
        project: int = 1,
        bottom: int = 1,
        last: int = out,
    ) -> int:
        def block(a: int, b: int) -> int:
            return 9 * a * b + (bias + norm) * b

        down = block(out, mid) + (height - 2 + bottom) * block(mid, mid)
        back = (height - 2) * block(up * mid, mid) + block(up * mid, last)
        return project * block(inputs, out) + down + back

    return {
        "each block has a batch norm, two numbers a channel": total(norm=0),
        "each convolution has a bias here": total(bias=0),
        "a block on the way up reads two maps of `mid` channels": total(up=1),
        "the block that projects the input is missing": total(project=0),
        "the bottom is missing: an RSU-L has L blocks on the way down": total(bottom=0),
        "the bottom is there twice: an RSU-L has L blocks on the way down": total(bottom=2),
        "the last block of the way up gives `out` channels": total(last=mid),
        "batch norm's mean and variance are no parameters": total(norm=4),
    }
