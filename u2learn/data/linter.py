"""A linter for one's own images and masks: what usually goes wrong, before hours of training show it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from u2learn.data.example import listed, read_label
from u2learn.data.folder import FILE, Folder
from u2learn.data.masks import DARK, distinct, stored_mask
from u2learn.data.meaning import written
from u2learn.data.pairing import grouped, image_files, pair_folders, skipped
from u2learn.data.pictures import as_image, foreign, orientation, stored_image
from u2learn.files import shown
from u2learn.pixels import IGNORE

FEW = 64  # grey levels: fewer are a sign that an image of many bits was read with a wrong range


@dataclass(frozen=True)
class Finding:
    """One thing that a linter saw. `level` is "error" (it spoils the training), "warning" or "note"."""

    level: str
    kind: str
    file: str
    text: str


class Report(list[Finding]):
    """The findings of a linter; printed, they are grouped, the worst first, under a line that sums up."""

    def __init__(self, findings: Iterable[Finding], pairs: int, balance: np.ndarray):
        super().__init__(
            sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))
        )
        self.pairs = pairs
        self.balance = balance  # (K,), share of the pixels by class

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(finding.level == "error" for finding in self)

    def __str__(self) -> str:
        shares = ", ".join(f"class {k} {share:.1%}" for k, share in enumerate(self.balance))
        lines = [f"{self.pairs} pairs of image and mask" + (f"; pixels: {shares}" if self.pairs else "")]
        for (level, kind), group in grouped(self, lambda finding: (finding.level, finding.kind)).items():
            lines.append(f"{level}: {kind} ({len(group)})")
            lines += [f"    {finding.file}: {finding.text}" for finding in group[:5]]
            lines += [f"    and {len(group) - 5} more"] * (len(group) > 5)
        return "\n".join(lines if len(self) else [*lines, "nothing to complain about"])


@dataclass(frozen=True)
class Seen:
    """What is kept of a pair that was opened.

    Attributes:
        image, mask: the names of their files.
        size, mask_size: (height, width).
        counts: pixels by the 256 values of the label map.
        frame: the share of class 1 along the border of the mask.
        stored: the grey levels in the mask's file, or its colours.
        grey, deep: whether the image has no colour; more than 8 bits.
        levels: how many of 256 grey levels it uses.
        turned: the EXIF orientation that its mask does not have, or 1.
        prints: checksums of the pixels of image and label map.
        part, group: of a folder with a dataset.json.
    """

    image: str
    mask: str
    size: tuple[int, ...]
    mask_size: tuple[int, ...]
    counts: np.ndarray
    frame: float
    stored: tuple[int | str, ...]
    grey: bool
    deep: bool
    levels: int
    turned: int
    prints: tuple[bytes, bytes]
    part: str = ""
    group: str = ""


def lint(images_folder: str | Path, masks_folder: str | Path, num_classes: int = 2) -> Report:
    """Looks for what usually goes wrong with one's own data, before hours of training show it.

    Pairs images and masks by name (`eye7.jpg` with `eye7.png`, `eye7_mask.png`, `mask_eye7.png`,
    `eye7_manual1.gif`), opens every file, and reports what has no partner, cannot be read, differs in size,
    holds values that are no class ids, is empty or full, is stored with losses, or is there twice. Both
    folders may be one and the same.

    Raises:
        FileNotFoundError: if a folder does not exist.
    """
    images_folder, masks_folder = Path(images_folder), Path(masks_folder)
    findings: list[Finding] = []

    def find(level: str, kind: str, file: str, text: str) -> None:
        findings.append(Finding(level, kind, file, text))

    pairs = pair_folders(images_folder, masks_folder, find)
    findings += _skipped({images_folder, masks_folder})
    seen = []
    for image, mask in pairs:
        try:
            stored = stored_image(image)
            label = read_label(mask, num_classes)
        except ValueError as error:
            kind = "instance ids" if _numbered(mask) else "unreadable"
            find("error", kind, f"{image.name}, {mask.name}", str(error))
            continue
        pixels = as_image(stored, None, 3)
        seen.append(_look(image, mask, pixels, label, deep=stored.dtype != np.uint8))
    findings += _of_pairs(seen, num_classes)
    if num_classes == 2:
        findings += _of_two_classes(seen, str(masks_folder))
    findings += _of_the_set(seen, num_classes, str(images_folder), str(masks_folder))
    return Report(findings, len(pairs), _balance(seen, num_classes))


def lint_folder(folder: str | Path) -> Report:
    """Looks for what is wrong with a folder for which `u2learn data new` has written a dataset.json.

    Raises:
        FileNotFoundError, ValueError: if there is none, or it is damaged.
    """
    whole = Folder(folder, "all")
    known = {whole.images / entry.image: whole.masks / entry.mask for entry in whole.entries}
    homes = {image.parent for image in known}
    findings = _skipped(homes | {mask.parent for mask in known.values()})
    for path in (path for home in sorted(homes) for path in image_files(home)):
        if path not in known and path not in known.values():
            findings.append(Finding("warning", f"not in {FILE}", path.name, "run `u2learn data new` again"))
    seen = []
    for i, entry in enumerate(whole.entries):
        try:
            example = whole[i]
        except (ValueError, OSError) as error:
            findings.append(Finding("error", "unreadable", f"{entry.image}, {entry.mask}", str(error)))
            continue
        image, mask = whole.images / entry.image, whole.masks / entry.mask
        deep = whole.record.levels is not None
        seen.append(_look(image, mask, example.image, example.label, deep, entry.part, entry.group))
    classes = len(whole.record.labels.classes)
    findings += _of_pairs(seen, classes, decided=True)
    findings += _of_the_set(seen, classes, shown(whole.images), shown(whole.masks))
    findings += _of_parts(seen)
    return Report(findings, len(whole), _balance(seen, classes))


def _look(
    image: Path,
    mask: Path,
    pixels: np.ndarray,
    label: np.ndarray,
    deep: bool,
    part: str = "",
    group: str = "",
) -> Seen:
    file = stored_mask(mask)
    codes = file.codes if file.kind == "colours" else file.grey()
    border = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    return Seen(
        image=image.name,
        mask=mask.name,
        size=pixels.shape[1:],
        mask_size=label.shape,
        counts=np.bincount(label.ravel(), minlength=256),
        frame=float((border == 1).mean()),
        stored=tuple(written(code, file.kind) for code in distinct(codes)[0].tolist()),
        grey=bool((pixels == pixels[:1]).all()),
        deep=deep,
        levels=len(distinct(pixels)[0]),
        turned=orientation(image) if orientation(mask) == 1 else 1,
        prints=(_print(pixels), _print(label)),
        part=part,
        group=group,
    )


def _print(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()


def _numbered(mask: Path) -> bool:
    """Whether a mask that cannot be read as one holds numbered objects: flat areas of many values."""
    try:
        file = stored_mask(mask)
    except ValueError:
        return False
    flat = (file.codes[:, 1:] == file.codes[:, :-1]).mean() if file.codes.shape[1] > 1 else 0
    return file.kind in ("values", "indices") and len(distinct(file.codes)[0]) > 8 and flat > 0.6


def _skipped(folders: set[Path]) -> list[Finding]:
    """What lies there and is not read."""
    findings = []
    for folder in sorted(folders):
        for name, reason in skipped(folder).items():
            picture = (folder / name).is_file() and foreign(folder / name)
            findings.append(Finding("warning" if picture else "note", "skipped files", name, reason))
    return findings


def _of_pairs(seen: list[Seen], num_classes: int, decided: bool = False) -> Iterator[Finding]:
    """What is wrong with single pairs. `decided`: a dataset.json says how masks lie on turned images."""
    for each in seen:
        (h, w), (mask_h, mask_w) = each.size, each.mask_size
        if each.size != each.mask_size:
            hint = "; turned by 90 degrees?" if each.size == each.mask_size[::-1] else ""
            text = f"{mask_h} x {mask_w}, its image is {h} x {w}{hint}"
            yield Finding("error", "sizes differ", each.mask, text)
        elif each.turned != 1 and not decided and (each.turned < 5 or h == w):
            text = f"EXIF ({each.turned}) turns the image, and not {each.mask}: do they still fit?"
            yield Finding("warning", "turned by EXIF", each.image, text)
        present = np.flatnonzero(each.counts[:num_classes])
        if len(present) == 1:
            yield Finding("warning", "one class only", each.mask, f"every pixel is of class {present[0]}")
        if unsure := each.counts[IGNORE]:
            text = f"{unsure / each.counts.sum():.1%} of the pixels are 255, neither learnt nor scored"
            yield Finding("note", "255 unsure", each.mask, text)


def _of_two_classes(seen: list[Seen], where: str) -> Iterator[Finding]:
    """Masks of two classes that are stored as something else, or in several ways."""
    objects: dict[int | str, list[str]] = {}
    for each in seen:
        if each.counts[IGNORE]:
            objects.setdefault("1 beside 255", []).append(each.mask)
        elif len(each.stored) > 2:
            text = f"{listed(each.stored)}: soft edges or JPEG; read_mask cuts at 128, store masks as PNG"
            yield Finding("warning", "more than two values", each.mask, text)
        elif each.counts[1]:
            value = each.stored[-1]
            bright = isinstance(value, int) and 256 - DARK <= value < 256
            objects.setdefault(255 if bright else value, []).append(each.mask)
    if len(objects) > 1 and set(objects) not in ({1, 255}, {1, "1 beside 255"}):  # {1, 255}: see below
        ways = listed(f"{value} in {len(masks)} masks ({masks[0]})" for value, masks in objects.items())
        text = f"the object is {ways}: several classes, or one that is stored in several ways"
        yield Finding("error", "more than two classes", where, text)
    if white := sum(each.stored[-1] == 255 for each in seen if len(each.stored) <= 2):
        text = f"{white} of {len(seen)}; read_mask makes them 0 and 1. Otherwise 255 means 'ignore' here"
        yield Finding("note", "masks of 0 and 255", where, f"{text}, and elsewhere it makes losses negative")


def _of_the_set(seen: list[Seen], num_classes: int, images: str, masks: str) -> Iterator[Finding]:
    """What only all pairs together show."""
    yield from _duplicates(seen, num_classes)
    if num_classes == 2:
        yield from _inverted(seen, masks)
    sizes = Counter(each.size for each in seen)
    if len(sizes) > 1:
        text = listed(f"{h} x {w} ({n})" for (h, w), n in sizes.most_common())
        yield Finding("note", "several sizes", images, f"{text}; a batch needs crops, or one size")
    if grey := [each.image for each in seen if each.grey]:
        text = f"{len(grey)} of {len(seen)} have no colour: {listed(grey)}"
        yield Finding("note", "grey images", images, text)
    if deep := [each for each in seen if each.deep]:
        least = min(deep, key=lambda each: each.levels)
        text = f"{len(deep)} of {len(seen)}; at least {least.levels} grey levels used ({least.image})"
        yield Finding("warning" if least.levels < FEW else "note", "more than 8 bits", images, text)


def _duplicates(seen: list[Seen], num_classes: int) -> Iterator[Finding]:
    harm = "; one in training and one in the test spoil the score"
    for same in grouped(seen, lambda each: each.prints[0]).values():
        if len(same) > 1:
            text = f"the same image as {listed(each.image for each in same[1:])}{harm}"
            yield Finding("warning", "duplicates", same[0].image, text)
    mixed = (each for each in seen if np.count_nonzero(each.counts[:num_classes]) > 1)
    for same in grouped(mixed, lambda each: each.prints[1]).values():
        if len(same) > 1:
            text = f"the same mask as {listed(each.mask for each in same[1:])}"
            yield Finding("warning", "duplicates", same[0].mask, text)


def _inverted(seen: list[Seen], where: str) -> Iterator[Finding]:
    """Masks whose foreground is the frame of the picture: some among others, or all of them."""
    share = _balance(seen, 2)[1]
    if share > 0.5:
        text = f"{share:.0%} of all pixels are foreground: are the masks inverted?"
        yield Finding("warning", "mostly foreground", where, text)
    odd = [each for each in seen if each.counts[1] > each.counts[0] > 0 and each.frame > 0.5]
    if 3 * len(odd) <= len(seen):
        for each in odd:
            text = f"{_balance([each], 2)[1]:.0%} of it are foreground, with the frame, unlike in the others"
            yield Finding("warning", "inverted mask", each.mask, text)


def _of_parts(seen: list[Seen]) -> Iterator[Finding]:
    """What is in two parts at once."""
    for what, key in (("group", lambda s: s.group), ("image", lambda s: s.prints[0])):
        for same in grouped(seen, key).values():
            if len({each.part for each in same}) > 1:
                text = f"the same {what} in {listed(f'{each.part} ({each.image})' for each in same)}"
                yield Finding("error", f"{what} in two parts", same[0].image, text)


def _balance(seen: list[Seen], num_classes: int) -> np.ndarray:
    """The share of each class among the pixels that have one. (K,)"""
    counts = np.zeros(num_classes, np.int64)
    for each in seen:
        counts += each.counts[:num_classes]
    return counts / max(counts.sum(), 1)
