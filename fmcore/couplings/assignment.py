"""The assignment problem: which permutation has the largest total gain.

SciPy solves it exactly, by shortest augmenting paths. How long those paths are depends on a freedom that leaves the
solution alone: taking a price p_j off every entry of column j changes the total of all permutations alike. Good prices
make most rows agree with the final assignment at once, and the solver, which starts without any, several times faster.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Of Sinkhorn's iterations, relative to the mean loss against the best entry of a row and column. The prices of each
# temperature start the next one; colder than the last, exactness would cost more than SciPy takes to finish the work.
TEMPERATURES = (0.1, 0.03, 0.01)
ITERATIONS = 5


def assign(gain: Tensor) -> Tensor:
    """Return the permutation pi with the largest sum_i gain[i, pi(i)], int64 (n,) on the CPU.

    Args:
        gain: (n, n), floating point and finite, on any device. It and n prices cross to the host.
    """
    from scipy.optimize import linear_sum_assignment

    # Only the search for prices is in float32: they come off in float64, which keeps the optimum of gain exactly.
    prices = column_prices(gain).double().cpu()
    _, columns = linear_sum_assignment(np.subtract(prices.numpy(), gain.cpu().numpy()))
    return torch.from_numpy(columns)


def column_prices(gain: Tensor) -> Tensor:
    """Return prices (n,) close to the dual solution: with them, the best column of a row is rarely another row's best.

    Rows and columns are first reduced as in the Hungarian method, then Sinkhorn's iterations (Cuturi 2013) are run at
    three falling temperatures. They need exponentials and products of a matrix with a vector only, so they run where
    ``gain`` is, in parallel. Any prices are allowed, so nothing here has to converge.
    """
    loss = gain.float() - gain.float().amax(dim=1, keepdim=True)
    prices = loss.amax(dim=0)
    loss -= prices  # now every row and every column has an entry 0, and no entry is above it
    scale = loss.mean().clamp(max=-torch.finfo(loss.dtype).tiny).neg()
    kernel = torch.empty_like(loss)
    for temperature in TEMPERATURES:
        # Entries below exp(-80) play no part, and smaller numbers would be slow (denormal).
        torch.div(loss, temperature * scale, out=kernel).clamp_(min=-80).exp_()
        column = torch.ones_like(prices)
        for _ in range(ITERATIONS):
            row = 1 / (kernel @ column)
            column = 1 / (row @ kernel)
        rise = temperature * scale * column.log()
        prices -= rise
        loss += rise
        loss += temperature * scale * row.log()[:, None]
    return prices.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
