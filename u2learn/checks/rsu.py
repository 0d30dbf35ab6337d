"""Checks of assignment 6: the residual U-block."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import Answer, Cases, Mistake, call, grows, integers, normal, question, shown
from u2learn.checks.reading import Refusal
from u2learn.checks.unet import BUILT
from u2learn.models.conv import parameters
from u2learn.models.rsu import RSU
from u2learn.models.ulevel import ULevel

BRICKS = Refusal("build it from conv.", given=("u2learn.ConvBlock", "u2learn.models.conv"))


@question("6.1", "level_sizes", Refusal("halve and round yourself."))
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
        nearest = [size]
        for _ in range(height - 2):
            nearest.append(max(1, round(nearest[-1] / 2)))
        floor = [size // 2**i for i in range(height - 1)]
        got = call(answer, height, size)
        got = list(got) if isinstance(got, (list, tuple)) else got
        suspects = {
            "the bottom of an RSU-L must not be pooled: it has the size of the level above": (
                [*sizes, -(-sizes[-1] // 2)]
            ),
            "halves are rounded up, not to the nearest whole number": [*nearest, nearest[-1]],
            "the sizes come from the top to the bottom": want[::-1],
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
    """Stands for a convolution block. Its weights are drawn when it runs: by its place in the order of all.

    In which order the convolutions of an RSU run is decided by what they read, however a student builds it.
    So with one seed all right blocks compute the same, and each mistake something else.
    """

    def __init__(self, trace: list, seed: int, a: int, b: int, dilation: int):
        super().__init__()
        self.trace, self.seed, self.sizes, self.dilation = trace, seed, (a, b), dilation
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.sizes
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != a:
            raise Mistake(f"conv{self.sizes} takes {a} channels, and got {shown(x)}.")
        self.runs += 1
        if self.runs > 1:
            raise Mistake(
                f"one and the same conv{self.sizes} runs twice: make a block of its own for every place "
                "([conv(...)] * n is n times the same one), and call each once."
            )
        g = torch.Generator().manual_seed(self.seed + len(self.trace))
        self.trace.append((a, b, self.dilation, tuple(x.shape[2:])))
        weight = normal(g, b, a, 3, 3) / (3 * a**0.5)
        return F.conv2d(x, weight, normal(g, b) / 4, 1, self.dilation, self.dilation).relu()


def maker(trace: list, seed: int) -> Callable:
    def conv(a: int, b: int, *, dilation: int = 1) -> Recorder:
        return Recorder(trace, seed, a, b, dilation)

    return conv


def tell(got: Sequence[tuple], want: Sequence[tuple], dilated: bool) -> str | None:
    """What the record of convolutions says about a mistake: (in, out, dilation, size) each."""
    if len(got) != len(want):
        due = "one to project, L down, L - 1 up, each made with conv"
        return f"{len(got)} convolutions ran, expected {len(want)}: {due}"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        where = f"convolution {i + 1} of {len(want)}"
        bottom = b[3] == want[i - 1][3] and b[2] > 1 and not dilated
        if a[3] != b[3]:
            size = f"its input is {a[3]}, expected {b[3]}"
            if dilated:
                return f"nothing is pooled in an RSU-4F ({where}: {size})"
            if bottom:
                return f"the bottom of an RSU-L must not be pooled ({where}: {size})"
            if i > 1 and a[3] == want[i - 1][3]:
                return f"there is no pooling before {where}: {size}"
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
        for _ in range(4):
            mid, out, extra = integers(g, (2, 4), (5, 7), (1, 3))
            height = 4 if dilated else integers(g, (3, 6))[0]
            inputs = out if equal else out + extra
            x = normal(g, 2, inputs, *integers(g, (17, 24), (33, 40)))
            as_the_book(answer, (height, inputs, mid, out), x, dilated)
    how = "dilated" if dilated else "pooled"
    return f"8 random blocks run the convolutions of an RSU (U²-Net, figure 2), {how} as they should be."


def as_the_book(
    answer: Answer, sizes: tuple[int, int, int, int], x: Tensor, dilated: bool, seed: int = 0
) -> None:
    """One block, (height, inputs, mid, out), compared with the book's: what it runs, and what comes out.

    Raises:
        Mistake: it differs.
    """
    arguments = sizes[1:] if dilated else sizes
    case = f"{'RSU4F' if dilated else 'RSU'}{arguments}, x {tuple(x.shape)}"
    due: list = []
    want = RSU(*sizes, dilated, maker(due, seed))(x)
    trace: list = []
    module = call(answer, *arguments, maker(trace, seed))
    got = call(module, x, note=f" of {case}")
    mistake = tell(trace, due, dilated)
    if mistake:
        raise Mistake(f"{mistake} ({case}).")
    cases = Cases()
    cases.add(got, want, partial(suspects, sizes, x, dilated, seed, want), case)
    cases.done("")


def suspects(sizes: tuple[int, int, int, int], x: Tensor, dilated: bool, seed: int, want: Tensor) -> dict:
    """Blocks with one mistake each, by surgery on the book's own."""
    _, inputs, _, out = sizes
    projected = maker([], seed)(inputs, out)(x)

    def block() -> RSU:
        return RSU(*sizes, dilated, maker([], seed))

    def with_join(**how: Any) -> Tensor:
        operated = block()
        for level in levels(operated):
            level.join = Join(**how)
        return operated(x)

    def with_down(down: Callable[[Tensor], Tensor]) -> Tensor:
        operated = block()
        for level in levels(operated)[:-1]:
            level.down = Function(down)
        return operated(x)

    def inside(reads: Tensor) -> Tensor:
        operated = block()
        projected = operated.project(x)
        return operated.u(reads)[0] + projected

    found = {
        "the residual is missing: add the projected input to what the U gives": want - projected,
        "the residual is added twice": want + projected,
        "the residual is multiplied, not added": (want - projected) * projected,
        "the residual is taken off, not added": want - 2 * projected,
        "sum and projection are averaged: add them": want / 2,
        "deep map and skip are stacked in the wrong order: it is (deep, skip)": lambda: with_join(order=-1),
    }
    if x.shape == want.shape:
        found["the residual is the block's own input: add the projected one"] = want - projected + x
        found["the U reads the block's input: it reads the projection"] = lambda: inside(x)
    if dilated:
        found["the skips are used in the wrong order: the way up begins with the last one"] = lambda: (
            unreversed(block(), x)
        )
        return found
    return found | {
        "the deep map is resized by repeating pixels: bilinear is asked for": lambda: with_join(
            mode="nearest", align_corners=None
        ),
        "align_corners=True moves every pixel a little: leave it False": lambda: with_join(
            align_corners=True
        ),
        "the deep map is resized with mode bicubic: bilinear is asked for": lambda: with_join(mode="bicubic"),
        "the deep map is doubled and cut off: resize it to the skip's own height and width": lambda: (
            with_join(doubled=True)
        ),
        "average pooling: the largest of the four values is taken": lambda: with_down(
            partial(F.avg_pool2d, kernel_size=2, ceil_mode=True)
        ),
        "the pooling windows overlap (3x3): they are 2x2": lambda: with_down(
            partial(F.max_pool2d, kernel_size=3, stride=2, padding=1)
        ),
        "every second pixel is taken, the others are lost: pool": lambda: with_down(every_second),
        "the way down is resized: it is pooled": lambda: with_down(halved),
    }


