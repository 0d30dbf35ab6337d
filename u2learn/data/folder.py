"""A folder of one's own images and masks as a data set. `create` writes down once what its files mean:

    {
      "version": 1,
      "name": "cells",
      "task": "classes",                      or "binary", "saliency"
      "images": "images", "masks": "masks",   where they lie, seen from the folder of this file
      "labels": {                             what the masks mean, see `u2learn.data.meaning.Meaning`
        "kind": "colours",
        "classes": [{"name": "background", "stored": ["#000000"], "colour": "#000000"}, ...],
        "ignore": [],
        "cut": 0
      },
      "pixels": [0.8, 0.15, 0.05],            the share of each class
      "channels": 1,
      "levels": [448.0, 5065.0],              stored values that become 0 and 255; null: 8 bits
      "group": "(.*)_[a-z]$",
      "examples": [{"image": "s1_a.tif", "mask": "s1_a.png", "group": "s1", "part": "train",
                    "size": [480, 640], "turn": 1, "sha256": ["...", "..."]}, ...]
    }

`turn` is the EXIF orientation by which the mask is turned after its image, 1 if not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from u2learn.data.base import ExampleSet
from u2learn.data.example import Example, listed, read_image
from u2learn.data.meaning import Colour, Meaning
from u2learn.data.parts import PARTS
from u2learn.data.pictures import turned
from u2learn.files import checksum, shown

FILE = "dataset.json"
VERSION = 1
Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Entry:
    """One image with its mask: files below the folders of images and of masks, and what is known of them."""

    image: str
    mask: str
    group: str
    part: str
    size: Size
    turn: int
    sha256: tuple[str, str]


@dataclass(frozen=True)
class Record:
    """What dataset.json says."""

    name: str
    task: str
    images: str
    masks: str
    labels: Meaning
    pixels: tuple[float, ...]
    channels: int
    levels: tuple[float, float] | None
    group: str
    examples: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION} | asdict(self) | {"labels": self.labels.to_json()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Record:
        if values.pop("version") != VERSION:
            raise ValueError(f"its version is not {VERSION}")
        labels = Meaning.from_json(values.pop("labels"))
        examples = tuple(Entry(**_tuples(each, "size", "sha256")) for each in values.pop("examples"))
        if odd := {each.part for each in examples} ^ set(PARTS):
            raise ValueError(f"its parts are not {', '.join(PARTS)}: {listed(sorted(odd))}")
        return Record(**_tuples(values, "pixels", "levels"), labels=labels, examples=examples)


def _tuples(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """JSON knows no tuples."""
    return values | {key: tuple(values[key]) for key in keys if values[key] is not None}


@dataclass(frozen=True)
class Facts:
    """What a recipe must know of a folder.

    Attributes:
        name: of the set.
        task: "binary", "classes" or "saliency".
        class_names, palette: the classes by their ids, and the colours to show them in.
        levels: stored values that become 0 and 255, or None for images of 8 bits.
        channels: of an image.
        sizes: the smallest height and width, and the largest ones.
        parts: how many images are in "train", "validation" and "test".
        digest: SHA-256 of what dataset.json says, but for its name and where the folders lie.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    levels: tuple[float, float] | None
    channels: int
    sizes: tuple[Size, Size]
    parts: dict[str, int]
    digest: str


