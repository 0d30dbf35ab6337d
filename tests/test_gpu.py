"""A GPU, as far as a CPU can prove it: everything runs on a stand-in that refuses what was left behind."""

import dataclasses
import json
import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchgen
import yaml
from conftest import cross
from safetensors.torch import load_file
from stand_in import NAME, StandIn, Waits, on_card, tensors_in
from test_cli import ROWS, TINY, photograph, run
from test_cli import tiny as catalogue  # noqa: F401  (a fixture)
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tools import gpu
from u2learn import batches, devices, records, studies, tasks, training
from u2learn.batches import AHEAD, TrainingData
from u2learn.data import augment
from u2learn.data.augment import Augmentation
from u2learn.data.catalogue import Archive
from u2learn.data.example import IGNORE
from u2learn.data.local import MissingDataset
from u2learn.data.published import PUBLISHED, Published
from u2learn.models.conv import resize_like
from u2learn.models.official import to_official
from u2learn.models.weights import read_tensors
from u2learn.recipe import Recipe
from u2learn.training import Run, TimeIsUpError, train

EYES, MORE_EYES = ([cross(seed, bright=140) for seed in seeds] for seeds in (range(3), range(50, 52)))


def with_classes(example):
    """The same picture with three classes, and pixels that do not count."""
    label = example.label.copy()
    label[:6], label[-3:] = 2, IGNORE
    return dataclasses.replace(example, label=label, num_classes=3, ignores=True, second=None)


SCENES, MORE_SCENES = ([with_classes(eye) for eye in eyes] for eyes in (EYES, MORE_EYES))
ALL_KINDS = {"rotate": 10, "max_share": 0.75, "jitter": 0.1}
SMALL = {"model_options": {"width": 4, "depth": 3}, "crop": (32, 32), "batch": 3, "evaluations": 2}
# One for each kind of task; together they have every augmentation, optimiser, normalisation and way to test.
VESSELS = Recipe(
    "vessels",
    "drive",
    "unet_small",
    normalisation="image",
    augmentation=Augmentation((0.8, 1.25), flips="hvt", photometric="mmseg", **ALL_KINDS),
    loss="small",
    optimiser="adamw",
    ema=0.9,
    window=(32, 32),
    stride=(20, 20),
    views="hvt",
    iterations=6,
    **SMALL,
)
CLASSES = Recipe(
    "classes",
    "streets",
    "unet_small",
    num_classes=3,
    augmentation=Augmentation((0.5, 2.0), 0.25, flips="h", photometric="paddleseg", **ALL_KINDS),
    loss="ce-dice",
    small_first=0.5,
    views="h",
    scales=(1.0, 1.5),
    watched="validation",
    keep="best",
    iterations=6,
    **SMALL,
)
OBJECTS = Recipe(
    "objects",
    "ecssd",
    "unet_small",
    num_classes=1,
    square=36,
    normalisation="maximum",
    augmentation=Augmentation(flips="h"),
    loss="bce-iou",
    optimiser="adam",
    iterations=6,
    **SMALL,
)
TRAININGS = {"vessels": (VESSELS, EYES, MORE_EYES), "objects": (OBJECTS, EYES, MORE_EYES)}
TRAININGS["classes"] = (CLASSES, SCENES, MORE_SCENES)


