"""Uniform directions with lengths of their own: the picture of a Gaussian in many dimensions.

A Gaussian in d dimensions has a uniform direction and, independent of it, a length that follows chi(d): about sqrt(d),
give or take 0.7, whatever d is. With another number of degrees of freedom the same picture can be drawn in the plane:
Lee et al. 2025 (arXiv 2512.18184) take uniform angles and chi(3072) for a simulation of CIFAR-10 in two dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape, drawing_device
from fmcore.sources.tabulated import ChiLogDensity, Tabulated, chi


def uniform_directions(
    n: int, dim: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Directions drawn uniformly from the unit sphere, (n, dim) float32."""
    device = drawing_device(n, generator, device)
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=generator, device=device), dim=1)


@dataclass(frozen=True, eq=False)
class ChiSphere:
    """Uniform direction, length chi(dof).

    Attributes:
        shape: shape of one sample, d numbers.
        dof: degrees of freedom of the length; d by default, which is the standard Gaussian.
        radius: the distribution of the length.
    """

    shape: tuple[int, ...]
    dof: int | None = None
    radius: Tabulated = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if any(size < 1 for size in self.shape) or (self.dof is not None and self.dof < 1):
            raise ValueError(f"ChiSphere has shape {self.shape} and dof {self.dof}: sizes and dof are at least 1.")
        object.__setattr__(self, "radius", chi(self.dof or self.dim))

    @property
    def dim(self) -> int:
        """Numbers of a sample."""
        return math.prod(self.shape)

    @property
    def mean_norm(self) -> float:
        """E ||x||."""
        return self.radius.mean

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape) float32, on the device (by default the generator's)."""
        directions = uniform_directions(n, self.dim, generator, device)
        lengths = self.radius.sample(n, generator, device).float()
        return (lengths[:, None] * directions).view(n, *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (n,) in the dtype of x, for x (n, *shape): that of the length, over the sphere's area.

            log p(x) = log p_R(r) - (d - 1) log r - log(2 pi^(d/2) / Gamma(d/2)),   r = ||x||

        At the origin it is infinite with fewer than d degrees of freedom, minus infinity with more.

        Raises:
            ValueError: for x of another shape.
            TypeError: for whole numbers.
        """
        check_shape(x, self.shape)
        length = x.flatten(1).double().norm(dim=1)
        return (log_along_ray(length, self.dof or self.dim, self.dim) - log_area(self.dim)).to(x.dtype)


def log_along_ray(length: Tensor, dof: int, dim: int) -> Tensor:
    """Return log p_R(r) - (dim - 1) log r for lengths r (n,) ~ chi(dof), float64: their density, over r^(dim - 1).

    The two logarithms of r are taken together, so that nothing is lost near the origin, nor at it.
    """
    powers = torch.special.xlogy(torch.as_tensor(float(dof - dim), dtype=length.dtype), length)
    return powers - length.square() / 2 + ChiLogDensity(dof).constant


def log_area(dim: int) -> float:
    """Logarithm of the area of the unit sphere in so many dimensions, 2 pi^(d/2) / Gamma(d/2)."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
