"""Training that starts from given weights, norms that stay frozen, and models of other input channels."""

import copy
import pickle
from functools import partial

import pytest
import torch
from test_official import narrow as mmseg
from test_u2net import FlatU2Net, randomised, table
from test_weights import narrow_paddle, same
from torch import nn

from u2learn import (
    load_official,
    recipes,
    to_official,
    u2net,
    u2net_small,
    unet_2015,
    unet_paddle,
    unet_s5_d16,
    unet_small,
    wnet_small,
)
from u2learn.inference import load_model, save_model
from u2learn.models.blocks import u2net_blocks
from u2learn.models.encoder import unet_from_stages
from u2learn.models.frozen import FrozenNorm, freeze_folded_norms
from u2learn.models.start import start_from
from u2learn.models.u2net import DOWN, UP, U2Net

small = partial(u2net_small, mid_channels=2, out_channels=4)


def filled(model, seed=1):
    """Weights and statistics that differ everywhere, and keep the signal's size."""
    torch.manual_seed(seed)
    for name, x in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            x.uniform_(0.5, 1.5)
        elif x.is_floating_point() and x.ndim == 1:
            x.uniform_(-0.3, 0.3)
        elif not x.is_floating_point():
            x.fill_(7)
    return model.eval()


def official(path, model):
    torch.save({"state_dict": to_official(model), "epoch": 3}, path)


def paddles(path, model):
    arrays = {name: x.numpy() for name, x in to_official(model).items()}
    path.write_bytes(pickle.dumps(arrays, protocol=4))


def plain(path, model):
    torch.save({"model": {f"module.{name}": x for name, x in model.state_dict().items()}}, path)


def ours(path, model):
    name = {"UNet": "unet_small", "WNet": "wnet_small", "U2Net": "u2net_small"}[type(model).__name__]
    save_model(path, model, recipes.get("synthetic-small", model=name))


def without(parts, state):
    return {name: x for name, x in state.items() if not name.startswith(tuple(f"{part}." for part in parts))}


# --- what is taken, and what is not -------------------------------------------------------------------------

NETS = {  # how to build it, how to write it, the parts that depend on the classes
    "ours, U-Net": (lambda k: unet_small(k, width=2, depth=3), ours, ["head"]),
    "ours, W-Net": (
        lambda k: wnet_small(k, width=2, depth=2),
        ours,
        ["first.head", "second.head", "second.body.encode.0.conv"],
    ),
    "ours, U²-Net": (small, ours, ["sides", "fuse"]),
    "a state dict": (lambda k: unet_small(k, width=2, depth=3), plain, ["head"]),
    "the authors' U²-Net": (small, official, ["sides", "fuse"]),
    "OpenMMLab, FCN": (partial(mmseg, "fcn"), official, ["head.2", "auxiliary"]),
    "OpenMMLab, PSP": (partial(mmseg, "psp"), official, ["head.3", "auxiliary"]),
    "OpenMMLab, no auxiliary head": (partial(mmseg, "aspp", auxiliary=False), official, ["head.3"]),
    "PaddleSeg": (narrow_paddle, paddles, ["head"]),
}


@pytest.mark.parametrize("classes", [2, 1, 5])
@pytest.mark.parametrize("name", NETS)
def test_all_is_taken_but_what_depends_on_the_classes(name, classes, tmp_path):
    build, write, parts = NETS[name]
    theirs = filled(build(2))
    write(tmp_path / "w", theirs)
    model = build(classes)
    before = copy.deepcopy(model.state_dict())
    said = start_from(model, tmp_path / "w")
    new = parts if classes != 2 else []
    after, due = model.state_dict(), theirs.state_dict()
    for part in new:
        names = [name for name in after if name.startswith(f"{part}.")]
        assert names and all(torch.equal(after[name], before[name]) for name in names)
    counted = name != "PaddleSeg"  # which has no counters of batches
    taken = [name for name in without(new, due) if counted or not name.endswith("num_batches_tracked")]
    assert taken and all(torch.equal(after[name], due[name]) for name in taken)
    assert str(tmp_path / "w") in said[0] and f"{len(taken)} of the model's {len(after)}" in said[0]
    assert len(said) == 1 + bool(new) and all(line.endswith(".") and "\n" not in line for line in said)
    if new:
        assert f"{classes} classes and the file 2" in said[1] and all(part in said[1] for part in new)
    assert not any(isinstance(m, FrozenNorm) for m in model.modules())


