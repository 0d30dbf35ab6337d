"""What a prediction is: two classes, several, or one map of what stands out. Told apart only here."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from u2learn import distributed
from u2learn.console import hide_bar
from u2learn.data.example import Example
from u2learn.inference import saliency, saliency_maps, segment
from u2learn.metrics.overlap import THRESHOLDS, ClassScores, OverlapScores, scores
from u2learn.metrics.saliency import SaliencyScores, f_measure
from u2learn.recipe import Recipe
from u2learn.registry import METRICS

Scores = dict[str, dict[str, Any]]  # protocol -> score -> value, as fractions
Picture = Tensor | np.ndarray | Image.Image
Region = Literal["image", "field"]
Pool = Literal["total", "image"]
RESAMPLES = 1000  # of the images of a test, for an interval


class Scorer(ABC):
    """Counts predictions beside their examples, and scores them under every protocol of the recipe."""

    threshold: float | None = None  # where one was chosen

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.more: dict[str, list[float]] = {name: [] for name in recipe.metrics}

    def add(self, prediction: Tensor, example: Example) -> None:
        """Count one image: a prediction of `Task.predict`, and the example that it was made for."""
        for name, values in self.more.items():
            values.append(float(METRICS[name](prediction, example)))
        self.count(prediction, example)

    def include(self, others: Sequence[Scorer]) -> None:
        """Count as well what the others counted: of N scorers, this one first, each has every N-th image."""
        for lists in zip(self.counted(), *(other.counted() for other in others), strict=True):
            lists[0][:] = [one for turn in zip_longest(*lists) for one in turn if one is not None]

    def result(self) -> Scores:
        """All scores by protocol; those of the recipe's `metrics` are means over the images."""
        found = self.under_protocols()
        found["image"] |= {name: float(np.mean(values)) for name, values in self.more.items()}
        return found

    def interval(self, share: float = 0.95) -> tuple[float, float]:
        """Where the main score of such a test lies: images are drawn again and again, with replacement.

        Source: Efron, 1979 (the percentile bootstrap).
        """
        count, generator = len(self), np.random.default_rng(0)
        found = [self.main_of(generator.integers(count, size=count).tolist()) for _ in range(RESAMPLES)]
        low, high = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    @abstractmethod
    def count(self, prediction: Tensor, example: Example) -> None: ...

    @abstractmethod
    def counted(self) -> list[list[Any]]:
        """The lists that hold something of every image, in their order."""

    @abstractmethod
    def under_protocols(self) -> Scores: ...

    @abstractmethod
    def main_of(self, images: Sequence[int]) -> float:
        """The task's main score on these images, by number; one may be there several times."""

    @abstractmethod
    def __len__(self) -> int: ...

    def curve(self) -> dict[str, list[float]]:
        """Recall and precision at some 64 thresholds; nothing where there is no threshold."""
        return {}


class Task(ABC):
    """What the loss compares with, how a photograph is predicted, how that is scored, and what a user gets.

    main: the score by which runs are compared. digits, unit: how it is printed.
    """

    main: str
    digits: int = 2
    unit: float = 100

    def target(self, labels: Tensor) -> Tensor:
        """What the loss compares the outputs with: int64 (B, H, W), from class ids of the same shape."""
        return labels

    @abstractmethod
    def predict(self, model: nn.Module, image: Picture, recipe: Recipe) -> Tensor:
        """The prediction for a photograph, uint8 (C, H, W), tested as its recipe says."""

    def predict_all(self, model: nn.Module, images: Sequence[Picture], recipe: Recipe) -> list[Tensor]:
        """The predictions for several photographs, which go in together where they come to one size."""
        return [self.predict(model, image, recipe) for image in images]

    @abstractmethod
    def scorer(self, recipe: Recipe, full: bool = False) -> Scorer:
        """Counts predictions; `full` asks for the scores that take time, too."""

    @abstractmethod
    def ids(self, prediction: Tensor, threshold: float = 0.5) -> Tensor:
        """The class of each pixel, uint8 (H, W); where there are two, 1 is above the threshold."""

    def object_map(self, prediction: Tensor) -> Tensor:
        """How surely a pixel belongs to the object, float (H, W) in [0, 1]: what a cut-out is made of.

        Raises:
            ValueError: the task knows several classes, and no one object.
        """
        raise ValueError(
            "A net of several classes marks no one object that could be cut out: leave out --cutout."
        )

    @abstractmethod
    def pictures(
        self, prediction: Tensor, threshold: float = 0.5, palette: Sequence[tuple[int, int, int]] = ()
    ) -> dict[str, Image.Image]:
        """The pictures that a user gets of a prediction, by the ending of their names."""

    def passes(self, recipe: Recipe) -> dict[str, Recipe]:
        """Protocols that differ in how the picture goes in, each with the recipe that does it."""
        return {"image": recipe}

    def threshold(self, model: nn.Module, recipe: Recipe, progress: bool) -> float | None:
        """The threshold that is best on images that may be looked at; None where there is none to choose."""
        return None


