"""Cards of the nets that ship with the package: what each is, what it cost, how it scores, where it fails.

Every number is taken from the net's file and from the records of its recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from u2learn.costs import operations
from u2learn.inference import load_model
from u2learn.markdown import line, unbroken
from u2learn.models.conv import parameters
from u2learn.recipe import VIEWS, Recipe
from u2learn.records import mean_and_spread, of_recipe, over_seeds, records

CHOSEN = "field, chosen threshold"
ASSETS = Path(__file__).parent / "assets"
# What a table of scores shows, each with its name, its unit and its digits.
OVERLAP = {
    "dice": ("Dice, %", 1, 2),
    "iou": ("IoU, %", 1, 2),
    "sensitivity": ("sensitivity, %", 1, 2),
    "precision": ("precision, %", 1, 2),
    "auc": ("AUC, %", 1, 2),
}
SALIENCY = {
    "max_f": ("max F", 0.01, 3),
    "mean_f": ("mean F", 0.01, 3),
    "weighted_f": ("weighted F", 0.01, 3),
    "mae": ("MAE", 0.01, 3),
    "s": ("S", 0.01, 3),
    "mean_e": ("mean E", 0.01, 3),
    "relaxed_f": ("F of the border", 0.01, 3),
}


@dataclass(frozen=True)
class Words:
    """What no record says of a net: its data in words, what it must not be used for, and how it is called."""

    marks: str
    data: str
    terms: str
    not_for: tuple[str, ...]
    python: str
    commands: str


SHIPPED = {
    "drive-small": Words(
        "retinal vessels in a photograph of the fundus",
        "DRIVE: the 20 training photographs and their labels; tested on its 20 test photographs. No image of "
        "it is in the file.",
        "The weights: MIT, as the code. DRIVE is for research and education, and is not handed on here; ask "
        "its owners before you use what was trained on it for anything else.",
        (
            "a diagnosis, or any decision about a patient: nobody has tested it for that",
            "photographs of another camera, of children, or with lesions, unless you score it on some first: "
            "it learnt from 20 photographs of one camera",
            "a width or a length of vessels in micrometres: it marks pixels, and knows no scale",
        ),
        """\
from u2learn import pretrained, segment

net, recipe = pretrained("drive-small")
vessel = segment(net, Image.open("eye.png"), recipe)[1]  # (H, W): probabilities""",
        """\
u2learn predict eye.png --overlay
u2learn export drive-small vessels.onnx
u2learn reproduce drive-small""",
    ),
    "objects-small": Words(
        "the one thing that stands out in a drawn picture",
        "drawn: a program makes the pictures and their masks, the test pictures from other seeds. No "
        "photograph was seen.",
        "The weights: MIT, as the code. There are no data to be licensed.",
        (
            "cutting out people, pets or goods from photographs: take the weights of U²-Net's authors "
            '(`pretrained("u2net_small")`)',
            "fine borders: it sees each picture at 64 x 64 pixels",
            "telling that a picture is empty: stretched as published, every map has a pixel of value 1",
        ),
        """\
from u2learn import pretrained, saliency

net, recipe = pretrained("objects-small")
seen = saliency(net, Image.open("thing.png"), side=recipe.square)  # (H, W), 0 to 1""",
        """\
u2learn predict thing.png --weights objects-small --cutout
u2learn export objects-small things.onnx
u2learn reproduce objects-small""",
    ),
}


