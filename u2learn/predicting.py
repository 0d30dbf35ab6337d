"""Prediction as a tool: pictures go in, maps and cut-outs come out; a bad file does not stop the others."""

from __future__ import annotations

import colorsys
import glob
import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor, nn
from tqdm.auto import tqdm

from u2learn.console import hide_bar
from u2learn.cutout import cut_out
from u2learn.data.cityscapes import PALETTE
from u2learn.data.example import read_image
from u2learn.data.pairing import ENDINGS
from u2learn.data.pictures import FOREIGN, foreign
from u2learn.recipe import Recipe
from u2learn.tasks import TASKS

Colour = tuple[int, int, int]
# In a folder, files of these endings are pictures: those that are read, and photographs of other formats, as
# their owner is to hear that they are not.
MORE = (".jpe", ".j2k", ".dib", ".pbm", ".pnm", ".tga")
OTHERS = ("HEIC", "AVIF", "JPEG XL", "a camera's raw format")
PICTURES = (*ENDINGS, *MORE, *(ending for kind in OTHERS for ending in FOREIGN[kind][0]))
MADE = "u2learn predict"  # stands in every file that is made here: it is no picture to be predicted
TINT: Colour = (213, 94, 0)  # vermilion of Okabe and Ito (2008)


@dataclass(frozen=True)
class Source:
    """A picture to predict: its file, and where it lies below the folder that was asked for, if one was."""

    path: Path
    below: Path = Path()

    @property
    def stem(self) -> str:
        return Path(self.path.name.removesuffix(".gz")).stem


@dataclass
class Summary:
    """What became of the pictures. A reason names its file.

    Attributes:
        done: the pictures whose maps were written.
        there: those that had all of them already.
        failed: why a picture, a folder or a pattern could not be predicted.
        left_out: why something in a folder is no picture.
    """

    done: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = {
            "done": self.done,
            "there already (--overwrite makes them anew)": self.there,
            "left out": self.left_out,
            "failed": self.failed,
        }
        reasons = list(self.failed.values())
        if len(reasons) == 1 and not (self.done or self.there or self.left_out):
            return reasons[0]
        said = ", ".join(f"{len(some)} {what}" for what, some in counts.items() if some or what == "done")
        return said + {0: ".", 1: ": "}.get(len(reasons), ":\n  ") + "\n  ".join(reasons)


def predict_files(
    paths: Iterable[str | Path],
    output: str | Path,
    model: nn.Module,
    recipe: Recipe,
    *,
    threshold: float = 0.5,
    cutout: bool = False,
    matted: bool = False,
    overlay: bool = False,
    recursive: bool = False,
    overwrite: bool = False,
    batch: int = 1,
    progress: bool = True,
    tell: Callable[[Path], None] = lambda target: None,
) -> Summary:
    """Predict files, the pictures of folders and what patterns match, and write PNG files into `output`.

    The file STEM-ENDING.png has the ending of `Task.pictures`, "cutout" or "overlay". Pictures of a folder
    keep their sub-folders; where two would have one name, both keep their ending in it, or their folders.
    What is there already is not written again, so that a call that was stopped goes on; and nothing is ever
    written over a picture that is to be predicted. `batch` pictures are read at a time, and go through the
    model together where it squeezes them to one size; others go alone, their windows together. `tell` hears
    of each file that was written.

    Raises:
        ValueError: the model does not fit its recipe, or has no object to cut out; a batch below 1. What is
            wrong with one file is in the summary.
    """
    if batch < 1:
        raise ValueError(f"A batch is a number of pictures, at least 1, not {batch}.")
    output, summary, found = Path(output), Summary(), dict[str, Source]()
    for path in paths:
        for source in _sources(Path(path), recursive, output, summary):
            found.setdefault(os.path.abspath(source.path), source)
    make = partial(
        pictures_of, recipe=recipe, threshold=threshold, cutout=cutout, matted=matted, overlay=overlay
    )
    grey = np.zeros((recipe.channels, 16, 16), np.uint8)  # the model and the wishes are tried on it
    endings = list(make(TASKS[recipe.task].predict(model, grey, recipe), grey))
    originals = set(map(_folded, found))
    bar = tqdm(
        total=len(found), desc="predicting", unit="picture", disable=hide_bar(progress and len(found) > 1)
    )

    def fail(source: Source, error: Exception) -> None:
        summary.failed[source.path] = _reason(source.path, error)
        bar.set_postfix(failed=len(summary.failed))

    jobs = zip(found.values(), _names(list(found.values())), strict=True)
    while group := list(islice(jobs, batch)):
        read: list[tuple[Source, dict[str, Path], np.ndarray]] = []
        for source, name in group:
            targets = {ending: output / f"{name}-{ending}.png" for ending in endings}
            due = {ending: target for ending, target in targets.items() if overwrite or not target.exists()}
            try:
                _refuse_to_lose(originals, targets.values(), source)
                if due:
                    read.append((source, due, _read(source.path, recipe)))
                else:
                    summary.there.append(source.path)
            except Exception as error:  # whatever is wrong with one picture, the others are predicted
                fail(source, error)
        predictions = _predictions(model, recipe, [image for _, _, image in read])
        for (source, due, image), prediction in zip(read, predictions, strict=True):
            try:
                if isinstance(prediction, Exception):
                    raise prediction
                made = make(prediction, image)
                for ending, target in due.items():
                    _write(made[ending], target)
            except Exception as error:
                fail(source, error)
                continue
            summary.done.append(source.path)
            for target in due.values():
                tell(target)
        bar.update(len(group))
    bar.close()
    return summary


