"""Exact optimal transport within each of many small batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmcore.couplings.assignment import assign

# From this batch size on, looking for good prices first pays (see `fmcore.couplings.assignment`).
WORTH_PRICES = 128


def pair(x0: Tensor, x1: Tensor, prices: Tensor | None = None) -> Tensor:
    """Return x0 with each batch reordered so that sum_i |x0_i - x1_i|^2 is smallest; x1 stays.

    The same pairs as `fmcore.couplings.MinibatchOT`, without its work for single batches, which takes longer than an
    assignment of 16 points.

    Args:
        x0, x1: (N, B, d), N batches of B points each.
        prices: (N, B), of the points x1, see `data_prices`. They change no pair, good ones save half of the time.

    Raises:
        ValueError: for other shapes, or products of points that are not finite.
    """
    if x0.ndim != 3 or x0.shape != x1.shape:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}, x1 {tuple(x1.shape)}: pass two of shape (batches, B, d).")
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        losses = -torch.bmm(x1.double(), x0.double().transpose(1, 2)).numpy()  # |x0|^2 and |x1|^2 settle nothing
    order = np.empty(x0.shape[:2], dtype=np.int64)
    if x0.shape[1] < WORTH_PRICES:
        for row, loss in zip(order, losses, strict=True):
            row[:] = linear_sum_assignment(loss)[1]
    elif prices is not None:
        for row, loss, price in zip(order, losses, prices.double().numpy(), strict=True):
            sources, columns = linear_sum_assignment(loss.T + price)
            row[columns] = sources
    else:
        for row, loss in zip(order, losses, strict=True):
            row[:] = assign(-loss)
    return x0.gather(1, torch.from_numpy(order)[..., None].expand_as(x0))


def data_prices(x0: Tensor, x1: Tensor) -> Tensor:
    """Return prices (n,) of the points x1 (n, d): what optimal transport from one of the sets x0 (K, n, d) would ask.

    They are the dual solution of the assignment for the gain x0_i . x1_j, averaged over the K sets: with these prices
    on the data, a point's best offer is rarely another's best, also in further sets of the same source.
    """
    import ot

    masses = np.full(len(x1), 1 / len(x1))
    found = np.zeros(len(x1))
    for one in x0:
        loss = -(one.double() @ x1.double().T).numpy()
        duals = ot.emd(masses, masses, loss, numItermax=10_000_000, log=True)[1]["v"]
        found -= duals - duals.mean()
    return torch.from_numpy(found / len(x0))
