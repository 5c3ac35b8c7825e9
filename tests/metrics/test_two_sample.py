"""Two-sample distances: against brute force, POT, and distributions whose distance is known."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch

from fmcore import metrics
from fmcore.metrics import energy_distance, frechet_distance, mmd, mode_divergence, two_sample, wasserstein2


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_wasserstein_against_all_pairings():
    a, b = normal(6, 3, 0), normal(6, 3, 1)
    costs = [
        sum(float((a[i] - b[j]).square().sum()) for i, j in enumerate(order)) / 6
        for order in itertools.permutations(range(6))
    ]
    assert wasserstein2(a, b) == pytest.approx(min(costs) ** 0.5, rel=1e-5)


def test_wasserstein_of_a_shifted_set_is_the_shift():
    a = normal(200, 2, 0)
    assert wasserstein2(a, a[torch.randperm(200)] + torch.tensor([3.0, 4.0])) == pytest.approx(5.0, rel=1e-5)


def test_wasserstein_of_sets_of_different_size():
    a, b = normal(30, 2, 0), normal(45, 2, 1)
    # every point repeated until both sets have 90: an assignment problem with the same answer
    expected = wasserstein2(a.repeat(3, 1), b.repeat(2, 1))
    assert wasserstein2(a, b) == pytest.approx(expected, rel=1e-5)
    assert wasserstein2(a, b) == pytest.approx(wasserstein2(b, a), rel=1e-6)


def test_wasserstein_in_one_dimension_is_that_of_sorted_values():
    a, b = normal(50, 1, 0), 2 * normal(50, 1, 1)
    expected = ot.wasserstein_1d(np.sort(a[:, 0]), np.sort(b[:, 0]), p=2) ** 0.5
    assert wasserstein2(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_energy_distance_of_normals():
    # E|X| of N(m, s^2) known in closed form (folded normal), for A - B ~ N(2, 2) and A - A' ~ N(0, 2)
    a, b = normal(4000, 1, 0), normal(4000, 1, 1) + 2
    s = math.sqrt(2)
    folded = s * math.sqrt(2 / math.pi) * math.exp(-4 / (2 * s * s)) + 2 * math.erf(2 / (s * math.sqrt(2)))
    expected = 2 * folded - 2 * s * math.sqrt(2 / math.pi)
    assert energy_distance(a, b) == pytest.approx(expected, abs=0.06)


def test_mmd_of_normals():
    # the kernel is a normal density up to its scale, so its mean over normals is a normal density again
    a, b = normal(4000, 1, 0), normal(4000, 1, 1) + 1.5
    expected = 2 / math.sqrt(3) * (1 - math.exp(-(1.5**2) / (2 * 3)))
    assert mmd(a, b, bandwidth=1.0) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_unbiased_estimates_average_to_zero_for_one_distribution(distance):
    values = torch.tensor([distance(normal(20, 2, 2 * k), normal(25, 2, 2 * k + 1)) for k in range(200)])
    assert values.min() < 0
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(200)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_large_sets_are_taken_in_blocks_of_rows(distance, monkeypatch):
    a, b = normal(50, 2, 0), normal(37, 2, 1)
    expected = distance(a, b)
    most, cdist = [], torch.cdist
    monkeypatch.setattr(two_sample, "AT_ONCE", 120)
    monkeypatch.setattr(two_sample, "cdist_mode", lambda a, b: two_sample.DIFFERENCES)
    monkeypatch.setattr(torch, "cdist", lambda a, b, **kw: most.append(len(a) * len(b)) or cdist(a, b, **kw))
    assert distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert max(most) <= 120
    assert sum(most) == 50 * 50 + 37 * 37 + 50 * 37


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_estimates_against_loops_over_pairs(distance):
    a, b = normal(5, 2, 0).double(), normal(4, 2, 1).double()
    gap = {
        energy_distance: lambda x, y: -float((x - y).norm()),
        mmd: lambda x, y: math.exp(-(float((x - y).norm()) ** 2) / 2),
    }[distance]
    within_a = [gap(x, y) for x, y in itertools.permutations(a, 2)]
    within_b = [gap(x, y) for x, y in itertools.permutations(b, 2)]
    across = [gap(x, y) for x in a for y in b]
    expected = np.mean(within_a) + np.mean(within_b) - 2 * np.mean(across)
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


def kept_apart(points, offset):
    """The points on a grid of 2^-10, moved far away: float64 holds both exactly."""
    return (points.double() * 1024).round() / 1024 + offset


@pytest.mark.parametrize("distance", [energy_distance, mmd, wasserstein2, frechet_distance, mode_divergence])
@pytest.mark.parametrize("offset", [2.0**10, 2.0**20, 2.0**30])
def test_where_the_origin_is_does_not_matter(distance, offset):
    a, b = normal(60, 3, 0), normal(70, 3, 1) + 0.2
    expected = distance(kept_apart(a, 0.0), kept_apart(b, 0.0))
    tolerance = {"rel": 1e-9, "abs": 1e-12}
    if distance is frechet_distance:
        tolerance["rel"] = 1e-6  # a mean of numbers of this size is rounded
    assert distance(kept_apart(a, offset), kept_apart(b, offset)) == pytest.approx(expected, **tolerance)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_two_clouds_far_from_each_other(distance):
    """No shift brings both to the origin. Across them distances are 2 offset, and kernels 0, to all digits."""
    offset, d = 2.0**30, 3
    parts = [kept_apart(normal(40, d, seed), 0.0) for seed in range(4)]
    side = torch.tensor([offset, 0.0, 0.0], dtype=torch.float64)
    a, b = (torch.cat([parts[k] - side, parts[k + 1] + side]) for k in (0, 2))
    gap = {
        energy_distance: lambda x, y: -(x[:, None] - y[None]).norm(dim=2),
        mmd: lambda x, y: (-(x[:, None] - y[None]).square().sum(dim=2) / 2).exp(),
    }[distance]
    within = [(gap(x, x).sum() - gap(x, x).trace()) / (80 * 79) for x in (a, b)]
    expected = float(sum(within) - 2 * gap(a, b).mean())
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_ordinary_points_keep_the_fast_products_and_far_ones_do_not():
    images = 2 * torch.rand(300, 192, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    for x in (normal(500, 2, 0).double(), images, 55 * normal(300, 2, 1).double(), images + 3):
        assert two_sample.cdist_mode(x, x + 0.1) == two_sample.PRODUCTS
    for x in (normal(500, 2, 0).double() + 1e6, torch.cat([images - 1e6, images + 1e6])):
        assert two_sample.cdist_mode(x, x + 0.1) == two_sample.DIFFERENCES


@pytest.mark.parametrize(
    "distance",
    [
        energy_distance,
        mmd,
        wasserstein2,
        frechet_distance,
        mode_divergence,
        metrics.wasserstein1,
        metrics.normalized_wasserstein,
        metrics.covered_share,
        metrics.distances_to_data,
    ],
)
def test_whole_numbers_and_empty_sets_are_refused(distance):
    bytes_, points = torch.zeros(9, 2, dtype=torch.uint8), torch.zeros(9, 2)
    for pair in ((bytes_, points), (points, bytes_)):
        with pytest.raises(TypeError, match="[ab] holds torch.uint8: scale it to floating point first"):
            distance(*pair)
    for pair in ((points[:0], points), (points, points[:0])):
        with pytest.raises(ValueError, match=r"[ab] has shape \(0, 2\)"):
            distance(*pair)


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"p has shape \(0,\), q \(0,\): pass two of shape \(k,\), k at least 1"):
        metrics.share_divergence(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match=r"p has shape \(2,\), q \(3,\)"):
        metrics.share_divergence(torch.ones(2) / 2, torch.ones(3) / 3)


def test_images_are_flattened():
    a, b = normal(8, 12, 0), normal(8, 12, 1)
    assert wasserstein2(a.reshape(8, 3, 2, 2), b.reshape(8, 3, 2, 2)) == wasserstein2(a, b)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 2), "a has shape \\(3,\\)"),
        (torch.zeros(3, 2), torch.zeros(1, 2), "b has shape \\(1, 2\\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1), "they must agree"),
        (torch.zeros(3, 2), torch.full((3, 2), torch.inf), "b has NaN or infinite"),
    ],
)
def test_bad_sets_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        mmd(a, b)


def test_a_bandwidth_must_be_a_length():
    with pytest.raises(ValueError, match="bandwidth is 0"):
        mmd(torch.zeros(3, 2), torch.zeros(3, 2), bandwidth=0)
