"""Networks: learned velocities (x, t) -> v."""

from fmcore.networks.concat_squash import ConcatSquashNet
from fmcore.networks.mlp import MLP
from fmcore.networks.unet import UNet

__all__ = ["MLP", "ConcatSquashNet", "UNet"]
