"""One training loop for every model: a recipe goes in, a run folder comes out, and a killed run goes on.

The folder holds `recipe.json`, `log.jsonl` (a line for the loss of some iterations, and one an evaluation),
`checkpoint.safetensors` (the last state) and, where the recipe keeps it, `best.safetensors`.
Everything random is a function of (seed, iteration), so a checkpoint needs no generator states: weights,
optimiser and position suffice to go on to the same weights, bit for bit on a CPU. Of several processes (see
`u2learn.distributed`) all do the same, one writes, and any number of them may go on.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from u2learn import distributed
from u2learn.batches import TrainingData, seed_of
from u2learn.console import hide_bar
from u2learn.data.augment import Augmentation
from u2learn.data.example import Example
from u2learn.devices import (
    compiled,
    device_name,
    forget_peak,
    kind_of,
    laid_out,
    layout,
    mixed_precision,
    peak_memory,
    pick_device,
)
from u2learn.files import checksum, defined, on_drive, remove_leftovers, write_text
from u2learn.inference import evaluating, save_model
from u2learn.models.frozen import freeze_folded_norms
from u2learn.models.start import start_from
from u2learn.models.weights import read_tensors, weights_file, with_prefix, write_tensors
from u2learn.optimisers import optimiser
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES
from u2learn.tasks import TASKS, evaluate

try:
    import fcntl
except ImportError:  # Windows: there, two processes in one run folder are not noticed
    fcntl = None  # type: ignore[assignment]  # no module there

CHECK_EVERY = 20  # iterations between looks at the loss; each look waits for the device
LOSS_BATCHES = 4  # of the watched part, for its loss
# A killed run loses at most about so many seconds of work. To Google Drive each checkpoint is sent.
SAVE_SECONDS, DRIVE_SAVE_SECONDS = 30.0, 600.0


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
    watched_examples: Sequence[Example] | None = None,
    device: str | None = None,
    progress: bool = True,
    minutes: float = math.inf,
    start: str | Path | None = None,
) -> nn.Module:
    """Train as the recipe says, in `folder`; a run that was stopped there goes on where it was.

    The examples default to the recipe's own; the watched ones are scored on the way. `start` is the file, or
    the run's folder, of the weights to begin with, whose checksum stands in the recipe. Returns the trained
    model in eval mode (its running mean, or the best one, where the recipe keeps that), on `device` (default:
    the GPU if there is one). With `progress`, a bar, or in files and pipes a line an evaluation, and
    curves.png in the folder follow the training.

    Raises:
        TimeIsUpError: it is not done after `minutes`.
        BusyError: another process trains in this folder.
        ValueError: the folder holds a run of another recipe, the data do not fit, or there is no such device.
        DivergedError: the loss or a weight is no longer finite; the last good checkpoint stays.
        LostError: of several processes, another one has ended.
    """
    deadline = time.monotonic() + 60 * minutes
    device = pick_device(device)
    given = train_examples is not None
    train_examples = recipe.examples("train") if train_examples is None else train_examples
    watched = recipe.examples(recipe.watched) if watched_examples is None else watched_examples
    if len(watched) == 0:
        raise ValueError(f"The {recipe.watched} part of {recipe.dataset!r} is empty: nothing to score on.")
    data = TrainingData(recipe, train_examples, device)
    unseen = None
    if recipe.watched == "validation":  # its loss shows when the network begins to learn by heart
        unseen = TrainingData(dataclasses.replace(recipe, augmentation=Augmentation()), watched, device)
    progress = progress and distributed.leads()
    with alone_in(Path(folder)):
        with distributed.leader_first():
            run = Run(recipe, Path(folder), device, start)
        run.refuse_another()
        run.given = names_digest(data.names) if given else None
        if not run.finished:
            begun, hidden = run.iteration, hide_bar(progress)
            with tqdm(total=recipe.iterations, initial=begun, desc=recipe.name, disable=hidden) as bar:
                _loop(run, data, watched, unseen, bar, progress, deadline)
                if progress:
                    draw_curves(run.folder, TASKS[recipe.task].main)
        distributed.gathered(None)  # all is written
        return run.trained()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; the system frees it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None or not distributed.leads():
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
    run: Run,
    data: TrainingData,
    watched: Sequence[Example],
    unseen: TrainingData | None,
    bar: tqdm,
    progress: bool,
    deadline: float,
) -> None:
    recipe, drawn = run.recipe, 0.0
    shown: dict[str, str] = {}
    evaluate_at = {round(recipe.iterations * (k + 1) / recipe.evaluations) for k in range(recipe.evaluations)}
    losses: list[Tensor] = []
    saved, started = time.monotonic(), (time.monotonic(), time.process_time())
    save_seconds = DRIVE_SAVE_SECONDS if on_drive(run.folder) else SAVE_SECONDS
    while not run.finished:
        losses.append(run.step(*data.batch(run.iteration)))
        bar.update()
        due = run.iteration in evaluate_at
        if len(losses) == CHECK_EVERY or due:
            values = torch.stack(losses).tolist()
            run.refuse_divergence(values)
            line, losses = {"iteration": run.iteration, "loss": sum(values) / len(values)}, []
            if not due:
                run.log(line | {"rate": recipe.rate(run.iteration - 1)})
            bar.set_postfix(shown | {"loss": f"{line['loss']:.3f}"})
        if due or (not losses and by_the_clock(min(saved + save_seconds, deadline))):
            run.seconds += time.monotonic() - started[0]
            run.cpu_seconds += sum(distributed.gathered(time.process_time() - started[1]))
            if due:
                shown = run.evaluate(watched, unseen, line)
                if progress and bar.disable:  # a line in place of the bar; several processes may write them
                    scores = ", ".join(f"{name} {value}" for name, value in shown.items())
                    print(
                        f"{recipe.name}, seed {recipe.seed}: {run.iteration} of {recipe.iterations}, "
                        f"loss {line['loss']:.3f}, {scores}",
                        file=sys.stderr,
                        flush=True,
                    )
                if progress and run.seconds > drawn + 10:
                    draw_curves(run.folder, TASKS[recipe.task].main)
                    drawn = run.seconds
            run.save()
            saved, started = time.monotonic(), (time.monotonic(), time.process_time())
            if by_the_clock(deadline) and not run.finished:
                raise TimeIsUpError(
                    f"Time is up at iteration {run.iteration} of {recipe.iterations}. The run is safe in "
                    f"{run.folder}; the same command goes on from there."
                )


def by_the_clock(end: float) -> bool:
    """Is it past `end`, by the clock of the process that writes? Of several, all must go the same way."""
    return distributed.gathered(time.monotonic() > end)[0]


class Run:
    """The state of a training run, and its folder."""

    def __init__(self, recipe: Recipe, folder: Path, device: str, start: str | Path | None = None):
        self.recipe, self.folder, self.device = recipe, folder, device
        self.iteration, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.memory: int | None = None  # bytes
        self.best, self.since_best = -math.inf, 0  # score of the watched part; evaluations since then
        self.given: str | None = None  # which images trained, where they are not those of the recipe
        if distributed.leads():
            remove_leftovers(self.folder)
        forget_peak(device)  # that of earlier runs
        self.model = recipe.build_model()
        if recipe.start and not self.checkpoint.exists():
            self._begin_with(start)
        self._claim()
        saved = read_tensors(self.checkpoint) if self.checkpoint.exists() else None
        if saved is not None:
            self.model.load_state_dict(with_prefix(saved[0], "raw." if recipe.ema else "model."))
        if recipe.start:
            freeze_folded_norms(self.model)  # told by their numbers, so a resumed run finds them again
        distributed.synchronise(self.model)
        self.model = laid_out(self.model.to(device)).train()
        self.forward = compiled(self.model, recipe, device)
        self.averaged = copy.deepcopy(self.model) if recipe.ema else self.model
        self.optimiser = optimiser(recipe, self.model)
        self.loss = LOSSES[recipe.loss]
        self.autocast = mixed_precision(device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.autocast.fast_dtype == torch.float16)
        if saved is not None:
            self._resume(*saved)
        if distributed.leads():
            self._trim_log()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        """All iterations are done, or so many evaluations brought nothing better."""
        patience = self.recipe.patience
        return self.iteration >= self.recipe.iterations or 0 < patience <= self.since_best

    def step(self, images: Tensor, target: Tensor) -> Tensor:
        """One step of the optimiser on this process's windows; the loss of the batch, still on the device."""
        torch.manual_seed(seed_of(self.recipe.seed, "step", self.iteration))  # dropout
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.iteration)
        self.optimiser.zero_grad()
        parts = self.recipe.accumulate
        losses = [
            self._backward(*part) for part in zip(images.chunk(parts), target.chunk(parts), strict=True)
        ]
        distributed.sum_gradients(self.model)
        if self.recipe.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.iteration += 1
        if self.recipe.ema:
            self._average()
        return torch.stack(losses).sum()

    def _backward(self, images: Tensor, target: Tensor) -> Tensor:
        """Add the gradient of a part of a step to that of the weights; its share of the loss."""
        with self.autocast:
            outputs = self.forward(images.contiguous(memory_format=layout(self.device)))
        outputs = [distributed.whole(x).float() for x in outputs]
        loss = self.loss(outputs, distributed.whole(target)) / self.recipe.accumulate
        self.scaler.scale(loss).backward()
        return loss.detach()

    def evaluate(
        self, watched: Sequence[Example], unseen: TrainingData | None, line: dict[str, Any]
    ) -> dict[str, str]:
        """Score the watched part, log it, keep the weights if they are the best; what the bar shows of it.

        Of `unseen`, the same part as windows without augmentation, the loss is logged too: of the model as it
        predicts, without auxiliary outputs.
        """
        self._note_memory()
        score = evaluate(self.averaged, self.recipe, watched).result()["image"]
        if unseen is not None:
            with torch.no_grad(), evaluating(self.averaged):
                batches = [unseen.batch(i) for i in range(LOSS_BATCHES)]
                losses = [
                    self.loss(
                        [distributed.whole(x) for x in self.averaged(images)], distributed.whole(target)
                    )
                    for images, target in batches
                ]
            line = line | {"watched_loss": float(torch.stack(losses).mean())}
        self.log(line | score)
        main = TASKS[self.recipe.task].main
        self.since_best += 1
        if score[main] > self.best:
            self.best, self.since_best = score[main], 0
            if self.recipe.keep == "best" and distributed.leads():
                save_model(self.folder / "best.safetensors", self.averaged, self.recipe)
        forget_peak(self.device)  # that of a test
        return {main: f"{score[main]:.3f}"}

    def trained(self) -> nn.Module:
        """The model that is the run's result, in eval mode."""
        if self.recipe.keep == "best":
            tensors, _ = read_tensors(self.folder / "best.safetensors")
            self.averaged.load_state_dict(with_prefix(tensors, "model."))
        return self.averaged.eval()

    def refuse_divergence(self, losses: list[float]) -> None:
        """Stop when one of the latest losses, or a weight after them, is not finite."""
        bad = [
            step
            for step, value in enumerate(losses, self.iteration - len(losses))
            if not math.isfinite(value)
        ]
        finite = torch.stack([p.isfinite().all() for p in self.model.parameters()])  # asked for once for all
        if bad or not finite.all():
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

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        if not distributed.leads():
            return
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(defined(line)) + "\n")

    def save(self) -> None:
        """Write the checkpoint whole or not at all: to a temporary name first, then renamed."""
        if not distributed.leads():
            return
        tensors = {f"model.{name}": x for name, x in self.averaged.state_dict().items()}
        if self.recipe.ema:
            tensors |= {f"raw.{name}": x for name, x in self.model.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": x for key, x in state.items()}
        self._note_memory()
        many = [str(distributed.size())] if distributed.size() > 1 else []
        position = {
            "iteration": self.iteration,
            "finished": self.finished,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "memory": self.memory,
            "given": self.given,
            "best": self.best if math.isfinite(self.best) else None,
            "since_best": self.since_best,
            "scaler": self.scaler.state_dict(),
            "device": " x ".join([*many, device_name(self.device)]),
            "device_kind": kind_of(self.device),
        }
        metadata = {"recipe": self.recipe.to_json(), "position": json.dumps(position)}
        write_tensors(self.checkpoint, tensors, metadata)

    def _note_memory(self) -> None:
        peak = peak_memory(self.device)
        self.memory = self.memory if peak is None else max(self.memory or 0, peak)

    def _begin_with(self, start: str | Path | None) -> None:
        """Put the weights into the model that the recipe starts from, and say what was taken of them."""
        if start is None:
            raise ValueError(f"{self.recipe.name!r} starts from weights: give their file (start, --from).")
        if checksum(weights_file(start)) != self.recipe.start:
            raise ValueError(f"{start} is not the file that {self.recipe.name!r} starts from.")
        for sentence in start_from(self.model, start):
            tqdm.write(sentence)

    def _claim(self) -> None:
        """Put the recipe into the folder, or make sure that it is the one that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "recipe.json"
        if path.exists() and not _is_recipe(path.read_text(encoding="utf-8"), self.recipe):
            raise ValueError(
                f"{self.folder} holds a run of another recipe ({path}): choose another folder, or delete it."
            )
        if distributed.leads():
            write_text(path, self.recipe.to_json())

    def refuse_another(self) -> None:
        """Of several processes, all have the same recipe and the same weights."""
        if distributed.size() == 1:
            return
        weights = hashlib.sha256()
        for x in self.model.state_dict().values():
            weights.update(x.detach().cpu().flatten().view(torch.uint8).numpy())
        if len(set(distributed.gathered((self.recipe.to_json(), self.iteration, weights.hexdigest())))) > 1:
            raise ValueError(
                f"The processes do not begin with the same recipe and weights: {self.folder} must be one "
                "folder that all machines see, and their U2Learn the same version."
            )

    def _resume(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        position = json.loads(metadata["position"])
        self.iteration, self.seconds, self.cpu_seconds = (
            position[key] for key in ("iteration", "seconds", "cpu_seconds")
        )
        self.memory = position.get("memory")
        self.best = -math.inf if position.get("best") is None else position["best"]
        self.since_best = position.get("since_best", 0)
        if position["scaler"]:  # it begins anew where it was not needed before: on another device, in 32 bits
            self.scaler.load_state_dict(position["scaler"])
        self.averaged.load_state_dict(with_prefix(tensors, "model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in with_prefix(tensors, "optimiser.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        for weight, kept in self.optimiser.state.items():  # a file knows one order in memory, and a GPU is
            for key, x in kept.items():  # slow where that of a kernel is another one
                if x.shape == weight.shape and x.ndim == 4:
                    kept[key] = torch.empty_like(weight).copy_(x)

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint, and a line that was cut in the middle."""
        log = self.folder / "log.jsonl"
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _iteration(line) <= self.iteration]
            write_text(log, "".join(line + "\n" for line in kept))

    @torch.no_grad()
    def _average(self) -> None:
        """Move the running mean towards the weights; over the first steps it is a plain mean."""
        share = max(1 - self.recipe.ema, 1 / self.iteration)
        weights = self.model.state_dict()
        for name, mean in self.averaged.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], share)
            else:
                mean.copy_(weights[name])


def names_digest(names: Sequence[str]) -> str:
    """A short word for which images these are."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def draw_curves(folder: Path, main: str) -> None:
    """Write curves.png, losses and score in the course of the training, where matplotlib is installed."""
    from u2learn.show.curves import run_curves  # below: pictures are made where they are asked for

    with contextlib.suppress(ImportError):
        run_curves(_lines(folder), main).savefig(folder / "curves.png", dpi=100)


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first; none before the first one."""
    return [line for line in _lines(folder) if "rate" not in line]


def read_losses(folder: str | Path) -> list[tuple[int, float]]:
    """Iteration and training loss (the mean since the line before) of a run, oldest first."""
    return [(line["iteration"], line["loss"]) for line in _lines(folder)]


def _lines(folder: str | Path) -> list[dict[str, Any]]:
    path = Path(folder) / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if math.isfinite(_iteration(line))]


def _is_recipe(text: str, recipe: Recipe) -> bool:
    """Compared as recipes: one that was written before a field existed has that field's default."""
    try:
        return Recipe.from_json(text) == recipe
    except ValueError:
        return False


def _iteration(line: str) -> float:
    try:
        return json.loads(line)["iteration"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf
