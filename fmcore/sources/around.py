"""The oracle of Lee et al. 2025 (arXiv 2512.18184): directions near those of the data, which it knows all of.

Each x0 is drawn around the direction of its own x1, from a von Mises-Fisher distribution, with a length chi(d). It says
how far aligned directions could get if one knew where a sample will end, which one does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.checks import drawing_device
from fmcore.sources.von_mises_fisher import VonMisesFisher
from fmcore.validation import check_finite, check_floating


@dataclass(frozen=True, eq=False)
class AroundPoints:
    """A direction near that of a data point, and a length chi(d).

    Attributes:
        points: (m, *shape), the data; whole-number images if there is a ``scale``.
        kappa: concentration, at least 0; math.inf for the directions themselves.
        scale: turns rows of points into floating point; None if they are.

    Raises:
        ValueError: for no points, or a negative kappa.
        TypeError: for whole numbers without ``scale``.
    """

    points: Tensor
    kappa: float
    scale: Callable[[Tensor], Tensor] | None = None
    near: VonMisesFisher = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.points.ndim < 2 or len(self.points) == 0:
            raise ValueError(f"points have shape {tuple(self.points.shape)}: pass at least one, shape (m, *shape).")
        if self.scale is None:
            check_floating("points", self.points, scale=True)
        object.__setattr__(self, "near", VonMisesFisher(torch.ones(1, *self.shape), self.kappa))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.points.shape[1:])

    @property
    def mean_norm(self) -> float:
        """E ||x||."""
        return self.near.mean_norm

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples around random points, (n, *shape), on the device (by default the generator's)."""
        device = drawing_device(n, generator, device)
        rows = torch.randint(len(self.points), (n,), generator=generator, device=device)
        chosen = self.points[rows.to(self.points.device)]
        return self.given((chosen if self.scale is None else self.scale(chosen)).to(rows.device), generator)

    def given(self, x1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw x0 around the direction of each x1, (n, *shape).

        Raises:
            ValueError: for a point of length 0, which has no direction, or values that are not finite.
            TypeError: for whole numbers.
        """
        check_floating("x1", x1)
        flat = x1.flatten(1)
        norms = flat.norm(dim=1, keepdim=True)
        if not bool(((norms > 0) & norms.isfinite()).all()):
            check_finite("x1", x1)
            wrong = "0, which has no direction" if bool((norms == 0).any()) else "infinity: scale the data"
            raise ValueError(f"x1 holds a point of length {wrong}.")
        lengths = self.near.radius.sample(len(flat), generator, flat.device).to(flat)
        return (lengths[:, None] * self.near.around(flat / norms, generator).to(flat)).view_as(x1)
