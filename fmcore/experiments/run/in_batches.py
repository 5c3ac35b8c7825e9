"""Solves of many samples in batches that fit into the memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fmcore import memory
from fmcore.solvers import Solution
from fmcore.velocity import Velocity

# So few samples are solved together whatever the memory.
FEW = 64
# States that an adaptive solver keeps: seven slopes, their products, and what is interpolated.
STATES = 24


VelocityOf = Callable[[slice], Velocity]


def fitting(velocity_of: VelocityOf, x0: Tensor, device: torch.device) -> int:
    """How many of the samples x0 (n, *shape) fit into the memory when they are solved together on the device."""
    if len(x0) <= FEW:
        return len(x0)

    def take(count: int) -> object:
        some = x0[:count].to(device)
        return some.new_empty(STATES, *some.shape), velocity_of(slice(count))(some, torch.zeros((), device=device))

    with torch.no_grad():
        return memory.most_at_once(take, len(x0), device)


def in_batches(
    solve: Callable[[Tensor, slice], Solution], velocity_of: VelocityOf, x0: Tensor, device: torch.device
) -> Solution:
    """Solve for all samples together if they fit into the memory, as a rule, or else batch by batch.

    A batch of its own takes an adaptive solver other steps, within the tolerances; and products in another order.

    Args:
        solve: from samples on the device, and their place among all, to their solution.
        velocity_of: the velocity that `solve` asks for samples of a place, to see what it takes.
        x0: (n, *shape), the starts, on any device.
        device: where to solve.

    Returns:
        The solution of all samples, on the device; its NFE is the mean over samples, rounded, if the batches differ.
    """
    at_once = fitting(velocity_of, x0, device)
    places = [slice(first, min(first + at_once, len(x0))) for first in range(0, len(x0), at_once or 1)]
    parts = [solve(x0[place].to(device), place) for place in places or [slice(0)]]
    if len(parts) == 1:
        return parts[0]
    trajectories = [part.trajectory for part in parts if part.trajectory is not None]
    return Solution(
        torch.cat([part.x for part in parts]),
        round(sum(part.nfe * len(part.x) for part in parts) / len(x0)),
        parts[0].times,
        torch.cat(trajectories, dim=1) if trajectories else None,
    )
