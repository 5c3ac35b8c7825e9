"""A velocity that changes hands: who is asked, about which rows, and where a flow ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fmcore import solvers
from fmcore.closed_form import EmpiricalVelocity, HybridVelocity
from tests.analytic import modest, seeded


def recording(sign):
    seen = []

    def velocity(x, t):
        seen.append((x, t))
        return sign * x * (1 + t.reshape(-1, *[1] * (x.ndim - 1)))

    return velocity, seen


@pytest.mark.parametrize("t", [0.0, 0.29, 0.3, 0.31, 1.0])
def test_before_the_switch_the_first_and_from_then_on_the_second(t):
    (first, asked_first), (second, asked_second) = recording(1), recording(-1)
    x = torch.randn(4, 3, generator=seeded(0))
    for time in (t, torch.tensor(t), torch.full((4,), t)):
        assert_close(HybridVelocity(first, second, 0.3)(x, time), (1 if t < 0.3 else -1) * x * (1 + t))
    assert (len(asked_first), len(asked_second)) == ((3, 0) if t < 0.3 else (0, 3))


@modest
@given(
    times=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=1, max_size=8),
    switch=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_each_row_goes_to_the_velocity_of_its_time_and_comes_back_in_its_place(times, switch):
    (first, asked_first), (second, asked_second) = recording(1), recording(-1)
    t = torch.tensor(times, dtype=torch.float64)
    x = torch.randn(len(t), 2, 1, generator=seeded(1), dtype=torch.float64)
    found = HybridVelocity(first, second, switch)(x, t)
    for row in range(len(t)):
        sign = 1 if times[row] < switch else -1
        assert_close(found[row], sign * x[row] * (1 + times[row]))
    assert all((time < switch).all() for _, time in asked_first)
    assert all((time >= switch).all() for _, time in asked_second)
    assert sum(len(rows) for rows, _ in asked_first + asked_second) == len(t)  # nothing is computed and thrown away


@pytest.mark.parametrize("switch", [0.0, 0.4, 1.0])
def test_a_flow_moves_by_both_in_turn(switch):
    """Constant velocities: the displacement is switch times the first and the rest times the second."""
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 0.5])
    x0 = torch.randn(5, 2, generator=seeded(2))
    hybrid = HybridVelocity(lambda x, t: a.expand_as(x), lambda x, t: b.expand_as(x), switch)
    end = solvers.solve(hybrid, x0, method="euler", steps=10).x
    assert_close(end, x0 + switch * a + (1 - switch) * b)


def test_an_exact_start_decides_the_training_point():
    """Bertrand et al. 2025, figure 3: after the exact velocity for long enough, no other leaves the point."""
    g = seeded(3)
    points = torch.randn(20, 50, generator=g)
    exact, x0 = EmpiricalVelocity(points), torch.randn(30, 50, generator=g)
    others = EmpiricalVelocity(torch.cat([points, torch.randn(200, 50, generator=g)]))  # as if it had learned more
    steps = {"method": "euler", "steps": 100, "t1": 0.99}
    shares = []
    for switch in (0.0, 0.5, 0.99):
        end = solvers.solve(HybridVelocity(exact, others, switch), x0, **steps).x
        shares.append(float((torch.cdist(end, points).min(dim=1).values < 1).double().mean()))
    assert shares[0] < 0.4
    assert shares[1] > 0.9
    assert shares[2] == 1


def test_gradients_reach_the_rows_of_both():
    x = torch.randn(4, 2, generator=seeded(4), dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.9, 0.1, 0.8, 0.2], dtype=torch.float64)
    hybrid = HybridVelocity(lambda x, t: 2 * x, lambda x, t: x**2, 0.5)
    hybrid(x, t).sum().backward()
    assert_close(x.grad, torch.where(t[:, None] < 0.5, torch.full_like(x, 2), 2 * x.detach()))


@pytest.mark.parametrize("switch", [-0.1, 1.1, float("nan")])
def test_a_switch_outside_zero_and_one_is_refused(switch):
    with pytest.raises(ValueError, match="switch is"):
        HybridVelocity(torch.mul, torch.mul, switch)


def test_times_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"t has shape \(4, 1\)"):
        HybridVelocity(torch.mul, torch.mul, 0.5)(torch.zeros(4, 2), torch.zeros(4, 1))
