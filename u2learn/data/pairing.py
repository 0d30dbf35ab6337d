"""Which files of a folder are images, and which mask belongs to which image: by their names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from u2learn.data.example import listed
from u2learn.data.pictures import foreign

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm", ".webp", ".jp2")
MASK_WORDS = "masks?|labels?|gt|groundtruth|annotations?|seg|segmentation|manual[12]?|1stho|2ndho|ah|vk"
IMAGE_WORDS = "images?|img|im|training|test|photo"
Pair = tuple[Path, Path]  # an image and its mask
Find = Callable[[str, str, str, str], None]  # takes what is wrong: level, kind, file, text
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder, by their endings; not those in folders below it, see `skipped`.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    return [path for path in _visible(folder) if path.is_file() and _ending(path)]


def skipped(folder: str | Path) -> dict[str, str]:
    """What lies in a folder and is not taken for an image, and why: {name: reason}."""
    reasons = {}
    for path in _visible(folder):
        if path.is_dir():
            reasons[path.name] = "a folder; only the files in the folder itself are read"
        elif not _ending(path):
            kind = foreign(path)
            hint = f"{kind} is not read; convert it to PNG or TIFF"
            reasons[path.name] = hint if kind else "has no image's ending"
    return reasons


def _visible(folder: str | Path) -> list[Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _name(path: Path) -> str:
    """A name in one of the two forms in which Unicode may write é, without .gz."""
    name = unicodedata.normalize("NFC", path.name)
    return name[:-3] if name.lower().endswith(".gz") else name


def _ending(path: Path) -> str:
    return next((ending for ending in ENDINGS if _name(path).lower().endswith(ending)), "")


def stem(path: Path) -> str:
    """A name without its ending: eye7.ome.tif, eye7.ppm.gz -> eye7."""
    name = _name(path)[: len(_name(path)) - len(_ending(path))]
    return name[:-4] if name.lower().endswith(".ome") else name


def bare(path: Path, words: str = f"{MASK_WORDS}|{IMAGE_WORDS}") -> str:
    """The name in lower case without what says image or mask: eye7_mask, Mask_eye7, eye7.jpg_gt -> eye7."""
    inner = "|".join(map(re.escape, ENDINGS))
    name, shorter = None, stem(path).lower()
    while shorter != name:
        name = shorter
        shorter = re.sub(rf"^(?:{words})[-_. ]+(?=.)|(?<=.)(?:[-_. ]+(?:{words})|{inner})$", "", name)
    return name


def _without_channel(path: Path) -> str:
    """nnU-Net numbers the channels of an image: case_001_0000, case_001_0001 -> case_001."""
    return re.sub(r"(?<=.)_\d{4}$", "", bare(path))


def _whole(path: Path) -> str:
    return _name(path).lower()


def _stem(path: Path) -> str:
    return stem(path).lower()


def read_each(paths: Iterable[Path], read: Callable[[Path], T]) -> list[T]:
    """What `read` makes of each file.

    Raises:
        ValueError: if it fails; says so of all files for which it does.
    """
    made, wrong = [], []
    for path in paths:
        try:
            made.append(read(path))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(
            " ".join(wrong[:5]) + f" And {len(wrong) - 5} more files cannot be read." * (len(wrong) > 5)
        )
    return made


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def pair_folders(images_folder: Path, masks_folder: Path, find: Find) -> list[Pair]:
    """The pairs of two folders. These may be the same: then a word in a name says that it is a mask."""
    images, masks = image_files(images_folder), image_files(masks_folder)
    if images_folder.resolve() == masks_folder.resolve():
        masks = [path for path in masks if bare(path, MASK_WORDS) != _stem(path)]
        images = [path for path in images if path not in masks]
    for folder, files in ((images_folder, images), (masks_folder, masks)):
        if not files:
            find("error", "empty folder", str(folder), f"holds no file that ends in {', '.join(ENDINGS)}")
    return pair_files(images, masks, find)


def pair_files(images: list[Path], masks: list[Path], find: Find) -> list[Pair]:
    """Images with their masks: by the whole names first, then by the bare ones.

    A mask of eye7.jpg may be called eye7.png, eye7.jpg.png, eye7_mask.png, ..., and that of eye7_0000.png
    eye7.png. What has no partner goes to `find(level, kind, file, text)`.
    """
    pairs: list[Pair] = []
    for of_image, of_mask in ((_whole, _stem), (_stem, _stem), (bare, bare), (_without_channel, bare)):
        wanted = grouped(masks, of_mask)
        done: set[Path] = set()
        for key, rivals in grouped(images, of_image).items():
            partners = wanted.get(key, [])
            if len(rivals) == len(partners) == 1:
                pairs.append((rivals[0], partners[0]))
            elif partners and of_image in (bare, _without_channel):
                find("error", *_ambiguous(rivals, partners))
            else:
                continue
            done.update(rivals, partners)
        images, masks = ([p for p in files if p not in done] for files in (images, masks))
    for path in images:
        hint = f"no mask is named {bare(path)}, {bare(path)}_mask or the like"
        find("error", "image without mask", path.name, hint)
    for path in masks:
        find("error", "mask without image", path.name, f"no image is named {bare(path)}")
    return sorted(pairs)


def _ambiguous(images: list[Path], masks: list[Path]) -> tuple[str, str, str]:
    """Kind, file and text of what is wrong where names fit more than once."""
    names = listed(path.name for path in images)
    if len(masks) == 1 and all(_without_channel(path) != bare(path) for path in images):
        text = f"{names} are channels of one image; merge them into one TIFF of {len(images)} bands"
        return "channels in files of their own", images[0].name, text
    return "ambiguous names", images[0].name, f"{names} may go with {listed(path.name for path in masks)}"
