"""Pictures of arrays: images in a row, errors in colour, small matrices, feature maps, receptive fields."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from u2learn.pixels import IGNORE, Size
from u2learn.show.palette import COLOURS, WIDTH, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CREDIT: dict[str, Any] = {"fontsize": 9, "color": COLOURS["grey"]}
Picture = Tensor | np.ndarray | Image.Image  # (3, H, W), (H, W, 3) or (H, W)


def pixels_of(image: Picture, name: str = "image") -> np.ndarray:
    """Any image as an array (H, W) or (H, W, 3), with its own numbers."""
    array = _numbers(image)
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or 0 in array.shape:
        shape = tuple(array.shape)
        raise ValueError(
            f"{name}: expected (3, H, W) or (H, W), got shape {shape}; take one image of a batch."
        )
    return array


def panel(axis: Axes, image: Picture, cmap: str, limits: tuple[float, float] | None, name: str) -> None:
    array = pixels_of(image, name)
    if array.ndim == 3 and array.dtype != np.uint8:
        array = array.clip(0, 1)
    if limits is None:
        limits = limits_of(array)
    # A small picture keeps its pixels as squares; a large one is averaged down.
    interpolation = "nearest" if max(array.shape[:2]) <= 256 else None
    axis.imshow(
        array.astype(np.uint8) if array.dtype == bool else array,
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        interpolation=interpolation,
    )
    axis.set_axis_off()


def limits_of(array: np.ndarray) -> tuple[float, float]:
    """The numbers that are black and white: 0..1 for masks and probabilities, 0..255 for 8-bit greys."""
    low, high = float(array.min()), float(array.max())
    if array.dtype == np.uint8 and not np.isin(array, (0, 1, 255)).all():
        return 0.0, 255.0
    if array.dtype.kind in "iu" and low >= 0:  # class ids
        ids = array[array != IGNORE]
        return 0.0, max(1.0, float(ids.max())) if ids.size else 255.0
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def image_row(
    images: Sequence[Picture] | Tensor,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    cmap: str = "gray",
    limits: tuple[float, float] | None = None,
    credit: str = "",
) -> Figure:
    """Images side by side, without axes; `columns` breaks the row, and `credit` says below whose they are.

    Each is (3, H, W), (H, W) or (H, W, 3): 8-bit, float in [0, 1], a mask or class ids. Floats (H, W) outside
    [0, 1] are stretched over their own range, unless `limits` gives the (black, white) of all.

    Raises:
        ValueError: no image, an image of another shape, or another number of titles.
    """
    images = list(images)
    _check_titles("image_row", images, titles)
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    cell = min(WIDTH / columns, 3.2)
    shapes = [pixels_of(image, f"image {i}").shape for i, image in enumerate(images)]
    tallest = max(h / w for h, w, *_ in shapes)
    lines = [_wrap(title, cell) for title in titles or []]
    text = _height(lines) + 0.06
    figure, axes = figure_of(cell * columns, rows * (cell * min(tallest, 1.6) + text), rows, columns)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    for i, axis in enumerate(axes.flat):
        if i < len(images):
            panel(axis, images[i], cmap, limits, f"image {i}")
            axis.set_title(lines[i] if lines else "")
        else:
            axis.set_axis_off()
    _credit(figure, credit)
    return figure


def _credit_lines(words: str, figure: Figure) -> str:
    return textwrap.fill(words, int(12.5 * figure.get_figwidth()))  # letters of 9 points in an inch


def _credit(figure: Figure, words: str) -> None:
    """A line below the pictures; the figure becomes higher by it."""
    if words:
        lines = _credit_lines(words, figure)
        figure.set_figheight(figure.get_figheight() + 0.17 * (lines.count("\n") + 1))
        figure.supxlabel(lines, x=0.01, ha="left", **CREDIT)


def _check_titles(name: str, things: Sequence[Picture], titles: Sequence[str] | None) -> None:
    if not things:
        raise ValueError(f"{name} has nothing to show: the list of pictures is empty.")
    if titles is not None and len(titles) != len(things):
        raise ValueError(
            f"{name} got {len(things)} pictures and {len(titles)} titles; give one title a picture."
        )


def _height(titles: Sequence[str]) -> float:
    """How many inches a row of titles needs."""
    return 0.215 * max(title.count("\n") + 1 for title in titles) + 0.08 if titles else 0


def _wrap(text: str, inches: float) -> str:
    """Break a title so that it stays within `inches` at the book's 11 points (about 12 letters an inch)."""
    return "\n".join(textwrap.fill(line, max(8, int(12 * inches))) for line in str(text).split("\n"))


