"""The tables "reported and ours": every reported number once, its state, and the files that show them."""

import csv
import dataclasses
import json
import random
import re
import statistics
from itertools import takewhile

import pytest
from conftest import ROOT
from test_results import made_up

from u2learn import comparison, recipes, records, reported, tables, tasks
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
    assert cells(table, "UNet-S5-D16") == [["79.56", "**82.84**", "**80.47**"]]
    assert cells(table, "Little W-Net") == [["**82.8**", "83.9", "**82.0**"]]
    spread = statistics.stdev([80, 80.1, 80.2])
    image, field = cells(table, "`SET-small`")
    assert image == [f"**80.10** ± {spread:.2f}", f"82.10 ± {spread:.2f}", f"79.10 ± {spread:.2f}"]
    # the third protocol; the best value of a column is bold, whoever's it is
    assert field == [f"82.10 ± {spread:.2f}", f"**84.10** ± {spread:.2f}", f"81.10 ± {spread:.2f}"]
    assert [row[0] for row in cells(table, "second human observer")] == ["77.77", "78.77"]
    assert cells(table, "seeds")[-1] == ["3", "3", "3"]
    assert cells(table, "parameters")[-1] == ["76,543"] * 3
    assert cells(table, "seconds") == [["300"] * 3]
    assert cells(table, "training: operations") == [["21 TFLOP"] * 3]
    assert cells(table, "one image") == [["17 GFLOP"] * 3]


def test_one_value_a_column_and_protocol_is_bold(table):
    for title in ("UNet-S5-D16", "Little W-Net"):
        lines = table.splitlines()
        start = next(i for i, line in enumerate(lines) if title in line)
        group = takewhile(lambda line: "**" not in line.split("|")[1], lines[start:])  # to the next title
        rows = [line.strip("|").split("|")[1:] for line in group]
        assert len(rows) >= 3
        for column in zip(*rows, strict=True):
            values = [float(re.match(r"[\d.]+", cell.strip(" *"))[0]) for cell in column if "–" not in cell]
            bold = [float(cell.split("**")[1]) for cell in column if "**" in cell]
            assert bold == [max(values)]


def test_the_table_is_markdown(table):
    lines = table.splitlines()
    assert lines[1].startswith("|---")
    assert {line.count("|") for line in lines} == {5}


def test_a_missing_human_is_a_dash(table):
    assert [row[2] for row in cells(table, "second human observer")] == ["–", "–"]


def test_a_table_without_records_says_so_and_invents_nothing(folder):
    table = tables.retina_table()
    assert cells(table, "`SET-small`") == [["not run yet"] * 3] * 2
    assert cells(table, "Little W-Net") == [["**82.8**", "**83.9**", "**82.0**"]]
    assert cells(table, "parameters")[-1] == ["–"] * 3
    with pytest.raises(LookupError, match="drive-small"):
        records.mean_and_spread("drive-small", "image")


# --- every reported number ----------------------------------------------------------------------------------

CHAPTER = ROOT / "book" / "chapters" / "reported-and-ours.ipynb"


def chapter_tables() -> list[list[list[str]]]:
    """The chapter's tables in its text: rows of cells, the head first, without the line of dashes."""
    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    found, last = [], False
    for row in text.replace(NO_BREAK, " ").splitlines():
        if row[:1] == "|":
            if not last:
                found.append([])
            if not re.fullmatch(r"[|\s:-]+", row):
                found[-1].append([cell.strip() for cell in row.strip("|").split("|")])
        last = row[:1] == "|"
    return found


def test_every_reported_number_is_on_the_page_with_its_source():
    """In the column of its metric, on the line of its system, with the letter of its page."""
    everything = chapter_tables()
    pages = {row[1]: row[0] for table in everything for row in table if len(row) == 3}
    cells = set()  # (metric, value, letter)
    for head, *rows in everything:
        if head[-1] == "pages":
            for row in rows:
                for metric, cell in zip(head, row, strict=True):
                    cells |= {(metric, cell.split()[0], letter) for letter in row[-1].split() if cell}
        if head[-1] == "page":  # what stands under another name
            cells |= {(row[1].split(", ")[1], row[2], row[-1]) for row in rows}
    for due in reported.reported():
        found = {(due["metric"], due["value"] + more, pages[due["source"]]) for more in ("", "0")}
        assert found & cells, due