# Whose rule turns a prediction of two classes into a score: (region, pooling, threshold; None: a chosen one).
PROTOCOLS: dict[str, tuple[Region, Pool, float | None]] = {
    "image": ("image", "total", 0.5),  # OpenMMLab's tables
    "field": ("field", "total", 0.5),
    "field, chosen threshold": ("field", "total", None),  # lwnet's and bob.ip.binseg's
    "image, mean of images": ("image", "image", 0.5),
    "field, mean of images": ("field", "image", 0.5),
}

# The same for many classes, where protocols differ in how the picture goes in (the Cityscapes tables, with
# OpenMMLab's scales), and for saliency, where they differ in what is done to a map before it is scored. HCE
# takes minutes and is asked of thin things only.
PASSES: dict[str, dict[str, Any]] = {
    "image": {},
    "flip": {"views": "h"},
    "ms+flip": {"views": "h", "scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)},
}
MAPS: dict[str, dict[str, Any]] = {
    "image": {"normalise": "maximum", "also": ("weighted_f", "relaxed_f")},  # the U²-Net paper's tables
    "DIS": {"normalise": "range", "also": ("weighted_f", "hce")},  # the DIS paper's
}


def by_protocol(
    scores: OverlapScores, threshold: float | None = None, names: Sequence[str] = tuple(PROTOCOLS)
) -> Scores:
    """The same prediction scored under every protocol; those with a chosen threshold only where there is one.

    Raises:
        KeyError: there is no such protocol.
    """
    found = {}
    for name in names:
        region, pool, fixed = PROTOCOLS[name]
        due = threshold if fixed is None else fixed
        if due is not None:
            found[name] = scores.score(region, pool, due)
    return found


class BinaryScorer(Scorer):
    """Two classes, under any protocol of the retina tables; `scores` are the `OverlapScores`."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.scores = OverlapScores()

    def count(self, prediction: Tensor, example: Example) -> None:
        self.scores.add(prediction.cpu(), example.label, example.field)

    def counted(self) -> list[list[Any]]:
        return [self.scores.histograms, *self.more.values()]

    def under_protocols(self) -> Scores:
        return by_protocol(self.scores, self.threshold, self.recipe.scored_under or tuple(PROTOCOLS))

    def main_of(self, images: Sequence[int]) -> float:
        some = OverlapScores()
        some.histograms = [self.scores.histograms[i] for i in images]
        return some.score()["dice"]

    def __len__(self) -> int:
        return len(self.scores.histograms)

    def curve(self) -> dict[str, list[float]]:
        step = THRESHOLDS // 64
        recall, precision = self.scores.curve()
        return {"recall": recall[::step].tolist(), "precision": precision[::step].tolist()}


class Binary(Task):
    """Two classes, background and one more: probabilities (2, H, W)."""

    main = "dice"

    def predict(self, model: nn.Module, image: Picture, recipe: Recipe) -> Tensor:
        return segment(model, image, recipe)

    def ids(self, prediction: Tensor, threshold: float = 0.5) -> Tensor:
        return (prediction[1] > threshold).byte()

    def object_map(self, prediction: Tensor) -> Tensor:
        return prediction[1]

    def scorer(self, recipe: Recipe, full: bool = False) -> BinaryScorer:
        return BinaryScorer(recipe)

    def pictures(
        self, prediction: Tensor, threshold: float = 0.5, palette: Sequence[tuple[int, int, int]] = ()
    ) -> dict[str, Image.Image]:
        return {
            "probability": _grey(255 * prediction[1]),
            "mask": _grey(255 * self.ids(prediction, threshold)),
        }

    def threshold(self, model: nn.Module, recipe: Recipe, progress: bool) -> float:
        part = "validation" if recipe.watched == "validation" else "train"
        scorer = evaluate(model, recipe, recipe.examples(part), progress)
        assert isinstance(scorer, BinaryScorer)
        return scorer.scores.best_threshold("field")


class ClassScorer(Scorer):
    """Several classes: pixel totals over all images; `scores` are the `ClassScores`."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.scores = ClassScores(recipe.num_classes)
        self.images: list[Tensor] = []  # (K, K) each

    def count(self, prediction: Tensor, example: Example) -> None:
        before = self.scores.counts.clone()
        self.scores.add(prediction.argmax(0), example.label)
        self.images.append(self.scores.counts - before)

    def counted(self) -> list[list[Any]]:
        return [self.images, *self.more.values()]

    def include(self, others: Sequence[Scorer]) -> None:
        super().include(others)
        self.scores.counts = torch.stack(self.images).sum(0)

    def under_protocols(self) -> Scores:
        return {"image": self.scores.score()}

    def main_of(self, images: Sequence[int]) -> float:
        return scores(torch.stack([self.images[i] for i in images]).sum(0))["miou"]

    def __len__(self) -> int:
        return len(self.images)


class Classes(Task):
    """Several classes: probabilities (K, H, W)."""

    main = "miou"

    def predict(self, model: nn.Module, image: Picture, recipe: Recipe) -> Tensor:
        return segment(model, image, recipe)

    def ids(self, prediction: Tensor, threshold: float = 0.5) -> Tensor:
        return prediction.argmax(0).byte()

    def scorer(self, recipe: Recipe, full: bool = False) -> ClassScorer:
        return ClassScorer(recipe)

    def pictures(
        self, prediction: Tensor, threshold: float = 0.5, palette: Sequence[tuple[int, int, int]] = ()
    ) -> dict[str, Image.Image]:
        ids = _grey(self.ids(prediction))
        if palette:
            ids.putpalette([value for colour in palette for value in colour])
        return {"classes": ids}

    def passes(self, recipe: Recipe) -> dict[str, Recipe]:
        chosen = recipe.scored_under or tuple(PASSES)
        return {name: dataclasses.replace(recipe, **PASSES[name]) for name in chosen}


class SaliencyScorer(Scorer):
    """One map against a mask; `scores` are the `SaliencyScores`, one for each protocol."""

    def __init__(self, recipe: Recipe, full: bool = False):
        super().__init__(recipe)
        self.scores = {"image": SaliencyScores("maximum", also=())}
        if full:
            chosen = recipe.scored_under or ("image",)
            self.scores = {name: SaliencyScores(**MAPS[name]) for name in chosen}

    def count(self, prediction: Tensor, example: Example) -> None:
        for one in self.scores.values():
            one.add(prediction, example.label)

    def counted(self) -> list[list[Any]]:
        return [*(one.images for one in self.scores.values()), *self.more.values()]

    def under_protocols(self) -> Scores:
        return {name: one.result() for name, one in self.scores.items()}

    def main_of(self, images: Sequence[int]) -> float:
        chosen = [self.scores["image"].images[i] for i in images]
        precision = np.mean([one["precision"] for one in chosen], axis=0)  # (256,)
        recall = np.mean([one["recall"] for one in chosen], axis=0)
        return float(f_measure(precision, recall).max())

    def __len__(self) -> int:
        return len(self.scores["image"].images)

    def curve(self) -> dict[str, list[float]]:
        curves = self.scores["image"].curves()
        return {name: curves[name][::4].tolist() for name in ("recall", "precision")}


class Saliency(Task):
    """What stands out: one map (H, W), 0 to 1."""

    main, digits, unit = "max_f", 4, 1

    def target(self, labels: Tensor) -> Tensor:
        """Float masks (B, 1, H, W)."""
        return labels[:, None].float()

    def predict(self, model: nn.Module, image: Picture, recipe: Recipe) -> Tensor:
        return saliency(model, image, as_published=recipe.stretch, side=recipe.square)

    def predict_all(self, model: nn.Module, images: Sequence[Picture], recipe: Recipe) -> list[Tensor]:
        return saliency_maps(model, images, as_published=recipe.stretch, side=recipe.square)

    def ids(self, prediction: Tensor, threshold: float = 0.5) -> Tensor:
        return (prediction > threshold).byte()

    def object_map(self, prediction: Tensor) -> Tensor:
        return prediction

    def scorer(self, recipe: Recipe, full: bool = False) -> SaliencyScorer:
        return SaliencyScorer(recipe, full)

    def pictures(
        self, prediction: Tensor, threshold: float = 0.5, palette: Sequence[tuple[int, int, int]] = ()
    ) -> dict[str, Image.Image]:
        return {
            "saliency": _grey((255 * prediction).round()),
            "mask": _grey(255 * self.ids(prediction, threshold)),
        }


TASKS: dict[str, Task] = {"binary": Binary(), "classes": Classes(), "saliency": Saliency()}


def evaluate(
    model: nn.Module,
    recipe: Recipe,
    examples: Sequence[Example],
    progress: bool = False,
    full: bool = False,
) -> Any:
    """Predict every example as the recipe says and count; the task's scorer, see `Scorer.result`.

    Its `scores` are the object of `u2learn.metrics` that counted. `full` asks for the scores that take time.
    Of several processes each predicts its share, and all get the scorer of all examples.
    """
    task = TASKS[recipe.task]
    scorer = task.scorer(recipe, full)
    mine = range(distributed.rank(), len(examples), distributed.size())
    for i in tqdm(mine, desc="evaluating", disable=hide_bar(progress and distributed.leads()), leave=False):
        example = examples[i]
        scorer.add(task.predict(model, example.image, recipe), example)
    first, *others = distributed.gathered(scorer)
    if others:
        first.include(others)
    return first


def _grey(values: Tensor) -> Image.Image:
    return Image.fromarray(values.byte().cpu().numpy())
