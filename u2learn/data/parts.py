"""Which images train, validate and test: by folders, by lists, or by a number that a name decides."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from u2learn.data.example import listed
from u2learn.data.pairing import grouped, stem

PARTS = ("train", "validation", "test")
ALSO = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}  # other names


def part_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are called after a part."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {part: path for path in inside if path.is_dir() and (part := _part(path.name))}


def _part(name: str) -> str:
    """The part that a folder or a list is called after, or ""."""
    name = ALSO.get(name.lower(), name.lower())
    return name if name in PARTS else ""


def group_of(name: str, pattern: str) -> str:
    """What the first bracket of a regular expression, or else all of it, finds in a name.

    Raises:
        ValueError: if it finds nothing, or is no regular expression.
    """
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise ValueError(f"--group {pattern!r} is no regular expression: {error}.") from error
    key = found and (found[1] if found.re.groups else found[0])
    if not key:
        raise ValueError(f"--group {pattern!r} finds nothing in the name {name!r}.")
    return key


def read_lists(folder: Path, names: list[str]) -> list[str]:
    """The part of each name, from train.txt, test.txt and perhaps validation.txt, with a name a line.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a name is in two lists or in none, or is not known.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; it should hold train.txt and test.txt.")
    parts: dict[str, str] = {}
    for path in sorted(folder.glob("*.txt")):
        if part := _part(path.stem):
            for line in filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())):
                if parts.setdefault(stem(Path(line)), part) != part:
                    raise ValueError(f"{line} is in several lists of {folder}.")
    if odd := sorted(set(parts) ^ set(names)):
        raise ValueError(f"The lists in {folder} and the names of the images differ by {listed(odd)}.")
    return [parts[name] for name in names]


def check_parts(groups: list[str], parts: list[str]) -> None:
    """There is something to train and to test on, and no group is divided.

    Raises:
        ValueError: if not.
    """
    if missing := {"train", "test"} - set(parts):
        raise ValueError(f"There is no image in the part {missing.pop()}; only validation is made of train.")
    pairs = grouped(set(zip(groups, parts, strict=True)), lambda pair: pair[0])
    if divided := sorted(group for group, each in pairs.items() if len(each) > 1):
        raise ValueError(f"Groups must not be divided, and these are in several parts: {listed(divided)}.")


def draw_parts(groups: list[str], shares: dict[str, float]) -> list[str]:
    """The part of each image, by a number from 0 to 1 that only the name of its group decides.

    So a group that comes later moves no other one. Only where a part would be empty, the last group of the
    largest one goes there.

    Raises:
        ValueError: if there are fewer groups than parts, or a share is not above 0.
    """
    if min(shares.values()) <= 0:
        raise ValueError(f"The shares of {', '.join(shares)} must be above 0, not {listed(shares.values())}.")
    numbers = {group: _number(group) for group in groups}
    if len(numbers) < len(shares):
        raise ValueError(f"{', '.join(shares)} need a group each, and there are only {len(numbers)} groups.")
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    names = list(shares)
    parts = {group: names[int(np.searchsorted(ends, x, side="right"))] for group, x in numbers.items()}
    for empty in [name for name in names if name not in parts.values()]:
        [(largest, _)] = Counter(parts.values()).most_common(1)
        parts[max((group for group in parts if parts[group] == largest), key=lambda g: numbers[g])] = empty
    return [parts[group] for group in groups]


def _number(name: str) -> float:
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
