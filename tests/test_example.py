"""One image with its labels: what `Example` refuses, and what the readers cope with."""

import gzip
import re
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from u2learn.data.base import ExampleSet
from u2learn.data.example import Example, read_image, read_label, read_mask

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 9, 3), np.uint8)  # (H, W, 3)
MASK = (RNG.random((12, 9)) < 0.3).astype(np.uint8)  # (H, W)


def example(**changes):
    arrays = {"image": PHOTO.transpose(2, 0, 1), "label": MASK, "field": MASK > 0, "second": MASK}
    return Example("eye7", **(arrays | changes))


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


# Example


def test_a_good_example_is_accepted_and_frozen():
    good = example(label=np.where(MASK, MASK, 255).astype(np.uint8))
    with pytest.raises(AttributeError):
        good.name = "other"
    assert example(field=None, second=None).second is None


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"image": PHOTO}, r"eye7: image has the shape \(12, 9, 3\).*transpose\(2, 0, 1\)"),
        ({"image": PHOTO[..., 0]}, "eye7: image must be a NumPy array of uint8 with 3 axes"),
        ({"image": PHOTO.transpose(2, 0, 1) / 255}, r"NumPy array of uint8 .* not float64 \(3, 12, 9\)"),
        ({"image": None}, "image must be a NumPy array .* not NoneType"),
        ({"label": MASK[:, :-1]}, "eye7: the label is 12 x 8, the image 12 x 9"),
        (
            {"label": MASK * 255},
            "eye7: the label has values 0, 255: this looks like a 0/255 mask; read it with",
        ),
        ({"label": MASK + np.uint8(1)}, "the label has values 1, 2: with 2 classes the ids are 0 to 1"),
        ({"label": MASK.astype(np.int64)}, "label must be a NumPy array of uint8"),
        ({"label": MASK[None]}, "label must be a NumPy array of uint8 with 2 axes"),
        ({"second": MASK[:-1]}, "the second is 11 x 9"),
        ({"second": MASK * 255}, "the second has values 0, 255"),
        ({"field": MASK}, "field must be a NumPy array of bool"),
        ({"field": MASK[1:] > 0}, "the field is 11 x 9"),
        ({"field": MASK > 9}, "eye7: the field of view is empty"),
    ],
)
def test_an_example_refuses_what_does_not_fit_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        example(**changes)
    assert "\n" not in str(error.value) and str(error.value).startswith("eye7: ")


def test_more_classes_allow_more_ids_and_a_map_of_background_and_ignore():
    assert example(label=MASK * 3, num_classes=4).num_classes == 4
    example(label=MASK * 255, num_classes=4)
    with pytest.raises(ValueError, match="has values 0, 4: with 4 classes"):
        example(label=MASK * 4, num_classes=4)


# Images


def test_an_rgb_image_comes_as_it_is(tmp_path):
    image = read_image(save(tmp_path / "a.png", PHOTO))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, PHOTO.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_images_get_three_equal_channels(tmp_path, mode):
    grey = MASK * 255
    picture = Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3))


def test_a_palette_gives_its_colours_not_its_indices(tmp_path):
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.gif")
    expected = np.where(MASK, np.reshape([200, 100, 50], (3, 1, 1)), np.reshape([10, 20, 30], (3, 1, 1)))
    assert np.array_equal(read_image(tmp_path / "a.gif"), expected)


def test_what_is_transparent_is_black(tmp_path):
    rgba = np.concatenate([PHOTO, 255 * MASK[..., None]], -1)
    expected = (PHOTO * MASK[..., None]).transpose(2, 0, 1)
    assert np.array_equal(read_image(save(tmp_path / "a.png", rgba)), expected)


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 12 * 9).reshape(12, 9).astype(np.uint16)
    image = read_image(save(tmp_path / "a.png", deep), levels=(0, 65535))
    assert np.abs(image[0] - deep / 257.0).max() <= 0.5 and np.array_equal(image[0], image[2])


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_what_has_more_than_8_bits_is_stretched_by_its_levels_or_by_percentiles(tmp_path, kind):
    deep = RNG.integers(448, 5066, (60, 50)).astype(kind)  # 12 bits in a larger container
    deep[0, 0], deep[0, 1] = 60_000, 0  # a hot pixel and a dead one
    path = save(tmp_path / "a.tif", deep)
    image = read_image(path, levels=(1000, 4000))
    assert np.array_equal(image[0], np.rint((deep.astype(float) - 1000).clip(0, 3000) * 255 / 3000))
    low, high = np.percentile(deep, (0.1, 99.9))
    expected = (deep - low) / (high - low) * 255
    assert np.abs(read_image(path)[2] - expected.clip(0, 255)).max() <= 0.5
    assert len(np.unique(read_image(path))) > 200


