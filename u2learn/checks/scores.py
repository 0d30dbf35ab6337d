"""Checks of assignment 3: losses and metrics."""

from functools import partial
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.checks.core import (
    Answer,
    Cases,
    Mistake,
    call,
    gradient,
    integers,
    normal,
    question,
    shown,
    uniform,
)
from u2learn.checks.reading import Refusal
from u2learn.pixels import IGNORE

ENTROPIES = (
    *("cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss", "nll_loss2d"),
    *("nll_loss_forward", "nll_loss2d_forward", "cross_entropy_loss"),
)
LIBRARIES = ("u2learn", "sklearn", "torchmetrics", "monai", "segmentation_models_pytorch")


def labelled(g: torch.Generator, classes: int, ignored: bool, *shape: int) -> Tensor:
    """Random class ids, a quarter of them ignored if wanted, and never the same number in two images."""
    label = (uniform(g, *shape) ** 1.5 * classes).long()
    if ignored:
        label[uniform(g, *shape) < 0.25 + 0.3 * torch.arange(shape[0])[:, None, None] / shape[0]] = IGNORE
    return label


@question(
    "3.1",
    "cross_entropy",
    Refusal("take log_softmax, and pick the true class with gather.", ENTROPIES, LIBRARIES),
)
def cross_entropy(g: torch.Generator, answer: Answer) -> str:
    values, gradients = Cases(), Cases("the gradient")
    for trial in range(10):
        B, K, H, W = integers(g, (2, 3), (2, 4), (5, 6), (7, 9))
        logits = 3 * normal(g, B, K, H, W)
        label = labelled(g, K, trial % 2 == 0, B, H, W)
        want = F.cross_entropy(logits, label, ignore_index=IGNORE)
        case = f"logits {tuple(logits.shape)}, {int((label == IGNORE).sum())} pixels ignored"
        got = call(answer, logits, label)
        simple = {"no pixel is ignored": trial % 2 == 1}
        values.add(got, want, partial(entropy_suspects, logits, label), case, simple)
    values.done("")
    x = (2 * normal(g, 2, 3, 4, 5)).requires_grad_()
    label = labelled(g, 3, True, 2, 4, 5)
    (want,) = torch.autograd.grad(F.cross_entropy(x, label, ignore_index=IGNORE), x)
    gradients.add(call(partial(gradient, answer), x.detach(), label), want, case="belief minus truth, over N")
    gradients.done("")
    huge = torch.tensor([300.0, -300.0])[None, :, None, None].expand(1, 2, 2, 2)
    safe = call(answer, huge, torch.zeros(1, 2, 2, dtype=torch.int64))
    if not bool(torch.isfinite(torch.as_tensor(safe)).all()):
        raise Mistake(
            "a logit of 300 gives NaN or infinity: exp overflows, so take the largest logit off first."
        )
    return "values and gradient agree with PyTorch in 11 cases, ignored pixels and huge logits too."


def entropy_suspects(logits: Tensor, label: Tensor) -> dict:
    each = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    valid, last = label != IGNORE, logits.shape[1] - 1
    filled = label.where(valid, 0)
    return {
        "the sum is divided by all pixels: divide by those that count, not by those that are ignored": (
            lambda: each.mean()
        ),
        "the losses are added: take their mean": lambda: each.sum(),
        "ignored pixels count as class 0: leave them out": lambda: F.cross_entropy(logits, filled),
        "ignored pixels count as the last class: leave them out": lambda: F.cross_entropy(
            logits, label.clamp(max=last)
        ),
        "each image has its mean, and these are averaged: pixels count, wherever they are": lambda: (
            each.sum((1, 2)) / valid.sum((1, 2))
        ).mean(),
        "the sign is wrong: it is minus the logarithm": lambda: -each.sum() / valid.sum(),
        "the logarithm is that to base 2: the natural one is asked for": lambda: (
            each.sum() / valid.sum() / log(2)
        ),
        **{
            f"{small:g} is added in the logarithm, and a pixel that is sure and wrong costs too little": (
                lambda small=small: (
                    -(logits.softmax(1).gather(1, filled[:, None])[:, 0] + small).log()[valid].mean()
                )
            )
            for small in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
        },
        "the logarithm is missing": lambda: (
            1 - logits.softmax(1).gather(1, filled[:, None])[:, 0][valid].mean()
        ),
        "the softmax is applied twice: the logits come as they are": lambda: F.cross_entropy(
            logits.softmax(1), label, ignore_index=IGNORE
        ),
        "the softmax runs over the last axis: classes are on axis 1": lambda: (
            -logits.softmax(-1).log().gather(1, filled[:, None])[:, 0][valid].mean()
        ),
        "the softmax runs over the batch: classes are on axis 1": lambda: (
            -logits.softmax(0).log().gather(1, filled[:, None])[:, 0][valid].mean()
        ),
        "sigmoid is not softmax: the classes of a pixel exclude each other": lambda: (
            -logits.sigmoid().log().gather(1, filled[:, None])[:, 0][valid].mean()
        ),
    }


