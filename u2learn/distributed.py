"""One training on several processes, as torchrun starts them: each takes its share of every batch.

    torchrun --nproc-per-node=4 -m u2learn train drive-fcn-ce

All processes hold the same weights and make the same steps; of N, each takes every N-th window of a batch.
Three things belong to the whole batch and are put together: the statistics of batch norms, the outputs that
the loss compares with the labels, and the gradient. So the result is that of one process, up to rounding,
whatever their number. Where there is one process alone, nothing here does anything.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.frozen import FrozenNorm

LOST = (
    "another process of this command has ended; its own message, if it left one, says why. Give the command "
    "again, with as many processes as you like: a training goes on from its last checkpoint."
)


SAYS = threading.RLock()  # whoever has it says that: one sentence is enough


class LostError(RuntimeError):
    """Another process has ended, and this one cannot go on alone."""


def launched() -> bool:
    """Did torchrun start several processes, of which this is one?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which one of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def leads() -> bool:
    """Is this the one that writes files and prints?"""
    return rank() == 0


@contextmanager
def joined(kind: str) -> Iterator[None]:
    """Inside, the processes that torchrun started work together, and one of them prints.

    kind: of their devices, "cpu" or "cuda"; each process has a GPU of its own.

    Raises:
        ValueError: PyTorch sends no messages between processes for this kind of device.
    """
    if kind == "mps":
        raise ValueError("Apple's GPU takes no part in a run of several processes: add --device cpu.")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    if os.name == "posix":
        _end_in_one_sentence()
    if not leads():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until this process ends)
    try:
        yield
    except LostError:
        if not speaks():
            sys.exit(1)
        raise
    dist.destroy_process_group()


def speaks() -> bool:
    """Is this one of the two that say that another one has ended? One of these may be it."""
    return rank() < 2


def _end_in_one_sentence() -> None:
    """When torchrun ends this process, because another one has ended, it says so.

    A second thread does it: the first one may be waiting for a GPU, and runs no Python meanwhile.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(told, 1) != bytes([signal.SIGTERM]):
            pass
        if SAYS.acquire(blocking=False):
            if speaks():
                print(f"u2learn: {LOST}", file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def share(windows: int) -> slice:
    """Which of so many windows this process takes: every N-th, so that halves of a batch are shared likewise.

    Raises:
        ValueError: they cannot be shared evenly.
    """
    if windows % size():
        fitting = ", ".join(str(n) for n in range(1, windows + 1) if windows % n == 0)
        raise ValueError(
            f"{windows} windows cannot be shared evenly by {size()} processes: start one of {fitting} "
            "(torchrun --nproc-per-node), or set another batch, which is another recipe."
        )
    return slice(rank(), None, size())


def whole(x: Tensor) -> Tensor:
    """The parts (b, ...) of all processes as one (N b, ...), in the batch's order.

    Only this process's own windows carry a gradient. As all processes compute the
    same loss from it, each finds what its windows add to the gradient of the
    weights, and `sum_gradients` is the rest. So any loss is right, also one that
    divides sums over the batch.
    """
    if size() == 1:
        return x
    parts = _gathered(x)
    parts[rank()] = x
    return torch.stack(parts, dim=1).flatten(0, 1)


def sum_gradients(model: nn.Module) -> None:
    """Give every weight the sum of its gradients in all processes.

    They travel as one long vector: a message takes a while, however short it is.
    """
    if size() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    _together(dist.all_reduce, flat)
    totals = flat.split([g.numel() for g in gradients])
    for g, total in zip(gradients, totals, strict=True):
        g.copy_(total.view_as(g))


def gathered(value: Any) -> list[Any]:
    """What each process gives, in their order. All wait here for each other."""
    if size() == 1:
        return [value]
    values = [None] * size()
    _together(dist.all_gather_object, values, value)
    return values


@contextmanager
def leader_first() -> Iterator[None]:
    """The block runs in the process that writes first, and in the others when it is done there."""
    if not leads():
        gathered(None)
    yield
    if leads():
        gathered(None)


# --- modules in which the windows of a batch meet, or draw lots ---------------------------------------------


def synchronise(model: nn.Module) -> None:
    """Batch norms and dropouts of the model from now on see the batch of all processes.

    Raises:
        ValueError: it has a module that would do something else there than in one process.
    """
    if size() == 1:
        return
    for name, module in model.named_modules():
        if type(module) in SHARED:
            module.__class__ = SHARED[type(module)]  # the same weights and settings
        elif isinstance(module, MEETING) and not isinstance(module, FrozenNorm):
            raise ValueError(
                f"{name} is a {type(module).__name__}, which several processes do not share; these they do: "
                f"{', '.join(kind.__name__ for kind in SHARED)}."
            )


class SharedNorm(nn.BatchNorm2d):
    """A batch norm whose mean and variance are those of the batch of all processes."""

    def forward(self, x: Tensor) -> Tensor:  # (b, C, H, W)
        if not self.training or size() == 1:
            return super().forward(x)
        mean, var = statistics(x.detach())  # (C,)
        count = size() * x.numel() / x.shape[1]
        assert self.momentum is not None, "the mean of all batches is not kept here"
        kept = dict(self.named_buffers())
        kept["running_mean"].lerp_(mean, self.momentum)
        kept["running_var"].lerp_(var * count / (count - 1), self.momentum)
        kept["num_batches_tracked"] += 1
        return Normalise.apply(x, mean, var, self.weight, self.bias, self.eps)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the maps (b, C, H, W) of all processes.

    Of parts of equal size, the mean is the mean of their means, and the variance
    the mean of their variances plus the variance of their means.
    """
    single = torch.promote_types(x.dtype, torch.float32)  # also of maps in 16 bits
    mean, var = x.new_zeros(2, x.shape[1], dtype=single)
    here = torch.stack(torch.batch_norm_update_stats(x, mean, var, 0))  # (2, C)
    means, variances = torch.stack(_gathered(here), dim=1)  # (N, C)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


