"""Euler-Maruyama against analytic marginals and against the exact mean and variance of its own discrete steps.

For Gaussian data, velocity and score are affine in x, so one Euler-Maruyama step maps Gaussians to Gaussians: its mean
and variance obey a recursion that is computed without drawing a number. The samples must match it at every kept time.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fmcore import solvers
from tests.analytic import (
    COSINE,
    FIVE,
    OT,
    RECTIFIED,
    VE,
    VP,
    GaussianFlow,
    differentiate,
    gaussian_flow,
    schedules,
    seeded,
)

MEAN, STD = 0.8, 0.5
N = 20_000
SIGMAS = 4.5  # standard errors allowed


def number(t):
    return torch.tensor(t, dtype=torch.float64)


def line(case):
    return GaussianFlow(case, torch.tensor([MEAN], dtype=torch.float64), torch.tensor([STD], dtype=torch.float64))


def noise_rate(case, t):
    """g^2 of the noising diffusion dx = f x ds + g dW, s = 1 - t: from alpha comes f = (ln alpha)', and from
    V = sigma^2 with dV/ds = 2 f V + g^2 comes g^2.
    """
    (alpha, sigma), (d_alpha, d_sigma) = (tuple(map(float, pair)) for pair in differentiate(schedules(case), number(t)))
    growth, variance_growth = -d_alpha / alpha, -2 * sigma * d_sigma  # derivatives in s = 1 - t
    return variance_growth - 2 * growth * sigma**2


def discrete_moments(case, grid, scale):
    """Means and variances of x at the grid points, from p_t at its first: x <- x + h (a x + b) + g sqrt(|h|) noise."""
    truth = line(case)
    mean, spread = (float(value) for value in truth.moments(number(grid[0])))
    variance, found = spread**2, []
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # an affine function is known from two of its values
    for now, after in pairwise(grid):
        found.append((mean, variance))
        h, direction = after - now, 1 if after > now else -1
        rate = scale(now) ** 2 * noise_rate(case, now) if scale(now) else 0.0
        drift = truth.velocity(ends, number(now)) + direction * rate / 2 * truth.score(ends, number(now))
        constant, slope = float(drift[0]), float(drift[1] - drift[0])
        mean = mean + h * (slope * mean + constant)
        variance = (1 + h * slope) ** 2 * variance + rate * abs(h)
    return np.array([*found, (mean, variance)]).T


def assert_moments(x, mean, variance):
    """The sample's mean and variance are within their confidence bounds, for independent normal samples (n, 1)."""
    n = len(x)
    assert abs(float(x.mean()) - mean) < SIGMAS * math.sqrt(variance / n)
    assert abs(float(x.var()) / variance - 1) < SIGMAS * math.sqrt(2 / n)


SCALES = {"0": lambda t: 0.0, "0.5": lambda t: 0.5, "1": lambda t: 1.0, "1.5": lambda t: 1.5, "t": lambda t: 2 * t}


@pytest.mark.parametrize("case", FIVE, ids=str)
@pytest.mark.parametrize("scale", ["0.5", "1", "t"])
@pytest.mark.parametrize("forward", [True, False], ids=["generating", "noising"])
def test_samples_have_the_exact_moments_of_the_discrete_recursion(case, scale, forward):
    """Few steps on purpose: the discretisation error is large, and predicted."""
    ends = (0.1, 0.9) if forward else (0.9, 0.1)
    kept = np.linspace(*ends, 5).tolist()
    grid = np.linspace(*ends, 13).tolist()
    truth = line(case)
    solution = solvers.solve_sde(
        truth.velocity, case.path, truth.sample(N, ends[0], seeded(0)), *ends, steps=12, scale=SCALES[scale],
        times=kept, generator=seeded(1),
    )  # fmt: skip
    means, variances = discrete_moments(case, grid, SCALES[scale])
    for i, state in enumerate(solution.trajectory):
        assert_moments(state, means[3 * i], variances[3 * i])


@pytest.mark.parametrize("case", [VP, RECTIFIED, COSINE, OT, VE], ids=str)
@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("forward", [True, False], ids=["generating", "noising"])
def test_samples_have_the_marginals_of_the_flow(case, scale, forward):
    """With many steps the law of x is p_t, whatever the scale; the confidence bound exceeds the error of the steps."""
    ends = (0.2, 0.95) if forward else (0.95, 0.2)
    truth, n = line(case), 3000
    solution = solvers.solve_sde(
        truth.velocity, case.path, truth.sample(n, ends[0], seeded(2)), *ends, steps=600, scale=scale,
        times=[ends[0], (ends[0] + ends[1]) / 2, ends[1]], generator=seeded(3),
    )  # fmt: skip
    for time, state in zip(solution.times.tolist(), solution.trajectory, strict=True):
        mean, std = (float(value) for value in truth.moments(number(time)))
        assert_moments(state, mean, std**2)
    assert solution.nfe == 600


