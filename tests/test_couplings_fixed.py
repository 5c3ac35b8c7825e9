"""Pairs that are given, and the pairs of a flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import TensorDataset

from fmcore import paths, solvers
from fmcore.closed_form import EmpiricalVelocity
from fmcore.couplings import FixedPairs, reflow
from tests.analytic import seeded


def test_rows_stay_together():
    x0 = torch.arange(10.0)[:, None]
    pairs = FixedPairs(x0, x0 + 100)
    assert len(pairs) == 10
    for rows in (torch.tensor([7, 0, 7]), slice(2, 5)):
        first, second = pairs[rows]
        assert torch.equal(first, x0[rows])
        assert torch.equal(second, first + 100)
        for ours, theirs in zip(pairs[rows], TensorDataset(pairs.x0, pairs.x1)[rows], strict=True):
            assert torch.equal(ours, theirs)


def test_samples_are_different_pairs_decided_by_the_generator():
    x0 = torch.arange(50.0)[:, None]
    pairs = FixedPairs(x0, -x0)
    first, second = pairs.sample(20, seeded(0))
    assert torch.equal(second, -first)
    assert len(first.unique()) == 20
    assert torch.equal(first, pairs.sample(20, seeded(0))[0])
    assert not torch.equal(first, pairs.sample(20, seeded(1))[0])
    assert torch.equal(pairs.sample(50, seeded(2))[0].sort(dim=0).values, x0)
    with pytest.raises(ValueError, match="there are 50 pairs, not 51"):
        pairs.sample(51, seeded(0))


def test_pairs_must_fit():
    with pytest.raises(ValueError, match="x0 has shape"):
        FixedPairs(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(TypeError, match="x1 holds torch.uint8"):
        FixedPairs(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.uint8))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_a_linear_flow_pairs_each_start_with_its_end(batch_size):
    """dx/dt = x multiplies by e from t = 0 to t = 1."""
    x0 = torch.randn(7, 3, generator=seeded(3), dtype=torch.float64)
    sizes = []

    def flow(batch):
        sizes.append(len(batch))
        return solvers.solve(lambda x, t: x, batch, rtol=1e-9, atol=1e-9).x

    pairs = reflow(flow, x0, batch_size)
    assert pairs.x0 is x0
    assert torch.allclose(pairs.x1, math.e * x0, rtol=1e-7)
    assert max(sizes) <= batch_size
    assert sum(sizes) == 7
    assert not pairs.x1.requires_grad


def test_no_graph_is_kept_of_a_flow_that_could_be_trained():
    """It would hold every state of the network, for all samples at once."""
    flow = torch.nn.Linear(3, 3)
    asked = []

    def noted(batch):
        asked.append(torch.is_grad_enabled())
        return flow(batch)

    pairs = reflow(noted, torch.randn(7, 3, generator=seeded(5)), batch_size=4)
    assert asked == [False, False]
    for side in (pairs.x0, pairs.x1, *pairs.sample(3, seeded(6))):
        assert side.grad_fn is None
        assert not side.requires_grad
    assert torch.is_grad_enabled()


def test_the_pairs_of_a_flow_cost_less_than_independent_ones():
    """Liu et al. 2022, theorem 3.5: for every convex cost, here the squared and the plain distance."""
    g = seeded(4)
    data = torch.randn(200, 2, generator=g, dtype=torch.float64).sign() * 2 + 0.3 * torch.randn(200, 2, generator=g)
    path = paths.rectified()
    velocity = EmpiricalVelocity(data, path)
    x0 = torch.randn(300, 2, generator=g, dtype=torch.float64)
    pairs = reflow(lambda batch: solvers.solve(velocity, batch, t1=path.t_max, rtol=1e-4, atol=1e-4).x, x0)
    drawn = data[torch.randint(200, (300,), generator=g)]
    for power in (1, 2):
        flowing, independent = ((x1 - x0).norm(dim=1).pow(power).mean() for x1 in (pairs.x1, drawn))
        assert flowing < 0.8 * independent


def test_flows_that_go_wrong_are_refused():
    x0 = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="x0 has shape"):
        reflow(lambda x: x[:, :1], x0)
    with pytest.raises(ValueError, match="what the flow returned has NaN or infinite values in 4 of 4"):
        reflow(lambda x: x / 0, x0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        reflow(lambda x: x, x0, batch_size=0)
    with pytest.raises(ValueError, match=r"batch_size=2\.0: a number of samples is a whole number, write batch_size=2"):
        reflow(lambda x: x, x0, batch_size=2.0)
