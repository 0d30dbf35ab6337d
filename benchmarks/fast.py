"""What a map of both U²-Nets costs in many ways of computing it, as shares of the published way.

    python -m benchmarks.fast --record

As published: PyTorch as it comes, in 32 bits, channel by channel, and all maps are kept for a gradient that
nobody asks for. In each round all ways take turns; a number of threads has a process of its own, and so has
each measurement of memory. With real photographs and the authors' weights (ECSSD, U2LEARN_DATA) the network
in 8 bits is scored, too.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn import records, studies, tasks, u2net, u2net_small
from u2learn.arrays import Array, tensor_of
from u2learn.benchmark import in_turns, matmul_peak, shares
from u2learn.costs import Operations
from u2learn.data.augment import normalise, read_points
from u2learn.devices import device_name, forget_peak, kind_of, mixed_precision, peak_memory, pick_device
from u2learn.inference import load_model
from u2learn.models import fast as quick
from u2learn.models import int8 as eight
from u2learn.models.fast import fast, fold
from u2learn.models.u2net import U2Net

NETS: dict[str, Callable[[], U2Net]] = {"u2net_small": u2net_small, "u2net": u2net}
SIDE = 320
BASE = "as published"
Way = Callable[[Tensor], Tensor]  # from an image (1, 3, H, W) to logits (1, 1, H, W)


def trained(name: str) -> U2Net:
    """A net whose norms have statistics and weights as after a training: a fast way must respect them."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        state = dict(norm.named_buffers()) | {k: p.data for k, p in norm.named_parameters()}
        state["running_mean"].normal_(0, 0.1)
        state["running_var"].uniform_(0.5, 1.5)
        state["weight"].uniform_(0.5, 1.5)
        state["bias"].normal_(0, 0.1)
    fuse, logits = model.fuse, model(image_of(64))[0].detach()
    assert isinstance(fuse, nn.Conv2d) and fuse.bias is not None
    fuse.weight.data /= logits.std() / 3  # a map from dark to bright, on which a difference shows
    fuse.bias.data -= logits.mean()
    return model


def image_of(side: int = SIDE) -> Tensor:
    """Smooth noise (1, 3, side, side), in the range of a normalised photograph."""
    noise = torch.randn(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=(side, side), mode="bilinear")


def quiet(model: nn.Module, layout: torch.memory_format, precision: Any = None) -> Way:
    """The way of a model that keeps nothing for a gradient."""
    model = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]  # torch forgot to say so

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode(), precision or nullcontext():
            image = image.contiguous(memory_format=layout)
            return model(image)[0].float().cpu()  # which waits for the device

    return run


def all_products(model: nn.Module) -> Way:
    """As `fast`, but no block makes fewer products."""
    usual, quick.WIDE = quick.WIDE, sys.maxsize
    try:
        return quiet(fast(model), torch.channels_last)
    finally:
        quick.WIDE = usual


def in_8_bits(model: U2Net, image: Tensor) -> Way:
    return quiet(eight.int8(model, image), torch.channels_last)


