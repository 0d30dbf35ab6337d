"""The project of the course: its rules, its baseline and its score, for students and for the grader alike.

    from u2learn.project import SIZE, evaluate, spent

A machine is measured in the middle of its work: a small training step (`Pace`) says how many times slower
than the reference machine it is just now, so that a second means the same on every machine, busy or not.
"""

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.data.drawn.retina import fundus
from u2learn.data.example import Example
from u2learn.metrics.overlap import confusion, scores
from u2learn.models.unet import unet_small

SIZE = (144, 140)  # of the drawn eyes
PARAMETERS = 100_000  # numbers that a network may have, buffers included
SECONDS = 120  # that all cells together may use: processor time, on the reference machine
CODE = 4_000  # bytes of all code cells together, compressed: little room for weights
DUE = 0.1  # Dice above the baseline
STEP = 0.0125  # seconds of processor time that a step of `Pace` takes on the reference machine


def baseline(image: Tensor) -> Tensor:
    """Probabilities (2, H, W), all 0 or 1: vessel where green is 0.05 darker than the mean around it.

    image: uint8 (3, H, W). The mean is that of 15 x 15 pixels, those outside of the image not counted.
    """
    green = image[1].float() / 255
    around = F.avg_pool2d(green[None], 15, stride=1, padding=7, count_include_pad=False)[0]
    vessel = (around - green > 0.05).float()
    return torch.stack([1 - vessel, vessel])


def checked(p: Any) -> Tensor:
    """`p`, if it holds the probabilities of both classes for a drawn eye, (2, H, W).

    Raises:
        ValueError: it does not, in words for a student.
    """
    if not isinstance(p, Tensor) or tuple(p.shape) != (2, *SIZE):
        got = f"a tensor {tuple(p.shape)}" if isinstance(p, Tensor) else f"a {type(p).__name__}"
        raise ValueError(f"segment_image gives {got}, expected probabilities (2, {SIZE[0]}, {SIZE[1]}).")
    if not bool(p.isfinite().all()):
        raise ValueError("the network gives NaN: it diverged. Try a tenth of the learning rate.")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("a probability lies outside of [0, 1]: apply softmax to the logits first.")
    return p


def counts(answers: Iterable[Tensor], eyes: Iterable[Example]) -> Tensor:
    """Pixels of each eye by label (rows) and by answer (columns): vessel where p > 1/2. (eyes, 2, 2)"""
    pairs = zip(answers, eyes, strict=True)
    return torch.stack([confusion((p[1] > 0.5).long(), eye.label, 2) for p, eye in pairs])


def dice(counted: Tensor) -> float:
    """Dice of the vessels from pixel totals over all eyes; 0 where no pixel is called vessel."""
    return scores(counted.sum(0))["dice"]


@cache
def known(seed: int) -> Example:
    return fundus(seed, SIZE)


def evaluate(net: nn.Module, segment: Callable, seeds: Iterable[int]) -> tuple[float, float]:
    """Dice of a network and of the baseline on the eyes of these seeds.

    segment: as `segment_image` of the assignment.

    Raises:
        ValueError: what it gives is no prediction.
    """
    eyes = [known(seed) for seed in seeds]
    images = [torch.from_numpy(eye.image) for eye in eyes]
    mine = counts([checked(segment(net, image.clone())) for image in images], eyes)
    return dice(mine), dice(counts(map(baseline, images), eyes))


class Pace:
    """Does a small piece of training over and over, to see how fast this machine is just now."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net, self.images = unet_small(width=8, depth=2), torch.randn(2, 3, 64, 64)
        self.labels = (self.images[:, 0] > 0).long()
        self.slower()  # the first step is no measure: it also prepares

    def slower(self) -> float:
        """How many times slower than the reference machine this one is; takes about 1/80 second."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        started = time.thread_time()
        with torch.enable_grad():
            F.cross_entropy(self.net(self.images)[0], self.labels).backward()
        taken = time.thread_time() - started
        torch.set_num_threads(threads)
        return taken / STEP


def spent() -> float:
    """Seconds of the reference machine that this process has used so far: a notebook may use SECONDS.

    The grader counts the same, and from the first cell on; it can be some seconds away from what you see.
    """
    pace = Pace()
    return time.process_time() / (sum(pace.slower() for _ in range(8)) / 8)
