"""Results: records there and back, what they say, and the numbers that others reported."""

import copy
import dataclasses
import hashlib
import json
import math
import statistics
import subprocess

import numpy as np
import pytest
import torch
from conftest import cross
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import fast, growth
from u2learn import costs, measure, recipes, records, reported, studies, tasks, to_official, unet_s5_d16
from u2learn.data.augment import Augmentation
from u2learn.data.drawn.objects import salient
from u2learn.data.drawn.streets import SyntheticStreets
from u2learn.data.example import Example
from u2learn.inference import load_model, pretrained, saliency, segment
from u2learn.metrics.overlap import OverlapScores
from u2learn.metrics.saliency import score_saliency
from u2learn.models.weights import read_tensors, write_tensors
from u2learn.recipe import Recipe
from u2learn.recipes import get
from u2learn.registry import LOSSES
from u2learn.studies.small import EYES
from u2learn.tasks import TASKS, evaluate
from u2learn.training import train

pytestmark = pytest.mark.slow


def made_up(name: str, seed: int, dice: float, **changes) -> dict:
    """A record as `measure` writes it, with invented numbers."""
    recipe = get(name, seed=seed)
    rest = {"mdice": 0.9, "miou": 0.8, "auc": 0.97}
    scores = {protocol: {"dice": dice + 0.01 * i, **rest} for i, protocol in enumerate(tasks.PROTOCOLS)}
    return {
        "recipe": json.loads(recipe.to_json()),
        "seed": seed,
        "parameters": 76_543,
        "cpu_seconds": 200.0 + 100 * seed,
        "training_flops": 21 * 10**12,
        "image_flops": 17 * 10**9,
        "threshold": 0.4,
        "scores": scores,
    } | changes


# --- records ------------------------------------------------------------------------------------------------


def test_records_there_and_back(folder):
    one, two = made_up("drive-small", 0, 0.8), made_up("drive-small", 1, 0.81)
    assert records.records() == {}
    path = records.write_record("drive-small-seed0", one)
    assert path == folder / "drive-small-seed0.json" and path.read_text().endswith("}\n")
    records.write_record("drive-small-seed1", two)  # and what was read before is not stale
    assert records.records() == {"drive-small-seed0": one, "drive-small-seed1": two}
    records.write_record("drive-small-seed0", two)
    assert records.records()["drive-small-seed0"] == two
    assert sorted(p.name for p in folder.iterdir()) == ["drive-small-seed0.json", "drive-small-seed1.json"]


def test_a_write_that_fails_leaves_the_old_record(folder, monkeypatch):
    records.write_record("x", {"a": 1})
    with pytest.raises(TypeError):
        records.write_record("x", {"a": object()})
    assert json.loads((folder / "x.json").read_text()) == {"a": 1}


def test_records_are_json_that_anything_can_read(folder):
    """No NaN: neither the precision where nothing is found, nor scores of a set without vessels."""
    weak = OverlapScores()
    for label in (np.eye(8, dtype=np.uint8), np.zeros((8, 8), np.uint8)):
        weak.add(torch.stack([torch.full((8, 8), 0.7), torch.full((8, 8), 0.3)]), label)
    scorer = tasks.BinaryScorer(get("drive-small"))
    scorer.scores, scorer.threshold = weak, 0.5
    record = records.rounded({"scores": scorer.result(), "curve": scorer.curve()})
    path = records.write_record("weak", record)
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_records_of_another_version_of_a_recipe_do_not_count(folder):
    records.write_record("a", made_up("drive-small", 0, 0.80))
    records.write_record("b", made_up("drive-small", 1, 0.90))
    for i, change in enumerate(({"learning_rate": 7.0}, {"seed": 9, "ema": 0.5}, {"no_such_field": 1})):
        old = made_up("drive-small", 2, 0.1)
        records.write_record(f"old{i}", old | {"recipe": old["recipe"] | change})
    records.write_record("human", {"dataset": "drive", "scores": {}})
    records.write_record("else", made_up("stare-small", 0, 0.2))
    assert [record["seed"] for record in records.of_recipe("drive-small")] == [0, 1]
    mean, spread, count = records.mean_and_spread("drive-small", "image")
    assert (mean, spread, count) == pytest.approx((85.0, statistics.stdev([80, 90]), 2))


