"""Reported and ours, number by number: a line for each number that others reported, with its state."""

from __future__ import annotations

import dataclasses
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from u2learn import costs, studies
from u2learn.data.catalogue import DATASETS
from u2learn.data.published import published_for
from u2learn.models.conv import parameters
from u2learn.models.official import to_official
from u2learn.models.u2net import u2net, u2net_small
from u2learn.recipe import Recipe
from u2learn.records import mean_and_spread, of_recipe, official_of, over_seeds
from u2learn.reported import SETS, reported, reported_rows

# How close is "reproduced", by unit; the direction in which a metric is better, where it is not upwards.
TOLERANCES = {"%": 0.5, "fraction": 0.005, "count": 50, "MB": 0.1}
LOWER_IS_BETTER = ("MAE", "HCE")
OTHER_CARDS = ("fps", "ms")  # units of what somebody's card did
IMAGES_A_GPU = 4  # of OpenMMLab's trainings: 16 images a step on 4 cards

OPENMMLAB, PADDLESEG, BINSEG = "UNet-S5-D16 (OpenMMLab)", "UNet (PaddleSeg)", "bob.ip.binseg"
NAMES = {"U2-Net-dagger": "U²-Net†", "U2-Net": "U²-Net", "CE(1.0)+Dice(3.0)": "CE + 3 Dice"}
BUILDERS: dict[str, Callable[..., nn.Module]] = {"U2-Net": u2net, "U2-Net-dagger": u2net_small}

# The states of a line: what is there, and where nothing is, the cheapest thing that is missing.
PROVED = ("reproduced", "beaten", "short", "short training", "computed")
MISSING = ("weights", "data", "training", "no recipe", "not comparable")
STATES = (*PROVED, *MISSING)

OUR_DATA = ("drive", "stare", "chase", "ecssd")  # the sets that our records were made on
# How many images a set's tables test, and the size of them; where a recipe squeezes them, none is needed.
TESTED: dict[str, tuple[int, tuple[int, int] | None]] = {
    "drive": (20, (584, 565)),
    "stare": (10, (605, 700)),
    "chase": (8, (960, 999)),
    "hrf": (30, (2336, 3504)),
    "cityscapes": (500, (1024, 2048)),
    "ecssd": (1000, None),
    "duts": (5019, None),
    "hku-is": (4447, None),
    "pascal-s": (850, None),
    "dut-omron": (5168, None),
    "sod": (300, None),
}
# Operations a second: of a core of ours with OpenMMLab's network, as in the record drive-fcn-ce-seed0-at-440,
# and of a T4 in a training, which is assumed: half of what its maker states for 32 bits.
CORE, T4 = 1.1e11, 4e12

Value = tuple[float, float, int]  # mean, standard deviation over the seeds, their number


@dataclass(frozen=True)
class Line:
    """One reported number, and ours beside it. Percentages and fractions as they were reported."""

    dataset: str
    group: str
    system: str  # which of its group
    metric: str
    value: str
    unit: str
    sources: tuple[str, ...]
    remark: str = ""  # that its authors corrected it later, or that it stands under another's name
    recipe: str | None = None  # the recipe of ours that is held against it
    trained: Value | None = None  # ours, trained by that recipe
    official: Value | None = None  # the authors' weights, tested by it
    small: Value | None = None  # our small net under the same protocol
    short: Value | None = None  # the same network after a shorter training
    share: float = 1.0  # of the recipe's pixels, that the shorter training saw
    follows: Callable[[], float] | None = None  # computes the value, where that needs no run
    missing: str = "no recipe"  # where there is none of these: one of MISSING
    why: Callable[[], str] = str  # says what it costs, or why no comparison is possible

    @property
    def computed(self) -> float | None:
        """The value that follows without any run."""
        return None if self.follows is None else self.follows()

    @property
    def ours(self) -> Value | None:
        """What is held against the reported number: of our training, or else of the authors' weights."""
        return self.trained or self.official

    @property
    def difference(self) -> float | None:
        """Ours minus reported."""
        return None if self.ours is None else self.ours[0] - float(self.value)

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.difference is not None:
            gain = -self.difference if self.metric in LOWER_IS_BETTER else self.difference
            if abs(gain) <= TOLERANCES[self.unit] + 1e-9:
                return "reproduced"
            return "beaten" if gain > 0 else "short"
        if self.short is not None:
            return "short training"
        return self.missing if self.follows is None else "computed"

    @property
    def verdict(self) -> str:
        """The state as a table prints it: with by how much ours is short, or what is missing."""
        if self.state == "short":
            return f"**short** by {number(abs(self.difference or 0), self.value)}"
        if self.short is not None and self.state == "short training":
            return f"*short training*: {number(self.short[0], self.value)} (1/{1 / self.share:.0f})"
        if self.state in PROVED:
            return f"**{self.state}**"
        why = self.why()
        return f"*{self.state}*" + f" ({why})" * bool(why)


