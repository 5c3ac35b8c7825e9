"""Solvers: follow a velocity from the source to the data, or back.

The ordinary differential equation dx/dt = v(x, t) is left to torchdiffeq; this module fixes the time grid, counts the
network evaluations (NFE) exactly, and never evaluates a velocity outside [t0, t1]. The stochastic equation that
shares the marginals of the flow is solved by Euler-Maruyama.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.validation import check_finite, unknown_name
from fmcore.velocity import Velocity

# Our name -> torchdiffeq's name. Orders 1, 2, 2, 4; evaluations a step 1, 2, 2, 4. Its rk4 is the 3/8 rule.
FIXED_STEP = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "rk4": "rk4"}
METHODS = ("dopri5", *FIXED_STEP)


@dataclass(frozen=True)
class Solution:
    """The end of a solve.

    Attributes:
        x: (B, *shape), the state at t1.
        nfe: evaluations of the velocity, each for the whole batch, rejected steps included; a guided velocity counts
            as the network forwards that it takes.
        times: (T,) float64, the times of the trajectory; (t0, t1) when none were asked for.
        trajectory: (T, B, *shape), the states at ``times``; None when none were asked for.
    """

    x: Tensor
    nfe: int
    times: Tensor
    trajectory: Tensor | None = None


def solve(
    velocity: Velocity,
    x0: Tensor,
    t0: float = 0.0,
    t1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    times: Sequence[float] | Tensor | None = None,
    grad: bool = False,
) -> Solution:
    """Solve dx/dt = v(x, t) from t0 to t1; t1 < t0 runs the flow backward.

    Args:
        velocity: callable ``(x, t) -> v`` shaped like x; t arrives with shape ().
        x0: (B, *shape), the state at t0 (the source sample going forward, the data going backward).
        t0, t1: start and end. Paths with sigma(1) = 0 have singular velocities at t = 1: end at ``path.t_max``.
        method: "euler", "midpoint", "heun", "rk4" with a fixed number of steps, or "dopri5", adaptive.
        steps: number of equal steps; for fixed-step methods only, where it is required unless ``times`` is the grid.
        rtol, atol: tolerances of dopri5, on the root mean square over batch and dimensions.
        times: (T,) monotone times from t0 to t1 at which to keep the state. Fixed-step methods step exactly on
            them: with ``steps`` they must lie on the uniform grid, without it they are the grid.
        grad: keep the graph, to differentiate through the solve. Off by default: sampling needs no gradients.

    Raises:
        ValueError: for an unknown method (the known ones are listed), steps that do not fit the method, times off
            the grid, or a start with NaN.
        TypeError: for a start of integers.
        RuntimeError: when the velocity is not finite along the way.
    """
    check_method(method, steps)
    _check_start(x0)
    grid, kept = time_grid(t0, t1, None if method == "dopri5" else steps, times, adaptive=method == "dopri5")
    function = CountedVelocity(velocity, t0, t1, adaptive=method == "dopri5")
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        states, at = integrate(lambda t, x: function(x, t), x0, grid, kept, method, rtol, atol)
    if not torch.isfinite(states[-1]).all():
        raise RuntimeError(NOT_FINITE)
    if times is None:
        return Solution(states[-1], function.nfe, grid[[0, -1]])
    return Solution(states[-1], function.nfe, grid[kept], states[[at.index(k) for k in kept]])


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
) -> Solution:
    """Solve the stochastic equation that shares the flow's marginals, by Euler-Maruyama with equal steps.

    With g(t) = scale * path.diffusion(t) and the score that belongs to the velocity,

        dx = [v + g^2/2 score] dt + g dW    from source to data (t0 < t1: Anderson's reversed diffusion at scale 1),
        dx = [v - g^2/2 score] dt + g dW    from data to source (t1 < t0: the noising diffusion at scale 1),

    and at scale 0 the probability-flow ODE (Song et al. 2021, eq. 13). One evaluation a step: NFE = steps.

    Args:
        velocity: a velocity of ``path`` from a standard Gaussian source.
        path: converts velocity to score and gives g.
        x0: (B, *shape), the state at t0.
        t0, t1: start and end; t1 is ``path.t_max`` by default.
        steps: number of equal steps, at least 1.
        scale: multiplies g; any scale(t) >= 0 keeps the marginals, so a function of t is allowed. Paths with
            alpha(0) = 0 have infinite g at t = 0: start later, or give a scale function that vanishes there.
        times: (T,) monotone times on the grid at which to keep the state.
        generator: draws the Brownian increments.

    Raises:
        ValueError: as :func:`solve`, and when g is not finite at a step.
        RuntimeError: when the state stops being finite.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: it must be at least 1.")
    t1 = path.t_max if t1 is None else t1
    _check_start(x0)
    grid, kept = time_grid(t0, t1, steps, times)
    direction = 1.0 if t1 > t0 else -1.0
    function = CountedVelocity(velocity, t0, t1)
    x, trajectory = x0, []
    with torch.no_grad():
        for i in range(steps + 1):
            if i in kept and times is not None:
                trajectory.append(x)
            if i == steps:
                break
            t, step = grid[i].to(x), float(grid[i + 1] - grid[i])
            factor = torch.as_tensor(scale(t) if callable(scale) else scale).to(t)
            g = factor * path.diffusion(t) if factor != 0 else factor  # zero wins over an infinite diffusion
            if not torch.isfinite(g):
                raise ValueError(
                    f"the diffusion of the {path.name} path is not finite at t = {float(t):g}: start at a small "
                    "t0 > 0, or pass a scale function that goes to zero faster there."
                )
            v = function(x, t)
            drift = v + direction * g**2 / 2 * path.velocity_to_score(v, x, t)
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + step * drift + g * math.sqrt(abs(step)) * noise
    if not torch.isfinite(x).all():
        raise RuntimeError(NOT_FINITE)
    if times is None:
        return Solution(x, function.nfe, grid[[0, -1]])
    return Solution(x, function.nfe, grid[kept], torch.stack(trajectory))


class CountedVelocity:
    """A velocity that counts its calls, keeps t within the interval of the solve, and checks what it returns.

    ``adaptive`` says that the solver tries a first step of a length that it guesses, which may lead past the end, where
    a velocity may be singular. Its second evaluation is there; all others, and those on a grid, are within.
    """

    def __init__(self, velocity: Velocity, t0: float, t1: float, adaptive: bool = True) -> None:
        self.velocity = velocity
        self.first, self.last = min(t0, t1), max(t0, t1)
        self.adaptive = adaptive
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return v(x, t); raises ValueError when v is not shaped like x."""
        self.calls += 1
        t = t.to(x)
        v = self.velocity(x, t.clamp(self.first, self.last) if self.adaptive and self.calls == 2 else t)
        if v.shape != x.shape:
            raise ValueError(f"the velocity returned shape {tuple(v.shape)} for x of shape {tuple(x.shape)}.")
        return v

    @property
    def nfe(self) -> int:
        """Network forwards a sample: a guided velocity says that each call takes two (``evaluations``)."""
        return self.calls * getattr(self.velocity, "evaluations", 1)


def check_method(method: str, steps: int | None) -> None:
    """Require a known method, and a number of steps only where the method takes one."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if method == "dopri5" and steps is not None:
        raise ValueError("dopri5 chooses its own steps: leave steps out, or use a fixed-step method such as 'euler'.")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}: it must be at least 1.")


