"""Training: it learns, it is repeatable, its data are the recipe's, and it refuses what cannot work."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import cross
from safetensors.torch import load_file

from u2learn import batches, devices, files, tasks, training
from u2learn.batches import AHEAD, TrainingData
from u2learn.data.augment import Augmentation, resize
from u2learn.data.drawn.retina import SyntheticRetina
from u2learn.data.example import Example
from u2learn.inference import load_model
from u2learn.recipe import Recipe
from u2learn.registry import LOSSES
from u2learn.tasks import evaluate
from u2learn.training import DivergedError, Run, TimeIsUpError, read_log, train


def tiny(**changes) -> Recipe:
    settings = {
        "model_options": {"width": 4, "depth": 3},
        "normalisation": "image",
        "crop": (32, 32),
        "augmentation": Augmentation(
            scale=(0.8, 1.25), rotate=10, flips="h", jitter=0.1, photometric="mmseg"
        ),
        "batch": 4,
        "loss": "small",
        "optimiser": "adamw",
        "learning_rate": 0.02,
        "warm_up": 0.2,
        "iterations": 20,
        "evaluations": 2,
    }
    return Recipe("tiny", "synthetic", "unet_small", **(settings | changes))


# Lines so bright that a net finds them within seconds.
CROSSES, MORE = ([cross(s, bright=140) for s in seeds] for seeds in (range(5), range(100, 102)))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint.safetensors")


def same(one: dict, two: dict) -> bool:
    return list(one) == list(two) and all(torch.equal(one[k], two[k]) for k in one)


def run(folder, recipe=None, examples=CROSSES, tests=MORE):
    return train(recipe or tiny(), folder, examples, tests, device="cpu", progress=False)


# --- learning -----------------------------------------------------------------------------------------------


def test_loss_falls_and_dice_rises(tmp_path):
    recipe = tiny(iterations=80, evaluations=4, augmentation=Augmentation(scale=(0.8, 1.25), flips="h"))
    model = run(tmp_path, recipe)
    log = read_log(tmp_path)
    assert [line["iteration"] for line in log] == [20, 40, 60, 80]
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert log[-1]["dice"] > 0.85 and log[-1]["dice"] > log[0]["dice"]
    untrained = evaluate(recipe.build_model(), recipe, MORE).scores.score()["auc"]
    assert log[-1]["auc"] > 0.97 > untrained
    assert not model.training


def test_vessels_are_learnt_too(tmp_path):
    """The synthetic fundus photographs, small: better than any threshold on the green channel."""
    easy = {"model_options": {"width": 8, "depth": 3}, "augmentation": Augmentation(flips="h")}
    recipe = tiny(iterations=80, evaluations=1, crop=(64, 64), views="h", **easy)
    examples, tests = list(SyntheticRetina("train", 3, (96, 96))), list(SyntheticRetina("test", 2, (96, 96)))
    run(tmp_path, recipe, examples, tests)
    channel = []
    for threshold in range(0, 256, 4):
        guess = [(e.image[1] < threshold) & e.field for e in tests]
        hit = sum((g & (e.label == 1)).sum() for g, e in zip(guess, tests, strict=True))
        channel.append(2 * hit / sum(g.sum() + e.label.sum() for g, e in zip(guess, tests, strict=True)))
    assert read_log(tmp_path)[-1]["dice"] > max(0.55, max(channel) + 0.1)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_same_recipe_same_bits(tmp_path, optimiser, ema):
    recipe = tiny(optimiser=optimiser, ema=ema, iterations=6, evaluations=1)
    torch.manual_seed(1)
    run(tmp_path / "one", recipe)
    torch.manual_seed(2)  # what others do with the global generator does not matter
    torch.rand(5)
    run(tmp_path / "two", recipe)
    run(tmp_path / "other", dataclasses.replace(recipe, seed=1))
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert (tmp_path / "one" / "log.jsonl").read_text() == (tmp_path / "two" / "log.jsonl").read_text()
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "other"))


def test_the_folder_tells_everything(tmp_path):
    recipe = tiny()
    model = run(tmp_path / "deep" / "folder", recipe)
    folder = tmp_path / "deep" / "folder"
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "log.jsonl", "checkpoint.safetensors"}
    assert Recipe.from_json((folder / "recipe.json").read_text()) == recipe
    loaded, its_recipe = load_model(folder)
    assert its_recipe == recipe and not loaded.training
    assert same(dict(loaded.state_dict()), dict(model.state_dict()))
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image)[0], model(image)[0])


def test_the_log_holds_every_evaluation(tmp_path):
    recipe = tiny(iterations=50, evaluations=3)
    model = run(tmp_path, recipe)
    log = read_log(tmp_path)
    assert [line["iteration"] for line in log] == [17, 33, 50]
    assert all(math.isfinite(line["loss"]) and 0 <= line["dice"] <= 1 for line in log)
    assert log[-1]["dice"] == evaluate(model, recipe, MORE).scores.score()["dice"]


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    recipe = tiny()
    model = run(tmp_path, recipe)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Run, "step", None)
    again = run(tmp_path, recipe)
    assert same(dict(again.state_dict()), dict(model.state_dict())) and not again.training
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_examples_default_to_those_of_the_recipe(tmp_path, monkeypatch):
    asked = []

    def examples(self, part):
        asked.append((self.name, part))
        return CROSSES if part == "train" else MORE

    monkeypatch.setattr(Recipe, "examples", examples)
    train(tiny(iterations=2, evaluations=1), tmp_path / "own", device="cpu", progress=False)
    run(tmp_path / "given", tiny(iterations=2, evaluations=1))
    assert asked == [("tiny", "train"), ("tiny", "test")]
    assert same(weights(tmp_path / "own"), weights(tmp_path / "given"))


# --- one step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.5, 0.9])
def test_running_mean_of_the_weights(tmp_path, ema):
    recipe = tiny(ema=ema, iterations=30)
    state, data = Run(recipe, tmp_path, "cpu"), TrainingData(recipe, CROSSES, "cpu")
    mean, history = None, []
    for i in range(8):
        state.step(*data.batch(i))
        now = {name: x.detach().clone() for name, x in state.model.state_dict().items()}
        history.append(now)
        share = max(1 - ema, 1 / (i + 1))  # a plain mean, until the decay is slower
        mean = now if mean is None else {k: mean[k] + share * (now[k].double() - mean[k]) for k in now}
    for name, x in state.averaged.state_dict().items():
        if x.is_floating_point():
            torch.testing.assert_close(x.double(), mean[name].double(), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(x, history[-1][name])
    if ema == 0.9:
        plain = torch.stack([h["head.weight"] for h in history]).mean(0)
        torch.testing.assert_close(state.averaged.state_dict()["head.weight"], plain, rtol=1e-4, atol=1e-6)


def test_the_loss_is_written_down_between_evaluations(tmp_path):
    recipe = tiny(iterations=50, evaluations=1)
    run(tmp_path, recipe)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rates = {line["iteration"]: line["rate"] for line in lines if "rate" in line}
    assert rates == {i: recipe.rate(i - 1) for i in (20, 40)} and len(lines) == 3
    assert lines[0]["loss"] > lines[1]["loss"] > 0 and read_log(tmp_path) == lines[2:]


def test_the_rate_of_every_step_is_the_recipes(tmp_path):
    recipe = tiny(iterations=10)
    state, data = Run(recipe, tmp_path, "cpu"), TrainingData(recipe, CROSSES, "cpu")
    for i in range(4):
        state.step(*data.batch(i))
        assert {group["lr"] for group in state.optimiser.param_groups} == {recipe.rate(i)}


def test_sgd_is_the_published_one(tmp_path):
    state = Run(tiny(optimiser="sgd", weight_decay=5e-4), tmp_path, "cpu")
    (group,) = state.optimiser.param_groups
    assert type(state.optimiser) is torch.optim.SGD
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]) == (
        0.9,
        5e-4,
        False,
        0,
    )
    assert len(group["params"]) == len(list(state.model.parameters()))  # norms decay too


def test_adamw_decays_kernels_only(tmp_path):
    state = Run(tiny(weight_decay=0.3), tmp_path, "cpu")
    decay = {id(p): group["weight_decay"] for group in state.optimiser.param_groups for p in group["params"]}
    for name, p in state.model.named_parameters():
        assert decay.pop(id(p)) == (0.3 if p.ndim == 4 else 0.0), name
    assert not decay


def test_a_step_follows_the_gradient_of_the_recipes_loss(tmp_path, monkeypatch):
    """One step of plain SGD by hand, in 32 bits."""
    monkeypatch.setattr(training, "mixed_precision", lambda device: torch.autocast("cpu", enabled=False))
    recipe = tiny(optimiser="sgd", learning_rate=0.1, final_rate=0.1, weight_decay=0.0, loss="ce")
    state, data = Run(recipe, tmp_path, "cpu"), TrainingData(recipe, CROSSES, "cpu")
    images, labels = data.batch(0)
    twin = recipe.build_model().train()
    loss = LOSSES["ce"](twin(images), labels)
    loss.backward()
    got = state.step(images, labels)
    assert got.item() == pytest.approx(loss.item(), rel=1e-5) and not got.requires_grad
    for (name, p), q in zip(state.model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), (q - 0.1 * q.grad).detach(), rtol=1e-4, atol=1e-5, msg=name)


def test_when_the_time_is_up_the_run_is_safe_and_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 3)
    recipe = tiny(ema=0.9)
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock.__setitem__(0, clock[0] + 1) or clock[0])
    with pytest.raises(TimeIsUpError) as stop:
        train(recipe, tmp_path / "cut", CROSSES, MORE, device="cpu", progress=False, minutes=0.05)
    position = json.loads(_position(tmp_path / "cut"))
    assert position["iteration"] == 6  # the second look at the loss, not only the evaluation at 10
    assert f"iteration {position['iteration']} of 20" in str(stop.value)
    assert str(tmp_path / "cut") in str(stop.value) and "\n" not in str(stop.value)
    run(tmp_path / "cut", recipe)
    run(tmp_path / "whole", recipe)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    train(recipe, tmp_path / "cut", CROSSES, MORE, device="cpu", minutes=0)  # nothing left to do


@pytest.mark.parametrize(
    ("capabilities", "fast"), [({}, False), ({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False)]
)
def test_a_cpu_computes_in_16_bits_only_if_it_can(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    convolution, x = torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with devices.mixed_precision("cpu"):
        assert convolution(x).dtype == (torch.bfloat16 if fast else torch.float32)
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in torch 2.8
    with devices.mixed_precision("cpu"):
        assert convolution(x).dtype == torch.float32


def test_weights_and_their_averages_stay_in_32_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "mixed_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    run(tmp_path, tiny(ema=0.9, iterations=4, evaluations=1))
    assert {x.dtype for x in weights(tmp_path).values()} <= {torch.float32, torch.int64}


# --- the stream of batches ----------------------------------------------------------------------------------


def grey(value: int, size=(40, 40)) -> Example:
    label = np.full(size, value % 2, np.uint8)
    return Example(f"grey-{value}", np.full((3, *size), value, np.uint8), label)


@pytest.mark.parametrize("name", ["mmseg", "paddleseg"])
def test_the_photometric_change_of_the_recipe_is_made_before_normalising(monkeypatch, name):
    seen = []
    monkeypatch.setitem(
        batches.PHOTOMETRICS, name, lambda images, generator: seen.append(images) or torch.zeros_like(images)
    )
    data = TrainingData(tiny(augmentation=Augmentation(photometric=name)), CROSSES, "cpu")
    images, _ = data.batch(0)
    black = (-data.mean / data.std)[data._indices(0)]  # (B, 3, 1, 1)
    torch.testing.assert_close(images, black.expand_as(images))
    assert len(seen) == 1 and seen[0].min() >= 0 and seen[0].max() <= 1 and seen[0].std() > 0.1
    plain = TrainingData(tiny(augmentation=Augmentation()), CROSSES, "cpu").batch(0)[0]
    assert len(seen) == 1 and not torch.equal(plain, images)


@pytest.mark.parametrize(("count", "batch"), [(5, 4), (5, 5), (3, 8), (6, 2)])
def test_an_endless_stream_of_shuffled_epochs(count, batch):
    recipe = tiny(batch=batch, normalisation="half", augmentation=Augmentation())
    data = TrainingData(recipe, [grey(20 * i) for i in range(count)], "cpu")
    stream = []
    for i in range(30):
        images, labels = data.batch(i)
        assert images.shape == (batch, 3, 32, 32) and labels.shape == (batch, 32, 32)
        stream += ((images[:, 0, 0, 0] + 1) * 127.5 / 20).round().int().tolist()
    epochs = [stream[i : i + count] for i in range(0, len(stream) - count + 1, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_depends_on_seed_and_iteration_alone():
    data = TrainingData(tiny(), CROSSES, "cpu")
    fifth = data.batch(5)
    for i in range(5):
        data.batch(i)
    again, fresh = data.batch(5), TrainingData(tiny(), CROSSES, "cpu").batch(5)
    other = TrainingData(tiny(seed=1), CROSSES, "cpu").batch(5)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(fifth, again, fresh, strict=True))
    assert not torch.equal(fifth[0], other[0])
    single = TrainingData(tiny(), CROSSES[:1], "cpu")  # one image: what differs is the windows
    assert not torch.equal(single.batch(0)[0], single.batch(1)[0])


@pytest.mark.parametrize("how", ["imagenet", "half", "image"])
def test_windows_are_normalised_as_whole_images_are(how):
    """A window of an image is a piece of the normalised image: test and training agree."""
    from u2learn.data.augment import normalise

    recipe = tiny(crop=(40, 44), augmentation=Augmentation(), batch=1, normalisation=how)
    data = TrainingData(recipe, CROSSES[:1], "cpu")
    due = normalise(torch.as_tensor(CROSSES[0].image)[None] / 255, how)
    torch.testing.assert_close(data.batch(0)[0], due, rtol=1e-4, atol=1e-5)
    assert torch.equal(data.batch(0)[1][0], torch.as_tensor(CROSSES[0].label).long())


def test_long_side_shrinks_images_before_training():
    recipe = tiny(long_side=20, crop=(18, 20), augmentation=Augmentation(), batch=1)
    data = TrainingData(recipe, CROSSES[:1], "cpu")
    images, labels = data.batch(0)
    assert images.shape == (1, 3, 18, 20) and (labels != 255).all()
    assert labels.float().mean() == pytest.approx(CROSSES[0].label.mean(), abs=0.06)


# --- saliency -----------------------------------------------------------------------------------------------


def salient(**changes) -> Recipe:
    """A narrow U²-Net† on drawn things: one class, seven outputs."""
    settings = {
        "model_options": {"mid_channels": 4, "out_channels": 4},
        "num_classes": 1,
        "square": 40,
        "normalisation": "maximum",
        "crop": (40, 40),
        "batch": 4,
        "loss": "bce-iou",
        "optimiser": "adamw",
        "learning_rate": 0.02,
        "final_rate": 0.0,
        "iterations": 40,
        "evaluations": 2,
    }
    return Recipe("salient", "objects", "u2net_small", **(settings | changes))


def disc(seed: int, size=(40, 40)) -> Example:
    """A bright disc on noise, somewhere."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0.3, 0.7, 2) * size
    label = (np.hypot(*(np.indices(size) - np.array([y, x])[:, None, None])) < 0.2 * min(size)).astype(
        np.uint8
    )
    return Example(f"disc-{seed}", (rng.integers(0, 90, (3, *size)) + 120 * label).astype(np.uint8), label)


