"""The speedrun: how little of one core is needed for a Dice on DRIVE.

python -m benchmarks.speedrun run | check | time | try | table. The rules are in book/back/speedrun.md.
An entry is a file, entries/NAME.json: a recipe, its goal, who made it, what is new, and ten records.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import benchmarks.parts  # noqa: F401  (registers what entries add to the package)
from u2learn import studies
from u2learn.batches import TrainingData
from u2learn.costs import image_flops, training_flops
from u2learn.data.example import Example
from u2learn.devices import device_name
from u2learn.files import write_text
from u2learn.markdown import filled, line, unbroken
from u2learn.models.conv import parameters
from u2learn.recipe import Recipe, with_settings
from u2learn.records import of_recipe, over_seeds, provenance
from u2learn.tasks import evaluate
from u2learn.training import Run, read_log, train

HERE = Path(__file__).parent
ENTRIES, TRIED = HERE / "entries", HERE / "tried.jsonl"
PAGE = HERE.parent / "book" / "back" / "speedrun.md"
GOALS = (78.67, 80.0, 82.0)  # Dice; the first is the reported one of FCN with cross-entropy
SEEDS = 10
SAME = 0.5  # so much may the Dice of one seed differ on another machine
QUIET = 1.5  # a load above it says that other processes ran
REFERENCE = "drive-small"  # whose training step is the measure of how fast a core is at the moment

Record = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A recipe that claims to reach a goal, and its records; `timed` is one made on a quiet machine."""

    name: str
    goal: float
    who: str
    new: str
    recipe: Recipe
    records: tuple[Record, ...] = ()
    timed: Record = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return ENTRIES / f"{self.name}.json"

    def write(self) -> None:
        """Write the file of the entry, whole or not at all."""
        values = {k: getattr(self, k) for k in ("goal", "who", "new")}
        values |= {"recipe": json.loads(self.recipe.to_json()), "records": self.records, "timed": self.timed}
        write_text(self.path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def read(name: str) -> Entry:
    """The entry of this name.

    Raises:
        ValueError: there is none, or its file is not one.
    """
    path = ENTRIES / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"There is no entry {name!r}; there are {', '.join(names()) or 'none'}.")
    try:
        return parsed(name, path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an entry: {error!r}.") from error


def parsed(name: str, text: str) -> Entry:
    """The entry in the text of its file."""
    values = json.loads(text)
    recipe = Recipe.from_json(json.dumps(values.pop("recipe")))
    return Entry(name, recipe=recipe, records=tuple(values.pop("records", ())), **values)


def names() -> list[str]:
    """All entries, by name."""
    return sorted(path.stem for path in ENTRIES.glob("*.json"))


# --- one training, and its clock ----------------------------------------------------------------------------


class ScoredImages(Sequence[Example]):
    """The images of the test. The clock stops when the first of them is asked for: the training is over."""

    def __init__(self, examples: Sequence[Example]):
        self.examples, self.asked_at = examples, 0.0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        self.asked_at = self.asked_at or time.process_time()
        return self.examples[index]


def run_once(recipe: Recipe) -> Record:
    """Train the recipe with its seed and score it on its test part; the record of that.

    seconds: of one core (CPU time of this process), from the decoded training images in memory to the trained
    weights. step: seconds of one training step of REFERENCE at the same time. load: how many processes wanted
    to run (None where the system does not tell).
    """
    torch.set_num_threads(1)
    training = list(recipe.examples("train"))  # decoded, in memory
    test = ScoredImages(recipe.examples("test"))
    before = step_seconds(studies.get(REFERENCE), training)
    step_seconds(
        recipe, training, steps=2
    )  # what PyTorch loads and compiles at its first step is no training
    with TemporaryDirectory() as folder:
        started = time.process_time()
        model = train(recipe, folder, training, test, device="cpu", progress=False)
        dice = read_log(folder)[-1]["dice"]
    after = step_seconds(studies.get(REFERENCE), training)
    return {
        "seed": recipe.seed,
        "dice": round(100 * dice, 3),
        "seconds": round(test.asked_at - started, 2),
        "step": round((before + after) / 2, 5),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "operations": training_flops(recipe),
        "images": len(training),
        "parameters": parameters(model),
        **made_with(),
    }


def step_seconds(recipe: Recipe, training: Sequence[Example], steps: int = 8) -> float:
    """Seconds of one core that a training step of the recipe takes now: the median of some."""
    data, taken = TrainingData(recipe, training, "cpu"), []
    with TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder), "cpu")
        for iteration in range(steps):
            started = time.process_time()
            run.step(*data.batch(iteration))
            taken.append(time.process_time() - started)
    return statistics.median(taken)


