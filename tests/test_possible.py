"""Ask the numbers: against all pairs of counts, against mlscorecheck, and on our own records."""

import collections
import itertools
import logging

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_cli import failure, run

from u2learn import protocols, records, tables
from u2learn.data.retina import LAYOUTS
from u2learn.metrics import overlap
from u2learn.metrics.possible import PAIRS, SCORES, means, not_tested, printed_as, totals
from u2learn.protocols import IMPOSSIBLE, NOT_TESTED, POSSIBLE, Protocol, check
from u2learn.tasks import PROTOCOLS

LINEAR = ("accuracy", "sensitivity", "specificity")
# What mlscorecheck calls the scores that it knows; it has no mDice and no mIoU.
THEIRS = {
    "accuracy": "acc", "sensitivity": "sens", "specificity": "spec", "precision": "ppv", "dice": "f1p",
    "iou": "ji",
}  # fmt: skip


def printed(values: dict, digits: int) -> dict[str, str]:
    return {name: f"{value:.{digits}f}" for name, value in values.items()}


def ranges(row: dict[str, str]) -> dict:
    return {name: printed_as(text) for name, text in row.items()}


def random_row(rng: np.random.Generator, pool: str, far: int, most: int = 3000) -> tuple[dict, tuple]:
    """A row as printed, and (p, n) of its images; three of five have a digit that is wrong by up to `far`."""
    count = int(rng.integers(1, 9))
    p, n = rng.integers(50, most, count), rng.integers(most // 2, 10 * most, count)
    tp, tn = rng.binomial(p, rng.uniform(0.3, 0.98, count)), rng.binomial(n, rng.uniform(0.9, 0.999, count))
    if pool == "total":
        names = [str(name) for name in rng.permutation(list(THEIRS))[: rng.integers(2, 6)]]
        values = {name: SCORES[name](tp.sum(), tn.sum(), p.sum(), n.sum()) for name in names}
    else:
        values = {name: SCORES[name](tp, tn, p, n).mean() for name in LINEAR}
    digits = int(rng.integers(2, 5))
    if rng.random() < 0.6:
        name = str(rng.choice(list(values)))
        values[name] += int(rng.choice([-1, 1]) * rng.integers(1, far)) / 10**digits
    return printed({k: min(max(v, 0.1**digits), 1 - 0.1**digits) for k, v in values.items()}, digits), (p, n)


# --- the scores ---------------------------------------------------------------------------------------------


def test_the_scores_are_those_of_every_other_table():
    rng = np.random.default_rng(0)
    for _ in range(20):
        (p, n), (a, b) = rng.integers(5, 900, 2), rng.random(2)
        tp, tn = int(a * p), int(b * n)
        known = overlap.scores(torch.tensor([[tn, n - tn], [p - tp, tp]]))
        assert {name: score(tp, tn, p, n) for name, score in SCORES.items()} == pytest.approx(
            {name: known[name] for name in SCORES}
        )


def test_no_score_falls_when_more_is_right():
    p, n = 23, 41
    tp, tn = np.indices((p + 1, n + 1))
    for name, score in SCORES.items():
        values = score(tp, tn, p, n)
        assert (np.diff(values, axis=0) >= 0).all() and (np.diff(values, axis=1) >= 0).all(), name


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0.956", 0.9555, 0.9565),
        (".956", 0.9555, 0.9565),
        ("95.6", 0.9555, 0.9565),
        ("95.60%", 0.95595, 0.95605),
        ("0.50%", 0.00495, 0.00505),
        ("2", 0.015, 0.025),
        ("100%", 0.995, 1.005),
        ("1.0%", 0.0095, 0.0105),
        ("0.00%", -0.00005, 0.00005),
    ],
)
def test_a_number_says_how_it_was_rounded(text, low, high):
    found = printed_as(text)
    assert found == pytest.approx((low, high), abs=1e-11)
    assert found[0] < low and high < found[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1", "write 100% or 1%"),
        ("1.00", "write 100% or 1.00%"),
        ("0.0", "write 0% or 0.0%"),
        ("101", "more than 100 %"),
        ("100.1%", "more than 100 %"),
        ("0,95", "is no score"),
        ("-0.5", "is no score"),
        ("1e-1", "is no score"),
        ("95.", "is no score"),
        ("", "is no score"),
    ],
)
def test_a_number_that_may_be_two_is_not_guessed(text, says):
    with pytest.raises(ValueError, match=says):
        printed_as(text)


