"""The assignment solver: prices must change its speed only, never its answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from fmcore.couplings import MinibatchOT
from fmcore.couplings.assignment import assign, column_prices
from tests.analytic import modest, seeded


def total(gain, columns):
    return gain.astype(np.float64)[np.arange(len(gain)), columns].sum()


def largest_total(gain):
    return total(gain, linear_sum_assignment(gain.astype(np.float64), maximize=True)[1])


@modest
@given(
    n=st.integers(1, 40),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]),
    shift=st.sampled_from([0.0, 1e3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_total_is_the_largest(n, scale, shift, dtype, seed):
    g = seeded(seed)
    gain = torch.randn(n, n, generator=g, dtype=dtype) + shift * torch.randn(n, 1, generator=g, dtype=dtype)
    gain = (scale * gain).numpy()
    columns = assign(gain)
    assert sorted(columns.tolist()) == list(range(n))
    assert total(gain, columns) == pytest.approx(largest_total(gain), rel=1e-12)


@pytest.mark.parametrize(
    "gain",
    [
        torch.zeros(30, 30),
        torch.ones(7, 1) @ torch.arange(7.0)[None],
        torch.arange(8.0)[:, None] * torch.arange(8.0),
        torch.eye(25) * 1e8 - 1e8,
        torch.randint(0, 3, (50, 50), generator=seeded(0)).float(),
        torch.cat([torch.full((1, 20), 1e20), torch.randn(19, 20, generator=seeded(1))]),
        torch.outer(10.0 ** torch.arange(-15, 15), 10.0 ** torch.arange(-15, 15)),
    ],
    ids=["equal", "columns", "products", "diagonal", "ties", "one huge row", "sixty orders of magnitude"],
)
def test_total_is_the_largest_for_awkward_matrices(gain):
    gain = gain.numpy()
    assert np.isfinite(column_prices(gain)).all()
    columns = assign(gain)
    assert sorted(columns.tolist()) == list(range(len(gain)))
    assert total(gain, columns) == pytest.approx(largest_total(gain), rel=1e-12)


def test_prices_settle_most_rows():
    """What they are for: once they are paid, the best columns of the rows are nearly the assignment."""
    g = seeded(2)
    gain = (torch.randn(256, 64, generator=g) @ torch.randn(64, 256, generator=g)).numpy()
    columns = assign(gain)
    agreement = [(offers.argmax(axis=1) == columns).mean() for offers in (gain, gain - column_prices(gain))]
    assert agreement[0] < 0.6
    assert agreement[1] > 0.8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_paired_by_their_own_values(dtype):
    x0, x1 = torch.randn(2, 48, 3, 4, generator=seeded(3), dtype=torch.float64).to(dtype)
    paired, data = MinibatchOT()(x0, x1)
    truth, _ = MinibatchOT()(x0.double(), x1.double())
    assert paired.dtype == dtype
    assert data is x1
    assert torch.equal(paired.double(), truth)


def test_autocast_does_not_reach_the_inner_products():
    """Training under bfloat16 autocast pairs the same; a product in bfloat16 would not."""
    x0, x1 = torch.randn(2, 200, 3, generator=seeded(4))
    plain, _ = MinibatchOT()(x0, x1)
    with torch.autocast("cpu", torch.bfloat16):
        under, _ = MinibatchOT()(x0, x1)
        coarse = (x1 @ x0.T).float().numpy()
    assert torch.equal(under, plain)
    assert not torch.equal(x0[assign(coarse)], plain)


def test_the_shape_of_a_sample_does_not_matter():
    x0, x1 = torch.randn(2, 20, 12, generator=seeded(5))
    flat, _ = MinibatchOT()(x0, x1)
    for shape in [(3, 2, 2), (12, 1), (1, 3, 4)]:
        paired, _ = MinibatchOT()(x0.reshape(20, *shape), x1.reshape(20, *shape))
        assert torch.equal(paired, flat.reshape(20, *shape))
    numbers = MinibatchOT()(x0[:, 0], x1[:, 0])[0]
    assert torch.equal(numbers[x1[:, 0].argsort()], x0[:, 0].sort().values)


def test_moving_and_flipping_both_sides_moves_and_flips_the_pairs():
    x0, x1 = torch.randn(2, 30, 1, 4, 4, generator=seeded(6))
    paired, _ = MinibatchOT()(x0, x1)
    flipped, _ = MinibatchOT()(x0.flip(-1), x1.flip(-1))
    assert torch.equal(flipped, paired.flip(-1))
    order = torch.randperm(30, generator=seeded(7))
    assert torch.equal(MinibatchOT()(x0[order], x1)[0], paired)
    assert torch.equal(MinibatchOT()(x0, x1[order])[0], paired[order])


def test_images_are_flipped_before_they_are_paired():
    """Pairs of the flipped images are cheaper than pairs made before the flip: the path joins what is paired."""
    g = seeded(8)
    x0 = torch.randn(64, 1, 8, 8, generator=g)
    x1 = torch.rand(64, 1, 8, 1, generator=g) * torch.linspace(-1, 1, 8) + 0.1 * torch.randn(64, 1, 8, 8, generator=g)
    flip = torch.rand(64, generator=g) < 0.5
    seen = torch.where(flip[:, None, None, None], x1.flip(-1), x1)
    before, after = (((MinibatchOT()(x0, x)[0] - seen) ** 2).flatten(1).sum(dim=1).mean() for x in (x1, seen))
    assert after < 0.99 * before


def test_products_that_overflow_are_refused():
    with pytest.raises(ValueError, match="overflow: scale the data"):
        MinibatchOT()(torch.tensor([[1e30], [-1e30]]), torch.tensor([[1e30], [2e30]]))


# Entropic transport at its limits


@pytest.mark.parametrize("regularization", [1e-2, 1e-1])
def test_sinkhorn_survives_a_regularization_far_below_the_distances(regularization):
    """exp(-distance^2 / regularization) underflows for all pairs here; exact pairs are what remains."""
    x0, x1 = torch.randn(2, 40, 300, generator=seeded(9))
    assert float(torch.exp(-(torch.cdist(x0, x1).double() ** 2) / regularization).max()) == 0
    drawn, _ = MinibatchOT("sinkhorn", regularization)(x0, x1, generator=seeded(10))
    exact, _ = MinibatchOT()(x0, x1)
    assert (drawn == exact).all(dim=1).double().mean() > 0.9


def test_sinkhorn_says_when_its_regularization_is_hopeless():
    x0, x1 = torch.randn(2, 40, 2, generator=seeded(11))
    with pytest.warns(UserWarning, match="numerical errors"), pytest.raises(ValueError, match="too small .*'exact'"):
        MinibatchOT("sinkhorn", 1e-9)(x0, x1, generator=seeded(12))


def test_every_source_sample_is_expected_once():
    """Marginals: over many draws each x0 meets one x1 on average, and their second moments stay those of the source."""
    x0, x1 = torch.randn(2, 64, 2, generator=seeded(13))
    x1 = 0.3 * x1 + 2
    couple, g = MinibatchOT("sinkhorn", 1.0), seeded(14)
    drawn = torch.stack([couple(x0, x1, generator=g)[0] for _ in range(100)])
    counts = (drawn.reshape(-1, 1, 2) == x0).all(dim=2).double().sum(dim=0) / 100
    assert counts.sum() == 64
    assert (counts - 1).abs().max() < 4 * np.sqrt(1 / 100)
    assert torch.allclose(torch.cov(drawn.reshape(-1, 2).T), torch.cov(x0.T), atol=0.1)