DISCS, OTHERS = [disc(s) for s in range(8)], [disc(s) for s in range(100, 104)]


def test_saliency_is_learnt_by_the_same_loop(tmp_path):
    model = run(tmp_path, salient(), DISCS, OTHERS)
    log = read_log(tmp_path)
    assert [line["iteration"] for line in log] == [20, 40]
    assert log[-1]["max_f"] > 0.9 and log[-1]["mae"] < 0.15 and log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["max_f"] == evaluate(model, salient(), OTHERS).result()["image"]["max_f"]
    assert not {"weighted_f", "relaxed_f", "hce"} & set(log[-1])  # nothing that takes time or libraries
    loaded, recipe = load_model(tmp_path)
    assert recipe == salient() and same(dict(loaded.state_dict()), dict(model.state_dict()))


def test_its_score_is_that_of_maps_at_the_images_own_size(tmp_path):
    """Images of any shape, squeezed for the network, scored as they are."""
    from u2learn import saliency
    from u2learn.metrics.saliency import score_saliency

    tests = [disc(1, (30, 50)), disc(2, (61, 44))]
    model = run(tmp_path, salient(iterations=4, evaluations=1), [*DISCS[:3], disc(9, (25, 70))], tests)
    maps = [(saliency(model, e.image, side=40), e.label) for e in tests]
    due = score_saliency(maps, normalise="maximum", also=())
    assert read_log(tmp_path)[-1]["max_f"] == due["max_f"] and read_log(tmp_path)[-1]["mae"] == due["mae"]


