"""The few real photographs that ship, with the labels of both observers and where they are from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from u2learn.data.example import Example, read_image, read_mask
from u2learn.data.retina import field_of_view

HOME = Path(__file__).parent.parent / "assets" / "photographs"


@dataclass(frozen=True, eq=False)
class Photograph(Example):
    """An example with its `credit`, which its licence wants to be seen wherever the picture is shown."""

    credit: str = ""


def photograph(name: str = "eye") -> Photograph:
    """A real photograph of a retina, with the vessels of two observers (`label` and `second`).

    "eye" is a whole one of 960 x 999 pixels, with its field of view. The others are details, 256 x 256, of
    other eyes: "disc", where the vessels come in; "crossing", where two cross; "reflex", vessels with a
    bright line along their middle; "faint", thin vessels at a dark border. All are training images of
    CHASE_DB1 in the parts of OpenMMLab and lwnet, and test images in those of bob.ip.binseg.

    Raises:
        ValueError: there is no photograph of that name.

    Source: CHASE_DB1, Kingston University London, CC BY 4.0 (Fraz et al., 2012).
    """
    pictures = json.loads((HOME / "photographs.json").read_text(encoding="utf-8"))
    if name not in pictures:
        raise ValueError(f"There is no photograph {name!r}; there are {', '.join(pictures)}.")
    image = read_image(HOME / f"{name}.webp")
    eye = pictures[name]["eye"] + ("" if name == "eye" else ", detail")
    return Photograph(
        name,
        image,
        read_mask(HOME / f"{name}-first.png"),
        field_of_view(image) if name == "eye" else None,
        read_mask(HOME / f"{name}-second.png"),
        credit=f"Photograph: CHASE_DB1, image {eye}. Kingston University London, CC BY 4.0",
    )