def dice_terms(logits: Tensor, label: Tensor, ignored: str = "out", p: Tensor | None = None) -> tuple:
    """Overlap and sizes for each image and class, (B, K) each; `ignored` pixels: out, in, or only in p."""
    p = logits.softmax(1) if p is None else p
    valid = (label != IGNORE)[:, None]
    t = F.one_hot(label.where(label != IGNORE, 0), logits.shape[1]).movedim(-1, 1).to(p)
    if ignored != "in":
        t = t * valid
    if ignored == "out":
        p = p * valid
    return (p * t).sum((2, 3)), p.sum((2, 3)), t.sum((2, 3)), (p**2).sum((2, 3))


@question("3.2", "dice_loss", Refusal("write the three sums yourself.", (), LIBRARIES))
def dice_loss(g: torch.Generator, answer: Answer) -> str:
    cases, gradients = Cases(), Cases("the gradient")
    for trial in range(10):
        B, K, H, W = integers(g, (2, 3), (2, 4), (5, 6), (7, 9))
        logits = 3 * normal(g, B, K, H, W)
        label = labelled(g, K, trial % 2 == 0, B, H, W)
        overlap, p, t, _ = dice_terms(logits, label)
        want = (1 - (2 * overlap + 1) / (p + t + 1)).mean()
        case = f"logits {tuple(logits.shape)}, {int((label == IGNORE).sum())} pixels ignored"
        simple = {"no pixel is ignored": trial % 2 == 1}
        cases.add(call(answer, logits, label), want, partial(dice_suspects, logits, label), case, simple)
    cases.done("")
    x, label = (2 * normal(g, 2, 3, 4, 5)).requires_grad_(), labelled(g, 3, True, 2, 4, 5)
    overlap, p, t, _ = dice_terms(x, label)
    (want,) = torch.autograd.grad((1 - (2 * overlap + 1) / (p + t + 1)).mean(), x)
    gradients.add(call(partial(gradient, answer), x.detach(), label), want)
    return gradients.done("values and gradient agree in 11 cases, ignored pixels too.")


def dice_suspects(logits: Tensor, label: Tensor) -> dict:
    overlap, p, t, squares = dice_terms(logits, label)

    def loss(
        overlap: Tensor = overlap, size: Tensor = p + t, top: float = 1.0, bottom: float = 1.0
    ) -> Tensor:
        return 1 - (2 * overlap + top) / (size + bottom)

    o_kept, p_kept, t_kept, _ = dice_terms(logits, label, "in p")
    o_in, p_in, t_in, _ = dice_terms(logits, label, "in")
    o_sig, p_sig, t_sig, _ = dice_terms(logits, label, "out", logits.sigmoid())
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).float()
    o_hard, p_hard, t_hard, _ = dice_terms(logits, label, "out", hard)
    return {
        "it is the score, not the loss: 1 minus it": lambda: 1 - loss().mean(),
        "ignored pixels still count in the size of p: leave them out of all three sums": lambda: loss(
            o_kept, p_kept + t_kept
        ).mean(),
        "ignored pixels count as class 0: leave them out of all three sums": lambda: loss(
            o_in, p_in + t_in
        ).mean(),
        "p and t are squared in the denominator: that is another Dice loss (OpenMMLab's)": lambda: loss(
            size=squares + t
        ).mean(),
        "the sums run over the whole batch: each image has a Dice of its own": lambda: loss(
            overlap.sum(0), (p + t).sum(0)
        ).mean(),
        "the sums run over the classes too: each class has a Dice of its own": lambda: loss(
            overlap.sum(1), (p + t).sum(1)
        ).mean(),
        "the losses are added: take the mean over images and classes": lambda: loss().sum(),
        "the means of the sums are divided: each image and class has a quotient of its own": lambda: loss(
            overlap.mean(), (p + t).mean()
        ),
        "means over the pixels are taken: the 1 is added to sums": lambda: loss(
            overlap / label[0].numel(), (p + t) / label[0].numel()
        ).mean(),
        "the background is left out: all classes count here": lambda: loss()[:, 1:].mean(),
        "the 2 is missing in the numerator": lambda: loss(overlap / 2).mean(),
        "the + 1 is missing above and below": lambda: loss(top=0.0, bottom=0.0).mean(),
        "the + 1 is missing in the numerator: an absent class that is not predicted should cost 0": lambda: (
            loss(top=0.0).mean()
        ),
        "sigmoid is not softmax: the classes of a pixel exclude each other": lambda: loss(
            o_sig, p_sig + t_sig
        ).mean(),
        "argmax has no gradient: let pixels belong to a class in part": lambda: loss(
            o_hard, p_hard + t_hard
        ).mean(),
        "it is the IoU: the overlap is taken off the denominator": lambda: (
            1 - (overlap + 1) / (p + t - overlap + 1)
        ).mean(),
    }


