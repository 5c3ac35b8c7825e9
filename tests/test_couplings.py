"""Mini-batch optimal transport against every permutation, POT's network simplex and Sinkhorn in the log domain."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcore import couplings
from tests.analytic import COSINE, gaussian_flow, modest, seeded


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


def test_a_permutation_within_a_class_keeps_to_the_class_and_is_the_cheapest_there():
    """Every order of five samples of one class and four of another, tried apart."""
    g = seeded(8)
    x0, x1 = torch.randn(2, 9, 2, generator=g)
    labels = torch.tensor([7, 0, 7, 7, 0, 0, 7, 0, 7])
    paired, data = couplings.MinibatchOT()(x0, x1, labels)
    assert data is x1
    order = torch.tensor(order_of(paired, x0))
    assert torch.equal(labels[order], labels)  # the rows of a class take their noise from the rows of that class
    for label in (0, 7):
        mine = labels == label
        cheapest = min(transport_cost(x0[mine][list(p)], x1[mine]) for p in permutations(range(int(mine.sum()))))
        assert transport_cost(paired[mine], x1[mine]) == pytest.approx(cheapest, rel=1e-6)
    across, _ = couplings.MinibatchOT()(x0, x1)
    assert transport_cost(across, x1) < transport_cost(paired, x1)


@pytest.mark.parametrize("moved", [(0,), (1,), (0, 1)], ids=["source", "data", "both"])
def test_a_batch_far_from_the_origin_is_paired_as_well_as_near_it(moved):
    """A shift of either side changes no pairing, but drowns the inner products of far points in float32."""
    pair = list(torch.randn(2, 40, 2, generator=seeded(9)))
    x0, x1 = pair
    best = transport_cost(couplings.MinibatchOT()(x0, x1)[0], x1)
    for side in moved:
        pair[side] = pair[side] + torch.tensor([3e3, -2e3])
    far, _ = couplings.MinibatchOT()(*pair)
    assert transport_cost(x0[order_of(far, pair[0])], x1) == pytest.approx(best, rel=1e-3)


# Entropic transport


def entropic_chances(x0, x1, regularization):
    """P(x0_i given x1_j), (n of x1, n of x0): Sinkhorn's iterations in the log domain until they stand still."""
    cost = ((x1.double()[:, None] - x0.double()[None]) ** 2).flatten(2).sum(dim=2)
    potential = torch.zeros(len(x1), dtype=torch.float64)
    for _ in range(5000):
        other = -regularization * torch.logsumexp((potential[:, None] - cost) / regularization, dim=0)
        potential = -regularization * torch.logsumexp((other[None] - cost) / regularization, dim=1)
    plan = ((potential[:, None] + other[None] - cost) / regularization).exp()
    assert (plan.sum(dim=0) - 1).abs().max() < 1e-8
    return plan / plan.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("regularization", [0.5, 5.0])
def test_sinkhorn_draws_each_source_sample_as_often_as_the_entropic_plan_says(regularization):
    x0, x1 = torch.randn(2, 5, 2, generator=seeded(10))
    chances = entropic_chances(x0, x1, regularization)
    couple, generator, n = couplings.MinibatchOT("sinkhorn", regularization), seeded(11), 500
    counts = torch.zeros(5, 5, dtype=torch.float64)
    for _ in range(n):
        paired, data = couple(x0, x1, generator=generator)
        assert data is x1
        counts += (paired[:, None] == x0[None]).all(dim=2)
    assert (counts.sum(dim=1) == n).all()
    bound = 4.5 * (chances * (1 - chances) / n).sqrt() + 2e-3  # and the tolerance of the iterations
    assert ((counts / n - chances).abs() < bound).all()


