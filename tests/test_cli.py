"""The command line: help, training to record, maps of photographs, and one sentence for every mistake."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, cross
from PIL import Image
from test_data_retina import make_drive

import u2learn
from u2learn import cli, costs, devices, measure, records, studies, tables, tasks, training
from u2learn.data.augment import Augmentation
from u2learn.data.catalogue import Archive
from u2learn.data.example import Example
from u2learn.data.published import PUBLISHED
from u2learn.inference import fast, load_model, save_model, segment
from u2learn.models.weights import read_tensors, write_tensors
from u2learn.recipe import Recipe
from u2learn.studies.held_out import held_out
from u2learn.training import train

pytestmark = pytest.mark.slow

COMMANDS = [
    [],
    ["data"],
    ["data", "list"],
    ["data", "fetch"],
    ["data", "verify"],
    ["data", "new"],
    ["data", "lint"],
    ["data", "example"],
    ["train"],
    ["evaluate"],
    ["predict"],
    ["reproduce"],
    ["report"],
    ["check"],
]


def run(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments])


def failure(*arguments: object) -> str:
    """The one sentence of a command that must fail; a string makes Python exit with status 1."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    message = stop.value.code
    assert isinstance(message, str) and message.startswith("u2learn: ")
    assert "\n" not in message and "Traceback" not in message and "Errno" not in message
    assert len(message) > 25
    return message


