"""RSU and U²-Net against networks written flat, with the names of the authors' files."""

import copy
import math
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from test_models import ModelContract
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from u2learn import RSU, U2Net, load_official, recipes, registry, to_official, u2net, u2net_small, unet_small
from u2learn.models.conv import ConvBlock
from u2learn.models.official import official_names
from u2learn.models.ulevel import ULevel

# --- the published networks, written flat -------------------------------------------------------------------


class REBNConv(nn.Module):
    def __init__(self, a, b, rate=1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(a, b, 3, padding=rate, dilation=rate)
        self.bn_s1 = nn.BatchNorm2d(b)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn_s1(self.conv_s1(x)))


def up_to(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class FlatRSU(nn.Module):
    """RSU-L: a loop down, a loop up. `rates` of the encoders and the bottom, or None for pooling."""

    def __init__(self, height, a, mid, b, rates=None):
        super().__init__()
        self.height, self.pools = height, rates is None
        rates = rates or [1] * (height - 1) + [2]
        self.rebnconvin = REBNConv(a, b)
        for i, rate in enumerate(rates, 1):
            setattr(self, f"rebnconv{i}", REBNConv(b if i == 1 else mid, mid, rate))
        for i in range(height - 1, 0, -1):
            setattr(self, f"rebnconv{i}d", REBNConv(2 * mid, b if i == 1 else mid, rates[i - 1]))
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x):
        x = first = self.rebnconvin(x)
        skips = []
        for i in range(1, self.height):
            if i > 1 and self.pools:
                x = self.pool(x)
            x = getattr(self, f"rebnconv{i}")(x)
            skips.append(x)
        x = getattr(self, f"rebnconv{self.height}")(x)
        for i in range(self.height - 1, 0, -1):
            skip = skips.pop()
            if i < self.height - 1 and self.pools:
                x = up_to(x, skip)
            x = getattr(self, f"rebnconv{i}d")(torch.cat((x, skip), 1))
        return x + first


# Table 1 of the paper: stage, height, channels in, inside, out of the full net; dilated or not.
STAGES = {
    "1": (7, 3, 32, 64),
    "2": (6, 64, 32, 128),
    "3": (5, 128, 64, 256),
    "4": (4, 256, 128, 512),
    "5": ("4F", 512, 256, 512),
    "6": ("4F", 512, 256, 512),
    "5d": ("4F", 1024, 256, 512),
    "4d": (4, 1024, 128, 256),
    "3d": (5, 512, 64, 128),
    "2d": (6, 256, 32, 64),
    "1d": (7, 128, 16, 64),
}


def table(mid=None, out=64):
    """The rows of the full net, or of one with the same channels everywhere."""
    if mid is None:
        return STAGES
    return {
        name: (height, 3 if name == "1" else (2 * out if "d" in name else out), mid, out)
        for name, (height, *_) in STAGES.items()
    }


class FlatU2Net(nn.Module):
    def __init__(self, stages, classes=1):
        super().__init__()
        for name, (height, a, mid, b) in stages.items():
            rates = [1, 2, 4, 8] if height == "4F" else None
            setattr(self, f"stage{name}", FlatRSU(4 if rates else height, a, mid, b, rates))
        for i, name in enumerate(("1d", "2d", "3d", "4d", "5d", "6"), 1):
            setattr(self, f"side{i}", nn.Conv2d(stages[name][3], classes, 3, padding=1))
        self.outconv = nn.Conv2d(6 * classes, classes, 1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x):
        maps = []
        for i in range(1, 7):
            x = getattr(self, f"stage{i}")(self.pool(x) if i > 1 else x)
            maps.append(x)
        sides = [self.side6(x)]
        for i in range(5, 0, -1):
            x = getattr(self, f"stage{i}d")(torch.cat((up_to(x, maps[i - 1]), maps[i - 1]), 1))
            sides.insert(0, getattr(self, f"side{i}")(x))
        sides = sides[:1] + [up_to(side, sides[0]) for side in sides[1:]]
        return [self.outconv(torch.cat(sides, 1)), *sides]


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep the signal's size, and norms whose channels all differ: a swap cannot hide."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, x in net.state_dict().items():
            if x.ndim == 4:
                nn.init.kaiming_uniform_(x, nonlinearity="relu")
            elif name.endswith(("norm.weight", "bn_s1.weight", "running_var")):
                x.uniform_(0.5, 1.5)
            elif x.is_floating_point():
                x.uniform_(-0.3, 0.3)
    return net


def flat_twin(model: U2Net, stages: dict, classes: int = 1) -> FlatU2Net:
    twin = FlatU2Net(stages, classes)
    twin.load_state_dict(to_official(model), strict=True)
    return twin.train(model.training)


