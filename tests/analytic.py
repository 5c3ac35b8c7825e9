"""Truth for the tests of the mathematical core, derived without the package's formulas.

Two sources of truth stand here.

`exact_schedules` evaluates a path's alpha and sigma in 60-digit decimal arithmetic from their definitions (a noise rate
integrated by the trapezoid rule, a geometric interpolation, a Taylor series of the sine) and differentiates them by
central differences with a step of 1e-20: no derivative is worked out by hand.

`GaussianFlow` is the flow from Gaussian noise to Gaussian data. A sum of Gaussians is Gaussian, so p_t is known from
its mean m_t and standard deviation s_t alone, and the flow is the increasing affine map x_t = m_t + s_t z with z
constant in time. Velocities follow from that map by complex-step differentiation in t (f(t + ih) has imaginary part
h f'(t), exact to rounding for h = 1e-30), posterior means of data and noise from the conditioning of a joint Gaussian,
the score from the normal density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

import torch
from hypothesis import settings
from torch import Tensor

from fmcore import paths
from fmcore.paths import AffinePath

# Property tests: few examples in the repeatable profile of conftest.py, as many as it says in the exploring one.
modest = settings(max_examples=25, deadline=None) if settings.default.derandomize else settings(deadline=None)

Schedules = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A path by name and parameters."""

    name: str
    parameters: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.parameters.values())])

    @property
    def path(self) -> AffinePath:
        return getattr(paths, self.name)(**self.parameters)


RECTIFIED = Case("rectified")
OT = Case("ot", {"sigma_min": 0.1})
OT_NARROW = Case("ot", {"sigma_min": 1e-4})
VP = Case("variance_preserving", {"beta_min": 0.1, "beta_max": 20.0})
VE = Case("variance_exploding", {"sigma_min": 0.01, "sigma_max": 50.0})
COSINE = Case("cosine")

FIVE = [RECTIFIED, OT, VP, VE, COSINE]
CASES = [
    *FIVE,
    Case("ot", {"sigma_min": 0.0}),
    OT_NARROW,
    Case("variance_preserving", {"beta_min": 1.0, "beta_max": 1.0}),
    Case("variance_preserving", {"beta_min": 0.5, "beta_max": 8.0}),
    Case("variance_exploding", {"sigma_min": 0.2, "sigma_max": 3.0}),
]


def schedules(case: Case) -> Schedules:
    """Return t -> (alpha_t, sigma_t) in torch, from the definitions of the paths and unlike the package's formulas."""
    p = case.parameters
    if case.name == "variance_preserving":

        def decay(t: Tensor) -> tuple[Tensor, Tensor]:
            s = 1 - t
            rate_at_data, rate = p["beta_min"], p["beta_min"] * t + p["beta_max"] * s
            half = s * (rate_at_data + rate) / 4  # half the area under a straight line
            return torch.exp(-half), torch.sqrt(2 * torch.exp(-half) * torch.sinh(half))

        return decay
    if case.name == "variance_exploding":
        low, high = math.log(p["sigma_min"]), math.log(p["sigma_max"])
        return lambda t: (torch.ones_like(t), torch.exp((1 - t) * high + t * low))
    if case.name == "cosine":
        return lambda t: (torch.cos((1 - t) * math.pi / 2), torch.sin((1 - t) * math.pi / 2))
    smallest = p.get("sigma_min", 0.0)
    return lambda t: (t.clone(), (1 - t) + smallest * t)


