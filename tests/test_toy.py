"""Facts of the distributions in the plane: where their points lie, how they are spread, what their seed decides."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmcore.data import toy
from tests.analytic import modest, seeded

NAMES = ["checkerboard", "eight_gaussians", "pinwheel", "ring", "two_moons"]
every_name = pytest.mark.parametrize("name", NAMES)


@every_name
@modest
@given(n=st.integers(1, 20), seed=st.integers(0, 99))
def test_points_are_finite_float32_and_decided_by_the_generator(name, n, seed):
    before = torch.random.get_rng_state()
    first, again = (getattr(toy, name)(n, seeded(seed)) for _ in range(2))
    other = toy.by_name(name, n, seeded(seed + 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (n, 2)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(toy.by_name(name, n, seeded(seed)), first)


@every_name
def test_points_are_centred_and_of_the_scale_of_a_gaussian(name):
    n = 20_000
    x = toy.by_name(name, n, seeded(0)).double()
    assert (x.mean(dim=0).abs() < 4.5 * x.std(dim=0) / math.sqrt(n)).all()
    assert (x.abs() < 4).double().mean() > 0.999
    assert ((x.std(dim=0) > 0.5) & (x.std(dim=0) < 2.5)).all()


@every_name
def test_fresh_points_at_every_call(name):
    generator = seeded(1)
    assert not torch.equal(toy.by_name(name, 5, generator), toy.by_name(name, 5, generator))


def test_two_moons_are_two_half_circles_of_radius_one_and_a_half():
    x = toy.two_moons(4000, seeded(2), noise=0.0)
    upper_centre, lower_centre = torch.tensor([-0.75, -0.375]), torch.tensor([0.75, 0.375])
    on_upper = ((x - upper_centre).norm(dim=1) - 1.5).abs() < 1e-5
    on_lower = ((x - lower_centre).norm(dim=1) - 1.5).abs() < 1e-5
    assert (on_upper | on_lower).all()
    assert (x[on_upper & ~on_lower, 1] >= -0.375 - 1e-5).all()  # the upper moon is the upper half of its circle
    assert (x[on_lower & ~on_upper, 1] <= 0.375 + 1e-5).all()
    assert stats.binomtest(int(on_upper.sum()), 4000, 0.5).pvalue > 1e-3
    angle = torch.atan2(x[on_upper, 1] + 0.375, x[on_upper, 0] + 0.75)
    assert stats.kstest(angle.numpy(), "uniform", args=(0, math.pi)).pvalue > 1e-3


def test_the_noise_of_the_moons_has_the_standard_deviation_asked_for():
    clean, noisy = toy.two_moons(20_000, seeded(3), noise=0.0), toy.two_moons(20_000, seeded(3), noise=0.3)
    assert stats.kstest((noisy - clean).flatten().numpy(), "norm", args=(0, 0.3)).pvalue > 1e-3


def test_eight_gaussians_are_equal_and_stand_on_a_circle():
    n, radius, std = 8000, 2.5, 0.2
    x = toy.eight_gaussians(n, seeded(4))
    corner = math.sqrt(0.5)
    directions = [(1, 0), (corner, corner), (0, 1), (-corner, corner)]
    centres = radius * torch.tensor([*directions, *[(-a, -b) for a, b in directions]])
    distance, nearest = torch.cdist(x, centres).min(dim=1)
    assert stats.chisquare(nearest.bincount(minlength=8).numpy()).pvalue > 1e-3
    assert stats.kstest((distance / std).numpy(), "rayleigh").pvalue > 1e-3


def test_checkerboard_fills_eight_fields_of_one_colour_evenly():
    x = toy.checkerboard(8000, seeded(5))
    assert (x.abs() <= 3).all()
    field = ((x + 3) / 1.5).floor().long().clamp(max=3)
    assert (field.sum(dim=1) % 2 == 0).all()
    counts = (4 * field[:, 1] + field[:, 0]).bincount(minlength=16)
    assert (counts > 0).sum() == 8
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    within = (((x + 3) / 1.5) % 1).flatten()
    assert stats.kstest(within.numpy(), "uniform").pvalue > 1e-3


def test_ring_has_its_radius_and_every_direction_alike():
    x = toy.ring(8000, seeded(6), radius=2.0, std=0.1)
    assert stats.kstest(x.norm(dim=1).numpy(), "norm", args=(2.0, 0.1)).pvalue > 1e-3
    angle = torch.atan2(x[:, 1], x[:, 0])
    assert stats.kstest(angle.numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_pinwheel_looks_the_same_after_a_turn_by_one_arm_and_not_by_half_an_arm():
    """Energy distance between a cloud and another one turned; zero between equal distributions."""
    first, second = (toy.pinwheel(1500, seeded(seed)).double() for seed in (7, 8))

    def apart(turn):
        cos, sin = math.cos(turn), math.sin(turn)
        turned = second @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
        return float(2 * torch.cdist(first, turned).mean() - torch.pdist(first).mean() - torch.pdist(turned).mean())

    arm = 2 * math.pi / 5
    same = max(abs(apart(0.0)), abs(apart(arm)), abs(apart(2 * arm)))
    assert same < 0.02
    assert apart(arm / 2) > 3 * same


def test_pinwheel_arms_bend():
    """Far out an arm has turned further than near the origin: the angle grows with the radius."""
    x = toy.pinwheel(4000, seeded(9), arms=1)
    near, far = (x[(x.norm(dim=1) / 1.6 - radius).abs() < 0.05] for radius in (0.7, 1.3))
    turn = torch.atan2(far[:, 1], far[:, 0]).median() - torch.atan2(near[:, 1], near[:, 0]).median()
    assert float(turn) == pytest.approx(0.6 * (math.exp(1.3) - math.exp(0.7)), abs=0.1)


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(ValueError, match=f"'spiral': choose one of {', '.join(NAMES)}"):
        toy.by_name("spiral", 3)
