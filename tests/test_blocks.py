"""Blocks with the RSU's interface: what they compute, written out, and what they cost beside an RSU."""

from functools import cache

import pytest
import torch
from test_u2net import U2NetContract
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from u2learn import RSU, recipes, u2net_small
from u2learn.models.blocks import BLOCKS, matched_width, u2net_blocks

ROWS = [(7, 3, 16, 64, False), (5, 128, 16, 64, False), (4, 64, 16, 64, True)]  # of U²-Net†


class BlocksContract(U2NetContract):
    sizes = ((1, 1), (3, 5), (45, 61))


class TestPlain(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "plain", mid_channels=2, out_channels=4))


class TestResidual(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "residual", mid_channels=2, out_channels=4))


class TestDense(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "dense", mid_channels=2, out_channels=4))


class TestInception(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "inception", mid_channels=2, out_channels=4))


class TestPyramid(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "pyramid", mid_channels=2, out_channels=4))


class TestNaive(BlocksContract):
    build = staticmethod(lambda classes: u2net_blocks(classes, "naive", mid_channels=6, out_channels=8))


# --- what they compute --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 12)])
def test_every_block_keeps_the_size_and_gives_its_channels(name, size):
    for dilated in (False, True):
        block = BLOCKS[name](4, 5, 3, 7, dilated)
        x = torch.rand(2, 5, *size, requires_grad=True)
        y = block(x)
        assert y.shape == (2, 7, *size)
        y.square().sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None for p in block.parameters())


def conv(block, x, rate=1):
    """Convolution, norm by running statistics, ReLU, of a ConvBlock, from its numbers alone."""
    x = F.conv2d(x, block.conv.weight, block.conv.bias, padding=rate, dilation=rate)
    norm = block.norm
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    return x.clamp(min=0)


def random(name, *row):
    torch.manual_seed(0)
    block = BLOCKS[name](*row).double().eval()
    for x in block.state_dict().values():
        if x.is_floating_point():
            x.uniform_(0.1, 0.5) if x.ndim == 1 else x.normal_(std=0.3)
    return block, torch.randn(1, row[1], 19, 23, dtype=torch.double)


def test_blocks_written_out():
    row = (5, 4, 3, 6)
    plain, x = random("plain", *row)
    due = conv(plain[1], conv(plain[0], x))
    torch.testing.assert_close(plain(x), due)

    residual, x = random("residual", *row)
    first = conv(residual.project, x)
    due = conv(residual.body[1], conv(residual.body[0], first)) + first
    torch.testing.assert_close(residual(x), due)

    dense, x = random("dense", *row)
    one = conv(dense.first, x)
    two = conv(dense.second, torch.cat([x, one], 1))
    torch.testing.assert_close(dense(x), conv(dense.fuse, torch.cat([x, one, two], 1)))

    inception, x = random("inception", *row)
    parts = [conv(branch, x, rate) for branch, rate in zip(inception.branches, (1, 2, 4, 8), strict=True)]
    torch.testing.assert_close(inception(x), conv(inception.fuse, torch.cat(parts, 1)))

    naive, x = random("naive", *row)
    rsu = RSU(*row).double().eval()
    rsu.load_state_dict(naive.state_dict())
    torch.testing.assert_close(naive(x), rsu(x) - conv(rsu.project, x))


def test_a_pyramid_sees_the_whole_map_at_once():
    block, x = random("pyramid", 5, 4, 3, 6)
    x.requires_grad_()
    block(x)[0, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum(dim=1) > 0).all()  # the mean of all pixels is among what each pixel gets
    plain, x = random("plain", 5, 4, 3, 6)
    x.requires_grad_()
    plain(x)[0, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum(dim=1) > 0).sum() <= 9  # two 3x3 convolutions, in a corner


# --- what they cost -----------------------------------------------------------------------------------------


def cost(block: nn.Module, by: str, inputs: int, size: int) -> int:
    """Counted anew: parameters one by one, operations by torch's own counter."""
    if by == "parameters":
        return sum(p.numel() for p in block.parameters())
    image = next(block.parameters()).new_zeros(1, inputs, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block.eval()(image)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_blocks_match_an_rsu_within_four_percent_and_no_width_is_nearer(name, by):
    for row in ROWS:
        height, inputs, _, out, dilated = row
        mid, share = matched_width(BLOCKS[name], row, by)
        due = cost(RSU(*row), by, inputs, 64)
        near = [
            cost(BLOCKS[name](height, inputs, m, out, dilated), by, inputs, 64)
            for m in (mid, mid - 1, mid + 1)
            if m
        ]
        assert share == near[0] / due
        assert abs(near[0] - due) == min(abs(n - due) for n in near)
        assert share == pytest.approx(1, abs=0.04)
        if name in ("naive", "rsu"):
            assert (mid, share) == (16, 1)


@cache
def cost_of_rsus(by: str) -> int:
    with torch.device("meta"):
        return cost(u2net_small(), by, 3, 320)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BLOCKS.keys() - {"naive", "rsu"}))
@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_whole_nets_match_within_two_percent(name, by):
    with torch.device("meta"):
        found = cost(u2net_blocks(1, name, by), by, 3, 320)
    assert found == pytest.approx(cost_of_rsus(by), rel=0.02)


def test_one_cannot_have_both():
    """A U is cheap for its parameters, as most of them work on small maps."""
    with torch.device("meta"):
        found = cost(u2net_blocks(1, "plain", "parameters"), "flops", 3, 320)
    assert found > 1.2 * cost_of_rsus("flops")


def test_a_net_of_rsus_is_u2net_small():
    torch.manual_seed(0)
    one = u2net_small(2, mid_channels=4, out_channels=8).state_dict()
    torch.manual_seed(0)
    two = u2net_blocks(2, "rsu", mid_channels=4, out_channels=8).state_dict()
    assert list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_what_costs_more_even_at_its_thinnest_is_said_by_its_share():
    wide = lambda height, inputs, mid, out, dilated: nn.Conv2d(inputs, out + mid, 9)  # noqa: E731
    mid, share = matched_width(wide, (2, 4, 1, 64, False), "parameters")
    assert mid == 1 and share > 3


def test_unknown_blocks_and_costs_are_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'vgg'; there are plain, residual, dense, .*rsu\.$"):
        u2net_blocks(block="vgg")
    with pytest.raises(ValueError, match=r"by 'parameters' or 'flops', not 'seconds'\."):
        matched_width(BLOCKS["plain"], (7, 3, 16, 64, False), "seconds")


def test_a_recipe_can_name_the_block():
    recipe = recipes.Recipe(
        "x",
        "synthetic",
        "u2net_blocks",
        model_options={"block": "dense", "mid_channels": 2, "out_channels": 4},
    )
    model = recipe.build_model()
    assert type(model.body.encode) is BLOCKS["dense"]
    again = recipes.Recipe.from_json(recipe.to_json()).build_model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
