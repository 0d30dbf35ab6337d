"""Arrays as users have them, made the tensors that the package computes with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray


def tensor_of(array: Array | Sequence) -> Tensor:
    """An array as a tensor: a view where torch can share it, else a copy. A tensor stays as it is.

    Torch takes no negative strides (a flip, OpenCV's BGR made RGB) and no foreign byte order, and warns of
    arrays that must not be written to.

    Raises:
        ValueError: it holds no numbers.
    """
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"An array of numbers is due, and this is {type(array).__name__} ({values.dtype}).")
    return torch.from_numpy(np.require(values, values.dtype.newbyteorder("="), ["C", "W"]))
