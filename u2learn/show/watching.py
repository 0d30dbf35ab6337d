"""A training to be watched: what the network says of one picture, step by step, beside its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from u2learn.show.palette import COLOURS, figure_of
from u2learn.show.pictures import Picture, panel, pixels_of
from u2learn.show.scores import PHONE
from u2learn.show.widgets import explore

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import VBox
    from matplotlib.figure import Figure


def watch(
    pictures: Sequence[Picture],
    at: Sequence[float],
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str = "",
    ylabel: str = "loss",
    slider: str = "iteration",
) -> HTML | VBox:
    """A slider over a training: the picture at each iteration in `at`, and below it the curves, marked there.

    `pictures` are of one size, mostly `overlay`s of what the network says. `curves`: name -> (iterations,
    values), such as the losses on training and on validation images.

    Raises:
        ValueError: another number of pictures than of iterations.
    """
    if len(pictures) != len(at):
        raise ValueError(f"watch() got {len(pictures)} pictures and {len(at)} iterations; each needs one.")

    def frame(i: int) -> Figure:
        h, w = pixels_of(pictures[i]).shape[:2]
        heights = [PHONE * h / w, 2.3]
        figure, axes = figure_of(PHONE, sum(heights), 2, 1, height_ratios=heights)
        panel(axes[0, 0], pictures[i], "gray", None, f"picture {i}")
        axis = axes[1, 0]
        for name, (x, y) in curves.items():
            axis.plot(x, y, label=name)
        axis.axvline(at[i], color=COLOURS["grey"], lw=1.2)
        axis.set(xlabel=slider, ylabel=ylabel)
        axis.legend()
        return figure

    return explore(frame, values=range(len(at)), labels=at, title=title, slider=slider)
