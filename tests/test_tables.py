"""The tables "reported and ours": every reported number once, its state, and the files that show them."""

import json
import random
import re
import statistics

import pytest
from conftest import ROOT
from test_results import made_up

from u2learn import recipes, records, reported, tables, tasks
from u2learn.markdown import NO_BREAK

# --- the table of the README --------------------------------------------------------------------------------


@pytest.fixture
def table(folder):
    for dataset, dice in (("drive", 0.80), ("stare", 0.82), ("chase", 0.79)):
        for seed in range(3):
            record = made_up(f"{dataset}-small", seed, dice + 0.001 * seed)
            records.write_record(f"{dataset}-small-seed{seed}", record)
    human = {"scores": {p: {"dice": 0.7777 + 0.01 * i} for i, p in enumerate(tasks.PROTOCOLS)}}
    records.write_record("drive-second-observer", human)
    return tables.retina_table()


def cells(table: str, title: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [row[1:] for row in rows if title in row[0]]


def test_table_of_reported_and_ours(table):
    assert cells(table, "UNet-S5-D16") == [["79.56", "82.84", "80.47"]]
    assert cells(table, "W-Net") == [["82.8", "83.9", "82.0"]]
    spread = statistics.stdev([80, 80.1, 80.2])
    image, field = cells(table, "ours (mean")
    assert image == [f"**{m:.2f}** ± {spread:.2f}" for m in (80.1, 82.1, 79.1)]
    assert field == [f"**{m:.2f}** ± {spread:.2f}" for m in (82.1, 84.1, 81.1)]  # the third protocol
    assert [row[0] for row in cells(table, "second human observer")] == ["77.77", "78.77"]
    assert cells(table, "seeds") == [["3", "3", "3"]]
    assert cells(table, "parameters")[-1] == ["76,543"] * 3
    assert cells(table, "seconds") == [["300"] * 3]
    assert cells(table, "training: operations") == [["21 TFLOP"] * 3]
    assert cells(table, "one image") == [["17 GFLOP"] * 3]


def test_the_table_is_markdown(table):
    lines = table.splitlines()
    assert lines[1].startswith("|---")
    assert {line.count("|") for line in lines} == {5}


def test_a_missing_human_is_a_dash(table):
    assert [row[2] for row in cells(table, "second human observer")] == ["–", "–"]


def test_a_table_without_records_says_so_and_invents_nothing(folder):
    table = tables.retina_table()
    assert cells(table, "`SET-small`") == [["not run yet"] * 3] * 2
    assert cells(table, "parameters")[-1] == ["–"] * 3
    with pytest.raises(LookupError, match="drive-small"):
        records.mean_and_spread("drive-small", "image")


# --- every reported number ----------------------------------------------------------------------------------

CHAPTER = ROOT / "book" / "chapters" / "reported-and-ours.ipynb"


def chapter_rows() -> list[list[str]]:
    """The cells of all table rows of the chapter."""
    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    rows = [line for line in text.replace(NO_BREAK, " ").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_reported_number_is_on_the_page_with_its_source():
    pages = {row[1]: row[0] for row in chapter_rows() if len(row) == 3}
    by_value = {}
    for row in chapter_rows():
        if len(row) >= 7:
            for cell in row:
                by_value.setdefault(cell.split()[0], []).append(row)
    for due in reported.reported():
        found = [
            row
            for row in by_value.get(due["value"], []) + by_value.get(due["value"] + "0", [])
            if due["metric"] in row and pages[due["source"]] in row[-1].split()
        ]
        assert found, due


def test_no_reported_number_is_there_twice_and_none_is_lost():
    lines = tables.lines()
    keys = [(line.dataset, line.system, line.metric, float(line.value)) for line in lines]
    assert len(keys) == len(set(keys))
    counted = 0
    for line in lines:
        size = re.search(r"\d+x\d+.*", line.system)
        for row in reported.reported():
            name = row["head"] or row["model"]
            counted += bool(
                (row["dataset"] or "any") == line.dataset
                and (row["metric"], float(row["value"])) == (line.metric, float(line.value))
                and row["source"] in line.sources
                and row["group"] == line.group
                and line.system.split(", ")[0] == tables.NAMES.get(name, name)
                and (not row["head"] or line.system.endswith(tables.NAMES.get(row["loss"], row["loss"])))
                and (row["head"] or row["variant"] == (size[0] if size else ""))
            )
    assert counted == len(reported.reported())


def test_every_unet_row_of_openmmlab_and_paddleseg_has_its_recipe():
    for line in tables.lines():
        if line.group in ("UNet-S5-D16 (OpenMMLab)", "UNet (PaddleSeg)") and "corrected" not in line.reason:
            assert line.metric in reported.reported_for(recipes.get(line.recipe)), line
            assert line.value in reported.reported_for(recipes.get(line.recipe)).values(), line


# --- states -------------------------------------------------------------------------------------------------


def line_of(metric: str, value: str, unit: str, ours: float | None) -> tables.Line:
    return tables.Line(
        dataset="DRIVE",
        group="U²-Net and U²-Net†",
        system="U²-Net",
        metric=metric,
        value=value,
        unit=unit,
        sources=("a page",),
        recipe=None,
        ours=None if ours is None else (ours, 0.0, 1),
        small=None,
        without="not run",
        reason="GPU",
    )


@pytest.mark.parametrize(
    ("metric", "value", "unit", "ours", "state"),
    [
        ("Dice", "79.56", "%", 79.06, "**reproduced**"),
        ("Dice", "79.56", "%", 80.06, "**reproduced**"),
        ("Dice", "79.56", "%", 80.07, "**beaten**"),
        ("Dice", "79.56", "%", 78.00, "**short** by 1.56"),
        ("MAE", "0.041", "fraction", 0.030, "**beaten**"),  # less is better
        ("MAE", "0.041", "fraction", 0.050, "**short** by 0.009"),
        ("maxF", "0.943", "fraction", 0.9428, "**reproduced**"),
        ("HCE", "1413", "count", 1600, "**short** by 187"),
        ("Dice", "79.56", "%", None, "*not run* (GPU)"),
    ],
)
def test_the_state_of_a_line(metric, value, unit, ours, state):
    assert line_of(metric, value, unit, ours).verdict == state


def test_a_record_changes_the_state_of_its_rows(folder):
    def dice_line():
        return next(n for n in tables.lines() if n.recipe == "drive-fcn-ce" and n.metric == "Dice")

    assert dice_line().verdict == "*not run* (GPU)" and dice_line().ours is None
    for seed, dice in enumerate((0.7840, 0.7880)):
        records.write_record(f"drive-fcn-ce-seed{seed}", made_up("drive-fcn-ce", seed, dice))
    assert dice_line().ours == pytest.approx((78.6, statistics.stdev([78.4, 78.8]), 2))
    assert dice_line().state == "reproduced"
    table = tables.table("UNet-S5-D16 (OpenMMLab)", "DRIVE").replace(NO_BREAK, " ")
    assert "| FCN, CE | Dice | 78.67 | 78.60 ± 0.28 (2) | -0.07 | **reproduced** |" in table
    assert "| 1 | 1 | 0 |" in tables.summary_table()  # reproduced (Dice), beaten (mDice), short


def test_weights_of_others_count_as_ours_only_while_the_recipe_is_the_same(folder):
    record = made_up("drive-fcn-ce", 0, 0.79)
    official = {"official": record["recipe"], "scores": record["scores"]}
    records.write_record("drive-fcn-ce-official", official)
    assert len(records.all_of("drive-fcn-ce")) == 1 and records.of_recipe("drive-fcn-ce") == []
    records.write_record(
        "drive-fcn-ce-official", official | {"official": record["recipe"] | {"iterations": 7}}
    )
    assert records.all_of("drive-fcn-ce") == []


def test_memory_and_speed_are_held_against_their_columns(folder):
    record = made_up("cityscapes-fcn-ce", 0, 0.5) | {
        "training_memory": 17_950_000_000,
        "speed": {"frames_per_second": 30.0},
        "scores": {"image": {"miou": 0.69}, "ms+flip": {"miou": 0.72}},
    }
    records.write_record("cityscapes-fcn-ce-seed0", record)
    found = {n.metric: n.state for n in tables.lines() if n.recipe == "cityscapes-fcn-ce"}
    assert found == {
        "Mem": "reproduced",
        "fps": "beaten",
        "mIoU": "reproduced",
        "mIoU(ms+flip)": "beaten",
    }


# --- arithmetic on what was reported ------------------------------------------------------------------------


def test_two_means_give_both_dice_values_back():
    draw = random.Random(0)
    for _ in range(200):
        pair = sorted((draw.random(), draw.random()), reverse=True)
        iou = statistics.mean(d / (2 - d) for d in pair)
        assert tables.split_mean_dice(statistics.mean(pair), iou) == pytest.approx(pair, abs=1e-6)


@pytest.mark.parametrize(("dice", "iou"), [(0.9, 0.9), (0.9, 0.5), (0.5, 0.1)])
def test_means_that_no_two_classes_have_are_refused(dice, iou):
    with pytest.raises(ValueError, match="No two classes"):
        tables.split_mean_dice(dice, iou)


def test_errors_of_the_sources():
    assert "Of its 76 numbers, 76 equal" in tables.copied_rows()
    assert "| PASCAL-S | F3Net, max_F1 | 0.768 | U²-Net†, Fw |" in tables.mislabelled_table()
    assert re.findall(r"\d\d\.\d\d", tables.corrected_value()) == ["66.89", "67.29"]
    implied = {
        row.split(" | ")[0][2:]: float(row.split(" | ")[-1][:-2])
        for row in tables.paddle_dice_table().splitlines()[2:]
    }
    due = {"STARE": 82.3, "DRIVE": 80.8, "CHASE_DB1": 78.6, "HRF": 75.7}
    assert implied == pytest.approx(due, abs=0.11)


# --- numbers in the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_the_study_of_blocks_shows_the_means_of_its_records(by):
    rows = tables.block_table(by).replace(NO_BREAK, " ").splitlines()[2:]
    blocks = [row.strip("| ").split(" | ") for row in rows]
    assert [cells[0] for cells in blocks] == [
        "plain", "residual", "dense", "inception", "pyramid", "naive", "rsu",
    ]  # fmt: skip
    for name, parameters, _, vessels, things in blocks:
        for dataset, score, cell in (("drive", "dice", vessels), ("objects", "max_f", things)):
            suffix = "" if name in ("naive", "rsu") else f"-{by}"
            paths = [ROOT / "results" / f"{dataset}-{name}{suffix}-seed{seed}.json" for seed in range(3)]
            runs = [json.loads(path.read_text()) for path in paths]
            values = [100 * run["scores"]["image"][score] for run in runs]
            assert cell == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} (3)"
        assert parameters == f"{runs[0]['parameters']:,}"  # of the one class that things have


def test_nothing_is_minus_zero():
    assert tables._number(-0.0002, "0.943", "+") == "+0.000" and tables._number(-0.0006, "0.943") == "-0.001"


def test_numbers_in_prose_follow_their_record(folder):
    records.write_record("drive-small-seed0", made_up("drive-small", 0, 0.8128))
    stale = "It reaches 79.9<!-- drive-small / image / dice --> % here and 12.5 % elsewhere."
    assert tables.fill(stale) == stale.replace("79.9", "81.3")
    field = "99.00<!-- drive-small / field, chosen threshold / dice -->"
    assert tables.fill(field) == field.replace("99.00", "83.28")
    with pytest.raises(LookupError, match="stare-small"):
        tables.fill("1.0<!-- stare-small / image / dice -->")


@pytest.mark.parametrize(
    "text", ["<!-- results:begin -->", "<!-- results:end -->", "<!-- results:end --> <!-- results:begin -->"]
)
def test_a_table_without_both_marks_is_refused(text):
    with pytest.raises(ValueError, match="results:begin"):
        tables.fill(text)


def test_other_marks_are_left_alone():
    text = "<!-- chapters:begin -->\nold\n<!-- chapters:end -->\n"
    assert tables.fill(text) == text


NUMBER = re.compile(r"(?<![\d.,])\d+\.\d{2,}(?![\d.])")


def prose(text: str) -> str:
    """`text` without generated tables, marked numbers and code."""
    text = re.sub(r"<!-- ([\w-]+):begin -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return tables.NUMBER.sub("", text)


def test_no_result_of_ours_is_typed_into_prose():
    """A typed number would stay when its record changes. Marked ones, `82.1<!-- recipe / ... -->`, follow."""
    ours = set()
    for name in recipes.names():
        if found := records.of_recipe(name):
            for protocol in found[0]["scores"]:
                for score in ("dice", "mdice", "miou", "auc"):
                    if score in found[0]["scores"][protocol]:
                        mean, _, _ = records.mean_and_spread(name, protocol, score)
                        ours.add(f"{mean:.2f}")
    reported_values = {row["value"] for row in reported.reported()}
    for path in tables.wanted(ROOT):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
            text = "\n".join("".join(c["source"]) for c in cells)
        typed = set(NUMBER.findall(prose(text))) & ours - reported_values
        assert not typed, (
            f"{path.name} has {typed} typed: mark it, as in 82.1<!-- drive-small / image / dice -->"
        )


def test_a_price_is_the_time_of_the_cores_or_of_the_gpu(folder):
    base = made_up("drive-small", 0, 0.8) | {"seconds": 999.0}
    records.write_record("drive-small-seed0", base | {"device": "CPU, 1 thread(s)"})
    records.write_record(
        "stare-small-seed0",
        base | {"recipe": made_up("stare-small", 0, 0.8)["recipe"], "device": "H", "device_kind": "cuda"},
    )
    rows = [row.replace(NO_BREAK, " ") for row in tables.cost_table().splitlines()[2:]]
    assert rows == [
        "| `drive-small` | 76,543 | 21 TFLOP | 200 s of one core | 17 GFLOP | CPU, 1 thread(s) | 1 |",
        "| `stare-small` | 76,543 | 21 TFLOP | 999 s | 17 GFLOP | H | 1 |",
    ]
