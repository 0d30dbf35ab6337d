"""Which protocols of the retinal sets can have produced a printed row: `u2learn check`.

A protocol says on which images (a split), on which of their pixels (a region) and how the scores of several
images become one (a pool). `u2learn.metrics.possible` has the question and its answer; here are the sets.

The field of view is the set's own mask in DRIVE and HRF. STARE and CHASE_DB1 have none: theirs here is our
definition, `u2learn.data.retina.field_of_view`, and other people's may differ by some pixels.
"""

from __future__ import annotations

import csv
import functools
import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from u2learn import studies
from u2learn.data.retina import TRAINING
from u2learn.markdown import line
from u2learn.metrics.possible import SCORES, means, not_tested, printed_as, totals
from u2learn.reported import SETS, reported

COUNTS = Path(__file__).parent / "assets" / "pixel_counts.csv"
REGIONS = {"image": "full image", "field": "field of view"}
NAMES = {name: dataset for dataset, name in SETS.items()}
POOLS = {"total": "pixel totals", "image": "mean of images"}
POSSIBLE, IMPOSSIBLE, NOT_TESTED = "possible", "cannot have been", "not tested"


@functools.cache
def pixel_counts(dataset: str, region: str) -> dict[str, tuple[int, int]]:
    """Vessel and background pixels of each image, by name, of one region: first observer's labels.

    Counted from the files by `python -m tools.counts`; those of HRF are mlscorecheck's.
    """
    ending = {"image": "", "field": "_in_field"}[region]
    with open(COUNTS, newline="", encoding="utf-8") as file:
        return {
            row["image"]: (int(row[f"vessel{ending}"]), int(row[f"background{ending}"]))
            for row in csv.DictReader(file)
            if row["dataset"] == dataset
        }


@dataclass(frozen=True)
class Protocol:
    """Where the scores of a row may come from.

    split: whose test images, as "mmseg, paddleseg". region: a key of REGIONS. pool: a key of POOLS.
    """

    dataset: str
    split: str
    images: tuple[str, ...]
    region: str
    pool: str

    def answer(self, printed: Mapping[str, str]) -> Answer:
        """Can it have produced scores that are printed so? score -> text, as {"dice": "82.45"}.

        Raises:
            ValueError: no score, or an unknown one; a text that is no number, or that may mean two.
        """
        if not printed:
            raise ValueError("Without a score there is nothing to check: give one, as dice=0.824.")
        for name in printed:
            if name not in SCORES:
                raise ValueError(f"There is no score {name!r} here; there are {', '.join(SCORES)}.")
        ranges = {name: printed_as(text) for name, text in printed.items()}
        counts = pixel_counts(self.dataset, self.region)
        p, n = np.array([counts[image] for image in self.images]).T  # (images,) each
        if self.pool == "total":
            found = totals(ranges, int(p.sum()), int(n.sum()))
            return Answer(self, POSSIBLE if found else IMPOSSIBLE, found)
        without = not_tested(ranges)
        if not means(ranges, p, n):
            return Answer(self, IMPOSSIBLE)
        return Answer(self, NOT_TESTED if set(without) == set(printed) else POSSIBLE, without=tuple(without))


@dataclass(frozen=True)
class Answer:
    """state: POSSIBLE, IMPOSSIBLE or NOT_TESTED. counts: (tp, tn) that give the row. without: not tested."""

    protocol: Protocol
    state: str
    counts: tuple[int, int] | None = None
    without: tuple[str, ...] = ()

    @property
    def because(self) -> str:
        """What goes with the state in a table."""
        if self.counts:
            return "as with tp {:,}, tn {:,}".format(*self.counts)
        return f"{', '.join(self.without)} not tested" if self.without else ""


def splits(dataset: str) -> dict[str, tuple[str, ...]]:
    """Test images of each split, by whose it is; where they are the same it is one. Also the whole set."""
    names = tuple(pixel_counts(dataset, "image"))
    found: dict[tuple[str, ...], list[str]] = {}
    for whose, training in TRAINING.items():
        test = tuple(name for name in names if int(re.sub(r"\D", "", name)) not in training[dataset])
        found.setdefault(test, []).append(whose)
    found.setdefault(names, []).append("all images")
    return {", ".join(whose): test for test, whose in found.items()}


def protocols(dataset: str) -> list[Protocol]:
    """All that are known here of a set, "drive", "stare", "chase" or "hrf"."""
    return [
        Protocol(dataset, split, images, region, pool)
        for split, images in splits(dataset).items()
        for pool in POOLS
        for region in REGIONS
    ]


