"""The Gaussian source against its moments, SciPy's tests of fit, and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import dblquad
from torch.testing import assert_close

from fmcore.sources import Gaussian
from tests.analytic import modest, seeded


@pytest.mark.parametrize("std", [0.1, 1.0, 50.0])
def test_samples_follow_the_normal_distribution_in_every_dimension_independently(std):
    n, shape = 20_000, (2, 3)
    x = Gaussian(shape, std).sample(n, seeded(0)).double().flatten(1)
    assert stats.kstest(x.flatten().numpy(), "norm", args=(0, std)).pvalue > 1e-3
    bound = 4.5 / math.sqrt(n)  # standard errors; a standard error of a variance is sqrt(2 / n)
    assert (x.mean(dim=0).abs() < bound * std).all()
    covariance = torch.cov(x.T) / std**2
    assert_close(covariance, torch.eye(6, dtype=torch.float64), rtol=0, atol=math.sqrt(2) * bound)


@modest
@given(
    n=st.integers(1, 5),
    shape=st.lists(st.integers(1, 4), max_size=3),
    std=st.floats(0.01, 100),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_log_prob_equals_torch_distributions(n, shape, std, dtype):
    source = Gaussian(tuple(shape), std)
    x = source.sample(n, seeded(1)).to(dtype)
    normal = torch.distributions.Normal(torch.zeros(shape, dtype=dtype), std)
    expected = torch.distributions.Independent(normal, len(shape)).log_prob(x)
    assert_close(source.log_prob(x), expected, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-5)


def test_the_density_integrates_to_one():
    source = Gaussian((2,), std=0.7)
    mass, _ = dblquad(lambda a, b: float(source.log_prob(torch.tensor([[a, b]]).double()).exp()), -6, 6, -6, 6)
    assert mass == pytest.approx(1, abs=1e-6)


def test_the_generator_alone_decides():
    source = Gaussian((4,))
    before = torch.random.get_rng_state()
    first, again, other = (source.sample(3, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = seeded(7)
    assert torch.equal(source.sample(3, generator), first)
    assert not torch.equal(source.sample(3, generator), first)


def test_std_scales_the_same_draws():
    assert_close(Gaussian((3,), 2.5).sample(4, seeded(2)), 2.5 * Gaussian((3,)).sample(4, seeded(2)))


def test_a_list_is_a_shape_and_sources_compare_by_value():
    assert Gaussian([2, 3]) == Gaussian((2, 3))
    assert Gaussian((2, 3)) != Gaussian((2, 3), 2.0)


@pytest.mark.parametrize(
    ("shape", "std"),
    [
        ((2,), 0.0),
        ((2,), -1.0),
        ((0,), 1.0),
        ((2, -1), 1.0),
        ((2,), math.nan),
        ((2,), math.inf),
    ],
)
def test_impossible_sources_are_refused(shape, std):
    with pytest.raises(ValueError, match="std > 0 and positive sizes"):
        Gaussian(shape, std)


@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 2, 1), (4, 1, 2)])
def test_log_prob_refuses_points_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"samples have shape \(2,\)"):
        Gaussian((2,)).log_prob(torch.zeros(shape))
