"""Recipes: the published rows, the learning rates, JSON there and back, and what is refused."""

import dataclasses
import json
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from u2learn import recipes, records
from u2learn.data.augment import Augmentation
from u2learn.losses import cross_entropy, dice_mmseg0, dice_paddle2021, iou_loss
from u2learn.models.conv import parameters
from u2learn.recipe import Recipe
from u2learn.recipes import get, names
from u2learn.registry import DATASETS, LOSSES, METRICS, MODELS
from u2learn.studies import binseg, suites, training_of
from u2learn.studies.blocks import block_study

pytestmark = pytest.mark.slow

HEADS = {"fcn": "fcn", "psp": "psp", "deeplabv3": "aspp"}
SIX = ("duts", "ecssd", "hku-is", "pascal-s", "dut-omron", "sod")
RIVALS = ("plain", "residual", "dense", "inception", "pyramid")
CROPS = {"drive": (64, 42), "stare": (128, 85), "chase": (128, 85), "hrf": (256, 170)}


# --- the catalogue ------------------------------------------------------------------------------------------


def test_names():
    due = {f"{s}-{head}-{loss}" for s in CROPS for head in HEADS for loss in ("ce", "ce-dice")}
    due |= {f"{s}-paddle" for s in CROPS} | {f"{s}-small" for s in (*CROPS, "synthetic")}
    due |= {f"{s}-{net}" for s in SIX for net in ("u2net", "u2net-small")}
    due |= {f"dis-{part}-u2net" for part in ("vd", "te1", "te2", "te3", "te4")}
    due |= {"dis-vd-u2net-512", "dis-vd-u2net-1024", "ecssd-small", "objects-small", "thin-small"}
    due |= {
        "objects-adam",
        "objects-cycle",
        "objects-ema",
        "objects-growing",
        "thin-small-96",
        "thin-small-48",
    }
    due |= {"cityscapes-fcn-ce", "cityscapes-paddle", "small", "small-u2net"}
    for dataset in ("drive", "objects"):
        due |= {f"{dataset}-{block}-{by}" for block in RIVALS for by in ("parameters", "flops")}
        due |= {f"{dataset}-rsu", f"{dataset}-naive"}  # these cost the same by either measure
    due |= {f"drive-{block}-windows" for block in ("plain-flops", "pyramid-flops", "naive", "rsu")}
    rows = {f"drive-{head}-{loss}" for head in HEADS for loss in ("ce", "ce-dice")}
    due |= {f"{name}-held-out" for name in (*rows, "drive-paddle", "drive-small", "drive-binseg")}
    others = {f"{dataset}-fcn-{loss}" for dataset in ("stare", "chase") for loss in ("ce", "ce-dice")}
    due |= {"ecssd-short", *(f"{name}-short" for name in (*rows, *others, "drive-paddle"))}
    tries = ("base", "rate-0.0005", "rate-0.002", "batch-8", "batch-2", "no-mean", "growing")
    due |= {f"drive-fcn-ce-dice-try-{name}" for name in tries}
    for dataset, tries in binseg.TRIES.items():
        due |= {f"{dataset}-binseg", *(f"{dataset}-binseg-try-{name}" for name in tries)}
    assert set(names()) == due
    assert names() == sorted(names()) and all(get(name).name == name for name in names())


def test_recipes_for_binseg_keep_its_rules_and_were_chosen_without_its_test_images():
    for name in suites()["binseg"]:
        recipe = get(name)
        assert recipe.protocol == "binseg" and parameters(recipe.build_model()) <= 70_000
        assert not recipe.row  # it is another network than theirs
        assert recipe.watched == "test" and recipe.keep == "last"  # nothing is picked by it
    for name in suites()["binseg-tries"]:
        assert get(name).protocol == "binseg-held-out" and not get(name).row


