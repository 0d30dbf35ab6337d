"""The drawn diagrams of the book: inline SVG that is readable on light and dark pages and on a phone.

    from u2learn.show import diagrams
    diagrams.window()                             # the last line of a cell shows it
    show.explore(diagrams.unfolding())            # several of them, with a slider

Each diagram is a function in the file of its part of the book, and computes every number that it shows: from
its arguments, which have small defaults, or from the shapes of a model. To add one:

* Draw on a `Sheet` (`sheet.py` has all that there is: box, cells, arrow, bracket, curve, plot, mask, text)
  and return `sheet.diagram(title, description)`. The description says in words what is to be seen, with the
  numbers.
* Units are pixels, y grows downwards. Stay within `WIDEST` pixels and at the sizes TEXT and SMALL: then the
  smallest letter is 11 pixels high on a phone. What does not fit beside goes below.
* A colour is a role of `palette.INKS` ("encoder", "decoder", "bottleneck", "accent", "false_alarm", "skip",
  "image", "grey"), or "ink" and "muted", the colour of the text around. Never write a colour of your own: it
  would not turn with the page.
* Say with words what a colour says, too. One idea a diagram, and five colours at most.
* Put the function into DIAGRAMS here. tests/test_diagrams.py then draws it in a browser, and finds words that
  leave their box or lie on each other; add a test there that computes its numbers in another way.
* Look at it: `python -m u2learn.show.diagrams page.html` puts all of them on one page, light and dark.
"""

from collections.abc import Callable

from u2learn.show.diagrams.convolution import (
    autograd,
    bilinear,
    block,
    cone,
    descent,
    im2col,
    norm_modes,
    pools,
    stamps,
    window,
)
from u2learn.show.diagrams.in_use import folding, integers, roofline
from u2learn.show.diagrams.sheet import Diagram, Sheet
from u2learn.show.diagrams.u2net import alignment, rsu, s_regions, side_maps, thin_parts
from u2learn.show.diagrams.unet import (
    confusion_areas,
    crop_rule,
    joins,
    mask_files,
    one_pixel,
    pooling,
    regions,
    three_heads,
    two_curves,
    unfolded,
    unfolding,
    window_grid,
)

DIAGRAMS: list[Callable[[], Diagram]] = [
    *(window, im2col, autograd, descent, cone, norm_modes, pools, bilinear, stamps, block),
    *(unfolded, joins, crop_rule, mask_files, one_pixel, two_curves, confusion_areas, regions, pooling),
    *(
        window_grid,
        three_heads,
        rsu,
        side_maps,
        s_regions,
        alignment,
        thin_parts,
        roofline,
        folding,
        integers,
    ),
]

__all__ = ["DIAGRAMS", "Diagram", "Sheet", "unfolding", *(draw.__name__ for draw in DIAGRAMS)]
