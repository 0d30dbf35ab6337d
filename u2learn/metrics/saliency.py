"""Saliency scores: how well a grey map agrees with a mask.

Each score of one image is a function of `pred`, a float map (H, W) in [0, 1], and `mask`, bool (H, W).
`SaliencyScores` checks what it is given, runs them over a data set and takes the means.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from torch import Tensor

from u2learn.metrics.hce import hce
from u2learn.metrics.libraries import import_or_explain

BETA2 = 0.3  # of every F but the weighted one: precision counts more than recall (Achanta et al., 2009)
EPS = np.spacing(1.0)

Array = np.ndarray
Normalise = Literal["range", "maximum", "none"]


def checked(pred: Array | Tensor, mask: Array | Tensor) -> tuple[Array, Array]:
    """A pair as the functions of this module take it: float64 (H, W) in 256 levels, and bool (H, W).

    Raises:
        ValueError: sizes differ or are empty, a value is outside [0, 1] or NaN, the mask is not binary.
    """
    pair = (x.detach().cpu().double() if isinstance(x, Tensor) else x for x in (pred, mask))
    pred, mask = (x[0] if x.shape[:-2] == (1,) else x for x in (np.asarray(x, float) for x in pair))
    if pred.ndim != 2 or pred.shape != mask.shape or not pred.size:
        raise ValueError(
            f"A map of shape {pred.shape} cannot be scored on a mask of {mask.shape}: both are to be (H, W) "
            "or (1, H, W), one image, at the mask's own size."
        )
    wrong = pred[~((pred >= 0) & (pred <= 1))]
    if wrong.size:
        raise ValueError(
            f"The map holds {wrong[0]:g}, and numbers in [0, 1] are due: apply sigmoid to logits, or "
            "divide 8-bit greys by 255."
        )
    wrong = mask[(mask != 0) & (mask != 1)]
    if wrong.size:
        raise ValueError(
            f"The mask holds {wrong[0]:g}, and 0 and 1 are due: for 8-bit greys, use (mask > 127)."
        )
    return np.ascontiguousarray(np.rint(255 * pred) / 255), np.ascontiguousarray(mask != 0)


def normalised(pred: Array, how: Normalise) -> Array:
    """A map before it is scored; the choice changes the scores, so it belongs to the protocol.

    "range": its minimum becomes 0 and its maximum 1, as in PySODMetrics and most published tables; a map of
    one grey stays as it is. "maximum": divided by its maximum, as in the program of the U²-Net tables, whose
    small constant puts each of 255 equal grey levels just below its threshold. "none": as it is, as in the
    authors' program for DIS.

    Raises:
        ValueError: another `how`.
    """
    if how == "range":
        low, high = pred.min(), pred.max()
        return (pred - low) / (high - low) if low < high else pred
    if how == "maximum":
        return pred / (pred.max() + 1e-8)
    if how == "none":
        return pred
    raise ValueError(f"A map is normalised by 'range', 'maximum' or 'none', not {how!r}.")


def mae(pred: Array, mask: Array) -> float:
    """Mean absolute error. Source: Perazzi et al., Saliency filters (CVPR 2012)."""
    return np.abs(pred - mask).mean()


def count_above(pred: Array, mask: Array) -> tuple[Array, Array]:
    """Cut at each of 256 thresholds: how many pixels are marked, and how many of them lie on the mask.

    Returns (hits, marked), int (256,) each; entry t is for the cut 255 pred >= t, with 255 pred rounded down.
    """
    level = (255 * pred).astype(np.uint8)  # (H, W)
    hits, marked = (np.bincount(some, minlength=256) for some in (level[mask], level.ravel()))
    return hits[::-1].cumsum()[::-1], marked[::-1].cumsum()[::-1]


def count_bold(pred: Array, mask: Array) -> tuple[int, int]:
    """(hits, marked) at the adaptive threshold: twice the map's mean, and 1 at most.

    Source: Achanta et al., Frequency-tuned salient region detection (CVPR 2009).
    """
    bold = pred >= min(2 * pred.mean(), 1)
    return int(np.count_nonzero(bold & mask)), int(np.count_nonzero(bold))


def precision_recall(hits: Array | int, marked: Array | int, mask: Array) -> tuple[Array, Array]:
    """Precision hits / marked and recall hits / |mask|; 0 / 0 is 0."""
    found, size = np.asarray(hits), int(np.count_nonzero(mask))
    return found / np.maximum(marked, 1), found / max(size, 1)


def f_measure(precision: Array, recall: Array) -> Array:
    """The weighted harmonic mean (1 + β²) P R / (β² P + R) with β² = 0.3; 0 where both are 0."""
    return (1 + BETA2) * precision * recall / np.maximum(BETA2 * precision + recall, EPS)


def e_measure(hits: Array | int, marked: Array | int, mask: Array) -> Array:
    """Enhanced alignment of a cut map with the mask, from counts as those of `count_above`.

    With both centred on their means, a pixel's alignment is 2ab / (a² + b²), between -1 and 1. As both are
    binary, there are but four kinds of pixel. Their sum is divided by the pixels less one, as in the authors'
    program and every table: a perfect cut of n pixels has n / (n - 1), a little more than 1. (A picture of
    one pixel, for which that is 1 / 0, is divided by 1.)

    Source: Fan et al., Enhanced-alignment measure (IJCAI 2018).
    """
    size, inside = mask.size, np.count_nonzero(mask)
    misses, alarms = inside - hits, marked - hits
    kinds = [(hits, 1, 1), (alarms, 1, 0), (misses, 0, 1), (size - hits - alarms - misses, 0, 0)]
    if inside in (0, size):  # a mask of one colour has no mean to be centred on: count what is right
        total = size - alarms - misses
    else:
        total = 0
        for count, said, true in kinds:
            a, b = said - marked / size, true - inside / size
            total = total + count * (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4
    return total / max(size - 1, 1)


def s_measure(pred: Array, mask: Array) -> float:
    """Structure measure: half objects, half regions. Source: Fan et al., Structure-measure (ICCV 2017).

    Objects: is the map bright and even on the mask, dark and even off it? Regions: similarity in the four
    windows that meet at the mask's centre, by their areas. A window without pixels counts nothing (in the
    original the score of the image is then not a number).
    """
    share = mask.mean()
    if share in (0, 1):
        return pred.mean() if share else 1 - pred.mean()
    objects = share * _evenness(pred[mask]) + (1 - share) * _evenness(1 - pred[~mask])
    y, x = (int(centre) + 1 for centre in np.argwhere(mask).mean(0).round())
    windows = [np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]]
    regions = sum(pred[w].size * similarity(pred[w], mask[w]) for w in windows if pred[w].size) / pred.size
    return max(0.0, (objects + regions) / 2)


def _evenness(values: Array) -> float:
    mean, spread = values.mean(), values.std(ddof=1) if len(values) > 1 else 0
    return 2 * mean / (mean**2 + 1 + spread + EPS)


def similarity(pred: Array, mask: Array) -> float:
    """Structural similarity of a window, without the constants of Wang et al. (2004)."""
    x, y, n = pred.mean(), mask.mean(), pred.size - 1 + EPS
    spread = (((pred - x) ** 2).sum() + ((mask - y) ** 2).sum()) / n
    common = ((pred - x) * (mask - y)).sum() / n
    above, below = 4 * x * y * common, (x**2 + y**2) * spread
    return above / (below + EPS) if above else float(below == 0)


def weighted_f(pred: Array, mask: Array) -> float:
    """F with weighted errors, β² = 1. Source: Margolin et al., How to evaluate foreground maps? (CVPR 2014).

    On the mask an error counts less where the errors around it are small; off the mask it counts up to twice,
    the more the farther it lies from the mask. An empty mask scores 0.
    """
    if not mask.any():
        return 0.0
    ndimage = import_or_explain("scipy.ndimage")
    error = np.abs(pred - mask)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    around = error[tuple(nearest)]  # off the mask: the error of the nearest pixel of the mask
    gaussian = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    for axis in (0, 1):
        around = ndimage.correlate1d(around, gaussian / gaussian.sum(), axis, mode="constant")
    weighted = np.where(mask, np.minimum(error, around), error * (2 - 0.5 ** (distance / 5)))
    hits = mask.sum() - weighted[mask].sum()
    recall, precision = 1 - weighted[mask].mean(), hits / (hits + weighted[~mask].sum() + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def relaxed_f(pred: Array, mask: Array, rho: float = 3) -> float:
    """F of the borders, where a border pixel within `rho` pixels of the other border counts as found.

    The map is cut above 0.5. The border of a mask is what a 3x3 cross erodes from it; where the frame cuts an
    object off, it has no border. Without any border the score is 0. Source: Qin et al., U²-Net (2020);
    their program was not published, so element, frame and distance (Euclidean) are our choice.
    """
    ndimage, spatial = import_or_explain("scipy.ndimage"), import_or_explain("scipy.spatial")
    drawn, true = (
        np.argwhere(m & ~ndimage.binary_erosion(m, border_value=1)) for m in (pred > 0.5, mask)
    )  # (n, 2) each: y, x
    if not len(drawn) or not len(true):
        return 0.0
    precision = (spatial.KDTree(true).query(drawn)[0] <= rho).mean()
    recall = (spatial.KDTree(drawn).query(true)[0] <= rho).mean()
    return float(f_measure(precision, recall))


COSTLY = {"weighted_f": weighted_f, "relaxed_f": relaxed_f, "hce": hce}


class SaliencyScores:
    """Saliency scores of a data set, image by image.

        scores = SaliencyScores()
        for pred, mask in ...:
            scores.add(pred, mask)
        scores.result()["max_f"]

    normalise: see `normalised`; the U²-Net tables have "maximum". also: scores that take time and libraries,
    of "weighted_f" and "relaxed_f" (SciPy), and "hce" (OpenCV, scikit-image).

    Attributes:
        images: one dict an image, its own scores and curves.

    Raises:
        ValueError: an unknown `normalise` or name in `also`.
    """

    def __init__(self, normalise: Normalise = "range", also: Iterable[str] = ("weighted_f", "relaxed_f")):
        self.normalise, self.also = normalise, tuple(also)
        normalised(np.zeros(1), normalise)
        for name in self.also:
            if name not in COSTLY:
                raise ValueError(f"`also` takes {', '.join(COSTLY)}, not {name!r}.")
        self.images: list[dict] = []

    def add(self, pred: Array | Tensor, mask: Array | Tensor) -> None:
        """Score one image: a map in [0, 1] and a mask of 0 and 1, each (H, W) or (1, H, W), of one size.

        The map is scored as it would be saved, in 256 grey levels: a float is rounded to the nearest k / 255.

        Raises:
            ValueError: see `checked`.
            ImportError: a library that a score needs is not installed.
        """
        pred, mask = checked(pred, mask)
        pred = normalised(pred, self.normalise)
        above, bold = count_above(pred, mask), count_bold(pred, mask)
        precision, recall = precision_recall(*above, mask)
        scores = {
            "mae": mae(pred, mask),
            "precision": precision,  # this and the next three: (256,)
            "recall": recall,
            "f": f_measure(precision, recall),
            "e": e_measure(*above, mask),
            "adaptive_f": f_measure(*precision_recall(*bold, mask)),
            "adaptive_e": e_measure(*bold, mask),
            "empty": not mask.any(),
            "s": s_measure(pred, mask),
        }
        self.images.append(scores | {name: COSTLY[name](pred, mask) for name in self.also})

    def curves(self) -> dict[str, Array]:
        """Means over the images of `precision`, `recall`, `f` and `e`, (256,) each, by rising threshold.

        `e` may end a little above 1, see `e_measure`.

        Raises:
            ValueError: no image was added.
        """
        return {name: self._mean(name) for name in ("precision", "recall", "f", "e")}

    def result(self) -> dict[str, float]:
        """The scores of the data set: fractions, but `hce` counts clicks and `empty_masks` images.

        Small is good for `mae` and `hce`.

        `max_f` is the maximum of F of the mean precision and mean recall, as in the U²-Net tables;
        `max_f_curves` that of the mean of the images' F curves, as in PySODMetrics and the DIS tables;
        `mean_f` the mean over all thresholds, `adaptive_f` F at each image's own. Likewise `max_e`, `mean_e`
        and `adaptive_e`, of which each is cut off at 1. The others, `mae`, `s` and those of `also`, are means
        over the images.

        `empty_masks` is how many images have no object. There, precision, recall and every F are 0 whatever
        the map says, as 0 / 0 counts 0, and pull the means down; `mae` and `s` still tell a good map from a
        bad one. An object that fills the frame has no border, so that its `relaxed_f` is 0, too.

        Raises:
            ValueError: no image was added.
        """
        curves = self.curves()
        found = {
            "mae": self._mean("mae"),
            "max_f": f_measure(curves["precision"], curves["recall"]).max(),
            "max_f_curves": curves["f"].max(),
            "mean_f": curves["f"].mean(),
            "max_e": min(curves["e"].max(), 1),
            "mean_e": min(curves["e"].mean(), 1),
            "adaptive_e": min(self._mean("adaptive_e"), 1),
        }
        found |= {name: self._mean(name) for name in ("adaptive_f", "s", *self.also)}
        empty = sum(image["empty"] for image in self.images)
        return {name: float(value) for name, value in found.items()} | {"empty_masks": empty}

    def _mean(self, name: str) -> Array:
        if not self.images:
            raise ValueError("No image was added, so there is nothing to score.")
        return np.mean([image[name] for image in self.images], axis=0)


def score_saliency(
    pairs: Iterable[tuple[Array | Tensor, Array | Tensor]],
    normalise: Normalise = "range",
    also: Iterable[str] = ("weighted_f", "relaxed_f"),
) -> dict[str, float]:
    """Score a stream of (map, mask) pairs at once; see `SaliencyScores` for what goes in and comes out."""
    scores = SaliencyScores(normalise, also)
    for pred, mask in pairs:
        scores.add(pred, mask)
    return scores.result()
