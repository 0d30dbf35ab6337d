"""The diagrams of part II: the U, its joins, labels, losses, scores and windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from u2learn.data.drawn.retina import fundus
from u2learn.inference import window_starts
from u2learn.losses import cross_entropy, dice_paddle2021
from u2learn.metrics.overlap import scores
from u2learn.models.conv import ConvBlock
from u2learn.models.heads import ASPP, PyramidPooling, aspp_head, fcn_head, psp_head
from u2learn.models.ulevel import ResizeConvJoin, ResizeJoin, ULevel, UpConvCropJoin
from u2learn.models.unet import unet_small
from u2learn.pixels import IGNORE, Size
from u2learn.show.diagrams.sheet import SMALL, Diagram, Sheet, by
from u2learn.show.module_tree import run


@dataclass(frozen=True)
class Call:
    """One line of `ULevel.forward` as it is carried out: on which level, what, and the map that it gives."""

    level: int
    name: str
    shape: tuple[int, ...]


def calls(model: nn.Module, size: Size) -> list[Call]:
    """What the first U of a model calls, in order, for an image of `size` (H, W)."""
    top = next((m for m in model.modules() if isinstance(m, ULevel)), None)
    if top is None:
        raise ValueError(f"Only a U can be unfolded, and {type(model).__name__} has no ULevel.")
    record = run(model, size)
    found: list[Call] = []

    def note(level: int, name: str, module: nn.Module) -> None:
        out = record[module][1]
        found.append(Call(level, name, tuple((out[0] if isinstance(out, list) else out).shape[1:])))

    def walk(node: nn.Module, level: int) -> None:
        if not isinstance(node, ULevel):
            return note(level, "inner", node)
        note(level, "encode", node.encode)
        note(level, "down", node.down)
        walk(node.inner, level + 1)
        note(level, "join", node.join)
        note(level, "decode", node.decode)

    walk(top, 0)
    return found


WORDS = {
    "encode": ("skip = encode(x)", "encoder"),
    "down": ("down(skip)", "encoder"),
    "inner": ("inner(x)", "bottleneck"),
    "join": ("join(deep, skip)", "skip"),
    "decode": ("decode(joined)", "decoder"),
}


def unfolded(model: nn.Module | None = None, size: Size = (96, 96), step: int | None = None) -> Diagram:
    """`ULevel.forward` call by call: each level is a box, and `inner` is the next box inside of it.

    By default the U of `unet_small()`. With `step` the calls after that one, from 0, are pale.

    Raises:
        ValueError: the model has no ULevel.
    """
    return _unfolded(calls(model or _small(), size), step)


def unfolding(model: nn.Module | None = None, size: Size = (96, 96)) -> list[Diagram]:
    """`unfolded` at each of its steps, for `show.explore`."""
    made = calls(model or _small(), size)
    return [_unfolded(made, step) for step in range(len(made))]


def _small() -> nn.Module:
    with torch.device("meta"):  # only its shapes are asked for, and no random number is drawn
        return unet_small()


def _unfolded(made: list[Call], step: int | None) -> Diagram:
    sheet, row, wide, inset, y = Sheet(), 27.0, 430.0, 20.0, 0.0
    last = len(made) - 1 if step is None else step
    tops: dict[int, float] = {}  # of each level: the upper edge of its box, and the height of its skip
    skips: dict[int, float] = {}
    for i, call in enumerate(made):
        x, right = call.level * inset, wide - call.level * inset / 2
        with sheet.faded(1 if i <= last else 0.3):
            if call.name == "encode":
                tops[call.level] = y
                sheet.text(
                    x + 26, y + 15, f"level {call.level + 1}", size=SMALL, role="muted", anchor="start"
                )
                y += row
            elif call.name == "inner":
                y += 6
            (words, role), middle = WORDS[call.name], y + row / 2
            box = sheet.box(
                x + 26, y + 2, right - x - 34, row - 4, role=role, width=2.6 if i == step else 0.7
            )
            sheet.text(x + 34, middle, words, size=SMALL, anchor="start", mono=True)
            sheet.text(right - 14, middle, by(call.shape), size=SMALL, anchor="end")
            if call.name == "encode":
                skips[call.level] = middle
            elif call.name == "join":
                start = skips[call.level]
                sheet.arrow((box.x, start), (x + 13, start), (x + 13, middle), box.left, role="encoder")
        y += row + {"down": 4, "inner": 10}.get(call.name, 0)
        if call.name == "decode":
            sheet.box(x, tops[call.level], right - x, y - tops[call.level] + 6, tint=False, width=1)
            y += 12
    depth = max(call.level for call in made)
    where = (
        "" if step is None else f" Shown up to {WORDS[made[last].name][0]} on level {made[last].level + 1}."
    )
    return sheet.diagram(
        "ULevel unfolded, call by call",
        f"{depth} levels, each a box in the box before. On each level the map is encoded and kept as skip, "
        "goes one scale down through all that is inside, comes back, is joined with the skip and decoded. "
        f"Shapes are channels × height × width.{where}",
    )


def joins(deep: int = 128, skip: int = 64) -> Diagram:
    """The joins of four families: how the deep map and the skip become one."""
    low, high = (28, 28), (64, 64)
    sheet = Sheet()
    with torch.device("meta"):  # only shapes are asked for
        crop, plain, mixed = UpConvCropJoin(deep, deep // 2), ResizeJoin(), ResizeConvJoin(deep, deep // 2)
    double = (low[0] * 2, low[1] * 2)
    four = (
        ("U-Net, 2015", crop, low, "transposed\nconv 2×2", f"crop to\n{by(double)}"),
        ("PaddleSeg, U²-Net", plain, (32, 32), "resize", ""),
        ("OpenMMLab", mixed, (32, 32), "resize, then\n1×1 block", ""),
        ("W-Net", None, high, "", ""),
    )
    for k, (name, join, small, left, right) in enumerate(four):
        x, y = 226.0 * (k % 2), 250.0 * (k // 2)
        sheet.text(x + 104, y, name, bold=True)
        if join is None:
            inputs = ((3, high, "image"), (2, high, "first output"))
            parts, size = (3, 2), high
        else:
            with torch.device("meta"):
                out = join(torch.empty(1, deep, *small), torch.empty(1, skip, *high))
            parts, size = (out.shape[1] - skip, skip), tuple(out.shape[-2:])
            inputs = ((deep, small, "deep map"), (skip, high, "skip"))
        for side, ((channels, shape, words), step) in enumerate(zip(inputs, (left, right), strict=True)):
            role = ("decoder", "encoder")[side]
            at = x + 108 * side
            box = sheet.box(at, y + 16, 100, 58, words, role, f"{channels}, {by(shape)}", size=SMALL)
            end = y + 164
            if step:
                op = sheet.box(at + 1, y + 94, 98, 44, step, "grey", size=SMALL)
                sheet.arrow(box.bottom, op.top)
                sheet.arrow(op.bottom, (op.bottom[0], end))
            else:
                sheet.arrow(box.bottom, (box.bottom[0], end))
        share = 208 * parts[0] / sum(parts)
        sheet.box(x, y + 164, share, 30, f"{parts[0]}", "decoder")
        sheet.box(x + share, y + 164, 208 - share, 30, f"{parts[1]}", "encoder")
        sheet.text(x + 104, y + 208, f"{sum(parts)}, {by(size)}", size=SMALL, role="muted")
    return sheet.diagram(
        "Four ways to join",
        f"A deep map of {deep} channels and a skip of {skip} become one map. The 2015 net goes up by a "
        "transposed convolution and crops the skip; PaddleSeg and U²-Net resize the deep map and stack; "
        "OpenMMLab halves its channels before it stacks. The second net of a W-Net reads the image "
        "stacked with the first net's logits.",
    )


def crop_rule(seed: int = 3, side: int = 120, window: int = 14) -> Diagram:
    """The rule of 75 %: a training window is drawn again while one class covers three quarters of it or more.

    The vessels are those of the drawn eye `seed`, `side` pixels wide; windows are `window` pixels wide.
    """
    label = fundus(seed, (side, side)).label == 1
    vessel = F.avg_pool2d(torch.tensor(label, dtype=torch.float32)[None, None], window, 1)[0, 0].numpy()
    order = np.argsort(vessel, axis=None)
    places: list[tuple[int, int]] = []
    for rank in (1, 0.93, 0.75, 0.6):  # from much vessel to hardly any, and apart from each other
        for index in order[int(rank * (len(order) - 1)) :: -1]:
            y, x = (int(i) for i in np.unravel_index(index, vessel.shape))
            if all(abs(y - b) > window * 1.3 for b, _ in places):
                places.append((y, x))
                break
    sheet, pixel, words = Sheet(), 2.5, []
    sheet.mask(label, 0, 0, pixel, "ink", 0.6)
    sheet.box(0, 0, side * pixel, side * pixel, tint=False, width=1)
    for k, (y, x) in enumerate(sorted(places)):
        background = 1 - float(vessel[y, x])
        kept = background < 0.75
        role = "decoder" if kept else "false_alarm"
        box = sheet.box(x * pixel, y * pixel, window * pixel, window * pixel, role=role, width=2.2)
        note = sheet.box(
            322, 22 + 68 * k, 112, 46, f"{background:.0%}", role, "keep" if kept else "draw again"
        )
        sheet.line(box.right, note.left, role=role, width=1)
        words.append(f"{background:.0%} {'is kept' if kept else 'is drawn again'}")
    sheet.text(378, 6, "background", size=SMALL, role="muted")
    return sheet.diagram(
        "Cropping, and the rule of 75 %",
        "Windows on a map of vessels, with their share of background. A window of which one class covers "
        f"75 % or more is drawn again, at most ten times: {', '.join(words)}.",
    )


GREY_FILE = [[0, 0, 255, 0], [0, 255, 255, 0], [255, 255, 0, 0]]
COLOUR_FILE = [
    ["red", "red", "grey", "grey"],
    ["red", "blue", "blue", "grey"],
    ["black", "blue", "blue", "grey"],
]
MEANING = {"grey": 0, "red": 1, "blue": 2, "black": IGNORE}


def mask_files(
    grey: Any = GREY_FILE, colours: Any = COLOUR_FILE, meaning: dict[str, int] = MEANING
) -> Diagram:
    """From mask files to label maps: 0 and 255 become the classes 0 and 1, colours become ids by a table."""
    ids = [[1 if value > 127 else 0 for value in row] for row in grey]
    classes = [[meaning[name] for name in row] for row in colours]
    roles = {"grey": "grey", "red": "false_alarm", "blue": "encoder", "black": "ink"}
    sheet, side, wide = Sheet(), 30.0, 42.0
    h = len(grey) * side
    sheet.text(2 * wide, -14, "in the file", size=SMALL, role="muted")
    sheet.text(278 + 2 * wide, -14, "label map", size=SMALL, role="muted")
    for y, given, made, table in (
        (0.0, grey, ids, {"0": 0, "255": 1}),
        (h + 34, colours, classes, meaning),
    ):
        colour = [[roles.get(v, "ink" if v else "grey") for v in row] for row in given]
        strong = [[0.3 if v == 0 or v == "grey" else 0.9 for v in row] for row in given]
        one = sheet.cells(given, 0, y, side, colour, np.asarray(strong) * 0.8, wide=wide, size=SMALL)
        names = [
            ["bottleneck" if v == IGNORE else ("grey", "accent", "encoder")[v] for v in row] for row in made
        ]
        two = sheet.cells(made, 278, y, side, names, np.where(np.asarray(made) > 0, 0.6, 0.15), wide=wide)
        sheet.arrow((one.right[0] + 8, y + h / 2), (two.x - 8, y + h / 2))
        for k, (value, number) in enumerate(table.items()):
            at = y + h / 2 + 19 * (k - (len(table) - 1) / 2) + (10 if k >= len(table) / 2 else -10)
            sheet.text(223, at, f"{value} → {number}", size=SMALL)
    sheet.text(278 + 2 * wide, 2 * h + 34 + 16, f"{IGNORE}: ignored", size=SMALL, role="bottleneck")
    return sheet.diagram(
        "From mask files to label maps",
        "A file of two classes holds the greys 0 and 255; the label map holds the class ids 0 and 1. A "
        "file of colours is read with a table that says what each colour means: "
        + ", ".join(f"{name} is {number}" for name, number in meaning.items())
        + f". Pixels of {IGNORE} are not counted.",
    )


def one_pixel(pixels: int = 20, vessel: int = 4) -> Diagram:
    """Cross-entropy and Dice of one vessel pixel, over its probability: the loss, and its pull on the logit.

    The other pixels, of which `vessel` - 1 are vessel, are right and sure. Both are drawn as shares of their
    largest.
    """
    label = torch.zeros(1, 1, pixels, dtype=torch.long)
    label[..., :vessel] = 1
    sure = torch.where(label == 1, 12.0, -12.0)
    p = np.linspace(0.005, 0.995, 100)
    found: dict[str, list[tuple[float, float]]] = {"cross-entropy": [], "Dice": []}
    for name, loss in (("cross-entropy", cross_entropy), ("Dice", dice_paddle2021)):
        for x in torch.logit(torch.tensor(p, dtype=torch.float32)):
            logit = x.clone().requires_grad_()
            vessels = torch.cat([logit.reshape(1, 1, 1), sure[..., 1:]], dim=2)  # (1, 1, N)
            value = loss(torch.stack([torch.zeros_like(vessels), vessels], 1), label)
            (pull,) = torch.autograd.grad(value, logit)
            found[name].append((float(value.detach()), -float(pull)))
    sheet = Sheet()
    for k, title in enumerate(("loss", "pull on the logit")):
        plot = sheet.plot(
            26 + 228 * k, 0, 190, 150, (0, 1), (0, 1.05), "probability of vessel", title, (0, 0.5, 1), (0, 1)
        )
        for name, role in (("cross-entropy", "encoder"), ("Dice", "false_alarm")):
            values = np.asarray(found[name])[:, k]
            sheet.curve(plot.points(p, values / values.max()), role)
    for k, (name, role) in enumerate((("cross-entropy", "encoder"), ("Dice", "false_alarm"))):
        sheet.line((110 + 140 * k, 204), (134 + 140 * k, 204), role=role, width=2.2)
        sheet.text(140 + 140 * k, 204, name, size=SMALL, role=role, anchor="start")
    return sheet.diagram(
        "One vessel pixel under cross-entropy and Dice",
        f"One of {vessel} vessel pixels among {pixels}; all others are right. On the left both losses, on "
        "the right their gradient with respect to the pixel's logit, each as a share of its largest. "
        "Where the network is sure of the wrong answer, cross-entropy pulls hardest and Dice hardly at "
        "all.",
    )


def two_curves(best: int = 55, length: int = 120) -> Diagram:
    """Schematic curves of a training: the training loss falls, the validation loss falls and rises again."""
    t = np.linspace(0, length, 121)
    train = 0.08 + 0.85 * np.exp(-t / (0.35 * length))
    falls = 0.85 / (0.35 * length) * np.exp(-best / (0.35 * length))  # as fast as this at the best step
    val = train + 0.03 + falls * t  # and there the gap grows as fast
    low = int(np.argmin(val))
    sheet = Sheet()
    plot = sheet.plot(30, 0, 300, 190, (0, length), (0, 1.02), "training step", "loss")
    at = plot(t[low], 0)[0]
    sheet.area([plot(0, 0), plot(0, 1), plot(t[low], 1), plot(t[low], 0)], "decoder", 0.1)
    sheet.area([plot(t[low], 0), plot(t[low], 1), plot(length, 1), plot(length, 0)], "false_alarm", 0.1)
    sheet.curve(plot.points(t, train), "encoder")
    sheet.curve(plot.points(t, val), "false_alarm")
    sheet.line((at, plot(0, 1)[1]), (at, plot(0, 0)[1]), dashed=True, role="muted")
    sheet.dot(*plot(t[low], val[low]), "false_alarm")
    sheet.text(at + 8, plot(0, 0.93)[1], "keep these weights", size=SMALL, anchor="start")
    sheet.text(340, plot(0, val[-1])[1], "validation", size=SMALL, role="false_alarm", anchor="start")
    sheet.text(340, plot(0, train[-1])[1], "training", size=SMALL, role="encoder", anchor="start")
    x, (top, bottom) = plot(0.93 * length, 0)[0], (plot(0, v[int(0.93 * 120)])[1] for v in (val, train))
    sheet.line((x, top + 4), (x, bottom - 4), role="muted", width=1)
    sheet.text(x - 6, (top + bottom) / 2, "gap", size=SMALL, role="muted", anchor="end")
    return sheet.diagram(
        "Training and validation loss (schematic)",
        "The loss on the training images falls all the time. That on the validation images falls at "
        "first, has a lowest point, and rises again while the network learns the training images by "
        "heart. Early stopping keeps the weights of the lowest point.",
    )


COUNTS = {"TP": "encoder", "FN": "accent", "FP": "false_alarm"}  # and their colours


def confusion_areas(tp: int = 60, fn: int = 20, fp: int = 40, tn: int = 480) -> Diagram:
    """The four counts of a two-class prediction as areas, and the scores as shares of them."""
    total = tp + fn + fp + tn
    found = scores(torch.tensor([[tn, fp], [fn, tp]]))
    counts = {"FN": fn, "TP": tp, "FP": fp}
    sheet, wide, high, tall = Sheet(), 290.0, 150.0, 62.0
    sheet.box(0, 0, wide, high, tint=False, width=1)
    x, y, boxes = 46.0, (high - tall) / 2, {}
    for name, count in counts.items():
        area = sheet.box(x, y, count / total * wide * high / tall, tall, role=COUNTS[name], width=1)
        sheet.text(*area.centre, f"{name}\n{count}", size=SMALL)
        x, boxes[name] = area.x + area.w, area
    sheet.text((x + wide) / 2, high / 2, f"TN\n{tn}", size=SMALL)
    for name, first, last, low, up in (
        ("label", "FN", "TP", y - 4, -1),
        ("prediction", "TP", "FP", y + tall + 4, 1),
    ):
        start, end = boxes[first].x, boxes[last].x + boxes[last].w
        sheet.bracket((start, low), (end, low), 6 * up)
        sheet.text((start + end) / 2, low + 14 * up, name, size=SMALL)
    rows = {
        "precision": (["TP", "FP"], found["precision"]),
        "recall": (["TP", "FN"], found["sensitivity"]),
        "IoU": (["TP", "FN", "FP"], found["iou"]),
        "Dice": (["TP", "TP", "FN", "FP"], found["dice"]),
    }
    scale = 230 / (2 * tp + fn + fp)
    for k, (score, (parts, value)) in enumerate(rows.items()):
        at, x = high + 26 + 34 * k, 92.0
        sheet.text(82, at + 12, score, anchor="end")
        sheet.line((x, at + 27), (x + parts.count("TP") * tp * scale, at + 27), width=2)
        for name in parts:
            sheet.bar(x, at, counts[name] * scale, 24, COUNTS[name])
            sheet.text(x + counts[name] * scale / 2, at + 12, name, size=SMALL)
            x += counts[name] * scale
        sheet.text(x + 10, at + 12, f"{value:.2f}", anchor="start")
    return sheet.diagram(
        "Hits, misses and false alarms as areas",
        f"Of {total} pixels {tp} are hits (TP), {fn} missed (FN), {fp} false alarms (FP) and {tn} "
        "background that was left alone (TN). Below, each score as the share of its bar that is hits: "
        f"precision {found['precision']:.2f}, recall {found['sensitivity']:.2f}, IoU {found['iou']:.2f}, "
        f"and Dice, which counts the hits twice, {found['dice']:.2f}.",
    )


def regions(
    inside: Sequence[int] = (700, 300, 200, 6800), outside: Sequence[int] = (0, 0, 50, 2950)
) -> Diagram:
    """The same prediction scored over the whole image and in the field of view: which scores change.

    Both are counts (TP, FN, FP, TN); `outside` are those beyond the field.
    """
    counts = {"field of view": np.asarray(inside), "full image": np.asarray(inside) + np.asarray(outside)}
    sheet = Sheet()
    for k, (name, (tp, fn, fp, tn)) in enumerate(counts.items()):
        x, found = 222.0 * k, scores(torch.tensor([[tn, fp], [fn, tp]]))
        sheet.text(x + 100, -14, name, bold=True)
        sheet.box(x + 30, 4, 140, 128, role="encoder", tint=bool(k), width=1)
        sheet.circle(x + 100, 68, 58, "", "encoder", tint=not k)
        sheet.text(x + 100, 68, "all counted" if k else "counted", size=SMALL)
        rows = [("pixels", f"{tp + fn + fp + tn:,}"), ("accuracy", f"{found['accuracy']:.3f}")]
        rows += [("specificity", f"{found['specificity']:.3f}"), ("Dice", f"{found['dice']:.3f}")]
        for i, (word, value) in enumerate(rows):
            sheet.text(x + 22, 156 + 22 * i, word, size=SMALL, anchor="start", role="muted")
            sheet.text(x + 178, 156 + 22 * i, value, size=SMALL, anchor="end")
    return sheet.diagram(
        "Two regions, two sets of scores",
        "The same prediction, scored in the field of view and over the full image. The dark corners are "
        "easy background: they raise accuracy and specificity. They change Dice only by what is marked "
        "there wrongly.",
    )


def pooling(images: Sequence[Sequence[int]] = ((900, 100, 100), (30, 30, 40))) -> Diagram:
    """Dice as the mean over images, and of the totals: `images` are counts (TP, FN, FP) each."""
    together = np.sum(images, 0)
    *dice, total = (2 * tp / (2 * tp + fn + fp) for tp, fn, fp in (*images, together))
    sheet, scale = Sheet(), 250 / (together[0] + together.sum())
    names = [*(f"image {i + 1}" for i in range(len(images))), "together"]
    for k, (name, (tp, fn, fp), value) in enumerate(
        zip(names, (*images, together), (*dice, total), strict=True)
    ):
        last = name == "together"
        at, x = 40.0 * k + 14 * last, 84.0
        sheet.text(74, at + 13, name, anchor="end", bold=last)
        for count, role in zip((2 * tp, fn, fp), COUNTS.values(), strict=True):
            sheet.bar(x, at, count * scale, 26, role)
            x += count * scale
        sheet.text(x + 10, at + 13, f"Dice {value:.2f}", anchor="start")
    low, mean = 40.0 * len(images) + 62, float(np.mean(dice))
    sheet.text(84, low, f"mean over the images: {mean:.2f}", anchor="start", role="decoder")
    sheet.text(84, low + 24, f"from the totals: {total:.2f}", anchor="start", role="decoder")
    for k, (name, role) in enumerate(COUNTS.items()):
        sheet.bar(84 + 70 * k, low + 46, 16, 14, role)
        words = "2 TP" if name == "TP" else name
        sheet.text(106 + 70 * k, low + 53, words, size=SMALL, anchor="start", role="muted")
    return sheet.diagram(
        "Two ways of pooling",
        f"Dice of {len(images)} images: {', '.join(f'{d:.2f}' for d in dice)}. Their mean is {mean:.2f}, "
        f"as each image counts the same. From the totals of all pixels it is {total:.2f}, as an image with "
        "more vessels counts more.",
    )


def window_grid(size: Size = (10, 13), window: int = 6, stride: int = 4) -> Diagram:
    """The sliding window: where windows lie, and over how many of them each pixel's logits are averaged."""
    starts = [window_starts(side, window, stride) for side in size]
    hits = np.zeros(size, int)
    for y in starts[0]:
        for x in starts[1]:
            hits[y : y + window, x : x + window] += 1
    sheet, side = Sheet(), 29.0
    sheet.cells(hits, 0, 0, side, "encoder", (hits - 1) / max(hits.max() - 1, 1) * 0.9)
    shown = [(starts[0][0], starts[1][0]), (starts[0][0], starts[1][1]), (starts[0][-1], starts[1][-1])]
    for role, (y, x) in zip(("accent", "decoder", "false_alarm"), shown, strict=True):
        sheet.frame(x * side, y * side, window * side, window * side, role, width=2.6)
    count = len(starts[0]) * len(starts[1])
    x0, x1 = starts[1][0] * side, starts[1][1] * side
    sheet.arrow((x0, -12), (x1, -12))
    sheet.text((x0 + x1) / 2, -25, f"stride {stride}", size=SMALL)
    low = size[0] * side
    sheet.bracket((x0, low + 6), (x0 + window * side, low + 6))
    sheet.text(x0 + window * side / 2, low + 21, f"window {window}", size=SMALL)
    if starts[1][-1] != (len(starts[1]) - 1) * stride:
        words = "moved back to the border"
        sheet.text(size[1] * side, low + 14, words, size=SMALL, anchor="end", role="false_alarm")
    sheet.text(0, low + 46, "in a pixel: how many windows see it", size=SMALL, anchor="start", role="muted")
    return sheet.diagram(
        "A sliding window",
        f"{count} windows of {by((window, window))} on an image of {by(size)}, {stride} pixels apart; "
        " the first two and the last are drawn. The number in a pixel says how many windows see it, "
        f"1 to {hits.max()}: its logits are the mean over these.",
    )


