"""Log-densities where no sample ever lies: far inside and outside the shell of noise, and at the origin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.sources import ChiSphere, Gaussian, VonMisesFisher
from fmcore.sources.tabulated import angle_to_axis, chi
from tests.analytic import seeded


def along(direction, lengths):
    """Points (n, d) float64 of these lengths in one direction."""
    direction = direction.double() / direction.double().norm()
    return torch.tensor(lengths, dtype=torch.float64)[:, None] * direction


@pytest.mark.parametrize("dof", [1, 2, 5, 625, 3072])
def test_lengths_of_any_size_have_the_density_of_scipy(dof):
    lengths = np.concatenate([np.geomspace(1e-12, 1e4, 60), math.sqrt(dof) + np.linspace(-30, 30, 41).clip(-0.9)])
    found = chi(dof).log_prob(torch.from_numpy(lengths))
    np.testing.assert_allclose(found.numpy(), stats.chi(dof).logpdf(lengths), rtol=1e-12, atol=1e-9)
    assert chi(dof).log_prob(torch.tensor([-1.0, -1e-9])).tolist() == [-math.inf] * 2


UNIFORM = [ChiSphere((dim,)) for dim in (1, 2, 64, 3072)]
UNIFORM += [VonMisesFisher(torch.ones(1, dim), 0.0) for dim in (2, 64, 3072)]


@pytest.mark.parametrize("source", UNIFORM, ids=lambda source: f"{type(source).__name__} {source.shape[0]}")
def test_the_gaussian_in_other_words_has_its_density_everywhere(source):
    """A standard Gaussian is a uniform direction and a length chi(d): -d/2 log(2 pi) - r^2 / 2, from 0 to anywhere."""
    dim = source.shape[0]
    lengths = [0.0, 1e-9, 1.0, max(0.0, math.sqrt(dim) - 9.5), math.sqrt(dim), math.sqrt(dim) + 9.5, 46.0, 500.0]
    x = along(torch.randn(dim, generator=seeded(0)), lengths)
    expected = [-dim / 2 * math.log(2 * math.pi) - length**2 / 2 for length in lengths]
    np.testing.assert_allclose(source.log_prob(x).numpy(), expected, rtol=1e-9, atol=1e-6)


def test_a_value_far_inside_the_shell_of_an_image():
    x = along(torch.ones(3072), [46.0])
    assert float(ChiSphere((3072,)).log_prob(x)) == pytest.approx(-3880.98, abs=0.005)
    assert math.isfinite(float(VonMisesFisher(torch.ones(1, 3072), 50.0).log_prob(x)))


@pytest.mark.parametrize(("dof", "expected"), [(1, math.inf), (2, -math.log(2 * math.pi)), (3, -math.inf)])
def test_at_the_origin_of_the_plane(dof, expected):
    """The density of a length r ~ chi(k), over 2 pi r: its limit as r falls to 0."""
    assert float(ChiSphere((2,), dof).log_prob(torch.zeros(1, 2))) == pytest.approx(expected)


@pytest.mark.parametrize("kappa", [0.5, 10.0, 300.0])
def test_von_mises_fisher_in_space_against_its_closed_form(kappa):
    """kappa / (4 pi sinh kappa) exp(kappa cos) in three dimensions, also opposite to the mean direction."""
    mean = torch.tensor([[2.0, -1.0, 0.5]])
    directions = [mean[0], -mean[0], torch.tensor([1.0, 2.0, 0.0])]
    lengths = [1e-6, 0.3, 1.7, 12.0, 80.0]
    log_sinh = kappa + math.log1p(-math.exp(-2 * kappa)) - math.log(2)
    source = VonMisesFisher(mean, kappa)
    for direction, cosine in zip(directions, (1.0, -1.0, 0.0), strict=True):
        radial = stats.chi(3).logpdf(lengths) - 2 * np.log(lengths)
        expected = math.log(kappa / (4 * math.pi)) - log_sinh + kappa * cosine + radial
        np.testing.assert_allclose(source.log_prob(along(direction, lengths)).numpy(), expected, rtol=1e-6, atol=1e-5)


def test_other_degrees_of_freedom_far_out():
    lengths = [1e-3, 1.0, 25.0, 55.4, 90.0]
    source = VonMisesFisher(torch.eye(2), 4.0, dof=3072)
    x = along(torch.tensor([0.6, 0.8]), lengths)
    gaps = source.log_prob(x)[1:] - source.log_prob(x)[:-1]
    radial = stats.chi(3072).logpdf(lengths) - np.log(lengths)
    np.testing.assert_allclose(gaps.numpy(), np.diff(radial), rtol=1e-9)


def test_an_angle_beyond_its_table_has_a_density_too():
    """In three dimensions: kappa / (2 sinh kappa) exp(kappa cos a) sin a."""
    kappa = 200.0
    table = angle_to_axis(3, kappa)
    angles = torch.tensor([1e-3, 0.5, 1.5, 2.5, 3.1], dtype=torch.float64)
    assert table.high < 1.5
    expected = math.log(kappa) - kappa + kappa * angles.cos() + angles.sin().log()  # sinh is exp / 2 to all digits
    np.testing.assert_allclose(table.log_prob(angles).numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)
    assert table.log_prob(torch.tensor([-0.1, 3.2])).tolist() == [-math.inf] * 2


def test_no_points_have_no_densities():
    for source in (Gaussian((2,)), ChiSphere((2,)), VonMisesFisher(torch.eye(2), 3.0)):
        assert source.log_prob(torch.zeros(0, 2)).shape == (0,)
