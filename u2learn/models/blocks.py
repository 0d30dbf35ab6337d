"""Blocks to put in the place of an RSU: they have its interface, and are as wide as costs the same.

A block takes (height, inputs, mid, out, dilated) and maps (B, inputs, H, W) to (B, out, H, W). Height and
dilation are of a U alone; the others ignore them.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from u2learn.models.conv import ConvBlock, parameters
from u2learn.models.heads import PyramidPooling
from u2learn.models.rsu import RSU
from u2learn.models.u2net import U2Net, u2net_small

WIDEST = 4096  # channels


def plain(height: int, inputs: int, mid: int, out: int, dilated: bool = False) -> nn.Sequential:
    """Two convolutions, as in a U-Net."""
    return nn.Sequential(ConvBlock(inputs, mid), ConvBlock(mid, out))


class Residual(nn.Module):
    """One convolution, then two more, whose result is added to that of the first.

    Source: He et al., 2016, figure 2.
    """

    def __init__(self, height: int, inputs: int, mid: int, out: int, dilated: bool = False):
        super().__init__()
        self.project = ConvBlock(inputs, out)
        self.body = plain(height, out, mid, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (B, out, H, W)
        return self.body(x) + x


class Dense(nn.Module):
    """Three convolutions, each of which sees everything before it.

    Source: Huang et al., 2017, section 3.
    """

    def __init__(self, height: int, inputs: int, mid: int, out: int, dilated: bool = False):
        super().__init__()
        self.first = ConvBlock(inputs, mid)
        self.second = ConvBlock(inputs + mid, mid)
        self.fuse = ConvBlock(inputs + 2 * mid, out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.first(x)], dim=1)  # (B, inputs + mid, H, W)
        x = torch.cat([x, self.second(x)], dim=1)  # (B, inputs + 2 mid, H, W)
        return self.fuse(x)


class Inception(nn.Module):
    """Four convolutions side by side, dilated by 1, 2, 4 and 8, and one that fuses them.

    Source: Szegedy et al., 2015, figure 2, with dilation in place of larger kernels.
    """

    def __init__(self, height: int, inputs: int, mid: int, out: int, dilated: bool = False):
        super().__init__()
        self.branches = nn.ModuleList(ConvBlock(inputs, mid, dilation=d) for d in (1, 2, 4, 8))
        self.fuse = ConvBlock(4 * mid, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))


def pyramid(height: int, inputs: int, mid: int, out: int, dilated: bool = False) -> nn.Sequential:
    """The map, its means over four grids of areas (`PyramidPooling`), and a convolution that fuses them."""
    return nn.Sequential(PyramidPooling(inputs, mid), ConvBlock(inputs + 4 * mid, out))


class NaiveU(RSU):
    """An RSU without the sum: the U alone. Same parameters, same operations."""

    def forward(self, x: Tensor) -> Tensor:
        return self.u(self.project(x))[0]


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "plain": plain,
    "residual": Residual,
    "dense": Dense,
    "inception": Inception,
    "pyramid": pyramid,
    "naive": NaiveU,
    "rsu": RSU,
}


def flops(block: nn.Module, inputs: int) -> int:
    """Floating-point operations on a map of 64 x 64, 2 a multiply-add; the block must lie on "meta"."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        block.eval()(torch.empty(1, inputs, 64, 64))
    return counter.get_total_flops()


COSTS: dict[str, Callable[[nn.Module, int], int]] = {
    "parameters": lambda block, inputs: parameters(block),
    "flops": flops,
}


@cache
def match(
    block: Callable[..., nn.Module], row: tuple[int, int, int, int, bool], by: str = "parameters"
) -> tuple[int, float]:
    """How wide a block must be to cost as much as an RSU: its `mid`, and its cost as a share of the RSU's.

    row: height, inputs, mid, out, dilated of the RSU. by: what counts as the cost, "parameters" or "flops".
    `mid` is a whole number, so the share is near 1 and seldom 1; where mid = 1 already costs more than the
    RSU, `mid` is 1 and the share is above 1.

    Raises:
        ValueError: another cost.
    """
    if by not in COSTS:
        raise ValueError(f"Blocks are matched by {' or '.join(map(repr, COSTS))}, not {by!r}.")
    height, inputs, mid, out, dilated = row

    def cost(make: Callable[..., nn.Module], mid: int) -> int:
        with torch.device("meta"):
            return COSTS[by](make(height, inputs, mid, out, dilated), inputs)

    due = cost(RSU, mid)
    one, two, three = (cost(block, mid) for mid in (1, 2, 3))
    slope, bend = two - one, three - 2 * two + one  # a convolution costs mid² at most: three points say all
    costs = [one + (mid - 1) * slope + (mid - 1) * (mid - 2) // 2 * bend for mid in range(1, WIDEST)]
    nearest = min(costs, key=lambda cost: abs(cost - due))
    return costs.index(nearest) + 1, nearest / due


def u2net_blocks(
    num_classes: int = 1,
    block: str = "rsu",
    by: str = "parameters",
    mid: int = 16,
    out: int = 64,
    in_channels: int = 3,
) -> U2Net:
    """`u2net_small` with other blocks in all its stages, each matched to the RSU whose place it takes.

    block: a name in BLOCKS. by, mid, out and in_channels: see `match` and `u2net_small`.

    Raises:
        ValueError: a block or a cost that there is not.

    Source: the question is Qin et al.'s, 2020, ablation study; these blocks and the matching are ours.
    """
    if block not in BLOCKS:
        raise ValueError(f"There is no block {block!r}; there are {', '.join(BLOCKS)}.")

    def build(height: int, inputs: int, mid: int, out: int, dilated: bool) -> nn.Module:
        width, _ = match(BLOCKS[block], (height, inputs, mid, out, dilated), by)
        return BLOCKS[block](height, inputs, width, out, dilated)

    return u2net_small(num_classes, mid, out, build, in_channels)