def test_sinkhorn_lies_between_exact_and_independent():
    x0, x1 = torch.randn(2, 40, 2, generator=seeded(12))
    exact = transport_cost(couplings.MinibatchOT()(x0, x1)[0], x1)
    cold, warm = (
        sum(transport_cost(couplings.MinibatchOT("sinkhorn", r)(x0, x1, generator=g)[0], x1) for _ in range(20)) / 20
        for r, g in ((0.05, seeded(13)), (5.0, seeded(13)))
    )
    assert exact <= cold + 1 < warm
    assert warm < transport_cost(x0, x1)


def test_sinkhorn_draws_within_classes_and_the_generator_alone_decides():
    x0, x1 = torch.randn(2, 12, 2, generator=seeded(14))
    labels = torch.arange(12) % 3
    couple = couplings.MinibatchOT("sinkhorn", 1.0)
    before = torch.random.get_rng_state()
    first, again, other = (couple(x0, x1, labels, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for row, label in zip(first, labels, strict=True):
        source = (x0 == row).all(dim=1).nonzero()
        assert labels[int(source)] == label


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(4), TypeError, "labels hold torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"labels have shape \(3,\)"),
        (torch.zeros(4, 1, dtype=torch.int64), ValueError, r"labels have shape \(4, 1\)"),
    ],
)
def test_labels_that_are_not_one_class_a_sample_are_refused(labels, error, message):
    x = torch.randn(4, 2, generator=seeded(15))
    with pytest.raises(error, match=message):
        couplings.MinibatchOT()(x, x, labels)


def test_regularization_belongs_to_sinkhorn():
    for regularization in (None, 0.0, -1.0):
        with pytest.raises(ValueError, match="sinkhorn needs a regularization above 0"):
            couplings.MinibatchOT("sinkhorn", regularization)
    with pytest.raises(ValueError, match="exact transport takes no regularization"):
        couplings.MinibatchOT("exact", 1.0)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="unknown coupling method 'greedy': choose one of exact, sinkhorn"):
        couplings.MinibatchOT("greedy")


# Pairs that belong together


def test_fixed_pairs_keep_row_to_row():
    x0 = torch.arange(20.0)[:, None]
    pairs = couplings.FixedPairs(x0, 10 * x0)
    assert len(pairs) == 20
    first, second = pairs[torch.tensor([3, 17, 3])]
    assert first.flatten().tolist() == [3, 17, 3]
    assert torch.equal(second, 10 * first)
    drawn, partner = pairs.sample(20, seeded(16))
    assert torch.equal(partner, 10 * drawn)
    assert sorted(drawn.flatten().tolist()) == list(range(20))  # each once
    again, other = (pairs.sample(20, seeded(seed))[0] for seed in (16, 17))
    assert torch.equal(again, drawn)
    assert not torch.equal(other, drawn)
    with pytest.raises(ValueError, match="there are 20 pairs, not 21"):
        pairs.sample(21)
    with pytest.raises(ValueError, match="x0 has shape"):
        couplings.FixedPairs(x0, x0[:5])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_reflow_pairs_each_source_sample_with_its_own_end(batch_size):
    """The Gaussian flow has a known map; its pairs cost no more to transport than independent ones."""
    truth = gaussian_flow(COSINE)
    x0 = truth.sample(30, 0.0, seeded(18))
    pairs = couplings.reflow(lambda x: truth.flow(x, 0.0, 1.0), x0, batch_size)
    assert torch.equal(pairs.x0, x0)
    assert torch.allclose(pairs.x1, truth.flow(x0, 0.0, 1.0))
    assert transport_cost(pairs.x0, pairs.x1) < transport_cost(x0, pairs.x1.roll(1, dims=0))


def test_reflow_refuses_flows_that_lose_samples_or_are_not_finite():
    x0 = torch.randn(6, 2, generator=seeded(19))
    with pytest.raises(ValueError, match="x1 has shape"):
        couplings.reflow(lambda x: x[:, :1], x0)
    with pytest.raises(ValueError, match="what the flow returned has NaN"):
        couplings.reflow(lambda x: x / 0 * 0, x0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        couplings.reflow(lambda x: x, x0, batch_size=0)
