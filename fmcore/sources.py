"""Source distributions: where a flow starts.

Each source has ``sample(n, generator=None, device=None) -> (n, *shape)`` and, where its density is known,
``log_prob(x) -> (n,)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.validation import unknown_name


@dataclass(frozen=True)
class Gaussian:
    """Isotropic Gaussian N(0, std^2 I) over tensors of the given shape.

    Attributes:
        shape: shape of one sample, for example (2,) or (3, 32, 32).
        std: standard deviation; for likelihoods and sampling along a path use ``std=path.source_scale``.
    """

    shape: tuple[int, ...]
    std: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # a list from a configuration file is welcome
        if not 0 < self.std < math.inf or any(size < 1 for size in self.shape):
            raise ValueError(
                f"Gaussian needs a finite std > 0 and positive sizes, but has std {self.std}, shape {self.shape}."
            )

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, shape (n, *shape), on the device (by default the generator's)."""
        if device is None and generator is not None:
            device = generator.device
        return self.std * torch.randn(n, *self.shape, generator=generator, device=device)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log N(x; 0, std^2 I) in nats, shape (n,), for x of shape (n, *shape)."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, but the source's samples have shape {self.shape}.")
        dim = math.prod(self.shape)
        squares = x.reshape(len(x), -1).square().sum(dim=1)
        return -squares / (2 * self.std**2) - dim * (math.log(self.std) + math.log(2 * math.pi) / 2)


SOURCES = {"gaussian": Gaussian}


def by_name(name: str, shape: tuple[int, ...], **parameters: float) -> Gaussian:
    """Build a source from a configuration: ``by_name("gaussian", (2,), std=2.0)``.

    Raises:
        ValueError: for an unknown name (the known ones are listed: none falls back to a Gaussian), or a parameter
            that the source does not take.
    """
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES)
    try:
        return SOURCES[name](shape, **parameters)
    except TypeError as error:
        raise ValueError(f"source {name!r} does not take these parameters: {error}") from error
