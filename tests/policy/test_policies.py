"""Policies: exact for Gaussian actions, and what the three learn from an expert with two ways."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fmcore.policy import (
    ChunkNetwork,
    DiffusionPolicy,
    FlowPolicy,
    PointRobot,
    RegressionPolicy,
    demonstrations,
    fit,
    rollout,
)
from fmcore.training import TrainingConfig
from fmcore.velocity import Evaluations
from tests.analytic import RECTIFIED, VP, schedules, seeded

ROBOT = PointRobot()
MEAN, STD = 1.5, 0.5


@pytest.fixture(scope="module")
def learned():
    """The three policies, after a second of training each."""
    shown = demonstrations(ROBOT, 300, 8, seeded(0))
    config = TrainingConfig(steps=400, batch=256, lr=1e-2, warmup=50, decay="cosine", ema=0.99)
    found = []
    for kind in (RegressionPolicy, FlowPolicy, DiffusionPolicy):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = ChunkNetwork(8)
        found.append(fit(kind(network), shown, config))
    return found


def test_regression_collides_where_a_flow_passes(learned):
    regression, flow, diffusion = (rollout(ROBOT, policy, 400, 8, seeded(1)) for policy in learned)
    # Over seeds: regression 0.04 to 0.19, the flow 0.80 or 0.81, the diffusion 0.37 to 0.47 after so short a training.
    success = [run.success.float().mean().item() for run in (regression, flow, diffusion)]
    assert success[0] < 0.35
    assert regression.collided.float().mean() > 0.65
    assert success[1] > 0.65
    assert success[2] > success[0] + 0.1
    for run in (flow, diffusion):
        assert 0.25 < run.left[run.success].float().mean() < 0.75


def test_from_one_observation_a_flow_goes_both_ways_and_regression_between(learned):
    start = ROBOT.observation(torch.tensor([ROBOT.start]).expand(500, 2))
    regression, flow = (policy(start, seeded(2))[:, :, 0].mean(dim=1) for policy in learned[:2])
    assert regression.std() < 1e-5
    assert regression.abs().max() < 0.5
    assert 0.15 < (flow > 0.7).float().mean() < 0.7
    assert 0.15 < (flow < -0.7).float().mean() < 0.7


def gaussian_network(case, predicts):
    """The exact prediction where all actions are N(MEAN, STD^2), whatever is observed."""

    class Exact:
        shape = (3, 2)

        def given(self, observation):
            def predict(x, t):
                alpha, sigma = (part.to(x.dtype) for part in schedules(case)(t.double()))
                gain = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
                noise, data = sigma * gain, MEAN + alpha * STD**2 * gain
                return noise if predicts == "noise" else data - noise  # the velocity of the straight path

            return predict

    return Exact()


@pytest.mark.parametrize("settings", [{"steps": 500, "bound": None}, {"method": "dopri5", "steps": None}], ids=str)
def test_a_diffusion_from_the_exact_noise_draws_the_actions(settings):
    policy = DiffusionPolicy(gaussian_network(VP, "noise"), **settings)
    z = torch.randn(200, 3, 2, generator=seeded(3))
    # The flow between Gaussians is affine, and the path ends at t = 0 with hardly any of the data left.
    assert_close(policy(torch.zeros(200, 2), seeded(3)), MEAN + STD * z, rtol=0, atol=0.02)


def test_a_flow_from_the_exact_velocity_draws_the_actions():
    policy = FlowPolicy(gaussian_network(RECTIFIED, "velocity"), method="rk4", steps=50)
    z = torch.randn(200, 3, 2, generator=seeded(4))
    assert_close(policy(torch.zeros(200, 2), seeded(4)), MEAN + STD * z, rtol=0, atol=1e-3)


def test_no_action_leaves_the_bound_of_ddim():
    actions = DiffusionPolicy(gaussian_network(VP, "noise"), steps=20, bound=1.0)(torch.zeros(500, 2), seeded(5))
    assert actions.max() == 1.0
    assert actions.min() >= -1.0
    assert actions.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings", "nfe"),
    [
        (RegressionPolicy, {}, 1),
        (FlowPolicy, {"steps": 5}, 5),
        (FlowPolicy, {"method": "midpoint", "steps": 5}, 10),
        (FlowPolicy, {"method": "rk4", "steps": 2}, 8),
        (DiffusionPolicy, {"steps": 7}, 7),
        (DiffusionPolicy, {"method": "heun", "steps": 3}, 6),
    ],
)
def test_evaluations_are_the_forward_passes_of_the_network(kind, settings, nfe):
    network = ChunkNetwork(3, width=8, depth=1)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    policy = kind(network.eval(), **settings)
    with Evaluations() as counted:
        policy(torch.zeros(4, 2), seeded(0))
        actions = policy(torch.zeros(4, 2), seeded(0))
    assert actions.shape == (4, 3, 2)
    assert not actions.requires_grad
    assert counted.total == len(calls) == 2 * nfe


def test_the_policy_that_was_fitted_has_the_averaged_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = FlowPolicy(ChunkNetwork(2, width=8, depth=1), steps=3)
    fitted = fit(policy, demonstrations(ROBOT, 4, 2, seeded(0)), TrainingConfig(steps=30, batch=8, lr=0.1, warmup=0))
    assert fitted.steps == 3
    assert not fitted.network.training
    last, averaged = (one.network.mlp.layers[0].weight for one in (policy, fitted))
    assert (last - averaged).abs().max() > 0.01  # the average lags behind, at this rate


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda net: FlowPolicy(net, method="ddim"), "unknown method 'ddim'"),
        (lambda net: FlowPolicy(net, steps=0), "steps is 0"),
        (lambda net: FlowPolicy(net, steps=None)(torch.zeros(1, 2)), "needs steps="),
        (lambda net: DiffusionPolicy(net, method="dddim"), "choose one of ddim, dopri5, euler"),
        (lambda net: DiffusionPolicy(net, steps=2.5), "a number of steps is a whole number"),
        (lambda net: DiffusionPolicy(net, bound=0.0), "bound=0.0: it is a number above 0"),
        (lambda net: ChunkNetwork(0), "chunk is 0"),
        (lambda net: RegressionPolicy(net)(torch.zeros(4, 3)), r"takes \(B, 3, 2\) and \(B, 2\)"),
        (lambda net: fit(FlowPolicy(net), demonstrations(ROBOT, 2, 5), TrainingConfig(steps=1)), r"\(B, 3, 2\)"),
    ],
)
def test_what_a_policy_cannot_be_is_said(make, said):
    with pytest.raises(ValueError, match=said):
        make(ChunkNetwork(3, width=8, depth=1))
