"""Models: the contract that all share, parameter counts, joins, initialisation, weights on disk."""

import math
import re
from functools import partial

import pytest
import torch
import torchinfo
from torch import nn
from torch.nn import functional as F

from u2learn import ULevel, UNet, unet_2015, unet_paddle, unet_s5_d16, unet_small, wnet_small
from u2learn.models.conv import ConvBlock, FloorPool, double_conv, downsample, resize_like
from u2learn.models.half import half_unet
from u2learn.models.heads import aspp_head, fcn_head, psp_head
from u2learn.models.ulevel import AddJoin, ResizeConvJoin, UpConvCropJoin
from u2learn.models.weights import read_tensors, with_prefix, write_tensors


class ModelContract:
    """What every model promises. A subclass names the model; all tests come with it."""

    outputs = 1  # logit maps in training mode: the main one and the auxiliaries
    channels = 3  # of the image
    sizes = ((1, 1), (3, 5), (97, 131))
    lost = 0  # pixels by which each side of the output is smaller than the input
    num_classes = 3
    training_only = ()  # submodules that must not run in eval mode

    @staticmethod
    def build(num_classes: int) -> nn.Module:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        torch.manual_seed(0)
        return cls.build(cls.num_classes)

    def image(self, batch, size):
        return torch.rand(batch, self.channels, *size, generator=torch.Generator().manual_seed(1))

    def check_maps(self, maps, batch, size, count):
        assert isinstance(maps, list) and len(maps) == count
        for logits in maps:
            assert logits.shape == (batch, self.num_classes, size[0] - self.lost, size[1] - self.lost)
            assert logits.dtype == torch.float32
            assert logits.isfinite().all()

    def test_training_gives_all_maps_and_every_parameter_a_gradient(self, model):
        model.train()
        for size in self.sizes:
            model.zero_grad(set_to_none=True)
            maps = model(self.image(2, size))
            self.check_maps(maps, 2, size, self.outputs)
            sum(logits.square().mean() for logits in maps).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, f"{name} takes no part"
                assert parameter.grad.isfinite().all(), name
        moved = [name for name, p in model.named_parameters() if p.grad.abs().sum() > 0]
        weights = [name for name, p in model.named_parameters() if p.ndim > 1]
        assert set(weights) <= set(moved)  # at the last, largest size every kernel matters

    def test_eval_gives_the_main_map_only(self, model):
        model.eval()
        with torch.no_grad():
            for size in self.sizes:
                self.check_maps(model(self.image(1, size)), 1, size, 1)

    def test_auxiliaries_are_not_computed_in_eval(self, model):
        ran = set()
        modules = {module: name for name, module in model.named_modules()}
        hooks = [module.register_forward_hook(lambda m, *_: ran.add(modules[m])) for module in modules]
        image = self.image(2, self.sizes[-2])
        with torch.no_grad():
            model.train()(image)
            in_training = set(ran)
            ran.clear()
            model.eval()(image)
        for hook in hooks:
            hook.remove()
        assert ran <= in_training
        assert set(self.training_only) == {name for name in in_training - ran if "." not in name}

    def test_eval_is_a_function_of_the_image_alone(self, model):
        model.eval()
        image = self.image(2, self.sizes[-2])
        with torch.no_grad():
            both, first = model(image)[0], model(image[:1])[0]
        torch.testing.assert_close(both[:1], first, rtol=1e-4, atol=1e-5)

    def test_initialisation_depends_on_the_seed_alone(self, model):
        torch.manual_seed(7)
        first = self.build(self.num_classes).state_dict()
        torch.manual_seed(7)
        again = self.build(self.num_classes).state_dict()
        assert list(first) == list(again)
        assert all(torch.equal(first[name], again[name]) for name in first)
        kernels = {
            name: p for name, p in model.named_parameters() if p.ndim > 1
        }  # these began with another seed
        assert not any(torch.equal(first[name], kernel) for name, kernel in kernels.items())

    def test_weights_survive_the_disk(self, model, tmp_path):
        write_tensors(tmp_path / "w.safetensors", model.state_dict(), {"note": "x"})
        tensors, metadata = read_tensors(tmp_path / "w.safetensors")
        assert metadata == {"note": "x"}
        torch.manual_seed(99)
        copy = self.build(self.num_classes)
        copy.load_state_dict(tensors)
        image = self.image(1, self.sizes[-2])
        with torch.no_grad():
            assert torch.equal(copy.eval()(image)[0], model.eval()(image)[0])

    def test_maps_move_with_the_image(self, model):
        """Different images give different maps: the image reaches the logits."""
        model.eval()
        with torch.no_grad():
            one, two = model(self.image(1, self.sizes[-2]))[0], model(1 - self.image(1, self.sizes[-2]))[0]
        assert not torch.equal(one, two)


