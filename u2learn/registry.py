"""What a recipe may name, and what each name stands for. A new one registers itself, in its own file:

from u2learn.registry import MODELS

@MODELS.add("my_net")
def my_net(num_classes: int = 2, width: int = 8) -> nn.Module: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Registry(dict[str, T]):
    """Names and what they stand for; `kind` is what messages call one of them.

    Raises:
        KeyError: (when asked for a name that is not there) says which there are.
        ValueError: (when a name is added) it is taken by something else.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def add(self, name: str) -> Callable[[T], T]:
        """A decorator that registers what stands below it under this name."""

        def register(thing: T) -> T:
            if name in self and _home(self[name]) != _home(thing):  # a cell may be run again
                raise ValueError(
                    f"There is a {self.kind} {name!r} already, {_home(self[name])}: choose another name."
                )
            self[name] = thing
            return thing

        return register

    def __missing__(self, name: str) -> T:
        raise KeyError(f"There is no {self.kind} {name!r}; there are {', '.join(map(repr, self))}.")


def _home(thing: Any) -> str:
    return f"{getattr(thing, '__module__', type(thing).__module__)}.{getattr(thing, '__qualname__', thing)}"


@dataclass(frozen=True)
class Optimiser:
    """An optimiser, and what goes with it where a recipe says nothing else.

    build: from groups of parameters, learning rate, momentum and betas. schedule: a name in SCHEDULES.
    decay_on: "all" parameters, or the "kernels" of convolutions only.
    """

    build: Callable
    schedule: str
    betas: tuple[float, float] = (0.9, 0.999)
    decay_on: str = "all"


MODELS: Registry[Callable] = Registry("model")  # (num_classes, ...) -> nn.Module
LOSSES: Registry[Callable] = Registry("loss")  # (outputs of the model, labels) -> Tensor
OPTIMISERS: Registry[Optimiser] = Registry("optimiser")
SCHEDULES: Registry[Callable] = Registry("schedule")  # (recipe, iteration) -> learning rate
METRICS: Registry[Callable] = Registry("metric")  # (prediction, example) -> score of one image
DATASETS: Registry[Callable] = Registry("data set")  # (part, protocol, **options) -> sequence of examples
STUDIES: Registry[Callable] = Registry("study")  # () -> Study
