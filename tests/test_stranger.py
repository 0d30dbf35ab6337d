"""A stranger's session: their own pictures and masks, from folder to result, as the README shows it."""

import contextlib
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import u2learn
from u2learn import cli
from u2learn.data.drawn.objects import salient
from u2learn.data.local import data_root
from u2learn.studies import get

pytestmark = pytest.mark.slow

COLOURS = "#000000=background,#009e73=cell,#cc79a7=nucleus"


def said(*arguments: object) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.main([str(argument) for argument in arguments])
    return out.getvalue()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Forty microscope pictures of 12 bits and the same of 8 bits, trained and scored: printed, by name."""
    root = tmp_path_factory.mktemp("stranger")
    assert "40 microscope pictures" in said("data", "example", root)
    images = root / "images"
    (root / "images8").mkdir()
    for path in images.iterdir():
        stored = np.asarray(Image.open(path))
        Image.fromarray((stored // 16).astype(np.uint8)).save(root / "images8" / f"{path.stem}.png")
    printed = {}
    with contextlib.chdir(root) if hasattr(contextlib, "chdir") else pytest.MonkeyPatch.context() as place:
        if place is not None:
            place.chdir(root)
        for name, folder in (("cells", "images"), ("cells8", "images8")):
            printed[name, "new"] = said(
                "data", "new", name, "--images", folder, "--masks", "masks",
                "--classes", COLOURS, "--group", "(.*)_[ab]$",
            )  # fmt: skip
            settings = ["--set", "iterations=100", "--device", "cpu"]
            fewer = ["--set", "evaluations=2"] if name == "cells8" else []  # README shows the other run
            printed[name, "train"] = said("train", "small", "--data", name, *settings, *fewer)
            printed[name, "evaluate"] = said("evaluate", f"runs/{name}-small-seed0", "--device", "cpu")
        printed["predict"] = said(
            "predict", "images", "--weights", "runs/cells-small-seed0", "--output", "maps", "--overlay"
        )
    return root, printed


def dice(printed: str) -> float:
    return float(re.search(r"^image +([\d.]+)", printed, re.M)[1])


def test_slides_are_kept_together_and_all_is_said(session):
    root, printed = session
    entries = json.loads((root / "cells" / "dataset.json").read_text(encoding="utf-8"))["examples"]
    parts = {}
    for entry in entries:
        parts.setdefault(entry["image"].split("_")[0], set()).add(entry["part"])
    assert len(entries) == 40 and len(parts) == 20 and all(len(part) == 1 for part in parts.values())
    assert "3 classes" in printed["cells", "new"] and "12 groups" in printed["cells", "new"]


def test_held_out_slides_are_segmented_and_12_bits_are_worth_8(session):
    root, printed = session
    deep, shallow = (dice(printed[name, "evaluate"]) for name in ("cells", "cells8"))
    assert deep >= 90 and abs(deep - shallow) <= 2.0  # after a quarter of the recipe's steps
    low, high = map(float, re.search(r"kind: ([\d.]+) to ([\d.]+)", printed["cells", "evaluate"]).groups())
    assert 80 < low <= high <= 100
    lines = [json.loads(x) for x in (root / "runs/cells-small-seed0/log.jsonl").read_text().splitlines()]
    assert sum("watched_loss" in line for line in lines) == 10 and all("loss" in line for line in lines)
    steps = [0, *(line["iteration"] for line in lines)]
    assert steps[-1] == 100 and max(after - before for before, after in pairwise(steps)) <= 20
    assert (root / "runs/cells-small-seed0/curves.png").stat().st_size > 5000
    assert (root / "runs/cells-small-seed0/best.safetensors").exists()


def test_training_takes_at_most_90_seconds_of_a_core(session):
    """All the steps of the recipe would: those of the README are fewer."""
    from u2learn.models.weights import read_tensors

    checkpoint = session[0] / "runs/cells-small-seed0/checkpoint.safetensors"
    spent = json.loads(read_tensors(checkpoint)[1]["position"])["cpu_seconds"]
    assert spent / 100 * get("small").iterations < 90


def test_every_picture_gets_its_classes_in_the_colours_of_the_masks(session):
    root, _ = session
    made = sorted((root / "maps").glob("*-classes.png"))
    assert len(made) == 40 == len(list((root / "maps").glob("*-overlay.png")))
    hits = []
    for path in made:
        picture = Image.open(path)
        truth = Image.open(root / "masks" / path.name.replace("-classes", ""))
        assert picture.mode == "P" and picture.size == truth.size
        hits.append((np.asarray(picture.convert("RGB")) == np.asarray(truth)).all(2).mean())
    assert np.mean(hits) > 0.97


# --- fine-tuning --------------------------------------------------------------------------------------------


def best(printed: str) -> float:
    return float(re.search(r"^Best max_f of the validation part: (\d\.\d+)", printed, re.M)[1])


def tuned(root, weights, *settings: str) -> tuple[float, float]:
    """The best max F on validation pictures after the same short training: from the weights, from nothing."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(exist_ok=True)
    for seed in range(20):  # 12 train, 4 validate
        example = salient(9000 + seed, (96, 96))
        Image.fromarray(example.image.transpose(1, 2, 0)).save(root / "images" / f"{seed:02}.png")
        Image.fromarray(example.label * 255).save(root / "masks" / f"{seed:02}.png")
    said(
        "data", "new", root / "things", "--images", root / "images", "--masks", root / "masks",
        "--shares", 60, 20, 20,
    )  # fmt: skip
    changes = [part for setting in settings for part in ("--set", setting)]
    runs = []
    for name, start in (("tuned", ["--from", weights]), ("scratch", [])):
        folder = ["--folder", root / name, "--device", "cpu"]
        runs.append(best(said("train", "small-u2net", "--data", root / "things", *start, *changes, *folder)))
    return runs[0], runs[1]


