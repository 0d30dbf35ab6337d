"""How costs grow: time and memory of a map with its side, times with a batch, with windows and in training.

    python -m benchmarks.growth --record

A cost that is c xᵖ is a straight line of slope p where both axes are logarithmic; p is fitted there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.fast import brief, image_of, trained
from u2learn import records, studies
from u2learn.devices import device_name, kind_of, laid_out, pick_device, wait
from u2learn.inference import slide
from u2learn.models.fast import fast
from u2learn.registry import LOSSES
from u2learn.tasks import TASKS

SIDES = (64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8, 16)
AT = 128  # the side of a map in a batch
WINDOW, STRIDE = 256, 170
SOON = 1.0  # seconds: what takes less is measured five times, and its median counts
ENOUGH = 60.0  # seconds: after a point that took so long, no larger one is tried

Points = list[dict[str, float]]  # x, seconds, and of some the bytes


def clocked(run: Callable[[], object], device: str) -> float:
    """Seconds of a call, after one that warms up unless it takes long."""

    def once() -> float:
        started = time.perf_counter()
        run()
        wait(device)
        return time.perf_counter() - started

    first = once()
    return first if first > SOON else statistics.median(once() for _ in range(5))


def points(make: Callable[[int], Callable[[], object]], at: Iterable[int], device: str) -> Points:
    """The cost at each size; the largest are left out where they would take minutes."""
    found: Points = []
    before = held()
    for x in at:
        point = {"x": x, "seconds": brief(clocked(make(x), device))}
        if before is not None:
            point["bytes"] = max(held() - before, 0)  # type: ignore[operator]  # the most so far, and x grows
        found.append(point)
        if point["seconds"] > ENOUGH / 4:
            break
    return found


def held() -> int | None:
    """The most bytes that this process held so far; None where they cannot be told."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exponent(found: Points, cost: str = "seconds", last: int = 3) -> float | None:
    """The slope of the straight line through the last points, both axes logarithmic; None of a single one."""
    pairs = [(math.log(p["x"]), math.log(p[cost])) for p in found[-last:] if p.get(cost)]
    return brief(statistics.linear_regression(*zip(*pairs, strict=True)).slope) if len(pairs) > 1 else None


def by_side(name: str, device: str) -> Points:
    model = fast(trained(name).to(device))

    def at(side: int) -> Callable[[], object]:
        image = image_of(side).to(device).contiguous(memory_format=torch.channels_last)
        return torch.inference_mode()(lambda: model(image))

    return points(at, SIDES, device)


def by_batch(name: str, device: str) -> Points:
    model, one = fast(trained(name).to(device)), image_of(AT).to(device)

    def at(batch: int) -> Callable[[], object]:
        images = one.repeat(batch, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        return torch.inference_mode()(lambda: model(images))

    return points(at, BATCHES, device)


def by_windows(name: str, device: str) -> Points:
    """x: the side of the image, which windows of WINDOW pixels cover."""
    model = fast(studies.get(name).build_model().to(device))

    def at(side: int) -> Callable[[], object]:
        image = image_of(side)[0].to(device)
        return lambda: slide(model, image, (WINDOW, WINDOW), (STRIDE, STRIDE))

    return points(at, [side for side in SIDES if side >= WINDOW], device)


def by_pictures(name: str, device: str) -> Points:
    """x: the windows of 64 pixels in one step of training, forward, backward and update."""
    recipe = studies.get(name)
    model = laid_out(recipe.build_model().to(device)).train()
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)

    def at(batch: int) -> Callable[[], object]:
        images = image_of(64).to(device).repeat(batch, 1, 1, 1)
        labels = TASKS[recipe.task].target(torch.zeros(batch, 64, 64, dtype=torch.long)).to(device)

        def step() -> None:
            optimiser.zero_grad()
            LOSSES[recipe.loss](model(images), labels).backward()
            optimiser.step()

        return step

    return points(at, BATCHES, device)


# What is measured, and of which net; each in a process of its own, so that the memory is its own.
MEASURED: dict[str, tuple[Callable[[str, str], Points], str]] = {
    "U²-Net†, side": (by_side, "u2net_small"),
    "U²-Net, side": (by_side, "u2net"),
    "U²-Net†, images in a batch": (by_batch, "u2net_small"),
    "U²-Net, images in a batch": (by_batch, "u2net"),
    "small U-Net in windows, side": (by_windows, "drive-small"),
    "small U-Net, windows in a step of training": (by_pictures, "drive-small"),
}


def power(slope: float | None) -> str:
    return "-" if slope is None else f"x^{slope:.2f}"


def table(found: dict[str, Any]) -> str:
    lines = [f"{'':44}{'from':>6}{'to':>6}{'seconds':>18}{'grow with':>11}{'memory with':>13}"]
    for what, row in found.items():
        first, last = row["points"][0], row["points"][-1]
        seconds = f"{first['seconds']:.3g} to {last['seconds']:.3g}"
        lines.append(
            f"{what:44}{first['x']:6}{last['x']:6}{seconds:>18}{power(row['time']):>11}{power(row['memory']):>13}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cpu or cuda (default: the GPU if there is one)")
    parser.add_argument("--record", action="store_true", help="also write the record into results/")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    device, load = pick_device(options.device), round(os.getloadavg()[0], 2)
    if options.part:
        measure, name = MEASURED[options.part]
        print(json.dumps(measure(name, device)))
        return
    found = {}
    for what in MEASURED:
        command = [sys.executable, "-m", "benchmarks.growth", "--part", what, "--device", device]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        found[what] = {"points": measured, "time": exponent(measured), "memory": exponent(measured, "bytes")}
    print(table(found))
    if options.record:
        record = {"growth": device_name(device), **records.provenance(device_name(device)), "load": load}
        path = records.write_record(f"growth-{kind_of(device)}", {**record, "costs": found})
        print(f"Written: {path}")


if __name__ == "__main__":
    main()
