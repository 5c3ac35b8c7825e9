"""The log-density of points under a flow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.likelihood.divergence import divergence_if_any
from fmcore.likelihood.hidden_gradients import check_gradient, require_constant
from fmcore.solvers import NOT_FINITE, CountedVelocity, SolveError, check_method, integrate, time_grid
from fmcore.sources import Gaussian
from fmcore.validation import check_count, check_finite, check_generator, unknown_name
from fmcore.velocity import Velocity, float32_at_least

DIVERGENCES = ("exact", "hutchinson")
NO_GRADIENT = (
    "x1 asks for a gradient, but log_likelihood gives none: pass x1.detach(), or see "
    "fmcore.training.maximum_likelihood for a log-density that can be differentiated."
)


@dataclass(frozen=True)
class Likelihood:
    """Log-density of data under a flow.

    Attributes:
        log_prob: (B,), nats, without a gradient.
        x0: (B, *shape), the point of the source that each x1 came from.
        nfe: evaluations of the velocity in the solve; the divergence reuses them.
    """

    log_prob: Tensor
    x0: Tensor
    nfe: int


def log_likelihood(
    velocity: Velocity,
    x1: Tensor,
    source: Gaussian,
    divergence: str = "exact",
    probes: int = 1,
    t0: float = 0.0,
    t1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    generator: torch.Generator | None = None,
) -> Likelihood:
    """Return log p_1(x1) of the flow that starts from ``source`` at t0.

    The result carries no gradient, neither in x1 nor in the velocity: to train by it, use
    ``fmcore.training.maximum_likelihood``. Before the solve the velocity is evaluated a few times more, which are not
    counted, to see whether its gradient accounts for how it changes with x (`hidden_gradients.check_gradient`), and
    once more where it first has no gradient in x (`hidden_gradients.require_constant`).

    Args:
        velocity: callable (x, t) -> v, differentiable in x.
        x1: (B, *shape) points at t1; 16 bits as in :func:`fmcore.solvers.solve`. An empty batch takes no evaluation.
        source: distribution at t0, with ``log_prob``.
        divergence: "exact" (d vector-Jacobian products per evaluation) or "hutchinson" (``probes`` of them, with
            random signs drawn once for the whole solve, so that the estimate is of one fixed integral).
        probes: random vectors per sample, for Hutchinson.
        t0, t1: interval; end at ``path.t_max`` where the path is singular at t = 1.
        method, steps, rtol, atol: as in :func:`fmcore.solvers.solve`.
        generator: draws the probes.

    Raises:
        ValueError: for an unknown divergence or method, steps that do not fit the method, probes below 1, NaN in x1,
            a velocity that hides its gradient, a shape that the source does not have, and as
            :func:`fmcore.solvers.solve`.
        TypeError: for x1 of integers, or a generator that is none.
        RuntimeError: when the velocity is not finite along the way.

    Warns:
        UserWarning: where x1 asks for a gradient, and as :func:`fmcore.solvers.solve` in training mode.
    """
    if divergence not in DIVERGENCES:
        raise unknown_name("divergence", divergence, DIVERGENCES)
    check_count("probes", probes, "random vectors")
    check_method(method, steps)
    if not x1.is_floating_point():
        raise TypeError(f"x1 holds {x1.dtype}: a flow moves floating-point numbers; convert with x1.float().")
    check_finite("x1", x1)
    check_generator(generator, None if divergence == "exact" else x1.device)
    shape = x1.shape[1:]
    if divergence == "exact":
        vectors = torch.eye(shape.numel(), dtype=float32_at_least(x1).dtype, device=x1.device).reshape(-1, *shape)
    else:
        signs = torch.randint(0, 2, (probes, *x1.shape), generator=generator, device=x1.device)
        vectors = 2 * signs.to(float32_at_least(x1)) - 1
    if x1.requires_grad and torch.is_grad_enabled():
        warnings.warn(NO_GRADIENT, stacklevel=2)
    grid, kept = time_grid(t1, t0, steps, None, adaptive=method == "dopri5")
    function = CountedVelocity(velocity, t0, t1, method == "dopri5", x1.dtype)
    if x1.numel() == 0:
        return Likelihood(source.log_prob(x1), x1.clone(), 0)
    watched = CountedVelocity(velocity, t0, t1, adaptive=False, dtype=x1.dtype, sampling=False)
    check_gradient(watched, x1, torch.as_tensor(t1, dtype=x1.dtype, device=x1.device))
    constant = False

    def rates(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal constant
        v, total = divergence_if_any(function, state[0], t, vectors)
        if total is None:
            if not constant:  # once a solve: it costs an evaluation, and on a device two waits
                require_constant(watched, state[0], t, v)
                constant = True
            total = state[1].new_zeros(len(v))
        return v, total / (1 if divergence == "exact" else probes)

    with torch.no_grad():
        start = (x1, float32_at_least(x1).new_zeros(len(x1)))
        (x, change), _ = integrate(rates, start, grid, kept, method, rtol, atol)
    if not torch.isfinite(x[-1]).all() or not torch.isfinite(change[-1]).all():
        raise SolveError(NOT_FINITE)
    return Likelihood(source.log_prob(x[-1]) + change[-1], x[-1].to(x1.dtype), function.nfe)
