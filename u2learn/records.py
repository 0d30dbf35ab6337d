"""Records: one small JSON file a run, from which all tables are made. No number is typed by hand."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch

from u2learn import distributed, studies
from u2learn.files import write_text
from u2learn.recipe import Recipe
from u2learn.version import __version__

Record = dict[str, Any]


PACKAGE = Path(__file__).parent


def runs_folder() -> Path:
    """Where runs lie: U2LEARN_RUNS, or `runs` below the current folder."""
    return Path(os.environ.get("U2LEARN_RUNS") or "runs")


def records_folder() -> Path:
    """Where records are written: U2LEARN_RECORDS, or `results/` of a checkout, or else beside the runs."""
    if os.environ.get("U2LEARN_RECORDS"):
        return Path(os.environ["U2LEARN_RECORDS"])
    checkout = PACKAGE.parent / "results"
    return checkout if checkout.is_dir() else runs_folder() / "records"


def records() -> dict[str, dict]:
    """All records by name, as "drive-small-seed0": those that came with the package, and one's own."""
    return _read(PACKAGE / "_results", records_folder().resolve())


@functools.cache
def _read(*folders: Path) -> dict[str, dict]:
    """The records in these folders; of two with one name, that in the last."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for folder in folders
        for path in sorted(folder.glob("*.json"))
    }


def forget() -> None:
    """Read the records anew when they are asked for again: a file was written, here or by others."""
    _read.cache_clear()


def write_record(name: str, record: dict) -> Path:
    """Write one record, whole or not at all; of several processes, one does."""
    path = records_folder() / f"{name}.json"
    if not distributed.leads():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")
    forget()
    return path


def name_of(record: Record) -> str:
    """The name of a run's record: recipe and seed, and of an unfinished run how far it came."""
    name = f"{record['recipe']['name']}-seed{record['seed']}"
    return f"{name}-at-{record['unfinished']}" if "unfinished" in record else name


def provenance(device: str) -> Record:
    """What the numbers were made with: commit (of a checkout, where git is installed), versions, device.

    `dirty` are the files that had changes since that commit: a record with any was not made by it.
    """
    root = Path(__file__).parent.parent
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "u2learn") if commit else None
    versions = {
        "u2learn": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    dirty = {"dirty": sorted(line.split()[-1] for line in changed.splitlines())} if changed else {}
    return {"commit": commit, **dirty, "versions": versions, "device": device}


def _git(root: Path, *command: str) -> str | None:
    """What git says of the checkout; None outside of one, without git, or where it fails."""
    if not (root / "results").is_dir() or not shutil.which("git"):
        return None
    answer = subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, encoding="utf-8")
    return answer.stdout.strip() or None


def official_of(name: str) -> list[dict]:
    """The record of weights that others trained, tested by this recipe as it is today; or none."""
    official = records().get(f"{name}-official")
    return [official] if official and is_current(official) else []


def of_recipe(name: str) -> list[dict]:
    """The records of this recipe as it is today, one a seed; those of earlier versions of it are left out."""
    return [
        record
        for record in records().values()
        if record.get("recipe", {}).get("name") == name and is_current(record)
    ]


def is_current(record: dict) -> bool:
    """Was this record made by the recipe that has its name today, and by all of its iterations?"""
    if "unfinished" in record:
        return False
    try:
        made_by = Recipe.from_json(json.dumps(record.get("recipe") or record["official"]))
        return made_by == studies.get(made_by.name, seed=made_by.seed)
    except (KeyError, ValueError):  # a recipe, or a field of one, that is no more
        return False


def mean_and_spread(name: str, protocol: str, score: str = "dice") -> tuple[float, float, int]:
    """Mean, standard deviation over the seeds, and their number, in percent.

    Raises:
        LookupError: there is no record of this recipe.
    """
    values = [100 * record["scores"][protocol][score] for record in of_recipe(name)]
    if not values:
        raise LookupError(
            f"There is no record of {name!r} in {records_folder()}: run `u2learn reproduce {name}`."
        )
    return over_seeds(values)


def over_seeds(values: list[float]) -> tuple[float, float, int]:
    """Mean, standard deviation and number of the values of several seeds; one alone deviates by 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)


def rounded(value: Any) -> Any:
    """Numbers as a record has them, also inside of lists and dictionaries.

    Six digits are more than any score has; JSON has no NaN, so an undefined score is null.
    """
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return None if value is None or math.isnan(value) else round(value, 6)