def test_what_was_taken_is_the_network_of_before(tmp_path):
    """The same classes, and the same maps: the order of a decoder's channels too."""
    x = torch.rand(1, 3, 33, 48)
    for build, write in ((partial(mmseg, "psp", 3), official), (small, official), (small, ours)):
        theirs, model = filled(build()), build()
        write(tmp_path / "w", theirs)
        start_from(model, tmp_path / "w")
        with torch.no_grad():
            assert torch.equal(model.eval()(x)[0], theirs(x)[0])


def test_an_auxiliary_head_may_be_missing_on_either_side(tmp_path):
    for there, here in ((False, True), (True, False)):
        theirs, model = filled(mmseg(auxiliary=there)), mmseg(auxiliary=here)
        for write in (official, ours):
            write(tmp_path / "w", theirs)
            before = copy.deepcopy(model.state_dict())
            said = start_from(model, tmp_path / "w")
            after, due = model.state_dict(), without(["auxiliary"], theirs.state_dict())
            assert all(torch.equal(after[name], x) for name, x in due.items())
            assert len(said) == 1 + here and (not here or "auxiliary starts from nothing" in said[1])
            for name in after.keys() - due.keys():
                assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize(
    ("build", "write"),
    [
        (partial(unet_small, width=2, depth=3), ours),
        (small, official),
        (
            lambda in_channels=3: U2Net([(7, in_channels, 2, 4, False), *small_rows()[0]], small_rows()[1]),
            plain,
        ),
    ],
    ids=["U-Net", "U²-Net", "plain"],
)
def test_other_channels_that_are_all_alike_give_the_same_maps(build, write, channels, tmp_path):
    theirs, model = filled(build()), build(in_channels=channels)
    write(tmp_path / "w", theirs)
    said = start_from(model, tmp_path / "w")
    assert len(said) == 2 and f"{channels} input channels and the file 3" in said[1]
    grey = torch.rand(2, 1, 21, 34)
    with torch.no_grad():
        due = theirs(grey.expand(-1, 3, -1, -1))[0]
        torch.testing.assert_close(
            model.eval()(grey.expand(-1, channels, -1, -1))[0], due, rtol=1e-4, atol=1e-5
        )
    back = build()
    write(tmp_path / "back", model)
    start_from(back, tmp_path / "back")  # and from those channels to three
    with torch.no_grad():
        torch.testing.assert_close(back.eval()(grey.expand(-1, 3, -1, -1))[0], due, rtol=1e-4, atol=1e-5)


def small_rows():
    down = [(row[0], 4, 2, 4, row[4]) for row in DOWN[1:]]
    return down, [(row[0], 8, 2, 4, row[4]) for row in UP]


def test_half_precision_and_a_run_folder(tmp_path):
    theirs = filled(small())
    torch.save({k: x.half() for k, x in to_official(theirs).items()}, tmp_path / "half.pth")
    model = small()
    start_from(model, tmp_path / "half.pth")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    kernel = "body.encode.project.conv.weight"
    assert torch.equal(model.state_dict()[kernel], theirs.state_dict()[kernel].half().float())
    ours(tmp_path / "checkpoint.safetensors", theirs)
    model = small()
    start_from(model, tmp_path)
    assert same(model, theirs)


