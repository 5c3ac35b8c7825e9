"""Exact optimal transport within each of many small batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmcore.couplings.assignment import assign
from fmcore.ensemble.circles import assign_around, near_circle
from fmcore.validation import check_finite, check_pair

# From this batch size on, looking for good prices first pays (see `fmcore.couplings.assignment`).
WORTH_PRICES = 128


def pair(x0: Tensor, x1: Tensor) -> Tensor:
    """Return x0 with each batch reordered so that sum_i |x0_i - x1_i|^2 is smallest; x1 stays.

    The same pairs as `fmcore.couplings.MinibatchOT`, without its work for single batches, which takes longer than an
    assignment of 16 points.

    Args:
        x0, x1: (N, B, d), N batches of B points each.

    Raises:
        ValueError: for other shapes, or points that are not finite or so far away that their products are not.
        TypeError: for whole numbers.
    """
    if x0.ndim != 3 or x0.shape != x1.shape:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}, x1 {tuple(x1.shape)}: pass two of shape (batches, B, d).")
    check_pair(x0, x1)
    try:
        order = _orders(x0, x1)
    except ValueError:  # of SciPy, which does not say what is wrong
        check_finite("x0", x0)
        check_finite("x1", x1)
        raise
    return x0.gather(1, torch.from_numpy(order)[..., None].expand_as(x0))


def _orders(x0: Tensor, x1: Tensor) -> NDArray[np.int64]:
    """The permutations (N, B) of x0. In float64: what rounding leaves of products is finer than points in float32."""
    from scipy.optimize import linear_sum_assignment

    order = np.empty(x0.shape[:2], dtype=np.int64)
    starts, ends = x0.detach().double(), x1.detach().double()
    if x0.shape[1] < WORTH_PRICES:
        losses = -torch.bmm(ends, starts.transpose(1, 2)).numpy()  # |x0|^2 and |x1|^2 settle nothing
        for row, loss in zip(order, losses, strict=True):
            row[:] = linear_sum_assignment(loss)[1]
    else:
        for row, start, end in zip(order, starts, ends, strict=True):
            row[:] = _assigned(start, end)
    return order


def _assigned(x0: Tensor, x1: Tensor) -> NDArray[np.int64]:
    """The permutation (B,) of x0 for one large batch, both (B, d) float64."""
    points = (x0.numpy(), x1.numpy())
    return assign_around(*points) if all(map(near_circle, points)) else assign((x1 @ x0.T).numpy())
