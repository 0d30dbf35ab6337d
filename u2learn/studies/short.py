"""The published vessel networks with a training that a laptop can pay: an hour of one core a row.

Network, head, loss, augmentation, windows and test are those of the tables. What is ours is the way there:
AdamW, one cycle, fewer windows, and a running mean of the weights. It was chosen on held-out training images
of DRIVE, by the recipes whose names end in "-try-" and what they try.
"""

import dataclasses
from typing import Any

from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.mmseg import HEADS, LOSSES, WINDOWS, row
from u2learn.studies.study import Study


def short(base: Recipe, **changes: Any) -> Recipe:
    """A row of a table, trained shortly."""
    ours: dict[str, Any] = {
        "name": f"{base.name}-short",
        "optimiser": "adamw",
        "schedule": "one-cycle",
        "betas": (0.9, 0.99),
        "decay_on": "kernels",
        "learning_rate": 0.001,
        "final_rate": 0.0,
        "weight_decay": 0.01,
        "warm_up": 0.2,
        "batch": 4,
        "ema": 0.99,
        "iterations": 2400,
        "evaluations": 1,
        "row": {},
    }
    return dataclasses.replace(base, **ours | changes)


# What was tried, at a quarter of the length and with the mean over a shorter time.
TRIES: dict[str, dict[str, Any]] = {
    "base": {},
    "rate-0.0005": {"learning_rate": 0.0005},
    "rate-0.002": {"learning_rate": 0.002},
    "batch-8": {"batch": 8, "iterations": 300, "ema": 0.94},
    "batch-2": {"batch": 2, "iterations": 1200, "ema": 0.985},
    "no-mean": {"ema": 0.0},
    "growing": {"small_first": 0.5, "iterations": 960, "ema": 0.98},
}


def vessels(dataset: str, head: str, loss: str, **rest: Any) -> Recipe:
    side, stride = WINDOWS[dataset]
    return row(dataset, head, loss, (side, side), window=(side, side), stride=(stride, stride), **rest)


@STUDIES.add("short")
def study() -> Study:
    drive = tuple(short(vessels("drive", head, loss)) for loss in LOSSES for head in HEADS)
    base = short(vessels("drive", "fcn", "ce-dice"), protocol="held-out", iterations=600, ema=0.97)
    tries = tuple(
        dataclasses.replace(base, name=f"drive-fcn-ce-dice-try-{name}", **changes)
        for name, changes in TRIES.items()
    )
    return Study(
        "the published vessel networks, trained for an hour of one core (the data sets)",
        (*drive, *tries),
        suites={
            "drive-short": tuple(each.name for each in drive),
            "short-tries": tuple(each.name for each in tries),
        },
        columns={
            "Dice": ("image", "dice"),
            "mDice": ("image", "mdice"),
        },
    )
