"""The speedrun: the clock, the rules (each broken once), records that go on, and the page."""

import dataclasses
import json
import subprocess
import time

import pytest
import torch
from conftest import ROOT, cross
from test_training import tiny

from benchmarks import speedrun
from u2learn.costs import training_flops
from u2learn.data.augment import Augmentation
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES
from u2learn.training import train

TRAINING, TEST = ([cross(seed, bright=140) for seed in seeds] for seeds in (range(5), range(9, 11)))
SHORT = dataclasses.replace(
    tiny(augmentation=Augmentation(), evaluations=1),
    model="half_unet",
    model_options={"width": 4, "depth": 2},
    loss="small-binary",
)


def entry(**changes) -> speedrun.Entry:
    """One that keeps all rules."""
    recipe = dataclasses.replace(SHORT, dataset="drive", protocol="mmseg")
    record = {
        "dice": 80.5, "seconds": 30.0, "step": 0.07, "operations": training_flops(recipe), "images": 20,
        "parameters": 9, "device": "CPU, 1 thread(s)", "commit": "abc",
    }  # fmt: skip
    records = tuple({"seed": seed, **record} for seed in range(speedrun.SEEDS))
    values = {"goal": 80.0, "who": "A. Reader", "new": "Nothing.", "recipe": recipe, "records": records}
    return speedrun.Entry("mine", **values | changes)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder of entries, crosses in the place of all images, and a step that takes no time."""
    monkeypatch.setattr(speedrun, "ENTRIES", tmp_path)
    monkeypatch.setattr(speedrun, "step_seconds", lambda *_, **__: 0.01)
    monkeypatch.setattr(Recipe, "examples", lambda self, part: TRAINING if part == "train" else TEST)
    return tmp_path


# --- the loss -----------------------------------------------------------------------------------------------


def test_the_loss_is_the_general_one():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 9, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 2, (3, 9, 7))
    labels[0, :2] = 255
    results = []
    for name in ("small", "small-binary"):
        loss = LOSSES[name]([logits], labels)
        results.append((loss, torch.autograd.grad(loss, logits)[0]))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


# --- the clock and the records ------------------------------------------------------------------------------


def test_the_clock_stops_when_the_first_test_image_is_asked_for(place, monkeypatch):
    class Slow(list):
        def __getitem__(self, index):
            busy = time.process_time()
            while time.process_time() < busy + 0.3:
                pass
            return super().__getitem__(index)

    monkeypatch.setattr(Recipe, "examples", lambda self, part: TRAINING if part == "train" else Slow(TEST))
    started = time.process_time()
    record = speedrun.run_once(dataclasses.replace(SHORT, seed=3))
    assert 0 < record["seconds"] < time.process_time() - started - 0.6
    assert record["seed"] == 3 and record["images"] == 5 and 0 < record["dice"] <= 100
    assert record["operations"] == training_flops(SHORT) and record["step"] == 0.01


def test_the_loop_of_the_package_is_what_trains(place, tmp_path):
    model = train(SHORT, tmp_path / "run", TRAINING, TEST, device="cpu", progress=False)
    from u2learn.tasks import evaluate

    dice = evaluate(model, SHORT, TEST).result()["image"]["dice"]
    assert speedrun.run_once(SHORT)["dice"] == pytest.approx(100 * dice, abs=1e-3)


def test_seeds_that_are_done_are_skipped(place, monkeypatch, capsys):
    done = []

    def once(recipe):
        done.append(recipe.seed)
        if len(done) == 3:
            raise KeyboardInterrupt
        return {"seed": recipe.seed, "dice": 80.0, "seconds": 3.0, "step": 0.01, "load": 0.1}

    monkeypatch.setattr(speedrun, "run_once", once)
    entry(records=()).write()
    with pytest.raises(KeyboardInterrupt):
        speedrun.main(["run", "mine"])
    assert [record["seed"] for record in speedrun.read("mine").records] == [0, 1]
    assert speedrun.main(["run", "mine", "--seeds", "4"]) == 0
    assert done == [0, 1, 2, 2, 3]
    assert [record["seed"] for record in speedrun.read("mine").records] == [0, 1, 2, 3]
    assert "mine, seed 3: Dice 80.00, 3.0 s of one core, 300 steps of drive-small" in capsys.readouterr().out


def test_an_entry_is_what_was_written(place):
    entry().write()
    assert speedrun.read("mine") == entry() and speedrun.names() == ["mine"]
    (place / "mine.json").write_text("{}")
    with pytest.raises(ValueError, match="is not an entry"):
        speedrun.read("mine")
    assert speedrun.main(["run", "yours"]) == 2


def test_only_a_quiet_machine_gives_a_time(place, monkeypatch, capsys):
    again = {**entry().records[0], "load": 0.4, "seconds": 21.0}
    monkeypatch.setattr(speedrun, "run_once", lambda recipe: again | {"seed": recipe.seed})
    entry().write()
    assert speedrun.main(["time", "mine"]) == 0
    assert speedrun.read("mine").timed["seconds"] == 21.0
    assert speedrun.seconds_of(speedrun.read("mine")) == "21"
    for change, word in (({"load": 2.0}, "Other processes"), ({"dice": 81.2}, "its record says")):
        monkeypatch.setattr(
            speedrun, "run_once", lambda recipe, change=change: {**again, "seed": 0, **change}
        )
        assert speedrun.main(["time", "mine"]) == 2
        assert word in capsys.readouterr().err
    assert speedrun.read("mine").timed["seconds"] == 21.0


def test_other_settings_get_equal_seconds(place, tmp_path, monkeypatch):
    monkeypatch.setattr(speedrun, "TRIED", tmp_path / "tried.jsonl")
    monkeypatch.setattr(speedrun, "cost_ratio", lambda recipe, training: recipe.batch / 4)
    monkeypatch.setattr(speedrun, "reference_step", lambda: 0.5)
    entry(recipe=dataclasses.replace(SHORT, ema=0.5)).write()
    assert speedrun.main(["try", "mine", "--seconds", "4"]) == 0
    assert speedrun.main(["try", "mine", "--seconds", "4"]) == 0  # nothing is left to do
    assert speedrun.main(["try", "mine", "--set", "batch=2", "--seconds", "4", "--seeds", "1"]) == 0
    lines = [json.loads(text) for text in (tmp_path / "tried.jsonl").read_text().splitlines()]
    assert [(x["settings"], x["seed"], x["iterations"]) for x in lines] == [
        ([], 0, 8),
        ([], 1, 8),
        (["batch=2"], 0, 16),
    ]
    table = speedrun.tried_table().splitlines()
    assert len(table) == 4 and any("| `batch=2` |" in text and text.endswith("| 1 |") for text in table)


# --- the rules ----------------------------------------------------------------------------------------------


def with_recipe(**changes) -> speedrun.Entry:
    recipe = dataclasses.replace(entry().recipe, **changes)
    records = [record | {"operations": training_flops(recipe)} for record in entry().records]
    return entry(recipe=recipe, records=tuple(records))


def with_record(**changes) -> speedrun.Entry:
    first, *others = entry().records
    return entry(records=(first | changes, *others))


BROKEN = {
    "the goal is": [entry(goal=79.0)],
    "who made it": [entry(who=" "), entry(new=""), entry(new="One.\nTwo.")],
    "it trains on the 20": [
        with_recipe(dataset="stare"),
        with_recipe(protocol="held-out"),
        with_recipe(data_options={"root": "elsewhere"}),
        with_recipe(folder="mine"),
        with_recipe(start="0" * 64),
        with_recipe(trained_by="drive-small"),
    ],
    "a test image goes": [
        with_recipe(window=(64, 64)),
        with_recipe(views="h"),
        with_recipe(scales=(1.0, 2.0)),
        with_recipe(square=512),
        with_recipe(long_side=400),
    ],
    "the Dice is": [with_recipe(task="classes"), with_recipe(scored_under=("field",))],
    "nothing is chosen": [
        with_recipe(evaluations=2),
        with_recipe(watched="validation", keep="best"),
        with_recipe(watched="validation", patience=3),
    ],
    "there is one record": [
        entry(records=entry().records[1:]),
        entry(records=entry().records[1:] + entry().records[1:2]),
    ],
    "the mean Dice is": [with_record(dice=75.0), entry(goal=82.0)],
    "each record counts": [with_record(operations=1), with_record(images=40)],
    "each record was made with one": [with_record(device="CPU, 2 thread(s)")],
}


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        pytest.param(rule, bad, id=f"{rule}-{i}")
        for rule, each in BROKEN.items()
        for i, bad in enumerate(each)
    ],
)
def test_a_broken_rule_is_named_and_no_other(rule, bad, monkeypatch):
    monkeypatch.setattr(speedrun, "made_by_commit", lambda entry, record: True)
    assert [text[: len(rule)] for text in speedrun.broken_rules(bad)] == [rule]


def test_an_entry_that_keeps_them_all(place, monkeypatch, capsys):
    monkeypatch.setattr(speedrun, "made_by_commit", lambda entry, record: True)
    entry().write()
    assert speedrun.main(["check"]) == 0 and capsys.readouterr().out == "mine: keeps the rules\n"
    entry(goal=82.0).write()
    assert speedrun.main(["check", "mine"]) == 1
    assert "  - the mean Dice is 82.0 or more" in capsys.readouterr().out


def test_a_record_is_made_by_a_commit_that_holds_the_recipe(tmp_path, monkeypatch):
    here = tmp_path / "benchmarks"
    (here / "entries").mkdir(parents=True)
    monkeypatch.setattr(speedrun, "HERE", here)
    monkeypatch.setattr(speedrun, "ENTRIES", here / "entries")

    def git(*command):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *settings, *command]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()

    git("init", "-q")
    commits = []
    for one in (with_recipe(batch=2), entry()):
        one.write()
        git("add", ".")
        git("commit", "-q", "-m", "an entry")
        commits.append(git("rev-parse", "HEAD"))
    for record, verdict in (
        ({"commit": commits[1]}, True),
        ({"commit": commits[0]}, False),  # another recipe
        ({"commit": "0" * 40}, False),  # no such commit
        ({"commit": None}, False),
        ({"commit": commits[1], "dirty": ["u2learn/training.py"]}, False),
    ):
        assert speedrun.made_by_commit(entry(), record) is verdict, record


def test_a_seed_that_gives_something_else_again_is_refused(place, monkeypatch, capsys):
    monkeypatch.setattr(speedrun, "made_by_commit", lambda entry, record: True)
    entry().write()
    for dice, code in ((80.6, 0), (81.6, 1)):
        again = {"seed": 4, "dice": dice, "seconds": 3.0, "step": 0.01, "load": None}
        monkeypatch.setattr(speedrun, "run_once", lambda recipe, again=again: again)
        assert speedrun.main(["check", "mine", "--again", "4"]) == code
    assert "seed 4 gives 81.60 again, its record says 80.50" in capsys.readouterr().out


# --- what is there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", speedrun.names())
def test_the_entries_keep_the_rules(name):
    found = speedrun.read(name)
    unfinished = ("there is one record", "the mean Dice") if len(found.records) < speedrun.SEEDS else ()
    assert [rule for rule in speedrun.broken_rules(found) if not rule.startswith(unfinished)] == []


def test_the_page_is_what_entries_and_tries_say(monkeypatch):
    monkeypatch.setattr(
        Recipe, "examples", lambda self, part: [cross(0, (584, 565))]
    )  # DRIVE may not be here
    text = (ROOT / "book" / "back" / "speedrun.md").read_text(encoding="utf-8")
    assert speedrun.page(text) == text, "run python -m benchmarks.speedrun table"
    assert "speedrun" in (ROOT / "_toc.yml").read_text(encoding="utf-8")