@pytest.mark.parametrize("loss", ["ce", "ce-dice"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dataset", CROPS)
def test_rows_of_openmmlab(dataset, head, loss):
    """mmsegmentation: configs/unet, schedules/schedule_40k.py and the data sets' base configs."""
    crop, stride = CROPS[dataset]
    it = get(f"{dataset}-{head}-{loss}")
    due = {
        "dataset": dataset,
        "protocol": "mmseg",
        "model": "unet_s5_d16",
        "model_options": {"head": HEADS[head], "auxiliary": True},
        "num_classes": 2,
        "long_side": 0,
        "normalisation": "imagenet",
        "crop": (crop, crop),
        "augmentation": Augmentation(
            scale=(0.5, 2.0), rotate=0, flips="h", max_share=0.75, photometric="mmseg", jitter=0
        ),
        "batch": 16,
        "loss": loss,
        "optimiser": "sgd",
        "learning_rate": 0.01,
        "final_rate": 1e-4,
        "weight_decay": 5e-4,
        "ema": 0.0,
        "iterations": 40_000,
        "window": (crop, crop),
        "stride": (stride, stride),
        "views": "",
        "scales": (1.0,),
        "evaluations": 10,
        "seed": 0,
    }
    assert {name: getattr(it, name) for name in due} == due


@pytest.mark.parametrize("dataset", CROPS)
def test_rows_of_paddleseg(dataset):
    """PaddleSeg: configs/unet and configs/_base_; the batch of 16 is 4 cards x 4."""
    it = get(f"{dataset}-paddle")
    crop = 256 if dataset == "hrf" else 128
    due = {
        "dataset": dataset,
        "protocol": "paddleseg",
        "model": "unet_paddle",
        "model_options": {},
        "num_classes": 2,
        "long_side": 0,
        "normalisation": "half",
        "crop": (crop, crop),
        "augmentation": Augmentation(
            scale=(0.5, 2.0), scale_step=0.25, flips="hv", flip_v=0.1, photometric="paddleseg"
        ),
        "batch": 16,
        "loss": "paddle-dice",
        "optimiser": "sgd",
        "learning_rate": 0.01,
        "final_rate": 0.0,
        "weight_decay": 4e-5,
        "ema": 0.0,
        "iterations": 40_000,
        "window": None,
        "stride": None,
        "views": "",
        "seed": 0,
    }
    assert {name: getattr(it, name) for name in due} == due
    sides = [int(side * it.scales[0] + 0.5) for side in (2336, 3504)]
    assert sides == [853, 1280] if dataset == "hrf" else it.scales == (1.0,)


def test_rows_of_cityscapes():
    """Crops of a quarter of an image, tested on whole images; the rest as on the retinal sets."""
    for name, retinal, differs in (
        ("cityscapes-fcn-ce", "drive-fcn-ce", {"window", "stride"}),
        ("cityscapes-paddle", "drive-paddle", {"augmentation", "batch", "loss"}),
    ):
        it, other = get(name), get(retinal)
        assert (it.num_classes, it.crop, it.iterations, it.window) == (19, (512, 1024), 160_000, None)
        fields = {f.name for f in dataclasses.fields(Recipe) if getattr(it, f.name) != getattr(other, f.name)}
        assert fields == differs | {"name", "dataset", "num_classes", "task", "crop", "iterations", "row"}
    paddle = get("cityscapes-paddle")
    assert (paddle.batch, paddle.loss, paddle.augmentation.flips) == (4, "paddle-ce", "h")


@pytest.mark.parametrize("dataset", SIX)
@pytest.mark.parametrize("model", ["u2net", "u2net_small"])
def test_rows_of_the_u2net_paper(dataset, model):
    """U-2-Net: u2net_train.py and data_loader.py, and its author's answers."""
    it = get(f"{dataset}-{model.replace('_', '-')}")
    due = {
        "dataset": dataset,
        "protocol": "duts",
        "model": model,
        "model_options": {} if model == "u2net" else {"mid_channels": 16, "out_channels": 64},
        "num_classes": 1,
        "long_side": 0,
        "square": 320,
        "crop": (288, 288),
        "normalisation": "maximum",
        "augmentation": Augmentation(scale=(1, 1), rotate=0, flips="hv", flip_v=0.5, jitter=0),
        "batch": 12,
        "loss": "u2net",
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "ema": 0.0,
        "iterations": 600_000,
        "window": None,
        "views": "",
        "scales": (1.0,),
        "seed": 0,
    }
    assert {name: getattr(it, name) for name in due} == due
    assert {it.rate(i) for i in (0, 1, 12_345, 599_999)} == {1e-3}  # no schedule
    assert it.iterations * it.batch / 21_106 == pytest.approx(341, abs=1)  # epochs of the doubled DUTS-TR


def test_rows_of_the_dis_paper_train_on_dis_tr():
    """At 320 the network's own recipe; on larger inputs batches of 8, whole, flipped left-right (IS-Net)."""
    for part in ("vd", "te1", "te2", "te3", "te4"):
        it, own = get(f"dis-{part}-u2net"), get("duts-u2net")
        assert it == dataclasses.replace(
            own, name=it.name, dataset=f"dis-{part}", protocol="dis5k", scored_under=("image", "DIS")
        )
    for side in (512, 1024):
        it = get(f"dis-vd-u2net-{side}")
        changes = {
            "square": side, "crop": (side, side), "batch": 8, "augmentation": Augmentation(flips="h"),
            "iterations": 100_000,
        }  # fmt: skip
        assert it == dataclasses.replace(get("dis-vd-u2net"), name=it.name, **changes)


def test_tests_on_several_sets_share_one_training():
    for model in ("u2net", "u2net-small"):
        for dataset in SIX:
            assert training_of(get(f"{dataset}-{model}", seed=3)) == get(f"duts-{model}", seed=3)
    assert training_of(get("dis-te4-u2net")) == get("dis-vd-u2net")
    assert training_of(get("drive-rsu-windows", seed=2)) == get("drive-rsu", seed=2)
    for name in (
        "ecssd-small",
        "objects-small",
        "drive-rsu",
        "drive-small",
        "dis-vd-u2net-1024",
        "cityscapes-paddle",
    ):
        assert training_of(get(name)) == get(name)


def test_our_own_for_saliency():
    for name, square, crop in (("ecssd", 320, 288), ("objects", 64, 64), ("thin", 192, 160)):
        it = get(f"{name}-small")
        assert (it.model, it.num_classes, it.square, it.crop) == ("u2net_small", 1, square, (crop, crop))
        assert (it.loss, it.optimiser, it.dataset) == ("bce-iou", "adamw", name)
        assert it.protocol == ("study" if name == "ecssd" else "")
        assert it.iterations <= 3000
    assert get("ecssd-small").batch > get("ecssd-u2net-small").batch
    assert get("ecssd-small").ema > 0 and get("ecssd-small").model_options == {
        "mid_channels": 16,
        "out_channels": 64,
    }  # the full U²-Net†


def test_steps_from_the_published_training_to_ours_change_one_thing_each():
    published, adam, cycle, ours, mean = (
        get(name)
        for name in ("ecssd-u2net-small", "objects-adam", "objects-cycle", "objects-small", "objects-ema")
    )
    training = (
        "loss", "optimiser", "schedule", "betas", "decay_on", "learning_rate", "final_rate", "weight_decay",
        "warm_up", "ema",
    )  # fmt: skip
    assert all(getattr(adam, field) == getattr(published, field) for field in training)
    schedule = {field: getattr(ours, field) for field in training if field not in ("loss", "ema")}
    assert cycle == dataclasses.replace(adam, name="objects-cycle", **schedule)
    assert ours == dataclasses.replace(cycle, name="objects-small", loss="bce-iou")
    assert mean == dataclasses.replace(ours, name="objects-ema", ema=0.95)
    assert get("objects-growing") == dataclasses.replace(ours, name="objects-growing", small_first=0.5)
    large = get("ecssd-small")
    assert large.small_first == 0.5 and large.ema > 0 and large.loss == "bce-iou"


def test_thin_things_seen_smaller_are_the_same_pictures():
    few = {"data_options": get("thin-small").data_options | {"train": 2, "test": 1}}
    whole = get("thin-small", **few)
    for side in (96, 48):
        it = get(f"thin-small-{side}", **few)
        assert it == dataclasses.replace(whole, name=it.name, square=side, crop=(side * 160 // 192,) * 2)
        assert (it.examples("test")[0].image == whole.examples("test")[0].image).all()


@pytest.mark.parametrize("dataset", ["drive", "objects"])
def test_blocks_compete_at_equal_cost_and_everything_else_is_one_recipe(dataset):
    def cost(recipe, by):
        if by == "parameters":
            with torch.device("meta"):
                return sum(p.numel() for p in recipe.build_model().parameters())
        net = recipe.build_model().eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, *recipe.crop))
        return counter.get_total_flops()

    rsu = get(f"{dataset}-rsu")
    due = {by: cost(rsu, by) for by in ("parameters", "flops")}
    for (of, block, by), name in block_study().items():
        if of == dataset:
            it = get(name)
            options = {"block": block, "by": by, "mid_channels": 8, "out_channels": 16}
            assert it.model_options | {"by": by} == options
            assert it == dataclasses.replace(rsu, name=name, model_options=it.model_options)
            assert cost(it, by) == pytest.approx(due[by], rel=0.07), name
    assert (rsu.dataset, rsu.num_classes) == (dataset, 2 if dataset == "drive" else 1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("duts-u2net", 44_009_869),
        ("ecssd-u2net-small", 1_131_181),
        ("ecssd-small", 1_131_181),
        ("cityscapes-fcn-ce", 29_062_886),
        ("cityscapes-paddle", 13_406_227),
        ("drive-fcn-ce", 29_060_676),
        ("stare-psp-ce", 29_046_276),
        ("hrf-deeplabv3-ce-dice", 29_064_996),
        ("chase-paddle", 13_396_418),
    ],
)
def test_parameters_of_their_models(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in get(name).build_model().parameters()) == parameters


def test_small_retinal_recipes_differ_in_the_data_only():
    one = dataclasses.asdict(get("drive-small"))
    for dataset in ("stare", "chase", "hrf", "synthetic"):
        other = dataclasses.asdict(get(f"{dataset}-small"))
        drawn = {"protocol", "data_options"} if dataset == "synthetic" else set()
        assert {k for k in one if one[k] != other[k]} == {"name", "dataset"} | drawn


def test_get_changes_fields():
    assert get("drive-small", seed=3) == dataclasses.replace(get("drive-small"), seed=3)
    with pytest.raises(TypeError, match="sede"):
        get("drive-small", sede=3)


def test_an_unknown_recipe_is_refused_with_those_that_there_are():
    with pytest.raises(KeyError) as error:
        get("drive-smal")
    assert "'drive-smal'" in error.value.args[0] and "drive-small" in error.value.args[0]


# --- losses -------------------------------------------------------------------------------------------------


def example():
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 2, 6, 6, generator=generator) for _ in range(2)]
    return outputs, torch.randint(0, 2, (2, 6, 6), generator=generator)


