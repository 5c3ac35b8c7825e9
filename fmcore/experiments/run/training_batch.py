"""What a step of training sees: which images, as which points, in which pairs, and the loss of a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fmcore import couplings, data, distributed, losses, time_sampling
from fmcore.closed_form import draw_bank
from fmcore.data.images import ImageData, dequantize
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.guidance import drop_labels
from fmcore.networks.unet import UNet
from fmcore.sources import Gaussian
from fmcore.training import Prepare, random_flips, resident, seeded_generator
from fmcore.training.batches import Rows

COUPLINGS: dict[str, Callable[[], Any]] = {
    "independent": lambda: couplings.independent,
    "minibatch_ot": couplings.MinibatchOT,
    "nearest_noise": couplings.NearestNoise,
}


def training_images(configuration: Configuration, images: ImageData) -> Tensor:
    """The images that a configuration trains on: the training split, or as many of it as `train_images` says.

    Raises:
        ValueError: if the split has fewer.
    """
    rows = _rows(configuration, images)
    return images.train if rows is None else images.train[rows]


def training_labels(configuration: Configuration, images: ImageData) -> Tensor:
    """Their classes, (n,) int64; raises as `training_images`."""
    rows = _rows(configuration, images)
    return images.train_labels if rows is None else images.train_labels[rows]


def _rows(configuration: Configuration, images: ImageData) -> Tensor | None:
    """Which rows of the training split are trained on; None for all."""
    count = configuration.train_images
    if count is None:
        return None
    if count > len(images.train):
        raise ValueError(f"train_images={count}, and {images.name} has {len(images.train)}: ask for fewer, or for none")
    generator = seeded_generator(configuration.training.seed, "train_images")
    return torch.randperm(len(images.train), generator=generator)[:count]


def training_rows(configuration: Configuration, images: ImageData, train_on: Tensor) -> Rows:
    """What batches are taken from: the images trained on, with their classes where the network is told them."""
    return TensorDataset(train_on, training_labels(configuration, images)) if configuration.labels else train_on


def batch_maker(configuration: Configuration, images: ImageData, source: FittedSource | None = None) -> Prepare:
    """Whole-number images to pairs (x0, x1): flips, dequantization noise, the source, and the coupling.

    With labels, a batch is images and their classes, and pairs come with these, of which the network gets most.

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
    couple = COUPLINGS[configuration.coupling]()
    as_points = point_maker(configuration, images)

    def prepare(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return drawn.pairs(as_points(batch, generator), couple, generator)

    def prepare_labelled(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        points, labels = as_points(batch[0], generator), batch[1]
        pairs = drawn.pairs(points, lambda x0, x1: couple(x0, x1, labels), generator)
        return *pairs, drop_labels(labels, configuration.label_dropout, images.num_classes, generator)

    return prepare_labelled if configuration.labels else prepare


def point_maker(configuration: Configuration, images: ImageData) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Whole-number images to what the network learns from: flipped or not, at a random place in bins or the middle."""

    def as_points(batch: Tensor, generator: torch.Generator) -> Tensor:
        flipped = random_flips(batch, generator) if configuration.flips else batch
        return dequantize(flipped, images.levels, generator) if configuration.dequantize else images.scaled(flipped)

    return as_points


def batch_loss(configuration: Configuration, images: ImageData, train_on: Tensor) -> Any:
    """The loss of a batch of pairs, for `fmcore.training.train`; a bank is drawn from the images trained on."""
    path = configuration.build_path()
    times = time_drawer(configuration)
    if configuration.bank is not None:
        further = configuration.bank - 1
        as_points = point_maker(configuration, images)
        held = cast(Tensor, resident(train_on, distributed.local_device())[0])

        def empirical(model: UNet, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
            rows = draw_bank(held, further, generator)[0].to(batch[1].device)
            bank = as_points(rows, generator)
            t = times(len(batch[1]), generator)
            return losses.empirical_flow_matching(model, path, *batch, bank, t, generator=generator)

        return empirical
    measure = getattr(losses, configuration.loss)
    weighed = {} if configuration.weight == "none" else {"weight": time_sampling.weight(configuration.weight, path)}

    def loss(model: UNet, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        x0, x1, *labels = batch
        t = times(len(x1), generator)
        return measure(lambda x, t: model(x, t, *labels), path, x0, x1, t, generator=generator, **weighed)

    return loss


def time_drawer(configuration: Configuration) -> Callable[[int, torch.Generator], Tensor | None]:
    """What draws the times of a micro-batch, (n,) up to the last of the path; None leaves uniform ones to the loss."""
    settings, last = configuration, configuration.build_path().t_max
    if settings.times == "uniform" and settings.times_shift == 1:
        return lambda n, generator: None

    def times(n: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        t = time_sampling.uniform(n, generator, device)
        if settings.times == "logit_normal":
            drawn = time_sampling.logit_normal(n, settings.times_mean, settings.times_std, generator, device)
            plain = torch.rand(n, generator=generator, device=device) < settings.times_uniform
            t = torch.where(plain, t, drawn)
        return last * time_sampling.shifted(t, settings.times_shift)

    return times


def load_data(configuration: Configuration) -> ImageData:
    """The data set of a configuration; the errors of `fmcore.data.by_name` say what is missing and where to get it."""
    place = None if configuration.data_dir is None else Path(configuration.data_dir).expanduser()
    if configuration.size is None:
        return data.by_name(configuration.data, place)
    if place is None:
        raise ValueError("data=folder needs data_dir=FOLDER: the folder that your images are in")
    return data.image_folder(place, configuration.size, skip_broken=configuration.skip_broken)
