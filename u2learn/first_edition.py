"""What a field of a recipe meant before it existed: so that records and weights of before still say the same.

These are values of the past and never change: a default of today that changes makes another recipe of a name,
and a record of before is then no record of it (see `records.is_current`).
"""

from typing import Any

NAMES = {"side": "long_side", "flips": "views"}  # as fields were called, and are now
_CHANNELS = {"mid": "mid_channels", "out": "out_channels"}
OPTIONS = {"u2net_small": _CHANNELS, "u2net_blocks": _CHANNELS}  # and the arguments of these models
FIELDS: dict[str, Any] = {
    "folder": "",
    "levels": None,
    "square": 0,
    "model_options": {},
    "channels": 3,
    "start": "",
    "accumulate": 1,
    "clip": 0.0,
    "momentum": 0.9,
    "power": 0.9,
    "small_first": 0.0,
    "watched": "test",
    "keep": "last",
    "patience": 0,
    "stretch": True,
    "scored_under": [],
    "metrics": [],
    "trained_by": "",
    "row": {},
}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"schedule": "polynomial", "betas": [0.9, 0.999], "decay_on": "all"},
    "adam": {"schedule": "constant", "betas": [0.9, 0.999], "decay_on": "all"},
    "adamw": {"schedule": "one-cycle", "betas": [0.9, 0.99], "decay_on": "kernels"},
}
MODELS: dict[str, dict[str, Any]] = {
    "unet_s5_d16": {"head": "fcn", "auxiliary": True},
    "unet_small": {"width": 8, "depth": 4},
    "wnet_small": {"width": 8, "depth": 3},
    "u2net_small": {"mid_channels": 16, "out_channels": 64},
    "u2net_blocks": {"block": "rsu", "by": "parameters", "mid_channels": 16, "out_channels": 64},
}
_EYES = {"train": 20, "test": 20, "size": [584, 565], "seed": 0}
_THINGS = {"train": 800, "test": 100, "seed": 0}
DATASETS: dict[str, dict[str, Any]] = {
    "synthetic": _EYES,
    "streets": {"train": 20, "test": 20, "size": [256, 512], "seed": 0},
    "objects": {**_THINGS, "size": [64, 64], "thin": False},
    "thin": {**_THINGS, "size": [192, 192], "thin": True},
}


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a recipe with every field of today; `values` is left as it is."""
    values = FIELDS | renamed(values, NAMES)
    if "split" in values:  # as the protocol was called; that of a drawn set meant nothing
        protocol, dataset = values.pop("split"), values["dataset"]
        values["protocol"] = "" if dataset in DATASETS else protocol
        values["scored_under"] = ["image", "DIS"] if protocol == "dis5k" or dataset == "thin" else []
    values.setdefault("data_options", DATASETS.get(values["dataset"], {}))
    model, options = values["model"], values["model_options"]
    values["model_options"] = MODELS.get(model, {}) | renamed(options, OPTIONS.get(model, {}))
    return OPTIMISERS.get(values.get("optimiser", "sgd"), {}) | values


def renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """`values` under the names of today; where the new name is there too, the old one stays, as an error."""
    return {key if names.get(key, key) in values else names[key]: value for key, value in values.items()}