def test_losses_of_the_tables():
    outputs, label = example()
    ce, dice, paddle = (
        [f(x, label).item() for x in outputs] for f in (cross_entropy, dice_mmseg0, dice_paddle2021)
    )
    due = {
        "ce": ce[0] + 0.4 * ce[1],
        "ce-dice": ce[0] + 3 * dice[0] + 0.4 * ce[1],  # the auxiliary head stays with cross-entropy
    }
    for name, value in due.items():
        assert LOSSES[name](outputs, label).item() == pytest.approx(value, rel=1e-6)
    assert LOSSES["paddle-dice"](outputs[:1], label).item() == pytest.approx(paddle[0], rel=1e-6)
    label[0] = 255  # half of the pixels: PaddleSeg's mean does not count them, OpenMMLab's does
    assert LOSSES["paddle-ce"](outputs[:1], label).item() == pytest.approx(
        2 * cross_entropy(outputs[0], label).item(), rel=1e-6
    )


def test_losses_of_saliency():
    """The published one: seven terms with a weight of 1 each. Ours: the soft IoU beside each."""
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 1, 6, 6, generator=generator) for _ in range(7)]
    mask = torch.randint(0, 2, (2, 1, 6, 6), generator=generator).float()
    bce = [torch.nn.BCELoss()(x.sigmoid(), mask).item() for x in outputs]  # as the authors wrote it
    assert LOSSES["u2net"](outputs, mask).item() == pytest.approx(sum(bce), rel=1e-5)
    iou = sum(iou_loss(x, mask).item() for x in outputs)
    assert LOSSES["bce-iou"](outputs, mask).item() == pytest.approx(sum(bce) + iou, rel=1e-5)


