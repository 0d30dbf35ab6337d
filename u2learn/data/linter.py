"""A linter for one's own images and masks: what usually goes wrong, before hours of training show it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from u2learn.data.example import (
    ENDINGS,
    MASK_WORDS,
    _bare,
    _grouped,
    _open,
    _stem,
    image_files,
    listed,
    pair_files,
    read_image,
    read_label,
)


@dataclass(frozen=True)
class Finding:
    """One thing that `lint` saw. `level` is "error" (it spoils the training), "warning" or "note"."""

    level: str
    kind: str
    file: str
    text: str


class Report(list):
    """The findings of `lint`; printed, they are grouped, worst first, under a line that sums up the data."""

    def __init__(self, findings: Iterable[Finding], pairs: int, balance: np.ndarray):
        super().__init__(
            sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))
        )
        self.pairs = pairs
        self.balance = balance  # (K,), share of the pixels by class

    def __str__(self) -> str:
        shares = ", ".join(f"class {k} {share:.1%}" for k, share in enumerate(self.balance))
        lines = [f"{self.pairs} pairs of image and mask" + (f"; pixels: {shares}" if self.pairs else "")]
        for (level, kind), group in _grouped(self, lambda finding: (finding.level, finding.kind)).items():
            lines.append(f"{level}: {kind} ({len(group)})")
            lines += [f"    {finding.file}: {finding.text}" for finding in group[:5]]
            lines += [f"    and {len(group) - 5} more"] * (len(group) > 5)
        return "\n".join(lines if len(self) else [*lines, "nothing to complain about"])


def lint(images_folder: str | Path, masks_folder: str | Path, num_classes: int = 2) -> Report:
    """Looks for what usually goes wrong with one's own data, before hours of training show it.

    Pairs images and masks by name (`eye7.jpg` with `eye7.png`, `eye7_mask.png`, `mask_eye7.png`,
    `eye7_manual1.gif`), opens every file, and reports what has no partner, cannot be read, differs in size,
    holds values that are no class ids, is empty or full, is stored with losses, or is there twice. Both
    folders may be one and the same.

    Raises:
        FileNotFoundError: if a folder does not exist.
    """
    findings: list[Finding] = []

    def find(level: str, kind: str, file: str, text: str) -> None:
        findings.append(Finding(level, kind, file, text))

    images, masks = image_files(images_folder), image_files(masks_folder)
    if Path(images_folder).resolve() == Path(masks_folder).resolve():
        masks = [path for path in masks if _bare(path, MASK_WORDS) != _stem(path)]
        images = [path for path in images if path not in masks]
    for folder, files in ((images_folder, images), (masks_folder, masks)):
        if not files:
            find("error", "empty folder", str(folder), f"holds no file that ends in {', '.join(ENDINGS)}")
    pairs = pair_files(images, masks, find)

    sizes, contents, counts = Counter(), defaultdict(list), np.zeros(num_classes, np.int64)
    grey, white = [], []
    for image_path, mask_path in pairs:
        try:
            image, mask = read_image(image_path), read_label(mask_path, num_classes)
        except ValueError as error:
            find("error", "unreadable", f"{image_path.name}, {mask_path.name}", str(error))
            continue
        sizes[image.shape[1:]] += 1
        contents["image", hashlib.sha256(image).digest()].append(image_path.name)
        if image.shape[1:] != mask.shape:
            (h, w), (mask_h, mask_w) = image.shape[1:], mask.shape
            hint = "; turned by 90 degrees?" if (h, w) == (mask_w, mask_h) else ""
            find(
                "error", "sizes differ", mask_path.name, f"{mask_h} x {mask_w}, its image is {h} x {w}{hint}"
            )
        if (image == image[:1]).all():
            grey.append(image_path.name)
        seen = np.bincount(mask.ravel(), minlength=256)[:num_classes]
        counts += seen
        if np.count_nonzero(seen) > 1:
            contents["mask", hashlib.sha256(mask).digest()].append(mask_path.name)
        elif seen.any():
            find("warning", "one class only", mask_path.name, f"every pixel is of class {seen.argmax()}")
        stored = np.unique(np.asarray(_open(mask_path)))
        if num_classes == 2 and len(stored) > 2:
            find(
                "warning",
                "more than two values",
                mask_path.name,
                f"{listed(stored)}: soft edges or JPEG; read_mask cuts at 128, store masks as PNG",
            )
        elif num_classes == 2 and stored.max() == 255:
            white.append(mask_path.name)

    for (what, _), names in contents.items():
        if len(names) > 1:
            harm = "; one in training and one in the test spoil the score" if what == "image" else ""
            find("warning", "duplicates", names[0], f"the same {what} as {listed(names[1:])}{harm}")
    balance = counts / max(counts.sum(), 1)
    if num_classes == 2 and balance[1] > 0.5:
        text = f"{balance[1]:.0%} of all pixels are foreground: are the masks inverted?"
        find("warning", "mostly foreground", str(masks_folder), text)
    if white:
        text = (
            f"{len(white)} of {len(pairs)}; read_mask makes them 0 and 1. Otherwise 255 means 'ignore' here"
        )
        find(
            "note", "masks of 0 and 255", str(masks_folder), f"{text}, and elsewhere it makes losses negative"
        )
    if len(sizes) > 1:
        text = listed(f"{h} x {w} ({n})" for (h, w), n in sizes.most_common())
        find("note", "several sizes", str(images_folder), f"{text}; a batch needs crops, or one size")
    if grey:
        find(
            "note",
            "grey images",
            str(images_folder),
            f"{len(grey)} of {len(pairs)} have no colour: {listed(grey)}",
        )
    return Report(findings, len(pairs), balance)