# --- pixel totals -------------------------------------------------------------------------------------------


def test_pixel_totals_against_all_pairs_of_counts():
    rng, seen = np.random.default_rng(1), collections.Counter()
    for _ in range(300):
        p, n = (int(size) for size in rng.integers(3, 60, 2))
        tp, tn = np.indices((p + 1, n + 1))
        a, b = rng.integers(p + 1), rng.integers(n + 1)
        names = rng.permutation(list(SCORES))[: rng.integers(1, 5)]
        digits = int(rng.integers(1, 4))
        values = {str(name): float(SCORES[name](a, b, p, n)) for name in names}
        values[str(names[0])] += rng.choice([0, 0, 0.1, -0.1, 0.01, -0.01])
        row = {k: f"{100 * min(max(v, 0), 1):.{digits}f}%" for k, v in values.items()}
        fits = np.ones(tp.shape, bool)
        for name, (low, high) in ranges(row).items():
            score = SCORES[name](tp, tn, p, n)
            fits &= (low <= score) & (score <= high)
        found = totals(ranges(row), p, n)
        assert (found is not None) == fits.any(), (row, p, n)
        assert found is None or fits[found]
        seen[fits.any()] += 1
    assert min(seen[True], seen[False]) > 60


@pytest.mark.parametrize("pixels", [(577_945, 6_021_255), (28_399_210, 339_941_270)], ids=["DRIVE", "HRF"])
def test_counts_that_were_there_are_found_in_no_time(pixels):
    rng = np.random.default_rng(2)
    for _ in range(5):
        tp, tn = (int(share * size) for share, size in zip(rng.uniform(0.6, 0.99, 2), pixels, strict=True))
        values = {name: score(tp, tn, *pixels) for name, score in SCORES.items()}
        found = totals(ranges(printed(values, 6)), *pixels)
        assert found is not None
        assert printed({k: score(*found, *pixels) for k, score in SCORES.items()}, 6) == printed(values, 6)


# --- means of images ----------------------------------------------------------------------------------------


def test_means_of_images_that_were_there_are_possible():
    rng = np.random.default_rng(3)
    for _ in range(200):
        count = int(rng.integers(1, 9))
        p, n = rng.integers(50, 3000, count), rng.integers(500, 30000, count)
        tp, tn = rng.integers(0, p + 1), rng.integers(0, n + 1)
        values = {name: score(tp, tn, p, n).mean() for name, score in SCORES.items()}
        assert means(ranges({k: f"{100 * v:.3f}%" for k, v in values.items()}), p, n)


def test_the_extremes_of_a_mean_are_reached_and_not_passed():
    p, n = np.array([10, 40]), np.array([90, 60])  # shares 0.1 and 0.4
    row = {"sensitivity": "0.50", "specificity": "50.0%", "accuracy": "0.50"}
    # At most, the second image is found whole and the first is free of false alarms: (0.4 + 0.9) / 2, and
    # what the rounding adds; at least, the other way round: (0.1 + 0.6) / 2.
    for text, possible in (("0.651", True), ("0.652", False), ("0.349", True), ("0.348", False)):
        assert means(ranges(row | {"accuracy": text}), p, n) is possible, text


@pytest.mark.parametrize("pair", PAIRS)
def test_a_mean_iou_lies_between_its_curve_and_its_chord(pair):
    one = np.array([100]), np.array([900])
    for text, possible in (("0.7001", True), ("0.6998", False), ("0.8235", True), ("0.8238", False)):
        assert means(ranges(dict(zip(pair, ("0.8236", text), strict=True))), *one) is possible, text


def test_what_is_not_tested_of_means_is_named():
    assert not_tested(ranges({"dice": "0.8", "accuracy": "0.9"})) == ["dice"]
    assert not_tested(ranges({"dice": "0.8", "iou": "0.7", "miou": "0.7"})) == ["miou"]
    assert not_tested(ranges(dict.fromkeys(LINEAR, "0.9"))) == []