def three_heads(channels: int = 64, num_classes: int = 2) -> Diagram:
    """FCN, PSP and ASPP heads: what of a map of `channels` reaches the classifier."""
    with torch.device("meta"):  # only shapes are asked for
        heads = {
            "FCN": fcn_head(channels, 64, num_classes),
            "PSP": psp_head(channels, 16, num_classes),
            "ASPP": aspp_head(channels, 16, num_classes),
        }
    sheet, y, words = Sheet(), 0.0, []
    for name, head in heads.items():
        block = next(m for m in head if isinstance(m, ConvBlock))
        branches = _branches(head[0], channels)
        high = max(46.0, 27.0 * len(branches))
        middle = y + high / 2
        sheet.text(0, middle, name, anchor="start", bold=True)
        given = stack = sheet.box(54, middle - 23, 54, 46, "map", "decoder", f"{channels}")
        if branches:
            stack = sheet.box(282, middle - 23, 44, 46, f"{block.conv.in_channels}", "skip")
        for k, (what, made, role) in enumerate(branches):
            at = y + 27 * k + 2
            box = sheet.box(132, at, 128, 23, role=role, width=1)
            sheet.text(140, at + 11.5, what, size=SMALL, anchor="start")
            sheet.text(252, at + 11.5, f"{made}", size=SMALL, anchor="end")
            sheet.line(given.right, box.left, role="muted", width=1)
            sheet.line(box.right, stack.left, role="muted", width=1)
        conv = sheet.box(344, middle - 23, 48, 46, "3×3", "encoder", f"{block.conv.out_channels}")
        out = sheet.box(408, middle - 23, 44, 46, "1×1", "accent", f"{num_classes}")
        sheet.arrow(stack.right, conv.left)
        sheet.arrow(conv.right, out.left)
        words.append(f"{name} gives its 3x3 block {block.conv.in_channels} channels")
        y += high + 22
    return sheet.diagram(
        "Three heads",
        f"All three end in a 3x3 block and a 1x1 classifier. {'; '.join(words)}. PSP adds means over 1, 4, "
        "9 and 36 areas, ASPP takes the map's mean, its pixels, and 3x3 convolutions of large dilation.",
    )


def _branches(context: nn.Module, channels: int) -> list[tuple[str, int, str]]:
    """What each branch of a head's context does, how many channels it gives, and its colour."""
    found = [("map as it is", channels, "decoder")] if isinstance(context, PyramidPooling) else []
    for branch in context.branches if isinstance(context, (PyramidPooling, ASPP)) else ():
        conv = next(m for m in branch.modules() if isinstance(m, nn.Conv2d))
        pool = next((m for m in branch.modules() if isinstance(m, nn.AdaptiveAvgPool2d)), None)
        if pool is not None:
            found.append((f"mean {pool.output_size}×{pool.output_size}", conv.out_channels, "bottleneck"))
        else:
            what = "pixels 1×1" if conv.kernel_size == (1, 1) else f"3×3, d = {conv.dilation[0]}"
            found.append((what, conv.out_channels, "encoder"))
    return found
