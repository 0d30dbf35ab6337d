"""A U on the stages of a classification network: any stem, any size, and the stages stay what they are."""

import pytest
import torch
from torch import nn

from u2learn.models.encoder import unet_from_stages


def stage(a, b, stride=2):
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, padding=1), nn.BatchNorm2d(b), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.one, self.two = stage(a, b, stride), nn.Conv2d(b, b, 3, padding=1)
        self.short = nn.Conv2d(a, b, 1, stride)

    def forward(self, x):
        return torch.relu(self.two(self.one(x)) + self.short(x))


def halving():
    """Each stage, the first too, gives half the size."""
    return [stage(3, 4), stage(4, 6), stage(6, 8)], [4, 6, 8]


def resnet():
    """As ResNet: the stem alone goes down by four, and the first layer not at all."""
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    return [stem, Residual(4, 6, 1), Residual(6, 8, 2), Residual(8, 10, 2)], [4, 6, 8, 10]


def plain():
    """As VGG: the first stage keeps the size."""
    return [stage(3, 4, 1), stage(4, 6), stage(6, 8)], [4, 6, 8]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 33), (64, 48), (97, 131)])
@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("build", [halving, resnet, plain])
def test_logits_have_the_images_size_whatever_it_is(build, classes, size):
    model = unet_from_stages(*build(), num_classes=classes).eval()
    with torch.no_grad():
        maps = model(torch.rand(2, 3, *size))
    assert [x.shape for x in maps] == [(2, classes, *size)] and maps[0].isfinite().all()


@pytest.mark.parametrize("build", [halving, resnet, plain])
def test_each_stage_sees_what_the_one_before_it_gave_and_no_pooling_between(build):
    """The deepest map is the classification network's own, and each decoder sees the stage beside it."""
    stages, channels = build()
    model, image = unet_from_stages(stages, channels).eval(), torch.rand(1, 3, 61, 40)
    with torch.no_grad():
        alone = [image]
        for part in stages:
            alone.append(part(alone[-1]))
    seen, joined = [], []
    for part in stages:
        part.register_forward_hook(lambda _, inputs, out: seen.append(out))
    level = model.body
    for _ in stages[:-1]:
        level.decode.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
        level = level.inner
    with torch.no_grad():
        model(image)
    assert all(torch.equal(a, b) for a, b in zip(seen, alone[1:], strict=True))
    for i, both in zip(reversed(range(len(stages) - 1)), joined, strict=True):
        assert torch.equal(both[:, -channels[i] :], seen[i])  # (up, skip)
        assert both.shape[1] == channels[i] + channels[i + 1]


def test_the_stages_are_used_as_they_are_and_learn():
    stages, channels = resnet()
    before = [p.clone() for part in stages for p in part.parameters()]
    model = unet_from_stages(stages, channels, num_classes=3)
    own = [p for part in stages for p in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, own, strict=True))
    ids = {id(p) for p in model.parameters()}
    assert all(id(p) in ids for p in own)
    model(torch.rand(2, 3, 40, 40))[0].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own if p.ndim == 4)


def test_it_learns_to_find_a_square():
    torch.manual_seed(0)
    image = torch.rand(4, 3, 32, 32) / 4
    label = torch.zeros(4, 32, 32, dtype=torch.long)
    for i, (top, left) in enumerate([(2, 3), (12, 8), (16, 16), (5, 14)]):
        image[i, :, top : top + 12, left : left + 12] += 0.5
        label[i, top : top + 12, left : left + 12] = 1
    model = unet_from_stages(*halving())
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(image)[0], label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = model(image)[0].argmax(1)
    assert (found == label).float().mean() > 0.95


@pytest.mark.parametrize(("stages", "channels"), [(0, 0), (1, 1), (2, 3), (3, 2)])
def test_what_makes_no_u_is_refused(stages, channels):
    parts, widths = halving()
    with pytest.raises(ValueError, match=rf"{stages} stages and {channels} numbers.*\.$"):
        unet_from_stages(parts[:stages], widths[:channels])
