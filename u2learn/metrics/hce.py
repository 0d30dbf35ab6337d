"""Human correction efforts: roughly how many clicks it would take to mend a mask.

Source: Qin et al., Highly Accurate Dichotomous Image Segmentation (ECCV 2022), and their program
hce_metric_main.py. A pixel here is (x, y), as OpenCV has it.
"""

from typing import NamedTuple

import numpy as np

from u2learn.metrics.libraries import import_or_explain


class Repair(NamedTuple):
    """What mending one kind of error takes."""

    region: np.ndarray  # bool (H, W): the errors that nobody would let pass
    polygons: list[np.ndarray]  # int (n, 2) each: the control points of one stretch of contour
    islands: np.ndarray  # bool (H, W): regions without a control point, removed or added in one go
    cost: int  # control points and islands


class Corrections(NamedTuple):
    """HCE of one pair of masks, step by step; the maps are bool (H, W)."""

    hit: np.ndarray
    false_alarm: np.ndarray
    miss: np.ndarray
    core: np.ndarray  # what lies deep inside of the two masks together
    remove: Repair  # of false alarms
    fill: Repair  # of misses

    @property
    def total(self) -> int:
        """The human correction efforts."""
        return self.remove.cost + self.fill.cost


def hce(pred: np.ndarray, mask: np.ndarray, relax: int = 5, epsilon: float = 2.0) -> int:
    """Human correction efforts: a map (H, W) in [0, 1], cut above 0.5, against a bool mask (H, W).

    It counts clicks, so it grows with the picture; compare it only at one resolution.
    """
    return corrections(pred > 0.5, mask, relax, epsilon).total


def corrections(found: np.ndarray, mask: np.ndarray, relax: int = 5, epsilon: float = 2.0) -> Corrections:
    """The steps of `hce` for two bool masks (H, W).

    relax: errors that a border moved by so many pixels explains are forgiven. epsilon: how far, in pixels, a
    polygon may stray from the contour that it stands for.
    """
    cv2, morphology = import_or_explain("cv2"), import_or_explain("skimage.morphology")
    hit, false_alarm, miss = found & mask, found & ~mask, mask & ~found
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    core = cv2.erode((found | mask).view(np.uint8), cross, iterations=relax).view(bool)

    def thick(errors: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The errors that reach into the core, grown back but never over `other` (nor out of the union)."""
        grown = errors & core
        for _ in range(relax):
            grown = cv2.dilate(grown.view(np.uint8), cross).view(bool) & ~other
        return grown

    remove = thick(false_alarm, mask)
    fill = thick(miss, found) | (morphology.skeletonize(mask) & ~hit)  # thin parts have no core, but a bone
    return Corrections(
        hit,
        false_alarm,
        miss,
        core,
        repair(remove, hit | fill, epsilon),
        repair(fill, ~(hit | remove | fill), epsilon),
    )


def repair(region: np.ndarray, beside: np.ndarray, epsilon: float) -> Repair:
    """Count what a person draws to mend `region`: its border where it meets `beside`, as polygons.

    A contour pixel counts once. A connected region that has none to count is an island: one click.
    """
    cv2 = import_or_explain("cv2")
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    beside = cv2.dilate(beside.view(np.uint8), cross).view(bool)
    contours, _ = cv2.findContours(region.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    counted = np.zeros_like(region)
    stretches = []
    for contour in contours:
        x, y = contour[:, 0].T
        new = np.zeros(len(contour), bool)
        new[np.unique(y * region.shape[1] + x, return_index=True)[1]] = True  # not a thin line's way back
        new &= beside[y, x] & ~counted[y, x]
        counted[y[new], x[new]] = True
        ends = np.flatnonzero(np.diff(new, prepend=False, append=False))
        pieces = [contour[start:end] for start, end in ends.reshape(-1, 2)]
        if len(pieces) > 1 and np.abs(pieces[0][0] - pieces[-1][-1]).max() == 1:
            # One stretch over the contour's first pixel. (Turning it round is the authors' choice; the count
            # depends on it.)
            pieces[-1] = np.concatenate([pieces[-1], pieces.pop(0)[::-1]])
        stretches += pieces
    polygons = [cv2.approxPolyDP(stretch, epsilon, False)[:, 0] for stretch in stretches]
    regions, names = cv2.connectedComponents(region.view(np.uint8))
    alone = np.setdiff1d(np.arange(1, regions), names[counted])
    return Repair(region, polygons, np.isin(names, alone), sum(map(len, polygons)) + len(alone))
