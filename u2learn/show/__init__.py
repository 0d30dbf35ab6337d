"""The pictures, diagrams, tables and widgets of the book.

A helper returns what it shows, and the last line of a cell displays it. matplotlib, IPython and ipywidgets
are imported when a helper is called, never before.
"""

from u2learn.show import diagrams
from u2learn.show.book import budget, publishing, source
from u2learn.show.calculator import field_calculator
from u2learn.show.classes import class_colours, class_legend, class_table, confusion_picture
from u2learn.show.curves import following, precision_recall, training_curve
from u2learn.show.drawing import draw
from u2learn.show.hce import hce_steps
from u2learn.show.palette import COLOURS, style
from u2learn.show.pictures import (
    feature_grid,
    image_row,
    kernel_picture,
    overlay,
    receptive_field,
    show_errors,
)
from u2learn.show.processes import shared_step
from u2learn.show.questions import guess, guesses
from u2learn.show.scores import scoreboard
from u2learn.show.watching import watch
from u2learn.show.widgets import explore

__all__ = [
    "COLOURS",
    "budget",
    "class_colours",
    "class_legend",
    "class_table",
    "confusion_picture",
    "diagrams",
    "draw",
    "explore",
    "feature_grid",
    "field_calculator",
    "following",
    "guess",
    "guesses",
    "hce_steps",
    "image_row",
    "kernel_picture",
    "overlay",
    "precision_recall",
    "publishing",
    "receptive_field",
    "scoreboard",
    "shared_step",
    "show_errors",
    "source",
    "style",
    "training_curve",
    "watch",
]