def test_another_network_is_refused_with_the_name_of_the_one_that_is_there(tmp_path):
    ours(tmp_path / "wnet", wnet_small(width=2, depth=2))
    ours(tmp_path / "wide", unet_small(width=3, depth=3))
    official(tmp_path / "u2net", small())
    official(tmp_path / "mmseg", mmseg())
    official(tmp_path / "psp", mmseg("psp"))
    paddles(tmp_path / "paddle", narrow_paddle())
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear")
    u_net = partial(unet_small, width=2, depth=3)
    for file, build, words in (
        ("wnet", u_net, "wnet_small (recipe 'synthetic-small')"),
        ("wide", u_net, "unet_small (recipe 'synthetic-small')"),
        ("wnet", small, "wnet_small"),
        ("u2net", u_net, "holds U²-Net"),
        ("u2net", partial(u2net_small, mid_channels=3, out_channels=4), "holds U²-Net"),
        ("mmseg", small, "OpenMMLab's UNet-S5-D16"),
        ("psp", mmseg, "head 'psp' and the model 'fcn'"),
        ("paddle", mmseg, "PaddleSeg's UNet"),
        ("linear", u_net, "a state dict"),
        ("linear", lambda: nn.Conv2d(3, 2, 1), "a state dict"),
    ):
        model = build()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError) as error:
            start_from(model, tmp_path / file)
        text = str(error.value)
        assert str(tmp_path / file) in text and words in text and text.endswith(".") and "\n" not in text, (
            text
        )
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        start_from(u_net(), tmp_path / "nowhere")


def test_a_net_on_a_classification_network_starts_from_its_own_file(tmp_path):
    def build(classes):
        stages = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in ((3, 4), (4, 6))]
        return unet_from_stages(stages, [4, 6], classes)

    theirs, model = filled(build(2)), build(3)
    plain(tmp_path / "w", theirs)
    start_from(model, tmp_path / "w")
    after = model.state_dict()
    assert all(torch.equal(after[name], x) for name, x in without(["head"], theirs.state_dict()).items())


# --- norms that were folded ---------------------------------------------------------------------------------


def fold(state):
    """Norms into their convolutions, by arithmetic: w g / s and (b - mean) g / s + shift."""
    folded = {}
    for key, x in state.items():
        if key.endswith("conv_s1.weight"):
            norm = key.replace("conv_s1.weight", "bn_s1.")
            gain = state[norm + "weight"] / torch.sqrt(state[norm + "running_var"] + 1e-5)
            bias = state[key.replace("weight", "bias")] - state[norm + "running_mean"]
            folded[key] = x * gain[:, None, None, None]
            folded[key.replace("weight", "bias")] = bias * gain + state[norm + "bias"]
        elif "_s1" not in key:
            folded[key] = x
    return folded


@pytest.fixture
def folded(tmp_path):
    net = randomised(FlatU2Net(table(2, 4))).eval()
    torch.save(fold(net.state_dict()), tmp_path / "folded.pth")
    return tmp_path / "folded.pth"


def norms(model):
    return {name: x.clone() for name, x in model.state_dict().items() if ".norm." in name}


@pytest.mark.parametrize("how", ["start_from", "load_official", "load_model"])
def test_a_folded_network_is_the_same_in_training(folded, how):
    """Batch statistics would make another network of it; frozen norms do not."""
    model = small()
    if how == "start_from":
        said = start_from(model, folded)
        assert len(said) == 2 and "folded" in said[1]
    else:
        model = load_official(model, folded) if how == "load_official" else load_model(folded)[0]
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        due, now = model.eval()(x)[0], model.train()(x)[0]
        assert torch.equal(due, now) and model.training
        thawed = small()
        thawed.load_state_dict(model.state_dict())
        assert (thawed.train()(x)[0] - due).abs().mean() > 10 * (now - due).abs().mean() + 0.05


def steps(model, count):
    optimiser = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    torch.manual_seed(5)
    for _ in range(count):
        optimiser.zero_grad()
        model(torch.rand(2, 3, 32, 32))[0].square().mean().backward()
        optimiser.step()