def test_masks_are_float_with_a_channel_and_images_of_any_shape_are_one_size():
    data = TrainingData(salient(crop=(36, 36)), [disc(1), disc(2, (30, 50)), disc(3, (61, 44))], "cpu")
    for pixels in (data.images, data.labels):
        assert pixels.height.tolist() == pixels.width.tolist() == [40] * 3
    images, masks = data.batch(0)
    assert images.shape == (4, 3, 36, 36) and masks.shape == (4, 1, 36, 36)
    assert masks.dtype == torch.float32 and set(masks.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("crop", [(32, 32), (25, 19)])
def test_small_first_halves_the_windows_of_the_first_iterations(crop):
    recipe = tiny(crop=crop, augmentation=Augmentation(), small_first=0.25)
    small, large = (
        TrainingData(r, CROSSES, "cpu") for r in (recipe, tiny(crop=crop, augmentation=Augmentation()))
    )
    for iteration in (0, 4, 5, 19):
        (images, labels), (due, whole) = (data.batch(iteration) for data in (small, large))
        if iteration < 5:
            h, w = (side // 2 for side in crop)
            due = torch.stack([resize(x, (h, w)) for x in due])
            whole = torch.stack([whole[:, 2 * y + 1, 2 * x + 1] for y in range(h) for x in range(w)], 1)
            whole = whole.view(-1, h, w)
            assert images.shape == due.shape
        if crop == (32, 32):  # each channel by its own line, so that the order of the two steps is no matter
            torch.testing.assert_close(images, due, rtol=1e-4, atol=1e-4)
        assert torch.equal(labels, whole)
    with pytest.raises(ValueError, match=r"from 0 to 1, not 1\.5"):
        tiny(small_first=1.5)


def test_squeezing_reads_single_points_as_scikit_image_does():
    """RescaleT of U-2-Net: skimage.transform.resize without averaging, the mask in order 0."""
    transform = pytest.importorskip("skimage.transform")
    for size in ((37, 61), (20, 20), (128, 90), (40, 40)):
        one = disc(5, size)
        image, label = batches.sized(one, salient())
        rgb = one.image.transpose(1, 2, 0) / 255
        due = transform.resize(rgb, (40, 40), mode="constant", anti_aliasing=False)
        assert np.abs(image.numpy().transpose(1, 2, 0) - 255 * due).max() <= 0.51  # kept as whole grey levels
        due = transform.resize(
            one.label, (40, 40), mode="constant", order=0, preserve_range=True, anti_aliasing=False
        )
        assert np.array_equal(label.numpy(), due), size


def test_windows_are_divided_by_their_own_maximum_after_the_cut():
    """One image, dark but for its left edge: a window without that edge is stretched to 1 all the same."""
    image = np.full((3, 40, 40), 50, np.uint8)
    image[:, :, :9] = 255
    example = Example("edge", image, np.eye(40, dtype=np.uint8))
    data = TrainingData(salient(crop=(20, 20), augmentation=Augmentation(), batch=16), [example], "cpu")
    images, _ = data.batch(0)
    brightest = (images * torch.tensor([0.229, 0.224, 0.225])[:, None, None]).amax((2, 3))
    top = brightest + torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(top, torch.ones_like(top))
    darkest = [x.min().item() for x in images]
    assert max(darkest) - min(darkest) > 1  # where the edge is inside, the rest is darker


def test_adam_is_the_published_one(tmp_path):
    state = Run(salient(optimiser="adam", learning_rate=1e-3, weight_decay=0.0), tmp_path, "cpu")
    (group,) = state.optimiser.param_groups
    assert type(state.optimiser) is torch.optim.Adam
    assert (group["betas"], group["eps"], group["weight_decay"], group["amsgrad"]) == (
        (0.9, 0.999),
        1e-8,
        0,
        False,
    )
    assert len(group["params"]) == len(list(state.model.parameters()))


# --- what is refused ----------------------------------------------------------------------------------------


def sentence(error) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_another_recipe_in_the_folder_is_refused_and_nothing_changes(tmp_path):
    run(tmp_path, tiny())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError) as error:
        run(tmp_path, tiny(seed=1))
    assert str(tmp_path) in sentence(error) and "recipe" in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_truncated_checkpoint_is_refused(tmp_path):
    run(tmp_path, tiny())
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError) as error:
        run(tmp_path, tiny())
    assert str(path) in sentence(error)


