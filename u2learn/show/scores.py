"""A picture with its scores below it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from u2learn.show.palette import COLOURS, figure_of
from u2learn.show.pictures import Picture, panel, pixels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHONE = 4.2  # inches: a phone shows it without shrinking its letters


def scoreboard(
    picture: Picture, scores: Mapping[str, float], reference: Mapping[str, float] | None = None
) -> Figure:
    """A picture, and below it one bar a score, in per cent; narrow, for a phone and for `explore`.

    `picture` is any image that `image_row` takes, mostly an `overlay`. `scores`: name -> fraction in [0, 1],
    or NaN where a score is not defined (no bar). `reference`: the same names at another setting, a mark each.

    Raises:
        ValueError: no scores, a score outside [0, 1] (per cent?), or a reference with other names.
    """
    if not scores:
        raise ValueError("scoreboard has no scores to show: give at least one name with its value.")
    if reference is not None and reference.keys() != scores.keys():
        odd = sorted(reference.keys() ^ scores.keys())[0]
        raise ValueError(f'scoreboard: "{odd}" is in only one of scores and reference; the names must agree.')
    for name, value in [*scores.items(), *(reference or {}).items()]:
        if value < 0 or value > 1:
            raise ValueError(
                f'"{name}" is {value:g}; scores are fractions in [0, 1]: divide per cents by 100.'
            )
    h, w = pixels_of(picture).shape[:2]
    heights = [PHONE * h / w, 0.3 * len(scores) + 0.5]
    figure, axes = figure_of(PHONE, sum(heights), 2, 1, height_ratios=heights)
    panel(axes[0, 0], picture, "gray", None, "picture")
    axis, rows = axes[1, 0], range(len(scores))
    axis.barh(rows, list(scores.values()), height=0.8, color=COLOURS["encoder"], alpha=0.35)
    for row, name in zip(rows, scores, strict=True):  # on the bar: beside it there is no room on a phone
        axis.annotate(name, (0, row), xytext=(6, 0), textcoords="offset points", va="center")
    if reference is not None:
        axis.plot(list(reference.values()), rows, "|", color="black", ms=14, mew=2)
    axis.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "50", "100 %"])
    axis.set_yticks(rows, [])
    axis.invert_yaxis()
    values = axis.secondary_yaxis("right")
    values.set_yticks(rows, ["–" if math.isnan(v) else f"{100 * v:.1f}" for v in scores.values()])
    for side in (axis, values):
        side.tick_params(axis="y", length=0)
        side.spines["right"].set_visible(False)
    axis.grid(axis="y", visible=False)
    return figure