@pytest.fixture(autouse=True)
def in_32_bits(monkeypatch):
    """A CPU that computes in 16 bits gives other numbers, and those of the stand-in are to be compared."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    monkeypatch.setattr(tasks, "RESAMPLES", 20)  # thousands of small sums, which the stand-in watches


def same_files(one, two) -> bool:
    """Bit for bit the same weights, averages and optimiser."""
    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(name, folder, device, **changes):
    recipe, examples, watched = TRAININGS[name]
    return train(dataclasses.replace(recipe, **changes), folder, examples, watched, device, progress=False)


# --- the stand-in itself ------------------------------------------------------------------------------------

REFUSED = {
    "a constant of the CPU": (RuntimeError, lambda x: x + torch.ones(3)),
    "an update from the CPU": (RuntimeError, lambda x: x.add_(torch.ones(3))),
    "a number of the CPU among others": (RuntimeError, lambda x: torch.stack([x.sum(), torch.tensor(1.0)])),
    "indices of the device for the CPU": (RuntimeError, lambda x: torch.ones(3)[x.long()]),
    "a layer of the CPU": (RuntimeError, lambda x: nn.Linear(3, 2)(x)),
    "numpy": (TypeError, lambda x: x.numpy()),
    "numpy without asking": (TypeError, lambda x: np.asarray(x)),
    "the CPU's random numbers": (
        RuntimeError,
        lambda x: torch.rand(3, generator=torch.Generator(), device="cuda"),
    ),
    "the device's for the CPU": (RuntimeError, lambda x: torch.rand(3, generator=torch.Generator("cuda"))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses_is_refused(what):
    error, use = REFUSED[what]
    with StandIn(), pytest.raises(error, match="Stand-in GPU"):
        use(torch.ones(3, device="cuda"))


def test_what_a_gpu_takes_is_taken():
    with StandIn():
        x = torch.ones(3, device="cuda")
        assert x.device == torch.device("cuda", 0) and x.is_cuda and not torch.ones(3).is_cuda
        sums = x + 1, x * torch.tensor(2.0), torch.where(x > 0, x, 5.0), x.double()
        assert all(each.is_cuda for each in (*sums, x[1:], x[torch.tensor([0])]))
        assert not any(each.is_cuda for each in (x.cpu(), x.to("cpu"), torch.ones(3).copy_(x)))
        layer = nn.Conv2d(1, 1, 1).to("cuda")
        layer(x.view(1, 1, 1, 3)).sum().backward()
        assert layer.weight.grad.is_cuda and not layer.cpu().weight.is_cuda


def test_every_wait_is_counted_where_it_happens():
    with StandIn() as card:
        x = torch.ones(3, device="cuda")
        assert x.sum() > 2 and float(x[0]) == 1  # two that ask for one number
        x.tolist(), x.cpu(), x[x > 0], torch.tensor([1.0], device="cuda"), x[torch.tensor([0, 1])]
        F.one_hot(x.long(), 3), torch.where(x > 0, x, 2.0), torch.full((2,), 1.0, device="cuda")  # none
    place = "test_gpu.test_every_wait_is_counted_where_it_happens"
    assert card.waits == {
        f"{place}: _local_scalar_dense": 2,
        f"{place}: tolist": 1,
        f"{place}: cpu, to the CPU": 1,
        f"{place}: index": 1,
        f"{place}: tensor, to the device": 1,
        f"{place}: index, its indices on the CPU": 1,
    }


def test_a_constant_that_was_left_on_the_cpu_is_found(tmp_path, monkeypatch):
    """The stand-in's reason to be: a fault that no run on a CPU shows."""
    monkeypatch.setattr(augment, "_channels", lambda numbers, device: torch.tensor(numbers)[:, None, None])
    trained("classes", tmp_path / "cpu", "cpu")
    with StandIn(), pytest.raises(RuntimeError, match=r"both devices.*\(3, 1, 1\) on cpu"):
        trained("classes", tmp_path / "card", "cuda")


def test_nothing_of_it_is_left_behind():
    before = torch.Generator, torch.autocast, torch.compile, torch.cuda.is_available()
    with pytest.raises(ZeroDivisionError), StandIn():
        assert torch.cuda.is_available() and devices.pick_device(None) == "cuda"
        raise ZeroDivisionError
    assert (torch.Generator, torch.autocast, torch.compile, torch.cuda.is_available()) == before
    assert torch.ones(3).device.type == "cpu"


# --- training -----------------------------------------------------------------------------------------------


class Used(TorchDispatchMode):
    """Notes the kernels that work on the stand-in, and the places where one gives numbers of 64 bits."""

    def __init__(self):
        super().__init__()
        self.kernels, self.double = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(map(on_card, tensors_in(args, kwargs))):
            self.kernels.add(func.name().removeprefix("aten::"))
            if any(x.dtype == torch.float64 for x in tensors_in(out)):
                self.double.add(Waits.place())
        return out