@question("3.3", "dice_and_iou", Refusal("count the pixels yourself.", (), LIBRARIES))
def dice_and_iou(g: torch.Generator, answer: Answer) -> str:
    dices, ious = Cases("Dice", 1e-6), Cases("IoU", 1e-6)
    for trial in range(8):
        predictions, labels = [], []
        for i in range(integers(g, (2, 4))[0]):
            H, W = integers(g, (5, 7), (8, 11))
            label = (uniform(g, H, W) < 0.1 + 0.2 * i).long()
            if trial % 2:
                label[uniform(g, H, W) < 0.2] = IGNORE
            prediction = torch.where(uniform(g, H, W) < 0.7, label == 1, uniform(g, H, W) < 0.5).long()
            # Every image has a hit, a miss and a false alarm: no score, right or wrong, divides by zero.
            label[0, :3], prediction[0, :3] = torch.tensor([1, 1, 0]), torch.tensor([1, 0, 1])
            labels.append(label)
            predictions.append(prediction)
        got = call(answer, predictions, labels)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Mistake(f"return two numbers, Dice and IoU, not {shown(got)}.")
        dice, iou = (float(x) for x in got)
        if max(dice, iou) > 1:
            raise Mistake(
                f"Dice is {dice:.3g}, IoU {iou:.3g}, above 1: is an ignored 255 counted as a number?"
            )
        suspects = score_suspects(predictions, labels)
        case = f"{len(labels)} images, with{'' if trial % 2 else 'out'} ignored pixels"
        want = totals(predictions, labels)
        simple = {"no pixel is ignored": trial % 2 == 0}
        dices.add(dice, want[0], {k: v[0] for k, v in suspects.items()}, f"{case}, Dice", simple)
        ious.add(iou, want[1], {k: v[1] for k, v in suspects.items()}, f"{case}, IoU", simple)
    dices.done("")
    ious.done("")
    masks = [torch.tensor([[0, 255], [255, 255]])]
    try:
        got = call(answer, [torch.ones(2, 2, dtype=torch.int64)], masks)
    except Mistake as mistake:
        if "ValueError" not in str(mistake):
            raise
        return "8 random sets agree, ignored pixels too, and masks of 0 and 255 are refused."
    raise Mistake(
        f"masks of 0 and 255 get {shown(got)}: when no label is 1, but some are 255, raise a ValueError that "
        "asks whether the masks are 0/255."
    )


def counts(prediction: Tensor, label: Tensor) -> tuple[float, float, float]:
    """Hits, predicted and labelled pixels of class 1, without those ignored."""
    valid = label != IGNORE
    p, t = (prediction == 1) & valid, label == 1
    return float((p & t).sum()), float(p.sum()), float(t.sum())


def totals(predictions: list[Tensor], labels: list[Tensor]) -> tuple[float, float]:
    hit, p, t = (sum(c) for c in zip(*map(counts, predictions, labels), strict=True))
    return 2 * hit / (p + t), hit / (p + t - hit)


