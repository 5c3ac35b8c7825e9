"""Continuous normalizing flows by maximum likelihood (Chen et al. 2018; FFJORD, Grathwohl et al. 2019).

Before flow matching a velocity was trained by solving it in every step: backwards from the data x1 to x0, with

    log p_1(x1) = log p_0(x0) - integral over t of div v(x_t, t),

and up the gradient of that, through the solver. The divergence is Hutchinson's estimate, with one random sign vector
for the whole solve, and the solver takes a few steps of the midpoint rule: the gradient is that of the discrete solve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fmcore.training.batches import seeded_generator


def negative_log_likelihood(network: nn.Module, source: Any, x1: Tensor, steps: int, signs: Tensor) -> Tensor:
    """-log p_1(x1) in nats, (B,), differentiable in the weights.

    Args:
        network: velocity (x, t) -> v, twice differentiable.
        source: has log_prob.
        x1: (B, *shape).
        steps: midpoint steps from t = 1 to 0; each evaluates the network twice.
        signs: random signs shaped like x1, for Hutchinson's estimate.
    """
    from torchdiffeq import odeint

    def backwards(s: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = state[0] if state[0].requires_grad else state[0].requires_grad_(True)
        v = network(x, 1 - s)
        product = torch.autograd.grad(v, x, signs, create_graph=True)[0]
        return -v, (product * signs).flatten(1).sum(dim=1)

    with torch.enable_grad():
        start = (x1.detach().clone().requires_grad_(True), x1.new_zeros(len(x1)))
        grid = torch.linspace(0, 1, steps + 1, device=x1.device)
        ends, changes = odeint(backwards, start, grid, method="midpoint")
    return changes[-1] - source.log_prob(ends[-1])


def fit_flow(
    network: nn.Module,
    source: Any,
    draw: Callable[[int, torch.Generator], Tensor],
    steps: int,
    batch: int = 64,
    lr: float = 2e-3,
    solver_steps: int = 4,
    seed: int = 0,
) -> Tensor:
    """Train a network in place by maximum likelihood, with Adam.

    Args:
        network: velocity (x, t) -> v.
        source: where the flow starts; has log_prob.
        draw: (n, generator) to n data points (n, *shape), on the device of the network.
        steps, batch, lr: of Adam; the learning rate falls to 0 as a half cosine, the gradient's norm is at most 1.
        solver_steps: of the midpoint rule.
        seed: of the data and the sign vectors.

    Returns:
        The loss of each step, (steps,), in nats per dimension.

    Raises:
        FloatingPointError: when the loss stops being finite.
    """
    generator = seeded_generator(seed, "maximum likelihood")
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = torch.empty(steps)
    for step in range(steps):
        x1 = draw(batch, generator)
        signs = torch.randint(0, 2, x1.shape, generator=generator).to(x1) * 2 - 1
        loss = negative_log_likelihood(network, source, x1, solver_steps, signs).mean() / x1[0].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
        if not losses[step].isfinite():
            raise FloatingPointError(f"the likelihood is {losses[step]} in step {step}: lower the learning rate")
    return losses
