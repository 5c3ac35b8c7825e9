"""Paths against 60-digit arithmetic, finite differences, the papers' own formulas and Gaussian conditioning."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from torch.testing import assert_close

from fmcore import paths
from tests.analytic import (
    CASES,
    FIVE,
    VE,
    VP,
    differentiate,
    exact_schedules,
    gaussian_flow,
    modest,
    schedules,
    seeded,
)

TIMES = [0.0, 1e-3, 0.05, 0.3, 0.5, 0.75, 0.9, 0.99, 1 - 1e-3, 1 - 1e-4, 1 - 1e-5]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
five_cases = pytest.mark.parametrize("case", FIVE, ids=str)
float_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])

# Relative error allowed of schedules and their slopes: rounding of t, 1 - t and an exponent of size up to ten.
ROUNDING = {torch.float32: 5e-6, torch.float64: 1e-14}
# Round trips divide by alpha and sigma, as small as 0.01 in the tests: more digits are lost.
ROUND_TRIP = {torch.float32: 2e-3, torch.float64: 1e-11}


# Schedules


@pytest.mark.parametrize("case", CASES, ids=str)
@float_types
def test_schedules_and_slopes_equal_sixty_digit_arithmetic(case, dtype):
    """Also just before t = 1, where a sigma computed as sqrt(1 - alpha^2) would have no digit left."""
    t = torch.tensor(TIMES, dtype=dtype)
    exact = torch.tensor([exact_schedules(case, float(s)) for s in t], dtype=torch.float64)
    path = case.path
    found = torch.stack([f(t) for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)], dim=1)
    assert found.dtype == dtype
    assert_close(found.double(), exact, rtol=ROUNDING[dtype], atol=1e-300)


@every_case
def test_slopes_equal_finite_differences_of_the_schedules(case):
    path = case.path
    t = torch.tensor([0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999, 1 - 1e-4], dtype=torch.float64)
    h = 1e-3 * (1 - t)
    for schedule, slope in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        wide = (schedule(t + h) - schedule(t - h)) / (2 * h)
        narrow = (schedule(t + h / 2) - schedule(t - h / 2)) / h
        assert_close(slope(t), (4 * narrow - wide) / 3, rtol=1e-7, atol=1e-8)  # Richardson: fourth order


@every_case
def test_schedules_run_from_source_to_data(case):
    path, s = case.path, torch.linspace(0, 1, 101, dtype=torch.float64)
    assert (path.alpha(s).diff() >= 0).all()
    assert (path.sigma(s).diff() < 0).all()
    assert path.alpha(s)[-1] == 1


@pytest.mark.parametrize("parameters", [(0.1, 20.0), (1.0, 1.0), (0.5, 8.0)])
def test_variance_preserving_path_integrates_its_noise_rate(parameters):
    """alpha = exp(-1/2 integral of beta), with the rate integrated numerically."""
    low, high = parameters
    path = paths.variance_preserving(low, high)
    for t in TIMES[:-1]:
        area = quad(lambda s: low * (1 - s) + high * s, 0, 1 - t, epsabs=1e-14)[0]
        time = torch.tensor(t, dtype=torch.float64)
        assert float(path.alpha(time)) == pytest.approx(math.exp(-area / 2), rel=1e-12)
        assert float(path.alpha(time) ** 2 + path.sigma(time) ** 2) == pytest.approx(1, abs=1e-14)


def test_variance_exploding_path_has_its_boundary_values():
    path = paths.variance_exploding(0.02, 30.0)
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert_close(path.sigma(ends), torch.tensor([30.0, math.sqrt(0.02 * 30), 0.02], dtype=torch.float64))
    assert (path.alpha(ends) == 1).all()
    assert path.source_scale == pytest.approx(30)


def test_cosine_path_turns_on_the_unit_circle_at_constant_speed():
    path, t = paths.cosine(), torch.linspace(0, 1, 33, dtype=torch.float64)
    assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))
    assert_close(path.d_alpha(t) ** 2 + path.d_sigma(t) ** 2, torch.full_like(t, (math.pi / 2) ** 2))
    assert_close(torch.atan2(path.alpha(t), path.sigma(t)), t * math.pi / 2)
    assert path.sigma(torch.tensor(1.0)) == 0


@pytest.mark.parametrize("case", FIVE, ids=str)
def test_source_scale_is_the_spread_at_the_start(case):
    expected = {"variance_exploding": 50.0, "variance_preserving": math.sqrt(1 - math.exp(-10.05))}
    assert case.path.source_scale == pytest.approx(expected.get(case.name, 1.0), rel=1e-12)


@every_case
@float_types
def test_velocities_are_finite_up_to_t_max_and_t_max_is_one_where_that_is_safe(case, dtype):
    path = case.path
    x, x1 = torch.randn(2, 4, 3, generator=seeded(0), dtype=dtype)
    assert torch.isfinite(path.velocity(x, x1, path.t_max)).all()
    assert path.t_max >= 1 - 1e-5
    if case.name == "ot" and case.parameters["sigma_min"] > 0:
        assert path.t_max == 1
    if float(path.sigma(torch.tensor(1.0))) == 0:
        assert path.t_max < 1


# Points and velocities


@every_case
@modest
@given(
    t=st.lists(st.floats(0, 1 - 1e-5), min_size=1, max_size=5),
    shape=st.sampled_from([(), (1,), (2,), (3, 2), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_interpolate_and_target_follow_the_schedules_of_each_sample(case, t, shape, dtype, seed):
    x0, x1 = torch.randn(2, len(t), *shape, generator=seeded(seed), dtype=dtype)
    times = torch.tensor(t, dtype=dtype)
    xt, target = case.path.interpolate(x0, x1, times), case.path.target(x0, x1, times)
    for i, time in enumerate(times.tolist()):
        alpha, sigma, d_alpha, d_sigma = exact_schedules(case, time)
        size = x0[i].double().abs() + x1[i].double().abs()
        point = alpha * x1[i].double() + sigma * x0[i].double()
        slope = d_alpha * x1[i].double() + d_sigma * x0[i].double()
        assert xt[i].dtype == target[i].dtype == dtype
        assert ((xt[i] - point).abs() <= ROUNDING[dtype] * max(alpha, sigma) * size).all()
        assert ((target[i] - slope).abs() <= ROUNDING[dtype] * max(d_alpha, -d_sigma) * size).all()
    together = case.path.interpolate_with_target(x0, x1, times)
    assert_close(together, (xt, target), rtol=0, atol=0)


@five_cases
def test_source_and_data_of_two_precisions_meet_in_the_finer_one(case):
    x0, x1 = torch.randn(2, 4, 3, generator=seeded(5), dtype=torch.float64)
    rough = x0.float()
    xt, target = case.path.interpolate_with_target(rough, x1, 0.25)
    assert_close((xt, target), case.path.interpolate_with_target(rough.double(), x1, 0.25), rtol=1e-12, atol=1e-12)


@every_case
def test_velocity_and_target_are_the_time_derivative_of_the_conditional_flow(case):
    """Theorem 3: psi_t(x0) = alpha x1 + sigma x0 moves with u_t(psi_t(x0) | x1). psi is differenced in time."""
    g = seeded(1)
    x0, x1 = torch.randn(2, 6, 3, generator=g, dtype=torch.float64)
    t = torch.tensor([0.0, 0.1, 0.4, 0.7, 0.9, 0.99], dtype=torch.float64)

    def psi(time):
        alpha, sigma = schedules(case)(time)
        return alpha[:, None] * x1 + sigma[:, None] * x0

    h = 1e-3 * (1 - t)
    wide = (psi(t + h) - psi(t - h)) / (2 * h[:, None])
    narrow = (psi(t + h / 2) - psi(t - h / 2)) / h[:, None]
    motion = (4 * narrow - wide) / 3
    assert_close(case.path.velocity(psi(t), x1, t), motion, rtol=1e-7, atol=1e-7)
    assert_close(case.path.target(x0, x1, t), motion, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("case", [*FIVE[:4]], ids=str)
def test_velocity_equals_the_formulas_of_the_paper(case):
    """Lipman et al. 2023, the conditional velocities of section 4.1 as the paper writes them, at any x."""
    x, x1 = torch.randn(2, 5, 2, generator=seeded(2), dtype=torch.float64)
    t = torch.tensor([0.0, 0.2, 0.5, 0.8, 0.97], dtype=torch.float64)
    s, p = (1 - t)[:, None], case.parameters
    if case.name == "variance_preserving":
        rate = p["beta_min"] + s * (p["beta_max"] - p["beta_min"])
        total = s * p["beta_min"] + s**2 / 2 * (p["beta_max"] - p["beta_min"])
        u = -rate / 2 * (torch.exp(-total) * x - torch.exp(-total / 2) * x1) / (1 - torch.exp(-total))
    elif case.name == "variance_exploding":
        u = -math.log(p["sigma_max"] / p["sigma_min"]) * (x - x1)
    else:
        slope = 1 - p.get("sigma_min", 0.0)
        u = (x1 - slope * x) / (1 - slope * t[:, None])
    assert_close(case.path.velocity(x, x1, t), u, rtol=1e-10, atol=1e-10)


@five_cases
def test_a_point_that_follows_the_velocity_reaches_the_data(case):
    """Away from the path too: the velocity carries every x at t = 0.2 to x1 + sigma_T (x - alpha x1) / sigma."""
    x, x1 = torch.randn(2, 4, 2, generator=seeded(3), dtype=torch.float64) * 3
    path, start, end = case.path, 0.2, 1 - 1e-3
    run = solve_ivp(
        lambda t, y: path.velocity(torch.from_numpy(y).reshape(4, 2), x1, float(t)).flatten().numpy(),
        (start, end), x.flatten().numpy(), rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    alpha0, sigma0, *_ = exact_schedules(case, start)
    alpha1, sigma1, *_ = exact_schedules(case, end)
    expected = alpha1 * x1 + sigma1 * (x - alpha0 * x1) / sigma0
    assert_close(torch.from_numpy(run.y[:, -1]).reshape(4, 2), expected, rtol=1e-6, atol=1e-6)


# Predictions


@every_case
@pytest.mark.parametrize("shape", [(2,), (2, 3)], ids=str)
def test_predictions_equal_the_posterior_of_gaussian_data(case, shape):
    """Velocity from the affine flow, data and noise from conditioning, score from the density: the path links them."""
    truth, path = gaussian_flow(case, shape), case.path
    t = torch.tensor([0.02, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4], dtype=torch.float64)
    m, s = truth.moments(t)
    x = m + s * torch.randn(6, *shape, generator=seeded(4), dtype=torch.float64)
    v = truth.velocity(x, t)
    assert_close(path.velocity_to_data(v, x, t), truth.data(x, t), rtol=1e-8, atol=1e-8)
    assert_close(path.velocity_to_noise(v, x, t), truth.noise(x, t), rtol=1e-8, atol=1e-8)
    assert_close(path.velocity_to_score(v, x, t), truth.score(x, t), rtol=1e-6, atol=1e-6)
    assert_close(path.data_to_velocity(truth.data(x, t), x, t), v, rtol=1e-8, atol=1e-7)
    assert_close(path.noise_to_velocity(truth.noise(x, t), x, t), v, rtol=1e-8, atol=1e-8)
    assert_close(path.score_to_velocity(truth.score(x, t), x, t), v, rtol=1e-8, atol=1e-8)


@every_case
@modest
@given(
    t=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4),
    shape=st.sampled_from([(), (1,), (3,), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    one_time=st.booleans(),
    seed=st.integers(0, 99),
)
def test_predictions_round_trip(case, t, shape, dtype, one_time, seed):
    path = case.path
    x0, x1 = torch.randn(2, len(t), *shape, generator=seeded(seed), dtype=dtype)
    times = torch.tensor(t[0] if one_time else t, dtype=dtype)
    x, v = path.interpolate(x0, x1, times), path.target(x0, x1, times)
    scale = max(float(v.abs().max()), float(x.abs().max()), 1.0)
    for there, back in (
        (path.velocity_to_data, path.data_to_velocity),
        (path.velocity_to_noise, path.noise_to_velocity),
        (path.velocity_to_score, path.score_to_velocity),
    ):
        assert_close(back(there(v, x, times), x, times), v, rtol=0, atol=ROUND_TRIP[dtype] * scale)
    assert_close(path.velocity_to_data(v, x, times), x1, rtol=0, atol=ROUND_TRIP[dtype] * scale)
    assert_close(path.velocity_to_noise(v, x, times), x0, rtol=0, atol=ROUND_TRIP[dtype] * scale)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("rectified", "ot", "cosine")], ids=str)
def test_noise_and_score_predictions_are_refused_where_alpha_is_zero(case):
    x = torch.randn(3, 2, generator=seeded(0))
    for t in (0.0, torch.tensor([0.5, 0.0, 0.7])):
        for convert in (case.path.noise_to_velocity, case.path.score_to_velocity):
            with pytest.raises(ValueError, match="alpha = 0.*small t > 0"):
                convert(x, x, t)
    assert_close(case.path.velocity_to_noise(case.path.target(x, 2 * x, 0.0), x, 0.0), x)  # x is the noise there


@pytest.mark.parametrize("case", [VP, VE], ids=str)
def test_noise_and_score_predictions_are_allowed_at_zero_where_alpha_is_not(case):
    truth, t = gaussian_flow(case), torch.tensor(0.0, dtype=torch.float64)
    x = truth.sample(5, 0.0, seeded(5))
    assert_close(case.path.score_to_velocity(truth.score(x, t), x, t), truth.velocity(x, t), rtol=1e-6, atol=1e-9)


# Times


METHODS_WITH_TIME = [
    "interpolate", "target", "velocity", "velocity_to_data", "velocity_to_noise", "velocity_to_score",
    "data_to_velocity", "noise_to_velocity", "score_to_velocity",
]  # fmt: skip


@five_cases
@pytest.mark.parametrize("method", METHODS_WITH_TIME)
def test_one_time_for_all_equals_the_same_time_for_each(case, method):
    a, b = torch.randn(2, 3, 2, 2, generator=seeded(6))
    call = getattr(case.path, method)
    together, each = call(a, b, torch.tensor(0.4)), call(a, b, torch.full((3,), 0.4))
    assert_close(together, each, rtol=0, atol=0)
    assert_close(call(a, b, 0.4), together, rtol=0, atol=0)
    for i in range(3):  # and a batch of one
        assert_close(call(a[i : i + 1], b[i : i + 1], torch.tensor([0.4])), together[i : i + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS_WITH_TIME)
def test_a_column_of_times_is_refused(method):
    a, b = torch.randn(2, 3, 3, generator=seeded(7))
    with pytest.raises(ValueError, match=r"t has shape \(3, 1\)"):
        getattr(paths.rectified(), method)(a, b, torch.full((3, 1), 0.4))


@pytest.mark.parametrize("method", ["interpolate", "target", "velocity"])
def test_pairs_of_other_shapes_are_refused(method):
    with pytest.raises(ValueError, match="x0 has shape"):
        getattr(paths.cosine(), method)(torch.zeros(3, 2), torch.zeros(1, 2), 0.5)


# The diffusion that shares the marginals


@every_case
def test_the_noising_diffusion_has_the_marginals_of_the_path(case):
    """Itô: dx = f x ds + g dW in s = 1 - t has mean m' = f m and variance V' = 2 f V + g^2.

    The mean tells f, from the path's alpha; with the path's g the variance must then come out as sigma^2.
    """
    path, first, last = case.path, 1e-4, 0.97

    def rate(s):
        (alpha, _), (d_alpha, _) = differentiate(schedules(case), torch.tensor(1 - s, dtype=torch.float64))
        return -float(d_alpha / alpha)

    def moments(s, y):
        g = float(path.diffusion(torch.tensor(1 - s, dtype=torch.float64)))
        return [rate(s) * y[0], 2 * rate(s) * y[1] + g * g]

    s = [first, 0.1, 0.5, 0.8, last]
    exact = torch.tensor([exact_schedules(case, 1 - time)[:2] for time in s])
    start = [float(exact[0, 0]), float(exact[0, 1]) ** 2]
    run = solve_ivp(moments, (first, last), start, t_eval=s, rtol=1e-9, atol=1e-12)
    found = torch.from_numpy(run.y)
    assert_close(found[0], exact[:, 0].double(), rtol=1e-6, atol=1e-8)
    assert_close(found[1], exact[:, 1].double() ** 2, rtol=1e-5, atol=1e-8)


def test_diffusion_is_the_noise_rate_of_the_two_diffusion_paths():
    t = torch.tensor([0.0, 0.3, 0.8, 0.999, 1 - 1e-5], dtype=torch.float64)
    preserving = paths.variance_preserving(0.1, 20.0).diffusion(t)
    assert_close(preserving**2, 0.1 + 19.9 * (1 - t), rtol=1e-9, atol=0)
    exploding = paths.variance_exploding(0.01, 50.0)
    h = 1e-6
    growth = (exploding.sigma(t - h) ** 2 - exploding.sigma(t + h) ** 2) / (2 * h)  # d sigma^2 / ds
    assert_close(exploding.diffusion(t) ** 2, growth, rtol=1e-7, atol=0)


@pytest.mark.parametrize("shape", [(), (4,)], ids=str)
def test_diffusion_keeps_the_shape_of_t(shape):
    t = torch.full(shape, 0.5)
    for case in FIVE:
        g = case.path.diffusion(t)
        assert g.shape == shape
        assert (g > 0).all()


# Names and parameters


@every_case
def test_by_name_builds_the_same_path(case):
    path, t = paths.by_name(case.name, **case.parameters), torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert path.name == case.name
    assert dict(path.parameters) == case.parameters
    assert path == case.path
    for i, time in enumerate(t.tolist()):
        assert [float(path.alpha(t)[i]), float(path.sigma(t)[i])] == pytest.approx(exact_schedules(case, time)[:2])


def test_paths_of_other_parameters_differ():
    assert paths.ot(0.1) != paths.ot(0.2)
    assert paths.variance_preserving() != paths.variance_exploding()


def test_unknown_names_and_parameters_are_refused():
    with pytest.raises(ValueError, match="'diagonal'.*cosine, ot, rectified, variance_exploding, variance_preserving"):
        paths.by_name("diagonal")
    with pytest.raises(ValueError, match="'rectified' does not take.*sigma_min"):
        paths.by_name("rectified", sigma_min=0.1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ot", {"sigma_min": 1.0}),
        ("ot", {"sigma_min": -0.1}),
        ("variance_preserving", {"beta_min": 0.0}),
        ("variance_preserving", {"beta_min": 2.0, "beta_max": 1.0}),
        ("variance_exploding", {"sigma_min": 0.0}),
        ("variance_exploding", {"sigma_min": 1.0, "sigma_max": 1.0}),
        ("ot", {"sigma_min": math.nan}),
    ],
)
def test_parameters_out_of_range_are_refused(name, parameters):
    with pytest.raises(ValueError, match="must"):
        paths.by_name(name, **parameters)


# Paths as values


@every_case
def test_a_pickled_or_copied_path_is_the_same_path(case):
    path, t = case.path, torch.tensor(TIMES, dtype=torch.float64)
    for other in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path), copy.copy(path)):
        assert other == path
        assert repr(other) == repr(path)
        for schedule in ("alpha", "sigma", "d_alpha", "d_sigma"):
            assert torch.equal(getattr(other, schedule)(t), getattr(path, schedule)(t))


def test_equal_paths_have_equal_hashes():
    made = {case.path: str(case) for case in CASES}
    assert len(made) == len(CASES)
    assert [made[case.path] for case in CASES] == [str(case) for case in CASES]


@five_cases
@pytest.mark.parametrize("method", METHODS_WITH_TIME)
def test_counted_times_are_refused(case, method):
    a, b = torch.randn(2, 3, 2, generator=seeded(8))
    call = getattr(case.path, method)
    for t in (torch.arange(3), torch.tensor(500), 7):
        with pytest.raises(ValueError, match=r"times are real numbers from 0 \(source\) to 1 \(data\); divide steps"):
            call(a, b, t)
    if method in ("interpolate", "target"):
        assert torch.equal(call(a, b, 1), call(a, b, 1.0))