def test_a_leftover_of_a_killed_save_does_no_harm(tmp_path):
    run(tmp_path / "clean", tiny())
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "checkpoint.tmp").write_bytes(b"half a checkpoint")
    (tmp_path / "killed" / "recipe.tmp").write_bytes(b"half a recipe")
    run(tmp_path / "killed", tiny())
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "clean"))


def test_a_log_without_a_checkpoint_starts_anew(tmp_path):
    """Killed after the first line of the log, before the first checkpoint; and in the middle of that line."""
    run(tmp_path / "clean", tiny())
    due = (tmp_path / "clean" / "log.jsonl").read_text()
    for i, text in enumerate((due.splitlines(keepends=True)[0], due[:25], due + due[:25])):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "recipe.json").write_text(tiny().to_json())
        (folder / "log.jsonl").write_text(text)
        run(folder)
        assert (folder / "log.jsonl").read_text() == due


def test_a_log_may_hold_blank_and_half_lines(tmp_path):
    """A run that is read while it writes, or after a kill; an editor's newline at the end."""
    lines = ['{"iteration": 5, "dice": 0.5}', "", '{"iteration": 10, "dice": null}', "7", "  ", '{"iterat']
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_log(tmp_path) == [{"iteration": 5, "dice": 0.5}, {"iteration": 10, "dice": None}]
    (tmp_path / "log.jsonl").write_text("\n", encoding="utf-8")
    assert read_log(tmp_path) == [] == read_log(tmp_path / "nowhere")


