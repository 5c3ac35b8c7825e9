"""Checks of what a source is given: how many samples to draw, from which generator, and points to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.validation import check_count, check_floating, check_generator


def drawing_device(
    n: int, generator: torch.Generator | None, device: torch.device | str | None
) -> torch.device | str | None:
    """Where n samples are drawn: on the device that is asked for, else on the generator's.

    Raises:
        ValueError: if n is not a number of samples, or the generator is on another kind of device.
        TypeError: for anything in place of a generator that is none, such as a seed.
    """
    check_count("n", n, "samples", least=0)
    check_generator(generator, device)
    return generator.device if device is None and generator is not None else device


def check_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Require samples (n, *shape) in floating point.

    Raises:
        ValueError: for another shape.
        TypeError: for whole numbers.
    """
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, but the source's samples have shape {shape}.")
    check_floating("x", x)
