"""Couplings: which source sample meets which data sample.

A coupling takes a batch x0 from the source and a batch x1 from the data, drawn independently, and returns them paired.
The data keep their order, so labels that belong to x1 stay right; only x0 is permuted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fmcore.validation import check_finite, check_pair, unknown_name

Method = Literal["exact"]


def independent(x0: Tensor, x1: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pair the batches as they were drawn: q(x0, x1) = p(x0) p(x1)."""
    check_pair(x0, x1)
    return x0, x1


@dataclass(frozen=True)
class MinibatchOT:
    """Optimal transport within the batch (Tong et al. 2024, Pooladian et al. 2023).

    Permutes x0 so that the sum of squared distances sum_i ||x0_pi(i) - x1_i||^2 is smallest. The norms do not depend
    on the permutation, so the largest sum of inner products is looked for instead: one matrix product. Every sample
    is used exactly once (a plan sampled with replacement repeats some and drops others).

    Attributes:
        method: "exact", the assignment problem solved by SciPy.
    """

    method: Method = "exact"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise unknown_name("coupling method", self.method, get_args(Method))

    def __call__(self, x0: Tensor, x1: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (x0 permuted, x1), both (B, *shape).

        Args:
            x0, x1: (B, *shape), floating point, finite.
            labels: (B,) classes of x1. Pairing within a batch then depends on the class through x1; a model that is
                conditioned on labels needs a class-aware coupling, which this one is not, so labels are refused.

        Raises:
            ValueError: for mismatched shapes, values that are not finite, or labels.
        """
        check_pair(x0, x1)
        if labels is not None:
            raise ValueError(
                "MinibatchOT pairs without regard to labels, which biases a class-conditional source: "
                "use couplings.independent for a conditional model."
            )
        with torch.no_grad():
            order = self._permutation(x0.flatten(1), x1.flatten(1))
        return x0[order], x1

    def _permutation(self, x0: Tensor, x1: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        gain = (x1 @ x0.T).cpu()
        if not torch.isfinite(gain).all():
            check_finite("x0", x0)
            check_finite("x1", x1)
        _, columns = linear_sum_assignment(gain.double().numpy(), maximize=True)
        return torch.as_tensor(columns, device=x0.device)