def pairs_of_model_and_loss() -> list[str]:
    """One recipe for each of them."""
    made = {}
    for name in recipes.names():
        it = get(name)
        made[it.model, str(it.model_options), it.num_classes, it.loss] = name
    return list(made.values())


@pytest.mark.parametrize("name", pairs_of_model_and_loss())
def test_every_recipe_has_a_loss_for_all_outputs_of_its_model(name):
    it = get(name)
    with torch.device("meta"):
        model = it.build_model().train()
    if parameters(model) < 500_000:  # arithmetic is quicker than the deduction of shapes
        model.to_empty(device="cpu")
    outputs = model(next(model.parameters()).new_zeros(2, 3, *it.crop))
    label = torch.randint(0, 2, (1, 8, 8))
    label = label[:, None].float() if it.num_classes == 1 else label
    loss = LOSSES[it.loss]([torch.randn(1, it.num_classes, 8, 8) for _ in outputs], label)
    assert loss.isfinite()
    assert [x.shape for x in outputs] == [(2, it.num_classes, *it.crop)] * len(outputs)


# --- learning rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("i", [0, 1, 4_000, 20_000, 39_998, 39_999])
def test_polynomial_rate(i):
    due = (0.01 - 1e-4) * (1 - i / 40_000) ** 0.9 + 1e-4
    assert get("drive-fcn-ce").rate(i) == pytest.approx(due, rel=1e-12)


