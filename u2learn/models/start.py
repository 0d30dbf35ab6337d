"""Training that starts from given weights: what fits is taken, the head of other classes is not."""

import json
from pathlib import Path

from torch import Tensor, nn

from u2learn.models.frozen import freeze_folded_norms
from u2learn.models.official import (
    COUNTER,
    beginning_with,
    check_heads,
    completed,
    known_network,
    network_of,
    official_names,
    reorder,
)
from u2learn.models.u2net import U2Net
from u2learn.models.unet import UNet, WNet
from u2learn.models.weights import read_weights, with_prefix


def start_from(model: nn.Module, path: str | Path) -> list[str]:
    """Put the weights of a file into a model that is to learn on; sentences say what was taken, and what not.

    The file: a run folder or a weights file of ours, a U²-Net of its authors, OpenMMLab's UNet-S5-D16,
    PaddleSeg's UNet, or a state dict of a model of ours. The network must be the model's. Other numbers of
    classes will do: the parts that give the logits then keep their initial weights, and so does an auxiliary
    head that the file lacks. So will other input channels: each gets the mean kernel of the file's, so that
    an image whose channels are all alike gives the same maps as before. Norms that were folded are frozen,
    see `freeze_folded_norms`. Nothing changes on an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of weights, or it holds another network.
    """
    tensors, metadata = read_weights(path)
    holds, given = _by_our_names(model, tensors, metadata, Path(path))
    own, parts = model.state_dict(), logit_parts(model)
    new = [part for part in parts if _shapes(part, given) != _shapes(part, own)]
    said = [_of_new(new, given, own)] if new else []
    given = _without(new if "auxiliary" in parts else [*new, "auxiliary"], given)
    due = {name: x for name, x in _without(new, own).items() if name in given or not name.endswith(COUNTER)}
    first = next(name for name, x in own.items() if x.ndim == 4)
    channels, found = (x[first].shape[1] if first in x and x[first].ndim == 4 else 0 for x in (own, given))
    if found not in (0, channels):
        mean = given[first].float().mean(dim=1, keepdim=True) * found / channels  # (out, 1, h, w)
        given[first] = mean.expand(-1, channels, -1, -1)
        said.append(
            f"The model has {channels} input channels and the file {found}: each gets the mean kernel."
        )
    _check(f"{path} holds {holds}", given, due)
    model.load_state_dict({**own, **given})
    if freeze_folded_norms(model):
        said.append("The file's norms were folded into its convolutions: the model's stay as they are.")
    return [f"{path} holds {holds}: {len(given)} of the model's {len(own)} tensors are taken from it.", *said]


def logit_parts(model: nn.Module) -> list[str]:
    """The parts whose shape depends on the number of classes, and an auxiliary head as a whole."""
    if isinstance(model, U2Net):
        return ["sides", "fuse"]
    if isinstance(model, WNet):  # whose second net sees the logits of the first
        return ["first.head", "second.head", "second.body.encode.0.conv"]
    if isinstance(model, UNet):
        head = f"head.{len(model.head) - 1}" if isinstance(model.head, nn.Sequential) else "head"
        return [head] if model.auxiliary is None else [head, "auxiliary"]
    return []


def _by_our_names(
    model: nn.Module, tensors: dict[str, Tensor], metadata: dict[str, str], path: Path
) -> tuple[str, dict[str, Tensor]]:
    """What the file holds, in words, and its tensors by the names that they have in the model."""
    if "recipe" in metadata:
        return _title(metadata["recipe"]), with_prefix(tensors, "model.")
    network, state = known_network(tensors)
    if network is None:
        return "a state dict", beginning_with(tensors, next(iter(model.state_dict()))) or tensors
    if network != network_of(model):
        return network, state
    names = {key: name for name, key in official_names(model).items()}
    check_heads(path, state, names)
    return network, {names.get(key, key): reorder(key, x) for key, x in completed(model, state).items()}


def _title(recipe: str) -> str:
    """The model of a recipe in JSON; this is for people, so that an odd recipe is no error here."""
    try:
        fields = json.loads(recipe)
        return f"{fields['model']} (recipe {fields['name']!r})"
    except (ValueError, TypeError, LookupError):
        return "a model of u2learn"


def _of_new(parts: list[str], given: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Which parts start from nothing, and why."""
    wanted, found = (
        next((shape[0] for shape in _shapes(parts[0], tensors).values() if shape), 0)
        for tensors in (own, given)
    )
    why = "the file has none of the shape"
    if found not in (0, wanted):
        why = f"the model has {wanted} classes and the file {found}"
    return f"{' and '.join(parts)} start{'' if len(parts) > 1 else 's'} from nothing: {why}."


def _shapes(part: str, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items() if name.startswith(f"{part}.")}


def _without(parts: list[str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = tuple(f"{part}." for part in parts)
    return {name: x for name, x in tensors.items() if not name.startswith(heads)}


def _check(what: str, given: dict[str, Tensor], due: dict[str, Tensor]) -> None:
    """Say in one sentence how the tensors of a file differ from those that the model needs."""
    for fault, names in {
        "missing": [name for name in due if name not in given],
        "without a place in it": [name for name in given if name not in due],
        "of another shape": [name for name in due if name in given and given[name].shape != due[name].shape],
    }.items():
        if names:
            raise ValueError(
                f"{what}, and the model is another network: {len(names)} tensors are {fault}, first "
                f"{names[0]!r}."
            )
