"""A U-Net for a CPU, on blocks of 2x2 pixels: large maps of few channels would wait for memory."""

from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock, double_conv
from u2learn.models.ulevel import AddJoin, ULevel


class HalfUNet(nn.Module):
    """A U-Net on blocks of 2x2 pixels: each block is one position with four times the channels.

    Image (B, C, H, W) -> [logits (B, K, H, W)]; any H and W. A convolution over a large map of few channels
    waits for the memory of a CPU, and leaves half of its vector registers empty. Here the finest map has a
    quarter of the positions, and no pixel is lost: the head gives each of the four its own logits.

    Source: Shi et al., 2016 (the arrangement of pixels into channels, and back).
    """

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        x = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        x = F.pixel_unshuffle(x, 2)  # (B, 4 C, ⌈H/2⌉, ⌈W/2⌉)
        x = F.pixel_shuffle(self.head(self.body(x)[0]), 2)  # (B, K, 2 ⌈H/2⌉, 2 ⌈W/2⌉)
        return [x[..., :height, :width]]


def half_unet(
    num_classes: int = 2,
    width: int = 16,
    depth: int = 3,
    growth: int | None = None,
    decoder: int = 1,
    in_channels: int = 3,
) -> HalfUNet:
    """`depth` scales of width, width + growth, ... channels (growth: width), the finest at half of the size.

    A level encodes with two convolutions and decodes with `decoder` of them: what one saves buys more steps.
    """
    growth = width if growth is None else growth
    channels = [width + i * growth for i in range(depth)]
    body: nn.Module = double_conv(channels[-2], channels[-1], bias=False)
    for i in reversed(range(depth - 1)):
        c, before = channels[i], channels[i - 1] if i else 4 * in_channels
        body = ULevel(
            encode=double_conv(before, c, bias=False),
            inner=body,
            decode=nn.Sequential(*(ConvBlock(c, c, bias=False) for _ in range(decoder))),
            join=AddJoin(channels[i + 1], c),
        )
    return HalfUNet(body, head=nn.Conv2d(width, 4 * num_classes, kernel_size=1))
