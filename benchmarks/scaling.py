"""What several processes gain: bytes that they send each other against operations, predicted and measured.

    python -m benchmarks.scaling --processes 2 --rounds 3 --record

A step of N processes takes as long as a step with an N-th of the batch, and the messages on top: the sum of
the gradients, one message forward and one back for each batch norm, and the outputs. What a message costs is
measured; from that the efficiency (time of one process / N times that of N) is predicted, and measured, too.
On a CPU the step is made smaller than its recipe (`MEASURED`), as a step of the largest takes minutes there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from u2learn import distributed, records, studies
from u2learn.costs import training_flops
from u2learn.devices import device_name, kind_of, pick_device, wait
from u2learn.models.conv import parameters
from u2learn.recipe import Recipe
from u2learn.tasks import TASKS
from u2learn.training import Run

NETWORKS = ("drive-small", "duts-u2net-small", "drive-fcn-ce", "duts-u2net")
MEASURED: dict[str, Any] = {"batch": 4, "crop": (64, 64), "small_first": 0.0}  # on a CPU
STEPS = 5  # timed, after one that is not


def step_of(name: str, kind: str) -> Recipe:
    """The recipe whose steps are timed on this kind of device."""
    recipe = studies.get(name)
    return dataclasses.replace(recipe, **MEASURED) if kind == "cpu" else recipe


def arithmetic(recipe: Recipe, processes: int) -> dict[str, float]:
    """What a step computes, and what each process sends in it, in bytes.

    A sum over N processes costs each 2 (N - 1) / N times its length; outputs go to N - 1 others.
    """
    with torch.device("meta"):
        model = recipe.build_model().train()
        outputs = model(torch.zeros(recipe.batch, recipe.channels, *recipe.crop))
    others, norms = processes - 1, [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return {
        "parameters": parameters(model),
        "operations": training_flops(recipe, 1),
        "gradients": 4 * parameters(model) * 2 * others / processes,
        "norms": sum(8 * norm.num_features for norm in norms) * others * (1 + 2 / processes),
        "outputs": sum(4 * x.numel() for x in outputs) * others / processes,
        "messages": 1 + 2 * len(norms) + len(outputs) + 1,  # gradients, norms, outputs, labels
    }


def seconds(work: Callable[[], object], device: str) -> float:
    """The median time of some calls."""
    times = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def step_seconds(recipe: Recipe, device: str) -> float:
    """The time of a step; of several processes, each has its share of the batch."""
    torch.manual_seed(0)
    images = torch.randn(recipe.batch, recipe.channels, *recipe.crop)
    labels = TASKS[recipe.task].target(torch.randint(2, (recipe.batch, *recipe.crop)))
    mine = distributed.share(recipe.batch)
    images, labels = images[mine].to(device), labels[mine].to(device)
    with TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder), device)
        return seconds(lambda: run.step(images, labels), device)


def work(name: str, answer: Path, device: str | None) -> None:
    """In each process that torchrun started: the leader writes how long a step takes it.

    Alone, while the others wait; beside them, all with a share of the batch, but silent; and together.
    """
    device = pick_device(device)
    recipe, found = step_of(name, kind_of(device)), {}
    if os.environ["RANK"] == "0":
        found["alone"] = step_seconds(recipe, device)
        answer.touch()
    while not answer.exists():  # the others wait for that, and take it no time
        time.sleep(0.01)
    part = dataclasses.replace(recipe, batch=recipe.batch // int(os.environ["WORLD_SIZE"]))
    found["apart"] = step_seconds(part, device)
    with distributed.joined(kind_of(device)):
        found["together"] = step_seconds(recipe, device)
        for what, length in (("message", 64), ("gradients", parameters(recipe.build_model()))):
            vector = nn.Linear(1, length, bias=False, device=device)
            vector.weight.grad = torch.zeros_like(vector.weight)
            found[what] = seconds(lambda vector=vector: distributed.sum_gradients(vector), device)  # type: ignore[misc]
        if distributed.leads():
            answer.write_text(json.dumps(found), encoding="utf-8")


def measured(name: str, processes: int, device: str | None) -> dict[str, float]:
    """One round: the times of a network's step, alone and together, and of two messages."""
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}", "-m", "benchmarks.scaling", "--work", name]
        command += ["--answer", str(answer), *(["--device", device] if device else [])]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(answer.read_text(encoding="utf-8"))


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"{'network':18}{'parameters':>12}{'gradients':>11}{'outputs':>11}{'operations':>12}{'a byte':>9}"
        f"{'silent':>8}{'predicted':>11}{'measured':>10}"
    ]
    for name, row in found.items():
        whole, sent = row["recipe"], row["recipe"]["gradients"] + row["recipe"]["outputs"]
        lines.append(
            f"{name:18}{whole['parameters']:12,}{whole['gradients'] / 1e6:8.1f} MB"
            f"{whole['outputs'] / 1e6:8.1f} MB{whole['operations'] / 1e9:7,.0f} GFLOP"
            f"{whole['operations'] / sent:9,.0f}"
            f"{row['silent']:8.2f}{row['predicted']:11.2f}{row['measured']:10.2f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2, help="how many work together (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="all networks so often (default 3)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="recipes (default: four sizes)")
    parser.add_argument("--device", help="cpu or cuda (default: the GPUs if there are some)")
    parser.add_argument("--record", action="store_true", help="also write the record into results/")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(options.work, options.answer, options.device)
        return
    device, processes = pick_device(options.device), options.processes
    load = {"load": os.getloadavg()[0], "threads": os.cpu_count()}  # how many others computed before
    times: dict[str, list[dict[str, float]]] = {name: [] for name in options.networks}
    for _ in range(options.rounds):
        for name in options.networks:  # in turns, so that a disturbance hits all
            times[name].append(measured(name, processes, options.device))
    found = {}
    for name, rounds in times.items():
        middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        costs = arithmetic(step_of(name, kind_of(device)), processes)
        talk = middle["gradients"] + costs["messages"] * middle["message"]
        shares = [each["alone"] / processes / each["together"] for each in rounds]
        found[name] = {
            "recipe": arithmetic(studies.get(name), processes),
            "timed": costs,
            "seconds": middle,
            "silent": middle["alone"] / processes / middle["apart"],
            "predicted": middle["alone"] / processes / (middle["apart"] + talk),
            "measured": statistics.median(shares),
            "spread": [min(shares), max(shares)],
        }
    print(
        f"{processes} processes, each on {device_name(device)}; bytes that each sends in a step of the recipe"
    )
    print(f"before it began, {load['load']:.1f} other processes were computing on {load['threads']} threads")
    print(table(found))
    if options.record:
        networks = records.rounded(found)
        record = {"scaling": processes, **records.provenance(device_name(device)), **load}
        record["networks"] = networks
        print(f"Written: {records.write_record(f'scaling-{processes}', record)}")


if __name__ == "__main__":
    main()
