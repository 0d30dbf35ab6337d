"""Which block? A thin U²-Net† with seven blocks in its stages, equal in parameters or in operations."""

import dataclasses

from u2learn.models.blocks import BLOCKS, COSTS
from u2learn.recipe import Recipe
from u2learn.registry import STUDIES
from u2learn.studies.drawn import THINGS
from u2learn.studies.small import objects, vessels
from u2learn.studies.study import Study

AT_ANY_COST = ("naive", "rsu")  # blocks that cost what an RSU costs, by either measure
IN_WINDOWS = ("plain-flops", "pyramid-flops", "naive", "rsu")  # whose vessels are looked for in windows, too


def block_study() -> dict[tuple[str, str, str], str]:
    """The recipes that compare blocks: (data set, block, by what it is matched to an RSU) -> name."""
    return {
        (dataset, block, by): f"{dataset}-{block}" + ("" if block in AT_ANY_COST else f"-{by}")
        for dataset in ("drive", "objects")
        for block in BLOCKS
        for by in COSTS
    }


def block_recipe(name: str, dataset: str, block: str, by: str) -> Recipe:
    """A thin U²-Net† with another block in all its stages.

    Everything but the block is that of our recipe for the same images, made short, as the runs are many. The
    rate was chosen on training images, for plain blocks and RSUs, from 0.003 (vessels only), 0.01 and 0.03.
    """
    on_vessels = dataset == "drive"
    return dataclasses.replace(
        vessels("drive") if on_vessels else objects("objects", 64, 64, data_options=THINGS),
        name=name,
        model="u2net_blocks",
        model_options={"block": block, "by": by, "mid_channels": 8, "out_channels": 16},
        crop=(80, 80) if on_vessels else (64, 64),
        batch=4 if on_vessels else 8,
        learning_rate=0.01,
        warm_up=0.3,
        ema=0.98,
        iterations=300 if on_vessels else 200,
        views="",
        evaluations=1,
    )


def in_windows(recipe: Recipe) -> Recipe:
    """The same training, tested in windows as large as those that it saw."""
    height, width = recipe.crop
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name}-windows",
        window=recipe.crop,
        stride=(height * 2 // 3, width * 2 // 3),
        trained_by=recipe.name,
    )


@STUDIES.add("blocks")
def study() -> Study:
    recipes = {name: block_recipe(name, *key) for key, name in block_study().items()}
    recipes |= {f"drive-{block}-windows": in_windows(recipes[f"drive-{block}"]) for block in IN_WINDOWS}
    return Study(
        "seven blocks in one network (DRIVE and drawn things, an hour of a CPU)",
        tuple(recipes.values()),
        suites={"blocks": tuple(sorted(recipes))},
    )
