"""The house: a recipe is everything that decides a result, something new is one file, inference is light."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from u2learn import records, registry, studies
from u2learn.recipe import Recipe
from u2learn.studies import drawn

ROOT = Path(__file__).parent.parent
# Every field that a recipe may leave out, with another value than the default of today.
OTHERS = {
    "protocol": "lwnet", "levels": (0, 9), "long_side": 9, "square": 999, "normalisation": "half",
    "channels": 4, "num_classes": 5, "start": "x", "crop": (16, 16), "batch": 3, "loss": "paddle-ce",
    "accumulate": 2, "clip": 1.0,
    "optimiser": "adam", "momentum": 0.5, "learning_rate": 0.5, "final_rate": 0.5, "power": 2.0,
    "weight_decay": 0.5, "warm_up": 0.4, "ema": 0.7, "small_first": 0.3, "iterations": 41, "evaluations": 1,
    "watched": "validation", "window": (9, 9), "stride": (5, 5), "views": "h", "scales": (2.0,),
    "stretch": False, "scored_under": ("image", "field"),
}  # fmt: skip
# Of these, some record has what the default is.
LEFT_TO_THE_DEFAULT = ("momentum", "power", "scales", "levels", "channels", "stretch", "long_side")


def made_by() -> dict[str, str]:
    """The recipe of each record, as its JSON reads today."""
    found = {name: r.get("recipe") or r.get("official") for name, r in records.records().items()}
    return {name: Recipe.from_json(json.dumps(r)).to_json() for name, r in found.items() if r}


def current() -> set[str]:
    return {name for name in made_by() if records.is_current(records.records()[name])}


@pytest.fixture(scope="module")
def before():
    meant = {name: recipe.to_json() for name, recipe in studies.all_recipes().items()}
    return made_by(), current(), meant


def check(before, monkeypatch) -> tuple[set[str], set[str]]:
    """After a change: records say what they said, and none passes for a run of what its name means now."""
    records_before, current_before, meant = before
    monkeypatch.setattr(studies, "_made", {})
    assert made_by() == records_before
    now = {name: recipe.to_json() for name, recipe in studies.all_recipes().items()}
    changed = {name for name in meant if meant[name] != now[name]}
    stale = {name for name in current_before if json.loads(records_before[name])["name"] in changed}
    assert current() == current_before - stale
    return changed, stale


@pytest.mark.parametrize("name", OTHERS)
def test_a_record_keeps_what_a_field_was_and_notices_another_default(name, before, monkeypatch):
    init = Recipe.__init__
    names = [p.name for p in inspect.signature(init).parameters.values() if p.default is not p.empty]
    values = list(init.__defaults__ or ())
    assert len(values) == len(names)
    values[names.index(name)] = OTHERS[name]
    monkeypatch.setattr(init, "__defaults__", tuple(values))
    try:
        _, stale = check(before, monkeypatch)
        assert stale or name not in LEFT_TO_THE_DEFAULT
    except ValueError as error:  # no recipe can be made with it, so none of a record can
        assert "recipe" in str(error)


def test_every_field_with_a_default_is_tried():
    free = {f.name for f in dataclasses.fields(Recipe) if f.default is not dataclasses.MISSING and f.compare}
    resolved = {"task", "schedule", "betas", "decay_on"}  # written out from the optimiser and the classes
    chosen = {"keep", "patience", "metrics"}  # need a validation part, or something registered
    named = {"seed"}  # a record is compared with the recipe of its own seed
    assert free == set(OTHERS) | resolved | chosen | named


@pytest.mark.parametrize(
    "change", [{"betas": (0.9, 0.999)}, {"schedule": "constant"}, {"decay_on": "all"}], ids=str
)
def test_what_goes_with_an_optimiser_is_in_the_record(change, before, monkeypatch):
    other = dataclasses.replace(registry.OPTIMISERS["adamw"], **change)
    monkeypatch.setitem(registry.OPTIMISERS, "adamw", other)
    assert check(before, monkeypatch)[1]


def test_arguments_of_a_model_are_in_the_record(before, monkeypatch):
    small = registry.MODELS["u2net_small"]
    values = [17 if value == 16 else value for value in small.__defaults__]
    monkeypatch.setattr(small, "__defaults__", tuple(values))
    _, stale = check(before, monkeypatch)
    assert stale == {"ecssd-u2net-small-official", "ecssd-short-seed0"}  # which leave the width to the model


@pytest.mark.parametrize("change", [{"train": 5}, {"size": (32, 32)}, {"seed": 1}], ids=str)
def test_number_and_size_of_drawn_pictures_are_in_the_record(change, before, monkeypatch):
    monkeypatch.setattr(drawn, "THINGS", drawn.THINGS | change)
    changed, stale = check(before, monkeypatch)
    assert stale and all(name.startswith("objects-") for name in changed)


def test_a_set_that_is_drawn_has_no_number_of_its_own():
    from u2learn.data import sets  # noqa: F401  (registers them)

    for name in ("synthetic", "objects", "thin", "streets"):
        options = inspect.signature(registry.DATASETS[name]).parameters.values()
        assert [p.name for p in options if p.default is not p.empty] == ["protocol"], name


# --- one file each ------------------------------------------------------------------------------------------

MINE = """
import numpy as np
import torch
from torch import nn

