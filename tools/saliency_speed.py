"""How long the saliency scores take beside PySODMetrics, in one run: python -m tools.saliency_speed

The same scores (MAE, F, weighted F, S, E) of 100 drawn pairs at 300x400, in turns so that a busy machine
disturbs both alike; then ours with the relaxed boundary F, which PySODMetrics does not have.
"""

import time
import warnings
from collections.abc import Callable

import numpy as np
import py_sod_metrics
from scipy import ndimage

from u2learn.metrics.saliency import score_saliency
from u2learn.pixels import Size

Pair = tuple[np.ndarray, np.ndarray]  # a map of 8 bits and a mask, (H, W) each


def main(images: int = 100, size: Size = (300, 400)) -> tuple[float, float]:
    """Prints times and returns the ratios of ours to theirs, for the same scores and with one more."""
    pairs = [drawn(seed, size) for seed in range(images)]
    theirs, same, more = (
        np.mean([[clock(score, pair) for score in (package, ours, ours_and_one)] for pair in pairs], 0) * 1000
    )
    print(f"{images} images of {size[0]}x{size[1]}, milliseconds an image")
    print(f"PySODMetrics            {theirs:6.1f}")
    print(f"u2learn, the same       {same:6.1f}  ratio {same / theirs:.2f}")
    print(f"u2learn, one score more {more:6.1f}  ratio {more / theirs:.2f}")
    return same / theirs, more / theirs


def drawn(seed: int, size: Size) -> Pair:
    """A map of 8 bits and the mask that it resembles."""
    rng = np.random.default_rng(seed)
    shape = ndimage.gaussian_filter(rng.normal(size=size), 25)
    noise = ndimage.gaussian_filter(rng.normal(size=size), 5)
    shape, noise = shape / shape.std(), noise / noise.std()
    return (255 / (1 + np.exp(4 - 4 * shape - noise))).astype(np.uint8), shape > 1


def clock(score: Callable[[np.ndarray, np.ndarray], None], pair: Pair) -> float:
    start = time.perf_counter()
    score(*pair)
    return time.perf_counter() - start


def package(level: np.ndarray, mask: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its F will be replaced some day
        metrics = [
            getattr(py_sod_metrics, name)()
            for name in ("MAE", "Fmeasure", "WeightedFmeasure", "Smeasure", "Emeasure")
        ]
    for metric in metrics:
        metric.step(level, mask.astype(np.uint8) * 255)
        metric.get_results()


def ours(level: np.ndarray, mask: np.ndarray) -> None:
    score_saliency([(level / 255, mask)], also=["weighted_f"])


def ours_and_one(level: np.ndarray, mask: np.ndarray) -> None:
    score_saliency([(level / 255, mask)])


if __name__ == "__main__":
    main()
