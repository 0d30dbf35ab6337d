"""U²-Net: `ULevel` with RSUs as its encoders and decoders, and a saliency map from every level."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from u2learn.models.conv import resize_like
from u2learn.models.rsu import RSU
from u2learn.models.ulevel import ULevel

# The stages on the way down, and those on the way up: (height, channels in, inside and out, dilated).
DOWN = [(7, 3, 32, 64, False), (6, 64, 32, 128, False), (5, 128, 64, 256, False)]
DOWN += [(4, 256, 128, 512, False), (4, 512, 256, 512, True), (4, 512, 256, 512, True)]
UP = [(7, 128, 16, 64, False), (6, 256, 32, 64, False), (5, 512, 64, 128, False)]
UP += [(4, 1024, 128, 256, False), (4, 1024, 256, 512, True)]


class U2Net(nn.Module):
    """A U of U's. Each level gives a side map of logits, and a 1x1 convolution fuses them all.

    Image (B, C, H, W) -> [fused, side 1, ..., side 6], each (B, K, H, W), any H and W from 1 up; in eval mode
    too, as all sides feed the fused map. (To train at sides up to 32, B > 1.) `block` makes a stage of a row.

    Source: Qin et al., 2020, by its code, model/u2net.py.
    """

    def __init__(self, down: list[tuple], up: list[tuple], num_classes: int = 1, block: Callable = RSU):
        super().__init__()
        self.body = block(*down[-1])
        for row_down, row_up in zip(down[-2::-1], up[::-1], strict=True):
            self.body = ULevel(block(*row_down), self.body, block(*row_up))
        self.sides = nn.ModuleList(nn.Conv2d(row[3], num_classes, 3, padding=1) for row in (*up, down[-1]))
        self.fuse = nn.Conv2d(len(self.sides) * num_classes, num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.body(image)  # finest first: (B, C, H, W), (B, C', H/2, W/2), ...
        sides = [resize_like(side(x), image) for side, x in zip(self.sides, maps, strict=True)]
        return [self.fuse(torch.cat(sides, dim=1)), *sides]  # (B, K, H, W) each


def u2net(num_classes: int = 1, in_channels: int = 3) -> U2Net:
    """The full U²-Net: 44,009,869 parameters for one class."""
    return U2Net([(7, in_channels, 32, 64, False), *DOWN[1:]], UP, num_classes)


def u2net_small(
    num_classes: int = 1,
    mid_channels: int = 16,
    out_channels: int = 64,
    block: Callable = RSU,
    in_channels: int = 3,
) -> U2Net:
    """U²-Net†, with the same channels inside and out of all stages: 1,131,181 parameters for one class."""
    channels = mid_channels, out_channels
    down = [(row[0], out_channels if i else in_channels, *channels, row[4]) for i, row in enumerate(DOWN)]
    return U2Net(down, [(row[0], 2 * out_channels, *channels, row[4]) for row in UP], num_classes, block)
