"""The expert: it always arrives, on either side equally often, and its chunks are what it did next."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from fmcore.policy import PointRobot, demonstrations
from tests.analytic import seeded

ROBOT = PointRobot()
RUNS = 2000


@pytest.fixture(scope="module")
def shown():
    return demonstrations(ROBOT, RUNS, 4, seeded(0))


def test_every_run_arrives_and_none_comes_near_the_obstacle(shown):
    share = torch.linspace(0, 1, 50)[:, None, None, None]
    along = (1 - share) * shown.states[:-1] + share * shown.states[1:]  # points of all segments
    assert along.norm(dim=-1).min() > ROBOT.obstacle.radius + 0.1
    arrived = (along - torch.tensor(ROBOT.goal)).norm(dim=-1).flatten(0, 1).min(dim=0).values <= ROBOT.goal_radius
    assert arrived.all()
    assert shown.states.diff(dim=0).norm(dim=-1).max() < ROBOT.max_speed * ROBOT.dt + 6 * ROBOT.noise


def test_sides_are_those_of_a_fair_coin_whatever_the_start(shown):
    deviation = math.sqrt(RUNS / 4)
    assert abs(int(shown.left.sum()) - RUNS / 2) < 4 * deviation
    starts_left = shown.states[0, :, 0] < 0
    assert abs(int((shown.left == starts_left).sum()) - RUNS / 2) < 4 * deviation
    level = shown.states[:, :, 1].abs().argmin(dim=0)
    beside = shown.states[level, torch.arange(RUNS), 0]
    assert torch.equal(shown.left, beside < 0)
    assert beside.abs().min() > ROBOT.obstacle.radius


def test_chunks_are_the_actions_that_followed_and_then_it_waits():
    still = replace(ROBOT, noise=0.0)
    n, chunk = 5, 4
    shown = demonstrations(still, n, chunk, seeded(1))
    steps = len(shown.states) - 1
    assert shown.observations.shape == (steps * n, 2)
    after = shown.observations.reshape(steps, n, 1, 2) + still.dt * shown.actions.reshape(steps, n, chunk, 2).cumsum(2)
    last = shown.states[-1:].expand(chunk, -1, -1)
    expected = torch.cat([shown.states, last])
    for ahead in range(chunk):
        assert_close(after[:, :, ahead], expected[ahead + 1 : ahead + 1 + steps], rtol=0, atol=1e-4)


def test_the_mean_of_left_and_right_drives_into_the_obstacle():
    """From the symmetric start each side's own mean passes, and the mean of the two touches."""
    middle = replace(ROBOT, spread=0.0, noise=0.0)
    steps = round(0.75 * middle.horizon)
    shown = demonstrations(middle, 200, steps, seeded(2))
    plans = shown.actions[:200]  # from the start: the whole run in one chunk
    left, right = plans[shown.left].mean(dim=0), plans[~shown.left].mean(dim=0)
    nearest = {}
    for name, plan in {"left": left, "right": right, "mean": (left + right) / 2}.items():
        way = torch.tensor(middle.start) + middle.dt * torch.cat([torch.zeros(1, 2), plan]).cumsum(dim=0)
        nearest[name] = middle.obstacle.clearance(way[:-1], way[1:]).min().item()
    assert nearest["left"] > 0.2
    assert nearest["right"] > 0.2
    assert nearest["mean"] < -0.5


def test_the_same_seed_shows_the_same_and_another_does_not():
    first, again, other = (demonstrations(ROBOT, 3, 2, seeded(seed)).actions for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_the_expert_cannot_do_is_said():
    with pytest.raises(ValueError, match="the expert fails in 20 of 20 runs.*larger horizon"):
        demonstrations(replace(ROBOT, max_speed=1.0), 20, 4, seeded(0))
    with pytest.raises(ValueError, match="chunk is 0"):
        demonstrations(ROBOT, 20, 0)
    with pytest.raises(ValueError, match="n is 0"):
        demonstrations(ROBOT, 0, 4)
    with pytest.raises(TypeError, match="pass a torch.Generator"):
        demonstrations(ROBOT, 20, 4, 0)
