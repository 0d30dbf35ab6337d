"""Reported and ours as tables in the book, and the numbers in its prose.

A file says where a table goes with two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`; a number in
prose says which record it comes from, as in `82.1<!-- drive-small / image / dice -->`. `fill` writes both.
"""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from u2learn import protocols, studies
from u2learn.cards import SHIPPED, card
from u2learn.comparison import (
    BINSEG,
    NAMES,
    OPENMMLAB,
    PADDLESEG,
    PROVED,
    STATES,
    Line,
    Value,
    beside,
    last_digit,
    lines,
    number,
)
from u2learn.data.retina import HELD_OUT
from u2learn.markdown import filled, line, notebook_text, unbroken
from u2learn.models.blocks import BLOCKS
from u2learn.recipe import VIEWS
from u2learn.records import mean_and_spread, of_recipe, records
from u2learn.reported import SETS, best_reported, reported
from u2learn.studies import mmseg
from u2learn.studies.blocks import block_study
from u2learn.studies.u2net import MODELS

U2NET = "U²-Net and U²-Net†"
OBJECT_SETS = ("DUT-OMRON", "DUTS-TE", "HKU-IS", "ECSSD", "PASCAL-S", "SOD")
DIS_SETS = ("DIS-VD", *(f"DIS-TE{part}" for part in ("1", "2", "3", "4", "(1-4)")))
UNITS = {"%": "", "fraction": "", "count": "", "GB": " GB", "fps": " fps", "MB": " MB", "ms": " ms"}

# --- tables -------------------------------------------------------------------------------------------------


def table(group: str, *datasets: str) -> str:
    """What was reported for a group of systems, on these sets or on all: a line a system, as Markdown.

    A cell is "reported / ours". Systems of which nothing was run are folded below.
    """
    chosen = [one for one in lines() if one.group == group and (not datasets or one.dataset in datasets)]
    chosen = [one for one in chosen if one.remark != "another name"]  # see `mislabelled_table`
    systems: dict[tuple[str, str], dict[str, Line]] = {}
    for one in chosen:
        systems.setdefault((one.dataset, one.system), {})[one.metric] = one
    metrics = list(dict.fromkeys(one.metric for one in chosen))
    several = len({name for name, _ in systems}) > 1
    head = ["set"] * several + ["system", *metrics, "state", "pages"]
    align = ["---:" if name in metrics else "---" for name in head]
    shown: list[list[str]] = []
    folded: list[list[str]] = []
    for (name, system), found in sorted(systems.items()):
        cells = [name] * several + [system, *(_pair(found.get(metric)) for metric in metrics)]
        pages = sorted({_letter(source) for one in found.values() for source in one.sources})
        cells += [_states(found.values()), " ".join(pages)]
        (shown if _run(found.values()) else folded).append(cells)
    for name in dict.fromkeys(one.dataset for one in chosen):
        shown += [[name] * several + [*cells, "", ""] for cells in _beside(group, name, metrics)]
    above = _rows(head, align, shown) if shown else ""
    if not folded:
        return above
    title = f"<details><summary>Not run here: {len(folded)} of {len(systems)}</summary>"
    return f"{above}\n\n{title}\n\n{_rows(head, align, folded)}\n\n</details>".lstrip()


def _rows(head: list[str], align: list[str], rows: list[list[str]]) -> str:
    return "\n".join([line(head), line(align), *(unbroken(row) for row in rows)])  # one row, one line


def _run(found: Iterable[Line]) -> bool:
    """Was anything of this system run, or all of it computed?"""
    states = {one.state for one in found}
    return bool(states & set(PROVED) - {"computed"}) or states == {"computed"}


def _pair(one: Line | None) -> str:
    """ "reported / ours", or what was reported alone."""
    if one is None:
        return "–"
    due = one.value + UNITS[one.unit]
    if one.computed is not None:
        return f"{due} / {number(one.computed, one.value)}"
    ours = one.ours or one.short
    return due if ours is None else f"{due} / {_mean(ours, one.value)}"


