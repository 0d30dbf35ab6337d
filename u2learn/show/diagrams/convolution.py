"""The diagrams of part I: one convolution, what it learns from, what it sees, and the ways down and up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2learn.models.conv import ConvBlock, parameters
from u2learn.show.diagrams.sheet import SMALL, Diagram, Point, Sheet, by
from u2learn.show.pictures import short_number

CHANNELS = ("false_alarm", "decoder", "encoder")  # the house's red, green and blue

PATCH = [
    [[2, 1, 0], [3, 1, 0], [2, 2, 1]],
    [[1, 1, 0], [2, 0, 0], [1, 1, 1]],
    [[0, 1, 2], [0, 1, 3], [1, 1, 2]],
]  # (3, 3, 3): channels, rows, columns
KERNEL = [
    [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
    [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
]
FOUR = ("encoder", "decoder", "bottleneck", "false_alarm")  # windows or stamps that lie beside each other
IMAGE = [[1, 0, 2, 1], [0, 3, 1, 0], [2, 1, 0, 1], [1, 0, 1, 2]]
ODD = [[3, 1, 0, 2, 5], [0, 2, 4, 1, 1], [1, 6, 2, 0, 7], [2, 0, 3, 1, 0], [8, 1, 0, 4, 9]]


def signed(values: Any) -> tuple[list[list[str]], np.ndarray]:
    """Roles and strengths of cells: orange above zero, blue below, the more the larger."""
    array = np.asarray(values, float)
    roles = [["accent" if value > 0 else "encoder" for value in row] for row in array]
    return roles, np.abs(array) / max(np.abs(array).max(), 1e-12)


def window(patch: Any = PATCH, kernel: Any = KERNEL, bias: float = 1) -> Diagram:
    """One output of a convolution: a window of three channels, a kernel's slice for each, one sum.

    `patch` and `kernel` are (3, h, w) of one size.
    """
    patch, kernel = (np.asarray(x, float) for x in (patch, kernel))
    sums = (patch * kernel).sum((1, 2))  # (3,)
    total = sums.sum() + bias
    sheet, side, gap = Sheet(), 29.0, 20.0
    h, w = patch.shape[1] * side, patch.shape[2] * side
    left, middle, right = 46.0, 82 + w, 120 + 2 * w
    for x, words in ((left + w / 2, "window"), (middle + w / 2, "kernel"), (right + 21, "sum")):
        sheet.text(x, -16, words, size=SMALL, role="muted")
    boxes = []
    for k, (colour, name) in enumerate(zip(CHANNELS, ("red", "green", "blue"), strict=True)):
        y = k * (h + gap)
        sheet.text(38, y + h / 2, name, role=colour, anchor="end")
        sheet.cells(patch[k], left, y, side, colour, patch[k] / max(patch.max(), 1))
        sheet.text(left + w + 18, y + h / 2, "×", size=18)
        sheet.cells(kernel[k], middle, y, side, *signed(kernel[k]))
        sheet.text(middle + w + 19, y + h / 2, "=", size=18)
        boxes.append(sheet.box(right, y + h / 2 - 17, 42, 34, short_number(sums[k]), colour))
    first, second, third = (box.right for box in boxes)
    x, y, r = right + 74, second[1], 13
    sheet.circle(x, y, r, "+")
    sheet.arrow(first, (x, first[1]), (x, y - r))
    sheet.arrow(second, (x - r, y))
    sheet.arrow(third, (x, third[1]), (x, y + r))
    sheet.text(x + 40, y - 64, f"bias\n{short_number(bias)}")
    sheet.arrow((x + 38, y - 43), (x + 0.71 * r, y - 0.71 * r))
    out = sheet.box(x + 36, y - 18, 42, 36, short_number(total), "accent", width=2.2)
    sheet.arrow((x + r, y), out.left)
    sheet.text(out.centre[0], y + 38, "one\noutput", size=SMALL, role="muted")
    parts = " + ".join(short_number(s) for s in (*sums, bias))
    return sheet.diagram(
        "A window of three channels times one kernel",
        "Each channel's window is multiplied by its own slice of the kernel, number by number, and added up. "
        f"The three sums and the bias make one output: {parts} = {short_number(total)}.",
    )


def im2col(image: Any = IMAGE, kernel: Any = KERNEL[2]) -> Diagram:
    """A convolution as one product: each window of a small image (4, 4) is a row of a matrix.

    `kernel` is (3, 3).
    """
    image, kernel = np.asarray(image, float), np.asarray(kernel, float)
    rows = F.unfold(torch.tensor(image)[None, None], kernel.shape)[0].T.numpy()  # (4, 9)
    outputs = rows @ kernel.ravel()
    sheet, side = Sheet(), 28.0
    picture = sheet.cells(image, 0, 0, side, "grey", np.zeros_like(image))
    sheet.text(picture.centre[0], -14, "image", size=SMALL, role="muted")
    for k, colour in enumerate(FOUR):
        sheet.frame(side * (k % 2), side * (k // 2), 3 * side, 3 * side, colour, inset=2 + 1.4 * k, width=1.8)
    small = sheet.cells(kernel, 166, 14, 25, *signed(kernel))
    sheet.text(small.centre[0], -14, "kernel", size=SMALL, role="muted")
    column = sheet.cells(kernel.reshape(9, 1), 284, 0, side, *signed(kernel.reshape(9, 1)))
    sheet.arrow((small.right[0] + 5, small.right[1]), (column.x - 5, small.right[1]))
    top = 5 * side  # of the matrix: its last row ends where the column does
    sheet.text(4.5 * side, top - 14, "each window becomes a row", size=SMALL, role="muted")
    for k, (value, colour) in enumerate(zip(outputs, FOUR, strict=True)):
        sheet.cells(rows[k : k + 1], 0, top + k * side, side, colour)
        sheet.cells([[value]], 346, top + k * side, side, colour, wide=38)
    sheet.text(9 * side + 16, top + 2 * side, "×", size=18)
    sheet.text(column.right[0] + 17, top + 2 * side, "=", size=18)
    new = sheet.cells(outputs.reshape(2, 2), 346, 14, 32, [FOUR[:2], FOUR[2:]], np.full((2, 2), 0.4), wide=38)
    sheet.text(new.centre[0], -14, "new map", size=SMALL, role="muted")
    sheet.arrow((365, top - 4), (365, new.y + new.h + 5))
    return sheet.diagram(
        "im2col: a convolution as one matrix product",
        "The four 3x3 windows of a 4x4 image become the rows of a matrix. Times the kernel, written as a "
        f"column, they give the four outputs {', '.join(short_number(v) for v in outputs)}, folded into a "
        "2x2 map.",
    )


def autograd(w: float = 3, x: float = 2, b: float = 1, y: float = 5) -> Diagram:
    """The graph of the loss (w x + b - y)²: values go forward, gradients come backward."""
    given = {"w": w, "x": x, "b": b, "y": y}
    leaves = {name: torch.tensor(float(value), requires_grad=True) for name, value in given.items()}
    steps = {"×": leaves["w"] * leaves["x"]}
    steps["+"] = steps["×"] + leaves["b"]
    steps["−"] = steps["+"] - leaves["y"]
    steps["²"] = steps["−"] ** 2
    for value in steps.values():
        value.retain_grad()
    steps["²"].backward()
    loss_value = float(steps["²"].detach())
    sheet, back, r, line = Sheet(), "false_alarm", 17, 96.0
    xs = dict(zip(steps, (102, 187, 272, 357), strict=True))
    for sign, at in xs.items():
        sheet.circle(at, line, r, sign)

    def slope_of(value: Tensor) -> float:
        assert value.grad is not None  # there since backward()
        return float(value.grad)

    def edge(start: Point, end: Point, value: Tensor) -> None:
        """Two arrows beside each other, forward with the value and backward with its gradient."""
        (x0, y0), (x1, y1) = start, end
        upright = x0 == x1
        dx, dy = (-4, 0) if upright else (0, -4)
        sheet.arrow((x0 + dx, y0 + dy), (x1 + dx, y1 + dy))
        sheet.arrow((x1 - dx, y1 - dy), (x0 - dx, y0 - dy), role=back)
        mx, my = (x0 + x1) / 2, (y0 + y1) / 2
        grad = short_number(slope_of(value))
        if upright:
            sheet.text(mx - 11, my, short_number(float(value.detach())), anchor="end")
            sheet.text(mx + 11, my, grad, role=back, anchor="start")
        else:
            sheet.text(mx, my - 15, short_number(float(value.detach())))
            sheet.text(mx, my + 16, grad, role=back)

    def leaf(name: str, at: float, y: float) -> Point:
        box = sheet.box(at - 18, y - 15, 36, 30, name, "encoder" if name in "wb" else "grey")
        return box.right if y == line else (box.bottom if y < line else box.top)

    edge(leaf("w", xs["×"], 0), (xs["×"], line - r), leaves["w"])
    edge(leaf("x", 18, line), (xs["×"] - r, line), leaves["x"])
    edge(leaf("b", xs["+"], 0), (xs["+"], line - r), leaves["b"])
    edge(leaf("y", xs["−"], 0), (xs["−"], line - r), leaves["y"])
    for name, after in (("×", "+"), ("+", "−"), ("−", "²")):
        edge((xs[name] + r, line), (xs[after] - r, line), steps[name])
    loss = sheet.box(xs["²"] + r + 34, line - 15, 46, 30, "loss", "accent")
    edge((xs["²"] + r, line), loss.left, steps["²"])
    sheet.arrow((70, 160), (100, 160))
    sheet.text(108, 160, "forward: values", size=SMALL, anchor="start")
    sheet.arrow((270, 160), (240, 160), role=back)
    sheet.text(278, 160, "backward: gradients", size=SMALL, role=back, anchor="start")
    grads = ", ".join(f"{name} {short_number(slope_of(value))}" for name, value in leaves.items())
    return sheet.diagram(
        "Forward and backward through (w x + b − y)²",
        f"With w = {w:g}, x = {x:g}, b = {b:g} and y = {y:g} the loss is {loss_value:g}. Going back, each "
        f"operation multiplies the gradient that it gets by its own derivative. The gradients are: {grads}.",
    )


def descent(start: float = -1, rate: float = 0.5, steps: int = 1) -> Diagram:
    """Gradient descent on the loss (w − 2)² / 2 + 0.5: from `start`, `steps` steps at a learning rate."""
    path = [float(start)]
    for _ in range(steps):
        w = torch.tensor(path[-1], requires_grad=True)
        _bowl(w).backward()
        assert w.grad is not None
        path.append(path[-1] - rate * float(w.grad))
    far = max(3.4, *(abs(place - 2) for place in path)) * 1.06
    sheet, xs, ticks = Sheet(), torch.linspace(2 - far, 2 + far, 81), np.arange(np.ceil(2 - far), 2 + far)
    limits = (2 - far, 2 + far), (0, float(_bowl(xs).max()))
    plot = sheet.plot(30, 0, 390, 230, *limits, "weight w", "loss", ticks[:: max(1, round(far / 4))])
    sheet.curve(plot.points(xs, _bowl(xs)), "encoder")
    points = plot.points(path, _bowl(torch.tensor(path)))
    if steps == 1:
        (x0, y0), (x1, y1) = points
        slope, loss = path[0] - 2, float(_bowl(torch.tensor(path[0])))
        ends = [plot(path[0] + d, loss + d * slope) for d in (-0.4, 1)]
        sheet.line(*ends, role="false_alarm", dashed=True, width=1.8)
        words = f"slope {short_number(slope)}"
        sheet.text(ends[1][0] - 10, ends[1][1] + 8, words, role="false_alarm", anchor="end")
        sheet.arrow((x0, y0), (x1, y0), role="accent", width=2)
        sheet.line((x1, y0 + 5), (x1, y1 - 7), role="accent", dashed=True)
        words = f"step = −{short_number(rate)} × ({short_number(slope)}) = {short_number(-rate * slope)}"
        sheet.text(x1 + 12, y0, words, role="accent", anchor="start")
    else:
        sheet.line(*points, role="accent", width=1.8)
    sheet.dot(*points[0], hollow=True)
    for point in points[1:]:
        sheet.dot(*point, "accent")
    where = ", ".join(short_number(w) for w in path)
    return sheet.diagram(
        f"Gradient descent, learning rate {short_number(rate)}",
        "The loss is a bowl with its lowest point at w = 2. Each step goes against the slope, by the "
        f"learning rate times the slope. The weight goes through {where}.",
    )


def _bowl(w: Tensor) -> Tensor:
    return (w - 2) ** 2 / 2 + 0.5


def cone(layers: Sequence[tuple[int, int, int]] = ((3, 1, 1), (3, 1, 1), (2, 2, 1), (3, 1, 1))) -> Diagram:
    """What one output sees of a line of pixels, layer by layer: its receptive field.

    `layers` are (kernel, stride, dilation) each, the first reads the image.
    """
    seen = [{0}]  # from the output back to the image: the places that count, on each layer's own grid
    for kernel, stride, dilation in reversed(layers):
        seen.append({stride * place + dilation * tap for place in seen[-1] for tap in range(kernel)})
    seen.reverse()  # seen[0]: pixels of the image
    width = max(seen[0]) + 1
    sheet, side = Sheet(), min(30.0, 330 / (width + 2))
    jump, first, centres = 1, 0.0, []  # of a grid: pixels from place to place, and the centre of place 0
    for kernel, stride, dilation in ((1, 1, 1), *layers):
        first += jump * dilation * (kernel - 1) / 2
        jump *= stride
        centres.append((first, jump))
    levels, pitch = len(layers), 52.0
    for k, (first, jump) in enumerate(centres):
        y = (levels - k) * pitch
        if k:
            kernel, stride, dilation = layers[k - 1]
            below, step = centres[k - 1]
            for place in seen[k]:
                for tap in range(kernel):
                    start = (below + step * (stride * place + dilation * tap)) * side
                    end = (first + jump * place) * side
                    sheet.line((start, y + pitch - side / 2), (end, y + side / 2), role="skip", width=0.8)
            name = f"{kernel}×{kernel}" + (f", stride {stride}" if stride > 1 else "")
            name += f", dilation {dilation}" if dilation > 1 else ""
            right = (width - 0.3) * side + 12
            sheet.text(right, y + pitch / 2, name, size=SMALL, role="muted", anchor="start")
        margin = 1 if k < levels else 0
        for place in range(-margin, max(seen[k]) + 1 + margin):
            x = (first + jump * place) * side - side / 2
            if -1.6 * side <= x <= (width + 0.6) * side:
                role = "accent" if k == levels else ("encoder" if place in seen[k] else "grey")
                sheet.cells([[""]], x, y - side / 2, side, role, None if place in seen[k] else [[0]])
    sheet.text(centres[-1][0] * side + side / 2 + 10, 0, "one output", size=SMALL, anchor="start")
    y = levels * pitch + side / 2 + 9
    sheet.bracket((-side / 2, y), ((width - 0.5) * side, y))
    field = max(seen[0]) - min(seen[0]) + 1
    sheet.text((width - 1) / 2 * side, y + 15, f"receptive field: {field} pixels", size=SMALL)
    return sheet.diagram(
        f"A receptive field of {field} pixels",
        f"One output at the top, and below it what each of {len(layers)} layers reads to make it. Of the "
        f"image at the bottom it sees a field of {field} pixels"
        + (f", and uses {len(seen[0])} of them." if len(seen[0]) < field else "."),
    )


def norm_modes(values: Sequence[float] = (1, 3, 5, 7), momentum: float = 0.1) -> Diagram:
    """Batch norm in its two modes: by the mean and variance of the batch, and by those that were stored."""
    x = torch.tensor(values, dtype=torch.float32)[:, None]  # (B, 1)
    norm = nn.BatchNorm1d(1, momentum=momentum, affine=False)
    trained = norm(x)[:, 0]
    tested = norm.eval()(x)[:, 0]
    assert norm.running_mean is not None and norm.running_var is not None
    stored = float(norm.running_mean), float(norm.running_var)
    batch = float(x.mean()), float(x.var(unbiased=False))
    unbiased = float(x.var())  # what goes into the store
    sheet = Sheet()
    for y, colour, name, out, (mean, variance) in (
        (24.0, "decoder", "training", trained, batch),
        (254.0, "encoder", "evaluation", tested, stored),
    ):
        sheet.text(0, y - 20, name, role=colour, anchor="start", bold=True)
        given = sheet.cells([values], 0, y, 32, "grey", wide=28)
        box = sheet.box(152, y - 8, 112, 48, f"− {short_number(mean)}\n÷ √{short_number(variance)}", colour)
        shown = [f"{v:.1f}".replace("-", "−") for v in out.tolist()]
        made = sheet.cells([shown], 296, y, 32, colour, wide=38)
        sheet.arrow(given.right, box.left)
        sheet.arrow(box.right, made.left)
        if name == "training":
            sheet.arrow((56, y + 32), (56, y + 58), (208, y + 58), (208, y + 41))
            sheet.text(64, y + 72, "mean and variance of the batch", size=SMALL, anchor="start")
            bottom = y + 88
    words = f"mean {short_number(stored[0])}, variance {short_number(stored[1])}"
    store = sheet.box(92, bottom + 40, 232, 46, "stored", "accent", words)
    sheet.arrow((208, bottom - 6), store.top)
    old, new = short_number(1 - momentum), short_number(momentum)
    words = f"{old} · 0 + {new} · {short_number(batch[0])}\n{old} · 1 + {new} · {short_number(unbiased)}"
    sheet.text(218, bottom + 15, words, size=SMALL, anchor="start", role="muted")
    sheet.arrow(store.bottom, (208, 245))
    return sheet.diagram(
        "Batch norm in its two modes",
        f"In training the values {', '.join(map(short_number, values))} are normalised by their own mean "
        f"{batch[0]:.3g} and variance {batch[1]:.3g}. The store, which begins at 0 and 1, takes "
        f"{momentum:g} of the mean and of the variance with n - 1 in the divisor, {unbiased:.3g}. In "
        f"evaluation the same values are normalised by the stored mean {stored[0]:.3g} and variance "
        f"{stored[1]:.3g}, whatever else is in the batch.",
    )


def pools(image: Any = ODD) -> Diagram:
    """2x2 max-pooling of an odd map: rounded up it keeps the last row and column, rounded down not."""
    x = torch.tensor(np.asarray(image, float))[None, None]
    up, down = (F.max_pool2d(x, 2, ceil_mode=mode)[0, 0].numpy() for mode in (True, False))
    h, w = x.shape[-2:]
    sheet, side = Sheet(), 32.0

    def role(row: int, column: int) -> str:
        return "encoder" if row < h // 2 and column < w // 2 else "false_alarm"

    colours = [[role(r // 2, c // 2) for c in range(w)] for r in range(h)]
    given = sheet.cells(x[0, 0].numpy(), 0, 0, side, colours, np.full((h, w), 0.35))
    for r, c in np.ndindex(up.shape):
        tall, wide = min(2, h - 2 * r) * side, min(2, w - 2 * c) * side
        sheet.frame(2 * c * side, 2 * r * side, wide, tall, role(r, c), width=1.8)
    colours = [[role(r, c) for c in range(up.shape[1])] for r in range(up.shape[0])]
    x0, middle = given.w + 64, given.right[1]
    one = sheet.cells(up, x0, -34, side, colours, np.full(up.shape, 0.35))
    two = sheet.cells(down, x0, one.y + one.h + 36, side, "encoder")
    words = (f"ceil_mode=True\n{by(up.shape)}", f"ceil_mode=False\n{by(down.shape)}\nthe rest is dropped")
    for made, text, shift in ((one, words[0], -24), (two, words[1], 24)):
        sheet.arrow((given.w + 8, middle + shift), (x0 - 8, made.left[1]))
        sheet.text(made.right[0] + 10, made.left[1], text, size=SMALL, anchor="start")
    sheet.text(given.centre[0], h * side + 14, by((h, w)), size=SMALL, role="muted")
    return sheet.diagram(
        "Max-pooling of an odd map",
        f"A map of {by((h, w))} in windows of 2 × 2. Rounded up, the windows at the border are smaller and "
        f"the result has {by(up.shape)} values. Rounded down, the last row and column are dropped, and it "
        f"has {by(down.shape)}.",
    )


def bilinear(corners: Any = ((0, 16), (32, 48)), at: tuple[int, int] = (1, 2)) -> Diagram:
    """A 2x2 map resized to 4x4 (align_corners=False), and the weights behind one of its inner pixels."""
    small = torch.tensor(np.asarray(corners, float))[None, None]
    large = F.interpolate(small, size=(4, 4), mode="bilinear", align_corners=False)[0, 0].numpy()
    weights = np.zeros((2, 2))
    for r, c in np.ndindex(2, 2):
        one = torch.zeros_like(small)
        one[0, 0, r, c] = 1
        weights[r, c] = F.interpolate(one, size=(4, 4), mode="bilinear", align_corners=False)[0, 0][at]
    sheet, side = Sheet(), 44.0
    sheet.cells([[""] * 4] * 4, 0, 0, side, "grey", np.zeros((4, 4)))
    spot = sheet.box(at[1] * side, at[0] * side, side, side, "", "accent", width=2)
    terms = []
    for (r, c), weight in np.ndenumerate(weights):
        x, y = (2 * c + 1) * side, (2 * r + 1) * side
        sheet.frame(2 * c * side, 2 * r * side, 2 * side, 2 * side, "encoder", inset=1.5, width=1.4)
        sheet.line((x, y), spot.centre, role="encoder", width=0.8 + 4 * weight)
        sheet.dot(x, y, "encoder")
        terms.append(f"{short_number(float(small[0, 0, r, c]))} × {round(16 * weight)}/16")
        sheet.text(x, -13 if r == 0 else 4 * side + 14, terms[-1], size=SMALL)
    sheet.dot(*spot.centre, "accent")
    marked = np.full((4, 4), 0.12)
    marked[at] = 0.9
    roles = [["accent" if (r, c) == at else "encoder" for c in range(4)] for r in range(4)]
    out = sheet.cells(large, 4 * side + 54, 0, side, roles, marked)
    sheet.arrow((4 * side + 8, 2 * side), (out.x - 8, 2 * side))
    sheet.text(2 * side, 4 * side + 38, "2 × 2, and the new pixels", size=SMALL, role="muted")
    sheet.text(out.centre[0], 4 * side + 38, "4 × 4", size=SMALL, role="muted")
    return sheet.diagram(
        "Bilinear resizing from 2 × 2 to 4 × 4",
        "A new pixel is the mean of the four old ones around it, weighted by how near their centres are. "
        f"The marked one is {' + '.join(terms)} = {short_number(large[at])}.",
    )


def stamps(
    image: Any = ((1, 2), (3, 1)), kernel: Any = ((1, 2, 1), (2, 4, 2), (1, 2, 1)), count: int = 4
) -> Diagram:
    """A transposed convolution with stride 2: each value stamps the kernel, times itself, and stamps add up.

    `image` is (2, 2), `kernel` (3, 3); the first `count` stamps are laid.
    """
    image, kernel = np.asarray(image, float), np.asarray(kernel, float)
    laid = 1.0 * (np.arange(4).reshape(2, 2) < count)
    made, hits = (
        F.conv_transpose2d(torch.tensor(x)[None, None], torch.tensor(k)[None, None], stride=2)[0, 0].numpy()
        for x, k in ((image * laid, kernel), (laid, np.ones((3, 3))))
    )
    sheet, side = Sheet(), 40.0
    given = sheet.cells(image, 20, 0, 36, [FOUR[:2], FOUR[2:]], np.full((2, 2), 0.4))
    sheet.text(given.centre[0], -14, "input", size=SMALL, role="muted")
    stamp = sheet.cells(kernel, 2, 118, 36, "grey", kernel / (2.5 * kernel.max()))
    sheet.text(given.centre[0], 95, "×", size=18)
    sheet.text(stamp.centre[0], 118 + 108 + 14, "kernel", size=SMALL, role="muted")
    x0 = 190.0
    shown = [
        [value if n else "" for value, n in zip(*row, strict=True)] for row in zip(made, hits, strict=True)
    ]
    out = sheet.cells(shown, x0, 0, side, "grey", np.maximum(hits - 1, 0) / 4)
    for k in range(count):
        x, y = x0 + 2 * side * (k % 2), 2 * side * (k // 2)
        sheet.frame(x, y, 3 * side, 3 * side, FOUR[k], inset=2.5 + 2.4 * k)
    sheet.arrow((126, 100), (x0 - 12, 100))
    sheet.text(out.centre[0], -14, "output: the sum of the stamps", size=SMALL, role="muted")
    sheet.text(out.centre[0], 5 * side + 15, "grey: here stamps overlap", size=SMALL, role="muted")
    return sheet.diagram(
        "The stamps of a transposed convolution",
        f"Each of {count} input values is multiplied with the whole kernel of 3 x 3, and the products are "
        "laid on the output two pixels apart. Where stamps overlap they are added: the pixel in the "
        f"middle, on which {int(hits[2, 2])} lie, is {short_number(made[2, 2])}.",
    )


def block(seed: int = 0) -> Diagram:
    """Convolution, batch norm, ReLU: what each does to the values of a map, how many numbers it learns."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        made, x = ConvBlock(3, 8, bias=False), 1 + 3 * torch.rand(4, 3, 32, 32)
        maps = [x]
        for module in made:
            maps.append(module(maps[-1]))
    sheet, top, edges = Sheet(), 0.36, np.linspace(-3, 3, 31)
    names, roles = ("3×3 convolution", "batch norm", "ReLU"), ("encoder", "decoder", "accent")
    for k, (name, role, module) in enumerate(zip(names, roles, made, strict=True)):
        left, values = 154.0 * k, maps[k + 1][:, 0].numpy()
        box = sheet.box(left, 0, 128, 46, name, role, f"learns {parameters(module)}", size=SMALL)
        if k:
            sheet.arrow((left - 25, 23), box.left)
        plot = sheet.plot(left, 80, 128, 70, (-3, 3), (0, top), xticks=(-2, 0, 2))
        for low, share in zip(edges, np.histogram(values, edges)[0] / values.size, strict=False):
            (x0, y0), (x1, y1) = plot(low, min(share, top)), plot(low + 0.2, 0)
            sheet.bar(x0, y0, x1 - x0, y1 - y0, role, 0.55)
        if name == "ReLU":
            zeros = f"{(values == 0).mean():.0%} are 0"
            sheet.text(plot(0.35, 0)[0], 92, zeros, size=SMALL, anchor="start")
        words = f"mean {short_number(values.mean())}\ndeviation {short_number(values.std())}"
        sheet.text(left + 64, 192, words, size=SMALL, role="muted")
    return sheet.diagram(
        "A block: convolution, batch norm, ReLU",
        "Below each step a histogram of the values of one channel after it. The convolution leaves them "
        "anywhere, the norm gives them mean 0 and deviation 1, and ReLU sets those below zero to zero.",
    )
