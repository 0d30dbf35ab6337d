"""Draw the picture of the README: an eye, the small net that ships, and what that net makes of the eye.

python -m tools.picture [TARGET]

Its three parts are written beside it, for the front page of the site.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from u2learn import pretrained, segment, show
from u2learn.data.drawn.retina import fundus
from u2learn.models.conv import parameters
from u2learn.pixels import size_of

TARGET = Path(__file__).resolve().parents[1] / "book" / "_static" / "u2learn.png"


def main(options: list[str]) -> None:
    target = Path(options[0]) if options else TARGET
    eye, net, vessels, count = parts()
    picture(eye, net, vessels, count).savefig(target, metadata={"Software": None})
    for name, pixels in (("eye", eye), ("vessels", vessels)):
        Image.fromarray(pixels).save(target.with_name(f"{target.stem}-{name}.webp"), quality=86, method=6)
    net.savefig(target.with_name(f"{target.stem}-net.svg"), bbox_inches="tight", metadata={"Date": None})
    print(f"Written: {target}")


def parts() -> tuple[np.ndarray, plt.Figure, np.ndarray, int]:
    """The photograph (H, W, 3), the net as it draws itself, hits and errors (H, W, 3), its parameters."""
    model, recipe = pretrained("drive-small")
    assert recipe is not None
    eye = fundus(seed=5)
    vessel = segment(model, eye.image, recipe)[1] > 0.5  # (H, W)
    errors = show.overlay(eye.image, vessel, eye.label).movedim(0, -1).numpy()  # (H, W, 3)
    return eye.image.transpose(1, 2, 0), show.draw(model, size_of(vessel)), errors, parameters(model)


def picture(eye: np.ndarray, net: plt.Figure, vessels: np.ndarray, count: int) -> plt.Figure:
    """Three panels, each with its title."""
    drawing = FigureCanvasAgg(net)
    net.set_dpi(200)
    drawing.draw()
    panels = {
        "a synthetic eye": eye,
        f"a U-Net of {count:,} parameters": np.asarray(drawing.buffer_rgba()),
        "the vessels it finds, and its mistakes": vessels,
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