# --- mlscorecheck -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:pulp")
@pytest.mark.parametrize(("pool", "far"), [("total", 4), ("image", 150)])
def test_mlscorecheck_says_the_same_of_a_hundred_rows(pool, far):
    """Its search over counts for totals, its integer program for means: other methods than ours."""
    binary = pytest.importorskip("mlscorecheck.check.binary")
    logging.getLogger("mlscorecheck").setLevel(logging.WARNING)
    rng, seen = np.random.default_rng(0), collections.Counter()
    for _ in range(100):
        row, (p, n) = random_row(rng, pool, far)
        if pool == "total":
            ours = totals(ranges(row), int(p.sum()), int(n.sum())) is not None
            ask, quiet = binary.check_n_testsets_som_no_kfold, {}
        else:
            ours = means(ranges(row), p, n)
            ask, quiet = binary.check_n_testsets_mos_no_kfold, {"verbosity": 0}
        half = 0.5 * 10.0 ** -len(next(iter(row.values())).partition(".")[2])
        images = [{"p": int(a), "n": int(b)} for a, b in zip(p, n, strict=True)]
        values = {THEIRS[name]: float(text) for name, text in row.items()}
        answer = ask(images, values, half, numerical_tolerance=1e-12, **quiet)
        assert ours == (not answer["inconsistency"]), (row, p, n)
        seen[ours] += 1
    assert min(seen[True], seen[False]) >= 25


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_mlscorecheck_counts_the_same_pixels(dataset):
    experiments = pytest.importorskip("mlscorecheck.experiments")
    key = {"chase": "chase_db1"}.get(dataset, dataset)
    theirs = experiments.get_experiment(f"retina.{key}")
    if dataset == "drive":
        regions = {
            ours: [image for part in ("train", "test") for image in theirs[1, name][part]["images"]]
            for ours, name in (("image", "all"), ("field", "fov"))
        }
    elif dataset == "hrf":
        regions = {"image": theirs["all"]["images"], "field": theirs["fov"]["images"]}
    else:  # they have no field of view of it
        regions = {"image": theirs["ah" if dataset == "stare" else "manual1"]["images"]}
    for region, images in regions.items():
        counts = {image["identifier"]: (image["p"], image["n"]) for image in images}
        assert counts == protocols.pixel_counts(dataset, region)


# --- protocols ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["drive", "stare", "chase"])
def test_the_counts_are_those_of_the_files(dataset):
    from tools import counts

    try:
        rows = list(counts.counted(dataset))
    except FileNotFoundError as missing:  # the set, or the test labels of a copy of today
        pytest.skip(str(missing))
    kept = protocols.COUNTS.read_text(encoding="utf-8").splitlines()
    assert [",".join(map(str, row)) for row in rows] == [row for row in kept if row.startswith(dataset)]


def test_test_images_are_those_of_the_readers():
    sizes = {name: [len(images) for images in protocols.splits(name).values()] for name in LAYOUTS}
    assert sizes == {"drive": [20, 40], "stare": [10, 20], "chase": [8, 20, 20, 28], "hrf": [30, 24, 45]}
    chase = protocols.splits("chase")
    assert chase["mmseg, paddleseg"] == tuple(f"{n}{side}" for n in range(11, 15) for side in "LR")
    assert next(iter(protocols.splits("drive"))) == "mmseg, paddleseg, lwnet, binseg"


def our_rows():
    """Our records of the retinal sets: split, protocol of ours, and what a paper would print of it."""
    for name, record in records.records().items():
        recipe = record.get("recipe") or record.get("official") or record
        if recipe.get("dataset") in LAYOUTS:
            # a record of before calls it split, and one of a second observer was then OpenMMLab's
            split = recipe.get("protocol") or recipe.get("split") or "mmseg"
            for protocol, scores in record["scores"].items():
                yield name, recipe["dataset"], split, PROTOCOLS[protocol][:2], scores