def _check_start(x0: Tensor) -> None:
    if not x0.is_floating_point():
        raise TypeError(f"x0 holds {x0.dtype}: a flow moves floating-point numbers; convert with x0.float().")
    check_finite("x0", x0)


def integrate(
    function: Callable[[Tensor, Any], Any],
    state: Any,
    grid: Tensor,
    kept: list[int],
    method: str,
    rtol: float,
    atol: float,
) -> tuple[Any, list[int]]:
    """Call torchdiffeq on a grid of times; a state is a tensor or a tuple of tensors.

    Returns:
        The states at the kept indices of the grid and at its two ends, stacked on a new first axis, and those indices.
    """
    from torchdiffeq import odeint

    at = sorted({0, *kept, len(grid) - 1})
    first = state[0] if isinstance(state, tuple) else state
    grid = grid.to(first.device)
    options: dict[str, Any] = {"step_t": grid[-1:]}  # end on t1 instead of stepping past it and interpolating back
    if method in FIXED_STEP:
        grid = without_conversions(grid, first.dtype)
        options = {"grid_constructor": lambda f, y, t: grid}
    name = FIXED_STEP.get(method, method)
    try:
        return odeint(function, state, grid[at], rtol=rtol, atol=atol, method=name, options=options), at
    except AssertionError as error:  # how torchdiffeq says that the step size went to zero or the state to NaN
        raise RuntimeError(f"{NOT_FINITE} (torchdiffeq: {str(error)[:80]})") from error


def without_conversions(grid: Tensor, dtype: torch.dtype) -> Tensor:
    """The grid in float32 for a float32 state, which saves a conversion of t an evaluation.

    Nothing is lost: the velocity is given t in float32 anyway, and the difference of two neighbours is exact, so that
    the steps add up to the interval. A grid so fine that neighbours would become equal stays as it is.
    """
    rounded = grid.float()
    return rounded if dtype == torch.float32 and (rounded.diff() != 0).all() else grid


def time_grid(
    t0: float, t1: float, steps: int | None, times: Sequence[float] | Tensor | None, adaptive: bool = False
) -> tuple[Tensor, list[int]]:
    """Return the step boundaries from t0 to t1 (float64) and the indices of ``times`` among them."""
    if t0 == t1:
        raise ValueError(f"t0 and t1 are both {t0}: there is nothing to solve.")
    if times is None:
        if steps is None and not adaptive:
            raise ValueError("a fixed-step method needs steps=..., for example steps=50, or a grid of times.")
        return torch.linspace(t0, t1, (steps or 1) + 1, dtype=torch.float64), []
    wanted = torch.as_tensor(times, dtype=torch.float64).cpu()
    span = t1 - t0
    share = (wanted - t0) / span
    if (
        wanted.ndim != 1
        or len(wanted) == 0
        or share.min() < -1e-6
        or share.max() > 1 + 1e-6
        or (share.diff() <= 0).any()
    ):
        raise ValueError(
            f"times must go one way from t0 = {t0} to t1 = {t1} without repeats, but are {wanted.tolist()}."
        )
    if steps is not None:
        kept = (share * steps).round().long()
        if ((share * steps - kept).abs() > 1e-4).any():
            raise ValueError(
                f"times must lie on the grid of {steps} steps from {t0} to {t1}: choose others, or leave steps out."
            )
        return torch.linspace(t0, t1, steps + 1, dtype=torch.float64), kept.tolist()
    start = [t0] if share[0] > 1e-9 else []
    end = [t1] if share[-1] < 1 - 1e-9 else []
    grid = torch.tensor([*start, *wanted.tolist(), *end], dtype=torch.float64)
    return grid, list(range(len(start), len(start) + len(wanted)))


NOT_FINITE = (
    "the solution stopped being finite: the velocity returns NaN or grows without bound. Check the network, "
    "end at path.t_max where the velocity is singular at t = 1, or take more steps."
)