def test_a_run_goes_on_over_blank_lines_in_its_log(tmp_path):
    run(tmp_path, tiny())
    log = tmp_path / "log.jsonl"
    due = log.read_text()
    log.write_text(f"\n{due}\n7\n", encoding="utf-8")
    run(tmp_path, tiny())
    assert log.read_text() == due


def test_an_undefined_score_is_null_in_the_log(tmp_path):
    """JSON has no NaN, which Python writes all the same and no other reader takes."""
    bare = [Example("bare", example.image, 0 * example.label) for example in MORE]
    train(tiny(iterations=2, evaluations=1), tmp_path, MORE, bare, device="cpu", progress=False)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    (line,) = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line, parse_constant=refuse)["auc"] is None
    assert read_log(tmp_path)[0]["auc"] is None and read_log(tmp_path)[0]["accuracy"] >= 0


def test_a_folder_is_claimed_by_recipe_and_not_by_spelling(tmp_path):
    """A field that is younger than the run has its default there; another value, or nonsense, is refused."""
    due = run(tmp_path, tiny()).state_dict()
    path = tmp_path / "recipe.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in fields.items() if k != "small_first"}))
    assert all(torch.equal(due[k], v) for k, v in run(tmp_path, tiny()).state_dict().items())
    for text in (json.dumps(fields | {"batch": 5}), "{", json.dumps(fields | {"colour": 1})):
        path.write_text(text)
        with pytest.raises(ValueError, match="another recipe"):
            run(tmp_path, tiny())
        assert path.read_text() == text