from u2learn import optimisers
from u2learn.data.augment import Augmentation
from u2learn.data.example import Example
from u2learn.losses import cross_entropy, deep_supervision
from u2learn.recipe import Recipe
from u2learn.registry import DATASETS, LOSSES, METRICS, MODELS, OPTIMISERS, SCHEDULES, STUDIES, Optimiser
from u2learn.studies.study import Study


@MODELS.add("one-layer")
class OneLayer(nn.Module):
    def __init__(self, num_classes: int = 2, kernel: int = 3):
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, kernel, padding=kernel // 2)

    def forward(self, image):
        return [self.layer(image)]


@LOSSES.add("doubled")
def doubled(outputs, labels):
    return 2 * cross_entropy(outputs[0], labels)


@METRICS.add("bright")
def bright(prediction, example):
    return float(prediction[1].mean())


OPTIMISERS["plain"] = Optimiser(lambda groups, rate, momentum, betas: torch.optim.SGD(groups, rate), "halved")


@SCHEDULES.add("halved")
def halved(recipe, iteration):
    return recipe.learning_rate / 2**iteration


@DATASETS.add("squares")
def squares(part, protocol="", *, count):
    label = np.zeros((32, 32), np.uint8)
    label[8:20, 8:20] = 1
    return [Example(f"{part}-{i}", np.stack([label * 200] * 3), label) for i in range(count)]


@STUDIES.add("mine")
def study():
    recipe = Recipe(
        "mine", "squares", "one-layer", data_options={"count": 2}, model_options={"kernel": 5},
        loss="doubled", optimiser="plain", metrics=("bright",), crop=(16, 16), batch=2,
        iterations=3, evaluations=1,
    )
    return Study("one layer on squares", (recipe,), suites={"my-suite": ("mine",)})
"""
RUN = """
import json, sys
import mine
from u2learn import cli, measure, records, studies
from pathlib import Path
records.records_folder = lambda: Path("records")
measure.SPEED_SECONDS = 0.05
cli.main(["reproduce", "my-suite", "--seeds", "1", "--device", "cpu"])
record = records.records()["mine-seed0"]
print(json.dumps([record["recipe"], record["scores"]["image"], records.is_current(record)]))
"""


@pytest.mark.slow
def test_one_of_each_is_added_from_outside_and_trained(tmp_path):
    """Model, loss, metric, optimiser, schedule, data set and study: all in a file of the reader's own."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path)
    )
    assert run.returncode == 0, run.stderr
    recipe, scores, current = json.loads(run.stdout.splitlines()[-1])
    assert current and recipe["schedule"] == "halved" and recipe["model_options"] == {"kernel": 5}
    assert 0 < scores["bright"] < 1 and 0 <= scores["dice"] <= 1
    assert (tmp_path / "runs" / "mine-seed0" / "checkpoint.safetensors").exists()


def environment(*places: Path) -> dict[str, str]:
    import os

    paths = os.pathsep.join(map(str, (*places, ROOT)))
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def test_a_name_is_not_taken_twice():
    with pytest.raises(ValueError, match=r"There is a model 'unet_small' already"):
        registry.MODELS.add("unet_small")(lambda: None)
    with pytest.raises(KeyError, match=r"There is no model 'v_net'; there are 'unet_s5_d16', 'unet_paddle'"):
        registry.MODELS["v_net"]


# --- inference is low ---------------------------------------------------------------------------------------

LIGHT = """
import sys
import numpy as np
import u2learn
model, recipe = u2learn.pretrained()
u2learn.segment(model, np.zeros((3, 32, 32), np.uint8), recipe)
print(*sorted(name for name in sys.modules if name.startswith("u2learn")))
print(*sorted(sys.modules))
"""


def test_to_segment_loads_no_study_and_no_data_set():
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, env=environment())
    assert run.returncode == 0, run.stderr
    ours, everything = (set(line.split()) for line in run.stdout.splitlines())
    sets = ("retina", "saliency", "cityscapes", "drawn", "folder", "sets")
    above = ("studies", "training", "tasks", "records", "measure", "cli", "show")
    heavy = {f"u2learn.data.{name}" for name in sets} | {f"u2learn.{name}" for name in above}
    assert "u2learn.inference" in ours and not ours & heavy
    assert not everything & {"matplotlib", "IPython", "scipy", "pandas"}