def test_no_reported_number_is_there_twice_and_none_is_lost():
    lines = tables.lines()
    keys = [(line.dataset, line.system, line.metric, float(line.value)) for line in lines]
    assert len(keys) == len(set(keys))
    assert len({key[:3] for key in keys}) == len(keys)  # a system has one value of a metric on a set
    counted = 0
    for line in lines:
        size = re.search(r"\d+x\d+.*", line.system)
        for row in reported.reported():
            name = row["head"] or row["model"]
            loss = comparison.NAMES.get(row["loss"], row["loss"])
            counted += bool(
                (row["dataset"] or "any") == line.dataset
                and (row["metric"], float(row["value"])) == (line.metric, float(line.value))
                and row["source"] in line.sources
                and row["group"] == line.group
                and line.system.split(", ")[0] == comparison.NAMES.get(name, name)
                and (not row["head"] or line.system.removesuffix(" (corrected later)").endswith(loss))
                and (row["head"] or row["variant"] == (size[0] if size else ""))
            )
    assert counted == len(reported.reported())


def test_every_unet_row_of_openmmlab_and_paddleseg_has_its_recipe():
    for line in tables.lines():
        if line.group in ("UNet-S5-D16 (OpenMMLab)", "UNet (PaddleSeg)") and "corrected" not in line.system:
            assert line.metric in reported.reported_for(recipes.get(line.recipe)), line
            assert line.value in reported.reported_for(recipes.get(line.recipe)).values(), line


@pytest.mark.parametrize(
    "path", sorted((ROOT / "u2learn" / "assets").glob("*.csv")), ids=lambda path: path.stem
)
def test_each_row_of_a_table_that_ships_has_the_columns_of_its_head(path):
    head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert rows and all(len(row) == len(head) for row in rows)


def test_the_half_net_stands_beside_binseg_by_its_rules_and_in_its_unit(folder):
    records.write_record("chase-binseg-seed0", made_up("chase-binseg", 0, 0.80))
    found = {one.dataset: one for one in tables.lines() if one.system == "Little W-Net"}
    assert found["CHASE_DB1"].unit == "fraction"
    assert found["CHASE_DB1"].small == pytest.approx((0.82, 0, 1))  # the third protocol of a made-up record
    assert found["STARE"].small is None and found["CHASE_DB1"].state == "no recipe"
    table = tables.table("bob.ip.binseg").replace(NO_BREAK, " ")
    assert "| CHASE_DB1 | `chase-binseg`, ours (another network, 8 views) | 0.820 |" in table
    assert cells(tables.retina_table(), "`SET-binseg`") == [
        ["not run yet", "not run yet", "82.00 (one seed)"]
    ]
    claim = "our net of 76,543 parameters above Little W-Net, by bob.ip.binseg's rules | "
    for dataset, dice in (("chase", 0.78), ("stare", 0.82)):  # 0.80 against 0.820, 0.84 against 0.839
        records.write_record(f"{dataset}-binseg-seed0", made_up(f"{dataset}-binseg", 0, dice))
    assert claim + "1 of 2 values" in tables.proved_table()


def test_the_half_net_has_no_row_before_its_first_run(table):
    assert cells(table, "`SET-binseg`") == []


# --- states -------------------------------------------------------------------------------------------------


def line_of(metric: str, value: str, unit: str, ours: float | None) -> comparison.Line:
    return comparison.Line(
        dataset="DRIVE",
        group="U²-Net and U²-Net†",
        system="U²-Net",
        metric=metric,
        value=value,
        unit=unit,
        sources=("a page",),
        trained=None if ours is None else (ours, 0.0, 1),
        missing="weights",
        why=lambda: "176 MB",
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
        ("Dice", "79.56", "%", None, "*weights* (176 MB)"),
    ],
)
def test_the_state_of_a_line(metric, value, unit, ours, state):
    assert line_of(metric, value, unit, ours).verdict == state


