"""The network of an experiment, and the velocity that its predictions stand for."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from fmcore import velocity as velocities
from fmcore.experiments.config.experiment import VELOCITY_LOSSES, Configuration
from fmcore.networks.unet import UNet
from fmcore.training import derived_seed
from fmcore.training.device import fastest_convolutions
from fmcore.velocity import Velocity


def build_network(configuration: Configuration, shape: tuple[int, int, int]) -> UNet:
    """The untrained network for images of shape (C, H, W); its weights follow from the training seed."""
    network = configuration.network
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(derived_seed(configuration.training.seed, "network"))
        return UNet(
            shape,
            channels=network.channels,
            multipliers=network.multipliers,
            blocks=network.blocks,
            attention=network.attention,
            heads=network.heads,
            head_channels=network.head_channels,
            dropout=network.dropout,
        )


def for_sampling(network: UNet, configuration: Configuration) -> Velocity:
    """The network as it is called while it samples: compiled and in bfloat16 where the evaluation says so.

    It shares the weights, so that loading others changes both. Where training had the channels last, so has this.
    """
    settings = configuration.evaluation
    if settings.sample_precision == "fp32" and not settings.sample_compile:
        return network
    layout = torch.channels_last if configuration.training.channels_last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    compiled = torch.compile(network) if settings.sample_compile else network

    def predict(x: Tensor, t: Tensor) -> Tensor:
        called = compiled if len(x) == settings.solver_batch else network  # another size would be compiled anew
        rounded = settings.sample_precision == "bf16"
        with (
            torch.autocast(x.device.type, torch.bfloat16, enabled=rounded),
            fastest_convolutions() if rounded else nullcontext(),
        ):
            return called(x.contiguous(memory_format=layout), t).to(x.dtype)

    return predict


def as_velocity(network: Velocity, configuration: Configuration) -> Velocity:
    """The velocity that belongs to what the network predicts."""
    path = configuration.build_path()
    if configuration.loss in VELOCITY_LOSSES:
        return network
    if configuration.loss == "noise_prediction":
        return velocities.from_noise(network, path)
    return velocities.from_score(network, path)
