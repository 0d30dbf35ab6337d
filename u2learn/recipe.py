"""A recipe: everything that decides a result, in one frozen object."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from u2learn import losses, models, optimisers  # noqa: F401  (they register what a recipe may name)
from u2learn.data.augment import NORMALISATIONS, Augmentation
from u2learn.first_edition import completed
from u2learn.registry import LOSSES, METRICS, MODELS, OPTIMISERS, SCHEDULES

if TYPE_CHECKING:
    from u2learn.data.example import Example

# The views that a test may average, each as the flips that lead to it (see `inference.flipped`).
VIEWS: dict[str, list[str]] = {
    "": [""],
    "h": ["", "h"],
    "hv": ["", "h", "v", "hv"],
    "hvt": ["", "h", "v", "hv", "t", "ht", "vt", "hvt"],
}
TASKS = ("binary", "classes", "saliency")  # see u2learn.tasks


@dataclass(frozen=True)
class Recipe:
    """Data, model, training and test of one result: same recipe, same machine, same result.

    Sizes are (height, width) in pixels.

    What is left to the optimiser, the model or the number of classes is written out when the recipe is made,
    so that a recipe in a record keeps the values that it was made with. Outside of it stand the seed's random
    numbers, which belong to PyTorch's version, and 16-bit arithmetic, which belongs to the device.

    Raises:
        ValueError: a name that is not registered, or values that contradict each other.
    """

    name: str
    # --- data
    dataset: str  # a name in DATASETS
    model: str  # a name in MODELS
    protocol: str = ""  # whose division of the images into parts, where a set has several
    data_options: dict[str, Any] = field(default_factory=dict)  # what else the set wants to know
    folder: str = field(default="", compare=False)  # where own images lie; what they are, data_options say
    levels: tuple[float, float] | None = None  # stored values that are black and white (None: 0 and 255)
    long_side: int = 0  # of an image: shrink it to this before anything else (0: never)
    square: int = 0  # squeeze them to so many pixels a side instead (0: never)
    normalisation: str = "imagenet"  # see `augment.normalise`
    # --- model
    model_options: dict[str, Any] = field(default_factory=dict)  # its arguments; those left out are added
    channels: int = 3  # of an image
    num_classes: int = 2  # so many maps of logits
    task: str = ""  # what a prediction is: 1 map is "saliency", 2 "binary" or "classes", more "classes"
    start: str = ""  # SHA-256 of the weights that the training starts from ("": from random ones)
    # --- training
    crop: tuple[int, int] = (64, 64)  # a window
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch: int = 16  # windows a step
    # A step's windows go through the network in so many parts, one after the other, where memory is short. It
    # is not quite the same: a batch norm sees a part, and so does a loss that divides sums over the windows.
    accumulate: int = 1
    clip: float = 0.0  # a gradient that is longer (over all weights) is cut to this length (0: never)
    loss: str = "ce"  # a name in LOSSES
    optimiser: str = "sgd"  # a name in OPTIMISERS; what goes with it is its own where it is left out here:
    schedule: str = ""  # a name in SCHEDULES
    betas: tuple[float, float] | tuple[()] = ()  # running means of Adam and AdamW
    decay_on: str = ""  # which parameters decay: "all", or the "kernels" of convolutions only
    momentum: float = 0.9  # of SGD
    learning_rate: float = 0.01
    final_rate: float = 1e-4  # the schedule ends here
    power: float = 0.9  # of the polynomial schedule
    weight_decay: float = 5e-4
    warm_up: float = 0.0  # share of the training in which the rate rises (one cycle)
    ema: float = 0.0  # decay of the running mean of the weights, which is kept instead of them (0: none)
    small_first: float = 0.0  # share of the training, from its start, whose windows have half their sides
    iterations: int = 40_000
    evaluations: int = 10  # in the course of the training, evenly spaced
    watched: str = "test"  # the part that they score; what is published was watched on the test part
    keep: str = "last"  # which weights are the result: the "last", or the "best" of the watched part
    patience: int = 0  # stop after so many evaluations without a better one (0: never)
    # --- test
    window: tuple[int, int] | None = None  # slide this over the image (None: the whole image goes in at once)
    stride: tuple[int, int] | None = None  # by so much
    views: str = ""  # average these, see VIEWS
    scales: tuple[float, ...] = (1.0,)  # and these sizes
    stretch: bool = True  # a saliency map is stretched from 0 to 1, as its authors do
    scored_under: tuple[str, ...] = ()  # protocols (left out: the usual ones of its task)
    metrics: tuple[str, ...] = ()  # more scores, by name in METRICS
    seed: int = 0
    # --- where it belongs; decides nothing
    trained_by: str = field(default="", compare=False)  # the recipe whose run makes the weights ("": its own)
    row: dict[str, str] = field(default_factory=dict, compare=False)  # the reported row that it answers to

    def __post_init__(self) -> None:
        self._check_names()
        usual = OPTIMISERS[self.optimiser]
        self._set(
            task=self._task(),
            schedule=self.schedule or usual.schedule,
            betas=self.betas or usual.betas,
            decay_on=self.decay_on or usual.decay_on,
            model_options=defaults(self.model) | self.model_options,
        )
        self._check_values()

    def _task(self) -> str:
        """Only two maps leave a choice: a class and its background, or two classes of equal rank."""
        if self.num_classes == 2:
            return self.task if self.task == "classes" else "binary"
        return "saliency" if self.num_classes == 1 else "classes"

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the one moment at which a frozen object may be filled

    def _check_names(self) -> None:
        choices: dict[str, Sequence[str]] = {
            "model": list(MODELS),
            "loss": list(LOSSES),
            "optimiser": list(OPTIMISERS),
            "schedule": ["", *SCHEDULES],
            "decay_on": ["", "all", "kernels"],
            "normalisation": [*NORMALISATIONS, "image", "maximum"],
            "task": ["", *TASKS],
            "views": list(VIEWS),
            "watched": ["test", "validation"],
            "keep": ["last", "best"],
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"A recipe's {name} is one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}."
                )
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS) or 'none'}.")

    def _check_values(self) -> None:
        if "t" in self.augmentation.flips and self.crop[0] != self.crop[1]:
            raise ValueError(f"The flip t swaps height and width, which windows of {self.crop} do not allow.")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"A recipe's scales are factors above 0, at least one, not {self.scales}.")
        if self.evaluations < 1 or self.iterations < self.evaluations:
            raise ValueError(f"{self.evaluations} evaluations do not fit into {self.iterations} iterations.")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(
                f"A recipe's batch of {self.batch} windows cannot be divided into {self.accumulate} equal "
                "parts: accumulate is one of its divisors."
            )
        if self.clip < 0:
            raise ValueError(f"A recipe's clip is a length of gradients, or 0 for no limit, not {self.clip}.")
        if not 0 <= self.small_first <= 1:
            raise ValueError(f"small_first is a share of the training, from 0 to 1, not {self.small_first}.")
        if (self.keep == "best" or self.patience) and self.watched == "test":
            raise ValueError(
                "Weights and lengths that are chosen on the test part make its score worthless: set "
                "watched='validation', or keep the last weights (keep='last', patience=0)."
            )
        if self.channels != 3 and (self.normalisation != "image" or self.augmentation.photometric):
            raise ValueError(
                f"A recipe for images of {self.channels} channels has normalisation='image' and no "
                "photometric augmentation: ImageNet's means and hues are those of three."
            )
        if self.task == "saliency":
            self._check_saliency()

    def _check_saliency(self) -> None:
        """A mask has no value for "ignore", so windows must not reach over the border of an image."""
        if self.channels != 3:
            raise ValueError(
                f"A saliency recipe (one class) takes images of 3 channels, not {self.channels}."
            )
        augment = self.augmentation
        over = augment.rotate or augment.elastic or augment.scale[0] < 1 or max(self.crop) > self.square
        if over or self.long_side:
            raise ValueError(
                "A saliency recipe (one class) squeezes its images to a `square` not smaller than the crop, "
                f"without long_side, rotation, elasticity or scales below 1; here are square={self.square}, "
                f"crop={self.crop}, long_side={self.long_side}, rotate={augment.rotate}, "
                f"elastic={augment.elastic}, scale={augment.scale}."
            )
        if (self.window, self.stride, self.views, self.scales) != (None, None, "", (1.0,)):
            raise ValueError("A saliency recipe tests whole images as they are: no window, views or scales.")

    def examples(self, part: str) -> Sequence[Example]:
        """The images of the "train", "validation" or "test" part, read when they are asked for.

        Raises:
            KeyError: there is no such data set.
            FileNotFoundError, ValueError: it is not here, or not as it should be.
        """
        from u2learn.data.sets import open_set  # here, so that a model can be used without any data set

        where = {"folder": self.folder} if self.folder else {}
        return open_set(self.dataset, part, self.protocol, **self.data_options, **where)

    def build_model(self) -> nn.Module:
        """A new model with initial weights that depend on the seed only."""
        options = self.model_options
        if self.channels != 3:
            options = options | {"in_channels": self.channels}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return MODELS[self.model](num_classes=self.num_classes, **options)

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        return SCHEDULES[self.schedule](self, iteration)

    def to_json(self) -> str:
        """The recipe as readable JSON; `from_json` is the way back."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """A recipe from its JSON. A field that it was written without has the value of the first edition.

        Raises:
            ValueError: it is no JSON, or has fields or names that a recipe does not have.
        """
        try:
            values = _tuples(completed(json.loads(text)))
            return Recipe(**values | {"augmentation": Augmentation(**values.get("augmentation", {}))})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"This is not a recipe of this version of u2learn: {error}.") from error


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with fields changed as in "iterations=300", "crop=[96,96]", "augmentation.flips=hv".

    A value is JSON, or a word. A dot leads into the augmentation, the model's and the data set's options.

    Raises:
        ValueError: no such field, or a value that does not fit it.
    """
    values = dataclasses.asdict(recipe)
    for setting in settings:
        name, equals, text = setting.partition("=")
        *inside, last = name.strip().split(".")
        place = values[inside[0]] if len(inside) == 1 and isinstance(values.get(inside[0]), dict) else values
        if not equals or (inside and place is values) or (last not in place and not last.isidentifier()):
            raise ValueError(f"A setting is FIELD=VALUE, as in iterations=300, not {setting!r}.")
        if last not in place:
            raise ValueError(f"A recipe has no field {name!r}; it has {', '.join(sorted(place))}.")
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
        _check_kind(name, place[last], getattr(recipe, last) if place is values else None)
    return Recipe.from_json(json.dumps(values))


def _check_kind(name: str, value: object, before: object) -> None:
    """A number stays a number, a word a word, a list a list; where there was nothing, anything may come."""
    kinds = {int: (int,), float: (int, float), str: (str,), tuple: (list,), dict: (dict,)}
    due = next((kinds[kind] for kind in kinds if isinstance(before, kind)), None)
    if due and not isinstance(value, due):
        raise ValueError(f"{name} was {before!r}, so {value!r} is no value for it.")


def defaults(model: str) -> dict[str, Any]:
    """The arguments of a model that a recipe may choose, with their default values.

    Classes and channels are fields of a recipe of their own; what JSON cannot hold is for Python alone.
    """
    parameters = inspect.signature(MODELS[model]).parameters
    plain = {name: p.default for name, p in parameters.items() if isinstance(p.default, (str, int, float))}
    return {name: value for name, value in plain.items() if name not in ("num_classes", "in_channels")}


def _tuples(value: Any) -> Any:
    """JSON knows no tuples; a recipe knows no lists."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
