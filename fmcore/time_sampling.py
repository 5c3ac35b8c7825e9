"""Which times a network is trained at, and how a loss weighs them.

Times are those of this package, 0 at the source and 1 at the data. All draws are in [0, 1]; a loss multiplies them by
the last time of its path, where that is singular beyond.

    uniform        U(0, 1), what the losses draw by themselves
    logit_normal   1 / (1 + exp(-(mean + std z))), z standard normal: the middle more often, towards the data for a
                   positive mean (Esser et al. 2024, section 3.1, whose times run the other way)
    shifted        t / (s - (s - 1) t): towards the source for s above 1, for images of more pixels, of which the same
                   noise hides less (Esser et al. 2024, section 5.3.2, equation 23 in the time of this package)

Weights turn the error of a velocity into that of another prediction. With x_t = alpha x1 + sigma x0 and
D = alpha' sigma - sigma' alpha, an error e of the velocity is one of (alpha / D) e of the noise and of (sigma / D) e of
the data: so a velocity can be trained as either would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.validation import check_count, check_generator

Weight = Callable[[Tensor], Tensor]


def uniform(n: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Draw n times from U(0, 1): (n,), float32."""
    check_count("n", n, least=0)
    check_generator(generator, torch.device(device))
    return torch.rand(n, generator=generator, device=device)


def logit_normal(
    n: int,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw n times whose logits are N(mean, std^2): (n,), float32 in [0, 1].

    Raises:
        ValueError: for a std that is not above 0, a number that is not finite, or a generator on another device.
    """
    check_count("n", n, least=0)
    if not (0 < std < math.inf and math.isfinite(mean)):
        raise ValueError(f"mean={mean}, std={std}: the logits of the times are normal, with a std above 0")
    check_generator(generator, torch.device(device))
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator, device=device))


def shifted(t: Tensor, shift: float) -> Tensor:
    """Move times in [0, 1] towards the source (shift above 1) or the data (below): t / (s - (s - 1) t).

    Raises:
        ValueError: for a shift that is not above 0.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift={shift}: times are shifted by a number above 0, and 1 leaves them as they are")
    return t / (shift - (shift - 1) * t)


def weight(name: str, path: AffinePath) -> Weight | None:
    """The weight of a squared error of the velocity that stands for that of another prediction.

    Args:
        name: "none" for the velocity itself, "noise" or "data".
        path: of the times.

    Returns:
        A function of t (B,), or None for a weight of 1.

    Raises:
        ValueError: for another name.
    """
    if name == "none":
        return None
    if name not in ("noise", "data"):
        raise ValueError(f"unknown weight {name!r}: choose one of none, noise, data")

    def of_times(t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        error = (alpha if name == "noise" else sigma) / (path.d_alpha(t) * sigma - path.d_sigma(t) * alpha)
        return error.square()

    return of_times