@cache
def kernels_of(device: str) -> set[str]:
    """The operations that PyTorch has a kernel for there, or makes of others, as its own list says."""
    listed = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    functions = yaml.load(listed.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = {entry["func"].partition("(")[0]: entry for entry in functions}
    here = set()
    for name, entry in entries.items():
        dispatch = entries[entry.get("structured_delegate", name)].get("dispatch")
        if dispatch is None or any(device in key or "Composite" in key for key in dispatch):
            here.add(name)
    return here


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_that_of_the_cpu(name, tmp_path):
    """Batches, augmentation, loss, steps, running mean, evaluation, checkpoint: the same bits.

    And nothing of it is what Apple's GPU lacks: kernels of some operations, and numbers of 64 bits, but for
    one place that asks which GPU it is.
    """
    trained(name, tmp_path / "cpu", "cpu")
    with StandIn(), Used() as used:
        model = trained(name, tmp_path / "card", "cuda")
        assert next(model.parameters()).is_cuda
    assert same_files(tmp_path / "cpu", tmp_path / "card")
    logs = [(tmp_path / device / "log.jsonl").read_text() for device in ("cpu", "card")]
    assert logs[0] == logs[1] and "loss" in logs[0]
    assert len(used.kernels) > 60 and used.kernels - kernels_of("MPS") == set()
    assert used.double == {"augment.sample_batch"}


def test_a_run_goes_on_on_another_device(tmp_path, monkeypatch):
    """From the CPU to the GPU and back: where one does not change the arithmetic, it changes nothing."""
    trained("vessels", tmp_path / "whole", "cpu")
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    with pytest.raises(TimeIsUpError):
        stopped("cpu", tmp_path / "moved")
    with StandIn(), pytest.raises(TimeIsUpError):
        stopped("cuda", tmp_path / "moved")
    trained("vessels", tmp_path / "moved", "cpu")
    assert same_files(tmp_path / "whole", tmp_path / "moved")


def stopped(device, folder, recipe=VESSELS):
    """As far as it comes in no time: to the next look at the loss."""
    train(recipe, folder, EYES, MORE_EYES, device, progress=False, minutes=0)


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float16])
def test_a_run_of_32_bits_goes_on_in_16(tmp_path, monkeypatch, fast):
    """As from a CPU to a T4, which scales its losses: the scaler begins anew, and goes on where it was."""
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    recipe = dataclasses.replace(VESSELS, augmentation=Augmentation(), ema=0.0)
    with pytest.raises(TimeIsUpError):
        stopped("cpu", tmp_path, recipe)
    for scale in (65536.0, 1024.0):
        with StandIn(fast):
            data, run = TrainingData(recipe, EYES, "cuda"), Run(recipe, tmp_path, "cuda")
            assert run.iteration == 2 and run.scaler.is_enabled() == (fast == torch.float16)
            assert run.scaler.get_scale() == (scale if fast == torch.float16 else 1)
            kernel = next(run.model.parameters())
            before = kernel.detach().clone()
            run.step(*data.batch(2))
            assert kernel.is_cuda and kernel.dtype == torch.float32 and not torch.equal(kernel, before)
            run.iteration = 2
            if fast == torch.float16:
                run.scaler.update(1024.0)
            run.save()


def test_what_an_optimiser_keeps_lies_in_memory_as_its_weights(tmp_path, monkeypatch):
    """Also after a resume: a GPU updates many tensors in one go where all of them are in the same order."""
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    with pytest.raises(TimeIsUpError):
        stopped("cpu", tmp_path)
    again = Run(VESSELS, tmp_path, "cpu")
    orders = [
        (weight.stride(), kept.stride())
        for weight, state in again.optimiser.state.items()
        for kept in state.values()
        if kept.ndim == 4 and weight.shape[1] > 1
    ]
    assert orders and all(one == two for one, two in orders)


def test_a_gpu_hears_of_a_wrong_class_before_it_trains():
    """There it would be an assertion of the device, which names neither picture nor class."""
    TrainingData(CLASSES, SCENES, "cpu")
    with pytest.raises(ValueError, match=r"cross-0 has class 2.*2 classes, 0 to 1.*num_classes"):
        TrainingData(VESSELS, SCENES, "cpu")


# --- waits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_waits_for_nothing(name, tmp_path):
    """Batch and step are asked for without a look at a result, so that a GPU is never idle."""
    recipe, examples, _ = TRAININGS[name]
    with StandIn() as card:
        data, run = TrainingData(recipe, examples, "cuda"), Run(recipe, tmp_path, "cuda")
        card.waits.clear()
        losses = [run.step(*data.batch(iteration)) for iteration in range(3)]
        assert card.waits == {"batches._indices: to, to the device": 1}, "once for a hundred batches"
        card.waits.clear()
        data.batch(AHEAD - 1)
        assert card.waits == {}
        run.refuse_divergence(torch.stack(losses).tolist())
    assert card.waits == {
        "test_gpu.test_a_step_waits_for_nothing: tolist": 1,
        "training.refuse_divergence: _local_scalar_dense": 1,
    }


