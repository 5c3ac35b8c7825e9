"""Inner products of two batches, and squared distances in their place where rounding would decide about pairs.

Pairing compares <x1_i, x0_j> for different i and j. Rounding is relative to the products, so far from the origin it may
be larger than the squared distances between the points. One cloud of points can be moved to the origin; of two clouds
far apart, at least one stays far away.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmcore.validation import check_finite

# Pairs whose distance is measured, to compare it with rounding.
SAMPLED_PAIRS = 64
# The share of what tells pairs apart, squared distances or a regularization, that rounding may reach.
ROUNDING_SHARE = 0.01
# Apple GPUs ("mps") have no float64.
WITHOUT_FLOAT64 = ("mps",)


def inner_products(x1: Tensor, x0: Tensor) -> NDArray[np.floating]:
    """Return <x1_i, x0_j> (B, B) on the host, up to constants for rows and columns; float32 at least."""
    dtype = torch.promote_types(torch.promote_types(x0.dtype, x1.dtype), torch.float32)
    # On a GPU a training step may have allowed TF32, which keeps 10 bits; float64 is out of its reach.
    exact = torch.float64 if x0.device.type == "cuda" else dtype
    with torch.autocast(x0.device.type, enabled=False):
        gain = (near_origin(x1.to(exact)) @ near_origin(x0.to(exact)).T).to(dtype).cpu().numpy()
    if not (np.isfinite(gain.min()) and np.isfinite(gain.max())):
        check_finite("x0", x0)
        check_finite("x1", x1)
        raise ValueError("the inner products of x0 and x1 overflow: scale the data, images to [-1, 1].")
    return gain


def near_origin(x: Tensor) -> Tensor:
    """Return x as (B, d), moved to the origin if it lies so far away that rounding would hide its differences.

    A shift of either side pairs alike. A few samples tell whether one is needed; it would cost a tenth of the pairing.
    """
    x = x.reshape(len(x), x[:1].numel())
    few = x[:8]
    middle = few.mean(dim=0)
    return x - middle if middle.norm() > 3 * (few - middle).norm() else x


def minus_half_squares(x1: Tensor, x0: Tensor) -> NDArray[np.float64]:
    """Return -||x1_i - x0_j||^2 / 2 (B, B) on the host, from differences in float64: up to constants, the same.

    They are taken on the device of the points, or on the host where that device has no float64.
    """
    if x0.device.type in WITHOUT_FLOAT64:
        x1, x0 = x1.cpu(), x0.cpu()
    ends, starts = (x.reshape(len(x), x[:1].numel()).double() for x in (x1, x0))
    with torch.autocast(x0.device.type, enabled=False):
        apart = torch.cdist(ends, starts, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.square_().div_(-2).cpu().numpy()


def rounding(gain: NDArray[np.floating]) -> float:
    """Return about how large the rounding errors of inner products are: that of the largest one."""
    return float(np.finfo(gain.dtype).eps / 2) * max(abs(float(gain.min())), abs(float(gain.max())))


def rounding_decides(gain: NDArray[np.floating], x0: Tensor, x1: Tensor, order: NDArray[np.int64]) -> bool:
    """Whether pairs that were found by these inner products are so near that rounding may have decided about them.

    The median of some tells: where clouds of different sizes force a pair across, its distance says nothing of others.
    Where each of them is a point with its copy, nothing is nearer, and rounding has done no harm.

    Args:
        gain: (B, B), what the pairs were found by.
        x0, x1: (B, *shape), on any device; the sampled rows are fetched from it, once.
        order: (B,), the rows of x0 that belong to x1.
    """
    some = slice(None, None, max(1, len(x1) // SAMPLED_PAIRS))
    rows = torch.from_numpy(order[some]).to(x0.device, non_blocking=True)
    starts, ends = torch.stack([x0.index_select(0, rows), x1[some]]).cpu().double()
    moves = (starts - ends).square().reshape(len(starts), -1).sum(dim=1)
    return bool(moves.any()) and rounding(gain) > ROUNDING_SHARE * float(moves.median())
