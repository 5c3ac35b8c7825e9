"""What a step of training sees: which images, as which points, in which pairs, and the loss of a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fmcore import couplings, data, distributed, losses
from fmcore.closed_form import draw_bank
from fmcore.data.images import ImageData, dequantize
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.networks.unet import UNet
from fmcore.sources import Gaussian
from fmcore.training import Prepare, random_flips, resident, seeded_generator


def training_images(configuration: Configuration, images: ImageData) -> Tensor:
    """The images that a configuration trains on: the training split, or as many of it as `train_images` says.

    Raises:
        ValueError: if the split has fewer.
    """
    count = configuration.train_images
    if count is None:
        return images.train
    if count > len(images.train):
        raise ValueError(f"train_images={count}, and {images.name} has {len(images.train)}: ask for fewer, or for none")
    generator = seeded_generator(configuration.training.seed, "train_images")
    return images.train[torch.randperm(len(images.train), generator=generator)[:count]]


def batch_maker(configuration: Configuration, images: ImageData, source: FittedSource | None = None) -> Prepare:
    """Whole-number images to pairs (x0, x1): flips, dequantization noise, the source, and the coupling.

    Args:
        configuration: of the experiment.
        images: its data set.
        source: what was fitted to the training images; the standard Gaussian needs nothing.

    Raises:
        ValueError: if the source of the configuration had to be fitted, and none is given.
    """
    if source is None:
        if not configuration.source.is_plain:
            raise ValueError(f"distribution={configuration.source.distribution} must be fitted first: pass its source")
        source = FittedSource(configuration.source, Gaussian(images.shape))
    drawn = source
    couple = couplings.MinibatchOT() if configuration.coupling == "minibatch_ot" else couplings.independent
    as_points = point_maker(configuration, images)

    def prepare(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return drawn.pairs(as_points(batch, generator), couple, generator)

    return prepare


def point_maker(configuration: Configuration, images: ImageData) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Whole-number images to what the network learns from: flipped or not, at a random place in bins or the middle."""

    def as_points(batch: Tensor, generator: torch.Generator) -> Tensor:
        flipped = random_flips(batch, generator) if configuration.flips else batch
        return dequantize(flipped, images.levels, generator) if configuration.dequantize else images.scaled(flipped)

    return as_points


def batch_loss(configuration: Configuration, images: ImageData, train_on: Tensor) -> Any:
    """The loss of a batch of pairs, for `fmcore.training.train`; a bank is drawn from the images trained on."""
    path = configuration.build_path()
    if configuration.bank is not None:
        further = configuration.bank - 1
        as_points = point_maker(configuration, images)
        held = cast(Tensor, resident(train_on, distributed.local_device())[0])

        def empirical(model: UNet, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
            rows = draw_bank(held, further, generator)[0].to(batch[1].device)
            bank = as_points(rows, generator)
            return losses.empirical_flow_matching(model, path, *batch, bank, generator=generator)

        return empirical
    measure = getattr(losses, configuration.loss)

    def loss(model: UNet, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        return measure(model, path, *batch, generator=generator)

    return loss


def load_data(configuration: Configuration) -> ImageData:
    """The data set of a configuration; the errors of `fmcore.data.by_name` say what is missing and where to get it."""
    place = configuration.data_dir
    return data.by_name(configuration.data, None if place is None else Path(place).expanduser())