def levels(block: RSU) -> list[ULevel]:
    """The levels of a block, from the top down, without the bottom."""
    found, level = [], block.u
    while isinstance(level, ULevel):
        found.append(level)
        level = level.inner
    return found


class Join(nn.Module):
    """A join with a mistake in it."""

    def __init__(
        self, order: int = 1, doubled: bool = False, mode: str = "bilinear", align_corners: Any = False
    ):
        super().__init__()
        self.order, self.doubled = order, doubled
        self.resize = partial(F.interpolate, mode=mode, align_corners=align_corners)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        H, W = size = skip.shape[2:]
        if not self.doubled or deep.shape[2:] == size:
            return torch.cat([self.resize(deep, size=size), skip][:: self.order], 1)
        return torch.cat([self.resize(deep, scale_factor=2)[..., :H, :W], skip], 1)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.forward = function


def every_second(x: Tensor) -> Tensor:
    return x[..., ::2, ::2]


def halved(x: Tensor) -> Tensor:
    return F.interpolate(x, size=[-(-n // 2) for n in x.shape[2:]], mode="bilinear", align_corners=False)


def unreversed(block: RSU, x: Tensor) -> Tensor:
    """A dilated block whose way up begins with the first skip."""
    x = y = block.project(x)
    skips = []
    for level in levels(block):
        y = level.encode(y)
        skips.append(y)
    y = levels(block)[-1].inner(y)
    for level, skip in zip(levels(block)[::-1], skips, strict=True):
        y = level.decode(torch.cat([y, skip], 1))
    return y + x


@question("6.2", "RSU", BRICKS)
def rsu(g: torch.Generator, answer: Answer) -> str:
    return structure(g, answer, dilated=False)


@question("6.3", "RSU4F", BRICKS)
def rsu_4f(g: torch.Generator, answer: Answer) -> str:
    return structure(g, answer, dilated=True)


@question("6.4", "count", Refusal("write it as arithmetic.", BUILT))
def count(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(10):
        height, inputs, mid, out = integers(g, (3, 7), (1, 20), (2, 12), (13, 30))
        want = measured_count(height, inputs, mid, out)
        got = call(answer, height, inputs, mid, out)
        suspects = count_suspects(height, inputs, mid, out)
        cases.add(got, want, suspects, f"count({height}, {inputs}, {mid}, {out})")
    return cases.done(
        "10 random blocks have the parameters that PyTorch counts.", partial(count_by_steps, answer)
    )


def count_by_steps(answer: Answer) -> None:
    """From a small block on, what each thing more costs."""
    base = (3, 4, 5, 6)
    for what, more in (
        ("one input channel more", (3, 5, 5, 6)),
        ("one level more", (4, 4, 5, 6)),
        ("one output channel more", (3, 4, 5, 7)),
        ("one channel more inside", (3, 4, 6, 6)),
    ):
        grows(answer, base, more, measured_count(*more) - measured_count(*base), what)


def measured_count(height: int, inputs: int, mid: int, out: int) -> int:
    """The parameters of a block that is built."""
    with torch.device("meta"):
        return parameters(RSU(height, inputs, mid, out))


def count_suspects(height: int, inputs: int, mid: int, out: int) -> dict[str, int]:
    def block_of(a: int, b: int, bias: int = 1, norm: int = 2) -> int:
        return 9 * a * b + (bias + norm) * b

    def total(
        norm: int = 2,
        bias: int = 1,
        up: int = 2,
        project: int = 1,
        bottom: int = 1,
        last: int = out,
    ) -> int:
        block = partial(block_of, bias=bias, norm=norm)
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
        "there is one block too many on the way up: the bottom has none": total() + block_of(2 * mid, mid),
        "the first block of the way down reads the projection, of `out` channels": (
            total() - block_of(out, mid) + block_of(inputs, mid)
        ),
        "a residual costs nothing": total() + block_of(inputs, out),
        "batch norm's mean and variance are no parameters": total(norm=4),
    }
