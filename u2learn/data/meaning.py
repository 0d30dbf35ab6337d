"""What the values and colours of a set of masks mean: decided once, over all of them, and never guessed.

What the masks leave open is asked: `decide` raises an error that names the readings, and the answer to each.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from u2learn.data.example import listed
from u2learn.data.masks import DARK, GREY, StoredMask, distinct, soft_edges, stored_mask
from u2learn.data.pairing import read_each
from u2learn.pixels import IGNORE

MOST_IDS = 32  # grey levels below this may be class ids; brighter ones were made to be looked at
Colour = tuple[int, int, int]


class Class(NamedTuple):
    """A class: its name, the stored codes that mean it, and the colour to show it in."""

    name: str
    stored: tuple[int, ...]
    colour: Colour


@dataclass(frozen=True)
class Meaning:
    """How masks become label maps.

    Attributes:
        kind: what counts in their files: "values", "indices", "colours" or "alpha" (see `StoredMask`).
        classes: in the order of their ids.
        ignore: stored codes of pixels that are neither learnt nor scored.
        cut: if above 0: codes from here on are class 1, all others class 0, and no code is listed.
    """

    kind: str
    classes: tuple[Class, ...]
    ignore: tuple[int, ...] = ()
    cut: int = 0

    def label(self, path: Path) -> np.ndarray:
        """The label map of a mask's file, uint8 (H, W), 255 = ignore.

        Raises:
            FileNotFoundError, ValueError: if it cannot be read, or holds what is no class of the set.
        """
        mask = stored_mask(path)
        try:
            codes = mask.as_kind(self.kind)
        except ValueError as error:
            raise ValueError(f"{path} {error}.") from error
        if self.cut:
            return (codes >= self.cut).astype(np.uint8)
        known = {code: k for k, each in enumerate(self.classes) for code in each.stored}
        known |= dict.fromkeys(self.ignore, IGNORE)
        values, place = np.unique(codes, return_inverse=True)
        if new := [written(value, self.kind) for value in values.tolist() if value not in known]:
            raise ValueError(f"{path} holds {listed(new)}, which is none of the classes of the set.")
        return np.array([known[value] for value in values.tolist()], np.uint8)[place.reshape(codes.shape)]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the way back."""
        classes = [
            {"name": name, "stored": [written(code, self.kind) for code in stored], "colour": hex_of(colour)}
            for name, stored, colour in self.classes
        ]
        ignore = [written(code, self.kind) for code in self.ignore]
        return {"kind": self.kind, "classes": classes, "ignore": ignore, "cut": self.cut}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Meaning:
        classes = tuple(
            Class(each["name"], tuple(map(read_code, each["stored"])), rgb_of(read_code(each["colour"])))
            for each in values["classes"]
        )
        return Meaning(values["kind"], classes, tuple(map(read_code, values["ignore"])), values["cut"])


def written(code: int, kind: str) -> int | str:
    """A stored code as one reads it: colours as #rrggbb."""
    return f"#{code:06x}" if kind == "colours" else code


def read_code(text: int | str) -> int:
    return int(text[1:], 16) if isinstance(text, str) and text.startswith("#") else int(text)


def rgb_of(code: int) -> Colour:
    return code >> 16 & 255, code >> 8 & 255, code & 255


def hex_of(colour: Colour) -> str:
    return "#" + bytes(colour).hex()


