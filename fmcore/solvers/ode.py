"""The ordinary differential equation dx/dt = v(x, t), which is left to torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.solvers.counted import MAX_NFE, CountedVelocity
from fmcore.solvers.errors import NOT_FINITE, SolveError, too_fine
from fmcore.solvers.grid import (
    FIXED_STEP,
    check_method,
    check_tolerances,
    grid_for_state,
    time_dtype,
    time_grid,
)
from fmcore.validation import check_finite
from fmcore.velocity import Velocity, float32_at_least


@dataclass(frozen=True)
class Solution:
    """The end of a solve.

    Attributes:
        x: (B, *shape), the state at t1, in the dtype of the start.
        nfe: evaluations of the velocity, each for the whole batch, rejected steps included; a guided velocity counts
            as the network forwards that it takes, however it is wrapped. A sum of one that says its cost and a plain
            network counts the first only, unless it says otherwise (`fmcore.velocity.Evaluations`).
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
    t1: float | None = None,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    times: Sequence[float] | Tensor | None = None,
    grad: bool = False,
    path: AffinePath | None = None,
    max_nfe: int = MAX_NFE,
) -> Solution:
    """Solve dx/dt = v(x, t) from t0 to t1; t1 < t0 runs the flow backward.

    Args:
        velocity: callable ``(x, t) -> v`` shaped like x; t arrives with shape (). Both have the dtype of x0. But if
            that has 16 bits, which cannot tell t near 1 from 1, t is float32 (unless the network cannot take the two
            together), and so is the state itself, in which small steps add up. Tolerances below 1e-3 then ask for more
            digits than the velocity has, and one that is singular at the end, such as a closed form, enlarges the
            rounding of x there: solve it from x0.float().
        x0: (B, *shape), the state at t0 (the source sample going forward, the data going backward). An empty batch
            is returned as it is, without an evaluation.
        t0, t1: start and end. By default the end is ``path.t_max``, as in :func:`solve_sde`, of the path given here or,
            without one, of the velocity's own, its attribute ``path`` (a closed form has one, and what converts a
            noise, a score or a denoiser). Of a velocity that knows no path, such as a network, it is 1, and where
            ``times`` are given and no path. Paths with sigma(1) = 0 have singular velocities at t = 1.
        method: "euler", "midpoint", "heun", "rk4" with a fixed number of steps, or "dopri5", adaptive.
        steps: number of equal steps; for fixed-step methods only, where it is required unless ``times`` is the grid.
        rtol, atol: tolerances of dopri5, above 0, on the root mean square over batch and dimensions.
        times: (T,) monotone times from t0 to t1 at which to keep the state. Fixed-step methods step exactly on
            them: with ``steps`` they must lie on the uniform grid, without it they are the grid.
        grad: keep the graph, to differentiate through the solve. Off by default: sampling needs no gradients.
        path: of the velocity; says where the solve ends if t1 does not.
        max_nfe: evaluations after which dopri5 gives up, at least 1.

    Raises:
        ValueError: for an unknown method (the known ones are listed), steps that do not fit the method or are no whole
            number, tolerances that are not above 0, times off the grid, a start with NaN, a velocity of another shape,
            or a network with weights of another dtype than x0.
        TypeError: for a start of integers, or a velocity that returns no tensor.
        SolveError: a RuntimeError, when the velocity is not finite along the way, takes more than ``max_nfe``
            evaluations, or the tolerances ask for more digits than there are.

    Warns:
        UserWarning: when dropout or batch normalization runs in training mode in the first, second, fourth, eighth, ...
            evaluation, unless ``grad`` is set.
    """
    adaptive = method == "dopri5"
    check_method(method, steps)
    t1 = end_of(velocity if times is None else None, path) if t1 is None else t1
    check_start(x0)
    grid, kept = time_grid(t0, t1, None if adaptive else steps, times, adaptive=adaptive)
    grad = grad and torch.is_grad_enabled()
    function = CountedVelocity(velocity, t0, t1, adaptive, x0.dtype, max_nfe, sampling=not grad)
    if x0.numel() == 0:
        return empty_solution(x0, grid, kept, times)
    with torch.set_grad_enabled(grad):
        states, at = integrate(lambda t, x: function(x, t), x0, grid, kept, method, rtol, atol)
        states = finite_in_dtype_of(x0, states)
    if times is None:
        return Solution(states[-1], function.nfe, grid[[0, -1]])
    return Solution(states[-1], function.nfe, grid[kept], states[[at.index(k) for k in kept]])


