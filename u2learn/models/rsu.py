"""The residual U-block: a small U in place of a convolution, and its input added to its output."""

from collections.abc import Callable

from torch import Tensor, nn

from u2learn.models.conv import ConvBlock
from u2learn.models.ulevel import ULevel


class RSU(nn.Module):
    """RSU-L: a block, then a U of L = `height` levels and `mid_channels`; the sum of the two comes out.

    (B, in_channels, H, W) -> (B, out_channels, H, W), any H and W from 1 up. The lowest level is dilated, not
    pooled; in RSU-4F (`dilated`) all are, by 1, 2, 4, 8. `conv(a, b, dilation=d)` makes each convolution.

    Raises:
        ValueError: a height below 2, which is no U.

    Source: Qin et al., 2020, by its code, model/u2net.py.
    """

    def __init__(
        self,
        height: int,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        dilated: bool = False,
        conv: Callable = ConvBlock,
    ):
        super().__init__()
        if height < 2:
            raise ValueError(f"An RSU needs a height of at least 2, an encoder over a bottom, not {height}.")
        self.project = conv(in_channels, out_channels)
        self.u = conv(mid_channels, mid_channels, dilation=2 ** (height - 1) if dilated else 2)
        for level in reversed(range(height - 1)):
            outer, d = mid_channels if level else out_channels, 2**level if dilated else 1
            encode, decode = conv(outer, mid_channels, dilation=d), conv(2 * mid_channels, outer, dilation=d)
            down = nn.Identity() if dilated or level == height - 2 else None
            self.u = ULevel(encode, self.u, decode, down)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)  # (B, out_channels, H, W)
        return self.u(x)[0] + x