class TestUNetS5D16(ModelContract):
    outputs = 2
    training_only = ("auxiliary",)
    build = staticmethod(unet_s5_d16)


def narrow(head, num_classes: int) -> UNet:
    """A U of two levels with this head and an auxiliary one, for the contract alone."""
    body = unet_small(num_classes, width=6, depth=2).body
    return UNet(body, head(6, 4, num_classes), fcn_head(12, 4, num_classes))


class TestUNetWithPSPHead(ModelContract):
    outputs = 2
    training_only = ("auxiliary",)
    build = staticmethod(partial(narrow, psp_head))


class TestUNetWithASPPHead(ModelContract):
    outputs = 2
    training_only = ("auxiliary",)
    build = staticmethod(partial(narrow, aspp_head))


class TestUNetPaddle(ModelContract):
    build = staticmethod(unet_paddle)


class TestUNetSmall(ModelContract):
    build = staticmethod(unet_small)


class TestUNetSmallOneLevelDeep(ModelContract):
    build = staticmethod(partial(unet_small, width=4, depth=2))


class TestWNetSmall(ModelContract):
    outputs = 2
    build = staticmethod(wnet_small)


class TestHalfUNet(ModelContract):
    build = staticmethod(half_unet)


class TestHalfUNetOfTwoConvolutions(ModelContract):
    build = staticmethod(partial(half_unet, width=6, growth=2, decoder=2))


class TestUNet2015(ModelContract):
    channels, sizes, lost = 1, ((188, 188), (188, 204)), 184
    build = staticmethod(unet_2015)


# --- parameter counts ---------------------------------------------------------------------------------------


def count(model: nn.Module, channels: int = 3, side: int = 32) -> int:
    image = next(model.parameters()).new_empty(1, channels, side, side)
    return torchinfo.summary(model, input_data=image, verbose=0, device=image.device).total_params


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (lambda: unet_s5_d16().body, 28_949_568),
        (lambda: unet_s5_d16(2), 29_060_676),
        (lambda: unet_s5_d16(19), 29_062_886),
        (lambda: unet_s5_d16(2, auxiliary=False), 28_986_690),
        (lambda: unet_s5_d16(19, auxiliary=False), 28_987_795),
        (lambda: unet_s5_d16(2, "psp"), 29_046_276),
        (lambda: unet_s5_d16(2, "aspp"), 29_064_996),
        (lambda: unet_s5_d16(2, "psp", auxiliary=False), 28_972_290),
        (lambda: unet_s5_d16(2, "aspp", auxiliary=False), 28_991_010),
        (lambda: unet_s5_d16(2).head, 37_122),
        (lambda: unet_s5_d16(2, "psp").head, 22_722),
        (lambda: unet_s5_d16(2, "aspp").head, 41_442),
        (lambda: unet_paddle(2), 13_396_418),
        (lambda: unet_paddle(19), 13_406_227),
    ],
)
def test_parameter_counts(build, parameters):
    with torch.device("meta"):
        model = build().eval()
    assert count(model, channels=64 if model.__class__ is nn.Sequential else 3) == parameters
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_parameter_count_of_the_2015_net():
    with torch.device("meta"):
        model = unet_2015()
    assert count(model, channels=1, side=188) == 31_030_658
    assert sum(p.numel() for p in model.parameters()) == 31_030_658


def test_small_nets_are_small():
    assert count(unet_small()) < 100_000
    assert count(wnet_small()) < 100_000


# --- the 2015 net -------------------------------------------------------------------------------------------


def test_2015_net_makes_388_of_572():
    with torch.device("meta"):  # shapes only
        (logits,) = unet_2015()(torch.rand(1, 1, 572, 572))
    assert logits.shape == (1, 2, 388, 388)


