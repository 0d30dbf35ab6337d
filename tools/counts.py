"""Count the vessel and the background pixels of the retinal sets, image by image, into u2learn/assets.

    python -m tools.counts [--check]

DRIVE, STARE and CHASE_DB1 must be here, and are counted. HRF is, too, if it is here; else the counts of the
library mlscorecheck are taken over (György Kovács, MIT licence), which must be installed then. With --check
nothing is written.
"""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.settle import settle
from u2learn.data.local import MissingDataset
from u2learn.data.retina import LAYOUTS, Retina
from u2learn.protocols import COUNTS

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("dataset", "image", "vessel", "background", "vessel_in_field", "background_in_field", "source")


def main(options: list[str]) -> None:
    settle({COUNTS: table()}, ROOT, "--check" in options, "python -m tools.counts")


def table() -> str:
    """The file as it should be.

    Raises:
        MissingDataset: DRIVE, STARE or CHASE_DB1 is not here.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for dataset in LAYOUTS:
        writer.writerows(rows(dataset))
    return file.getvalue()


def rows(dataset: str) -> list[tuple]:
    """One an image, of COLUMNS."""
    try:
        return list(counted(dataset))
    except MissingDataset:
        if dataset != "hrf":
            raise
        return list(of_mlscorecheck(dataset))


def counted(dataset: str) -> Iterator[tuple]:
    for example in Retina(dataset, "all"):
        vessel, field = example.label == 1, example.field
        regions = (vessel, ~vessel, vessel & field, ~vessel & field)
        pixels = (int(region.sum()) for region in regions)
        yield dataset, example.name.removeprefix(f"{dataset}-"), *pixels, "counted"


def of_mlscorecheck(dataset: str) -> Iterator[tuple]:
    from mlscorecheck import experiments  # needed for this alone

    found = experiments.get_experiment(f"retina.{dataset}")
    field = {image["identifier"]: image for image in found["fov"]["images"]}
    for image in sorted(found["all"]["images"], key=lambda image: image["identifier"]):
        name = image["identifier"]
        pixels = (image["p"], image["n"], field[name]["p"], field[name]["n"])
        yield dataset, name, *pixels, "mlscorecheck 1.0.3"


if __name__ == "__main__":
    main(sys.argv[1:])