def test_one_seed_has_no_spread(folder):
    records.write_record("a", made_up("drive-small", 0, 0.80))
    assert records.mean_and_spread("drive-small", "field") == pytest.approx((81.0, 0.0, 1))


def test_no_record_is_said_in_a_sentence(folder):
    with pytest.raises(LookupError, match=r"drive-small.*u2learn reproduce drive-small") as error:
        records.mean_and_spread("drive-small", "image")
    assert "\n" not in str(error.value)


def test_the_projects_own_records_are_complete():
    records.forget()
    for name, record in records.records().items():
        if "maps" in record:
            assert name == f"{record['maps'].replace('_', '-')}-maps" and len(record["differences"]) == 18
            for difference in record["differences"].values():
                assert 0 < difference["mean"] < 2 and difference["mean"] < difference["largest"] < 255
            continue
        if "service" in record:  # of benchmarks/service.py
            assert record["service"] in recipes.names() and record["clients"]
            assert all(0 < row["median"] <= row["p99"] for row in record["clients"].values())
            continue
        if "ways" in record:  # of benchmarks/fast.py
            assert name == f"fast-{record['kind']}" and record["ways"] == fast.SIDE
            met = {what: value <= most for what, most, value in fast.goals(record)}
            full = [what for what in met if what.startswith("fast, share of the time, u2net,")]
            assert all(met[what] for what in set(met) - set(full)), "the chapter says which goal is missed"
            continue
        if "growth" in record:  # of benchmarks/growth.py
            known = set(record["costs"]) & set(growth.MEASURED)
            assert len(known) == len(record["costs"]) >= 5, "none is unknown, and older records may lack one"
            for row in record["costs"].values():
                assert row["time"] == growth.exponent(row["points"]) and row["points"][-1]["seconds"] > 0
            continue
        if "frames" in record:  # of `make gpu`
            assert record["speed"]["frames_per_second"] > 0 and record["device"]
            continue
        if "scaling" in record:  # of benchmarks/scaling.py
            assert name == f"scaling-{record['scaling']}" and record["threads"] >= 1 and record["load"] >= 0
            for row in record["networks"].values():
                assert min(row["silent"], row["predicted"]) > 0
                assert 0 < row["spread"][0] <= row["measured"] <= row["spread"][1]
            continue
        made_by = record.get("recipe") or record.get("official") or {"num_classes": 2}
        if made_by["num_classes"] == 1:
            assert {"image"} <= set(record["scores"]) <= set(tasks.MAPS), name
            for scores in record["scores"].values():
                assert 0.5 < scores["max_f_curves"] <= scores["max_f"] < 1 and 0 < scores["mae"] < 0.2
        else:
            assert set(record["scores"]) == set(tasks.PROTOCOLS), name
            low = 0 if "pyramid" in name else 0.5  # the chapter on blocks says why
            for s in record["scores"].values():
                assert low < s["dice"] < 1 and s["dice"] <= 2 * s["iou"] / (1 + s["iou"]) + 1e-3
        if "official" in record:
            assert name == f"{made_by['name']}-official"
            assert Recipe.from_json(json.dumps(made_by)) == get(made_by["name"])
        if "unfinished" in record:
            assert name == f"{made_by['name']}-seed{record['seed']}-at-{record['unfinished']}"
        elif "recipe" in record:
            assert name == f"{record['recipe']['name']}-seed{record['seed']}" and records.is_current(record)


# --- reported numbers ---------------------------------------------------------------------------------------


