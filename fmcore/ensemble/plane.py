"""A picture of image data in the plane: the simulation of Lee, Kim and Lee 2025 (arXiv 2512.18184).

In 3,072 dimensions noise lies near a sphere of radius 55.4, and images lie closer to the origin, in few directions.
In the plane the source is a ring of that radius, `fmcore.sources.ChiSphere((2,), dof=3072)`, and the data are points in
three directions at a distance chi(625), about 25. Angles are in radians, lengths in those units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.checks import drawing_device
from fmcore.sources.tabulated import Tabulated, chi
from fmcore.validation import check_count, check_generator

ANGLES = (4.4956, 5.9167, 1.1018)
SHARES = (0.05, 0.30, 0.65)
SPREAD, JITTER = math.radians(10), math.radians(1)
DATA_DOF, SOURCE_DOF = 625, 3072


def three_directions(
    n: int = 1024,
    generator: torch.Generator | None = None,
    shares: Sequence[float] = SHARES,
    angles: Sequence[float] = ANGLES,
) -> Tensor:
    """The target: n points, (n, 2) float32, direction by direction.

    A direction with base angle a and m points has the angles a - 10, ..., a + 10 degrees at equal distances, each with
    a normal error of 1 degree, and lengths chi(625).

    Args:
        n: number of points; each direction gets its share, rounded, and the largest what is left.
        generator: draws errors and lengths.
        shares: of the directions, at least 0; they need not add up to 1, so numbers of points are welcome.
        angles: their base angles.

    Raises:
        ValueError: for shares that are negative, all 0, or of another number than the angles, or n not a whole number.
    """
    check_count("n", n, "points", least=0)
    check_generator(generator, "cpu")
    counts = counts_of(n, shares)
    if len(counts) != len(angles):
        raise ValueError(f"there are {len(shares)} shares and {len(angles)} angles: one share belongs to one angle.")
    evenly = [
        angle + torch.linspace(-SPREAD, SPREAD, count, dtype=torch.float64)
        for angle, count in zip(angles, counts, strict=True)
    ]
    jitter = JITTER * torch.randn(n, generator=generator, dtype=torch.float64)
    return at_angles(torch.cat(evenly) + jitter, chi(DATA_DOF).sample(n, generator))


def counts_of(n: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the shares that add up to n: rounded, and the largest share makes up for it."""
    total = sum(shares)
    if not total > 0 or min(shares) < 0:
        raise ValueError(f"shares are {list(shares)}: they are numbers of at least 0, and not all 0.")
    counts = [round(n * share / total) for share in shares]
    counts[max(range(len(shares)), key=lambda k: shares[k])] += n - sum(counts)
    return counts


@dataclass(frozen=True, eq=False)
class Arcs:
    """A directional source: a direction by its share, an angle uniform in the arc around it, a length chi(3072).

    The angles are those of the ring whose cosine with the direction is at least ``cosine``: .9 (26 degrees to either
    side) and .98 (11 degrees) in the paper. Every point is drawn independently of the others, or, with a group, as
    many points of each group have each direction as `counts_of` gives, and the rest is drawn independently.

    Attributes:
        cosine: from -1 (the whole ring around each direction) to 1 (the directions themselves).
        angles: of the directions.
        shares: how often each is chosen, at least 0.
        dof: degrees of freedom of the length.
        group: so many points in a row share the directions out among them, at least 1; None for independent points.
    """

    cosine: float
    angles: tuple[float, ...] = ANGLES
    shares: tuple[float, ...] = SHARES
    dof: int = SOURCE_DOF
    group: int | None = None
    radius: Tabulated = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not -1 <= self.cosine <= 1:
            raise ValueError(f"cosine is {self.cosine}: it lies between -1 and 1.")
        counts_of(1, self.shares)
        if len(self.angles) != len(self.shares):
            raise ValueError(
                f"there are {len(self.shares)} shares and {len(self.angles)} angles: give one a direction."
            )
        if self.group is not None:
            check_count("group", self.group, "points")
        object.__setattr__(self, "radius", chi(self.dof))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (2,)

    @property
    def mean_norm(self) -> float:
        """E ||x||."""
        return self.radius.mean

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, 2) float32, on the device (by default the generator's).

        Raises:
            ValueError: if n is not a multiple of the group.
        """
        device = drawing_device(n, generator, device)
        drawn = torch.rand(3, n, generator=generator, device=device, dtype=torch.float64)
        if self.group is None:
            ends = torch.tensor(self.shares, dtype=torch.float64, device=device).cumsum(0)
            chosen = torch.searchsorted(ends, drawn[0] * ends[-1], right=True).clamp(max=len(ends) - 1)
        elif n % self.group:
            raise ValueError(f"{n} samples are not a multiple of the group of {self.group}: draw whole groups.")
        else:
            counts = torch.tensor(counts_of(self.group, self.shares), device=device)
            chosen = torch.arange(len(counts), device=device).repeat_interleave(counts).repeat(n // self.group)
        middle = torch.tensor(self.angles, dtype=torch.float64, device=device)[chosen]
        return at_angles(middle + math.acos(self.cosine) * (2 * drawn[1] - 1), self.radius.inverse(drawn[2]))


def at_angles(angle: Tensor, length: Tensor) -> Tensor:
    """Points (n, 2) float32 with these angles and lengths (n,)."""
    return (length[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)).float()