def test_fine_tuning_beats_the_same_training_from_nothing(tmp_path):
    """Weights in the authors' format, made here, of the net that ships: it learnt from such things."""
    net, _ = u2learn.pretrained("objects-small")
    torch.save(u2learn.to_official(net), tmp_path / "u2netp.pth")
    short = ("iterations=20", "evaluations=2", "square=64", "crop=[64,64]", "batch=4")
    fine, scratch = tuned(tmp_path, tmp_path / "u2netp.pth", *short, "model_options.out_channels=16")
    assert fine > scratch + 0.05 and fine > 0.8


FOLDED = data_root() / "U2Net_official" / "weights" / "u2netp_fp16_bnfolded.pth"


@pytest.mark.skipif(not FOLDED.exists(), reason="the official weights are not here")
def test_fine_tuning_the_authors_own_weights_whose_norms_are_folded(tmp_path):
    short = (
        "iterations=6",
        "evaluations=2",
        "square=64",
        "crop=[64,64]",
        "batch=4",
        "learning_rate=0.0005",
    )
    fine, scratch = tuned(tmp_path, FOLDED, *short, "learning_rate=0.0005")
    assert fine > scratch + 0.05


def test_the_readme_shows_what_the_commands_print(session):
    """The lines of `data new` and of `train`, to the letter; scores may differ in their last digits."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [line for line in session[1]["cells", "new"].splitlines() if line]
    assert len(shown) == 8 and all(line in text for line in shown)
    assert "u2learn train small --data cells --set iterations=100 " in text
    assert session[1]["cells", "train"].splitlines()[-1] in text
    assert abs(dice(text) - dice(session[1]["cells", "evaluate"])) < 1


def test_in_python_it_is_the_same_in_eight_lines(session, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"In Python:\n\n```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    monkeypatch.chdir(session[0])
    code = code.replace("slides/images", "images")
    short = code.replace("train(recipe,", "train(short,").replace(
        "model =", "short = with_settings(recipe, ['iterations=2', 'evaluations=1'])\nmodel ="
    )
    names: dict = {}
    exec("from u2learn.recipe import with_settings\n" + short, names)
    assert names["probabilities"].shape[0] == 3
