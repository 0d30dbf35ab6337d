"""A step of several processes, drawn: who has which windows, and what is put together of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from u2learn.show.canvas import GREY, Pen
from u2learn.show.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. A column for each process, boxes in it, and bars across all columns where they meet.
COLUMN, GAP, BOX, BAR, ARROW, WINDOW = 1.56, 0.16, 0.32, 0.44, 0.22, 0.24
ROLES = ("encoder", "decoder", "bottleneck", "accent")  # the colours of the processes
MEETINGS = (  # after which box, what is put together there, and how much that is
    (
        "convolutions",
        "mean and variance of the whole batch",
        "in each batch norm, there and back: 2 numbers a channel",
    ),
    ("outputs", "outputs of the whole batch, one loss", "all output maps"),
    ("gradient", "the sum of all gradients", "1 number a weight"),
)


def shared_step(windows: int, processes: int) -> Figure:
    """Draw a step on a batch of so many windows: what each process does alone, and where all meet.

    Raises:
        ValueError: so many processes are not drawn, or they cannot share the windows evenly.
    """
    if not 1 < processes <= len(ROLES) or windows % processes:
        raise ValueError(
            f"Drawn are 2 to {len(ROLES)} processes that share the windows evenly, not {windows} windows and "
            f"{processes} processes."
        )
    pen = Pen(parameters=False)
    middles = [(COLUMN + GAP) * place for place in range(processes)]
    middle, wide = sum(middles) / processes, middles[-1] + COLUMN
    _windows(pen, middle, 0.0, list(range(windows)), windows, processes)
    pen.text(middle, WINDOW / 2 + 0.05, "the windows of a batch", 9, GREY, va="bottom")
    y = -2.4 * WINDOW
    for place, x in enumerate(middles):
        _windows(pen, x, y, list(range(windows))[place::processes], windows, processes)
        pen.text(x, y + WINDOW / 2 + 0.04, f"process {place}", 9, GREY, va="bottom")
    y -= WINDOW / 2
    for box, shared, size in MEETINGS:
        y = _boxes(pen, middles, y, box)
        for x in middles:
            pen.arrow((x, y), (x, y - ARROW))
        y -= ARROW
        pen.rectangle(middle, y - BAR / 2, wide, BAR, COLOURS["false_alarm"])
        pen.text(middle, y - BAR / 2 + 0.08, shared)
        pen.text(middle, y - BAR / 2 - 0.11, size, 8, GREY)
        y -= BAR
    _boxes(pen, middles, y, "the same step")
    return pen.figure(None)


def _windows(pen: Pen, x: float, y: float, numbers: list[int], windows: int, processes: int) -> None:
    """A row of windows around (x, y), each with its number, in the colour of the process that has it."""
    pitch = min(WINDOW + 0.03, COLUMN / len(numbers) if len(numbers) < windows else 1.0)
    left = x - pitch * (len(numbers) - 1) / 2
    for place, number in enumerate(numbers):
        at = left + pitch * place
        pen.rectangle(at, y, pitch - 0.03, WINDOW, COLOURS[ROLES[number % processes]])
        pen.text(at, y, f"{number}", 9)


def _boxes(pen: Pen, middles: list[float], y: float, text: str) -> float:
    """What every process does for itself, below the height `y`; the height of the boxes' feet."""
    top = y - ARROW
    for place, x in enumerate(middles):
        pen.arrow((x, y), (x, top))
        pen.rectangle(x, top - BOX / 2, COLUMN, BOX, COLOURS[ROLES[place]])
        pen.text(x, top - BOX / 2, text)
    return top - BOX
