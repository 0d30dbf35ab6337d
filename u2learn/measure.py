"""Measuring a trained model: its record, with what it cost and its scores under every protocol."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from u2learn import distributed
from u2learn.costs import image_flops, training_flops
from u2learn.data import local
from u2learn.data.example import read_image
from u2learn.devices import device_name, pick_device
from u2learn.files import checksum
from u2learn.inference import load_model, saliency
from u2learn.metrics.overlap import OverlapScores
from u2learn.models.conv import parameters
from u2learn.models.official import load_official
from u2learn.models.weights import read_tensors
from u2learn.recipe import Recipe
from u2learn.records import Record, provenance, rounded
from u2learn.studies import training_of
from u2learn.tasks import TASKS, Scores, by_protocol, evaluate
from u2learn.training import names_digest, read_log

SPEED_SECONDS = 3.0  # so long the speed of a test is measured


def measure(
    path: str | Path,
    device: str | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    clocked: bool = True,
) -> Record:
    """The record of a run, or of a weights file of ours: its recipe, what it cost, and its scores.

    That of a run which was stopped has its iteration as "unfinished", and is no result (see `is_current`).
    The test runs on `device` (default: the GPU if there is one), as `recipe` says if one is given, which may
    differ from the run's own in the set that is tested (see `studies.training_of`). `clocked` asks for the
    speed of the test, too, which is measured for three seconds.

    Raises:
        ValueError: the recipe asks for another training, the images that trained are not those of the recipe,
            the file holds no recipe, or there is no such device.
    """
    path = Path(path)
    model, trained_by = load_model(path)
    if trained_by is None:
        raise ValueError(f"{path} does not say how it is to be tested: give a recipe (--weights, --recipe).")
    recipe = recipe or trained_by
    if training_of(recipe) != training_of(trained_by):
        raise ValueError(
            f"The run in {path} is one of {trained_by.name}, seed {trained_by.seed}; {recipe.name}, seed "
            f"{recipe.seed}, needs another training."
        )
    here = {"seed": recipe.seed, **provenance(device_name("cpu"))}  # of a file: made elsewhere, tested here
    trained = _training(path, recipe) if path.is_dir() else here
    return {
        "recipe": json.loads(recipe.to_json()),
        **trained,
        "image_flops": image_flops(recipe),
        **_measure_model(model.to(pick_device(device)), recipe, progress, clocked),
        "log": [rounded(line) for line in read_log(path)],
    }


def _training(folder: Path, recipe: Recipe) -> Record:
    """What a record says of the training in a run folder."""
    position = json.loads(read_tensors(folder / "checkpoint.safetensors")[1]["position"])
    given = position.get("given")
    if given and given != names_digest([example.name for example in recipe.examples("train")]):
        raise ValueError(
            f"The run in {folder} was trained on images that were handed to it, and its recipe names "
            f"{recipe.dataset!r}, which are others. Make a data set of yours (u2learn data new) and train on "
            "that, or score the model on your examples with u2learn.tasks.evaluate."
        )
    done = position["iteration"]
    finished = position.get("finished", done == recipe.iterations)
    return {
        "seed": recipe.seed,
        **({} if finished else {"unfinished": done}),
        **provenance(position["device"]),
        "device_kind": position.get("device_kind", "cpu"),
        "seconds": round(position["seconds"], 1),
        "cpu_seconds": round(position["cpu_seconds"], 1),
        "training_memory": position.get("memory"),
        "training_flops": training_flops(recipe, done),
    }


def measure_official(
    path: str | Path, recipe: Recipe, device: str | None = None, progress: bool = True, clocked: bool = True
) -> Record:
    """The record of weights that others trained and published, tested as the recipe says; see `measure`.

    Raises:
        FileNotFoundError, ValueError: see `load_official`.
    """
    device = pick_device(device)
    model = load_official(recipe.build_model(), path).eval()
    return {
        "official": json.loads(recipe.to_json()),
        "weights": _file(path),
        **provenance(device_name(device)),
        **_measure_model(model.to(device), recipe, progress, clocked),
    }


def compare_maps(model: nn.Module, name: str) -> dict[str, tuple[float, float]]:
    """How far our maps are from those that U²-Net's authors published of their demonstration photographs.

    name: whose maps, "u2net" or "u2net_small". Returns the mean and the largest difference of each
    photograph, in grey levels of 255.

    Raises:
        MissingDataset: the photographs and maps are not here; says how to get them.
        ValueError: a photograph without a map, or a map of another size.
    """
    files = local.files("u2net-demo")
    maps = {path.stem: path for path in files[f"maps of {name}"]}
    differences = {}
    for path in files["photographs"]:
        if path.stem not in maps:
            raise ValueError(f"There is no map of {path} among those of {name}.")
        theirs = torch.from_numpy(read_image(maps[path.stem])[0]).float()
        ours = 255 * saliency(model, read_image(path))
        if ours.shape != theirs.shape:
            raise ValueError(f"{maps[path.stem]} and {path} differ in their size.")
        difference = (ours - theirs).abs()
        differences[path.name] = difference.mean().item(), difference.max().item()
    return differences


def measure_maps(path: str | Path, name: str) -> Record:
    """The record of `compare_maps` for the weights in a file of U²-Net's authors. Raises what it raises."""
    differences = compare_maps(load_model(path)[0], name)
    return {
        "maps": name,
        "weights": _file(path),
        **provenance(device_name("cpu")),
        "differences": {
            photograph: rounded({"mean": mean, "largest": largest})
            for photograph, (mean, largest) in differences.items()
        },
    }


