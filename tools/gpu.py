"""What only a GPU can show, in one go of some minutes: python -m tools.gpu [--minutes 8]

Versions and precision; the way back of a resize in 16 bits; a training that is stopped and goes on; our loop
against the plain one; frames a second of both U²-Nets; and in the time that is left, one row of the tables,
trained and tested. What was found is kept in gpu.json, below U2LEARN_RUNS or else in _build/gpu, so that a
second call leaves out what is done and trains the row on. Speeds and scores are written as records. A step
that fails is told, the others are done, and the exit status is 1.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn import records, studies, training
from u2learn.benchmark import benchmark
from u2learn.data.download import fetch
from u2learn.data.local import MissingDataset
from u2learn.devices import device_name, kind_of, laid_out, layout, mixed_precision, pick_device, wait
from u2learn.files import write_text
from u2learn.measure import measure, speed
from u2learn.models.conv import parameters, resize_like
from u2learn.models.weights import read_tensors
from u2learn.recipe import Recipe
from u2learn.reported import reported_for
from u2learn.studies.u2net import published
from u2learn.tasks import TASKS

ROW = "chase-fcn-ce"  # its set is open and fetches itself
WITHOUT_DATA = "synthetic-small"
NETS, SIDE = ("u2net", "u2net_small"), 320  # of the squeezed photograph, pixels
THINGS = {"train": 1, "test": 1, "size": (300, 400), "seed": 0, "thin": False}  # as large as ECSSD's
Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be done: on which device, with which row, how long each speed is measured, and till when."""

    device: str
    row: Recipe
    seconds: float
    end: float  # of time.monotonic()

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


Step = Callable[[Order], tuple[Found, str]]  # what was found, and a sentence of it


def main(arguments: list[str]) -> int:
    """Do all steps that are not done yet; 1 if one failed."""
    options = _parser().parse_args(arguments)
    if options.device is None and pick_device(None) == "cpu":
        sys.exit(
            f"There is no GPU here that PyTorch {torch.__version__} can use: on Colab choose one under "
            "Runtime, Change runtime type, elsewhere install the PyTorch that fits your GPU; --device cpu "
            "tries this program on the CPU."
        )
    end = time.monotonic() + 60 * options.minutes
    order = Order(pick_device(options.device), _row(options.row), options.seconds, end)
    steps: dict[str, Step] = {
        "versions": versions,
        "resize in 16 bits": resize_in_16_bits,
        "stop and go on": stop_and_go_on,
        f"speed of {order.row.name}": training_speed,
        **{f"frames of {net}": partial(frames, net=net) for net in NETS},
        f"row {order.row.name}": train_row,
    }
    well = [_do(name, step, order) for name, step in steps.items()]
    print(f"All that was found: {_path()}")
    return int(not all(well))


def _do(name: str, step: Step, order: Order) -> bool:
    """One step, unless it is done: prints a line, and keeps what was found. False if it failed."""
    kept, here = _read(), device_name(order.device)
    if kept.get(here, {}).get(name, {}).get("done"):
        print(f"{name}: {kept[here][name]['said']} (done before)", flush=True)
        return True
    if order.left <= 0:
        print(f"{name}: no time left; call again", flush=True)
        return True
    started = time.monotonic()
    try:
        found, said = step(order)
    except Exception as error:  # whatever it is, the other steps are done
        found, said = {"done": False, "failed": traceback.format_exc()}, f"FAILED: {error!r}"
    seconds = round(time.monotonic() - started, 1)
    print(f"{name}: {said} ({seconds} s)", flush=True)
    kept.setdefault(here, {})[name] = {"done": True, **found, "said": said, "seconds": seconds}
    _path().parent.mkdir(parents=True, exist_ok=True)
    write_text(_path(), json.dumps(kept, indent=1) + "\n")
    return "failed" not in found


def _path() -> Path:
    return Path(os.environ.get("U2LEARN_RUNS") or "_build/gpu") / "gpu.json"


def _read() -> dict[str, dict[str, Found]]:
    """What was found before: by device, then by step."""
    return json.loads(_path().read_text(encoding="utf-8")) if _path().exists() else {}


