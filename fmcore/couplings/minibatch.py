"""Couplings of one batch: independent, or by optimal transport within the batch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmcore.couplings.assignment import assign, column_prices
from fmcore.validation import check_finite, check_pair, unknown_name

Method = Literal["exact", "sinkhorn"]

# Sinkhorn stops when its column sums are off by this share (root mean square), or after so many iterations.
TOLERANCE, ITERATIONS = 1e-3, 5000


def independent(
    x0: Tensor, x1: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Pair the batches as they were drawn: q(x0, x1) = p(x0) p(x1). Labels and generator are not needed."""
    check_pair(x0, x1)
    return x0, x1


@dataclass(frozen=True)
class MinibatchOT:
    """Optimal transport within the batch (Tong et al. 2024, Pooladian et al. 2023).

    "exact" permutes x0 so that sum_i ||x0_pi(i) - x1_i||^2 is smallest: every sample is used exactly once (a plan that
    is sampled with replacement repeats some and drops others). "sinkhorn" finds the entropic plan P that minimizes
    <P, ||x0_i - x1_j||^2> - regularization * entropy(P) between the two batches, and draws one x0 for each x1_j from
    P(. | x1_j). Each x0 is expected once, but some will appear twice and others not at all; over many batches the pairs
    follow the plan. Regularization 2 s^2 belongs to the Schroedinger bridge with noise s (SB-CFM of Tong et al. 2024);
    towards 0 the plan becomes the exact one, towards infinity independent.

    With labels, samples are paired within their class. x0 was drawn independently of the labels, so the rows of a class
    hold a random part of x0, and x0 given the class is still the source: what a class-conditional model starts from
    when it samples. Pairing across classes would train each class on the noise nearest to it alone, and sampling would
    start from noise that the class has never seen. Only batches with several samples a class gain from the transport.

    Both need only inner products: ||x0||^2 and ||x1||^2 add the same to every way to pair.

    Attributes:
        method: "exact" or "sinkhorn".
        regularization: of "sinkhorn", above 0, in units of the squared distance between samples.
    """

    method: Method = "exact"
    regularization: float | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise unknown_name("coupling method", self.method, get_args(Method))
        if self.method == "exact" and self.regularization is not None:
            raise ValueError("exact transport takes no regularization: leave it out, or use method='sinkhorn'.")
        if self.method == "sinkhorn" and not (self.regularization and self.regularization > 0):
            raise ValueError(
                f"sinkhorn needs a regularization above 0, not {self.regularization}: a hundredth of the standard "
                "deviation of the squared distances is close to exact, ten times it close to independent."
            )

    def __call__(
        self, x0: Tensor, x1: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (x0 reordered, x1), both (B, *shape).

        Inner products are taken in float32 at least, whatever the autocast mode. Only their (B, B) matrix crosses to
        the host.

        Args:
            x0, x1: (B, *shape), floating point, finite, drawn independently.
            labels: (B,) integer classes of x1, to pair within classes; None pairs the whole batch.
            generator: draws from the plan of "sinkhorn"; "exact" is not random.

        Raises:
            ValueError: for mismatched shapes or values that are not finite.
            TypeError: for integer samples or labels that are not integers.
        """
        check_pair(x0, x1)
        groups = rows_by_class(labels, len(x1)) if labels is not None else [np.arange(len(x1))]
        order = np.empty(len(x1), dtype=np.int64)
        with torch.no_grad():
            gain = inner_products(x1, x0)
        for rows in groups:
            part = gain if len(rows) == len(gain) else gain[np.ix_(rows, rows)]
            order[rows] = rows[assign(part) if self.method == "exact" else self._draw(part, generator)]
        return x0.index_select(0, torch.from_numpy(order).to(x0.device, non_blocking=True)), x1

    def _draw(self, gain: NDArray[np.floating], generator: torch.Generator | None) -> NDArray[np.int64]:
        """For each row of the plan, one column at random, by its distribution function."""
        shares = entropic_plan(gain, self.regularization or 0.0).cumsum(axis=1)
        device = generator.device if generator is not None else None
        u = torch.rand(len(gain), 1, generator=generator, device=device, dtype=torch.float64).cpu().numpy()
        return (u * shares[:, -1:] >= shares[:, :-1]).sum(axis=1)


def rows_by_class(labels: Tensor, n: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each class."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels hold {labels.dtype}: pass integer classes, labels.long() if they are whole numbers.")
    if labels.shape != (n,):
        raise ValueError(f"labels have shape {tuple(labels.shape)}: pass one class a data sample, shape ({n},).")
    known = labels.cpu().numpy()
    return [np.flatnonzero(known == label) for label in np.unique(known)]


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
    """Return x as (B, d), moved to the origin if it lies so far away that rounding would drown its differences.

    A shift of either side pairs alike. A few samples tell whether one is needed; it would cost a tenth of the pairing.
    """
    x = x.reshape(len(x), x[:1].numel())
    few = x[:8]
    middle = few.mean(dim=0)
    return x - middle if middle.norm() > 3 * (few - middle).norm() else x


def entropic_plan(gain: NDArray[np.floating], regularization: float) -> NDArray[np.float64]:
    """Return the plan (B, B) between x1 (rows) and x0 for the cost -2 gain; rows and columns sum to 1/B."""
    import ot

    # Prices leave the plan alone too, and keep its kernel from underflowing.
    cost = 2 * np.subtract(column_prices(gain), gain, dtype=np.float64)
    cost -= cost.min(axis=1, keepdims=True)
    weights = np.full(len(cost), 1 / len(cost))
    stop = TOLERANCE / len(cost) ** 0.5
    with np.errstate(all="ignore"):  # what went wrong shows in the sums of the plan
        plan = ot.sinkhorn(weights, weights, cost, regularization, numItermax=ITERATIONS, stopThr=stop, warn=False)
    off = float(np.sqrt(np.square(len(plan) * plan.sum(axis=0) - 1).mean()))
    if not off < 0.1:
        raise ValueError(
            f"regularization {regularization:g} is too small for these distances: use method='exact', its limit."
        )
    if off > 2 * TOLERANCE:
        warnings.warn(
            f"Sinkhorn stopped after {ITERATIONS} iterations; how often it uses a source sample is off by {off:.1%}: "
            f"raise regularization (now {regularization:g}), or use method='exact', its limit.",
            stacklevel=4,
        )
    return plan
