"""Kendall's count of pairs, and what chance gives, beside brute force and SciPy."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats

from fmcore.papers.lipman2023.order import agreement, chance_of

PAPER = {"a": 3.24, "b": 3.28, "c": 3.21, "d": 3.23, "e": 3.11}


def test_pairs_are_counted_as_kendall_counts_them() -> None:
    for values in itertools.permutations([1.0, 2.0, 3.0, 4.0, 5.0]):
        found = agreement(PAPER, dict(zip(PAPER, values, strict=True)))
        tau = scipy.stats.kendalltau(list(PAPER.values()), values).statistic
        assert found.pairs == 10
        assert (2 * found.agreed - 10) / 10 == pytest.approx(tau)


@pytest.mark.parametrize("rows", [2, 3, 5, 6])
def test_chance_is_the_share_of_orders_that_agree_as_often(rows: int) -> None:
    named = {str(i): float(i) for i in range(rows)}
    orders = [agreement(named, dict(zip(named, o, strict=True))).agreed for o in itertools.permutations(range(rows))]
    for agreed in range(rows * (rows - 1) // 2 + 1):
        assert chance_of(agreed, rows) == pytest.approx(sum(one >= agreed for one in orders) / len(orders))


def test_ties_count_half_and_rows_that_one_table_lacks_do_not_count() -> None:
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 1, "c": 2}).agreed == 2.5
    assert agreement({"a": 1, "b": 2, "z": 3}, {"b": 5, "a": 4, "y": 3}).pairs == 1
    with pytest.raises(ValueError, match="two rows or more"):
        agreement({"a": 1.0}, {"a": 2.0, "b": 1.0})