def _row(name: str | None) -> Recipe:
    """The row of this name; by default the usual one, if its data are here or can be fetched."""
    recipe = studies.get(name or ROW)
    try:
        recipe.examples("train")
    except MissingDataset as missing:
        if name:
            sys.exit(str(missing))
        try:
            fetch(recipe.dataset, progress=False)
        except (OSError, ValueError) as error:
            print(f"The row is {WITHOUT_DATA}, as the data of {ROW} cannot be fetched: {error}")
            return studies.get(WITHOUT_DATA)
    return recipe


# --- the steps ----------------------------------------------------------------------------------------------


def versions(order: Order) -> tuple[Found, str]:
    """With what all of this is measured."""
    found = {
        **records.provenance(device_name(order.device)),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "precision": _fast(order.device) or "float32",
    }
    if kind_of(order.device) == "cuda":
        found["memory"] = torch.cuda.get_device_properties(order.device).total_memory
    return found, (
        f"{found['device']}, PyTorch {torch.__version__}, CUDA {found['cuda']}, cuDNN {found['cudnn']}, "
        f"convolutions in {found['precision']}"
    )


def _fast(device: str) -> str:
    """The type of mixed precision there, as "bfloat16"; "" where all is in 32 bits."""
    precision = mixed_precision(device)
    return str(precision.fast_dtype).removeprefix("torch.") if precision._enabled else ""


