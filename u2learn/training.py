"""One training loop for every model: a recipe goes in, a run folder comes out, and a killed run goes on.

The folder holds `recipe.json`, `log.jsonl` (one line an evaluation) and `checkpoint.safetensors`.
Everything random is a function of (seed, iteration), so a checkpoint needs no generator states: weights,
optimiser and position suffice to go on to the same weights, bit for bit on a CPU.
"""

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from u2learn.data.augment import (
    PHOTOMETRICS,
    jitter,
    normalisation,
    read_points,
    resize,
    sample_batch,
    shrunk_size,
)
from u2learn.data.example import Example
from u2learn.files import write_text
from u2learn.inference import evaluate
from u2learn.models.weights import read_tensors, with_prefix, write_tensors
from u2learn.recipes import LOSSES, Recipe

try:
    import fcntl
except ImportError:  # Windows: there, two processes in one run folder are not noticed
    fcntl = None

CHECK_EVERY = 20  # iterations between looks at the loss; each look waits for the device
SAVE_SECONDS = 30  # a killed run loses at most about this much work
COMPILE_FROM = 2_000  # iterations; in a shorter run on a GPU, compiling takes longer than it saves


class DivergedError(RuntimeError):
    """The loss became infinite or not a number."""


class BusyError(RuntimeError):
    """Another process is training in this folder."""


class TimeIsUpError(RuntimeError):
    """The minutes given are over; the checkpoint is written, and the same call goes on from there."""


def train(
    recipe: Recipe,
    folder: str | Path,
    train_examples: Sequence[Example] | None = None,
    test_examples: Sequence[Example] | None = None,
    device: str | None = None,
    progress: bool = True,
    minutes: float = math.inf,
) -> nn.Module:
    """Train as the recipe says, in `folder`; a run that was stopped there goes on where it was.

    The examples default to the recipe's own. Returns the trained model in eval mode (its running mean, where
    the recipe keeps one), on `device` (default: the GPU if there is one).

    Raises:
        TimeIsUpError: it is not done after `minutes`.
        BusyError: another process trains in this folder.
        ValueError: the folder holds a run of another recipe, the data do not fit, or there is no such device.
        DivergedError: the loss or a weight is no longer finite; the last good checkpoint stays.
    """
    deadline = time.monotonic() + 60 * minutes
    device = pick_device(device)
    train_examples = recipe.examples("train") if train_examples is None else train_examples
    test_examples = recipe.examples("test") if test_examples is None else test_examples
    if len(test_examples) == 0:
        raise ValueError(f"The test part of {recipe.dataset!r} is empty: nothing to score on.")
    data = TrainingData(recipe, train_examples, device)
    with _alone_in(Path(folder)):
        run = Run(recipe, Path(folder), device)
        if run.iteration < recipe.iterations:
            with tqdm(
                total=recipe.iterations, initial=run.iteration, desc=recipe.name, disable=not progress
            ) as bar:
                _loop(run, data, test_examples, bar, deadline)
    return run.result.eval()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; the system frees it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"Another process is training in {folder}: wait for it, or choose another folder."
            ) from None
        yield
    finally:
        os.close(lock)


def _loop(
    run: "Run", data: "TrainingData", test_examples: Sequence[Example], bar: tqdm, deadline: float
) -> None:
    recipe, shown, loss = run.recipe, {}, math.nan
    evaluate_at = {round(recipe.iterations * (k + 1) / recipe.evaluations) for k in range(recipe.evaluations)}
    losses, saved, started = [], time.monotonic(), (time.monotonic(), time.process_time())
    while run.iteration < recipe.iterations:
        losses.append(run.step(*data.batch(run.iteration)))
        bar.update()
        evaluating = run.iteration in evaluate_at
        if len(losses) == CHECK_EVERY or evaluating:
            values = torch.stack(losses).tolist()
            run.refuse_divergence(values)
            losses, loss = [], sum(values) / len(values)
            bar.set_postfix(shown | {"loss": f"{loss:.3f}"})
        if evaluating or (not losses and time.monotonic() > min(saved + SAVE_SECONDS, deadline)):
            run.seconds += time.monotonic() - started[0]
            run.cpu_seconds += time.process_time() - started[1]
            if evaluating:
                scores = evaluate(run.result, recipe, test_examples)
                score = scores.result() if recipe.num_classes == 1 else scores.score()
                name = {1: "max_f", 2: "dice"}.get(recipe.num_classes, "miou")
                shown = {name: f"{score[name]:.3f}"}
                run.log({"iteration": run.iteration, "loss": loss, **score})
            run.save()
            saved, started = time.monotonic(), (time.monotonic(), time.process_time())
            if saved > deadline and run.iteration < recipe.iterations:
                raise TimeIsUpError(
                    f"Time is up at iteration {run.iteration} of {recipe.iterations}. The run is safe in "
                    f"{run.folder}; the same command goes on from there."
                )


