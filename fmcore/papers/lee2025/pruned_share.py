"""How much noise pruning rejects, by counting, and by an exact sampler where hardly any is left to count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcore import sources
from fmcore.experiments import records
from fmcore.experiments.records import number

BLOCK = 2**24  # numbers of noise at once, 64 MB
FEW = 1000  # fewer kept directions than that are too few to count
ESTIMATES, PROPOSALS = 20, 1000  # of the sampler, and the proposals of each
SAMPLES = 2000  # for which proposals of the sampler are counted
POINTS = 121  # of the curve


@dataclass(frozen=True, eq=False)
class Shares:
    """Rejected ends of principal axes, and the noise near them.

    Attributes:
        axes: see `fmcore.sources.pruning_axes`; measured on images.
        rejected_ends: how many, and of how many axes one end or both.
        rejected_share: of noise, for each threshold as text; `by` says how it was found.
        proposals: for one sample at the threshold of the source, by plain rejection and by `fmcore.sources.Pruned`.
        curve: thresholds, and the counted share of noise above each.
    """

    axes: sources.PruningAxes
    rejected_ends: dict[str, Any]
    rejected_share: dict[str, Any]
    proposals: dict[str, Any]
    curve: dict[str, list[float]]

    def full(self, count: int) -> tuple[Tensor, Tensor]:
        """The ends (n, d) of the axes that images come nearest to, one per axis, and their largest cosines (n,)."""
        largest = self._largest()
        return self._ends(largest.amax(dim=1).argsort(descending=True)[:count], largest.argmax(dim=1), largest)

    def empty(self, count: int) -> tuple[Tensor, Tensor]:
        """Rejected ends (n, d), one per axis, spread evenly from the nearest to images to the emptiest, and cosines."""
        largest = self._largest()
        rejected = torch.nonzero(self.axes.positive | self.axes.negative).flatten()
        order = rejected[largest[rejected].amin(dim=1).argsort(descending=True)]
        places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
        return self._ends(order[places], largest.argmin(dim=1), largest)

    def _largest(self) -> Tensor:
        assert self.axes.largest is not None  # measured, by `pruning_axes`
        return self.axes.largest

    def _ends(self, rows: Tensor, side: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        sign = 1 - 2 * side[rows]
        return sign[:, None] * self.axes.axes[rows], largest[rows, side[rows]]


def shares_of(
    axes: sources.PruningAxes,
    shape: tuple[int, ...],
    threshold: float,
    thresholds: tuple[float, ...],
    directions: int,
    generator: torch.Generator,
) -> Shares:
    """Measure how much noise is near rejected ends.

    Args:
        axes: all principal axes.
        shape: of the images.
        threshold: of the source, whose proposals are counted.
        thresholds: at which shares are measured.
        directions: of noise, for counting.
        generator: of the noise.

    Raises:
        ValueError: if no end is rejected, or hardly a direction is left at the threshold.
    """
    if axes.count == 0:
        raise ValueError("images come near both ends of every principal axis, so none is rejected: raise tau")
    rejected = axes.rejected()
    gaussian = sources.Gaussian(shape)
    counted = largest_cosines(rejected, directions, generator)
    both = int((axes.positive & axes.negative).sum())
    try:
        _, proposals = sources.Pruned(gaussian, rejected, threshold).sample_counted(SAMPLES, generator)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    shares = {
        at: rejected_share(counted, sources.Pruned(gaussian, rejected, at), generator)
        for at in sorted({threshold, *thresholds})
    }
    kept, error_of = 1 - shares[threshold]["value"], shares[threshold]["spread"]
    if kept <= 0:
        raise ValueError(f"threshold={threshold} keeps none of {directions:,} directions of noise: raise it")
    rate = SAMPLES / proposals
    return Shares(
        axes,
        {"ends": number(axes.count), "one end": number(axes.count - 2 * both), "both ends": number(both)},
        {f"{at:g}": shares[at] for at in thresholds},
        {
            "plain": number(1 / kept, error_of / kept**2, "standard error, from that of the share"),
            "truncated": number(
                1 / rate, math.sqrt((1 - rate) / SAMPLES) / rate, f"standard error over {SAMPLES:,} samples"
            ),
        },
        curve_of(counted),
    )


def largest_cosines(rejected: sources.PruningAxes, count: int, generator: torch.Generator) -> Tensor:
    """The largest cosine of uniform directions with a rejected end, (count,) float32, in ascending order.

    The axes are orthonormal, so coordinates along them are distributed as any others: they are drawn themselves.
    """
    m, d = rejected.axes.shape
    found, block = [], max(1, BLOCK // d)
    for start in range(0, count, block):
        noise = torch.randn(min(block, count - start), d, generator=generator)
        found.append(rejected.worst(noise[:, :m] / noise.norm(dim=1, keepdim=True)))
    return torch.cat(found).sort().values


def rejected_share(counted: Tensor, pruned: sources.Pruned, generator: torch.Generator) -> dict[str, Any]:
    """The share of directions above the threshold of the source, with its standard error.

    It is counted among `largest_cosines`, unless hardly any pass the threshold; then it is 1 minus the estimate of
    `fmcore.sources.Pruned.share_kept`, whose proposals pass more often.
    """
    n, kept = len(counted), int((counted <= pruned.threshold).sum())
    if kept >= FEW:
        share = 1 - kept / n
        error, of = math.sqrt(share * (1 - share) / n), f"standard error of a count of {n:,} directions"
        return number(share, error, of) | {"by": "counting"}
    estimates = [pruned.share_kept(PROPOSALS, generator) for _ in range(ESTIMATES)]
    over = f"estimates from {PROPOSALS:,} proposals each"
    return records.measurement(1 - torch.tensor(estimates, dtype=torch.float64), over, standard_error=True) | {
        "by": "sampler"
    }


def curve_of(counted: Tensor) -> dict[str, list[float]]:
    """Thresholds over the range of the cosines (ascending), and the share of them that is above each; six digits."""
    thresholds = torch.linspace(float(counted[0]), float(counted[-1]), POINTS, dtype=torch.float64)
    above = 1 - torch.searchsorted(counted.double(), thresholds, right=True) / len(counted)
    return {
        name: [round(value, 6) for value in values.tolist()]
        for name, values in {"thresholds": thresholds, "rejected_share": above.double()}.items()
    }
