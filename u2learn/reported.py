"""What others reported: the rows of their tables, with source, and which of our recipes answers to each."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from u2learn.recipe import Recipe

SETS = {"drive": "DRIVE", "stare": "STARE", "chase": "CHASE_DB1", "hrf": "HRF"}


@functools.cache
def reported() -> list[dict[str, str]]:
    """The rows of `reported_results.csv`: what others reported, with source and protocol."""
    with open(
        Path(__file__).parent / "assets" / "reported_results.csv", newline="", encoding="utf-8"
    ) as file:
        return list(csv.DictReader(file))


def best_reported(dataset: str, group: str, metric: str = "Dice", model: str = "") -> str:
    """The best value of a group (or of one model in it) for this set (as "drive"), in percent as printed."""
    due = SETS[dataset], group, metric
    found = [r for r in reported() if (r["dataset"], r["group"], r["metric"]) == due]
    best = max((r for r in found if model in ("", r["model"])), key=lambda r: float(r["value"]))
    if best["unit"] == "%":
        return best["value"]
    return f"{100 * float(best['value']):.{len(best['value'].partition('.')[2]) - 2}f}"


def reported_rows(recipe: Recipe) -> list[dict[str, str]]:
    """The reported rows that this recipe answers to, from every page that prints them.

    A row with a remark is a value that its authors corrected later, or one under another's name.
    """
    if not recipe.row:
        return []
    return [r for r in reported() if not r["remark"] and all(r[k] == v for k, v in recipe.row.items())]


def reported_for(recipe: Recipe) -> dict[str, str]:
    """What was reported for the row that this recipe reproduces: metric -> value, as printed; {} if none."""
    rows = sorted(reported_rows(recipe), key=lambda row: len(row["value"]))  # 0.060 rather than 0.06
    return {row["metric"]: row["value"] for row in rows}
