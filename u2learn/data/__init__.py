"""Images with their labels: synthetic and real, where they live, and how a batch is made of them."""

from u2learn.data.cityscapes import Cityscapes
from u2learn.data.download import fetch
from u2learn.data.drawn.retina import SyntheticRetina, fundus
from u2learn.data.drawn.streets import SyntheticStreets, street, write_streets
from u2learn.data.example import Example, read_image, read_label, read_mask
from u2learn.data.linter import Report, lint
from u2learn.data.local import MissingDataset, available, data_root, find, verify
from u2learn.data.retina import Retina
from u2learn.data.saliency import Saliency

__all__ = [
    "Cityscapes",
    "Example",
    "MissingDataset",
    "Report",
    "Retina",
    "Saliency",
    "SyntheticRetina",
    "SyntheticStreets",
    "available",
    "data_root",
    "fetch",
    "find",
    "fundus",
    "lint",
    "read_image",
    "read_label",
    "read_mask",
    "street",
    "verify",
    "write_streets",
]