def score_suspects(predictions: list[Tensor], labels: list[Tensor]) -> dict[str, tuple[float, float]]:
    hit, p, t = (sum(c) for c in zip(*map(counts, predictions, labels), strict=True))
    each = [totals([a], [b]) for a, b in zip(predictions, labels, strict=True)]
    kept = [b.where(b != IGNORE, 0) for b in labels]
    vessel = [b.where(b != IGNORE, 1) for b in labels]
    nan = float("nan")
    flipped = totals([1 - a for a in predictions], [torch.where(b == IGNORE, b, 1 - b) for b in labels])
    right = sum(float(((a == b) & (b != IGNORE)).sum()) for a, b in zip(predictions, labels, strict=True))
    valid = sum(float((b != IGNORE).sum()) for b in labels)
    mean = tuple(sum(v) / len(each) for v in zip(*each, strict=True))
    return {
        "each image has its score, and these are averaged: add the pixels of all images first": mean,
        "ignored pixels count as background: leave them out": totals(predictions, kept),
        "ignored pixels count as vessel: leave them out": totals(predictions, vessel),
        "the score is the background's: class 1 is asked for": flipped,
        "that is the mean of both classes: class 1 is asked for": (
            (flipped[0] + 2 * hit / (p + t)) / 2,
            (flipped[1] + hit / (p + t - hit)) / 2,
        ),
        "the 2 of Dice is missing": (hit / (p + t), nan),
        "the overlap is counted twice in the union": (nan, hit / (p + t)),
        "IoU and Dice are exchanged": (hit / (p + t - hit), 2 * hit / (p + t)),
        "that is the accuracy": (right / valid, right / valid),
        "that is the precision": (hit / p, hit / p),
        "that is the sensitivity": (hit / t, hit / t),
    }


@question("3.4", "auc", Refusal("compare the pairs yourself.", ("mannwhitneyu",), LIBRARIES))
def auc(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for trial in range(10):
        n = integers(g, (30, 60))[0]
        label = (uniform(g, n) < 0.3).long()
        label[:2] = torch.tensor([0, 1])
        p = (uniform(g, n) + 0.4 * label).clamp(0, 1)
        if trial % 2:
            p = (p * 5).round() / 5
        got = call(answer, p, label)
        got = float(got) if isinstance(got, (float, int, Tensor)) else got
        cases.add(
            got,
            pairs(p, label, 0.5),
            partial(auc_suspects, p, label),
            f"{n} pixels, ties: {trial % 2 == 1}",
            {"no two probabilities are equal": trial % 2 == 0},
        )
    return cases.done("10 random sets agree with the count of all pairs, ties too.")


def pairs(p: Tensor, label: Tensor, tie: float) -> float:
    vessel, background = p[label == 1][:, None], p[label == 0][None]
    return float(((vessel > background) + tie * (vessel == background)).double().mean())


def by_thresholds(p: Tensor, label: Tensor, n: int) -> float:
    cuts = torch.linspace(1, 0, n)[:, None]
    hits, alarms = ((p[label == k] >= cuts).double().mean(1) for k in (1, 0))
    return float(torch.trapezoid(hits, alarms))


def auc_suspects(p: Tensor, label: Tensor) -> dict:
    order, places = p.argsort(), torch.empty(len(p))
    places[order] = torch.arange(1.0, len(p) + 1)
    v, b = int((label == 1).sum()), int((label == 0).sum())
    return {
        "a pair with equal probabilities counts half, not 0": pairs(p, label, 0),
        "a pair with equal probabilities counts half, not 1": pairs(p, label, 1),
        "it is the wrong way round: a vessel pixel should be above": 1 - pairs(p, label, 0.5),
        "that is the accuracy at one half: no threshold is needed here": float(
            ((p > 0.5) == (label == 1)).double().mean()
        ),
        **{
            f"{n} thresholds do not see every order: compare the pairs, or sort": by_thresholds(p, label, n)
            for n in (11, 21, 51, 100, 101, 256)
        },
        "divide by the number of pairs, vessel times background": pairs(p, label, 0.5) * v * b / len(p) ** 2,
        "equal probabilities must share their rank: a sort puts them in any order": float(
            (places[label == 1].sum() - v * (v + 1) / 2) / (v * b)
        ),
    }
