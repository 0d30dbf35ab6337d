"""The optimiser that is written here: Muon, against linear algebra and against AdamW."""

import pytest
import torch
from test_training import CROSSES, MORE, run, same, tiny

from u2learn import training
from u2learn.optimisers import Muon, orthogonal
from u2learn.training import TimeIsUpError, train


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (8, 8)], ids=str)
def test_an_orthogonal_step_keeps_the_directions_and_evens_the_sizes(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonal(matrix) @ v.T  # diagonal where the singular vectors are the same
    torch.testing.assert_close(inside, torch.diag(inside.diag()), rtol=0, atol=1e-4)
    assert (inside.diag() > 0.3).all() and (inside.diag() < 1.3).all()


def test_muon_is_adamw_for_all_but_wide_kernels():
    def net():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 5, 1, bias=False), torch.nn.BatchNorm2d(5), torch.nn.Conv2d(5, 2, 3)
        )

    nets = net(), net()
    groups = [[{"params": n[:2].parameters(), "weight_decay": 0.1}] for n in nets]
    muon, adam = (
        Muon(groups[0], 0.01, 0.9, (0.8, 0.95)),
        torch.optim.AdamW(groups[1], 0.01, (0.8, 0.95)),
    )
    for seed in range(4):
        image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        for one, optimiser in zip(nets, (muon, adam), strict=True):
            optimiser.zero_grad()
            one(image).square().mean().backward()
            optimiser.step()
    for ours, theirs in zip(*(n.parameters() for n in nets), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    before = nets[0][2].weight.clone()
    Muon(nets[0][2:].parameters(), 0.01, 0.9, (0.8, 0.95)).step()
    size = (nets[0][2].weight - before).square().mean().sqrt()
    assert 0.5 * 0.2 * 0.01 < size < 1.5 * 0.2 * 0.01  # as large as a step of Adam: 0.2 of the rate


def test_a_run_with_muon_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    recipe = tiny(optimiser="muon", iterations=6, evaluations=1)
    whole = run(tmp_path / "whole", recipe)
    with pytest.raises(TimeIsUpError), monkeypatch.context() as patch:
        patch.setattr(training, "CHECK_EVERY", 3)
        train(recipe, tmp_path / "halves", CROSSES, MORE, device="cpu", progress=False, minutes=-1)
    assert same(whole.state_dict(), run(tmp_path / "halves", recipe).state_dict())
