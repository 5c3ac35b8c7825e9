"""Exact optimal transport between points near two circles around the origin, several times faster.

In the plane of the simulation noise lies near one circle and data near another (`fmcore.ensemble.plane`). Were they on
the circles, optimal pairs would have the same order around them, and the prices that make everyone content with his
partner would be sums along this order. For points near circles the pairs are others, and the prices nearly right: the
solver, which is exact with any prices, ends soon (`fmcore.couplings.assignment`). Points in the order of their angles
have their partners close to the diagonal of the matrix, which saves as much again.

Where both sets leave the same parts of the circle empty, with as many points of both between them, each sector between
is a problem of its own. That no pair from one sector to another would be better is checked, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fmcore.couplings.assignment import RELAXATION, TEMPERATURES

# Relative standard deviation of lengths up to which points are near a circle; .013 and .028 in the simulation.
THIN = 0.1
# Radians that both sets leave free between two sectors.
GAP = 0.2
# Pairs whose places in the order are further apart than n / NEAR are not looked at for better prices.
NEAR = 20
# Of Sinkhorn's, which are cheap for so few pairs. Temperatures are relative to the median loss of those pairs.
ITERATIONS = 8


def near_circle(points: NDArray[np.float64]) -> bool:
    """Whether all points (n, 2) have about the same distance from the origin."""
    lengths = np.linalg.norm(points, axis=1)
    return points.shape[1] == 2 and bool(lengths.std() < THIN * lengths.mean())


def assign_around(x0: NDArray[np.float64], x1: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the permutation pi (n,) with the largest sum_i x1_i . x0_pi(i), for finite points (n, 2)."""
    a, b = _angles(x0), _angles(x1)
    first, second = in_step(a, b)
    x0, x1 = x0[first], x1[second]
    found = np.empty(len(first), dtype=np.int64)
    found[second] = first[_assign_in_step(x0, x1, sectors(a[first], b[second]))]
    return found


def _assign_in_step(x0: NDArray[np.float64], x1: NDArray[np.float64], ends: Sequence[int]) -> NDArray[np.int64]:
    """The same for points in step, with the ends of their sectors.

    A pair loses what it is worse than the best one of its x1 within the sector, so within sectors no loss is negative.
    Where a single pair from one sector to another loses more than all pairs that were found do together, no better ones
    exist.
    """
    from scipy.optimize import linear_sum_assignment

    worth, parts = prices(x0, x1), [slice(start, end) for start, end in pairwise(ends)]
    if len(parts) > 1:
        worth = settled(x0, x1, worth)
    # One product gives prices - x1 . x0: PyTorch's, which training has set to one thread; NumPy's pool would wait.
    rows = torch.from_numpy(np.column_stack([-x1, np.ones(len(x1))]))
    columns = torch.from_numpy(np.column_stack([x0, worth])).T
    found, total, across = [], 0.0, np.inf
    for part in parts:
        losses = (rows[part] @ columns[:, part]).numpy()
        best = losses.min(axis=1)
        losses -= best[:, None]
        pairs = linear_sum_assignment(losses)
        found.append(part.start + pairs[1])
        total += losses[pairs].sum()
        for others in (columns[:, : part.start], columns[:, part.stop :]):
            if others.numel():
                across = min(across, ((rows[part] @ others).amin(dim=1).numpy() - best).min())
    if across > total:
        return np.concatenate(found)
    return linear_sum_assignment((rows @ columns).numpy())[1]


def sectors(a: NDArray[np.float64], b: NDArray[np.float64]) -> list[int]:
    """Ends of the sectors of two sets of angles (n,) in step: between two of them both sets leave a wide gap."""
    wide = [np.diff(angles) % (2 * np.pi) > GAP for angles in (a, b)]
    return [0, *(np.flatnonzero(wide[0] & wide[1]) + 1).tolist(), len(a)]