def _file(path: str | Path) -> dict[str, str]:
    return {"file": Path(path).name, "sha256": checksum(path)}


def _measure_model(model: nn.Module, recipe: Recipe, progress: bool, clocked: bool) -> Record:
    """What the model costs, and its scores under every protocol, with an interval over the images.

    A threshold is chosen on images that may be looked at, never on those of the test.
    """
    task = TASKS[recipe.task]
    clocked = clocked and distributed.leads()  # of several processes one, and meanwhile the others wait
    cost = {"parameters": parameters(model), **({"speed": speed(model, recipe)} if clocked else {})}
    threshold = task.threshold(model, recipe, progress)
    scores: Scores = {}
    for name, way in task.passes(recipe).items():
        scorer = evaluate(model, way, way.examples("test"), progress, full=True)
        scorer.threshold = threshold
        found = scorer.result()
        scores |= found if name == "image" else {name: found["image"]}
        if name == "image":
            curve, interval = scorer.curve(), scorer.interval()
    return {
        **cost,
        **({} if threshold is None else {"threshold": threshold}),
        "scores": rounded(scores),
        "interval": {task.main: rounded(list(interval))},
        **({"curve": rounded(curve)} if curve else {}),
    }


def speed(model: nn.Module, recipe: Recipe) -> Record:
    """Frames per second of a test as the recipe does it, from photograph to probabilities, one at a time.

    The first test image is segmented again and again for SPEED_SECONDS, after once to warm up.
    """
    image = recipe.examples("test")[0].image
    device = str(next(model.parameters()).device)

    def test() -> Tensor:
        return TASKS[recipe.task].predict(model, image, recipe).cpu()  # fetching it waits for the device

    test()
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < SPEED_SECONDS:
        test()
        count += 1
    return {
        "frames_per_second": round(count / (time.perf_counter() - started), 3),
        "batch": 1,
        "size": list(image.shape[1:]),
        "device": device_name(device),
    }


def measure_second_observer(recipe: Recipe) -> Record:
    """The record of the human row: the second observer scored against the first on the recipe's test images.

    Raises:
        ValueError: the set has no second observer.
    """
    scores = OverlapScores()
    for example in recipe.examples("test"):
        if example.second is None:
            raise ValueError(
                f"{example.name} has no second observer: there is no human row for {recipe.dataset}."
            )
        vessel = torch.as_tensor(example.second).float()
        scores.add(torch.stack([1 - vessel, vessel]), example.label, example.field)
    return {
        "dataset": recipe.dataset,
        "protocol": recipe.protocol,
        **provenance(device_name("cpu")),
        "scores": rounded(by_protocol(scores, 0.5)),
    }
