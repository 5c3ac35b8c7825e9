"""Velocities compared: cosines and errors against hand-made fields, known limits and real images."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fmcore import data
from fmcore.closed_form import EmpiricalVelocity
from fmcore.metrics import cosine_to_conditional, velocity_mse
from tests.analytic import FIVE, RECTIFIED, GaussianFlow, exact_schedules, seeded

five_cases = pytest.mark.parametrize("case", FIVE, ids=str)


def pairs(seed, n=6, shape=(2,)):
    x0, x1 = torch.randn(2, n, *shape, generator=seeded(seed), dtype=torch.float64)
    return x0, x1


@five_cases
@pytest.mark.parametrize("t", [0.1, 0.7])
def test_a_velocity_turned_by_an_angle_has_its_cosine(case, t):
    x0, x1 = pairs(0)
    _, _, d_alpha, d_sigma = exact_schedules(case, t)
    target = d_alpha * x1 + d_sigma * x0
    angles = torch.tensor([0, 30, 90, 120, 180, 270], dtype=torch.float64).deg2rad()
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    turned = 3 * torch.cat([c * target[:, :1] - s * target[:, 1:], s * target[:, :1] + c * target[:, 1:]], dim=1)
    found = cosine_to_conditional(lambda x, t: turned, case.path, x0, x1, t)
    assert_close(found, angles.cos(), rtol=1e-9, atol=1e-9)


@five_cases
def test_the_model_sees_the_point_on_the_path_and_its_time(case):
    x0, x1 = pairs(1, shape=(1, 2, 2))
    t = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 0.95], dtype=torch.float64)
    seen = []

    def velocity(x, t):
        seen.append((x, t))
        return x

    cosine_to_conditional(velocity, case.path, x0, x1, t)
    velocity_mse(velocity, velocity, case.path, x0, x1, t)
    cosine_to_conditional(velocity, case.path, x0, x1, 0.5)
    expected = torch.stack(
        [a * q + s * p for p, q, (a, s, *_) in zip(x0, x1, [exact_schedules(case, float(s)) for s in t], strict=True)]
    )
    for x, time in seen[:3]:
        assert_close(x, expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(time, t)
    assert seen[3][1].item() == 0.5


@five_cases
def test_a_single_point_has_cosine_one(case):
    x0, x1 = pairs(2)
    x1 = x1[:1].expand(6, 2)
    u = EmpiricalVelocity(x1[:1], case.path)
    for t in (0.0, 0.5, case.path.t_max):
        assert_close(
            cosine_to_conditional(u, case.path, x0, x1, t), torch.ones(6, dtype=torch.float64), rtol=1e-6, atol=0
        )


def test_it_collapses_on_images_but_not_in_the_plane():
    """Bertrand et al. 2025, figure 1: the more dimensions, the earlier; in the plane not before the end."""
    digits = data.by_name("digits")
    images = digits.scaled(digits.train)
    plane = data.toy.two_moons(len(images), seeded(3))
    shares = {}
    for name, points in (("images", images), ("plane", plane)):
        g = seeded(4)
        x1 = points[torch.randint(0, len(points), (256,), generator=g)]
        x0, u = torch.randn(x1.shape, generator=g), EmpiricalVelocity(points)
        shares[name] = [
            (cosine_to_conditional(u, RECTIFIED.path, x0, x1, t) > 0.9).double().mean().item() for t in (0.1, 0.5, 0.8)
        ]
    assert shares["images"][1] > 0.6
    assert shares["plane"][1] < 0.4
    assert shares["images"][2] > 0.99
    assert shares["plane"][2] < 0.8
    assert shares["images"] == sorted(shares["images"])


@five_cases
def test_the_error_is_the_mean_square_a_dimension(case):
    x0, x1 = pairs(5, shape=(2, 3, 1))
    shift = torch.arange(6, dtype=torch.float64).reshape(6, 1, 1, 1)
    found = velocity_mse(lambda x, t: x + shift, lambda x, t: x, case.path, x0, x1, 0.3)
    assert_close(found, torch.arange(6, dtype=torch.float64) ** 2)


def test_its_mean_is_the_expected_error_of_a_wrong_gaussian():
    """A model for data of the wrong mean is wrong by a constant: alpha' - (s' / s) m' times the shift."""
    g, t, shift = seeded(6), torch.tensor(0.4, dtype=torch.float64), 0.7
    mean, std = torch.zeros(3, dtype=torch.float64), torch.full((3,), 0.5, dtype=torch.float64)
    truth, model = GaussianFlow(RECTIFIED, mean, std), GaussianFlow(RECTIFIED, mean + shift, std)
    n = 50
    x0, x1 = torch.randn(n, 3, generator=g, dtype=torch.float64), 0.5 * torch.randn(n, 3, generator=g).double()
    found = velocity_mse(model.velocity, truth.velocity, RECTIFIED.path, x0, x1, t)
    s2 = (0.4 * 0.5) ** 2 + 0.6**2  # variance of x_t; s' s = t std^2 - (1 - t)
    constant = shift * (1 - 0.4 * (0.4 * 0.25 - 0.6) / s2)
    assert_close(found, torch.full((n,), constant**2, dtype=torch.float64), rtol=1e-9, atol=0)


def test_no_gradient_is_kept():
    x0, x1 = pairs(7)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for value in (
        cosine_to_conditional(lambda x, t: scale * x, RECTIFIED.path, x0, x1, 0.5),
        velocity_mse(lambda x, t: scale * x, lambda x, t: x, RECTIFIED.path, x0, x1, 0.5),
    ):
        assert not value.requires_grad


def test_bad_input_is_refused():
    x0, x1 = pairs(8)

    def identity(x, t):
        return x

    for measure in (
        lambda **changes: cosine_to_conditional(identity, RECTIFIED.path, **({"x0": x0, "x1": x1, "t": 0.5} | changes)),
        lambda **changes: velocity_mse(
            identity, identity, RECTIFIED.path, **({"x0": x0, "x1": x1, "t": 0.5} | changes)
        ),
    ):
        with pytest.raises(ValueError, match="each source sample needs exactly one data sample"):
            measure(x0=x0[:3])
        with pytest.raises(ValueError, match=r"t has shape \(6, 1\)"):
            measure(t=torch.full((6, 1), 0.5))
    with pytest.raises(ValueError, match=r"the model returned shape \(6, 1\)"):
        velocity_mse(lambda x, t: x[:, :1], identity, RECTIFIED.path, x0, x1, 0.5)
    assert math.isfinite(velocity_mse(identity, identity, RECTIFIED.path, x0, x1, 0.5).sum())
