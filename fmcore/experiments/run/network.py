"""The network of an experiment, and the velocity that its predictions stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from fmcore import velocity as velocities
from fmcore.experiments.config.experiment import VELOCITY_LOSSES, Configuration
from fmcore.guidance import guided
from fmcore.networks.unet import UNet
from fmcore.training import derived_seed
from fmcore.training.device import fastest_convolutions
from fmcore.velocity import Velocity


def build_network(configuration: Configuration, shape: tuple[int, int, int], classes: int | None = None) -> UNet:
    """The untrained network for images of shape (C, H, W); its weights follow from the training seed.

    Args:
        configuration: of the experiment.
        shape: of an image.
        classes: how many the data set has; needed where the configuration has labels, and ignored elsewhere.

    Raises:
        ValueError: for labels where there are not at least two classes.
    """
    if configuration.labels and (classes is None or classes < 2):
        raise ValueError(
            f"labels=true needs images of at least two classes, and {configuration.data} has {classes or 'none'}"
        )
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
            num_classes=classes if configuration.labels else None,
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

    twice = configuration.labels and settings.guidance_scale not in (0, 1)  # with the class and without it
    size = settings.solver_batch * (1 + twice)

    def predict(x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        called = compiled if len(x) == size else network  # another size would be compiled anew
        rounded = settings.sample_precision == "bf16"
        with (
            torch.autocast(x.device.type, torch.bfloat16, enabled=rounded),
            fastest_convolutions() if rounded else nullcontext(),
        ):
            return called(x.contiguous(memory_format=layout), t, *labels).to(x.dtype)

    return predict


def given_classes(
    network: Callable[..., Tensor],
    configuration: Configuration,
    labels: Tensor,
    classes: int,
    scale: float | None = None,
) -> Velocity:
    """The velocity of samples of these classes, on the scale of the network.

    Args:
        network: that was built with labels, or as `for_sampling` returns it.
        configuration: of the experiment.
        labels: (B,) whole numbers.
        classes: how many there are.
        scale: of the guidance; None for that of the configuration.

    Raises:
        ValueError: if the network was not told classes, for labels outside 0..classes - 1, or for a scale that needs
            the velocity of all classes where it was not learned.
    """
    if not configuration.labels:
        raise ValueError("this network was trained without classes: train one with labels=true")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}, got {labels.tolist()[:5]}")
    scale = configuration.evaluation.guidance_scale if scale is None else scale
    if not math.isfinite(scale) or (scale != 1 and configuration.label_dropout == 0):
        raise ValueError(
            f"guidance {scale}: it is a number, and with label_dropout=0 only 1, since the network never saw an image "
            "without its class"
        )
    return as_velocity(guided(network, labels, scale, classes), configuration)


def as_velocity(network: Velocity, configuration: Configuration) -> Velocity:
    """The velocity that belongs to what the network predicts."""
    path = configuration.build_path()
    if configuration.loss in VELOCITY_LOSSES:
        return network
    if configuration.loss == "data_prediction":
        return velocities.from_data(network, path)
    if configuration.loss == "noise_prediction":
        return velocities.from_noise(network, path)
    return velocities.from_score(network, path)
