"""Devices: which one, in what precision, and how a step is run on it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from u2learn import distributed
from u2learn.recipe import Recipe

COMPILE_FROM = 2_000  # iterations; in a shorter run on a GPU, compiling takes longer than it saves


def available() -> list[str]:
    """The kinds of devices that are here, the fastest first: "cuda", "mps" (Apple), "cpu"."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind, here in there.items() if here] + ["cpu"]


def pick_device(device: str | None) -> str:
    """The device of this name, by default the GPU if there is one; of several processes, each has its own.

    Raises:
        ValueError: there is no such device.
    """
    device = device or available()[0]
    if device == "cuda" and distributed.launched():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise ValueError(
                "torchrun started more processes than this machine has GPUs, "
                f"{torch.cuda.device_count()}, and each needs one of its own: set --nproc-per-node."
            )
    kind, colon, number = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in available() or (colon and not (number.isdigit() and int(number) < count)):
        raise ValueError(
            f"There is no device {device!r} here (PyTorch {torch.__version__}, GPUs: "
            f"{torch.cuda.device_count()}): leave it out, or use one of {', '.join(map(repr, available()))}."
        )
    return device


def places(device: str | None) -> list[str]:
    """The devices among which processes side by side are divided: all GPUs, if no one of them is named."""
    picked = pick_device(device)
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if picked == "cuda" else [picked]


def kind_of(device: str) -> str:
    """ "cuda", "mps" or "cpu"."""
    return torch.device(device).type


def layout(device: str) -> torch.memory_format:
    """How maps and kernels lie in memory: pixel by pixel, 1.6 times as fast on a CPU, faster on a GPU too.

    Channel by channel on Apple's, where the way back of a batch norm fails or is wrong otherwise.

    Source: PyTorch's issue 175189.
    """
    return torch.contiguous_format if kind_of(device) == "mps" else torch.channels_last


def laid_out(model: nn.Module) -> nn.Module:
    """The model with its kernels in the `layout` of the device on which it is."""
    device = str(next(model.parameters()).device)
    return model.to(memory_format=layout(device))  # type: ignore[call-overload]  # torch forgot to say so


def compiled(model: nn.Module, recipe: Recipe, device: str) -> Callable[[Tensor], list[Tensor]]:
    """The model as one captured graph, where that pays: on a GPU, in a long run.

    A small kernel is done before the next one is asked for, so a step would wait for Python; a graph is
    asked for once, for each size of windows. What the compiler does not understand runs as without it.
    Graphs of earlier models are forgotten: after eight, it would compile no other one in this process. Where
    several processes wait for each other within the network, each kernel is asked for by itself.
    """
    if kind_of(device) != "cuda" or recipe.iterations < COMPILE_FROM:
        return model
    torch._dynamo.config.suppress_errors = True
    torch.compiler.reset()
    mode = "default" if distributed.size() > 1 else "reduce-overhead"
    return torch.compile(model, mode=mode, dynamic=False)


def mixed_precision(device: str) -> torch.autocast:
    """Convolutions in 16 bits, at half the memory traffic, where the device has instructions for that.

    A GPU of NVIDIA computes in bfloat16, or in float16 if it is too old; a CPU in bfloat16, or else in 32
    bits, as emulation would be slower; Apple's in 32 bits. Weights, losses and their sums stay in 32 bits.
    """
    if kind_of(device) == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16 if bf16 else torch.float16)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.8
    fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=fast and kind_of(device) == "cpu")


def device_name(device: str) -> str:
    """What a device is called in a record: the GPU's name, or the CPU's threads."""
    if kind_of(device) == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if kind_of(device) == "mps" else f"CPU, {torch.get_num_threads()} thread(s)"


def wait(device: str) -> None:
    """Return when the device has done all that it was asked for."""
    if kind_of(device) == "cuda":
        torch.cuda.synchronize(device)
    elif kind_of(device) == "mps":
        torch.mps.synchronize()


def free_memory(device: str) -> float:
    """Bytes of GPU memory that nobody uses; without limit where there is no GPU of NVIDIA."""
    return torch.cuda.mem_get_info(device)[0] if kind_of(device) == "cuda" else math.inf


def peak_memory(device: str) -> int | None:
    """The most bytes of GPU memory held at once since `forget_peak`; None where no count is kept."""
    return torch.cuda.max_memory_allocated(device) if kind_of(device) == "cuda" else None


def forget_peak(device: str) -> None:
    """From here on `peak_memory` counts anew."""
    if kind_of(device) == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
