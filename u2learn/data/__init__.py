"""Images with their labels: synthetic and real, where they live, and how a batch is made of them."""

from u2learn.data.cityscapes import Cityscapes
from u2learn.data.pairs import Example, Report, lint, read_image, read_label, read_mask
from u2learn.data.retina import Retina
from u2learn.data.saliency import Saliency
from u2learn.data.store import MissingDataset, available, data_root, fetch, find, verify
from u2learn.data.streets import SyntheticStreets, street, write_streets
from u2learn.data.synthetic import SyntheticRetina, fundus

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