def reported_value(dataset, head, loss, source="dev-1.x"):
    rows = [
        row
        for row in reported.reported()
        if (row["dataset"], row["head"], row["loss"], row["metric"], row["model"])
        == (dataset, head, loss, "Dice", "UNet-S5-D16")
        and source in row["source"]
    ]
    assert len(rows) == 1
    return rows[0]["value"]


def test_reported_rows():
    assert reported_value("DRIVE", "FCN", "CE") == "78.67"
    assert reported_value("DRIVE", "DeepLabV3", "CE(1.0)+Dice(3.0)") == "79.56"
    assert reported_value("STARE", "PSPNet", "CE(1.0)+Dice(3.0)") == "82.84"
    assert reported_value("CHASE_DB1", "DeepLabV3", "CE") == "80.47"
    assert reported_value("HRF", "FCN", "CE") == "79.45"


@pytest.mark.parametrize(
    ("dataset", "unet", "wnet"), [("drive", 79.56, 82.8), ("stare", 82.84, 83.9), ("chase", 80.47, 82.0)]
)
def test_best_reported(dataset, unet, wnet):
    assert float(reported.best_reported(dataset, "UNet-S5-D16 (OpenMMLab)")) == unet
    assert float(reported.best_reported(dataset, "bob.ip.binseg", model="Little W-Net")) == wnet


DIS_VD = {"maxF": "0.748", "Fw": "0.656", "MAE": "0.090", "Sm": "0.781", "E-measure(mean)": "0.823"}


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("drive-fcn-ce", {"Dice": "78.67", "mDice": "88.38"}),
        ("stare-psp-ce-dice", {"Dice": "82.84", "mDice": "90.72"}),
        ("hrf-deeplabv3-ce", {"Dice": "80.21", "mDice": "89.32"}),
        ("chase-paddle", {"DICE": "88.54", "mIoU": "80.87", "AUC ROC": "95.69"}),
        ("cityscapes-fcn-ce", {"mIoU": "69.10", "mIoU(ms+flip)": "71.05", "fps": "3.05"}),
        ("cityscapes-paddle", {"mIoU": "65.00", "mIoU(flip)": "66.02", "mIoU(ms+flip)": "67.29"}),
        ("ecssd-u2net", {"maxF": "0.951", "MAE": "0.033", "Fw": "0.910", "Sm": "0.928", "relaxFb": "0.836"}),
        ("dis-vd-u2net", DIS_VD | {"HCE": "1413"}),
        (
            "dis-vd-u2net-1024",
            {"maxF": "0.764", "Fw": "0.667", "MAE": "0.088", "Sm": "0.792"}
            | {"E-measure(mean)": "0.820", "HCE": "1085"},
        ),
        ("drive-small", {}),
        ("synthetic-small", {}),
        ("ecssd-small", {}),
        ("objects-small", {}),
    ],
)
def test_what_was_reported_for_a_recipe(name, due):
    found = reported.reported_for(recipes.get(name))
    assert {metric: value for metric, value in found.items() if metric != "Mem"} == due


def test_every_retinal_unet_row_has_its_recipe():
    """Backwards: each reported score of OpenMMLab and PaddleSeg on a retinal set belongs to one recipe."""
    found = {
        (name, *item) for name in recipes.names() for item in reported.reported_for(recipes.get(name)).items()
    }
    rows = {
        (row["dataset"], row["head"], row["loss"], row["metric"], row["value"])
        for row in reported.reported()
        if row["dataset"] in reported.SETS.values()
        and row["model"].startswith(("UNet-S5-D16", "PaddleSeg UNet"))
    }
    retinal = {item for item in found if recipes.get(item[0]).dataset in reported.SETS}
    assert len(retinal) == len(rows) == 24 * 3 + 4 * 3


