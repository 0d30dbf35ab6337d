"""Recipes: everything that decides a result, in one frozen object. Same recipe, same machine, same result."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi

import torch
from torch import Tensor, nn

from u2learn.data import saliency
from u2learn.data.augment import NORMALISATIONS, Augmentation
from u2learn.data.cityscapes import Cityscapes
from u2learn.data.drawn.objects import SyntheticObjects
from u2learn.data.drawn.retina import SyntheticRetina
from u2learn.data.drawn.streets import SyntheticStreets
from u2learn.data.example import Example
from u2learn.data.retina import Retina
from u2learn.losses import (
    binary_cross_entropy,
    cross_entropy,
    cross_entropy_paddle,
    deep_supervision,
    dice_mmseg0,
    dice_paddle2021,
    iou_loss,
    weighted_sum,
)
from u2learn.models.blocks import BLOCKS, COSTS, u2net_blocks
from u2learn.models.u2net import u2net, u2net_small
from u2learn.models.unet import unet_paddle, unet_s5_d16, unet_small, wnet_small

MODELS: dict[str, Callable[..., nn.Module]] = {
    "unet_s5_d16": unet_s5_d16,
    "unet_paddle": unet_paddle,
    "unet_small": unet_small,
    "wnet_small": wnet_small,
    "u2net": u2net,
    "u2net_small": u2net_small,
    "u2net_blocks": u2net_blocks,
}

# A loss for each output of the model: the main one, and the weights and the loss of the auxiliary ones.
LOSSES: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
    "ce": deep_supervision(cross_entropy, (1, 0.4)),
    "ce-dice": deep_supervision(
        weighted_sum((1, cross_entropy), (3, dice_mmseg0)), (1, 0.4), auxiliary=cross_entropy
    ),
    "paddle-ce": deep_supervision(cross_entropy_paddle, (1,)),
    "paddle-dice": deep_supervision(dice_paddle2021, (1,)),
    "small": deep_supervision(weighted_sum((1, cross_entropy), (2, dice_paddle2021)), (1,) * 7),
    "u2net": deep_supervision(binary_cross_entropy, (1,) * 7),
    "bce-iou": deep_supervision(weighted_sum((1, binary_cross_entropy), (1, iou_loss)), (1,) * 7),
}

# The names of the table's decode heads, and ours.
MMSEG_HEADS = {"fcn": "fcn", "psp": "psp", "deeplabv3": "aspp"}

STREETS = {"cityscapes": Cityscapes, "streets": SyntheticStreets}
OBJECTS = {"objects": (64, False), "thin": (192, True)}  # drawn things: pixels a side, and of wires or not
DRAWN = {"train": 800, "test": 100}  # how many pictures of them

MATCHED = ("naive", "rsu")  # blocks that cost what an RSU costs, by either measure
WINDOWED = ("plain-flops", "pyramid-flops", "naive", "rsu")  # whose vessels are looked for in windows, too

# The views that a test may average, each as the flips that lead to it (see `inference.turn`).
VIEWS: dict[str, list[str]] = {
    "": [""],
    "h": ["", "h"],
    "hv": ["", "h", "v", "hv"],
    "hvt": ["", "h", "v", "hv", "t", "ht", "vt", "hvt"],
}


@dataclass(frozen=True)
class Recipe:
    """Data, model, training and test of one result; see the fields. Sizes are (height, width) in pixels.

    dataset and split: which images (`u2learn.data`), and whose division into training and test.
    num_classes: as many maps of logits; 1 is saliency, where the label is a mask.
    side: shrink images to this long side before anything else (0: never). square: squeeze them to so many
    pixels a side instead, as the networks for saliency want them (0: never). normalisation: see `normalise`.
    optimiser: "sgd" (momentum 0.9, decay on every parameter, polynomial schedule down to `final_rate`),
    "adamw" (decay on weights of convolutions only, one cycle: linear warm-up, cosine to `final_rate`) or
    "adam" (the original, with betas of 0.9 and 0.999, always at the same rate).
    ema: decay of the running mean of the weights that is kept as the result (0: the last weights are).
    small_first: share of the training, from its start, whose windows are shrunk to half their sides.
    window, stride, flips, scales: how the test predicts, see `predict`; without a window the whole image goes
    in at once. Saliency is tested as `inference.saliency` does, on images of `square` pixels.
    """

    name: str
    dataset: str
    model: str
    split: str = "mmseg"
    model_options: dict = field(default_factory=dict)
    num_classes: int = 2
    side: int = 0
    normalisation: str = "imagenet"
    crop: tuple[int, int] = (64, 64)
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch: int = 16
    loss: str = "ce"
    optimiser: str = "sgd"
    learning_rate: float = 0.01
    final_rate: float = 1e-4
    weight_decay: float = 5e-4
    warm_up: float = 0.0
    ema: float = 0.0
    small_first: float = 0.0
    iterations: int = 40_000
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    flips: str = ""
    scales: tuple[float, ...] = (1.0,)
    evaluations: int = 10
    seed: int = 0
    square: int = 0

    def __post_init__(self):
        choices = {
            "model": MODELS,
            "loss": LOSSES,
            "optimiser": ("sgd", "adamw", "adam"),
            "normalisation": (*NORMALISATIONS, "image", "maximum"),
            "flips": VIEWS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                known = ", ".join(map(repr, known))
                raise ValueError(f"A recipe's {name} is one of {known}, not {getattr(self, name)!r}.")
        if "t" in self.augmentation.flips and self.crop[0] != self.crop[1]:
            raise ValueError(f"The flip t swaps height and width, which windows of {self.crop} do not allow.")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"A recipe's scales are factors above 0, at least one, not {self.scales}.")
        if self.evaluations < 1 or self.iterations < self.evaluations:
            raise ValueError(f"{self.evaluations} evaluations do not fit into {self.iterations} iterations.")
        if not 0 <= self.small_first <= 1:
            raise ValueError(f"small_first is a share of the training, from 0 to 1, not {self.small_first}.")
        if self.num_classes == 1:
            self._check_saliency()

    def _check_saliency(self) -> None:
        """A mask has no value for "ignore", so windows must not reach over the border of an image."""
        over = self.augmentation.rotate or self.augmentation.scale[0] < 1 or max(self.crop) > self.square
        if over or self.side:
            raise ValueError(
                "A saliency recipe (one class) squeezes its images to a `square` not smaller than the crop, "
                f"without side, rotation or scales below 1; here are square={self.square}, crop={self.crop}, "
                f"side={self.side}, rotate={self.augmentation.rotate}, scale={self.augmentation.scale}."
            )
        if (self.window, self.stride, self.flips, self.scales) != (None, None, "", (1.0,)):
            raise ValueError("A saliency recipe tests whole images as they are: no window, flips or scales.")

    def examples(self, part: str) -> Sequence[Example]:
        """The images of this recipe's "train" or "test" part, read when they are asked for."""
        if self.dataset == "synthetic":
            return SyntheticRetina(part)
        if self.dataset in STREETS:  # what is reported of Cityscapes is about its validation part
            return STREETS[self.dataset]("val" if part == "test" else part)
        if self.dataset in OBJECTS:
            side, thin = OBJECTS[self.dataset]  # a smaller `square` sees less of the same pictures
            return SyntheticObjects(part, DRAWN[part], (side, side), thin=thin)
        if self.dataset in saliency.TESTS:
            return saliency.Saliency(self.dataset, part, protocol=self.split)
        return Retina(self.dataset, part, protocol=self.split)

    def for_training(self) -> "Recipe":
        """The recipe whose run makes the weights of this one: several tests share one training."""
        if self.name.endswith("-windows"):
            whole = self.name.removesuffix("-windows")
            return dataclasses.replace(self, name=whole, window=None, stride=None)
        if self.dataset not in saliency.TESTS or self.split == "study":
            return self
        shared = saliency.PROTOCOLS[self.split][1][0]
        return dataclasses.replace(self, name=self.name.replace(self.dataset, shared, 1), dataset=shared)

    def build_model(self) -> nn.Module:
        """A new model with initial weights that depend on the seed only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return MODELS[self.model](num_classes=self.num_classes, **self.model_options)

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if self.optimiser == "adam":
            return self.learning_rate
        if self.optimiser == "sgd":
            fall = (1 - iteration / self.iterations) ** 0.9
        else:
            warm = max(1, round(self.warm_up * self.iterations))
            if iteration < warm:
                return self.learning_rate * (iteration + 1) / warm
            fall = (1 + cos(pi * (iteration - warm) / (self.iterations - warm))) / 2
        return self.final_rate + (self.learning_rate - self.final_rate) * fall

    def to_json(self) -> str:
        """The recipe as readable JSON; `from_json` is the way back."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """A recipe from its JSON.

        Raises:
            ValueError: it is no JSON, or has fields that a recipe does not have.
        """
        try:
            values = json.loads(text)
            augmentation = Augmentation(**_tuples(values.pop("augmentation")))
            return Recipe(**_tuples(values), augmentation=augmentation)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"This is not a recipe of this version of u2learn: {error}.") from error


def names() -> list[str]:
    """All recipes' names."""
    return sorted(_catalogue())


