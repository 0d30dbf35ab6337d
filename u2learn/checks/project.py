"""Checks of assignment 8: a vessel segmenter of one's own.

What the answers should be is computed inside of the questions, so that nobody can import it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.checks.core import Answer, Cases, Mistake, call, integers, normal, question, same, shown
from u2learn.checks.reading import Refusal
from u2learn.data.drawn.retina import fundus
from u2learn.data.example import Example
from u2learn.project import DUE, PARAMETERS, SIZE, baseline, checked, counts, dice, known

KNOWN = (100, 101, 102)  # the eyes that students test on


@question("8.1", "darkness", Refusal("take the mean of the surroundings yourself, with F.avg_pool2d."))
def darkness(g: torch.Generator, answer: Answer) -> str:
    def dark(plane: Tensor, width: int, outside: bool = False) -> Tensor:
        rows, columns = (size + 2 * (width // 2) for size in plane.shape)
        padded, there = torch.zeros(rows, columns), torch.full((rows, columns), float(outside))
        inner = (slice(width // 2, rows - width // 2), slice(width // 2, columns - width // 2))
        padded[inner], there[inner] = plane, 1.0
        total, count = (x.unfold(0, width, 1).unfold(1, width, 1).sum((-1, -2)) for x in (padded, there))
        return total / count - plane

    cases = Cases("the map", 1e-5)
    for _ in range(8):
        H, W = integers(g, (20, 26), (28, 34))
        image = torch.randint(0, 256, (3, H, W), generator=g, dtype=torch.uint8)
        width = 2 * integers(g, (1, 6))[0] + 1
        green = image[1].float() / 255
        near = dark(green, width)
        suspects = {
            "it is the green channel, number 1: red is 0, blue is 2": dark(image[0].float() / 255, width),
            "it is the green channel, not the mean of all three": dark(image.float().mean(0) / 255, width),
            "the sign is wrong: a dark pixel should be positive": -near,
            "bytes were not divided by 255": near * 255,
            "the zeros around the image count in the mean, so that its border looks bright": (
                dark(green, width, outside=True)
            ),
            "that is the mean of the surroundings: take the pixel off it": near + green,
            "compare with the surroundings of this pixel, not with the whole image": green.mean() - green,
        }
        got = call(answer, image, width)
        cases.add(got, near, suspects, f"image {tuple(image.shape)}, width {width}")
    return cases.done("8 random images agree, at the border too.")


@question("8.2", "rate", Refusal("write it as arithmetic."))
def rate(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(6):
        steps, peak = 10 * integers(g, (4, 12))[0], 0.001 * integers(g, (1, 9))[0]
        warm = steps // 10
        for step in (0, 1, warm - 1, warm, warm + 1, steps // 2, steps - 2, steps - 1):
            part = (step - warm) / (steps - warm)
            want = peak * (step + 1) / warm if step < warm else peak * (1 + cos(pi * part)) / 2
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


@question(
    "8.3",
    "segment_image",
    Refusal("normalise, ask and take the softmax yourself.", given=("u2learn.project",)),
)
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


def segmented(net: Any, segment: Answer, eye: Example) -> Tensor:
    """What a student's function gives for an eye: probabilities (2, H, W).

    Raises:
        Mistake: it raises something, or gives something else.
    """
    try:
        return checked(call(segment, net, torch.from_numpy(eye.image.copy())))
    except ValueError as error:
        raise Mistake(str(error)) from None


def weights_of(net: Any) -> dict[str, Tensor]:
    """The numbers of a network by name, four bytes each: nothing but what is counted can hide in them.

    Raises:
        Mistake: they are more than PARAMETERS, or no tensors.
    """
    if not hasattr(net, "state_dict"):
        raise Mistake(f"expected a network, an nn.Module, got {shown(net)}.")
    state = call(net.state_dict)
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise Mistake(f"net.state_dict() should give tensors by name, got {shown(state)}.")
    count = sum(x.numel() for x in state.values())
    if count > PARAMETERS:
        raise Mistake(f"the network has {count:,} numbers, {PARAMETERS:,} are allowed.")
    return {
        str(k): x.detach().to(torch.float32 if x.is_floating_point() else torch.int32, copy=True)
        for k, x in state.items()
    }


def load(weights: Mapping[str, Tensor], make: Answer) -> Any:
    """A network of `make_net` with these weights.

    Raises:
        Mistake: it makes another network, or gives the trained one back.
    """
    copy = call(make)
    blank = weights_of(copy)
    for name in [*weights, *blank]:
        pair = [tuple(w[name].shape) if name in w else "not there" for w in (weights, blank)]
        if pair[0] != pair[1]:
            raise Mistake(
                f"make_net() makes another network than `net`: {name[:60]!r} is {pair[0]} in the state_dict "
                f"of net, and {pair[1]} in that of make_net()."
            )
    if weights and all(torch.equal(weights[name], blank[name]) for name in weights):
        raise Mistake(
            "make_net() has the very weights of `net`: it should make a new network; then net is trained."
        )
    call(copy.load_state_dict, dict(weights))
    return copy


def judged(answers: Sequence[Tensor], eyes: Sequence[Example]) -> tuple[Tensor, float]:
    """The counts of each eye, and the Dice of the baseline.

    Raises:
        Mistake: the network is not better than the baseline by DUE; why, if it can be seen.
    """
    mine = counts(answers, eyes)
    low = dice(counts([baseline(torch.from_numpy(eye.image)) for eye in eyes], eyes))
    got, exchanged = dice(mine), dice(counts([p.flip(0) for p in answers], eyes))
    due = f"Dice is {got:.3f} on eyes that it has not seen, the baseline has {low:.3f}; {DUE} more is due"
    if got >= low + DUE:
        return mine, low
    if all(agree(p, answers[0]) for p in answers[1:]):
        raise Mistake(
            f"Dice is {got:.3f}, and all eyes get the same answer. Does the network look at its image? Or "
            "did it collapse: try a tenth of the learning rate."
        )
    if exchanged > max(low, 0.5):
        raise Mistake("class 1 is the vessel, class 0 the background: yours are exchanged.")
    if got < 0.01:
        raise Mistake(
            f"Dice is {got:.3f}: hardly a pixel is called vessel. Is the network trained, and does every "
            "label lie on its image? Look at a batch."
        )
    raise Mistake(
        f"{due}. Does every label lie on its image? Look at a batch; then train longer, or at another rate."
    )


@question("8.4", "your network")
def network(g: torch.Generator, make: Answer, net: nn.Module, segment: Answer) -> str:
    weights = weights_of(net)
    copy = load(weights, make)
    eyes = [fundus(seed, SIZE) for seed in integers(g, *[(1 << 32, 1 << 62)] * 3)]
    answers = [segmented(net, segment, eye) for eye in eyes]
    after = weights_of(net)
    if any(not torch.equal(weights[name].nan_to_num(), after[name].nan_to_num()) for name in weights):
        raise Mistake(
            "the weights change although nobody trains: does a thread go on, or segment_image learn?"
        )
    repeated(partial(segmented, net, segment), answers, eyes)
    if agree(segmented(call(make), segment, eyes[0]), answers[0]):
        raise Mistake(
            "segment_image gives the same for a network without training: use the `net` it is given."
        )
    if not agree(segmented(copy, segment, eyes[0]), answers[0]):
        raise Mistake(
            "a network of make_net() with the weights of `net` gives another answer than `net`. What is not "
            "in its state_dict does not count: put layers into nn.ModuleList, tensors into register_buffer."
        )
    try:
        mine, low = judged(answers, eyes)
    except Mistake as mistake:
        seen = [known(seed) for seed in KNOWN]
        here, there = (
            dice(counts(given, which))
            for given, which in ((answers, eyes), ([segmented(net, segment, eye) for eye in seen], seen))
        )
        if there > here + 0.3:
            raise Mistake(
                f"Dice is {there:.3f} on the eyes {KNOWN[0]} to {KNOWN[-1]}, and {here:.3f} on others: it "
                "knows those by heart. They are for testing only."
            ) from None
        raise mistake from None
    return f"Dice {dice(mine):.3f} on three eyes that it has not seen; the baseline has {low:.3f}."


def repeated(ask: Callable[[Example], Tensor], answers: Sequence[Tensor], eyes: Sequence[Example]) -> None:
    """Ask for the same eyes in the other order, and compare.

    Raises:
        Mistake: an answer depends on something else than its image.
    """
    for p, eye in zip(answers[::-1], eyes[::-1], strict=True):
        if not agree(ask(eye), p):
            raise Mistake(
                "the same eye gets another answer the second time. Keep nothing from one image for the next, "
                "and draw no random numbers: is there a dropout in training mode?"
            )


def agree(a: Tensor, b: Tensor) -> bool:
    return same(a, b, 1e-3)