def test_a_set_that_is_too_large_for_a_gpu_stays_on_the_host(monkeypatch):
    """The images of a batch are copied, pinned as they are, and the windows are those of a set that fits."""
    pinned, empty = [], torch.empty

    def noted(*size, pin_memory=False, **kind):
        pinned.append(pin_memory)
        return empty(*size, **kind)

    recipe, examples, _ = TRAININGS["vessels"]
    with StandIn():
        fits = TrainingData(recipe, examples, "cuda")
        monkeypatch.setattr(batches, "free_memory", lambda device: 1000)
        monkeypatch.setattr(torch, "empty", noted)
        data = TrainingData(recipe, examples, "cuda")
        assert any(pinned) and data.images.apart and data.images.values.device.type == "cpu"
        for iteration in (0, 5):
            for ours, due in zip(data.batch(iteration), fits.batch(iteration), strict=True):
                assert ours.device == due.device and torch.equal(ours.cpu(), due.cpu())


def test_the_images_chosen_ahead_are_an_endless_stream_of_epochs():
    data = TrainingData(OBJECTS, [cross(seed) for seed in range(7)], "cpu")  # epochs of 7 in batches of 3
    stream = torch.cat([data._indices(iteration) for iteration in range(3 * AHEAD)])
    epochs = stream[: len(stream) // 7 * 7].view(-1, 7)
    assert (epochs.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 50
    assert torch.equal(data._indices(1), stream[3:6]), "of any iteration, in any order"


# --- tests, commands ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("catalogue")
def test_commands_give_on_it_what_they_give_on_the_cpu(tmp_path, capsys):
    """train, evaluate with a record, predict and benchmark, each with --device."""
    records, pictures = {}, [photograph(tmp_path / f"{i}.png", seed=i) for i in range(2)]
    for device in ("cpu", "cuda"):
        with StandIn() if device == "cuda" else nullcontext():
            run("train", TINY.name, "--folder", device, "--device", device)
            run("evaluate", device, "--device", device, "--record")
            run("predict", *pictures, "--weights", device, "--device", device, "--output", f"{device}-maps")
        records[device] = json.loads((tmp_path / "results" / "tiny-small-seed0.json").read_text())
    assert records["cuda"]["scores"] == records["cpu"]["scores"]
    assert records["cuda"]["device"] == records["cuda"]["speed"]["device"] == NAME
    assert records["cuda"]["device_kind"] == "cuda" and records["cpu"]["device_kind"] == "cpu"
    made = sorted(path.name for path in (tmp_path / "cpu-maps").iterdir())
    assert len(made) == 4
    for name in made:
        assert (tmp_path / "cpu-maps" / name).read_bytes() == (tmp_path / "cuda-maps" / name).read_bytes()
    capsys.readouterr()
    with StandIn():
        run("benchmark", TINY.name, "--seconds", 0.1, "--device", "cuda")
    assert f"{TINY.name} on {NAME}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("catalogue")
def test_published_weights_are_tested_on_it(tmp_path, monkeypatch, capsys):
    recipe = Recipe(
        "ecssd-u2net-small",
        "ecssd",
        "u2net_small",
        num_classes=1,
        square=32,
        normalisation="maximum",
        crop=(32, 32),
        row=ROWS["ecssd-u2net-small"],
    )
    monkeypatch.setattr(studies, "all_recipes", lambda: {recipe.name: recipe})
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "data"))
    torch.save(to_official(recipe.build_model()), tmp_path / "net.pth")
    offered = Published(recipe.name, "https://example.org", Archive(((tmp_path / "net.pth").as_uri(),)))
    monkeypatch.setitem(PUBLISHED, "u2net_small", offered)
    found = {}
    for device in ("cpu", "cuda"):
        with StandIn() if device == "cuda" else nullcontext():
            run("evaluate", "--weights", "official", "--recipe", recipe.name, "--record", "--device", device)
        assert "maxF          reported 0.943, here " in capsys.readouterr().out
        found[device] = json.loads((tmp_path / "results" / f"{recipe.name}-official.json").read_text())
    assert found["cuda"]["scores"] == found["cpu"]["scores"] and found["cuda"]["device"] == NAME


