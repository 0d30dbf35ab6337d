"""A trained model as one graph for other programs: a file of ONNX, or of PyTorch's own exporter.

The graph takes a photograph as it comes from a file and gives what `segment` or `saliency` give, so nothing
of this package is needed to run it. What writes and runs a file of ONNX comes with the extra "onnx".
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from u2learn.data.augment import normalise, read_points, resize, shrunk_size
from u2learn.data.cityscapes import CLASSES
from u2learn.files import written_whole
from u2learn.recipe import VIEWS, Recipe
from u2learn.version import __version__

ENDINGS = (".onnx", ".pt2")
# The graph is tried on these: batch, height, width. Odd sides, one like the next, smaller and larger ones.
TRIED = ((1, 97, 131), (2, 64, 64), (1, 333, 250), (3, 45, 38))
LARGEST = 1 << 14  # pixels a side, and pictures a batch
INPUT = "photograph"


class FromPhotograph(nn.Module):
    """Photographs, uint8 (B, C, H, W) of one size, to what the model sees in them.

    Of two classes or more the probabilities (B, K, H, W), of a saliency net the map
    (B, H, W) in [0, 1]; with `every` a list of that for every map that the model
    makes, the main one first. The photographs are shrunk, normalised and the maps
    brought back as the recipe says, in one pass: without the windows, mirrored
    views and scales that a test may average.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, every: bool = False):
        super().__init__()
        self.model, self.recipe, self.every = model, recipe, every

    def forward(self, photograph: Tensor) -> Tensor | list[Tensor]:
        recipe, size = self.recipe, (photograph.shape[-2], photograph.shape[-1])
        x = photograph.float() / 255  # (B, C, H, W)
        if recipe.task == "saliency":
            square = recipe.square, recipe.square
            x = read_points(x, square) if recipe.stretch else resize(x, square)
            maps = self.model(normalise(x, "maximum"))  # (B, 1, h, w) each
            restore = stretched if recipe.stretch else resize
            found = [restore(y.sigmoid(), size)[:, 0] for y in maps]
        else:
            if recipe.long_side:
                x = resize(x, shrunk_size(size, recipe.long_side))
            maps = self.model(normalise(x, recipe.normalisation))
            found = [resize(y.softmax(dim=1), size) for y in maps]  # (B, K, H, W)
        return found if self.every else found[0]


