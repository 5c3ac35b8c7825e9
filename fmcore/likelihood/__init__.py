"""Likelihood: the density that a flow gives to a point, and bits per dimension of images.

Along dx/dt = v(x, t) the log-density changes by d log p_t(x_t)/dt = -div v(x_t, t) (instantaneous change of
variables, Chen et al. 2018). Running the flow from data to source,

    log p_1(x1) = log p_0(x0) - integral over t of div v(x_t, t).

| Name | What |
|---|---|
| `log_likelihood` | that logarithm for a batch of points, in nats |
| `velocity_and_divergence` | v and div v at one time: exactly, or by Hutchinson's estimate |
| `bits_per_dim`, `bits_from_log_prob` | the same for whole-number images, in bits per dimension |
"""

from fmcore.likelihood.bits import BitsPerDim, bits_from_log_prob, bits_per_dim
from fmcore.likelihood.density import DIVERGENCES, Likelihood, log_likelihood
from fmcore.likelihood.divergence import AT_ONCE, velocity_and_divergence

__all__ = [
    "AT_ONCE",
    "DIVERGENCES",
    "BitsPerDim",
    "Likelihood",
    "bits_from_log_prob",
    "bits_per_dim",
    "log_likelihood",
    "velocity_and_divergence",
]
