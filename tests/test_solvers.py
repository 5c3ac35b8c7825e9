"""Solvers against analytic flows, known solutions, finite differences and an independent count of calls."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fmcore import closed_form, paths, solvers
from fmcore import velocity as velocities
from tests.analytic import COSINE, OT, RECTIFIED, VE, VP, gaussian_flow, modest, seeded

# Evaluations per step and order of convergence, from the textbooks.
FIXED = {"euler": (1, 1), "midpoint": (2, 2), "heun": (2, 2), "rk4": (4, 4)}
METHODS = ["dopri5", *FIXED]
fixed_methods = pytest.mark.parametrize("method", FIXED)
every_method = pytest.mark.parametrize("method", METHODS)


def options(method, steps=20):
    return {"method": method} if method == "dopri5" else {"method": method, "steps": steps}


def decay(x, t):
    """dx/dt = -2 t x^2, solved by x(t) = 1 / (1 / x(0) + t^2)."""
    return -2 * t * x**2


def decayed(x0, t):
    return 1 / (1 / x0 + t**2)


START = torch.tensor([[0.5, 1.0], [1.5, 2.0], [0.8, 0.1]], dtype=torch.float64)


class Recorder:
    """A velocity that writes down the times and shapes it is asked for."""

    def __init__(self, velocity=decay):
        self.velocity, self.times, self.shapes, self.dtypes = velocity, [], [], []

    def __call__(self, x, t):
        self.times.append(float(t))
        self.shapes.append(tuple(t.shape))
        self.dtypes.append((x.dtype, t.dtype))
        return self.velocity(x, t)


# Accuracy


@pytest.mark.parametrize("case", [RECTIFIED, VP, VE, OT, COSINE], ids=str)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "backward"])
def test_dopri5_follows_the_gaussian_flow(case, forward):
    truth = gaussian_flow(case, (2, 2))
    start, end = (0.0, case.path.t_max) if forward else (case.path.t_max, 0.0)
    x = truth.sample(40, start, seeded(0))
    solution = solvers.solve(truth.velocity, x, t0=start, t1=end, rtol=1e-6, atol=1e-6)
    scale = float(truth.moments(torch.tensor(end, dtype=torch.float64))[1].max())
    assert_close(solution.x, truth.flow(x, start, end), rtol=0, atol=1e-4 * max(1.0, scale))
    assert (solution.x - x).abs().max() > 0.1


def test_there_and_back_again():
    truth = gaussian_flow(COSINE)
    x = truth.sample(20, 0.0, seeded(1))
    there = solvers.solve(truth.velocity, x, t1=0.99, rtol=1e-7, atol=1e-7).x
    assert_close(solvers.solve(truth.velocity, there, t0=0.99, t1=0.0, rtol=1e-7, atol=1e-7).x, x, rtol=0, atol=1e-5)


@fixed_methods
def test_order_of_convergence_on_a_nonlinear_equation(method):
    steps = np.array([16, 32, 64, 128])
    ends = [solvers.solve(decay, START, method=method, steps=int(n)).x for n in steps]
    errors = [float((end - decayed(START, 1)).abs().max()) for end in ends]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(FIXED[method][1], abs=0.15)


def test_tighter_tolerances_cost_more_and_err_less():
    errors, counts = [], []
    for tolerance in (1e-3, 1e-6, 1e-9):
        solution = solvers.solve(decay, START, rtol=tolerance, atol=tolerance)
        errors.append(float((solution.x - decayed(START, 1)).abs().max()))
        counts.append(solution.nfe)
    assert counts[0] < counts[1] < counts[2]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10
    assert errors[2] < 1e-8


def test_one_step_of_each_method_by_hand():
    """Half a unit of time in one step, from x(0) = 1. For dx/dt = x^2 the two methods of second order differ."""
    expected = {"euler": 1.5, "midpoint": 1 + 0.5 * 1.25**2, "heun": 1 + 0.25 * (1 + 1.5**2)}
    for method, value in expected.items():
        x = solvers.solve(lambda x, t: x**2, torch.ones(1, 1).double(), t1=0.5, method=method, steps=1).x
        assert float(x) == pytest.approx(value, abs=1e-14)
    # For dx/dt = x every method of order four in four evaluations gives the exponential series up to h^4.
    x = solvers.solve(lambda x, t: x, torch.ones(1, 1).double(), t1=0.5, method="rk4", steps=1).x
    assert float(x) == pytest.approx(sum(0.5**k / math.factorial(k) for k in range(5)), abs=1e-14)


@every_method
@modest
@given(
    batch=st.integers(1, 4),
    shape=st.sampled_from([(), (2,), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_field_that_depends_on_time_alone_is_integrated_for_any_shape(method, batch, shape, dtype):
    x0 = torch.randn(batch, *shape, generator=seeded(2), dtype=dtype)
    solution = solvers.solve(lambda x, t: 3 * t**2 * torch.ones_like(x), x0, **options(method, 200))
    assert_close(solution.x, x0 + 1, rtol=0, atol=1e-2 if method == "euler" else 1e-4)


# Evaluations and times


@fixed_methods
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)])
def test_evaluations_of_fixed_steps_are_counted_exactly(method, steps, ends):
    velocity = Recorder()
    solution = solvers.solve(velocity, decayed(START, ends[0]), *ends, method=method, steps=steps)
    assert solution.nfe == len(velocity.times) == steps * FIXED[method][0]


def test_evaluations_of_dopri5_are_counted_exactly():
    """Rejected steps too: a field with a kink at 0.5 rejects some."""
    velocity = Recorder(lambda x, t: torch.where(t < 0.5, x, 100 * torch.cos(30 * t) * x))
    solution = solvers.solve(velocity, START)
    assert solution.nfe == len(velocity.times)
    assert sum(b < a for a, b in pairwise(velocity.times)) > 0


@every_method
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (0.7, 0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_times_are_scalars_of_the_dtype_of_x_within_the_interval(method, ends, dtype):
    velocity = Recorder()
    solvers.solve(velocity, decayed(START, ends[0]).to(dtype), *ends, **options(method, 5))
    assert set(velocity.shapes) == {()}
    assert set(velocity.dtypes) == {(dtype, dtype)}
    low, high = (float(torch.tensor(end, dtype=dtype)) for end in sorted(ends))
    assert min(velocity.times) >= low
    assert max(velocity.times) <= high
    assert velocity.times[0] == float(torch.tensor(ends[0], dtype=dtype))


def test_euler_visits_the_left_ends_of_equal_steps():
    velocity = Recorder()
    solvers.solve(velocity, START, 0.2, 1.0, method="euler", steps=4)
    assert velocity.times == pytest.approx([0.2, 0.4, 0.6, 0.8])
    velocity = Recorder()
    solvers.solve(velocity, START, 1.0, 0.2, method="midpoint", steps=2)
    assert velocity.times == pytest.approx([1.0, 0.8, 0.6, 0.4])


@every_method
def test_a_velocity_that_does_not_exist_past_the_end(method):
    """dx/dt = -x / (1 - t): x(t) = x(0) (1 - t), with NaN for any t beyond 0.99."""

    def velocity(x, t):
        return torch.where(t <= 0.99, -x / (1 - t), torch.nan)

    solution = solvers.solve(velocity, START, t1=0.99, **options(method, 400))
    assert_close(solution.x, 0.01 * START, rtol=0, atol={"euler": 0.02, "dopri5": 1e-4}.get(method, 2e-3))


@pytest.mark.parametrize("ends", [(0.0, 0.5), (0.5, 0.0)])
def test_a_slow_field_does_not_tempt_dopri5_past_the_end(ends):
    """Its first trial step is a hundredth of |x| / |v|, here forty times the interval."""
    velocity = Recorder(lambda x, t: torch.where((t >= 0) & (t <= 0.5), 5e-4 * x, torch.nan))
    solution = solvers.solve(velocity, START, *ends)
    assert 0 <= min(velocity.times) <= max(velocity.times) <= 0.5
    assert_close(solution.x, START * math.exp(5e-4 * (ends[1] - ends[0])), rtol=1e-9, atol=0)


def test_dopri5_on_a_velocity_singular_at_the_end_of_a_path():
    truth = gaussian_flow(VP)
    x = truth.sample(10, 0.0, seeded(3)).float()
    strict = Recorder(lambda x, t: truth.velocity(x, t))
    solution = solvers.solve(strict, x, t1=VP.path.t_max)
    assert max(strict.times) <= float(torch.tensor(VP.path.t_max))
    assert_close(solution.x, truth.flow(x, 0.0, VP.path.t_max), rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4"])
def test_a_grid_finer_than_float32_can_tell_apart(method):
    """Two steps of 1e-9 in the middle: a float32 state moves as it should over the rest."""
    times = [0.0, 0.5, 0.5 + 1e-9, 0.5 + 2e-9, 1.0]
    solution = solvers.solve(lambda x, t: torch.ones_like(x), START.float(), method=method, times=times)
    assert_close(solution.trajectory[1:4], (START.float() + 0.5).expand(3, *START.shape), rtol=1e-6, atol=1e-6)
    assert_close(solution.x, START.float() + 1, rtol=1e-6, atol=1e-6)


# Trajectories


@every_method
@pytest.mark.parametrize("wanted", [[0.0, 0.25, 0.5, 1.0], [0.5], [0.25, 1.0], [0.0, 0.75]], ids=str)
@pytest.mark.parametrize("steps", [None, 8])
def test_trajectories_hold_the_states_at_the_times(method, wanted, steps):
    """With ``steps`` the states of the finer grid at these times; without, the times are the grid."""
    steps = None if method == "dopri5" else steps
    solution = solvers.solve(decay, START, method=method, steps=steps, times=wanted, rtol=1e-8, atol=1e-8)
    assert solution.times.tolist() == wanted
    assert solution.trajectory.shape == (len(wanted), *START.shape)
    grid = sorted({0.0, *wanted, 1.0}) if steps is None else np.linspace(0, 1, steps + 1).tolist()
    for time, state in zip(wanted, solution.trajectory, strict=True):
        if method == "dopri5":
            assert_close(state, decayed(START, time), rtol=1e-6, atol=0)
            continue
        alone = START  # the same steps one by one
        for a, b in pairwise(grid):
            if b <= time + 1e-12:
                alone = solvers.solve(decay, alone, a, b, method=method, steps=1).x
        assert_close(state, alone, rtol=1e-12, atol=1e-14)
    if wanted[-1] == 1.0:
        assert torch.equal(solution.trajectory[-1], solution.x)
    if wanted[0] == 0.0:
        assert torch.equal(solution.trajectory[0], START)
    if method != "dopri5":
        assert solution.nfe == FIXED[method][0] * (len(grid) - 1)
    if steps:  # keeping states changes nothing
        assert torch.equal(solution.x, solvers.solve(decay, START, method=method, steps=steps).x)


@every_method
def test_trajectories_backward(method):
    wanted = [1.0, 0.75, 0.25, 0.0]
    end = decayed(START, 1.0)
    solution = solvers.solve(decay, end, 1.0, 0.0, times=torch.tensor(wanted), **options(method, 400))
    expected = torch.stack([decayed(START, time) for time in wanted])
    assert_close(solution.trajectory, expected, rtol=0.02 if method == "euler" else 1e-4, atol=0)
    assert solution.times.tolist() == wanted


def test_without_times_there_is_no_trajectory():
    solution = solvers.solve(decay, START, 0.25, 0.75, method="euler", steps=3)
    assert solution.trajectory is None
    assert solution.times.tolist() == [0.25, 0.75]


def test_euler_steps_equal_a_loop():
    x = START.clone()
    for k in range(10):
        x = x + 0.1 * decay(x, 0.1 * k)
    assert_close(solvers.solve(decay, START, method="euler", steps=10).x, x, rtol=1e-14, atol=0)


# Gradients


@every_method
def test_gradients_through_the_solve_equal_finite_differences(method):
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x0 = START.clone().requires_grad_(True)

    def end(x0, rate):
        velocity = lambda x, t: -rate * t * x**2  # noqa: E731
        return solvers.solve(velocity, x0, rtol=1e-9, atol=1e-9, grad=True, **options(method, 4)).x

    assert torch.autograd.gradcheck(end, (x0, rate), atol=1e-5)


@every_method
def test_gradients_are_off_unless_asked_for(method):
    x0 = START.clone().requires_grad_(True)
    assert not solvers.solve(decay, x0, **options(method)).x.requires_grad
    with torch.no_grad():
        assert not solvers.solve(decay, x0, grad=True, **options(method)).x.requires_grad


# Bad input


def test_unknown_methods_and_steps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="unknown method 'rk45': choose one of dopri5, euler, heun, midpoint, rk4"):
        solvers.solve(decay, START, method="rk45")
    with pytest.raises(ValueError, match="dopri5 chooses its own steps"):
        solvers.solve(decay, START, steps=10)
    for steps in (0, -3):
        with pytest.raises(ValueError, match=f"steps is {steps}"):
            solvers.solve(decay, START, method="euler", steps=steps)


@fixed_methods
def test_fixed_steps_need_a_number_of_steps_or_a_grid(method):
    with pytest.raises(ValueError, match=r"needs steps="):
        solvers.solve(decay, START, method=method)


@every_method
@pytest.mark.parametrize(
    "times",
    [[0.5, 0.25], [0.25, 0.25], [-0.1, 0.5], [0.5, 1.1], [], [[0.25, 0.5]], [1.0, 0.0]],
    ids=str,
)
def test_times_that_do_not_run_from_start_to_end_are_refused(method, times):
    with pytest.raises(ValueError, match=r"times must go one way from t0 = 0.0 to t1 = 1.0"):
        solvers.solve(decay, START, times=times, **options(method, 4))


@fixed_methods
def test_times_off_the_grid_are_refused(method):
    with pytest.raises(ValueError, match="times must lie on the grid of 4 steps"):
        solvers.solve(decay, START, method=method, steps=4, times=[0.25, 0.6])


def test_an_interval_of_no_length_is_refused():
    with pytest.raises(ValueError, match="nothing to solve"):
        solvers.solve(decay, START, 0.5, 0.5)


@every_method
def test_a_start_that_is_not_finite_is_refused(method):
    start = START.clone()
    start[1, 0] = torch.nan
    with pytest.raises(ValueError, match="x0 has NaN or infinite values in 1 of 3 samples .*number 1"):
        solvers.solve(decay, start, **options(method))


@every_method
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_is_an_error_that_says_so(method, value):
    def velocity(x, t):
        return torch.where(t > 0.4, value, 0.0) + torch.zeros_like(x)

    with pytest.raises(RuntimeError, match="the solution stopped being finite"):
        solvers.solve(velocity, START, **options(method))


@every_method
@pytest.mark.parametrize("shape", [(3, 1), (2,), (1, 2), (3, 2, 1), ()], ids=str)
def test_a_velocity_of_another_shape_is_refused(method, shape):
    with pytest.raises(ValueError, match=r"the velocity returned shape .* for x of shape \(3, 2\)"):
        solvers.solve(lambda x, t: torch.zeros(shape, dtype=x.dtype), START, **options(method))


def test_a_start_of_integers_is_refused():
    """A flow in whole numbers would round at every step."""
    with pytest.raises(TypeError, match="x0 holds torch.int64"):
        solvers.solve(decay, torch.ones(3, 2, dtype=torch.int64), method="euler", steps=2)


class TestWhereASolveEnds:
    """Where nobody says so, the ODE ends with the path, as the SDE does, for whatever knows its path."""

    DATA = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.3, -0.8]], dtype=torch.float64)
    PATHS = (paths.rectified(), paths.variance_preserving(), paths.ot(0.1))

    @pytest.mark.parametrize("path", PATHS, ids=["rectified", "vp", "ot"])
    def test_a_velocity_that_knows_its_path_ends_where_the_sde_does(self, path):
        exact = closed_form.EmpiricalVelocity(self.DATA, path)
        x0 = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        known = [exact, velocities.from_score(lambda x, t: path.velocity_to_score(exact(x, t), x, t), path)]
        of_sde = solvers.solve_sde(exact, path, x0, t0=0.1, steps=4, generator=torch.Generator().manual_seed(0))
        for velocity in known:
            found = solvers.solve(velocity, x0, t0=0.1, method="heun", steps=4)
            assert float(found.times[-1]) == path.t_max == float(of_sde.times[-1])
            assert torch.equal(found.x, solvers.solve(velocity, x0, 0.1, path.t_max, method="heun", steps=4).x)

    def test_the_path_that_is_given_comes_first_and_without_one_the_end_is_one(self):
        exact = closed_form.EmpiricalVelocity(self.DATA)
        x0 = torch.zeros(2, 2, dtype=torch.float64)
        vp = paths.variance_preserving()
        assert float(solvers.solve(exact, x0, method="euler", steps=2, path=vp).times[-1]) == vp.t_max
        assert float(solvers.solve(lambda x, t: -x, x0, method="euler", steps=2).times[-1]) == 1.0
        grid = torch.linspace(0, 1, 3)
        assert float(solvers.solve(exact, x0, method="euler", times=grid).times[-1]) == 1.0
