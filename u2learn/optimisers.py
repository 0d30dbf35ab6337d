"""Optimisers, and how the learning rate changes while they work: what a recipe may name."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from u2learn.registry import OPTIMISERS, SCHEDULES, Optimiser

if TYPE_CHECKING:
    from u2learn.recipe import Recipe

Groups = Iterable[dict[str, Any]]


def optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser for the parameters of a model that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learning, "weight_decay": recipe.weight_decay}]
    if recipe.decay_on == "kernels":  # norms and biases are not pulled towards zero
        groups = [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ]
    build = OPTIMISERS[recipe.optimiser].build
    return build(groups, recipe.learning_rate, recipe.momentum, recipe.betas)


def _sgd(groups: Groups, rate: float, momentum: float, betas: tuple[float, float]) -> torch.optim.SGD:
    return torch.optim.SGD(groups, rate, momentum=momentum)


def _adam(groups: Groups, rate: float, momentum: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(groups, rate, betas)


def _adamw(groups: Groups, rate: float, momentum: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, rate, betas)


OPTIMISERS["sgd"] = Optimiser(_sgd, schedule="polynomial")
OPTIMISERS["adam"] = Optimiser(_adam, schedule="constant")
OPTIMISERS["adamw"] = Optimiser(_adamw, schedule="one-cycle", betas=(0.9, 0.99), decay_on="kernels")


@SCHEDULES.add("constant")
def constant(recipe: Recipe, iteration: int) -> float:
    """Always the same rate."""
    return recipe.learning_rate


@SCHEDULES.add("polynomial")
def polynomial(recipe: Recipe, iteration: int) -> float:
    """From `learning_rate` down to `final_rate`, as (1 - share of the training that is done) ^ `power`.

    Source: mmsegmentation 0.30, PolyLrUpdaterHook.
    """
    fall = (1 - iteration / recipe.iterations) ** recipe.power
    return recipe.final_rate + (recipe.learning_rate - recipe.final_rate) * fall


@SCHEDULES.add("one-cycle")
def one_cycle(recipe: Recipe, iteration: int) -> float:
    """Up on a line for the share `warm_up` of the training, then down to `final_rate` on half a cosine.

    Source: Smith and Topin, 2019, with the cosine of PyTorch's OneCycleLR.
    """
    warm = max(1, round(recipe.warm_up * recipe.iterations))
    if iteration < warm:
        return recipe.learning_rate * (iteration + 1) / warm
    fall = (1 + cos(pi * (iteration - warm) / (recipe.iterations - warm))) / 2
    return recipe.final_rate + (recipe.learning_rate - recipe.final_rate) * fall