def test_noise_replaces_memory():
    """At scale 1 the end hardly remembers the start, though its law is that of the flow; at scale 0 it does."""
    truth = line(VP)
    start = truth.sample(N, 0.0, seeded(4))
    remembered = []
    for scale in (0.0, 1.0):
        end = solvers.solve_sde(truth.velocity, VP.path, start, steps=200, scale=scale, generator=seeded(5)).x
        remembered.append(float(torch.corrcoef(torch.cat([start, end], dim=1).T)[0, 1]))
    assert remembered[0] > 0.999
    assert abs(remembered[1]) < 0.05


@pytest.mark.parametrize("case", [VP, VE], ids=str)
@pytest.mark.parametrize("ends", [(0.0, None), (0.9, 0.0), (0.3, 0.7)], ids=str)
@pytest.mark.parametrize("constant", [True, False])
def test_scale_zero_is_euler(case, ends, constant):
    truth = gaussian_flow(case)
    x = truth.sample(5, ends[0], seeded(6))
    scale = 0.0 if constant else lambda t: 0 * t
    stochastic = solvers.solve_sde(truth.velocity, case.path, x, *ends, steps=9, scale=scale, generator=seeded(7))
    last = case.path.t_max if ends[1] is None else ends[1]
    euler = solvers.solve(truth.velocity, x, ends[0], last, method="euler", steps=9)
    assert_close(stochastic.x, euler.x, rtol=1e-12, atol=1e-12)
    assert stochastic.nfe == euler.nfe == 9
    assert stochastic.times.tolist() == [ends[0], last]


@pytest.mark.parametrize("case", [RECTIFIED, COSINE], ids=str)
@pytest.mark.parametrize("scale", ["0", "t"])
def test_a_scale_that_vanishes_at_the_source_allows_a_start_at_zero(case, scale):
    """The diffusion of these paths is infinite at t = 0; zero times it counts as zero."""
    truth, grid = line(case), np.linspace(0, 0.9, 10).tolist()
    solution = solvers.solve_sde(
        truth.velocity, case.path, truth.sample(N, 0.0, seeded(8)), 0.0, 0.9, steps=9, scale=SCALES[scale],
        generator=seeded(9),
    )  # fmt: skip
    means, variances = discrete_moments(case, grid, SCALES[scale])
    assert_moments(solution.x, means[-1], variances[-1])


def test_one_step_at_a_time_and_float32():
    """The increments come from the generator in order, and do not depend on what is kept."""
    truth = gaussian_flow(VP, (2, 3))
    x = truth.sample(4, 0.0, seeded(10)).float()
    whole = solvers.solve_sde(truth.velocity, VP.path, x, 0.0, 0.6, steps=3, generator=seeded(11))
    generator, stepped = seeded(11), x
    for start in (0.0, 0.2, 0.4):
        end = start + 0.2
        stepped = solvers.solve_sde(truth.velocity, VP.path, stepped, start, end, steps=1, generator=generator).x
    assert whole.x.dtype == torch.float32
    assert whole.trajectory is None
    assert_close(whole.x, stepped, rtol=1e-4, atol=1e-4)
    kept = solvers.solve_sde(truth.velocity, VP.path, x, 0.0, 0.6, steps=3, times=[0.0, 0.6], generator=seeded(11))
    assert torch.equal(kept.trajectory, torch.stack([x, whole.x]))
    assert kept.times.tolist() == [0.0, 0.6]


def test_the_generator_alone_decides():
    truth = gaussian_flow(VP)
    x = truth.sample(4, 0.0, seeded(12))
    before = torch.random.get_rng_state()
    first, again, other = (
        solvers.solve_sde(truth.velocity, VP.path, x, steps=5, generator=seeded(seed)).x for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("ends", [(0.0, 0.99), (0.99, 0.0)])
def test_the_velocity_is_asked_once_a_step_within_the_interval(ends):
    asked = []

    def velocity(x, t):
        asked.append(float(t))
        assert t.shape == ()
        return torch.zeros_like(x)

    solution = solvers.solve_sde(velocity, VP.path, torch.zeros(2, 1).double(), *ends, steps=11, generator=seeded(0))
    assert asked == pytest.approx(np.linspace(*ends, 12)[:-1].tolist())
    assert solution.nfe == 11


def test_bad_input_is_refused():
    x = torch.zeros(3, 2)

    def still(x, t):
        return torch.zeros_like(x)

    with pytest.raises(ValueError, match="steps is 0"):
        solvers.solve_sde(still, VP.path, x, steps=0)
    with pytest.raises(ValueError, match="x0 has NaN"):
        solvers.solve_sde(still, VP.path, x * torch.nan)
    with pytest.raises(ValueError, match="times must lie on the grid of 10 steps"):
        solvers.solve_sde(still, VP.path, x, 0.0, 1.0, steps=10, times=[0.55])
    with pytest.raises(ValueError, match="nothing to solve"):
        solvers.solve_sde(still, VP.path, x, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"the diffusion of the rectified path is not finite at t = 0: .*small t0 > 0"):
        solvers.solve_sde(still, RECTIFIED.path, x)
    with pytest.raises(ValueError, match="the velocity returned shape"):
        solvers.solve_sde(lambda x, t: x[:, :1], VP.path, x)
    with pytest.raises(RuntimeError, match="stopped being finite"):
        solvers.solve_sde(lambda x, t: x * torch.nan, VP.path, x, steps=3)
