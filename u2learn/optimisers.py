"""Optimisers, and how the learning rate changes while they work: what a recipe may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import cos, pi
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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


class Muon(torch.optim.Optimizer):
    """Kernels of 3x3 and more go an orthogonal step; all other parameters go that of AdamW.

    A kernel is read as a matrix (out, in * height * width). Its gradients are averaged, and the mean is
    replaced by the nearest matrix whose singular values are all about 1: directions that few windows ask for
    count as much as the others. The step is scaled to the size that one of Adam has, so that both share a
    rate.

    Source: Jordan et al., 2024 (kellerjordan.github.io/posts/muon); the scale is that of Liu et al., 2025,
    section 2.2.
    """

    def __init__(self, groups: Any, rate: float, momentum: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": rate, "momentum": momentum, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]  # no closure here
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    rule = self._orthogonal if p.ndim == 4 and p[0, 0].numel() > 1 else self._adam
                    change = rule(p.grad, self.state[p], group)
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])

    def _orthogonal(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        if not state:
            state["mean"] = torch.zeros_like(grad)
        state["mean"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["mean"], group["momentum"])  # Nesterov's
        matrix = orthogonal(ahead.flatten(1))
        return 0.2 * max(matrix.shape) ** 0.5 * matrix.view_as(grad)

    def _adam(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(grad),
                "square": torch.zeros_like(grad),
            }
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad**2, 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        return mean / ((state["square"] / (1 - second ** state["step"])).sqrt() + 1e-8)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought near 1, by five steps of an iteration.

    They come between 0.68 and 1.2, but for those that are tiny beside the largest one.
    """
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if len(matrix) > matrix.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


OPTIMISERS["sgd"] = Optimiser(_sgd, schedule="polynomial")
OPTIMISERS["adam"] = Optimiser(_adam, schedule="constant")
OPTIMISERS["adamw"] = Optimiser(_adamw, schedule="one-cycle", betas=(0.9, 0.99), decay_on="kernels")
OPTIMISERS["muon"] = Optimiser(Muon, schedule="one-cycle", betas=(0.9, 0.99), decay_on="kernels")


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