class Folder(ExampleSet):
    """A part of a folder that `create` has looked at; a file is read when its index is asked for.

    Args:
        folder: the folder that holds dataset.json.
        part: "train", "validation", "test" or "all".

    Raises:
        FileNotFoundError: if there is no dataset.json; when an index is asked for: if a file is gone.
        ValueError: for another part, or a damaged dataset.json; when an index is asked for: if a file is not
            the one that dataset.json was written for.
    """

    def __init__(self, folder: str | Path, part: str):
        if part not in (*PARTS, "all"):
            raise ValueError(f"The parts of a folder are {', '.join(PARTS)} and all, not {part!r}.")
        self.record = load(folder)
        self.entries = [entry for entry in self.record.examples if part in (entry.part, "all")]
        home = Path(folder).resolve()
        self.images, self.masks = ((home / its).resolve() for its in (self.record.images, self.record.masks))

    def __len__(self) -> int:
        return len(self.entries)

    def example(self, i: int) -> Example:
        entry, record = self.entries[i], self.record
        image_path, mask_path = self.images / entry.image, self.masks / entry.mask
        for path, known in zip((image_path, mask_path), entry.sha256, strict=True):
            if sha256(path) != known:
                raise ValueError(
                    f"{shown(path)} has changed since {FILE} was written: run `u2learn data new` again."
                )
        image = read_image(image_path, record.levels, record.channels)
        label = np.ascontiguousarray(turned(record.labels.label(mask_path), entry.turn))
        if image.shape[1:] != entry.size:
            raise ValueError(
                f"{shown(image_path)} is read as {image.shape[1:]} pixels, {FILE} says {entry.size}."
            )
        classes, ignores = len(record.labels.classes), bool(record.labels.ignore)
        return Example(entry.image, image, label, num_classes=classes, ignores=ignores)


def load(folder: str | Path) -> Record:
    """What a folder's dataset.json says.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or of another version.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {FILE}: run `u2learn data new {folder} --images IMAGES --masks MASKS`."
        )
    try:
        return Record.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({reason}); run `u2learn data new` again.") from error


def facts(folder: str | Path) -> Facts:
    """What a recipe must know of a folder.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    record = load(folder)
    heights, widths = zip(*(entry.size for entry in record.examples), strict=True)
    meaning = {k: v for k, v in record.to_json().items() if k not in ("name", "images", "masks")}
    return Facts(
        record.name,
        record.task,
        tuple(each.name for each in record.labels.classes),
        tuple(each.colour for each in record.labels.classes),
        record.levels,
        record.channels,
        ((min(heights), min(widths)), (max(heights), max(widths))),
        {part: sum(entry.part == part for entry in record.examples) for part in PARTS},
        hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest(),
    )


def sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{shown(path)} is gone; {FILE} names it.")
    return checksum(path)


def text(record: Record) -> str:
    """The record as JSON, with a line for each example."""
    values = record.to_json()
    lines = [json.dumps(each, ensure_ascii=False) for each in values.pop("examples")]
    head = json.dumps(values, indent=2, ensure_ascii=False)
    return head[:-2] + ',\n  "examples": [\n    ' + ",\n    ".join(lines) + "\n  ]\n}\n"


def summary(folder: str | Path) -> str:
    """What dataset.json says, for people."""
    record, known = load(folder), facts(folder)
    low, high = (f"{height} x {width}" for height, width in known.sizes)
    colours = {1: "grey", 3: "in colour"}.get(record.channels, f"of {record.channels} channels")
    lines = [
        f"{record.name}: {len(record.examples)} images with masks",
        f"images: {colours}, {low if low == high else f'{low} to {high}'} pixels (height x width)",
        f"masks: {len(record.labels.classes)} classes by the {record.labels.kind} in their files",
        *_class_lines(record),
    ]
    if record.levels:
        black, white = record.levels
        lines[1] += f"; the stored values {black:g} to {white:g} become 0 to 255"
    if known.task != "classes" and record.pixels[1] > 0.5:
        lines.append("    most is object: if the masks are inverted, say with --classes what is background")
    groups = {part: len({each.group for each in record.examples if each.part == part}) for part in PARTS}
    of = {part: f" ({groups[part]} groups)" if record.group else "" for part in PARTS}
    lines.append("parts: " + ", ".join(f"{part} {known.parts[part]}{of[part]}" for part in PARTS))
    return "\n".join(lines)


def _class_lines(record: Record) -> list[str]:
    labels = record.labels.to_json()
    below = [f"below {record.labels.cut}", f"from {record.labels.cut}"]
    lines = []
    for k, (each, share) in enumerate(zip(labels["classes"], record.pixels, strict=True)):
        stored = below[k] if record.labels.cut else listed(each["stored"])
        lines.append(f"    {k}  {each['name']:20} {stored:20} {share:6.1%} of the pixels")
    unsure = [f"    ignored: {listed(labels['ignore'])}"] if labels["ignore"] else []
    return lines + unsure