def test_the_right_protocol_of_our_own_records_is_possible_and_most_others_are_not():
    right, wrong = collections.Counter(), collections.Counter()
    for name, dataset, split, (region, pool), scores in our_rows():
        # Dice and IoU are not linear: with them a row excludes more, and means say less.
        for names in (LINEAR, SCORES if pool == "total" else (*LINEAR, *itertools.chain(*PAIRS))):
            for answer in check(dataset, printed({name: scores[name] for name in names}, 4)):
                its = answer.protocol
                if split in its.split.split(", ") and (its.region, its.pool) == (region, pool):
                    assert answer.state == POSSIBLE, (name, answer)
                    right[names is LINEAR] += 1
                elif names is LINEAR:
                    other = "other region" if its.region != region else its.pool
                    wrong[other, answer.state] += 1
    assert right[True] == right[False] >= 330  # records times protocols
    assert wrong["other region", POSSIBLE] < 0.03 * wrong["other region", IMPOSSIBLE]
    excluded = sum(count for (_, state), count in wrong.items() if state == IMPOSSIBLE)
    assert excluded > 0.7 * wrong.total()


def test_a_row_of_two_protocols_has_none():
    scores = records.records()["drive-small-seed0"]["scores"]
    mixed = {name: scores["field"][name] for name in LINEAR} | {"accuracy": scores["image"]["accuracy"]}
    assert {answer.state for answer in check("drive", printed(mixed, 4))} == {IMPOSSIBLE}


def test_an_answer_says_what_it_rests_on():
    images = protocols.splits("drive")["mmseg, paddleseg, lwnet, binseg"]
    whole, mean = (Protocol("drive", "", images, "image", pool) for pool in ("total", "image"))
    answer = whole.answer({"dice": "78.67", "mdice": "88.38"})
    assert answer.state == POSSIBLE and answer.because.startswith("as with tp ")
    assert printed({"dice": 100 * SCORES["dice"](*answer.counts, 577_945, 6_021_255)}, 2) == {"dice": "78.67"}
    assert mean.answer({"dice": "78.67"}).state == NOT_TESTED
    answer = mean.answer({"dice": "78.67", "accuracy": "96.30"})
    assert (answer.state, answer.because) == (POSSIBLE, "dice not tested")


# --- rows of others -----------------------------------------------------------------------------------------


def test_the_reported_rows_are_full_images():
    rows = protocols.reported_scores()
    assert len(rows) == 28
    assert rows["DRIVE", "UNet-S5-D16 (OpenMMLab)", "FCN, CE"] == {"mdice": "88.38", "dice": "78.67"}
    assert rows["STARE", "UNet (PaddleSeg)", "3x3 conv, Dice"] == {"mdice": "90.43", "miou": "83.54"}
    table = tables.GENERATED["possible"]()
    assert {line.count("|") for line in table.splitlines()} == {7}
    assert "| DRIVE | mmseg, paddleseg, lwnet, binseg (20) | 6 of 6 | 0 of 6 | 1 of 1 | 0 of 1 |" in table
    assert tables.GENERATED["possible-summary"]().startswith("Of 28 rows, 24 cannot be pixel totals of the f")


def test_what_paddleseg_calls_dice_is_a_mean_of_both_classes():
    for (name, group, _), row in protocols.reported_scores().items():
        if group == "UNet (PaddleSeg)":
            meant = {"dice": row["mdice"], "miou": row["miou"]}
            states = {a.state for a in check(protocols.NAMES[name], meant) if a.protocol.pool == "total"}
            assert states == {IMPOSSIBLE}, name


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_needs_no_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    run("check", "stare", "accuracy=0.9560", "sensitivity=80.10", "specificity=97.4%")
    text = capsys.readouterr().out
    first, split, *lines = text.splitlines()
    assert first == "STARE: accuracy 0.9560, sensitivity 80.10, specificity 97.4%"
    assert split == "test images of mmseg, paddleseg, binseg (10)"
    assert len([line for line in lines if POSSIBLE in line or IMPOSSIBLE in line]) == 8
    assert "our own definition" in text and "\nOf 8 protocols " in text
    assert max(len(line) for line in lines) <= 84  # as wide as a page of the book


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (["dice"], "as dice=0.824"),
        (["dice=0.8", "dice=0.9"], "each once"),
        (["f1=0.8"], "There is no score 'f1' here; there are accuracy,"),
        (["dice=1"], "write 100% or 1%"),
        (["dice=182"], "more than 100 %"),
    ],
)
def test_a_mistake_is_one_sentence(scores, says):
    assert says in failure("check", "drive", *scores)


def test_nothing_of_a_row_is_said_to_be_dishonest():
    for name in ("u2learn/protocols.py", "u2learn/metrics/possible.py"):
        assert "cheat" not in (ROOT / name).read_text(encoding="utf-8").lower()