def get(name: str, **changes: object) -> Recipe:
    """The recipe of this name, with fields changed: get("drive-small", seed=3).

    Raises:
        KeyError: there is no such recipe; the message lists those that there are.
    """
    recipes = _catalogue()
    if name not in recipes:
        raise KeyError(f"There is no recipe {name!r}. There are: {', '.join(sorted(recipes))}.")
    return dataclasses.replace(recipes[name], **changes)


@functools.cache
def _catalogue() -> dict[str, Recipe]:
    """Every recipe, generated from its dimensions."""
    crops = {"drive": (64, 42), "stare": (128, 85), "chase": (128, 85), "hrf": (256, 170)}
    streets = {"num_classes": 19, "iterations": 160_000}
    recipes = [
        _mmseg(dataset, head, loss, (crop, crop), window=(crop, crop), stride=(stride, stride))
        for dataset, (crop, stride) in crops.items()
        for head in MMSEG_HEADS
        for loss in ("ce", "ce-dice")
    ]
    recipes += [_mmseg("cityscapes", "fcn", "ce", (512, 1024), **streets)]
    recipes += [_paddle(dataset, (128, 128)) for dataset in ("drive", "stare", "chase")]
    recipes += [_paddle("hrf", (256, 256), scales=(1280 / 3504,))]  # tested at a long side of 1280
    recipes += [_paddle("cityscapes", (512, 1024), flips="h", loss="paddle-ce", batch=4, **streets)]
    recipes += [_small(dataset) for dataset in (*crops, "synthetic")]
    for model in ("u2net", "u2net_small"):
        recipes += [_u2net(dataset, "duts", model) for dataset in saliency.PROTOCOLS["duts"][1]]
    recipes += [_u2net(dataset, "dis5k", "u2net") for dataset in saliency.PROTOCOLS["dis5k"][1]]
    recipes += [_u2net_at("dis-vd", side) for side in (512, 1024)]
    longer = {"learning_rate": 0.004, "iterations": 3000, "ema": 0.998, "small_first": 0.5}
    recipes += [_economical("ecssd", 320, 288, batch=32, **longer)]
    blocks = {name: _block(name, *key) for key, name in block_study().items()}
    recipes += [*blocks.values(), *(_in_windows(blocks[f"drive-{name}"]) for name in WINDOWED)]
    narrow = {"model_options": {"mid": 16, "out": 16}}
    short = {"batch": 16, "learning_rate": 0.03, "iterations": 200, "evaluations": 2}
    objects = _economical("objects", 64, 64, **short, **narrow)
    recipes += [objects, *_steps_towards(objects)]
    short = {"batch": 8, "learning_rate": 0.02, "iterations": 300, "evaluations": 1}
    thin = _economical("thin", 192, 160, **short, **narrow)
    recipes += [thin, *(_seen_smaller(thin, side) for side in (96, 48))]
    return {recipe.name: recipe for recipe in recipes}


