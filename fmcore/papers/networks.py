"""The networks that experiments of several papers share."""

from __future__ import annotations

from fmcore.experiments.config.experiment import NetworkConfig

# The U-Net of Dhariwal and Nichol on CIFAR-10, 35,746,307 parameters, with the dropout that its users train it with.
CIFAR10 = NetworkConfig(128, (1, 2, 2, 2), 2, (16,), head_channels=64, dropout=0.1)
# For real CIFAR-10 on one CPU core: 687,347 parameters.
CIFAR10_SMALL = NetworkConfig(channels=16, multipliers=(1, 2, 4), blocks=1, attention=(8,), heads=4)
# For images of 8x8 pixels.
DIGITS = NetworkConfig(channels=16, multipliers=(1, 2), blocks=1, attention=(4,), heads=2)
