"""A run that is killed at any byte resumes to the same weights: real processes, real SIGKILL, bit for bit.

One helper process imports PyTorch once and then forks a training for every order it gets. The training is
killed by the test at random moments, or kills itself at the worst: in the middle of a write, or between two.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from u2learn.models.weights import read_tensors

SCRIPT = r'''
import json, os, signal, sys, threading, time, traceback
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from u2learn import training
from u2learn.data.augment import Augmentation
from u2learn.data.example import Example
from u2learn.models import weights
from u2learn.models.conv import double_conv
from u2learn.models.heads import fcn_head
from u2learn.models.unet import UNet, nest
from u2learn.recipe import Recipe
from u2learn.registry import MODELS

torch.set_num_threads(1)
training.CHECK_EVERY = 2


def with_dropout(num_classes):
    """A small net with all that the large one has: dropout and an auxiliary head."""
    body = nest([4, 8], [4], double_conv)
    return UNet(body, fcn_head(4, 4, num_classes, dropout=0.3), fcn_head(8, 4, num_classes, dropout=0.3))


MODELS["with_dropout"] = with_dropout


def example(seed):
    rng = np.random.default_rng(seed)
    label = (rng.random((28, 30)) < 0.2).astype(np.uint8)
    image = (rng.integers(0, 120, (3, 28, 30)) + 100 * label).astype(np.uint8)
    return Example(f"example-{seed}", image, label)


def recipe(optimiser, ema):
    if optimiser == "adam":  # saliency: one class, masks, squeezed images
        return Recipe(
            "killed", "objects", "with_dropout", num_classes=1, square=28, normalisation="maximum",
            crop=(20, 20), batch=3, loss="bce-iou", optimiser="adam", ema=ema, iterations=24, evaluations=4,
            augmentation=Augmentation(flips="hvt", max_share=0.75),
        )
    all_kinds = {"rotate": 20, "flips": "hvt", "max_share": 0.75, "photometric": "paddleseg", "jitter": 0.1}
    return Recipe(
        "killed", "synthetic", "with_dropout", optimiser=optimiser, ema=ema, loss="ce-dice", batch=3,
        crop=(20, 20), learning_rate=0.01, iterations=24, evaluations=4,
        augmentation=Augmentation(scale=(0.5, 2), **all_kinds),
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment, count):
    """Let one kind of write kill the process at its `count`-th use: before, in or after its work."""
    state = {"left": count}

    def now(right_call):
        state["left"] -= right_call
        return right_call and state["left"] == 0

    replace, save_file, log = os.replace, weights.save_file, training.Run.log
    if moment == "half a checkpoint":
        def save_file_half(tensors, path, metadata=None):
            save_file(tensors, path, metadata)
            if now(True):
                os.truncate(path, os.path.getsize(path) // 2)
                die()
        weights.save_file = save_file_half
    elif moment in ("before the rename", "after the rename"):
        def replace_and_die(source, target):
            last = now(str(target).endswith("checkpoint.safetensors"))
            if last and moment == "before the rename":
                die()
            replace(source, target)
            if last:
                die()
        os.replace = replace_and_die
    elif moment in ("half a line of the log", "a line of the log"):
        def log_and_die(run, line):
            if not now(True):
                return log(run, line)
            text = json.dumps(line) + "\n"
            with open(run.folder / "log.jsonl", "a") as file:
                file.write(text if moment == "a line of the log" else text[: len(text) // 2])
            die()
        training.Run.log = log_and_die
    elif moment == "half a trimmed log":
        write_text = Path.write_text
        def write_half(path, text, *rest, **kinds):
            if now(path.name.startswith("log")):
                write_text(path, text[: len(text) // 2], *rest, **kinds)
                die()
            return write_text(path, text, *rest, **kinds)
        Path.write_text = write_half
    elif moment == "half a recipe":
        write_text = Path.write_text
        def write_half(path, text, *rest, **kinds):
            write_text(path, text[: len(text) // 2], *rest, **kinds)
            die()
        Path.write_text = write_half


def train(order):
    examples = [example(i) for i in range(4)]
    it = recipe(order["optimiser"], order["ema"])
    training.train(it, order["folder"], examples, [example(9)], device="cpu", progress=False)


tqdm.monitor_interval = 0  # a thread that would take that lock, too
train({"optimiser": "sgd", "ema": 0.0, "folder": sys.argv[1]})  # PyTorch's first use takes long
print("ready", flush=True)
for order in sys.stdin:
    order = json.loads(order)
    child = os.fork()
    if child == 0:
        status = 1
        # The lock of the bars belongs to all of these processes, and one is killed while it holds it.
        tqdm.set_lock(threading.RLock())
        try:
            training.SAVE_SECONDS = order["save_seconds"]
            if order["moment"]:
                die_at(order["moment"], order["count"])
            if order["slow"]:
                step = training.Run.step
                training.Run.step = lambda *inputs: (time.sleep(order["slow"]), step(*inputs))[1]
            train(order)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''


class Trainer:
    """Starts trainings in processes of their own and says how they ended."""

    def __init__(self, folder: Path):
        script = folder / "trainer.py"
        script.write_text(SCRIPT)
        root = str(Path(__file__).parent.parent)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder / "first")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, folder, variant, moment=None, count=1, kill_after=None, save_seconds=0, slow=0.0) -> int:
        """Exit status: 0 finished, -9 killed."""
        optimiser, ema = variant
        order = {
            "folder": str(folder), "optimiser": optimiser, "ema": ema, "moment": moment, "count": count,
            "save_seconds": save_seconds, "slow": slow,
        }  # fmt: skip
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(os, "fork"), reason="processes are forked and killed as on Linux and macOS"
    ),
]
VARIANTS = [("sgd", 0.0), ("sgd", 0.9), ("adamw", 0.0), ("adamw", 0.9), ("adam", 0.9)]
MOMENTS = [
    ("half a recipe", 1),
    ("half a checkpoint", 1),
    ("half a checkpoint", 6),
    ("before the rename", 5),
    ("after the rename", 5),
    ("a line of the log", 1),
    ("a line of the log", 3),
    ("half a line of the log", 1),
    ("half a line of the log", 2),
]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    it = Trainer(tmp_path_factory.mktemp("trainer"))
    yield it
    it.close()


@pytest.fixture(scope="module")
def uninterrupted(trainer, tmp_path_factory):
    """An undisturbed run of each variant, saved only at its evaluations; and the seconds of the longest."""
    folders, seconds = {}, 0.0
    for variant in VARIANTS:
        folders[variant] = tmp_path_factory.mktemp("uninterrupted") / "run"
        started = time.monotonic()
        assert trainer.run(folders[variant], variant, save_seconds=1e9) == 0
        seconds = max(seconds, time.monotonic() - started)
    return folders, seconds


def assert_same_run(folder: Path, due: Path) -> None:
    got, wanted = (load_file(f / "checkpoint.safetensors") for f in (folder, due))
    assert set(got) == set(wanted)
    different = [name for name in wanted if not torch.equal(got[name], wanted[name])]
    assert not different
    assert (folder / "log.jsonl").read_text() == (due / "log.jsonl").read_text()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "rate" not in line]) == 4 and len(lines) == 12  # and losses
    assert (folder / "recipe.json").read_text() == (due / "recipe.json").read_text()
    positions = [json.loads(read_tensors(f / "checkpoint.safetensors")[1]["position"]) for f in (folder, due)]
    assert [p["iteration"] for p in positions] == [24, 24]
    assert not list(folder.glob("*.tmp"))


def test_the_uninterrupted_run_is_a_training(uninterrupted):
    """Weights move, norms count, and the variants differ: equality below means something."""
    folders, _ = uninterrupted
    runs = [load_file(folders[v] / "checkpoint.safetensors") for v in VARIANTS]
    kernel = "model.body.encode.0.conv.weight"
    assert all(not torch.equal(a[kernel], b[kernel]) for i, a in enumerate(runs) for b in runs[:i])
    assert runs[0]["model.body.encode.0.norm.num_batches_tracked"] == 24
    assert any(name.startswith("raw.") for name in runs[1]) and not any(
        name.startswith("raw.") for name in runs[0]
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=["sgd", "sgd-ema", "adamw", "adamw-ema", "saliency"])
def test_killed_at_random_moments(trainer, uninterrupted, variant, tmp_path):
    """At least four kills at random times in one run, while it saves every other iteration."""
    folders, seconds = uninterrupted
    rng = random.Random(VARIANTS.index(variant))
    folder, kills, attempts = tmp_path / "run", 0, 0
    while kills < 4:
        attempts += 1
        assert attempts < 40
        delay = rng.uniform(0.05, 0.45) * seconds
        if trainer.run(folder, variant, kill_after=delay, slow=0.01) == -signal.SIGKILL:
            kills += 1
        else:  # it was done before the signal came: begin again, and be quicker
            folder, kills, seconds = tmp_path / f"run{attempts}", 0, seconds / 2
    assert trainer.run(folder, variant) == 0
    assert_same_run(folder, folders[variant])


@pytest.mark.parametrize(("moment", "count"), MOMENTS)
def test_killed_at_the_worst_moments(trainer, uninterrupted, moment, count, tmp_path):
    folders, _ = uninterrupted
    variant = VARIANTS[(len(moment) + count) % len(VARIANTS)]
    folder = tmp_path / "run"
    assert trainer.run(folder, variant, moment, count) == -signal.SIGKILL
    if (folder / "checkpoint.safetensors").exists():
        load_file(folder / "checkpoint.safetensors")  # whatever happened, it is whole
    assert trainer.run(folder, variant) == 0
    assert_same_run(folder, folders[variant])


def test_killed_again_and_again_while_saving(trainer, uninterrupted, tmp_path):
    """Every attempt gets a few saves further, and dies in the middle of one; then while it tidies its log."""
    folders, _ = uninterrupted
    variant, folder = ("adamw", 0.9), tmp_path / "run"
    for moment, count in (("half a checkpoint", 3), ("after the rename", 4), ("half a line of the log", 1)):
        assert trainer.run(folder, variant, moment, count) == -signal.SIGKILL
    trainer.run(folder, variant, "half a trimmed log", 1)  # dies if there is anything to trim
    assert trainer.run(folder, variant) == 0
    assert_same_run(folder, folders[variant])
