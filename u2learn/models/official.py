"""The authors' weights in our classes, and back: names are translated, and nothing in a file is executed."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from u2learn.models.conv import ConvBlock, FloorPool
from u2learn.models.frozen import UNCHANGING, freeze_folded_norms
from u2learn.models.heads import ASPP, PyramidPooling
from u2learn.models.u2net import U2Net, u2net, u2net_small
from u2learn.models.ulevel import ResizeConvJoin, ULevel
from u2learn.models.unet import UNet
from u2learn.models.weights import read_weights, with_prefix

Model = TypeVar("Model", bound=nn.Module)

# Whose network a file holds is told by the name of its first kernel.
FIRST = {
    "U²-Net": "stage1.rebnconvin.conv_s1.weight",
    "OpenMMLab's UNet-S5-D16": "backbone.encoder.0.0.convs.0.conv.weight",
    "PaddleSeg's UNet": "encode.double_conv.0._conv.weight",
}
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
HEAD_CLASSES: dict[type, str] = {ConvBlock: "fcn", PyramidPooling: "psp", ASPP: "aspp"}
CLASSIFIERS = ("decode_head.conv_seg.weight", "cls.weight", "side1.weight")
COUNTER = "num_batches_tracked"
ALIASES = {"conv.weight": "cls.weight", "conv.bias": "cls.bias"}  # PaddleSeg registers its classifier twice


def load_official(model: Model, path: str | Path) -> Model:
    """Put the weights of an official checkpoint into `model`, which is returned; nothing changes on an error.

    For `unet_s5_d16` a .pth of OpenMMLab, for `unet_paddle` a .pdparams of PaddleSeg, for `u2net` and
    `u2net_small` a .pth of U²-Net's authors; or one's own file of such a network, whatever it ends in and
    whatever its trainer put before the names ("module.", "model."). The auxiliary head of a checkpoint is
    left out if the model has none. Old files without counters of batches will do, and so will a U²-Net whose
    norms were folded into its convolutions: it gets norms that change nothing, see `freeze_folded_norms`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, would have to be executed, belongs to another network, head or
            number of classes, or the model is one for which no official weights are known.

    Source: mmsegmentation 0.30, backbones/unet.py and decode_heads; PaddleSeg, paddleseg/models/unet.py;
    U-2-Net, model/u2net.py.
    """
    official_names(model)  # or an error, before anything is read
    return _put(model, read_weights(path)[0], Path(path))


def official_u2net(tensors: dict[str, Tensor], path: Path) -> U2Net:
    """The U²-Net whose tensors these are, read from `path`; their shapes tell which one, full or small.

    Raises:
        ValueError: they are no U²-Net's, or not all of it.
    """
    network, state = known_network(tensors)
    if network and network != "U²-Net":
        raise ValueError(
            f"{path} holds no U²-Net but {network}, and no recipe: test it with `u2learn evaluate --weights "
            "FILE --recipe NAME`, or train on from it with `u2learn train NAME --from FILE`."
        )
    kernels = (FIRST["U²-Net"], "stage1.rebnconv1.conv_s1.weight", "side1.weight")
    shapes = [state[name].shape for name in kernels if name in state and state[name].ndim == 4]
    if len(shapes) < len(kernels):
        raise ValueError(
            f"{path} holds no U²-Net: build the model that it belongs to and use load_official(model, path)."
        )
    (out_channels, in_channels), (mid_channels, _), (num_classes, _) = (shape[:2] for shape in shapes)
    if mid_channels == 32:
        return _put(u2net(num_classes, in_channels), tensors, path)
    return _put(u2net_small(num_classes, mid_channels, out_channels, in_channels=in_channels), tensors, path)


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
    network = network_of(model)
    if network is None:
        raise ValueError(
            f"No official weights are known for this {type(model).__name__}: build the model with "
            "unet_s5_d16 (OpenMMLab), unet_paddle (PaddleSeg), u2net or u2net_small (U²-Net)."
        )
    return NAMES[network](model)


def network_of(model: nn.Module) -> str | None:
    """Whose network a model of ours is, as in FIRST; None for those that are nobody's."""
    if isinstance(model, UNet) and isinstance(model.body, ULevel):
        if isinstance(model.body.join, ResizeConvJoin) and isinstance(model.head, nn.Sequential):
            return "OpenMMLab's UNet-S5-D16"
        if isinstance(model.body.down, FloorPool) and isinstance(model.head, nn.Conv2d):
            return "PaddleSeg's UNet"
    if isinstance(model, U2Net) and isinstance(getattr(model.body.encode, "project", None), ConvBlock):
        return "U²-Net"
    return None


def known_network(tensors: dict[str, Tensor]) -> tuple[str | None, dict[str, Tensor]]:
    """Whose network these tensors are, as in FIRST, and they by their official names; or None, and all."""
    for network, first in FIRST.items():
        inside = beginning_with(tensors, first)
        if inside:
            return network, inside
    return None, tensors