def test_every_u2net_row_of_the_two_papers_has_its_recipe():
    """Backwards: tables 3 and 4 of one paper, and of the other table 2 and the plain sizes of table 3."""
    found = {
        (name, *item)
        for name in recipes.names()
        if recipes.get(name).protocol in ("duts", "dis5k")
        for item in reported.reported_for(recipes.get(name)).items()
    }
    assert len(found) == 12 * 5 + (5 + 2) * 6
    for name, metric, _ in found:
        protocol, score = studies.columns_of(recipes.get(name))[metric]
        assert protocol == ("DIS" if name.startswith("dis-") else "image") and score
        assert set(tasks.MAPS) == {"image", "DIS"}


def test_the_best_is_of_six_rows():
    for dataset in ("DRIVE", "STARE", "CHASE_DB1"):
        rows = {
            (row["head"], row["loss"])
            for row in reported.reported()
            if (row["dataset"], row["model"], row["metric"]) == (dataset, "UNet-S5-D16", "Dice")
        }
        assert len(rows) == 6


def test_every_reported_row_has_a_source_and_a_value():
    assert len(reported.reported()) > 300
    for row in reported.reported():
        assert row["source"] and row["metric"] and math.isfinite(float(row["value"])), row
        assert "seed 0" not in row["source"]


# --- measuring ----------------------------------------------------------------------------------------------