def check(dataset: str, printed: Mapping[str, str]) -> list[Answer]:
    """The answer of every protocol of the set to a printed row; see `Protocol.answer`."""
    return [protocol.answer(printed) for protocol in protocols(dataset)]


def check_table(dataset: str, printed: Mapping[str, str]) -> str:
    """The answers as plain text: a line a protocol, then what they come to."""
    answers = check(dataset, printed)
    out = [f"{SETS[dataset]}: " + ", ".join(f"{name} {text}" for name, text in printed.items())]
    for split, images in splits(dataset).items():
        out.append(f"test images of {split} ({len(images)})")
        for one in (answer for answer in answers if answer.protocol.split == split):
            region, pool = REGIONS[one.protocol.region], POOLS[one.protocol.pool]
            out.append(f"  {region:15}{pool:16}{one.state:17}{one.because}".rstrip())
    if dataset in ("stare", "chase"):
        out.append(f"{SETS[dataset]} comes without a field of view; this one is our own definition.")
    return "\n".join([*out, textwrap.fill(_conclusion(answers), 84)])


def _conclusion(answers: list[Answer]) -> str:
    count = Counter(one.state for one in answers)
    if count[IMPOSSIBLE] == len(answers):
        return (
            "None of these protocols can have produced this row. Then it is of other images, or of another "
            "size, region, observer or way to pool, or a digit was cut off and not rounded, or is a misprint."
        )
    untested = f", {count[NOT_TESTED]} are not tested" if count[NOT_TESTED] else ""
    return (
        f"Of {len(answers)} protocols {count[POSSIBLE]} can have produced this row, {count[IMPOSSIBLE]} "
        f"cannot have{untested}; its digits are taken as rounded."
    )


# --- the rows of others -------------------------------------------------------------------------------------


def reported_scores() -> dict[tuple[str, str, str], dict[str, str]]:
    """Reported rows of vessels that print two or more of SCORES, as printed: (set, group, system) -> scores.

    Which score a group means by the name that it prints is said by the study that answers to its rows.
    """
    columns = {
        recipe.row["group"]: study.columns
        for study in studies.studies().values()
        for recipe in study.recipes
        if "group" in recipe.row
    }
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in reported():
        _, score = columns.get(row["group"], {}).get(row["metric"], ("", ""))
        if row["dataset"] in NAMES and score in SCORES and not row["remark"]:
            key = row["dataset"], row["group"], f"{row['head']}, {row['loss']}"
            found.setdefault(key, {})[score] = row["value"]
    return {key: printed for key, printed in found.items() if len(printed) > 1}


def possible_rows() -> str:
    """How many of the reported rows can be pixel totals, of which images and region: a Markdown table."""
    rows = _answers()
    columns = [
        (group, region) for group in dict.fromkeys(group for _, group, _ in rows) for region in REGIONS
    ]
    heads = (f"{group}, {REGIONS[region]}" for group, region in columns)
    out = [line(("set", "test images of", *heads)), "|---|---|" + "---:|" * len(columns)]

    def cell(group: str, where: Protocol) -> str:
        own = [found for (_, whose, _), found in rows.items() if whose == group]
        states = [one.state for found in own for one in found if one.protocol == where]
        return f"{states.count(POSSIBLE)} of {len(states)}" if states else "–"

    for name, dataset in NAMES.items():
        for split, images in splits(dataset).items():
            cells = (
                cell(group, Protocol(dataset, split, images, region, "total")) for group, region in columns
            )
            out.append(line((name, f"{split} ({len(images)})", *cells)))
    return "\n".join(out)


def possible_summary() -> str:
    """What the reported rows say of their region and their pool: two sentences."""
    rows = _answers().values()

    def count(state: str, pool: str, region: str) -> int:
        """Rows with this answer, whichever images were the test."""
        chosen = (
            [a for a in found if (a.protocol.pool, a.protocol.region) == (pool, region)] for found in rows
        )
        return sum(all(a.state == state for a in some) for some in chosen)

    image, field = (count(IMPOSSIBLE, "total", region) for region in REGIONS)
    untested = count(NOT_TESTED, "image", "image")
    excluded = sum(count(IMPOSSIBLE, "image", region) for region in REGIONS)
    return (
        f"Of {len(rows)} rows, {field} cannot be pixel totals of the field of view, and {image} cannot be "
        f"pixel totals of the full image, whichever images were the test. As means of images, {untested} "
        f"rows print nothing that is tested, and {excluded} are excluded."
    )


@functools.cache
def _answers() -> dict[tuple[str, str, str], list[Answer]]:
    return {row: check(NAMES[row[0]], printed) for row, printed in reported_scores().items()}
