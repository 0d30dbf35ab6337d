"""What a training and a test cost in operations, counted on tensors that have a shape and no content."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from u2learn.inference import segment
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES
from u2learn.tasks import TASKS


def training_flops(recipe: Recipe, iterations: int | None = None) -> int:
    """Floating-point operations of a training, forward and backward; 2 a multiply-add.

    iterations: of the first so many only (default: of all). Counted on tensors that have a shape and no
    content, so that the largest recipe costs nothing.
    """
    count = recipe.iterations if iterations is None else iterations
    small = min(count, math.ceil(recipe.small_first * recipe.iterations))
    height, width = recipe.crop
    parts = ((small, (height // 2, width // 2)), (count - small, recipe.crop))
    return sum(number * _step_flops(recipe, size) for number, size in parts if number)


def _step_flops(recipe: Recipe, size: tuple[int, int]) -> int:
    with torch.device("meta"):
        model = recipe.build_model()
        images = torch.zeros(recipe.batch, recipe.channels, *size)  # (B, C, h, w)
        labels = torch.zeros(recipe.batch, *size, dtype=torch.int64)  # (B, h, w)
        with Operations() as one_step:
            LOSSES[recipe.loss](model(images), TASKS[recipe.task].target(labels)).backward()
    return one_step.total


aten = torch.ops.aten
# On tensors without content PyTorch takes hundreds of small steps in Python for each. Shapes are enough.
SHAPES: dict[Any, Callable[..., Any]] = {
    aten.upsample_bilinear2d.default: lambda x, size, *_: x.new_empty(*x.shape[:2], *size),
    aten.upsample_bilinear2d_backward.default: lambda grad, out, size, *_: grad.new_empty(size),
    aten.native_batch_norm.default: lambda x, *_: _with_statistics(x),
    aten.native_batch_norm_backward.default: lambda grad, x, *_: _with_statistics(x),
}


def _with_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A map, and twice a number a channel: mean and deviation, or the gradients of scale and shift."""
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


class Operations(TorchDispatchMode):
    """Counts what PyTorch's FlopCounterMode counts, five times as fast, on tensors without content."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SHAPES:
            return SHAPES[func](*args)
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def image_flops(recipe: Recipe, size: tuple[int, int] | None = None) -> int:
    """Floating-point operations of the test of one image, with all its windows and views.

    size: height and width of the image (default: those of the first one that the recipe tests). Where images
    are squeezed to one size, none is needed.
    """
    with torch.device("meta"):
        model = _EachSizeOnce(recipe.build_model().eval())
        if recipe.square:
            model(torch.zeros(1, recipe.channels, recipe.square, recipe.square))
        elif size is None:
            segment(model, recipe.examples("test")[0].image, recipe)
        else:
            segment(model, torch.zeros(recipe.channels, *size, dtype=torch.uint8), recipe)
    return model.total


class _EachSizeOnce(nn.Module):
    """A network through which one window of each size goes; the others cost the same."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.total = model, 0
        self.seen: dict[torch.Size, tuple[int, torch.Size]] = {}  # size: operations, shape of the main map

    def forward(self, x: Tensor) -> list[Tensor]:  # (B, C, h, w)
        if x.shape[1:] not in self.seen:
            with Operations() as one:
                main = self.model(x[:1])[0]  # (1, K, h, w)
            self.seen[x.shape[1:]] = one.total, main.shape[1:]
        operations, shape = self.seen[x.shape[1:]]
        self.total += len(x) * operations
        return [x.new_empty(len(x), *shape)]


def training_memory(recipe: Recipe, images: int) -> int:
    """Bytes that a training must hold at once, at so many images a step and in 32 bits.

    Weights, their gradients and momentum, and what the forward pass keeps for the backward one. What
    convolutions borrow while they run (their workspace), and what the allocator leaves unused, come on top.
    """
    kept: dict[int, torch.UntypedStorage] = {}  # storages, as several tensors may share one

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return x

    with torch.device("meta"):
        model = recipe.build_model().train()
        weights = {p.untyped_storage()._cdata: p.nbytes for p in model.parameters()}
        x = torch.zeros(images, recipe.channels, *recipe.crop)  # (B, C, h, w)
        labels = torch.zeros(images, *recipe.crop, dtype=torch.int64)  # (B, h, w)
        with Operations(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = LOSSES[recipe.loss](model(x), TASKS[recipe.task].target(labels))
    del loss
    return 3 * sum(weights.values()) + sum(storage.nbytes() for storage in kept.values())


def duration(seconds: float) -> str:
    """A time to plan with, as "4 min", "0.9 h" or "12 days"."""
    if seconds < 3000:
        return f"{max(1, round(seconds / 60))} min"
    hours = seconds / 3600
    return f"{hours:.{int(hours < 10)}f} h" if hours < 100 else f"{hours / 24:,.0f} days"


def operations(count: float) -> str:
    """A number of operations, as "0.7 TFLOP" or "12 PFLOP"."""
    value, unit = (count / 1e15, "PFLOP") if count >= 1e15 else (count / 1e12, "TFLOP")
    return f"{value:,.{int(value < 10)}f} {unit}"
