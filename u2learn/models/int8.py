"""U²-Net in integers of 8 bits: a convolution four times as fast, and the repair that keeps its maps.

A map x >= 0 is stored as the integer q = round(x / scale), 0 to 255, with one scale for the whole map. Where
two maps meet, in a join or in a residual sum, they have the same scale, so that they meet as they are.

Source: Jacob et al., 2018 (integers and scales); Nagel et al., 2019, section 4.2 (bias correction).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock, resize_like
from u2learn.models.fast import Packed, folded
from u2learn.models.rsu import RSU
from u2learn.models.u2net import U2Net
from u2learn.models.ulevel import ULevel

BEYOND = 1e-4  # share of a map's values above zero that may be cut off at its top
SAMPLE = 200_000  # so many of its values are looked at for that
GROUP = 4  # images that go through a network together, to bound the memory
ROUNDS = 3  # of the bias correction, as a ReLU and the rounding take a part of each


@dataclass
class Seen:
    """What a block's map was like on some images: its top, and the mean of each channel (C,)."""

    top: float
    mean: Tensor


@torch.inference_mode()
def int8(model: U2Net, images: Tensor) -> IntU2Net:
    """A copy of a trained U²-Net that computes in 8 bits, for x86 CPUs.

    `images` (N, 3, H, W), normalised as for the model, are some it will be used on, 16 or so: they say how
    large its maps become, and what their means are.

    Raises:
        ValueError: not a U²-Net of RSUs.
        RuntimeError: this PyTorch has no convolution in 8 bits.
    """
    if not (isinstance(model, U2Net) and isinstance(getattr(model.body, "encode", None), RSU)):
        raise ValueError(f"int8 takes a U²-Net of RSUs, not a {type(model).__name__}.")
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise") or not torch.backends.mkldnn.is_available():
        raise RuntimeError("int8 needs PyTorch's oneDNN, which its builds for x86 CPUs have.")
    images = images.contiguous(memory_format=torch.channels_last)
    quick = IntU2Net(model, observe(model.eval(), images)).eval()
    with correcting(quick):
        quick(images)
    return quick


