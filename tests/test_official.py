"""Official checkpoints: networks written with the published names and order, and files that are refused."""

import io
import pickle
from collections import OrderedDict
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from u2learn import load_official, to_official, unet_2015, unet_paddle, unet_s5_d16, unet_small, wnet_small
from u2learn.models.conv import double_conv
from u2learn.models.heads import aspp_head, fcn_head, psp_head
from u2learn.models.pickles import WeightsUnpickler
from u2learn.models.ulevel import ResizeConvJoin
from u2learn.models.unet import UNet, nest

HEADS = ["fcn", "psp", "aspp"]
bilinear = partial(F.interpolate, mode="bilinear", align_corners=False)


# --- OpenMMLab's network, module names as published ---------------------------------------------------------


def conv_module(a, b, kernel=3, dilation=1):
    parts = {
        "conv": nn.Conv2d(a, b, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        "bn": nn.BatchNorm2d(b),
        "activate": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(parts))


class Convs(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.convs = nn.Sequential(conv_module(a, b), conv_module(b, b))

    def forward(self, x):
        return self.convs(x)


class Upsample(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.interp_upsample = nn.Sequential(up, conv_module(a, b, kernel=1))


class UpBlock(nn.Module):
    def __init__(self, deep, skip):
        super().__init__()
        self.conv_block = Convs(2 * skip, skip)
        self.upsample = Upsample(deep, skip)

    def forward(self, skip, x):
        return self.conv_block(torch.cat([skip, self.upsample.interp_upsample(x)], dim=1))


class Backbone(nn.Module):
    def __init__(self, base):
        super().__init__()
        widths = [base * 2**i for i in range(5)]
        self.encoder = nn.ModuleList([nn.Sequential(Convs(3, base))])
        self.decoder = nn.ModuleList()
        for a, b in pairwise(widths):
            self.encoder.append(nn.Sequential(nn.MaxPool2d(2), Convs(a, b)))
            self.decoder.append(UpBlock(b, a))

    def forward(self, x):
        maps = []
        for stage in self.encoder:
            x = stage(x)
            maps.append(x)
        out = [x]
        for i in (3, 2, 1, 0):
            x = self.decoder[i](maps[i], x)
            out.append(x)
        return out  # deep to shallow


class FCN(nn.Module):
    def __init__(self, a, channels, classes):
        super().__init__()
        self.convs = nn.Sequential(conv_module(a, channels))
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        return self.conv_seg(self.convs(x))


class PSP(nn.Module):
    def __init__(self, a, channels, classes):
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), conv_module(a, channels, 1)) for n in (1, 2, 3, 6)
        )
        self.bottleneck = conv_module(a + 4 * channels, channels)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        parts = [x] + [bilinear(m(x), x.shape[2:]) for m in self.psp_modules]
        return self.conv_seg(self.bottleneck(torch.cat(parts, dim=1)))


class DeepLabV3(nn.Module):
    def __init__(self, a, channels, classes):
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_module(a, channels, 1))
        self.aspp_modules = nn.ModuleList(
            conv_module(a, channels, 1 if d == 1 else 3, d) for d in (1, 12, 24, 36)
        )
        self.bottleneck = conv_module(5 * channels, channels)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        parts = [bilinear(self.image_pool(x), x.shape[2:])] + [m(x) for m in self.aspp_modules]
        return self.conv_seg(self.bottleneck(torch.cat(parts, dim=1)))


class OpenMMLab(nn.Module):
    def __init__(self, head, classes, base=64):
        super().__init__()
        self.backbone = Backbone(base)
        inner = base if head == "fcn" else base // 4
        self.decode_head = {"fcn": FCN, "psp": PSP, "aspp": DeepLabV3}[head](base, inner, classes)
        self.auxiliary_head = FCN(2 * base, base, classes)

    def forward(self, x):
        maps = self.backbone(x)
        return [self.decode_head(maps[4]), bilinear(self.auxiliary_head(maps[3]), x.shape[2:])]


