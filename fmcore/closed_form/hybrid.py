"""A velocity that changes hands at a given time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.validation import check_time
from fmcore.velocity import Evaluations, Velocity, asking, count_evaluations


@dataclass(frozen=True)
class HybridVelocity:
    """One velocity before the time ``switch``, another from then on.

        v(x, t) = first(x, t) for t < switch,    second(x, t) for t >= switch

    With u* first and a network second, the time at which the network must take over to generate anything but copies
    shows when flows generalize (Bertrand et al. 2025, section 3.3 and figure 3).

    The field jumps at the switch. Solvers of order above one, and adaptive ones, should stop there: solve to
    ``switch`` with ``first`` and on from there with ``second``. Euler steps on a grid that holds ``switch`` are exact.

    Attributes:
        first, second: velocities ``(x, t) -> v``, v shaped like x. Each is called with the rows of its own times only,
            with t in float32 at least (`fmcore.velocity.asking`), and counts its own evaluations; a batch of times on
            both sides of the switch counts as those of its most expensive rows.
        switch: in [0, 1]; 0 leaves everything to ``second``, and 1 leaves it nothing before the end.

    Raises:
        ValueError: for a switch outside [0, 1], or a wrong shape of t.
    """

    first: Velocity
    second: Velocity
    switch: float

    def __post_init__(self) -> None:
        if not 0 <= self.switch <= 1:
            raise ValueError(f"switch is {self.switch}: it is a time, from 0 (source) to 1 (data).")

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return v(x, t), shape (B, *shape), for x (B, *shape) and t of shape () or (B,)."""
        t = check_time(t, x, torch.promote_types(x.dtype, torch.float32))  # 16 bits would move t across the switch
        before = t < self.switch
        if before.all():
            return asking(self.first)(x, t)
        if not before.any():
            return asking(self.second)(x, t)
        rows = torch.cat([before.nonzero().squeeze(1), (~before).nonzero().squeeze(1)])
        cut = int(before.sum())
        early, late = rows[:cut], rows[cut:]
        with Evaluations() as one:
            values = [asking(self.first)(x[early], t[early])]
        with Evaluations() as other:
            values.append(asking(self.second)(x[late], t[late]))
        count_evaluations(max(one.total, other.total))
        return torch.cat(values)[torch.argsort(rows)]
