"""Reported and ours: every number that others reported, what we got, and a state, as tables in the book.

A file says where a table goes with two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`; a number in
prose says which record it comes from, as in `82.1<!-- drive-small / image / dice -->`. `fill` writes both.
"""

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from u2learn import studies
from u2learn.markdown import filled, line, notebook_text, unbroken
from u2learn.models.blocks import BLOCKS
from u2learn.recipe import VIEWS
from u2learn.records import all_of, mean_and_spread, of_recipe, over_seeds, records
from u2learn.reported import SETS, best_reported, reported, reported_rows
from u2learn.studies import mmseg
from u2learn.studies.blocks import block_study

# How close is "reproduced", by unit; the direction in which a metric is better, where it is not upwards.
TOLERANCES = {"%": 0.5, "fraction": 0.005, "count": 50, "GB": 0.1, "fps": 1, "MB": 0.1, "ms": 1}
LOWER_IS_BETTER = ("MAE", "HCE", "Mem", "time")
UNITS = {"%": "", "fraction": "", "count": "", "GB": " GB", "fps": " fps", "MB": " MB", "ms": " ms"}
OUR_DATA = ("drive", "stare", "chase")  # what we can train on; the other sets wait for somebody who has them

NAMES = {"U2-Net-dagger": "U²-Net†", "U2-Net": "U²-Net", "CE(1.0)+Dice(3.0)": "CE + 3 Dice"}
# The states that a line can be in, and how they are printed.
OPENMMLAB, PADDLESEG, LWNET = "UNet-S5-D16 (OpenMMLab)", "UNet (PaddleSeg)", "W-Net (lwnet)"
STATES = ("reproduced", "beaten", "short", "not run", "not comparable")


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
    recipe: str | None  # the recipe of ours that is held against it
    ours: tuple[float, float, int] | None  # mean, spread, seeds
    small: tuple[float, float, int] | None  # our small net under the same protocol
    without: str  # the state where there is nothing to compare
    reason: str  # and why

    @property
    def difference(self) -> float | None:
        """Ours minus reported."""
        return None if self.ours is None else self.ours[0] - float(self.value)

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.difference is None:
            return self.without
        gain = -self.difference if self.metric in LOWER_IS_BETTER else self.difference
        if abs(gain) <= TOLERANCES[self.unit] + 1e-9:
            return "reproduced"
        return "beaten" if gain > 0 else "short"

    @property
    def verdict(self) -> str:
        """The state as a table prints it, with by how much ours is short, or why there is none."""
        if self.difference is None:
            return f"*{self.state}* ({self.reason})"
        by = f" by {_number(abs(self.difference), self.value)}" if self.state == "short" else ""
        return f"**{self.state}**{by}"


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
    recipe = next(filter(None, map(_recipe_of, rows)), None)
    words = [row["head"], row["loss"]] if row["head"] else [row["model"], row["variant"]]
    if row["remark"]:
        reason = row["remark"]
    elif recipe is None:
        reason = "no recipe"
    else:
        reason = "GPU" if studies.get(recipe).dataset in OUR_DATA else "data, GPU"
    return Line(
        dataset=row["dataset"] or "any",
        group=row["group"],
        system=", ".join(NAMES.get(word, word) for word in words if word),
        metric=row["metric"],
        value=row["value"],
        unit=row["unit"],
        sources=tuple(dict.fromkeys(r["source"] for r in rows)),
        recipe=recipe,
        ours=None if row["remark"] or recipe is None else _ours_for(recipe, row["metric"], row["unit"]),
        small=_small_for(row),
        without="not comparable" if row["remark"] else "not run",
        reason=reason,
    )


def _recipe_of(row: dict) -> str | None:
    """The recipe that reproduces a reported row, if we have one."""
    return next((name for name, rows in _rows_by_recipe().items() if row in rows), None)


@cache
def _rows_by_recipe() -> dict[str, list[dict]]:
    return {name: reported_rows(recipe) for name, recipe in studies.all_recipes().items()}