def by_onnxruntime(model: nn.Module, image: Tensor) -> Way:
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        # The older exporter writes the same graph, of one size, in a fifth of the time.
        torch.onnx.export(model, (image,), path, dynamo=False, verbose=False, input_names=["image"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def compiled(model: nn.Module, image: Tensor) -> Way:
    torch.compiler.reset()
    mode = "reduce-overhead" if image.is_cuda else "default"
    net = fold(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot to say so
    graph = torch.compile(net, mode=mode)

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return graph(image.contiguous(memory_format=torch.channels_last))[0].cpu()

    return run


# What makes each way from a model and an image (of one size, where the way is for one size).
MAKE: dict[str, Callable[[U2Net, Tensor], Way]] = {
    BASE: lambda model, _: lambda image: model(image)[0].detach().cpu(),
    "no gradient": lambda model, _: quiet(model, torch.contiguous_format),
    "norms folded": lambda model, _: quiet(fold(model), torch.contiguous_format),
    "channels last": lambda model, _: quiet(model, torch.channels_last),
    "both": lambda model, _: quiet(fold(model), torch.channels_last),
    "one call a block": lambda model, _: all_products(model),
    "fast": lambda model, _: quiet(fast(model), torch.channels_last),
    "fast, 16 bits": lambda model, image: quiet(
        fast(model), torch.channels_last, mixed_precision(image.device.type)
    ),
    "8 bits": in_8_bits,
    "onnxruntime": by_onnxruntime,
    "compiled": compiled,
}


def possible(device: str, compile_too: bool) -> list[str]:
    """The ways that this device and what is installed allow."""
    on_cpu = kind_of(device) == "cpu"
    allowed = {
        "fast, 16 bits": mixed_precision(device)._enabled,
        "8 bits": on_cpu and hasattr(torch.ops.onednn, "qconv2d_pointwise"),
        "onnxruntime": on_cpu and importlib.util.find_spec("onnxruntime") is not None,
        "compiled": compile_too or not on_cpu,
    }
    return [way for way in MAKE if allowed.get(way, True)]


def brief(value: float) -> float:
    """Four digits, which is more than a time has."""
    return float(f"{value:.4g}")


def timed(device: str, threads: int, rounds: int, compile_too: bool = False) -> dict[str, Any]:
    """Of each net and way: seconds, share of the published way, and how far its map is away.

    Also the operations a second that this device reaches in a product of large matrices.
    """
    torch.set_num_threads(threads)
    found: dict[str, Any] = {"peak": brief(matmul_peak(device, torch.float32))}
    for name in NETS:
        model, image = trained(name).to(device), image_of().to(device)
        made = {way: MAKE[way](model, image) for way in possible(device, compile_too)}
        maps = {way: run(image).sigmoid() for way, run in made.items()}
        times = in_turns({way: partial(run, image) for way, run in made.items()}, rounds)
        parts = shares(times, BASE)
        found[name] = {
            way: {
                "seconds": brief(statistics.median(times[way])),
                "share": brief(parts[way][0]),
                "spread": [brief(part) for part in parts[way][1:]],
                "away": brief((maps[way] - maps[BASE]).abs().max().item()),
            }
            for way in made
        }
    return found


def operations(name: str) -> int:
    """The operations of one map; 2 a multiply-add."""
    with torch.device("meta"), Operations() as one, torch.no_grad():
        NETS[name]()(torch.zeros(1, 3, SIDE, SIDE))
    return one.total


def memory(name: str, way: str, device: str) -> int | None:
    """The bytes that one map takes beside the net and all that is loaded; None where they cannot be told."""
    torch.set_num_threads(1)
    model, small = trained(name).to(device), image_of(64).to(device)
    run = MAKE[way](model, small)
    run(small)
    if kind_of(device) != "cpu":
        forget_peak(device)
        before = torch.cuda.memory_allocated() if kind_of(device) == "cuda" else 0
        run(image_of().to(device))
        peak = peak_memory(device)
        return None if peak is None else peak - before
    try:
        import resource
    except ImportError:  # on Windows
        return None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(image_of())
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


# --- the quality of 8 bits ----------------------------------------------------------------------------------

OBSERVED, SCORED = range(0, 960, 60), range(5, 1000, 10)  # of ECSSD's photographs: 16, and 100 others


def quality(weights: Path) -> dict[str, Any]:
    """U²-Net† on a hundred photographs of ECSSD: in float, and in 8 bits with all of the repair or a part.

    Of each way the scores; of 8 bits also how far the mean of each convolution's map drifts, on some of the
    images, and how uneven the kernels are; both in the order of the network.

    Raises:
        MissingDataset: ECSSD is not here; says how to get it.
    """
    recipe = studies.get("ecssd-u2net-small")
    examples, model = recipe.examples("test"), load_model(weights)[0]
    assert isinstance(model, U2Net)
    squeezed = torch.cat([prepared(examples[i].image) for i in OBSERVED])
    others = torch.cat([prepared(examples[i].image) for i in SCORED[::12]])
    exact = eight.observe(model, others)
    nets = {
        "float": fast(model),
        "8 bits, biases as they were": eight.IntU2Net(model, eight.observe(model, squeezed)).eval(),
        "8 bits, top of a map its maximum": with_constant("BEYOND", 0.0, model, squeezed),
        "8 bits, one round": with_constant("ROUNDS", 1, model, squeezed),
        "8 bits": eight.int8(model, squeezed),
    }
    chosen, scores, drifts = [examples[i] for i in SCORED], {}, {}
    for way, net in nets.items():
        found = tasks.evaluate(net, recipe, chosen).result()["image"]
        scores[way] = {key: brief(found[key]) for key in ("max_f", "mae")}
        if isinstance(net, eight.IntU2Net):
            drifts[way] = drift(net, eight.IntU2Net(model, exact), others)
    return {"scores": scores, "drift": drifts, "uneven": uneven(nets["8 bits"])}


def uneven(net: nn.Module) -> list[float]:
    """The largest number of a kernel by the mean of all, in their sizes; of each convolution the median."""
    kernels = [m.weight.float().abs() for m in net.modules() if isinstance(m, eight.IntConv)]
    return [brief(float((k.amax((1, 2, 3)) / k.mean((1, 2, 3))).median())) for k in kernels]


def with_constant(name: str, value: float, model: U2Net, images: Tensor) -> nn.Module:
    """The network in 8 bits with another constant of the module."""
    usual = getattr(eight, name)
    setattr(eight, name, value)
    try:
        return eight.int8(model, images)
    finally:
        setattr(eight, name, usual)


def drift(net: nn.Module, exact: nn.Module, images: Tensor) -> list[float]:
    """How far the mean of each convolution's map is from the exact one, as a share of that."""
    due = [m.mean for m in exact.modules() if isinstance(m, eight.IntConv)]
    found: list[float] = []

    def look(conv: nn.Module, _: object, maps: Tensor) -> None:
        assert isinstance(conv, eight.IntConv)
        mean = conv.scale_out * maps.float().mean()
        found.append(brief(float(mean / due[len(found)].mean().clamp(min=1e-9) - 1)))

    hooks = [m.register_forward_hook(look) for m in net.modules() if isinstance(m, eight.IntConv)]
    with torch.inference_mode():
        net(images)
    for hook in hooks:
        hook.remove()
    return found


def prepared(image: Array) -> Tensor:
    """A photograph (3, H, W) as the net sees it: (1, 3, SIDE, SIDE)."""
    return normalise(read_points(tensor_of(image)[None] / 255, (SIDE, SIDE)), "maximum")


# --- the command --------------------------------------------------------------------------------------------


def all_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Threads, net, and its ways."""
    for threads, part in found["timed"].items():
        yield from ((threads, name, rows) for name, rows in part.items() if name != "peak")


def goals(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What was aimed at, what is allowed at most, and what came out."""
    lines = []
    for threads, name, rows in all_rows(found):
        which = f"{name}, {threads} thread(s)" if found["kind"] == "cpu" else name
        lines.append((f"fast, share of the time, {which}", 0.58, rows["fast"]["share"]))
        lines.append((f"fast, furthest pixel, {which}", 1e-3, rows["fast"]["away"]))
        if "8 bits" in rows:
            lines.append((f"8 bits, share of the time, {which}", 0.25, rows["8 bits"]["share"]))
    for name, rows in found["memory"].items():
        if rows[BASE] and rows["fast"]:
            lines.append((f"fast, share of the memory, {name}", 0.45, rows["fast"] / rows[BASE]))
    if "quality" in found:
        scores = found["quality"]["scores"]
        lost = scores["float"]["max_f"] - scores["8 bits"]["max_f"]
        lines.append(("8 bits, what max F loses on 100 photographs", 0.005, lost))
    return lines


def table(found: dict[str, Any]) -> str:
    """The goals, and below them every way."""
    lines = [f"{'':58}{'at most':>9}{'found':>9}"]
    lines += [
        f"{what:58}{most:9g}{value:9.2g}{'' if value <= most else '  missed'}"
        for what, most, value in goals(found)
    ]
    for threads, name, rows in all_rows(found):
        floor = found["operations"][name] / found["timed"][threads]["peak"]
        lines += ["", f"{name}, {found['device']}, threads: {threads}"]
        lines.append(f"its arithmetic alone, in a product of matrices: {floor:.3f} seconds")
        lines.append(f"{'way':16}{'seconds':>9}{'share':>8}{'from':>7}{'to':>7}{'furthest pixel':>17}")
        lines += [
            f"{way:16}{row['seconds']:9.3f}{row['share']:8.2f}{row['spread'][0]:7.2f}{row['spread'][1]:7.2f}"
            f"{row['away']:17.1e}"
            for way, row in rows.items()
        ]
    for name, rows in found["memory"].items():
        told = ", ".join(f"{way} {held / 1e6:.0f} MB" for way, held in rows.items() if held is not None)
        lines += ["", f"Memory of one map, {name}: {told or 'cannot be told here'}"]
    for way, scores in found.get("quality", {"scores": {}})["scores"].items():
        lines.append(f"{way:34} max F {scores['max_f']:.4f}, MAE {scores['mae']:.4f}")
    return "\n".join(lines)


def in_own_process(*arguments: str, threads: int = 1) -> Any:
    """What this module finds when it is called with `--part` and these arguments."""
    command = [sys.executable, "-m", "benchmarks.fast", "--part", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env).stdout)


def measured(
    device: str, threads: list[int], rounds: int, weights: Path | None, compile_too: bool
) -> dict[str, Any]:
    """All of it."""
    also = ["compiled"] if compile_too else []
    on_cpu = kind_of(device) == "cpu"
    found: dict[str, Any] = {
        "kind": kind_of(device),
        "timed": {
            str(n): in_own_process("timed", device, str(n), str(rounds), *also, threads=n)
            for n in (threads if on_cpu else [1])
        },
        "operations": {name: operations(name) for name in NETS},
        "memory": {
            name: {way: in_own_process("memory", name, way, device) for way in (BASE, "no gradient", "fast")}
            for name in NETS
        },
    }
    if weights:
        found["quality"] = quality(weights)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cpu or cuda (default: the GPU if there is one)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of a CPU (default 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="all ways so often (default 5)")
    parser.add_argument("--weights", type=Path, help="the authors' U²-Net†, to score it in 8 bits on ECSSD")
    parser.add_argument("--compiled", action="store_true", help="torch.compile on a CPU, too: takes minutes")
    parser.add_argument("--record", action="store_true", help="also write the record into results/")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        part, *rest = options.part
        if part == "timed":
            print(json.dumps(timed(rest[0], int(rest[1]), int(rest[2]), compile_too="compiled" in rest)))
        else:
            print(json.dumps(memory(*rest)))
        return
    device, load = pick_device(options.device), round(os.getloadavg()[0], 2)
    name = device_name(device) if kind_of(device) != "cpu" else "CPU"
    parts = measured(device, options.threads, options.rounds, options.weights, options.compiled)
    found = {"device": name, **parts}
    print(table(found))
    if options.record:
        record = {"ways": SIDE, **records.provenance(name), "load": load, **found}
        print(f"Written: {records.write_record(f'fast-{kind_of(device)}', record)}")


if __name__ == "__main__":
    main()
