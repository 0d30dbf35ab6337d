"""U²-Net in 8 bits: its convolution against plain integers, the repair of its means, and its maps."""

import copy
import pickle

import pytest
import torch
from test_fast import stirred
from torch.nn import functional as F

from u2learn import pretrained, u2net_small, unet_small
from u2learn.data.augment import normalise
from u2learn.data.drawn.objects import salient
from u2learn.models import int8 as eight
from u2learn.models.blocks import u2net_blocks
from u2learn.models.conv import ConvBlock
from u2learn.models.fast import fast, folded
from u2learn.models.int8 import FirstConv, IntConv, IntRSU, int8

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="only PyTorch for x86 CPUs has convolutions in 8 bits"
)


def photographs(count: int, first: int = 0) -> torch.Tensor:
    """Drawn things, normalised as the net that ships wants them: (N, 3, 64, 64)."""
    scenes = [torch.from_numpy(salient(seed, (64, 64)).image) for seed in range(first, first + count)]
    return normalise(torch.stack(scenes) / 255, "maximum")


@pytest.fixture(scope="module")
def nets():
    """The net that ships, in float and in 8 bits."""
    model = pretrained("objects-small")[0]
    return fast(model), int8(model, photographs(8))


@pytest.mark.parametrize("dilation", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_that_of_the_integers(dilation, bias):
    torch.manual_seed(0)
    block = stirred(ConvBlock(7, 5, dilation=dilation, bias=bias)).eval()
    conv = IntConv(block, 0.02, 0.004, torch.zeros(5))
    x = torch.randint(0, 256, (2, 7, 13, 18), dtype=torch.uint8)
    sums = F.conv2d(x.long(), conv.weight.long(), padding=dilation, dilation=dilation)  # exact
    y = sums * 0.02 * conv.scales[:, None, None] + conv.bias[:, None, None]
    due = (y / 0.004).round().clamp(0, 255)
    found = conv(x.contiguous(memory_format=torch.channels_last))
    assert found.dtype == torch.uint8 and 10 < found.float().mean() < 200
    assert (found - due).abs().max() <= 1 and (found != due).float().mean() < 0.01  # halves
    rounded = conv.weight * conv.scales[:, None, None, None]
    assert (rounded - folded(block).weight).abs().amax((1, 2, 3)).le(0.51 * conv.scales).all()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
def test_pooling_is_pytorchs(size):
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert torch.equal(eight.max_pool(x).float(), F.max_pool2d(x.float(), 2, ceil_mode=True))


def test_a_sum_stops_at_255():
    x = torch.tensor([0, 100, 200], dtype=torch.uint8).reshape(1, 1, 1, 3)
    same = torch.nn.Identity()
    level = eight.IntLevel(same, same, same, pooled=False)
    level.decode.forward = lambda maps: maps[:, :1]  # of (up, skip), which are both x
    assert IntRSU(torch.nn.Identity(), level)(x).flatten().tolist() == [0, 200, 255]


def test_the_first_block_is_rounded_to_its_scale():
    block = stirred(ConvBlock(3, 4)).eval()
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        due = (block(x) / 0.01).round().clamp(0, 255)
        assert (FirstConv(block, 0.01)(x) - due).abs().max() <= 1


def furthest_mean(net, images) -> float:
    """How far the mean of a channel is from that of the exact network at most, in steps of its scale."""
    off = {}

    def look(conv, _, maps):
        mean = conv.scale_out * maps.float().mean((0, 2, 3))
        off[conv] = ((mean - conv.mean).abs().max() / conv.scale_out).item()

    hooks = [m.register_forward_hook(look) for m in net.modules() if isinstance(m, IntConv)]
    net(images)
    for hook in hooks:
        hook.remove()
    assert len(off) == 111  # all blocks but the first
    return max(off.values())


def test_the_repair_brings_the_means_back(nets):
    exact, _ = nets
    model, images = pretrained("objects-small")[0], photographs(8)
    with torch.inference_mode():
        due = exact(images)[0].sigmoid()
        rough = eight.IntU2Net(model, eight.observe(model, images)).eval()
        before, error = furthest_mean(rough, images), (rough(images)[0].sigmoid() - due).abs().mean()
        with eight.correcting(rough):
            rough(images)
        after, left = furthest_mean(rough, images), (rough(images)[0].sigmoid() - due).abs().mean()
    assert after < 1 and after < before / 3 and left < error, (before, after, error, left)


def test_maps_of_other_pictures_are_right_too(nets):
    exact, quick = nets
    images = photographs(6, first=100)
    with torch.inference_mode():
        due, found = exact(images), quick(images)
    assert len(found) == len(due) == 7
    for ours, theirs in zip(due, found, strict=True):
        assert ours.shape == theirs.shape and theirs.dtype == torch.float32
    differences = (due[0].sigmoid() - found[0].sigmoid()).abs()
    assert differences.mean() < 0.01 and ((due[0] > 0) != (found[0] > 0)).float().mean() < 0.01


def test_any_size_and_any_batch(nets):
    exact, quick = nets
    images = torch.randn(2, 3, 45, 71)
    with torch.inference_mode():
        due, both = exact(images)[0].sigmoid(), quick(images)[0].sigmoid()
        one = quick(images[1:])[0].sigmoid()
    assert both.shape == due.shape and (both - due).abs().mean() < 0.1
    torch.testing.assert_close(both[1:], one)


def test_what_is_no_u2net_is_refused():
    for model in (unet_small(), u2net_blocks(block="plain", mid_channels=4, out_channels=8)):
        with pytest.raises(ValueError, match="takes a U²-Net of RSUs, not a"):
            int8(model, torch.rand(1, 3, 32, 32))


def test_the_model_stays_as_it_was():
    model = stirred(u2net_small(mid_channels=4, out_channels=8)).eval()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    int8(model, torch.randn(2, 3, 40, 40))
    assert all(torch.equal(before[key], x) for key, x in model.state_dict().items())


def test_a_copy_of_it_makes_the_same_maps(nets):
    image = photographs(1, 30)
    due = nets[1](image)[0]
    assert torch.equal(copy.deepcopy(nets[1])(image)[0], due)
    assert torch.equal(pickle.loads(pickle.dumps(nets[1]))(image)[0], due)
