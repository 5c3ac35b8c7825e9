"""The exact velocity of a finite data set.

If the data distribution is the n training points themselves, the marginal velocity has a closed form
(Bertrand et al. 2025, Proposition 1, here for any affine path): with x_i the points,

    w_i(x, t) = softmax_i( -||x - alpha_t x_i||^2 / (2 sigma_t^2) ),     u*(x, t) = u_t(x | sum_i w_i x_i).

It is attention over the training set: x is the query, the points are keys and values. What a network tries to learn
can therefore be computed, and chapters and tests use it as the oracle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.paths import AffinePath, rectified
from fmcore.validation import check_finite, check_time

# Weights are trusted while rounding moves their logits by less than this.
LOGIT_TOLERANCE = 1e-3
# Elements of one (B, chunk) block of logits: 64 MB in float32.
BLOCK = 2**24


class EmpiricalVelocity:
    """u*(x, t), the marginal velocity of the path between a Gaussian source and the points in ``data``.

    Precision. Distances come from ||x||^2 - 2 alpha <x, x_i> + alpha^2 ||x_i||^2, whose rounding is divided by
    sigma_t^2. Queries for which that could move a logit by more than 1e-3 are weighted in float64, so the weights are
    safe up to t = 1 - 1e-5. What remains in float32 is the rounding of x and of the weighted mean themselves, which
    the velocity divides by sigma_t: an error of about eps (||x|| + ||x_i||) |sigma_t' / sigma_t|.

    Where sigma_1 = 0 the velocity is singular at t = 1; times beyond ``path.t_max`` are taken at ``path.t_max``.

    Args:
        data: (n, *shape) floating point, finite, n >= 1; kept by reference, not copied.
        path: any affine path.
        chunk_size: points handled at once; by default as many as keep a block of logits at 64 MB. Memory does not
            grow with n times B: a running softmax goes through the chunks.

    Raises:
        ValueError: for empty data or values that are not finite.
        TypeError: for integer data.
    """

    def __init__(self, data: Tensor, path: AffinePath | None = None, chunk_size: int | None = None) -> None:
        if data.ndim < 2 or len(data) == 0:
            raise ValueError(f"data has shape {tuple(data.shape)}: pass at least one point, shape (n, *shape).")
        if not data.is_floating_point():
            raise TypeError(f"data holds {data.dtype}: scale images to floating point in [-1, 1] first.")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}: it must be at least 1.")
        check_finite("data", data)
        self.data = data
        self.path = path if path is not None else rectified()
        self.chunk_size = chunk_size
        self._points = data.flatten(1)
        self._squares = self._points.double().square().sum(dim=1)
        self._radius = float(self._squares.max().sqrt())

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return u*(x, t), shape (B, *shape), for x (B, *shape) and t of shape () or (B,)."""
        t = self._time(x, t)
        return self.path.velocity(x, self.posterior_mean(x, t), t)

    def posterior_mean(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return E[x1 | x_t = x] = sum_i w_i(x, t) x_i, shape (B, *shape)."""
        t = self._time(x, t).expand(len(x))
        query = x.flatten(1)
        exact = self._needs_float64(t, query)
        if not exact.any():
            mean = self._mean(query, t)
        elif exact.all():
            mean = self._mean(query.double(), t.double()).to(x.dtype)
        else:
            # Rows are computed in two groups and put back in order (an index, so that gradients pass).
            low, high = (~exact).nonzero().squeeze(1), exact.nonzero().squeeze(1)
            parts = (
                self._mean(query[low], t[low]),
                self._mean(query[high].double(), t[high].double()).to(x.dtype),
            )
            mean = torch.cat(parts)[torch.argsort(torch.cat([low, high]))]
        return mean.reshape(x.shape)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the posterior weights w_i(x, t), shape (B, n); each row is positive and sums to one."""
        t = self._time(x, t).expand(len(x))
        logits = self._logits(x.flatten(1).double(), t.double(), slice(0, len(self.data)))
        return torch.softmax(logits, dim=1).to(x.dtype)

    def _time(self, x: Tensor, t: Tensor | float) -> Tensor:
        if x.shape[1:] != self.data.shape[1:]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but the data are points of shape {tuple(self.data.shape[1:])}: "
                f"pass x of shape (B, {', '.join(map(str, self.data.shape[1:]))})."
            )
        return check_time(t, x).clamp(max=self.path.t_max)

    def _needs_float64(self, t: Tensor, query: Tensor) -> Tensor:
        reach = self.path.alpha(t) * self._radius
        rounding = torch.finfo(query.dtype).eps * reach * (reach + query.norm(dim=1)) / self.path.sigma(t) ** 2
        return (rounding > LOGIT_TOLERANCE) & (query.dtype != torch.float64)

    def _logits(self, query: Tensor, t: Tensor, chunk: slice) -> Tensor:
        """-||x - alpha x_i||^2 / (2 sigma^2) without the ||x||^2 term, which every point shares; (B, chunk)."""
        points, squares = self._points[chunk].to(query), self._squares[chunk].to(query)
        alpha, variance = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None] ** 2
        return (query @ points.T).mul(alpha / variance) - alpha**2 / (2 * variance) * squares

    def _mean(self, query: Tensor, t: Tensor) -> Tensor:
        n, size = len(self.data), self.chunk_size or max(1, BLOCK // max(1, len(query)))
        if n <= size:
            return torch.softmax(self._logits(query, t, slice(0, n)), dim=1) @ self._points.to(query)
        # Running softmax: totals are kept relative to the largest logit so far and rescaled when it grows.
        largest = query.new_full((len(query), 1), -torch.inf)
        weight, total = torch.zeros_like(largest), torch.zeros_like(query)
        for start in range(0, n, size):
            chunk = slice(start, min(start + size, n))
            logits = self._logits(query, t, chunk)
            new = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            shrink, share = torch.exp(largest - new), torch.exp(logits - new)
            weight = weight * shrink + share.sum(dim=1, keepdim=True)
            total = total * shrink + share @ self._points[chunk].to(query)
            largest = new
        return total / weight
