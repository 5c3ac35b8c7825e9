"""Exact optimal transport within many batches, and its short way for points near circles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fmcore.couplings import MinibatchOT
from fmcore.ensemble import Arcs, pair, three_directions
from fmcore.ensemble.circles import assign_around, in_step, near_circle, prices, sectors, settled
from fmcore.sources import ChiSphere
from tests.analytic import seeded


@pytest.mark.parametrize(("batch", "scale"), [(1, 1.0), (2, 1.0), (10, 1.0), (16, 55.0), (16, 1e-6), (130, 1.0)])
def test_pairs_have_the_smallest_total_of_scipy(batch, scale):
    x0, x1 = scale * torch.randn(2, 20, batch, 2, generator=seeded(batch))
    paired = pair(x0, x1)
    for a, b, c in zip(x0.double(), x1.double(), paired.double(), strict=True):
        cost = torch.cdist(a, b).square().numpy()
        rows, columns = linear_sum_assignment(cost)
        assert (c - b).square().sum().item() == pytest.approx(cost[rows, columns].sum(), rel=1e-9)
        assert torch.equal(c.sort(dim=0).values, a.sort(dim=0).values)


def test_pairs_of_three_against_all_ways_to_pair():
    x0, x1 = torch.randn(2, 30, 3, 2, generator=seeded(3))
    for a, b, c in zip(x0, x1, pair(x0, x1), strict=True):
        totals = [(a[list(order)] - b).square().sum() for order in itertools.permutations(range(3))]
        assert (c - b).square().sum() <= min(totals) + 1e-5


def test_pairs_are_those_of_the_coupling_of_single_batches():
    x0, x1 = torch.randn(2, 4, 16, 2, generator=seeded(4))
    expected = torch.stack([MinibatchOT()(a, b)[0] for a, b in zip(x0, x1, strict=True)])
    assert torch.equal(pair(x0, x1), expected)


@pytest.mark.parametrize("source", [Arcs(0.9), Arcs(0.98), Arcs(1.0), ChiSphere((2,), dof=3072), "sectors"], ids=str)
@pytest.mark.parametrize("batch", [128, 300])
def test_pairs_near_circles_have_the_smallest_total_of_scipy(source, batch):
    """In any order of the points, and wherever angles jump from pi to -pi."""
    if source == "sectors":
        source = Arcs(0.9, group=batch)
    for turn in range(4):
        x0 = source.sample(batch, seeded(turn))
        x1 = three_directions(batch, seeded(10 + turn))[torch.randperm(batch, generator=seeded(turn))]
        c, s = math.cos(1.7 * turn), math.sin(1.7 * turn)
        x0, x1 = (x @ torch.tensor([[c, s], [-s, c]]) for x in (x0, x1))
        assert near_circle(x0.numpy())
        assert near_circle(x1.numpy())
        paired = pair(x0[None], x1[None])[0].double()
        gain = (x1.double() @ x0.double().T).numpy()
        assert (paired * x1.double()).sum().item() == pytest.approx(gain[linear_sum_assignment(-gain)].sum(), rel=1e-12)
        assert torch.equal(paired.sort(dim=0).values, x0.double().sort(dim=0).values)


@pytest.mark.parametrize("spread", [0.01, 0.4])
def test_pairs_across_sectors_are_found_where_they_are_better(spread):
    """Two sectors .25 radians apart: equally long points stay within them; where the long points of both sets are in
    different sectors, they go across to each other."""
    g = seeded(9)
    angles = torch.rand(2, 60, generator=g, dtype=torch.float64) * 0.1 + torch.tensor([0.0, 0.35]).repeat_interleave(30)
    lengths = 1 + spread * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat_interleave(30, dim=1)
    x0, x1 = torch.stack([lengths * angles.cos(), lengths * angles.sin()], dim=2).numpy()
    assert sectors(*np.sort(angles.numpy())) == [0, 30, 60]
    found, gain = assign_around(x0, x1), x1 @ x0.T
    across = (found < 30) != (np.arange(60) < 30)
    assert across.any() == (spread > 0.1)
    assert gain[np.arange(60), found].sum() == pytest.approx(gain[linear_sum_assignment(-gain)].sum(), rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e150])
def test_prices_of_awkward_points_are_finite(scale):
    x0, x1 = scale * np.ones((20, 2)), scale * np.linspace(1, 2, 40).reshape(20, 2)
    assert np.isfinite(settled(x0, x1, np.zeros(20))).all()


def test_prices_of_points_on_circles_make_everyone_content():
    """On circles partners have one order, and with these prices nobody gains by another partner."""
    a, b = torch.rand(2, 40, generator=seeded(7), dtype=torch.float64).numpy()  # within a radian: no way round
    x0, x1 = (np.stack([r * np.cos(t), r * np.sin(t)], axis=1) for r, t in ((3.0, a + 3.0), (2.0, b + 2.8)))
    first, second = in_step(np.arctan2(x0[:, 1], x0[:, 0]), np.arctan2(x1[:, 1], x1[:, 0]))
    x0, x1 = x0[first], x1[second]
    gains = x1 @ x0.T
    offers = gains - prices(x0, x1)
    assert np.allclose(offers.max(axis=1), offers.diagonal(), atol=1e-9)
    assert gains.trace() == pytest.approx(gains[linear_sum_assignment(-gains)].sum())


def test_a_cloud_is_not_near_a_circle():
    assert not near_circle(torch.randn(100, 2, generator=seeded(8)).numpy())
    assert not near_circle(torch.nn.functional.normalize(torch.randn(100, 3, generator=seeded(8))).numpy())


def test_batches_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="\\(batches, B, d\\)"):
        pair(torch.zeros(4, 2), torch.zeros(4, 2))