def feature_grid(maps: Picture, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Feature maps (C, H, W) as a grid of grey pictures, each stretched over its own range.

    Raises:
        ValueError: not (C, H, W), or another number of titles.
    """
    array = _numbers(maps)
    if array.ndim != 3:
        raise ValueError(
            f"feature_grid: expected maps of shape (C, H, W), got {array.shape}; take one of a batch."
        )
    stretched = [(m - m.min()) / max(m.max() - m.min(), 1e-12) for m in array.astype(np.float64)]
    return image_row(stretched, titles, columns)


def kernel_picture(
    arrays: Any,
    titles: Sequence[str] | None = None,
    numbers: bool = True,
    box: tuple[int, int, int, int] | None = None,
) -> Figure:
    """Small matrices as coloured cells with their numbers: blue below zero, white at zero, orange above.

    One (H, W) matrix or a list of them, with cells of one size and a colour scale each. `box` = (top, left,
    height, width) outlines a window in the first.

    Raises:
        ValueError: a matrix that is not (H, W), one too large to read, or another number of titles.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    many = isinstance(arrays, (list, tuple)) and np.ndim(_numbers(arrays[0])) == 2
    matrices = [np.atleast_2d(_numbers(a)) for a in (arrays if many else [arrays])]
    _check_titles("kernel_picture", matrices, titles)
    for matrix in matrices:
        if matrix.ndim != 2 or max(matrix.shape) > 24:
            shape = matrix.shape
            raise ValueError(
                f"kernel_picture draws matrices of up to 24 x 24 cells, got {shape}; use image_row."
            )
    rows, cells = max(m.shape[0] for m in matrices), sum(m.shape[1] for m in matrices)
    cell = min(0.55, WIDTH / (cells + len(matrices) - 1))  # inches
    lines = [
        _wrap(title, max(cell * m.shape[1], 1.1)) for title, m in zip(titles or [], matrices, strict=False)
    ]
    words = [0.09 * max(map(len, line.split("\n"))) / cell for line in lines] or [0.0] * len(matrices)
    columns = [max(m.shape[1] + 0.1, w) for m, w in zip(matrices, words, strict=True)]
    text = _height(lines) + 0.08
    figure, axes = figure_of(
        cell * (sum(columns) + 0.6 * len(matrices)),
        cell * (rows + 0.1) + text + 0.1,
        1,
        len(matrices),
        gridspec_kw={"width_ratios": columns},
    )
    colours = LinearSegmentedColormap.from_list("signed", [COLOURS["encoder"], "white", COLOURS["accent"]])
    for i, (axis, matrix) in enumerate(zip(axes.flat, matrices, strict=True)):
        (h, w), top = matrix.shape, max(float(np.abs(matrix).max()), 1e-12)
        axis.pcolormesh(
            matrix, cmap=colours, vmin=-1.4 * top, vmax=1.4 * top, edgecolors="#9A9A9A", linewidth=0.6
        )
        # Every axis spans the same number of cells from top to bottom, so that all cells are of one size.
        axis.set(
            xlim=(w / 2 - columns[i] / 2, w / 2 + columns[i] / 2),
            ylim=(h / 2 + rows / 2 + 0.05, h / 2 - rows / 2 - 0.05),
            aspect="equal",
        )
        axis.set_axis_off()
        axis.set_title(lines[i] if lines else "")
        if numbers:
            for (row, column), value in np.ndenumerate(matrix):
                axis.text(
                    column + 0.5,
                    row + 0.5,
                    short_number(value),
                    ha="center",
                    va="center",
                    fontsize=max(5.0, min(11.0, cell * 21)),
                )
    if box is not None:
        top, left, h, w = box
        axes.flat[0].add_patch(Rectangle((left, top), w, h, fill=False, lw=2.5, ec=COLOURS["false_alarm"]))
    return figure


def _numbers(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def short_number(value: float) -> str:
    """A number with at most two decimals and no more than it needs: 3, \N{MINUS SIGN}1, 0.5, 0.11."""
    text = f"{float(value):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\N{MINUS SIGN}")


def receptive_field(
    heats: Picture | Sequence[Picture],
    sizes: int | Size | Sequence[int | Size | None] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """How much each input pixel moves one output: |gradient| maps (H, W), each divided by its maximum.

    `sizes` is the theoretical field in pixels, drawn as a dashed box in the centre: an int, (height, width),
    or one of these for each map.

    Raises:
        ValueError: a map that is not (H, W), or another number of sizes or titles.
    """
    from matplotlib.patches import Rectangle

    each: list[Any] = list(heats) if isinstance(heats, (list, tuple)) else [heats]
    maps = [np.abs(pixels_of(h, "heat map").astype(np.float64)) for h in each]
    _check_titles("receptive_field", maps, titles)
    boxes: list[Any] = [sizes] * len(maps)
    if isinstance(heats, (list, tuple)) and isinstance(sizes, (list, tuple)):
        boxes = list(sizes)
    if len(boxes) != len(maps):
        raise ValueError(f"receptive_field got {len(maps)} maps and {len(boxes)} sizes; give one size a map.")
    shares = [m / max(m.max(), 1e-12) for m in maps]
    figure = image_row(shares, titles, cmap="magma", limits=(0, 1))
    for axis, heat, box in zip(figure.axes, shares, boxes, strict=False):
        if box is not None:
            h, w = (box, box) if isinstance(box, int) else box
            corner = ((heat.shape[1] - 1 - w) / 2, (heat.shape[0] - 1 - h) / 2)
            axis.add_patch(Rectangle(corner, w, h, fill=False, lw=1.8, ls=(0, (4, 2)), ec=COLOURS["hit"]))
    return figure


def overlay(image: Picture, prediction: Picture, label: Picture, ignore: int = IGNORE) -> Tensor:
    """Hits, misses and false alarms in `COLOURS` over a dimmed grey image: uint8 (3, H, W).

    `image` is (3, H, W) or (H, W); `prediction` and `label` are (H, W), bool or 0/1; where the label is
    `ignore`, only the image is seen.

    Raises:
        ValueError: sizes differ, or a mask holds something besides 0 and 1.
    """
    pixels = pixels_of(image).astype(np.float64) / (255 if pixels_of(image).dtype == np.uint8 else 1)
    grey = pixels if pixels.ndim == 2 else pixels @ (0.299, 0.587, 0.114)
    predicted, wanted, known = _masks(prediction, label, ignore)
    if predicted.shape != grey.shape:
        raise ValueError(
            f"the image is {_by(grey)} pixels and the masks are {_by(predicted)}; they must agree."
        )
    picture = np.repeat((grey.clip(0, 1) * 150).round()[None], 3, axis=0)
    for role, where in _errors(predicted, wanted, known).items():
        picture[:, where] = np.array(_rgb(COLOURS[role]))[:, None]
    return torch.from_numpy(picture.astype(np.uint8))  # (3, H, W)


def show_errors(
    image: Picture,
    prediction: Picture,
    label: Picture,
    title: str | None = None,
    ignore: int = IGNORE,
    credit: str = "",
) -> Figure:
    """`overlay` with a legend that counts the pixels of each colour, and below it whose the picture is.

    Raises what `overlay` raises.
    """
    from matplotlib.patches import Patch

    picture = overlay(image, prediction, label, ignore)
    h, w = picture.shape[1:]
    width = min(WIDTH, 5.2 * max(1.0, w / h))
    figure, axes = figure_of(width, width * h / w + 0.6)
    panel(axes[0, 0], picture, "gray", None, "image")
    axes[0, 0].set_title(title or "")
    counts = {role: int(where.sum()) for role, where in _errors(*_masks(prediction, label, ignore)).items()}
    names = {"hit": "hit", "miss": "missed", "false_alarm": "false alarm"}
    entries = [
        Patch(fc=COLOURS[role], ec="#444444", lw=0.5, label=f"{names[role]} {counts[role]:,}")
        for role in names
    ]
    if credit:
        lines = _credit_lines(credit, figure)
        figure.set_figheight(figure.get_figheight() + 0.2 * (lines.count("\n") + 1))
        place: dict[str, Any] = {"xytext": (0, -4), "textcoords": "offset points", "va": "top"}
        axes[0, 0].annotate(lines, (0, 0), xycoords="axes fraction", **CREDIT, **place)
    figure.legend(handles=entries, loc="outside lower center", ncols=3, handlelength=1, columnspacing=1.2)
    return figure


def _masks(prediction: Picture, label: Picture, ignore: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted, wanted = pixels_of(prediction, "prediction"), pixels_of(label, "label")
    if predicted.shape != wanted.shape:
        raise ValueError(
            f"the prediction is {_by(predicted)} pixels and the label {_by(wanted)}; they must agree."
        )
    known = wanted != ignore if wanted.dtype != bool else np.ones_like(wanted)
    for name, mask in (("prediction", predicted), ("label", np.where(known, wanted, 0))):
        odd = mask[~np.isin(mask, (0, 1))]
        if odd.size:
            raise ValueError(
                f"the {name} must be a mask of 0 and 1 and holds {odd[0]:.3g}; threshold it first (> 0.5)."
            )
    return predicted.astype(bool), wanted.astype(bool), known


def _errors(predicted: np.ndarray, wanted: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "hit": predicted & wanted & known,
        "miss": ~predicted & wanted & known,
        "false_alarm": predicted & ~wanted & known,
    }


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _by(array: np.ndarray) -> str:
    return " x ".join(str(side) for side in array.shape)