def card(name: str) -> str:
    """The card of a net that ships, as Markdown.

    Raises:
        LookupError: no record says how it scores.
    """
    words, path = SHIPPED[name], ASSETS / f"{name}.safetensors"
    model, recipe = load_model(path)
    assert recipe is not None  # it is in every file of ours
    found = of_recipe(name)
    if not found:
        raise LookupError(f"There is no record of {name!r}: run `u2learn reproduce {name}`.")
    facts = {
        "marks": words.marks,
        "network": f"`{recipe.model}`, {parameters(model):,} parameters",
        "file": f"{path.stat().st_size:,} bytes, safetensors; its recipe, seed {recipe.seed}, is inside",
        "data": words.data,
        "training": f"{recipe.iterations:,} steps of {recipe.batch} windows of {recipe.crop[0]} x "
        f"{recipe.crop[1]} pixels, {operations(found[0]['training_flops'])}, {_seconds(found)}",
        "one picture": f"{found[0]['image_flops'] / 1e9:.3g} GFLOP, "
        f"{_times(len(VIEWS[recipe.views]), 'view')} of {_size(found)} pixels",
        "licence": words.terms,
    }
    return "\n".join(
        [
            *("| | |", "|---|---|", *(line((key, value)) for key, value in facts.items())),
            f"\n**Scores** of the test, mean ± deviation of {_times(len(found), 'seed')}:\n",
            *_scores(name, recipe, found[0]),
            "\n**Where it fails**\n",
            *(f"- {sentence}" for sentence in _failures(name, recipe)),
            "\n**What it is not for**\n",
            *(f"- {sentence}" for sentence in words.not_for),
            f"\n**Use it**, in Python or from a terminal:\n\n```python\n{words.python}\n```",
            f"\n```sh\n{words.commands}\n```",
        ]
    )


def _scores(name: str, recipe: Recipe, record: dict) -> Iterator[str]:
    """A line for each score, with a column for each protocol: a phone shows a few columns, and any lines."""
    lines = SALIENCY if recipe.task == "saliency" else OVERLAP
    human = records().get(f"{recipe.dataset}-second-observer")
    yield line(["score", *record["scores"], *(["second human observer, image"] if human else [])])
    yield line(["---", *["---:"] * (len(record["scores"]) + bool(human))])
    for score, (title, unit, digits) in lines.items():
        if score not in record["scores"]["image"]:
            continue
        cells = [title]
        for protocol in record["scores"]:
            mean, spread, seeds = mean_and_spread(name, protocol, score)
            cells.append(
                f"{unit * mean:.{digits}f}" + (f" ± {unit * spread:.{digits}f}" if seeds > 1 else "")
            )
        if human:
            value = human["scores"]["image"].get(score)
            cells.append("–" if value is None else f"{100 * unit * value:.{digits}f}")
        yield unbroken(cells)


def _failures(name: str, recipe: Recipe) -> Iterator[str]:
    """What the scores say of errors, in words."""

    def value(score: str, protocol: str = "image") -> float:
        return mean_and_spread(name, protocol, score)[0]

    if recipe.task == "saliency":
        yield (
            f"The F of the best threshold is {value('max_f') / 100:.2f}, and {value('mean_f') / 100:.2f} in "
            "the mean over all: it is grey where it is not sure. Choose the threshold on your own pictures."
        )
        yield (
            f"A pixel is off by {value('mae') / 100:.3f} in the mean, and on its borders it has an F of "
            f"{value('relaxed_f') / 100:.2f}."
        )
        return
    yield (
        f"It misses {100 - value('sensitivity'):.0f} % of the vessel pixels, and "
        f"{100 - value('precision'):.0f} % of what it marks is none; at the threshold that was chosen on the "
        f"training photographs {100 - value('sensitivity', CHOSEN):.0f} % and "
        f"{100 - value('precision', CHOSEN):.0f} %."
    )
    if human := records().get(f"{recipe.dataset}-second-observer"):
        own, other = value("dice"), 100 * human["scores"]["image"]["dice"]
        yield (
            f"A second human observer agrees with the first to a Dice of {other:.1f} %, the net to "
            f"{own:.1f} %: it has learnt the first one's hand, and the two people do not agree either."
        )


def _seconds(found: list[dict]) -> str:
    mean, spread, seeds = over_seeds([record["cpu_seconds"] for record in found])
    return f"{mean:.0f}" + (f" ± {spread:.0f}" if seeds > 1 else "") + " s of one CPU core"


def _size(found: list[dict]) -> str:
    return " x ".join(map(str, found[0]["speed"]["size"]))


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"
