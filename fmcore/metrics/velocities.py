"""Velocities compared along the path: how soon the exact one is conditional, how far a learned one is from the exact.

Both are measured at x_t = alpha_t x1 + sigma_t x0 for given pairs, one number a pair, and plotted against t: figures 1
and 2 of Bertrand et al. 2025 (arXiv 2506.03719).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.velocity import Velocity


@torch.no_grad()
def cosine_to_conditional(velocity: Velocity, path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
    """The cosine of the angle between a velocity at x_t and the conditional one, d x_t / dt; (B,) in [-1, 1].

        < u(x_t, t), alpha' x1 + sigma' x0 > / ( ||u(x_t, t)|| ||alpha' x1 + sigma' x0|| )

    With u = u* of n points it rises to 1 at the time from which x_t tells which point it came from, and the earlier
    the more dimensions there are (Bertrand et al. 2025, figure 1; there the share of pairs above 0.9 is shown, too).

    Args:
        velocity: ``(x, t) -> v``, for example ``closed_form.EmpiricalVelocity(data, path)``.
        path: joins the pairs.
        x0, x1: (B, *shape), source and data samples, paired independently.
        t: shape () or (B,), in [0, t_max].

    Raises:
        ValueError: for x0 and x1 of other shapes, or a wrong shape of t.
    """
    xt, target = path.interpolate_with_target(x0, x1, t)
    return F.cosine_similarity(velocity(xt, _tensor(t, xt)).flatten(1), target.flatten(1), dim=1)


@torch.no_grad()
def velocity_mse(
    model: Velocity, velocity: Velocity, path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor | float
) -> Tensor:
    """Squared error of a model against a known velocity at x_t, a dimension; (B,), at least 0.

        || v(x_t, t) - u(x_t, t) ||^2 / d

    Its mean over pairs estimates E || v - u* ||^2 / d at time t. A network that generalizes has failed to learn u*, and
    the plot against t shows when (Bertrand et al. 2025, figure 2, left).

    Args:
        model: ``(x, t) -> v``, the learned velocity; a network should be in evaluation mode.
        velocity: the exact one, ``closed_form.EmpiricalVelocity(data, path)``.
        path, x0, x1, t: as in :func:`cosine_to_conditional`; x1 drawn from the training data.

    Raises:
        ValueError: for x0 and x1 of other shapes, a wrong shape of t, or a model output of another shape.
    """
    xt = path.interpolate(x0, x1, t)
    time = _tensor(t, xt)
    learned, exact = model(xt, time), velocity(xt, time)
    if learned.shape != exact.shape:
        raise ValueError(
            f"the model returned shape {tuple(learned.shape)}, the exact velocity has shape {tuple(exact.shape)}: they "
            "must agree."
        )
    return (learned - exact).square().flatten(1).mean(dim=1)


def _tensor(t: Tensor | float, x: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=x.dtype, device=x.device)
