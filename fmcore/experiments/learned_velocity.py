"""The network of an experiment, its weights, and the velocity that they stand for."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fmcore import velocity as velocities
from fmcore.checkpoints import check_same
from fmcore.experiments.configuration import VELOCITY_LOSSES, Configuration
from fmcore.experiments.source_config import SourceConfig
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


def load_weights(network: UNet, path: Path, source: SourceConfig | None = None) -> None:
    """Load a safetensors file; raises as `Run`, also if its weights were trained from another source."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: the training has not finished; continue it with fmcore train ... --resume"
        )
    try:
        with safe_open(path, "pt") as opened:
            said = (opened.metadata() or {}).get("source")
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or belongs to another network: {str(error).splitlines()[0]}") from None
    check_source(said, source, path)


def check_source(said: str | None, source: SourceConfig | None, path: Path) -> None:
    """Raise ValueError if weights say that they were trained from another source."""
    if said is not None and source is not None:
        check_same(json.loads(said), asdict(source), f"the weights in {path} were trained")