def end_of(velocity: Velocity | None, path: AffinePath | None) -> float:
    """Where a solve ends that nobody ended: the last time of the path, which may be the velocity's own; 1 without."""
    known = getattr(velocity, "path", None) if path is None else path
    return known.t_max if isinstance(known, AffinePath) else 1.0


def check_start(x0: Tensor) -> None:
    """Require a start of finite floating-point numbers; raises TypeError or ValueError."""
    if not x0.is_floating_point():
        raise TypeError(f"x0 holds {x0.dtype}: a flow moves floating-point numbers; convert with x0.float().")
    check_finite("x0", x0)


def empty_solution(x0: Tensor, grid: Tensor, kept: list[int], times: object) -> Solution:
    """The solution for a batch of no samples: nothing moves, and nothing is evaluated."""
    if times is None:
        return Solution(x0.clone(), 0, grid[[0, -1]])
    return Solution(x0.clone(), 0, grid[kept], x0.new_empty(len(kept), *x0.shape))


def finite_in_dtype_of(x0: Tensor, states: Tensor) -> Tensor:
    """States, the last of which is the end, in the dtype of the start; raises SolveError if the end is not finite."""
    if not torch.isfinite(states[-1]).all():
        raise SolveError(NOT_FINITE)
    if states.dtype == x0.dtype:
        return states
    states = states.to(x0.dtype)
    if not torch.isfinite(states[-1]).all():
        raise SolveError(f"the solution is too large for {x0.dtype}: start from x0.float() or x0.bfloat16().")
    return states


def integrate(
    function: Callable[[Tensor, Any], Any],
    state: Any,
    grid: Tensor,
    kept: list[int],
    method: str,
    rtol: float,
    atol: float,
) -> tuple[Any, list[int]]:
    """Call torchdiffeq on a grid of times; a state is a tensor or a tuple of tensors, 16 bits of which become 32.

    Returns:
        The states at the kept indices of the grid and at its two ends, stacked on a new first axis, and those indices.
    """
    from torchdiffeq import odeint

    at = sorted({0, *kept, len(grid) - 1})
    state = tuple(map(float32_at_least, state)) if isinstance(state, tuple) else float32_at_least(state)
    first = state[0] if isinstance(state, tuple) else state
    dtype = time_dtype(first.device)
    grid = grid.to(first.device, dtype)
    # End on t1 instead of stepping past it and interpolating back.
    options: dict[str, Any] = {"step_t": grid[-1:], "dtype": dtype}
    if method in FIXED_STEP:
        grid = grid_for_state(grid, first.dtype)
        options = {"grid_constructor": lambda f, y, t: grid}
    else:
        check_tolerances(rtol, atol)
    name = FIXED_STEP.get(method, method)
    of_velocity: list[AssertionError] = []

    def asked(t: Tensor, state: Any) -> Any:
        try:
            return function(t, state)
        except AssertionError as error:
            of_velocity.append(error)
            raise

    try:
        return odeint(asked, state, grid[at], rtol=rtol, atol=atol, method=name, options=options), at
    except AssertionError as error:  # how torchdiffeq says that the step size went to zero or the state to NaN
        if error in of_velocity:
            raise
        said = str(error)[:80]
        if not said.startswith(("underflow in dt", "non-finite values")):
            raise SolveError(f"torchdiffeq cannot solve this: {said}.") from error
        # The squares of such tolerances vanish, or their inverses overflow: the first step is then no number, although
        # the velocity is.
        dtype = first.dtype
        if max(rtol, atol) < torch.finfo(dtype).eps ** 2 and _all_finite(function(grid[0], state)):
            raise too_fine(rtol, atol, dtype) from error
        raise SolveError(f"{NOT_FINITE} (torchdiffeq: {said})") from error


def _all_finite(rates: Any) -> bool:
    """Whether a tensor, or each of a tuple of tensors, holds finite numbers only."""
    return all(bool(torch.isfinite(rate).all()) for rate in (rates if isinstance(rates, tuple) else (rates,)))
