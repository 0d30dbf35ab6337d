"""What an answer calls while it runs: functions of packages that its part refuses."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from sys import getprofile, setprofile  # as they are before anybody changes them
from types import FrameType, ModuleType
from typing import Any

from torch import nn

from u2learn.checks.reading import Refusal

# Who may call anything: the checks and hidden tests, with what they hand to an answer; and an import.
FREE = (str(Path(__file__).parent), "<test ", "<frozen importlib")


class Watch:
    """Within it, `seen` becomes the name of the first refused function that is called; "" if none is.

    What was handed to the answer may be called, and so may what is `given`, with all that these use.
    """

    def __init__(self, refusal: Refusal, arguments: Iterable[Any]):
        self.packages, self.given = refusal.packages, tuple(map(true_name, refusal.given))
        self.handed = {id(part) for argument in arguments for part in parts(argument)}
        self.seen = ""

    def __enter__(self) -> "Watch":
        self.before, self.outside = getprofile(), sys._getframe(1)
        setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        setprofile(self.before)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not str(frame.f_globals.get("__name__")).startswith(self.packages):
            return
        name = name_of(frame)
        if (
            not self.seen
            and belongs(name, self.packages)
            and not any(map(self._is_free, self._way_to(frame)))
        ):
            self.seen = name

    def _way_to(self, frame: FrameType | None) -> Iterator[FrameType]:
        while frame is not None and frame is not self.outside:
            yield frame
            frame = frame.f_back

    def _is_free(self, frame: FrameType) -> bool:
        return (
            frame.f_code.co_filename.startswith(FREE)
            or id(frame.f_locals.get("self")) in self.handed
            or belongs(name_of(frame), self.given)
        )


def name_of(frame: FrameType) -> str:
    """As "u2learn.models.rsu.RSU.forward"; before Python 3.11 without the class."""
    code = frame.f_code
    return f"{frame.f_globals.get('__name__')}.{getattr(code, 'co_qualname', code.co_name)}"


def belongs(name: str, places: Sequence[str]) -> bool:
    return any(name.startswith(f"{place}.") or name == place for place in places)


def true_name(name: str) -> str:
    """Where the thing of this name stands: "u2learn.ConvBlock" -> "u2learn.models.conv.ConvBlock"."""
    found = resolve_name(name)
    return found.__name__ if isinstance(found, ModuleType) else f"{found.__module__}.{found.__qualname__}"


def parts(argument: Any) -> Iterator[Any]:
    """An argument, and what it is made of."""
    yield argument
    if isinstance(argument, nn.Module):
        yield from argument.modules()
    elif isinstance(argument, (list, tuple)):
        for part in argument:
            yield from parts(part)
