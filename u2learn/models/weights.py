"""Weights on disk: written as safetensors, read from any file of weights, and nothing is executed."""

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from u2learn.files import written_whole
from u2learn.models.pickles import CodeError, read_pickled

SAFETENSORS = rb".{4}\0{4}\{"  # the length of a header, and the JSON that it is
# What else people give for weights, by how it begins, and what to say of it.
OTHERS = {
    rb"\Z": "is empty: copying or fetching it was cut short; do that again",
    rb"version https://git-lfs": "is a pointer of Git LFS in place of the file: run `git lfs pull` there",
    rb"(\xef\xbb\xbf)?\s*<": "is a web page and no checkpoint: open its address in a browser to get the file",
    rb"\x08[\x01-\x7f][\x12\x1a\x22\x2a\x32\x3a\x42]": "is an exported graph (ONNX, Core ML or the "
    "like): take the file of weights from which it was made",
    rb"\x89HDF": "is an HDF5 file, as Keras writes it: take the network's weights in PyTorch's format",
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!": "is a packed archive: unpack it first",
}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all, whatever its name ends in.

    Raises:
        OSError: see `written_whole`.
    """
    ready = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    with written_whole(path, sum(x.nbytes for x in ready.values())) as temporary:
        try:
            save_file(ready, temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    The tensors are copies, one at a time: they hold the file no longer, so that it can be replaced.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short or is no safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is cut short or no safetensors file ({error}): copy or fetch it again; a run whose "
            "checkpoint it is begins anew when the file is moved away."
        ) from error


def weights_file(path: str | Path) -> Path:
    """The file itself, or of the folder of a run its best weights where it keeps them, else its checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        best = path / "best.safetensors"
        path = best if best.exists() else path / "checkpoint.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return path


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of anybody's file of weights, and its metadata: {} but for safetensors.

    What the file is, is told by its content: safetensors, PyTorch's format since 1.6 or before, or Paddle's.
    Names are as they stand in the file, without a wrapper such as "state_dict" around them. A run's folder
    stands for its `weights_file`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, holds no weights, or something that would have to be executed.
    """
    path = weights_file(path)
    with open(path, "rb") as file:
        start = file.read(64)
    for pattern, answer in OTHERS.items():
        if re.match(pattern, start):
            raise ValueError(f"{path} {answer}.")
    if re.match(SAFETENSORS, start, re.DOTALL):
        return read_tensors(path)
    alone = 'write its weights alone: torch.save(model.state_dict(), "weights.pth")'
    try:
        tensors = read_pickled(path)
    except CodeError as error:
        raise ValueError(
            f"{path} is refused: to read it, its {error} would have to run, and weights need no code. Where "
            f"it is trusted, {alone}."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"{path} is cut short or no checkpoint of weights: fetch it again and compare its size."
        ) from error
    if not tensors:
        raise ValueError(
            f"{path} holds no dictionary of weights: unpack it if it is an archive, and if it holds a whole "
            f"model, {alone}."
        )
    return tensors, {}


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
