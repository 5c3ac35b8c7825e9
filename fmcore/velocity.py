"""What every velocity field is, and how other predictions become one.

A velocity is any callable ``(x, t) -> v`` with x of shape (B, *shape), t of shape () or (B,) and v shaped like x: a
network, a closed form, a plain function. Solvers, likelihoods and losses ask for nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.validation import expand_time

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def from_noise(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the noise E[x0 | x], as DDPM does."""
    return lambda x, t: path.noise_to_velocity(model(x, t), x, t)


def from_score(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the score grad log p_t(x).

    The score points towards the data: the same formula with minus the score, as one symbol of Lipman et al. 2023
    is defined, runs away from them.
    """
    return lambda x, t: path.score_to_velocity(model(x, t), x, t)


def from_data(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the clean data E[x1 | x] (a denoiser)."""
    return lambda x, t: path.data_to_velocity(model(x, t), x, t)


def scaled_up(velocity: Velocity, factor: float) -> Velocity:
    """The velocity of the straight path to factor * x1, from that of the straight path to x1, without any training.

    With y_s = (1 - s) x0 + s c x1, a = 1 - s + c s and t = c s / a, a point of one path is one of the other,
    y_s = a x_t. So, by the chain rule with dt/ds = c / a^2,

        dy/ds = (c - 1) y / a + (c / a) v(y / a, t).

    Both flows lead from x0 to the same place, up to the factor c. What differs are the steps of a solver: equal ones in
    s are short in t near the data if c is above 1. Norm alignment by c (Lee et al. 2025, arXiv 2512.18184) is that. Its
    expected loss is c times that of the other path for every velocity: only the draws of the times differ.

    Args:
        velocity: of x_t = (1 - t) x0 + t x1.
        factor: c, above 0.

    Raises:
        ValueError: for a factor that is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"factor is {factor}: data are scaled by a number above 0.")

    def scaled(y: Tensor, s: Tensor) -> Tensor:
        a = 1 + (factor - 1) * s
        broad = expand_time(a, y)
        return ((factor - 1) * y + factor * velocity(y / broad, factor * s / a)) / broad

    return scaled
