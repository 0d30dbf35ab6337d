"""Arrays and pictures as users have them: flipped, read-only, turned, of other libraries and byte orders."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from u2learn import predict, saliency, segment, u2net_small
from u2learn.arrays import tensor_of
from u2learn.data.example import Example, read_image
from u2learn.metrics.overlap import ClassScores, OverlapScores, confusion
from u2learn.metrics.saliency import SaliencyScores
from u2learn.models.unet import unet_small
from u2learn.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # torch warns of arrays that are read-only
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (3, 20, 28), np.uint8)
MASK = RNG.random((20, 28)) < 0.4
MAP = RNG.random((20, 28))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


ODD = {
    "negative strides": lambda a: a[..., ::-1].copy()[..., ::-1],
    "two flips": lambda a: a[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "channels stored last": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "tensor": lambda a: torch.from_numpy(a.copy()),
    "tensor that is a view": lambda a: torch.from_numpy(np.repeat(a, 2, -1))[..., ::2],
}


@pytest.fixture(scope="module")
def net():
    recipe = Recipe("tiny", "synthetic", "unet_small", model_options={"width": 4, "depth": 3})
    torch.manual_seed(0)
    return unet_small(width=4, depth=3).eval(), recipe


@pytest.fixture(scope="module")
def u2():
    torch.manual_seed(0)
    return u2net_small().eval()


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("dtype", [bool, "u1", "i2", "u2", "i4", "i8", "f2", "f4", "f8"])
def test_an_array_is_a_tensor_of_the_same_numbers(kind, dtype):
    array = (200 * RNG.random((3, 4, 5))).astype(dtype)
    got = tensor_of(ODD[kind](array))
    assert got.shape == array.shape and got.numpy().dtype == array.dtype
    assert np.array_equal(got.numpy(), array)


def test_what_can_be_shared_is_not_copied():
    assert tensor_of(PHOTO).data_ptr() == PHOTO.ctypes.data
    tensor = torch.zeros(2)
    assert tensor_of(tensor) is tensor


@pytest.mark.parametrize("what", [None, "photo.png", {"a": 1}, np.array(["a"])])
def test_what_holds_no_numbers_is_refused(net, what):
    for take in (tensor_of, lambda x: segment(*net[:1], x, net[1]), lambda x: predict(net[0], x)):
        with pytest.raises(ValueError, match=f"array of numbers.*{type(what).__name__}"):
            take(what)


@pytest.mark.parametrize("kind", ODD)
def test_every_kind_of_array_is_predicted(net, u2, kind):
    model, recipe = net
    assert torch.equal(segment(model, ODD[kind](PHOTO), recipe), segment(model, PHOTO, recipe))
    assert torch.equal(saliency(u2, ODD[kind](PHOTO), side=32), saliency(u2, PHOTO, side=32))
    for dtype in (np.float32, np.float64):
        image = (PHOTO / 255).astype(dtype)
        due = predict(model, torch.from_numpy(PHOTO / 255).float())
        torch.testing.assert_close(predict(model, ODD[kind](image)), due)


@pytest.mark.parametrize("kind", ODD)
def test_every_kind_of_array_is_scored(kind):
    odd = ODD[kind]
    two = np.stack([1 - MAP, MAP])
    got, due = OverlapScores(), OverlapScores()
    due.add(torch.from_numpy(two), torch.from_numpy(MASK).long(), torch.from_numpy(MAP > 0.2))
    for label in (MASK, MASK.astype(np.uint8), MASK.astype(np.uint16), MASK.astype(np.int32)):
        got.add(odd(two), odd(label), odd(MAP > 0.2))
    assert all(torch.equal(histogram, due.histograms[0]) for histogram in got.histograms)
    ids = (MAP * 4).astype(np.uint16)
    truth = np.where(MASK, ids, 255)
    many = ClassScores(4)
    many.add(odd(ids), odd(truth))
    assert torch.equal(
        many.counts, confusion(torch.from_numpy(ids.astype(int)), torch.from_numpy(truth.astype(int)), 4)
    )
    some, plain = (
        SaliencyScores(also=("weighted_f", "relaxed_f", "hce")),
        SaliencyScores(also=("weighted_f", "relaxed_f", "hce")),
    )
    some.add(odd(MAP), odd(MASK))
    plain.add(MAP, MASK)
    assert some.result() == plain.result()


@pytest.mark.parametrize("kind", [kind for kind in ODD if "tensor" not in kind])
def test_an_example_holds_arrays_that_torch_takes(kind):
    odd = ODD[kind]
    label = MASK.astype(np.uint8)
    example = Example("odd", odd(PHOTO), odd(label), odd(MASK), odd(label))
    for got, due in (
        (example.image, PHOTO),
        (example.label, label),
        (example.field, MASK),
        (example.second, label),
    ):
        assert torch.equal(torch.as_tensor(got), torch.from_numpy(due))
    plain = Example("plain", PHOTO, label)
    assert plain.image is PHOTO and plain.label is label  # nothing is copied that need not be


# --- PIL images ---------------------------------------------------------------------------------------------


def pictures():
    """One PIL image of each mode, and the format of a file that keeps it."""
    rgb = Image.fromarray(PHOTO.transpose(1, 2, 0))
    grey = Image.fromarray(PHOTO[0])
    deep = Image.fromarray(PHOTO[0].astype(np.uint16) * 257)
    modes = {mode: ("png", rgb.convert(mode)) for mode in ("1", "L", "P", "RGB", "RGBA")}
    modes |= {mode: ("tif", rgb.convert(mode)) for mode in ("CMYK", "YCbCr", "LAB")}
    rgba, la = rgb.convert("RGBA"), grey.convert("LA")
    for picture in (rgba, la):
        picture.putalpha(Image.fromarray(MASK.astype(np.uint8) * 200))
    return modes | {"see-through": ("png", rgba), "LA": ("png", la), "I;16": ("png", deep)}


@pytest.mark.parametrize("mode", pictures())
def test_a_pil_image_is_predicted_as_its_file(net, u2, tmp_path, mode):
    (model, recipe), (ending, picture) = net, pictures()[mode]
    picture.save(path := tmp_path / f"picture.{ending}")
    image = read_image(path)
    for given in (picture, Image.open(path)):
        assert torch.equal(segment(model, given, recipe), segment(model, image, recipe))
        assert torch.equal(saliency(u2, given, side=32), saliency(u2, image, side=32))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_as_its_camera_says(net, tmp_path, orientation):
    model, recipe = net
    upright = Image.fromarray(PHOTO.transpose(1, 2, 0))
    exif = upright.getexif()
    exif[0x0112] = orientation
    upright.save(path := tmp_path / "turned.png", exif=exif)
    got = segment(model, Image.open(path), recipe)
    assert torch.equal(got, segment(model, read_image(path), recipe))
    assert got.shape[1:] == ((20, 28) if orientation < 5 else (28, 20))
    assert torch.equal(got, segment(model, ImageOps.exif_transpose(Image.open(path)), recipe))  # not twice


def test_a_pil_image_of_floats_is_read_in_the_recipe_s_range(net):
    model, recipe = net
    floats = Image.fromarray((PHOTO[0] / 10).astype(np.float32))
    ranged = dataclasses.replace(recipe, levels=(0.0, 25.5))
    torch.testing.assert_close(segment(model, floats, ranged), segment(model, PHOTO[:1], recipe))


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (PHOTO.transpose(1, 2, 0), r"channels come first here: use image\.transpose\(2, 0, 1\)"),
        ((PHOTO / 255).astype(np.float32), r"floats in \[0, 1\] become that by \(255 \* image\)"),
        (PHOTO[0], r"np\.stack\(\[image\] \* 3\)"),
        (PHOTO[None], "one by one"),
        (PHOTO.astype(np.int64), r"got torch\.int64 \(3, 20, 28\)\.$"),
        (PHOTO > 9, r"got torch\.bool \(3, 20, 28\)\.$"),
        (PHOTO[:, :0], r"\(3, 0, 28\)\.$"),
    ],
)
def test_what_is_no_photograph_is_refused_in_one_sentence(net, u2, image, hint):
    for name, take in (
        ("segment", lambda: segment(*net[:1], image, net[1])),
        ("saliency", lambda: saliency(u2, image)),
    ):
        with pytest.raises(ValueError, match=hint) as error:
            take()
        message = str(error.value)
        assert message.startswith(f"{name} takes a uint8 image (3, H, W)") and "\n" not in message


def test_a_grey_photograph_has_one_channel_or_three_alike(net, u2):
    model, recipe = net
    assert saliency(u2, PHOTO[:1, ::-1], side=32).shape == (20, 28)
    due = segment(model, np.repeat(PHOTO[:1], 3, axis=0), recipe)
    assert torch.equal(segment(model, PHOTO[:1], recipe), due)
    with pytest.raises(ValueError, match=r"segment takes .* got torch\.uint8 \(2, 20, 28\)"):
        segment(model, PHOTO[:2], recipe)


def test_a_pil_image_has_the_channels_of_the_recipe():
    recipe = Recipe("tiny", "synthetic", "unet_small", channels=1, normalisation="image")
    model = recipe.build_model().eval()
    colours = Image.fromarray(PHOTO.transpose(1, 2, 0))
    due = segment(model, np.asarray(colours.convert("L"))[None], recipe)
    assert torch.equal(segment(model, colours, recipe), due)
    with pytest.raises(ValueError, match=r"takes a uint8 image \(1, H, W\) or a PIL image, got"):
        segment(model, PHOTO, recipe)


@pytest.mark.parametrize("normalisation", ["imagenet", "half", "image", "maximum"])
def test_one_pixel_is_a_picture(net, normalisation):
    """Its deviation is none, of which torch warns, and what was divided by it was not a number."""
    model, _ = net
    recipe = Recipe("tiny", "synthetic", "unet_small", normalisation=normalisation)
    for image in (PHOTO[:, :1, :1], Image.fromarray(PHOTO[:, :1, :1].transpose(1, 2, 0))):
        got = segment(model, image, recipe)
        assert got.shape == (2, 1, 1) and bool(got.isfinite().all())


# --- devices ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_may_lie_on_another_device_than_the_model(net, u2):
    model, recipe = net
    there = torch.from_numpy(PHOTO).cuda()
    assert torch.equal(segment(model, there, recipe), segment(model, PHOTO, recipe))
    assert torch.equal(saliency(u2, there, side=32), saliency(u2, PHOTO, side=32))
    assert torch.equal(predict(model, there / 255), predict(model, PHOTO / np.float32(255)))
    two, label = torch.rand(2, 9, 9).softmax(0), (torch.rand(9, 9) < 0.4).byte()
    got, due = OverlapScores(), OverlapScores()
    due.add(two, label, label < 2)
    got.add(two.cuda(), label, label < 2)
    got.add(two, label.cuda(), (label < 2).cuda())
    assert all(torch.equal(histogram, due.histograms[0]) for histogram in got.histograms)
    many = ClassScores(2)
    many.add(label.cuda(), label)
    many.add(label, label.cuda())
    assert int(many.counts.trace()) == 162
    scores = SaliencyScores(also=())
    scores.add(two[1].cuda(), label.cuda())
