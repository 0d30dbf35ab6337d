"""Our own recipes, sized for a laptop: vessels, salient objects, and images of the reader's own."""

from typing import Any

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.study import Study

# Quarter turns only: reading between pixels would blur what the test shows sharp. Windows with less than 7 %
# of vessel teach little and are drawn again.
FLIPS = Augmentation(flips="hvt", jitter=0.1, max_share=0.93)
EYES = {"train": 20, "test": 20, "size": (584, 565), "seed": 0}  # drawn ones, as large as those of DRIVE


def vessels(dataset: str, /, **rest: Any) -> Recipe:
    """One recipe for every retinal set. Chosen on training images only."""
    drawn = dataset == "synthetic"
    values: dict[str, Any] = {
        "name": f"{dataset}-small",
        "dataset": dataset,
        "model": "unet_small",
        "protocol": "" if drawn else "mmseg",
        "data_options": EYES if drawn else {},
        "model_options": {"width": 8, "depth": 4},
        "long_side": 720,
        "normalisation": "image",
        "crop": (128, 128),
        "augmentation": FLIPS,
        "batch": 4,
        "loss": "small",
        "optimiser": "adamw",
        "learning_rate": 0.01,
        "final_rate": 0.0,
        "weight_decay": 0.01,
        "warm_up": 0.2,
        "ema": 0.995,
        "iterations": 6400,
        "views": "hvt",
        "evaluations": 1,
    }
    return Recipe(**values | rest)


def objects(dataset: str, square: int, crop: int, /, **rest: Any) -> Recipe:
    """U²-Net† with larger batches, one cycle, binary cross-entropy and IoU."""
    values: dict[str, Any] = {
        "name": f"{dataset}-small",
        "dataset": dataset,
        "model": "u2net_small",
        "num_classes": 1,
        "square": square,
        "normalisation": "maximum",
        "crop": (crop, crop),
        "augmentation": Augmentation(flips="h"),
        "loss": "bce-iou",
        "optimiser": "adamw",
        "final_rate": 0.0,
        "weight_decay": 0.01,
        "warm_up": 0.3,
    }
    return Recipe(**values | rest)


@STUDIES.add("small")
def study() -> Study:
    real = ("drive", "stare", "chase")
    longer = {"learning_rate": 0.004, "iterations": 3000, "ema": 0.998, "small_first": 0.5}
    return Study(
        "our own for a laptop: vessels, salient objects (the data sets, but for synthetic-small)",
        (
            *(vessels(dataset) for dataset in (*real, "hrf", "synthetic")),
            objects("ecssd", 320, 288, protocol="study", batch=32, **longer),
        ),
        suites={"retina-small": tuple(f"{dataset}-small" for dataset in real)},
    )
