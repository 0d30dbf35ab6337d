"""What every room says of pixels: how large a map is, and which label means nothing."""

import numpy as np
from torch import Tensor

Size = tuple[int, int]  # height and width
IGNORE = 255  # in a label map: the pixel is neither learnt nor scored


def size_of(maps: Tensor | np.ndarray) -> Size:
    """(H, W) of maps (..., H, W)."""
    height, width = maps.shape[-2:]
    return height, width
