"""Distributions in the plane that a network learns in seconds.

Each function returns n points (n, 2) in float32, centred near the origin with coordinates of about -3 to 3, so that a
standard Gaussian is a natural source. They take a generator and draw fresh points at every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmcore.validation import unknown_name


def two_moons(n: int, generator: torch.Generator | None = None, noise: float = 0.12) -> Tensor:
    """Two interleaving half circles of radius 1.5, with Gaussian noise of the given standard deviation."""
    upper = _uniform(n, generator) < 0.5
    angle = math.pi * _uniform(n, generator)
    arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    # The lower moon is the upper one turned by half a turn about the point midway between their centres.
    moons = torch.where(upper[:, None], arc, -arc + torch.tensor([1.0, 0.5]))
    return 1.5 * (moons - torch.tensor([0.5, 0.25])) + noise * _normal(n, generator)


def eight_gaussians(n: int, generator: torch.Generator | None = None, radius: float = 2.5, std: float = 0.2) -> Tensor:
    """Eight equal Gaussians on a circle."""
    angle = torch.randint(0, 8, (n,), generator=generator) * (math.pi / 4)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1) + std * _normal(n, generator)


def checkerboard(n: int, generator: torch.Generator | None = None) -> Tensor:
    """The eight dark fields of a 4 x 4 board on [-3, 3]^2, uniformly filled."""
    row = torch.randint(0, 4, (n,), generator=generator)
    column = 2 * torch.randint(0, 2, (n,), generator=generator) + row % 2
    corner = torch.stack([column, row], dim=1).float()
    return 1.5 * (corner + torch.rand(n, 2, generator=generator)) - 3.0


def pinwheel(n: int, generator: torch.Generator | None = None, arms: int = 5) -> Tensor:
    """Bent arms around the origin: a distribution with a strong rotation."""
    arm = torch.randint(0, arms, (n,), generator=generator) * (2 * math.pi / arms)
    radial = 1.0 + 0.3 * torch.randn(n, generator=generator)
    tangential = 0.1 * torch.randn(n, generator=generator)
    angle = arm + 0.6 * torch.exp(radial)
    cos, sin = angle.cos(), angle.sin()
    return 1.6 * torch.stack([radial * cos - tangential * sin, radial * sin + tangential * cos], dim=1)


def ring(n: int, generator: torch.Generator | None = None, radius: float = 2.0, std: float = 0.1) -> Tensor:
    """A circle with Gaussian noise in the radius."""
    angle = 2 * math.pi * _uniform(n, generator)
    distance = radius + std * torch.randn(n, generator=generator)
    return distance[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


_KNOWN: dict[str, Callable[..., Tensor]] = {
    draw.__name__: draw for draw in (two_moons, eight_gaussians, checkerboard, pinwheel, ring)
}


def by_name(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw from the distribution of that name; unknown names raise ValueError with the list."""
    if name not in _KNOWN:
        raise unknown_name("toy distribution", name, _KNOWN)
    return _KNOWN[name](n, generator)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator)


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 2, generator=generator)
