"""From logits to a prediction for a whole image: sliding window, mirrored views, scales, any size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.arrays import Array, tensor_of
from u2learn.data.augment import normalisation, normalise, read_points, resize, shrunk_size
from u2learn.data.download import fetch_weights
from u2learn.data.example import image_of
from u2learn.data.published import PUBLISHED
from u2learn.devices import laid_out
from u2learn.models.fast import fast as fast
from u2learn.models.frozen import freeze_folded_norms
from u2learn.models.official import load_official, official_u2net
from u2learn.models.weights import read_weights, with_prefix, write_tensors
from u2learn.recipe import VIEWS, Recipe

Photograph = Array | Image.Image
WINDOW_BATCH = 32  # windows that go through the network together; bounds the memory, whatever the image


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows that cover `size` pixels; the last one is moved back to end at the border.

    Raises:
        ValueError: a window or stride below 1, or a stride that would leave gaps.

    Source: mmsegmentation 0.30, segmentors/encoder_decoder.py, slide_inference.
    """
    if window < 1 or not 1 <= stride <= window:
        raise ValueError(
            f"A window of {window} with a stride of {stride} leaves gaps: 1 <= stride <= window is due."
        )
    count = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride, size - window), 0) for i in range(count)]


@torch.no_grad()
def slide(model: nn.Module, image: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Logits (K, H, W) of a normalised image (3, H, W), averaged over the windows that see a pixel.

    Source: mmsegmentation 0.30, slide_inference: logits are summed and divided by the number of hits.
    """
    height, width = image.shape[1:]
    places = [
        (y, x)
        for y in window_starts(height, window[0], stride[0])
        for x in window_starts(width, window[1], stride[1])
    ]
    total, hits = image.new_zeros(0), image.new_zeros(height, width)
    for i in range(0, len(places), WINDOW_BATCH):
        batch = places[i : i + WINDOW_BATCH]
        crops = torch.stack(
            [image[:, y : y + window[0], x : x + window[1]] for y, x in batch]
        )  # (B, 3, h, w)
        logits = model(crops)[0].float()  # (B, K, h, w)
        if logits.shape[2:] != crops.shape[2:]:
            raise ValueError(
                f"The model makes maps of {tuple(logits.shape[2:])} from windows of {tuple(crops.shape[2:])} "
                "pixels; the sliding window needs one that keeps the size."
            )
        if not len(total):
            total = logits.new_zeros(logits.shape[1], height, width)
        for (y, x), one in zip(batch, logits, strict=True):
            total[:, y : y + window[0], x : x + window[1]] += one
            hits[y : y + window[0], x : x + window[1]] += 1
    return total / hits


@torch.no_grad()
def predict(
    model: nn.Module,
    image: Array,
    window: tuple[int, int] | int | None = None,
    stride: tuple[int, int] | int | None = None,
    views: str = "",
    scales: Sequence[float] = (1,),
) -> Tensor:
    """Class probabilities (K, H, W) for one image, float (3, H, W), normalised as the model expects it.

    The whole image goes through at once, or windows of `window` pixels every `stride` (default: two thirds of
    the window). views: "h" adds the left-right one, "hv" also the up-down and the turned one,
    "hvt" makes all eight ways to lay a picture. scales: factors of the image's size. Each view's logits come
    back to the native size, and the softmax of all views is averaged. The model runs in eval mode and is left
    in the mode in which it was.

    Raises:
        ValueError: not a float image (3, H, W), unknown views, or scales that are none.

    Source: mmsegmentation 0.30, segmentors/encoder_decoder.py (inference, aug_test).
    """
    image = tensor_of(image)
    if image.ndim != 3 or not image.is_floating_point():
        raise ValueError(
            f"predict takes one normalised float image (3, H, W), got {image.dtype} {tuple(image.shape)}; "
            "for a photograph as it comes from a file use segment(model, image, recipe)."
        )
    if views not in VIEWS:
        raise ValueError(f"views is one of {', '.join(map(repr, VIEWS))}, not {views!r}.")
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales are factors of the image's size above 0, at least one, not {scales}.")
    image = image.to(next(model.parameters(), image))  # to the model's device, in its precision
    native, total, count = (image.shape[1], image.shape[2]), torch.zeros((), device=image.device), 0
    with evaluating(model):
        for scale in scales:
            size = [max(1, int(side * scale + 0.5)) for side in native]
            scaled = _resize(image, size)  # (3, h, w)
            windows = _pair(window or size)
            strides = _pair(stride or [max(1, side * 2 // 3) for side in windows])
            for view in VIEWS[views]:
                turned = slice(None, None, -1 if "t" in view else 1)  # height and width change places
                logits = slide(model, flipped(scaled, view), _pair(windows[turned]), _pair(strides[turned]))
                logits = flipped(logits, view[::-1])  # (K, h, w)
                total, count = total + _resize(logits, native).softmax(dim=0), count + 1
    return total / count


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def flipped(maps: Tensor, view: str) -> Tensor:
    """Flip (..., H, W) by each letter in turn: h left-right, v up-down, t on the diagonal (to W x H pixels).

    Each letter undoes itself, so the way back is the word backwards, `view[::-1]`.
    """
    for letter in view:
        maps = maps.transpose(-2, -1) if letter == "t" else maps.flip(-1 if letter == "h" else -2)
    return maps


def segment(model: nn.Module, image: Photograph, recipe: Recipe) -> Tensor:
    """Class probabilities (K, H, W) for a photograph, uint8 (C, H, W), tested as the model's recipe says.

    The photograph is a tensor, an array or a PIL image, which is turned as its EXIF says. It has the recipe's
    channels, three mostly, or is grey, which makes them all alike. It is shrunk and
    normalised as in training, predicted with the recipe's window, views and scales, and the probabilities
    come back at its own size.

    Raises:
        ValueError: not a uint8 image of so many channels.
    """
    image = _photograph(image, "segment", (recipe.channels, 1), recipe.levels)
    size = image.shape[1], image.shape[2]
    image = image.to(next(model.parameters()).device).expand(recipe.channels, -1, -1) / 255
    image = resize(image, shrunk_size(size, recipe.long_side)) if recipe.long_side else image
    image = normalise(image[None], recipe.normalisation)[0]
    probabilities = predict(model, image, recipe.window, recipe.stride, recipe.views, recipe.scales)
    return resize(probabilities, size)


def saliency(model: nn.Module, image: Photograph, as_published: bool = True, side: int = 320) -> Tensor:
    """What stands out in a photograph, uint8 (3, H, W): float (H, W) in [0, 1], of a model with one map.

    The photograph, as in `segment`, is squeezed to `side` x `side` pixels, divided by its own maximum and
    normalised; a grey one, (1, H, W), by the numbers of red. As published, it is read at single points, and
    the map is stretched from 0 to 1 and cut to 8 bits before it is enlarged. With as_published=False pixels
    that fall together are averaged, and the map is the network's probability: where nothing stands out, it
    stays dark. A black photograph is not divided, and a map without contrast is 0 instead of stretched.

    Raises:
        ValueError: not a uint8 image of three channels or one, or a model of several classes.

    Source: U-2-Net, data_loader.py (RescaleT, ToTensorLab with flag 0) and u2net_test.py.
    """
    return saliency_maps(model, [image], as_published, side)[0]


@torch.no_grad()
def saliency_maps(
    model: nn.Module, images: Sequence[Photograph], as_published: bool = True, side: int = 320
) -> list[Tensor]:
    """The maps of several photographs, each as in `saliency`; squeezed, they go in as one batch."""
    photographs = [_photograph(image, "saliency", (3, 1)) for image in images]
    squeezed = torch.stack([_squeezed(each, as_published, side) for each in photographs])  # (B, 3, h, w)
    with evaluating(model):
        logits = model(squeezed.to(next(model.parameters())))[0]  # (B, 1, h, w)
    if logits.shape[1] != 1:
        raise ValueError(f"saliency takes a model with one map; this one has {logits.shape[1]} classes.")
    maps = logits[:, 0].sigmoid().float().cpu()
    sizes = [(each.shape[1], each.shape[2]) for each in photographs]
    return [_restored(p, size, as_published) for p, size in zip(maps, sizes, strict=True)]


def _squeezed(image: Tensor, as_published: bool, side: int) -> Tensor:
    x = image.cpu().double() / 255
    x = read_points(x, (side, side)) if as_published else resize(x, (side, side))  # (C, h, w)
    x = x / x.max() if x.max() > 0 else x
    mean, std = (value[0, : len(x)].cpu() for value in normalisation(x[None], "imagenet"))  # (C, 1, 1)
    return ((x - mean) / std).float().expand(3, -1, -1)


def _restored(p: Tensor, size: tuple[int, int], as_published: bool) -> Tensor:
    """A map (h, w) of probabilities at the photograph's size."""
    if not as_published:
        return resize(p[None], size)[0]
    p = (p - p.min()) / (p.max() - p.min()) if p.max() > p.min() else torch.zeros_like(p)
    grey = Image.fromarray((p * 255).byte().numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(grey)) / 255


def save_model(path: str | Path, model: nn.Module, recipe: Recipe) -> None:
    """Write a model's weights and its recipe into one file, to be read by `load_model`.

    It is a safetensors file, whatever its name ends in.

    Raises:
        OSError: it cannot be written; what stood there before is whole.
    """
    tensors = {f"model.{name}": x for name, x in model.state_dict().items()}
    write_tensors(Path(path), tensors, {"recipe": recipe.to_json()})


def load_model(path: str | Path) -> tuple[nn.Module, Recipe | None]:
    """A trained model in eval mode, with its recipe, from a run folder or a weights file of ours.

    Or the U²-Net in a file of its authors, or in one's own. Such a file tells nothing of a recipe, which is
    None: `saliency` tests as they did. What a file is, is told by its content, see `read_weights`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is cut short, or holds no weights of u2learn and no U²-Net.
    """
    tensors, metadata = read_weights(path)
    model: nn.Module
    recipe: Recipe | None = None
    if "recipe" in metadata:
        model, recipe = _ours(tensors, metadata["recipe"], path)
    else:
        model = official_u2net(tensors, Path(path))
    return laid_out(model.eval()), recipe


def _ours(tensors: dict[str, Tensor], text: str, path: str | Path) -> tuple[nn.Module, Recipe]:
    """The model of a file of ours, and the recipe whose JSON is in it."""
    try:
        recipe = Recipe.from_json(text)
        model = recipe.build_model()
        model.load_state_dict(with_prefix(tensors, "model."))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} was not written by this version of u2learn: {reason}") from error
    freeze_folded_norms(model)
    return model, recipe


