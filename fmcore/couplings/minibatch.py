"""Couplings of one batch: independent, or by optimal transport within the batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmcore.couplings.assignment import assign, column_prices
from fmcore.couplings.products import (
    ROUNDING_SHARE,
    inner_products,
    minus_half_squares,
    rounding,
    rounding_decides,
)
from fmcore.validation import check_generator, check_pair, level_of_caller, unknown_name

Method = Literal["exact", "sinkhorn"]
Labels = Tensor | NDArray[Any] | Sequence[int]

# Sinkhorn stops when its column sums are off by this share (root mean square), or after so many iterations.
TOLERANCE, ITERATIONS = 1e-3, 5000


def independent(
    x0: Tensor, x1: Tensor, labels: Labels | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Pair the batches as they were drawn: q(x0, x1) = p(x0) p(x1). Labels and generator are not needed.

    Raises:
        ValueError: for mismatched shapes.
        TypeError: for integer samples, or a generator that is none of PyTorch's.
    """
    check_pair(x0, x1)
    check_generator(generator)
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
    start from noise that the class has never seen. Only batches with several samples per class gain from the transport.

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
        self, x0: Tensor, x1: Tensor, labels: Labels | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (x0 reordered, x1), both (B, *shape).

        Inner products are taken in float32 at least, whatever the autocast mode. Only their (B, B) matrix crosses to
        the host. Where points are so far from the origin that rounding would decide who is near whom, squared
        distances are taken from differences in float64 instead.

        Args:
            x0, x1: (B, *shape), floating point, finite, drawn independently. An empty batch comes back as it is.
            labels: (B,) integer classes of x1, to pair within classes; None pairs the whole batch. A tensor, a NumPy
                array or a list.
            generator: draws from the plan of "sinkhorn"; "exact" is not random.

        Raises:
            ValueError: for mismatched shapes or values that are not finite.
            TypeError: for integer samples, labels that are not integers, or a generator that is none of PyTorch's.
        """
        check_pair(x0, x1)
        check_generator(generator)
        groups = rows_by_class(labels, len(x1)) if labels is not None else [np.arange(len(x1))]
        if len(x1) == 0:
            return x0, x1
        with torch.no_grad():
            gain = inner_products(x1, x0)
            if self.regularization and rounding(gain) > ROUNDING_SHARE * self.regularization:
                gain = minus_half_squares(x1, x0)
            order = self._order(gain, groups, generator)
            if self.method == "exact" and rounding_decides(gain, x0, x1, order):
                order = self._order(minus_half_squares(x1, x0), groups, generator)
        return x0.index_select(0, torch.from_numpy(order).to(x0.device, non_blocking=True)), x1

    def _order(
        self, gain: NDArray[np.floating], groups: list[NDArray[np.int64]], generator: torch.Generator | None
    ) -> NDArray[np.int64]:
        """The rows of x0 (B,) that belong to x1, group by group."""
        order = np.empty(len(gain), dtype=np.int64)
        for rows in groups:
            part = gain if len(rows) == len(gain) else gain[np.ix_(rows, rows)]
            order[rows] = rows[assign(part) if self.method == "exact" else self._draw(part, generator)]
        return order

    def _draw(self, gain: NDArray[np.floating], generator: torch.Generator | None) -> NDArray[np.int64]:
        """For each row of the plan, one column at random, by its distribution function."""
        shares = entropic_plan(gain, self.regularization or 0.0).cumsum(axis=1)
        device = generator.device if generator is not None else None
        u = torch.rand(len(gain), 1, generator=generator, device=device, dtype=torch.float64).cpu().numpy()
        return (u * shares[:, -1:] >= shares[:, :-1]).sum(axis=1)


def rows_by_class(labels: Labels, n: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each class."""
    known = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if known.shape != (n,):
        raise ValueError(f"labels have shape {known.shape}: pass one class a data sample, shape ({n},).")
    if n and known.dtype.kind not in "biu":
        remedy = "labels.long()" if isinstance(labels, Tensor) else "np.asarray(labels, int)"
        kind = labels.dtype if isinstance(labels, Tensor) else known.dtype
        raise TypeError(f"labels hold {kind}: pass integer classes, {remedy} if they are whole numbers.")
    return [np.flatnonzero(known == label) for label in np.unique(known)]


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
            stacklevel=level_of_caller(),
        )
    return plan
