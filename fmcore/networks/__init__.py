"""Networks: learned velocities (x, t) -> v."""

from fmcore.networks.mlp import MLP
from fmcore.networks.unet import UNet

__all__ = ["MLP", "UNet"]