# --- what is for GPUs alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda:", "cuda:1", "cuda:x", "cpu:"])
def test_a_device_without_its_number_is_no_device(name):
    with StandIn():
        assert devices.pick_device("cuda:0") == "cuda:0"
        with pytest.raises(ValueError, match=f"no device '{name}'.*'cuda', 'cpu'"):
            devices.pick_device(name)


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float16])
def test_maps_of_16_bits_are_resized_in_32_on_a_gpu(monkeypatch, fast):
    """Where its backward pass adds up 4,096 ones in the map's type, it stops at 256 in bfloat16."""
    seen, interpolate = [], F.interpolate

    def noted(x, **rest):
        seen.append(x.dtype)
        return interpolate(x, **rest)

    monkeypatch.setattr(F, "interpolate", noted)
    with StandIn(fast):
        x = torch.ones(1, 1, 1, 1, device="cuda", dtype=fast, requires_grad=True)
        larger = resize_like(x, torch.ones(64, 64))
        larger.sum().backward()
    assert set(seen) == {torch.float32} and larger.dtype == x.grad.dtype == fast and float(x.grad) == 4096


@pytest.mark.parametrize(("kind", "last"), [("cpu", True), ("mps", False)])
def test_maps_lie_channel_by_channel_on_apples_gpu(tmp_path, monkeypatch, kind, last):
    """PyTorch's issue 175189: with channels last, the gradients of a batch norm are wrong there."""
    monkeypatch.setattr(devices, "kind_of", lambda device: kind)
    run, seen = Run(VESSELS, tmp_path, "cpu"), []
    for module in run.model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Conv2d)):
            module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    run.step(*TrainingData(VESSELS, EYES, "cpu").batch(0))
    kernels = [p for p in run.model.parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert len(seen) > 10 and all(x.is_contiguous() != last for x in (*seen, *kernels))


def test_training_memory_is_that_of_this_training(tmp_path, monkeypatch):
    """Neither that of an earlier run in this process, nor that of a test on whole images."""
    held = {"peak": 5_000}
    evaluate = training.evaluate

    def costly(*arguments):
        held["peak"] = max(held["peak"], 9_000)
        return evaluate(*arguments)

    def step(run, *batch):
        held["peak"] = max(held["peak"], 70)
        return plain_step(run, *batch)

    plain_step = Run.step
    monkeypatch.setattr(training, "evaluate", costly)
    monkeypatch.setattr(Run, "step", step)
    with StandIn():
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["peak"])
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update(peak=10))
        trained("vessels", tmp_path, "cuda")
        monkeypatch.undo()
    position = json.loads(read_tensors(tmp_path / "checkpoint.safetensors")[1]["position"])
    assert position["memory"] == 70


