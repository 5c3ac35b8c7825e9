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

from fmcore.sources.tabulated import Tabulated, chi


def uniform_directions(
    n: int, dim: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Directions drawn uniformly from the unit sphere, (n, dim) float32."""
    if device is None and generator is not None:
        device = generator.device
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

        Raises:
            ValueError: for x of another shape.
        """
        check_shape(x, self.shape)
        length = x.flatten(1).double().norm(dim=1).clamp(min=1e-300)  # so that logarithms stay finite
        area = math.log(2) + self.dim / 2 * math.log(math.pi) - math.lgamma(self.dim / 2)
        return (self.radius.log_prob(length) - (self.dim - 1) * length.log() - area).to(x.dtype)


def check_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless x holds samples of that shape."""
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, but the source's samples have shape {shape}.")
