"""Velocities that hide their gradient: they change with x, but automatic differentiation does not see how.

A ``.detach()``, ``.data``, ``torch.no_grad()`` or a loop through NumPy inside a velocity takes out of its divergence
what came through it, and the likelihood is wrong without a sign of it. The values of the velocity still show how it
changes: it is evaluated again where x has moved a little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.velocity import Evaluations, Velocity

# Where the quotients of three steps agree ten times better with one another than with the derivative, it is not they
# that are wrong. `tests/test_likelihood_gradients.py` lists the networks and exact velocities that are let through.
AGREEMENT = 10
# A derivative may miss a tenth of the change; and rounding must be a hundredth of what is missed.
SHARE, ROUNDING = 0.1, 100
REMEDY = (
    "so its divergence cannot be computed: remove .detach(), .data, torch.no_grad() or inference mode, and detours "
    "through NumPy, inside it."
)


def require_constant(velocity: Velocity, x: Tensor, t: Tensor, v: Tensor) -> None:
    """Refuse a velocity whose v = v(x, t) has no derivative in x, not even zero, unless it is the same elsewhere.

    One evaluation. The velocity must compute in the dtype in which v was computed; rounding is a difference, too.

    Raises:
        ValueError: if it is not.
    """
    if torch.isfinite(v).all() and not torch.equal(_evaluate(velocity, x.detach() + 0.1, t)[1], v.detach()):
        raise ValueError(f"the velocity depends on x but keeps no gradient, {REMEDY}")


def check_gradient(velocity: Velocity, x: Tensor, t: Tensor) -> None:
    """Refuse a velocity that changes along a random direction otherwise than its derivative says.

    With e random signs and J = dv/dx, e^T J e has the divergence for its mean, and is compared with the difference
    quotients e^T (v(x + h e) - v(x)) / h at three h. Four evaluations, one of them differentiated. Randomness inside
    the velocity (dropout) is the same in each, and afterwards as before.

    What it does not find: a hidden part that makes less than a tenth of the change, that cancels more than half of what
    the gradient sees, that turns so sharply that the quotients disagree, or that is there at other times only. Nothing
    is checked in float16 and bfloat16, whose quotients are noise.

    Args:
        velocity: callable (x, t) -> v.
        x: (B, *shape).
        t: shape ().

    Raises:
        ValueError: if it does so for more than half of the samples.
    """
    eps = torch.finfo(x.dtype).eps
    if x.numel() == 0 or eps > 1e-6:
        return
    signs = (2 * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) - 1).to(x)
    length = eps ** (1 / 3) * (float(x.detach().square().mean().sqrt()) or 1.0)

    with torch.inference_mode(False), torch.enable_grad():
        at, v = _evaluate(velocity, x, t)
        product = torch.autograd.grad(v, at, signs, allow_unused=True)[0] if v.requires_grad else None
    if product is None or not torch.isfinite(v).all():
        return  # found during the solve: by `require_constant`, or as what is not finite

    def added(values: Tensor) -> Tensor:  # on the CPU, because not every device has float64
        return values.detach().flatten(1).sum(dim=1).cpu().double()

    def along(change: Tensor) -> Tensor:
        return added(change * signs)

    steps = (length, length / 8, -length / 8)
    moved = (_evaluate(velocity, x.detach() + h * signs, t)[1].detach() for h in steps)
    v = v.detach()
    quotients = torch.stack([along(there - v) / h for there, h in zip(moved, steps, strict=True)])
    derivative = along(product)
    missed = (quotients - derivative).abs().amin(dim=0)
    seen = quotients.abs().amin(dim=0)
    noise = eps * added(v.abs()) / steps[1]
    hidden = (
        (missed > AGREEMENT * (quotients.amax(dim=0) - quotients.amin(dim=0)))
        & (missed > SHARE * torch.maximum(seen, derivative.abs()))
        & (missed > ROUNDING * noise)
        & (seen > derivative.abs() / 2)  # steps below the precision of a network inside change nothing
    )
    if hidden.double().mean() > 0.5:
        raise ValueError(
            "the velocity changes with x otherwise than its gradient says (e^T J e of random signs e is "
            f"{float(quotients.mean()):.3g} by differences, {float(derivative.mean()):.3g} by the gradient), {REMEDY} "
            f"If nothing is hidden, it turns within lengths of {length:.0e}: pass x1 in float64."
        )


def _evaluate(velocity: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a copy of x and v there, under conditions that are the same each time, outside any count."""
    devices = [x.device] if x.device.type == "cuda" else []
    with Evaluations(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        x, t = x.detach().clone().requires_grad_(True), t.detach().clone()
        return x, velocity(x, t)