def test_polynomial_rate_falls_from_start_to_end():
    it = get("drive-fcn-ce")
    rates = [it.rate(i) for i in range(0, 40_000, 100)]
    assert rates[0] == pytest.approx(0.01) and it.rate(39_999) == pytest.approx(1e-4, rel=0.02)
    assert all(a > b for a, b in pairwise(rates))
    assert dataclasses.replace(it, final_rate=0.0).rate(20_000) == pytest.approx(0.01 * 0.5**0.9)


@pytest.mark.parametrize("warm_up", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("iterations", [10, 100, 3000])
def test_one_cycle(iterations, warm_up):
    it = get(
        "drive-small",
        iterations=iterations,
        warm_up=warm_up,
        learning_rate=0.02,
        final_rate=0.001,
        evaluations=1,
    )
    rates = [it.rate(i) for i in range(iterations)]
    warm = max(1, round(warm_up * iterations))
    assert max(rates) == pytest.approx(0.02)
    assert rates[:warm] == pytest.approx([0.02 * (i + 1) / warm for i in range(warm)])  # linear, never 0
    fall = [
        0.001 + 0.019 * (1 + math.cos(math.pi * (i - warm) / (iterations - warm))) / 2
        for i in range(warm, iterations)
    ]
    assert rates[warm:] == pytest.approx(fall)
    assert all(a >= b for a, b in pairwise(rates[warm:]))
    assert rates[-1] < 0.001 + 0.02 * (3 / (iterations - warm)) ** 2 * 2  # nearly at the end


def test_warm_up_may_be_everything():
    it = get("drive-small", iterations=10, warm_up=1.0, evaluations=1)
    assert [it.rate(i) for i in range(10)] == pytest.approx([0.01 * (i + 1) / 10 for i in range(10)])


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes.names())
def test_json_there_and_back(name):
    it = get(name, seed=5, ema=0.999)
    back = Recipe.from_json(it.to_json())
    assert back == it and back.to_json() == it.to_json()
    assert isinstance(back.crop, tuple) and isinstance(back.augmentation.scale, tuple)


CHANGES = {
    "name": "x", "dataset": "stare", "model": "unet_paddle", "protocol": "lwnet", "data_options": {"n": 2},
    "model_options": {"width": 9}, "num_classes": 3, "task": "classes", "channels": 4, "start": "abc",
    "levels": (10, 900), "schedule": "constant", "betas": (0.5, 0.5), "decay_on": "all", "momentum": 0.5,
    "power": 2.0, "watched": "test", "keep": "best", "patience": 2, "stretch": False,
    "scored_under": ("image",), "metrics": ("clicks",), "long_side": 100, "normalisation": "half",
    "crop": (32, 32), "batch": 3, "accumulate": 2, "clip": 1.0, "loss": "ce",
    "augmentation": Augmentation(rotate=1), "optimiser": "sgd", "learning_rate": 0.5, "final_rate": 0.5,
    "weight_decay": 0.5, "warm_up": 0.3, "ema": 0.9, "small_first": 0.2, "iterations": 77,
    "window": (9, 9), "stride": (5, 5),
    "views": "h", "scales": (0.5, 1.0), "evaluations": 3, "seed": 1, "square": 64,
}  # fmt: skip


PLACES = {"folder": "/elsewhere", "trained_by": "drive-small", "row": {"dataset": "DRIVE"}}  # decide nothing


