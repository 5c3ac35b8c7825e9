"""Times are real numbers from 0 (source) to 1 (data); steps of a diffusion, 0 to 999, must not pass for them."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

REAL = "times are real numbers from 0 (source) to 1 (data)"


def check_not_integer(t: Tensor | float) -> None:
    """Refuse integer time steps in place of times; the numbers 0 and 1 themselves are times.

    Raises:
        ValueError: for a tensor or array of integers or bool, or a Python integer other than 0 and 1.
        TypeError: for a generator in the place of t.
    """
    if isinstance(t, Tensor):
        if not t.is_floating_point():
            raise ValueError(f"t holds {t.dtype}: {REAL}; divide steps by their number.")
    elif isinstance(t, torch.Generator):
        raise TypeError("t is a torch.Generator: pass it by its name, generator=...")
    elif isinstance(t, Integral):
        if t not in (0, 1):
            raise ValueError(f"t is {t}: {REAL}; divide steps by their number.")
    elif getattr(getattr(t, "dtype", None), "kind", "f") not in "f":  # of NumPy
        raise ValueError(f"t holds {t.dtype}: {REAL}; divide steps by their number.")  # type: ignore[attr-defined]


def check_within(t: Tensor, first: float = 0.0, last: float = 1.0) -> None:
    """Refuse times outside [first, last], on the CPU only: elsewhere the answer would keep the host waiting.

    Nothing is looked at while a graph is compiled or a function transform of PyTorch runs: there are no values then.

    Raises:
        ValueError: with the least and the largest time.
    """
    if t.device.type != "cpu" or torch.compiler.is_compiling() or t.numel() == 0:
        return
    try:
        low, high = (t.detach().item(),) * 2 if t.ndim == 0 else (one.item() for one in t.detach().aminmax())
    except RuntimeError:
        return
    if not (first <= low and high <= last):
        found = f"t is {low:g}" if low == high else f"t runs from {low:g} to {high:g}"
        raise ValueError(f"{found}: {REAL}; divide steps of a diffusion by their number.")
