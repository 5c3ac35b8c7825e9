"""The stochastic equation that shares the marginals of the flow, by Euler-Maruyama."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.solvers.counted import CountedVelocity
from fmcore.solvers.grid import time_grid
from fmcore.solvers.ode import Solution, check_start, empty_solution, finite_in_dtype_of
from fmcore.validation import check_count, check_generator
from fmcore.velocity import Velocity, float32_at_least


def solve_sde(
    velocity: Velocity,
    path: AffinePath,
    x0: Tensor,
    t0: float = 0.0,
    t1: float | None = None,
    steps: int = 100,
    scale: float | Callable[[Tensor], Tensor] = 1.0,
    times: Sequence[float] | Tensor | None = None,
    generator: torch.Generator | None = None,
    diffusion: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Solve the stochastic equation that shares the flow's marginals, by Euler-Maruyama with equal steps.

    With g(t) = scale * path.diffusion(t) and the score that belongs to the velocity,

        dx = [v + g^2/2 score] dt + g dW    from source to data (t0 < t1: Anderson's reversed diffusion at scale 1),
        dx = [v - g^2/2 score] dt + g dW    from data to source (t1 < t0: the noising diffusion at scale 1),

    and at scale 0 the probability-flow ODE (Song et al. 2021, eq. 13). One evaluation a step: NFE = steps.

    Args:
        velocity: a velocity of ``path`` from a standard Gaussian source.
        path: converts velocity to score and gives g.
        x0: (B, *shape), the state at t0; 16 bits and empty batches as in :func:`solve`.
        t0, t1: start and end; t1 is ``path.t_max`` by default, as in :func:`solve` with a path.
        steps: number of equal steps, at least 1.
        scale: multiplies g; any scale(t) >= 0 keeps the marginals, so a function of t is allowed. Paths with
            alpha(0) = 0 have infinite g at t = 0: start later, or give a scale function that vanishes there.
        times: (T,) monotone times on the grid at which to keep the state.
        diffusion: g(t) itself in place of ``path.diffusion``, with which ``scale`` is multiplied; for example
            :func:`bounded_diffusion`, which is finite on every path.
        generator: draws the Brownian increments, on the device of x0.

    Raises:
        ValueError: as :func:`solve`, when g is not finite at a step, and for a generator on another device.
        TypeError: as :func:`solve`, and for a generator that is no ``torch.Generator``.
        SolveError: when the state stops being finite.
    """
    check_count("steps", steps)
    t1 = path.t_max if t1 is None else t1
    check_start(x0)
    check_generator(generator, x0.device)
    grid, kept = time_grid(t0, t1, steps, times)
    of_path = path.diffusion if diffusion is None else diffusion
    direction = 1.0 if t1 > t0 else -1.0
    function = CountedVelocity(velocity, t0, t1, adaptive=False, dtype=x0.dtype)
    if x0.numel() == 0:
        return empty_solution(x0, grid, kept, times)
    x, trajectory = float32_at_least(x0), []
    with torch.no_grad():
        for i in range(steps + 1):
            if i in kept and times is not None:
                trajectory.append(x)
            if i == steps:
                break
            t, step = grid[i].to(x), float(grid[i + 1] - grid[i])
            factor = torch.as_tensor(scale(t) if callable(scale) else scale).to(t)
            g = factor * of_path(t) if factor != 0 else factor  # zero wins over an infinite diffusion
            if not torch.isfinite(g):
                raise ValueError(
                    f"the diffusion of the {path.name} path is not finite at t = {float(t):g}: start at a small "
                    "t0 > 0, or pass a scale function that goes to zero faster there."
                )
            v = function(x, t)
            drift = v + direction * g**2 / 2 * path.velocity_to_score(v, x, t)
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + step * drift + g * math.sqrt(abs(step)) * noise
    end = finite_in_dtype_of(x0, x[None])[0]
    if times is None:
        return Solution(end, function.nfe, grid[[0, -1]])
    return Solution(end, function.nfe, grid[kept], torch.stack(trajectory).to(x0.dtype))


def bounded_diffusion(path: AffinePath, scale: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The diffusion g(t) = sqrt(2 scale sigma_t), which is finite at all times of every path (Ma et al. 2024, SiT).

    With it the term of the score in :func:`solve_sde` is -scale E[x0 | x_t], so nothing is divided by sigma_t near the
    data, nor by alpha_t near the source. Scale 0 is the flow.

    Raises:
        ValueError: for a scale that is negative or not finite.
    """
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale is {scale}: it multiplies the variance of the noise, and is a number from 0")
    return lambda t: (2 * scale * path.sigma(t)).sqrt()
