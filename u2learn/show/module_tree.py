"""What a drawing of a model needs to know: its U's, read off the module tree and one forward pass."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from u2learn.models.conv import parameters
from u2learn.models.ulevel import ULevel
from u2learn.pixels import Size, size_of

Record = dict[nn.Module, tuple[Any, Any]]  # module -> what went into its first call, what came out


@dataclass(frozen=True)
class Box:
    """One block: what comes out of it, and the U's that it is itself made of."""

    channels: int
    size: Size
    parameters: int
    dilation: int
    inside: list["U"]


@dataclass(frozen=True)
class Level:
    encode: Box
    join: Box
    decode: Box


@dataclass(frozen=True)
class U:
    """Levels, finest first, around a bottom; `stem` comes before and, if `residual`, is added at the end."""

    levels: list[Level]
    bottom: Box
    stem: Box | None
    residual: bool
    channels: int  # of what goes in


@dataclass(frozen=True)
class Head:
    """A block outside the U's: on level `level` of the `u`-th U, or (None) on what other heads gave."""

    name: str
    box: Box
    u: int
    level: int | None
    training_only: bool


@dataclass(frozen=True)
class Outline:
    channels: int
    size: Size
    us: list[U] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


def measure(model: nn.Module, size: Size = (584, 565)) -> Outline:
    """Every level's channels and sizes, from forward passes that compute shapes and no numbers.

    The model runs in training mode, as only then its auxiliaries speak, and in evaluation mode to know which
    blocks are silent there; it is left as it was.

    Raises:
        ValueError: there is no `ULevel` in the model.
    """
    if not any(isinstance(m, ULevel) for m in model.modules()):
        raise ValueError(f"draw() follows the ULevels of a model, and {type(model).__name__} has none.")
    us, heads = _parts(model, run(model, size, training=True), evaluating=run(model, size))
    return Outline(in_channels(model), size, us, heads)


def in_channels(model: nn.Module) -> int:
    """How many channels the first convolution of a model reads."""
    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)


def run(model: nn.Module, size: Size, training: bool = False) -> Record:
    """What goes in and out of every module, on the meta device: shapes are computed, numbers are not."""
    record: Record = {}

    def note(module: nn.Module, inputs: tuple, output: Any) -> None:
        record.setdefault(module, (inputs[0] if inputs else None, output))

    was_training = {m: m.training for m in model.modules()}
    hooks = [m.register_forward_hook(note) for m in model.modules()]
    try:
        model.train(training)
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        shapes = {name: torch.empty_like(t, device="meta") for name, t in named.items()}
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        with torch.no_grad(), torch.device("meta"):
            functional_call(model, shapes, (torch.empty(2, in_channels(model), *size, dtype=dtype),))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in was_training.items():
            module.training = mode
    return record


def _parts(module: nn.Module, record: Record, evaluating: Record) -> tuple[list[U], list[Head]]:
    """The outermost U's of a module and the blocks beside them, in the order of their calls."""
    order = {m: i for i, m in enumerate(record)}
    found: list[tuple[str, nn.Module]] = []

    def walk(node: nn.Module, name: str) -> None:
        if isinstance(node, ULevel):
            found.append((name, node))
        elif node in record and not any(isinstance(m, ULevel) for m in node.modules()):
            if any(True for _ in node.parameters()):
                found.append((name, node))
        else:  # not a U and not a block: a model, or a list that is never called itself
            for child_name, child in node.named_children():
                walk(child, f"{name} {child_name}" if child_name.isdigit() else child_name)

    walk(module, "")
    found = sorted((pair for pair in found if pair[1] in record), key=lambda pair: order[pair[1]])
    tops = [m for _, m in found if isinstance(m, ULevel)]
    maps = {id(x): (i, j) for i, top in enumerate(tops) for j, x in enumerate(record[top][1])}
    entries = {id(record[top][0]): i for i, top in enumerate(tops)}
    stems, heads = {}, []
    for name, part in found:
        given, made = record[part]
        if isinstance(part, ULevel):
            continue
        if id(made) in entries:
            stems[entries[id(made)]] = _box(part, record)
        else:
            before = sum(order[top] < order[part] for top in tops) - 1
            u, level = maps.get(id(given), (max(0, before), None))
            heads.append(Head(name, _box(part, record), u, level, part not in evaluating))
    out = record[module][1]
    made_by_a_block = {id(_first(o)) for m, (_, o) in record.items() if m is not module}
    added = isinstance(out, Tensor) and id(out) not in made_by_a_block and bool(stems)
    us = [_nest(top, record, stems.get(i), added and i in stems) for i, top in enumerate(tops)]
    return us, heads


def _nest(top: ULevel, record: Record, stem: Box | None, residual: bool) -> U:
    levels: list[Level] = []
    node: nn.Module = top
    while isinstance(node, ULevel):
        levels.append(Level(_box(node.encode, record), _box(node.join, record), _box(node.decode, record)))
        node = node.inner
    return U(levels, _box(node, record), stem, residual, record[top][0].shape[1])


def _box(module: nn.Module, record: Record) -> Box:
    out = _first(record[module][1])
    inside = _parts(module, record, record)[0] if any(isinstance(m, ULevel) for m in module.modules()) else []
    dilations = [max(m.dilation) for m in module.modules() if isinstance(m, nn.Conv2d)]
    dilation = 1 if inside else max(dilations, default=1)
    return Box(out.shape[1], size_of(out), parameters(module), dilation, inside)


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, (list, tuple)) else output
