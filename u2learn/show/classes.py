"""Many classes: labels in their colours, a legend, scores class by class, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from u2learn.data.cityscapes import CLASSES, PALETTE
from u2learn.pixels import IGNORE
from u2learn.show.palette import WIDTH, figure_of
from u2learn.show.pictures import Picture, pixels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_colours(label: Picture, colours: Sequence[tuple[int, int, int]] = PALETTE) -> Tensor:
    """A label map (H, W) of class ids in the colours of its classes, 255 in black: uint8 (3, H, W).

    Raises:
        ValueError: not (H, W), or an id that has no colour.
    """
    ids = pixels_of(label, "label")
    found = np.unique(ids) if ids.ndim == 2 else np.array([])
    wrong = found[(found != IGNORE) & ((found < 0) | (found >= len(colours)))]
    if ids.ndim != 2 or len(wrong):
        what = f"the id {wrong[0]}" if len(wrong) else f"the shape {ids.shape}"
        raise ValueError(
            f"class_colours: the label has {what}; (H, W) ids from 0 to {len(colours) - 1} are due, and "
            f"{IGNORE}."
        )
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return torch.from_numpy(table[ids.astype(np.uint8)]).permute(2, 0, 1)  # (3, H, W)


def class_legend(
    label: Picture | None = None,
    names: Sequence[str] = CLASSES,
    colours: Sequence[tuple[int, int, int]] = PALETTE,
) -> Figure:
    """Which colour is which class: a figure with all of them, or with those that are in `label` only.

    Raises:
        ValueError: another number of names than of colours.
    """
    from matplotlib.patches import Patch

    if len(names) != len(colours):
        raise ValueError(
            f"class_legend got {len(names)} names and {len(colours)} colours; give one colour a name."
        )
    present = set(range(len(names))) if label is None else set(np.unique(pixels_of(label)).tolist())
    entries = [
        Patch(fc=np.divide(colour, 255), ec="#444444", lw=0.5, label=name)
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
        if i in present
    ]
    if label is None or IGNORE in present:
        entries.append(Patch(fc="black", ec="#444444", lw=0.5, label="ignored"))
    figure, axes = figure_of(WIDTH, 0.26 * -(-len(entries) // 5) + 0.1)
    axes[0, 0].set_axis_off()
    axes[0, 0].legend(
        handles=entries, loc="center", ncols=5, handlelength=1, columnspacing=1.2, borderpad=0, fontsize=10
    )
    return figure


def class_table(
    scores: Mapping[str, Mapping[str, Any]], names: Sequence[str] = CLASSES, key: str = "iou_per_class"
) -> str:
    """Scores class by class as a Markdown table in percent, a column for each of `scores`, the mean below.

    scores: title -> what `metrics.overlap.scores` gives, or a record of it. key: "iou_per_class" or
    "dice_per_class". A class without a score (NaN, in a record None) is a dash, and is not in the mean.

    Raises:
        ValueError: no scores, or another number of classes than of names.
    """
    columns = {
        title: [np.nan if value is None else 100 * value for value in score[key]]
        for title, score in scores.items()
    }
    if not columns or any(len(column) != len(names) for column in columns.values()):
        found = ", ".join(str(len(column)) for column in columns.values()) or "no"
        raise ValueError(f"class_table got {len(names)} names and scores of {found} classes.")
    lines = [f"| class | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, *values in zip(names, *columns.values(), strict=True):
        lines.append(f"| {name} | {' | '.join('–' if np.isnan(v) else f'{v:.1f}' for v in values)} |")
    means = [f"**{np.nanmean(column):.1f}**" for column in columns.values()]
    return "\n".join([*lines, f"| **mean** | {' | '.join(means)} |"])


def confusion_picture(
    counts: Tensor | np.ndarray, names: Sequence[str] = CLASSES, title: str | None = None
) -> Figure:
    """A confusion matrix (K, K) as a picture: a row a true class, in percent of its pixels.

    A class that has no pixels has an empty row.

    Raises:
        ValueError: not (K, K) with a name for each class.
    """
    counts = np.asarray(counts, float)
    if counts.shape != (len(names), len(names)):
        raise ValueError(
            f"confusion_picture: counts of the shape {counts.shape} do not fit {len(names)} names."
        )
    totals = counts.sum(1, keepdims=True)
    share = 100 * counts / np.where(totals == 0, np.nan, totals)  # (K, K), row by row
    side = WIDTH * min(1.0, 0.35 + 0.035 * len(names))
    figure, axes = figure_of(side, side * 0.96)
    axis = axes[0, 0]
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            axis.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7 if len(names) > 10 else 10,
                color="white" if value > 55 else "black",
            )
    size = 9 if len(names) > 10 else 11
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=90, fontsize=size)
    axis.set_yticks(ticks, names, fontsize=size)
    axis.set(xlabel="predicted as", ylabel="true class", title=title or "")
    axis.grid(False)
    return figure
