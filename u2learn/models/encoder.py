"""A U whose way down is the body of a classification network: what that learned on a million images stays."""

from collections.abc import Sequence

from torch import nn

from u2learn.models.conv import double_conv
from u2learn.models.ulevel import ULevel
from u2learn.models.unet import UNet


def unet_from_stages(stages: Sequence[nn.Module], channels: Sequence[int], num_classes: int = 2) -> UNet:
    """A U-Net whose encoder is `stages`, the finest first, each of which goes down by itself.

    Stage i maps (B, channels[i - 1], H, W) to (B, channels[i], h, w), with any h <= H and w <= W: half as a
    rule, a quarter after the stem of some. On the way up, each map is resized to the one beside it and joined
    with it, as everywhere, and the logits are resized to the image. The stages are used as they are, with
    their weights. They expect images as they were trained, mostly by the mean and the deviation of ImageNet,
    which a recipe calls normalisation="imagenet". The decoder starts from nothing. With torchvision:

        net = torchvision.models.resnet18(weights="DEFAULT")
        stem = nn.Sequential(net.conv1, net.bn1, net.relu)  # (B, 64, H/2, W/2)
        deeper = nn.Sequential(net.maxpool, net.layer1)  # (B, 64, H/4, W/4)
        stages = [stem, deeper, net.layer2, net.layer3, net.layer4]
        model = unet_from_stages(stages, [64, 64, 128, 256, 512], num_classes=2)
        logits = model(image)[0]  # (B, 2, H, W)

    Raises:
        ValueError: fewer than two stages, or not as many channels as stages.

    Source: Iglovikov and Shvets, 2018 (a U-Net on VGG11, trained on ImageNet).
    """
    if len(stages) < 2 or len(stages) != len(channels):
        raise ValueError(
            f"A U needs at least two stages, and the channels after each: {len(stages)} stages and "
            f"{len(channels)} numbers of channels were given."
        )
    body, deep = stages[-1], channels[-1]
    for stage, width in zip(stages[-2::-1], channels[-2::-1], strict=True):
        decode = double_conv(deep + width, width, bias=False)
        body, deep = ULevel(stage, body, decode, down=nn.Identity()), width
    return UNet(body, head=nn.Conv2d(deep, num_classes, kernel_size=1))
