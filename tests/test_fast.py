"""The fast copy of a network: the same maps, no batch norm left, and the network as it was."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from u2learn import inference, unet_2015
from u2learn.models import MODELS
from u2learn.models.blocks import BLOCKS
from u2learn.models.conv import ConvBlock
from u2learn.models.fast import FewerProducts, Folded, OneCall, OneMap, folded

OPTIONS = {
    "unet_s5_d16": [{"head": head} for head in ("fcn", "psp", "aspp")],
    "u2net_blocks": [{"block": block, "mid_channels": 4, "out_channels": 8} for block in BLOCKS],
    "u2net": [],  # of the same classes as the small one
}


def stirred(model: nn.Module) -> nn.Module:
    """With statistics and weights of its norms as if it had been trained."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, (low, high) in {
                module.running_mean: (-0.5, 0.5), module.running_var: (0.3, 2.0),
                module.weight.data: (0.5, 1.5), module.bias.data: (-0.5, 0.5),
            }.items():  # fmt: skip
                tensor.uniform_(low, high)
    return model


CASES = [(name, options) for name in MODELS for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x.values()))
)
def test_every_network_makes_the_same_maps_without_its_norms(name, options):
    model = stirred(MODELS[name](**options)).eval()
    before = copy.deepcopy(model.state_dict())
    quick = inference.fast(model)
    image = torch.rand(2, 3, 49, 66, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        due, found = model(image), quick(image)
    assert len(found) == len(due)
    for ours, theirs in zip(due, found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4 * ours.abs().max().item())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert not any(p.requires_grad for p in quick.parameters()) and not quick.training
    assert all(torch.equal(before[key], x) for key, x in model.state_dict().items())


def test_a_network_in_training_is_left_in_it_and_one_without_norms_is_copied():
    model = stirred(MODELS["unet_small"]()).train()
    assert not inference.fast(model).training and model.training
    old = unet_2015().eval()
    image = torch.rand(1, 1, 188, 188)
    torch.testing.assert_close(inference.fast(old)(image)[0], old(image)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_block_by_its_formula(bias):
    block = stirred(ConvBlock(3, 5, bias=bias)).eval()
    x = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(folded(block)(x), block.norm(block.conv(x)))
    assert folded(block).bias is not None


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 5)])
def test_a_convolution_to_one_map_by_its_nine_products(size):
    conv = nn.Conv2d(6, 1, 3, padding=1)
    x = torch.rand(2, 6, *size)
    with torch.no_grad():
        torch.testing.assert_close(OneMap(conv)(x), conv(x))


def test_other_convolutions_stay_as_they_are():
    layer = partial(nn.Conv2d, 6, 1, 3, padding=1)
    others = [nn.Conv2d(6, 2, 3, padding=1), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 1, 3), layer(bias=False)]
    others += [
        layer(padding=2, dilation=2),
        layer(padding_mode="reflect"),
        layer(stride=2),
        layer(device="meta"),
    ]
    assert OneMap.fits(layer()) and not any(map(OneMap.fits, others))


# --- on a CPU -----------------------------------------------------------------------------------------------

packs = pytest.mark.skipif(not OneCall.fits(nn.Conv2d(3, 4, 3)), reason="this PyTorch has no such calls")


def blocks(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    """A folded block in one call, and with fewer products."""
    torch.manual_seed(2)
    conv = folded(stirred(ConvBlock(channels, out)).eval())
    return OneCall(conv), FewerProducts(conv)


@packs
@pytest.mark.parametrize("size", [(1, 16), (9, 17), (4, 18), (2, 19), (21, 16), (5, 15), (3, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_of_the_products_make_the_same_map(size, layout):
    for channels, out, batch in ((5, 7, 1), (128, 144, 2)):
        x = torch.randn(batch, channels, *size).contiguous(memory_format=layout)
        for block in blocks(channels, out):
            with torch.inference_mode():
                due, found = block.conv(x).relu(), block(x)
            assert 0 < (due > 0).float().mean() < 1
            torch.testing.assert_close(found, due, rtol=1e-4, atol=2e-5)
    _, few = blocks(8, 8)
    with torch.inference_mode():
        few(torch.randn(1, 8, 4, 16))
    assert few.packed.numel() * few.packed.element_size() == 2 * 8 * 8 * 9 * 4  # a quarter of the columns


@packs
def test_wide_blocks_make_fewer_products_and_no_others():
    chosen = {
        (channels, out, dilation): type(
            inference.fast(nn.Sequential(ConvBlock(channels, out, dilation=dilation)))[0]
        )
        for channels, out, dilation in ((128, 128, 1), (127, 256, 1), (256, 127, 1), (128, 128, 2))
    }
    assert chosen == {
        (128, 128, 1): FewerProducts, (127, 256, 1): OneCall, (256, 127, 1): OneCall, (128, 128, 2): OneCall
    }  # fmt: skip
    assert type(inference.fast(nn.Sequential(ConvBlock(3, 4)).to("meta"))[0]) is Folded


@packs
def test_a_copy_of_them_a_gradient_and_16_bits():
    x = torch.randn(1, 8, 6, 20)
    for block in blocks(8, 8):
        with torch.inference_mode():
            due = block(x)
        for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert "packed" not in vars(other)
            torch.testing.assert_close(other(x), due)
        image = x.clone().requires_grad_()
        block(image).sum().backward()
        (grad,) = torch.autograd.grad(block.conv(image).relu().sum(), image)
        torch.testing.assert_close(image.grad, grad)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert block(x).dtype == torch.bfloat16, "a block in 16 bits is computed in 16 bits"