def test_every_field_shows_in_the_json(monkeypatch):
    monkeypatch.setitem(METRICS, "clicks", len)
    base = get("drive-small", watched="validation")
    assert set(CHANGES | PLACES) == {f.name for f in dataclasses.fields(Recipe)}
    for name, value in PLACES.items():
        moved = dataclasses.replace(base, **{name: value})
        assert moved == base and getattr(Recipe.from_json(moved.to_json()), name) == value
    texts = {dataclasses.replace(base, **{name: value}).to_json() for name, value in CHANGES.items()}
    assert len(texts | {base.to_json()}) == len(CHANGES) + 1
    for name, value in CHANGES.items():
        changed = dataclasses.replace(base, **{name: value})
        assert changed != base and Recipe.from_json(changed.to_json()) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '"text"',
        json.dumps({**json.loads(get("drive-small").to_json()), "sede": 1}),
        json.dumps({**json.loads(get("drive-small").to_json()), "augmentation": {"shear": 3}}),
        json.dumps({**json.loads(get("drive-small").to_json()), "model": "v_net"}),
    ],
)
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(ValueError) as error:
        Recipe.from_json(text)
    assert "recipe" in str(error.value) and "\n" not in str(error.value)


FIRST_EDITION = """{
  "name": "x", "dataset": "stare", "split": "lwnet", "model": "unet_small", "model_options": {"width": 9},
  "num_classes": 2, "side": 720, "normalisation": "image", "crop": [192, 192],
  "augmentation": {"flips": "hvt", "rotate": 10}, "batch": 3, "loss": "ce-dice", "optimiser": "adamw",
  "learning_rate": 0.5, "iterations": 77, "flips": "hv", "scales": [0.5, 1.0], "seed": 4
}"""  # as this recipe was written then


def test_a_recipe_of_the_first_edition_reads_as_that_of_today():
    assert Recipe.from_json(FIRST_EDITION) == Recipe(
        name="x", dataset="stare", protocol="lwnet", model="unet_small",
        model_options={"width": 9, "depth": 4}, long_side=720, normalisation="image", crop=(192, 192),
        augmentation=Augmentation(flips="hvt", rotate=10), batch=3, loss="ce-dice", optimiser="adamw",
        schedule="one-cycle", betas=(0.9, 0.99), decay_on="kernels", learning_rate=0.5, iterations=77,
        views="hv", scales=(0.5, 1.0), seed=4,
    )  # fmt: skip


def test_fields_of_a_record_mean_what_their_old_names_meant():
    found = [r.get("recipe") or r.get("official") for r in records.records().values()]
    old = [stored for stored in found if stored and "flips" in stored]
    assert len(old) > 100
    for stored in old:
        recipe = Recipe.from_json(json.dumps(stored))
        assert (recipe.views, recipe.long_side) == (stored["flips"], stored["side"]), stored["name"]
        assert recipe.augmentation.flips == stored["augmentation"]["flips"], stored["name"]
        for old_name, name in (("mid", "mid_channels"), ("out", "out_channels")):
            if old_name in stored["model_options"]:
                assert recipe.model_options[name] == stored["model_options"][old_name], stored["name"]
        assert not {"mid", "out"} & set(recipe.model_options)


def test_arguments_of_a_model_of_ones_own_keep_their_names(monkeypatch):
    def mine(num_classes: int = 2, mid: int = 4, out: int = 4):
        return torch.nn.Conv2d(3, num_classes, 1)

    monkeypatch.setitem(MODELS, "mine", mine)
    recipe = get("drive-small", model="mine", model_options={"mid": 3, "out": 5})
    assert Recipe.from_json(recipe.to_json()) == recipe and recipe.model_options == {"mid": 3, "out": 5}


@pytest.mark.parametrize(("old", "new"), [("flips", "views"), ("side", "long_side")])
def test_a_field_under_both_of_its_names_is_refused(old, new):
    values = json.loads(get("drive-small").to_json())
    with pytest.raises(ValueError, match=f"'{old}'"):
        Recipe.from_json(json.dumps(values | {old: values[new]}))


# --- what a recipe may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("model", "unet_small"),
        ("loss", "ce-dice"),
        ("optimiser", "adamw"),
        ("normalisation", "imagenet"),
        ("views", "hv"),
    ],
)
def test_unknown_words_are_refused_at_once_with_those_that_there_are(field, known):
    with pytest.raises(ValueError) as error:
        get("drive-small", **{field: "nonsense"})
    message = str(error.value)
    assert field in message and "'nonsense'" in message and known in message and "\n" not in message