def _predictions(model: nn.Module, recipe: Recipe, images: list[np.ndarray]) -> list[Tensor | Exception]:
    """The prediction of each image, or why there is none; if they do not go in together, one by one."""
    if not images:
        return []
    try:
        return list(TASKS[recipe.task].predict_all(model, images, recipe))
    except Exception as error:
        if len(images) == 1:
            return [error]
    return [each for image in images for each in _predictions(model, recipe, [image])]


def _refuse_to_lose(originals: set[str], targets: Iterable[Path], source: Source) -> None:
    for target in targets:
        if _folded(os.path.abspath(target)) in originals:
            raise ValueError(f"{source.path}: {target} is to be predicted, too; choose another output.")


def pictures_of(
    prediction: Tensor,
    image: np.ndarray,
    recipe: Recipe,
    threshold: float = 0.5,
    cutout: bool = False,
    matted: bool = False,
    overlay: bool = False,
) -> dict[str, Image.Image]:
    """What a user gets of a prediction for an image, uint8 (C, H, W): pictures by the endings of their names.

    Raises:
        ValueError: a cut-out of several classes.
    """
    task, colours = TASKS[recipe.task], palette_of(recipe)
    made = task.pictures(prediction, threshold, colours)
    if cutout:
        made["cutout"] = cut_out(_photo(image), task.object_map(prediction), threshold, matted)
    if overlay:
        made["overlay"] = overlaid(_photo(image), task.ids(prediction, threshold), colours)
    return made


def palette_of(recipe: Recipe) -> tuple[Colour, ...]:
    """The colours of a recipe's classes: those of its data set, or else of Cityscapes. None for two classes.

    Further classes than there are colours have hues that lie far apart.
    """
    if recipe.task != "classes":
        return ()
    own = tuple(tuple(colour) for colour in recipe.data_options.get("palette", ()))
    hues = [colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.65, 0.95) for i in range(recipe.num_classes)]
    more = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]
    return (own or PALETTE + tuple(more[len(PALETTE) :]))[: recipe.num_classes]


def overlaid(photo: Image.Image, ids: Tensor, colours: Sequence[Colour] = ()) -> Image.Image:
    """The photograph, half of it in the colours of its classes (H, W); of two classes, class 1 is tinted."""
    table = np.array(colours or [TINT, TINT], np.uint8)
    classes = ids.cpu().numpy()
    tint = Image.fromarray(table[classes])
    half = Image.fromarray(np.where((classes > 0) | bool(colours), 128, 0).astype(np.uint8))
    return Image.composite(tint, photo, half)


# --- which files, and under which names ---------------------------------------------------------------------


def _sources(path: Path, recursive: bool, output: Path, summary: Summary) -> list[Source]:
    """The pictures that a path stands for; what cannot be found or is no picture is noted in the summary."""
    if path.is_dir():
        return _in_folder(path, recursive, output, summary)
    if path.exists():
        return _pictures([Source(path)], summary)
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not matches:
        kind = "nothing matches this pattern" if glob.has_magic(str(path)) else "there is no such file"
        summary.failed[path] = f"{path}: {kind}."
    return [source for match in matches for source in _sources(match, recursive, output, summary)]