class Normalise(torch.autograd.Function):
    """(x - mean) / √(var + eps) * weight + bias; mean and var of all processes.

    Were they constants, the gradient would be that of a batch norm in eval mode. As
    they move with x, what all x have in common in that gradient is taken out: its
    mean, and the part that goes along with x.

    Source: Ioffe and Szegedy, 2015, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, var, weight)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, var, weight = ctx.saved_tensors
        wanted = [True, True, True]
        constant, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, wanted
        )
        totals = torch.stack([of_weight, of_bias])  # (2, C)
        _together(dist.all_reduce, totals)
        along, level = totals / (size() * x.numel() / x.shape[1])
        scale = (var + ctx.eps).rsqrt()
        slope, shift = (weight * scale * each for each in (scale * along, level))
        # (C, 1, 1) each
        mean, slope, shift = (each[:, None, None] for each in (mean, slope, shift))
        moved = torch.addcmul(shift, slope, x - mean)
        return constant.sub_(moved), None, None, of_weight, of_bias, None


class SharedDropout(nn.Dropout2d):
    """Draws for all windows of the batch, in every process alike, and takes what its own ones drew."""

    def forward(self, x: Tensor) -> Tensor:  # (b, C, H, W)
        if not self.training or size() == 1:
            return super().forward(x)
        kept = super().forward(x.new_ones(size() * len(x), x.shape[1], 1, 1))  # 0 or 1 / (1 - p)
        return x * kept[rank() :: size()]


SHARED: dict[type, type] = {nn.BatchNorm2d: SharedNorm, nn.Dropout2d: SharedDropout}
MEETING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def _gathered(x: Tensor) -> list[Tensor]:
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(size())]
    _together(dist.all_gather, parts, x)
    return parts


def _together(operation: Callable[..., Any], *arguments: Any) -> None:
    """An operation in which all processes take part, so that one which has ended is noticed."""
    try:
        operation(*arguments)
    except RuntimeError as error:
        SAYS.acquire()  # for ever, if the other thread says it already and ends this process
        raise LostError(LOST) from error