def beginning_with(tensors: dict[str, Tensor], first: str) -> dict[str, Tensor]:
    """The network one of whose tensors is called `first`, without what stands before its names; {} if none.

    DataParallel puts "module." there, Lightning "model.", the compiler "_orig_mod.".
    """
    if first in tensors:
        return tensors
    before = next((name.removesuffix(first) for name in tensors if name.endswith(f".{first}")), None)
    return {} if before is None else with_prefix(tensors, before)


def openmmlab_names(model: UNet) -> dict[str, str]:
    """`official_names` of a `unet_s5_d16`: levels are numbered from the finest, in encoder and decoder."""
    parts = {"auxiliary.0": "auxiliary_head.convs.0", "auxiliary.2": "auxiliary_head.conv_seg"}
    parts |= HEAD_PARTS[HEAD_CLASSES[type(next(model.head.children()))]]
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
        parts |= _counted(model.get_submodule(f"{ours}.u"), f"{ours}.u", f"{theirs}.rebnconv")
    parts |= {f"sides.{i}": f"side{i + 1}" for i in range(len(model.sides))}
    parts["fuse"] = "outconv"
    words = {".conv.": ".conv_s1.", ".norm.": ".bn_s1."}
    return {
        name: _translate(name, {part: theirs}, words)
        for part, theirs in parts.items()
        for name in model.get_submodule(part).state_dict(prefix=f"{part}.")
    }


def _counted(u: nn.Module, ours: str, theirs: str) -> dict[str, str]:
    """The parts of a U of L levels, ours -> theirs: 1, ..., L on the way down, then (L - 1)d, ..., 1d up."""
    down: dict[str, str] = {}
    up: dict[str, str] = {}
    i = 1
    while isinstance(u, ULevel):
        down[f"{ours}.encode"] = f"{theirs}{i}"
        up = {f"{ours}.decode": f"{theirs}{i}d", **up}
        u, ours, i = u.inner, f"{ours}.inner", i + 1
    return {**down, ours: f"{theirs}{i}", **up}


# The names of each network in FIRST.
NAMES: dict[str, Callable[[Any], dict[str, str]]] = {
    "U²-Net": u2net_names,
    "OpenMMLab's UNet-S5-D16": openmmlab_names,
    "PaddleSeg's UNet": paddle_names,
}


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


def completed(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of the model's network as the model wants them, by their official names.

    Without a second name of the same tensor and without an auxiliary head that the model lacks; with norms
    that change nothing where they were folded.
    """
    state = dict(state)
    for alias, key in ALIASES.items():
        if alias in state:
            state.setdefault(key, state.pop(alias))
    if getattr(model, "auxiliary", None) is None:
        state = {key: x for key, x in state.items() if not key.startswith("auxiliary_head.")}
    if isinstance(model, U2Net) and not any(".bn_s1." in key for key in state):
        own = model.state_dict()
        for name, key in official_names(model).items():
            if ".bn_s1." in key:
                state[key] = torch.full_like(own[name], UNCHANGING.get(key.rpartition(".")[2], 0))
    return state


def _put(model: Model, tensors: dict[str, Tensor], path: Path) -> Model:
    """Fill the model with tensors of its own network by their official names: all of them, or none."""
    network, state = known_network(tensors)
    state = completed(model, state) if network == network_of(model) else state
    own, names = model.state_dict(), official_names(model)
    names = {name: key for name, key in names.items() if key in state or not key.endswith(COUNTER)}
    _check(path, state, {key: own[name].shape for name, key in names.items()})
    loaded = {name: reorder(key, state[key]) for name, key in names.items()}
    model.load_state_dict({**own, **loaded})  # where the file does not count batches, our counter stays
    freeze_folded_norms(model)
    return model


def _check(path: Path, state: dict[str, Tensor], due: dict[str, torch.Size]) -> None:
    """Say in one sentence how the tensors of a file differ from those that the model needs."""
    if not state.keys() & due.keys():
        network = known_network(state)[0]
        raise ValueError(
            f"{path} is a checkpoint of another network{f' ({network})' if network else ''}: it holds "
            f"{next(iter(state), 'nothing')!r}, and the model needs {next(iter(due))!r}."
        )
    check_heads(path, state, due)
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


def check_heads(path: Path, state: Iterable[str], due: Iterable[str]) -> None:
    """Refuse OpenMMLab's tensors of one head for the model of another, by their names.

    Raises:
        ValueError: the file has another head.
    """
    got, needed = _heads(state), _heads(due)
    if got and got != needed:
        raise ValueError(
            f"{path} has the head {got[0]!r} and the model {needed[0]!r}: build unet_s5_d16(head={got[0]!r})."
        )


def _heads(keys: Iterable[str]) -> list[str]:
    first = {head: next(iter(parts.values())) for head, parts in HEAD_PARTS.items()}
    return [head for head, part in first.items() if any(key.startswith(f"{part}.") for key in keys)]