def lines() -> list[Line]:
    """Every reported number once, with all the pages that print it, in the order of the source file."""
    pages: dict[tuple, list[dict]] = {}
    for row in reported():
        # The same number on several pages is one line; that a page attributes it to another system is not.
        key = [row[k] for k in ("dataset", "model", "variant", "head", "metric")]
        pages.setdefault((*key, row["head"] and row["loss"], float(row["value"])), []).append(row)
    return [_line(rows) for rows in pages.values()]


def _line(rows: list[dict]) -> Line:
    row = max(rows, key=lambda row: len(row["value"]))  # one page prints 0.060, another 0.06
    words = [row["head"], row["loss"]] if row["head"] else [row["model"], row["variant"]]
    later = " (corrected later)" if row["remark"] == "corrected later" else ""
    name = next(filter(None, map(_recipe_of, rows)), None)
    about = {
        "dataset": row["dataset"] or "any",
        "group": row["group"],
        "system": ", ".join(NAMES.get(word, word) for word in words if word) + later,
        "metric": row["metric"],
        "value": row["value"],
        "unit": row["unit"],
        "sources": tuple(dict.fromkeys(r["source"] for r in rows)),
        "remark": row["remark"],
    }
    if row["remark"] or row["unit"] in OTHER_CARDS:
        why = row["remark"] or "measured on another card"
        return Line(**about, recipe=name, missing="not comparable", why=lambda: why)
    follows = _follows(row, name)
    if name is None or follows is not None:
        return Line(**about, recipe=name, follows=follows, small=_small_for(row))
    short, share = _short_for(name, row)
    return Line(
        **about,
        recipe=name,
        trained=_scores(of_recipe(name), name, row),
        official=_scores(official_of(name), name, row),
        small=_small_for(row),
        short=short,
        share=share,
        missing=_missing(studies.get(name)),
        why=partial(_cost, name),
    )


def _recipe_of(row: dict) -> str | None:
    """The recipe that reproduces a reported row, if we have one."""
    return next((name for name, rows in _rows_by_recipe().items() if row in rows), None)


@cache
def _rows_by_recipe() -> dict[str, list[dict]]:
    return {name: reported_rows(recipe) for name, recipe in studies.all_recipes().items()}


# --- ours ---------------------------------------------------------------------------------------------------


def _scores(found: list[dict], recipe: str, row: dict) -> Value | None:
    """Mean, spread and number of these records in the reported metric and its unit."""
    protocol, score = studies.columns_of(studies.get(recipe))[row["metric"]]
    scale = 100 if row["unit"] == "%" else 1
    values = [scale * record["scores"][protocol][score] for record in found]
    return over_seeds(values) if values else None


def _short_for(name: str, row: dict) -> tuple[Value | None, float]:
    """The scores after a shorter training of this recipe, and its share of the recipe's pixels."""
    for short, whole in ((s, w) for study in studies.studies().values() for s, w in study.shortened.items()):
        if whole == name and (found := of_recipe(short)):
            return _scores(found, name, row), _pixels(studies.get(short)) / _pixels(studies.get(whole))
    return None, 1.0


def _pixels(recipe: Recipe) -> float:
    """How many pixels a training sees; a small window has a quarter of those of a whole one."""
    windows = recipe.iterations * recipe.batch * (1 - 0.75 * recipe.small_first)
    return windows * recipe.crop[0] * recipe.crop[1]


# Whose tables a small net of ours stands beside: the study that has their words, and which net it is.
BESIDE = {OPENMMLAB: ("mmseg", "small"), PADDLESEG: ("paddle", "small"), BINSEG: ("binseg", "binseg")}


def beside(group: str, dataset: str) -> str:
    """The recipe of ours, of another network, beside a group of systems on a set, as "DRIVE"; "" if none."""
    key = next((key for key, name in SETS.items() if name == dataset), None)
    return f"{key}-{BESIDE[group][1]}" if key and group in BESIDE else ""


