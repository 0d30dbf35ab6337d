"""Draw the picture of the README: an eye, the small net that ships, and what that net makes of the eye.

python -m tools.picture [TARGET]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from u2learn import pretrained, segment, show
from u2learn.data.drawn.retina import fundus
from u2learn.models.conv import parameters
from u2learn.pixels import size_of

TARGET = Path(__file__).resolve().parents[1] / "book" / "_static" / "u2learn.png"


def main(options: list[str]) -> None:
    target = Path(options[0]) if options else TARGET
    picture().savefig(target, metadata={"Software": None})
    print(f"Written: {target}")


def picture() -> plt.Figure:
    """Three panels: the photograph, the net as it draws itself, hits and errors."""
    model, recipe = pretrained("drive-small")
    assert recipe is not None
    eye = fundus(seed=5)
    vessel = segment(model, eye.image, recipe)[1] > 0.5  # (H, W)
    drawing = FigureCanvasAgg(show.draw(model, size_of(vessel)))
    drawing.figure.set_dpi(200)
    drawing.draw()
    errors = show.overlay(eye.image, vessel, eye.label).movedim(0, -1).numpy()  # (H, W, 3)
    panels = {
        "a synthetic eye": eye.image.transpose(1, 2, 0),
        f"a U-Net of {parameters(model):,} parameters": np.asarray(drawing.buffer_rgba()),
        "the vessels it finds, and its mistakes": errors,
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), dpi=120, width_ratios=[1, 1.15, 1])
    plt.close(figure)  # it lives on, outside of pyplot's list
    for axis, (title, pixels) in zip(axes, panels.items(), strict=True):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=12)
        axis.axis("off")
    return figure


if __name__ == "__main__":
    main(sys.argv[1:])