def test_a_short_training_and_a_computed_value_are_states_of_their_own():
    line = line_of("Dice", "79.56", "%", None)
    short = dataclasses.replace(line, short=(78.9, 0.0, 1), share=1 / 40)
    assert short.verdict == "*short training*: 78.90 (1/40)" and short.difference is None
    whole = dataclasses.replace(short, trained=(79.5, 0.0, 1))
    assert whole.state == "reproduced"  # a whole training counts before a short one
    tested = dataclasses.replace(whole, official=(77.0, 0.0, 1))
    assert tested.state == "reproduced"  # and before the authors' weights
    computed = dataclasses.replace(line, follows=lambda: 79.5)
    assert computed.verdict == "**computed**" and computed.computed == 79.5


def dice_line(recipe: str = "drive-fcn-ce") -> comparison.Line:
    return next(n for n in tables.lines() if n.recipe == recipe and n.metric == "Dice")


def test_a_record_changes_the_state_of_its_rows(folder):
    assert dice_line().state == "weights" and dice_line().ours is None
    for seed, dice in enumerate((0.7840, 0.7880)):
        records.write_record(f"drive-fcn-ce-seed{seed}", made_up("drive-fcn-ce", seed, dice))
    assert dice_line().ours == pytest.approx((78.6, statistics.stdev([78.4, 78.8]), 2))
    assert dice_line().state == "reproduced"
    table = tables.table("UNet-S5-D16 (OpenMMLab)", "DRIVE").replace(NO_BREAK, " ")
    shown, folded = table.split("<details>")
    row = next(row for row in shown.splitlines() if row.startswith("| FCN, CE |"))
    assert "| 78.67 / 78.60 ± 0.28 (2) |" in row and "Dice **reproduced**" in row
    assert "Not run here: 5 of 6" in folded and "FCN, CE |" not in folded
    head, _, first = tables.summary_table().splitlines()[:3]
    counts = dict(zip(head.split("|"), first.split("|"), strict=True))
    found = {state: int(counts[f" {state} "]) for state in ("reproduced", "beaten", "short", "weights")}
    assert found == {"reproduced": 1, "beaten": 1, "short": 0, "weights": 34}  # Dice; mDice


def test_a_short_training_answers_to_the_row_that_it_shortens(folder):
    record = made_up("drive-fcn-ce-short", 0, 0.785)
    records.write_record("drive-fcn-ce-short-seed0", record)
    assert dice_line().short == pytest.approx((78.5, 0.0, 1)) and dice_line().ours is None
    # 6,400 steps of 4 windows, half of which have a quarter of the pixels
    assert dice_line().share == pytest.approx(1 / 40)
    assert dice_line("drive-psp-ce").short is None
    shown = tables.table("UNet-S5-D16 (OpenMMLab)", "DRIVE").split("<details>")[0]
    assert "*short training*: 78.50" in shown.replace(NO_BREAK, " ")
    assert "| 78.67 / 78.50 |" in shown.replace(NO_BREAK, " ")


def test_no_line_waits_for_a_gpu_alone_and_each_says_what_it_costs():
    for line in tables.lines():
        assert line.state in comparison.STATES and "GPU" not in line.verdict
        if line.state in ("weights", "training", "data"):
            assert re.search(r"\d (MB|min|h|days)", line.verdict), line


def test_the_costs_of_what_is_missing(folder):
    said = {line.recipe: line.verdict for line in tables.lines() if line.recipe}
    assert said["chase-fcn-ce"] == "*weights* (116 MB, 4 min of a core)"
    assert said["hrf-paddle"].startswith("*data* (u2learn fetches it; then weights of 54 MB, ")
    assert said["cityscapes-fcn-ce"].startswith("*data* (by hand; then weights of 116 MB, ")
    assert said["dis-vd-u2net"].startswith("*data* (by hand; then training, T4: 6 days, a core: ")
    made_at = json.loads((ROOT / "results" / "drive-fcn-ce-seed0-at-440.json").read_text())
    core = made_at["training_flops"] / made_at["cpu_seconds"]
    assert core == pytest.approx(comparison.CORE, rel=0.1)
    assert made_at["image_flops"] * made_at["speed"]["frames_per_second"] == pytest.approx(core, rel=0.1)


