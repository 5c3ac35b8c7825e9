"""The assignment problem: which permutation has the largest total gain.

SciPy solves it exactly, by shortest augmenting paths. How long those paths are depends on a freedom that leaves the
solution alone: taking a price p_j off every entry of column j changes the total of all permutations alike. Good prices
make most rows agree with the final assignment at once, and the solver, which starts without any, several times faster.

All of it runs in NumPy and in one thread: these are many short steps, which would spend more time on waking a pool of
threads than on work, and the pool belongs to the network that trains meanwhile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of Sinkhorn's iterations, relative to the mean loss against the best entry of a row and column. The prices of each
# temperature start the next one; colder than the last, good prices would cost more than SciPy takes to finish the work.
# Each iteration goes further than to the next value, by a power (overrelaxation): what is wrong over many pairs evens
# out in fewer of them.
TEMPERATURES = (0.1, 0.02, 0.005)
ITERATIONS = 5
RELAXATION = 1.7


def assign(gain: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the permutation pi (n,) with the largest sum_i gain[i, pi(i)], for a finite gain (n, n)."""
    from scipy.optimize import linear_sum_assignment

    # Only the search for prices is in float32: they come off in float64, which keeps the optimum of gain exactly.
    _, columns = linear_sum_assignment(np.subtract(column_prices(gain), gain, dtype=np.float64))
    return columns


def column_prices(gain: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return prices (n,) close to the dual solution: with them, the best column of a row is rarely another row's best.

    Rows and columns are first reduced as in the Hungarian method, then Sinkhorn's iterations (Cuturi 2013) are run at
    three falling temperatures, overrelaxed (Thibault et al. 2021). Any prices are allowed: nothing has to converge.
    """
    with np.errstate(all="ignore"):  # overflow spoils prices, not the solution
        loss = np.subtract(gain, gain.max(axis=1, keepdims=True), dtype=np.float32)
        prices = loss.max(axis=0)
        loss -= prices  # now every row and every column has an entry 0, and no entry is above it
        scale = -loss.mean()
        kernel = np.empty_like(loss)
        for temperature in TEMPERATURES:
            unit = temperature * scale
            np.divide(loss, unit, out=kernel)
            np.maximum(kernel, -80, out=kernel)  # smaller numbers play no part, and denormal ones would be slow
            np.exp(kernel, out=kernel)
            column = np.ones_like(prices)
            row = 1 / np.einsum("ij,j->i", kernel, column)
            for _ in range(ITERATIONS - 1):
                column *= (column * np.einsum("i,ij->j", row, kernel)) ** -RELAXATION
                row *= (row * np.einsum("ij,j->i", kernel, column)) ** -RELAXATION
            column = 1 / np.einsum("i,ij->j", row, kernel)
            loss += unit * np.log(row)[:, None]
            loss += unit * np.log(column)
            prices = prices - unit * np.log(column)
    return np.nan_to_num(prices.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