def stretched(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, 1, h, w) from 0 to 1 each, cut to 8 bits, at a size: as U²-Net's authors write theirs."""
    low, high = (f(maps, dim=(1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    room = high - low
    grey = (255 * (maps - low) / torch.where(room > 0, room, 1)).floor()
    return (resize(grey, size) + 0.5).floor() / 255  # (B, 1, H, W)


def export(model: nn.Module, recipe: Recipe, path: str | Path, every: bool = False) -> float:
    """Write a model as a graph of `FromPhotograph`, in the format of the file's ending: .onnx or .pt2.

    Batch, height and width are free (a .pt2 refuses pictures so small that a map has a single row). The file
    is run before it gets its name, on photographs of noise of the sizes in TRIED; returned is how far it is
    from the model at most, in probability. Its metadata holds the recipe, the names of the classes and what
    wrote it, see `metadata`.

    Raises:
        ValueError: another ending.
        ImportError: .onnx without the extra "onnx".
        OSError: the file cannot be written; what stood there before is whole.
        RuntimeError: the file gives something else than the model; nothing is written.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: the ending says the format: .onnx, or .pt2 for torch.export.")
    write, run = (_write_onnx, _run_onnx) if path.suffix == ".onnx" else (_write_pt2, _run_pt2)
    whole = FromPhotograph(copy.deepcopy(model).cpu(), recipe, every).eval()
    whole.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch forgot to say so
    with written_whole(path, size=4 * sum(p.numel() for p in model.parameters())) as file:
        write(whole, file)
        ran = run(file)
        difference = max(_difference(whole, ran, shape) for shape in TRIED)
        if not difference <= allowed(recipe):
            raise RuntimeError(
                f"{path} was not written: what it gives is up to {difference:.2g} away from the model. "
                "Please report this, with the versions of torch, onnx and onnxruntime."
            )
    return difference


def allowed(recipe: Recipe) -> float:
    """How far a file may be from its model: rounding, or one level of 256 where the map is cut to 8 bits."""
    return 1.01 / 255 if recipe.task == "saliency" and recipe.stretch else 1e-3


def metadata(recipe: Recipe) -> dict[str, str]:
    """What a file says of itself: the recipe as JSON, the classes' names by id, one a line, and its maker."""
    return {"recipe": recipe.to_json(), "classes": "\n".join(class_names(recipe)), "u2learn": __version__}


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """The names of a recipe's classes by id; of a saliency map, that of what is bright in it."""
    if recipe.task == "saliency":
        return ("object",)
    own = tuple(recipe.data_options.get("classes", ()))
    return own or (CLASSES if recipe.dataset == "cityscapes" else ("background", "foreground"))


def not_in_graph(recipe: Recipe) -> str:
    """What the recipe's test does beyond one pass over the whole picture, in words; "" if nothing."""
    parts = {
        f"windows of {recipe.window}": recipe.window,
        f"{len(VIEWS[recipe.views])} views": recipe.views,
        f"scales {recipe.scales}": recipe.scales != (1.0,),
    }
    return " and ".join(words for words, there in parts.items() if there)


def _difference(whole: FromPhotograph, run: Callable, shape: tuple[int, int, int]) -> float:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (shape[0], whole.recipe.channels, *shape[1:]), generator=generator)
    photograph = noise.to(torch.uint8)  # (B, C, H, W)
    with torch.inference_mode():
        due = whole(photograph)
    pairs = zip(due if whole.every else [due], run(photograph), strict=True)
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def _free_sizes(whole: FromPhotograph) -> dict[str, Any]:
    """An example, and the names of the sizes that are free."""
    free = {
        axis: torch.export.Dim(name, min=least, max=LARGEST)
        for axis, name, least in ((0, "batch", 1), (2, "height", 2), (3, "width", 2))
    }
    example = torch.zeros(2, whole.recipe.channels, 90, 110, dtype=torch.uint8)
    return {"args": (example,), "dynamic_shapes": (free,)}


def _write_pt2(whole: FromPhotograph, path: Path) -> None:
    with torch.no_grad():
        graph = torch.export.export(whole, **_free_sizes(whole))
    with open(path, "wb") as file:
        torch.export.save(graph, file, extra_files=metadata(whole.recipe))


def _run_pt2(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    with open(path, "rb") as file:
        graph = torch.export.load(file).module()

    def run(photograph: Tensor) -> Sequence[Tensor]:
        with torch.inference_mode():
            found = graph(photograph)
        return found if isinstance(found, list) else [found]

    return run


def _write_onnx(whole: FromPhotograph, path: Path) -> None:
    _onnxruntime()
    name = "map" if whole.recipe.task == "saliency" else "probabilities"
    count = len(whole.model(torch.zeros(2, whole.recipe.channels, 64, 64))) if whole.every else 1
    names = [name, *(f"{name}_{i}" for i in range(1, count))]
    with _quiet_exporter(), torch.no_grad():
        graph = torch.onnx.export(
            whole, **_free_sizes(whole), dynamo=True, verbose=False, input_names=[INPUT], output_names=names
        )
    assert graph is not None
    graph.model.metadata_props.update(metadata(whole.recipe))
    graph.save(path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what the exporter says of its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _run_onnx(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    session = _onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda photograph: [torch.from_numpy(x) for x in session.run(None, {INPUT: photograph.numpy()})]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (the exporter's)
    except ImportError as error:
        raise ImportError(
            f"A file of ONNX needs {error.name}, which is not installed: pip install 'u2learn[onnx]'. A .pt2 "
            "file needs nothing but PyTorch."
        ) from error
    return onnxruntime