def seen_by_two(seed: int) -> Example:
    """A cross in a round field of view, of which a second observer sees one pixel in twenty otherwise."""
    example = cross(seed)
    field = np.hypot(*np.indices(example.label.shape) - 20) < 19
    otherwise = np.random.default_rng((seed, 2)).random(example.label.shape) < 0.05
    return dataclasses.replace(example, field=field, second=example.label ^ otherwise)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small finished run, its recipe and its images."""
    recipe = Recipe(
        "tiny",
        "synthetic",
        "unet_small",
        model_options={"width": 4, "depth": 3},
        crop=(32, 32),
        augmentation=Augmentation(flips="h"),
        batch=4,
        loss="small",
        optimiser="adamw",
        learning_rate=0.02,
        final_rate=0.0,
        iterations=25,
        evaluations=2,
        views="hv",
        window=(32, 32),
        stride=(21, 21),
    )
    parts = {"train": [seen_by_two(s) for s in range(4)], "test": [seen_by_two(s) for s in (50, 51)]}
    place = tmp_path_factory.mktemp("trained")
    train(recipe, place, parts["train"], parts["test"], device="cpu", progress=False)
    return place, recipe, parts


@pytest.fixture(scope="module")
def record_of_run(trained):
    place, _, parts = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "examples", lambda self, part: parts[part])
        patch.setattr(measure, "SPEED_SECONDS", 0.05)
        return measure.measure(place, progress=False)


@pytest.fixture
def measured(trained, record_of_run, monkeypatch):
    place, recipe, parts = trained
    monkeypatch.setattr(Recipe, "examples", lambda self, part: parts[part])
    return copy.deepcopy(record_of_run), place, recipe, parts


def test_a_record_says_what_was_done_and_what_came_out(measured):
    record, place, recipe, parts = measured
    assert Recipe.from_json(json.dumps(record["recipe"])) == recipe and record["seed"] == 0
    assert record["parameters"] == sum(p.numel() for p in recipe.build_model().parameters())
    assert record["versions"]["torch"] == torch.__version__ and record["device"].startswith("CPU")
    assert record["seconds"] > 0 and record["cpu_seconds"] > 0
    assert [line["iteration"] for line in record["log"]] == [12, 25]
    assert json.loads(json.dumps(record)) == record  # JSON without loss

    model, _ = load_model(place)
    test, seen = (evaluate(model, recipe, parts[part]).scores for part in ("test", "train"))
    assert record["threshold"] == seen.best_threshold("field")
    due = {
        "image": test.score(),
        "field": test.score("field"),
        "field, chosen threshold": test.score("field", threshold=record["threshold"]),
        "image, mean of images": test.score("image", "image"),
        "field, mean of images": test.score("field", "image"),
    }
    assert set(record["scores"]) == set(due)
    for protocol, scores in due.items():
        for name in ("dice", "mdice", "iou", "miou", "accuracy", "sensitivity", "specificity", "auc"):
            assert record["scores"][protocol][name] == pytest.approx(scores[name], abs=1e-6), (protocol, name)
    assert len({record["scores"][p]["dice"] for p in due}) > 2  # the protocols do differ


def test_official_weights_are_measured_by_the_recipes_test(trained, tmp_path, monkeypatch):
    """The file of another network with the published names: what comes out is that network's own score."""
    _, _, parts = trained
    monkeypatch.setattr(Recipe, "examples", lambda self, part: parts[part][:1])
    recipe = recipes.get("drive-fcn-ce", window=None, stride=None)
    torch.manual_seed(0)
    theirs = unet_s5_d16().eval()
    path = tmp_path / "fcn.pth"
    torch.save({"state_dict": to_official(theirs), "meta": {}}, path)
    record = measure.measure_official(path, recipe, "cpu", progress=False)
    due = evaluate(theirs, recipe, parts["test"][:1]).scores.score()
    assert record["scores"]["image"]["auc"] == pytest.approx(due["auc"], abs=1e-6)
    assert record["weights"] == {"file": "fcn.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert Recipe.from_json(json.dumps(record["official"])) == recipe
    assert record["parameters"] == 29_060_676 and "recipe" not in record and "seed" not in record
    json.dumps(record)


def test_operations_of_the_largest_recipe_cost_nothing_to_count(monkeypatch):
    """16 quarters of Cityscapes' images in a network of 29 million would not fit into most computers."""
    black = Example("black", np.zeros((3, 1024, 2048), np.uint8), np.zeros((1024, 2048), np.uint8))
    monkeypatch.setattr(Recipe, "examples", lambda self, part: [black])
    recipe = recipes.get("cityscapes-fcn-ce")
    training, image = costs.training_flops(recipe), costs.image_flops(recipe)
    images = 16 * 160_000 / 4  # of 1024 x 2048; the backward pass takes twice the forward one
    heads = 2 * 1024 * 2048 * (128 * 64 * 9 + 64 * 19) / 4  # the auxiliary one works in training only
    assert training == pytest.approx(3 * images * (image + heads), rel=0.001)


def test_many_classes_are_measured_under_the_street_protocols(tmp_path, monkeypatch):
    recipe = Recipe(
        "tiny-streets",
        "streets",
        "unet_small",
        model_options={"width": 4, "depth": 2},
        num_classes=19,
        crop=(32, 64),
        batch=2,
        optimiser="adamw",
        iterations=3,
        evaluations=1,
    )
    scenes = SyntheticStreets("val", length=2, size=(64, 128))
    monkeypatch.setattr(Recipe, "examples", lambda self, part: scenes)
    model = train(recipe, tmp_path, device="cpu", progress=False)
    record = measure.measure(tmp_path, "cpu", progress=False)
    assert list(record["scores"]) == ["image", "flip", "ms+flip"]
    twelve = dataclasses.replace(recipe, views="h", scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75))
    for name, mode in (("image", recipe), ("ms+flip", twelve)):
        due = evaluate(model, mode, scenes).scores.score()
        assert record["scores"][name]["miou"] == pytest.approx(due["miou"], abs=1e-6)
    assert record["training_flops"] > 0 and json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("dataset", ["ecssd", "thin"])