def _mmseg(dataset: str, head: str, loss: str, crop: tuple[int, int], **rest: object) -> Recipe:
    """A row of OpenMMLab's table for UNet-S5-D16 (reference: mmsegmentation, configs/unet)."""
    return Recipe(
        name=f"{dataset}-{head}-{loss}",
        dataset=dataset,
        model="unet_s5_d16",
        model_options={"head": MMSEG_HEADS[head]},
        crop=crop,
        augmentation=Augmentation(scale=(0.5, 2.0), flips="h", max_share=0.75, photometric="mmseg"),
        loss=loss,
        **rest,
    )


def _paddle(
    dataset: str, crop: tuple[int, int], flips: str = "hv", loss: str = "paddle-dice", **rest: object
) -> Recipe:
    """A row of PaddleSeg's table for UNet (reference: PaddleSeg, configs/unet and configs/_base_)."""
    return Recipe(
        name=f"{dataset}-paddle",
        dataset=dataset,
        model="unet_paddle",
        split="paddleseg",
        normalisation="half",
        crop=crop,
        augmentation=Augmentation(
            scale=(0.5, 2.0), scale_step=0.25, flips=flips, flip_v=0.1, photometric="paddleseg"
        ),
        loss=loss,
        final_rate=0.0,
        weight_decay=4e-5,
        **rest,
    )


def _small(dataset: str) -> Recipe:
    """Our own: one recipe for every retinal set, sized for a laptop's CPU. Chosen on training images only."""
    return Recipe(
        name=f"{dataset}-small",
        dataset=dataset,
        model="unet_small",
        model_options={"width": 8, "depth": 4},
        side=720,
        normalisation="image",
        crop=(128, 128),
        # Quarter turns only: reading between pixels would blur what the test shows sharp. Windows with less
        # than 7 % of vessel teach little and are drawn again.
        augmentation=Augmentation(flips="hvt", jitter=0.1, max_share=0.93),
        batch=4,
        loss="small",
        optimiser="adamw",
        learning_rate=0.01,
        final_rate=0.0,
        weight_decay=0.01,
        warm_up=0.2,
        ema=0.995,
        iterations=6400,
        flips="hvt",
        evaluations=1,
    )


