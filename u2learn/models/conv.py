"""The bricks: convolution - batch norm - ReLU, and the ways down and up between two scales."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU: the brick of every network in this book.

    Maps (B, in_channels, H, W) to (B, out_channels, H, W). `padding=None` keeps the size ("same" padding);
    `padding=0` uses valid positions only and shrinks each side by dilation * (kernel - 1).
    U²-Net and PaddleSeg give the convolution a bias; OpenMMLab does not, as batch norm has its own.

    Source: Ioffe and Szegedy, 2015, section 3.2 (the norm between convolution and non-linearity).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        dilation: int = 1,
        bias: bool = True,
        padding: int | None = None,
    ):
        super().__init__()
        if padding is None:
            padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=bias
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()


def double_conv(in_channels: int, out_channels: int, bias: bool = True) -> nn.Sequential:
    """Two 3x3 blocks, (B, in_channels, H, W) -> (B, out_channels, H, W): one level of a UNet."""
    return nn.Sequential(
        ConvBlock(in_channels, out_channels, bias=bias), ConvBlock(out_channels, out_channels, bias=bias)
    )


def downsample() -> nn.MaxPool2d:
    """Half the size, (B, C, H, W) -> (B, C, ⌈H/2⌉, ⌈W/2⌉): rounding up keeps the last row of an odd map."""
    return nn.MaxPool2d(2, ceil_mode=True)


class FloorPool(nn.Module):
    """Half the size, rounded down, (B, C, H, W) -> (B, C, ⌊H/2⌋, ⌊W/2⌋); a side of 1 stays 1.

    Only for networks that were trained so: it drops the last row of an odd map.

    Source: PaddleSeg, paddleseg/models/unet.py; the side of 1 is ours, where there is an error.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, [min(2, side) for side in x.shape[-2:]])


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """`x` (B, C, h, w) resized bilinearly to the height and width of `like` (..., H, W).

    In 32 bits where it runs on a GPU, which in the way back adds up what comes from all pixels in the map's
    own type: a sum of 16 bits stands still once it is a few hundred times what is added. A CPU adds in 32.
    """
    if x.shape[-2:] == like.shape[-2:]:
        return x
    wide = x.float() if x.dtype.itemsize < 4 and x.device.type != "cpu" else x
    up = F.interpolate(wide, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return up.to(x.dtype)
