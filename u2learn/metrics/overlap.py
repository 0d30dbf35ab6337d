"""Overlap scores from totals: count once, then score the same prediction under every protocol.

`OverlapScores` is for two classes, under any protocol of the retina tables; `ClassScores` for any number of
classes, under the one protocol of the street scenes.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from u2learn.arrays import Array, tensor_of
from u2learn.pixels import IGNORE

THRESHOLDS = 1024  # k / 1024 are exact in floating point
# Where the bins of a histogram end: at every threshold, and as often again evenly in the logit, because a
# network is so sure of most pixels that they lie below the lowest threshold. EDGES[i - 1] < p <= EDGES[i].
EDGES = torch.cat(
    [torch.arange(1, THRESHOLDS) / THRESHOLDS, torch.arange(-16, 16, 1 / 32, dtype=torch.double).sigmoid()]
).unique()
BINS = len(EDGES) + 1
# CUTS[k]: the first bin with p > k / 1024; 0 for k = 0, where every pixel counts as vessel.
CUTS = torch.bucketize(torch.arange(THRESHOLDS + 1) / THRESHOLDS, EDGES) + 1
CUTS[0] = 0


def confusion(prediction: Array, label: Array, num_classes: int, ignore: int = IGNORE) -> Tensor:
    """Count pixels: int64 (K, K), rows are the true class, columns the predicted one.

    prediction and label: class ids of equal shape; pixels labelled `ignore` are left out.

    Raises:
        ValueError: shapes differ, or an id is outside the classes.
    """
    prediction = tensor_of(prediction).long()
    label = tensor_of(label).to(prediction.device).long()
    if prediction.shape != label.shape:
        raise ValueError(
            f"A prediction of {tuple(prediction.shape)} cannot be scored on {tuple(label.shape)}."
        )
    keep = label != ignore
    truth, guess = label[keep], prediction[keep]
    for name, ids in (("label", truth), ("prediction", guess)):
        if ids.numel() and (ids.min() < 0 or ids.max() >= num_classes):
            raise ValueError(
                f"A {name} has class {int(ids.max() if ids.max() >= num_classes else ids.min())}, but the "
                f"classes are 0 to {num_classes - 1} (and {ignore} to ignore): is it a 0/255 mask?"
            )
    return torch.bincount(truth * num_classes + guess, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def scores(counts: Tensor) -> dict:
    """Scores from a confusion matrix (K, K), as fractions.

    With I = pixels of the class found, P = predicted, L = labelled: IoU = I / (P + L - I), Dice = 2 I / (P
    + L). For two classes also the vessel's (class 1's) own `dice`, `iou`, `sensitivity`, `specificity`,
    `precision`.

    A class with P = L = 0 has no score (NaN) and is left out of means, as in OpenMMLab; PaddleSeg counts an
    IoU of 1 for it (0 in 2021) and a Dice of 0. A class with L = 0 that is predicted somewhere counts 0.

    Source: mmsegmentation 0.30, core/evaluation/metrics.py.
    """
    counts = counts.double()
    hit, predicted, labelled = counts.diagonal(), counts.sum(0), counts.sum(1)  # (K,)
    iou = hit / (predicted + labelled - hit)  # 0 / 0 = NaN: the class is absent
    dice = 2 * hit / (predicted + labelled)
    result = {
        "mdice": float(dice.nanmean()),
        "miou": float(iou.nanmean()),
        "accuracy": float(hit.sum() / counts.sum()),
        "dice_per_class": dice.tolist(),
        "iou_per_class": iou.tolist(),
    }
    if len(counts) == 2:
        recall = hit / labelled
        result |= {
            "dice": float(dice[1]),
            "iou": float(iou[1]),
            "sensitivity": float(recall[1]),
            "specificity": float(recall[0]),
            "precision": float(hit[1] / predicted[1]),
        }
    return result


class ClassScores:
    """Scores of a prediction of many classes: pixel totals over all images, in one confusion matrix.

        result = ClassScores(19)
        for probabilities, example in ...:
            result.add(probabilities.argmax(0), example.label)
        result.score()["miou"]

    Attributes:
        counts: int64 (K, K), rows are the true class, columns the predicted one.
    """

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, prediction: Array, label: Array) -> None:
        """Count one image: class ids (H, W) both; pixels labelled 255 are left out.

        Raises:
            ValueError: shapes differ, or an id is outside the classes.
        """
        self.counts += confusion(prediction, label, len(self.counts)).cpu()

    def score(self) -> dict:
        """`mdice`, `miou`, `accuracy`, `dice_per_class` and `iou_per_class`, as fractions; see `scores`.

        Raises:
            ValueError: no pixel was counted.
        """
        if not self.counts.any():
            raise ValueError("No pixel was counted, so there is nothing to score.")
        return scores(self.counts)


class OverlapScores:
    """Scores of a two-class prediction under every protocol, from one pass over the images.

    Each image leaves a histogram of its vessel probabilities, split by the true class and by inside or
    outside of the field of view: 4 x 2047 counts. Everything else is sums of these.

        result = OverlapScores()
        for probabilities, example in ...:
            result.add(probabilities, example.label, example.field)
        result.score()                                       # OpenMMLab: totals, full image, 0.5
        result.score(region="field", threshold=t)            # lwnet: field of view, chosen threshold
    """

    def __init__(self) -> None:
        self.histograms: list[Tensor] = []  # one image each: (2 outside/inside, 2 label, BINS)

    def add(self, probabilities: Array, label: Array, field: Array | None = None) -> None:
        """Count one image: probabilities (2, H, W), label (H, W) in {0, 1, 255 = ignore}, field (H, W) bool.

        Raises:
            ValueError: shapes that differ, labels outside {0, 1, 255}, probabilities outside [0, 1] or NaN, a
                field without a pixel.
        """
        probabilities = tensor_of(probabilities)
        label = tensor_of(label).to(probabilities.device).long()
        if probabilities.ndim != 3 or len(probabilities) != 2 or probabilities.shape[1:] != label.shape:
            raise ValueError(
                f"Probabilities of shape {tuple(probabilities.shape)} do not fit a label of "
                f"{tuple(label.shape)}: two classes, (2, H, W) and (H, W), are due."
            )
        vessel = probabilities[1]
        if not bool(((vessel >= 0) & (vessel <= 1)).all()):
            raise ValueError(
                "A probability is outside [0, 1] or not a number: apply softmax to the logits first."
            )
        if not bool(((label == 0) | (label == 1) | (label == IGNORE)).all()):
            raise ValueError(
                f"The label has the values {label.unique().tolist()[:6]}; 0, 1 and 255 (ignore) are due: "
                "is it a 0/255 mask? Then use (mask > 127)."
            )
        inside = torch.ones_like(label) if field is None else tensor_of(field).to(label.device) != 0
        if inside.shape != label.shape:
            raise ValueError(
                f"A field of view of {tuple(inside.shape)} does not fit a label of {tuple(label.shape)}."
            )
        if not bool(inside.any()):
            raise ValueError(
                f"The field of view of image {len(self.histograms) + 1} is empty: there is nothing to score."
            )
        # An edge belongs to the bin below it, so that p > 0.5 is exact and agrees with argmax.
        bins = torch.bucketize(vessel.double().contiguous(), EDGES.to(vessel.device))
        cell = (inside.long() * 2 + label) * BINS + bins
        counts = torch.bincount(cell[label != IGNORE], minlength=4 * BINS)
        self.histograms.append(counts.view(2, 2, BINS).cpu())

    def best_threshold(self, region: Literal["image", "field"] = "image") -> float:
        """The threshold k / 1024, k > 0, with the best pooled Dice: to be chosen on *training* images."""
        background, vessel = self._above(region)
        dice = 2 * vessel / (background + vessel + vessel[0])
        return (1 + int(dice[1:].argmax())) / THRESHOLDS

    def score(
        self,
        region: Literal["image", "field"] = "image",
        pool: Literal["total", "image"] = "total",
        threshold: float = 0.5,
    ) -> dict:
        """All scores, as fractions, for one protocol.

        region: every pixel, or only the field of view. pool: pixel totals over all images, or a mean of
        per-image scores. threshold: vessel where p > threshold, rounded to k / 1024 (0: every pixel is
        vessel). `auc` is the area under the ROC curve of pooled pixels; ties within a bin count half, so it
        is off from the exact area by `auc_error` at most: half the share of pairs (vessel, background) whose
        two probabilities lie in the same bin.

        Raises:
            ValueError: no image was added, an unknown region or pool, or a threshold outside [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"A threshold is a probability, between 0 and 1, not {threshold}.")
        if pool == "total":
            return self._score_one(self._pooled(region), threshold)
        if pool != "image":
            raise ValueError(f"pool is 'total' or 'image', not {pool!r}.")
        each = [self._score_one(h, threshold) for h in self._regions(region)]
        names = [name for name, value in each[0].items() if isinstance(value, float)]
        return {
            name: float(torch.tensor([s[name] for s in each], dtype=torch.double).nanmean()) for name in names
        }

    def curve(self, region: Literal["image", "field"] = "image") -> tuple[Tensor, Tensor]:
        """Recall and precision of pooled pixels at the thresholds 0, 1/1024, ..., 1023/1024: two (1024,)."""
        background, vessel = self._above(region).double()
        return vessel / vessel[0], vessel / (background + vessel)

    def _regions(self, region: str) -> list[Tensor]:
        if not self.histograms:
            raise ValueError("No image was added, so there is nothing to score.")
        if region not in ("image", "field"):
            raise ValueError(f"region is 'image' or 'field', not {region!r}.")
        return [h.sum(0) if region == "image" else h[1] for h in self.histograms]  # each (2 label, BINS)

    def _pooled(self, region: str) -> Tensor:
        return torch.stack(self._regions(region)).sum(0)

    def _above(self, region: str) -> Tensor:
        """How many pixels have p > k / 1024, for k = 0 to 1023: (2 label, 1024)."""
        return self._pooled(region).flip(-1).cumsum(-1).flip(-1)[:, CUTS[:-1]]

    def _score_one(self, histogram: Tensor, threshold: float) -> dict:
        split = CUTS[round(threshold * THRESHOLDS)]
        counts = torch.stack(
            [histogram[:, :split].sum(1), histogram[:, split:].sum(1)], dim=1
        )  # (label, guess)
        return scores(counts) | _auc(histogram)


def score_overlap(
    probabilities: Iterable[Tensor],
    labels: Iterable[Tensor],
    fields: Iterable[Tensor] | None = None,
    region: Literal["image", "field"] = "image",
    pool: Literal["total", "image"] = "total",
    threshold: float = 0.5,
) -> dict:
    """Score many images at once; see `OverlapScores.score` for the protocol and the units."""
    result = OverlapScores()
    if fields is None:
        for p, label in zip(probabilities, labels, strict=True):
            result.add(p, label)
    else:
        for p, label, field in zip(probabilities, labels, fields, strict=True):
            result.add(p, label, field)
    return result.score(region, pool, threshold)


def _auc(histogram: Tensor) -> dict[str, float]:
    """Probability that a random vessel pixel scores above a random background pixel, and how wrong it may be.

    Of a pair in one bin the histogram does not know who is above: it counts half, in truth it is 0, 1/2 or 1.
    """
    background, vessel = histogram.double()
    below, tied = background.cumsum(0) - background, (vessel * background).sum()
    pairs = background.sum() * vessel.sum()
    above = (vessel * below).sum()
    return {"auc": float((above + tied / 2) / pairs), "auc_error": float(tied / 2 / pairs)}