def test_saliency_is_measured_as_its_papers_do(tmp_path, monkeypatch, dataset):
    """Maps of 8 bits at the image's own size; thin things under the protocol of DIS as well."""
    recipe = Recipe(
        "tiny-salient",
        dataset,
        "unet_small",
        model_options={"width": 4, "depth": 2},
        num_classes=1,
        square=40,
        normalisation="maximum",
        crop=(36, 36),
        batch=2,
        loss="bce-iou",
        optimiser="adamw",
        iterations=3,
        evaluations=1,
        scored_under=("image", "DIS") if dataset == "thin" else (),
    )
    things = [salient(seed, size) for seed, size in ((1, (40, 60)), (3, (50, 41)))]
    monkeypatch.setattr(Recipe, "examples", lambda self, part: things)
    model = train(recipe, tmp_path, device="cpu", progress=False)
    record = measure.measure(tmp_path, "cpu", progress=False)
    maps = [(saliency(model, e.image, side=40), e.label) for e in things]
    due = {"image": score_saliency(maps, "maximum", also=("weighted_f", "relaxed_f"))}
    if dataset == "thin":
        due["DIS"] = score_saliency(maps, "range", also=("weighted_f", "hce"))
    assert set(record["scores"]) == set(due)
    for protocol, scores in due.items():
        assert record["scores"][protocol] == pytest.approx(scores, abs=1e-6)
    assert len(record["curve"]["recall"]) == 64
    assert record["curve"]["recall"] == sorted(record["curve"]["recall"], reverse=True)
    assert json.loads(json.dumps(record)) == record


def test_operations_of_saliency_need_no_image(monkeypatch):
    """U²-Net's multiply-adds at 320 x 320 are known: 58.598 G, and 19.756 G of the small one."""
    monkeypatch.setattr(Recipe, "examples", None)
    for name, known in (("duts-u2net", 58.598e9), ("ecssd-u2net-small", 19.756e9)):
        recipe = recipes.get(name)
        assert costs.image_flops(recipe) == pytest.approx(2 * known, rel=1e-4)
        share = (288 / 320) ** 2
        training = 600_000 * 12 * 3 * 2 * known * share
        assert costs.training_flops(recipe) == pytest.approx(training, rel=0.01)


@pytest.mark.parametrize("name", ["drive-psp-ce-dice", "drive-paddle", "ecssd-u2net-small"])
def test_operations_are_those_of_pytorchs_own_counter(name):
    recipe = dataclasses.replace(recipes.get(name), crop=(72, 88), batch=2)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        labels = torch.zeros(2, *recipe.crop, dtype=torch.int64)
        outputs = recipe.build_model()(torch.zeros(2, 3, *recipe.crop))
        LOSSES[recipe.loss](outputs, TASKS[recipe.task].target(labels)).backward()
    assert costs.training_flops(recipe, 1) == counter.get_total_flops()


def test_operations_of_an_image_are_those_of_pytorchs_own_counter():
    """With windows, views and a resized image."""
    recipe = dataclasses.replace(recipes.get("synthetic-small"), data_options=EYES | {"size": (90, 120)})
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        segment(recipe.build_model().eval(), recipe.examples("test")[0].image, recipe)
    assert costs.image_flops(recipe) == counter.get_total_flops() > 0


def test_operations_of_a_training_whose_windows_are_small_first():
    net = {"model": "unet_small", "model_options": {"width": 4, "depth": 3}}
    whole = dataclasses.replace(get("objects-small"), iterations=9, evaluations=1, **net)
    mixed = dataclasses.replace(whole, small_first=0.5)  # of nine iterations, five begin before the half
    half = dataclasses.replace(whole, crop=(32, 32))
    step, small = costs.training_flops(whole) // 9, costs.training_flops(half) // 9
    assert small < step / 3.9
    assert costs.training_flops(mixed) == 5 * small + 4 * step
    assert costs.training_flops(mixed, 3) == 3 * small and costs.training_flops(mixed, 6) == 5 * small + step


def test_the_curve_goes_from_all_to_nothing(measured):
    curve = measured[0]["curve"]
    assert len(curve["recall"]) == len(curve["precision"]) == 64
    assert curve["recall"][0] == 1 and curve["recall"] == sorted(curve["recall"], reverse=True)