@pytest.mark.parametrize(
    "size", [(573, 572), (572, 580), (187, 188), (256, 256), (1, 1), (200, 572), (203, 203)]
)
def test_2015_net_names_sizes_that_do_work(size):
    with torch.device("meta"):  # shapes only
        model = unet_2015(1)
    with pytest.raises(ValueError) as error:
        model(torch.empty(1, 1, *size, device="meta"))
    wrong = next(side for side in size if (side - 188) % 16 or side < 188)
    message = str(error.value)
    assert str(wrong) in message and message.count("\n") == 0
    low, high = map(int, re.search(r"to (\d+) or (\d+)", message).groups())
    assert low < wrong < high or wrong < 188 == low
    assert high - low == 16
    for side in (low, high):
        assert model(torch.empty(1, 1, side, 188, device="meta"))[0].shape[2:] == (side - 184, 4)


def test_2015_net_accepts_exactly_the_sizes_that_halve_evenly():
    """By arithmetic alone: every level must halve an even number, and nothing may become empty."""

    def works(side: int) -> bool:
        for _ in range(4):
            side -= 4
            if side < 2 or side % 2:
                return False
            side //= 2
        side -= 4
        for _ in range(4):
            side = 2 * side - 4
            if side < 1:
                return False
        return True

    class Ran(Exception):
        pass

    def stop(*_):
        raise Ran

    with torch.device("meta"):
        model = unet_2015(1)
    model.body.register_forward_pre_hook(stop)
    for side in range(1, 700):
        with pytest.raises(Ran if works(side) else ValueError):
            model(torch.empty(1, 1, side, 572, device="meta"))


def test_2015_net_starts_as_the_paper_says():
    """Section 3: a Gaussian of std sqrt(2 / N), N the incoming nodes; no norm would keep the scale."""
    for module in unet_2015(1).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.15)


# --- a U written flat ---------------------------------------------------------------------------------------


