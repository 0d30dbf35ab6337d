"""Checks of assignment 5: the sliding window."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.checks.core import Answer, Cases, Mistake, call, integers, normal, question, shown
from u2learn.checks.reading import Refusal
from u2learn.pixels import Size

Places = tuple[list[int], list[int]]
WITH_STARTS = Refusal("put the maps together yourself.", given=("u2learn.inference.window_starts",))


def starts(size: int, window: int, stride: int) -> list[int]:
    """Every start that is a multiple of the stride, and the last place where a window fits."""
    return sorted({*range(0, max(size - window, 0), stride), max(size - window, 0)})


@question("5.1", "window_starts", Refusal("compute the starts yourself, also without book_starts."))
def window_starts(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for trial in range(30):
        window = integers(g, (3, 12))[0]
        stride = integers(g, (1, window))[0]
        size = window + integers(g, (0, 40))[0]
        if trial < 4:
            size, stride = (window + 3 * stride, stride) if trial % 2 else (window - 1, stride)
        got = call(answer, size, window, stride)
        got = [int(x) for x in got] if isinstance(got, (list, tuple, range)) else got
        want = starts(size, window, stride)
        suspects = start_suspects(size, window, stride)
        cases.add(got, want, suspects, f"window_starts({size}, {window}, {stride})")
    return cases.done("30 random images are covered to the border, and no window sticks out.")


def start_suspects(size: int, window: int, stride: int) -> dict[str, list[int]]:
    last = max(size - window, 0)
    steps = list(range(0, last + 1, stride))
    return {
        "the last pixels are in no window: add one that ends at the border": steps,
        "the last window sticks out of the image: move it back to the border": [
            i for i in range(0, size, stride) if i == 0 or i < size - window + stride
        ],
        "a window begins at every step up to the border, and the last ones stick out": list(
            range(0, size, stride)
        ),
        "a start is negative: an image smaller than the window has one start, 0": (
            [*range(0, size - window, stride), size - window]
        ),
        "the last start is there twice": [*steps, last],
        "the last place that fits is size - window, without + 1 or - 1": sorted(
            {*range(0, last, stride), max(last - 1, 0)}
        ),
        "an image that the window just covers has one start, 0": steps if size > window else [],
        "the starts are moved so that their distances are equal: only the last one is moved back": [
            round(i * last / (len(starts(size, window, stride)) - 1 or 1))
            for i in range(len(starts(size, window, stride)))
        ],
        "every start is moved back by the same pixels: only the last one is": [
            max(i - (steps[-1] + stride - last) % stride, 0) for i in starts(size, window, stride)
        ],
        "windows stand side by side, without the stride": starts(size, window, window),
        "the last start comes first: in order": starts(size, window, stride)[::-1],
    }


class Model:
    """A network that depends on where a pixel stands in its window, and remembers what it was given."""

    def __init__(self, g: torch.Generator, window: Size, classes: int = 3):
        self.weight, self.place = normal(g, classes, 3, 3, 3), normal(g, classes, *window)
        self.window = window
        self.given: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
            raise Mistake(f"the model takes a batch (B, 3, h, w), and got {shown(x)}.")
        if tuple(x.shape[2:]) != self.window:
            raise Mistake(f"the model takes windows of {self.window}, and got one of {tuple(x.shape[2:])}.")
        self.given.append(x)
        return F.conv2d(x, self.weight, padding=1) + self.place  # (B, K, h, w)


def assembled(
    model: Model,
    image: Tensor,
    places: Places,
    weight: Tensor | None = None,
    divide: str = "weight",
    make: Callable[[Tensor], Tensor] = lambda logits: logits,
    before: Tensor | None = None,
) -> Tensor:
    """The windows' maps, put together with a weight for each pixel of a window (default: 1).

    make: what becomes of a map. before: what a window is multiplied with before the model sees it.
    """
    h, w = model.window
    weight = torch.ones(h, w) if weight is None else weight
    hits = torch.zeros(image.shape[1:])  # (H, W)
    total, last = (torch.zeros(len(model.weight), *image.shape[1:]) for _ in range(2))  # (K, H, W)
    for y in places[0]:
        for x in places[1]:
            window = image[None, :, y : y + h, x : x + w]
            logits = make(model(window if before is None else window * before)[0])
            total[:, y : y + h, x : x + w] += logits * weight
            old, seen = last[:, y : y + h, x : x + w].clone(), hits[y : y + h, x : x + w] > 0
            new = {"largest": torch.maximum(old, logits), "halves": (old + logits) / 2}.get(divide, logits)
            last[:, y : y + h, x : x + w] = torch.where(seen, new, logits)
            hits[y : y + h, x : x + w] += 1 if divide == "hits" else weight
    if divide in ("last", "largest", "halves"):
        return last
    if divide == "all":
        return total / (len(places[0]) * len(places[1]))
    return total if divide == "nothing" else total / hits


def scene(g: torch.Generator) -> tuple[Model, Tensor, int, Places]:
    h, w = integers(g, (5, 6), (7, 8))
    stride = integers(g, (2, 4))[0]
    H, W = integers(g, (12, 15), (17, 21))
    places = starts(H, h, stride), starts(W, w, stride)
    return Model(g, (h, w)), normal(g, 3, H, W), stride, places


@question("5.2", "slide", WITH_STARTS)
def slide(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the map")
    for _ in range(6):
        model, image, stride, places = scene(g)
        window = model.window
        got = call(answer, model, image, window, (stride, stride))
        case = f"image {tuple(image.shape)}, window {window}, stride {stride}"
        cases.add(
            got,
            assembled(model, image, places),
            partial(slide_suspects, model, image, (stride, stride)),
            case,
        )
    cases.done("")
    model, image, stride, places = scene(g)
    got = call(answer, model, image, model.window, (stride, stride + 1))
    want = assembled(model, image, (places[0], starts(image.shape[2], model.window[1], stride + 1)))
    case = f"strides {(stride, stride + 1)}: rows and columns have their own"
    cases.add(got, want, slide_suspects(model, image, (stride, stride + 1)), case)
    cases.done("")
    return "7 random images agree with the mean over all windows that see a pixel."


def slide_suspects(model: Model, image: Tensor, stride: Size) -> dict:
    (h, w), (_, H, W), (down, across) = model.window, image.shape, stride
    places = starts(H, h, down), starts(W, w, across)
    short = [*range(0, H - h + 1, down)], [*range(0, W - w + 1, across)]
    return {
        "the rows' stride is taken for the columns too": lambda: assembled(
            model, image, (places[0], starts(W, w, down))
        ),
        "the columns' stride is taken for the rows too": lambda: assembled(
            model, image, (starts(H, h, across), places[1])
        ),
        "a later window overwrites an earlier one: add them, and divide by the number of hits": lambda: (
            assembled(model, image, places, divide="last")
        ),
        "the largest is taken where windows overlap: their mean is asked for": lambda: assembled(
            model, image, places, divide="largest"
        ),
        "old and new are averaged at every window, and the last counts most: add all, then divide": lambda: (
            assembled(model, image, places, divide="halves")
        ),
        "divide each pixel by the number of windows that see it, not by the number of all windows": lambda: (
            assembled(model, image, places, divide="all")
        ),
        "the sum is not divided by the number of windows that see a pixel": lambda: assembled(
            model, image, places, divide="nothing"
        ),
        "the last windows are missing, and pixels at the border were never seen (0 / 0)": lambda: assembled(
            model, image, short
        ),
        "probabilities are averaged: the logits are": lambda: assembled(
            model, image, places, make=lambda z: z.softmax(0)
        ),
        "rows and columns of a window are exchanged": lambda: assembled(model, image, places[::-1]),
    }


@question("5.3", "blend", WITH_STARTS)
def blend(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the map")
    for _ in range(6):
        model, image, stride, places = scene(g)
        got = call(answer, model, image, model.window, (stride, stride))
        want = assembled(model, image, places, tent(*model.window))
        case = f"image {tuple(image.shape)}, window {model.window}, stride {stride}"
        cases.add(got, want, partial(blend_suspects, model, image, places), case)
    return cases.done("6 random images agree with the weighted mean.")


def tent(h: int, w: int) -> Tensor:
    rows, columns = (torch.minimum(torch.arange(n) + 1, n - torch.arange(n)) for n in (h, w))
    return (rows[:, None] * columns).float()


def bell(n: int, part: int) -> Tensor:
    return torch.exp(-(((torch.arange(n) - (n - 1) / 2) * part / n) ** 2) / 2)


def blend_suspects(model: Model, image: Tensor, places: Places) -> dict:
    h, w = model.window
    rows, columns = tent(h, 1), tent(1, w)

    def with_weight(weight: Tensor, divide: str = "weight") -> Tensor:
        return assembled(model, image, places, weight, divide)

    return {
        "the weights are not used: that is the plain mean": lambda: with_weight(torch.ones(h, w)),
        "divide by the sum of the weights, not by the number of windows": lambda: with_weight(
            tent(h, w), "hits"
        ),
        "the weighted sum is not divided by the sum of the weights": lambda: with_weight(
            tent(h, w), "nothing"
        ),
        "the weight is a product of a row's and a column's, not their sum": lambda: with_weight(
            rows + columns
        ),
        "the weight is a product of a row's and a column's, not the smaller": lambda: with_weight(
            torch.minimum(rows, columns)
        ),
        "the weight depends on the row alone": lambda: with_weight(rows.expand(h, w)),
        "the weight at the border is 1, not 0: a pixel in the corner has one window only": lambda: (
            with_weight(
                tent(h + 2, w + 2)[1:-1, 1:-1] - tent(h + 2, w + 2)[1:-1, 1:-1] + (rows - 1) * (columns - 1)
            )
        ),
        "the root of the weight is used": lambda: with_weight(tent(h, w).sqrt()),
        "the square of the weight is used": lambda: with_weight(tent(h, w) ** 2),
        **{
            f"the weight is a bell of width n / {part}: the distances to the edge are asked for": (
                lambda part=part: with_weight(bell(h, part)[:, None] * bell(w, part))
            )
            for part in (3, 4, 6, 8)
        },
        "the weight grows to the border: it falls": lambda: with_weight(1 / tent(h, w)),
        "the window is weighted before the network sees it: weight what comes out": lambda: assembled(
            model, image, places, tent(h, w), before=tent(h, w)
        ),
    }


@question("5.4", "flip_test", Refusal("ask for both views yourself."))
def flip_test(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the probabilities")
    for _ in range(6):
        H, W = integers(g, (6, 9), (10, 13))
        model, image = Model(g, (H, W)), 2 * normal(g, 3, H, W)
        got = call(answer, model, image)
        views = len(model.given)
        if views == 1 and len(model.given[0]) == 1:
            raise Mistake("the model was asked once: it should see the image and its mirror image.")
        want = flipped(model, image)
        cases.add(got, want, partial(flip_suspects, model, image), f"image {tuple(image.shape)}")
    return cases.done("6 random images agree with the mean of both views' probabilities.")


def views(model: Model, image: Tensor, *axes: int) -> tuple[Tensor, Tensor]:
    return model(image[None])[0], model(image.flip(axes)[None])[0]


def flipped(model: Model, image: Tensor) -> Tensor:
    plain, mirror = views(model, image, -1)
    return (plain.softmax(0) + mirror.flip(-1).softmax(0)) / 2


def flip_suspects(model: Model, image: Tensor) -> dict:
    plain, mirror = views(model, image, -1)
    upside, turned = views(model, image, -2)[1], views(model, image, -1, -2)[1]
    return {
        "the mirror image's map is not flipped back": lambda: (plain.softmax(0) + mirror.softmax(0)) / 2,
        "top and bottom are exchanged: left and right are asked for": lambda: (
            (plain.softmax(0) + upside.flip(-2).softmax(0)) / 2
        ),
        "the second view is turned by 180 degrees: left and right are exchanged, nothing else": lambda: (
            (plain.softmax(0) + turned.flip(-1, -2).softmax(0)) / 2
        ),
        "sigmoid is not softmax: the classes of a pixel exclude each other": lambda: (
            (plain.sigmoid() + mirror.flip(-1).sigmoid()) / 2
        ),
        "the two are multiplied: take their mean": lambda: (
            plain.softmax(0) * mirror.flip(-1).softmax(0)
        ).sqrt(),
        "logits are averaged, then the softmax is taken: take it of each view, then average": lambda: (
            (plain + mirror.flip(-1)) / 2
        ).softmax(0),
        "the two are added: take their mean": lambda: plain.softmax(0) + mirror.flip(-1).softmax(0),
        "logits come out: take the softmax of each view": lambda: (plain + mirror.flip(-1)) / 2,
        "the softmax runs over an axis of the image: classes are on axis 0": lambda: (
            (plain.softmax(-1) + mirror.flip(-1).softmax(-1)) / 2
        ),
        "the larger of the two is taken: take their mean": lambda: torch.maximum(
            plain.softmax(0), mirror.flip(-1).softmax(0)
        ),
        "the plain view is missing": lambda: mirror.flip(-1).softmax(0),
        "the mirror image is missing": lambda: plain.softmax(0),
    }