def _u2net(dataset: str, protocol: str, model: str) -> Recipe:
    """A row of the U²-Net paper (trained on DUTS) or of the DIS paper (the same network, trained on DIS-TR).

    As the authors' code has it, which flips up-down too, and has no schedule. Flips left-right were stored
    beside the images, which gives the same mixture; crops never began at the last row or column. Of the
    training for the DIS paper only the input size is reported.
    """
    return Recipe(
        name=f"{dataset}-{model.replace('_', '-')}",
        dataset=dataset,
        model=model,
        split=protocol,
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
    )


def _u2net_at(dataset: str, side: int) -> Recipe:
    """A row of the DIS paper on larger inputs, trained as its code trains: batches of 8, flips h, no crop.

    That code stops when twenty tests in a row, one every 2,000 iterations, bring no gain. The length is ours.
    """
    return dataclasses.replace(
        _u2net(dataset, "dis5k", "u2net"),
        name=f"{dataset}-u2net-{side}",
        square=side,
        crop=(side, side),
        augmentation=Augmentation(flips="h"),
        batch=8,
        iterations=100_000,
    )


def _economical(dataset: str, square: int, crop: int, **rest: object) -> Recipe:
    """Our own for U²-Net†: larger batches, one cycle, binary cross-entropy and IoU."""
    return Recipe(
        name=f"{dataset}-small",
        dataset=dataset,
        model="u2net_small",
        split="study",
        num_classes=1,
        square=square,
        normalisation="maximum",
        crop=(crop, crop),
        augmentation=Augmentation(flips="h"),
        loss="bce-iou",
        optimiser="adamw",
        final_rate=0.0,
        weight_decay=0.01,
        warm_up=0.3,
        **rest,
    )


def _steps_towards(ours: Recipe) -> list[Recipe]:
    """What our recipe changes, or might, one thing at a time: Adam at one rate, one cycle, and so on."""
    cycle = dataclasses.replace(ours, name=f"{ours.dataset}-cycle", loss="u2net")
    theirs = _u2net("duts", "duts", ours.model)
    changed = ("optimiser", "learning_rate", "final_rate", "weight_decay", "warm_up")
    published = {field: getattr(theirs, field) for field in changed}
    return [
        dataclasses.replace(cycle, name=f"{ours.dataset}-adam", **published),
        cycle,
        dataclasses.replace(ours, name=f"{ours.dataset}-ema", ema=0.95),
        dataclasses.replace(ours, name=f"{ours.dataset}-growing", small_first=0.5),
    ]


def _seen_smaller(recipe: Recipe, side: int) -> Recipe:
    """The same recipe for a network that sees its pictures squeezed to fewer pixels a side."""
    crop = recipe.crop[0] * side // recipe.square
    return dataclasses.replace(recipe, name=f"{recipe.name}-{side}", square=side, crop=(crop, crop))


def block_study() -> dict[tuple[str, str, str], str]:
    """The recipes that compare blocks: (data set, block, by what it is matched to an RSU) -> name."""
    return {
        (dataset, block, by): f"{dataset}-{block}" + ("" if block in MATCHED else f"-{by}")
        for dataset in ("drive", "objects")
        for block in BLOCKS
        for by in COSTS
    }


def _block(name: str, dataset: str, block: str, by: str) -> Recipe:
    """The study of blocks: a thin U²-Net† with another block in all its stages.

    Everything but the block is that of our recipe for the same images, made short, as the runs are many. The
    rate was chosen on training images, for plain blocks and RSUs, from 0.003 (vessels only), 0.01 and 0.03.
    """
    vessels = dataset == "drive"
    return dataclasses.replace(
        _small(dataset) if vessels else _economical(dataset, 64, 64),
        name=name,
        model="u2net_blocks",
        model_options={"block": block, "by": by, "mid": 8, "out": 16},
        crop=(80, 80) if vessels else (64, 64),
        batch=4 if vessels else 8,
        learning_rate=0.01,
        warm_up=0.3,
        ema=0.98,
        iterations=300 if vessels else 200,
        flips="",
        evaluations=1,
    )


def _in_windows(recipe: Recipe) -> Recipe:
    """The same training, tested in windows as large as those that it saw."""
    stride = tuple(side * 2 // 3 for side in recipe.crop)
    return dataclasses.replace(recipe, name=f"{recipe.name}-windows", window=recipe.crop, stride=stride)


def _tuples(values: dict) -> dict:
    """JSON knows no tuples; a recipe knows no lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
