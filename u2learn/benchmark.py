"""How fast something is here: against other ways of doing it, and against the most that the device can do."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from u2learn.batches import TrainingData
from u2learn.costs import training_flops
from u2learn.devices import COMPILE_FROM, device_name, pick_device, wait
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES
from u2learn.training import Run


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds that each way takes: in every round all of them, one after the other.

    So what disturbs the machine disturbs all alike, and a share of two ways in one round is worth more than
    either time. A round before the first warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in times.items()}


def shares(times: Mapping[str, list[float]], of: str) -> dict[str, tuple[float, float, float]]:
    """What part of the time of one way each way takes: median, least and most over the rounds."""
    parts = {
        name: [ours / base for ours, base in zip(seconds, times[of], strict=True)]
        for name, seconds in times.items()
    }
    return {name: (statistics.median(each), min(each), max(each)) for name, each in parts.items()}


def benchmark(recipe: Recipe, device: str | None = None, seconds: float = 20.0) -> dict[str, float | str]:
    """Steps a second of the training loop and of the plain one, in turns on the same batches.

    Plain means: 32 bits (which cuDNN may shorten to TF32, as it does for everybody), channels first, nothing
    compiled, every step asked for from Python. `share` is that
    part of the device's speed in multiplying large matrices (in the precision that the loop uses) which
    arrives in the network's own operations.

    Raises:
        ValueError: there is no such device.
    """
    device = pick_device(device)
    data = TrainingData(recipe, recipe.examples("train"), device)
    with TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder), device)
        plain = _plain_step(recipe, device)
        rates: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(2):  # in turns, so that a disturbance hits both; the first of each warms up
            for name, step in (("plain", plain), ("ours", run.step)):
                rates[name].append(_rate(step, data, device, seconds / 4))
    peak = matmul_peak(device, run.autocast.fast_dtype if run.autocast._enabled else torch.float32)
    operations = training_flops(recipe) / recipe.iterations
    return {
        "device": device_name(device),
        "plain": rates["plain"][-1],
        "ours": rates["ours"][-1],
        "ratio": rates["ours"][-1] / rates["plain"][-1],
        "minutes": recipe.iterations / rates["ours"][-1] / 60,
        "tflops": rates["ours"][-1] * operations / 1e12,
        "peak_tflops": peak / 1e12,
        "share": rates["ours"][-1] * operations / peak,
    }


def training_speed(recipe: Recipe, device: str | None = None, seconds: float = 3.0) -> float:
    """Operations a second of the training loop, batches included, as it is without the compiler.

    Raises:
        ValueError: there is no such device.
    """
    device = pick_device(device)
    data = TrainingData(recipe, recipe.examples("train"), device)
    brief = dataclasses.replace(recipe, iterations=min(recipe.iterations, COMPILE_FROM - 1))
    with TemporaryDirectory() as folder:
        steps = _rate(Run(brief, Path(folder), device).step, data, device, seconds)
    return steps * training_flops(recipe) / recipe.iterations


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """Operations a second of the device's own matrix product, the best of some tries.

    The matrices are as large as it takes to keep the device busy for some milliseconds.
    """

    def fastest(n: int, tries: int) -> float:
        a, b = torch.randn(2, n, n, device=device).to(dtype)
        times = []
        for _ in range(tries):
            started = time.perf_counter()
            a @ b
            wait(device)
            times.append(time.perf_counter() - started)
        return min(times)

    n = 1024
    while n < 8192 and fastest(n, 2) < 0.005:
        n *= 2
    return 2 * n**3 / fastest(n, 10)


def copy_speed(device: str, size: int = 1 << 27) -> float:
    """Bytes a second that the device reads and writes when it copies `size` bytes, the best of some tries."""
    source = torch.ones(size // 4, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(6):
        started = time.perf_counter()
        target.copy_(source)
        wait(device)
        times.append(time.perf_counter() - started)
    return 2 * size / min(times[1:])


def _plain_step(recipe: Recipe, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    model = recipe.build_model().to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), recipe.learning_rate, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = LOSSES[recipe.loss](model(images.contiguous()), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _rate(step: Callable, data: TrainingData, device: str, seconds: float) -> float:
    """Steps a second, batches included, after three that do not count."""
    for iteration in range(3):
        step(*data.batch(iteration))
    wait(device)
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < seconds:
        step(*data.batch(count))
        count += 1
        if count % 20 == 0:
            wait(device)
    wait(device)
    return count / (time.perf_counter() - started)
