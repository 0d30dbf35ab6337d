"""Blocks to put in the place of an RSU: they have its interface, and are as wide as costs the same.

A block takes (height, in_channels, mid_channels, out_channels, dilated) and maps (B, in_channels, H, W) to
(B, out_channels, H, W). Height and dilation are of a U alone; the others ignore them.
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


def plain(
    height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool = False
) -> nn.Sequential:
    """Two convolutions, as in a U-Net."""
    return nn.Sequential(ConvBlock(in_channels, mid_channels), ConvBlock(mid_channels, out_channels))


class Residual(nn.Module):
    """One convolution, then two more, whose result is added to that of the first.

    Source: He et al., 2016, figure 2.
    """

    def __init__(
        self, height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool = False
    ):
        super().__init__()
        self.project = ConvBlock(in_channels, out_channels)
        self.body = plain(height, out_channels, mid_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (B, out_channels, H, W)
        return self.body(x) + x


class Dense(nn.Module):
    """Three convolutions, each of which sees everything before it.

    Source: Huang et al., 2017, section 3.
    """

    def __init__(
        self, height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool = False
    ):
        super().__init__()
        self.first = ConvBlock(in_channels, mid_channels)
        self.second = ConvBlock(in_channels + mid_channels, mid_channels)
        self.fuse = ConvBlock(in_channels + 2 * mid_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.first(x)], dim=1)  # (B, in_channels + mid_channels, H, W)
        x = torch.cat([x, self.second(x)], dim=1)  # (B, in_channels + 2 mid_channels, H, W)
        return self.fuse(x)


class Inception(nn.Module):
    """Four convolutions side by side, dilated by 1, 2, 4 and 8, and one that fuses them.

    Source: Szegedy et al., 2015, figure 2, with dilation in place of larger kernels.
    """

    def __init__(
        self, height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool = False
    ):
        super().__init__()
        self.branches = nn.ModuleList(ConvBlock(in_channels, mid_channels, dilation=d) for d in (1, 2, 4, 8))
        self.fuse = ConvBlock(4 * mid_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))


def pyramid(
    height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool = False
) -> nn.Sequential:
    """The map, its means over four grids of areas (`PyramidPooling`), and a convolution that fuses them."""
    return nn.Sequential(
        PyramidPooling(in_channels, mid_channels), ConvBlock(in_channels + 4 * mid_channels, out_channels)
    )


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


def flops(block: nn.Module, in_channels: int) -> int:
    """Floating-point operations on a map of 64 x 64, 2 a multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        block.eval()(next(block.parameters()).new_zeros(1, in_channels, 64, 64))
    return counter.get_total_flops()


COSTS: dict[str, Callable[[nn.Module, int], int]] = {
    "parameters": lambda block, in_channels: parameters(block),
    "flops": flops,
}


@cache
def matched_width(
    block: Callable[..., nn.Module], row: tuple[int, int, int, int, bool], by: str = "parameters"
) -> tuple[int, float]:
    """How wide a block must be to cost as much as an RSU: its `mid_channels`, and its share of that cost.

    row: height, in_channels, mid_channels, out_channels, dilated of the RSU. by: what counts as the cost,
    "parameters" or "flops". A width is a whole number, so the share is near 1 and seldom 1; where a width of
    1 already costs more than the RSU, that is the width and the share is above 1.

    Raises:
        ValueError: another cost.
    """
    if by not in COSTS:
        raise ValueError(f"Blocks are matched by {' or '.join(map(repr, COSTS))}, not {by!r}.")
    height, in_channels, mid_channels, out_channels, dilated = row

    def cost(make: Callable[..., nn.Module], width: int) -> int:
        # Not on "meta", where a resize is slow Python; and no random number of anybody else's is used up.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return COSTS[by](make(height, in_channels, width, out_channels, dilated), in_channels)

    due = cost(RSU, mid_channels)
    one, two, three = (cost(block, width) for width in (1, 2, 3))
    slope, bend = two - one, three - 2 * two + one  # a convolution costs width² at most: 3 points say all
    costs = [one + (n - 1) * slope + (n - 1) * (n - 2) // 2 * bend for n in range(1, WIDEST)]
    nearest = min(costs, key=lambda cost: abs(cost - due))
    return costs.index(nearest) + 1, nearest / due


def u2net_blocks(
    num_classes: int = 1,
    block: str = "rsu",
    by: str = "parameters",
    mid_channels: int = 16,
    out_channels: int = 64,
    in_channels: int = 3,
) -> U2Net:
    """`u2net_small` with other blocks in all its stages, each matched to the RSU whose place it takes.

    block: a name in BLOCKS. by: see `matched_width`; the channels: see `u2net_small`.

    Raises:
        ValueError: a block or a cost that there is not.

    Source: the question is Qin et al.'s, 2020, ablation study; these blocks and the matching are ours.
    """
    if block not in BLOCKS:
        raise ValueError(f"There is no block {block!r}; there are {', '.join(BLOCKS)}.")

    def build(
        height: int, in_channels: int, mid_channels: int, out_channels: int, dilated: bool
    ) -> nn.Module:
        row = height, in_channels, mid_channels, out_channels, dilated
        width, _ = matched_width(BLOCKS[block], row, by)
        return BLOCKS[block](height, in_channels, width, out_channels, dilated)

    return u2net_small(num_classes, mid_channels, out_channels, build, in_channels)
