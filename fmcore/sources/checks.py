"""Checks of what a source is given: how many samples to draw, from which generator, and points to look at."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from fmcore.validation import check_generator


def check_count(n: Any) -> None:
    """Require a number of samples.

    Raises:
        ValueError: unless n is a whole number of at least 0.
    """
    try:
        below = operator.index(n) < 0
    except TypeError:
        whole = isinstance(n, float) and n.is_integer() and n >= 0
        remedy = f"write n={n:.0f}" if whole else "write n=1000, for example"
        raise ValueError(f"n={n!r}: a number of samples is a whole number, {remedy}.") from None
    if below:
        raise ValueError(f"n={n}: a number of samples is at least 0.")


def drawing_device(
    n: int, generator: torch.Generator | None, device: torch.device | str | None
) -> torch.device | str | None:
    """Where n samples are drawn: on the device that is asked for, else on the generator's.

    Raises:
        ValueError: if n is not a number of samples, or the generator is on another kind of device.
        TypeError: for anything in place of a generator that is none, such as a seed.
    """
    check_count(n)
    check_generator(generator, device)
    return generator.device if device is None and generator is not None else device


def check_floating(name: str, x: Tensor, scale: bool = False) -> None:
    """Require floating point: whole-number images are on another scale, and a byte cannot hold a square.

    Args:
        name: of x, for the error.
        x: points or images.
        scale: whether the caller has an argument ``scale`` that converts them, for the error.

    Raises:
        TypeError: for anything else.
    """
    if not x.is_floating_point():
        remedy = "pass scale=..., or scale it" if scale else "scale it"
        raise TypeError(f"{name} holds {x.dtype}: {remedy} to floating point first (images to [-1, 1]).")


def check_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Require samples (n, *shape) in floating point.

    Raises:
        ValueError: for another shape.
        TypeError: for whole numbers.
    """
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, but the source's samples have shape {shape}.")
    check_floating("x", x)
