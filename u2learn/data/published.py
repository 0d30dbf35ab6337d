"""Weights that others trained and published: which there are, who hands them out, and what they must be."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from u2learn.data.catalogue import Archive


@dataclass(frozen=True)
class Published:
    """One file. `recipe` is the training that it came from, `home` the page that links to it."""

    recipe: str
    home: str
    archive: Archive


def _read() -> dict[str, Published]:
    """`official_weights.csv`: a line an address, the best first.

    OpenMMLab's files have the first eight digits of their SHA-256 in their name. Several independent users
    noted those of U²-Net's; PaddleSeg's are unknown. An address that ends in no name of its own has one as a
    fragment, which is not sent.
    """
    found: dict[str, Published] = {}
    path = Path(__file__).parent.parent / "assets" / "official_weights.csv"
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            known = found[row["name"]].archive.addresses if row["name"] in found else ()
            archive = Archive((*known, row["address"]), sha256=row["sha256"] or None)
            found[row["name"]] = Published(row["recipe"], row["home"], archive)
    return found


PUBLISHED: dict[str, Published] = _read()


def published_for(recipe: str) -> str:
    """The name of the weights that this training gave its authors, as "u2net" for "duts-u2net".

    Raises:
        LookupError: none were published.
    """
    for name, weights in PUBLISHED.items():
        if weights.recipe == recipe:
            return name
    raise LookupError(
        f"No weights of {recipe!r} were published, or we do not know where. `u2learn weights list` has those "
        "that we know; a file of your own is tested with --weights FILE."
    )
