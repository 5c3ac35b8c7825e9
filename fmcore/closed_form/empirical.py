"""The exact velocity of a finite data set: attention over all of its points.

If the data distribution is the n training points themselves, the marginal velocity has a closed form
(Bertrand et al. 2025, Proposition 1, here for any affine path): with x_i the points,

    w_i(x, t) = softmax_i( -||x - alpha_t x_i||^2 / (2 sigma_t^2) ),     u*(x, t) = u_t(x | sum_i w_i x_i).

It is attention over the training set: x is the query, the points are keys and values. What a network tries to learn
can therefore be computed, and chapters and tests use it as the oracle.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmcore.closed_form.precision import full_products
from fmcore.paths import AffinePath, rectified
from fmcore.validation import check_finite, check_time
from fmcore.velocity import float32_at_least

# Weights are trusted while rounding moves their logits by less than this.
LOGIT_TOLERANCE = 1e-3
# Points that together change a float32 mean, or its derivative, by less than exp(-NEGLIGIBLE) = 2e-9 may be left out.
NEGLIGIBLE = 20.0
# A row with more candidates than n / CROWD is cheaper in one float64 product than by its differences.
CROWD = 64
# Elements of one (B, chunk) block of logits, 16 MB in float32, and of points taken to float64 at once, 8 MB.
BLOCK, PIECE = 2**22, 2**20


class EmpiricalVelocity:
    """u*(x, t), the marginal velocity of the path between a Gaussian source and the points in ``data``.

    Precision. Distances come from ||x||^2 - 2 alpha <x, x_i> + alpha^2 ||x_i||^2, one matrix product, whose rounding is
    divided by sigma_t^2. Where that could move a logit by more than 1e-3 it only selects: all points that could
    have a weight, given its rounding, are weighted by their differences ||x - alpha x_i||^2 in float64. They are few,
    because sigma_t is small there, and the weights are safe up to t = 1 - 1e-5. What remains in float32 is the rounding
    of x and of the weighted mean themselves, which the velocity divides by sigma_t: an error of about
    eps (||x|| + ||x_i||) (|sigma_t' / sigma_t| + |alpha_t'|), and for the weights that were trusted at most 2e-3 times
    the spread of the weighted points, carried through the same formula. Neither autocast nor TF32 reaches the products.
    Queries of 16 bits are taken in float32, and so is what is returned for them: near t = 1 a velocity may be larger
    than any number of float16. Pass their times in float32, too, or as a number.

    Where sigma_1 = 0 the velocity is singular at t = 1; times beyond ``path.t_max`` are taken at ``path.t_max``.

    Args:
        data: (n, *shape) floating point, finite, n >= 1; kept by reference, not copied. They may be mapped from a file,
            and on another device than the queries, to which each chunk then travels.
        path: any affine path.
        chunk_size: points handled at once; by default as many as keep a block of logits at 16 MB. Memory does not
            grow with n times B, unless a gradient in x is asked for: a running softmax goes through the chunks.
        scale: turns rows of ``data`` into points, (k, *shape) -> (k, *shape) floating point, chunk by chunk: with
            ``EmpiricalVelocity(images.train, scale=images.scaled)`` whole-number images stay as they are kept.

    Raises:
        ValueError: for empty data or values that are not finite.
        TypeError: for integer data without ``scale``.
    """

    def __init__(
        self,
        data: Tensor,
        path: AffinePath | None = None,
        chunk_size: int | None = None,
        scale: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if data.ndim < 2 or len(data) == 0:
            raise ValueError(f"data has shape {tuple(data.shape)}: pass at least one point, shape (n, *shape).")
        if scale is None and not data.is_floating_point():
            raise TypeError(
                f"data holds {data.dtype}: scale images to floating point in [-1, 1] first, or pass scale=..., which "
                "does it chunk by chunk."
            )
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}: it must be at least 1.")
        self.data = data
        self.path = path if path is not None else rectified()
        self.chunk_size = chunk_size
        self.scale = scale
        self._width = data[0].numel()
        # In pieces and in place: no copy of the data is made, and small results do not scatter over freed memory.
        self._squares = torch.empty(len(data), dtype=torch.float64, device=data.device)
        for piece in _slices(len(data), PIECE // self._width):
            torch.sum(self._points(piece, self._squares).square(), dim=1, out=self._squares[piece])
        check_finite("data", self._squares)
        self._radius = float(self._squares.max().sqrt())

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return u*(x, t), shape (B, *shape), for x (B, *shape) and t of shape () or (B,)."""
        x = float32_at_least(x)
        t = self._time(x, t)
        return self.path.velocity(x, self.posterior_mean(x, t), t)

    def posterior_mean(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return E[x1 | x_t = x] = sum_i w_i(x, t) x_i, shape (B, *shape)."""
        x = float32_at_least(x)
        t = self._time(x, t).expand(len(x))
        with full_products(x.device):
            return self._posterior_mean(x.flatten(1), t).reshape(x.shape)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the posterior weights w_i(x, t), shape (B, n); each row is positive and sums to one."""
        x = float32_at_least(x)
        t = self._time(x, t).expand(len(x))
        query, t = x.flatten(1).double(), t.double()
        chunks = self._chunks(query)
        logits = torch.cat([self._logits(query, t, self._points(c, query), self._squares[c]) for c in chunks], dim=1)
        return torch.softmax(logits, dim=1).to(x.dtype)

    def _posterior_mean(self, query: Tensor, t: Tensor) -> Tensor:
        """The mean for queries (B, d) at times (B,)."""
        rounding = self._rounding(query, t)
        late = rounding > LOGIT_TOLERANCE
        if not late.any():
            return self._scan(query, t, rounding, len(query))[0]
        # One product serves all queries, so they are sorted: those whose weights it can be trusted with come first.
        order = torch.argsort(late, stable=True)
        early = len(query) - int(late.sum())
        query, t = query[order], t[order]
        mean, row, column, crowded = self._scan(query, t, rounding[order], early)
        # The others are taken by their candidates or, should these be many, by a product in float64.
        rest = self._mean_by_differences(query, t, row, column)
        if len(crowded):
            double = query[crowded].double(), t[crowded].double()
            rest = rest.index_copy(0, crowded, self._scan(*double, rounding[crowded], len(crowded))[0])
        mean = torch.cat([mean, rest[early:].to(mean)])
        return mean[torch.argsort(order)]

    def _time(self, x: Tensor, t: Tensor | float) -> Tensor:
        if x.shape[1:] != self.data.shape[1:]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but the data are points of shape {tuple(self.data.shape[1:])}: "
                f"pass x of shape (B, {', '.join(map(str, self.data.shape[1:]))})."
            )
        return check_time(t, x).clamp(max=self.path.t_max)

    def _rounding(self, query: Tensor, t: Tensor) -> Tensor:
        """By how much rounding may move a logit; (B,). Zero for float64 queries: there is nothing better."""
        if query.dtype == torch.float64:
            return torch.zeros_like(t)
        reach = self.path.alpha(t) * self._radius
        return torch.finfo(query.dtype).eps * reach * (reach + query.detach().norm(dim=1)) / self.path.sigma(t) ** 2

    def _points(self, rows: slice | Tensor, like: Tensor) -> Tensor:
        """Points by number, (k, d), in the dtype and on the device of ``like``; a view where nothing has to be done."""
        points = self.data[rows if isinstance(rows, slice) else rows.to(self.data.device)]
        points = points.to(like.device)  # before they are scaled: whole numbers are a quarter of the bytes
        return (points if self.scale is None else self.scale(points)).flatten(1).to(like)

    def _chunks(self, query: Tensor) -> list[slice]:
        size = BLOCK // max(1, len(query))
        if self.scale is not None or query.dtype != self.data.dtype or query.device != self.data.device:
            size = min(size, 4 * PIECE // self._width)  # each chunk of points is made anew
        # Products with an odd number of columns can take a third longer.
        return _slices(len(self.data), self.chunk_size or max(size - size % 64, min(size, 64)))

    def _logits(self, query: Tensor, t: Tensor, points: Tensor, squares: Tensor) -> Tensor:
        """-||x - alpha x_i||^2 / (2 sigma^2) without the ||x||^2 term, which every point shares; (B, chunk)."""
        alpha, variance = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None] ** 2
        logits = (query * (alpha / variance)) @ points.T
        return logits.addcmul_(alpha**2 / variance, squares.to(query), value=-0.5)

    def _scan(self, query: Tensor, t: Tensor, rounding: Tensor, early: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go through the data once, with one product for all queries.

        Returns:
            The weighted mean of all points for the first ``early`` queries, by a running softmax: totals are relative
            to the largest logit so far. For the others all points that could have a weight, as pairs (row of the
            query, number of the point), and the rows of queries for which these would be too many.
        """
        # Both logits that are compared are rounded, and the estimate of the rounding is no strict bound: hence 8.
        # In the derivative of the mean weights count times ||x_i||^2 / sigma^2, about rounding / eps.
        reach = torch.log1p(rounding / torch.finfo(query.dtype).eps)
        window = (8 * rounding + reach + NEGLIGIBLE + math.log(len(self.data)))[early:, None]
        largest = query.new_full((len(query), 1), -torch.inf)
        total = torch.zeros_like(query[:early])
        weight = torch.zeros_like(largest[:early])
        count = torch.zeros(len(query) - early, dtype=torch.int64, device=query.device)
        limit = len(self.data) // CROWD
        none = count.new_zeros(0)
        found = [(none, none, query.new_zeros(0))]
        for chunk in self._chunks(query):
            points = self._points(chunk, query)
            logits = self._logits(query, t, points, self._squares[chunk])
            before, largest = largest, torch.maximum(largest, logits.detach().amax(dim=1, keepdim=True))
            if early:
                # Weights below exp(-60) do not count, and denormal numbers would slow the product down tenfold.
                shrink = (before - largest)[:early].clamp_(min=-60).exp_()
                share = (logits[:early] - largest[:early]).clamp_(min=-60).exp_()
                weight = weight * shrink + share.sum(dim=1, keepdim=True)
                total = torch.addmm(total * shrink, share, points)
            if early < len(query):
                likely = logits.detach()[early:] >= largest[early:] - window
                count += likely.sum(dim=1)
                row, column = likely.logical_and_((count <= limit)[:, None]).nonzero(as_tuple=True)
                found.append((row + early, column + chunk.start, logits.detach()[row + early, column]))
        row, column, logit = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = logit >= largest[row, 0] - window[row - early, 0]  # the largest was not known yet in the first chunks
        kept &= count[row - early] <= limit
        return total / weight, row[kept], column[kept], (count > limit).nonzero().squeeze(1) + early

    def _mean_by_differences(self, query: Tensor, t: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The mean of the points ``column`` for the queries ``row``, weighted in float64; zero for other queries."""
        t = t.double()
        alpha, variance = self.path.alpha(t)[:, None], self.path.sigma(t) ** 2
        pieces = _slices(len(row), PIECE // self._width)
        squares = torch.empty_like(row, dtype=torch.float64)
        for piece in pieces:
            r, c = row[piece], column[piece]
            squares[piece] = (query[r].double() - alpha[r] * self._points(c, alpha)).square().sum(dim=1)
        logits = -squares / (2 * variance[row])
        largest = logits.new_full((len(query),), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
        share = torch.exp(logits - largest[row])
        share = share / torch.zeros_like(largest).index_add(0, row, share)[row]
        mean = torch.zeros_like(query, dtype=torch.float64)
        for piece in pieces:
            mean = mean.index_add(0, row[piece], share[piece, None] * self._points(column[piece], mean))
        return mean


def _slices(count: int, size: int) -> list[slice]:
    """0..count - 1 in pieces of that size, or of one."""
    return [slice(start, min(start + max(1, size), count)) for start in range(0, count, max(1, size))]
