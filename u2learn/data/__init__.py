"""Images with their labels: drawn and real, where they live, and how a batch is made of them.

A name is imported from its module when it is asked for, so that a model can be used without any data set.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Cityscapes": "cityscapes",
    "Example": "example",
    "MissingDataset": "local",
    "Photograph": "photographs",
    "Report": "linter",
    "Retina": "retina",
    "Saliency": "saliency",
    "SyntheticRetina": "drawn.retina",
    "SyntheticStreets": "drawn.streets",
    "available": "local",
    "data_root": "local",
    "fetch": "download",
    "find": "local",
    "fundus": "drawn.retina",
    "lint": "linter",
    "open_set": "sets",
    "photograph": "photographs",
    "read_image": "example",
    "read_label": "example",
    "read_mask": "example",
    "street": "drawn.streets",
    "verify": "local",
    "write_streets": "drawn.streets",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
