"""What networks look at before they compute: times, labels, and that data and weights have one precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fmcore.paths.times import check_not_integer
from fmcore.velocity import two_dtypes


def time_of(x: Tensor, t: Tensor | float) -> Tensor:
    """Return t as a floating-point tensor on the device of x, in its own precision.

    Times outside [0, 1] are let through: an adaptive solver guesses how long its first step may be, and asks there.
    Losses, which draw or are given the times of a path, refuse them.

    Args:
        x: (B, *shape).
        t: a number, or a tensor of shape () or (B,).

    Raises:
        ValueError: for whole-number times, or times of another shape.
    """
    check_not_integer(t)
    if not isinstance(t, Tensor):
        t = torch.as_tensor(t, dtype=torch.promote_types(x.dtype, torch.float32))
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        raise ValueError(
            f"t has shape {tuple(t.shape)}, but x has shape {tuple(x.shape)}: pass one time for all (shape ()) "
            f"or one per sample (shape ({len(x)},)); t.reshape(-1) drops extra axes of size one."
        )
    return t if t.device == x.device else t.to(x.device)


def labels_of(x: Tensor, labels: Any, num_classes: int | None) -> Tensor:
    """Return labels as int64 on the device of x.

    Args:
        x: (B, *shape).
        labels: (B,) whole numbers in {0, ..., num_classes}, num_classes meaning "none": a tensor, an array or a list.
        num_classes: of the network; None if it was built without labels.

    Raises:
        ValueError: for a network without labels, labels of another shape or kind, or (if they come on the CPU) of
            other values.
    """
    if num_classes is None:
        raise ValueError("this network was built without labels: leave them out, or build it with num_classes")
    if not isinstance(labels, Tensor):
        labels = torch.as_tensor(labels)
    if labels.shape != (len(x),) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers of shape ({len(x)},), got {labels.dtype} {tuple(labels.shape)}")
    labels = labels.long()  # an embedding does not look up bytes
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return labels.to(x.device)  # looking at values would break the graph, or wait for the device in every step
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, or be {num_classes} for no label; "
            f"got values from {int(labels.min())} to {int(labels.max())}"
        )
    return labels.to(x.device)


def check_precision(x: Tensor, weight: Tensor) -> None:
    """Require that x has the precision of the weights; under autocast, that it is one which autocast converts.

    Raises:
        ValueError: naming both, and what to convert.
    """
    if x.dtype == weight.dtype:
        return
    if x.is_floating_point() and x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        return
    if not x.is_floating_point():
        name = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"x is {name}: a velocity takes real numbers, images on the scale [-1, 1]; scale x first.")
    raise two_dtypes(x.dtype, weight.dtype)
