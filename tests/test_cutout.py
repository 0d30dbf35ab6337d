"""Cut-outs: how opaque the edge is, and that the background does not shine through it."""

import os
import sys

# pymatting compiles all that it has when it is imported first, which takes a minute. For the small pictures
# here it need not, and nothing else uses it.
os.environ["NUMBA_DISABLE_JIT"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from u2learn import cutout
from u2learn.cutout import cut_out, foreground
from u2learn.data.augment import resize


def scene(height: int = 120, width: int = 160):
    """An object with a ragged soft edge: photograph and own colours (3, H, W), opacity and a map (H, W)."""
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    radius, angle = (y**2 + x**2).sqrt(), torch.atan2(y, x)
    border = 0.32 * height + 6 * torch.sin(9 * angle) + 4 * torch.sin(31 * angle)
    alpha = ((border - radius) / 6 + 0.5).clamp(0, 1)
    mine = torch.stack([0.9 - 0.002 * radius, 0.5 + 0 * radius, 0.3 + 0.001 * x])
    other = torch.stack([0.1 + 0 * radius, 0.6 + 0.001 * y, 0.8 - 0.001 * x])
    grain = torch.randn(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    grain = 0.03 * F.interpolate(grain, (height, width), mode="bilinear")[0]
    photo = alpha * (mine + grain) + (1 - alpha) * (other + grain)
    coarse = resize(resize(alpha[None], (height // 4, width // 4)), (height, width))[0].clamp(0, 1)
    return photo, mine + grain, alpha, coarse


def test_a_cut_out_has_a_soft_edge_and_no_background():
    ramp = torch.linspace(0, 1, 101).expand(3, -1)  # (H, W)
    photo = Image.fromarray(np.full((3, 101, 3), 200, np.uint8))
    for threshold in (0.5, 0.2, 0.9):
        got = np.asarray(cut_out(photo, ramp, threshold))[0].astype(int)  # (W, 4)
        alpha = got[:, 3]
        assert alpha[0] == 0 and alpha[-1] == 255 and (np.diff(alpha) >= 0).all()
        assert alpha[round(100 * threshold)] == pytest.approx(128, abs=1)
        assert 0.15 < ((alpha > 0) & (alpha < 255)).mean() < 0.55  # the edge
        assert (got[alpha == 0, :3] == 0).all() and (abs(got[alpha > 0, :3] - 200) <= 1).all()
    for threshold in (0, 1):
        assert set(np.asarray(cut_out(photo, ramp, threshold))[0, 1:-1, 3]) <= {0, 255}


def test_the_colours_are_those_of_the_object():
    photo, mine, alpha, _ = scene()
    edge = (alpha > 0.02) & (alpha < 1)
    on_red = [alpha * colours for colours in (photo, foreground(photo, alpha), mine)]
    fringe, ours = ((each - on_red[2]).abs()[:, edge].mean() for each in on_red[:2])
    assert ours < fringe / 5 and ours < 0.02, (fringe, ours)
    assert torch.equal(foreground(photo, alpha)[:, alpha == 1], photo[:, alpha == 1])
    assert torch.equal(foreground(photo, torch.ones_like(alpha)), photo)
    assert foreground(photo, torch.zeros_like(alpha)).isfinite().all()


@pytest.mark.parametrize("radius", [1, 3, 40])
def test_a_mean_over_squares_is_pytorchs(radius):
    maps = torch.rand(2, 13, 17)
    due = (
        F.avg_pool2d(maps[None], 2 * radius + 1, 1, radius, count_include_pad=False)[0]
        if radius < 40
        else None
    )
    if due is None:
        due = maps.mean((1, 2), keepdim=True).expand_as(maps)
    torch.testing.assert_close(cutout.box_mean(maps, radius), due)


def test_a_matte_finds_the_edge_in_the_photograph(monkeypatch):
    pytest.importorskip("pymatting")
    photo, _, alpha, coarse = scene(60, 80)
    edge = (alpha > 0) & (alpha < 1)
    by_map, by_photo = cutout.ramp(coarse, 0.5), cutout.matte(photo, coarse)
    errors = [(each - alpha).abs()[edge].mean() for each in (by_map, by_photo)]
    assert errors[1] < 0.6 * errors[0], errors
    monkeypatch.setattr(cutout, "MATTED", 40)  # solved on half of the size
    assert (cutout.matte(photo, coarse) - alpha).abs()[edge].mean() < errors[0]
    nothing = torch.zeros(60, 80)
    assert torch.equal(cutout.matte(photo, nothing), nothing)  # no object to solve for


def test_what_is_certain_ends_before_the_edge_of_the_map():
    sure = torch.zeros(60, 100)
    sure[10:50, 20:80] = 1  # a hard mask: it is sure of everything
    known = cutout.trimap(sure)
    assert (known[30, 12:28] == torch.tensor([0.0] * 6 + [0.5] * 4 + [1.0] * 6)).all()
    sure[10:50, 50:] = 0.5
    assert (cutout.trimap(sure)[30, 44:] == 0.5)[4:].all() and cutout.trimap(sure)[30, 47] == 1
    for value, due in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5)):
        assert (cutout.trimap(torch.full((7, 9), value)) == due).all()  # the border is no edge


def test_a_matte_without_its_library_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    photo, *_, coarse = scene()
    picture = Image.fromarray(photo.clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy())
    with pytest.raises(ImportError, match=r"pip install 'u2learn\[cutout\]'.*follows the map"):
        cut_out(picture, coarse, matted=True)