def test_trimming_the_log_cannot_lose_it(tmp_path, monkeypatch):
    """A kill while the log is rewritten on resuming leaves the finished evaluations."""
    from pathlib import Path

    run(tmp_path, tiny())
    due = (tmp_path / "log.jsonl").read_text()
    whole = Path.write_text

    def half(path, text, **options):
        if "log" in path.name:
            whole(path, text[: len(text) // 2], **options)
            raise KeyboardInterrupt
        return whole(path, text, **options)

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tiny())
    monkeypatch.undo()
    run(tmp_path, tiny())
    assert (tmp_path / "log.jsonl").read_text() == due


def test_images_of_other_channels_are_refused_by_name(tmp_path):
    grey = dataclasses.replace(cross(7), name="grey-7", image=cross(7).image[:2])
    with pytest.raises(ValueError) as error:
        run(tmp_path / "run", tiny(), [*CROSSES, grey])
    assert "grey-7 has 2 channels" in sentence(error) and "says 3" in str(error.value)
    run(tmp_path / "run", tiny(seed=9))  # the folder was not claimed by a run that never began


def test_images_of_several_sizes_give_windows_of_their_own(tmp_path):
    """Each window is what a set of that image alone would give; what lies beyond an image is ignored."""
    sizes = [(40, 44), (70, 33), (20, 90)]
    mixed = [cross(seed, size) for seed, size in enumerate(sizes)]
    it = tiny(augmentation=Augmentation(scale=(0.5, 2.0), flips="hv"), normalisation="imagenet")
    data = TrainingData(it, mixed, "cpu")
    for iteration in range(4):
        images, labels = data.batch(iteration)
        index = data._indices(iteration)
        for k, example in enumerate(mixed):
            alone = TrainingData(it, [example] * len(mixed), "cpu")
            alone._indices = data._indices
            due, its_labels = alone.batch(iteration)
            chosen = index == k
            assert torch.equal(images[chosen], due[chosen]) and torch.equal(
                labels[chosen], its_labels[chosen]
            )
    small = TrainingData(tiny(crop=(64, 64)), mixed, "cpu").batch(0)[1]
    assert (small == 255).any() and (small != 255).any()
    run(tmp_path, tiny(iterations=4, evaluations=1), mixed, mixed)


def test_a_set_that_is_too_large_for_the_device_gives_the_same_batches(monkeypatch):
    """Images of several sizes, more than half of its memory: they stay apart, and some are copied a time."""
    mixed = [cross(seed, size) for seed, size in enumerate([(40, 44), (70, 33), (20, 90)])]
    it = tiny(augmentation=Augmentation(scale=(0.5, 2.0), flips="hv"))
    size = sum(3 * x.label.size for x in mixed)
    whole = TrainingData(it, mixed, "cpu")
    assert not whole.images.apart and not whole.labels.apart
    for free, apart in ((2 * size + 2, False), (2 * size - 2, True), (100, True)):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        data = TrainingData(it, mixed, "cpu")
        assert data.images.apart == data.labels.apart == apart, free
        for iteration in (0, 1, 7, AHEAD):
            pairs = zip(data.batch(iteration), whole.batch(iteration), strict=True)
            assert all(torch.equal(ours, due) for ours, due in pairs)


def test_only_the_images_of_a_batch_are_fetched():
    it = tiny(batch=2)
    pixels = TrainingData(it, CROSSES, "cpu").images
    some = pixels.fetched(torch.tensor([3, 1, 3]), "cpu")
    assert len(some) == 3 and len(some.values) == 3 * CROSSES[0].label.size
    for place, image in zip(some.start, (3, 1, 3), strict=True):
        due = torch.as_tensor(CROSSES[image].image).flatten(1).T
        assert torch.equal(some.values[place : place + len(due)], due)


# --- a step in parts, and a gradient that is cut ------------------------------------------------------------


def test_accumulated_gradients_are_the_mean_of_the_parts(tmp_path):
    """Each part goes through the network by itself: its batch norm sees it alone, and so does the loss."""
    it = tiny(accumulate=2, optimiser="sgd", weight_decay=0.0, momentum=0.0, learning_rate=0.1)
    state, data = Run(it, tmp_path, "cpu"), TrainingData(it, CROSSES, "cpu")
    state.autocast = torch.autocast("cpu", enabled=False)
    images, labels = data.batch(0)
    model, loss = it.build_model().train(), LOSSES[it.loss]
    parts = [loss(model(images[:2]), labels[:2]), loss(model(images[2:]), labels[2:])]
    (sum(parts) / 2).backward()
    got = state.step(images, labels)
    torch.testing.assert_close(got, (sum(parts) / 2).detach())
    for ours, due in zip(state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, due - it.rate(0) * due.grad, rtol=1e-4, atol=1e-6)
    norms = [
        [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)] for net in (state.model, model)
    ]
    for ours, due in zip(*norms, strict=True):
        assert ours.num_batches_tracked == 2
        torch.testing.assert_close(ours.running_var, due.running_var, rtol=1e-4, atol=1e-6)
    whole = loss(it.build_model().train()(images), labels)
    assert abs(float(whole.detach()) - float(got)) > 1e-6, "it is not the same as the batch at once"


