"""Every data set by its name: importing this registers those that come with the package."""

from collections.abc import Sequence
from typing import Any

from u2learn.data import cityscapes, retina, saliency  # noqa: F401
from u2learn.data.drawn import objects, streets  # noqa: F401
from u2learn.data.drawn import retina as eyes  # noqa: F401
from u2learn.data.example import Example
from u2learn.data.folder import Folder, facts
from u2learn.registry import DATASETS


def open_set(name: str, part: str, protocol: str = "", **options: Any) -> Sequence[Example]:
    """The "train", "validation" or "test" part of a data set, by whose division, and what else it asks for.

    Raises:
        KeyError: there is no data set of this name; says which there are.
        TypeError: an option that the set does not have, or one that it needs.
        FileNotFoundError, ValueError: it is not here, or has no such part.
    """
    return DATASETS[name](part, protocol=protocol, **options)


@DATASETS.add("folder")
def folder_set(part: str, protocol: str = "", *, folder: str, digest: str, **described: Any) -> Folder:
    """A folder of one's own, as recipes open it: the images that a recipe was made for, or an error.

    `described` are its classes and their colours, which travel with a recipe.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds other images than those that the recipe was made for.
    """
    if facts(folder).digest != digest:
        raise ValueError(
            f"{folder} is not as it was when this recipe was made: images, masks or parts have changed. "
            "Train again, or name the folder as it was with --data."
        )
    return Folder(folder, part)