# --- PaddleSeg's, in torch, module names as published -------------------------------------------------------


def conv_bn_relu(a, b):
    parts = {"_conv": nn.Conv2d(a, b, 3, padding=1), "_batch_norm": nn.BatchNorm2d(b), "_relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(parts))


class PaddleUp(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.double_conv = nn.Sequential(conv_bn_relu(2 * a, b), conv_bn_relu(b, b))

    def forward(self, x, skip):
        return self.double_conv(torch.cat([bilinear(x, skip.shape[2:]), skip], dim=1))


class Paddle(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encode, self.decode = nn.Module(), nn.Module()
        self.encode.double_conv = nn.Sequential(conv_bn_relu(3, 64), conv_bn_relu(64, 64))
        down, up = [64, 128, 256, 512, 512], [(512, 256), (256, 128), (128, 64), (64, 64)]
        self.encode.down_sample_list = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2, 2), conv_bn_relu(a, b), conv_bn_relu(b, b))
            for a, b in pairwise(down)
        )
        self.decode.up_sample_list = nn.ModuleList(PaddleUp(a, b) for a, b in up)
        self.cls = self.conv = nn.Conv2d(64, classes, 3, padding=1)

    def forward(self, x):
        x, skips = self.encode.double_conv(x), []
        for down in self.encode.down_sample_list:
            skips.append(x)
            x = down(x)
        for up in self.decode.up_sample_list:
            x = up(x, skips.pop())
        return self.cls(x)

    def arrays(self):
        """What `paddle.save(net.state_dict())` writes: NumPy arrays under Paddle's names."""
        state = {
            name.replace("running_mean", "_mean").replace("running_var", "_variance"): x.numpy().copy()
            for name, x in self.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        return {**state, "StructuredToParameterName@@": {name: f"param_{i}" for i, name in enumerate(state)}}


def randomised(net):
    """Weights and statistics that keep the signal's size and differ from channel to channel, fast."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in net.state_dict().items():
            if x.ndim == 4:
                x.uniform_(-1, 1).mul_((6 / x[0].numel()) ** 0.5)
            elif name.endswith(("running_var", "bn.weight", "_batch_norm.weight")):
                x.uniform_(0.5, 1.5)
            elif x.is_floating_point():
                x.uniform_(-0.5, 0.5)
            else:
                x.fill_(1234)
    return net.eval()


def blank(build):
    """A model whose weights are all not-a-number: what is not loaded cannot be missed."""
    with torch.device("meta"):
        model = build().eval()
    model.to_empty(device="cpu")
    for x in model.state_dict().values():
        x.fill_(float("nan") if x.is_floating_point() else 0)
    return model


def narrow(head="fcn", num_classes=2, auxiliary=True):
    """`unet_s5_d16` with 1/8 of its channels: names are the same, files are small."""
    convs = partial(double_conv, bias=False)
    body = nest([8, 16, 32, 64, 128], [8, 16, 32, 64], convs, ResizeConvJoin)
    make, inner = {"fcn": (fcn_head, 8), "psp": (psp_head, 2), "aspp": (aspp_head, 2)}[head]
    return UNet(body, make(8, inner, num_classes), fcn_head(16, 8, num_classes) if auxiliary else None)


def checkpoint(head="fcn", num_classes=2, **changes):
    """The content of a narrow OpenMMLab checkpoint; a change of None takes a tensor out."""
    state = randomised(OpenMMLab(head, num_classes, base=8)).state_dict()
    state.update(changes)
    return {"state_dict": {k: x for k, x in state.items() if x is not None}, "meta": {"CLASSES": ("a", "b")}}


def save(path, content):
    torch.save(content, path)
    return path


def refusal(model, path, error=ValueError):
    """The one sentence with which the file is refused; the model must not have changed."""
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(error) as caught:
        load_official(model, path)
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name]), name
    message = str(caught.value)
    assert path.name in message and "\n" not in message and message.endswith(".") and len(message) < 400
    return message


# --- loading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_openmmlab_weights_give_the_published_networks_output(head, tmp_path):
    theirs = randomised(OpenMMLab(head, 3))
    content = {"state_dict": theirs.state_dict(), "meta": {"CLASSES": ("a", "b", "c"), "epoch": 1}}
    ours = blank(partial(unet_s5_d16, 3, head))
    assert load_official(ours, save(tmp_path / "w.pth", content)) is ours
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted, auxiliary = theirs(image)
        assert wanted.std() > 0.05
        torch.testing.assert_close(ours(image)[0], wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            bilinear(ours.auxiliary(ours.body(image)[1]), (32, 32)), auxiliary, rtol=1e-4, atol=1e-4
        )
    back = to_official(ours)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(x, back[key]) for key, x in theirs.state_dict().items())


@pytest.mark.parametrize("size", [(32, 32), (45, 37), (31, 62)])
def test_paddle_weights_give_the_published_networks_output(size, tmp_path):
    theirs = randomised(Paddle(3))
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(theirs.arrays(), protocol=4))
    ours = blank(partial(unet_paddle, 3))
    load_official(ours, path)
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        wanted = theirs(image)
        assert wanted.std() > 0.05
        torch.testing.assert_close(ours(image)[0], wanted, rtol=1e-4, atol=1e-4)
    back, due = to_official(ours), theirs.arrays()
    assert back.keys() == due.keys() - {"StructuredToParameterName@@"}
    assert all(np.array_equal(x.numpy(), due[key]) for key, x in back.items())


@pytest.mark.parametrize("head", HEADS)
def test_there_and_back_is_exact(head, tmp_path):
    torch.manual_seed(1)
    model, copy = narrow(head, 5), narrow(head, 5)
    load_official(copy, save(tmp_path / "w.pth", to_official(model)))
    found = copy.state_dict()
    for name, x in model.state_dict().items():
        assert torch.equal(x, found[name]), name


def test_the_format_before_zip_and_an_optimiser_in_the_file(tmp_path):
    content = checkpoint() | {"optimizer": {"state": {0: torch.ones(3)}, "param_groups": [{"lr": 0.01}]}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = load_official(blank(narrow), tmp_path / "old.pth")
    assert not any(x.isnan().any() for x in model.state_dict().values())


def test_a_model_without_auxiliary_head_leaves_it_out(tmp_path):
    model = load_official(blank(partial(narrow, auxiliary=False)), save(tmp_path / "w.pth", checkpoint()))
    assert not any("auxiliary" in key for key in to_official(model))


@pytest.mark.parametrize("names", [("cls", "conv"), ("cls",), ("conv",)], ids="+".join)
def test_paddles_classifier_may_have_one_name_or_two(names, tmp_path):
    with torch.device("meta"):
        content = to_official(unet_paddle())
    content = {k: np.zeros(x.shape, np.float32) for k, x in content.items() if not k.startswith("c")}
    for name in names:
        content |= {
            f"{name}.weight": np.ones((2, 64, 3, 3), np.float32),
            f"{name}.bias": np.ones(2, np.float32),
        }
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(content, protocol=4))
    model = load_official(blank(unet_paddle), tmp_path / "m.pdparams")
    assert (model.head.weight == 1).all() and (model.head.bias == 1).all()


# --- reading pickled arrays ---------------------------------------------------------------------------------

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float64, last axis first": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big end first": np.arange(5, dtype=">f4"),
    "half": np.arange(4, dtype=np.float16),
    "integers": np.array([[-1, 2**40]]),
    "scalar": np.array(2.5),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_are_read_as_pickle_would(protocol, module):
    data = pickle.dumps(OrderedDict(ARRAYS), protocol)
    if protocol < 4:  # names are lines of text there, so that any NumPy's can be written
        data = data.replace(b"numpy._core.multiarray", module.encode())
        data = data.replace(b"numpy.core.multiarray", module.encode())
    found = WeightsUnpickler(io.BytesIO(data)).load()
    assert found.keys() == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        assert np.array_equal(found[name].array, wanted) and found[name].array.shape == wanted.shape
        assert found[name].array.dtype == wanted.dtype.newbyteorder("=") and found[name].array.flags.writeable


class Runs:
    """Pickled, this is an order to call `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def trap(kind, marker):
    if kind == "open":
        return Runs(open, str(marker), "w")
    if kind == "exec":
        return Runs(exec, f"open({str(marker)!r}, 'w')")
    if kind == "numpy":
        return Runs(np.savetxt, str(marker), [1.0])
    return Runs(getattr, Runs(__import__, "os"), "system")


@pytest.mark.parametrize("suffix", [".pth", ".pdparams"])
@pytest.mark.parametrize("kind", ["open", "exec", "numpy", "import"])
def test_a_file_that_would_run_something_is_refused_and_does_not(kind, suffix, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / f"evil{suffix}"
    evil = trap(kind, marker)
    pickle.loads(pickle.dumps(trap("exec", marker)))
    assert marker.exists()  # the trap works
    marker.unlink()
    if suffix == ".pth":
        model, content = narrow(), checkpoint() | {"extra": evil}
        save(path, content)
    else:
        model, content = unet_paddle(), {"cls.weight": np.ones(2, np.float32), "extra": evil}
        path.write_bytes(pickle.dumps(content, protocol=2))
    message = refusal(model, path)
    assert "refused" in message and "would have to run" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    "target", ["numpy ndarray", "numpy dtype", "_codecs encode", "collections OrderedDict"]
)
def test_a_file_cannot_change_how_the_next_one_is_read(target):
    """A pickle may set attributes of what it is given, as of the class that stands for an array."""
    text = b"X\x0c\x00\x00\x00__setstate__"
    call, value = (f"c{name}\n".replace(" ", "\n").encode() for name in (target, "collections OrderedDict"))
    evil = b"\x80\x02" + call + b"N}" + text + value + b"s\x86b."  # target.__setstate__ = OrderedDict
    good = pickle.dumps({"x": np.ones(3, np.float32)}, protocol=2)
    with pytest.raises((TypeError, AttributeError)):
        WeightsUnpickler(io.BytesIO(evil)).load()
    assert np.array_equal(WeightsUnpickler(io.BytesIO(good)).load()["x"].array, np.ones(3))


@pytest.mark.parametrize("array", [np.array([{}, 1], object), np.array(["text"]), np.zeros(2, "f4,i4")])
def test_arrays_of_anything_but_numbers_are_refused(array, tmp_path):
    path = tmp_path / "m.pdparams"
    path.write_bytes(pickle.dumps({"cls.weight": array}, protocol=4))
    with pytest.raises(ValueError, match=r"m\.pdparams"), torch.device("meta"):
        load_official(unet_paddle(), path)


# --- sentences for what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", HEADS)
@pytest.mark.parametrize("right", HEADS)
def test_a_wrong_head_is_named_with_the_right_one(wrong, right, tmp_path):
    path = save(tmp_path / "w.pth", checkpoint(right))
    if wrong == right:
        load_official(narrow(wrong), path)
    else:
        message = refusal(narrow(wrong), path)
        assert f"head {right!r} and the model {wrong!r}" in message and f"head={right!r}" in message


@pytest.mark.parametrize("head", HEADS)
def test_a_wrong_number_of_classes_is_named_with_the_right_one(head, tmp_path):
    message = refusal(narrow(head, 2), save(tmp_path / "w.pth", checkpoint(head, 19)))
    assert "19 classes" in message and "has 2" in message and "num_classes=19" in message


def test_a_wrong_number_of_classes_in_a_file_of_paddles(tmp_path):
    with torch.device("meta"):
        content = {k: np.zeros(x.shape, np.float32) for k, x in to_official(unet_paddle(19)).items()}
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(content, protocol=4))
    assert "num_classes=19" in refusal(unet_paddle(2), tmp_path / "m.pdparams")


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path):
    model, path = narrow(), tmp_path / "w.pth"
    deep = "backbone.decoder.2.upsample.interp_upsample.1.bn.running_var"
    message = refusal(model, save(path, checkpoint(**{deep: None})))
    assert f"lacks 1 of the model's {len(to_official(model))} tensors, first {deep!r}" in message
    message = refusal(model, save(path, checkpoint(**{"decode_head.conv_cat.conv.weight": torch.ones(1)})))
    assert "holds 1 tensors" in message and "decode_head.conv_cat.conv.weight" in message
    message = refusal(model, save(path, checkpoint(**{deep: torch.ones(7)})))
    assert "(7,)" in message and deep in message and "(32,)" in message


def test_a_file_without_auxiliary_head_says_what_to_do(tmp_path):
    content = checkpoint()
    content["state_dict"] = {k: x for k, x in content["state_dict"].items() if "auxiliary" not in k}
    path = save(tmp_path / "w.pth", content)
    assert "auxiliary=False" in refusal(narrow(), path)
    load_official(narrow(auxiliary=False), path)


def test_other_networks_are_named_by_what_they_hold(tmp_path):
    path = save(tmp_path / "w.pth", {"layer1.0.conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)})
    message = refusal(narrow(), path)
    assert "another network" in message and "layer1.0.conv1.weight" in message
    assert "another network" in refusal(unet_paddle(), save(path, checkpoint()))
    with torch.device("meta"):
        content = {k: np.zeros(x.shape, np.float32) for k, x in to_official(unet_paddle()).items()}
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(content, protocol=4))
    assert "another network" in refusal(narrow(), tmp_path / "m.pdparams")


@pytest.mark.parametrize("kind", ["zip", "old", "paddle"])
def test_a_file_cut_anywhere_is_refused(kind, tmp_path):
    model = narrow() if kind != "paddle" else unet_paddle()
    path = tmp_path / ("m.pdparams" if kind == "paddle" else "w.pth")
    if kind == "paddle":
        path.write_bytes(pickle.dumps({f"a{i}": np.ones((8, 9), np.float32) for i in range(20)}, protocol=4))
    else:
        torch.save(checkpoint(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in (0, 1, 3, 30, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "cut short" in refusal(model, path), length


def test_files_that_hold_no_weights(tmp_path):
    path = tmp_path / "w.pth"
    path.write_text("<!DOCTYPE html><title>404</title>")
    assert "no checkpoint" in refusal(narrow(), path)
    for content in ([1, 2], {}, {"state_dict": {"a": 1}}, {"state_dict": {}}, torch.ones(3)):
        refusal(narrow(), save(path, content))
    path = tmp_path / "m.pdparams"
    for content in ({}, [1], {"a": 1.0}, {"a": {"b": np.ones(1)}}, "text"):
        path.write_bytes(pickle.dumps(content, protocol=4))
        refusal(unet_paddle(), path)


def test_a_missing_file_is_named(tmp_path):
    assert "no file" in refusal(narrow(), tmp_path / "nowhere.pth", FileNotFoundError)


@pytest.mark.parametrize("build", [unet_small, wnet_small, unet_2015, lambda: nn.Conv2d(3, 2, 1)])
def test_models_without_official_weights_say_so(build, tmp_path):
    with torch.device("meta"):
        model = build()
    for call in (to_official, lambda m: load_official(m, tmp_path / "w.pth")):
        with pytest.raises(ValueError, match=r"No official weights.*unet_s5_d16.*unet_paddle.*u2net"):
            call(model)
