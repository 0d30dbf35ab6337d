"""Checks of assignment 8: a vessel segmenter of one's own, and the evaluator of its leaderboard."""

from collections.abc import Sequence
from functools import cache, partial
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import Answer, Cases, Mistake, call, integers, normal, question, shown
from u2learn.data.drawn.retina import fundus
from u2learn.data.example import Example
from u2learn.metrics.overlap import OverlapScores

SIZE = (144, 140)  # of the drawn eyes
PARAMETERS = 100_000  # that a network may have


@question("8.1", "darkness")
def darkness(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the map", 1e-5)
    for _ in range(8):
        H, W = integers(g, (20, 26), (28, 34))
        image = torch.randint(0, 256, (3, H, W), generator=g, dtype=torch.uint8)
        width = 2 * integers(g, (1, 6))[0] + 1
        green = image[1].float() / 255
        near = dark_map(green, width)
        suspects = {
            "it is the green channel, number 1: red is 0, blue is 2": dark_map(image[0].float() / 255, width),
            "it is the green channel, not the mean of all three": dark_map(
                image.float().mean(0) / 255, width
            ),
            "the sign is wrong: a dark pixel should be positive": -near,
            "bytes were not divided by 255": near * 255,
            "the zeros around the image count in the mean, so that its border looks bright": (
                dark_map(green, width, zeros=True)
            ),
            "that is the mean of the surroundings: take the pixel off it": near + green,
            "compare with the surroundings of this pixel, not with the whole image": green.mean() - green,
        }
        got = call(answer, image, width)
        cases.add(got, near, suspects, f"image {tuple(image.shape)}, width {width}")
    return cases.done("8 random images agree, at the border too.")


def dark_map(green: Tensor, width: int, zeros: bool = False) -> Tensor:
    mean = F.avg_pool2d(green[None], width, 1, width // 2, count_include_pad=zeros)[0]
    return mean - green


@question("8.2", "rate")
def rate(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(6):
        steps, peak = 10 * integers(g, (4, 12))[0], 0.001 * integers(g, (1, 9))[0]
        warm = steps // 10
        for step in (0, 1, warm - 1, warm, warm + 1, steps // 2, steps - 2, steps - 1):
            want = one_cycle(step, steps, peak)
            part = (step - warm) / (steps - warm)
            suspects = {
                "the first step has the rate 0, and is lost: count from 1 in the warm-up": (
                    peak * step / warm if step < warm else want
                ),
                "there is no warm-up": peak * (1 + cos(pi * step / steps)) / 2,
                "the cosine begins behind the warm-up, at the peak": (
                    peak * (step + 1) / warm if step < warm else peak * (1 + cos(pi * step / steps)) / 2
                ),
                "the cosine goes down to 0: it is half of (1 + cos)": (
                    want if step < warm else peak * cos(pi / 2 * part)
                ),
                "it stays at the peak": min(want, peak) if step < warm else peak,
                "behind the warm-up the rate falls along a cosine, not a line": (
                    want if step < warm else peak * (1 - part)
                ),
            }
            cases.add(call(answer, step, steps, peak), want, suspects, f"rate({step}, {steps}, {peak:.3f})")
    return cases.done("6 random schedules warm up, reach their peak and go down along a cosine.")


def one_cycle(step: int, steps: int, peak: float) -> float:
    warm = steps // 10
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1 + cos(pi * (step - warm) / (steps - warm))) / 2


class Spy(nn.Module):
    """A network that remembers in which mode it was asked, and for what."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> list[Tensor]:
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
            raise Mistake(f"the network takes a batch of images (1, 3, H, W), and got {shown(x)}.")
        if not x.is_floating_point():
            raise Mistake(
                f"the network takes floating-point numbers, and got {shown(x)}: normalise the image."
            )
        if self.training:
            raise Mistake("the network was asked in training mode: call net.eval() first.")
        return [F.conv2d(x, self.weight, padding=1), -F.conv2d(x, self.weight, padding=1)]


@question("8.3", "segment_image")
def segment_image(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the probabilities")
    for _ in range(6):
        H, W = integers(g, (15, 20), (23, 29))
        image = torch.randint(0, 256, (3, H, W), generator=g, dtype=torch.uint8) // torch.tensor(
            [1, 2, 4], dtype=torch.uint8
        ).reshape(3, 1, 1)
        net = Spy(normal(g, 2, 3, 3, 3))
        got = call(answer, net, image)
        net.eval()
        std, mean = torch.std_mean(image.float(), (1, 2), keepdim=True)
        ask = partial(asked, net)
        logits = ask((image - mean) / std)
        suspects = {
            "logits come out: take the softmax over the classes": logits,
            "the batch axis is still there: take the first (and only) image": logits.softmax(0)[None],
            "the softmax runs over the rows: classes are on axis 0 of one image": logits.softmax(1),
            "the image is only divided by 255: each channel should have mean 0 and deviation 1": (
                ask(image.float() / 255).softmax(0)
            ),
            "the image is not normalised": ask(image.float()).softmax(0),
            "mean and deviation are those of the whole image: each channel has its own": (
                ask((image - image.float().mean()) / image.float().std()).softmax(0)
            ),
            "that is the vessel's probability alone: return both classes, (2, H, W)": logits.softmax(0)[1],
            "the decision comes out, not the probability": logits.argmax(0),
            "the second output was taken: the main one comes first": (-logits).softmax(0),
            "sigmoid is not softmax: the two classes exclude each other": logits.sigmoid(),
        }
        cases.add(got, logits.softmax(0), suspects, f"image {tuple(image.shape)}")
    return cases.done("6 random images, of any size, give the probabilities of both classes.")


def asked(net: Spy, x: Tensor) -> Tensor:
    return net(x[None])[0][0]


@cache
def eyes(seeds: Sequence[int]) -> list[Example]:
    return [fundus(seed, SIZE) for seed in seeds]


def evaluate(net: nn.Module, segment: Answer, seeds: Sequence[int]) -> tuple[float, float]:
    """Dice of a network and of the baseline on drawn eyes: totals over the full images, threshold 1/2.

    Raises:
        Mistake: what comes out is no prediction.
    """
    scores, baseline, exchanged = OverlapScores(), OverlapScores(), OverlapScores()
    for eye in eyes(tuple(seeds)):
        image = torch.from_numpy(eye.image)
        p = call(segment, net, image.clone())
        if not isinstance(p, Tensor) or tuple(p.shape) != (2, *SIZE):
            raise Mistake(
                f"segment_image gives {shown(p)}, expected probabilities (2, {SIZE[0]}, {SIZE[1]})."
            )
        if not bool(p.isfinite().all()):
            raise Mistake("the network gives NaN: it diverged. Try a tenth of the learning rate.")
        try:
            scores.add(p, eye.label)
            exchanged.add(p.flip(0), eye.label)
        except ValueError as error:
            raise Mistake(str(error)) from None
        dark = (dark_map(image[1].float() / 255, 15) > 0.05).float()
        baseline.add(torch.stack([1 - dark, dark]), eye.label)
    dice, low = scores.score()["dice"], baseline.score()["dice"]
    if dice <= low and exchanged.score()["dice"] > max(low, 0.5):
        raise Mistake("class 1 is the vessel, class 0 the background: yours are exchanged.")
    if dice < 0.01:
        raise Mistake(
            f"Dice is {dice:.3f}: hardly a pixel is called vessel. Is the network trained, and does every "
            "label lie on its image? Look at a batch."
        )
    return dice, low


@question("8.4", "your network")
def network(g: torch.Generator, net: nn.Module, segment: Answer) -> str:
    count = sum(x.numel() for x in dict(call(net.state_dict)).values())
    if count > PARAMETERS:
        raise Mistake(f"the network has {count:,} numbers, {PARAMETERS:,} are allowed.")
    dice, low = evaluate(net, segment, (100, 101, 102))
    if dice < low + 0.1:
        raise Mistake(
            f"Dice is {dice:.3f} on three eyes that it has not seen, the baseline has {low:.3f}; 0.1 more is "
            "due. Does every label lie on its image? Look at a batch; then train longer, or at another rate."
        )
    return f"Dice {dice:.3f} on three eyes that it has not seen; the baseline has {low:.3f}."
