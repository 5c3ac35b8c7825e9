"""Mini-batch optimal transport against every permutation and against POT's network simplex."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcore import couplings
from tests.analytic import modest, seeded


def transport_cost(x0, x1):
    """Sum of squared distances of the pairs, one by one."""
    return sum(float(((a.double() - b.double()) ** 2).sum()) for a, b in zip(x0, x1, strict=True))


def order_of(permuted, x0):
    """Where each row of ``permuted`` stands in ``x0``; every row must be there exactly once."""
    matches = [[i for i, row in enumerate(x0) if torch.equal(row, wanted)] for wanted in permuted]
    assert [len(found) for found in matches] == [1] * len(x0)
    return [found[0] for found in matches]


@modest
@given(
    n=st.integers(1, 6),
    shape=st.sampled_from([(1,), (2,), (3, 2), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_no_permutation_is_cheaper(n, shape, dtype, seed):
    g = seeded(seed)
    x0, x1 = torch.randn(2, n, *shape, generator=g, dtype=dtype)
    x1 = 2 * x1 + 1
    paired, data = couplings.MinibatchOT()(x0, x1)
    assert data is x1
    assert sorted(order_of(paired, x0)) == list(range(n))
    cheapest = min(transport_cost(x0[list(order)], x1) for order in permutations(range(n)))
    assert transport_cost(paired, data) == pytest.approx(cheapest, rel=1e-6)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8)], ids=str)
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_cost_equals_the_network_simplex_of_pot(shape, offset):
    g, n = seeded(0), 64
    x0 = torch.randn(n, *shape, generator=g)
    x1 = torch.rand(n, *shape, generator=g) * 2 - 1 + offset
    paired, _ = couplings.MinibatchOT("exact")(x0, x1)
    distances = ot.dist(x0.double().flatten(1).numpy(), x1.double().flatten(1).numpy())
    weights = np.full(n, 1 / n)
    plan = ot.emd(weights, weights, distances)
    assert transport_cost(paired, x1) == pytest.approx(n * (plan * distances).sum(), rel=1e-5)
    assert transport_cost(paired, x1) < transport_cost(x0, x1)
    assert sorted(order_of(paired, x0)) == list(range(n))


def test_one_dimension_is_sorted():
    """In one dimension optimal transport keeps the order."""
    x0, x1 = torch.randn(2, 50, 1, generator=seeded(1))
    paired, _ = couplings.MinibatchOT()(x0, x1)
    assert torch.equal(paired[x1.flatten().argsort()], x0.sort(dim=0).values)


def test_a_shuffled_copy_is_put_back_in_place():
    x1 = torch.randn(20, 3, 2, generator=seeded(2))
    shuffled = x1[torch.randperm(20, generator=seeded(3))]
    paired, _ = couplings.MinibatchOT()(shuffled, x1)
    assert torch.equal(paired, x1)


def test_the_source_keeps_its_graph():
    x0 = torch.randn(4, 2, generator=seeded(4), requires_grad=True)
    paired, _ = couplings.MinibatchOT()(x0, torch.randn(4, 2, generator=seeded(5)))
    paired.sum().backward()
    assert torch.equal(x0.grad, torch.ones(4, 2))


def test_independent_keeps_the_pairs():
    x0, x1 = torch.randn(2, 5, 2, generator=seeded(6))
    for labels in (None, torch.arange(5)):
        first, second = couplings.independent(x0, x1, labels)
        assert first is x0
        assert second is x1


@pytest.mark.parametrize("couple", [couplings.independent, couplings.MinibatchOT()], ids=["independent", "ot"])
def test_pairs_that_do_not_fit_are_refused(couple):
    with pytest.raises(ValueError, match="x0 has shape"):
        couple(torch.zeros(4, 2), torch.zeros(3, 2))
    with pytest.raises(TypeError, match="x1 holds torch.uint8"):
        couple(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.uint8))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_refused_by_name(bad, which):
    pair = list(torch.randn(2, 4, 2, generator=seeded(7)).clone())
    pair[which] = pair[which].clone()
    pair[which][2, 0] = bad
    with pytest.raises(ValueError, match=rf"x{which} has NaN or infinite values in 1 of 4 .*number 2"):
        couplings.MinibatchOT()(*pair)


def test_labels_are_refused_because_pairing_ignores_them():
    x = torch.randn(3, 2, generator=seeded(8))
    with pytest.raises(ValueError, match=r"labels.*couplings\.independent"):
        couplings.MinibatchOT()(x, x, torch.arange(3))


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="unknown coupling method 'greedy': choose one of .*exact"):
        couplings.MinibatchOT("greedy")