def pretrained(name: str = "drive-small", progress: bool = True) -> tuple[nn.Module, Recipe | None]:
    """A trained model in eval mode, with its recipe: one that ships with the package, or a published one.

    Published ones, as "u2net_small" or OpenMMLab's "chase-fcn-ce" (`u2learn weights list`), are fetched from
    their home once, into `data_root()/weights`. The recipe of U²-Net's is None, see `load_model`.

    Raises:
        KeyError: there is no model of this name.
        ConnectionError: a file cannot be fetched; says where to put it by hand.
        ValueError: the file is not the published one.
    """
    if name in PUBLISHED:
        from u2learn import studies  # which nothing else here needs

        recipe, path = studies.get(PUBLISHED[name].recipe), fetch_weights(name, progress)
        if recipe.task == "saliency":
            return load_model(path)
        return laid_out(load_official(recipe.build_model(), path).eval()), recipe
    assets = Path(__file__).parent / "assets"
    if not (assets / f"{name}.safetensors").exists():
        shipped = ", ".join(sorted(path.stem for path in assets.glob("*.safetensors")))
        raise KeyError(
            f"No trained {name!r} ships with u2learn; these do: {shipped}. These are fetched: "
            f"{', '.join(PUBLISHED)}."
        )
    return load_model(assets / f"{name}.safetensors")