def test_a_long_gradient_is_cut_and_a_short_one_is_not(tmp_path):
    lengths = {}
    for clip in (0.0, 1e9, 0.01):
        it = tiny(clip=clip)
        state, data = Run(it, tmp_path / str(clip), "cpu"), TrainingData(it, CROSSES, "cpu")
        state.step(*data.batch(0))
        lengths[clip] = float(torch.cat([p.grad.flatten() for p in state.model.parameters()]).norm())
    assert lengths[0.0] == lengths[1e9] > 0.01
    assert lengths[0.01] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "said"), [({"accumulate": 3}, "divided into 3"), ({"clip": -1.0}, "clip is a length")]
)
def test_parts_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        tiny(**change)


def test_no_training_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="training") as error:
        run(tmp_path, tiny(), [])
    sentence(error)


def test_no_test_images_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "step", None)
    with pytest.raises(ValueError, match="test") as error:
        run(tmp_path, tiny(), CROSSES, [])
    sentence(error)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'cuda'") as error:
        train(tiny(), tmp_path, CROSSES, MORE, device="cuda", progress=False)
    sentence(error)


# --- divergence ---------------------------------------------------------------------------------------------


class Failing:
    """A loss that goes wrong at one iteration, once: its value, or only its gradient."""

    def __init__(self, monkeypatch, at: int, value: float | None):
        self.calls, self.at, self.value, self.inner = 0, at, value, LOSSES["small"]
        monkeypatch.setitem(LOSSES, "small", self)

    def __call__(self, outputs, label):
        loss, here = self.inner(outputs, label), self.calls == self.at
        self.calls += 1
        if not here:
            return loss
        return loss * self.value if self.value is not None else loss + 0 * torch.sqrt(0 * outputs[0].sum())


