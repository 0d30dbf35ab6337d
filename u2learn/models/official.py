"""The authors' weights in our classes, and back: names are translated, and nothing in a file is executed."""

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from u2learn.models.conv import ConvBlock, FloorPool
from u2learn.models.heads import ASPP, PyramidPooling
from u2learn.models.u2net import U2Net, u2net, u2net_small
from u2learn.models.ulevel import ResizeConvJoin, ULevel
from u2learn.models.unet import UNet

# Our parts of a head, and OpenMMLab's. A head is known by what it begins with.
HEAD_PARTS = {
    "fcn": {"head.0": "decode_head.convs.0", "head.2": "decode_head.conv_seg"},
    "psp": {
        **{f"head.0.branches.{i}": f"decode_head.psp_modules.{i}" for i in range(4)},
        "head.1": "decode_head.bottleneck",
        "head.3": "decode_head.conv_seg",
    },
    "aspp": {
        "head.0.branches.0": "decode_head.image_pool",
        **{f"head.0.branches.{i + 1}": f"decode_head.aspp_modules.{i}" for i in range(4)},
        "head.1": "decode_head.bottleneck",
        "head.3": "decode_head.conv_seg",
    },
}
HEAD_CLASSES = {ConvBlock: "fcn", PyramidPooling: "psp", ASPP: "aspp"}
CLASSIFIERS = ("decode_head.conv_seg.weight", "cls.weight", "side1.weight")
COUNTER = "num_batches_tracked"
ALIASES = {"conv.weight": "cls.weight", "conv.bias": "cls.bias"}  # PaddleSeg registers its classifier twice
# A batch norm that changes nothing: its deviation is √(variance + 1e-5).
IDENTITY = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1 - 1e-5, "num_batches_tracked": 0}


def load_official(model: nn.Module, path: str | Path) -> nn.Module:
    """Put the weights of an official checkpoint into `model`, which is returned; nothing changes on an error.

    For `unet_s5_d16` a .pth of OpenMMLab, for `unet_paddle` a .pdparams of PaddleSeg, for `u2net` and
    `u2net_small` a .pth of U²-Net's authors. The auxiliary head of a checkpoint is left out if the model has
    none. Old files without counters of batches will do, and so will a U²-Net whose norms were folded into
    its convolutions: it gets norms that change nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, would have to be executed, belongs to another network, head or
            number of classes, or the model is one for which no official weights are known.

    Source: mmsegmentation 0.30, backbones/unet.py and decode_heads; PaddleSeg, paddleseg/models/unet.py;
    U-2-Net, model/u2net.py.
    """
    path = Path(path)
    names = official_names(model)
    state = read_official(path)
    for alias, key in ALIASES.items():
        if alias in state:
            state.setdefault(key, state.pop(alias))
    if getattr(model, "auxiliary", None) is None:
        state = {key: x for key, x in state.items() if not key.startswith("auxiliary_head.")}
    own = model.state_dict()
    if isinstance(model, U2Net) and not any(".bn_s1." in key for key in state):
        for name, key in names.items():
            if ".bn_s1." in key:
                state[key] = torch.full_like(own[name], IDENTITY[key.rpartition(".")[2]])
    names = {name: key for name, key in names.items() if key in state or not key.endswith(COUNTER)}
    _check(path, state, {key: own[name].shape for name, key in names.items()})
    loaded = {name: reorder(key, state[key]) for name, key in names.items()}
    model.load_state_dict({**own, **loaded})  # where the file does not count batches, our counter stays
    return model


def load_u2net(path: str | Path) -> U2Net:
    """A U²-Net with the weights of an official .pth; which one, full or small, is read in the file.

    Raises:
        FileNotFoundError, ValueError: see `load_official`; or the file holds no U²-Net.
    """
    state = read_official(Path(path))
    if not {"stage1.rebnconv1.conv_s1.weight", "side1.weight"} <= state.keys():
        raise ValueError(
            f"{path} holds no U²-Net: build the model that it belongs to and use load_official(model, path)."
        )
    mid, out = state["stage1.rebnconv1.conv_s1.weight"].shape[:2]
    num_classes = len(state["side1.weight"])
    return load_official(u2net(num_classes) if mid == 32 else u2net_small(num_classes, mid, out), path)


