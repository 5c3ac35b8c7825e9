"""The source that flow matching starts from unless told otherwise: the isotropic Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape, drawing_device


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
        device = drawing_device(n, generator, device)
        return self.std * torch.randn(n, *self.shape, generator=generator, device=device)

    @property
    def mean_norm(self) -> float:
        """E ||x||, that of a chi distribution: std sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2), about std sqrt(d)."""
        dim = math.prod(self.shape)
        return self.std * math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log N(x; 0, std^2 I) in nats, shape (n,), for x of shape (n, *shape).

        Raises:
            ValueError: for x of another shape.
            TypeError: for whole numbers.
        """
        check_shape(x, self.shape)
        dim = math.prod(self.shape)
        squares = x.reshape(len(x), dim).square().sum(dim=1)
        return -squares / (2 * self.std**2) - dim * (math.log(self.std) + math.log(2 * math.pi) / 2)