class TrainingData:
    """A training set as two uint8 tensors on the device, and the batch of any iteration."""

    def __init__(self, recipe: Recipe, examples: Sequence[Example], device: str):
        if len(examples) == 0:
            raise ValueError(f"The training part of {recipe.dataset!r} is empty: nothing to learn from.")
        self.recipe = recipe
        image, first = sized(examples[0], recipe)
        # filled image by image: a set as large as Cityscapes must not lie in memory twice
        self.images = torch.empty(
            (len(examples), *image.shape), dtype=torch.uint8, device=device, memory_format=torch.channels_last
        )  # (N, 3, H, W)
        self.labels = torch.empty((len(examples), *first.shape), dtype=torch.uint8, device=device)
        for place, example in enumerate(examples):
            image, label = sized(example, recipe)
            if label.shape != first.shape:
                raise ValueError(
                    f"{example.name} has {tuple(label.shape)} pixels, the images before it "
                    f"{tuple(first.shape)}: training needs one size; crop or resize them first."
                )
            self.images[place], self.labels[place] = image, label
        each = [normalisation(image[None] / 255, recipe.normalisation) for image in self.images]
        self.mean, self.std = (torch.cat(values) for values in zip(*each, strict=True))  # (N, 3, 1, 1)
        self.generator = torch.Generator(device)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, h, w), normalised and augmented, and labels (B, h, w) of one iteration.

        Of one class, saliency, float masks (B, 1, h, w) instead of labels. While the recipe has its windows
        small, h and w are half of its crop.
        """
        recipe, augment = self.recipe, self.recipe.augmentation
        index = self._indices(iteration)
        self.generator.manual_seed(_seed(recipe.seed, "batch", iteration))
        images, labels = sample_batch(
            self.images, self.labels, index, recipe.crop, augment, self.generator, max(2, recipe.num_classes)
        )
        if iteration < recipe.small_first * recipe.iterations:
            images = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
            labels = labels[:, 1::2, 1::2]  # one of the four, as an average of class ids means nothing
        if augment.photometric:
            images = PHOTOMETRICS[augment.photometric](images, self.generator)
        if recipe.normalisation == "maximum":
            mean, std = normalisation(images, "maximum")
        else:
            mean, std = self.mean[index], self.std[index]
        images = (images - mean) / std
        if augment.jitter:
            images = jitter(images, augment.jitter, self.generator)
        return images, labels[:, None].float() if recipe.num_classes == 1 else labels

    def _indices(self, iteration: int) -> Tensor:
        """Which images: an endless stream of shuffled epochs, cut into batches."""
        recipe, count = self.recipe, len(self.images)
        places = range(iteration * recipe.batch, (iteration + 1) * recipe.batch)
        epochs = {}
        for epoch in {place // count for place in places}:
            generator = torch.Generator().manual_seed(_seed(recipe.seed, "epoch", epoch))
            epochs[epoch] = torch.randperm(count, generator=generator)
        index = torch.stack([epochs[place // count][place % count] for place in places])
        return index.to(self.images.device)


def sized(example: Example, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Image (3, h, w) and label (H, W), uint8, at the size that the recipe trains on.

    Squeezed to a square, both have its size: the image is read at single points, as `inference.saliency`
    does, the label at the nearest pixel. Shrunk to a long side, the image is, and the label stays as it came.

    Source: U-2-Net, data_loader.py, RescaleT.
    """
    image, label = torch.as_tensor(example.image), torch.as_tensor(example.label)
    if recipe.square:
        size = recipe.square, recipe.square
        image = read_points(image.double() / 255, size).mul(255).round().byte()
        label = F.interpolate(label[None, None], size, mode="nearest-exact")[0, 0]
    elif recipe.side:
        image = resize(image / 255, shrunk_size(label.shape, recipe.side)).mul(255).round().byte()
    return image, label


