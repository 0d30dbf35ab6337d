"""Four U-Nets and a W-Net from one `ULevel`: what differs is the blocks, the join and the head."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from u2learn.models.conv import FloorPool, double_conv, downsample, resize_like
from u2learn.models.heads import aspp_head, fcn_head, psp_head
from u2learn.models.ulevel import ResizeConvJoin, ULevel, UpConvCropJoin


def nest(
    channels: Sequence[int],
    out: Sequence[int],
    convs: Callable[[int, int], nn.Module],
    join: Callable[[int, int], nn.Module] | None = None,
    in_channels: int = 3,
    down: Callable[[], nn.Module] = downsample,
) -> nn.Module:
    """Nest `ULevel`s: level i has `channels[i]` after its encoder and `out[i]` after its decoder.

    The last of `channels` is the bottom's. `convs(a, b)` makes an encoder or decoder; `join(deep, deep // 2)`
    one that halves the deep channels on the way up, and None the plain resize-and-stack that keeps them;
    `down()` the way to the next scale.
    """
    if len(channels) == 1:
        return convs(in_channels, channels[0])
    deep = out[1] if len(out) > 1 else channels[1]
    up = deep // 2 if join else deep
    return ULevel(
        encode=convs(in_channels, channels[0]),
        inner=nest(channels[1:], out[1:], convs, join, channels[0], down),
        decode=convs(up + channels[0], out[0]),
        down=down(),
        join=join(deep, up) if join else None,
    )


class UNet(nn.Module):
    """A U with a head on its finest map and, while training, an auxiliary head on the next one.

    Image (B, C, H, W) -> [logits (B, K, H, W), auxiliary logits (B, K, H, W)]; in eval mode only the first.
    Any H and W from 1 up. (While training, batch norm wants more than one value a channel: B > 1 if the
    bottom is 1x1, or if the head pools the whole map.)
    """

    def __init__(self, body: nn.Module, head: nn.Module, auxiliary: nn.Module | None = None):
        super().__init__()
        self.body, self.head, self.auxiliary = body, head, auxiliary

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.body(image)  # finest first: (B, C, H, W), (B, 2C, H/2, W/2), ...
        logits = [self.head(maps[0])]
        if self.training and self.auxiliary is not None:
            logits.append(self.auxiliary(maps[1]))
        return [resize_like(x, image) for x in logits]


def unet_s5_d16(
    num_classes: int = 2, head: str = "fcn", auxiliary: bool = True, in_channels: int = 3
) -> UNet:
    """OpenMMLab's UNet-S5-D16: five stages of 64 to 1024 channels, 1/16 at the bottom, bias-free blocks.

    `head` is "fcn" (no context), "psp" (PSPNet's) or "aspp" (DeepLabV3's). 28,949,568 parameters in the body;
    with auxiliary head and 2 classes 29,060,676 (FCN), 29,046,276 (PSP) or 29,064,996 (ASPP) in all.

    Raises:
        ValueError: the head is not one that we have.

    Source: mmsegmentation 0.30, backbones/unet.py and configs/_base_/models/fcn_unet_s5-d16.py.
    """
    if head not in HEADS:
        raise ValueError(f"unet_s5_d16 has no head {head!r}; choose one of: {', '.join(sorted(HEADS))}.")
    convs = partial(double_conv, bias=False)
    make_head, channels = HEADS[head]
    net = UNet(
        body=nest([64, 128, 256, 512, 1024], [64, 128, 256, 512], convs, ResizeConvJoin, in_channels),
        head=make_head(64, channels, num_classes),
        auxiliary=fcn_head(128, 64, num_classes) if auxiliary else None,
    )
    return net.apply(_kaiming_fan_out)


def unet_paddle(num_classes: int = 2, in_channels: int = 3) -> UNet:
    """PaddleSeg's UNet: 512 channels at the bottom instead of 1024, no convolution before the join.

    Its pooling rounds down, so that trained weights mean the same here at odd sizes too.
    13,396,418 parameters for 2 classes, 13,406,227 for 19.

    Source: PaddleSeg, paddleseg/models/unet.py, with `use_deconv: False`.
    """
    channels, out = [64, 128, 256, 512, 512], [64, 64, 128, 256]
    body = nest(channels, out, double_conv, in_channels=in_channels, down=FloorPool)
    net = UNet(body, head=nn.Conv2d(64, num_classes, kernel_size=3, padding=1))
    return net.apply(_kaiming_fan_in)


def unet_small(num_classes: int = 2, width: int = 8, depth: int = 4, in_channels: int = 3) -> UNet:
    """A U-Net for a laptop: `depth` scales of width, 2 width, 3 width, ... channels.

    Channels grow by addition, not by doubling: doubling puts most weights where the map is smallest, and thin
    structures such as vessels are decided at the finest scales.
    """
    channels = [width * (i + 1) for i in range(depth)]
    body = nest(channels, channels[:-1], partial(double_conv, bias=False), in_channels=in_channels)
    return UNet(body, head=nn.Conv2d(width, num_classes, kernel_size=1))


class WNet(nn.Module):
    """Two U-Nets in a row: the second reads the image and the logits of the first.

    Image (B, C, H, W) -> [second's logits, first's logits], both (B, K, H, W); in eval mode only the
    second's.

    Source: Galdran et al., 2022, section 2.1.
    """

    def __init__(self, first: UNet, second: UNet):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, image: Tensor) -> list[Tensor]:
        draft = self.first(image)[0]  # (B, K, H, W)
        final = self.second(torch.cat([image, draft], dim=1))[0]
        return [final, draft] if self.training else [final]


def wnet_small(num_classes: int = 2, width: int = 8, depth: int = 3, in_channels: int = 3) -> WNet:
    """Two `unet_small` in a row, the second with C + K input channels (Galdran et al., 2022)."""
    first = unet_small(num_classes, width, depth, in_channels)
    return WNet(first, unet_small(num_classes, width, depth, in_channels + num_classes))


class UNet2015(UNet):
    """The U-Net of 2015: valid convolutions, so the output is smaller than the input, and no batch norm.

    Image (B, C, H, W) -> [logits (B, K, H - 184, W - 184)], for sizes that halve evenly four times:
    572 -> 388, and every 16 pixels up or down from there, 188 at least.

    Raises:
        ValueError: an input side that the four valid levels cannot halve without a remainder.

    Source: Ronneberger et al., 2015, figure 1.
    """

    def forward(self, image: Tensor) -> list[Tensor]:
        for side in image.shape[-2:]:
            if side < 188 or (side - 188) % 16:
                low = 188 + max(0, (side - 188) // 16) * 16
                raise ValueError(
                    f"The 2015 U-Net takes sides of 188, 204, 220, ... (188 + 16 n) pixels and got {side}: "
                    f"pad or crop the image to {low} or {low + 16}; the output is 184 pixels smaller."
                )
        return [self.head(self.body(image)[0])]


def unet_2015(num_classes: int = 2, in_channels: int = 1) -> UNet2015:
    """Ronneberger's U-Net: 31,030,658 parameters for one input channel and two classes."""

    def valid_convs(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(a, b, 3), nn.ReLU(), nn.Conv2d(b, b, 3), nn.ReLU())

    channels = [64, 128, 256, 512, 1024]
    body = nest(channels, channels[:-1], valid_convs, UpConvCropJoin, in_channels)
    net = UNet2015(body, head=nn.Conv2d(64, num_classes, kernel_size=1))
    for weight in net.parameters():  # section 3: Gaussian with a deviation of √(2 / N), N incoming nodes
        if weight.ndim == 4:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return net


HEADS = {"fcn": (fcn_head, 64), "psp": (psp_head, 16), "aspp": (aspp_head, 16)}  # and their inner channels


def _kaiming_fan_out(module: nn.Module) -> None:
    """OpenMMLab's initialisation: Kaiming normal by fan out; classifiers (with bias) at a std of 0.01."""
    if isinstance(module, nn.Conv2d):
        if module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def _kaiming_fan_in(module: nn.Module) -> None:
    """Paddle's default initialisation: Kaiming normal by fan in, biases at 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
