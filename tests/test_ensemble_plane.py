"""The target and sources in the plane have the angles, lengths and shares that they say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from fmcore.couplings.assignment import assign
from fmcore.ensemble import Arcs, three_directions
from fmcore.ensemble.plane import ANGLES, SHARES, counts_of
from tests.analytic import seeded


def polar(points):
    return torch.atan2(points[:, 1], points[:, 0]).double().numpy(), points.double().norm(dim=1).numpy()


def degrees_from(points, angle):
    """Angles between points and a direction, in degrees, signed."""
    found, _ = polar(points)
    return [math.degrees(math.remainder(a - angle, 2 * math.pi)) for a in found]


def test_target_has_its_shares_angles_and_lengths():
    points = three_directions(1024, seeded(0))
    assert points.shape == (1024, 2)
    assert points.dtype == torch.float32
    counts = [51, 307, 666]
    assert [round(share * 1024) for share in SHARES] == counts
    for part, angle in zip(points.split(counts), ANGLES, strict=True):
        away = torch.tensor(degrees_from(part, angle), dtype=torch.float64)
        errors = away - torch.linspace(-10, 10, len(part), dtype=torch.float64)
        assert stats.kstest(errors.numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(polar(points)[1], stats.chi(625).cdf).pvalue > 1e-3


def test_target_is_fixed_by_its_generator_and_takes_numbers_of_points():
    assert torch.equal(three_directions(50, seeded(0)), three_directions(50, seeded(0)))
    assert not torch.equal(three_directions(50, seeded(0)), three_directions(50, seeded(1)))
    points = three_directions(10, seeded(0), shares=(2, 0, 8))
    assert [abs(d) < 20 for d in degrees_from(points, ANGLES[0])] == [True] * 2 + [False] * 8


@pytest.mark.parametrize(
    ("n", "shares", "expected"),
    [(10, (0.05, 0.3, 0.65), [0, 3, 7]), (7, (1, 1, 1), [3, 2, 2]), (5, (0, 5, 0), [0, 5, 0]), (1, (0.5, 0.5), [1, 0])],
)
def test_counts_add_up(n, shares, expected):
    assert counts_of(n, shares) == expected


@pytest.mark.parametrize("cosine", [0.9, 0.98])
def test_arcs_are_the_ring_near_each_direction(cosine):
    """Against rejection: points of the whole ring around a direction, of which those with the cosine are kept."""
    points = Arcs(cosine).sample(20_000, seeded(0))
    angles, lengths = polar(points)
    cosines = torch.tensor([[math.cos(a - base) for base in ANGLES] for a in angles])
    largest, nearest = cosines.max(dim=1)
    assert largest.min() >= cosine - 1e-6
    assert stats.kstest(lengths, stats.chi(3072).cdf).pvalue > 1e-3
    observed = torch.bincount(nearest, minlength=3)
    assert stats.chisquare(observed, 20_000 * torch.tensor(SHARES, dtype=torch.float64)).pvalue > 1e-3
    ring = torch.rand(200_000, generator=seeded(1)) * 2 * math.pi - math.pi
    kept = ring[ring.cos() >= cosine]
    for k, base in enumerate(ANGLES):
        away = torch.tensor(degrees_from(points[nearest == k], base))
        assert stats.ks_2samp(away.numpy(), torch.rad2deg(kept).numpy()).pvalue > 1e-3


def test_a_group_has_the_same_number_in_each_direction():
    """As many as the data have, so that transport between all of both pairs each direction with itself."""
    points = Arcs(0.9, group=256).sample(512, seeded(0))
    data = three_directions(256, seeded(1))
    nearest = [
        torch.stack([x @ x.new_tensor([math.cos(a), math.sin(a)]) for a in ANGLES]).argmax(0) for x in (points, data)
    ]
    counts = counts_of(256, SHARES)
    assert [torch.bincount(half, minlength=3).tolist() for half in nearest[0].split(256)] == [counts, counts]
    assert torch.bincount(nearest[1], minlength=3).tolist() == counts
    gain = (points[:256].double() @ data.double().T).numpy()
    assert torch.equal(nearest[1][torch.from_numpy(assign(gain))], nearest[0][:256])
    angles = degrees_from(points[nearest[0] == 2], ANGLES[2])
    wide = math.degrees(math.acos(0.9))
    assert stats.kstest(angles, stats.uniform(-wide, 2 * wide).cdf).pvalue > 1e-3
    free = Arcs(0.9).sample(512, seeded(0))
    assert torch.allclose(free.norm(dim=1), points.norm(dim=1))
    with pytest.raises(ValueError, match="500 samples are not a multiple of the group of 256"):
        Arcs(0.9, group=256).sample(500)


def test_arcs_at_both_ends():
    exact = Arcs(1.0).sample(50, seeded(0))
    assert all(min(abs(d) for d in pair) < 1e-4 for pair in zip(*(degrees_from(exact, a) for a in ANGLES), strict=True))
    ring = Arcs(-1.0).sample(5000, seeded(0))
    assert stats.kstest(polar(ring)[0], stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    assert Arcs(0.9).mean_norm == pytest.approx(float(stats.chi(3072).mean()), rel=1e-6)
    assert Arcs(0.9).shape == (2,)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="cosine is 1.5"):
        Arcs(1.5)
    for group, words in ((0, "group is 0"), (4.0, r"group=4\.0: a number of points is a whole number, write group=4")):
        with pytest.raises(ValueError, match=words):
            Arcs(0.9, group=group)
    for n, words in ((-1, "n is -1"), (10.0, r"n=10\.0: a number of points is a whole number, write n=10")):
        with pytest.raises(ValueError, match=words):
            three_directions(n)
    with pytest.raises(ValueError, match="not all 0"):
        Arcs(0.9, shares=(0, 0, 0))
    with pytest.raises(ValueError, match="2 shares and 3 angles"):
        Arcs(0.9, shares=(0.5, 0.5))
    with pytest.raises(ValueError, match="2 shares and 3 angles"):
        three_directions(10, shares=(0.5, 0.5))
