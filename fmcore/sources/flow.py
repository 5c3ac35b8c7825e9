"""A flow as a source: the samples of one flow are the starts of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape
from fmcore.sources.source import Source
from fmcore.validation import check_count


@dataclass(frozen=True, eq=False)
class FlowSource:
    """Samples of another source, carried by a map: usually a flow that was trained to approximate the data.

    With ``transport=lambda x: solve(velocity, x, ...).x`` it is a continuous normalizing flow. Lee et al. 2025 (arXiv
    2512.18184) use one as a source that approximates the density of the data, and find that it does not help.

    It can be pickled if the two maps can: a module, a named function, a `functools.partial` of one, but not a lambda.

    Attributes:
        base: where samples come from.
        transport: (n, *shape) to (n, *shape), without randomness.
        log_density: of the carried samples, (n, *shape) to (n,) in nats, for example by
            ``fmcore.likelihood.log_likelihood``; None if it is not known.
        at_once: samples carried at once, at least 1.

    Raises:
        ValueError: unless at_once is a whole number of at least 1.
    """

    base: Source
    transport: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor], Tensor] | None = None
    at_once: int = 1000

    def __post_init__(self) -> None:
        check_count("at_once", self.at_once, "samples")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.base.shape

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape), on the device (by default the generator's).

        Raises:
            ValueError: if the map changes the shape.
        """
        start = self.base.sample(n, generator, device)
        if len(start) == 0:  # not every map takes an empty batch
            return start
        with torch.no_grad():
            carried = torch.cat([self.transport(part) for part in start.split(self.at_once)])
        if carried.shape != start.shape:
            raise ValueError(
                f"transport returned shape {tuple(carried.shape)} for {tuple(start.shape)}: keep the shape."
            )
        return carried

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (n,).

        Raises:
            ValueError: if it is not known, or for x of another shape.
            TypeError: for whole numbers.
        """
        if self.log_density is None:
            raise ValueError("this source was built without log_density: pass one to know the density of its samples.")
        check_shape(x, self.shape)
        return self.log_density(x)
