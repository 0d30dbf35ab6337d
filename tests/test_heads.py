"""The heads against loops: adaptive pooling, pyramid pooling, dilated taps, and what training needs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from u2learn.models.heads import ASPP, PyramidPooling, aspp_head, fcn_head, psp_head

SIZES = [(1, 1), (3, 5), (13, 50)]


def lively(module: nn.Module) -> nn.Module:
    """In eval mode, with statistics and scales that no two channels share."""
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for x, low, high in (
                (m.weight, 0.5, 2),
                (m.bias, 0.5, 1.5),  # or the ReLU could silence a whole branch
                (m.running_mean, -1, 1),
                (m.running_var, 0.5, 2),
            ):
                nn.init.uniform_(x, low, high)
    return module.double().eval()


def block(part, x, at=(0, 0)):
    """Norm and ReLU by hand on what one tap (1x1) or nine taps (3x3, dilated) collect."""
    kernel, d = part.conv.weight, part.conv.dilation[0]
    size, (h, w) = kernel.shape[-1], x.shape[2:]
    reach = d * (size // 2)
    wide = x.new_zeros(*x.shape[:2], h + 2 * reach, w + 2 * reach)
    wide[..., reach : reach + h, reach : reach + w] = x
    y = 0
    for i in range(size):
        for j in range(size):
            window = wide[..., i * d : i * d + h, j * d : j * d + w]
            y = y + torch.einsum("bchw,oc->bohw", window, kernel[:, :, i, j])
    norm = part.norm
    column = (slice(None), None, None)
    y = (y - norm.running_mean[column]) / (norm.running_var[column] + 1e-5).sqrt()
    return (y * norm.weight[column] + norm.bias[column]).clamp(min=0)


def area_means(x, n):
    """Cell i of n covers the pixels from floor(i size / n) to ceil((i + 1) size / n)."""
    h, w = x.shape[2:]
    rows = [slice(i * h // n, -(-(i + 1) * h // n)) for i in range(n)]
    columns = [slice(i * w // n, -(-(i + 1) * w // n)) for i in range(n)]
    return torch.stack([torch.stack([x[..., r, c].mean((2, 3)) for c in columns], -1) for r in rows], -2)


def spread(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", SIZES)
def test_pyramid_pooling_is_the_map_and_means_of_its_areas(size):
    context = lively(PyramidPooling(3, 2))
    x = torch.randn(2, 3, *size, dtype=torch.double)
    parts = [x] + [
        spread(block(branch[1], area_means(x, n)), size)
        for branch, n in zip(context.branches, (1, 2, 3, 6), strict=True)
    ]
    torch.testing.assert_close(context(x), torch.cat(parts, dim=1))


@pytest.mark.parametrize("size", SIZES)
def test_aspp_is_mean_pixels_and_taps_12_24_and_36_apart(size):
    context = lively(ASPP(3, 2))
    assert [b.conv.dilation[0] for b in list(context.branches)[1:]] == [1, 12, 24, 36]
    assert [b.conv.kernel_size[0] for b in list(context.branches)[1:]] == [1, 3, 3, 3]
    x = torch.randn(2, 3, *size, dtype=torch.double)
    mean, *others = context.branches
    parts = [spread(block(mean[1], x.mean((2, 3), keepdim=True)), size)] + [block(b, x) for b in others]
    torch.testing.assert_close(context(x), torch.cat(parts, dim=1))


@pytest.mark.parametrize(
    ("head", "before"), [(fcn_head, None), (psp_head, PyramidPooling), (aspp_head, ASPP)]
)
def test_after_the_context_every_head_is_block_dropout_classifier(head, before):
    parts = list(head(6, 4, 3))
    if before:
        assert isinstance(parts.pop(0), before)
    conv, dropout, classify = parts
    assert conv.conv.kernel_size == (3, 3) and conv.conv.padding == (1, 1) and conv.conv.bias is None
    assert conv.conv.in_channels == {None: 6, PyramidPooling: 6 + 4 * 4, ASPP: 5 * 4}[before]
    assert isinstance(dropout, nn.Dropout2d) and dropout.p == 0.1
    assert classify.kernel_size == (1, 1) and classify.bias is not None and classify.out_channels == 3


@pytest.mark.parametrize("head", [psp_head, aspp_head])
def test_a_head_that_pools_the_whole_map_trains_with_two_images_and_not_with_one(head):
    model = head(6, 4, 3).train()
    assert model(torch.rand(2, 6, 1, 1)).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.rand(1, 6, 8, 8))
    assert model.eval()(torch.rand(1, 6, 8, 8)).shape == (1, 3, 8, 8)


def test_dropout_takes_whole_channels():
    torch.manual_seed(0)
    head = fcn_head(2, 200, 1, dropout=0.5).train()
    dropped = head[1](torch.ones(1, 200, 4, 4))[0].flatten(1)  # (200, 16)
    assert ((dropped == 0).all(1) | (dropped == 2).all(1)).all()
    assert 60 < (dropped[:, 0] == 0).sum() < 140
