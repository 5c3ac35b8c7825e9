"""Sources of given directions and lengths: chi-sphere and von Mises-Fisher, against SciPy and known moments."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.sources import ChiSphere, Gaussian, VonMisesFisher, spherical_k_means
from tests.analytic import seeded


def test_a_chi_sphere_of_its_own_dimension_is_the_gaussian():
    source, normal = ChiSphere((2, 3)), Gaussian((2, 3))
    x = source.sample(20_000, seeded(0))
    assert x.shape == (20_000, 2, 3)
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.allclose(source.log_prob(x[:100].double()), normal.log_prob(x[:100].double()), rtol=1e-6, atol=1e-5)
    assert source.mean_norm == pytest.approx(normal.mean_norm, rel=1e-6)
    assert normal.mean_norm == pytest.approx(float(x.flatten(1).norm(dim=1).mean()), rel=0.01)


def test_lengths_and_angles_in_the_plane_with_other_degrees_of_freedom():
    x = ChiSphere((2,), dof=625).sample(20_000, seeded(1)).double()
    assert stats.kstest(x.norm(dim=1).numpy(), stats.chi(625).cdf).pvalue > 1e-3
    angles = torch.atan2(x[:, 1], x[:, 0])
    assert stats.kstest(angles.numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


@pytest.mark.parametrize(
    "source", [ChiSphere((2,), dof=5), VonMisesFisher(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), 3.0)]
)
def test_densities_integrate_to_one(source):
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    mass = float(source.log_prob(torch.cartesian_prod(grid, grid)).exp().sum()) * 0.02**2
    assert mass == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("dim", [3, 10])
def test_von_mises_fisher_against_scipy(dim):
    mean = torch.nn.functional.normalize(torch.randn(1, dim, generator=seeded(2)), dim=1)
    source = VonMisesFisher(7 * mean, kappa=4.0)  # the length of a mean direction does not matter
    x = source.sample(20_000, seeded(3)).double()
    directions = x / x.norm(dim=1, keepdim=True)
    assert stats.kstest(x.norm(dim=1).numpy(), stats.chi(dim).cdf).pvalue > 1e-3
    truth = stats.vonmises_fisher(mean[0].double().numpy() / np.linalg.norm(mean[0].double().numpy()), 4.0)
    theirs = torch.from_numpy(truth.rvs(20_000, random_state=np.random.default_rng(0)))
    for axis in (mean[0].double(), torch.eye(dim, dtype=torch.float64)[0], torch.eye(dim, dtype=torch.float64)[1]):
        assert stats.ks_2samp((directions @ axis).numpy(), (theirs @ axis).numpy()).pvalue > 1e-3
    # density: that of the direction, times that of the length, over r^(d - 1)
    few = x[:50]
    lengths = few.norm(dim=1).numpy()
    expected = truth.logpdf(directions[:50].numpy()) + stats.chi(dim).logpdf(lengths) - (dim - 1) * np.log(lengths)
    assert np.allclose(source.log_prob(few).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("kappa", "expected"), [(50.0, 0.016272), (1500.0, 0.407312)])
def test_the_cosine_in_3072_dimensions(kappa, expected):
    """A(kappa) = I_{d/2} / I_{d/2-1}, and the variance 1 - A^2 - (d - 1) A / kappa."""
    mean = torch.randn(1, 3, 32, 32, generator=seeded(4))
    x = VonMisesFisher(mean, kappa).sample(2000, seeded(5)).flatten(1).double()
    cosines = (x @ mean.flatten().double()) / x.norm(dim=1) / mean.norm()
    variance = 1 - expected**2 - 3071 * expected / kappa
    assert float(cosines.mean()) == pytest.approx(expected, abs=4.5 * (variance / 2000) ** 0.5)
    assert float(cosines.std()) == pytest.approx(variance**0.5, rel=0.08)


def test_mixture_weights_and_infinite_kappa():
    directions = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    source = VonMisesFisher(directions, math.inf, weights=torch.tensor([1.0, 3.0]))
    x = source.sample(4000, seeded(6))
    up = x[:, 1] > 0
    assert float(up.float().mean()) == pytest.approx(0.75, abs=0.03)
    assert bool(((x[up, 0] == 0) & (x[~up, 1] == 0)[:1]).all())
    with pytest.raises(ValueError, match="an infinite kappa has no density"):
        source.log_prob(x)
    never = VonMisesFisher(directions, math.inf, weights=torch.tensor([0.0, 3.0])).sample(500, seeded(6))
    assert bool((never[:, 1] > 0).all())


def test_spherical_k_means_finds_separate_directions():
    truth = torch.nn.functional.normalize(torch.randn(3, 20, generator=seeded(7)), dim=1)
    sizes = [100, 300, 600]
    rows = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    lengths = 1 + 9 * torch.rand(1000, 1, generator=seeded(8))
    data = lengths * (truth[rows] + 0.05 * torch.randn(1000, 20, generator=seeded(9)))
    centres, found = spherical_k_means(data, 3)
    assert sorted(found.tolist()) == sizes
    assert bool(((centres @ truth.T).amax(dim=0) > 0.99).all())
    source = VonMisesFisher.fit(data, 3, kappa=100.0)
    assert source.weights is not None
    assert sorted(source.weights.tolist()) == sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": torch.zeros(1, 3), "kappa": 1.0}, "of finite length above 0"),
        ({"directions": torch.ones(1, 3), "kappa": -1.0}, "finite kappa of at least 0"),
        ({"directions": torch.ones(2, 3), "kappa": 1.0, "weights": torch.ones(3)}, "2 numbers of at least 0"),
        ({"directions": torch.ones(2, 3), "kappa": 1.0, "weights": torch.zeros(2)}, "not all 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        VonMisesFisher(**arguments)


def test_wrong_clusters_and_shapes():
    with pytest.raises(ValueError, match="at most the number of points, 4"):
        spherical_k_means(torch.ones(4, 2), 5)
    with pytest.raises(ValueError, match="length 0"):
        spherical_k_means(torch.zeros(4, 2), 2)
    with pytest.raises(ValueError, match="sizes and dof are at least 1"):
        ChiSphere((2,), dof=0)
    with pytest.raises(ValueError, match=r"x has shape \(3, 3\), but the source's samples have shape \(2,\)"):
        ChiSphere((2,)).log_prob(torch.ones(3, 3))