def differentiate(function: Schedules, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the pair function(t) and its derivative in t, for t in float64."""
    first, second = function(torch.complex(t, torch.full_like(t, _STEP)))
    return (first.real, second.real), (first.imag / _STEP, second.imag / _STEP)


_STEP = 1e-30


def exact_schedules(case: Case, t: float) -> tuple[float, float, float, float]:
    """Return alpha, sigma, d_alpha, d_sigma at exactly the float t, computed with 60 digits; t is below 1."""
    p = {key: Decimal(value) for key, value in case.parameters.items()}

    def evaluate(time: Decimal) -> tuple[Decimal, Decimal]:
        s = 1 - time
        if case.name == "variance_preserving":
            total = s * (p["beta_min"] + p["beta_min"] + s * (p["beta_max"] - p["beta_min"])) / 2
            return (-total / 2).exp(), (1 - (-total).exp()).sqrt()
        if case.name == "variance_exploding":
            return Decimal(1), p["sigma_min"] * ((p["sigma_max"] / p["sigma_min"]).ln() * s).exp()
        if case.name == "cosine":
            return _sine(_PI / 2 * time), _sine(_PI / 2 * s)
        return time, s + p.get("sigma_min", Decimal(0)) * time

    with localcontext() as context:
        context.prec = 60
        now, h = Decimal(t), Decimal("1e-20")
        before, after = evaluate(now - h), evaluate(now + h)
        slopes = [(b - a) / (2 * h) for a, b in zip(before, after, strict=True)]
        alpha, sigma = evaluate(now)
    return float(alpha), float(sigma), float(slopes[0]), float(slopes[1])


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628621")


def _sine(x: Decimal) -> Decimal:
    total, term = Decimal(0), x
    for k in range(1, 40):
        total += term
        term *= -x * x / (2 * k * (2 * k + 1))
    return total


@dataclass(frozen=True)
class GaussianFlow:
    """The flow whose data are independent N(mean, std^2) in each dimension; everything in float64.

    Attributes:
        case: the path.
        mean, std: tensors of the shape of one sample.
    """

    case: Case
    mean: Tensor
    std: Tensor

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_t: independent Gaussians add in mean and in variance."""
        alpha, sigma = (value.reshape(*t.shape, *[1] * self.mean.ndim) for value in schedules(self.case)(t))
        return alpha * self.mean, torch.sqrt((alpha * self.std) ** 2 + sigma**2)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """The point at time ``end`` of the trajectory that is at x at time ``start``: z = (x - m) / s stays."""
        (m0, s0), (m1, s1) = (self.moments(torch.tensor(time, dtype=torch.float64)) for time in (start, end))
        return (m1 + s1 * (x.double() - m0) / s0).to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """d/dt (m_t + s_t z) at the z that belongs to x."""
        (m, s), (dm, ds) = differentiate(self.moments, t.double())
        return (dm + ds * (x.double() - m) / s).to(x.dtype)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Gradient of the logarithm of the normal density of x_t."""
        m, s = self.moments(t.double())
        return ((m - x.double()) / s**2).to(x.dtype)

    def data(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x1 | x_t = x] = E x1 + Cov(x1, x_t) Var(x_t)^-1 (x - E x_t)."""
        m, s = self.moments(t.double())
        alpha, _ = (value.reshape(*t.shape, *[1] * self.mean.ndim) for value in schedules(self.case)(t.double()))
        return (self.mean + alpha * self.std**2 / s**2 * (x.double() - m)).to(x.dtype)

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x_t = x] = Cov(x0, x_t) Var(x_t)^-1 (x - E x_t)."""
        m, s = self.moments(t.double())
        _, sigma = (value.reshape(*t.shape, *[1] * self.mean.ndim) for value in schedules(self.case)(t.double()))
        return (sigma / s**2 * (x.double() - m)).to(x.dtype)

    def sample(self, n: int, t: float, generator: torch.Generator) -> Tensor:
        """Draw n points of p_t, (n, *shape) in float64."""
        m, s = self.moments(torch.tensor(t, dtype=torch.float64))
        return m + s * torch.randn(n, *self.mean.shape, generator=generator, dtype=torch.float64)


def gaussian_flow(case: Case, shape: tuple[int, ...] = (2,)) -> GaussianFlow:
    """A flow with another mean and spread in each dimension."""
    index = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    return GaussianFlow(case, 1.5 * torch.cos(2 * index), 0.4 + 0.25 * index)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
