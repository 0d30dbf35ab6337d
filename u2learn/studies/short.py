"""Published networks with a training that a laptop can pay: an hour or so of one core each.

Of the vessel networks head, loss, augmentation and test are those of the tables. What is ours is the way
there: AdamW, one cycle, fewer windows, of which the first half are small, and a running mean of the weights.
It was chosen on held-out training images of DRIVE, by the recipes whose names end in "-try-" and what they
try.

U²-Net† learns from 700 photographs of ECSSD, squeezed to 128 pixels a side, and is tested on the other 300:
no row of a table, as those learn from DUTS.
"""

import dataclasses
from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies import paddle
from u2learn.studies.mmseg import HEADS, LOSSES, WINDOWS, row
from u2learn.studies.small import objects
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
        "ema": 0.996,
        "small_first": 0.5,
        "iterations": 6400,  # as many pixels as a fortieth of the table's 40,000 steps of 16 windows
        "evaluations": 1,
        "row": {},
    }
    return dataclasses.replace(base, **ours | changes)


# What was tried, for equal seconds of a core: 600 steps of 4 windows, with the mean over a shorter time.
BRIEFLY: dict[str, Any] = {"iterations": 600, "ema": 0.97, "small_first": 0.0}
TRIES: dict[str, dict[str, Any]] = {
    "base": {},
    "rate-0.0005": {"learning_rate": 0.0005},
    "rate-0.002": {"learning_rate": 0.002},
    "batch-8": {"batch": 8, "iterations": 300, "ema": 0.94},
    "batch-2": {"batch": 2, "iterations": 1200, "ema": 0.985},
    "no-mean": {"ema": 0.0},
    "growing": {"small_first": 0.5, "iterations": 960, "ema": 0.98},
}


def photographs() -> Recipe:
    """U²-Net† from nothing on real photographs. Muon was chosen on the last hundred of the 700."""
    return objects(
        "ecssd",
        128,
        112,
        name="ecssd-short",
        protocol="study",
        augmentation=Augmentation(flips="h", jitter=0.1),
        batch=16,
        optimiser="muon",
        learning_rate=0.01,
        warm_up=0.1,
        iterations=1600,
        ema=0.995,
        small_first=0.5,
        evaluations=6,
    )


# Windows of 128 pixels cost four times DRIVE's of 64.
LARGE: dict[str, Any] = {"iterations": 2400, "ema": 0.99}


def vessels(dataset: str, head: str, loss: str, **rest: Any) -> Recipe:
    side, stride = WINDOWS[dataset]
    return row(dataset, head, loss, (side, side), window=(side, side), stride=(stride, stride), **rest)


@STUDIES.add("short")
def study() -> Study:
    rows = [vessels("drive", head, loss) for loss in LOSSES for head in HEADS]
    drive = tuple(map(short, rows))
    wide = [vessels(dataset, "fcn", loss) for dataset in ("stare", "chase") for loss in LOSSES]
    wide.append(paddle.row("drive", (128, 128)))
    others = tuple(short(each, **LARGE) for each in wide)
    base = short(vessels("drive", "fcn", "ce-dice"), protocol="held-out", **BRIEFLY)
    tries = tuple(
        dataclasses.replace(base, name=f"drive-fcn-ce-dice-try-{name}", **changes)
        for name, changes in TRIES.items()
    )
    return Study(
        "published networks, trained for an hour of one core (the data sets)",
        (*drive, *others, *tries, photographs()),
        suites={
            "drive-short": tuple(each.name for each in drive),
            "others-short": tuple(each.name for each in others),
            "short-tries": tuple(each.name for each in tries),
        },
        columns={
            "Dice": ("image", "dice"),
            "DICE": ("image", "mdice"),
            "mDice": ("image", "mdice"),
        },
        shortened={
            ours.name: whole.name for ours, whole in zip((*drive, *others), (*rows, *wide), strict=True)
        },
    )