def test_an_unknown_photometric_change_is_refused():
    with pytest.raises(ValueError, match=r"photometric.*'mmseg', 'paddleseg', not 'sepia'"):
        Augmentation(photometric="sepia")


def test_flips_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="'hvt', not 'hx'"):
        Augmentation(flips="hx")
    with pytest.raises(ValueError, match=r"\(32, 64\)"):  # a turned window must have its own shape
        get("drive-small", crop=(32, 64))
    get("drive-small", crop=(32, 64), augmentation=Augmentation(flips="hv"))


@pytest.mark.parametrize(
    "changes",
    [
        {"square": 0},
        {"square": 280},
        {"long_side": 300},
        {"augmentation": Augmentation(rotate=5)},
        {"augmentation": Augmentation(elastic=2)},
        {"augmentation": Augmentation(scale=(0.9, 1.2))},
        {"views": "h"},
        {"scales": (1.0, 1.5)},
        {"window": (64, 64)},
    ],
)
def test_what_makes_no_sense_for_saliency_is_refused(changes):
    """Windows that reach over a border have pixels without a truth; its test takes whole images."""
    with pytest.raises(ValueError, match="saliency recipe") as error:
        get("ecssd-small", **changes)
    assert "\n" not in str(error.value)
    get("ecssd-small", augmentation=Augmentation(scale=(1.0, 1.5), flips="hvt"))


@pytest.mark.parametrize(
    "changes",
    [
        {"normalisation": "imagenet"},
        {"normalisation": "half"},
        {"augmentation": Augmentation(photometric="mmseg")},
        {"num_classes": 1, "square": 300},
    ],
)
def test_what_is_known_of_three_channels_alone_is_refused_for_others(changes):
    with pytest.raises(ValueError, match=r"channels, not 4|images of 4 channels") as error:
        get("drive-small", channels=4, **changes)
    assert "\n" not in str(error.value)
    get("drive-small", channels=4)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5)])
def test_scales_are_factors_above_zero(scales):
    with pytest.raises(ValueError, match="scales") as error:
        get("drive-small", scales=scales)
    assert str(scales) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"evaluations": 0}, {"iterations": 0}, {"iterations": 3, "evaluations": 4}]
)
def test_evaluations_must_fit(changes):
    with pytest.raises(ValueError, match="evaluations"):
        get("drive-small", **changes)


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get("drive-small").seed = 1


def test_initial_weights_depend_on_the_seed_alone():
    it = get("drive-small")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = it.build_model().state_dict()
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    torch.manual_seed(2)
    two = it.build_model().state_dict()
    other = dataclasses.replace(it, seed=1).build_model().state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_synthetic_images_need_no_files(monkeypatch, tmp_path):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    it = get("synthetic-small")
    train, test = it.examples("train"), it.examples("test")
    assert len(train) == len(test) == 20
    assert train[0].image.shape == (3, *train[0].label.shape)
    assert not set(train.seeds) & set(test.seeds)


@pytest.mark.parametrize("name", ["objects", "thin"])
def test_drawn_things_have_the_size_at_which_they_are_seen(name):
    it = get(f"{name}-small")
    train, test = it.examples("train"), it.examples("test")
    assert (len(train), len(test)) == (800, 100) and not set(train.seeds) & set(test.seeds)
    assert train[0].image.shape == (3, it.square, it.square) and train[0].name.startswith(name[:4])


def test_photographs_come_from_the_set_that_the_protocol_says(monkeypatch, tmp_path):
    asked = []
    for name in ("sod", "dis-te1", "ecssd"):
        opened = partial(lambda *args, **kwargs: asked.append((args, kwargs)), name)
        monkeypatch.setitem(DATASETS, name, opened)
    for name, part in (("sod-u2net", "test"), ("dis-te1-u2net", "train"), ("ecssd-small", "test")):
        get(name).examples(part)
    assert asked == [
        (("sod", "test"), {"protocol": "duts"}),
        (("dis-te1", "train"), {"protocol": "dis5k"}),
        (("ecssd", "test"), {"protocol": "study"}),
    ]


def test_missing_data_is_said_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DRIVE|drive"):
        get("drive-small").examples("train")[0]
