"""What every source has in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """Where a flow starts: anything with a shape that can be sampled.

    Some sources also know their log-density (`SourceWithDensity`), or ``mean_norm``, E ||x||.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        ...

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape), on the device (by default the generator's)."""
        ...


@runtime_checkable
class SourceWithDensity(Source, Protocol):
    """A source whose density is known."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (n,), for x (n, *shape)."""
        ...