def in_step(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Orders (n,) of both sets of angles (n,) around the circle, in which the k-th of both are partners.

    Both go round in the same direction. Where the first set begins maximizes sum_k cos(a_k - b_k), a correlation; both
    begin after the widest gap in the second.
    """
    first, second = a.argsort(), b.argsort()
    left, right = np.fft.fft(np.exp(1j * a[first])), np.fft.fft(np.exp(1j * b[second]))
    first = np.roll(first, -int(np.fft.ifft(left * right.conj()).real.argmax()))
    gaps = np.diff(b[second], append=b[second[0]] + 2 * np.pi)
    begin = -(int(gaps.argmax()) + 1)
    return np.roll(first, begin), np.roll(second, begin)


def prices(x0: NDArray[np.float64], x1: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return prices (n,) of the points x0 for x1, both (n, 2) in step, that are close to the dual solution.

    With partners a_k and b_k on circles of radius 1, the price of the next point may rise by any number between what
    it is better for b_k and for b_(k+1),

        cos(a_(k+1) - b_k) - cos(a_k - b_k)    and    cos(a_(k+1) - b_(k+1)) - cos(a_k - b_(k+1)),

    and rises by their mean here. A longer point costs more, by its length times the cosine with its partner.
    """
    a, b = _angles(x0), _angles(x1)
    before, after = a[:-1], a[1:]
    rises = sum(np.cos(after - partner) - np.cos(before - partner) for partner in (b[:-1], b[1:])) / 2
    lengths = np.linalg.norm(x0, axis=1)
    along = lengths.mean() * np.concatenate([[0.0], np.cumsum(rises)])
    return np.linalg.norm(x1, axis=1).mean() * (along + (lengths - lengths.mean()) * np.cos(a - b))


def settled(x0: NDArray[np.float64], x1: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices (n,) of the points x0 with which more points x1 have a partner of their own than with `start`.

    Overrelaxed iterations of Sinkhorn at three falling temperatures, as in `fmcore.couplings.assignment`, but only for
    pairs whose places in the order are near to each other. Where numbers overflow, prices stay as they are.
    """
    reach = max(2, len(start) // NEAR)

    def nearby(values: NDArray[Any], outside: float = 0.0) -> NDArray[Any]:
        """For each of n values a row of its neighbours, (n, 2 reach + 1)."""
        return sliding_window_view(np.pad(values, reach, constant_values=outside), 2 * reach + 1)

    with np.errstate(all="ignore"):
        price, a, b = (values.astype(np.float32) for values in (start, x0, x1))
        # What pairs lose: a row for each x1 with the x0 near it, and a row for each x0 with the x1 near it.
        by_x1 = nearby(price, np.inf) - b[:, :1] * nearby(a[:, 0]) - b[:, 1:] * nearby(a[:, 1])
        best = by_x1.min(axis=1)
        by_x0 = price[:, None] - a[:, :1] * nearby(b[:, 0]) - a[:, 1:] * nearby(b[:, 1]) - nearby(best, -np.inf)
        by_x1 -= best[:, None]
        scale = np.median(by_x1[::16])
        by_x1 /= scale
        by_x0 /= scale
        rise = np.zeros_like(price)
        for temperature in TEMPERATURES:
            kernel_x1, kernel_x0 = (np.exp(np.maximum(losses / -temperature, -80)) for losses in (by_x1, by_x0))
            row_in, column_in = np.zeros((2, len(price) + 2 * reach), np.float32)
            rows, columns = (sliding_window_view(x, 2 * reach + 1) for x in (row_in, column_in))
            row, column = row_in[reach:-reach], column_in[reach:-reach]  # the windows see what is written here
            column[:] = 1
            row[:] = 1 / np.einsum("ik,ik->i", kernel_x1, columns)
            for _ in range(ITERATIONS - 1):
                column *= (column * np.einsum("ik,ik->i", kernel_x0, rows)) ** -RELAXATION
                row *= (row * np.einsum("ik,ik->i", kernel_x1, columns)) ** -RELAXATION
            column[:] = 1 / np.einsum("ik,ik->i", kernel_x0, rows)
            for_x1, for_x0 = temperature * np.log(row), temperature * np.log(column)
            by_x1 -= for_x1[:, None] + nearby(for_x0)
            by_x0 -= nearby(for_x1) + for_x0[:, None]
            rise -= for_x0
    return start + np.nan_to_num(scale * rise.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _angles(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arctan2(points[:, 1], points[:, 0])
