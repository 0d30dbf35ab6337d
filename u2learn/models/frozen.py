"""Batch norms that stay as they are while the rest of a network learns."""

from torch import nn

# A norm that changes nothing, as its deviation is √(running_var + 1e-5) = 1. A new one has a variance of 1.
UNCHANGING = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1 - 1e-5}


class FrozenNorm(nn.BatchNorm2d):
    """A batch norm that is always in eval mode: it takes no statistics of a batch."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


def freeze_folded_norms(model: nn.Module) -> bool:
    """Freeze the norms that change nothing; whether there are any.

    Who folds the norms of a trained network into its convolutions leaves norms that change nothing in eval
    mode. In training they would begin to normalise by each batch, and the network would no longer be the one
    that was trained. Frozen, they change nothing there either, and their weights do not learn. They are known
    by their numbers, so that it is enough to ask again wherever weights are loaded.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and _changes_nothing(m)]
    for norm in norms:
        norm.__class__ = FrozenNorm  # the same norm, with the same weights; only its mode is fixed
        norm.eval().requires_grad_(False)
    return bool(norms)


def _changes_nothing(norm: nn.BatchNorm2d) -> bool:
    tensors = {name: getattr(norm, name) for name in UNCHANGING}
    return all(x is not None and bool((x == UNCHANGING[name]).all()) for name, x in tensors.items())
