"""A training set on the device, and the batch of any iteration: a function of seed and iteration alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn import distributed
from u2learn.data.augment import (
    PHOTOMETRICS,
    Draws,
    Pixels,
    jitter,
    normalisation,
    read_points,
    resize,
    sample_batch,
    shrunk_size,
)
from u2learn.data.example import Example
from u2learn.devices import free_memory
from u2learn.pixels import IGNORE
from u2learn.recipe import Recipe
from u2learn.tasks import TASKS

AHEAD = 100  # batches whose images are chosen at once: what is sent to a GPU makes the program wait for it


class TrainingData:
    """A training set as uint8 pixels on the device, images of any sizes, and the batch of any iteration.

    A set that would take more than half of the device's free memory stays in that of the host, and the images
    of a batch are copied when it is made: the batches are the same, to the last bit. Of several processes,
    each holds the whole set and makes its share of every batch.

    Raises:
        ValueError: there are no images, one has other channels or classes than the recipe says, or the batch
            cannot be shared evenly by the processes.
    """

    def __init__(self, recipe: Recipe, examples: Sequence[Example], device: str):
        if len(examples) == 0:
            raise ValueError(f"The training part of {recipe.dataset!r} is empty: nothing to learn from.")
        self.recipe, self.device, self.count = recipe, device, len(examples)
        self.share = distributed.share(recipe.batch // recipe.accumulate)
        labels: list[Tensor] = []
        statistics: list[tuple[Tensor, Tensor]] = []
        classes = max(2, recipe.num_classes)
        self.names: list[str] = []

        def images() -> Iterator[Tensor]:
            for example in examples:
                image, label = sized(example, recipe)
                if len(image) != recipe.channels:
                    raise ValueError(
                        f"{example.name} has {len(image)} channels, and the recipe {recipe.name!r} says "
                        f"{recipe.channels}: set channels={len(image)}, or read the images in another way."
                    )
                wrong = label[(label >= classes) & (label != IGNORE)]
                if len(wrong):  # a GPU that meets one stops with a message that names nothing
                    raise ValueError(
                        f"The label of {example.name} has class {int(wrong[0])}, and the recipe "
                        f"{recipe.name!r} knows {classes} classes, 0 to {classes - 1}: set num_classes to "
                        "those of the images."
                    )
                image = image.to(device)
                self.names.append(example.name)
                labels.append(label)
                whole = image[None].contiguous(memory_format=torch.channels_last) / 255
                statistics.append(normalisation(whole, recipe.normalisation))
                yield image

        self.images = Pixels.gather(images(), self.count, device, limit=free_memory(device) / 2)
        limit = 0 if self.images.apart else math.inf
        self.labels = Pixels.gather(labels, self.count, device, limit)
        self.mean, self.std = (torch.cat(values) for values in zip(*statistics, strict=True))  # (N, C, 1, 1)
        self.generator = torch.Generator(device)
        if self.share.step > 1:
            self.generator = draws = Draws(device)
            draws.share = self.share
        self._sent: tuple[int, Tensor] | None = None  # some AHEAD batches: which, and their images

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, h, w), normalised and augmented, and what the loss compares with, of one iteration.

        That are class ids (B, h, w), or masks (B, 1, h, w) where the task is saliency. While the recipe has
        its windows small, h and w are half of its crop. Of N processes, each makes B / N of the windows.
        """
        recipe, augment = self.recipe, self.recipe.augmentation
        chosen = self._indices(iteration)[self.share]
        stored, marked, index = self._on_device(chosen)
        self.generator.manual_seed(seed_of(recipe.seed, "batch", iteration))
        images, labels = sample_batch(
            stored, marked, index, recipe.crop, augment, self.generator, max(2, recipe.num_classes)
        )
        if iteration < recipe.small_first * recipe.iterations:
            images = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
            labels = labels[:, 1::2, 1::2]  # one of the four, as an average of class ids means nothing
        if augment.photometric:
            images = PHOTOMETRICS[augment.photometric](images, self.generator)
        if recipe.normalisation == "maximum":
            mean, std = normalisation(images, "maximum")
        else:
            mean, std = self.mean[chosen], self.std[chosen]
        images = (images - mean) / std
        if augment.jitter:
            images = jitter(images, augment.jitter, self.generator)
        return images, TASKS[recipe.task].target(labels)

    def _on_device(self, chosen: Tensor) -> tuple[Pixels, Pixels, Tensor]:
        """Images and labels on the device, and which of them are the chosen ones."""
        if not self.images.apart:
            return self.images, self.labels, chosen
        index = torch.arange(len(chosen), device=self.device)
        return self.images.fetched(chosen, self.device), self.labels.fetched(chosen, self.device), index

    def _indices(self, iteration: int) -> Tensor:
        """Which images: an endless stream of shuffled epochs, cut into batches."""
        block, place = divmod(iteration, AHEAD)
        if self._sent is None or self._sent[0] != block:
            length = AHEAD * self.recipe.batch
            first, skipped = divmod(block * length, self.count)  # the epoch, and what is used up of it
            last = (block * length + length - 1) // self.count
            stream = torch.cat([self._shuffled(epoch) for epoch in range(first, last + 1)])
            chosen = stream[skipped : skipped + length].view(AHEAD, self.recipe.batch)
            self._sent = block, chosen.to(self.images.start.device)
        return self._sent[1][place]

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(self.recipe.seed, "epoch", epoch))
        return torch.randperm(self.count, generator=generator)


def sized(example: Example, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Image (C, h, w) and label (H, W), uint8, at the size that the recipe trains on.

    Squeezed to a square, both have its size: the image is read at single points, as `inference.saliency`
    does, the label at the nearest pixel. Shrunk to a long side, the image is, and the label stays as it came.

    Source: U-2-Net, data_loader.py, RescaleT.
    """
    image, label = torch.as_tensor(example.image), torch.as_tensor(example.label)
    if len(image) == 1:
        image = image.expand(recipe.channels, -1, -1)  # a grey image shows the same in each channel
    if recipe.square:
        size = recipe.square, recipe.square
        image = read_points(image.double() / 255, size).mul(255).round().byte()
        label = F.interpolate(label[None, None], size, mode="nearest-exact")[0, 0]
    elif recipe.long_side:
        shrunk = shrunk_size((label.shape[0], label.shape[1]), recipe.long_side)
        image = resize(image / 255, shrunk).mul(255).round().byte()
    return image, label


def seed_of(*parts: object) -> int:
    """A well mixed 63-bit seed from these parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
