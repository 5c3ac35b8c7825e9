"""Checks of what callers pass in. Each error says what was found, what was expected and what to do."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Collection, Iterable
from numbers import Real

import torch
from torch import Tensor


def check_time(t: Tensor | float, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``t`` as a tensor on ``x``'s device and in its dtype.

    Args:
        t: a number, or a tensor of shape () or (B,).
        x: (B, *shape), the points that the times belong to.
        dtype: of the result, in place of that of ``x``.

    Raises:
        ValueError: if ``t`` has any other shape, for example (B, 1), which would broadcast silently.
    """
    t = torch.as_tensor(t, dtype=x.dtype if dtype is None else dtype, device=x.device)
    if t.ndim == 0 or t.shape == x.shape[:1]:
        return t
    raise ValueError(
        f"t has shape {tuple(t.shape)}, but x has shape {tuple(x.shape)}: pass one time for all (shape ()) "
        f"or one per sample (shape ({x.shape[0]},)); t.reshape(-1) drops extra axes of size one."
    )


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """Give ``t`` of shape () or (B,) the axes it needs to broadcast against ``x`` (B, *shape)."""
    return t if t.ndim == 0 else t.reshape(-1, *([1] * (x.ndim - 1)))


def check_pair(x0: Tensor, x1: Tensor) -> None:
    """Require source and data samples of one shape, floating dtype and device.

    Raises:
        ValueError: if the shapes or devices differ.
        TypeError: if either holds integers (uint8 images must be scaled first).
    """
    if x0.shape != x1.shape:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)} and x1 has shape {tuple(x1.shape)}: each source sample needs exactly "
            "one data sample of the same shape; draw the source with len(x1) samples of x1's shape."
        )
    check_floating("x0", x0)
    check_floating("x1", x1)
    if x0.device != x1.device:
        raise ValueError(f"x0 is on {x0.device} and x1 on {x1.device}: move both to one device with .to(device).")


def check_floating(name: str, x: Tensor, scale: bool = False) -> None:
    """Require floating point: whole-number images are on another scale, and a byte cannot hold a square.

    Args:
        name: of x, for the error.
        x: points or images, of any shape.
        scale: whether the caller has an argument ``scale`` that converts them, for the error.

    Raises:
        TypeError: for whole numbers, complex numbers or booleans.
    """
    if not x.is_floating_point():
        remedy = "pass scale=..., or scale it" if scale else "scale it"
        raise TypeError(f"{name} holds {x.dtype}: {remedy} to floating point first (images to [-1, 1]).")


def check_count(name: str, value: object, kind: str | None = None, least: int = 1) -> None:
    """Require a whole number of at least ``least``; True and False are none.

    Args:
        name: of the argument, for the error.
        value: what was passed: a whole number of Python, NumPy or a tensor.
        kind: what is counted, for the error; by default the name says it, as in ``steps``.
        least: the smallest number allowed.

    Raises:
        ValueError: with the number to write instead, where that is clear.
    """
    truth = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool
    try:
        whole = None if truth else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = None
    if whole is None:
        number = float(value) if isinstance(value, Real) and not truth else math.nan
        near = number.is_integer() and number >= least
        example = f"write {name}={number:.0f}" if near else f"for example {name}=50"
        raise ValueError(f"{name}={value!r}: a number of {kind or name} is a whole number, {example}.")
    if whole < least:
        raise ValueError(f"{name} is {whole}: it must be at least {least}.")


def check_finite(name: str, x: Tensor) -> None:
    """Require that ``x`` holds neither NaN nor infinity.

    Raises:
        ValueError: with the number of bad samples and the index of the first.
    """
    if torch.isfinite(x).all():
        return
    bad = (~torch.isfinite(x)).reshape(len(x), -1).any(dim=1) if x.ndim else ~torch.isfinite(x).reshape(1)
    first = int(bad.nonzero()[0])
    raise ValueError(
        f"{name} has NaN or infinite values in {int(bad.sum())} of {bad.numel()} samples (the first is number "
        f"{first}): remove or repair them before training or sampling."
    )


def check_generator(generator: object, device: torch.device | str | None = None) -> None:
    """Require a source of random numbers that PyTorch can draw from, on the device on which they are drawn.

    Args:
        generator: a ``torch.Generator``, or None for PyTorch's global one, which is on every device.
        device: where the numbers are drawn; None where the generator itself decides.

    Raises:
        TypeError: for a seed, a NumPy generator or anything else in its place.
        ValueError: for a generator on another kind of device.
    """
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        kind = type(generator)
        name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        seed = generator if isinstance(generator, int) and not isinstance(generator, bool) else 0
        raise TypeError(
            f"generator is {generator!r} ({name}): pass a torch.Generator, for example "
            f"torch.Generator().manual_seed({seed})."
        )
    device = None if device is None else torch.device(device)
    if device is not None and generator.device.type != device.type:
        raise ValueError(
            f"the generator is on {generator.device} and draws numbers for {device}: make it there, "
            f"torch.Generator({str(device)!r}).manual_seed(0)."
        )


def level_of_caller(between: Collection[str] = ()) -> int:
    """The ``stacklevel`` with which `warnings.warn` points at the nearest line outside this package that led here.

    It is counted from the function that calls this one, and does not depend on how many of ours lie between.

    Args:
        between: other packages through which this one may call itself.
    """
    passed, frame, level = {__name__.partition(".")[0], *between}, sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in passed:
        frame, level = frame.f_back, level + 1
    return level


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is not in the list, with the list."""
    return ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(known))}.")