def test_memory_is_below_what_was_reported_by_no_more_than_a_workspace():
    memory = {(n.dataset, n.system): n for n in tables.lines() if n.metric == "Mem"}
    assert len(memory) == 25 and {n.state for n in memory.values()} == {"computed"}
    for line in memory.values():
        assert 0.65 < line.computed / float(line.value) < 1, line
    found = {name: memory[name, "FCN, CE"].computed for name in ("DRIVE", "STARE", "HRF", "Cityscapes")}
    due = {"DRIVE": 0.48, "STARE": 0.88, "HRF": 2.48, "Cityscapes": 17.70}
    assert found == pytest.approx(due, abs=0.01)


def test_sizes_of_files_and_means_of_parts_follow():
    lines = tables.lines()
    sizes = {n.system: n for n in lines if n.metric == "model size" and n.state == "computed"}
    assert sizes.keys() == {"U²-Net", "U²-Net†"}
    for line in sizes.values():
        assert line.computed == pytest.approx(float(line.value), abs=comparison.TOLERANCES["MB"])
    means = [n for n in lines if n.dataset == "DIS-TE(1-4)"]
    assert len(means) == 12
    for line in means:  # four rounded numbers and their rounded mean: a last digit at most
        assert line.state == "computed"
        assert abs(line.computed - float(line.value)) <= (1 if line.metric == "HCE" else 0.001), line


def test_weights_of_others_count_as_ours_only_while_the_recipe_is_the_same(folder):
    record = made_up("drive-fcn-ce", 0, 0.79)
    official = {"official": record["recipe"], "scores": record["scores"]}
    records.write_record("drive-fcn-ce-official", official)
    assert len(records.official_of("drive-fcn-ce")) == 1 and records.of_recipe("drive-fcn-ce") == []
    records.write_record(
        "drive-fcn-ce-official", official | {"official": record["recipe"] | {"iterations": 7}}
    )
    assert records.official_of("drive-fcn-ce") == []


def test_speeds_on_other_cards_are_not_comparable(folder):
    record = made_up("cityscapes-fcn-ce", 0, 0.5) | {
        "training_memory": 17_950_000_000,
        "speed": {"frames_per_second": 30.0},
        "scores": {"image": {"miou": 0.69}, "ms+flip": {"miou": 0.72}},
    }
    records.write_record("cityscapes-fcn-ce-seed0", record)
    found = {
        n.metric: n.state
        for n in tables.lines()
        if (n.dataset, n.group) == ("Cityscapes", "UNet-S5-D16 (OpenMMLab)")
    }
    assert found == {
        "Mem": "computed",
        "fps": "not comparable",
        "mIoU": "reproduced",
        "mIoU(ms+flip)": "beaten",
    }


def test_what_holds_says_only_what_is_recorded(folder):
    assert not [row for row in tables.proved_table().splitlines() if "small net" in row or "maps" in row]
    records.write_record("drive-fcn-ce-short-seed0", made_up("drive-fcn-ce-short", 0, 0.782))
    assert "0 of 1 at or above it, the others at most 0.47 below" in tables.proved_table()
    for dataset, dice in (("drive", 0.7900), ("stare", 0.8000)):  # of six values each above 79.00: 3; none
        records.write_record(f"{dataset}-small-seed0", made_up(f"{dataset}-small", 0, dice))
    assert "3 of 12 values" in tables.proved_table()
    maps = {"one": {"mean": 1.0, "largest": 9}, "two": {"mean": 2.0, "largest": 5}}
    records.write_record("u2net-small-maps", {"differences": maps})
    assert "| the 2 maps that the authors of U²-Net† published |" in tables.proved_table()
    assert "at most 2.00 of 255 grey levels off in the mean, 9 in a pixel" in tables.proved_table()


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
    assert "| PASCAL-S | F3Net, max_F1 | 0.768 | U²-Net†, Fw | f |" in tables.mislabelled_table()
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
    assert (
        comparison.number(-0.0002, "0.943", "+") == "+0.000"
        and comparison.number(-0.0006, "0.943") == "-0.001"
    )


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
