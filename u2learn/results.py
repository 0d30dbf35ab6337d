"""Results: one small JSON file a run, and the tables that are made from them. No number is typed by hand."""

import csv
import dataclasses
import functools
import hashlib
import json
import math
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import u2learn
from u2learn import recipes
from u2learn.data import local
from u2learn.data.example import read_image
from u2learn.data.saliency import TESTS
from u2learn.files import write_text
from u2learn.inference import evaluate, load_model, saliency, score_maps, segment
from u2learn.metrics.overlap import THRESHOLDS, OverlapScores
from u2learn.metrics.saliency import SaliencyScores
from u2learn.models.official import load_official
from u2learn.models.weights import read_tensors
from u2learn.recipes import LOSSES, Recipe
from u2learn.training import device_name, pick_device, read_log

# Whose rule turns a prediction into a score: (region, pooling, where the threshold comes from).
PROTOCOLS = {
    "image": ("image", "total", 0.5),  # OpenMMLab's tables
    "field": ("field", "total", 0.5),
    "field, chosen threshold": ("field", "total", "train"),  # lwnet's and bob.ip.binseg's
    "image, mean of images": ("image", "image", 0.5),
    "field, mean of images": ("field", "image", 0.5),
}
SETS = {"drive": "DRIVE", "stare": "STARE", "chase": "CHASE_DB1", "hrf": "HRF"}
# The same for many classes, where protocols differ in how the picture goes in: the Cityscapes tables, with
# OpenMMLab's scales.
STREET_PROTOCOLS = {
    "image": {},
    "flip": {"flips": "h"},
    "ms+flip": {"flips": "h", "scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)},
}
# The same for saliency, where they differ in what is done to a map before it is scored. HCE takes minutes and
# is asked of thin things only.
SALIENCY_PROTOCOLS = {
    "image": {"normalise": "maximum", "also": ("weighted_f", "relaxed_f")},  # the U²-Net paper's tables
    "DIS": {"normalise": "range", "also": ("weighted_f", "hce")},  # the DIS paper's
}
# The words of the reported tables: sets and losses by the recipe's own, heads by a part of its name, and for
# each column the protocol and the score that it holds.
REPORTED_SETS = SETS | {"cityscapes": "Cityscapes"} | {name: name.upper() for name in TESTS}
REPORTED_SETS["duts"] = "DUTS-TE"
REPORTED_MODELS = {"u2net": "U2-Net", "u2net_small": "U2-Net-dagger"}
REPORTED_HEADS = {"fcn": "FCN", "psp": "PSPNet", "deeplabv3": "DeepLabV3", "paddle": "3x3 conv"}
REPORTED_LOSSES = {"ce": "CE", "ce-dice": "CE(1.0)+Dice(3.0)", "paddle-ce": "CE", "paddle-dice": "Dice"}
REPORTED_COLUMNS = {
    "Dice": ("image", "dice"),
    "mDice": ("image", "mdice"),
    "DICE": ("image", "mdice"),
    "AUC ROC": ("image", "auc"),
    "mIoU": ("image", "miou"),
    "mIoU(flip)": ("flip", "miou"),
    "mIoU(ms+flip)": ("ms+flip", "miou"),
    "maxF": ("image", "max_f"),
    "MAE": ("image", "mae"),
    "Fw": ("image", "weighted_f"),
    "Sm": ("image", "s"),
    "relaxFb": ("image", "relaxed_f"),
}
DIS_COLUMNS = {
    "maxF": ("DIS", "max_f_curves"),
    "MAE": ("DIS", "mae"),
    "Fw": ("DIS", "weighted_f"),
    "Sm": ("DIS", "s"),
    "E-measure(mean)": ("DIS", "mean_e"),
    "HCE": ("DIS", "hce"),
}


def records_folder() -> Path:
    """Where the records lie: `results/` of a checkout, or their copy in the installed package."""
    package = Path(__file__).parent
    checkout = package.parent / "results"
    return checkout if checkout.is_dir() else package / "_results"


@functools.cache
def records() -> dict[str, dict]:
    """All records by name, as "drive-small-seed0"."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(records_folder().glob("*.json"))}


def write_record(name: str, record: dict) -> Path:
    """Write one record, whole or not at all."""
    path = records_folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")
    records.cache_clear()
    return path


def measure(
    folder: str | Path, device: str | None = None, progress: bool = True, recipe: Recipe | None = None
) -> dict:
    """The record of a run: its recipe, what it cost, and its scores under every protocol.

    That of a run which was stopped has its iteration as "unfinished", and is no result (see `is_current`).
    The test runs on `device` (default: the GPU if there is one), as `recipe` says if one is given, which may
    differ from the run's own in the set that is tested (see `Recipe.for_training`).

    Raises:
        ValueError: the recipe asks for another training, or there is no such device.
    """
    folder = Path(folder)
    model, trained_by = load_model(folder)
    recipe = recipe or trained_by
    if recipe.for_training() != trained_by.for_training():
        raise ValueError(
            f"The run in {folder} is one of {trained_by.name}, seed {trained_by.seed}; {recipe.name}, seed "
            f"{recipe.seed}, needs another training."
        )
    position = json.loads(read_tensors(folder / "checkpoint.safetensors")[1]["position"])
    done = position["iteration"]
    return {
        "recipe": json.loads(recipe.to_json()),
        "seed": recipe.seed,
        **({"unfinished": done} if done < recipe.iterations else {}),
        **provenance(position["device"]),
        "seconds": round(position["seconds"], 1),
        "cpu_seconds": round(position["cpu_seconds"], 1),
        "training_memory": position.get("memory"),
        "training_flops": training_flops(recipe, done),
        "image_flops": image_flops(recipe),
        **_measure_model(model.to(pick_device(device)), recipe, progress),
        "log": [_rounded(line) for line in read_log(folder)],
    }


def measure_official(
    path: str | Path, recipe: Recipe, device: str | None = None, progress: bool = True
) -> dict:
    """The record of weights that others trained and published, tested as the recipe says.

    Raises:
        FileNotFoundError, ValueError: see `load_official`.
    """
    device = pick_device(device)
    model = load_official(recipe.build_model(), path).eval()
    return {
        "official": json.loads(recipe.to_json()),
        "weights": _file(path),
        **provenance(device_name(device)),
        **_measure_model(model.to(device), recipe, progress),
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


def measure_maps(path: str | Path, name: str) -> dict:
    """The record of `compare_maps` for the weights in a file of U²-Net's authors. Raises what it raises."""
    differences = compare_maps(load_model(path)[0], name)
    return {
        "maps": name,
        "weights": _file(path),
        **provenance(device_name("cpu")),
        "differences": {
            photograph: _rounded({"mean": mean, "largest": largest})
            for photograph, (mean, largest) in differences.items()
        },
    }


def _file(path: str | Path) -> dict[str, str]:
    return {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def _measure_model(model: nn.Module, recipe: Recipe, progress: bool) -> dict:
    """Scores under every protocol; the chosen threshold is the one of the best Dice on *training* images."""
    cost = {"parameters": sum(p.numel() for p in model.parameters()), "speed": speed(model, recipe)}
    if recipe.num_classes == 1:
        thin = recipe.split == "dis5k" or recipe.dataset == "thin"
        protocols = {name: how for name, how in SALIENCY_PROTOCOLS.items() if thin or name == "image"}
        scores = [SaliencyScores(**how) for how in protocols.values()]
        score_maps(model, recipe, recipe.examples("test"), scores, progress)
        curves = scores[0].curves()
        return {
            **cost,
            "scores": {name: _rounded(s.result()) for name, s in zip(protocols, scores, strict=True)},
            "curve": {name: _rounded(curves[name][::4].tolist()) for name in ("recall", "precision")},
        }
    if recipe.num_classes > 2:
        modes = {name: dataclasses.replace(recipe, **mode) for name, mode in STREET_PROTOCOLS.items()}
        scores = {
            name: _rounded(evaluate(model, mode, mode.examples("test"), progress).score())
            for name, mode in modes.items()
        }
        return {**cost, "scores": scores}
    test = evaluate(model, recipe, recipe.examples("test"), progress)
    threshold = evaluate(model, recipe, recipe.examples("train"), progress).best_threshold("field")
    return {
        **cost,
        "threshold": threshold,
        "scores": by_protocol(test, threshold),
        "curve": curve(test),
    }


def speed(model: nn.Module, recipe: Recipe, seconds: float = 3.0) -> dict:
    """Frames per second of a test as the recipe does it, from photograph to probabilities, one at a time.

    The first test image is segmented again and again for about `seconds`, after once to warm up.
    """
    image = recipe.examples("test")[0].image
    device = str(next(model.parameters()).device)

    def test() -> Tensor:
        found = (
            saliency(model, image, side=recipe.square)
            if recipe.num_classes == 1
            else segment(model, image, recipe)
        )
        return found.cpu()  # fetching the result waits for the device

    test()
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < seconds:
        test()
        count += 1
    return {
        "frames_per_second": round(count / (time.perf_counter() - started), 3),
        "batch": 1,
        "size": list(image.shape[1:]),
        "device": device_name(device),
    }


def measure_second_observer(recipe: Recipe) -> dict:
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
    scores = by_protocol(scores, 0.5)
    return {
        "dataset": recipe.dataset,
        "split": recipe.split,
        **provenance(device_name("cpu")),
        "scores": scores,
    }


def by_protocol(scores: OverlapScores, threshold: float) -> dict[str, dict]:
    """The same prediction scored under every protocol; `threshold` is the one chosen on training images."""
    return {
        name: _rounded(scores.score(region, pool, threshold if t == "train" else t))
        for name, (region, pool, t) in PROTOCOLS.items()
    }


def curve(scores: OverlapScores, points: int = 64) -> dict[str, list[float]]:
    """Recall and precision at `points` thresholds, full image: small enough to keep in a record."""
    step = THRESHOLDS // points
    recall, precision = scores.curve()
    return {"recall": _rounded(recall[::step].tolist()), "precision": _rounded(precision[::step].tolist())}


def training_flops(recipe: Recipe, iterations: int | None = None) -> int:
    """Floating-point operations of a training, forward and backward; 2 a multiply-add.

    iterations: of the first so many only (default: of all). Counted on tensors that have a shape and no
    content, so that the largest recipe costs nothing.
    """
    count = recipe.iterations if iterations is None else iterations
    small = min(count, math.ceil(recipe.small_first * recipe.iterations))
    halves = tuple(side // 2 for side in recipe.crop)
    return sum(
        number * _step_flops(recipe, size)
        for number, size in ((small, halves), (count - small, recipe.crop))
        if number
    )


def _step_flops(recipe: Recipe, size: tuple[int, int]) -> int:
    with torch.device("meta"):
        model = recipe.build_model()
        label = torch.zeros(recipe.batch, *size, dtype=torch.int64)  # (B, h, w)
        if recipe.num_classes == 1:
            label = label[:, None].float()  # (B, 1, h, w)
        with FlopCounterMode(display=False) as one_step:
            outputs = model(torch.zeros(recipe.batch, 3, *size))
            LOSSES[recipe.loss](outputs, label).backward()
    return one_step.get_total_flops()


def image_flops(recipe: Recipe) -> int:
    """Floating-point operations of the test of one image, with all its windows and views.

    Where images are squeezed to one size, none is needed.
    """
    with torch.device("meta"):
        model = recipe.build_model().eval()
        with FlopCounterMode(display=False) as one_image:
            if recipe.square:
                model(torch.zeros(1, 3, recipe.square, recipe.square))
            else:
                segment(model, recipe.examples("test")[0].image, recipe)
    return one_image.get_total_flops()


def provenance(device: str) -> dict:
    """What the numbers were made with: commit (of a checkout, where git is installed), versions, device."""
    commit, root = None, Path(__file__).parent.parent
    if (root / "results").is_dir() and shutil.which("git"):
        git = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
        commit = git.stdout.strip() or None
    versions = {
        "u2learn": u2learn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {"commit": commit, "versions": versions, "device": device}


@functools.cache
def reported() -> list[dict[str, str]]:
    """The rows of `reported_results.csv`: what others reported, with source and protocol."""
    with open(Path(__file__).parent / "assets" / "reported_results.csv", newline="") as file:
        return list(csv.DictReader(file))


def best_reported(dataset: str, model: str, metric: str = "Dice") -> str:
    """The best reported value for this set (as "drive"), model and metric, in percent, as it was printed."""
    rows = [r for r in reported() if (r["dataset"], r["metric"]) == (SETS[dataset], metric)]
    return max((r["value"] for r in rows if r["model"].startswith(model)), key=float)


def reported_rows(recipe: Recipe) -> list[dict[str, str]]:
    """The reported rows that this recipe reproduces, from every page that prints them."""
    if recipe.split in ("duts", "dis5k"):
        due = REPORTED_SETS[recipe.dataset], REPORTED_MODELS[recipe.model]
        size = f"{recipe.square}x{recipe.square}"
        return [
            row
            for row in reported()
            if row["source"].startswith(("U2-Net paper Table", "DIS paper Table"))
            and (row["dataset"], row["model"]) == due
            and (f"input {size}" in row["note"] or row["note"].endswith(f"ablation: {size}"))
        ]
    head = recipe.name.removeprefix(f"{recipe.dataset}-").partition("-")[0]
    if head not in REPORTED_HEADS:
        return []
    due = REPORTED_SETS[recipe.dataset], REPORTED_HEADS[head], REPORTED_LOSSES[recipe.loss]
    return [
        row
        for row in reported()
        if "before commit" not in row["source"]  # a value that its authors corrected later
        and (row["dataset"], row["head"], row["loss"]) == due
    ]


def reported_for(recipe: Recipe) -> dict[str, str]:
    """What was reported for the row that this recipe reproduces: metric -> value, as printed; {} if none."""
    return {row["metric"]: row["value"] for row in reported_rows(recipe)}


def all_of(name: str) -> list[dict]:
    """The records of this recipe as it is today: ours, one a seed, and that of weights trained by others."""
    official = records().get(f"{name}-official")
    return of_recipe(name) + ([official] if official and is_current(official) else [])


def reported_columns(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """For each column of the reported tables the protocol and the score of our records that belong to it."""
    return REPORTED_COLUMNS | (DIS_COLUMNS if recipe.split == "dis5k" else {})


def of_recipe(name: str) -> list[dict]:
    """The records of this recipe as it is today, one a seed; those of earlier versions of it are left out."""
    return [
        record
        for record in records().values()
        if record.get("recipe", {}).get("name") == name and is_current(record)
    ]


def is_current(record: dict) -> bool:
    """Was this record made by the recipe that has its name today, and by all of its iterations?"""
    if "unfinished" in record:
        return False
    try:
        made_by = Recipe.from_json(json.dumps(record.get("recipe") or record["official"]))
        return made_by == recipes.get(made_by.name, seed=made_by.seed)
    except (KeyError, ValueError):  # a recipe, or a field of one, that is no more
        return False


def mean_and_spread(name: str, protocol: str, score: str = "dice") -> tuple[float, float, int]:
    """Mean, standard deviation over the seeds, and their number, in percent.

    Raises:
        LookupError: there is no record of this recipe.
    """
    values = [100 * record["scores"][protocol][score] for record in of_recipe(name)]
    if not values:
        raise LookupError(
            f"There is no record of {name!r} in {records_folder()}: run `u2learn reproduce {name}`."
        )
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)


def _rounded(value):
    """Six digits are more than any score has; JSON has no NaN, so an undefined score is null."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return None if math.isnan(value) else round(value, 6)
