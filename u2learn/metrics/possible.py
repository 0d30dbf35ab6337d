"""Ask the numbers: can printed scores of two classes have come from images with so many pixels?

Of a test set one knows how many pixels are vessel, p, and how many are background, n. A prediction finds tp
of the first and tn of the second, and every score follows from these two counts. So a printed row either has
such counts, or it cannot have come from these pixels. Nothing is trained or predicted for that.

Source of the question: Kovács and Fazekas, "A new baseline for retinal vessel segmentation: Numerical
identification and correction of methodological inconsistencies affecting 100+ papers", Medical Image
Analysis 2022, arXiv 2111.03853. The answers here are found in another way; their library mlscorecheck tests
them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Interval = tuple[float, float]


def dice(tp: Any, tn: Any, p: Any, n: Any) -> Any:
    """Dice of the vessels; with the arguments of the two classes in each other's place, of the background."""
    return 2 * tp / (p + tp + n - tn)


def iou(tp: Any, tn: Any, p: Any, n: Any) -> Any:
    """IoU of the vessels, or in the same way of the background."""
    return tp / (p + n - tn)


# From tp of p vessel pixels and tn of n background pixels: numbers or arrays. No score falls when tp or tn
# grows, and all that follows rests on that.
SCORES: dict[str, Callable] = {
    "accuracy": lambda tp, tn, p, n: (tp + tn) / (p + n),
    "sensitivity": lambda tp, tn, p, n: tp / p,
    "specificity": lambda tp, tn, p, n: tn / n,
    "precision": lambda tp, tn, p, n: tp / np.maximum(tp + n - tn, 1),
    "dice": dice,
    "iou": iou,
    "mdice": lambda tp, tn, p, n: (dice(tp, tn, p, n) + dice(tn, tp, n, p)) / 2,
    "miou": lambda tp, tn, p, n: (iou(tp, tn, p, n) + iou(tn, tp, n, p)) / 2,
}
PAIRS = (
    ("dice", "iou"),
    ("mdice", "miou"),
)  # of which one follows from the other in a single image and class


def totals(printed: Mapping[str, Interval], p: int, n: int) -> tuple[int, int] | None:
    """Counts (tp, tn) with which all scores are printed as they are; None proves that there are none.

    All pairs of counts are one box, from (0, 0) to (p, n). A box goes when its least counts score too high,
    or its greatest too low; what stays is cut in four, down to single pairs.
    """
    boxes = np.array([[0, p, 0, n]])  # (boxes, 4): least and greatest tp, least and greatest tn
    while len(boxes):
        tp, tp_end, tn, tn_end = boxes.T  # (boxes,) each
        tp_half, tn_half = (tp + tp_end) // 2, (tn + tn_end) // 2
        stays, fits = np.ones((2, len(boxes)), bool)
        for name, (low, high) in printed.items():
            score, half = SCORES[name], SCORES[name](tp_half, tn_half, p, n)
            stays &= (score(tp, tn, p, n) <= high) & (score(tp_end, tn_end, p, n) >= low)
            fits &= (low <= half) & (half <= high)
        if fits.any():
            return int(tp_half[fits][0]), int(tn_half[fits][0])
        rows = (tp, tp_half), (tp_half + 1, tp_end)
        columns = (tn, tn_half), (tn_half + 1, tn_end)
        boxes = np.concatenate([np.stack((*a, *b), 1)[stays] for a in rows for b in columns])
        boxes = boxes[(boxes[:, 0] <= boxes[:, 1]) & (boxes[:, 2] <= boxes[:, 3])]
    return None


def means(printed: Mapping[str, Interval], p: np.ndarray, n: np.ndarray) -> bool:
    """Can the scores of single images have these means? False proves that they cannot.

    p, n: vessel and background pixels of each image, (images,). An image's accuracy is share * sensitivity +
    (1 - share) * specificity, where share = p / (p + n). With the means of those two given, the mean accuracy
    is highest where the images of the largest weight are perfect and the others all wrong, and lowest the
    other way round. True is so but for parts of pixels, and nothing is said of the scores in `not_tested`.
    """
    share = np.sort(p / (p + n))
    sensitivity, specificity = (printed.get(name, (0, 1)) for name in ("sensitivity", "specificity"))
    least = filled(share, sensitivity[0]) + filled(1 - share[::-1], specificity[0])
    most = filled(share[::-1], sensitivity[1]) + filled(1 - share, specificity[1])
    low, high = printed.get("accuracy", (0, 1))
    # In an image, IoU = Dice / (2 - Dice): a curve that sags below its chord, so a mean lies between the two.
    pairs = [(printed[a], printed[b]) for a, b in PAIRS if a in printed and b in printed]
    between = all(d[0] / (2 - d[0]) <= i[1] and i[0] <= d[1] for d, i in pairs)
    return least <= high and low <= most and between


def filled(weights: np.ndarray, mean: float) -> float:
    """The mean of weights * x where x has this mean: 1 at the first weights, a part at one, 0 at the rest."""
    return float((weights * np.clip(len(weights) * mean - np.arange(len(weights)), 0, 1)).mean())


def not_tested(printed: Mapping[str, Interval]) -> list[str]:
    """Of these scores, those that `means` says nothing of: they bend, and have no partner in `PAIRS` here.

    A system that is perfect on some images and blind on others can have nearly any means of these.
    """
    tested = {"accuracy", "sensitivity", "specificity"}
    tested |= {name for pair in PAIRS if set(pair) <= set(printed) for name in pair}
    return [name for name in printed if name not in tested]


def printed_as(text: str) -> Interval:
    """From which to which fraction a number lies that is printed as `text`: "0.956", "95.6" or "95.6%".

    A number above 1 is in percent. All are taken as rounded, and both ends are in, as some round a half up
    and others down.

    Raises:
        ValueError: no such number; one above 100 %; or 0 or 1 without %, which may be either.
    """
    if not re.fullmatch(r"(\d+|\d*\.\d+)%?", text):
        raise ValueError(f"{text!r} is no score: write it as it is printed, as 0.956, 95.6 or 95.6%.")
    digits = text.rstrip("%")
    value, step = float(digits), 10.0 ** -len(digits.partition(".")[2])
    if text == digits and value in (0, 1):
        raise ValueError(f"{text!r} may be a fraction or in percent: write {100 * value:.0f}% or {digits}%.")
    unit = 1 if text == digits and value < 1 else 100
    if value > unit:
        raise ValueError(f"{text!r} is more than 100 %, and no score is.")
    slack = 1e-12  # more than floating-point numbers are off by
    return (value - step / 2) / unit - slack, (value + step / 2) / unit + slack
