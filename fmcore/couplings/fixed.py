"""Pairs that belong together already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.validation import check_count, check_finite, check_generator, check_pair


@dataclass(frozen=True, eq=False)
class FixedPairs:
    """Source and data samples whose pairing is given, such as the two ends of a flow.

    Indexing with row numbers gives the pairs (x0, x1) of those rows, so it is a training set for
    :func:`fmcore.training.train` as it is. Changing one side alone, by a flip for example, would break the pairs.

    Attributes:
        x0, x1: (n, *shape), floating point; row i of one belongs to row i of the other.
    """

    x0: Tensor
    x1: Tensor

    def __post_init__(self) -> None:
        check_pair(self.x0, self.x1)

    def __len__(self) -> int:
        return len(self.x0)

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.x0[rows], self.x1[rows]

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return n different pairs at random: (x0, x1), both (n, *shape).

        Raises:
            ValueError: if there are fewer than n, or n is not a whole number of at least 0.
            TypeError: for a generator that is none of PyTorch's.
        """
        check_count("n", n, "pairs", least=0)
        check_generator(generator)
        if n > len(self):
            raise ValueError(f"there are {len(self)} pairs, not {n}: ask for fewer, or make more.")
        device = generator.device if generator is not None else self.x0.device
        return self[torch.randperm(len(self), generator=generator, device=device)[:n].to(self.x0.device)]


def reflow(flow: Callable[[Tensor], Tensor], x0: Tensor, batch_size: int = 512) -> FixedPairs:
    """Pair each x0 with the point that a flow takes it to (Liu et al. 2022, rectified flow).

    The trajectories of a flow never meet, so the lines of its pairs cross less than those it was trained on, and a
    model trained on them is straighter. Their transport cost is not higher, for any convex cost (theorem 3.5 there);
    it is not the optimal one either.

    Args:
        flow: maps x0 (B, *shape) to x1 (B, *shape), for example
            ``lambda x0: solvers.solve(velocity, x0, t1=path.t_max).x``.
        x0: (n, *shape), samples of the source, floating point.
        batch_size: samples taken to their ends together.

    Raises:
        ValueError: if the flow returns another shape or values that are not finite, or batch_size is not a whole
            number of at least 1.
    """
    check_count("batch_size", batch_size, "samples")
    with torch.no_grad():
        x1 = torch.cat([flow(batch) for batch in x0.split(batch_size)])
    check_pair(x0, x1)
    check_finite("what the flow returned", x1)
    return FixedPairs(x0, x1)
