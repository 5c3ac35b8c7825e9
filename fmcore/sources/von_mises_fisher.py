"""Directions near given ones: mixtures of von Mises-Fisher distributions on the sphere.

With mean direction mu and concentration kappa, the density of a direction u is proportional to exp(kappa <mu, u>). In d
dimensions the cosine <mu, u> concentrates at A = I_{d/2}(kappa) / I_{d/2-1}(kappa), about kappa / (d/2 + sqrt(d^2/4 +
kappa^2)): with d = 3,072 it is .016 for kappa = 50, .41 for 1,500. Lee et al. 2025 (arXiv 2512.18184) start flows from
such directions, with lengths chi(d) like those of a Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape, drawing_device
from fmcore.sources.sphere import log_along_ray, log_area, uniform_directions
from fmcore.sources.tabulated import Tabulated, angle_to_axis, chi
from fmcore.validation import check_count, check_finite, check_floating


@dataclass(frozen=True, eq=False)
class VonMisesFisher:
    """A mean direction drawn from a list, a direction near it, and a length chi(d).

    Attributes:
        directions: (m, *shape), mean directions of any length above 0: cluster centres, or the data themselves (the
            oracle, which knows them all).
        kappa: concentration, at least 0; math.inf for the mean directions themselves.
        weights: (m,) of the mean directions, at least 0; equal by default.
        dof: degrees of freedom of the length; d by default.

    Raises:
        ValueError: for directions of length 0, a negative kappa, or weights that do not fit.
        TypeError: for directions in whole numbers.
    """

    directions: Tensor
    kappa: float
    weights: Tensor | None = None
    dof: int | None = None
    angle: Tabulated | None = field(init=False, repr=False)
    radius: Tabulated = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_floating("directions", self.directions)
        flat = self.directions.flatten(1)
        lengths = flat.norm(dim=1)
        if flat.ndim != 2 or len(flat) == 0 or not bool((lengths > 0).all()) or not bool(lengths.isfinite().all()):
            raise ValueError(
                f"directions have shape {tuple(self.directions.shape)}: pass at least one, of finite length above 0."
            )
        if self.weights is not None and (
            self.weights.shape != lengths.shape or not bool((self.weights >= 0).all()) or not self.weights.sum() > 0
        ):
            raise ValueError(f"weights must be {len(flat)} numbers of at least 0, one a direction, and not all 0.")
        dim = flat.shape[1]
        object.__setattr__(self, "angle", None if math.isinf(self.kappa) else angle_to_axis(dim, self.kappa))
        object.__setattr__(self, "radius", chi(dim if self.dof is None else self.dof))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.directions.shape[1:])

    @property
    def mean_norm(self) -> float:
        """E ||x||."""
        return self.radius.mean

    @classmethod
    def fit(cls, data: Tensor, components: int, kappa: float, seed: int = 0, iterations: int = 50) -> VonMisesFisher:
        """Mean directions by spherical k-means on data (n, *shape), weighted by the sizes of their clusters."""
        centres, sizes = spherical_k_means(data, components, seed, iterations)
        return cls(centres, kappa, sizes)

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape) float32, on the device (by default the generator's)."""
        device = drawing_device(n, generator, device)
        chosen = self._choose(n, generator, device)
        means = torch.nn.functional.normalize(
            self.directions.flatten(1)[chosen.to(self.directions.device)].float(), dim=1
        )
        lengths = self.radius.sample(n, generator, device).float()
        return (lengths[:, None] * self.around(means.to(lengths.device), generator)).view(n, *self.shape)

    def around(self, means: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Directions near given unit vectors (n, d), one each: mu cos(a) + v sin(a), v uniform and orthogonal to mu."""
        if self.angle is None:
            return means
        angles = self.angle.sample(len(means), generator, means.device)[:, None]
        noise = uniform_directions(means.shape[0], means.shape[1], generator, means.device)
        aside = torch.nn.functional.normalize(noise - (noise * means).sum(dim=1, keepdim=True) * means, dim=1)
        return means * angles.cos().float() + aside * angles.sin().float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (n,), for x (n, *shape); finite kappa only.

            log p(x) = log sum_k w_k p(angle of x and direction k) + log p_R(r) - (d - 1) log r,   r = ||x||

        Near the origin it depends on the direction that one comes from; at it, all cosines count as 0.

        Raises:
            ValueError: for x of another shape, or infinite kappa, which has no density.
            TypeError: for whole numbers.
        """
        check_shape(x, self.shape)
        if self.angle is None:
            raise ValueError("an infinite kappa has no density: samples lie on finitely many rays.")
        flat = x.flatten(1).double()
        length, dim = flat.norm(dim=1), flat.shape[1]
        means = torch.nn.functional.normalize(self.directions.flatten(1).double().to(x.device), dim=1)
        cosines = (flat / length.clamp(min=1e-300)[:, None]) @ means.T
        # The density of the angle is c exp(kappa (cos - 1)) sin^(d-2), and the sphere around the axis has the rest.
        of_direction = self.kappa * (cosines - 1) + self.angle.log_constant - log_area(dim - 1)
        weights = torch.ones(len(means)) if self.weights is None else self.weights
        logarithms = (weights.double() / weights.sum()).log().to(x.device)
        mixed = torch.logsumexp(of_direction + logarithms, dim=1)
        return (mixed + log_along_ray(length, dim if self.dof is None else self.dof, dim)).to(x.dtype)

    def _choose(self, n: int, generator: torch.Generator | None, device: torch.device | str | None) -> Tensor:
        if self.weights is None:
            return torch.randint(len(self.directions), (n,), generator=generator, device=device)
        ends = self.weights.double().cumsum(0).to(device or "cpu")
        drawn = torch.rand(n, generator=generator, device=device, dtype=torch.float64) * ends[-1]
        return torch.searchsorted(ends, drawn, right=True).clamp(max=len(ends) - 1)


def spherical_k_means(data: Tensor, components: int, seed: int = 0, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Cluster data by direction (Dhillon and Modha 2001): centres (components, *shape) of length 1, and cluster sizes.

    Each point belongs to the centre of largest cosine, each centre is the normalized mean of its points' directions.
    The first centres are data points, each chosen far from those before (k-means++ with 1 - cosine).

    Raises:
        ValueError: for more components than points, a point of length 0, or values that are not finite.
        TypeError: for whole numbers.
    """
    check_floating("data", data)
    check_finite("data", data)
    flat = data.flatten(1).float()
    check_count("components", components)
    if components > len(flat):
        raise ValueError(f"components is {components}: it must be at most the number of points, {len(flat)}.")
    if not bool((flat.norm(dim=1) > 0).all()):
        raise ValueError("data holds a point of length 0, which has no direction.")
    points = torch.nn.functional.normalize(flat, dim=1)
    generator = torch.Generator().manual_seed(seed)
    rows = [int(torch.randint(len(points), (1,), generator=generator))]
    nearest = points @ points[rows[0]]
    for _ in range(components - 1):
        chances = (1 - nearest).clamp(min=1e-12).cpu()
        rows.append(int(torch.multinomial(chances, 1, generator=generator)))
        nearest = torch.maximum(nearest, points @ points[rows[-1]])
    centres, before = points[rows], None
    for _ in range(iterations):
        belongs = (points @ centres.T).argmax(dim=1)
        if before is not None and torch.equal(belongs, before):
            break
        before = belongs
        sums = torch.zeros_like(centres).index_add_(0, belongs, points)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, torch.nn.functional.normalize(sums, dim=1), centres)
    sizes = torch.bincount((points @ centres.T).argmax(dim=1), minlength=components)
    return centres.view(components, *data.shape[1:]), sizes.double()
