"""Picture files: opened upright and whole, or refused with a sentence that says what they are instead."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageOps

# Formats that are not read: the endings of their names, and how their files begin.
FOREIGN: dict[str, tuple[tuple[str, ...], bytes]] = {
    "HEIC": ((".heic", ".heif", ".hif"), rb".{4}ftyp(he|mif1|msf1)"),
    "AVIF": ((".avif",), rb".{4}ftypavi"),
    "JPEG XL": ((".jxl",), rb"\xff\x0a|.{4}JXL "),
    "DICOM": ((".dcm", ".dicom", ".ima"), rb".{128}DICM"),
    "NIfTI": ((".nii",), rb".{344}n[+i]1"),
    "NRRD": ((".nrrd", ".nhdr"), rb"NRRD"),
    "MetaImage": ((".mha", ".mhd"), rb"ObjectType"),
    "NumPy's format": ((".npy", ".npz"), rb"\x93NUMPY"),
    "HDF5": ((".h5", ".hdf5", ".ims", ".mat"), rb"\x89HDF"),
    "a microscope's own format": (
        (".czi", ".lsm", ".nd2", ".lif", ".oib", ".vsi"),
        rb"ZISRAW|\xda\xce\xbe\n",
    ),
    "a whole slide": ((".svs", ".ndpi", ".mrxs", ".scn"), rb"(?!)"),
    "a camera's raw format": ((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf"), rb".{4}ftypcrx"),
    "SVG": ((".svg",), rb"\s*<(svg|\?xml)"),
    "PDF": ((".pdf",), rb"%PDF"),
}
# What a download that failed leaves under the name of an image.
NO_IMAGE = {
    rb"\s*<(!doctype|html)": "it is a web page; download the image itself",
    rb"version https://git-lfs": "it is a pointer of Git LFS; `git lfs pull` fetches the image",
    rb"$": "it is empty",
}
ORIENTATION = 0x0112  # the EXIF tag: 1 is upright, 3 turned by 180 degrees, ...
PLANAR, BITS = 284, 258  # TIFF tags


def foreign(path: str | Path) -> str:
    """The format of a file that is not read, "HEIC" for instance, by how it begins or its ending; else ""."""
    kind = next((kind for kind, (_, start) in FOREIGN.items() if _begins(path, start)), "")
    ending = Path(str(path).lower().removesuffix(".gz")).suffix
    return kind or next((kind for kind, (endings, _) in FOREIGN.items() if ending in endings), "")


def _begins(path: str | Path, pattern: bytes) -> bool:
    with Path(path).open("rb") as file:
        start = file.read(400)
    if start.startswith(b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):  # of a damaged file
            start = zlib.decompressobj(wbits=31).decompress(start)
    return re.match(pattern, start, re.DOTALL | re.IGNORECASE) is not None


def open_picture(path: str | Path) -> Image.Image:
    """The one picture in a file, decoded and turned as its EXIF says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image that can be read: damaged, too large, several, in another format.
    """
    picture = _decoded(path)
    if picture.info["count"] > 1 and picture.format != "MPO":
        raise ValueError(f"{path} holds {picture.info['count']} images; split it into one file each.")
    return _upright(picture)


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says. Pillow turns a TIFF while it decodes it, and old versions leave the tag."""
    return picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)


def orientation(path: str | Path) -> int:
    """How a camera says that a picture is to be turned (EXIF), from 1, upright, to 8."""
    with _opened(Path(path)) as file, contextlib.suppress(Image.UnidentifiedImageError):
        return int(Image.open(file).getexif().get(ORIENTATION, 1))
    return 1  # bands that only tifffile reads


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _decoded(path: str | Path, low_bytes: bool = False) -> Image.Image:
    """The picture as it is stored. `low_bytes`: of colours of 16 bits the lower halves, see `deep_values`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}."
        )
    try:
        with _opened(path) as file:
            picture = Image.open(file)
            picture.info["count"] = getattr(picture, "n_frames", 1)
            picture.info["deep"] = _deep_colours(picture)
            picture.info["lossy"] = picture.format in ("JPEG", "MPO")
            if low_bytes:
                picture.tile = [_other_byte(tile) for tile in picture.tile]
            picture.load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} is large, not damaged: {str(error).partition(',')[0]}. Cut it into tiles; in Python, "
            "PIL.Image.MAX_IMAGE_PIXELS = None lifts the limit, which guards against files made to do harm."
        ) from error
    except (OSError, EOFError, SyntaxError, ValueError, zlib.error) as error:
        raise ValueError(_refusal(path, error)) from error
    if picture.info["deep"] not in ("", "RGB"):
        raise ValueError(f"{path} has 16 bits {picture.info['deep']}: save it as plain RGB or grey.")
    return picture


def _refusal(path: Path, error: Exception) -> str:
    if reason := next((text for start, text in NO_IMAGE.items() if _begins(path, start)), ""):
        return f"{path} cannot be read as an image: {reason}."
    if kind := foreign(path):
        return f"{path}: {kind} is not read; convert it to PNG or TIFF."
    known = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
    return f"{path} cannot be read as an image; it is damaged, cut short or none{known}."


def _deep_colours(picture: Any) -> str:
    """ "RGB" if the colours have 16 bits, of which Pillow decodes the upper 8; else "", or why it cannot."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(PLANAR) == 2 and max(tags.get(BITS, (8,))) > 8:
        return "in separate planes"
    modes = [tile[3] if isinstance(tile[3], str) else str((tile[3] or ("",))[0]) for tile in picture.tile]
    if any(mode.startswith("LA;16") for mode in modes):
        return "with transparency"
    return "RGB" if any(re.match("RGB.*;16", mode) for mode in modes) else ""


