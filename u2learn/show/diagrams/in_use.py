"""The drawn diagrams of part IV: what a layer waits for, a folded norm, and integers of few bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from u2learn.models.conv import ConvBlock
from u2learn.models.fast import folded
from u2learn.show.diagrams.sheet import SMALL, Diagram, Sheet
from u2learn.show.pictures import short_number

LAYERS = ((3, 64), (16, 16), (64, 16), (512, 512))


def roofline(
    arithmetic: float = 100e9, memory: float = 10e9, layers: Sequence[tuple[int, int]] = LAYERS
) -> Diagram:
    """What a machine allows: operations a second, by how many a layer makes for each byte that it moves.

    `arithmetic` is in operations, `memory` in bytes a second. `layers` are (channels in, channels out) of
    blocks of 3x3 convolution, norm and ReLU, each of which reads a map and writes one, in 32 bits.
    """
    reach = [18 * c * o / (4 * (c + o + 4 * o)) for c, o in layers]  # operations a byte
    low, high = 1.0, 1000.0
    floor, top = np.log10(memory * low), np.log10(arithmetic) + 0.35
    sheet = Sheet()
    plot = sheet.plot(
        44, 0, 380, 210, (np.log10(low), np.log10(high)), (floor, top), "", "billion operations a second"
    )
    for value in (1, 10, 100, 1000):
        at = plot(np.log10(value), floor)
        sheet.line(at, (at[0], at[1] + 4), role="muted", width=1)
        sheet.text(at[0], at[1] + 13, f"{value}", size=SMALL, role="muted")
    for power in range(int(np.ceil(floor)), int(top) + 1):
        at = plot(0, power)
        sheet.line(at, (at[0] - 4, at[1]), role="muted", width=1)
        sheet.text(at[0] - 8, at[1], f"{10 ** (power - 9):g}", size=SMALL, role="muted", anchor="end")
    sheet.text(234, 240, "operations for each byte", size=SMALL, role="muted")
    ridge = np.log10(arithmetic / memory)
    corner = plot(ridge, np.log10(arithmetic))
    start, end = plot(0, floor), plot(np.log10(high), np.log10(arithmetic))
    sheet.area([start, corner, (corner[0], start[1])], "encoder", 0.16)
    sheet.area([(corner[0], start[1]), corner, end, (end[0], start[1])], "accent", 0.16)
    sheet.curve([start, corner, end])
    sheet.text(corner[0] - 10, start[1] - 24, "waits for\nmemory", size=SMALL, anchor="end")
    sheet.text(end[0] - 10, start[1] - 24, "waits for\narithmetic", size=SMALL, anchor="end")
    for k, ((c, o), operations) in enumerate(zip(layers, reach, strict=True)):
        x, y = plot(np.log10(operations), np.log10(min(arithmetic, operations * memory)))
        sheet.dot(x, y, "false_alarm", 5)
        flat = operations > arithmetic / memory
        above = -15 if k % 2 else 17
        sheet.text(
            x + (0 if flat else 10),
            y + (above if flat else 12),
            f"{c} → {o}",
            size=SMALL,
            anchor="middle" if flat else "start",
        )
    return sheet.diagram(
        "The roofline",
        f"A machine of {arithmetic / 1e9:g} billion operations and {memory / 1e9:g} GB a second. Left of "
        f"{arithmetic / memory:g} operations a byte a layer waits for memory, right of it for arithmetic. "
        "Dots are blocks, with their channels in and out: "
        + ", ".join(f"{c} to {o} makes {r:.0f}" for (c, o), r in zip(layers, reach, strict=True))
        + " operations a byte.",
    )


def folding(
    weight: Sequence[float] = (1, 2, -1),
    bias: float = 0.5,
    norm: tuple[float, float, float, float] = (2, 4, 3, 1),
    values: Sequence[float] = (2, 1, 3),
) -> Diagram:
    """A batch norm folded into the convolution before it: other weights, the same result.

    `norm` is its mean, variance, γ and β.
    """
    mean, variance, gamma, beta = norm
    with torch.random.fork_rng(), torch.no_grad():
        block = ConvBlock(len(weight), 1, kernel=1).eval()
        scalars = {"conv.bias": bias, "norm.running_mean": mean, "norm.weight": gamma, "norm.bias": beta}
        scalars["norm.running_var"] = variance - block.norm.eps
        tensors = {name: torch.tensor([value]) for name, value in scalars.items()}
        tensors["conv.weight"] = torch.tensor(weight).reshape(1, -1, 1, 1)
        block.load_state_dict(tensors, strict=False)  # all but the count of batches
        made = folded(block)
        x = torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
        between, after, once = (
            float(f(x)) for f in (block.conv, nn.Sequential(block.conv, block.norm), made)
        )
    assert made.bias is not None
    new, plus = made.weight.flatten().tolist(), float(made.bias)
    sheet, wide, y = Sheet(), 40.0, 92.0
    size = len(weight) * wide
    scale = gamma / variance**0.5
    for top, name, numbers, number in (
        (0.0, "convolution", weight, bias),
        (y + 72, "folded convolution", new, plus),
    ):
        colour = "encoder" if not top else "accent"
        sheet.text(70 + size / 2, top - 14, name, size=SMALL, role=colour)
        sheet.cells([numbers], 70, top, 34, colour, wide=wide)
        sheet.text(70 + size + 10, top + 17, f"+ {short_number(number)}".replace("+ −", "− "), anchor="start")
        given = sheet.text(28, top + 17, "x")
        sheet.arrow((given.x + given.w + 4, top + 17), (66, top + 17))
    norm_box = sheet.box(
        276,
        -9,
        110,
        52,
        f"− {short_number(mean)}   ÷ √{short_number(variance)}\n× {short_number(gamma)}   + "
        f"{short_number(beta)}",
        "decoder",
        size=SMALL,
    )
    sheet.text(331, -23, "batch norm", size=SMALL, role="decoder")
    sheet.arrow((244, 17), norm_box.left)
    sheet.arrow(norm_box.right, (416, 17))
    sheet.text(258, 3, short_number(between), size=SMALL, role="muted")
    sheet.text(436, 17, short_number(after), bold=True)
    sheet.arrow((262, y + 89), (416, y + 89))
    sheet.text(436, y + 89, short_number(once), bold=True)
    s = short_number(scale)
    sheet.arrow((130, 40), (130, y + 44), role="muted")
    moved = f"({short_number(bias)} − {short_number(mean)}) × {s} + {short_number(beta)}"
    words = f"weights × γ/σ = × {s}\nbias: {moved}"
    sheet.text(142, 75, words, size=SMALL, anchor="start")
    sheet.text(
        0,
        y + 130,
        f"numbers for x = ({', '.join(map(short_number, values))})",
        size=SMALL,
        role="muted",
        anchor="start",
    )
    return sheet.diagram(
        "A norm folded into a convolution",
        f"A convolution with weights {', '.join(map(short_number, weight))} and bias {short_number(bias)}, "
        f"then a batch norm with mean {short_number(mean)}, variance {short_number(variance)}, γ "
        f"{short_number(gamma)} and β {short_number(beta)}, gives {short_number(after)}. One convolution "
        f"with weights {', '.join(map(short_number, new))} and bias {short_number(plus)} gives "
        f"{short_number(once)}.",
    )


def integers(
    low: float = -1, high: float = 3, bits: int = 4, values: Sequence[float] = (-0.8, 0.3, 1.0, 2.45)
) -> Diagram:
    """Numbers as integers of few bits: the scale, the zero point, and the rounding error of some `values`."""
    levels = 2**bits - 1
    scale = (high - low) / levels
    zero = round(-low / scale)
    given = np.asarray(values, float)
    stored = np.clip(np.round(given / scale) + zero, 0, levels).astype(int)
    back = (stored - zero) * scale
    sheet, wide = Sheet(), 420.0
    first, last = (0 - zero) * scale, (levels - zero) * scale

    def at(value: float) -> float:
        return wide * (value - first) / (last - first)

    top, line = 40.0, 120.0
    sheet.line((-8, top), (wide + 8, top))
    for tick in range(int(np.ceil(low)), int(high) + 1):
        sheet.line((at(tick), top - 5), (at(tick), top), role="muted")
    sheet.text(-6, 0, "numbers", size=SMALL, role="muted", anchor="start")
    for q in range(levels + 1):
        x, mark = at((q - zero) * scale), q == zero
        sheet.line((x, line - 5), (x, line + 5), role="accent" if mark else "muted", width=2.4 if mark else 1)
        if q % 5 == 0 or mark:
            sheet.text(x, line + 18, f"{q}", size=SMALL, role="accent" if mark else "muted")
    sheet.line((-8, line), (wide + 8, line))
    sheet.text(-6, line - 16, f"{bits} bits", size=SMALL, role="muted", anchor="start")
    for value, q in zip(given, stored, strict=True):
        x0, x1 = at(value), at((q - zero) * scale)
        sheet.dot(x0, top, "encoder")
        sheet.arrow((x0, top + 8), (x1, line - 8), role="encoder")
        sheet.text(x0, top - 17, short_number(value), size=SMALL)
    sheet.text(-6, line + 46, "number → integer → number", size=SMALL, role="muted", anchor="start")
    sheet.text(wide, line + 46, f"zero point {zero}", size=SMALL, role="accent", anchor="end")
    sheet.text(wide, line + 68, f"scale {scale:.3f}", size=SMALL, anchor="end")
    for k, (v, q, b) in enumerate(zip(given, stored, back, strict=True)):
        words = f"{short_number(v)} → {q} → {short_number(b)}"
        sheet.text(-6, line + 46 + 22 * (k + 1), words, size=SMALL, anchor="start")
    return sheet.diagram(
        f"Numbers as integers of {bits} bits",
        f"The numbers from {low:g} to {high:g} are stored as integers from 0 to {levels}: divided by the "
        f"scale {scale:.3f}, rounded, and moved by the zero point {zero}, so that 0 is exact. Read back, "
        + ", ".join(f"{v:g} is {b:.2f}" for v, b in zip(given, back, strict=True))
        + ".",
    )