class Run:
    """The state of a training run, and its folder."""

    def __init__(self, recipe: Recipe, folder: Path, device: str):
        self.recipe, self.folder, self.device = recipe, folder, device
        self.iteration, self.seconds, self.cpu_seconds, self.memory = 0, 0.0, 0.0, None
        self.model = recipe.build_model().to(device, memory_format=torch.channels_last).train()
        self.forward = compiled(self.model, recipe, device)
        self.result = copy.deepcopy(self.model) if recipe.ema else self.model
        self.optimiser = _optimiser(recipe, self.model)
        self.loss = LOSSES[recipe.loss]
        self.autocast = mixed_precision(device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.autocast.fast_dtype == torch.float16)
        self._claim()
        if self.checkpoint.exists():
            self._resume()
        self._trim_log()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; the loss, still on the device."""
        torch.manual_seed(_seed(self.recipe.seed, "step", self.iteration))  # dropout
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.iteration)
        with self.autocast:
            outputs = self.forward(images.contiguous(memory_format=torch.channels_last))
        loss = self.loss([x.float() for x in outputs], labels)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.iteration += 1
        if self.recipe.ema:
            self._average()
        return loss.detach()

    def refuse_divergence(self, losses: list[float]) -> None:
        """Stop when one of the latest losses, or a weight after them, is not finite."""
        bad = [
            step
            for step, value in enumerate(losses, self.iteration - len(losses))
            if not math.isfinite(value)
        ]
        if bad or not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            step = bad[0] if bad else self.iteration - 1
            what = (
                f"The loss became {losses[bad[0] - self.iteration]}"
                if bad
                else "A weight became infinite or NaN"
            )
            raise DivergedError(
                f"{what} at iteration {step}, at a learning rate of {self.recipe.rate(step):.3g}. Try a "
                "tenth of the rate or a longer warm-up, and check the labels (`u2learn data lint`). "
                f"The last good checkpoint, if there was one yet, stays in {self.folder}."
            )

    def log(self, line: dict) -> None:
        """Append one line to log.jsonl."""
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint whole or not at all: to a temporary name first, then renamed."""
        tensors = {f"model.{name}": x for name, x in self.result.state_dict().items()}
        if self.recipe.ema:
            tensors |= {f"raw.{name}": x for name, x in self.model.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": x for key, x in state.items()}
        position = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "memory": self._peak_memory(),
            "scaler": self.scaler.state_dict(),
            "device": device_name(self.device),
        }
        metadata = {"recipe": self.recipe.to_json(), "position": json.dumps(position)}
        write_tensors(self.checkpoint, tensors, metadata)

    def _peak_memory(self) -> int | None:
        """The most bytes of GPU memory that this run held at once; None on a CPU, which keeps no count."""
        if self.device.startswith("cuda"):
            self.memory = max(self.memory or 0, torch.cuda.max_memory_allocated(self.device))
        return self.memory

    def _claim(self) -> None:
        """Put the recipe into the folder, or make sure that it is the one that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "recipe.json"
        if path.exists() and not _is_recipe(path.read_text(), self.recipe):
            raise ValueError(
                f"{self.folder} holds a run of another recipe ({path}): choose another folder, or delete it."
            )
        write_text(path, self.recipe.to_json())

    def _resume(self) -> None:
        tensors, metadata = read_tensors(self.checkpoint)
        position = json.loads(metadata["position"])
        self.iteration, self.seconds, self.cpu_seconds = (
            position[key] for key in ("iteration", "seconds", "cpu_seconds")
        )
        self.memory = position.get("memory")
        self.scaler.load_state_dict(position["scaler"])
        self.result.load_state_dict(with_prefix(tensors, "model."))
        if self.recipe.ema:
            self.model.load_state_dict(with_prefix(tensors, "raw."))
        state = {}
        for name, tensor in with_prefix(tensors, "optimiser.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint, and a line that was cut in the middle."""
        log = self.folder / "log.jsonl"
        if log.exists():
            kept = [line for line in log.read_text().splitlines() if _iteration(line) <= self.iteration]
            write_text(log, "".join(line + "\n" for line in kept))

    @torch.no_grad()
    def _average(self) -> None:
        """Move the running mean towards the weights; over the first steps it is a plain mean."""
        share = max(1 - self.recipe.ema, 1 / self.iteration)
        weights = self.model.state_dict()
        for name, mean in self.result.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], share)
            else:
                mean.copy_(weights[name])


def pick_device(device: str | None) -> str:
    """The device of this name, by default the GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.partition(":")[0] not in (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]):
        raise ValueError(
            f"There is no device {device!r} here (PyTorch {torch.__version__}, GPUs: "
            f"{torch.cuda.device_count()}): leave it out, or use 'cpu'."
        )
    return device


def compiled(model: nn.Module, recipe: Recipe, device: str) -> Callable[[Tensor], list[Tensor]]:
    """The model as one captured graph, where that pays: on a GPU, in a long run.

    A small kernel is done before the next one is asked for, so a step would wait for Python; a graph is
    asked for once, for each size of windows. What the compiler does not understand runs as without it.
    """
    if not device.startswith("cuda") or recipe.iterations < COMPILE_FROM:
        return model
    torch._dynamo.config.suppress_errors = True
    return torch.compile(model, mode="reduce-overhead", dynamic=False)


def mixed_precision(device: str) -> torch.autocast:
    """Convolutions in 16 bits, at half the memory traffic, where the device has instructions for that.

    A GPU computes in bfloat16, or in float16 if it is too old; a CPU in bfloat16, or else in 32 bits, as
    emulation would be slower. Weights, losses and their sums stay in 32 bits.
    """
    if device.startswith("cuda"):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16 if bf16 else torch.float16)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.8
    fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)


def device_name(device: str) -> str:
    """What a device is called in a record: the GPU's name, or the CPU's threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread(s)"


def read_log(folder: str | Path) -> list[dict]:
    """The evaluations of a run, oldest first; none before the first one."""
    path = Path(folder) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _is_recipe(text: str, recipe: Recipe) -> bool:
    """Compared as recipes: one that was written before a field existed has that field's default."""
    try:
        return Recipe.from_json(text) == recipe
    except ValueError:
        return False


def _optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay
        )
    if recipe.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases
    ]
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.99))


def _seed(*parts: object) -> int:
    """A well mixed 63-bit seed from these parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def _iteration(line: str) -> float:
    try:
        return json.loads(line)["iteration"]
    except json.JSONDecodeError:
        return math.inf
