"""What test_distributed.py starts as several processes: once, as a start costs more than what they compute.

    torchrun --nproc-per-node=2 tests/several.py all.json train RECIPE.json --folder RUN --device cpu

The first process computes alone what one process would; then all join, compute the same together, and the
file says how far the two are from each other. The training that follows is stopped by its minutes and scored,
goes on, and ends when the first process is killed in it.
"""

import argparse
import copy
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from u2learn import cli, distributed, losses, measure, tasks, training
from u2learn.batches import TrainingData
from u2learn.data.augment import Augmentation
from u2learn.data.example import Example
from u2learn.models.conv import double_conv
from u2learn.models.frozen import UNCHANGING, FrozenNorm, freeze_folded_norms
from u2learn.models.heads import fcn_head
from u2learn.models.unet import UNet, nest
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES, MODELS
from u2learn.training import Run

WINDOWS = 12  # of a batch: for 1, 2, 3, 4 and 6 processes
KILLED_AT = 11  # of the iterations; the last checkpoint is that of 10


def with_dropout(num_classes: int) -> nn.Module:
    """A small net with all that the large one has: dropout and an auxiliary head."""
    body = nest([4, 8], [4], double_conv)
    return UNet(body, fcn_head(4, 4, num_classes, dropout=0.3), fcn_head(8, 4, num_classes, dropout=0.3))


OTHERS = {
    "mmseg1": losses.deep_supervision(losses.dice_mmseg1, (1, 0.4)),
    "paddle2022": losses.deep_supervision(losses.dice_paddle2022, (1, 0.4)),
    "reader's": lambda outputs, labels: outputs[0].std() + outputs[1].amax() * (labels == 1).sum(),
}
LOSS_NAMES = ("ce", "ce-dice", "paddle-ce", "paddle-dice", "small", "u2net", "bce-iou", *OTHERS)
TASK_OF = {"u2net": "saliency", "bce-iou": "saliency"}  # of the losses; the others take classes


def register(setitem) -> None:
    """What recipes here name."""
    setitem(MODELS, "with_dropout", with_dropout)
    for name, loss in OTHERS.items():
        setitem(LOSSES, name, loss)


EVERYTHING = Augmentation(
    scale=(0.5, 2), rotate=20, elastic=2, flips="hvt", max_share=0.75, photometric="paddleseg", jitter=0.1
)


