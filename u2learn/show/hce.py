"""Human correction efforts, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from u2learn.metrics.hce import Corrections, Repair, corrections
from u2learn.metrics.libraries import import_or_explain
from u2learn.metrics.saliency import checked
from u2learn.show.palette import COLOURS, WIDTH, figure_of
from u2learn.show.pictures import panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUND, INSIDE, FAINT = (28, 32, 36), (120, 128, 134), (74, 80, 86)  # background, hits, what is forgiven


def hce_steps(
    pred: np.ndarray | Tensor, mask: np.ndarray | Tensor, relax: int = 5, epsilon: float = 2.0
) -> Figure:
    """Four pictures of how HCE counts: errors, the core, what is left of the errors, and the clicks.

    `pred` is a map in [0, 1], cut above 0.5, and `mask` holds 0 and 1; both are (H, W) or (1, H, W). In the
    last picture a dot is a control point and a cross an island, which takes one click.

    Raises:
        ValueError: sizes differ, a value of the map is outside [0, 1], the mask is not binary.
        ImportError: OpenCV, scikit-image or SciPy is not installed.
    """
    pred, mask = checked(pred, mask)
    steps = corrections(pred > 0.5, mask, relax, epsilon)
    h, w = mask.shape
    columns = 2 if h < 1.5 * w else 4
    rows = 4 // columns
    figure, axes = figure_of(WIDTH, rows * (WIDTH / columns * h / w + 0.5), rows, columns)
    errors = f"{steps.false_alarm.sum():,} false alarms\nand {steps.miss.sum():,} missed pixels"
    left = f"worth mending: {steps.remove.region.sum():,}\nand {steps.fill.region.sum():,} pixels"
    clicks = f"HCE = {steps.total} clicks: {steps.remove.cost}\nto remove, {steps.fill.cost} to fill"
    core = f"core: more than {relax} pixels\ninside of the union"
    pictures = {errors: _errors(steps), core: _core(steps), left: _left(steps), clicks: _left(steps)}
    for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
        panel(axis, picture, "gray", None, title)
        axis.set_title(title)
    for repair in (steps.remove, steps.fill):
        _clicks(axes.flat[3], repair)
    return figure


def _errors(steps: Corrections) -> np.ndarray:
    return _paint((steps.hit, INSIDE), (steps.false_alarm, "false_alarm"), (steps.miss, "miss"))


def _core(steps: Corrections) -> np.ndarray:
    wrong = steps.false_alarm | steps.miss
    return _paint(
        (steps.hit | wrong, FAINT),
        (steps.core, INSIDE),
        (steps.core & steps.false_alarm, "false_alarm"),
        (steps.core & steps.miss, "miss"),
    )


def _left(steps: Corrections) -> np.ndarray:
    return _paint(
        (steps.hit | steps.false_alarm | steps.miss, FAINT),
        (steps.hit, INSIDE),
        (steps.remove.region, "false_alarm"),
        (steps.fill.region, "miss"),
    )


def _paint(*layers: tuple[np.ndarray, tuple[int, int, int] | str]) -> np.ndarray:
    picture = np.empty((*layers[0][0].shape, 3), np.uint8)
    picture[:] = GROUND
    for where, colour in layers:
        picture[where] = (*bytes.fromhex(COLOURS[colour][1:]),) if isinstance(colour, str) else colour
    return picture


def _clicks(axis: Axes, repair: Repair) -> None:
    ink: dict[str, Any] = {"color": "white", "mec": "black", "mew": 0.6, "lw": 1.0, "solid_capstyle": "round"}
    for polygon in repair.polygons:
        axis.plot(*polygon.T, "-o", ms=4.5, **ink)
    ndimage = import_or_explain("scipy.ndimage")
    names, count = ndimage.label(repair.islands, np.ones((3, 3)))
    depth = ndimage.distance_transform_edt(repair.islands)
    for y, x in ndimage.maximum_position(depth, names, range(1, count + 1)):  # the deepest pixel of each
        axis.plot(x, y, "X", ms=9, **ink)