def test_an_unfinished_run_is_measured_and_is_no_result(measured, tmp_path, folder, monkeypatch):
    whole, place, recipe, _ = measured
    tensors, metadata = read_tensors(place / "checkpoint.safetensors")
    position = json.loads(metadata["position"]) | {"iteration": 10, "finished": False}
    write_tensors(tmp_path / "checkpoint.safetensors", tensors, metadata | {"position": json.dumps(position)})
    record = measure.measure(tmp_path, progress=False)  # a folder without a log: no evaluation was due yet
    assert (record["unfinished"], record["log"]) == (10, []) and "unfinished" not in whole
    assert record["scores"] == whole["scores"]
    assert record["training_flops"] / 10 == pytest.approx(whole["training_flops"] / 25)
    monkeypatch.setattr(records.studies, "get", lambda name, seed: recipe)
    assert records.is_current(whole) and not records.is_current(record)
    records.write_record("tiny-seed0-at-10", record)
    assert records.of_recipe("tiny") == []


def test_operations_are_counted_as_by_hand(measured):
    """Two a multiply-add, convolutions only; backward is twice forward, but for the first layer's input."""
    record, _, recipe, _ = measured
    model = recipe.build_model().eval()

    def forward(height: int, width: int) -> tuple[int, int]:
        each = []

        def count(module, _, out):
            k = module.kernel_size[0] * module.kernel_size[1] * module.in_channels
            each.append(2 * k * out[0].numel())

        hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
        model(torch.zeros(1, 3, height, width))
        for hook in hooks:
            hook.remove()
        return sum(each), each[0]

    total, first = forward(32, 32)
    assert record["training_flops"] == (3 * total - first) * recipe.batch * recipe.iterations
    windows = 2 * 2  # 40 x 44 pixels in windows of 32 every 21
    assert record["image_flops"] == 4 * windows * total  # four views


def test_second_observer(trained, monkeypatch):
    _, recipe, parts = trained
    monkeypatch.setattr(Recipe, "examples", lambda self, part: parts[part])
    record = measure.measure_second_observer(recipe)
    tests = parts["test"]
    first, second = (np.concatenate([getattr(e, a).ravel() for e in tests]) for a in ("label", "second"))
    field = np.concatenate([e.field.ravel() for e in tests])
    assert record["dataset"] == "synthetic"
    assert record["scores"]["image"]["dice"] == pytest.approx(f1_score(first, second), abs=1e-6)
    assert record["scores"]["field"]["dice"] == pytest.approx(f1_score(first[field], second[field]), abs=1e-6)
    each = [f1_score(e.label.ravel(), e.second.ravel()) for e in tests]
    assert record["scores"]["image, mean of images"]["dice"] == pytest.approx(np.mean(each), abs=1e-6)


def test_no_second_observer_is_said_by_name(trained, monkeypatch):
    monkeypatch.setattr(Recipe, "examples", lambda self, part: [dataclasses.replace(cross(77), second=None)])
    with pytest.raises(ValueError, match="cross-77"):
        measure.measure_second_observer(trained[1])


# --- provenance ---------------------------------------------------------------------------------------------


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert records.provenance("CPU")["commit"] is None


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    """An installation inside of somebody else's repository does not take that one's commit for ours."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    package = tmp_path / "site-packages" / "u2learn"
    package.mkdir(parents=True)
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    assert records.provenance("CPU")["commit"] is None


def test_protocols_are_the_published_ones():
    assert tasks.PROTOCOLS["image"] == ("image", "total", 0.5)
    assert tasks.PROTOCOLS["field, chosen threshold"] == ("field", "total", None)
    assert set(reported.SETS) <= set(recipes.get(f"{s}-small").dataset for s in reported.SETS)


def test_the_saliency_net_that_ships_is_that_of_its_record():
    """Its scores on all of the unseen pictures, and with them the chapter's claim of a max F above 0.9."""
    model, recipe = pretrained("objects-small")
    record = records.records()[f"{recipe.name}-seed{recipe.seed}"]
    assert records.is_current(record) and recipes.get("objects-small", seed=recipe.seed) == recipe
    found = evaluate(model, recipe, recipe.examples("test")).result()["image"]
    for score in ("max_f", "mae", "s"):
        assert found[score] == pytest.approx(record["scores"]["image"][score], abs=1e-3)
    assert found["max_f"] > 0.9
