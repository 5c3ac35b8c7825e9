"""Distributions of one number, drawn by inverting a table of their cumulative distribution function.

Radii and cosines of high-dimensional sources have densities that are known up to a constant, smooth and with one peak.
A table of 2^14 intervals around the peak, in float64, is exact to about 1e-7 in probability, needs one uniform number a
sample, no rejection, and takes the device and the generator that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.checks import drawing_device

INTERVALS = 2**14


@dataclass(frozen=True, eq=False)
class Tabulated:
    """A distribution on [low, high], from the logarithm of its density up to a constant.

    Attributes:
        log_density: takes float64 values (m,), any real numbers; -inf where there is no density.
        low, high: ends of the table. What lies beyond is never drawn, but has its density.
        exact_constant: what must be added to log_density, if it is known; else the table gives it.
    """

    log_density: Callable[[Tensor], Tensor]
    low: float
    high: float
    exact_constant: float | None = None
    values: Tensor = field(init=False, repr=False)
    cumulative: Tensor = field(init=False, repr=False)
    log_constant: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = torch.linspace(self.low, self.high, INTERVALS + 1, dtype=torch.float64)
        logarithms = self.log_density(values)
        largest = float(logarithms.max())
        density = torch.exp(logarithms - largest)
        steps = torch.cumulative_trapezoid(density, values)
        cumulative = torch.cat([steps.new_zeros(1), steps]) / steps[-1]
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "cumulative", cumulative)
        object.__setattr__(self, "log_constant", -largest - math.log(float(steps[-1])))

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n values, (n,) float64, on the device (by default the generator's)."""
        device = drawing_device(n, generator, device)
        return self.inverse(torch.rand(n, generator=generator, device=device, dtype=torch.float64))

    def inverse(self, probability: Tensor) -> Tensor:
        """The values below which the distribution has these probabilities; linear between the lines of the table."""
        cumulative, values = self.cumulative.to(probability.device), self.values.to(probability.device)
        right = torch.searchsorted(cumulative, probability).clamp(1, INTERVALS)
        below, above = cumulative[right - 1], cumulative[right]
        share = ((probability - below) / (above - below).clamp(min=1e-300)).clamp(0, 1)
        return values[right - 1] + share * (values[right] - values[right - 1])

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density at x, shaped like x, float64; beyond the ends of the table too."""
        return self.log_density(x.double()) + (
            self.log_constant if self.exact_constant is None else self.exact_constant
        )

    @property
    def mean(self) -> float:
        """The mean, by the table."""
        return self._moment(self.values)

    @property
    def variance(self) -> float:
        """The variance, by the table."""
        return self._moment((self.values - self.mean) ** 2)

    def _moment(self, f: Tensor) -> float:
        density = torch.exp(self.log_density(self.values) + self.log_constant)
        return float(torch.trapezoid(density * f, self.values))


@dataclass(frozen=True)
class ChiLogDensity:
    """(dof - 1) log r - r^2 / 2 for lengths r, without the constant; -inf below 0."""

    dof: int

    def __call__(self, r: Tensor) -> Tensor:
        """The logarithm at lengths of any shape, in their dtype."""
        found = torch.special.xlogy(torch.as_tensor(self.dof - 1.0, dtype=r.dtype), r) - r.square() / 2
        return torch.where(r < 0, -torch.inf, found)

    @property
    def constant(self) -> float:
        """What makes the density's integral 1: (1 - dof / 2) log 2 - log Gamma(dof / 2)."""
        return (1 - self.dof / 2) * math.log(2) - math.lgamma(self.dof / 2)


@dataclass(frozen=True)
class AngleLogDensity:
    """kappa (cos a - 1) + power log sin a for angles a, without the constant; -inf outside [0, pi]."""

    kappa: float
    power: int

    def __call__(self, angle: Tensor) -> Tensor:
        """The logarithm at angles of any shape, in their dtype."""
        sines = torch.special.xlogy(torch.as_tensor(float(self.power), dtype=angle.dtype), angle.sin().clamp(min=0))
        found = sines + self.kappa * (angle.cos() - 1)
        return torch.where((angle < 0) | (angle > math.pi), -torch.inf, found)


def chi(dof: int) -> Tabulated:
    """The chi distribution, the length of a standard Gaussian in ``dof`` dimensions: density r^(dof - 1) exp(-r^2 / 2).

    Samples come from a table; `Tabulated.log_prob` is the closed form, at any length.

    Raises:
        ValueError: for fewer than one degree of freedom.
    """
    if not dof >= 1:
        raise ValueError(f"dof is {dof}: a chi distribution has at least one degree of freedom.")
    peak, density = math.sqrt(dof - 1), ChiLogDensity(dof)
    return Tabulated(density, max(0.0, peak - 9), peak + 9, density.constant)  # beyond, less than 1e-15


def angle_to_axis(dim: int, kappa: float) -> Tabulated:
    """The angle between a von Mises-Fisher direction and its mean direction: exp(kappa cos a) sin(a)^(dim - 2).

    Args:
        dim: of the space, at least 2.
        kappa: concentration, finite and at least 0 (uniform directions).

    Raises:
        ValueError: for other values.
    """
    if dim < 2 or not 0 <= kappa < math.inf:
        raise ValueError(f"dim is {dim} and kappa {kappa}: directions need dim >= 2 and a finite kappa of at least 0.")
    power = dim - 2
    # Where the derivative vanishes, kappa sin^2 = power cos, and how sharply the density is peaked there.
    cosine = (math.sqrt(power**2 + 4 * kappa**2) - power) / (2 * kappa) if kappa else 0.0
    peak = math.acos(min(1.0, cosine)) if power else 0.0
    curvature = kappa * math.cos(peak) + (power / math.sin(peak) ** 2 if power else 0.0)
    reach = 12 / math.sqrt(curvature) if curvature > 0 else math.pi
    return Tabulated(AngleLogDensity(kappa, power), max(0.0, peak - reach), min(math.pi, peak + reach))