def _photograph(
    image: Photograph, taker: str, channels: Sequence[int], levels: tuple[float, float] | None = None
) -> Tensor:
    """A photograph as a tensor, uint8 (C, H, W); `taker` is who asks, `channels` how many there may be.

    A PIL image becomes what `read_image` makes of its file, with so many `channels` as are named first.
    """
    if isinstance(image, Image.Image):
        image = image_of(image, levels, channels[0])
    x = tensor_of(image)
    if x.dtype == torch.uint8 and x.ndim == 3 and len(x) in channels and x.numel():
        return x
    due = " or ".join(f"({count}, H, W)" for count in dict.fromkeys(channels))
    if x.is_floating_point():
        hint = "; floats in [0, 1] become that by (255 * image).round().astype(np.uint8)"
    elif x.ndim == 3 and x.shape[2] in (1, 3, 4):
        hint = "; channels come first here: use image.transpose(2, 0, 1), in torch image.permute(2, 0, 1)"
    elif x.ndim == 2:
        hint = "; for a grey image use np.stack([image] * 3)"
    else:
        hint = "; give images one by one" if x.ndim == 4 else ""
    raise ValueError(
        f"{taker} takes a uint8 image {due} or a PIL image, got {x.dtype} {tuple(x.shape)}{hint}."
    )


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Plain bilinear, as in the reference: unlike `augment.resize` it does not average when shrinking."""
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
