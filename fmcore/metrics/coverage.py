"""How well a set of generated points stands for the data points: seven numbers of Lee, Kim and Lee 2025.

The paper (arXiv 2512.18184) compares 1,024 generated points in the plane with 1,024 data points:

| Function | What it says | Best |
|---|---|---|
| `distances_to_data` | mean: how far generated points are from the data; share beyond 1: the rate of failures | 0 |
| `covered_share` | share of data points that have a generated point of their own nearby | 1 |
| `mode_divergence` | whether the parts of the data have the right shares of the points | 0 |
| `normalized_wasserstein` | transport distance in units of the distance between data points | 0 |
| `wasserstein_given_shares` | transport distance apart from wrong shares | that of fresh data |

`wasserstein2` and `mmd` (bandwidth 1) of `fmcore.metrics.two_sample` are the other two. All take points of shape (n, d)
and (m, d). The released code estimates MMD with a bias, k(x, x) = 1 included: about 1/n + 1/m above `mmd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmcore.couplings.assignment import assign
from fmcore.metrics.two_sample import DIFFERENCES, prepared, wasserstein2
from fmcore.validation import check_count

# Shares below this one are raised to it, as in the released code: an empty part would make the divergence infinite.
SMALLEST_SHARE = 1e-10
# The centres of the last k-means, by a digest of its points, their shape, the number of parts and the seed.
_LAST_CENTRES: dict[tuple[bytes, tuple[int, ...], int, int], NDArray[np.float64]] = {}


def distances_to_data(generated: Tensor, data: Tensor) -> Tensor:
    """Distance of each generated point to the nearest data point, (n,) float64.

    Its mean is the average minimum distance of the paper, and ``(distance > 1).double().mean()`` its failure rate.

    Raises:
        ValueError: for sets of other shapes, empty sets, or values that are not finite.
        TypeError: for whole numbers; so do all functions here.
    """
    return _distances(generated, data).amin(dim=1)


def covered_share(generated: Tensor, data: Tensor, radius: float = 1.0) -> float:
    """Share of data points that are matched one to one with a generated point at a distance below the radius.

    Matched greedily, as in the released code: in the order of the data, each takes the first generated point in reach
    that is free. That is at least half of what the largest matching has, and no more than it.

    Raises:
        ValueError: as `distances_to_data`, and for a radius that is not positive.
    """
    if not radius > 0:
        raise ValueError(f"radius is {radius}: it is a length, in the units of the points, and must be above 0.")
    near = (_distances(generated, data) < radius).T.cpu().numpy()
    taken: set[int] = set()
    matched = 0
    for row in near:
        free = next((j for j in row.nonzero()[0].tolist() if j not in taken), None)
        if free is not None:
            taken.add(free)
            matched += 1
    return matched / len(near)


def mode_divergence(generated: Tensor, data: Tensor, modes: int = 8, seed: int = 0) -> float:
    """KL(P || Q) in nats: P and Q are the shares of data and generated points in the parts of the data.

    The parts are those of k-means on the data, a point belonging to the nearest centre. A part without a generated
    point counts as one of the share 1e-10, as in the released code, so it adds about P log(1e10 P) instead of infinity.

    Args:
        generated, data: (n, d) and (m, d).
        modes: number of parts, at most m.
        seed: of k-means, which starts ten times.

    Raises:
        ValueError: as `distances_to_data`, and for more parts than data points.
    """
    a, b = prepared(generated, data)
    check_count("modes", modes, "parts")
    if modes > len(b):
        raise ValueError(f"modes is {modes}: it must be at most the number of data points, {len(b)}.")
    centres = torch.from_numpy(_k_means(b.cpu().numpy(), modes, seed)).to(b)
    return share_divergence(_shares(b, centres), _shares(a, centres))


def share_divergence(p: Tensor, q: Tensor) -> float:
    """KL(P || Q) = sum_k p_k log(p_k / q_k) in nats for shares (k,), after raising those below 1e-10 to it.

    Raises:
        ValueError: for shares of other shapes, or none.
    """
    if p.ndim != 1 or p.shape != q.shape or len(p) == 0:
        raise ValueError(f"p has shape {tuple(p.shape)}, q {tuple(q.shape)}: pass two of shape (k,), k at least 1.")
    p, q = (x.clamp(min=SMALLEST_SHARE) / x.clamp(min=SMALLEST_SHARE).sum() for x in (p, q))
    return float((p * (p / q).log()).sum())


def wasserstein1(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distance between two sets, min over plans of sum_ij plan_ij |a_i - b_j|, solved exactly.

    Sets of one size pair off one to one (an assignment problem, SciPy); others need a transport plan (POT).

    Raises:
        ValueError: as `distances_to_data`.
    """
    cost = _distances(a, b).cpu().numpy()
    if len(a) == len(b):
        return float(cost[range(len(a)), assign(-cost)].mean())
    import ot

    masses = (np.full(size, 1 / size) for size in cost.shape)
    return float(max(0.0, (ot.emd(*masses, cost, numItermax=10_000_000) * cost).sum()))


def normalized_wasserstein(generated: Tensor, data: Tensor) -> float:
    """`wasserstein1` over the mean distance between two different data points: the definition in the paper's text.

    The values in its tables, around 1.4, come from the released code, which computes `wasserstein_given_shares`.

    Raises:
        ValueError: as `distances_to_data`, and for fewer than two different data points.
    """
    distance, between = wasserstein1(generated, data), _distances(data, data)
    if not between.sum() > 0:
        raise ValueError("all data points are the same: there is no distance between them to compare with.")
    return distance / float(between.sum() / (len(between) * (len(between) - 1)))


def wasserstein_given_shares(generated: Tensor, centres: Tensor, draw: Callable[[int, Sequence[int]], Tensor]) -> float:
    """`wasserstein2` to fresh data that have as many points near each centre as the generated points do.

    A set with the wrong share of points in a direction is not blamed for it here, `mode_divergence` says that. Fresh
    data themselves are not at a distance of 0: two sets of 1,024 points of one distribution differ.

    Args:
        generated: (n, d).
        centres: (k, d), one a direction.
        draw: ``draw(n, counts)`` returns n points (n, d) with these numbers in each direction, k in all; for example
            ``lambda n, counts: three_directions(n, generator, counts)`` of `fmcore.ensemble`.

    Raises:
        ValueError: as `distances_to_data`.
    """
    nearest = _distances(generated, centres).argmin(dim=1)
    counts = torch.bincount(nearest, minlength=len(centres)).tolist()
    return wasserstein2(generated, draw(len(generated), counts))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances (n, m) in float64, from differences: a point is at 0 from itself."""
    return torch.cdist(*prepared(a, b), compute_mode=DIFFERENCES)


def _k_means(points: NDArray[np.float64], modes: int, seed: int) -> NDArray[np.float64]:
    """Centres (modes, d) of k-means on points (n, d). The last ones are kept: sets are compared with the same data."""
    from sklearn.cluster import KMeans

    key = sha256(points.tobytes()).digest(), points.shape, modes, seed
    centres = _LAST_CENTRES.get(key)
    if centres is None:
        centres = KMeans(modes, n_init=10, random_state=seed).fit(points).cluster_centers_
        _LAST_CENTRES.clear()
        _LAST_CENTRES[key] = centres
    return centres


def _shares(points: Tensor, centres: Tensor) -> Tensor:
    nearest = torch.cdist(points, centres, compute_mode=DIFFERENCES).argmin(dim=1)
    return torch.bincount(nearest, minlength=len(centres)).double() / len(points)