def _small_for(row: dict) -> Value | None:
    """Our small retinal net on the same images under the same protocol; None where there is no such run."""
    name = beside(row["group"], row["dataset"])
    columns = studies.studies()[BESIDE[row["group"]][0]].columns if name else {}
    if row["metric"] not in columns or not of_recipe(name):
        return None
    protocol, score = columns[row["metric"]]
    mean, spread, seeds = mean_and_spread(name, protocol, score)
    scale = 1 if row["unit"] == "%" else 0.01
    return scale * mean, scale * spread, seeds


# --- without a run ------------------------------------------------------------------------------------------


def _follows(row: dict, recipe: str | None) -> Callable[[], float] | None:
    """What computes a reported number, where it follows without a run."""
    if row["metric"] == "Mem" and recipe:
        return lambda: training_memory(recipe) / 1e9
    if row["metric"] == "model size" and row["model"] in BUILDERS:
        return lambda: file_size(row["model"]) / 1e6
    if row["dataset"] == "DIS-TE(1-4)":
        return lambda: mean_of_parts(row)
    return None


@cache
def training_memory(recipe: str) -> int:
    """Bytes of a training of this recipe with the images that OpenMMLab gave a GPU."""
    return costs.training_memory(studies.get(recipe), IMAGES_A_GPU)


@cache
def file_size(model: str) -> int:
    """Bytes of a file of this model's weights as its authors wrote theirs."""
    file = io.BytesIO()
    torch.save(to_official(BUILDERS[model]()), file)
    return file.tell()


def mean_of_parts(row: dict) -> float:
    """The mean of what was reported for the four test parts of DIS5K, which have 500 images each."""
    keys = ("source", "model", "variant", "metric")
    same = [r for r in reported() if all(r[k] == row[k] for k in keys)]
    parts = [float(r["value"]) for r in same if r["dataset"] in {f"DIS-TE{i}" for i in range(1, 5)}]
    return statistics.mean(parts)


# --- what is missing, and what it costs ---------------------------------------------------------------------


def _missing(recipe: Recipe) -> str:
    """The cheapest of MISSING that keeps us from a recipe's row."""
    if recipe.dataset not in OUR_DATA:
        return "data"
    return "weights" if _published(recipe) else "training"


def _published(recipe: Recipe) -> bool:
    """Did somebody publish the weights of this training?"""
    try:
        published_for(studies.training_of(recipe).name)
    except LookupError:
        return False
    return True


@cache
def _cost(name: str) -> str:
    """What a recipe's row costs here, from the cheapest thing that is missing."""
    recipe = studies.get(name)
    published = _published(recipe)
    cost = _weights(recipe) if published else _training(studies.training_of(recipe))
    if recipe.dataset in OUR_DATA:
        return cost
    home = DATASETS["dis5k" if recipe.protocol == "dis5k" else recipe.dataset]
    way = "by hand" if home.by_hand else "u2learn fetches it"
    return f"{way}; then {'weights of' if published else 'training,'} {cost}"


def _weights(recipe: Recipe) -> str:
    """Size of the published weights, and how long a core tests them."""
    loss = "ce" if recipe.num_classes > 1 else recipe.loss
    test = dataclasses.replace(recipe, name="", loss=loss, row={})
    size, operations = _of_test(test.to_json(), TESTED[recipe.dataset][1])
    seconds = TESTED[recipe.dataset][0] * operations / CORE
    return f"{size / 1e6:.0f} MB, {costs.duration(seconds)} of a core"


@cache
def _of_test(recipe: str, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Bytes of the weights and operations of the test of an image: once for rows that differ in the loss."""
    it = Recipe.from_json(recipe)
    with torch.device("meta"):
        return 4 * parameters(it.build_model()), costs.image_flops(it, shape)


def _training(recipe: Recipe) -> str:
    """How long a training takes on a card of Colab, and here."""
    operations = costs.training_flops(recipe)
    return f"T4: {costs.duration(operations / T4)}, a core: {costs.duration(operations / CORE)}"


def number(value: float, like: str, sign: str = "") -> str:
    """With as many digits as the reported value has, and never -0."""
    digits = len(like.partition(".")[2])
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def last_digit(printed: str) -> float:
    """One unit of the last digit of a printed number: 0.001 of "0.835"."""
    return 10.0 ** -len(printed.partition(".")[2])