def _states(found: Iterable[Line]) -> str:
    """The verdict on a system; where its metrics differ in it, with their names."""
    verdicts: dict[str, list[str]] = {}
    for one in found:
        verdicts.setdefault(one.verdict, []).append(one.metric)
    if len(verdicts) == 1:
        return next(iter(verdicts))
    return "; ".join(f"{', '.join(metrics)} {verdict}" for verdict, metrics in verdicts.items())


def _beside(group: str, dataset: str, metrics: list[str]) -> list[list[str]]:
    """Our small net and the second human observer under the same protocol, where they have records."""
    rows = []
    chosen = {one.metric: one for one in lines() if (one.group, one.dataset) == (group, dataset)}
    key = next((key for key, name in SETS.items() if name == dataset), "")
    if any(one.small for one in chosen.values()):
        cells = [_mean(chosen[m].small, chosen[m].value) if m in chosen else "–" for m in metrics]
        name = beside(group, dataset)
        rows.append([f"`{name}`, ours (another network, {_views(name)} views)", *cells])
    if (human := records().get(f"{key}-second-observer")) and group == OPENMMLAB:
        columns = studies.studies()["mmseg"].columns
        found = [human["scores"][c[0]].get(c[1]) if (c := columns.get(m)) else None for m in metrics]
        rows.append(["second human observer", *("–" if x is None else f"{100 * x:.2f}" for x in found)])
    return rows


def _views(recipe: str) -> int:
    return len(VIEWS[studies.get(recipe).views])


def row(recipe: str) -> str:
    """What was reported for the row of this recipe beside ours, as plain text: a line a metric.

    Raises:
        LookupError: the recipe answers to no reported row.
    """
    chosen = [one for one in lines() if one.recipe == recipe]
    if not chosen:
        raise LookupError(f"{recipe!r} answers to no reported row; `u2learn evaluate` scores its run.")
    rows = [("metric", "reported", "their weights", "trained here", "Δ", "state")]
    for one in chosen:
        sign = "–" if one.difference is None else number(one.difference, one.value, "+")
        trained = one.trained if one.computed is None else (one.computed, 0.0, 1)
        cells = (_mean(one.official, one.value), _mean(trained, one.value), sign)
        rows.append((one.metric, one.value + UNITS[one.unit], *cells, one.verdict.replace("*", "")))
    widths = [max(len(cells[i]) for cells in rows) for i in range(5)]
    title = f"{chosen[0].dataset}, {chosen[0].group}: {chosen[0].system}"
    table = ("  ".join([*(f"{c:{w}}" for c, w in zip(r, widths, strict=False)), r[5]]) for r in rows)
    return "\n".join([title, *table])


def _mean(value: Value | None, like: str) -> str:
    if value is None:
        return "–"
    mean, spread, seeds = value
    return number(mean, like) + (f" ± {number(spread, like)} ({seeds})" if seeds > 1 else "")


def _count(value: float) -> str:
    """Whole from ten on, with one digit below."""
    return f"{value:,.{int(value < 10)}f}"


def _letter(source: str) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[_sources().index(source)]


def _sources() -> list[str]:
    return list(dict.fromkeys(row["source"] for row in reported()))


def sources_table() -> str:
    """The pages that the numbers were read from, and the letters that stand for them in the tables."""
    count = {source: sum(row["source"] == source for row in reported()) for source in _sources()}
    lines = ["| | page | numbers |", "|---|---|---:|"]
    return "\n".join(lines + [line((_letter(s), s, str(n))) for s, n in count.items()])


def summary_table() -> str:
    """How many reported numbers are in which state, by group of systems."""
    out = [line(("system", *STATES, "all")), "|---|" + "---:|" * (len(STATES) + 1)]
    everything = lines()
    for group in dict.fromkeys(one.group for one in everything):
        found = [one.state for one in everything if one.group == group]
        out.append(line((group, *(str(found.count(state)) for state in STATES), str(len(found)))))
    return "\n".join(out)


