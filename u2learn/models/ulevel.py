"""One level of a U. Nested, it is a U-Net; with U's as its own encoder and decoder, it is a U²-Net."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock, downsample, resize_like


class ULevel(nn.Module):
    """Encode; go one scale down; do whatever is inside; come up to the skip's size; join; decode.

    x (B, C, H, W) -> [this level's map (B, D, H, W), *the maps of `inner`], finest first.

    `inner` is the next ULevel, or the bottleneck. `join(deep, skip)` makes one map of the two that meet
    again, and is the only place where the families of U-Nets differ.

    Source: Ronneberger et al., 2015, figure 1; Qin et al., 2020, figures 2 and 5.
    """

    def __init__(
        self,
        encode: nn.Module,
        inner: nn.Module,
        decode: nn.Module,
        down: nn.Module | None = None,
        join: nn.Module | None = None,
    ):
        super().__init__()
        self.encode, self.inner, self.decode = encode, inner, decode
        self.down = downsample() if down is None else down
        self.join = ResizeJoin() if join is None else join

    def forward(self, x: Tensor) -> list[Tensor]:
        skip = self.encode(x)  # (B, C, H, W)
        inner = self.inner(self.down(skip))  # (B, C', H/2, W/2), then coarser
        maps = inner if isinstance(inner, list) else [inner]
        return [self.decode(self.join(maps[0], skip)), *maps]


class ResizeJoin(nn.Module):
    """Resize the deep map to the skip's size and stack (up, skip): U²-Net and PaddleSeg."""

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([resize_like(deep, skip), skip], dim=1)  # (B, C_deep + C_skip, H, W)


class ResizeConvJoin(nn.Module):
    """Resize, halve the channels with a 1x1 block, stack (up, skip): OpenMMLab's "InterpConv"."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.reduce = ConvBlock(in_channels, out_channels, kernel=1, bias=False)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        up = self.reduce(resize_like(deep, skip))  # (B, C_deep / 2, H, W)
        return torch.cat([up, skip], dim=1)


class AddJoin(nn.Module):
    """A 1x1 convolution takes the deep map to the skip's channels, it is enlarged, and the two are added.

    Stacked, two maps of C channels cost the next convolution twice as much as their sum.
    """

    def __init__(self, deep: int, skip: int):
        super().__init__()
        self.mix = nn.Conv2d(deep, skip, kernel_size=1, bias=False)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return F.interpolate(self.mix(deep), size=skip.shape[-2:], mode="nearest") + skip  # (B, C, H, W)


class UpConvCropJoin(nn.Module):
    """Transposed 2x2 convolution up, crop the skip's centre to that size, stack (up, skip): the 2015 net."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        up = self.up(deep)  # (B, C, 2h, 2w)
        (h, w), (H, W) = up.shape[-2:], skip.shape[-2:]
        top, left = (H - h) // 2, (W - w) // 2
        return torch.cat([up, skip[..., top : top + h, left : left + w]], dim=1)
