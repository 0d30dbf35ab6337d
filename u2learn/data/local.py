"""Finding a data set on this machine, and checking a copy of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from u2learn.data.catalogue import DATASETS, Dataset
from u2learn.data.example import read_image

UNSCORED = "test labels"  # the kind of file without which a set trains and cannot be scored


class MissingDataset(FileNotFoundError):
    """A set is not on this machine; the message says how to get it."""


def data_root() -> Path:
    """The folder with one subfolder for each set: U2LEARN_DATA, or ~/.cache/u2learn/data."""
    return Path(os.environ.get("U2LEARN_DATA") or "~/.cache/u2learn/data").expanduser()


def find(name: str) -> Path:
    """The folder of a set, whatever its name's case and punctuation: DRIVE, drive, CHASEDB1, CHASE_DB1.

    Raises:
        MissingDataset: if the set is not there; says what to do.
        ValueError: for a name that is no set.
    """
    dataset, root = dataset_named(name), data_root()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if re.sub(r"[^a-z0-9]", "", folder.name.lower()) in dataset.also_called and any(
            _count(dataset, folder).values()
        ):
            return folder
    raise MissingDataset(f"{dataset.title} is not in {root}: {_advice(dataset)}")


def files(name: str) -> dict[str, list[Path]]:
    """The files of a set that are here, by kind, each sorted by path.

    Raises:
        MissingDataset: if the set is not there at all.
    """
    return _files(dataset_named(name), find(name))


def dataset_named(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"There is no data set {name!r}; there are {', '.join(DATASETS)}.")
    return DATASETS[name]


def _advice(dataset: Dataset) -> str:
    if dataset.archives:
        advice = f"run `u2learn data fetch {dataset.name}`, or get it from {dataset.home}"
    else:
        advice = f"go to {dataset.home}, " + dataset.by_hand.format(folder=data_root() / dataset.folder)
    return f"{advice} (terms: {dataset.terms}). Have it elsewhere? Set U2LEARN_DATA to the folder above it."


@dataclass(frozen=True)
class Check:
    """What `verify` found: how many files there are of each kind, and which ones cannot be read."""

    dataset: Dataset
    folder: Path
    found: dict[str, int]
    unreadable: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The kinds that are incomplete; an optional kind that is not there at all is none of them."""
        return [
            f"{kind} ({self.found[kind]} of {number})"
            for kind, (_, number) in self.dataset.contents.items()
            if self.found[kind] < number and not (kind in self.dataset.optional and self.found[kind] == 0)
        ]

    @property
    def complete(self) -> bool:
        return not self.missing and not self.unreadable

    def __str__(self) -> str:
        numbers = ", ".join(f"{self.found[kind]} {kind}" for kind in self.dataset.contents)
        absent = [kind for kind in self.dataset.optional if self.found[kind] == 0]
        state = "complete" if self.complete else "NOT complete"
        if self.complete and UNSCORED in absent:
            state = "trains, cannot be scored"
        parts = [f"{self.dataset.name}: {state}, in {self.folder}: {numbers}"]
        parts += [f"missing: {', '.join(self.missing)}"] * bool(self.missing)
        parts += [f"without {', '.join(absent)} (some copies are)"] * bool(absent)
        if UNSCORED in absent:
            parts += ["`u2learn train` holds training images out for the score"]
        parts += [f"unreadable: {text}" for text in self.unreadable]
        return "\n    ".join(parts)


def verify(name: str) -> Check:
    """Counts the files of a set and opens every one.

    Raises:
        MissingDataset: if the set is not there at all.
    """
    return verify_copy(dataset_named(name), find(name))


def verify_copy(dataset: Dataset, folder: Path) -> Check:
    unreadable = []
    for paths in _files(dataset, folder).values():
        for path in paths:
            try:
                read_image(path)
            except ValueError as error:
                unreadable.append(str(error))
    return Check(dataset, folder, _count(dataset, folder), tuple(unreadable))


def _files(dataset: Dataset, folder: Path) -> dict[str, list[Path]]:
    """The files of each kind, upper or lower case."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {
        kind: [p for p in paths if re.fullmatch(pattern, p.relative_to(folder).as_posix(), re.IGNORECASE)]
        for kind, (pattern, _) in dataset.contents.items()
    }


def _count(dataset: Dataset, folder: Path) -> dict[str, int]:
    return {kind: len(paths) for kind, paths in _files(dataset, folder).items()}


def available() -> list[Check]:
    """Every set that U2Learn knows, with what of it is here; counted, not opened. Each prints as a line."""
    checks = []
    for name, dataset in DATASETS.items():
        try:
            folder = find(name)
            checks.append(Check(dataset, folder, _count(dataset, folder)))
        except MissingDataset:
            checks.append(Absent(dataset, data_root() / dataset.folder, dict.fromkeys(dataset.contents, 0)))
    return checks


class Absent(Check):
    """A set that is not here."""

    def __str__(self) -> str:
        return f"{self.dataset.name}: not here; {_advice(self.dataset).partition(' Have it')[0]}"