def proved_table() -> str:
    """What holds, in one table: each claim with its figure and the command that makes it again."""
    out = ["| what | figure | made by |", "|---|---|---|"]
    return "\n".join(out + [line((what, figure, f"`{by}`")) for what, figure, by in _proved()])


def _proved() -> Iterator[tuple[str, str, str]]:
    """What is proved, by which figure, and what makes it; a claim without its records is left out."""
    everything = lines()
    for name in MODELS:
        if record := records().get(f"{name.replace('_', '-')}-maps"):
            mean, largest = (max(d[k] for d in record["differences"].values()) for k in ("mean", "largest"))
            yield (
                f"the {len(record['differences'])} maps that the authors of {NAMES[MODELS[name]]} published",
                f"with their weights at most {mean:.2f} of 255 grey levels off in the mean, "
                f"{largest:.0f} in a pixel",
                f"u2learn evaluate --maps {name}",
            )
    tested = [one for one in everything if one.official]
    for recipe in dict.fromkeys(one.recipe for one in tested):
        found = [one for one in tested if one.recipe == recipe]
        yield (
            f"{found[0].system} on {found[0].dataset}, their weights: ours (reported)",
            ", ".join(f"{one.metric} {_mean(one.official, one.value)} ({one.value})" for one in found),
            f"u2learn evaluate --weights official --recipe {recipe}",
        )
    dice = [one for one in everything if (one.group, one.metric) == (OPENMMLAB, "Dice")]
    if held := [one.small[0] - float(one.value) for one in dice if one.small]:
        yield (
            "our small net above OpenMMLab's vessel Dice on DRIVE, STARE and CHASE_DB1",
            f"{sum(gain > 0 for gain in held)} of {len(held)} values",
            "u2learn reproduce retina-small --seeds 5",
        )
    if made := [record for name in studies.suites()["binseg"] for record in of_recipe(name)]:
        little = [one for one in everything if one.system == "Little W-Net"]
        gains = [one.small[0] - float(one.value) for one in little if one.small]
        yield (
            f"our net of {made[0]['parameters']:,} parameters above Little W-Net, by bob.ip.binseg's rules",
            f"{sum(gain > 0 for gain in gains)} of {len(gains)} values",
            "u2learn reproduce binseg --seeds 5",
        )
    if gains := [one.short[0] - float(one.value) for one in dice if one.short]:
        below = f", the others at most {-min(gains):.2f} below" if min(gains) < 0 else ""
        yield (
            "the published vessel networks after a short training: Dice against the table",
            f"{sum(gain >= 0 for gain in gains)} of {len(gains)} at or above it{below}",
            "u2learn reproduce drive-short; u2learn reproduce others-short",
        )
    for record in of_recipe("ecssd-short")[:1]:
        score, minutes = record["scores"]["image"], record["cpu_seconds"] / 60
        yield (
            "U²-Net† from nothing on 700 photographs of ECSSD, tested on the other 300",
            f"max F {score['max_f']:.3f}, {minutes:.0f} minutes of a core",
            "u2learn reproduce ecssd-short",
        )
    yield "memory of OpenMMLab's trainings, computed", memory_summary(), "costs.training_memory"
    sizes = [one for one in everything if one.metric == "model size" and one.computed]
    yield (
        "sizes of U²-Net's files, computed (reported)",
        ", ".join(dict.fromkeys(f"{number(one.computed or 0, one.value)} MB ({one.value})" for one in sizes)),
        "comparison.file_size",
    )
    means = [one for one in everything if one.dataset == "DIS-TE(1-4)"]
    right = [abs((one.computed or 0) - float(one.value)) <= last_digit(one.value) for one in means]
    yield (
        "DIS-TE(1-4) as the mean of its four parts",
        f"{sum(right)} of {len(right)} values, to the last digit",
        "comparison.mean_of_parts",
    )


def memory_summary() -> str:
    """One phrase: how much of the reported memory follows from the network alone."""
    memory = [one for one in lines() if one.metric == "Mem" and one.computed]
    shares = [100 * (one.computed or 0) / float(one.value) for one in memory]
    return f"{len(memory)} values, {min(shares):.0f} to {max(shares):.0f} % of what was reported"


