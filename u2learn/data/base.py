"""What all data sets have in common: an example is made when its index is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from u2learn.data.example import Example


class ExampleSet(Sequence[Example]):
    """A sequence of examples. Index i makes one, anew on every access; a slice makes a list of them.

    A subclass says how many there are (`__len__`) and how one is made (`example`).
    """

    @abstractmethod
    def example(self, i: int) -> Example:
        """The example of index i, from 0 to the length less one."""

    @overload
    def __getitem__(self, i: int) -> Example: ...

    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...

    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        places = range(len(self))[i]
        return self.example(places) if isinstance(places, int) else [self.example(k) for k in places]
