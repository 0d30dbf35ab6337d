"""Heads turn a U's finest map into one logit map per class; two of them gather context first.

The 3x3 block, the dropout and the classifier at the end are the same in all of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from u2learn.models.conv import ConvBlock, resize_like


def fcn_head(in_channels: int, channels: int, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """One 3x3 block, channel dropout, a 1x1 classifier: (B, in_channels, H, W) -> logits (B, K, H, W).

    Source: Long et al., 2015, in the form of OpenMMLab's FCNHead (one convolution, input not concatenated).
    """
    return nn.Sequential(
        ConvBlock(in_channels, channels, bias=False),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, num_classes, kernel_size=1),
    )


def psp_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """`PyramidPooling`, then an FCN head: (B, in_channels, H, W) -> logits (B, K, H, W).

    Source: Zhao et al., 2017, figure 3, in the form of OpenMMLab's PSPHead.
    """
    context = PyramidPooling(in_channels, channels)
    return nn.Sequential(context, *fcn_head(in_channels + 4 * channels, channels, num_classes))


def aspp_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """`ASPP`, then an FCN head, the head of DeepLabV3: (B, in_channels, H, W) -> logits (B, K, H, W).

    Source: Chen et al., 2017, figure 5, in the form of OpenMMLab's ASPPHead.
    """
    return nn.Sequential(ASPP(in_channels, channels), *fcn_head(5 * channels, channels, num_classes))


class PyramidPooling(nn.Module):
    """The map, and its means over 1x1, 2x2, 3x3 and 6x6 areas, each spread out again to full size.

    (B, in_channels, H, W) -> (B, in_channels + 4 channels, H, W). In training the one area that is the whole
    map leaves one value per image and channel, and batch norm wants two: B > 1.

    Source: Zhao et al., 2017, section 3.2.
    """

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), ConvBlock(in_channels, channels, kernel=1, bias=False))
            for n in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        means = [branch(x) for branch in self.branches]  # (B, channels, n, n) each
        return torch.cat([x, *(resize_like(mean, x) for mean in means)], dim=1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the map's mean, its pixels, and 3x3 taps 12, 24 and 36 pixels apart.

    (B, in_channels, H, W) -> (B, 5 channels, H, W). In training B > 1, as for `PyramidPooling`.

    Source: Chen et al., 2017, section 3.3, with the dilations of OpenMMLab's UNet.
    """

    def __init__(self, in_channels: int, channels: int, dilations: Sequence[int] = (12, 24, 36)):
        super().__init__()
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBlock(in_channels, channels, kernel=1, bias=False))
        pixels = ConvBlock(in_channels, channels, kernel=1, bias=False)
        taps = [ConvBlock(in_channels, channels, dilation=d, bias=False) for d in dilations]
        self.branches = nn.ModuleList([mean, pixels, *taps])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([resize_like(branch(x), x) for branch in self.branches], dim=1)