def made_with() -> Record:
    """Commit, versions and device, and which files had changes since that commit."""
    found = provenance(device_name("cpu"))
    changed = (git("status", "--porcelain", "--", "benchmarks/*.py") or "").split()
    dirty = [*found.pop("dirty", ()), *changed[1::2]]
    return {**found, **({"dirty": dirty} if dirty else {})}


def git(*command: str) -> str | None:
    """What git says of this checkout; None where there is no git, or it refuses."""
    try:
        answer = subprocess.run(["git", "-C", HERE.parent, *command], capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return None
    return answer.stdout if answer.returncode == 0 else None


# --- the rules ----------------------------------------------------------------------------------------------


def broken_rules(entry: Entry) -> list[str]:
    """Which rules an entry breaks, a sentence each; none is the aim."""
    recipe, records = entry.recipe, entry.records
    rules = {
        f"the goal is one of {GOALS}": entry.goal in GOALS,
        "who made it, and in one sentence what is new, are said": bool(
            entry.who.strip() and entry.new.strip() and "\n" not in entry.new
        ),
        "it trains on the 20 official training images of DRIVE and on nothing else: dataset 'drive', "
        "protocol 'mmseg', no data_options, no folder, no start, no trained_by": (
            (recipe.dataset, recipe.protocol) == ("drive", "mmseg")
            and not (recipe.data_options or recipe.folder or recipe.start or recipe.trained_by)
        ),
        "a test image goes through the network once, whole and at its own size: no window, no views, one "
        "scale, long_side 0 or at least 584, no square": (
            (recipe.window, recipe.views, recipe.scales, recipe.square) == (None, "", (1.0,), 0)
            and (recipe.long_side == 0 or recipe.long_side >= 584)
        ),
        "the Dice is that of the table: two classes, scored under 'image'": (
            recipe.task == "binary" and (not recipe.scored_under or "image" in recipe.scored_under)
        ),
        "nothing is chosen on the test images: evaluations 1, keep 'last', patience 0": (
            (recipe.evaluations, recipe.keep, recipe.patience) == (1, "last", 0)
        ),
        f"there is one record of each of the seeds 0 to {SEEDS - 1}": (
            sorted(record["seed"] for record in records) == list(range(SEEDS))
        ),
        f"the mean Dice is {entry.goal} or more": (
            bool(records) and statistics.mean(record["dice"] for record in records) >= entry.goal
        ),
        "each record counts the operations and the images of this recipe": (
            {(record["operations"], record["images"]) for record in records} <= {(training_flops(recipe), 20)}
        ),
        "each record was made with one thread of a CPU": all(
            record["device"] == "CPU, 1 thread(s)" for record in records
        ),
        "each record was made by a commit that holds this recipe, without changes since": all(
            made_by_commit(entry, record) for record in records
        ),
    }
    return [rule for rule, kept in rules.items() if not kept]


def made_by_commit(entry: Entry, record: Record) -> bool:
    """Does the record's commit hold the entry with this recipe? True where there is no history to tell."""
    if record.get("dirty") or not record.get("commit"):
        return False
    if (git("rev-parse", "--is-shallow-repository") or "true").strip() == "true":
        return True
    text = git("show", f"{record['commit']}:benchmarks/entries/{entry.name}.json")
    try:
        return text is not None and parsed(entry.name, text).recipe == entry.recipe
    except (KeyError, TypeError, ValueError):
        return False


# --- the commands -------------------------------------------------------------------------------------------


def run(name: str, seeds: int = SEEDS) -> None:
    """Train and score the seeds that have no record yet; each is written down when it is done."""
    for seed in range(seeds):
        entry = read(name)
        if all(record["seed"] != seed for record in entry.records):
            record = run_once(dataclasses.replace(entry.recipe, seed=seed))
            entry = read(name)  # another process may have written meanwhile
            records = sorted((*entry.records, record), key=lambda record: record["seed"])
            dataclasses.replace(entry, records=tuple(records)).write()
            print(told(name, record), flush=True)


def told(name: str, record: Record) -> str:
    """A record in one line."""
    return (
        f"{name}, seed {record['seed']}: Dice {record['dice']:.2f}, {record['seconds']:.1f} s of one core, "
        f"{record['seconds'] / record['step']:.0f} steps of {REFERENCE}, load {record['load']}"
    )


def check(name: str, again: int | None = None) -> list[str]:
    """The rules that an entry breaks; with `again`, that seed is trained anew and must give the same."""
    entry = read(name)
    broken = broken_rules(entry)
    recorded = {record["seed"]: record["dice"] for record in entry.records}
    if again is not None and again in recorded:
        record = run_once(dataclasses.replace(entry.recipe, seed=again))
        print(told(name, record))
        if abs(record["dice"] - recorded[again]) > SAME:
            broken.append(
                f"seed {again} gives {record['dice']:.2f} again, its record says {recorded[again]:.2f}"
            )
    return broken


def clock(name: str, seed: int = 0) -> Record:
    """Time one seed anew, and keep that as the time of the entry.

    Raises:
        ValueError: other processes run, or the seed does not give what its record says.
    """
    entry = read(name)
    record = run_once(dataclasses.replace(entry.recipe, seed=seed))
    print(told(name, record))
    if record["load"] is not None and record["load"] > QUIET:
        raise ValueError(f"Other processes ran (load {record['load']}), so this is no time to keep.")
    recorded = [r["dice"] for r in entry.records if r["seed"] == seed]
    if recorded and abs(record["dice"] - recorded[0]) > SAME:
        raise ValueError(f"Seed {seed} gives {record['dice']:.2f}, and its record says {recorded[0]:.2f}.")
    dataclasses.replace(entry, timed=record).write()
    return record


def attempt(name: str, settings: Sequence[str], seconds: float, seeds: int) -> None:
    """Train an entry with other settings for so many seconds of one core, and score held-out training images.

    The iterations are those that fit, by the steps of the recipe and of REFERENCE in turns; the running mean
    is as long a share of them as before. One line a seed goes into tried.jsonl; seeds that are there are
    skipped.
    """
    torch.set_num_threads(1)
    asked = dataclasses.replace(with_settings(read(name).recipe, settings), protocol="held-out")
    training = list(asked.examples("train"))
    iterations = round(seconds / (cost_ratio(asked, training) * reference_step()))
    done = [tried["seed"] for tried in tries() if of_try(tried) == (seconds, name, *settings)]
    for seed in sorted(set(range(seeds)) - set(done)):
        ema = max(0.0, 1 - (1 - asked.ema) * asked.iterations / iterations) if asked.ema else 0.0
        recipe = dataclasses.replace(asked, seed=seed, iterations=iterations, ema=ema)
        with TemporaryDirectory() as folder:
            run, data = Run(recipe, Path(folder), "cpu"), TrainingData(recipe, training, "cpu")
            while not run.finished:
                run.step(*data.batch(run.iteration))
            scores = evaluate(run.trained(), recipe, recipe.examples("test")).result()["image"]
        tried = {
            "entry": name,
            "settings": list(settings),
            "seconds": seconds,
            "seed": seed,
            "iterations": iterations,
            "operations": training_flops(recipe),
            "dice": round(100 * scores["dice"], 3),
        }
        with open(TRIED, "a", encoding="utf-8") as file:
            file.write(json.dumps(tried) + "\n")
        print(json.dumps(tried), flush=True)


def tries() -> list[dict[str, Any]]:
    """What was tried, in the order in which it was."""
    return (
        [json.loads(text) for text in TRIED.read_text(encoding="utf-8").splitlines()]
        if TRIED.exists()
        else []
    )


def of_try(tried: dict[str, Any]) -> tuple:
    """What the seeds of one try have in common."""
    return (tried["seconds"], tried["entry"], *tried["settings"])


def cost_ratio(recipe: Recipe, training: Sequence[Example]) -> float:
    """A step of the recipe in steps of REFERENCE, measured in turns; small windows for their share."""
    reference, ratio = studies.get(REFERENCE), 0.0
    for small, share in ((1.0, recipe.small_first), (0.0, 1 - recipe.small_first)):
        if share:
            changed = dataclasses.replace(recipe, small_first=small)
            pairs = [
                (step_seconds(changed, training[:4], 8), step_seconds(reference, training[:4], 5))
                for _ in range(3)
            ]
            ratio += share * statistics.median(ours / theirs for ours, theirs in pairs)
    return ratio


def reference_step() -> float:
    """Seconds of one core for a training step of REFERENCE on a quiet machine: the least of its records."""
    return min(r["cpu_seconds"] / r["recipe"]["iterations"] for r in of_recipe(REFERENCE))


# --- the page -----------------------------------------------------------------------------------------------


def seconds_of(entry: Entry) -> str:
    """Seconds on a quiet machine, or an estimate from the steps of REFERENCE that the same time would pay."""
    if entry.timed:
        return f"{entry.timed['seconds']:.3g}"
    return f"{steps_of(entry) * reference_step():.3g} (estimate)"


def steps_of(entry: Entry) -> float:
    """So many training steps of REFERENCE take as long as the training of an entry."""
    return statistics.mean(record["seconds"] / record["step"] for record in entry.records)


def table() -> str:
    """The entries that have records, by goal and seconds, and REFERENCE; below them whose they are."""
    lines = [
        line(("goal", "entry", "Dice", "seconds of one core", f"steps of {REFERENCE}", "training, TFLOP",
              "one image, GFLOP", "parameters")),
        line(("---:", "---", "---:", "---:", "---:", "---:", "---:", "---:")),
    ]  # fmt: skip
    entries = [entry for entry in map(read, names()) if entry.records]
    entries.sort(key=lambda entry: (entry.goal, steps_of(entry)))
    for entry in entries:
        first, count = entry.records[0], len(entry.records)
        title = f"`{entry.name}`" + (f", {count} of {SEEDS} seeds" if count < SEEDS else "")
        dice = [record["dice"] for record in entry.records]
        cells = (f"{entry.goal:g}", title, _dice(dice), seconds_of(entry), f"{steps_of(entry):.0f}")
        lines.append(unbroken((*cells, *_costs(first, image_flops(entry.recipe)))))
    found = of_recipe(REFERENCE)
    dice = [100 * record["scores"]["image"]["dice"] for record in found]
    seconds = statistics.mean(record["cpu_seconds"] for record in found)
    steps = f"{found[0]['recipe']['iterations']}"
    cells = ("", f"`{REFERENCE}`, eight views", _dice(dice), f"{seconds:.0f}", steps)
    lines.append(unbroken((*cells, *_costs(found[0], found[0]["image_flops"]))))
    return "\n".join([*lines, "", *(f"- `{entry.name}`, by {entry.who}: {entry.new}" for entry in entries)])


def _dice(values: Sequence[float]) -> str:
    mean, spread, seeds = over_seeds(list(values))
    return f"{mean:.2f}" + (f" ± {spread:.2f}" if seeds > 1 else "")


def _costs(record: Record, test: int) -> tuple[str, str, str]:
    training = record.get("operations") or record["training_flops"]
    return f"{training / 1e12:.2f}", f"{test / 1e9:.1f}", f"{record['parameters']:,}"


def tried_table() -> str:
    """What was tried on held-out training images, at equal seconds; a line for each change of settings."""
    found: dict[tuple, list[dict]] = {}
    for tried in tries():
        found.setdefault(of_try(tried), []).append(tried)
    lines = [
        line(("seconds", "entry", "changed", "Dice", "seeds")),
        line(("---:", "---", "---", "---:", "---:")),
    ]
    for (seconds, entry, *settings), each in sorted(
        found.items(), key=lambda item: (item[0][:2], -statistics.mean(t["dice"] for t in item[1]))
    ):
        mean, _, seeds = over_seeds([t["dice"] for t in each])
        changed = ", ".join(f"`{setting}`" for setting in settings) or "nothing"
        lines.append(line((f"{seconds:g}", f"`{entry}`", changed, f"{mean:.2f}", str(seeds))))
    return "\n".join(lines)


GENERATED: dict[str, Callable[[], str]] = {"speedrun": table, "speedrun-tried": tried_table}


def page(text: str) -> str:
    """The text of the page with its tables as entries and tries give them today."""
    for name, make in GENERATED.items():
        text = filled(text, name, make())
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a rule is broken, 2 if something is missing or wrong."""
    parser = argparse.ArgumentParser("python -m benchmarks.speedrun", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and score the seeds of an entry that have no record yet")
    one.add_argument("entry")
    one.add_argument("--seeds", type=int, default=SEEDS, help="only the first so many (default: all ten)")
    one = commands.add_parser("check", help="say which rules an entry breaks")
    one.add_argument("entry", nargs="*", help="default: all")
    one.add_argument("--again", type=int, metavar="SEED", help="train this seed anew, and compare")
    one = commands.add_parser("time", help="time one seed of an entry anew, on a quiet machine")
    one.add_argument("entry")
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("try", help="try other settings on held-out training images, at equal seconds")
    one.add_argument("entry")
    one.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe")
    one.add_argument("--seconds", type=float, default=30.0, help="of one core (default: 30)")
    one.add_argument("--seeds", type=int, default=2)
    commands.add_parser("table", help="write the tables of the page anew")
    given = parser.parse_args(arguments)
    try:
        if given.command == "run":
            run(given.entry, given.seeds)
        elif given.command == "time":
            clock(given.entry, given.seed)
        elif given.command == "try":
            attempt(given.entry, given.set, given.seconds, given.seeds)
        elif given.command == "table":
            write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
        else:
            broken = {name: check(name, given.again) for name in given.entry or names()}
            for name, rules in broken.items():
                print(f"{name}: " + ("keeps the rules" if not rules else "does not keep these rules:"))
                print("".join(f"  - {rule}\n" for rule in rules), end="")
            return int(any(broken.values()))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
