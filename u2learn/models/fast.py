"""A copy of a trained network that predicts the same in less time."""

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock

WIDE = 128  # channels in and out from which fewer products cost less than what it takes to need fewer
LONG = 16  # pixels of a row from which they do

# Winograd's F(4, 3): how three weights and six numbers are mixed, and four made of their six products.
KERNEL = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
INTO = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
BACK = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def fast(model: nn.Module) -> nn.Module:
    """A copy for prediction alone, on the model's device.

    It is in eval mode, its norms are folded, and its kernels are laid out pixel by pixel. On a CPU each block
    is one call, and wide ones make half of the products; for that its kernels are kept in a second form, in
    up to three times the memory. The maps are those of the model up to rounding. A CPU makes those of U²-Net
    and U²-Net† in a bit more than half of the time that the published code takes.
    """
    model = fold(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot to say so
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Folded):
                kind = next(kind for kind in (FewerProducts, OneCall, Folded) if kind.fits(child.conv))
                setattr(parent, name, kind(child.conv))
            elif isinstance(child, nn.Conv2d) and OneMap.fits(child):
                setattr(parent, name, OneMap(child))
    return model


def fold(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose blocks have their norms in their convolutions."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvBlock):
                setattr(parent, name, Folded(folded(child)))
    return model


def folded(block: ConvBlock) -> nn.Conv2d:
    """The convolution of a block with the block's batch norm in it, as it is in eval mode.

    The norm then multiplies each channel by γ / √(σ² + ε) and adds a number. So does the convolution by
    itself, with the weights w γ / √(σ² + ε) and the bias (b - μ) γ / √(σ² + ε) + β.
    """
    conv, norm = copy.deepcopy(block.conv), block.norm
    assert norm.running_mean is not None and norm.running_var is not None  # every norm of a block has them
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # (O,)
    bias = torch.zeros_like(norm.bias) if conv.bias is None else conv.bias
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias, requires_grad=False)
    return conv


def is_plain(conv: nn.Conv2d) -> bool:
    """Is it 3x3, with a bias, and keeps the size with a border of zeros?"""
    usual = (conv.kernel_size, conv.padding, conv.dilation, conv.stride) == ((3, 3), (1, 1), (1, 1), (1, 1))
    return usual and conv.groups == 1 and conv.padding_mode == "zeros" and conv.bias is not None


class Folded(nn.Module):
    """A block for prediction alone: the folded convolution, and a ReLU written into the map it gave."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu_()


class Packed(nn.Module):
    """A convolution whose kernel also lies in the order that this processor wants, as `packed`."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "packed"}  # made again


class OneCall(Packed, Folded):
    """`Folded` on a CPU: the ReLU goes along with the convolution, and the kernel lies ready.

    PyTorch brings a kernel into the processor's order in each call, which takes as long as the convolution
    where maps are small.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Is it in 32 bits on a CPU, where PyTorch has such calls?"""
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        return there and conv.weight.device.type == "cpu" and conv.weight.dtype == torch.float32

    @cached_property
    def packed(self) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(self.conv.weight, *self.how())

    def how(self) -> tuple[Any, ...]:
        """Padding, stride, dilation and groups."""
        conv = self.conv
        return list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups

    def forward(self, x: Tensor) -> Tensor:
        if self.as_usual(x):
            return super().forward(x)
        return self.call(x, self.conv.bias, "relu")

    def as_usual(self, x: Tensor) -> bool:
        """Is this left to PyTorch: in 16 bits, on a device to which the copy was moved, for a gradient?"""
        in_32_bits = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return not (x.is_cpu and in_32_bits) or (torch.is_grad_enabled() and x.requires_grad)

    def call(self, x: Tensor, bias: Tensor | None, after: str) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self.packed, bias, *self.how(), after, [], "")


class FewerProducts(OneCall):
    """A wide 3x3 convolution with half of the products: Winograd's way, along the rows.

    Four neighbours in a row of the map need 4 x 3 products with each row of the kernel, on six numbers. If
    the six are mixed into six others (INTO), and the three weights too (KERNEL), then six products are
    enough, of which BACK makes the four. Mixing costs some operations for each channel, in and out; products
    are as many as both multiplied. What is between INTO and BACK is six convolutions of 3 x 1, on maps a
    quarter as wide: one call of six groups.

    Source: Lavin and Gray, 2016, "Fast algorithms for convolutional neural networks", F(4, 3).
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv)
        self.bias = torch.zeros(6, conv.out_channels)
        self.bias[1] = conv.bias  # type: ignore[assignment]  # BACK adds it to each of the four
        self.bias = self.bias.flatten()

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Is it such a convolution, on a CPU?"""
        return is_plain(conv) and min(conv.in_channels, conv.out_channels) >= WIDE and OneCall.fits(conv)

    @cached_property
    def packed(self) -> Tensor:
        mixed = torch.einsum("tk,ocyk->tocy", KERNEL, self.conv.weight).flatten(0, 1)[..., None]
        mixed = mixed.contiguous(memory_format=torch.channels_last)  # (6 O, C, 3, 1)
        return torch.ops.mkldnn._reorder_convolution_weight(mixed, *self.how())

    def how(self) -> tuple[Any, ...]:
        return [1, 0], [1, 1], [1, 1], 6

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        if self.as_usual(x) or width < LONG:
            return Folded.forward(self, x)
        fours = -(-width // 4)
        rows = F.pad(x, (1, 4 * fours + 1 - width, 0, 0)).permute(0, 2, 3, 1)  # (B, H, W', C)
        sixes = INTO @ rows.unfold(2, 6, 4).mT  # (B, H, W / 4, 6, C)
        y = self.call(sixes.flatten(3).permute(0, 3, 1, 2), self.bias, "none")  # (B, 6 O, H, W / 4)
        y = BACK @ y.permute(0, 2, 3, 1).unflatten(3, (6, -1))  # (B, H, W / 4, 4, O)
        return y.flatten(2, 3)[:, :, :width].permute(0, 3, 1, 2).relu_()


class OneMap(nn.Module):
    """A 3x3 convolution to one map: nine products for each pixel, then moved and added.

    Maps (B, C, H, W) -> (B, 1, H, W). A CPU computes sixteen outputs of a pixel at a time, so a single one
    leaves most of it idle; nine fill more than half.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        assert conv.bias is not None
        self.each = nn.Conv2d(conv.in_channels, 9, kernel_size=1, bias=False)
        self.each.weight = nn.Parameter(conv.weight[0].flatten(1).T[..., None, None], requires_grad=False)
        self.bias = nn.Parameter(conv.bias, requires_grad=False)

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Is it such a convolution, on a CPU?"""
        return is_plain(conv) and conv.out_channels == 1 and conv.weight.device.type == "cpu"

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = F.pad(self.each(x), (1, 1, 1, 1))  # (B, 9, H + 2, W + 2)
        total = self.bias.expand(len(x), 1, height, width).clone()
        for k in range(9):
            total += y[:, k : k + 1, k // 3 :, k % 3 :][..., :height, :width]
        return total  # (B, 1, H, W)
