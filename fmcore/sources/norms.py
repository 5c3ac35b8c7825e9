"""Norm alignment: source and data at the same mean length.

A Gaussian in 3,072 dimensions has a mean length of 55.4, a CIFAR-10 image in [-1, 1] one of 27.2, so every path also
has to shrink. Lee et al. 2025 (arXiv 2512.18184) align the two in training. Their text scales the data up; the notes of
their code scale the noise down instead. Both are one factor, E ||x0|| / E ||x1||:

    data up      train on factor * x1, and divide what the flow generates by it      `alignment_factor`
    noise down   start from x0 / factor, and leave the data as they are             `NormAligned`
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape
from fmcore.sources.source import Source, SourceWithDensity


def mean_norm(source: Source, samples: int = 10_000, seed: int = 0) -> float:
    """E ||x|| of a source: its `mean_norm` where it knows it, otherwise a mean over samples."""
    if hasattr(source, "mean_norm"):
        return float(source.mean_norm)
    generator = torch.Generator().manual_seed(seed)
    parts = [source.sample(min(1000, samples - k), generator) for k in range(0, samples, 1000)]
    return float(torch.cat([part.flatten(1).double().norm(dim=1) for part in parts]).mean())


def alignment_factor(source: Source, data_norm: float, source_norm: float | None = None) -> float:
    """E ||x0|| / E ||x1||, by which data are scaled up, or noise down.

    Args:
        source: of x0.
        data_norm: mean length of the training data, above 0.
        source_norm: mean length of the source; `mean_norm` if it is not given.

    Raises:
        ValueError: for a length that is not finite and above 0.
    """
    if not 0 < data_norm < math.inf:
        raise ValueError(f"data_norm is {data_norm}: it is the mean length of the training data, finite and above 0.")
    if source_norm is not None and not 0 < source_norm < math.inf:
        raise ValueError(f"source_norm is {source_norm}: it is the mean length of the source, finite and above 0.")
    return (mean_norm(source) if source_norm is None else source_norm) / data_norm


@dataclass(frozen=True, eq=False)
class NormAligned:
    """Another source scaled to the mean length of the data: "noise down".

    Attributes:
        source: the other source.
        data_norm: mean length of the training data, on the scale that the network sees.
        source_norm: mean length of the other source; measured, if it is neither given nor known.
    """

    source: Source
    data_norm: float
    source_norm: float | None = None

    def __post_init__(self) -> None:
        factor = alignment_factor(self.source, self.data_norm, self.source_norm)
        object.__setattr__(self, "_factor", factor)

    @property
    def factor(self) -> float:
        """E ||x0|| / E ||x1|| of the source before it was scaled."""
        return self._factor  # type: ignore[attr-defined]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def mean_norm(self) -> float:
        """E ||x||, that of the data."""
        return self.data_norm

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape), on the device (by default the generator's)."""
        return self.source.sample(n, generator, device) / self.factor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (n,): that of the source at factor * x, and d log factor for the change of volume.

        Raises:
            ValueError: for x of another shape, or if the density of the source is not known.
            TypeError: for whole numbers.
        """
        check_shape(x, self.shape)
        if not isinstance(self.source, SourceWithDensity):
            raise ValueError(f"{type(self.source).__name__} has no log_prob: the density of its samples is not known.")
        return self.source.log_prob(x * self.factor) + math.prod(self.shape) * math.log(self.factor)