def resize_in_16_bits(order: Order) -> tuple[Found, str]:
    """The share of the gradient that comes back through a resize to 64x64: all of it, if summed in 32 bits.

    Raises:
        ValueError: a hundredth of it or more is lost.
    """
    dtype = mixed_precision(order.device).fast_dtype

    def share(resize: Callable[[Tensor, Tensor], Tensor], side: int) -> float:
        x = torch.ones(1, 1, side, side, device=order.device, dtype=dtype, requires_grad=True)
        resize(x, torch.empty(64, 64, device=order.device)).float().sum().backward()
        assert x.grad is not None
        return float(x.grad.float().sum()) / 64**2

    def plain(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    found = {f"{n}x{n}": {"ours": share(resize_like, n), "plain": share(plain, n)} for n in (1, 2, 8)}
    shares = ", ".join(f"from {n} {one['ours']:.1%} (plain {one['plain']:.1%})" for n, one in found.items())
    said = f"of the gradient comes back in {str(dtype).removeprefix('torch.')}: {shares}"
    if any(abs(one["ours"] - 1) > 0.01 for one in found.values()):
        raise ValueError(said)
    return found, said


def stop_and_go_on(order: Order) -> tuple[Found, str]:
    """How far a training that was stopped ends from one that was not; and two that were not, from each other.

    A GPU adds in an order of its own, so that two runs of one recipe may differ.

    Raises:
        ValueError: it ends further away than ten times that.
    """
    eyes = {"train": 4, "test": 1, "size": (128, 128), "seed": 0}
    shorter: dict[str, Any] = {"data_options": eyes, "crop": (64, 64), "evaluations": 1, "views": ""}
    recipe = dataclasses.replace(studies.get(WITHOUT_DATA), iterations=2 * training.CHECK_EVERY, **shorter)
    with TemporaryDirectory() as folder:
        ends = []
        for name in ("one", "two", "stopped"):
            while not _trained(recipe, Path(folder, name), order, 0 if name == "stopped" else math.inf):
                pass  # with no minutes, each call goes to the next look at the loss
            ends.append(read_tensors(Path(folder, name, "checkpoint.safetensors"))[0])
    apart, stopped = (_distance(ends[0], other) for other in ends[1:])
    said = f"a stop moves the weights by {stopped:.2g}, and two runs without one differ by {apart:.2g}"
    if not stopped <= 10 * apart:
        raise ValueError(said)
    return {"stopped": stopped, "apart": apart}, said


def _trained(recipe: Recipe, folder: Path, order: Order, minutes: float, progress: bool = False) -> bool:
    """Train on; whether that came to its end."""
    try:
        training.train(recipe, folder, device=order.device, progress=progress, minutes=minutes)
    except training.TimeIsUpError:
        return False
    return True


def _distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest difference of two numbers that have the same place."""
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def training_speed(order: Order) -> tuple[Found, str]:
    """Our loop against the plain one, on the row."""
    found = benchmark(order.row, order.device, order.seconds)
    return dict(found), (
        f"{found['ours']:.2f} steps a second, {found['ratio']:.2f} times the plain loop, "
        f"{found['share']:.0%} of {found['peak_tflops']:.3g} TFLOP a second; all of it would take "
        f"{found['minutes']:.1f} minutes"
    )


def frames(order: Order, net: str) -> tuple[Found, str]:
    """Frames a second of a U²-Net, one at a time: the network alone, and from photograph to map.

    The weights are random, which costs the same. Written as a record.
    """
    drawn: dict[str, Any] = {"dataset": "objects", "protocol": "", "data_options": THINGS, "square": SIDE}
    recipe = dataclasses.replace(published(net), crop=(SIDE, SIDE), **drawn)
    model = laid_out(recipe.build_model().eval().to(order.device))
    alone = {"float32": _rate(model, order)}
    if fast := _fast(order.device):
        with mixed_precision(order.device):
            alone[fast] = _rate(model, order)
    whole = speed(model, recipe)
    record = {
        "frames": net,
        **records.provenance(device_name(order.device)),
        "parameters": parameters(model),
        "size": [SIDE, SIDE],
        "batch": 1,
        "network": records.rounded(alone),
        "speed": whole,
    }
    path = records.write_record(f"{net.replace('_', '-')}-frames", record)
    rates = ", ".join(f"{rate:.2f} a second in {bits}" for bits, rate in alone.items())
    return {"record": str(path)}, f"{rates}; {whole['frames_per_second']:.2f} from photograph to map"


@torch.no_grad()
def _rate(model: nn.Module, order: Order) -> float:
    """Images a second that go through the network one by one."""
    image = torch.rand(1, 3, SIDE, SIDE, device=order.device).contiguous(memory_format=layout(order.device))
    for _ in range(3):  # in the first ones, kernels are chosen
        model(image)
    wait(order.device)
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < order.seconds / 4:
        model(image)
        wait(order.device)
        count += 1
    return count / (time.perf_counter() - started)


def train_row(order: Order) -> tuple[Found, str]:
    """Train the row for the time that is left, or to its end, and test it; written as a record."""
    recipe = order.row
    folder = records.runs_folder() / f"{recipe.name}-seed{recipe.seed}"
    test = _test_seconds(order)
    if order.left <= test:
        return {"done": False}, f"no time left, as its test alone takes about {test:.0f} s; call again"
    _trained(recipe, folder, order, (order.left - test) / 60, progress=True)
    record = measure(folder, order.device, progress=False)
    before = _read().get(device_name(order.device), {}).get(f"row {recipe.name}", {}).get("record")
    path = records.write_record(records.name_of(record), record)
    if before and Path(before) != path:  # of less training
        Path(before).unlink(missing_ok=True)
        records.forget()
    return {"done": "unfinished" not in record, "record": str(path)}, _told(recipe, record)


def _test_seconds(order: Order) -> float:
    """About how long the test of the row takes, with the choice of a threshold on images that trained."""
    recipe, task = order.row, TASKS[order.row.task]
    parts = ("test", "train") if recipe.task == "binary" else ("test",)
    images = sum(len(recipe.examples(part)) for part in parts) * len(task.passes(recipe))
    model = laid_out(recipe.build_model().eval().to(order.device))
    return 15 + 1.5 * images / speed(model, recipe)["frames_per_second"]


def _told(recipe: Recipe, record: records.Record) -> str:
    """Where a row stands, beside what was reported for it."""
    task, reported = TASKS[recipe.task], reported_for(recipe)
    asked = {m: column for m, column in studies.columns_of(recipe).items() if m in reported}
    asked = asked or {task.main: ("image", task.main)}
    scores = ", ".join(
        f"{metric} {task.unit * record['scores'][protocol][score]:.{task.digits}f}"
        + (f" (reported {reported[metric]})" if metric in reported else "")
        for metric, (protocol, score) in asked.items()
    )
    at = record.get("unfinished", recipe.iterations)
    state = f"iteration {at:,} of {recipe.iterations:,}, {record['seconds'] / 60:.1f} minutes of training"
    return f"{state}: {scores}; {record['speed']['frames_per_second']:.2f} images a second tested"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8, help="for all of it (default 8)")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the GPU)")
    parser.add_argument(
        "--row",
        metavar="RECIPE",
        help=f"the row to train (default: {ROW}, or {WITHOUT_DATA} if its data are out of reach)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20, help="for which a speed of training is measured (default 20)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
