"""Looking at a folder of one's own images and masks, once, to write its dataset.json."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from u2learn.data.example import listed
from u2learn.data.folder import FILE, Entry, Facts, Record, Size, facts, sha256, text
from u2learn.data.meaning import Census, Meaning, decide, take_census
from u2learn.data.pairing import Pair, pair_folders, read_each, skipped, stem
from u2learn.data.parts import PARTS, check_parts, draw_parts, group_of, part_folders, read_lists
from u2learn.data.pictures import levels_of, orientation, stored_image
from u2learn.files import write_text

SAMPLES = 1 << 24  # numbers of all images together that percentiles are taken of


def create(
    folder: str | Path,
    images: str | Path,
    masks: str | Path,
    *,
    classes: str = "",
    instances: bool = False,
    soft: bool = False,
    saliency: bool = False,
    exif: str = "",
    group: str = "",
    shares: tuple[float, float, float] = (70, 15, 15),
    lists: str | Path | None = None,
    channels: int = 0,
    levels: tuple[float, float] | None = None,
) -> Facts:
    """Looks at all images and masks, decides what they mean, and writes `folder`/dataset.json.

    Args:
        folder: where dataset.json goes; made if it is not there.
        images, masks: folders whose files go together by name. If both have folders train, val(idation) and
            test, these are the parts.
        classes, instances, soft: what the masks mean, see `u2learn.data.meaning.decide`.
        saliency: the two classes are what stands out and the rest, as U²-Net's authors train.
        exif: of images that EXIF turns while their masks do not say so: were the masks drawn on the "upright"
            image, or on its "stored" pixels?
        group: a regular expression on names without ending; what its first bracket (else all of it) finds
            is a group, and a group is never divided: "(.*)_[a-z]$" keeps slide7_a and slide7_b together.
        shares: of train, validation and test among the groups. The name of a group decides where it goes,
            so that a file that comes later moves no other one (unless a part would have been empty).
        lists: a folder with train.txt, test.txt and perhaps validation.txt, which list names.
        channels: of an image; 0: as the files have them, 1 (all are grey) or 3.
        levels: stored values that become 0 and 255; None: none for 8 bits, else the 0.1 and 99.9
            percentiles over all images.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if files do not pair, cannot be read or do not fit, or if there are several ways to
            understand the masks; says which argument decides.
    """
    folder, images, masks = Path(folder), Path(images), Path(masks)
    pairs, parts = _pairs(images, masks)
    census = take_census([mask for _, mask in pairs])
    labels = decide(census, classes, instances, soft)
    if saliency and (len(labels.classes) > 2 or labels.ignore):
        raise ValueError("--saliency is about two classes without any unsure pixel: say so with --classes.")
    sizes, channels, levels = _survey([image for image, _ in pairs], channels, levels)
    turns = _turns(pairs, sizes, census, exif)
    names = [stem(image) for image, _ in pairs]
    if lists:
        parts = read_lists(Path(lists), names)
    inside = [image.relative_to(images) for image, _ in pairs]
    whole = [(path.parent / name).as_posix() for path, name in zip(inside, names, strict=True)]
    groups = [group_of(name, group) for name in names] if group else whole
    parts = _all_parts(groups, parts, shares)
    entries = [
        Entry(
            inside[k].as_posix(),
            mask.relative_to(masks).as_posix(),
            groups[k],
            parts[k],
            sizes[k],
            turns[k],
            (sha256(image), sha256(mask)),
        )
        for k, (image, mask) in enumerate(pairs)
    ]
    record = Record(
        name=folder.resolve().name,
        task="saliency" if saliency else "binary" if len(labels.classes) == 2 else "classes",
        images=_seen_from(folder, images),
        masks=_seen_from(folder, masks),
        labels=labels,
        pixels=_shares(census, labels),
        channels=channels,
        levels=levels,
        group=group,
        examples=tuple(sorted(entries, key=lambda entry: entry.image)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, text(record))
    return facts(folder)


def left_out(images: Path, masks: Path) -> list[str]:
    """A line for each thing in both folders that `create` does not read."""
    used = sorted({folder for _, *both in _folders(images, masks) for folder in both})
    return [f"skipped: {folder / name}: {why}" for folder in used for name, why in skipped(folder).items()]


def _folders(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    """The folders of images and masks of each part, or the two as they are."""
    inner = part_folders(images), part_folders(masks)
    if inner[0].keys() != inner[1].keys():
        had = " and ".join(", ".join(each) or "none" for each in inner)
        raise ValueError(f"{images} and {masks} need folders of the same parts; they have {had}.")
    return [(part, inner[0][part], inner[1][part]) for part in inner[0]] or [("", images, masks)]


def _pairs(images: Path, masks: Path) -> tuple[list[Pair], list[str]]:
    """Images with their masks, and for each the part whose folder they lie in, or ""."""
    problems: dict[str, list[str]] = {}

    def find(level: str, kind: str, file: str, text: str) -> None:
        problems.setdefault(kind, []).append(f"{file} ({text})")

    found = [(part, pair) for part, i, m in _folders(images, masks) for pair in pair_folders(i, m, find)]
    if problems:
        texts = (f"{kind}: {listed(files, 3)}" for kind, files in problems.items())
        raise ValueError(f"The files of {images} and {masks} do not pair. {'; '.join(texts)}.")
    return [pair for _, pair in found], [part for part, _ in found]


def _all_parts(groups: list[str], given: list[str], shares: tuple[float, float, float]) -> list[str]:
    """The part of each image: as given, or drawn; a validation part that is not given is drawn from train."""
    named = dict(zip(PARTS, shares, strict=True))
    if not any(given):
        return draw_parts(groups, named)
    check_parts(groups, given)
    if "validation" in given:
        return given
    train = [group for group, part in zip(groups, given, strict=True) if part == "train"]
    drawn = dict(zip(train, draw_parts(train, {k: named[k] for k in ("train", "validation")}), strict=True))
    return [drawn[group] if part == "train" else part for group, part in zip(groups, given, strict=True)]


def _survey(
    images: list[Path], channels: int, levels: tuple[float, float] | None
) -> tuple[list[Size], int, tuple[float, float] | None]:
    """Sizes, channels and levels of all images."""

    def look(path: Path) -> tuple[Size, bool, np.ndarray | None]:
        """Its size, whether it has no colour, and a sample of what has more than 8 bits."""
        stored = stored_image(path, channels or 3)  # (C, H, W)
        grey = len(stored) == 1 or bool((stored == stored[:1]).all())
        step = -(-stored.size * len(images) // SAMPLES)
        deep = None if stored.dtype == np.uint8 else stored.ravel()[::step].astype(np.float32)
        return (stored.shape[1], stored.shape[2]), grey, deep

    sizes, grey, samples = zip(*read_each(images, look), strict=True)
    deep = [sample for sample in samples if sample is not None]
    if len(deep) not in (0, len(images)):
        few = [path.name for path, sample in zip(images, samples, strict=True) if sample is None]
        text = f"{len(few)} of {len(images)} images have 8 bits, the others more: {listed(few)}"
        raise ValueError(f"{text}. Convert all alike.")
    if levels and not deep:
        raise ValueError("--levels is about images of more than 8 bits; these have 8.")
    if deep:
        low, high = levels or levels_of(np.concatenate(deep))
        if not low < high:
            raise ValueError(f"--levels are two rising numbers, black and white, not {low:g} and {high:g}.")
        levels = float(f"{low:.6g}"), float(f"{high:.6g}")
    return list(sizes), channels or (1 if all(grey) else 3), levels


def _turns(pairs: list[Pair], sizes: list[Size], census: Census, exif: str) -> list[int]:
    """How each mask must be turned to lie on its image, by the image's EXIF or 1.

    Raises:
        ValueError: if a mask does not fit, or `exif` must say whether it does.
    """
    if exif not in ("", "upright", "stored"):
        raise ValueError(f"--exif is upright or stored, not {exif!r}.")
    turns, unknown, wrong = [], [], []
    for (image, mask), size in zip(pairs, sizes, strict=True):
        how, found = orientation(image), census.sizes[str(mask)]
        if how == 1 or orientation(mask) != 1:
            how = 1
        elif how >= 5 and size[0] != size[1]:  # turned by 90 degrees: the mask's size tells
            how = 1 if found == size else how
        elif not exif:
            unknown.append(image.name)
        elif exif == "upright":
            how = 1
        turns.append(how)
        if (found if how < 5 else found[::-1]) != size:
            wrong.append(f"{mask.name} is {found[0]} x {found[1]}, its image {size[0]} x {size[1]}")
    if wrong:
        raise ValueError(f"Masks and images differ in size (height x width): {listed(wrong)}.")
    if unknown:
        raise ValueError(
            f"EXIF turns {len(unknown)} images, but not their masks: {listed(unknown)}. Say --exif upright "
            "if the masks fit the images as viewers show them, --exif stored if they fit the stored pixels."
        )
    return turns


def _shares(census: Census, labels: Meaning) -> tuple[float, ...]:
    """The share of each class among the pixels that have one."""
    if labels.cut:
        above = sum(count for code, count in census.pixels.items() if code >= labels.cut)
        counts = [census.pixels.total() - above, above]
    else:
        counts = [sum(census.pixels[code] for code in each.stored) for each in labels.classes]
    return tuple(round(count / max(sum(counts), 1), 6) for count in counts)


def _seen_from(folder: Path, where: Path) -> str:
    try:
        return Path(os.path.relpath(where.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return where.resolve().as_posix()