ROWS = {name: studies.get(name).row for name in ("drive-paddle", "drive-fcn-ce", "ecssd-u2net-small")}
TINY = Recipe(
    "tiny-small",
    "synthetic",
    "unet_small",
    model_options={"width": 4, "depth": 3},
    crop=(32, 32),
    augmentation=Augmentation(flips="h"),
    batch=4,
    loss="small",
    optimiser="adamw",
    learning_rate=0.02,
    iterations=12,
    evaluations=2,
    views="h",
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A recipe of seconds in the catalogue, with images made here, and all that is written in `tmp_path`."""
    monkeypatch.setattr(studies, "all_recipes", lambda: {TINY.name: TINY})
    parts = {"train": [cross(s) for s in range(3)], "test": [cross(s) for s in (50, 51)]}
    monkeypatch.setattr(Recipe, "examples", lambda self, part: parts[part])
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(records, "records_folder", lambda: tmp_path / "results")
    records.forget()
    monkeypatch.setenv("U2LEARN_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    records.forget()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The folder of a run that is finished."""
    folder = tmp_path_factory.mktemp("weights")
    train(TINY, folder, [cross(0)], [cross(50)], device="cpu", progress=False)
    return folder


def photograph(path: Path, size=(37, 53), mode="RGB", seed=0) -> Path:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*command, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: u2learn")
    assert len(text.splitlines()) > 4
    if command not in ([], ["data"]):
        assert "Example: u2learn" in " ".join(text.split())


def test_help_names_all_commands(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert all(
        f"\n    {command}" in text
        for command in ("data", "train", "evaluate", "predict", "reproduce", "report")
    )


@pytest.mark.parametrize(
    "command", [[], ["nonsense"], ["train"], ["train", "drive-smal"], ["predict"], ["data", "fetch", "x"]]
)
def test_wrong_usage_is_status_2_and_says_what_there_is(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*command)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "usage: u2learn" in text and "Traceback" not in text
    if command == ["train", "drive-smal"]:
        assert "drive-small" in text
    if command == ["data", "fetch", "x"]:
        assert "stare" in text


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    root = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "u2learn", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
    )


def test_the_program_itself_fails_with_status_1_and_one_line(tmp_path):
    done = program("evaluate", tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("u2learn: ") and "nowhere" in done.stderr


# --- data ---------------------------------------------------------------------------------------------------


def test_data_lists_the_sets_and_where_they_must_lie(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    run("data")
    listed = capsys.readouterr().out
    assert str(tmp_path) in listed and "U2LEARN_DATA" in listed
    assert all(name in listed.lower() for name in ("drive", "stare", "chase", "hrf"))
    run("data", "list")
    assert capsys.readouterr().out == listed


def test_lint_of_ones_own_masks(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    photograph(tmp_path / "images" / "eye.png")
    Image.fromarray(np.eye(37, 50, dtype=np.uint8) * 255).save(tmp_path / "masks" / "eye.png")
    with pytest.raises(SystemExit) as stop:
        run("data", "lint", tmp_path / "images", tmp_path / "masks")
    assert stop.value.code == 1 and "sizes differ" in capsys.readouterr().out
    assert "nowhere" in failure("data", "lint", tmp_path / "nowhere", tmp_path / "masks")


def test_missing_data_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("U2LEARN_RUNS", str(tmp_path / "runs"))
    with pytest.raises(SystemExit) as stop:
        run("train", "drive-small")
    assert isinstance(stop.value.code, str) and "U2LEARN_DATA" in stop.value.code
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit) as stop:
        run("data", "verify", "drive")
    assert isinstance(stop.value.code, str)


# --- train, evaluate, reproduce -----------------------------------------------------------------------------


def test_train_evaluate_record(tiny, capsys):
    run("train", "tiny-small", "--seed", 4)
    folder = tiny / "runs" / "tiny-small-seed4"
    assert (folder / "checkpoint.safetensors").exists()
    said = capsys.readouterr()
    assert f"u2learn evaluate {folder}" in said.out
    last = f"tiny-small, seed 4: {TINY.iterations} of {TINY.iterations}, loss "
    assert last in said.err and "it/s" not in said.err, "a line an evaluation, and no bar: it is no terminal"
    run("evaluate", folder)
    table = capsys.readouterr().out
    assert all(protocol in table for protocol in tasks.PROTOCOLS) and "dice" in table
    assert not list((tiny / "results").iterdir())  # only with --record
    run("evaluate", folder, "--record")
    assert "tiny-small-seed4.json" in capsys.readouterr().out
    record = json.loads((tiny / "results" / "tiny-small-seed4.json").read_text())
    assert f"{100 * record['scores']['image']['dice']:.2f}" in table


def test_only_a_record_asks_for_the_speed(tiny, monkeypatch):
    """It takes seconds, and a table of scores does not show it."""
    monkeypatch.setattr(measure, "speed", lambda *_: 1 / 0)
    run("train", "tiny-small")
    run("evaluate", "runs/tiny-small-seed0")
    with pytest.raises(ZeroDivisionError):
        run("evaluate", "runs/tiny-small-seed0", "--record")


def test_an_undefined_score_is_an_empty_cell(tiny, monkeypatch, capsys):
    """Without a single vessel in the test there is no Dice and no area under a curve."""
    bare = [Example("bare", cross(50).image, np.zeros((40, 44), np.uint8), np.ones((40, 44), bool))]
    monkeypatch.setattr(Recipe, "examples", lambda self, part: bare if part == "test" else [cross(0)])
    run("train", "tiny-small")
    run("evaluate", tiny / "runs" / "tiny-small-seed0", "--record")
    table = capsys.readouterr().out
    assert "auc" in table and "accuracy" in table and "nan" not in table.lower()
    text = (tiny / "results" / "tiny-small-seed0.json").read_text(encoding="utf-8")
    assert '"auc": null' in text and "NaN" not in text


def test_scores_are_printed_on_a_console_of_ascii(tiny, monkeypatch):
    run("train", "tiny-small", "--folder", tiny / "größe²")
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", console)
    run("evaluate", tiny / "größe²", "--export", tiny / "größe².safetensors")
    said = console.buffer.getvalue().decode("ascii")
    assert "dice" in said and "groe2.safetensors" not in said and "grosse2.safetensors" in said


def test_train_into_a_folder(tiny, capsys):
    run("train", "tiny-small", "--folder", tiny / "mine", "--device", "cpu")
    assert load_model(tiny / "mine")[1] == TINY
    assert not (tiny / "runs").exists()
    message = failure("train", "tiny-small", "--folder", tiny / "mine", "--seed", 1)
    assert "another recipe" in message and str(tiny / "mine") in message


def test_a_run_stands_for_its_weights_where_another_training_begins(tiny, weights, capsys):
    still = ("--set", "learning_rate=1e-9", "--set", "final_rate=0")
    run("train", "tiny-small", "--from", weights, "--folder", tiny / "tuned", *still)
    assert f"{weights} holds unet_small (recipe 'tiny-small')" in capsys.readouterr().out
    before, after = (dict(load_model(folder)[0].named_parameters()) for folder in (weights, tiny / "tuned"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert "nowhere" in failure("train", "tiny-small", "--from", tiny / "nowhere", "--folder", tiny / "x")


def test_reproduce_skips_what_is_done_and_goes_on(tiny, capsys, monkeypatch):
    run("reproduce", "tiny-small", "--seeds", 2)
    names = {path.name for path in (tiny / "results").iterdir()}
    assert names == {"tiny-small-seed0.json", "tiny-small-seed1.json", "synthetic-second-observer.json"}
    assert len(records.of_recipe("tiny-small")) == 2
    human = json.loads((tiny / "results" / "synthetic-second-observer.json").read_text())
    assert human["scores"]["image"]["dice"] == 1
    trained = []
    monkeypatch.setattr(cli.training, "train", lambda recipe, *_, **__: trained.append(recipe.seed) or 1 / 0)
    run("reproduce", "tiny-small", "--seeds", 2)  # all recorded: nothing is trained
    with pytest.raises(ZeroDivisionError):
        run("reproduce", "tiny-small", "--seeds", 3)
    assert trained == [2]


def test_reproduce_trains_one_seed_and_says_first_what_it_costs(tiny, capsys, monkeypatch):
    monkeypatch.setattr(cli, "A_MINUTE", 0)
    run("reproduce", "tiny-small", "--minutes", 0)
    out = capsys.readouterr().out
    first, _, rest = out.partition("1 of 1: tiny-small, seed 0")
    assert first.startswith("Runs without a record: 1. Their training: 0.0 TFLOP; at ")
    assert "as tiny-small trains here for some seconds now, about 1 min" in first and "Time is up" in rest
    whole = costs.training_flops(studies.get("tiny-small"))
    left = []
    monkeypatch.setattr(cli, "operations", lambda count: left.append(count) or "some")
    run("reproduce", "tiny-small")  # goes on, and only what is left is told
    done = max(line["iteration"] for line in training.read_log(tiny / "runs" / "tiny-small-seed0"))
    assert done == 12 and 0 < left[0] < whole
    run("reproduce", "tiny-small")
    assert "Nothing to do: all runs have a record." in capsys.readouterr().out
    assert len(left) == 1 and len(records.of_recipe("tiny-small")) == 1


def test_one_training_of_several_tests_is_told_once(monkeypatch, tmp_path):
    monkeypatch.setenv("U2LEARN_RUNS", str(tmp_path))
    monkeypatch.setattr(cli, "training_speed", lambda recipe, device: 1e12)
    rows = [studies.get(f"{name}-u2net-small") for name in ("duts", "ecssd", "sod")]
    said = cli.what_it_costs(rows, "cpu")
    whole = costs.operations(costs.training_flops(rows[0]))
    assert said.startswith(f"Runs without a record: 3. Their training: {whole}; at 1 TFLOP a second")


def test_reproduce_does_again_what_an_older_recipe_did(tiny, monkeypatch):
    run("reproduce", "tiny-small", "--seeds", 1)
    path = tiny / "results" / "tiny-small-seed0.json"
    record = json.loads(path.read_text())
    record["recipe"]["learning_rate"] = 7
    path.write_text(json.dumps(record))
    records.forget()
    run("reproduce", "tiny-small", "--seeds", 1)
    assert json.loads(path.read_text())["recipe"]["learning_rate"] == 0.02


def test_reproduce_within_minutes(tiny, capsys):
    run("reproduce", "tiny-small", "--seeds", 2, "--minutes", 0)
    out = capsys.readouterr().out
    assert "Time is up at iteration 12 of 12" not in out and "Time is up at iteration" in out
    assert not list((tiny / "results").iterdir())
    run("reproduce", "tiny-small", "--seeds", 2, "--minutes", 10)
    assert {path.name for path in (tiny / "results").glob("tiny*")} == {
        "tiny-small-seed0.json",
        "tiny-small-seed1.json",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("runs", "--weights", "x.pth", "--recipe", "tiny-small"),
        ("--weights", "x.pth"),
    ],
)
def test_evaluate_takes_a_run_or_weights_with_a_recipe(tiny, arguments):
    assert "--recipe" in failure("evaluate", *arguments)


def test_evaluate_official_weights_beside_what_was_reported(tiny, monkeypatch, capsys):
    recipe = dataclasses.replace(
        TINY,
        name="drive-paddle",
        dataset="drive",
        model="unet_paddle",
        model_options={},
        loss="paddle-dice",
        row=ROWS["drive-paddle"],
    )
    monkeypatch.setattr(studies, "all_recipes", lambda: {recipe.name: recipe})
    state = u2learn.to_official(u2learn.unet_paddle())
    with open(tiny / "model.pdparams", "wb") as file:
        pickle.dump({name: x.numpy() for name, x in state.items()}, file)
    run("evaluate", "--weights", tiny / "model.pdparams", "--recipe", "drive-paddle", "--record")
    out = capsys.readouterr().out
    assert re.search(r"^DICE +reported 89.50, here ", out, re.M)
    assert re.search(r"^AUC ROC +reported 95.58, here ", out, re.M)
    record = json.loads((tiny / "results" / "drive-paddle-official.json").read_text())
    ours = 100 * record["scores"]["image"]["mdice"]
    assert f"here {ours:.2f}, difference {ours - 89.5:+.2f}" in out
    assert "--export" in failure(
        "evaluate", "--weights", "model.pdparams", "--recipe", "drive-paddle", "--export", "x"
    )
    assert "model.pth" in failure("evaluate", "--weights", "model.pth", "--recipe", "drive-paddle")


def test_drive_without_test_labels_trains_and_is_scored_on_what_was_held_out(tmp_path, monkeypatch, capsys):
    """As it is handed out today; the record is told from one of the table."""
    data = tmp_path / "data"
    monkeypatch.setenv("U2LEARN_DATA", str(data))
    monkeypatch.setenv("U2LEARN_RUNS", str(tmp_path / "runs"))
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(records, "records_folder", lambda: tmp_path / "results")
    records.forget()
    make_drive(data / "DRIVE")
    shutil.rmtree(data / "DRIVE" / "test" / "1st_manual")
    shutil.rmtree(data / "DRIVE" / "test" / "2nd_manual")
    run("data", "verify", "drive")
    out = capsys.readouterr().out
    assert "drive: trains, cannot be scored, in" in out and "holds training images out" in out
    row = dataclasses.replace(
        studies.get("drive-fcn-ce"),
        model="unet_small",
        model_options={"width": 4, "depth": 2},
        loss="small",
        crop=(16, 16),
        window=(16, 16),
        stride=(16, 16),
        iterations=2,
        evaluations=1,
    )
    recipes = {recipe.name: recipe for recipe in (row, held_out(row))}
    monkeypatch.setattr(studies, "all_recipes", lambda: recipes)
    run("train", "drive-fcn-ce")
    assert "'drive-fcn-ce-held-out' takes the place of 'drive-fcn-ce'" in capsys.readouterr().out
    run("reproduce", "drive-fcn-ce", "--seeds", 1)
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(path.read_text())
    assert path.name == "drive-fcn-ce-held-out-seed0.json" and records.is_current(record)
    assert record["recipe"]["protocol"] == "held-out" and record["recipe"]["row"] == {}
    assert 0 <= record["scores"]["image"]["dice"] <= 1
    assert not records.of_recipe("drive-fcn-ce")
    records.forget()


def test_without_a_checkout_records_lie_beside_the_runs(tiny, monkeypatch, capsys):
    """As on Colab: they are found again in the next session, with those that came with the package."""
    monkeypatch.undo()
    package = tiny / "site-packages" / "u2learn"
    shipped = json.loads((ROOT / "results" / "drive-small-seed0.json").read_text())
    (package / "_results").mkdir(parents=True)
    (package / "_results" / "drive-small-seed0.json").write_text(json.dumps(shipped))
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.setenv("U2LEARN_RUNS", str(tiny / "drive"))
    assert set(records.records()) == {"drive-small-seed0"}
    official = {
        "official": json.loads(studies.get("chase-fcn-ce").to_json()),
        "speed": {"frames_per_second": 0.5},
        "scores": {"image": {"dice": 0.8051, "mdice": 0.8937}},
    }
    path = records.write_record("chase-fcn-ce-official", official)
    assert path == tiny / "drive" / "records" / "chase-fcn-ce-official.json"
    assert set(records.records()) == {"drive-small-seed0", "chase-fcn-ce-official"}
    records.forget()
    run("report", "chase-fcn-ce")
    out = capsys.readouterr().out
    assert "CHASE_DB1, UNet-S5-D16 (OpenMMLab): FCN, CE" in out
    assert re.search(r"^Dice +80\.24 +80\.51 +– +\+0\.27 +reproduced$", out, re.M)
    assert "no reported row" in failure("report", "small")
    monkeypatch.chdir(tiny)
    assert "is no checkout" in failure("report")
    shipped["seconds"] = 1
    records.write_record("drive-small-seed0", shipped)  # one's own goes before what came with the package
    assert records.records()["drive-small-seed0"]["seconds"] == 1


def test_published_weights_need_no_file(tiny, monkeypatch, capsys):
    """From their home to the difference, for a row whose name says which file it is; read, never executed."""
    recipe = dataclasses.replace(
        TINY,
        name="drive-fcn-ce",
        dataset="drive",
        model="unet_s5_d16",
        model_options={"head": "fcn"},
        window=(64, 64),
        stride=(42, 42),
        row=ROWS["drive-fcn-ce"],
    )
    monkeypatch.setattr(studies, "all_recipes", lambda: {recipe.name: recipe})
    (tiny / "home").mkdir()
    state = u2learn.to_official(recipe.build_model())
    torch.save({"state_dict": state, "meta": {}}, tiny / "home" / "net.pth")
    digest = hashlib.sha256((tiny / "home" / "net.pth").read_bytes()).hexdigest()
    monkeypatch.setenv("U2LEARN_DATA", str(tiny / "data"))
    address = (tiny / "home" / "net.pth").as_uri()
    offered = dataclasses.replace(PUBLISHED["drive-fcn-ce"], archive=Archive((address,), sha256=digest[:8]))
    monkeypatch.setitem(PUBLISHED, "drive-fcn-ce", offered)
    run("weights", "list")
    assert re.search(r"drive-fcn-ce +not here +net\.pth", capsys.readouterr().out)
    run("evaluate", "--weights", "official", "--recipe", "drive-fcn-ce", "--record")
    assert re.search(r"^Dice +reported 78.67, here ", capsys.readouterr().out, re.M)
    record = json.loads((tiny / "results" / "drive-fcn-ce-official.json").read_text())
    assert record["weights"] == {"file": "net.pth", "sha256": digest}
    run("weights", "fetch", "drive-fcn-ce")
    run("weights")
    assert re.search(r"drive-fcn-ce +here +net\.pth", capsys.readouterr().out)
    net, tested_by = u2learn.pretrained("drive-fcn-ce", progress=False)
    assert tested_by == recipe and not net.training
    assert all(torch.equal(x, state[name]) for name, x in u2learn.to_official(net).items())
    assert "u2net" in failure("weights", "fetch", "u3net")


# Two tests of one training, and a third recipe that needs another one.
SALIENT = [
    Recipe(
        f"{dataset}-tiny",
        dataset,
        "unet_small",
        protocol=protocol,
        model_options={"width": 4, "depth": 2},
        num_classes=1,
        square=40,
        normalisation="maximum",
        crop=(36, 36),
        batch=2,
        loss="bce-iou",
        optimiser="adam",
        iterations=2,
        evaluations=1,
        trained_by="duts-tiny" if dataset == "sod" else "",
    )
    for dataset, protocol in (("duts", "duts"), ("sod", "duts"), ("ecssd", "study"))
]


@pytest.fixture
def salient(tiny, monkeypatch):
    """As `tiny`, with recipes of saliency; each set has its own image."""
    monkeypatch.setattr(studies, "all_recipes", lambda: {recipe.name: recipe for recipe in SALIENT})
    monkeypatch.setattr(studies, "suites", lambda: {"both": ("duts-tiny", "sod-tiny")})
    sets = {"duts": [cross(1)], "sod": [cross(2)], "ecssd": [cross(3)]}
    monkeypatch.setattr(Recipe, "examples", lambda self, part: sets[self.dataset])
    return tiny


def test_one_training_is_tested_on_several_sets(salient, monkeypatch, capsys):
    trained, train_it = [], cli.training.train

    def counted(recipe, folder, **rest):
        trained.append((recipe.name, folder.name))
        return train_it(recipe, folder, **rest)

    monkeypatch.setattr(cli.training, "train", counted)
    run("reproduce", "both", "--seeds", 1)
    assert set(trained) == {("duts-tiny", "duts-tiny-seed0")}
    found = {name: records.records()[f"{name}-seed0"] for name in ("duts-tiny", "sod-tiny")}
    assert all(records.is_current(record) for record in found.values())
    assert found["sod-tiny"]["recipe"]["dataset"] == "sod"
    assert found["sod-tiny"]["seconds"] == found["duts-tiny"]["seconds"]
    assert found["sod-tiny"]["scores"] != found["duts-tiny"]["scores"]
    capsys.readouterr()
    run("evaluate", salient / "runs" / "duts-tiny-seed0", "--recipe", "sod-tiny")
    out = capsys.readouterr().out
    assert f"{found['sod-tiny']['scores']['image']['mae']:.4f}" in out and "max_f" in out
    message = failure("evaluate", salient / "runs" / "duts-tiny-seed0", "--recipe", "ecssd-tiny")
    assert "ecssd-tiny, seed 0, needs another training" in message
    assert "no file nowhere" in failure("evaluate", "nowhere", "--recipe", "sod-tiny")


def test_official_saliency_weights_beside_what_was_reported(salient, monkeypatch, capsys):
    """Fractions stay fractions; a network without training does not find what the paper's finds."""
    recipe = Recipe(
        "ecssd-u2net-small",
        "ecssd",
        "u2net_small",
        protocol="duts",
        num_classes=1,
        square=64,
        crop=(48, 48),
        row=ROWS["ecssd-u2net-small"],
    )
    monkeypatch.setattr(studies, "all_recipes", lambda: {recipe.name: recipe})
    torch.save(u2learn.to_official(u2learn.u2net_small()), salient / "net.pth")
    run("evaluate", "--weights", salient / "net.pth", "--recipe", "ecssd-u2net-small", "--record")
    out = capsys.readouterr().out
    record = json.loads((salient / "results" / "ecssd-u2net-small-official.json").read_text())
    rows = {"maxF": ("max_f", 0.943), "MAE": ("mae", 0.041), "relaxFb": ("relaxed_f", 0.808)}
    for metric, (score, reported) in rows.items():
        ours = record["scores"]["image"][score]
        assert f"{metric:13} reported {reported}, here {ours:.4f}, difference {ours - reported:+.4f}" in out
    assert set(record["scores"]) == {"image"} and len(record["curve"]["recall"]) == 64


def test_predict_writes_the_saliency_of_a_run(salient, capsys):
    run("train", "ecssd-tiny")
    photograph(salient / "x.png", (37, 53))
    run("predict", salient / "x.png", "--weights", salient / "runs" / "ecssd-tiny-seed0")
    assert Image.open(salient / "x-saliency.png").size == (53, 37)
    assert set(np.unique(np.asarray(Image.open(salient / "x-mask.png")))) <= {0, 255}


def test_suites_name_recipes_that_there_are():
    assert len(studies.suites()["retina-openmmlab"]) == 24 and len(studies.suites()["retina-paddle"]) == 4
    assert len(studies.suites()["saliency"]) == 12 and len(studies.suites()["dis"]) == 5
    assert {name for suite in studies.suites().values() for name in suite} <= set(studies.names())


def test_an_unknown_suite_is_a_sentence_with_suites_and_recipes(tiny):
    message = failure("reproduce", "nonsense")
    assert "nonsense" in message and "tiny-small" in message and "retina-small" in message


def test_a_run_that_was_stopped_says_so_with_its_scores(tiny, weights, capsys):
    (tiny / "run").mkdir()
    tensors, metadata = read_tensors(weights / "checkpoint.safetensors")
    position = json.loads(metadata["position"]) | {"iteration": 3, "finished": False, "given": None}
    write_tensors(
        tiny / "run" / "checkpoint.safetensors", tensors, metadata | {"position": json.dumps(position)}
    )
    run("evaluate", tiny / "run", "--record")
    assert f"iteration 3 of {TINY.iterations}" in capsys.readouterr().out
    assert [path.name for path in (tiny / "results").glob("*")] == ["tiny-small-seed0-at-3.json"]


def test_a_broken_run_is_a_sentence(tiny, weights):
    (tiny / "run").mkdir()
    assert "checkpoint" in failure("evaluate", tiny / "run")
    whole = (weights / "checkpoint.safetensors").read_bytes()
    (tiny / "run" / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "checkpoint.safetensors" in failure("evaluate", tiny / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "gpu", "nonsense"])
def test_a_device_that_is_not_there_is_a_sentence(tiny, device):
    message = failure("train", "tiny-small", "--device", device)
    assert "cpu" in message
    assert not (tiny / "runs").exists()


# --- predict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("size", [(37, 53), (64, 64)])
def test_predict_writes_maps_at_native_size(tmp_path, weights, size, mode, capsys):
    path = photograph(tmp_path / "eye.png", size, mode)
    run("predict", path, "--weights", weights, "--output", tmp_path / "new" / "maps")
    printed = capsys.readouterr().out.split()
    probability, mask = (
        Image.open(tmp_path / "new" / "maps" / f"eye-{e}.png") for e in ("probability", "mask")
    )
    assert [Path(p).name for p in printed] == ["eye-probability.png", "eye-mask.png"]
    assert probability.size == mask.size == size[::-1]
    assert probability.mode == mask.mode == "L"
    model, recipe = load_model(weights)
    from u2learn.data.example import read_image

    due = segment(fast(model), read_image(path), recipe)[1].numpy()  # as the command has it
    assert np.abs(np.asarray(probability) - 255 * due).max() <= 1
    assert set(np.unique(np.asarray(mask))) <= {0, 255}
    assert ((np.asarray(mask) == 255) == (due > 0.5)).all()


def test_predict_writes_class_ids_of_many_classes(tmp_path):
    recipe = dataclasses.replace(TINY, name="tiny-streets", dataset="streets", num_classes=19, loss="ce")
    model = recipe.build_model().eval()
    torch.nn.init.normal_(model.head.weight, std=100)  # so that an untrained net has several answers
    save_model(tmp_path / "streets.safetensors", model, recipe)
    source = photograph(tmp_path / "street.png")
    run("predict", source, "--weights", tmp_path / "streets.safetensors", "--output", tmp_path / "maps")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["street-classes.png"]
    due = segment(fast(model), np.array(Image.open(source)).transpose(2, 0, 1), recipe).argmax(0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "maps" / "street-classes.png")), due.numpy())
    assert len(due.unique()) > 2


def test_predict_takes_a_threshold_and_many_images(tmp_path, weights):
    one, two = photograph(tmp_path / "one.png", seed=1), photograph(tmp_path / "two.jpg", (20, 30), seed=2)
    run(
        "predict",
        one,
        two,
        "--weights",
        weights / "checkpoint.safetensors",
        "--output",
        tmp_path,
        "--threshold",
        0.2,
    )
    for stem in ("one", "two"):
        p, mask = (np.asarray(Image.open(tmp_path / f"{stem}-{e}.png")) for e in ("probability", "mask"))
        assert ((mask == 255) == (p >= 51))[np.abs(p.astype(int) - 51) > 1].all()
    assert one.exists() and two.exists()


def test_predict_takes_the_name_of_a_net_that_ships(tmp_path):
    run("predict", photograph(tmp_path / "x.png"), "--weights", "objects-small", "--output", tmp_path)
    assert (tmp_path / "x-saliency.png").exists()


def test_predict_loses_no_map_to_another_of_the_same_name(tmp_path, weights):
    for folder, seed in (("left", 1), ("right", 2)):
        (tmp_path / folder).mkdir()
        photograph(tmp_path / folder / "eye.png", (20, 20 + seed), seed=seed)
    images = [tmp_path / folder / "eye.png" for folder in ("left", "right")]
    try:
        run("predict", *images, "--weights", weights, "--output", tmp_path / "maps")
    except SystemExit as stop:
        assert "eye" in str(stop.code)  # refused is fine
    else:
        assert len(list((tmp_path / "maps").glob("*probability.png"))) == 2


def test_predict_mistakes_are_sentences(tmp_path, weights):
    image = photograph(tmp_path / "eye.png")
    assert "nowhere.png" in failure("predict", tmp_path / "nowhere.png", "--weights", weights)
    assert "nothing" in failure("predict", image, "--weights", tmp_path / "nothing")
    assert "objects-small" in failure("predict", image, "--weights", "objects-large")
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png" in failure("predict", tmp_path / "text.png", "--weights", weights)
    whole = image.read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "half.png" in failure("predict", tmp_path / "half.png", "--weights", weights)
    assert "eye.png" in failure("predict", image, "--weights", image)
    for threshold in ("1.5", "-0.1", "128"):
        assert "hreshold" in failure("predict", image, "--weights", weights, "--threshold", threshold)


# --- report -------------------------------------------------------------------------------------------------

README = "# Title\n\nBefore.\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nAfter ± é.\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a README and a chapter that show one table."""
    monkeypatch.setitem(tables.GENERATED, "results", lambda: "| a | b |\n|---|---|\n| 1 ± 2 | – |")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    cells = [
        {"cell_type": "markdown", "id": "table", "metadata": {}, "source": README.splitlines(keepends=True)},
        {"cell_type": "code", "id": "code", "metadata": {}, "source": ["'<!-- results:begin -->'"]},
    ]
    chapter = tmp_path / "book" / "chapters" / "01.ipynb"
    chapter.parent.mkdir(parents=True)
    chapter.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return tmp_path


def test_report_puts_the_tables_between_the_marks(project, capsys):
    run("report", "--root", project)
    due = README.replace("old", "| a | b |\n|---|---|\n| 1 ± 2 | – |")
    assert (project / "README.md").read_text(encoding="utf-8") == due
    table, code = json.loads((project / "book/chapters/01.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "".join(table["source"]) == due
    assert code["source"] == ["'<!-- results:begin -->'"], "code is not touched"
    assert "README.md" in capsys.readouterr().out
    before = (project / "README.md").stat().st_mtime_ns
    run("report", "--root", project)
    assert "up to date" in capsys.readouterr().out
    assert (project / "README.md").stat().st_mtime_ns == before


def test_report_check_says_what_is_not_up_to_date_and_writes_nothing(project):
    message = failure("report", "--root", project, "--check")
    assert "README.md" in message and "01.ipynb" in message
    assert (project / "README.md").read_text(encoding="utf-8") == README
    run("report", "--root", project)
    run("report", "--root", project, "--check")


def test_report_with_half_a_mark_is_a_sentence(project):
    path = project / "README.md"
    path.write_text("<!-- results:end -->\n<!-- results:begin -->")
    assert "README.md: " in failure("report", "--root", project)
    assert path.read_text() == "<!-- results:end -->\n<!-- results:begin -->"


def test_report_elsewhere_is_a_sentence(tmp_path):
    assert "no checkout of U2Learn" in failure("report", "--root", tmp_path)


def test_the_tables_of_the_project_are_up_to_date():
    """README and chapters as they are, byte for byte."""
    root = Path(__file__).parent.parent
    if not (root / "README.md").exists():
        pytest.skip("no README: these tests run outside of a checkout")
    records.forget()
    run("report", "--root", root, "--check")


def test_stopping_is_not_an_error_with_a_traceback(tiny, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.training, "train", interrupt)
    assert "goes on from the last checkpoint" in failure("train", "tiny-small")
    monkeypatch.setattr(cli, "lint", interrupt)
    assert failure("data", "lint", "images", "masks") == "u2learn: stopped before it was done."
    monkeypatch.setattr(cli.download, "fetch", interrupt)
    message = failure("data", "fetch", "stare")
    assert "goes on there" in message and "checkpoint" not in message


# --- several at once, and how fast --------------------------------------------------------------------------


def test_a_run_that_another_process_holds_is_left_to_it(tiny, capsys):
    folder = tiny / "runs" / "tiny-small-seed0"
    with training.alone_in(folder):
        assert str(folder) in failure("train", "tiny-small")
        run("reproduce", "tiny-small", "--seeds", 2)
        assert "Another process" in capsys.readouterr().out
    assert [path.name for path in (tiny / "results").glob("tiny*")] == ["tiny-small-seed1.json"]
    run("reproduce", "tiny-small", "--seeds", 2)  # and when it is free again, it is done
    assert len(list((tiny / "results").glob("tiny*"))) == 2


def test_processes_side_by_side_share_the_list(tmp_path):
    """Real processes: each run is trained once, whoever takes it."""
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_cli
from u2learn import cli, costs, measure, records, studies
from u2learn.recipe import Recipe
measure.SPEED_SECONDS = 0.05
studies.all_recipes = lambda: {{test_cli.TINY.name: test_cli.TINY}}
parts = {{"train": [test_cli.cross(s) for s in range(3)], "test": [test_cli.cross(50)]}}
Recipe.examples = lambda self, part: parts[part]
records.records_folder = lambda: Path("results")
train = cli.training.train
def noted(recipe, folder, **rest):
    result = train(recipe, folder, **rest)
    with open("trained.txt", "a") as file:
        file.write(f"{{recipe.seed}}\\n")
    return result
cli.training.train = noted
cli.main(sys.argv[1:])
"""
    (tmp_path / "results").mkdir()
    (tmp_path / "go.py").write_text(script)
    command = [sys.executable, "go.py", "reproduce", "tiny-small", "--seeds", "3"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    both = [subprocess.Popen(command, cwd=tmp_path, env=quiet, text=True, **pipes) for _ in range(2)]
    outputs, errors = zip(*(process.communicate() for process in both), strict=True)
    assert [process.returncode for process in both] == [0, 0], errors
    assert not any("it/s" in error for error in errors), "bars of two processes in one terminal"
    assert len(list((tmp_path / "results").glob("tiny*.json"))) == 3
    trained = (tmp_path / "trained.txt").read_text().split()
    assert set(trained) == {"0", "1", "2"}
    assert all("seed 2" in output for output in outputs)


def test_jobs_start_as_many_processes_with_the_same_orders(tiny, monkeypatch):
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command, env))

        def wait(self):
            return len(started) > 3

    monkeypatch.setattr(cli.subprocess, "Popen", Process)
    run("reproduce", "tiny-small", "--seeds", 4, "--minutes", 9, "--jobs", 3, "--device", "cpu")
    assert len(started) == 3
    command, environment = started[0]
    options = cli._parser().parse_args(command[3:])
    assert (options.suite, options.seeds, options.minutes, options.device, options.jobs) == (
        "tiny-small", 4, 9, "cpu", 1,
    )  # fmt: skip
    assert environment["TQDM_DISABLE"] == "1"
    assert "failed" in failure("reproduce", "tiny-small", "--jobs", 2)


@pytest.mark.parametrize(
    ("gpus", "device", "due"),
    [
        (3, None, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
        (3, "cuda", ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
        (3, "cuda:1", ["cuda:1"] * 5),
        (1, None, ["cuda:0"] * 5),
        (2, "cpu", ["cpu"] * 5),
        (0, None, ["cpu"] * 5),
    ],
)
def test_jobs_are_dealt_out_to_all_gpus(tiny, monkeypatch, gpus, device, due):
    started = []

    class Process:
        def __init__(self, command, env):
            started.append(cli._parser().parse_args(command[3:]).device)

        def wait(self):
            return 0

    monkeypatch.setattr(cli.subprocess, "Popen", Process)
    monkeypatch.setattr(devices, "available", lambda: ["cuda", "cpu"] if gpus else ["cpu"])
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: gpus)
    run("reproduce", "tiny-small", "--jobs", 5, *(["--device", device] if device else []))
    assert started == due


def test_a_training_stops_after_its_minutes_and_goes_on(tiny, capsys):
    run("train", "tiny-small", "--device", "cpu", "--minutes", 0)
    assert "Time is up" in capsys.readouterr().out
    run("train", "tiny-small", "--device", "cpu")
    assert "Trained." in capsys.readouterr().out


def test_benchmark_says_what_it_measured(tiny, capsys):
    run("benchmark", "tiny-small", "--seconds", 0.2, "--device", "cpu")
    out = capsys.readouterr().out
    titles = ("plain loop", "u2learn", "all of it")
    plain, ours, minutes = (float(re.search(rf"^{title}\s+([\d.]+)", out, re.M)[1]) for title in titles)
    assert plain > 0 and ours > 0
    assert minutes == pytest.approx(TINY.iterations / ours / 60, abs=0.06)
    ratio = float(re.search(r"([\d.]+) times the plain loop", out)[1])
    assert ratio == pytest.approx(ours / plain, rel=0.02)
    assert 0 < float(re.search(r"(\d+)% of", out)[1]) < 100
    assert not (tiny / "runs").exists(), "a benchmark leaves no run behind"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered):
    """As in `u2learn data list | head -1`; Python notices at the first line, or at its end."""
    command = [sys.executable, "-m", "u2learn", "data", "list"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (0, b"")
