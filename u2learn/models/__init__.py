"""Networks, and the names by which a recipe knows them."""

from u2learn.models import blocks, half, u2net, unet
from u2learn.registry import MODELS

MODELS |= {
    "unet_s5_d16": unet.unet_s5_d16,
    "unet_paddle": unet.unet_paddle,
    "unet_small": unet.unet_small,
    "wnet_small": unet.wnet_small,
    "half_unet": half.half_unet,
    "u2net": u2net.u2net,
    "u2net_small": u2net.u2net_small,
    "u2net_blocks": blocks.u2net_blocks,
}
