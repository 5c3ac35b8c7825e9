"""Measures of 1,024 points in the plane: against loops over pairs, SciPy, POT, and sets whose values are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.stats import entropy

from fmcore.ensemble import Arcs, three_directions
from fmcore.ensemble.plane import at_angles
from fmcore.metrics import (
    coverage,
    covered_share,
    distances_to_data,
    mode_divergence,
    normalized_wasserstein,
    share_divergence,
    wasserstein1,
    wasserstein_given_shares,
)
from tests.analytic import seeded


def normal(n, d, seed):
    return torch.randn(n, d, generator=seeded(seed))


def test_distances_against_a_loop():
    a, b = normal(20, 2, 0), normal(30, 2, 1)
    expected = [min(math.dist(x, y) for y in b.double().tolist()) for x in a.double().tolist()]
    assert distances_to_data(a, b).tolist() == pytest.approx(expected, rel=1e-12)
    assert distances_to_data(a, a).max() == 0


def test_failures_of_a_set_with_a_known_share():
    data = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    generated = torch.tensor([[0.5, 0.0], [10.0, 1.0], [5.0, 0.0], [10.0, 1.01]])
    distance = distances_to_data(generated, data)
    assert distance.tolist() == pytest.approx([0.5, 1.0, 5.0, 1.01])
    assert (distance > 1).double().mean() == 0.5


@pytest.mark.parametrize("seed", range(6))
def test_coverage_against_a_loop_over_pairs_and_the_largest_matching(seed):
    generated, data = normal(60, 2, seed), normal(50, 2, seed + 100)
    radius, taken, given = 0.3, set(), set()
    for i, j in itertools.product(range(50), range(60)):
        if math.dist(data[i].tolist(), generated[j].tolist()) < radius and i not in given and j not in taken:
            taken.add(j)
            given.add(i)
    assert 0 < len(given) < 50
    assert covered_share(generated, data, radius) == len(given) / 50
    near = csr_array(torch.cdist(data, generated).numpy() < radius)
    largest = (maximum_bipartite_matching(near, perm_type="column") >= 0).sum()
    assert largest / 2 <= len(given) <= largest


def test_coverage_of_sets_whose_value_is_known():
    grid = 3.0 * torch.cartesian_prod(torch.arange(5.0), torch.arange(4.0))
    assert covered_share(grid + 0.5, grid) == 1
    assert covered_share(grid[:15], grid) == 0.75
    assert covered_share(grid[:1].expand(20, 2), grid) == 1 / 20  # twenty copies of one point cover one
    assert covered_share(grid + torch.tensor([1.0, 0.0]), grid) == 0  # the radius itself is out of reach


def blobs(counts, seed=0):
    """Points around the corners of a regular polygon of radius 20, far closer together than the corners are."""
    angles = torch.arange(len(counts)) * (2 * math.pi / len(counts))
    corners = 20 * torch.stack([angles.cos(), angles.sin()], dim=1)
    points = corners.repeat_interleave(torch.tensor(counts), dim=0)
    return points + 0.1 * torch.randn(points.shape, generator=seeded(seed))


def test_mode_divergence_of_blobs_is_that_of_their_shares():
    data, generated = [40, 10, 20, 30, 50, 60, 10, 30], [10, 40, 20, 30, 5, 100, 20, 30]
    found = mode_divergence(blobs(generated, 1), blobs(data))
    assert found == pytest.approx(entropy(data, generated), rel=1e-6)
    assert mode_divergence(blobs(data, 1), blobs(data)) == pytest.approx(0, abs=1e-9)
    assert mode_divergence(blobs(data, 1), blobs(generated)) != pytest.approx(found, rel=1e-2)


def test_k_means_of_the_same_data_is_fitted_once(monkeypatch):
    """And again for other data, another number of parts or another seed; the values are those of a fresh fit."""
    from sklearn.cluster import KMeans

    fitted, fit = [], KMeans.fit

    def counted(self, points):
        fitted.append((self.n_clusters, self.random_state))
        return fit(self, points)

    def fresh(*given):
        coverage._LAST_CENTRES.clear()
        return mode_divergence(*given)

    data, generated = normal(60, 2, 0), [normal(50, 2, seed) for seed in (1, 2, 3)]
    wide = generated[0].view(25, 4)
    expected = [fresh(points, data, 5, 0) for points in generated]
    others = [  # each differs from the one before in one point only
        (generated[0], data, 5, 1),
        (generated[0], data, 4, 1),
        (wide, data.view(30, 4), 4, 1),  # the same numbers
        (wide, data.view(30, 4) + 1e-6, 4, 1),
        (wide, (data.view(30, 4) + 1e-6).flip(0), 4, 1),
    ]
    changed = [fresh(*other) for other in others]
    coverage._LAST_CENTRES.clear()
    monkeypatch.setattr(KMeans, "fit", counted)
    assert [mode_divergence(points, data, 5, 0) for points in generated] == expected
    assert mode_divergence(generated[0], data.clone(), 5, 0) == expected[0]
    assert fitted == [(5, 0)]
    assert [mode_divergence(*other) for other in others] == changed
    assert fitted == [(5, 0), (5, 1), (4, 1), (4, 1), (4, 1), (4, 1)]
    assert len(coverage._LAST_CENTRES) == 1
    data[0] += 5  # changed in place
    assert mode_divergence(generated[0], data, 5, 1) == fresh(generated[0], data, 5, 1)
    assert len(fitted) == 8


def test_mode_divergence_of_a_missing_mode_is_finite():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert share_divergence(p, q) == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-10), rel=1e-6)
    assert share_divergence(q, p) == pytest.approx(math.log(2), rel=1e-6)
    found = mode_divergence(blobs([40, 0], 1), blobs([20, 20]), modes=2)
    assert found == pytest.approx(share_divergence(p, q), rel=1e-6)


def test_wasserstein1_against_all_pairings_and_sorted_values():
    a, b = normal(6, 3, 0).double(), normal(6, 3, 1).double()
    costs = [(a - b[list(order)]).norm(dim=1).mean() for order in itertools.permutations(range(6))]
    assert wasserstein1(a, b) == pytest.approx(min(costs).item(), rel=1e-9)
    a, b = normal(40, 1, 2), 2 * normal(30, 1, 3)
    expected = ot.wasserstein_1d(np.sort(a[:, 0].double()), np.sort(b[:, 0].double()), p=1)
    assert wasserstein1(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_normalized_wasserstein_of_a_shifted_square():
    """All points move by 5, and two different corners of a unit square are at a mean distance of (4 + 2 sqrt 2) / 6."""
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    shifted = square[[2, 0, 3, 1]] + torch.tensor([3.0, 4.0])
    expected = 5 / ((4 + 2 * math.sqrt(2)) / 6)
    assert normalized_wasserstein(shifted, square) == pytest.approx(expected, rel=1e-6)
    assert normalized_wasserstein(7 * shifted, 7 * square) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="all data points are the same"):
        normalized_wasserstein(square, torch.ones(3, 2))


def test_wasserstein_given_shares_forgives_wrong_shares():
    """Points of the right directions in the wrong numbers are as close to fresh data as data are; others are not."""
    centres = at_angles(torch.tensor(Arcs(0.9).angles), torch.full((3,), 25.0))

    def draw(n, counts):
        asked.append(counts)
        return three_directions(n, seeded(5), counts)

    asked: list[list[int]] = []
    right = wasserstein_given_shares(three_directions(300, seeded(1)), centres, draw)
    wrong = wasserstein_given_shares(three_directions(300, seeded(2), (100, 100, 100)), centres, draw)
    moved = wasserstein_given_shares(three_directions(300, seeded(1)) * 1.2, centres, draw)
    assert asked == [[15, 90, 195], [100, 100, 100], [15, 90, 195]]
    assert max(right, wrong) < 1
    assert moved == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize(
    "measure", [distances_to_data, covered_share, mode_divergence, wasserstein1, normalized_wasserstein]
)
def test_bad_sets_are_refused(measure):
    with pytest.raises(ValueError, match="they must agree"):
        measure(torch.rand(3, 2), torch.rand(3, 1))
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure(torch.full((3, 2), torch.nan), torch.rand(3, 2))


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="radius is 0"):
        covered_share(torch.zeros(3, 2), torch.zeros(3, 2), radius=0)
    with pytest.raises(ValueError, match="modes is 4"):
        mode_divergence(torch.zeros(3, 2), torch.zeros(3, 2), modes=4)
    for modes, words in (
        (0, "modes is 0: it must be at least 1"),
        (2.0, r"modes=2\.0: .*write modes=2"),
        (True, "=True"),
    ):
        with pytest.raises(ValueError, match=words):
            mode_divergence(torch.zeros(3, 2), torch.zeros(3, 2), modes=modes)
