"""Curves: precision against recall, and what a training run logged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from u2learn.show.book import publishing
from u2learn.show.palette import COLOURS, WIDTH, figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Log = Iterable[Mapping[str, Any]] | str | Path  # lines, or the file or folder that holds them


def precision_recall(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> Figure:
    """Precision against recall, with grey lines of equal Dice.

    `curves`: name -> (recall, precision), two sequences in [0, 1]; `points`: name -> (recall, precision),
    such as the second observer.

    Raises:
        ValueError: nothing to draw, sequences of different length, or numbers outside [0, 1] (per cent?).
    """
    points = dict(points or {})
    if not curves and not points:
        raise ValueError("precision_recall has nothing to draw: give at least one curve or point.")
    drawn = {
        name: [np.atleast_1d(np.asarray(v)) for v in pair]
        for name, pair in (*curves.items(), *points.items())
    }
    for name, (recall, precision) in drawn.items():
        if recall.shape != precision.shape:
            raise ValueError(
                f'"{name}": {recall.size} recalls and {precision.size} precisions; they come in pairs.'
            )
        if min(recall.min(), precision.min()) < 0 or max(recall.max(), precision.max()) > 1:
            raise ValueError(
                f'"{name}": recall and precision are fractions in [0, 1]; divide per cents by 100.'
            )
    figure, axes = figure_of(5.2, 4.9)
    axis = axes[0, 0]
    for dice in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9):
        recall = np.linspace(dice / (2 - dice), 1, 200)
        axis.plot(recall, dice * recall / (2 * recall - dice), color="#C4C4C4", lw=1, zorder=1)
        axis.annotate(
            f"Dice {dice:.1f}",
            (1, dice / (2 - dice)),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLOURS["grey"],
            annotation_clip=False,
        )
    for name in curves:
        axis.plot(*drawn[name], label=name, zorder=2)
    for (name, _), marker in zip(points.items(), cycle("oDs^v"), strict=False):
        axis.plot(*drawn[name], marker, ms=8, mec="black", mew=0.8, label=name, zorder=3, clip_on=False)
    axis.grid(False)
    axis.set(
        xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel="recall", ylabel="precision", title=title or ""
    )
    axis.legend(loc="lower left", facecolor="white", framealpha=0.9, frameon=True, edgecolor="none")
    return figure


def training_curve(
    log: Log | Mapping[str, Log], keys: Sequence[str] = ("loss",), x: str = "iteration"
) -> Figure:
    """What a training run logged, one panel for each of `keys`.

    `log` is a list of dicts, the path of a log.jsonl or of its run folder, or several of these by name. Lines
    that lack a key are skipped, so that losses and evaluations may share one log.

    Raises:
        FileNotFoundError: there is no such log.
        ValueError: a key that no line has, or a line that is not JSON.
    """
    logs = {name: _lines(each) for name, each in (log.items() if isinstance(log, Mapping) else [("", log)])}
    figure, axes = figure_of(WIDTH, 2.6 * len(keys) + 0.3, len(keys), 1, sharex=True)
    for axis, key in zip(axes[:, 0], keys, strict=True):
        for name, lines in logs.items():
            pairs = [(line[x], line[key]) for line in lines if x in line and key in line]
            if not pairs:
                known = ", ".join(sorted({k for line in lines for k in line})) or "nothing"
                raise ValueError(f'no line of the log has both "{x}" and "{key}"; it holds {known}.')
            axis.plot(*zip(*pairs, strict=True), label=name, marker="o" if len(pairs) < 30 else "", ms=4)
        axis.set_ylabel(key.replace("_", " "))
    axes[-1, 0].set_xlabel(x)
    if isinstance(log, Mapping):
        axes[0, 0].legend()
    return figure


def run_curves(lines: Sequence[Mapping[str, Any]], score: str, reported: float | None = None) -> Figure:
    """Training and validation loss of a run in one panel, and below it `score` of the part that it watches.

    `lines` are those of its log.jsonl. Where the two losses part, the network begins to learn by heart.
    `reported` is drawn as a line across the scores.
    """
    figure, axes = figure_of(WIDTH, 5.5, 2, 1, sharex=True)
    for row, key, label in ((0, "loss", "training"), (0, "watched_loss", "validation"), (1, score, "")):
        pairs = [(line["iteration"], line[key]) for line in lines if line.get(key) is not None]
        marker = "o" if len(pairs) < 30 else ""
        if pairs:
            axes[row, 0].plot(*zip(*pairs, strict=True), label=label, marker=marker, ms=4)
    if reported is not None:
        axes[1, 0].axhline(reported, color=COLOURS["grey"], linestyle="--", label="reported")
        axes[1, 0].legend()
    axes[0, 0].set_ylabel("loss")
    axes[0, 0].legend()
    axes[1, 0].set_ylabel(score.replace("_", " "))
    axes[1, 0].set_xlabel("iteration")
    return figure


@contextmanager
def following(
    folder: str | Path, score: str, reported: float | None = None, every: float = 5
) -> Iterator[None]:
    """Show the curves of a run in a notebook while the block trains it, drawn anew every so many seconds.

    The last state stays when the block ends, however it ends, and is all that the rendered book shows. See
    `run_curves`.
    """
    from IPython.display import DisplayHandle, display

    shown: list[DisplayHandle] = []
    done = threading.Event()

    def draw() -> None:
        if (Path(folder) / "log.jsonl").is_file() and (lines := _lines(folder)):
            figure = run_curves(lines, score, reported)
            if shown:
                shown[0].update(figure)
            else:
                shown.append(display(figure, display_id=True))

    def watch() -> None:
        while not done.wait(every):
            draw()

    thread = threading.Thread(target=watch, daemon=True)
    if not publishing():  # a page keeps what is displayed first
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
        draw()


def _lines(log: Log) -> list[Mapping[str, Any]]:
    if not isinstance(log, (str, Path)):
        return list(log)
    path = Path(log) / "log.jsonl" if Path(log).is_dir() else Path(log)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such log; give the run's folder or its log.jsonl.")
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            raise ValueError(f"{path}, line {number}: not JSON; delete the line or train again.") from None
    return lines
