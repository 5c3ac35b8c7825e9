"""Do our rows stand in the order of the paper's? Kendall's count of pairs, beside what chance gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """How many pairs of rows stand in the paper's order.

    Attributes:
        agreed, pairs: of all pairs of rows; a tie of ours, or of theirs, counts as half.
        by_chance: the probability that a random order of the rows agrees in as many pairs, or more.
    """

    agreed: float
    pairs: int
    by_chance: float


def agreement(paper: Mapping[str, float], ours: Mapping[str, float]) -> Agreement:
    """Compare two orders of the rows that both have, by their numbers (Kendall 1938).

    Raises:
        ValueError: if fewer than two rows are in both, which have no order.
    """
    both = [name for name in paper if name in ours]
    if len(both) < 2:
        raise ValueError(f"an order needs two rows or more that both tables have, got {both}")
    signs = [(_sign(paper[a] - paper[b]), _sign(ours[a] - ours[b])) for a, b in combinations(both, 2)]
    agreed = sum(1.0 if p == o != 0 else 0.5 if 0 in (p, o) else 0.0 for p, o in signs)
    return Agreement(agreed, len(signs), chance_of(agreed, len(both)))


def chance_of(agreed: float, rows: int) -> float:
    """The probability that a random order of so many rows agrees with a given one in `agreed` pairs or more.

    How many of the rows! orders have k discordant pairs is the coefficient of q^k in the product of
    1 + q + ... + q^(m-1) over m = 1, ..., rows: the row put in at place m passes 0 to m - 1 of those before it.
    """
    orders = [1]
    for m in range(2, rows + 1):
        orders = [sum(orders[max(0, k - m + 1) : k + 1]) for k in range(len(orders) + m - 1)]
    pairs = rows * (rows - 1) // 2
    return sum(count for k, count in enumerate(orders) if pairs - k >= agreed) / math.factorial(rows)


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