def picture(seed: int, classes: int, side: int = 40) -> Example:
    """Noise that is brighter where the class is higher; some of it counts not, most in the first pictures."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    image = (rng.integers(0, 100, (3, side, side)) + 50 * label).astype(np.uint8)
    if classes > 2 or seed == 0:
        label[: max(1, side // 2 - 4 * seed)] = 255
    return Example(f"picture-{seed}", image, label, num_classes=classes)


def recipe(task: str, **changes) -> Recipe:
    values = {
        "name": "shared", "dataset": "synthetic", "model": "with_dropout", "batch": WINDOWS, "crop": (20, 20),
        "iterations": 20, "evaluations": 1, "optimiser": "sgd", "ema": 0.9, "augmentation": EVERYTHING,
    }  # fmt: skip
    kinds = {
        "binary": {"loss": "ce-dice"},
        "classes": {"num_classes": 4, "loss": "small", "optimiser": "adamw", "warm_up": 0.2},
        "saliency": {
            "num_classes": 1, "square": 32, "normalisation": "maximum", "loss": "bce-iou",
            "optimiser": "adam", "learning_rate": 0.001,
            "augmentation": Augmentation(flips="hvt", photometric="mmseg"),
        },
    }  # fmt: skip
    return Recipe(**values | kinds[task] | changes)


VARIANTS = {
    "binary": ("binary", {}),
    "classes, clipped": ("classes", {"clip": 0.05}),
    "saliency, half windows first": ("saliency", {"small_first": 0.5}),
    "accumulated": ("binary", {"accumulate": 2, "iterations": 6}),
}


def examples(it: Recipe, count: int) -> list[Example]:
    found = [picture(seed, max(2, it.num_classes)) for seed in range(count)]
    if it.task == "saliency":  # a mask has no pixels that count not
        found = [dataclasses.replace(each, label=each.label % 2) for each in found]
    return found


def double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def in_double(setattr) -> None:
    """From here on all is computed in double precision, in which rounding is no excuse.

    In single precision the least difference grows: after 24 steps a run is some 1e-3 away from what it is in
    double, whether one process makes it or several.
    """
    build, batch = Recipe.build_model, TrainingData.batch
    setattr(Recipe, "build_model", lambda it: build(it).double())
    setattr(TrainingData, "batch", lambda data, iteration: [double(x) for x in batch(data, iteration)])
    setattr(Tensor, "float", lambda x: x if x.dtype == torch.float64 and x.ndim == 4 else x.to(torch.float32))
    setattr(training, "mixed_precision", lambda device: torch.autocast("cpu", enabled=False))
    setattr(training, "CHECK_EVERY", 2)
    setattr(training, "draw_curves", lambda folder, main: None)  # matplotlib takes longer than the training


# --- what is computed, alone and together -------------------------------------------------------------------


def gradients(name: str) -> list[Tensor]:
    """The loss, and the gradient of every weight, of a batch that has pictures of all kinds in it."""
    it = recipe(TASK_OF.get(name, "classes"), augmentation=Augmentation())
    torch.manual_seed(0)
    model = with_dropout(it.num_classes).double().train()
    distributed.synchronise(model)
    images, target = TrainingData(it, examples(it, 5), "cpu").batch(0)
    outputs = [distributed.whole(x) for x in model(images)]
    seen = outputs[:1] if name.startswith("paddle-") else outputs  # PaddleSeg's nets have no auxiliary head
    loss = LOSSES[name](seen, distributed.whole(target))
    loss.backward()
    distributed.sum_gradients(model)
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def stepped(it: Recipe) -> dict[str, Tensor]:
    """The weights after all steps, and the running statistics."""
    with tempfile.TemporaryDirectory() as folder:
        run, data = Run(it, Path(folder), "cpu"), TrainingData(it, examples(it, 5), "cpu")
        run.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=bool(it.clip))
        while not run.finished:
            run.step(*data.batch(run.iteration))
        found = {f"raw.{name}": x for name, x in run.model.state_dict().items()}
        return found | dict(run.averaged.state_dict())


def in_half() -> list[Tensor]:
    """The gradient of one step whose convolutions are in 16 bits, in units of its length."""
    it = recipe("binary", ema=0.0)
    with tempfile.TemporaryDirectory() as folder:
        run, data = Run(it, Path(folder), "cpu"), TrainingData(it, examples(it, 5), "cpu")
        run.autocast = torch.autocast("cpu", torch.bfloat16)
        run.model.to(torch.float32)
        run.step(*(x.to(torch.float32) if x.is_floating_point() else x for x in data.batch(0)))
        gradient = torch.cat([p.grad.flatten() for p in run.model.parameters()])
        return [gradient / gradient.norm()]


def evaluated(task: str) -> dict:
    """The scores of 5 images, which no number of processes divides."""
    it = recipe(task)
    torch.manual_seed(1)
    seen = examples(it, 5)
    scorer = tasks.evaluate(with_dropout(it.num_classes), it, seen, full=False)
    return {"images": len(scorer), **scorer.result()["image"], "interval": scorer.interval()}


def normalised(x: Tensor, norm: nn.BatchNorm2d) -> list[Tensor]:
    """Output, gradients and statistics of a batch norm, twice; of `x`, the windows of this process."""
    norm, mine = copy.deepcopy(norm), x[distributed.share(len(x))].clone().requires_grad_()
    model = nn.Sequential(norm)
    distributed.synchronise(model)
    for _ in range(2):
        y = model(mine)
        (y.float() ** 3 * torch.linspace(0, 1, y.shape[-1])).sum().backward()
    distributed.sum_gradients(model)
    both = [distributed.whole(t.detach()) for t in (y, mine.grad)]
    return [*both, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


def norm_cases() -> dict[str, tuple[Tensor, nn.BatchNorm2d]]:
    torch.manual_seed(2)
    x, norm = torch.randn(WINDOWS, 3, 5, 7), nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight)
    far = x + 1000 * torch.arange(3)[:, None, None]  # where squares would lose the digits of the variance
    last = x.contiguous(memory_format=torch.channels_last)
    uneven = x * torch.arange(1, WINDOWS + 1)[:, None, None, None]  # windows that differ in mean and spread
    return {
        "float": (x, norm),
        "double": (uneven.double(), copy.deepcopy(norm).double()),
        "channels last": (last, norm),
        "far from zero": (far, norm),
        "bfloat16": (x.bfloat16(), norm),
    }


def cut() -> list[Tensor]:
    """Batches of the most various recipes: every window is there once, and looks the same whoever cuts it."""
    found = []
    for name, (task, changes) in VARIANTS.items():
        it = recipe(task, **changes)
        for photometric in ("mmseg", "paddleseg") if name == "binary" else (it.augmentation.photometric,):
            augment = dataclasses.replace(it.augmentation, photometric=photometric)
            data = TrainingData(dataclasses.replace(it, augmentation=augment), examples(it, 5), "cpu")
            found += [distributed.whole(x) for x in (*data.batch(3), *data.batch(11))]
    return found


def frozen() -> bool:
    """A norm that was folded stays what it is."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    for name, value in UNCHANGING.items():
        nn.init.constant_(getattr(model[0], name), value)
    freeze_folded_norms(model)
    distributed.synchronise(model)
    return type(model[0]) is FrozenNorm and type(model[1]) is distributed.SharedNorm