def image(batch: int, size: tuple[int, int], seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


# --- the contract -------------------------------------------------------------------------------------------


class U2NetContract(ModelContract):
    outputs = 7  # the fused map and six sides

    def test_eval_gives_the_main_map_only(self, model):
        """Not here: the sides feed the fused map, so all seven are there in eval mode too."""
        model.eval()
        with torch.no_grad():
            for size in self.sizes:
                self.check_maps(model(self.image(1, size)), 1, size, 7)


class TestU2Net(U2NetContract):
    sizes = ((1, 1), (3, 5), (35, 67))
    build = staticmethod(u2net)


class TestU2NetSmall(U2NetContract):
    build = staticmethod(u2net_small)


class TestU2NetThin(U2NetContract):
    sizes = ((1, 1), (3, 5), (97, 131), (287, 353))
    build = staticmethod(lambda num_classes: u2net_small(num_classes, mid_channels=4, out_channels=8))


@pytest.mark.parametrize(
    ("build", "size"),
    [(u2net, (97, 131)), *product((u2net, u2net_small), [(287, 353), (1024, 768)])],
)
def test_every_size_passes_forward_and_backward(build, size):
    """Shapes alone, without arithmetic, for the sizes that take a core a minute; for others see above."""
    with torch.device("meta"):
        model = build()
        maps = model(torch.empty(2, 3, *size))
    assert [m.shape for m in maps] == [(2, 1, *size)] * 7
    sum(m.sum() for m in maps).backward()
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_a_large_image_forward_and_backward_with_numbers():
    model = u2net_small(mid_channels=2, out_channels=4).train()
    maps = model(image(1, (1024, 768)))
    assert [m.shape for m in maps] == [(1, 1, 1024, 768)] * 7
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", [(1, 1), (32, 32)])
def test_a_single_small_image_is_refused_by_batch_norm_while_training(size):
    """One value a channel has no deviation: torch says so, instead of training on nothing."""
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        u2net_small(mid_channels=2, out_channels=4).train()(image(1, size))
    u2net_small(mid_channels=2, out_channels=4).train()(image(2, size))
    u2net_small(mid_channels=2, out_channels=4).train()(image(1, (33, 32)))


# --- counts -------------------------------------------------------------------------------------------------

PARAMETERS = {  # measured on the authors' code: stage, full net, small net
    "1": (206016, 67200),
    "2": (305856, 95328),
    "3": (1108992, 88320),
    "4": (3986688, 81312),
    "5": (10034688, 81312),
    "6": (10034688, 81312),
    "5d": (12393984, 118176),
    "4d": (4280064, 118176),
    "3d": (1181952, 125184),
    "2d": (323904, 132192),
    "1d": (139200, 139200),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("column", "build", "total"), [(0, u2net, 44_009_869), (1, u2net_small, 1_131_181)])
def test_parameter_counts_of_the_nets_and_their_stages(column, build, total):
    with torch.device("meta"):
        model = build()
    assert parameters(model) == total
    level, found = model.body, {}
    for i in range(1, 6):
        found |= {f"{i}": parameters(level.encode), f"{i}d": parameters(level.decode)}
        level = level.inner
    found["6"] = parameters(level)
    assert found == {stage: counts[column] for stage, counts in PARAMETERS.items()}
    assert parameters(model.fuse) == 7
    assert [parameters(side) for side in model.sides] == (
        [577, 577, 1153, 2305, 4609, 4609] if column == 0 else [577] * 6
    )


@pytest.mark.parametrize(
    ("height", "dilated", "blocks", "pools"),
    [(7, False, 14, 5), (6, False, 12, 4), (5, False, 10, 3), (4, False, 8, 2), (4, True, 8, 0)],
)
def test_blocks_and_pools_of_an_rsu(height, dilated, blocks, pools):
    rsu = RSU(height, 3, 4, 6, dilated)
    assert sum(isinstance(m, ConvBlock) for m in rsu.modules()) == blocks
    assert sum(isinstance(m, nn.MaxPool2d) for m in rsu.modules()) == pools
    assert sum(isinstance(m, ULevel) for m in rsu.modules()) == height - 1


def test_an_rsu_without_a_u_is_refused():
    for height in (1, 0, -3):
        with pytest.raises(ValueError, match=f"height of at least 2.*not {height}\\.$"):
            RSU(height, 3, 4, 6)
    assert RSU(2, 3, 4, 6)(torch.rand(1, 3, 5, 7)).shape == (1, 6, 5, 7)


# --- bit-equal to the flat networks, and the same work ------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 3])
def pair(request):
    """U²-Net† of so many classes, and its twin."""
    model = randomised(u2net_small(request.param))
    return model, flat_twin(model, table(16), request.param)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (3, 5), (1, 1)])
