"""The images that a measurement is taken on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fmcore import data
from fmcore.data.images import ImageData


def chosen_training_images(
    name: str, place: str | None, count: int | None, generator: torch.Generator
) -> tuple[ImageData, Tensor]:
    """A data set, and so many of its training images (n, C, H, W) chosen at random; none for all, in their order.

    Raises:
        ValueError: if there are fewer than asked for.
        OSError: if the data is not in its place.
    """
    found = data.by_name(name, None if place is None else Path(place).expanduser())
    images = found.train
    if count is not None and count > len(images):
        raise ValueError(f"images={count}, and {found.name} has {len(images)}: take fewer, or all (images=none)")
    return found, images if count is None else images[torch.randperm(len(images), generator=generator)[:count]]