def _in_folder(folder: Path, recursive: bool, output: Path, summary: Summary) -> list[Source]:
    found = []
    made, here = os.path.abspath(output), os.path.abspath(folder)

    def unreadable(error: OSError) -> None:
        summary.failed[Path(error.filename)] = f"{error.filename}: {error.strerror}."

    for place, folders, files in os.walk(folder, onerror=unreadable):
        inside = sorted(Path(place, name) for name in folders if not name.startswith("."))
        if recursive:
            folders[:] = [each.name for each in inside if os.path.abspath(each) != made or made == here]
        else:
            folders.clear()
            reasons = {each: f"{each} (a folder; --recursive takes its pictures)" for each in inside}
            summary.left_out |= {
                each: reason for each, reason in reasons.items() if os.path.abspath(each) != made
            }
        for path in sorted(Path(place, name) for name in files if not name.startswith(".")):
            if path.name.lower().removesuffix(".gz").endswith(PICTURES):
                found.append(Source(path, path.parent.relative_to(folder)))
            else:
                summary.left_out[path] = f"{path} ({_kind(path) or 'not the ending of a picture'})"
    if not found:
        summary.failed.setdefault(folder, f"{folder}: there is no picture in this folder.")
    return _pictures(found, summary)


def _kind(path: Path) -> str:
    """The format of a file that is no picture, where that is known."""
    try:
        return foreign(path) if path.is_file() else ""
    except OSError:  # one that must not be read
        return ""


def _pictures(found: list[Source], summary: Summary) -> list[Source]:
    """Those that were not made here."""
    made = [source.path for source in found if _is_made(source.path)]
    summary.left_out |= {path: f"{path} (made by {MADE})" for path in made}
    return [source for source in found if source.path not in made]


def _is_made(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                return picture.info.get("Software") == MADE
    except Exception:  # what is wrong with it is said when it is read
        return False


def _names(sources: list[Source]) -> list[Path]:
    """Where the maps of each picture go, below the output and without ending: no two alike."""
    names = [source.below / source.stem for source in sources]
    for longer in (_with_ending, _with_folders):
        groups = defaultdict(list)
        for i, name in enumerate(names):
            groups[_folded(name)].append(i)
        for group in groups.values():
            if len(group) > 1:
                for i, name in zip(group, longer([sources[i] for i in group]), strict=True):
                    names[i] = name
    taken = set[str]()
    for i, name in enumerate(names):
        number = 2
        while _folded(names[i]) in taken:  # told apart by case alone, which not every disk knows
            names[i], number = name.with_name(f"{name.name}-{number}"), number + 1
        taken.add(_folded(names[i]))
    return names


def _with_ending(alike: list[Source]) -> list[Path]:
    return [source.below / source.path.name for source in alike]


def _with_folders(alike: list[Source]) -> list[Path]:
    """Names that begin with the folders in which the pictures differ: left-eye.png, right-eye.png."""
    parts = [Path(os.path.abspath(source.path)).parts for source in alike]
    common = next(i for i, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1)
    return [s.below / "-".join(each[max(common, 1) :]) for s, each in zip(alike, parts, strict=True)]


def _folded(name: str | Path) -> str:
    """A name as Windows and macOS compare it: without regard to case and to how an umlaut is written."""
    return unicodedata.normalize("NFC", str(name)).casefold()


# --- one picture --------------------------------------------------------------------------------------------


def _read(path: Path, recipe: Recipe) -> np.ndarray:
    """An image, uint8 (C, H, W). Pictures above Pillow's limit are refused before they fill the memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return read_image(path, recipe.levels, recipe.channels)
    except (Image.DecompressionBombWarning, ValueError) as error:
        bomb = (Image.DecompressionBombWarning, Image.DecompressionBombError)
        if not isinstance(error, bomb) and not isinstance(error.__cause__, bomb):
            raise
    limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    raise ValueError(
        f"{path} is too large, above {limit:.0f} million pixels: shrink it, or cut it into tiles."
    )


def _photo(image: np.ndarray) -> Image.Image:
    """An image (C, H, W) as an RGB picture; grey becomes RGB, and of more bands the first three count."""
    rgb = np.repeat(image[:1], 3, axis=0) if len(image) < 3 else image[:3]
    return Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))


def _write(picture: Image.Image, target: Path) -> None:
    """Write a PNG whole or not at all, with a note of who made it."""
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", MADE)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, "PNG", pnginfo=note)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(path: Path, error: Exception) -> str:
    """Why a picture failed, in one line that begins with its name."""
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        text = "there is not enough memory for it; try --device cpu, or shrink it."
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or ''} {error.strerror}.".strip()
    elif not isinstance(error, (ValueError, OSError)):
        text = f"{type(error).__name__}: {text}"
    return text if text.startswith(str(path)) else f"{path}: {text}"