def _ours_for(recipe: str, metric: str, unit: str) -> tuple[float, float, int] | None:
    """Mean, spread and number of our records of this recipe, in the unit of the reported metric."""
    found = all_of(recipe)
    if metric == "Mem":
        values = [record["training_memory"] / 1e9 for record in found if record.get("training_memory")]
    elif metric == "fps":
        values = [record["speed"]["frames_per_second"] for record in found]
    else:
        protocol, score = studies.columns_of(studies.get(recipe))[metric]
        scale = 100 if unit == "%" else 1
        values = [scale * record["scores"][protocol][score] for record in found]
    return over_seeds(values) if values else None


def _small_for(row: dict) -> tuple[float, float, int] | None:
    """Our small retinal net on the same images under the same protocol; None where there is no such run."""
    dataset = next((key for key, name in SETS.items() if name == row["dataset"]), None)
    name = f"{dataset}-small"
    columns = {
        OPENMMLAB: studies.studies()["mmseg"].columns,
        PADDLESEG: studies.studies()["paddle"].columns,
        # lwnet trains and tests on other images of the other sets
        LWNET: {"Dice": ("field, chosen threshold", "dice")} if dataset == "drive" else {},
    }.get(row["group"], {})
    if row["metric"] not in columns or dataset is None or not of_recipe(name):
        return None
    protocol, score = columns[row["metric"]]
    return mean_and_spread(name, protocol, score)


# --- tables -------------------------------------------------------------------------------------------------


def table(group: str, dataset: str = "") -> str:
    """The lines of a group of systems, or those of one data set, as Markdown."""
    chosen = [one for one in lines() if one.group == group and dataset in ("", one.dataset)]
    chosen.sort(key=lambda one: (one.dataset, one.system))  # stable: metrics stay in their order
    small = any(one.small for one in chosen)
    head = ["set"] * (not dataset) + ["system", "metric", "reported", "ours", "Δ", "state"]
    head += ["`SET-small`"] * small + ["pages"]
    rows = []
    for one in chosen:
        sign = "–" if one.difference is None else f"{_number(one.difference, one.value, '+')}"
        cells = [one.dataset] * (not dataset) + [one.system, one.metric, one.value + UNITS[one.unit]]
        cells += [_mean(one.ours, one.value), sign, one.verdict]
        cells += [_small(one)] * small + [" ".join(_letter(source) for source in one.sources)]
        rows.append(cells)
    align = ["---:" if name in ("reported", "ours", "Δ", "`SET-small`") else "---" for name in head]
    return "\n".join([line(head), line(align), *(unbroken(row) for row in rows)])  # one row, one line


def row(recipe: str) -> str:
    """What was reported for the row of this recipe beside ours, as plain text: a line a metric.

    Raises:
        LookupError: the recipe answers to no reported row.
    """
    chosen = [one for one in lines() if one.recipe == recipe]
    if not chosen:
        raise LookupError(f"{recipe!r} answers to no reported row; `u2learn evaluate` scores its run.")
    head = ("metric", "reported", "ours", "Δ", "state")
    rows = [head]
    for one in chosen:
        sign = "–" if one.difference is None else _number(one.difference, one.value, "+")
        cells = (one.metric, one.value + UNITS[one.unit], _mean(one.ours, one.value), sign)
        rows.append((*cells, one.verdict.replace("*", "")))
    widths = [max(len(cells[i]) for cells in rows) for i in range(4)]
    title = f"{chosen[0].dataset}, {chosen[0].group}: {chosen[0].system}"
    table = ("  ".join([*(f"{c:{w}}" for c, w in zip(r, widths, strict=False)), r[4]]) for r in rows)
    return "\n".join([title, *table])


def _small(one: Line) -> str:
    text = _mean(one.small, one.value)
    return f"**{text}**" if one.small and one.small[0] > float(one.value) else text


def _mean(value: tuple[float, float, int] | None, like: str) -> str:
    if value is None:
        return "–"
    mean, spread, seeds = value
    return _number(mean, like) + (f" ± {_number(spread, like)} ({seeds})" if seeds > 1 else "")


