"""One look for every picture of the book: colours by role, calm matplotlib defaults."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), which people with any kind of colour blindness can tell apart, by role.
COLOURS = {
    "image": "#5B6770",
    "encoder": "#0072B2",
    "decoder": "#009E73",
    "bottleneck": "#CC79A7",
    "skip": "#7F8C96",
    "hit": "#56B4E9",
    "miss": "#F0E442",
    "false_alarm": "#D55E00",
    "accent": "#E69F00",
    "grey": "#6E6E6E",
}
# The same roles for lines and words, (on white, on dark): each has a contrast of 4.5 to its page and more.
INKS = {
    "image": ("#5B6770", "#9AA7B2"),
    "encoder": ("#0072B2", "#56B4E9"),
    "decoder": ("#007A5A", "#2FC596"),
    "bottleneck": ("#A6467F", "#DE9CC2"),
    "skip": ("#66727C", "#93A1AD"),
    "false_alarm": ("#BF4D00", "#FF8F55"),
    "accent": ("#8F6000", "#F0B440"),
    "grey": ("#65696E", "#A6ACB3"),
}
WIDTH = 6.8  # inches: the column of the book, and its text is still legible on a phone
LINES = [COLOURS[role] for role in ("encoder", "false_alarm", "decoder", "bottleneck", "accent", "hit")]


def style() -> None:
    """Calm matplotlib defaults for the whole notebook, and SVG figures: sharp and of one size everywhere."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.4),
            "figure.dpi": 160,  # in an SVG this only decides how finely photographs are sampled
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "axes.prop_cycle": cycler(color=LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E4E4E4",
            "legend.frameon": False,
            "lines.linewidth": 2.0,
            "image.cmap": "gray",
            "svg.hashsalt": "u2learn",  # the same figure gives the same file
        }
    )
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        from matplotlib_inline.config import InlineBackend

        inline = InlineBackend.instance(parent=shell)
        options: dict[str, Any] = {"bbox_inches": "tight", "metadata": {"Date": None}}
        inline.print_figure_kwargs = options
        inline.figure_formats = {"svg"}


def figure_of(
    width: float, height: float, rows: int = 1, columns: int = 1, layout: Any = None, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A styled figure and its (rows, columns) of Axes.

    pyplot does not know it, so a notebook shows it once, and it may be drawn in any thread.
    """
    from matplotlib.figure import Figure

    style()
    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
