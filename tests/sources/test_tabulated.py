"""Tables of one-dimensional distributions, against SciPy and against recurrences of Bessel functions."""

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.sources.tabulated import angle_to_axis, chi


@pytest.mark.parametrize("dof", [1, 2, 5, 625, 3072])
def test_chi_against_scipy(dof):
    found, truth = chi(dof), stats.chi(dof)
    quantiles = torch.linspace(0.001, 0.999, 25, dtype=torch.float64)
    assert np.allclose(found.inverse(quantiles), truth.ppf(quantiles.numpy()), rtol=0, atol=3e-6)
    points = torch.tensor(truth.ppf([0.01, 0.4, 0.9]))
    assert np.allclose(found.log_prob(points), truth.logpdf(points.numpy()), rtol=0, atol=1e-5)
    assert found.mean == pytest.approx(truth.mean(), abs=1e-6)
    assert found.variance == pytest.approx(truth.var(), rel=1e-5)


def bessel_ratio(order, z, terms=4000):
    """I_{order + 1}(z) / I_order(z), by Gauss's continued fraction from its far end."""
    ratio = 0.0
    for k in range(terms, 0, -1):
        ratio = 1 / (2 * (order + k) / z + ratio)
    return ratio


@pytest.mark.parametrize(("dim", "kappa"), [(2, 1.0), (2, 50.0), (3, 10.0), (10, 5.0), (3072, 50.0), (3072, 1500.0)])
def test_the_mean_cosine_of_von_mises_fisher(dim, kappa):
    """A = I_{d/2} / I_{d/2-1}, and the variance of the cosine is 1 - A^2 - (d - 1) A / kappa."""
    angles = angle_to_axis(dim, kappa).sample(400_000, torch.Generator().manual_seed(0))
    cosines = angles.cos()
    mean = bessel_ratio(dim / 2 - 1, kappa)
    variance = 1 - mean**2 - (dim - 1) * mean / kappa
    assert float(cosines.mean()) == pytest.approx(mean, abs=4.5 * (variance / 400_000) ** 0.5)
    assert float(cosines.var()) == pytest.approx(variance, rel=0.02)


def test_without_concentration_angles_are_those_of_uniform_directions():
    angles = angle_to_axis(3, 0.0).sample(20_000, torch.Generator().manual_seed(0))
    assert stats.kstest(angles.cos().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    plane = angle_to_axis(2, 0.0).sample(20_000, torch.Generator().manual_seed(0))
    assert stats.kstest(plane.numpy(), "uniform", args=(0, np.pi)).pvalue > 1e-3


def test_samples_lie_within_the_table():
    table = chi(3)
    assert bool((table.sample(10_000, torch.Generator().manual_seed(0)) >= 0).all())
    ends = table.inverse(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert table.low <= float(ends[0]) < float(ends[1]) <= table.high


@pytest.mark.parametrize(("dim", "kappa"), [(1, 1.0), (3, -1.0), (3, float("inf")), (3, float("nan"))])
def test_wrong_angles(dim, kappa):
    with pytest.raises(ValueError, match="dim >= 2 and a finite kappa"):
        angle_to_axis(dim, kappa)


def test_wrong_degrees_of_freedom():
    with pytest.raises(ValueError, match="at least one degree of freedom"):
        chi(0)
