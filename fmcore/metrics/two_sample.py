"""Distances between two sets of points, (n, d) and (m, d), that need no model of either.

| Function | Zero exactly when | Cost |
|---|---|---|
| `wasserstein2` | the two sets are the same | O(n^3), exact |
| `energy_distance` | the two distributions are the same (in expectation) | O(n m d) |
| `mmd` | the same, at the length scale of its kernel | O(n m d) |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fmcore.couplings.assignment import assign
from fmcore.validation import check_finite, check_floating

PRODUCTS, DIFFERENCES = "use_mm_for_euclid_dist_if_necessary", "donot_use_mm_for_euclid_dist"
AT_ONCE = 2**24  # distances that are held at one time, 128 MiB of them
# Points whose distance to the nearest other is measured, and the share of its square that rounding may reach.
SAMPLED_POINTS, ROUNDING_SHARE = 16, 1e-9


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """The 2-Wasserstein distance between the two empirical distributions, solved exactly.

        W2^2 = min over plans of  sum_ij plan_ij |a_i - b_j|^2,   every a_i with mass 1/n, every b_j with mass 1/m.

    Sets of one size pair off one to one (an assignment problem, SciPy); others need a transport plan (POT).

    Raises:
        ValueError: for sets of other shapes, empty sets, or values that are not finite.
        TypeError: for whole numbers.
    """
    a, b = prepared(a, b)
    cost = torch.cdist(a, b, compute_mode=DIFFERENCES).square().cpu().numpy()
    if len(a) == len(b):
        return float(cost[range(len(a)), assign(-cost)].mean() ** 0.5)
    import numpy as np
    import ot

    plan = ot.emd(np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), cost, numItermax=10_000_000)
    return float(max(0.0, (plan * cost).sum()) ** 0.5)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'| (Szekely and Rizzo 2013), where A', B' are independent copies of A, B.

    Unbiased: pairs of a point with itself are left out, so that sets from one distribution give a value around zero,
    which may be negative. Raises as `wasserstein2`, and for sets of fewer than two points.
    """
    a, b = prepared(a, b, least=2)

    mode = cdist_mode(a, b)

    def within(x: Tensor) -> Tensor:
        return total(x, x, mode) / (len(x) * (len(x) - 1))

    return float(2 * total(a, b, mode) / (len(a) * len(b)) - within(a) - within(b))


def mmd(a: Tensor, b: Tensor, bandwidth: float = 1.0) -> float:
    """Squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 bandwidth^2)) (Gretton et al. 2012).

    The unbiased estimate (their equation 3): sets from one distribution give values around zero, which may be negative.
    Raises as `energy_distance`, and for a bandwidth that is not positive.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}: it is a length, in the units of the points, and must be above 0.")
    a, b = prepared(a, b, least=2)
    mode = cdist_mode(a, b)

    def kernel(distance: Tensor) -> Tensor:
        return torch.exp(-distance.square() / (2 * bandwidth**2))

    def within(x: Tensor) -> Tensor:
        return (total(x, x, mode, kernel) - len(x)) / (len(x) * (len(x) - 1))  # a point with itself gives 1

    return float(within(a) + within(b) - 2 * total(a, b, mode, kernel) / (len(a) * len(b)))


def total(a: Tensor, b: Tensor, mode: str, value: Callable[[Tensor], Tensor] = lambda distance: distance) -> Tensor:
    """The sum over all pairs, of a point of a (n, d) and one of b (m, d), of a value of their distance; a scalar.

    Blocks of rows are taken one after the other, so that sets as large as those of an FID need little memory.
    """
    rows = max(1, AT_ONCE // len(b))
    return torch.stack([value(torch.cdist(some, b, compute_mode=mode)).sum() for some in a.split(rows)]).sum()


def prepared(a: Tensor, b: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both sets as float64 of shape (n, d); images and the like are flattened. Raises as `wasserstein2`."""
    for name, x in (("a", a), ("b", b)):
        if x.ndim < 2 or len(x) < least:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: pass points of shape (n, d) with n at least {least}.")
        check_floating(name, x)
        check_finite(name, x)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"points of a have shape {tuple(a.shape[1:])}, those of b {tuple(b.shape[1:])}: they must agree."
        )
    return a.detach().flatten(1).double(), b.detach().flatten(1).double()


def cdist_mode(a: Tensor, b: Tensor) -> str:
    """How `torch.cdist` should take distances between points (n, d) and (m, d), float64: by products, or differences.

    Products, ||x||^2 + ||y||^2 - 2 <x, y>, are several times faster in many dimensions. Far from the origin they lose
    what near points differ by, be it in one cloud or in several: there, differences are taken. Some points tell, by
    their distance to the nearest one.
    """
    points = torch.cat([a, b])
    some = points[:: max(1, len(points) // SAMPLED_POINTS)]
    apart = torch.cdist(some, points, compute_mode=DIFFERENCES)
    nearest = apart.where(apart > 0, torch.inf).amin(dim=1).median()
    rounding = torch.finfo(points.dtype).eps * points.square().sum(dim=1).max()
    return DIFFERENCES if rounding > ROUNDING_SHARE * nearest.square() else PRODUCTS
