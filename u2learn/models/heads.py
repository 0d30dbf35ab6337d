"""Heads turn a U's feature map into one logit map per class."""

from torch import nn

from u2learn.models.conv import ConvBlock


def fcn_head(in_channels: int, channels: int, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """One 3x3 block, channel dropout, a 1x1 classifier: (B, in_channels, H, W) -> logits (B, K, H, W).

    Source: Long et al., 2015, in the form of OpenMMLab's FCNHead (one convolution, input not concatenated).
    """
    return nn.Sequential(
        ConvBlock(in_channels, channels, bias=False),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, num_classes, kernel_size=1),
    )