def compiled() -> float:
    """One graph, without a break, that gives what the modules do."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3))
    distributed.synchronise(model)
    graph = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True, dynamic=False)
    x, found = torch.randn(4, 3, 9, 9), []
    for each in (model, graph):
        torch.manual_seed(4)
        each(x).square().sum().backward()
        found.append([p.grad for p in each.parameters()])
    return distance(*found)


def messages() -> int:
    """How many messages a step sends."""
    it, sent, together = recipe("binary", ema=0.0), [], distributed._together
    with tempfile.TemporaryDirectory() as folder:
        run, data = Run(it, Path(folder), "cpu"), TrainingData(it, examples(it, 5), "cpu")
        distributed._together = lambda *operation: sent.append(together(*operation))
        run.step(*data.batch(0))
        distributed._together = together
    return len(sent)


def refused() -> list[str]:
    """What several processes cannot do, in one sentence each."""
    said = []
    for make in (
        lambda: distributed.share(7),
        lambda: distributed.synchronise(nn.Sequential(nn.Dropout())),
        lambda: TrainingData(recipe("binary", batch=7), examples(recipe("binary"), 2), "cpu"),
    ):
        try:
            make()
        except ValueError as error:
            said.append(str(error))
    return said


def distance(ours: object, due: object) -> float:
    """How far two results are from each other, at the most, in units of the largest number of each tensor."""
    if isinstance(due, Tensor):
        size = max(1.0, float(due.double().abs().max()))
        return float((ours.double() - due.double()).abs().max()) / size
    if isinstance(due, dict):
        assert set(ours) == set(due)
        return max(distance(ours[name], due[name]) for name in due)
    if isinstance(due, (list, tuple)):
        return max(distance(a, b) for a, b in zip(ours, due, strict=True))
    return float(ours != due and not (ours != ours and due != due))  # scores: equal, or both not a number


def everything() -> dict:
    found = {f"gradients {name}": gradients(name) for name in LOSS_NAMES}
    found |= {f"steps {name}": stepped(recipe(task, **changes)) for name, (task, changes) in VARIANTS.items()}
    found |= {f"scores {task}": evaluated(task) for task in ("binary", "classes", "saliency")}
    found |= {f"norm {name}": normalised(*case) for name, case in norm_cases().items()}
    return found | {"batches": cut(), "half precision": in_half()}


def main() -> None:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    register(patch.setitem)
    in_double(patch.setattr)
    training.SAVE_SECONDS = 0
    answers, *command = sys.argv[1:]
    alone = everything() if os.environ["RANK"] == "0" else {}
    train, step = cli.train, Run.step

    def killed(run: Run, images: Tensor, target: Tensor) -> Tensor:
        if run.iteration == KILLED_AT and distributed.leads():
            Path(f"{answers}.time").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return step(run, images, target)

    def first_compare(options: argparse.Namespace) -> None:
        together = everything()
        told = {name: distance(together[name], alone[name]) for name in alone}
        told |= {"refused": refused(), "frozen": frozen(), "compiled": compiled(), "messages": messages()}
        if distributed.leads():
            Path(answers).write_text(json.dumps(told))
        train(argparse.Namespace(**vars(options) | {"minutes": 0}))
        measured = options.folder.with_name("measured")
        with distributed.leader_first():
            if distributed.leads():
                shutil.copytree(options.folder, measured)
        patch.undo()  # a record is made in single precision
        register(patch.setitem)
        patch.setattr(measure, "SPEED_SECONDS", 0.05)
        cli.evaluate(cli._parser().parse_args(["evaluate", str(measured), "--record", "--device", "cpu"]))
        in_double(patch.setattr)
        Run.step = killed
        train(options)

    cli.train = first_compare
    cli.main(command)


if __name__ == "__main__":
    main()
