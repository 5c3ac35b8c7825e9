"""Paths, conversions, solver and likelihood of Meta's flow_matching; conventions.py says how they translate."""

from __future__ import annotations

import pytest
import torch

from fmcore import closed_form, likelihood, losses, networks, paths, solvers, sources
from tests.peers.conventions import agree, pairs

flow_matching = pytest.importorskip(
    "flow_matching.path",
    reason="Meta's flow_matching is not installed: `make bench` installs it in build/peers, for PYTHONPATH",
)
scheduler = pytest.importorskip("flow_matching.path.scheduler")
solver = pytest.importorskip("flow_matching.solver")

PATHS = {
    "rectified": (paths.rectified, flow_matching.CondOTProbPath),
    "variance preserving": (
        paths.variance_preserving,
        lambda: flow_matching.AffineProbPath(scheduler.VPScheduler()),
    ),
    "variance preserving, other rates": (
        lambda: paths.variance_preserving(beta_min=0.5, beta_max=8.0),
        lambda: flow_matching.AffineProbPath(scheduler.VPScheduler(beta_min=0.5, beta_max=8.0)),
    ),
    "cosine": (paths.cosine, lambda: flow_matching.AffineProbPath(scheduler.CosineScheduler())),
}
both_paths = pytest.mark.parametrize("name", PATHS)


@both_paths
def test_points_and_targets(name):
    ours, theirs = (make() for make in PATHS[name])
    x0, x1, t = pairs()
    sample = theirs.sample(x_0=x0, x_1=x1, t=t)
    agree(ours, sample.x_t, sample.dx_t, x0, x1, t)


@both_paths
def test_conversions_between_predictions(name):
    ours, theirs = (make() for make in PATHS[name])
    value, x, t = pairs((4,))
    t = 0.01 + 0.98 * t
    axes = t[:, None]
    for converted, expected in (
        (ours.data_to_velocity(value, x, t), theirs.target_to_velocity(value, x, axes)),
        (ours.velocity_to_data(value, x, t), theirs.velocity_to_target(value, x, axes)),
        (ours.noise_to_velocity(value, x, t), theirs.epsilon_to_velocity(value, x, axes)),
        (ours.velocity_to_noise(value, x, t), theirs.velocity_to_epsilon(value, x, axes)),
    ):
        torch.testing.assert_close(converted, expected, rtol=1e-8, atol=1e-8)


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return networks.MLP(2).requires_grad_(False)


@both_paths
def test_loss_of_a_network(name):
    ours, theirs = (make() for make in PATHS[name])
    x0, x1, t = (value.float() for value in pairs((2,)))
    model = network()
    sample = theirs.sample(x_0=x0, x_1=x1, t=t)
    expected = torch.pow(model(sample.x_t, sample.t) - sample.dx_t, 2).mean()
    torch.testing.assert_close(losses.conditional_flow_matching(model, ours, x0, x1, t), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("ours", "theirs"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2")])
@pytest.mark.parametrize("backward", [False, True])
def test_solver_with_equal_steps(ours, theirs, backward):
    x0, _, _ = pairs((2,))
    x0, model = x0.float(), network()
    grid = torch.tensor([1.0, 0.0] if backward else [0.0, 1.0])
    expected = solver.ODESolver(velocity_model=model).sample(x0, step_size=0.05, method=theirs, time_grid=grid)
    found = solvers.solve(model, x0, t0=float(grid[0]), t1=float(grid[1]), method=ours, steps=20)
    torch.testing.assert_close(found.x, expected, rtol=1e-5, atol=1e-5)


def test_adaptive_solver():
    x0, _, _ = pairs((2,))
    x0, model = x0.float(), network()
    expected = solver.ODESolver(velocity_model=model).sample(x0, step_size=None, method="dopri5", rtol=1e-6, atol=1e-6)
    found = solvers.solve(model, x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.x, expected, rtol=1e-4, atol=1e-4)


def test_likelihood():
    """The flow of four points, up to t = 0.9: a smooth velocity that is known exactly."""
    x1 = torch.randn(16, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    data = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, 2.0], [0.3, -1.0]], dtype=torch.float64)
    exact = closed_form.EmpiricalVelocity(data)

    def velocity(x, t):  # their interval ends at t = 1: run the same flow there in stretched time
        return 0.9 * exact(x, 0.9 * t)

    source = sources.Gaussian((2,))
    grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
    x0, expected = solver.ODESolver(velocity_model=velocity).compute_likelihood(
        x1, source.log_prob, step_size=0.01, method="midpoint", time_grid=grid, exact_divergence=True
    )
    found = likelihood.log_likelihood(velocity, x1, source, method="midpoint", steps=100)
    torch.testing.assert_close(found.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.log_prob, expected, rtol=1e-8, atol=1e-8)