@pytest.mark.parametrize(
    ("value", "at", "ema"),
    [(math.nan, 17, 0.0), (math.inf, 19, 0.9), (None, 17, 0.9), (None, 19, 0.0), (None, 19, 0.9)],
)
def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, value, at, ema):
    """Saved at 5, 10, 15; it goes wrong at 17, or in the very step before the evaluation of 20."""
    recipe = tiny(iterations=25, evaluations=5, ema=ema, augmentation=Augmentation(flips="h"))
    Failing(monkeypatch, at, value)
    with pytest.raises(DivergedError) as error:
        run(tmp_path / "failed", recipe)
    message = sentence(error)
    step = at if value is not None else None
    if step is not None:
        assert f"iteration {step}" in message and f"{recipe.rate(step):.3g}" in message
    assert "rate" in message and "labels" in message and str(tmp_path / "failed") in message
    assert json.loads(_position(tmp_path / "failed"))["iteration"] == 15
    assert all(x.isfinite().all() for x in weights(tmp_path / "failed").values())
    assert [line["iteration"] for line in read_log(tmp_path / "failed")] == [5, 10, 15]

    monkeypatch.undo()
    run(tmp_path / "failed", recipe)  # the cause is gone: it goes on from 15
    if (at, ema, value) == (19, 0.9, None):
        run(tmp_path / "clean", recipe)
        assert same(weights(tmp_path / "failed"), weights(tmp_path / "clean"))


def _position(folder) -> str:
    from u2learn.models.weights import read_tensors

    return read_tensors(folder / "checkpoint.safetensors")[1]["position"]


def test_a_rate_that_is_far_too_large_is_noticed(tmp_path):
    with pytest.raises(DivergedError, match=r"iteration \d+.*1e\+20"):
        run(
            tmp_path,
            tiny(optimiser="sgd", learning_rate=1e20, final_rate=1e20, iterations=100, evaluations=1),
        )
    assert not (tmp_path / "log.jsonl").exists() or read_log(tmp_path) == []


# --- seconds ------------------------------------------------------------------------------------------------


def test_seconds_are_those_of_training_without_evaluation(tmp_path, monkeypatch):
    import time

    slow = tasks.evaluate

    def evaluate_slowly(*arguments):
        time.sleep(0.5)
        return slow(*arguments)

    started = time.monotonic()
    monkeypatch.setattr(training, "evaluate", evaluate_slowly)
    run(tmp_path, tiny(iterations=4, evaluations=2))
    elapsed = time.monotonic() - started
    position = json.loads(_position(tmp_path))
    assert 0 < position["seconds"] < elapsed - 0.99
    assert position["cpu_seconds"] > 0


def test_a_compiled_step_is_the_same_step(tmp_path, monkeypatch):
    """Long runs on a GPU are compiled. Here the compiler only captures the graph and runs it as it is."""
    seen = []

    def capture(graph, inputs):
        seen.append(graph)
        return graph.forward

    run(tmp_path / "plain")
    wrap = lambda model, recipe, device: torch.compile(model, backend=capture)  # noqa: E731
    monkeypatch.setattr(training, "compiled", wrap)
    run(tmp_path / "compiled")
    assert seen
    due, found = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert list(due) == list(found), "the names in a checkpoint do not tell who made it"
    assert all(torch.allclose(found[name], due[name], atol=1e-5) for name in due)


def test_only_a_long_run_on_a_gpu_is_compiled(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model, **how: calls.append(how) or "compiled")
    short, long = tiny(), tiny(iterations=devices.COMPILE_FROM)
    model = short.build_model()
    assert devices.compiled(model, long, "cpu") is model
    assert devices.compiled(model, short, "cuda") is model
    assert calls == [] and devices.compiled(model, long, "cuda:0") == "compiled"


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run(tmp_path)
    with training.alone_in(tmp_path), pytest.raises(training.BusyError, match=str(tmp_path)):
        run(tmp_path)
    run(tmp_path)


def test_a_run_on_a_drive_is_saved_every_ten_minutes(tmp_path, monkeypatch):
    """And at each evaluation; elsewhere every thirty seconds."""
    now, saved = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.Run, "save", lambda run: saved.append(run.iteration))
    step = training.Run.step

    def slow(run, *batch):
        now[0] += 2
        return step(run, *batch)

    monkeypatch.setattr(training.Run, "step", slow)
    monkeypatch.setattr(files, "DRIVE", tmp_path / "drive")
    recipe = tiny(iterations=700, evaluations=1, batch=1, crop=(8, 8))
    for place, due in (("drive", [320, 640, 700]), ("disk", [*range(20, 700, 20), 700])):
        saved.clear()
        train(recipe, tmp_path / place, [cross(0)], [cross(50)], device="cpu", progress=False)
        assert saved == due