def _other_byte(tile: Any) -> Any:
    """A tile of 16-bit numbers as if they began with their other byte: then the lower half is decoded."""
    codec, box, offset, how = tile
    mode, *rest = (how,) if isinstance(how, str) else how
    mode = mode[:-1] + ("L" if mode.endswith("B") else "B")  # N is the machine's own order, L nearly always
    return getattr(tile, "_make", tuple)((codec, box, offset, (mode, *rest) if rest else mode))


# --- images -----------------------------------------------------------------------------------------------


def deep_values(picture: Image.Image, path: str | Path) -> np.ndarray | None:
    """The numbers of a picture of more than 8 bits, (C, H, W); None if it has 8."""
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)[None]
    if not picture.info["deep"]:
        return None
    low = _upright(_decoded(path, low_bytes=True))
    return (256 * np.asarray(picture, np.int64) + np.asarray(low)).transpose(2, 0, 1)


def stored_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """An image before its range is chosen: uint8 (channels, H, W), or deeper numbers of its own bands.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or has another number of bands.
        ImportError: if bands that are no colours need the library tifffile, which is not here.
    """
    if channels not in (1, 3):
        return _bands(path, channels)
    picture = open_picture(path)
    deep = deep_values(picture, path)
    if deep is not None:
        return deep if len(deep) < 4 else deep[:3] * (deep[3:] / 65535)  # transparent is black
    picture = opaque(picture).convert("RGB")
    if channels == 1:
        return np.asarray(picture.convert("L"))[None]
    return np.asarray(picture).transpose(2, 0, 1)


def _bands(path: str | Path, channels: int) -> np.ndarray:
    """Bands that are no colours, as the file has them: (channels, H, W)."""
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        stored = _tiff(path)
        if stored.ndim == 3 and len(stored) != channels:
            stored = stored.transpose(2, 0, 1)
    else:
        picture = open_picture(path)
        picture = picture.convert("RGBA") if "transparency" in picture.info else picture
        deep = deep_values(picture, path)
        stored = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1) if deep is None else deep
    if stored.ndim != 3 or len(stored) != channels:
        bands = 1 if stored.ndim < 3 else min(len(stored), stored.shape[1])
        raise ValueError(f"{path} has {bands} channels, and {channels} are asked for.")
    return stored


def _tiff(path: str | Path) -> np.ndarray:
    """A TIFF of any number of bands, of which Pillow knows four at most."""
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f"{path}: the bands of a TIFF are read by tifffile; pip install tifffile."
        ) from error
    try:
        return tifffile.imread(path)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read by tifffile: {error}.") from error


def as_image(stored: np.ndarray, levels: tuple[float, float] | None, channels: int) -> np.ndarray:
    """What `stored_image` gives as an image, uint8 (channels, H, W); see `read_image`.

    Raises:
        ValueError: if the levels do not rise.
    """
    image = stored if stored.dtype == np.uint8 else _to_8_bits(stored, levels or levels_of(stored))
    if len(image) < channels:  # deep and grey
        image = np.repeat(image, channels, axis=0)
    elif len(image) > channels:  # deep and in colour
        image = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))[None]
    return np.ascontiguousarray(image)


def _to_8_bits(values: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    low, high = levels
    if not low < high:
        raise ValueError(f"Levels are two rising numbers, black and white, not {low} and {high}.")
    grey = 255 * (np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low)
    return np.rint(grey).clip(0, 255).astype(np.uint8)


def levels_of(values: np.ndarray) -> tuple[float, float]:
    """What is black and white of stored numbers: their 0.1 and 99.9 percentiles.

    If these are equal, as in a dark image with few bright dots, the extremes; an image of one value is black.
    """
    finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    low, high = np.percentile(finite, (0.1, 99.9))
    if low == high:
        low, high = finite.min(), finite.max()
    return float(low), float(high if low < high else low + 1)


def opaque(picture: Image.Image) -> Image.Image:
    """What is transparent becomes black."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)


def turned(array: np.ndarray, how: int) -> np.ndarray:
    """An array (H, W), turned as an EXIF orientation says."""
    if how >= 5:
        array = array.T
    rows, columns = how in (3, 4, 7, 8), how in (2, 3, 6, 7)
    return array[:: -1 if rows else 1, :: -1 if columns else 1]
