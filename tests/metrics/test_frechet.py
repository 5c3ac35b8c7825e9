"""Frechet distance: against values known for Gaussians, and against SciPy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg
import torch

from fmcore.metrics import frechet_distance
from fmcore.metrics.frechet import gaussian_frechet_distance


def features(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + mixing[0]


def test_gaussians_with_commuting_covariances():
    # independent coordinates: the transport is one of each coordinate, (shift)^2 + (difference of deviations)^2
    found = gaussian_frechet_distance(
        torch.tensor([1.0, 0.0, 2.0]),
        torch.diag(torch.tensor([4.0, 1.0, 9.0])),
        torch.tensor([0.0, 0.0, 5.0]),
        torch.diag(torch.tensor([1.0, 1.0, 0.25])),
    )
    assert found == pytest.approx((1 + 0 + 9) + (1 + 0 + 2.5**2))


def test_optimal_linear_map_costs_the_distance():
    # x -> M x with M symmetric and positive is the optimal map between centred Gaussians (Brenier)
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    covariance = root @ root.T
    m = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    m = m @ m.T + torch.eye(6, dtype=torch.float64)
    moved = m - torch.eye(6, dtype=torch.float64)
    cost = (moved @ covariance @ moved.T).trace()
    zero = torch.zeros(6)
    assert gaussian_frechet_distance(zero, covariance, zero, m @ covariance @ m.T) == pytest.approx(float(cost))


@pytest.mark.parametrize("d", [1, 3, 40])
def test_features_against_scipy(d):
    a, b = features(200, d, 1), features(150, d, 2)
    cov_a, cov_b = (np.atleast_2d(np.cov(x.numpy().T)) for x in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_fewer_samples_than_features():
    a = features(10, 64, 1).float()
    shift = torch.zeros(64)
    shift[5] = 3.0
    assert frechet_distance(a, a + shift) == pytest.approx(9.0, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_a_set_of_one_point_repeated():
    a = torch.zeros(5, 3)
    b = features(4000, 3, 4)
    expected = float(b.mean(0).square().sum() + b.var(0).sum())
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_it_is_symmetric_and_grows_with_distance():
    a, b = features(100, 5, 1), features(100, 5, 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    values = [frechet_distance(a, a + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(5), torch.zeros(5, 2), "a has shape \\(5,\\)"),
        (torch.zeros(5, 2), torch.zeros(1, 2), "b has shape \\(1, 2\\)"),
        (torch.zeros(5, 2), torch.zeros(5, 3), "a has 2 features and b has 3"),
        (torch.full((5, 2), torch.nan), torch.zeros(5, 2), "a has NaN"),
    ],
)
def test_bad_features_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)