# --- counting ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """What all masks of a set hold.

    Attributes:
        kind: what counts in all of them.
        pixels: how many pixels have a code.
        files: the codes of each file.
        soft: the files whose grey levels are black, white and soft edges, or the noise of a JPEG.
        sizes: the (height, width) of each file.
        palette: the colours of the indices.
    """

    kind: str
    pixels: Counter[int]
    files: dict[str, set[int]]
    soft: set[str]
    sizes: dict[str, tuple[int, int]]
    palette: dict[int, int]

    @property
    def values(self) -> list[int]:
        return sorted(self.pixels)

    @property
    def ids(self) -> list[int]:
        """The codes without the 255 that may mean "ignore" beside class ids."""
        may = self.kind in ("values", "indices") and len(self.pixels) > 2
        return [value for value in self.values if value != IGNORE or not may]


def take_census(masks: list[Path]) -> Census:
    """Counts what masks hold.

    Raises:
        ValueError: if a mask cannot be read, or their kinds do not go together.
    """
    counted = {str(path): each for path, each in zip(masks, read_each(masks, _count), strict=True)}
    kind = _common_kind([each.once for each in counted.values()])
    pixels: Counter[int] = Counter()
    files: dict[str, set[int]] = {}
    palette: dict[int, int] = {}
    for name, each in counted.items():
        try:
            codes = each.once.as_kind(kind).tolist()
        except ValueError as error:
            raise ValueError(f"{name} {error}; store all masks of a set alike.") from error
        for code, count in zip(codes, each.counts.tolist(), strict=True):
            pixels[code] += count
        files[name] = set(codes)
        palette |= each.once.palette
    soft = {name for name, each in counted.items() if each.soft and kind in ("values", "alpha")}
    return Census(kind, pixels, files, soft, {name: each.size for name, each in counted.items()}, palette)


class _Counted(NamedTuple):
    """A mask with each of its codes once, and how often it is there."""

    once: StoredMask
    counts: np.ndarray
    size: tuple[int, int]
    soft: bool


def _count(path: Path) -> _Counted:
    mask = stored_mask(path)
    values, counts = distinct(mask.codes)
    noise = mask.lossy and not ((values >= DARK) & (values < 256 - DARK)).any()
    soft = noise or (len(values) > 2 and mask.kind != "colours" and soft_edges(mask.grey()))
    height, width = mask.codes.shape
    return _Counted(StoredMask(mask.kind, values, mask.palette), counts, (height, width), bool(soft))


def _common_kind(masks: list[StoredMask]) -> str:
    kinds = {mask.kind for mask in masks}
    if "alpha" in kinds or kinds == {"values"}:
        return "alpha" if "alpha" in kinds else "values"
    entries = {entry for mask in masks for entry in mask.palette.items()}
    colours = {colour for _, colour in entries}
    indices = len({index for index, _ in entries})
    if kinds == {"indices"} and len(entries) == indices:  # an index has the same colour in all files
        bright = all(colour % 256 * GREY == colour for colour in colours) and len(colours) == indices
        return "values" if bright else "indices"
    if "colours" not in kinds and all(colour % 256 * GREY == colour for colour in colours):
        return "values"
    return "colours"


# --- deciding ---------------------------------------------------------------------------------------------


def decide(census: Census, classes: str = "", instances: bool = False, soft: bool = False) -> Meaning:
    """What the codes of a set mean.

    Args:
        census: of all its masks.
        classes: names in the order of the codes ("background,cell"), or codes with names ("0=background,
            3=cell,255=ignore" or "#ff0000=cell"; black is the background where nothing else is said), or
            the number of class ids ("4": 0 to 3).
        instances: every code above 0 is an object of its own; all together are class 1.
        soft: grey levels are shares; above half of the largest is class 1.

    Raises:
        ValueError: if `classes` does not fit the masks, or the masks can be read in several ways; the
            message says which, and the argument (as an option of the command line) that answers it.
    """
    if len(census.values) < 2:
        only = written(census.values[0], census.kind)
        raise ValueError(f"Every pixel of every mask is {only}: there is nothing to learn from these masks.")
    if instances or soft:
        if soft and census.kind not in ("values", "alpha"):
            raise ValueError(f"--soft is about grey levels, and these masks hold {census.kind}.")
        if 0 not in census.values:
            raise ValueError("--instances and --soft take 0, or black, as background; no mask holds it.")
        return _two(census, 1 if instances else census.values[-1] // 2 + 1, classes)
    if classes:
        return _named(census, classes)
    if _all_soft(census):
        return _two(census, 128 if census.values[-1] < 256 else 128 * 257)
    return _seen(census)


def _all_soft(census: Census) -> bool:
    """Some masks have soft edges, and all others are black, white or both."""
    white = 255 if census.values[-1] < 256 else 65535
    others = (codes for name, codes in census.files.items() if name not in census.soft)
    return bool(census.soft) and len(census.values) > 8 and all(codes <= {0, white} for codes in others)


def _two(census: Census, cut: int, text: str = "") -> Meaning:
    names = text.split(",") if text else ["background", "object"]
    if len(names) != 2 or "=" in text:
        raise ValueError(f"--instances and --soft make two classes: --classes takes two names, not {text!r}.")
    black, white = (Class(name.strip(), (), shown(k, 2)) for k, name in enumerate(names))
    return Meaning(census.kind, (black, white), cut=cut)


def _seen(census: Census) -> Meaning:
    """The meaning of codes that leave no choice."""
    kind, values, ids = census.kind, census.values, census.ids
    marked = len(ids) < len(values)
    named = f"classes (one may be called ignore): --classes {_example(census)}"
    numbered = "each object has a number or colour of its own: --instances"
    if len(ids) == 2 and ids[0]:
        one, two = (written(code, kind) for code in ids)
        _ask(census, *(f'--classes "{a}=background,{b}=object"' for a, b in ((one, two), (two, one))))
    if kind in ("colours", "indices") and len(values) > MOST_IDS:
        _ask(census, named, numbered, "they are photographs, or a JPEG spoiled them: masks are saved as PNG")
    if kind in ("values", "alpha") and len(values) > 2 and (kind == "alpha" or ids[-1] >= MOST_IDS):
        _ask(census, named, numbered, "shares, or soft edges: --soft")
    things = sum(census.pixels[code] for code in ids if code)
    apart = not any(IGNORE in codes and codes - {0, IGNORE} for codes in census.files.values())
    if marked and (apart or census.pixels[IGNORE] > 10 * things):
        unsure, thing = (_example(census).replace("255=NAME", f"255={name}") for name in ("ignore", "NAME"))
        _ask(census, f"255 is unsure: --classes {unsure}", f"255 is an object: --classes {thing}")
    if kind != "colours" and _looks_numbered(census):
        _ask(census, f"{len(ids)} classes: --classes {len(ids)}", numbered)
    return _classes(census, dict.fromkeys(ids, ""), [IGNORE] * marked)


def _example(census: Census) -> str:
    names = [f"{written(value, census.kind)}=NAME" for value in census.values]
    return '"' + ",".join(names[:6]) + ",..." * (len(names) > 6) + '"'


def _ask(census: Census, *readings: str) -> NoReturn:
    codes = listed(written(value, census.kind) for value in census.values)
    raise ValueError(
        f"The masks hold the {census.kind} {codes}, which can mean several things. Say which: "
        f"{'; or '.join(readings)}."
    )


def _looks_numbered(census: Census) -> bool:
    """Whether the masks may hold numbered objects: each has 1 to n. A palette is made for classes, mostly."""
    ids = [sorted(codes - {0, IGNORE}) for codes in census.files.values()]
    counts = {len(each) for each in ids}
    complete = all(each == list(range(1, len(each) + 1)) for each in ids)
    return complete and max(counts) > 4 and (census.kind == "values" or len(counts) > 1)


def _named(census: Census, text: str) -> Meaning:
    """The meaning that the user gives, see `decide`."""
    ids = census.ids
    marked = len(ids) < len(census.values)
    if text.isdigit() and census.kind != "colours":
        return _classes(census, dict.fromkeys(range(int(text)), ""), [IGNORE] * marked)
    items = [[part.strip() for part in item.split("=", 1)] for item in text.split(",")]
    if len({len(item) for item in items}) > 1 or not all(all(item) for item in items):
        raise ValueError(f'--classes is "NAME,NAME" or "CODE=NAME,CODE=NAME", not {text!r}.')
    if len(items[0]) == 2:
        names = {_code(census, key): name for key, name in items}
        if 0 in census.values and 0 not in names:
            names = {0: "background"} | names
        return _classes(census, names)
    codes = ids if marked and len(ids) == len(items) and ids[-1] < MOST_IDS else census.values
    if len(codes) != len(items) or (census.kind == "colours" and (len(codes) > 2 or codes[0])):
        _ask(census, f"--classes {_example(census)} ({len(items)} names alone do not tell)")
    return _classes(census, dict(zip(codes, (name for [name] in items), strict=True)), [IGNORE] * marked)


def _code(census: Census, key: str) -> int:
    """The stored code that a user writes as a number or as #rrggbb."""
    if re.fullmatch("#[0-9a-fA-F]{6}", key):
        colour = read_code(key)
        known = {"colours": {colour: colour}, "indices": {c: i for i, c in census.palette.items()}}
        code = known.get(census.kind, {k * GREY: k for k in range(256)}).get(colour)
    else:
        code = int(key) if key.isdigit() and census.kind != "colours" else None
    if code is None:
        raise ValueError(f"--classes: {key!r} is none of the {census.kind} of the masks: {_example(census)}.")
    return code


def _classes(census: Census, names: dict[int, str], ignore: list[int] | None = None) -> Meaning:
    """Classes from codes and names ("": the usual one); codes of one name are one class.

    Raises:
        ValueError: if a code of the masks is left over, or there are too few classes or too many.
    """
    groups: dict[str, list[int]] = {}
    for k, (code, name) in enumerate(names.items()):
        usual = "background" if code == 0 else f"class {k}"
        if census.kind == "colours" and code:
            usual = hex_of(rgb_of(code))
        if len(names) == 2:
            usual = ("background", "object")[k]
        groups.setdefault(name or usual, []).append(code)
    unsure = groups.pop("ignore", []) + [code for code in ignore or [] if code not in names]
    left = [written(code, census.kind) for code in census.values if code not in names and code not in unsure]
    if left:
        raise ValueError(
            f"--classes does not say what {listed(left)} in the masks means; {left[0]}=NAME gives a name, "
            f"{left[0]}=ignore leaves such pixels out."
        )
    order = sorted(groups, key=lambda name: name != "background")
    if not 2 <= len(order) < IGNORE:
        raise ValueError(f"--classes: from 2 to 254 classes can be told apart, and here are {len(order)}.")
    own = {"indices": census.palette, "colours": {code: code for code in names}}.get(census.kind, {})
    first = [groups[name][0] for name in order]
    colours = [rgb_of(own[code]) if code in own else shown(k, len(order)) for k, code in enumerate(first)]
    classes = (Class(name, tuple(groups[name]), c) for name, c in zip(order, colours, strict=True))
    return Meaning(census.kind, tuple(classes), tuple(unsure))


def shown(k: int, count: int) -> Colour:
    """The colour of a class that has none of its own: black and white, or as PASCAL VOC has it."""
    if count == 2:
        return (255 * k, 255 * k, 255 * k)
    red, green, blue = (sum((k >> (3 * j + c) & 1) << (7 - j) for j in range(8)) for c in range(3))
    return red, green, blue