def test_the_small_net_is_bit_equal_to_the_flat_one(size, training, pair):
    model, twin = (copy.deepcopy(net).train(training) for net in pair)
    with torch.no_grad():
        ours, theirs = model(image(2, size)), twin(image(2, size))
    assert len(ours) == len(theirs) == 7
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b) and a.std() > 0


def test_the_full_net_is_bit_equal_to_the_flat_one():
    model = randomised(u2net()).eval()
    twin = flat_twin(model, table())
    with torch.no_grad():
        for a, b in zip(model(image(1, (97, 131))), twin(image(1, (97, 131))), strict=True):
            assert torch.equal(a, b)


def test_gradients_are_those_of_the_flat_one():
    model = randomised(u2net_small(mid_channels=4, out_channels=8)).train()
    twin = flat_twin(model, table(4, 8))
    for net in (model, twin):
        sum(m.sigmoid().mean() for m in net(image(2, (45, 61)))).backward()
    theirs = {name: p.grad for name, p in twin.named_parameters()}
    for p in model.parameters():  # names are translated for values; here the gradients take their place
        p.data = p.grad
    ours = to_official(model)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


class Work(TorchDispatchMode):
    """Every operation that runs, with the shapes that go in."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def shapes(x):
            if isinstance(x, torch.Tensor):
                return tuple(x.shape)
            return tuple(map(shapes, x)) if isinstance(x, list | tuple) else x

        self.done.append((str(func), shapes(args)))
        return func(*args, **(kwargs or {}))


def narrow() -> U2Net:
    return u2net_small(mid_channels=2, out_channels=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "rows", "size", "device"),
    [
        (u2net, table(), (320, 320), "meta"),
        (u2net_small, table(16), (320, 320), "meta"),
        (narrow, table(2, 4), (97, 131), "cpu"),  # where sides halve unevenly
    ],
)
def test_nesting_costs_nothing(build, rows, size, device):
    """The same operations on the same shapes, one for one, as in the flat network: so the same speed."""
    with torch.device(device):
        nets = build().eval(), FlatU2Net(rows).eval()
        x = torch.zeros(1, 3, *size)
    works = []
    for net in nets:
        with Work() as work:
            net(x)
        works.append(sorted(map(str, work.done)))
    assert len(works[0]) > 300
    assert works[0] == works[1]


# --- other uses of the tables -------------------------------------------------------------------------------


def test_thinner_nets_come_from_the_same_table():
    sizes = [
        parameters(u2net_small(mid_channels=mid, out_channels=out))
        for mid, out in ((2, 4), (4, 8), (8, 16), (8, 32))
    ]
    assert all(a < b for a, b in pairwise(sizes)) and sizes[-1] < 300_000


def test_an_rsu_of_rsus():
    def conv(a, b, dilation=1):
        return RSU(3, a, 2, b)

    block = RSU(4, 3, 4, 6, conv=conv)
    assert sum(isinstance(m, RSU) for m in block.modules()) == 1 + 8
    assert block(torch.rand(1, 3, 11, 13)).shape == (1, 6, 11, 13)


def test_recipes_can_name_both_nets():
    assert registry.MODELS["u2net"] is u2net and registry.MODELS["u2net_small"] is u2net_small


def test_the_two_files_stay_short():
    folder = Path(recipes.__file__).parent / "models"
    lines = [len((folder / name).read_text(encoding="utf-8").splitlines()) for name in ("rsu.py", "u2net.py")]
    assert sum(lines) <= 102


# --- the authors' files -------------------------------------------------------------------------------------

TABLE = Path(__file__).with_name("u2net_state_dict.tsv")  # read from the authors' models


def published(stages: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' files by their rule, in their order."""
    names: dict[str, tuple[int, ...]] = {}
    for stage, (height, a, mid, b) in stages.items():
        height = 4 if height == "4F" else height
        blocks = {"in": (a, b), "1": (b, mid)} | {str(i): (mid, mid) for i in range(2, height + 1)}
        blocks |= {f"{i}d": (2 * mid, mid if i > 1 else b) for i in range(height - 1, 0, -1)}
        for block, (before, after) in blocks.items():
            name = f"stage{stage}.rebnconv{block}"
            names |= {f"{name}.conv_s1.weight": (after, before, 3, 3), f"{name}.conv_s1.bias": (after,)}
            for part in ("weight", "bias", "running_mean", "running_var"):
                names[f"{name}.bn_s1.{part}"] = (after,)
            names[f"{name}.bn_s1.num_batches_tracked"] = ()
    for i, stage in enumerate(("1d", "2d", "3d", "4d", "5d", "6"), 1):
        names |= {f"side{i}.weight": (1, stages[stage][3], 3, 3), f"side{i}.bias": (1,)}
    return names | {"outconv.weight": (1, 6, 1, 1), "outconv.bias": (1,)}


