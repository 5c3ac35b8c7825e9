"""Rollouts: which action is executed when, where robots stop, and that a seed repeats them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from fmcore.policy import ChunkNetwork, FlowPolicy, Obstacle, PointRobot, rollout
from tests.analytic import seeded

STILL = PointRobot(spread=0.0, noise=0.0)


def always(*actions):
    """The policy that plans the same chunk for all robots, and keeps what it was shown."""
    shown = []

    def policy(observation, generator=None):
        shown.append(observation)
        return torch.tensor(actions).expand(len(observation), -1, -1)

    return policy, shown


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_the_first_actions_of_each_chunk_are_executed(execute):
    robot = replace(STILL, horizon=7)
    policy, shown = always((0.1, 0.0), (0.2, 0.0), (0.3, 0.0))
    run = rollout(robot, policy, 2, execute)
    moved = run.states.diff(dim=0)[:, :, 0] / robot.dt
    expected = torch.tensor([(0.1, 0.2, 0.3)[step % execute] for step in range(7)])
    assert_close(moved, expected[:, None].expand(7, 2), rtol=0, atol=1e-5)
    assert len(shown) == run.nfe == math.ceil(7 / execute)
    for plan, observation in enumerate(shown):
        assert torch.equal(observation, run.states[plan * execute])  # the obstacle is at the origin
    assert not (run.success | run.collided).any()


def test_who_touches_the_obstacle_stands_still_and_has_failed():
    run = rollout(STILL, always((0.0, 2.0))[0], 1, 1)
    assert run.collided.all()
    assert not run.success.any()
    assert run.states[-1, 0, 1] < 0  # 24 steps of 0.4 would have led past the goal
    assert -1.0 <= run.states[-1, 0, 1] < -0.6  # at the edge, -1, or one step after it


def test_who_reaches_the_goal_stands_still_and_has_succeeded():
    beside = replace(STILL, obstacle=Obstacle((2.0, 0.0)))
    run = rollout(beside, always((0.0, 2.0))[0], 1, 1)
    assert run.success.all()
    assert not run.collided.any()
    assert run.left.all()
    assert torch.equal(run.states[-1], run.states[-2])
    assert abs(run.states[-1, 0, 1].item() - 3.0) <= beside.goal_radius


def test_a_robot_that_leaps_over_the_obstacle_has_touched_it():
    fast = PointRobot(spread=0.0, noise=0.0, max_speed=6.0, dt=1.0, horizon=2)
    run = rollout(fast, always((0.0, 6.0))[0], 1, 1)
    outside = (run.states.norm(dim=-1) > fast.obstacle.radius).all()
    assert outside
    assert run.collided.all()
    assert not run.success.any()


def test_a_seed_repeats_a_rollout_and_another_does_not():
    policy = FlowPolicy(ChunkNetwork(4, width=8, depth=1).eval(), steps=2)
    first, again, other = (rollout(PointRobot(), policy, 6, 2, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.states, again.states)
    assert not torch.equal(first.states, other.states)
    assert first.nfe == 24 / 2 * 2


@pytest.mark.parametrize(
    ("policy", "execute", "said"),
    [
        (always((0.0, 1.0), (0.0, 1.0))[0], 3, "execute=3: a chunk of this policy has 2 actions"),
        (always((0.0, 1.0))[0], 0, "execute is 0"),
        (always((0.0, 1.0))[0], 1.5, "a number of actions is a whole number"),
        (always((0.0, 1.0, 2.0))[0], 1, r"actions of shape \(5, 1, 3\) for 5 robots"),
        (lambda observation, generator: observation, 1, r"\(B, chunk, 2\) is due"),
        (always((0.0, math.nan))[0], 1, "action has NaN"),
    ],
)
def test_what_cannot_be_followed_is_said(policy, execute, said):
    with pytest.raises(ValueError, match=said):
        rollout(STILL, policy, 5, execute)
