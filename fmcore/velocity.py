"""What every velocity field is, and how other predictions become one.

A velocity is any callable ``(x, t) -> v`` with x of shape (B, *shape), t of shape () or (B,) and v shaped like x: a
network, a closed form, a plain function. Solvers, likelihoods and losses ask for nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from fmcore.paths import AffinePath

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