def to_official(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the authors' names and in their order: the inverse of `load_official`.

    Raises:
        ValueError: no official names are known for such a model.
    """
    own = model.state_dict()
    state = {key: reorder(key, own[name]) for name, key in official_names(model).items()}
    return {**state, **{alias: state[key] for alias, key in ALIASES.items() if key in state}}


def official_names(model: nn.Module) -> dict[str, str]:
    """Our name of each tensor -> the authors', as "head.2.bias" -> "decode_head.conv_seg.bias".

    Raises:
        ValueError: no official names are known for such a model.
    """
    if isinstance(model, UNet) and isinstance(model.body, ULevel):
        if isinstance(model.body.join, ResizeConvJoin) and isinstance(model.head, nn.Sequential):
            return openmmlab_names(model)
        if isinstance(model.body.down, FloorPool) and isinstance(model.head, nn.Conv2d):
            return paddle_names(model)
    if isinstance(model, U2Net) and isinstance(getattr(model.body.encode, "project", None), ConvBlock):
        return u2net_names(model)
    raise ValueError(
        f"No official weights are known for this {type(model).__name__}: build the model with unet_s5_d16 "
        "(OpenMMLab), unet_paddle (PaddleSeg), u2net or u2net_small (U²-Net)."
    )


def openmmlab_names(model: UNet) -> dict[str, str]:
    """`official_names` of a `unet_s5_d16`: levels are numbered from the finest, in encoder and decoder."""
    parts = {"auxiliary.0": "auxiliary_head.convs.0", "auxiliary.2": "auxiliary_head.conv_seg"}
    parts |= HEAD_PARTS[HEAD_CLASSES[type(model.head[0])]]
    level, depth = "body", _depth(model)
    for i in range(depth):
        parts[f"{level}.encode"] = f"backbone.encoder.{i}.{min(i, 1)}.convs"  # below the first, 0 is the pool
        parts[f"{level}.join.reduce"] = f"backbone.decoder.{i}.upsample.interp_upsample.1"
        parts[f"{level}.decode"] = f"backbone.decoder.{i}.conv_block.convs"
        level += ".inner"
    parts[level] = f"backbone.encoder.{depth}.1.convs"
    return {name: _translate(name, parts, {".norm.": ".bn."}) for name in model.state_dict()}


def paddle_names(model: UNet) -> dict[str, str]:
    """`official_names` of a `unet_paddle`: its decoder is numbered from the deepest level, its pool is 0."""
    parts = {"head": "cls", "body.encode": "encode.double_conv"}
    level, depth = "body", _depth(model)
    for i in range(depth):
        parts[f"{level}.decode"] = f"decode.up_sample_list.{depth - 1 - i}.double_conv"
        level += ".inner"
        encode = f"{level}.encode" if i < depth - 1 else level
        parts |= {f"{encode}.{j}": f"encode.down_sample_list.{i}.{j + 1}" for j in range(2)}
    words = {
        ".conv.": "._conv.",
        ".norm.": "._batch_norm.",
        ".running_mean": "._mean",
        ".running_var": "._variance",
    }
    names = [name for name in model.state_dict() if not name.endswith(COUNTER)]
    return {name: _translate(name, parts, words) for name in names}


def u2net_names(model: U2Net) -> dict[str, str]:
    """`official_names` of a `u2net`, in the file's order: blocks are counted within a stage as stages are."""
    parts = {}
    for ours, theirs in _counted(model.body, "body", "stage").items():
        parts[f"{ours}.project"] = f"{theirs}.rebnconvin"
        parts |= _counted(model.get_submodule(ours).u, f"{ours}.u", f"{theirs}.rebnconv")
    parts |= {f"sides.{i}": f"side{i + 1}" for i in range(len(model.sides))}
    parts["fuse"] = "outconv"
    words, own = {".conv.": ".conv_s1.", ".norm.": ".bn_s1."}, model.state_dict()
    return {
        name: _translate(name, parts, words) for part in parts for name in own if name.startswith(f"{part}.")
    }


def _counted(u: nn.Module, ours: str, theirs: str) -> dict[str, str]:
    """The parts of a U of L levels, ours -> theirs: 1, ..., L on the way down, then (L - 1)d, ..., 1d up."""
    down, up, i = {}, {}, 1
    while isinstance(u, ULevel):
        down[f"{ours}.encode"] = f"{theirs}{i}"
        up = {f"{ours}.decode": f"{theirs}{i}d", **up}
        u, ours, i = u.inner, f"{ours}.inner", i + 1
    return {**down, ours: f"{theirs}{i}", **up}


def _depth(model: UNet) -> int:
    return sum(isinstance(module, ULevel) for module in model.modules())


def _translate(name: str, parts: dict[str, str], words: dict[str, str]) -> str:
    part = next(part for part in parts if name.startswith(f"{part}."))
    rest = name.removeprefix(part)
    for ours, theirs in words.items():
        rest = rest.replace(ours, theirs)
    return parts[part] + rest


def reorder(key: str, x: Tensor) -> Tensor:
    """Swap the input channels (skip, up) of OpenMMLab's decoders and our (up, skip), equally many of each."""
    return x.roll(x.shape[1] // 2, dims=1) if key.endswith(".conv_block.convs.0.conv.weight") else x


def _check(path: Path, state: dict[str, Tensor], due: dict[str, torch.Size]) -> None:
    """Say in one sentence how the tensors of a file differ from those that the model needs."""
    if not state.keys() & due.keys():
        raise ValueError(
            f"{path} is a checkpoint of another network: it holds {next(iter(state), 'nothing')!r}, and the "
            f"model needs {next(iter(due))!r}."
        )
    got, needed = _heads(state), _heads(due)
    if got and got != needed:
        raise ValueError(
            f"{path} has the head {got[0]!r} and the model {needed[0]!r}: build unet_s5_d16(head={got[0]!r})."
        )
    missing = [key for key in due if key not in state]
    if missing:
        hint = ": build the model with auxiliary=False" if missing[0].startswith("auxiliary_head.") else ""
        raise ValueError(
            f"{path} lacks {len(missing)} of the model's {len(due)} tensors, first {missing[0]!r}{hint}."
        )
    unknown = [key for key in state if key not in due]
    if unknown:
        raise ValueError(
            f"{path} holds {len(unknown)} tensors for which the model has no place, first {unknown[0]!r}."
        )
    for key, shape in due.items():
        found = state[key].shape
        if key in CLASSIFIERS and found[1:] == shape[1:] and found != shape:
            raise ValueError(
                f"{path} was trained for {found[0]} classes and the model has {shape[0]}: "
                f"build it with num_classes={found[0]}."
            )
        if found != shape:
            raise ValueError(
                f"{path} belongs to another network: {key!r} has the shape {tuple(found)}, and the model "
                f"needs {tuple(shape)}."
            )


def _heads(keys: Iterable[str]) -> list[str]:
    first = {head: next(iter(parts.values())) for head, parts in HEAD_PARTS.items()}
    return [head for head, part in first.items() if any(key.startswith(f"{part}.") for key in keys)]


def read_official(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names that they have in it: PaddleSeg's if it ends in .pdparams.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, holds no weights, or something that would have to be executed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        state = _read_paddle(path) if path.suffix == ".pdparams" else _read_torch(path)
    except Exception as error:  # a damaged file can raise anything
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise ValueError(
                f"{path} is refused: to read it, its {code[1]} would have to run, and weights need no code."
            ) from None
        raise ValueError(
            f"{path} is cut short or no checkpoint of weights: fetch it again and compare its size."
        ) from error
    if not state or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"{path} holds no dictionary of weights, as OpenMMLab and PaddleSeg write it.")
    return state


def _read_torch(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(content.get("state_dict", content))


def _read_paddle(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = ArrayUnpickler(file, encoding="latin1").load()
    content.pop("StructuredToParameterName@@", None)  # Paddle's internal names
    arrays = {key: x[1] if isinstance(x, tuple) else x for key, x in content.items()}  # or (name, array)
    return {key: torch.from_numpy(x.array) for key, x in arrays.items()}


class _Array:
    """Stands for a NumPy array in a pickle: made empty, then given its shape, type and bytes."""

    def __init__(self, *_: Any):
        self.array = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")
        self.array = array.astype(kind.dtype.newbyteorder("="), order="C")  # in memory of its own


class _Type:
    """Stands for the type of an array's numbers: "f4" and the like, then the order of their bytes."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch(r"f[248]|i[1248]|u1|b1", code):
            raise pickle.UnpicklingError(f"Arrays of {code!r} are no weights.")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickled dictionary of NumPy arrays, and runs none of the code that the file names.

    A pickle is a list of calls. Those that an array needs are answered by stand-ins, which keep the numbers
    in `.array`; any other is refused.

    Raises:
        pickle.UnpicklingError: the file names other code, or the array holds something besides numbers.
    """

    STAND_INS: ClassVar = {
        "collections.OrderedDict": dict,
        "numpy.dtype": _Type,
        "numpy.ndarray": _Array,
        "numpy.core.multiarray._reconstruct": _Array,  # NumPy 1
        "numpy._core.multiarray._reconstruct": _Array,  # NumPy 2
        "_codecs.encode": str.encode,  # protocol 2 writes bytes as text
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.STAND_INS:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self.STAND_INS[f"{module}.{name}"]