def _number(value: float, like: str, sign: str = "") -> str:
    """With as many digits as the reported value has, and never -0."""
    digits = len(like.partition(".")[2])
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


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


def small_summary() -> str:
    """One sentence: how our small net does against the rows that it may be held against."""
    held = [
        (one.small[0], float(one.value))
        for one in lines()
        if one.small is not None and one.group == OPENMMLAB and one.metric == "Dice"
    ]
    return (
        f"Of the {len(held)} vessel Dice values that OpenMMLab reports for DRIVE, STARE and CHASE_DB1, "
        f"the mean of our small net is above {sum(small > value for small, value in held)}."
    )


def cost_table() -> str:
    """What each recipe with a record cost, but for the study of blocks.

    On a CPU the time of its cores, as others may share them.
    """
    out = [
        "| recipe | parameters | training, operations | training, time | one image | device | seeds |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    blocks = {recipe.name for recipe in studies.studies()["blocks"].recipes}
    for name in studies.names():
        if name not in blocks and (found := of_recipe(name)):
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
    out = ["| set | printed as | value | is the value of |", "|---|---|---:|---|"]
    for row in (row for row in reported() if row["remark"] == "another name"):
        owner = next(
            r
            for r in reported()
            if r["model"] == "U2-Net-dagger" and r["dataset"] == row["dataset"] and r["value"] == row["value"]
        )
        printed, meant = f"F3Net, {row['metric']}", f"U²-Net†, {owner['metric']}"
        out.append(line((row["dataset"], printed, row["value"], meant)))
    return "\n".join(out)


def corrected_value() -> str:
    """The value that PaddleSeg printed before it mended its multi-scale test, and the one after."""
    rows = [r for r in reported() if (r["group"], r["metric"]) == (PADDLESEG, "mIoU(ms+flip)")]
    before, after = sorted(rows, key=lambda row: not row["remark"])
    return f"The page said {before['value']} until February 2023 and says {after['value']} since."


def retina_table() -> str:
    """Ours beside what was reported, as Markdown: vessel Dice in percent, by protocol."""
    views = len(VIEWS[studies.get("drive-small").views])
    lines = [
        "| | DRIVE | STARE | CHASE_DB1 |",
        "|---|---:|---:|---:|",
        "| **Full image, pixel totals, threshold 0.5** (OpenMMLab's protocol) | | | |",
        _row(
            "UNet-S5-D16, best of 6 rows (29 M parameters, 40,000 iterations)",
            lambda s: best_reported(s, OPENMMLAB),
        ),
        _row("`SET-small`, ours (mean ± deviation)", lambda s: _ours(s, "image")),
        _row("second human observer", lambda s: _human(s, "image")),
        "| **Field of view, threshold chosen on training images** (lwnet's protocol) | | | |",
        _row("W-Net of lwnet (68 k parameters)", lambda s: best_reported(s, LWNET)),
        _row("`SET-small`, ours (mean ± deviation)", lambda s: _ours(s, "field, chosen threshold")),
        _row("second human observer", lambda s: _human(s, "field")),
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


def _ours(dataset: str, protocol: str) -> str:
    if not of_recipe(f"{dataset}-small"):
        return "not run yet"
    mean, spread, seeds = mean_and_spread(f"{dataset}-small", protocol)
    return f"**{mean:.2f}**" + (f" ± {spread:.2f}" if seeds > 1 else " (one seed)")


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
    "small": small_summary,
    **{f"openmmlab-{key}": partial(table, OPENMMLAB, name) for key, name in mmseg.SETS.items()},
    "paddleseg": partial(table, PADDLESEG),
    "lwnet": partial(table, LWNET),
    "dis-unet": partial(table, "U-Net (DIS paper)"),
    "u2net": partial(table, "U²-Net and U²-Net†"),
    "cost": cost_table,
    "blocks-parameters": partial(block_table, "parameters"),
    "blocks-flops": partial(block_table, "flops"),
    "sources": sources_table,
    "copied": copied_rows,
    "mislabelled": mislabelled_table,
    "paddle-dice": paddle_dice_table,
    "corrected": corrected_value,
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