@torch.inference_mode()
def observe(model: nn.Module, images: Tensor) -> dict[nn.Module, Seen]:
    """What the maps of each block, and the sum of each RSU, are like on images (N, 3, H, W)."""
    tops: dict[nn.Module, list[Tensor]] = {}
    means: dict[nn.Module, list[Tensor]] = {}

    def look(module: nn.Module, _: object, maps: Tensor) -> None:
        values = maps.flatten()[:: maps.numel() // SAMPLE | 1]  # an odd step, not to meet one column always
        values = values[values > 0] if (values > 0).any() else maps.new_ones(1)
        tops.setdefault(module, []).append(values.topk(int(BEYOND * len(values)) + 1).values[-1])
        means.setdefault(module, []).append(maps.mean((0, 2, 3)) * len(maps) / len(images))

    watched = [m for m in model.modules() if isinstance(m, (ConvBlock, RSU))]
    hooks = [module.register_forward_hook(look) for module in watched]
    for group in images.split(GROUP):
        model(group)
    for hook in hooks:
        hook.remove()
    return {m: Seen(float(max(tops[m])), torch.stack(means[m]).sum(0)) for m in watched}


@contextmanager
def correcting(model: IntU2Net) -> Iterator[None]:
    """What goes through the model inside corrects its biases, one convolution after the other.

    Rounded weights give each channel another mean, most of all where a kernel has one large number and many
    small ones, which become 0. So each bias is moved until the mean is that of the exact network, on what the
    corrected ones before it give.
    """

    def correct(conv: nn.Module, inputs: tuple[Tensor], maps: Tensor) -> Tensor:
        assert isinstance(conv, IntConv)
        for _ in range(ROUNDS):
            conv.bias += conv.mean - conv.scale_out * maps.float().mean((0, 2, 3))
            maps = conv.forward(*inputs)
        return maps

    hooks = [m.register_forward_hook(correct) for m in model.modules() if isinstance(m, IntConv)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class IntConv(Packed):
    """A block in 8 bits, uint8 (B, C, H, W) -> uint8 (B, O, H, W): convolution with the norm folded, ReLU.

    Weights are integers from -127 to 127 with a scale for each output channel; products are added in 32 bits.
    """

    def __init__(self, block: ConvBlock, scale_in: float, scale_out: float, mean: Tensor):
        super().__init__()
        conv = folded(block)
        self.scale_in, self.scale_out, self.mean = scale_in, scale_out, mean
        self.weight, self.scales = in_8_bits(conv.weight)
        self.bias = conv.bias.detach().clone()  # type: ignore[union-attr]  # a folded convolution has one
        self.padding, self.dilation = list(conv.padding), list(conv.dilation)

    def forward(self, x: Tensor) -> Tensor:
        return int_conv(self, x, self.scale_out, torch.uint8, "relu")


class IntSide(Packed):
    """A side output of maps in 8 bits, uint8 (B, C, H, W) -> float logits (B, K, H, W)."""

    def __init__(self, conv: nn.Module, scale_in: float):
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        self.scale_in, self.bias = scale_in, conv.bias
        self.weight, self.scales = in_8_bits(conv.weight)
        self.padding, self.dilation = list(conv.padding), list(conv.dilation)

    def forward(self, x: Tensor) -> Tensor:
        return int_conv(self, x, 1.0, torch.float32, "none")


def in_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel (O, C, k, k) as int8, and the scale of each output channel (O,)."""
    scales = weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
    return (weight / scales[:, None, None, None]).round().to(torch.int8), scales


def int_conv(conv: IntConv | IntSide, x: Tensor, scale_out: float, dtype: torch.dtype, after: str) -> Tensor:
    """The convolution of integers that oneDNN has, with everything after it in one go."""
    zeros, stride = torch.zeros(len(conv.scales), dtype=torch.int64), [1, 1]
    where = stride, conv.padding, conv.dilation, 1
    if not hasattr(conv, "packed"):
        conv.packed = torch.ops.onednn.qconv_prepack(conv.weight, conv.scales, conv.scale_in, 0, *where, None)
    return torch.ops.onednn.qconv2d_pointwise(
        x,
        conv.scale_in,
        0,
        conv.packed,
        conv.scales,
        zeros,
        conv.bias,
        *where,
        scale_out,
        0,
        dtype,
        after,
        [],
        "",
    )


class IntLevel(nn.Module):
    """`ULevel` on uint8 maps: the same five steps."""

    def __init__(self, encode: nn.Module, inner: nn.Module, decode: nn.Module, pooled: bool):
        super().__init__()
        self.encode, self.inner, self.decode, self.pooled = encode, inner, decode, pooled

    def forward(self, x: Tensor) -> list[Tensor]:
        skip = self.encode(x)
        inner = self.inner(max_pool(skip) if self.pooled else skip)
        maps = inner if isinstance(inner, list) else [inner]
        up = maps[0]
        if up.shape[-2:] != skip.shape[-2:]:
            up = resize_like(up.float(), skip).round().to(torch.uint8)
        return [self.decode(torch.cat([up, skip], dim=1)), *maps]


def max_pool(x: Tensor) -> Tensor:
    """2x2 with the size rounded up, as PyTorch's has no uint8: a border of zeros changes no maximum."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    x = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(x[..., ::2], x[..., 1::2]).contiguous(memory_format=torch.channels_last)


class IntRSU(nn.Module):
    """`RSU` on uint8 maps. The sum stops at 255, where integers would begin again at 0."""

    def __init__(self, project: nn.Module, u: nn.Module):
        super().__init__()
        self.project, self.u = project, u

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + torch.minimum(self.u(x)[0], 255 - x)


class FirstConv(nn.Module):
    """The first block, from a float image to uint8: in float, as an image has negative values."""

    def __init__(self, block: ConvBlock, scale_out: float):
        super().__init__()
        self.conv, self.scale_out = folded(block), scale_out

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) / self.scale_out).round_().clamp_(0, 255).to(torch.uint8)


class IntU2Net(nn.Module):
    """`U2Net` with all convolutions in 8 bits but the first and the last: the same maps of logits."""

    def __init__(self, model: U2Net, seen: Mapping[nn.Module, Seen]):
        super().__init__()
        assert isinstance(model.body, ULevel)  # and not yet the bottom of the U
        self.seen, self.scales = seen, [seen[model.body.decode].top / 255]
        self.body = self.stage(model.body, None, self.scales[0])
        self.sides = nn.ModuleList(
            IntSide(side, scale) for side, scale in zip(model.sides, self.scales, strict=True)
        )
        self.fuse = model.fuse

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.body(image.contiguous(memory_format=torch.channels_last))
        sides = [resize_like(side(x), image) for side, x in zip(self.sides, maps, strict=True)]
        return [self.fuse(torch.cat(sides, dim=1)), *sides]

    def stage(self, module: nn.Module, scale_in: float | None, scale_out: float) -> nn.Module:
        """A block, an RSU or a level in 8 bits, from maps of one scale (None: a float image) to another."""
        if isinstance(module, ConvBlock):
            if scale_in is None:
                return FirstConv(module, scale_out)
            return IntConv(module, scale_in, scale_out, self.seen[module].mean)
        if isinstance(module, RSU):
            u = self.stage(module.u, scale_out, scale_out)
            return IntRSU(self.stage(module.project, scale_in, scale_out), u)
        assert isinstance(module, ULevel)
        meeting = max(self.top(module.encode), self.top(module.inner)) / 255
        if isinstance(module.encode, RSU):
            self.scales.append(meeting)  # of the next stage's maps, which have a side output
        return IntLevel(
            self.stage(module.encode, scale_in, meeting),
            self.stage(module.inner, meeting, meeting),
            self.stage(module.decode, meeting, scale_out),
            pooled=not isinstance(module.down, nn.Identity),
        )

    def top(self, module: nn.Module) -> float:
        """How large the finest map of a module becomes."""
        return self.top(module.decode) if isinstance(module, ULevel) else self.seen[module].top
