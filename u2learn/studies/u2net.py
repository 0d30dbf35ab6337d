"""The tables of the U²-Net paper (trained on DUTS) and of the DIS paper (the same, trained on DIS-TR)."""

import dataclasses

from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.study import Study

OBJECTS = ("duts", "ecssd", "hku-is", "pascal-s", "dut-omron", "sod")
DIS = ("dis-vd", "dis-te1", "dis-te2", "dis-te3", "dis-te4")
MODELS = {"u2net": "U2-Net", "u2net_small": "U2-Net-dagger"}  # ours, and as the tables call them


def published(model: str, dataset: str = "duts", protocol: str = "duts", trained_on: str = "duts") -> Recipe:
    """A row of either paper, as the authors' code has it, which flips up-down too, and has no schedule.

    Flips left-right were stored beside the images, which gives the same mixture; crops never began at the
    last row or column. Of the training for the DIS paper only the input size is reported.
    """
    net = model.replace("_", "-")
    return Recipe(
        name=f"{dataset}-{net}",
        dataset=dataset,
        model=model,
        protocol=protocol,
        num_classes=1,
        square=320,
        normalisation="maximum",
        crop=(288, 288),
        augmentation=Augmentation(flips="hv"),
        batch=12,
        loss="u2net",
        optimiser="adam",
        learning_rate=0.001,
        final_rate=0.001,
        weight_decay=0.0,
        iterations=600_000,
        trained_by="" if dataset == trained_on else f"{trained_on}-{net}",
        row={
            "dataset": "DUTS-TE" if dataset == "duts" else dataset.upper(),
            "model": MODELS[model],
            "variant": "",
        },
    )


def larger(dataset: str, side: int) -> Recipe:
    """A row of the DIS paper on larger inputs, trained as its code trains: batches of 8, flips h, no crop.

    That code stops when twenty tests in a row, one every 2,000 iterations, bring no gain. The length is ours.
    """
    base = published("u2net", dataset, "dis5k", dataset)
    return dataclasses.replace(
        base,
        name=f"{dataset}-u2net-{side}",
        square=side,
        crop=(side, side),
        augmentation=Augmentation(flips="h"),
        batch=8,
        iterations=100_000,
        scored_under=("image", "DIS"),
        row=base.row | {"variant": f"{side}x{side}"},
    )


@STUDIES.add("u2net")
def objects() -> Study:
    return Study(
        "the U²-Net paper's tables: six sets of salient objects (a GPU and the data sets)",
        tuple(published(model, dataset) for model in MODELS for dataset in OBJECTS),
        suites={
            "saliency": tuple(f"{dataset}-{net}" for net in ("u2net", "u2net-small") for dataset in OBJECTS)
        },
        columns={
            "maxF": ("image", "max_f"),
            "MAE": ("image", "mae"),
            "Fw": ("image", "weighted_f"),
            "Sm": ("image", "s"),
            "relaxFb": ("image", "relaxed_f"),
        },
    )


@STUDIES.add("dis")
def dis() -> Study:
    rows = (published("u2net", dataset, "dis5k", "dis-vd") for dataset in DIS)
    return Study(
        "the DIS paper's tables: five parts of DIS5K (a GPU and the data set)",
        (
            *(dataclasses.replace(recipe, scored_under=("image", "DIS")) for recipe in rows),
            *(larger("dis-vd", side) for side in (512, 1024)),
        ),
        suites={"dis": tuple(f"{dataset}-u2net" for dataset in DIS)},
        columns={
            "maxF": ("DIS", "max_f_curves"),
            "MAE": ("DIS", "mae"),
            "Fw": ("DIS", "weighted_f"),
            "Sm": ("DIS", "s"),
            "E-measure(mean)": ("DIS", "mean_e"),
            "HCE": ("DIS", "hce"),
        },
    )