NETS = {"u2net": (u2net, table()), "u2netp": (u2net_small, table(16))}


@pytest.mark.parametrize("name", NETS)
def test_names_shapes_and_order_are_those_of_the_authors_files(name):
    build, stages = NETS[name]
    with torch.device("meta"):
        model = build()
    state = to_official(model)
    assert len(state) == 798
    assert [(k, tuple(x.shape)) for k, x in state.items()] == list(published(stages).items())
    assert len(set(official_names(model).values())) == len(model.state_dict()) == 798
    assert sum(x.numel() for k, x in state.items() if "running" in k or "num_batches" in k) == (
        28_912 if name == "u2net" else 5_808
    )


@pytest.mark.parametrize("name", NETS)
def test_the_rule_is_what_was_read_in_the_files(name):
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()]
    column = rows[0].index(f"shape_{name}")
    found = {row[0]: tuple(int(n) for n in row[column].split("x") if n != "scalar") for row in rows[1:]}
    assert list(published(NETS[name][1]).items()) == list(found.items())


def blank(model: nn.Module) -> nn.Module:
    for x in model.state_dict().values():
        x.fill_(math.nan if x.is_floating_point() else 0)
    return model


def published_file(path: Path, **changes) -> tuple[Path, FlatU2Net]:
    net = randomised(FlatU2Net(table(2, 4))).eval()
    state = {key: x for key, x in {**net.state_dict(), **changes}.items() if x is not None}
    torch.save(state, path)
    return path, net


def same_maps(model: nn.Module, net: nn.Module, **tolerance) -> None:
    with torch.no_grad():
        for a, b in zip(model.eval()(image(1, (45, 61))), net(image(1, (45, 61))), strict=True):
            torch.testing.assert_close(a, b, **tolerance)


def test_a_published_file_and_the_way_back(tmp_path):
    path, net = published_file(tmp_path / "u2netp.pth")
    model = load_official(blank(narrow()), path)
    same_maps(model, net, rtol=0, atol=0)
    back = to_official(model)
    theirs = net.state_dict()
    assert all(torch.equal(x, theirs[key]) for key, x in back.items())


def test_an_old_file_without_counters(tmp_path):
    path, net = published_file(tmp_path / "old.pth")
    state = {k: x for k, x in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    model = load_official(blank(narrow()), path)
    same_maps(model, net, rtol=0, atol=0)


@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_a_file_with_folded_norms(half, tmp_path):
    """Folded by arithmetic: w g / s and (b - mean) g / s + shift, with s = sqrt(variance + 1e-5)."""
    path, net = published_file(tmp_path / "folded.pth")
    state, folded = net.state_dict(), {}
    for key, x in state.items():
        if key.endswith("conv_s1.weight"):
            norm = key.replace("conv_s1.weight", "bn_s1.")
            gain = state[norm + "weight"] / torch.sqrt(state[norm + "running_var"] + 1e-5)
            bias = state[key.replace("weight", "bias")] - state[norm + "running_mean"]
            folded[key] = x * gain[:, None, None, None]
            folded[key.replace("weight", "bias")] = bias * gain + state[norm + "bias"]
        elif "_s1" not in key:
            folded[key] = x
    assert len(folded) == 798 - 112 * 5
    torch.save({k: x.half() if half else x for k, x in folded.items()}, path)
    model = load_official(blank(narrow()), path)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    same_maps(model, net, rtol=1e-2 if half else 1e-4, atol=5e-2 if half else 1e-4)


def test_wrong_files_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "w.pth"
    published_file(path)
    for model, words in (
        (u2net_small(mid_channels=3, out_channels=4), "another network"),
        (u2net_small(2, mid_channels=2, out_channels=4), "num_classes=1"),
        (unet_small(), "No official weights"),
    ):
        before = {name: x.clone() for name, x in model.state_dict().items()}
        with pytest.raises(ValueError, match=words) as error:
            load_official(model, path)
        assert "\n" not in str(error.value)
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    key = "stage3d.rebnconv2.bn_s1.running_var"
    with pytest.raises(ValueError, match=f"lacks 1 of the model's 798 tensors, first {key!r}"):
        load_official(narrow(), published_file(path, **{key: None})[0])
    with pytest.raises(ValueError, match="holds 1 tensors for which"):
        load_official(narrow(), published_file(path, extra=torch.ones(1))[0])


def test_a_net_of_other_blocks_has_no_official_names():
    def block(height, a, mid, b, dilated):
        return RSU(2, a, mid, b, conv=lambda a, b, dilation=1: nn.Conv2d(a, b, 1))

    with pytest.raises(ValueError, match="No official weights"):
        to_official(u2net_small(mid_channels=2, out_channels=4, block=block))