def cost_table() -> str:
    """What each recipe with a record cost, but for the study of blocks and for tries on held-out images.

    On a CPU the time of its cores, as others may share them.
    """
    out = [
        "| recipe | parameters | training, operations | training, time | one image | device | seeds |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    left_out = {recipe.name for recipe in studies.studies()["blocks"].recipes}
    left_out |= {name for name, recipe in studies.all_recipes().items() if recipe.protocol in HELD_OUT}
    for name in studies.names():
        if name not in left_out and (found := of_recipe(name)):
            on_cpu = found[0].get("device_kind", "cpu") == "cpu"  # no record of before was made elsewhere
            seconds = statistics.mean(record["cpu_seconds" if on_cpu else "seconds"] for record in found)
            cells = [
                f"`{name}`",
                f"{found[0]['parameters']:,}",
                _count(found[0]["training_flops"] / 1e12) + " TFLOP",
                f"{seconds:.0f} s" + (" of one core" if on_cpu else ""),
                _count(found[0]["image_flops"] / 1e9) + " GFLOP",
                found[0]["device"],
                str(len(found)),
            ]
            out.append(unbroken(cells))
    return "\n".join(out)


def block_table(by: str) -> str:
    """The study of blocks, each matched to the RSU by "parameters" or "flops": cost, and both scores."""
    out = [
        "| block | parameters | operations a picture | vessels: Dice | things: max F |",
        "|---|---:|---:|---:|---:|",
    ]
    study = block_study()
    for block in BLOCKS:
        vessels, things = (study[dataset, block, by] for dataset in ("drive", "objects"))
        record = of_recipe(things)[0]
        cells = [block, f"{record['parameters']:,}", f"{record['image_flops'] / 1e6:.0f} MFLOP"]
        cells += [_mean(mean_and_spread(vessels, "image"), "1.0")]
        cells += [_mean(mean_and_spread(things, "image", "max_f"), "1.0")]
        out.append(unbroken(cells))
    return "\n".join(out)


def paddle_dice_table() -> str:
    """PaddleSeg's "DICE" and mIoU, and the vessel Dice that follows from the two."""
    out = [
        "| set | reported DICE | reported mIoU | so background Dice | and vessel Dice |",
        "|---|" + "---:|" * 4,
    ]
    paddle = [one for one in lines() if one.group == PADDLESEG]
    for dataset in SETS.values():
        values = {one.metric: float(one.value) / 100 for one in paddle if one.dataset == dataset}
        background, vessel = split_mean_dice(values["DICE"], values["mIoU"])
        printed = [f"{100 * values[name]:.2f}" for name in ("DICE", "mIoU")]
        out.append(line((dataset, *printed, f"{100 * background:.1f}", f"{100 * vessel:.1f}")))
    return "\n".join(out)


def split_mean_dice(mean_dice: float, mean_iou: float) -> tuple[float, float]:
    """The two Dice values, the larger first, of two classes whose mean Dice and mean IoU are known.

    With IoU = D / (2 - D) and Dice values m + d and m - d, the mean IoU is a function of d² alone.

    Raises:
        ValueError: no two Dice values have these means.
    """
    m = mean_dice
    # mean of (m + d) / (2 - m - d) and (m - d) / (2 - m + d), times the common divisor, solved for d²
    square = ((2 - m) ** 2 * mean_iou - m * (2 - m)) / (1 + mean_iou)
    if square < -1e-9 or m + max(square, 0) ** 0.5 > 1 + 1e-9:
        raise ValueError(f"No two classes have a mean Dice of {mean_dice} and a mean IoU of {mean_iou}.")
    return m + max(square, 0) ** 0.5, m - max(square, 0) ** 0.5


def copied_rows() -> str:
    """One sentence: how many rows of the page that is titled U²-Net are OpenMMLab's UNet rows."""
    keys = ("dataset", "model", "head", "loss", "metric", "value")
    page = [row for row in reported() if row["source"].startswith("tuanlda78202/CVP")]
    original = {tuple(r[k] for k in keys) for r in reported() if r["source"].startswith("mmsegmentation")}
    same = sum(tuple(row[k] for k in keys) in original for row in page)
    return f"Of its {len(page)} numbers, {same} equal OpenMMLab's for UNet-S5-D16 to the digit."


def mislabelled_table() -> str:
    """The rows that the archive of Papers With Code gives to F3Net, and whose they are."""
    out = ["| set | printed as | value | is the value of | page |", "|---|---|---:|---|---|"]
    for row in (row for row in reported() if row["remark"] == "another name"):
        owner = next(
            r
            for r in reported()
            if r["model"] == "U2-Net-dagger" and r["dataset"] == row["dataset"] and r["value"] == row["value"]
        )
        printed, meant = f"F3Net, {row['metric']}", f"U²-Net†, {owner['metric']}"
        out.append(line((row["dataset"], printed, row["value"], meant, _letter(row["source"]))))
    return "\n".join(out)


def corrected_value() -> str:
    """The value that PaddleSeg printed before it mended its multi-scale test, and the one after."""
    rows = [r for r in reported() if (r["group"], r["metric"]) == (PADDLESEG, "mIoU(ms+flip)")]
    before, after = sorted(rows, key=lambda row: not row["remark"])
    return f"The page said {before['value']} until February 2023 and says {after['value']} since."


def retina_table() -> str:
    """Ours beside what was reported, as Markdown: vessel Dice in percent by protocol, the best value bold."""
    views = _views("drive-small")
    half: dict[str, Callable[[str], str]] = {}  # a row of its own once it was run
    if any(of_recipe(name) for name in studies.suites()["binseg"]):
        title = f"`SET-binseg`, ours, `half_unet` ({_views('drive-binseg')} views)"
        half[title] = lambda s: _ours(s, "field, chosen threshold", "binseg")
    lines = [
        "| | DRIVE | STARE | CHASE_DB1 |",
        "|---|---:|---:|---:|",
        "| **Full image, pixel totals, threshold 0.5** (OpenMMLab's protocol) | | | |",
        *_ranked(
            {
                "UNet-S5-D16, best of 6 single runs (29 M parameters, 40,000 iterations)": lambda s: (
                    best_reported(s, OPENMMLAB)
                ),
                f"`SET-small`, ours ({views} views; mean ± deviation over the seeds)": lambda s: _ours(
                    s, "image"
                ),
                "second human observer": lambda s: _human(s, "image"),
            }
        ),
        "| **Field of view, threshold chosen on training images** (the protocol of bob.ip.binseg) | | | |",
        *_ranked(
            {
                "Little W-Net, a single run (68 k parameters; CHASE_DB1 split 8 / 20)": lambda s: (
                    best_reported(s, BINSEG, model="Little W-Net")
                ),
                **half,
                f"`SET-small`, ours ({views} views; CHASE_DB1 split 20 / 8)": lambda s: _ours(
                    s, "field, chosen threshold"
                ),
                "second human observer (CHASE_DB1: the last 8)": lambda s: _human(s, "field"),
            }
        ),
        "| **Cost of ours** | | | |",
        _row("parameters", lambda s: _cost(s, "parameters", "{:,.0f}")),
        _row("training: seconds of one CPU core", lambda s: _cost(s, "cpu_seconds", "{:.0f}")),
        _row("training: operations", lambda s: _cost(s, "training_flops", "{:.0f} TFLOP", 1e12)),
        _row(f"one image, {views} views: operations", lambda s: _cost(s, "image_flops", "{:.0f} GFLOP", 1e9)),
        _row("seeds", lambda s: str(len(of_recipe(f"{s}-small")))),
    ]
    return "\n".join(lines)


def _row(title: str, cell: Callable[[str], str]) -> str:
    return line((title, *(cell(s) for s in ("drive", "stare", "chase"))))


def _ranked(rows: dict[str, Callable[[str], str]]) -> list[str]:
    """The rows of one protocol, with the largest value of each column bold."""
    cells = {title: [cell(s) for s in ("drive", "stare", "chase")] for title, cell in rows.items()}
    best = [max(column, key=_leading) for column in zip(*cells.values(), strict=True)]
    return [
        line([title, *(_bold(cell) if cell == top else cell for cell, top in zip(found, best, strict=True))])
        for title, found in cells.items()
    ]


def _bold(text: str) -> str:
    """With the number bold that the text begins with."""
    value, space, rest = text.partition(" ")
    return f"**{value}**{space}{rest}"


def _leading(text: str) -> float:
    """The number that a cell begins with; what begins with none comes last."""
    found = re.match(r"[\d.]+", text)
    return float(found[0]) if found else -1.0


def _ours(dataset: str, protocol: str, name: str = "small") -> str:
    if not of_recipe(f"{dataset}-{name}"):
        return "not run yet"
    mean, spread, seeds = mean_and_spread(f"{dataset}-{name}", protocol)
    return f"{mean:.2f}" + (f" ± {spread:.2f}" if seeds > 1 else " (one seed)")


def _human(dataset: str, protocol: str) -> str:
    record = records().get(f"{dataset}-second-observer")
    return f"{100 * record['scores'][protocol]['dice']:.2f}" if record else "–"


def _cost(dataset: str, key: str, form: str, unit: float = 1) -> str:
    values = [record[key] / unit for record in of_recipe(f"{dataset}-small")]
    return form.format(statistics.mean(values)) if values else "–"


# --- into the files -----------------------------------------------------------------------------------------

GENERATED: dict[str, Callable[[], str]] = {
    "results": retina_table,
    "summary": summary_table,
    **{f"openmmlab-{key}": partial(table, OPENMMLAB, name) for key, name in mmseg.SETS.items()},
    "paddleseg": partial(table, PADDLESEG),
    "binseg": partial(table, BINSEG),
    "proved": proved_table,
    "memory": memory_summary,
    "dis-unet": partial(table, "U-Net (DIS paper)"),
    "u2net": partial(table, U2NET, *OBJECT_SETS),
    "u2net-dis": partial(table, U2NET, *DIS_SETS),
    "u2net-costs": partial(table, U2NET, "any"),
    "cost": cost_table,
    **{f"card-{name}": partial(card, name) for name in SHIPPED},
    "blocks-parameters": partial(block_table, "parameters"),
    "blocks-flops": partial(block_table, "flops"),
    "sources": sources_table,
    "copied": copied_rows,
    "mislabelled": mislabelled_table,
    "paddle-dice": paddle_dice_table,
    "corrected": corrected_value,
    "possible": protocols.possible_rows,
    "possible-summary": protocols.possible_summary,
}
NUMBER = re.compile(r"(\d+\.(\d+))<!-- ([\w-]+) / ([\w ,+]+) / (\w+) -->")


def fill(text: str) -> str:
    """`text` with its tables and its numbers as the records give them today.

    Raises:
        ValueError: a table's begin without its end.
        LookupError: a number of a recipe that has no record.
    """
    for name, make in GENERATED.items():
        if f"<!-- {name}:begin -->" in text or f"<!-- {name}:end -->" in text:
            text = filled(text, name, make())

    def number(match: re.Match) -> str:
        recipe, protocol, score = match[3], match[4], match[5]
        mean, _, _ = mean_and_spread(recipe, protocol, score)
        return f"{mean:.{len(match[2])}f}{match[0][len(match[1]) :]}"

    return NUMBER.sub(number, text)


def wanted(root: Path) -> dict[Path, str]:
    """The files below `root` that show results, README and book, each with the text that it should have."""
    texts = {}
    for path in [
        root / "README.md",
        *sorted(root.glob("book/**/*.md")),
        *sorted(root.glob("book/**/*.ipynb")),
    ]:
        text = path.read_text(encoding="utf-8")
        try:
            if path.suffix == ".md":
                texts[path] = fill(text)
                continue
            notebook = json.loads(text)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = fill("".join(cell["source"])).splitlines(keepends=True)
            texts[path] = notebook_text(notebook)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return texts
