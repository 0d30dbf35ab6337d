"""U2Learn: U-Net and U²-Net, built up from one convolution: the code of the book."""

from u2learn.inference import fast, load_model, predict, pretrained, saliency, segment
from u2learn.models.conv import ConvBlock
from u2learn.models.official import load_official, to_official
from u2learn.models.rsu import RSU
from u2learn.models.u2net import U2Net, u2net, u2net_small
from u2learn.models.ulevel import ULevel
from u2learn.models.unet import UNet, WNet, unet_2015, unet_paddle, unet_s5_d16, unet_small, wnet_small
from u2learn.version import __version__ as __version__

__all__ = [
    "RSU",
    "ConvBlock",
    "U2Net",
    "ULevel",
    "UNet",
    "WNet",
    "fast",
    "load_model",
    "load_official",
    "predict",
    "pretrained",
    "saliency",
    "segment",
    "to_official",
    "u2net",
    "u2net_small",
    "unet_2015",
    "unet_paddle",
    "unet_s5_d16",
    "unet_small",
    "wnet_small",
]