@pytest.mark.parametrize(
    "pixels, expected",
    [
        ([0, 0, 0], [0, 0, 0]),
        ([7, 7, 7], [0, 0, 0]),
        ([300, 600, 900], [0, 128, 255]),
        ([1, np.nan, 3], [0, 0, 255]),
    ],
)
def test_images_without_a_range_are_black_and_single_dots_are_seen(tmp_path, pixels, expected):
    deep = np.full((100, 30), pixels[0], np.float32)
    deep[0, :3] = pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(save(tmp_path / "a.tif", deep))[1, 0, :3].tolist() == expected


def test_levels_must_rise_and_leave_images_of_8_bits_alone(tmp_path):
    deep = save(tmp_path / "a.tif", np.arange(6, dtype=np.uint16).reshape(2, 3))
    with pytest.raises(ValueError, match="two rising numbers, black and white, not 5 and 5"):
        read_image(deep, levels=(5, 5))
    path = save(tmp_path / "b.png", PHOTO)
    assert np.array_equal(read_image(path, levels=(448, 5065)), read_image(path))


def tiff_of_16_bits(path, deep, order="<", planar=1):
    """RGB of 16 bits as the TIFF standard has it, uncompressed: (H, W, 3)."""
    height, width, _ = deep.shape
    data = (deep if planar == 1 else deep.transpose(2, 0, 1)).astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 284: planar}
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    strips = 1 if planar == 1 else 3
    offsets = [start + 6 + 8 * strips + k * len(data) // strips for k in range(strips)]
    entries = {tag: (3, 1, value) for tag, value in tags.items()} | {258: (3, 3, start)}
    entries[273] = (4, strips, start + 6 if strips > 1 else offsets[0])
    entries[279] = (4, strips, start + 6 + 4 * strips if strips > 1 else len(data))
    pack = lambda form, *values: struct.pack(order + form, *values)  # noqa: E731
    body = (b"II" if order == "<" else b"MM") + pack("HI", 42, 8) + pack("H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        short = kind == 3 and count == 1
        body += pack("HHI", tag, kind, count) + (pack("HH", value, 0) if short else pack("I", value))
    body += pack("I", 0) + pack("HHH", 16, 16, 16) + pack(f"{strips}I", *offsets)
    path.write_bytes(body + pack(f"{strips}I", *[len(data) // strips] * strips) + data)
    return path


def png_of_16_bits(path, deep):
    """RGB, RGBA or grey with opacity of 16 bits as the PNG standard has it: (H, W, C)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {2: 4, 3: 2, 4: 6}[deep.shape[2]]
    head = struct.pack(">IIBBBBB", deep.shape[1], deep.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


@pytest.mark.parametrize("how", ["png", "little", "big"])
def test_colours_of_16_bits_are_read_whole(tmp_path, how):
    deep = RNG.integers(0, 4096, (12, 9, 3)).astype(np.uint16)  # 12 bits: the upper bytes hold 16 levels
    path = {
        "png": lambda: png_of_16_bits(tmp_path / "a.png", deep),
        "little": lambda: tiff_of_16_bits(tmp_path / "a.tif", deep),
        "big": lambda: tiff_of_16_bits(tmp_path / "b.tif", deep, ">"),
    }[how]()
    expected = np.rint(deep.transpose(2, 0, 1) * (255 / 4095))
    assert np.array_equal(read_image(path, levels=(0, 4095)), expected)


def test_opacity_of_16_bits_makes_black_and_what_pillow_cannot_read_is_said(tmp_path):
    deep = RNG.integers(0, 65536, (5, 4, 4)).astype(np.uint16)
    deep[..., 3] = np.where(np.eye(5, 4), 65535, 0)
    image = read_image(png_of_16_bits(tmp_path / "a.png", deep), levels=(0, 65535))
    assert np.array_equal(image, np.rint(deep[..., :3] / 257).transpose(2, 0, 1) * (deep[..., 3] > 0))
    with pytest.raises(ValueError, match=r"grey\.png has 16 bits with transparency: save it as plain"):
        read_image(png_of_16_bits(tmp_path / "grey.png", deep[..., :2]))
    with pytest.raises(ValueError, match=r"planes\.tif has 16 bits in separate planes: save it as plain"):
        read_image(tiff_of_16_bits(tmp_path / "planes.tif", deep[..., :3], planar=2))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_grey_rgb_or_the_bands_of_the_file(tmp_path, channels):
    rgba = np.concatenate([PHOTO, 255 * MASK[..., None]], -1)
    image = read_image(save(tmp_path / "a.png", rgba), channels=channels)
    seen = Image.fromarray(PHOTO * MASK[..., None])
    expected = {1: np.asarray(seen.convert("L"))[None], 3: np.moveaxis(np.asarray(seen), 2, 0)}
    assert np.array_equal(image, expected.get(channels, rgba.transpose(2, 0, 1)))
    assert image.shape == (channels, 12, 9) and image.flags.c_contiguous


def test_deep_grey_as_one_channel_and_deep_colours_as_grey(tmp_path):
    deep = RNG.integers(0, 65536, (12, 9, 3)).astype(np.uint16)
    grey = read_image(save(tmp_path / "a.png", deep[..., 0]), levels=(0, 65535), channels=1)
    assert np.array_equal(grey, np.rint(deep[None, ..., 0] / 257))
    rgb = Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    mixed = read_image(png_of_16_bits(tmp_path / "b.png", deep), levels=(0, 65535), channels=1)
    assert np.array_equal(mixed[0], np.asarray(rgb.convert("L")))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("first", [True, False])
def test_a_tiff_of_many_bands_is_read_as_it_is(tmp_path, kind, first):
    tifffile = pytest.importorskip("tifffile")
    bands = RNG.integers(0, np.iinfo(kind).max, (5, 12, 9)).astype(kind)
    stored = bands if first else np.ascontiguousarray(bands.transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    image = read_image(tmp_path / "a.tif", levels=(0, np.iinfo(kind).max), channels=5)
    assert np.array_equal(image, np.rint(bands * (255 / np.iinfo(kind).max)))
    with pytest.raises(ValueError, match=r"a\.tif has 5 channels, and 6 are asked for"):
        read_image(tmp_path / "a.tif", channels=6)


def test_without_tifffile_its_bands_are_asked_for_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r"a\.tif: the bands of a TIFF are read by tifffile; pip install"):
        read_image(save(tmp_path / "a.tif", PHOTO), channels=4)


def test_other_numbers_of_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png has 3 channels, and 4 are asked for"):
        read_image(save(tmp_path / "a.png", PHOTO), channels=4)


def test_stacks_are_refused(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(PHOTO)] * 2)
    with pytest.raises(ValueError, match=r"b\.tif holds 3 images"):
        read_image(tmp_path / "b.tif")


def test_the_camera_s_rotation_is_carried_out(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    save(tmp_path / "a.png", PHOTO, exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(PHOTO, -1).transpose(2, 0, 1))


def test_gzip_is_unpacked_on_the_fly(tmp_path):
    save(tmp_path / "a.ppm", PHOTO)
    (tmp_path / "b.ppm.gz").write_bytes(gzip.compress((tmp_path / "a.ppm").read_bytes()))
    assert np.array_equal(read_image(tmp_path / "b.ppm.gz"), read_image(tmp_path / "a.ppm"))


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_is_turned_once(tmp_path, deep):
    pixels = RNG.integers(0, 256, (12, 9), np.uint8)
    save(tmp_path / "a.tif", pixels.astype(np.uint16) if deep else pixels, tiffinfo={0x0112: 6})
    image = read_image(tmp_path / "a.tif", levels=(0, 255), channels=1)
    assert np.array_equal(image[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "ppm", "ppm.gz", "gif"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused_in_one_sentence(tmp_path, ending, share):
    save(tmp_path / f"whole.{ending.removesuffix('.gz')}", RNG.integers(0, 256, (64, 64, 3), np.uint8))
    data = (tmp_path / f"whole.{ending.removesuffix('.gz')}").read_bytes()
    data = gzip.compress(data) if ending.endswith("gz") else data
    (tmp_path / f"cut.{ending}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ValueError, match=rf"cut\.{re.escape(ending)} cannot be read as an image; it is damaged"
    ):
        read_image(tmp_path / f"cut.{ending}")


def test_no_image_and_no_file(tmp_path):
    (tmp_path / "page.png").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("page.png", "empty.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize(
    "name, start, kind",
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("renamed.jpg", b"\0\0\0\x18ftypmif1", "HEIC"),
        ("a.dcm", b"\0" * 128 + b"DICM", "DICOM"),
        ("a.nii.gz", gzip.compress(b"\0" * 344 + b"n+1\0", mtime=0), "NIfTI"),
        ("a.jxl", b"\xff\x0a", "JPEG XL"),
        ("a.npy", b"\x93NUMPY", "NumPy's format"),
        ("a.nd2", b"whatever it is", "a microscope's own format"),
        ("a.pdf", b"%PDF-1.7", "PDF"),
        ("a.svg", b"<?xml version='1.0'?>", "SVG"),
    ],
)
def test_other_formats_are_named_and_not_called_damaged(tmp_path, name, start, kind):
    (tmp_path / name).write_bytes(start + bytes(600))
    with pytest.raises(ValueError, match=f"{re.escape(name)}: {kind} is not read; convert it") as error:
        read_image(tmp_path / name)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    "content, reason",
    [(b"<!DOCTYPE html><html>", "a web page"), (b"version https://git-lfs.x", "Git LFS"), (b"", "empty")],
)
def test_what_failed_downloads_leave_is_named(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.jpg cannot be read as an image: it is .*{reason}"):
        read_image(tmp_path / "a.jpg")


def test_a_large_image_is_called_large(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", PHOTO)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(
        ValueError, match=r"large, not damaged: .*\(108 pixels\).* 100 .*tiles.*MAX_IMAGE"
    ) as error:
        read_image(path)
    assert "attack" not in str(error.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(FileNotFoundError, match="this is a folder"):
        read_image(tmp_path)


# Masks


def black_on_nothing():
    """An object that only its opacity shows."""
    return Image.fromarray(np.stack([MASK * 0] * 3 + [MASK * 255], -1))


def drive_palette():
    """As DRIVE stores its second observer: indices 0 and 1 that look like 4 and 252."""
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([4, 2, 4, 252, 254, 252])
    return picture


def voc_palette():
    """As PASCAL VOC stores classes: index 1 is a dark red."""
    picture = Image.fromarray(MASK).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


STORED = {
    "0/1": lambda: Image.fromarray(MASK),
    "0/255": lambda: Image.fromarray(MASK * 255),
    "one bit": lambda: Image.fromarray(MASK * 255).convert("1"),
    "rgb": lambda: Image.fromarray(np.stack([MASK * 255] * 3, -1)),
    "rgba": lambda: Image.fromarray(np.stack([MASK * 255] * 3 + [np.full_like(MASK, 255)], -1)),
    "white on transparent": lambda: Image.fromarray(np.stack([MASK * 0 + 255] * 3 + [MASK * 255], -1)),
    "black on transparent": black_on_nothing,
    "red on transparent": lambda: Image.fromarray(
        np.stack([MASK * 0 + 255, MASK * 0, MASK * 0, MASK * 255], -1)
    ),
    "0/2": lambda: Image.fromarray(MASK * 2),
    "0/128": lambda: Image.fromarray(MASK * 128),
    "red": lambda: Image.fromarray(np.stack([MASK * 255, MASK * 0, MASK * 0], -1)),
    "drive": drive_palette,
    "voc": voc_palette,
    "16 bits": lambda: Image.fromarray(MASK.astype(np.uint16) * 65535),
    "16 bits 0/1": lambda: Image.fromarray(MASK.astype(np.uint16)),
}


@pytest.mark.parametrize("how", STORED)
def test_a_mask_is_0_and_1_however_it_is_stored(tmp_path, how):
    STORED[how]().save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8 and np.array_equal(mask, MASK)


def test_more_than_two_values_are_cut_at_128_as_openmmlab_does(tmp_path):
    soft = np.where(MASK, RNG.integers(224, 256, MASK.shape), RNG.integers(0, 32, MASK.shape)).astype(
        np.uint8
    )
    soft[0, :4] = [127, 128, 127, 128]
    assert np.array_equal(read_mask(save(tmp_path / "m.png", soft)), soft // 128)


def test_a_jpeg_mask_comes_back(tmp_path):
    big = np.zeros((64, 64), np.uint8)
    big[10:40, 20:50] = 255
    mask = read_mask(save(tmp_path / "m.jpg", big, quality=70))
    assert (mask != big // 255).mean() < 0.01


@pytest.mark.parametrize("value, expected", [(0, 0), (1, 1), (255, 1), (252, 1)])
def test_a_mask_of_one_value_is_empty_or_full(tmp_path, value, expected):
    mask = read_mask(save(tmp_path / "m.png", np.full((5, 4), value, np.uint8)))
    assert (mask == expected).all()


@pytest.mark.parametrize(
    "array, sentence",
    [
        (PHOTO, "neither dark nor bright"),
        (np.array([[0, 1, 2]], np.uint8), r"grey values 0, 1, 2\. .*use read_label"),
        (np.array([[200, 255]], np.uint8), "grey values 200, 255"),
        (np.array([[1, 2]], np.uint8), "grey values 1, 2"),
        (np.array([[254, 255]], np.uint8), "grey values 254, 255"),
        (np.array([[2, 2]], np.uint8), r"grey values 2\."),
        (np.array([[3, 3]], np.uint8), r"grey values 3\."),
        (np.array([[0, 1, 255]], np.uint8), "grey values 0, 1, 255"),
        (np.array([[0, 1, 2, 255]], np.uint8), "grey values 0, 1, 2, 255"),
        (np.array([[0, 1, 65535]], np.uint16), "grey values 0, 1, 65535"),
        (
            np.array([[0, 300]], np.uint16).repeat(9, 0) + np.arange(9, dtype=np.uint16)[:, None],
            "instance ids",
        ),
        (np.where(MASK[..., None], [255, 0, 0], [255, 255, 255]).astype(np.uint8), "grey values 76, 255"),
        (np.array([[[0, 0, 0], [255, 0, 0], [0, 130, 0]]], np.uint8), "grey values 0, 76"),  # both are 76
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, sentence):
    with pytest.raises(ValueError, match=r"m\.png is no binary mask: .*" + sentence):
        read_mask(save(tmp_path / "m.png", array))


def test_label_maps_keep_their_ids(tmp_path):
    ids = RNG.integers(0, 5, (7, 6)).astype(np.uint8)
    ids[0, 0] = 255
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    palette.save(tmp_path / "p.png")
    files = [
        save(tmp_path / "l.png", ids),
        save(tmp_path / "rgb.png", np.stack([ids] * 3, -1)),
        tmp_path / "p.png",
    ]
    for path in files:
        assert np.array_equal(read_label(path, 5), ids), path
    with pytest.raises(
        ValueError, match=r"l\.png has values 0, 1, 2, 3, 4, 255: with 4 classes the ids are 0 to 3"
    ):
        read_label(tmp_path / "l.png", 4)
    with pytest.raises(ValueError, match="is in colour"):
        read_label(save(tmp_path / "c.png", PHOTO), 5)
    assert np.array_equal(read_label(save(tmp_path / "m.png", MASK * 255)), MASK)


def squares(side, numbers, kind=np.uint8):
    """Objects of side x side pixels with a number each, a gap between them."""
    ids = np.zeros((200, 200), np.int64)
    for i, number in enumerate(numbers):
        y, x = i // 20 * 10, i % 20 * 10
        ids[y : y + side, x : x + side] = number
    return ids.astype(kind)


def disc(radius, size=120):
    y, x = np.mgrid[:size, :size] - size // 2
    return np.hypot(x, y) < radius


@pytest.mark.parametrize(
    "stored",
    [
        squares(7, range(1, 251)),
        squares(2, range(1, 251)),
        squares(7, range(1, 301), np.uint16),
        np.where(disc(20), 255, np.where(disc(40), 128, 0)).astype(np.uint8),
        np.where(disc(40), 255, np.where(disc(42), 128, 0)).astype(np.uint8),  # a border class of 2 pixels
        squares(7, [85, 170, 255] * 80),
    ],
    ids=["ids", "small ids", "ids of 16 bits", "three classes", "border", "four classes"],
)
def test_flat_areas_of_other_grey_levels_are_no_soft_edges(tmp_path, stored):
    with pytest.raises(ValueError, match=r"is no binary mask: .*read_label.*instance ids"):
        read_mask(save(tmp_path / "m.png", stored))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "soften",
    [
        lambda big: big.filter(ImageFilter.GaussianBlur(3)),
        lambda big: big.resize((77, 77), Image.Resampling.BILINEAR),
        lambda big: big.resize((60, 60), Image.Resampling.BILINEAR).resize(
            (120, 120), Image.Resampling.NEAREST
        ),
        lambda big: big.resize((150, 150), Image.Resampling.LANCZOS),
    ],
    ids=["blurred", "reduced", "pixels doubled", "enlarged"],
)
def test_soft_edges_are_cut_at_half(tmp_path, soften, kind):
    soft = np.asarray(soften(Image.fromarray(disc(33).astype(np.uint8) * 255)))
    mask = read_mask(save(tmp_path / "m.png", soft.astype(kind) * (1 if kind == np.uint8 else 257)))
    assert np.array_equal(mask, soft >= 128)


@pytest.mark.parametrize("quality", [30, 50, 70, 85, 95])
def test_an_empty_and_a_full_mask_survive_as_jpeg(tmp_path, quality):
    for value in (0, 255):
        path = save(tmp_path / f"{value}.jpg", np.full((40, 40), value, np.uint8), quality=quality)
        assert (read_mask(path) == value // 255).all()


def test_a_tile_of_a_palette_is_empty_or_full_by_its_index(tmp_path):
    for index in (0, 1):
        picture = Image.fromarray(MASK * 0 + np.uint8(index)).convert("P")
        picture.putpalette([4, 2, 4, 128, 0, 0])
        picture.save(tmp_path / "m.png")
        assert (read_mask(tmp_path / "m.png") == index).all()


def test_numbers_of_32_bits_may_be_a_mask_but_no_fractions(tmp_path):
    for kind in (np.int32, np.float32):
        assert np.array_equal(read_mask(save(tmp_path / "m.tif", MASK.astype(kind))), MASK)
    with pytest.raises(ValueError, match=r"m\.tif holds 0\.0 to 0\.5; a mask holds whole numbers"):
        read_mask(save(tmp_path / "m.tif", MASK * np.float32(0.5)))


def test_what_is_transparent_or_one_bit_does_not_change_class_ids(tmp_path):
    Image.fromarray(MASK > 0).save(tmp_path / "bit.png")
    assert np.array_equal(read_label(tmp_path / "bit.png", 3), MASK)
    for colours in ([0, 0, 0, 0, 0, 0], [255, 255, 255, 255, 0, 0]):
        picture = Image.fromarray(MASK).convert("P")
        picture.putpalette(colours)
        picture.save(tmp_path / "m.png", transparency=0)
        assert np.array_equal(read_label(tmp_path / "m.png", 3), MASK)
        assert np.array_equal(read_mask(tmp_path / "m.png"), MASK)
    black_on_nothing().save(tmp_path / "alpha.png")
    with pytest.raises(
        ValueError, match="shows one object by its opacity, no classes: read it with read_mask"
    ):
        read_label(tmp_path / "alpha.png", 3)


def test_class_ids_of_two_classes_keep_their_255(tmp_path):
    ids = MASK.copy()
    ids[0, :4] = 255
    ids[1, 0] = 1
    assert np.array_equal(read_label(save(tmp_path / "m.png", ids)), ids)


# Examples again, and sets of them


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_an_image_may_have_any_number_of_channels(channels):
    image = RNG.integers(0, 256, (channels, 12, 9), np.uint8)
    assert example(image=image).image is image
    with pytest.raises(ValueError, match=r"expected \(channels, H, W\).*transpose\(2, 0, 1\)"):
        example(image=np.ascontiguousarray(image.transpose(1, 2, 0)))


def test_an_image_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"the shape \(0, 12, 9\), expected \(channels"):
        example(image=np.zeros((0, 12, 9), np.uint8))


def test_who_knows_that_255_means_ignore_may_say_so():
    assert example(label=MASK * 255, second=None, ignores=True).ignores
    with pytest.raises(ValueError, match="has values 0, 255: this looks like"):
        example(label=MASK * 255, second=None)
    with pytest.raises(ValueError, match="has values 0, 2: with 2 classes"):
        example(label=MASK * 2, second=None, ignores=True)


class Three(ExampleSet):
    def __len__(self):
        return 3

    def example(self, i):
        return Example(str(i), PHOTO.transpose(2, 0, 1), MASK)


def test_a_set_is_a_sequence():
    three = Three()
    assert [each.name for each in three] == ["0", "1", "2"] == [each.name for each in three[:]]
    assert three[-1].name == "2" and [each.name for each in three[::-2]] == ["2", "0"]
    assert three[np.int64(1)].name == "1" and next(reversed(three)).name == "2"
    for outside in (3, -4):
        with pytest.raises(IndexError):
            three[outside]