def apply_convs(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Convolution, norm of a batch, ReLU, each by hand."""
    for block in blocks:
        x = F.conv2d(x, block.conv.weight, block.conv.bias, padding=block.conv.kernel_size[0] // 2)
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-5)
        x = (x * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]).clamp(min=0)
    return x


def pool(x):
    """2x2 maximum, the last row and column of an odd map alone."""
    h, w = x.shape[-2:]
    return torch.stack(
        [
            torch.stack([x[..., i : i + 2, j : j + 2].amax(dim=(2, 3)) for j in range(0, w, 2)], -1)
            for i in range(0, h, 2)
        ],
        -2,
    )


def resize(x, size):
    """Bilinear, pixel centres on pixel centres: position (i + 1/2) h / H - 1/2, clamped to the map."""
    for axis, target in zip((2, 3), size, strict=True):
        source = x.shape[axis]
        place = ((torch.arange(target, dtype=x.dtype) + 0.5) * source / target - 0.5).clamp(0, source - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=source - 1)
        share = (place - low).view(-1, 1) if axis == 2 else place - low
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def flat_u(model, image, halve):
    """The same U without recursion: a loop down, a loop up."""
    levels, body = [], model.body
    while isinstance(body, ULevel):
        levels.append(body)
        body = body.inner
    x, skips = image, []
    for level in levels:
        x = apply_convs(level.encode, x)
        skips.append(x)
        x = pool(x)
    x = apply_convs(body, x)
    maps = [x]
    for level, skip in zip(levels[::-1], skips[::-1], strict=True):
        x = resize(x, skip.shape[-2:])
        if halve:
            x = apply_convs([level.join.reduce], x)
        x = apply_convs(level.decode, torch.cat([x, skip], dim=1))
        maps.insert(0, x)
    return maps


@pytest.mark.parametrize("size", [(8, 8), (13, 7), (1, 1), (3, 5)])
@pytest.mark.parametrize("halve", [False, True], ids=["resize", "resize-1x1"])
def test_nested_levels_equal_a_flat_u(size, halve):
    torch.manual_seed(0)
    join = (lambda: ResizeConvJoin(8, 4)) if halve else (lambda: None)
    up = 4 if halve else 8
    body = double_conv(8, 8)
    for _ in range(2):
        body = ULevel(double_conv(8, 8), body, double_conv(up + 8, 8), join=join())
    body = ULevel(double_conv(3, 6), body_first(body), double_conv(up + 6, 8), join=join())
    model = nn.Module()
    model.body = body.double().train()
    for p in model.parameters():  # norms at 1 and 0 would hide a swap
        nn.init.normal_(p, std=0.5)
    image = torch.randn(3, 3, *size, dtype=torch.double)
    got, due = model.body(image), flat_u(model, image, halve)
    assert [m.shape for m in got] == [m.shape for m in due]
    for a, b in zip(got, due, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def body_first(body: ULevel) -> ULevel:
    """The first encoder inside takes the 6 channels of the level above."""
    body.encode[0] = ConvBlock(6, 8)
    return body


@pytest.mark.parametrize(
    ("build", "halve", "size"),
    [
        (unet_small, False, (20, 17)),
        (unet_s5_d16, True, (20, 17)),
        (unet_paddle, False, (32, 16)),  # where rounding up or down is the same
    ],
)
def test_whole_networks_equal_a_flat_u(build, halve, size):
    torch.manual_seed(0)
    model = build().double().train()
    image = torch.rand(2, 3, *size, dtype=torch.double)
    for a, b in zip(model.body(image), flat_u(model, image, halve), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_the_2015_join_crops_the_middle_of_the_skip():
    torch.manual_seed(0)
    join = UpConvCropJoin(4, 2).double()
    deep, skip = torch.randn(1, 4, 3, 5, dtype=torch.double), torch.randn(1, 2, 10, 14, dtype=torch.double)
    up = torch.zeros(1, 2, 6, 10, dtype=torch.double)
    for y in range(3):
        for x in range(5):
            patch = torch.einsum("c,cdij->dij", deep[0, :, y, x], join.up.weight)
            up[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = patch + join.up.bias[:, None, None]
    torch.testing.assert_close(join(deep, skip), torch.cat([up, skip[:, :, 2:8, 2:12]], dim=1))


def test_without_auxiliary_there_is_one_map_in_training_too():
    with torch.device("meta"):
        maps = unet_s5_d16(5, auxiliary=False).train()(torch.rand(2, 3, 33, 17))
    assert [m.shape for m in maps] == [(2, 5, 33, 17)]


def test_maps_come_finest_first():
    model = unet_s5_d16().eval()
    with torch.no_grad():
        shapes = [tuple(m.shape[1:]) for m in model.body(torch.rand(1, 3, 48, 32))]
    assert shapes == [(64, 48, 32), (128, 24, 16), (256, 12, 8), (512, 6, 4), (1024, 3, 2)]


# --- bricks, heads and initialisation -----------------------------------------------------------------------


def test_a_block_is_convolution_norm_relu():
    block = ConvBlock(2, 5, kernel=3, dilation=4)
    assert [name for name, _ in block.named_children()] == ["conv", "norm", "relu"]
    assert block(torch.rand(2, 2, 9, 11)).shape == (2, 5, 9, 11)
    assert ConvBlock(2, 5, kernel=1)(torch.rand(2, 2, 9, 11)).shape == (2, 5, 9, 11)
    assert ConvBlock(2, 5, dilation=2, padding=0)(torch.rand(2, 2, 9, 11)).shape == (2, 5, 5, 7)
    assert ConvBlock(2, 5).conv.bias is not None and ConvBlock(2, 5, bias=False).conv.bias is None


def test_down_rounds_up_and_resize_goes_to_the_size():
    x = torch.randn(1, 2, 5, 7, dtype=torch.double)
    assert torch.equal(downsample()(x), pool(x))
    assert torch.equal(resize_like(x, torch.empty(3, 1, 5, 7)), x)
    torch.testing.assert_close(resize_like(x, torch.empty(1, 9, 11, 3)), resize(x, (11, 3)))


@pytest.mark.parametrize("size", [(5, 7), (6, 8), (1, 7), (1, 1), (2, 3)])
def test_floor_pool_drops_the_last_row_of_an_odd_map_and_keeps_a_side_of_1(size):
    x = torch.randn(2, 3, *size)
    h, w = (max(1, side // 2) for side in size)
    assert torch.equal(FloorPool()(x), pool(x)[..., :h, :w])


def test_unknown_head_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'psq'.*aspp, fcn, psp"):
        unet_s5_d16(head="psq")


@pytest.mark.parametrize("head", ["fcn", "psp", "aspp"])
def test_s5_d16_starts_as_openmmlab_does(head):
    torch.manual_seed(0)
    model = unet_s5_d16(head=head)
    classifiers = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            n = module.weight.numel()
            out, _, k, _ = module.weight.shape
            std = 0.01 if module.bias is not None else math.sqrt(2 / (k * k * out))
            assert module.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n)), name
            assert abs(module.weight.mean().item()) < 4.5 * std / math.sqrt(n), name
            if module.bias is not None:
                classifiers += 1
                assert not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    assert classifiers == 2
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)]
    assert dropouts == [0.1, 0.1]


def test_paddle_starts_as_paddle_does():
    """Paddle's own default: Normal(0, sqrt(2 / (k k channels in))), and no bias."""
    for module in unet_paddle().modules():
        if isinstance(module, nn.Conv2d):
            _, in_channels, k, _ = module.weight.shape
            std = math.sqrt(2 / (k * k * in_channels))
            spread = 5 * std / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(std, abs=spread), in_channels
            assert not module.bias.any()


def test_paddle_convolutions_have_a_bias_and_s5_d16_blocks_none():
    with torch.device("meta"):
        paddle, s5_d16 = unet_paddle(), unet_s5_d16()
    assert all(m.bias is not None for m in paddle.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in s5_d16.body.modules() if isinstance(m, nn.Conv2d))
    head = paddle.head
    assert (head.kernel_size, head.padding) == ((3, 3), (1, 1))


def test_the_second_net_of_a_wnet_sees_image_and_draft():
    model = wnet_small(num_classes=2).eval()
    seen = []
    model.second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        final = model(image)[0]
        draft = model.first(image)[0]
        assert torch.equal(seen[0], torch.cat([image, draft], dim=1))
        assert torch.equal(final, model.second(seen[0])[0])
    assert not torch.equal(final, draft)


def test_a_join_by_sum_adds_the_mixed_and_repeated_deep_map():
    join = AddJoin(5, 3)
    deep, skip = torch.rand(2, 5, 4, 3), torch.rand(2, 3, 7, 6)  # odd: one row of the last pair is left out
    mixed = torch.einsum("bchw,oc->bohw", deep, join.mix.weight[:, :, 0, 0])
    rows = [i * 4 // 7 for i in range(7)]
    due = mixed[:, :, rows].repeat_interleave(2, dim=3) + skip
    torch.testing.assert_close(join(deep, skip), due)


def test_the_half_unet_has_the_channels_and_convolutions_that_are_asked_for():
    net = half_unet(width=20, growth=8, decoder=2)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    channels = [(m.in_channels, m.out_channels) for m in convolutions]
    up = [(28, 28), (28, 28), (20, 20), (20, 20)]
    down = [(12, 20), (20, 20), (20, 28), (28, 28), (28, 36), (36, 36)]
    assert sorted(channels) == sorted(down + up)
    assert sum(p.numel() for p in half_unet().parameters()) == 66_600


def test_each_pixel_of_a_block_has_its_own_logits():
    net = half_unet(width=4).eval()
    image = torch.rand(1, 3, 16, 16)
    logits = net(image)[0]
    assert (logits[..., ::2, ::2] - logits[..., 1::2, 1::2]).abs().max() > 1e-4
    changed = image.clone()
    changed[..., 5, 4] += 1  # an odd pixel is seen
    assert (net(changed)[0] - logits)[..., 4:6, 4:6].abs().max() > 1e-6


# --- weights on disk ----------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.arange(1000.0)}, {})
    whole = path.read_bytes()
    for length in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"w\.safetensors") as error:
            read_tensors(path)
        assert "\n" not in str(error.value)


def test_a_pickle_is_not_executed(tmp_path):
    path = tmp_path / "w.safetensors"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {"turn": "1"})

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {"a": torch.zeros(3)}, {"turn": "2"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"turn": "1"} and torch.equal(tensors["a"], torch.ones(3))


def test_part_takes_what_begins_with_the_prefix():
    tensors = {"model.a": torch.ones(1), "raw.model.b": torch.zeros(1), "modelling": torch.zeros(1)}
    assert list(with_prefix(tensors, "model.")) == ["a"]