def test_frozen_norms_do_not_learn_and_the_rest_does(folded):
    model = small(3)
    start_from(model, folded)
    before, kernels = norms(model), {n: p.clone() for n, p in model.named_parameters() if p.ndim > 1}
    steps(model.train(), 3)
    assert all(torch.equal(x, before[name]) for name, x in norms(model).items())
    after = dict(model.named_parameters())
    assert all(not torch.equal(after[name], x) for name, x in kernels.items())


@pytest.mark.slow
def test_frozen_norms_are_known_again_after_any_way_through_the_disk(folded, tmp_path):
    """The numbers themselves say it: a checkpoint, an export, a copy, the authors' format."""
    model = small()
    start_from(model, folded)
    steps(model.train(), 1)
    x = torch.rand(2, 3, 40, 40)
    due = model.eval()(x)[0]
    save_model(
        tmp_path / "mine",
        model,
        recipes.get("objects-small", model_options={"mid_channels": 2, "out_channels": 4}),
    )
    official(tmp_path / "theirs.pth", model)
    resumed = small()
    resumed.load_state_dict(model.state_dict())
    assert freeze_folded_norms(resumed)
    again, third = small(), load_official(small(), tmp_path / "theirs.pth")
    start_from(again, tmp_path / "mine")
    frozen = norms(model)
    for other in (resumed, again, third, load_model(tmp_path / "mine")[0], copy.deepcopy(model)):
        torch.testing.assert_close(other.train()(x)[0], due, rtol=1e-4, atol=1e-5)
        steps(other, 1)
        assert all(torch.equal(x, frozen[name]) for name, x in norms(other).items())


def test_norms_that_learned_or_are_new_stay_as_they_are():
    for model in (small(), filled(small()), unet_2015(in_channels=1), nn.BatchNorm2d(3, affine=False)):
        assert not freeze_folded_norms(model)
        assert not any(isinstance(m, FrozenNorm) for m in model.modules())
        assert all(p.requires_grad for p in model.parameters())


# --- models of other input channels -------------------------------------------------------------------------

MODELS = [unet_s5_d16, unet_paddle, unet_2015, unet_small, wnet_small, u2net, u2net_small, u2net_blocks]


@pytest.mark.parametrize("build", MODELS)
def test_input_channels_change_the_kernels_that_see_the_image_and_no_other(build):
    with torch.device("meta"):
        usual, other = build().state_dict(), build(in_channels=7).state_dict()
        kernel = next(name for name in usual if usual[name].ndim == 4)
        assert other[kernel].shape[1] == 7
        seeing = {kernel, "second.body.encode.0.conv.weight"}
        assert usual.keys() == other.keys()
        for name in usual.keys() - seeing:
            assert usual[name].shape == other[name].shape, name


@pytest.mark.parametrize(
    "build",
    [unet_small, wnet_small, small, partial(u2net_blocks, block="plain", mid_channels=2, out_channels=4)],
)
@pytest.mark.parametrize("channels", [1, 5])
def test_an_image_of_so_many_channels_goes_through(build, channels):
    model = build(in_channels=channels).eval()
    with torch.no_grad():
        assert model(torch.rand(1, channels, 20, 33))[0].shape[-2:] == (20, 33)


def test_the_two_nets_of_the_tables_start_with_the_weights_of_before():
    """As built from the rows alone; what is said of three channels is what was always there."""

    def rows(mid, out):
        down = [(row[0], out if i else 3, mid, out, row[4]) for i, row in enumerate(DOWN)]
        return down, [(row[0], 2 * out, mid, out, row[4]) for row in UP]

    for build, due in ((u2net, (DOWN, UP)), (u2net_small, rows(16, 64))):
        made = []
        for call in (build, partial(build, in_channels=3), partial(U2Net, *due)):
            torch.manual_seed(0)
            made.append(call())
        assert same(made[0], made[2]) and same(made[1], made[2])


def test_a_file_of_the_authors_format_with_other_channels_is_told_by_its_shape(tmp_path):
    theirs = filled(small(in_channels=4))
    official(tmp_path / "four.pth", theirs)
    assert same(load_model(tmp_path / "four.pth")[0], theirs)
