"""Axes to which no data point comes close, and which of their ends are rejected: for `fmcore.sources.pruned`.

The axes are principal components of the directions of the data (Lee et al. 2025, arXiv 2512.18184).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.validation import check_count, check_finite, check_floating


@dataclass(frozen=True, eq=False)
class PruningAxes:
    """Orthonormal axes, and which of their two ends are rejected.

    Attributes:
        axes: (m, d), orthonormal rows.
        positive, negative: (m,) bool, whether +axis and -axis are rejected.
        largest: (m, 2), the largest cosine of a training point with +axis and -axis; None if they were not measured.
    """

    axes: Tensor
    positive: Tensor
    negative: Tensor
    largest: Tensor | None = None

    def __post_init__(self) -> None:
        m, d = self.axes.shape
        ends = (self.positive, self.negative)
        if any(end.shape != (m,) or end.dtype != torch.bool for end in ends) or m > d:
            raise ValueError(f"{m} axes in {d} dimensions need as many booleans for each of their two ends.")
        # A few vectors there and back: as good as all products of rows, which cost m times as much.
        probes = torch.randn(m, 4, generator=torch.Generator().manual_seed(0)).to(self.axes)
        error = float((self.axes @ (self.axes.T @ probes) - probes).abs().max()) if m else 0.0
        if error > 1e-3:
            raise ValueError(f"axes must be orthonormal rows; products of rows are off by about {error:.1g}.")

    @property
    def count(self) -> int:
        """Rejected ends, of 2 m."""
        return int(self.positive.sum() + self.negative.sum())

    def rejected(self) -> PruningAxes:
        """The axes of which at least one end is rejected."""
        either = self.positive | self.negative
        return PruningAxes(self.axes[either], self.positive[either], self.negative[either])

    def why_none(self) -> str:
        """What to change where no end is rejected; with the least tau at which one would be, if it is known."""
        to = ""
        if self.largest is not None and len(self.axes):
            to = f" to {math.ceil(float(self.largest.min()) * 1e4) / 1e4:g} or more"
        return f"no end of the {len(self.axes)} axes is rejected; raise tau{to}, or sample from the source itself"

    def largest_cosine(self, x: Tensor) -> Tensor:
        """The largest cosine of each point with a rejected end, (n,) float64 in [-1, 1]; -1 if none is rejected.

        Raises:
            TypeError: for points in whole numbers.
        """
        check_floating("x", x)
        flat = x.flatten(1).double()
        return self.worst((flat @ self.axes.to(flat).T) / flat.norm(dim=1, keepdim=True))

    def worst(self, cosines: Tensor) -> Tensor:
        """The same from cosines (n, m) with +axis."""
        ends = torch.cat(
            [cosines[:, self.positive.to(cosines.device)], -cosines[:, self.negative.to(cosines.device)]], 1
        )
        return ends.amax(dim=1) if ends.shape[1] else cosines.new_full((len(cosines),), -1.0)


@torch.no_grad()
def pruning_axes(
    data: Tensor, tau: float, flips: bool = False, scale: Callable[[Tensor], Tensor] | None = None, chunk: int = 4096
) -> PruningAxes:
    """Principal axes of the directions of the data, and their ends to which no point comes closer than a cosine of tau.

    Points are divided by their lengths; the axes are those of a centred PCA; an end a is rejected if max_i cos(x_i, a)
    is at most tau. The signs of the axes do not matter, since both ends are looked at.

    Args:
        data: (n, *shape), images (n, C, H, W) if flips are on.
        tau: from -1 to 1; .01 for CIFAR-10 and .005 for ImageNet-64 in Lee et al. 2025.
        flips: count the mirror image of each image too, as for a network that was trained on both.
        scale: turns rows of data into floating point, chunk by chunk; for whole-number images.
        chunk: points at once, at least 1.

    Returns:
        All d axes, with `PruningAxes.largest`, in float64 for data in float64, else in float32. With a small tau none
        may be rejected; `Pruned` then says which tau would reject one.

    Raises:
        ValueError: for fewer than two points, points of length 0, values that are not finite, a tau that is no cosine,
            or flips of anything but images.
        TypeError: for whole numbers without ``scale``.
    """
    if data.ndim < 2 or len(data) < 2:
        raise ValueError(f"data has shape {tuple(data.shape)}: principal axes need at least two points.")
    if not -1 <= tau <= 1:
        raise ValueError(f"tau is {tau}: it is a cosine, from -1 to 1.")
    if flips and data.ndim != 4:
        raise ValueError(f"data has shape {tuple(data.shape)}: flips=True needs images (n, C, H, W).")
    check_count("chunk", chunk, "points")

    def directions() -> Iterator[Tensor]:
        for number, part in enumerate(data.split(chunk)):
            points = part if scale is None else scale(part)
            check_floating("data", points, scale=True)
            points = points.to(torch.promote_types(points.dtype, torch.float32))
            for version in (points, points.flip(-1)) if flips else (points,):
                flat = version.flatten(1)
                lengths = flat.norm(dim=1, keepdim=True)
                if not bool(((lengths > 0) & lengths.isfinite()).all()):
                    check_finite(f"data[{number * chunk}:{number * chunk + len(part)}]", flat)
                    wrong = "0, which has no direction" if bool((lengths == 0).any()) else "infinity: scale the data"
                    raise ValueError(f"data holds a point of length {wrong}.")
                yield flat / lengths

    total, square, count = None, None, 0
    for part in directions():
        sums, products = part.double().sum(0), (part.T @ part).double()
        total, square = (sums, products) if total is None or square is None else (total + sums, square + products)
        count += len(part)
    assert total is not None
    assert square is not None
    mean = total / count
    axes = torch.linalg.eigh(square / count - torch.outer(mean, mean)).eigenvectors.T.flip(0).to(part.dtype)
    largest = torch.full((len(axes), 2), -1.0, dtype=part.dtype)
    for part in directions():
        cosines = part @ axes.T
        largest = torch.maximum(largest.to(cosines.device), torch.stack([cosines.amax(0), -cosines.amin(0)], dim=1))
    return PruningAxes(axes, largest[:, 0] <= tau, largest[:, 1] <= tau, largest)