@pytest.mark.slow
def test_the_tenth_model_of_a_process_is_compiled_too(monkeypatch):
    """The compiler keeps eight graphs of a piece of code, and then goes on without compiling, silently."""
    graphs, compiler = [], torch.compile

    def captured(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **how: compiler(model, backend=captured))
    long = dataclasses.replace(VESSELS, iterations=devices.COMPILE_FROM)

    class Wide(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(2, width)

        def forward(self, x):
            return self.layer(x)

    for width in range(1, 11):
        devices.compiled(Wide(width), long, "cuda")(torch.ones(2))
    assert len(graphs) == 10


# --- make gpu -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_gpu(catalogue, monkeypatch):  # noqa: F811
    """What `make gpu` does, with a row of seconds and a small net on small pictures."""
    row = dataclasses.replace(TINY, iterations=6)
    monkeypatch.setattr(studies, "all_recipes", lambda: {row.name: row})
    for name, value in {
        "ROW": row.name,
        "WITHOUT_DATA": row.name,
        "NETS": ("u2net_small",),
        "SIDE": 32,
    }.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(training, "CHECK_EVERY", 3)
    monkeypatch.setattr(gpu, "_test_seconds", lambda order: 0.0)
    return catalogue


def on_the_stand_in(*options) -> int:
    with StandIn():
        return gpu.main(["--device", "cuda", "--seconds", "0.1", *options])


def found() -> dict:
    return json.loads(gpu._path().read_text(encoding="utf-8"))[NAME]


@pytest.mark.slow
def test_make_gpu_keeps_what_it_found_and_goes_on(small_gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_test_seconds", lambda order: order.left - 0.02)
    assert on_the_stand_in() == 0
    said = capsys.readouterr().out.splitlines()
    steps = [
        "versions",
        "resize in 16 bits",
        "stop and go on",
        "speed of tiny-small",
        "frames of u2net_small",
    ]
    assert [line.partition(":")[0] for line in said[:-1]] == [*steps, "row tiny-small"] == [*found()]
    assert all(re.search(r"\(\d+\.\d s\)$", line) for line in said[:-1])
    assert said[2].startswith("stop and go on: a stop moves the weights by 0, and two runs without one")
    assert "iteration 3 of 6" in said[5] and "dice " in said[5]
    written = {path.name: json.loads(path.read_text()) for path in (small_gpu / "results").iterdir()}
    assert set(written) == {"u2net-small-frames.json", "tiny-small-seed0-at-3.json"}
    assert all(record["device"] == record["speed"]["device"] == NAME for record in written.values())
    assert written["u2net-small-frames.json"]["network"]["float32"] > 0

    monkeypatch.setattr(gpu, "_test_seconds", lambda order: 0.0)
    times = {step: one["seconds"] for step, one in found().items()}
    assert on_the_stand_in() == 0
    said = capsys.readouterr().out.splitlines()
    assert all(line.endswith("(done before)") for line in said[:5]) and "iteration 6 of 6" in said[5]
    assert all(found()[step]["seconds"] == times[step] for step in steps)
    names = {path.name for path in (small_gpu / "results").iterdir()}
    assert names == {"u2net-small-frames.json", "tiny-small-seed0.json"}, "no record of less training is left"
    record = records.records()["tiny-small-seed0"]
    assert record["device_kind"] == "cuda" and records.is_current(record)


def test_a_step_of_make_gpu_that_fails_stops_no_other(small_gpu, monkeypatch, capsys):
    for step in ("stop_and_go_on", "training_speed", "train_row"):
        monkeypatch.setattr(gpu, step, lambda order, step=step: ({}, f"{step} is fine"))
    with monkeypatch.context() as broken:
        broken.setattr(gpu, "resize_like", lambda x, like: F.interpolate(x.detach() * x / 2, like.shape))
        assert on_the_stand_in() == 1
    said = capsys.readouterr().out
    assert re.search(r"^resize in 16 bits: FAILED: ValueError.*from 1x1 50.0% \(plain 100.0%\)", said, re.M)
    assert "train_row is fine" in said and "Traceback" in found()["resize in 16 bits"]["failed"]
    assert on_the_stand_in() == 0, "it is tried again"
    assert "failed" not in found()["resize in 16 bits"] and "train_row is fine" in capsys.readouterr().out
    assert on_the_stand_in("--minutes", "0") == 0


def test_make_gpu_without_time_says_so(small_gpu, monkeypatch, capsys):
    assert on_the_stand_in("--minutes", "0") == 0
    assert capsys.readouterr().out.count("no time left; call again") == 6
    monkeypatch.setattr(gpu, "_test_seconds", lambda order: order.left + 1)
    for step in ("resize_in_16_bits", "stop_and_go_on", "training_speed", "frames"):
        monkeypatch.setattr(gpu, step, lambda order, **net: ({}, "fine"))
    assert on_the_stand_in() == 0
    assert re.search(
        r"row tiny-small: no time left, as its test alone .* call again", capsys.readouterr().out
    )
    assert not (small_gpu / "runs" / "tiny-small-seed0").exists() and not found()["row tiny-small"]["done"]


def test_make_gpu_without_a_gpu_is_a_sentence(small_gpu, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["cpu"])
    with pytest.raises(SystemExit, match=r"^There is no GPU here.*Colab.*--device cpu.*\.$") as stop:
        gpu.main([])
    assert "\n" not in stop.value.code


def test_make_gpu_without_data_takes_drawn_ones(small_gpu, monkeypatch, capsys):
    def missing(*_, **__):
        raise MissingDataset("It is not here.")

    def unreachable(*_, **__):
        raise ConnectionError("There is no network.")

    monkeypatch.setattr(Recipe, "examples", missing)
    monkeypatch.setattr(gpu, "fetch", unreachable)
    monkeypatch.setattr(gpu, "WITHOUT_DATA", TINY.name)
    assert gpu._row(None).name == TINY.name
    assert re.search(f"The row is {TINY.name}.*There is no network", capsys.readouterr().out)
    with pytest.raises(SystemExit, match="It is not here"):
        gpu._row(TINY.name)
