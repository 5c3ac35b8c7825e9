"""The schedules alpha and sigma of the paths, with their derivatives in t: times of any shape to values of that shape.

They are methods of small dataclasses because lambdas can neither be pickled nor sent to other processes. Where each
comes from stands with the path in `fmcore.paths.named`; what each method is, with the protocol `Schedules`.
"""

# ruff: noqa: D102 - the methods are described once, in the protocol

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

HALF_PI = math.pi / 2


class Schedules(Protocol):
    """What each of the classes below has: functions of times t of any shape, with values of that shape."""

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the data."""

    def sigma(self, t: Tensor) -> Tensor:
        """The factor of the noise."""

    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha in t."""

    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of sigma in t."""


@dataclass(frozen=True)
class Rectified:
    """alpha = t, sigma = 1 - t."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)


@dataclass(frozen=True)
class OT:
    """alpha = t, sigma = 1 - (1 - sigma_min) t."""

    sigma_min: float

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t) + self.sigma_min * t  # as 1 - (1 - sigma_min) t it would lose its digits near t = 1

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -(1 - self.sigma_min))


@dataclass(frozen=True)
class VariancePreserving:
    """alpha = exp(-T/2), sigma^2 = 1 - exp(-T), T the integral of the noise rate from the data on."""

    beta_min: float
    beta_max: float

    def total(self, t: Tensor) -> Tensor:
        """T(s), the noise rate integrated from the data to s = 1 - t."""
        s = 1 - t
        return s * self.beta_min + s * s * ((self.beta_max - self.beta_min) / 2)

    def rate(self, t: Tensor) -> Tensor:
        """beta, the noise rate, at s = 1 - t."""
        return self.beta_min + (1 - t) * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.total(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.total(t))).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        return self.rate(t) / 2 * torch.exp(-self.total(t) / 2)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.rate(t) * torch.exp(-self.total(t)) / (2 * self.sigma(t))


@dataclass(frozen=True)
class VarianceExploding:
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^(1 - t)."""

    sigma_min: float
    sigma_max: float

    @property
    def log_ratio(self) -> float:
        """log(sigma_max / sigma_min)."""
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp((1 - t) * self.log_ratio)

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.log_ratio * self.sigma(t)


@dataclass(frozen=True)
class Cosine:
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(HALF_PI * t)

    def sigma(self, t: Tensor) -> Tensor:
        # cos(pi t / 2) written as a sine of 1 - t: exact 0 at t = 1, and full precision just before it.
        return torch.sin(HALF_PI * (1 - t))

    def d_alpha(self, t: Tensor) -> Tensor:
        return HALF_PI * torch.sin(HALF_PI * (1 - t))

    def d_sigma(self, t: Tensor) -> Tensor:
        return -HALF_PI * torch.sin(HALF_PI * t)
