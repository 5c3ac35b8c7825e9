"""Affine probability paths: how a source sample becomes a data sample.

A path joins x0 (source) to x1 (data) by

    x_t = alpha_t x1 + sigma_t x0,     t from 0 (source) to 1 (data),

so for a standard Gaussian source p_t(x | x1) = N(alpha_t x1, sigma_t^2 I). Everything else follows from the two
schedules and their derivatives: the conditional velocity (Lipman et al. 2023, Theorem 3)

    u_t(x | x1) = (sigma_t' / sigma_t) (x - alpha_t x1) + alpha_t' x1,

and the linear maps between the four things that a network may predict. With E[x1 | x] and E[x0 | x] the posterior
means of data and noise,

    x = alpha E[x1 | x] + sigma E[x0 | x],   v = alpha' E[x1 | x] + sigma' E[x0 | x],   score = -E[x0 | x] / sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.paths.times import check_not_integer
from fmcore.validation import check_pair, check_time, expand_time

Schedule = Callable[[Tensor], Tensor]

# Where sigma_1 = 0 the velocity is singular at t = 1; Lipman et al. 2023 stop at this time too (appendix E).
LAST_TIME = 1 - 1e-5


@dataclass(frozen=True)
class AffinePath:
    """The path x_t = alpha_t x1 + sigma_t x0.

    Paths of equal name and parameters are equal, and have equal hashes. Those of this package can be pickled and
    copied; one of your own can if its schedules are functions of a module, or methods, and not lambdas.

    Attributes:
        name: the name under which :func:`fmcore.paths.by_name` finds the path.
        alpha, sigma: schedules; each maps times of any shape to values of that shape.
        d_alpha, d_sigma: their derivatives in t.
        t_max: the last time at which velocities are finite; train and solve on [0, t_max].
        parameters: the numbers the path was made with, for configurations and records.
        straight: whether alpha = t and sigma = 1 - t, so that x_t and its derivative take one operation each.
    """

    name: str
    alpha: Schedule = field(repr=False, compare=False)
    sigma: Schedule = field(repr=False, compare=False)
    d_alpha: Schedule = field(repr=False, compare=False)
    d_sigma: Schedule = field(repr=False, compare=False)
    t_max: float = LAST_TIME
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)  # a mapping has no hash
    straight: bool = False

    @property
    def source_scale(self) -> float:
        """sigma_0, the standard deviation at t = 0 of a path that starts from N(0, I).

        It is 1 for the rectified, OT and cosine paths, nearly 1 for the variance-preserving one, and sigma_max for
        the variance-exploding one: sampling starts from ``source_scale * x0``.
        """
        return float(self.sigma(torch.zeros((), dtype=torch.float64)))

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
        """Return x_t = alpha_t x1 + sigma_t x0, shape (B, *shape), for t of shape () or (B,)."""
        check_pair(x0, x1)
        return self._interpolate(x0, x1, _times(t, x1))

    def target(self, x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
        """Return d x_t / dt = alpha_t' x1 + sigma_t' x0, what conditional flow matching regresses on."""
        check_pair(x0, x1)
        return self._target(x0, x1, _times(t, x1))

    def interpolate_with_target(self, x0: Tensor, x1: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return :meth:`interpolate` and :meth:`target` together, for a training step: checked once."""
        check_pair(x0, x1)
        t = _times(t, x1)
        return self._interpolate(x0, x1, t), self._target(x0, x1, t)

    def velocity(self, xt: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
        """Return the conditional velocity u_t(x | x1) (Lipman et al. 2023, Theorem 3).

        Args:
            xt: (B, *shape), any points, on the path or not.
            x1: (B, *shape), the data samples conditioned on.
            t: shape () or (B,), in [0, t_max]; at sigma_t = 0 the result is not finite.
        """
        check_pair(xt, x1)
        t = _times(t, xt)
        return self.d_sigma(t) / self.sigma(t) * (xt - self.alpha(t) * x1) + self.d_alpha(t) * x1

    def velocity_to_data(self, velocity: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return E[x1 | x_t = x] = (sigma' x - sigma v) / (alpha sigma' - alpha' sigma)."""
        alpha, sigma, d_alpha, d_sigma = self._at(t, x)
        return (d_sigma * x - sigma * velocity) / (alpha * d_sigma - d_alpha * sigma)

    def velocity_to_noise(self, velocity: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return E[x0 | x_t = x] = (alpha v - alpha' x) / (alpha sigma' - alpha' sigma)."""
        alpha, sigma, d_alpha, d_sigma = self._at(t, x)
        return (alpha * velocity - d_alpha * x) / (alpha * d_sigma - d_alpha * sigma)

    def velocity_to_score(self, velocity: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return grad log p_t(x) = -E[x0 | x] / sigma_t, for a standard Gaussian source."""
        return -self.velocity_to_noise(velocity, x, t) / self._at(t, x)[1]

    def data_to_velocity(self, data: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the velocity of a data prediction E[x1 | x]: the conditional velocity is linear in x1."""
        return self.velocity(x, data, t)

    def noise_to_velocity(self, noise: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the velocity of a noise prediction E[x0 | x]: (alpha'/alpha) (x - sigma x0) + sigma' x0.

        Raises:
            ValueError: where alpha_t = 0 (t = 0 of the rectified, OT and cosine paths). There x is the noise itself,
                so a noise prediction says nothing about the velocity: start at a small t > 0.
        """
        alpha, sigma, d_alpha, d_sigma = self._at(t, x)
        if (alpha == 0).any():
            raise ValueError(
                f"at t = 0 the {self.name} path has alpha = 0, where a noise or score prediction does not determine "
                "the velocity: start from a small t > 0, or use a path with alpha(0) > 0."
            )
        return d_alpha / alpha * (x - sigma * noise) + d_sigma * noise

    def score_to_velocity(self, score: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the velocity that belongs to a score grad log p_t(x); raises as :meth:`noise_to_velocity`."""
        return self.noise_to_velocity(-self._at(t, x)[1] * score, x, t)

    def diffusion(self, t: Tensor) -> Tensor:
        """Return g(t) >= 0 of the diffusion whose noising SDE has this path's marginals; same shape as t.

        g^2 = 2 sigma (alpha' sigma / alpha - sigma'). For the variance-preserving path this is beta(1 - t), for the
        variance-exploding one d(sigma^2)/ds (Song et al. 2021, equations 9 and 11). Infinite where alpha_t = 0.
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        return (2 * sigma * (self.d_alpha(t) * sigma / alpha - self.d_sigma(t))).clamp(min=0).sqrt()

    def _interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        if self.straight and x0.dtype == x1.dtype:
            return torch.lerp(x0, x1, t)
        return torch.addcmul(self.alpha(t) * x1, self.sigma(t), x0)

    def _target(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        if self.straight:
            return x1 - x0
        return torch.addcmul(self.d_alpha(t) * x1, self.d_sigma(t), x0)

    def _at(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        t = _times(t, x)
        return self.alpha(t), self.sigma(t), self.d_alpha(t), self.d_sigma(t)


def _times(t: Tensor | float, x: Tensor) -> Tensor:
    """Times of shape () or (B,), ready to multiply x (B, *shape)."""
    check_not_integer(t)
    return expand_time(check_time(t, x), x)
