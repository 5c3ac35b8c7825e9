"""The cosine of the exact velocity with the conditional one against t, and the time from which on it is 1.

What is plotted in figure 1 of Bertrand et al. 2025 (arXiv 2506.03719), for any points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.closed_form import EmpiricalVelocity
from fmcore.metrics import cosine_to_conditional
from fmcore.paths import rectified

# The data are read once a call, so a call takes several times; more bring nothing, or cost memory (x_t is 64 MB).
TOGETHER, QUERIES = 10, 2**24
RESAMPLES = 1000  # of the pairs, for the spread of a time of collapse


def cosines(
    velocity: EmpiricalVelocity,
    x0: Tensor,
    x1: Tensor,
    times: Tensor,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """cos(u*(x_t, t), x1 - x0) on the rectified path, of every pair at every time; (T, pairs) float64 in [-1, 1].

    Args:
        velocity: the exact one.
        x0, x1: (pairs, *shape), source and data samples.
        times: (T,), in [0, 1).
        advance: told how many times are done, call by call.
    """
    together = max(1, min(TOGETHER, QUERIES // x0.numel()))
    found = []
    for part in times.to(x0.dtype).split(together):
        noise, points = (x.expand(len(part), *x.shape).flatten(0, 1) for x in (x0, x1))
        cosine = cosine_to_conditional(velocity, rectified(), noise, points, part.repeat_interleave(len(x0)))
        found.append(cosine.view(len(part), len(x0)))
        advance(len(part))
    return torch.cat(found).double().clamp(-1, 1)  # rounding leaves some above 1, outside the last bin


def lasting_from(shares: Tensor, level: float) -> Tensor:
    """Number of the first row from which on no share is below the level, and the number of rows if there is none.

    Args:
        shares: (T, ...), one row a time, in order.
        level: of the share.
    """
    return len(shares) - (shares >= level).flip(0).long().cumprod(0).sum(0)


def time_of_collapse(
    found: Tensor, times: Tensor, threshold: float, share: float, generator: torch.Generator
) -> dict[str, Any]:
    """The first time of the grid from which on at least a share of the pairs has a cosine above the threshold.

    Args:
        found: (T, pairs), cosines.
        times: (T,), the grid.
        threshold: of the cosine.
        share: of the pairs, above 0 and at most 1.
        generator: draws pairs again with replacement (the bootstrap), from which the spread comes.

    Returns:
        A value for a record, None if the share never stays there. The spread is None if some of the redrawn sets of
        pairs have no such time.
    """
    above = (found > threshold).double()
    pairs = above.shape[1]
    first = int(lasting_from(above.mean(dim=1), share))
    if first == len(times):
        return {"value": None, "spread": None, "spread_is": None}
    value = round(float(times[first]), 6)
    drawn = torch.randint(pairs, (pairs, RESAMPLES), generator=generator)
    counts = torch.zeros(pairs, RESAMPLES, dtype=torch.float64).scatter_add_(
        0, drawn, torch.ones_like(above[0, 0]).expand(drawn.shape)
    )
    again = lasting_from(above @ counts / pairs, share)
    if int(again.max()) == len(times):
        return {"value": value, "spread": None, "spread_is": None}
    spread = float(times[again].std())
    return {
        "value": value,
        "spread": spread,
        "spread_is": f"standard deviation over {RESAMPLES} resamplings of the pairs",
    }
